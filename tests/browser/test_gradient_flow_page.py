"""The Gradient flow page as a visitor has it: instant at the first weights, live while it learns, whole in its link."""

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import BrowserContext, Page, expect

PLOT = ".normcore-plot"
DRAWN = """count => {
  const plots = [...document.querySelectorAll('.normcore-plot')];
  return plots.length >= count && plots.every((plot) => plot._fullLayout?.xaxis);
}"""
SMALL = "depth=8&width=8&batch=8"
NETS = f"{SMALL}&net=RNN&activation=tanh&start=orthogonal"


@pytest.fixture
def visit(page: Page, app_url: str, settle: Callable[[Page], None]) -> Callable[..., Page]:
    """Open the page by a link and wait until its pictures are drawn."""

    def open_page(link: str = SMALL, plots: int = 3) -> Page:
        page.set_viewport_size({"width": 1440, "height": 900})
        page.goto(f"{app_url}/gradient_flow?{link}")
        settle(page)
        page.wait_for_function(DRAWN, arg=plots)
        return page

    return open_page


def says(page: Page, text: str) -> None:
    expect(page.locator("[data-testid=stMain]")).to_contain_text(text)


def test_the_advice_mends_the_gradient(visit: Callable[..., Page]) -> None:
    page = visit()
    expect(page).to_have_title("Where does the gradient die or explode?")
    says(page, "The gradient vanishes")
    page.evaluate("document.querySelector('.normcore-plot').kept = true")
    page.locator(".st-key-flip button").click()
    says(page, "The gradient arrives")
    assert page.evaluate("document.querySelector('.normcore-plot').kept")


def test_a_control_redraws_and_the_link_keeps_it(visit: Callable[..., Page]) -> None:
    page = visit()
    page.locator(".st-key-depth input[type=range]").press("ArrowRight")
    expect(page.locator(PLOT).first).to_have_attribute("aria-label", re.compile("10 layers of 8, sigmoid"))
    assert "depth=10" in page.url
    again = visit(page.url.split("?")[1])
    expect(again.locator(PLOT).first).to_have_attribute("aria-label", re.compile("10 layers of 8, sigmoid"))


def test_it_learns_before_your_eyes(visit: Callable[..., Page]) -> None:
    page = visit(f"{NETS}&tab=While+it+learns&steps=20", plots=0)
    page.locator(".st-key-learning_go button").click()
    expect(page.locator(".stProgress")).to_contain_text("Finished · 20 of 20")
    page.wait_for_function(DRAWN, arg=2)
    expect(page.locator(PLOT).first).to_have_attribute("aria-label", re.compile("8 time steps and 20 steps"))


def test_a_bad_link_gets_a_sentence(visit: Callable[..., Page]) -> None:
    page = visit("depth=9999&norm=nonsense")
    says(page, "The link asks for depth=9999")
    says(page, "norm=nonsense")
    says(page, "The gradient vanishes")


def test_nothing_is_wider_than_a_phone(browser: BrowserContext, app_url: str, settle: Callable[[Page], None]) -> None:
    phone = browser.new_page()
    phone.set_viewport_size({"width": 390, "height": 844})
    phone.goto(f"{app_url}/gradient_flow?{SMALL}")
    settle(phone)
    phone.wait_for_function(DRAWN, arg=3)
    assert phone.evaluate("() => document.documentElement.scrollWidth") <= 390
    assert phone.evaluate("() => [...document.querySelectorAll('.normcore-plot')].every(p => p.clientWidth <= 390)")
    phone.close()
