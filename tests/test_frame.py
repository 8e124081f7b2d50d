"""The door of the app: what is warm, what is served, what is said when something fails."""

import asyncio
import base64
import gc
import gzip
import hashlib
import json
import logging
import re
import tomllib
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import streamlit
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message
from streamlit import config as streamlit_config
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.runtime import Runtime
from streamlit.runtime.forward_msg_queue import ForwardMsgQueue
from streamlit.testing.v1 import AppTest

from explorer import delivery, janitor, serving, warm
from explorer.contents import PAGES
from normcore.figures import theme

ROOT = Path(__file__).parents[1]
SETTINGS = tomllib.loads((ROOT / ".streamlit" / "config.toml").read_text())


def alone(work: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine in a thread of its own: the browser tests keep a loop running in this one."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, work).result()


@dataclass
class Answer:
    """What came back over HTTP."""

    status: int
    headers: Headers
    content: bytes


def ask(path: str, app: ASGIApp | None = None, **headers: str) -> Answer:
    """Ask our own routes and middleware, or another application, for a path, without a network between."""
    app = app or Starlette(routes=serving.ROUTES, middleware=serving.MIDDLEWARE)
    said: list[Message] = []
    scope = {
        "type": "http",
        "method": "GET",
        "path": path,
        "query_string": b"",
        "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()],
    }

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        said.append(message)

    alone(app(scope, receive, send))
    content = b"".join(message.get("body", b"") for message in said[1:])
    return Answer(said[0]["status"], Headers(raw=said[0]["headers"]), content)


def plot_address(name: str) -> str:
    return f"/plot/{serving.version()}/{name}"


def test_every_setting_exists_also_the_hidden_ones():
    known = streamlit_config._config_options_template
    for section, options in SETTINGS.items():
        if section == "theme":
            continue
        for name in options:
            assert f"{section}.{name}" in known, f"{section}.{name} is gone from Streamlit"
    assert SETTINGS["runner"]["postScriptGC"] is False
    assert SETTINGS["client"]["showErrorDetails"] == "none"


def test_the_theme_uses_the_palette_of_the_figures_and_fonts_that_are_there():
    assert tuple(SETTINGS["theme"]["chartCategoricalColors"]) == theme.REGION_COLORS
    faces = SETTINGS["theme"]["fontFaces"]
    assert {Path(face["url"]).name for face in faces} == set(serving.fonts())
    assert {face["url"].split("/")[0] for face in faces} == {"fonts"}
    assert len(list(serving.FONTS.glob("*-LICENSE.txt"))) == len({face["family"] for face in faces})


def test_after_warming_up_a_full_collection_has_little_to_look_at():
    try:
        warm.warm_up()
        assert gc.get_freeze_count() > 50_000
        assert len(gc.get_objects()) < 5_000
    finally:
        gc.unfreeze()


def test_the_janitor_finds_the_corner_of_streamlit_that_it_sweeps(monkeypatch):
    monkeypatch.setattr(Runtime, "_instance", None)
    streamlit.App(ROOT / "explorer" / "frame.py")._create_runtime()
    assert janitor.sweep() == 0


def said(queue: ForwardMsgQueue, text: str, fragment: str = "") -> None:
    """Put a sentence into the queue to the browser, in the first place of the page."""
    message = ForwardMsg()
    message.metadata.delta_path[:] = [0, 0]
    message.delta.new_element.markdown.body = text
    message.delta.fragment_id = fragment
    queue.enqueue(message)


def test_what_a_fragment_said_reaches_the_browser_although_it_begins_anew(monkeypatch):
    monkeypatch.setattr(ForwardMsgQueue, "clear", ForwardMsgQueue.clear)
    delivery.keep_all()
    queue, finished = ForwardMsgQueue(), ForwardMsg()
    finished.script_finished = ForwardMsg.FINISHED_SUCCESSFULLY
    said(queue, "in the run of the page", "ticking")
    queue.enqueue(finished)
    queue.clear(retain_lifecycle_msgs=True, fragment_ids_this_run=["ticking"])
    said(queue, "in its own run", "ticking")
    first, end, second = queue.flush()
    assert end.script_finished == ForwardMsg.FINISHED_SUCCESSFULLY
    assert [m.delta.new_element.markdown.body for m in (first, second)] == ["in the run of the page", "in its own run"]


def test_what_a_page_said_is_dropped_when_the_page_begins_anew(monkeypatch):
    monkeypatch.setattr(ForwardMsgQueue, "clear", ForwardMsgQueue.clear)
    delivery.keep_all()
    queue = ForwardMsgQueue()
    said(queue, "in the run before")
    queue.clear(retain_lifecycle_msgs=True, fragment_ids_this_run=None)
    assert queue.is_empty()


def test_plotly_comes_compressed_once_and_stays():
    answer = ask(plot_address("plotly.js"), accept_encoding="gzip, br")
    assert answer.headers["content-encoding"] == "gzip"
    assert len(answer.content) == int(answer.headers["content-length"]) < 1_600_000
    assert "immutable" in answer.headers["cache-control"]
    assert gzip.decompress(answer.content).lstrip().startswith(b"/**\n* plotly.js v")
    again = ask(plot_address("plotly.js"), if_none_match=answer.headers["etag"])
    assert (again.status, again.content) == (304, b"")


def test_a_browser_that_cannot_unpack_gets_it_as_it_is():
    answer = ask(plot_address("plotly.js"))
    assert "content-encoding" not in answer.headers
    assert answer.headers["vary"] == "Accept-Encoding"
    assert len(answer.content) > 4_000_000


def test_an_old_address_is_answered_but_not_kept():
    assert ask("/plot/older/plot.js").headers["cache-control"] == "no-store"
    assert ask(plot_address("secrets.toml")).status == 404


def test_the_plot_component_and_its_theme_are_served():
    assert b"export default function" in ask(plot_address("plot.js")).content
    look = json.loads(ask(plot_address("theme.json")).content)
    assert set(look["blocks"]["scales"]) == {"regions", "influence"}
    assert ask("/fonts/inter-latin.woff2").headers["content-type"] == "font/woff2"
    assert ask("/fonts/..").status == 404


def test_every_answer_has_the_security_headers():
    for address in ("/", plot_address("plot.js"), "/nothing/here"):
        headers = ask(address).headers
        for name, value in serving.SECURITY_HEADERS.items():
            assert headers[name] == value


def test_a_page_says_what_its_plots_will_ask_for():
    files = re.findall(r"<([^>]*)>; rel=prefetch", ask("/").headers["link"])
    assert [f"/{file}" for file in files] == [plot_address(name) for name in ("plot.js", "theme.json", "plotly.js")]
    assert all(ask(f"/{file}").status == 200 for file in files)
    assert "link" not in ask("/nothing/here").headers and "link" not in ask(plot_address("plot.js")).headers


@pytest.mark.parametrize("address", [page[5] for page in PAGES])
def test_every_page_begins_with_one_that_knows_where_its_server_is(address):
    answer = ask(f"/{address}")
    assert answer.headers["cache-control"] == "no-cache"
    told, rest = re.findall(r"<script>(.*?)</script>", answer.content.decode(), re.DOTALL)
    assert "BACKEND_BASE_URL" in told
    for script in (told, rest):
        allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{allowed}'" in answer.headers["content-security-policy"]
    known = (serving.STREAMLIT_FILES / "static" / "js").glob("*.js")
    assert any("BACKEND_BASE_URL" in path.read_text(encoding="utf-8") for path in known)  # Streamlit still listens


def test_streamlits_own_scripts_come_compressed_and_within_bounds():
    scripts = sorted((serving.STREAMLIT_FILES / "static" / "js").glob("*.js"), key=lambda path: path.stat().st_size)[
        -4:
    ]
    room = scripts[-1].stat().st_size * 2
    packed = serving.CompressedFiles(Starlette(), room=room)
    for script in scripts:
        answer = ask(f"/static/js/{script.name}", packed, accept_encoding="gzip")
        assert answer.headers["content-encoding"] == "gzip"
        assert gzip.decompress(answer.content) == script.read_bytes()
    assert ask("/static/js/../../../__init__.js", packed).status == 404
    assert ask("/static/js/missing.js", packed).status == 404
    assert sum(map(serving._size, packed.kept.values())) <= room


def failing_page() -> None:
    import streamlit as st  # noqa: PLC0415

    from explorer.errors import on_script_error  # noqa: PLC0415
    from normcore.core.errors import NormcoreError  # noqa: PLC0415

    if st.session_state.get("bad input"):
        on_script_error(NormcoreError("group_norm: num_groups=4 must divide c=6; try one of 1, 2, 3, 6"))
    else:
        on_script_error(RuntimeError("/home/somebody/secret.py broke"))


def test_a_visitor_sees_a_sentence_and_the_id_under_which_the_log_has_the_rest(caplog):
    with caplog.at_level(logging.ERROR, "normcore.explorer"):
        shown = AppTest.from_function(failing_page).run().error[0].value
    name = shown.split("**")[1]
    record = next(record for record in caplog.records if name in record.getMessage())
    assert record.exc_info is not None
    assert "secret" not in shown
    assert "Traceback" not in shown


def test_bad_input_speaks_for_itself():
    test = AppTest.from_function(failing_page)
    test.session_state["bad input"] = True
    shown = test.run().warning[0].value
    assert shown.startswith("group_norm: num_groups=4 must divide c=6; try one of 1, 2, 3, 6. ")
    assert len(shown.split("**")[1]) == 8


def test_housekeeping_ends_with_the_server():
    async def visit() -> None:
        async with warm.lifespan(None):
            assert len(asyncio.all_tasks()) == 2
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == 1

    try:
        alone(visit())
    finally:
        gc.unfreeze()
