"""The Equality page as a visitor has it: in a real browser, through the real server."""

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import BrowserContext, Page, expect

PLOT = ".normcore-plot"
DRAWN = """count => {
  const plots = [...document.querySelectorAll('.normcore-plot')];
  return plots.length === count && plots.every((plot) => plot._fullLayout);
}"""
CELL = """([row, column]) => {
  const plot = document.querySelector('.normcore-plot');
  const { xaxis, yaxis } = plot._fullLayout, box = plot.getBoundingClientRect();
  return [box.x + xaxis._offset + xaxis.l2p(column), box.y + yaxis._offset + yaxis.l2p(row)];
}"""


@pytest.fixture
def visit(page: Page, app_url: str, settle: Callable[[Page], None]) -> Callable[..., Page]:
    """Open the page by a link and wait until its figures are drawn."""

    def open_page(link: str = "", plots: int = 2) -> Page:
        page.goto(f"{app_url}/equality?{link}")
        settle(page)
        page.wait_for_function(DRAWN, arg=plots)
        return page

    return open_page


def says(page: Page, words: str) -> None:
    expect(page.locator(PLOT).first).to_have_attribute("aria-label", re.compile(re.escape(words)))


def test_edges_snap_to_equal_while_a_slider_moves(visit: Callable[..., Page]) -> None:
    page = visit("num_groups=3")
    says(page, "3 of 66 pairs are the same")
    page.evaluate("document.querySelector('.normcore-plot').kept = true")
    page.locator(".st-key-num_groups input[type=range]").press("ArrowRight")
    says(page, "4 of 66 pairs are the same")
    expect(page.get_by_text("InstanceNorm = GroupNorm")).to_be_visible()
    assert page.evaluate("document.querySelector('.normcore-plot').kept")


def test_a_click_on_a_cell_shows_its_pair_and_the_condition_can_be_met(visit: Callable[..., Page]) -> None:
    page = visit()
    page.locator(PLOT).first.scroll_into_view_if_needed()
    x, y = page.evaluate(CELL, [2, 0])
    page.mouse.move(x - 3, y)
    page.mouse.move(x, y)
    page.wait_for_timeout(300)
    page.mouse.click(x, y)
    page.wait_for_url(re.compile("one=instance_norm&other=batch_norm"))
    expect(page.get_by_text("InstanceNorm and BatchNorm.")).to_be_visible()
    page.get_by_role("button", name="Make it so").first.click()
    page.wait_for_url(re.compile("N=1"))
    expect(page.get_by_text("Here they are one method under two names.")).to_be_visible()


def test_a_link_restores_the_page(
    visit: Callable[..., Page], browser: BrowserContext, settle: Callable[[Page], None]
) -> None:
    page = visit("tab=What+moves+their+output%3F")
    page.locator(".st-key-C input[type=range]").press("ArrowRight")
    page.wait_for_url(re.compile("C=7"))
    settle(page)  # a click on what is just drawn anew is lost
    page.get_by_role("radio", name="evaluation").click()
    page.wait_for_url(re.compile("mode=evaluation"))
    says(page, "12 methods against 10 changes")
    other = browser.new_page()
    other.goto(page.url)
    other.wait_for_function(DRAWN, arg=2, timeout=60_000)
    expect(other.get_by_role("tab", name="What moves their output?")).to_have_attribute("aria-selected", "true")
    expect(other.get_by_text("they have seen 20 batches")).to_be_visible()
    assert other.locator(PLOT).first.get_attribute("aria-label") == page.locator(PLOT).first.get_attribute("aria-label")
    other.close()


def test_a_bad_link_gets_a_sentence_and_the_page(visit: Callable[..., Page]) -> None:
    page = visit("one=no_norm&num_groups=99")
    expect(page.get_by_test_id("stAlert")).to_have_count(2)
    expect(page.get_by_test_id("stAlert").first).to_contain_text("num_groups=99")
    assert "Traceback" not in page.inner_text("body")


@pytest.mark.parametrize("link", ["", "tab=What+moves+their+output%3F"])
def test_a_phone_shows_everything_without_scrolling_sideways(visit: Callable[..., Page], page: Page, link: str) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    visit(link)
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 390
    boxes = [plot.bounding_box() for plot in page.locator(PLOT).all()]
    assert all(box and box["x"] >= 0 and box["x"] + box["width"] <= 390 for box in boxes)
