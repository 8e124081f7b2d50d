"""The Clipping page as a visitor has it: in a real browser, through the real server."""

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import BrowserContext, Page, expect

PLOT = ".normcore-plot"
DRAWN = """count => {
  const plots = [...document.querySelectorAll('.normcore-plot')];
  return plots.length === count && plots.every((plot) => plot._fullLayout);
}"""
PLACE = """([nth, x, y]) => {
  const plot = document.querySelectorAll('.normcore-plot')[nth];
  const { xaxis, yaxis } = plot._fullLayout, box = plot.getBoundingClientRect();
  return [box.x + xaxis._offset + xaxis.l2p(x), box.y + yaxis._offset + yaxis.l2p(y)];
}"""
STILL = """async () => {
  const told = () => document.querySelector('.normcore-plot').getAttribute('aria-label');
  const before = told();
  await new Promise((done) => setTimeout(done, 1000));
  return told() === before;
}"""
CLIFF = "tab=The+cliff"


@pytest.fixture
def visit(page: Page, app_url: str, settle: Callable[[Page], None]) -> Callable[..., Page]:
    """Open the page by a link and wait until its figures are drawn."""

    def open_page(link: str = "", plots: int = 3) -> Page:
        page.goto(f"{app_url}/clipping?{link}")
        settle(page)
        page.wait_for_function(DRAWN, arg=plots)
        return page

    return open_page


def says(page: Page, words: str, nth: int = 0) -> None:
    expect(page.locator(PLOT).nth(nth)).to_have_attribute("aria-label", re.compile(re.escape(words)))


def click(page: Page, nth: int, x: float, y: float) -> None:
    """Click on a place in a flat plot, named by its axes."""
    page.locator(PLOT).nth(nth).scroll_into_view_if_needed()
    left, top = page.evaluate(PLACE, [nth, x, y])
    page.mouse.move(left - 3, top)
    page.mouse.move(left, top)
    page.wait_for_timeout(300)
    page.mouse.click(left, top)


def test_a_slider_and_a_click_move_the_gradient(visit: Callable[..., Page]) -> None:
    page = visit("variant=clip_by_value")
    expect(page).to_have_title("What does clipping do to a gradient?")
    says(page, "Clip by Value makes it (1, 1): 1.41 long, 0.141 of what it was, turned by 39°")
    page.evaluate("document.querySelector('.normcore-plot').kept = true")
    page.locator(".st-key-second input[type=range]").press("ArrowRight")
    says(page, "The gradient (10, 1.25) as an arrow")
    click(page, 0, -6.0, 8.0)
    says(page, "The gradient (−6, 8) as an arrow")
    says(page, "makes it (−1, 1)")
    page.wait_for_url(re.compile(r"first=-6"))
    assert page.evaluate("document.querySelector('.normcore-plot').kept")
    expect(page.get_by_test_id("stAlert")).to_have_count(0)


def test_a_link_restores_the_page(visit: Callable[..., Page], browser: BrowserContext) -> None:
    page = visit("variant=clip_by_global_norm")
    page.locator(".st-key-clip_at input[type=range]").press("ArrowRight")
    page.wait_for_url(re.compile("clip_at=2"))
    says(page, "2 long, 0.199 of what it was")
    other = browser.new_page()
    other.goto(page.url)
    other.wait_for_function(DRAWN, arg=3, timeout=60_000)
    assert other.locator(PLOT).first.get_attribute("aria-label") == page.locator(PLOT).first.get_attribute("aria-label")
    other.close()


def test_the_descents_roll_pause_and_start_elsewhere(visit: Callable[..., Page]) -> None:
    page = visit(f"{CLIFF}&until_40=2")
    says(page, "after 2 of 40 steps")
    page.get_by_role("button", name="Roll", exact=True).click()
    says(page, "Without clipping: its longest step, number 3, went 6.29 far")
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_role("button", name="Roll", exact=True)).to_be_visible()
    page.wait_for_function(STILL)  # what was on its way when the click came is drawn, and then nothing more
    assert "after 40 of 40 steps" not in (page.locator(PLOT).first.get_attribute("aria-label") or "")
    page.get_by_role("button", name="Reset", exact=True).click()
    says(page, "after 0 of 40 steps")
    click(page, 1, 4.4, -1.9)
    says(page, "starts at (4.4, −1.9)", 1)
    page.wait_for_url(re.compile("w=4.4"))


@pytest.mark.parametrize("link", ["first=77", "clip_at=-3", "variant=no_such_rule"])
def test_a_bad_link_gets_a_sentence_and_the_page(visit: Callable[..., Page], link: str) -> None:
    page = visit(link, plots=4)
    expect(page.get_by_test_id("stAlert")).to_have_count(1)
    expect(page.get_by_test_id("stAlert")).to_contain_text(link.split("=")[1])


@pytest.mark.parametrize(("link", "plots"), [("", 4), (CLIFF, 3)])
def test_a_phone_shows_everything_without_scrolling_sideways(
    visit: Callable[..., Page], page: Page, link: str, plots: int
) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    visit(link, plots)
    assert page.evaluate("() => document.querySelector('[data-testid=stMain]').scrollWidth") <= 390
