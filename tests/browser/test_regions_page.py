"""The Regions page as a visitor has it: in a real browser, through the real server."""

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import BrowserContext, Page, expect

PLOT = ".normcore-plot"
DRAWN = """count => {
  const plots = [...document.querySelectorAll('.normcore-plot')];
  return plots.length === count && plots.every((plot) => plot._fullLayout?.scene?._scene?.glplot);
}"""
EYE = "() => document.querySelector('.normcore-plot')._fullLayout.scene._scene.getCamera().eye.x"
SHOWN = """() => {
  const { _fullData, _fullLayout } = document.querySelector('.normcore-plot');
  const { glplot, axesOptions } = _fullLayout.scene._scene;
  const numbers = (trace) => ['x', 'y', 'z', 'i', 'intensity', 'hovertext'].map((name) => [...(trace[name] ?? [])]);
  const objects = glplot.objects.map((drawn) => [drawn._trace.data.name, drawn.bounds]);
  return [_fullData.map(numbers), objects, glplot.bounds, axesOptions.ticks, axesOptions.labels];
}"""  # what the scene was given, and what it draws from
ONE = "method=group_norm"


@pytest.fixture
def visit(page: Page, app_url: str, settle: Callable[[Page], None]) -> Callable[..., Page]:
    """Open the page by a link and wait until its pictures are drawn."""

    def open_page(link: str = ONE, plots: int = 1) -> Page:
        page.goto(f"{app_url}/regions?{link}" if "://" not in link else link)
        settle(page)
        page.wait_for_function(DRAWN, arg=plots)
        return page

    return open_page


def says(page: Page, text: str, nth: int = 0) -> None:
    """Wait until a picture's description holds a text."""
    expect(page.locator(PLOT).nth(nth)).to_have_attribute("aria-label", re.compile(re.escape(text)))


def step(page: Page, key: str, times: int = 1) -> None:
    """Move a slider up."""
    for _ in range(times):
        page.locator(f".st-key-{key} input[type=range]").press("ArrowRight")


def test_the_first_visit_draws_four_methods(visit: Callable[..., Page]) -> None:
    page = visit("", plots=4)
    expect(page).to_have_title("Who shares a statistic?")
    for nth, count in enumerate(("6 statistics", "4 statistics", "24 statistics", "8 statistics")):
        says(page, count, nth)


def test_plots_stay_when_the_samples_are_pulled_apart(visit: Callable[..., Page]) -> None:
    page = visit("method=group_norm&method=layer_norm&method=batch_norm", plots=3)
    page.evaluate("document.querySelectorAll('.normcore-plot').forEach((plot) => { plot.kept = true; })")
    page.get_by_text("samples apart").click()
    page.wait_for_function(
        """() => {
          const plots = [...document.querySelectorAll('.normcore-plot')];
          const [first, second, third] = plots.map((plot) => plot.getBoundingClientRect());
          return plots.every((plot) => plot.kept) && third.x === first.x && second.x > first.x && third.y > first.y;
        }"""
    )


def test_a_change_keeps_the_plot_and_its_camera(visit: Callable[..., Page]) -> None:
    page = visit()
    page.evaluate("document.querySelector('.normcore-plot').kept = true")
    before = page.evaluate(EYE)
    page.locator(PLOT).press("ArrowLeft")
    page.wait_for_function(f"before => Math.abs(({EYE})() - before) > 0.01", arg=before)
    turned = page.evaluate(EYE)
    step(page, "N")
    says(page, "(5, 6, 4, 4)")
    says(page, "10 statistics, each over 48 values")
    assert page.evaluate("document.querySelector('.normcore-plot').kept")
    assert page.evaluate(EYE) == pytest.approx(turned)


def test_a_method_is_added_and_another_taken_away(visit: Callable[..., Page]) -> None:
    page = visit()
    box = page.locator(".st-key-method input")
    box.click()
    box.fill("rms_norm")
    page.get_by_role("option", name="rms_norm", exact=True).click()
    page.wait_for_function(DRAWN, arg=2)
    says(page, "RMSNorm on (n c h w)", 1)
    box.press("Escape")
    page.locator(".st-key-method").get_by_label("Remove group_norm").or_(
        page.locator(".st-key-method [data-tag-index='0'] [role=presentation]")
    ).first.click()
    page.wait_for_function(DRAWN, arg=1)
    says(page, "RMSNorm on (n c h w)")


def test_a_click_picks_the_element_under_the_pointer(visit: Callable[..., Page]) -> None:
    page = visit()
    page.locator(PLOT).click(position={"x": 250, "y": 200})
    page.wait_for_url(re.compile("light=one"))
    expect(page.locator(".st-key-c input[type=range]")).to_be_visible()
    page.wait_for_function("() => document.querySelector('.normcore-plot').data[4].x.length > 0")
    values = {key: page.locator(f".st-key-{key} input[type=range]").input_value() for key in "nchw"}
    assert any(value != "0" for value in values.values())
    expect(page.get_by_text(f"At element ({', '.join(values.values())})")).to_be_visible()


def test_a_link_restores_every_control(visit: Callable[..., Page], browser: BrowserContext) -> None:
    page = visit(f"{ONE}&C=12")
    page.get_by_role("radio", name="one element").click()
    page.wait_for_url(re.compile("light=one"))
    step(page, "n", 2)
    page.wait_for_url(re.compile("n=2"))
    page.get_by_role("radio", name="samples apart").click()
    page.wait_for_url(re.compile("arrange="))
    step(page, "num_groups")
    page.wait_for_url(re.compile("num_groups=3"))
    says(page, "12 statistics, each over 64 values")
    other = browser.new_page()
    other.goto(page.url)
    other.wait_for_function(DRAWN, arg=1, timeout=60_000)
    assert other.locator(PLOT).get_attribute("aria-label") == page.locator(PLOT).get_attribute("aria-label")
    for key in ("N", "C", "H", "W", "n", "c", "num_groups"):
        field = f".st-key-{key} input[type=range]"
        assert other.locator(field).get_attribute("aria-valuetext") == page.locator(field).get_attribute(
            "aria-valuetext"
        )
    assert other.get_by_role("radio", name="samples apart").is_checked()
    assert other.evaluate(SHOWN) == page.evaluate(SHOWN)
    other.close()


@pytest.mark.parametrize("link", ["num_groups=7", "N=-1", "N=1e9", "method=unknown", "C=1e999"])
def test_a_bad_link_gets_a_sentence_and_the_page(visit: Callable[..., Page], link: str) -> None:
    page = visit(link if link.startswith("method") else f"{ONE}&{link}", plots=4 if link.startswith("method") else 1)
    expect(page.get_by_test_id("stAlert")).to_have_count(1)
    expect(page.get_by_test_id("stAlert")).to_contain_text(link.split("=")[1])
    assert "Traceback" not in page.inner_text("body")


def test_both_themes_reach_the_picture(visit: Callable[..., Page], page: Page) -> None:
    ink = "() => document.querySelector('.normcore-plot')._fullLayout.font.color"
    visit()
    light = page.evaluate(ink)
    page.emulate_media(color_scheme="dark")
    visit()
    assert page.evaluate(ink) != light
    assert (
        page.evaluate("() => getComputedStyle(document.querySelector('.stApp')).backgroundColor")
        != "rgb(255, 255, 255)"
    )


def test_a_phone_shows_everything_without_scrolling_sideways(visit: Callable[..., Page], page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    visit(f"{ONE}&light=one+element")
    assert page.evaluate("() => document.querySelector('[data-testid=stMain]').scrollWidth") <= 390
    box = page.locator(PLOT).bounding_box()
    assert box
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 390


def test_the_flat_view_is_a_real_table(visit: Callable[..., Page]) -> None:
    page = visit(f"{ONE}&light=one+element&n=1")
    page.get_by_role("radio", name="Flat view").click()
    expect(page.get_by_role("table")).to_be_visible()
    expect(page.get_by_role("rowheader", name="sample 1")).to_be_visible()
    assert page.get_by_role("cell", name="●").count() == 1


def test_the_home_page_leads_on(page: Page, app_url: str, settle: Callable[[Page], None]) -> None:
    page.goto(app_url)
    settle(page)
    page.wait_for_function(DRAWN, arg=1)
    page.get_by_role("radio", name="group_norm").click()
    says(page, "GroupNorm on")
    page.get_by_role("link", name="Is LayerNorm GroupNorm with one group?").click()
    page.wait_for_url(re.compile(r"/regions\?.*method=layer_norm"))
    page.wait_for_function(DRAWN, arg=2)
    says(page, "GroupNorm on", 1)
    says(page, "4 statistics, each over 96 values", 1)


def test_presets_and_clicks_in_a_row_are_not_taken_for_links(visit: Callable[..., Page]) -> None:
    page = visit("", plots=4)
    for preset, shape, plots in (("BERT-base", "(8, 128, 768)", 3), ("One sample", "(1, 6, 4, 4)", 4)):
        page.get_by_role("button", name=preset).click()
        says(page, shape)
        page.wait_for_function(DRAWN, arg=plots)
        expect(page.get_by_test_id("stAlert")).to_have_count(0)
    page = visit(f"{ONE}&N=5")
    for spot in ({"x": 250, "y": 200}, {"x": 290, "y": 240}):
        before = page.locator(PLOT).get_attribute("aria-label")
        page.locator(PLOT).click(position=spot)
        expect(page.locator(PLOT)).not_to_have_attribute("aria-label", before or "")
        expect(page.get_by_test_id("stAlert")).to_have_count(0)
