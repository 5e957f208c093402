"""What tests of pages use: a real browser."""

import os
import shutil
from pathlib import Path

import pytest

CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="module")
def browser():
    """A Chromium of this machine, or playwright's own; the test is skipped where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright, which drives the browser, is missing")
    with sync_api.sync_playwright() as playwright:
        own = playwright.chromium.executable_path
        found = next(filter(None, map(shutil.which, CHROMIUMS)), own if Path(own).is_file() else None)
        if found is None:
            pytest.skip(f"no Chromium is installed: none of {', '.join(CHROMIUMS)} is on PATH, nor playwright's own")
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium refuses to run as root with one
        launched = playwright.chromium.launch(executable_path=found, args=sandbox)
        yield launched
        launched.close()
