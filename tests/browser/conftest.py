"""A browser for the tests here; without one they are skipped, and say so loudly."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from browser.grid_page import GridPage
    from playwright.sync_api import Browser, Page

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


@pytest.fixture(scope="module")
def page(browser: Browser) -> Iterator[Page]:
    """One page for all tests that leave the clock alone; each loads its host anew."""
    context = browser.new_context()
    yield context.new_page()
    context.close()


@pytest.fixture
def grid(page: Page) -> Iterator[GridPage]:
    """A page for one grid; what it complains about fails the test."""
    yield from _grid(page)


@pytest.fixture
def clocked(browser: Browser) -> Iterator[GridPage]:
    """The same in a page of its own, whose time passes as `page.clock` says."""
    context = browser.new_context()
    page = context.new_page()
    page.clock.install()
    yield from _grid(page)
    context.close()


def _grid(page: Page) -> Iterator[GridPage]:
    from browser.grid_page import GridPage

    page.set_viewport_size({"width": 1000, "height": 900})
    page.set_default_timeout(5000)
    page.emulate_media(color_scheme="light", reduced_motion="no-preference")
    grid = GridPage(page)
    yield grid
    grid.close()
    assert not grid.errors
