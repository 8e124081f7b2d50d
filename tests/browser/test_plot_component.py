"""The plot component in a real browser: what a visitor did to a plot outlives every change."""

from collections.abc import Callable
from io import BytesIO

import numpy as np
import pytest
from block_samples import SAMPLES
from PIL import Image
from playwright.sync_api import Page, Request, TimeoutError, WebSocket

from normcore.figures.blocks import FADED, figure

PLOT = ".st-key-{} .normcore-plot"
DRAWN = """key => {
  const node = document.querySelector(`.st-key-${key} .normcore-plot`);
  return Boolean(node?._fullLayout && (!node._fullLayout.scene || node._fullLayout.scene._scene?.glplot));
}"""


@pytest.fixture
def visit(page: Page, plot_url: str, settle: Callable[[Page], None]) -> Callable[..., Page]:
    """Open the page with some settings and wait for its plots."""

    def open_page(*keys: str, **settings: str) -> Page:
        query = "&".join(f"{name}={value.replace(' ', '+')}" for name, value in settings.items())
        page.goto(f"{plot_url}/?{query}")
        settle(page)
        for key in ("left", *keys):
            page.wait_for_function(DRAWN, arg=key)
        return page

    return open_page


def choose(page: Page, name: str) -> None:
    """Draw another block picture on the left, and wait for it."""
    page.get_by_role("radio", name=name, exact=True).click()
    page.wait_for_function(
        "([key, alt]) => document.querySelector(key).ariaLabel === alt",
        arg=[PLOT.format("left"), f"The {name} picture"],
    )
    page.wait_for_function(
        """([key, count]) => {
          return document.querySelector(key).data[0].cells.length === count;
        }""",
        arg=[PLOT.format("left"), len(figure(SAMPLES[name]).data[0].i)],
    )


def eye(page: Page, key: str) -> list[float]:
    """Say where a plot is looked at from, as it is drawn."""
    return page.evaluate(
        """key => {
          const { x, y, z } = document.querySelector(key)._fullLayout.scene._scene.getCamera().eye;
          return [x, y, z];
        }""",
        PLOT.format(key),
    )


def drag(page: Page, key: str, distance: int) -> None:
    """Turn a plot with the mouse."""
    box = page.locator(PLOT.format(key)).bounding_box()
    assert box
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + distance / 2, y + 10)
    page.mouse.move(x + distance, y + 20, steps=4)
    page.mouse.up()


def turn(page: Page, key: str) -> list[float]:
    """Turn a plot and wait until it looks different and rests; a drag that a slow renderer swallows is made again."""
    before = eye(page, key)
    for attempt in range(4):
        drag(page, key, 70)
        try:
            page.wait_for_function(
                """([key, before]) => {
                  const node = document.querySelector(key);
                  const eye = node._fullLayout.scene._scene.getCamera().eye;
                  return Math.abs(eye.x - before[0]) > 0.05 && Math.abs(node.layout.scene.camera.eye.x - eye.x) < 1e-6;
                }""",
                arg=[PLOT.format(key), before],
                timeout=15_000,
            )
            break
        except TimeoutError:
            if attempt == 3:
                raise
    resting: list[float] = []
    while resting != (resting := eye(page, key)):  # a slow renderer still has moves of the mouse to draw
        page.wait_for_timeout(1000)
    return resting


def photograph(page: Page) -> np.ndarray:
    """Take the left plot as it is seen, without the pointer's words and Plotly's buttons."""
    page.mouse.move(1, 1)
    page.wait_for_timeout(500)
    with Image.open(BytesIO(page.locator(PLOT.format("left")).screenshot(animations="disabled"))) as image:
        return np.asarray(image.convert("RGB"), dtype=int)


def toggle_dark(page: Page) -> None:
    """Switch the page to its dark theme without running the script again."""
    page.emulate_media(color_scheme="dark")
    page.wait_for_function(
        "key => getComputedStyle(document.querySelector(key)).getPropertyValue('--st-background-color') === '#15171c'",
        arg=PLOT.format("left"),
    )
    page.wait_for_function(
        "key => document.querySelector(key)._fullLayout.font.color === '#e4e5e9'", arg=PLOT.format("left")
    )


def test_camera_and_node_survive_data_height_neighbors_and_theme(visit):
    page = visit()
    page.evaluate("key => { document.querySelector(key).mine = true; }", PLOT.format("left"))
    turned = turn(page, "left")
    choose(page, "group")
    assert eye(page, "left") == pytest.approx(turned)
    page.locator(".st-key-second label").first.click()
    page.wait_for_function(DRAWN, arg="right")
    page.locator(".st-key-height input").focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("key => document.querySelector(key)._fullLayout.height === 360", arg=PLOT.format("left"))
    toggle_dark(page)
    assert eye(page, "left") == pytest.approx(turned)
    assert page.evaluate("key => document.querySelector(key).mine", PLOT.format("left"))


def test_plots_of_a_group_turn_together_and_a_late_one_joins(visit):
    page = visit()
    turned = turn(page, "left")
    page.locator(".st-key-second label").first.click()
    page.wait_for_function(DRAWN, arg="right")
    assert eye(page, "right") == pytest.approx(turned)
    box = page.locator(PLOT.format("right")).bounding_box()
    assert box
    for _ in range(4):  # a press that a stalled renderer swallows is made again
        turned = eye(page, "left")
        page.mouse.move(box["x"] + 100, box["y"] + 100)
        page.mouse.down()
        for step in range(100):  # the button stays down: live
            page.mouse.move(box["x"] + 100 + abs(4 * step % 320 - 160), box["y"] + 100)
            page.wait_for_timeout(50)
            if abs(eye(page, "left")[0] - turned[0]) > 0.05:
                break
        else:
            page.mouse.up()
            page.wait_for_timeout(1000)
            continue
        break
    else:
        pytest.fail("the other plot of the group does not follow a drag")
    page.mouse.up()
    page.wait_for_function(
        """([one, other]) => {
          const scene = (key) => document.querySelector(key)._fullLayout.scene._scene;
          const [a, b] = [one, other].map((key) => scene(key).getCamera().eye);
          return Math.hypot(a.x - b.x, a.y - b.y, a.z - b.z) < 1e-6;
        }""",
        arg=[PLOT.format("left"), PLOT.format("right")],
    )


SIZE = "key => document.querySelector(key)._fullLayout.scene._scene.glplot.getAspectratio().x"


def test_the_wheel_zooms_a_plot_in_use_and_the_zoom_survives(visit):
    page = visit(first="batch", second="true")
    page.wait_for_function(DRAWN, arg="right")
    key = PLOT.format("left")
    before = page.evaluate(SIZE, key)
    page.locator(key).focus()
    page.locator(key).hover()
    page.mouse.wheel(0, -200)
    page.wait_for_function(f"([key, before]) => ({SIZE})(key) > 1.05 * before", arg=[key, before])
    page.wait_for_function(
        f"([one, other]) => Math.abs(({SIZE})(one) - ({SIZE})(other)) < 1e-3", arg=[key, PLOT.format("right")]
    )
    zoomed = page.evaluate(SIZE, key)
    choose(page, "group")
    assert page.evaluate(SIZE, key) == pytest.approx(zoomed, rel=1e-3)


def test_arrow_keys_turn_a_focused_plot_and_the_focus_shows(visit):
    page = visit()
    before = eye(page, "left")
    page.locator(PLOT.format("left")).focus()
    page.keyboard.press("ArrowLeft")
    page.wait_for_function(
        """([key, before]) =>
          Math.abs(document.querySelector(key)._fullLayout.scene._scene.getCamera().eye.x - before[0]) > 0.05""",
        arg=[PLOT.format("left"), before],
    )
    shadow = page.evaluate("key => getComputedStyle(document.querySelector(key)).boxShadow", PLOT.format("left"))
    assert shadow != "none"


WHERE = """([key, name, cell]) => {
  // Where on the screen the middle of the cell's upper face is, from the camera that draws it.
  const node = document.querySelector(key);
  const { glplot } = node._fullLayout.scene._scene;
  const trace = node.data.find((one) => one.name === name);
  const faces = [...trace.cells.keys()].filter((i) => trace.cells[i] === cell && trace.facing[i] === 2);
  const [i] = faces.slice(-2);
  const corner = (index) => [trace.x[index], trace.y[index], trace.z[index]];
  const ends = [corner(trace.i[i]), corner(trace.k[i])];
  const scale = node._fullLayout.scene._scene.dataScale;
  const spot = [0, 1, 2].map((axis) => (0.4 * ends[0][axis] + 0.6 * ends[1][axis]) * scale[axis]);
  const { projection, view, model } = glplot.cameraParams;
  const times = (m, v) => [0, 1, 2, 3].map((r) => [0, 1, 2, 3].reduce((sum, c) => sum + m[c * 4 + r] * v[c], 0));
  const at = times(projection, times(view, times(model, [...spot, 1])));
  const box = node.querySelector('canvas').getBoundingClientRect();
  return [box.x + (0.5 + 0.5 * at[0] / at[3]) * box.width, box.y + (0.5 - 0.5 * at[1] / at[3]) * box.height];
}"""


def click(page: Page, name: str, cell: int) -> None:
    """Click on a cell of the left plot, on the screen, as a visitor would."""
    page.locator(PLOT.format("left")).scroll_into_view_if_needed()
    page.mouse.click(*page.evaluate(WHERE, [PLOT.format("left"), name, cell]))


@pytest.mark.parametrize(("sample", "cell"), [("batch", (2, 3, 7)), ("group lit", (3, 5, 7)), ("group lit", (0, 4, 7))])
def test_a_click_comes_back_as_its_cell_exactly_once(visit, settle, sample, cell):
    page = visit(first=sample)
    blocks = SAMPLES[sample]
    name = "faded" if blocks.colors[cell] == FADED else "lit"
    flat = int(np.ravel_multi_index(cell, blocks.colors.shape))
    click(page, name, flat)
    page.get_by_text(f"clicks: [{cell}] called: [{cell}]").wait_for()
    page.locator(".st-key-append button").click()
    page.get_by_text("made: 3").wait_for()
    settle(page)
    assert page.get_by_text(f"clicks: [{cell}] called: [{cell}]").is_visible()
    click(page, name, flat)
    page.get_by_text(f"clicks: [{cell}, {cell}] called: [{cell}, {cell}]").wait_for()


def test_a_drag_is_no_click(visit, settle):
    page = visit()
    turn(page, "left")
    page.locator(".st-key-append button").click()
    page.get_by_text("made: 3").wait_for()
    settle(page)
    assert page.get_by_text("clicks: [] called: []").is_visible()


TRACES = """key => document.querySelector(key).data.map((trace) => {
  const names = ["x", "y", "z", "i", "j", "k", "intensity", "hovertext", "cmin", "cmax", "colorscale"];
  const plain = (value) => Array.isArray(value) ? value.map((one) => Number.isNaN(one) ? null : one) : value;
  return Object.fromEntries(names.filter((name) => name in trace).map((name) => [name, plain(trace[name])]));
})"""


@pytest.mark.parametrize("sample", ["group", "instance lit", "influence", "carved"])
def test_the_browser_builds_the_same_picture_as_python(visit, sample):
    page = visit(first=sample)
    drawn = page.evaluate(TRACES, PLOT.format("left"))
    expected = [trace.to_plotly_json() for trace in figure(SAMPLES[sample]).data]
    assert len(drawn) == len(expected)
    for there, here in zip(drawn, expected, strict=True):
        for name in ("x", "y", "z", "i", "j", "k", "intensity"):
            if name in here:
                values = np.array(there.get(name, []), dtype=float)
                np.testing.assert_allclose(values, np.asarray(here[name], dtype=float), atol=1e-5, err_msg=name)
        if here["type"] == "mesh3d":
            assert there["hovertext"] == list(here["hovertext"])
        if here["name"] == "lit":
            assert (there["cmin"], there["cmax"]) == (here["cmin"], here["cmax"])
            assert [tuple(step) for step in there["colorscale"]] == [tuple(step) for step in here["colorscale"]]


@pytest.mark.parametrize("before", ["batch", "influence"])
def test_a_changed_picture_looks_like_one_opened_afresh(visit, before):
    changed = visit(first=before)
    choose(changed, "group")
    pictures = [photograph(changed), photograph(visit(first="group"))]
    differing = (np.abs(np.subtract(*pictures)) > 8).any(-1).mean()
    assert differing < 5e-3, f"{differing:.1%} of the picture"  # Plotly turns a few figures along the axes anew


def test_alternative_text_follows_the_picture(visit):
    page = visit()
    image = page.get_by_role("img", name="The batch picture")
    image.wait_for()
    choose(page, "layer")
    page.get_by_role("img", name="The layer picture").wait_for()


def test_legend_and_zoom_survive_new_points(visit):
    page = visit("flat")
    key = PLOT.format("flat")
    page.locator(f"{key} .legendtoggle").nth(1).click()
    page.wait_for_function("key => document.querySelector(key)._fullData[1].visible === 'legendonly'", arg=key)
    box = page.locator(f"{key} .nsewdrag").bounding_box()
    assert box
    page.mouse.move(box["x"] + 40, box["y"] + 30)
    page.mouse.down()
    page.mouse.move(box["x"] + 160, box["y"] + 90, steps=4)
    page.mouse.up()
    page.wait_for_function("key => document.querySelector(key)._fullLayout.xaxis.autorange === false", arg=key)
    zoomed = page.evaluate("key => document.querySelector(key)._fullLayout.xaxis.range", key)
    page.locator(".st-key-points input").focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("key => document.querySelector(key)._fullLayout.meta.points === 11", arg=key)
    assert page.evaluate("key => document.querySelector(key)._fullData[1].visible", key) == "legendonly"
    assert page.evaluate("key => document.querySelector(key)._fullLayout.xaxis.range", key) == pytest.approx(zoomed)


def test_a_live_run_grows_heals_and_restarts(visit):
    page = visit("live")
    key = PLOT.format("live")

    def wait_for(count: int) -> list[list[float]]:
        page.wait_for_function(
            "([key, count]) => document.querySelector(key).data.every((trace) => trace.x.length === count)",
            arg=[key, count],
        )
        return page.evaluate("key => document.querySelector(key).data.map((trace) => trace.y)", key)

    def press(name: str, count: int) -> list[list[float]]:
        page.locator(f".st-key-{name} button").click()
        return wait_for(count)

    assert press("append", 3) == [[0, 1, 2], [0, 2, 4]]
    page.locator(".st-key-drop button").click()
    page.get_by_text("made: 6").wait_for()
    healed = press("append", 9)
    assert healed[0] == [0, 1, 2, 3, None, 5, 6, 7, 8]
    toggle_dark(page)
    assert wait_for(9) == healed
    press("restart", 0)
    assert press("append", 3) == [[0, 1, 2], [0, 2, 4]]


def test_a_change_costs_few_bytes_and_the_library_comes_once(visit, page):
    frames: list[int] = []
    libraries: list[str] = []

    def asked(request: Request) -> None:
        if request.resource_type == "script" and "plotly" in request.url:  # fetching it ahead is none
            libraries.append(request.url)

    page.on("request", asked)

    def listen(socket: WebSocket) -> None:
        socket.on("framereceived", lambda payload: frames.append(len(payload)))

    page.on("websocket", listen)
    visit(second="true")
    frames.clear()
    choose(page, "instance")
    choose(page, "big")
    assert 0 < max(frames) <= 20_000
    assert len(libraries) == 1
    assert all(url.startswith(page.url.split("/?")[0]) for url in libraries)
