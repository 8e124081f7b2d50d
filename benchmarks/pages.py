"""Pages in a real browser beside an empty Streamlit page: from a key on a slider to the new picture."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).parents[1]
OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
OPTIONS += ["--disable-component-update", "--disable-sync"]
PRESSES = 16
FRESH = 7
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
KEYS = ("ArrowRight", "ArrowLeft")
PAUSE = 300
WATCH = """() => {
  const forget = () => { window.seen = window.drawn = 0; };
  forget();
  for (const plot of document.querySelectorAll('.normcore-plot')) plot.on('plotly_afterplot', () => {
    const { top, bottom } = plot.getBoundingClientRect();
    window.drawn = performance.now();
    if (bottom >= 0 && top <= innerHeight) window.seen = window.drawn;
  });
  const words = document.querySelector('.stMarkdown'), every = { subtree: true, characterData: true, childList: true };
  const change = () => { window.seen ||= performance.now(); };
  if (!window.Plotly) new MutationObserver(change).observe(words, every);
  document.addEventListener('keydown', () => { window.pressed = performance.now(); forget(); }, true);
}"""


def report() -> None:
    """Print what a change of one slider takes in a browser, in turns with the same change of an empty page."""
    print("\nFrom a key on a slider to the last new picture (3-D drawn in software), and what the change sent\n")
    print("| page | on the screen, ms | over an empty page | beyond it too | kB |\n|---|---|---|---|---|")
    with (
        chromium() as browser,
        serve(str(ROOT / "benchmarks" / "empty_page.py")) as empty_address,
        serve(str(ROOT / "app.py")) as address,
    ):
        empty = _Slider(browser, empty_address, "N")
        for name, query in CASES.items():
            _row(name, _Slider(browser, f"{address}/regions?{query}", "N"), empty, PRESSES)
        for name, (path, slider) in OTHERS.items():
            _row(name, _Slider(browser, f"{address}/{path}", slider), empty, FRESH, ("ArrowRight",))


def _row(name: str, page: "_Slider", empty: "_Slider", presses: int, keys: Sequence[str] = KEYS) -> None:
    """The two take turns; what is measured is the middle of the times, and of the differences of neighbors in time."""
    over, times = [], []
    for press in range(presses):
        nothing, _ = empty.press(KEYS[press % 2])
        times.append(page.press(keys[press % len(keys)]))
        over.append(times[-1][0] - nothing)
    seen, every = (median(column) for column in zip(*times, strict=True))
    kilobytes = page.sent["bytes"] / presses / 1000
    print(f"| {name} | {seen:.0f} | {median(over):.0f} | {max(seen, every):.0f} | {kilobytes:.1f} |", flush=True)
    page.page.close()


class _Slider:
    """A slider on a page of its own, pressed by a key."""

    def __init__(self, browser: Any, address: str, key: str) -> None:
        self.page = open_page(browser, address)
        self.at = self.page.locator(f".st-key-{key} input[type=range]")
        self.page.evaluate(WATCH)
        self.sent = _count_bytes(self.page)

    def press(self, key: str) -> tuple[float, float]:
        """Milliseconds from the key to the last picture on the screen, or the new words, and to the last of all."""
        self.page.bring_to_front()
        self.page.wait_for_timeout(PAUSE)
        self.at.press(key)
        self.page.wait_for_function("() => window.seen", timeout=60_000, polling=5)
        self.page.wait_for_timeout(1000)  # until the last plot has been drawn
        seen, every = self.page.evaluate("[window.seen - window.pressed, window.drawn - window.pressed]")
        return float(seen), float(every)


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


def _count_bytes(page: Any) -> dict[str, int]:
    """Count what arrives over the page's websocket from now on (as the browser unpacks it)."""
    sent = {"bytes": 0}
    session = page.context.new_cdp_session(page)
    session.send("Network.enable")

    def count(event: Any) -> None:
        sent["bytes"] += len(event["response"]["payloadData"]) * 3 // 4  # binary frames come as base64

    session.on("Network.webSocketFrameReceived", count)
    return sent
