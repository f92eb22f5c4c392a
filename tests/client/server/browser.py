"""Finds a headless Chromium: pip carries none, Debian's chromium-headless-shell is the smallest (``make browser``)."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, sync_playwright

VARIABLE = "BERTREC_CHROMIUM"
NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")


def executable() -> str:
    """The browser that the environment names, or the first on PATH; without one the test is skipped, and says why."""
    named = os.environ.get(VARIABLE)
    candidates = [named] if named else NAMES
    found = next((path for path in map(shutil.which, candidates) if path), None)
    if found is None and named:
        pytest.fail(f"{VARIABLE} is {named!r}, which is no program")
    if found is None:
        pytest.skip(f"no Chromium: none of {', '.join(NAMES)} is on PATH, and {VARIABLE} names none; make browser installs one")
    return found


@contextmanager
def chromium() -> Iterator[Browser]:
    """A headless Chromium with a profile of its own, which ends with the block."""
    path = executable()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, headless=True)
        try:
            yield browser
        finally:
            browser.close()
