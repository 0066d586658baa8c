"""Which browsers can look at the page, if any. (Who only asks need not load Playwright, which is much.)"""

from __future__ import annotations

import shutil

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def find_browser() -> str | None:
    """The path of one that is installed."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)
