"""The Regions page in a real browser beside an empty Streamlit page: from a key on a slider to the new picture."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).parents[1]
OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
OPTIONS += ["--disable-component-update", "--disable-sync"]
PRESSES = 10
FRESH = 5
CLASSIC = "method=group_norm"
LAYER = "N=32&C=256&H=56&W=56&num_groups=32"
CASES = {
    "one method, 4×6×4×4": CLASSIC,
    "one method, 32×256×56×56": f"{CLASSIC}&{LAYER}",
    "four methods, 4×6×4×4": "",
    "four methods, 32×256×56×56": LAYER,
}
OTHERS = {  # a page and the name of a slider on it; every press to the right shows what was not computed before
    "statistics": ("statistics", "seed"),
    "batch, over time": ("batch?switch=10", "switch"),
    "batch, swap a neighbor": ("batch?about=Swap+a+neighbor&among=32", "neighbor"),
    "equality": ("equality", "N"),
}
WATCH = """() => {
  window.drawn = []; window.bytes = 0;
  for (const plot of document.querySelectorAll('.normcore-plot'))
    plot.on('plotly_afterplot', () => window.drawn.push(performance.now()));
  document.addEventListener('keydown', () => { window.pressed = performance.now(); window.drawn = []; }, true);
}"""


def report() -> None:
    """Print milliseconds and kilobytes for a change of one slider, measured in a browser."""
    print("\nFrom a key on a slider to the new picture (3-D drawn in software), and what the change sent\n")
    print("| page | ms | kB |\n|---|---|---|")
    with chromium() as browser:
        with serve(str(ROOT / "benchmarks" / "empty_page.py")) as address:
            print("| empty page | {:.0f} | {:.1f} |".format(*_empty(browser, address)))
        with serve(str(ROOT / "app.py")) as address:
            for name, query in CASES.items():
                print("| {} | {:.0f} | {:.1f} |".format(name, *_regions(browser, f"{address}/regions?{query}")))
            for name, (path, slider) in OTHERS.items():
                print("| {} | {:.0f} | {:.1f} |".format(name, *_other(browser, f"{address}/{path}", slider)))


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser without a window; the benchmark ends with a sentence where there is none."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if not found:
        raise SystemExit("No Chromium found, so no page is measured (Debian: apt-get install chromium).")
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - only needed where there is a browser

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=OPTIONS)
        yield browser
        browser.close()


@contextmanager
def serve(script: str) -> Iterator[str]:
    """A Streamlit server for one script, on a free port of this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", script, f"--server.port={port}", "--server.address=127.0.0.1"]
    server = subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    try:
        address = f"http://127.0.0.1:{port}"
        for _ in range(300):
            try:
                urllib.request.urlopen(f"{address}/_stcore/health", timeout=1)
                break
            except OSError:
                time.sleep(0.1)
        yield address
    finally:
        server.terminate()
        server.wait()


def open_page(browser: Any, address: str, **options: Any) -> Any:
    """A page on which Streamlit has come to rest."""
    page = browser.new_page(**({"viewport": {"width": 1280, "height": 800}} | options))
    page.goto(address)
    page.wait_for_function(
        """() => { const app = document.querySelector('[data-testid=stApp]');
        return app?.dataset.testConnectionState === 'CONNECTED' && app.dataset.testScriptState === 'notRunning'; }""",
        timeout=60_000,
    )
    page.wait_for_timeout(5000)
    return page


def _empty(browser: Any, address: str) -> tuple[float, float]:
    page = open_page(browser, address)
    sent = _count_bytes(page)
    times = []
    for value in range(5, 5 + PRESSES):
        page.evaluate("document.addEventListener('keydown', () => window.pressed = performance.now(), true)")
        page.locator(".st-key-N input").press("ArrowRight")
        page.wait_for_function("text => document.body.innerText.includes(text)", arg=f"value {value}", polling=5)
        times.append(page.evaluate("performance.now() - window.pressed"))
        page.wait_for_timeout(300)
    page.close()
    return median(times), sent["bytes"] / PRESSES / 1000


def _regions(browser: Any, address: str) -> tuple[float, float]:
    page = open_page(browser, address)
    plots = page.locator(".normcore-plot").count()
    sent = _count_bytes(page)
    page.evaluate(WATCH)
    times = []
    for press in range(PRESSES):
        page.locator(".st-key-N input[type=range]").press("ArrowRight" if press % 2 else "ArrowLeft")
        page.wait_for_function("plots => window.drawn.length >= plots", arg=plots, timeout=60_000)
        times.append(page.evaluate("Math.max(...window.drawn) - window.pressed"))
        page.wait_for_timeout(500)
    page.close()
    return median(times), sent["bytes"] / PRESSES / 1000


def _other(browser: Any, address: str, slider: str) -> tuple[float, float]:
    page = open_page(browser, address)
    sent = _count_bytes(page)
    page.evaluate(WATCH)
    times = []
    for _ in range(FRESH):
        page.locator(f".st-key-{slider} input[type=range]").press("ArrowRight")
        page.wait_for_function("() => window.drawn.length", timeout=60_000)
        page.wait_for_timeout(1500)  # until the last plot has been drawn
        times.append(page.evaluate("Math.max(...window.drawn) - window.pressed"))
    page.close()
    return median(times), sent["bytes"] / FRESH / 1000


def _count_bytes(page: Any) -> dict[str, int]:
    """Count what arrives over the page's websocket from now on (as the browser unpacks it)."""
    sent = {"bytes": 0}
    session = page.context.new_cdp_session(page)
    session.send("Network.enable")

    def count(event: Any) -> None:
        sent["bytes"] += len(event["response"]["payloadData"]) * 3 // 4  # binary frames come as base64

    session.on("Network.webSocketFrameReceived", count)
    return sent
