"""The Regions page as a visitor has it: in a real browser, through the real server."""

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page

Open = Callable[..., Page]
ONE_METHOD = "/regions?method=group_norm"


def label(page: Page, nth: int = 0) -> str:
    return page.locator(".normcore-plot").nth(nth).get_attribute("aria-label") or ""
