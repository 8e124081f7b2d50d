"""The Statistics page as a visitor has it: in a real browser, through the real server."""

import io
import re
from collections.abc import Callable

import numpy as np
import pytest
from playwright.sync_api import BrowserContext, Page, expect

DRAWN = """count => {
  const plots = [...document.querySelectorAll('.normcore-plot')];
  return plots.length === count && plots.every((plot) => plot._fullLayout?.xaxis);
}"""
TABLE = "part=Table"


@pytest.fixture
def visit(page: Page, app_url: str, settle: Callable[[Page], None]) -> Callable[..., Page]:
    """Open the page by a link and wait until its pictures are drawn."""

    def open_page(link: str = TABLE, plots: int = 3) -> Page:
        page.goto(f"{app_url}/statistics?{link}")
        settle(page)
        page.wait_for_function(DRAWN, arg=plots)
        return page

    return open_page


def test_the_first_visit_shows_before_and_after_of_three_methods(visit: Callable[..., Page]) -> None:
    page = visit("", plots=6)
    expect(page).to_have_title("What does it do to my numbers?")
    expect(page.get_by_text("after: mean 0, deviation 1")).to_have_count(3)
    ranges = page.evaluate(
        "() => [...document.querySelectorAll('.st-key-pictures .normcore-plot')]"
        ".map((plot) => JSON.stringify([plot._fullLayout.xaxis.range, plot._fullLayout.xaxis2.range]))"
    )
    assert len(set(ranges)) == 1


def test_a_change_keeps_the_plots_and_reaches_them(visit: Callable[..., Page]) -> None:
    page = visit()
    page.evaluate("document.querySelector('.normcore-plot').kept = true")
    page.locator(".st-key-C input[type=range]").press("ArrowRight")
    expect(page.get_by_text("7 regions of 256 values")).to_be_visible()
    page.wait_for_function("() => document.querySelector('.normcore-plot')._fullLayout.yaxis.ticktext.length === 7")
    assert page.evaluate("document.querySelector('.normcore-plot').kept")


def test_a_link_restores_the_page(visit: Callable[..., Page], browser: BrowserContext) -> None:
    page = visit("input=padded+sentences&method=batch_norm&method=masked_batch_norm&part=Backward", plots=5)
    page.get_by_role("radio", name="tanh").click()
    page.wait_for_url(re.compile("activation=tanh"))
    page.get_by_role("radio", name="Masked BatchNorm").click()
    page.wait_for_url(re.compile("of=Masked"))
    page.locator(".st-key-region input[type=range]").press("ArrowRight")
    page.wait_for_url(re.compile("region=channel"))
    plots = "() => [...document.querySelectorAll('.normcore-plot')].map((plot) => plot.getAttribute('aria-label'))"
    page.wait_for_function(f"() => ({plots})().some((label) => label.includes('Masked BatchNorm, channel 1'))")
    other = browser.new_page()
    other.goto(page.url)
    other.wait_for_function(DRAWN, arg=5, timeout=60_000)
    assert other.evaluate(plots) == page.evaluate(plots)
    other.close()


def test_a_bad_link_gets_a_sentence_and_the_page(visit: Callable[..., Page]) -> None:
    page = visit("input=nonsense&part=Table")
    expect(page.get_by_test_id("stAlert")).to_have_count(1)
    expect(page.get_by_test_id("stAlert")).to_contain_text("input=nonsense")


def test_files_good_and_bad(visit: Callable[..., Page]) -> None:
    page = visit("input=my+own+file&method=layer_norm&activation=GELU&part=Table", plots=1)
    field = page.locator("input[type=file]")
    file = io.BytesIO()
    np.save(file, np.arange(72.0).reshape(2, 4, 3, 3))
    field.set_input_files({"name": "mine.npy", "mimeType": "application/octet-stream", "buffer": file.getvalue()})
    expect(page.get_by_text("mine.npy: 2 × 4 × 3 × 3 values.")).to_be_visible()
    expect(page.get_by_text("2 regions of 36 values")).to_be_visible()
    bad = file.getvalue()[:-40]
    field.set_input_files({"name": "cut.npy", "mimeType": "application/octet-stream", "buffer": bad})
    expect(page.get_by_test_id("stAlert")).to_contain_text("cut.npy: a damaged .npy file")
    expect(page.get_by_role("radio", name="GELU")).to_be_checked()
    expect(page.get_by_role("heading", name="LayerNorm")).to_be_visible()


def test_a_phone_shows_everything_without_scrolling_sideways(visit: Callable[..., Page], page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    visit("method=batch_norm&part=Backward", plots=4)
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 390
    for plot in page.locator(".normcore-plot").all():
        box = plot.bounding_box()
        assert box
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 390
