"""Which browsers can look at the page, if any. (Who only asks need not load Playwright, which is much.)

The first has no windows to draw, and takes half of the time.
"""

from __future__ import annotations

import shutil

BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")


def find_browser() -> str | None:
    """The path of one that is installed."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)
