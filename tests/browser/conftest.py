"""A real Chromium, and the real server in front of it."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, ConsoleMessage, Page, Playwright, expect, sync_playwright

ROOT = Path(__file__).parents[2]
CHROMIUM_OPTIONS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PATIENCE = 60_000  # milliseconds: 3-D is drawn in software here
expect.set_options(timeout=PATIENCE / 2)

# Words of the browser about its own speed in software WebGL; they say nothing about the page.
HARMLESS = ("GPU stall due to ReadPixels", "willReadFrequently")

SETTLED = """() => {
  const app = document.querySelector('[data-testid=stApp]');
  return app && app.dataset.testConnectionState === 'CONNECTED' && app.dataset.testScriptState === 'notRunning'
    && !document.querySelector('[data-stale=true]');
}"""


@pytest.hookimpl(tryfirst=True)  # before the workers' plugin looks for groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test in this folder; one worker has them all, for one Chromium is enough for two cores."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)
            item.add_marker(pytest.mark.xdist_group("browser"))


@pytest.fixture(scope="session")
def chromium() -> str:
    """Find a Chromium, or say how to get one."""
    found = os.environ.get("NORMCORE_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if found:
        return found
    advice = "no Chromium found; on Debian: apt-get install chromium"
    if os.environ.get("NORMCORE_REQUIRE_BROWSER") == "1":
        pytest.fail(advice)
    pytest.skip(advice)


@pytest.fixture(scope="session")
def playwright() -> Iterator[Playwright]:
    """Start Playwright once."""
    with sync_playwright() as started:
        yield started


@pytest.fixture(scope="session")
def browser(
    playwright: Playwright, chromium: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[BrowserContext]:
    """Start one Chromium for all tests; what it compiles stays in its profile, and a page opens in half the time."""
    started = playwright.chromium.launch_persistent_context(
        tmp_path_factory.mktemp("profile"),
        executable_path=chromium,
        args=list(CHROMIUM_OPTIONS),
        viewport={"width": 900, "height": 700},
        color_scheme="light",
    )
    yield started
    started.close()


def serve(script: str, log: Path) -> Iterator[str]:
    """Run a script the way a visitor's server does, and give its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "streamlit", "run", script, f"--server.port={port}", "--server.address=127.0.0.1"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 60
        while not _healthy(address):
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"{script} did not start:\n{log.read_text()}")
            time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        process.wait(timeout=20)


def _healthy(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/_stcore/health", timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


@pytest.fixture(scope="session")
def app_url(chromium: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve the real app."""
    yield from serve("app.py", tmp_path_factory.mktemp("app") / "log.txt")


@pytest.fixture(scope="session")
def plot_url(chromium: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve the page that tries the plot component."""
    yield from serve("tests/browser/plot_app.py", tmp_path_factory.mktemp("plot") / "log.txt")


@pytest.fixture
def page(browser: BrowserContext) -> Iterator[Page]:
    """Open a fresh page; the test fails if the page complained about anything."""
    opened = browser.new_page()
    opened.set_default_timeout(PATIENCE)
    complaints: list[str] = []

    def listen(message: ConsoleMessage) -> None:
        harmless = any(word in message.text for word in HARMLESS)
        if message.type in ("error", "warning") and not harmless:
            complaints.append(f"{message.type}: {message.text}")

    opened.on("console", listen)
    opened.on("pageerror", lambda error: complaints.append(f"uncaught: {error}"))
    yield opened
    if opened.url.startswith("http"):
        opened.evaluate("localStorage.clear()")
    opened.close()
    assert not complaints, "\n".join(complaints)


@pytest.fixture
def settle() -> Callable[[Page], None]:
    """Give a function that waits until the script has run and everything it said is on the page."""

    def wait(page: Page) -> None:
        page.wait_for_function(SETTLED, timeout=PATIENCE)

    return wait
