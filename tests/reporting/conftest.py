"""A Chromium for the tests of pages; without one they are skipped, and say why."""

import pathlib
from collections.abc import Iterator

import pytest
from tests.reporting.browser import Browser, browser, find

CACHE = pathlib.Path(__file__).parents[2] / ".cache" / "chromium"


@pytest.fixture(scope="session")
def chromium() -> str:
    program, reason = find(CACHE)
    if reason:
        pytest.skip(reason)
    return program


@pytest.fixture(scope="module")
def opened(chromium: str) -> Iterator[Browser]:
    """Provide a browser for all tests of a file."""
    with browser(chromium) as one:
        yield one
