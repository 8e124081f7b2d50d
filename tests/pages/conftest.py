"""What the tests of pages share."""

from collections.abc import Iterator

import pytest
from streamlit.components.v2 import manifest_scanner
from streamlit.runtime.scriptrunner import script_runner


@pytest.fixture(autouse=True, scope="session")
def nothing_beside_the_page() -> Iterator[None]:
    """Leaves out what Streamlit does around every run, which here takes several times as long as the page itself.

    It looks for components in all installed packages, where there are none, and it cleans up behind keras, which only
    the oracles have loaded.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifest_scanner, "scan_component_manifests", lambda *_: [])
        patch.setattr(script_runner, "_clean_problem_modules", lambda: None)
        yield


@pytest.fixture(autouse=True, scope="session")
def figures_are_checked() -> None:
    """Not here: pages draw as they do for a visitor."""
