"""The Batch page as a visitor has it: in a real browser, through the real server."""

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import BrowserContext, Page, expect

PLOT = ".normcore-plot:visible"  # a tab that was left keeps its plot until the run is over
DRAWN = "() => document.querySelector('.normcore-plot')?._fullLayout?.xaxis"


@pytest.fixture
def visit(page: Page, app_url: str, settle: Callable[[Page], None]) -> Callable[..., Page]:
    """Open the page by a link and wait until its figure is drawn."""

    def open_page(link: str = "") -> Page:
        page.goto(f"{app_url}/batch?{link}")
        settle(page)
        page.wait_for_function(DRAWN)
        return page

    return open_page


def says(page: Page, text: str) -> None:
    """Wait until the figure's description holds a text."""
    expect(page.locator(PLOT)).to_have_attribute("aria-label", re.compile(text))


def test_a_change_redraws_the_same_figure_and_survives_another_tab(visit: Callable[..., Page]) -> None:
    page = visit()
    expect(page).to_have_title("Who else decides my output?")
    page.evaluate("document.querySelector('.normcore-plot').kept = true")
    before = page.locator(PLOT).get_attribute("aria-label") or ""
    page.locator(".st-key-momentum input[type=range]").press("ArrowRight")
    expect(page.locator(PLOT)).not_to_have_attribute("aria-label", before)
    expect(page.get_by_text("PyTorch and here: momentum=0.3")).to_be_visible()
    assert page.evaluate("document.querySelector('.normcore-plot').kept")
    page.get_by_role("tab", name="Padding").click()
    says(page, "of the positions are padding")
    page.get_by_role("tab", name="Over time").click()
    expect(page.get_by_text("PyTorch and here: momentum=0.3")).to_be_visible()


def test_a_link_restores_the_tab_and_its_controls(visit: Callable[..., Page], browser: BrowserContext) -> None:
    page = visit("about=Swap+a+neighbor")
    says(page, r" [1-9]\d* changed your output")
    page.get_by_role("radio", name="evaluation").click()
    says(page, " 0 changed your output")
    page.locator(".st-key-among input[type=range]").press("ArrowRight")
    page.wait_for_url(re.compile("among=16"))
    other = browser.new_page()
    other.goto(page.url)
    other.wait_for_function(DRAWN, timeout=60_000)
    assert other.get_by_role("tab", name="Swap a neighbor").get_attribute("aria-selected") == "true"
    assert other.get_by_role("radio", name="evaluation").is_checked()
    assert other.locator(PLOT).get_attribute("aria-label") == page.locator(PLOT).get_attribute("aria-label")
    other.close()


def test_a_bad_link_gets_a_sentence_and_the_page(visit: Callable[..., Page]) -> None:
    page = visit("about=Batch+size&samples=7")
    expect(page.get_by_test_id("stAlert")).to_have_count(1)
    expect(page.get_by_test_id("stAlert")).to_contain_text("samples=7")
    assert "Traceback" not in page.inner_text("body")


@pytest.mark.parametrize("tab", ["Over+time", "Padding"])
def test_a_phone_shows_everything_without_scrolling_sideways(visit: Callable[..., Page], page: Page, tab: str) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    visit(f"about={tab}")
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 390
    box = page.locator(PLOT).bounding_box()
    assert box
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 390


def test_the_table_comes_as_csv(visit: Callable[..., Page]) -> None:
    page = visit("about=Accumulation")
    with page.expect_download() as download:
        page.locator(".st-key-accumulated_download button").click()
    head, first, *rest = download.value.path().read_text().splitlines()
    assert head == "method,micro-batches,difference of the gradient,difference of the output"
    assert first == "BatchNorm,1,0.0,0.0"
    assert len(rest) == 4 * 6 - 1
