"""A browser for the tests here; without one they are skipped, and say so loudly."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from browser.grid_page import GridPage
    from playwright.sync_api import Browser

HOW = "the grid is not tested in a browser: {}. Get one with: {}"
INSTALL = "apt-get install chromium, or playwright install chromium, or set COMFYNB_CHROMIUM"


def _unavailable(why: str, how: str) -> None:
    message = HOW.format(why, how)
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium from COMFYNB_CHROMIUM, the PATH, or Playwright's own."""
    try:
        from playwright.sync_api import Error, sync_playwright
    except ImportError:
        _unavailable("Playwright is not installed", "pip install playwright")
    chosen = os.environ.get("COMFYNB_CHROMIUM")
    path = chosen or shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as playwright:
        try:
            # The sandbox of a browser does not work for root in containers.
            browser = playwright.chromium.launch(
                executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"]
            )
        except Error as error:
            _unavailable(str(error).splitlines()[0], INSTALL)
        yield browser
        browser.close()


@pytest.fixture
def grid(browser: Browser) -> Iterator[GridPage]:
    """A page for one grid; what it complains about fails the test."""
    from browser.grid_page import GridPage

    context = browser.new_context(viewport={"width": 1000, "height": 900})
    context.set_default_timeout(5000)
    page = GridPage(context.new_page())
    yield page
    context.close()
    assert not page.errors
