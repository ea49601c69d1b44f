"""A real Chromium for tests, headless and without a sandbox of its own (they run as root in containers)."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Page, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")


def executable() -> str:
    """The browser's path. Fails the test where there is none."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    assert found is not None, "no Chromium on this machine: install Debian's package chromium (see .ci/run)"
    return found


@contextmanager
def page() -> Iterator[Page]:
    """A page of a fresh profile."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable(), args=["--no-sandbox", "--no-proxy-server"])
        try:
            yield browser.new_page()
        finally:
            browser.close()
