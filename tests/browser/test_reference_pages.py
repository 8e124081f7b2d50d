"""The catalogue and the page of a method as a visitor has them: in a real browser, through the real server."""

import re
from collections.abc import Callable
from contextlib import suppress

import pytest
from playwright.sync_api import Page, TimeoutError, expect

# The part of the page that scrolls, and any of its blocks that reaches beyond it without a scroll bar of its own.
WIDER = """() => {
  const main = document.querySelector('[data-testid=stMain]');
  const blocks = [main, ...main.querySelectorAll('[data-testid=stElementContainer] > *')];
  const wide = (e) => e.clientWidth && e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).overflowX === "visible";
  return blocks.filter(wide)
    .map((e) => e.outerHTML.slice(0, 80)).concat(main.scrollWidth > main.clientWidth ? ['main'] : []);
}"""
TREE = ".normcore-plot .scatterlayer .trace:last-child .points .point"


@pytest.fixture
def visit(page: Page, app_url: str, settle: Callable[[Page], None]) -> Callable[[str], Page]:
    """Open a page by its link and wait until the script has run."""

    def open_page(link: str) -> Page:
        page.goto(f"{app_url}/{link}")
        settle(page)
        return page

    return open_page


def test_a_search_leaves_cards_that_lead_to_the_page_of_a_method(visit: Callable[[str], Page]) -> None:
    page = visit("catalogue")
    search = page.get_by_label("Search")
    search.fill("yuxin wu")
    search.press("Enter")
    expect(page.locator(".thumbnail")).to_have_count(1)
    assert page.locator(".thumbnail").evaluate("image => image.complete && image.naturalWidth > 0")
    page.get_by_role("link", name="GroupNorm").click()
    expect(page.get_by_role("heading", name="GroupNorm", exact=True)).to_be_visible()
    assert "key=group_norm" in page.url


def test_a_link_restores_search_and_kind(visit: Callable[[str], Page]) -> None:
    page = visit("catalogue?find=group&kind=Within+a+sample")
    expect(page.get_by_label("Search")).to_have_value("group")
    expect(page.get_by_role("heading", name=re.compile("Within a sample"))).to_be_visible()
    expect(page.get_by_role("heading", name=re.compile("Across the batch"))).to_have_count(0)


def test_a_point_of_the_tree_leads_to_its_method(visit: Callable[[str], Page], page: Page) -> None:
    page.set_viewport_size({"width": 1280, "height": 800})
    visit("catalogue?as=Family+tree&find=1607.06450")
    names = page.locator(".normcore-plot .textpoint")
    expect(names.filter(has_text=re.compile("^LayerNorm$"))).to_have_count(1)
    order = names.all_text_contents()
    box = page.locator(TREE).nth(order.index("LayerNorm")).bounding_box()
    assert box
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    expect(page.locator(".hovertext")).to_be_visible()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    expect(page.get_by_role("heading", name="LayerNorm", exact=True)).to_be_visible()


def test_a_link_with_an_unknown_method_falls_back_with_a_sentence(visit: Callable[[str], Page]) -> None:
    page = visit("method?key=no_such_norm")
    expect(page.get_by_text("The link asks for key=no_such_norm")).to_be_visible()
    expect(page.get_by_role("heading", name="BatchNorm", exact=True)).to_be_visible()


def test_the_way_back_leads_to_what_was_searched_for(visit: Callable[[str], Page]) -> None:
    page = visit("catalogue")
    search = page.get_by_label("Search")
    search.fill("yuxin wu")
    search.press("Enter")
    expect(page.locator(".thumbnail")).to_have_count(1)
    page.get_by_role("link", name="GroupNorm", exact=True).click()
    expect(page.get_by_role("heading", name="GroupNorm", exact=True)).to_be_visible()
    page.go_back()
    expect(page.get_by_label("Search")).to_have_value("yuxin wu")
    expect(page.locator(".thumbnail")).to_have_count(1)


def test_the_box_of_methods_writes_the_key_into_the_link(visit: Callable[[str], Page]) -> None:
    page = visit("method?key=scale_norm")
    page.get_by_role("combobox").first.click()
    page.keyboard.type("L2 Norm")
    page.get_by_role("option", name="L2 Normalization").click()
    expect(page.get_by_role("heading", name="L2 Normalization", exact=True)).to_be_visible()
    assert page.url.endswith("key=l2_norm")


def test_the_tree_is_a_list_where_its_names_would_overlap(visit: Callable[[str], Page], page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    visit("catalogue?as=Family+tree&find=batchnorm")
    expect(page.locator(".st-key-family_tree")).to_be_hidden()
    page.get_by_role("link", name=re.compile("2017 Batch Renorm, after BatchNorm")).click()
    expect(page.get_by_role("heading", name="Batch Renorm", exact=True)).to_be_visible()
    page.set_viewport_size({"width": 1440, "height": 900})
    visit("catalogue?as=Family+tree&find=batchnorm")
    expect(page.locator(".st-key-family_list")).to_be_hidden()
    expect(page.locator(".st-key-family_tree .normcore-plot .textpoint").first).to_be_visible()


def test_on_a_phone_two_cards_stand_side_by_side(visit: Callable[[str], Page], page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    visit("catalogue?kind=Gradients")
    expect(page.locator(".thumbnail").nth(1)).to_be_visible()
    page.wait_for_function(
        """() => {
          const [first, second] = [...document.querySelectorAll('.thumbnail')].map((e) => e.getBoundingClientRect());
          return Math.abs(first.y - second.y) < 2 && second.x > first.x + 100;
        }"""
    )


def test_on_a_phone_nothing_is_wider_than_the_screen(visit: Callable[[str], Page], page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    for link in ("method?key=switchable_norm", "catalogue?find=group", "catalogue?as=Family+tree"):
        visit(link)
        with suppress(TimeoutError):  # the style sheet comes with the page, but not always before its tables
            page.wait_for_function(f"() => ({WIDER})().length === 0", timeout=5_000)
        assert page.evaluate(WIDER) == []
