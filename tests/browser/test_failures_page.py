"""The Failure gallery as a visitor has it: a question, an answer, a picture, and a link to all of it."""

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import BrowserContext, Page, expect

PLOT = ".normcore-plot"
DRAWN = "() => document.querySelector('.normcore-plot')?._fullData?.length"
PADDING = "failure=Statistics+over+padding&answer_padding=1.5+and+2.75"


@pytest.fixture
def visit(page: Page, app_url: str, settle: Callable[[Page], None]) -> Callable[[str], Page]:
    """Open the page by a link."""

    def open_page(link: str = "") -> Page:
        page.goto(f"{app_url}/failures?{link}")
        settle(page)
        expect(page.get_by_role("heading", name="What goes wrong?")).to_be_visible()
        return page

    return open_page


def test_an_answer_reveals_and_another_failure_asks_anew(visit: Callable[[str], Page]) -> None:
    page = visit("")
    expect(page).to_have_title("What goes wrong?")
    expect(page.locator(PLOT)).to_have_count(0)
    page.get_by_text("Only the sign of the value", exact=True).click()
    page.wait_for_function(DRAWN)
    expect(page.get_by_test_id("stAlert").first).to_contain_text("It is otherwise. The same number, whatever the value")
    page.wait_for_url(re.compile("answer_one_value=Only"))
    page.get_by_role("radio", name="A batch of two").click()
    expect(page.get_by_text("What is left of each channel's two values?")).to_be_visible()
    expect(page.locator(PLOT)).to_have_count(0)
    page.get_by_text("Just show me", exact=True).click()
    page.wait_for_function(DRAWN)
    assert page.evaluate("() => document.querySelector('.normcore-plot')._fullLayout.xaxis.type") == "log"


def test_a_link_restores_the_failure_and_the_answer(visit: Callable[[str], Page]) -> None:
    page = visit(PADDING)
    page.wait_for_function(DRAWN)
    expect(page.get_by_test_id("stAlert").first).to_contain_text("Right. 1.5 and 2.75")
    expect(page.locator(PLOT)).to_have_attribute("aria-label", re.compile("share of padding"))
    expect(page.get_by_text("What helps.")).to_be_visible()


def test_a_bad_link_gets_a_sentence(visit: Callable[[str], Page]) -> None:
    page = visit("failure=Nonsense")
    expect(page.get_by_test_id("stAlert")).to_contain_text("failure=Nonsense")
    expect(page.get_by_text("What do you expect?")).to_be_visible()


def test_its_link_leads_to_the_page_that_shows_more(visit: Callable[[str], Page]) -> None:
    page = visit("answer_one_value=Just+show+me")
    page.wait_for_function(DRAWN)
    page.get_by_role("link", name="Turn these regions yourself").click()
    page.wait_for_url(re.compile(r"/regions\?.*H=1"))
    expect(page.get_by_role("heading", name="Who shares a statistic?")).to_be_visible()


def test_a_phone_needs_no_sideways_scroll(
    browser: BrowserContext, app_url: str, settle: Callable[[Page], None]
) -> None:
    page = browser.new_page()
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(f"{app_url}/failures?{PADDING}")
    page.wait_for_function(DRAWN, timeout=60_000)
    settle(page)
    widths = page.evaluate(
        "() => { const m = document.querySelector('[data-testid=stMain]'); return [m.scrollWidth, m.clientWidth]; }"
    )
    assert widths[0] <= widths[1]
    assert page.locator(PLOT).bounding_box()["width"] <= 390  # type: ignore[index]
    page.close()
