"""The Race page as a visitor has it: it runs, stops, is found again, and follows its link."""

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import BrowserContext, Page, expect

PLOT = ".normcore-plot"
DRAWN = "() => document.querySelector('.normcore-plot')?._fullLayout?.xaxis"
SMALL = "steps=100&seeds=2&batch=16&width=8"
LONG = "steps=3200&seeds=2&batch=16&width=8"
STEP = "() => Number(document.querySelector('.stProgress').innerText.match(/step ([0-9,]+)/)[1].replace(',', ''))"
LONGER = f"(count) => ({STEP})() > count"


@pytest.fixture
def visit(page: Page, app_url: str, settle: Callable[[Page], None]) -> Callable[..., Page]:
    """Open the page by a link and wait until it is all there."""

    def open_page(link: str = SMALL) -> Page:
        page.set_viewport_size({"width": 1440, "height": 900})
        page.goto(f"{app_url}/race?{link}")
        settle(page)
        expect(page.locator(".st-key-go button")).to_be_visible()
        if "show" not in link:
            page.wait_for_function(DRAWN)
        return page

    return open_page


def press(page: Page, key: str) -> None:
    page.locator(f".st-key-{key} button").click()


def go_to(page: Page, section: str, name: str) -> None:
    """Choose a page in the navigation."""
    page.get_by_test_id("stTopNavSection").filter(has_text=section).click()
    page.get_by_test_id("stTopNavDropdownLink").filter(has_text=re.compile(f"{name}$")).click()


def test_curves_grow_in_the_same_picture_until_the_end(visit: Callable[..., Page]) -> None:
    page = visit()
    expect(page).to_have_title("Which one trains better?")
    page.evaluate("document.querySelector('.normcore-plot').kept = true")
    press(page, "go")
    expect(page.locator(".stProgress")).to_contain_text("Finished · step 100 of 100", timeout=30_000)
    expect(page.locator(PLOT).first).to_have_attribute("aria-label", re.compile("up to step 99"))
    expect(page.get_by_text("The verdict")).to_be_visible()
    assert page.evaluate("document.querySelector('.normcore-plot').kept")
    page.wait_for_function("() => document.querySelector('.normcore-plot')._fullData.some((t) => t.x.length === 100)")


def test_it_stops_at_once_and_is_found_again_as_it_was(visit: Callable[..., Page]) -> None:
    page = visit(LONG)
    press(page, "go")
    page.wait_for_function(LONGER, arg=20)
    press(page, "pause")
    expect(page.locator(".st-key-go button")).to_have_text(re.compile("Go on"))
    page.wait_for_timeout(500)
    stopped = page.evaluate(STEP)
    page.wait_for_timeout(700)
    assert page.evaluate(STEP) == stopped
    go_to(page, "Look up", "Methods")
    expect(page).to_have_title("Which methods are there?")
    go_to(page, "Train", "Race")
    expect(page).to_have_title("Which one trains better?")
    expect(page.locator(".stProgress")).to_contain_text(f"step {stopped:,} of 3,200")
    expect(page.locator(".st-key-steps [data-testid=stSliderThumbValue]")).to_have_text("3200")
    press(page, "go")
    page.wait_for_function(LONGER, arg=stopped)


def test_no_change_is_lost_while_a_race_runs(visit: Callable[..., Page]) -> None:
    page = visit(f"{LONG}&speed=10+steps+a+second")
    press(page, "go")
    page.wait_for_function(LONGER, arg=2)
    views = ["Difference", "Held out", "Gradients", "Activations", "Curves"]
    for name in views:
        page.get_by_role("radio", name=name).click()
        expect(page.get_by_role("radio", name=name)).to_have_attribute("aria-checked", "true")
        if name == "Difference":
            expect(page.locator(PLOT).first).to_have_attribute("aria-label", re.compile("Loss less that of BatchNorm"))
    slider = page.locator(".st-key-batch input[type=range]")
    for expected in ("32", "64", "128"):
        slider.press("ArrowRight")
        expect(page.locator(".st-key-batch [data-testid=stSliderThumbValue]")).to_have_text(expected)
        page.wait_for_url(re.compile(f"batch={expected}|(?!.*batch=)"))
    expect(page.get_by_text("Below is the race before your change.")).to_be_visible()
    press(page, "pause")


def test_a_link_restores_the_setup_and_the_same_seed_gives_the_same_race(
    visit: Callable[..., Page], browser: BrowserContext
) -> None:
    page = visit(f"{SMALL}&racer=batch_norm&racer=none&seed=5&show=Difference&rate=0.01")
    press(page, "go")
    expect(page.locator(".stProgress")).to_contain_text("Finished", timeout=30_000)
    expect(page.locator(PLOT).first).to_have_attribute("aria-label", re.compile("up to step 99"))
    described = page.locator(PLOT).first.get_attribute("aria-label")
    other = browser.new_page()
    other.set_viewport_size({"width": 390, "height": 844})
    other.goto(page.url)
    other.wait_for_selector(".st-key-go button", timeout=60_000)
    other.locator(".st-key-go button").click()
    expect(other.locator(".stProgress")).to_contain_text("Finished", timeout=60_000)
    expect(other.locator(PLOT).first).to_have_attribute("aria-label", described or "", timeout=20_000)
    assert other.evaluate("() => document.documentElement.scrollWidth") <= 390
    other.close()


def test_a_bad_link_gets_a_sentence_and_a_race(visit: Callable[..., Page]) -> None:
    page = visit(f"{SMALL}&racer=foo&batch=7")
    expect(page.get_by_test_id("stAlert")).to_have_count(2)
    assert "Traceback" not in page.inner_text("body")
    press(page, "one")
    expect(page.locator(".stProgress")).to_contain_text("step 1 of 100")
