"""Makes the pictures of the page: ``python docs/make_screenshots.py`` writes docs/_static/page/*.png anew.

Needs Playwright, and Chromium (``apt-get install chromium``); the data are made up, by a pool that runs meanwhile.
"""

from __future__ import annotations

import logging
import os
import random
import shutil
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, sync_playwright

from bossworker import BossWorker, current_job, jobs

FOLDER = Path(__file__).parent / "_static" / "page"
WIDE, NARROW = (1120, 700), (360, 740)
LONG_PARTS = 2000  # of the job that runs while its picture is made
SECONDS = 75.0  # for charts that have a past
SHOTS: dict[str, tuple[str, str, tuple[int, int]]] = {  # name: route, colours, size
    "now": ("#/now", "light", WIDE),
    "now-dark": ("#/now", "dark", WIDE),
    "now-narrow": ("#/now", "light", NARROW),
    "jobs": ("#/jobs/thumbnails?status=failed", "light", WIDE),
    "job": ("#/job/thumbnails/{running}", "light", WIDE),
    "timeline": ("#/timeline/thumbnails", "dark", WIDE),
    "command": ("#/command/{command}", "light", WIDE),
}


def fetch(job: dict[str, Any]) -> dict[str, Any]:
    """A handler that takes its time, and fails now and then."""
    chance = random.Random(job["page"])
    steps = job.get("parts") or chance.randint(3, 24)
    me = current_job()
    assert me is not None
    for step in range(steps):
        me.progress(step, steps, f"reading part {step + 1}")
        print(f"part {step + 1}: {chance.randint(900, 1100)} bytes")
        time.sleep(chance.random() * 0.1)
    if job.get("parts"):
        return {"bytes": steps * 1024}
    match chance.random():
        case luck if luck < 0.05:
            raise ConnectionError(f"{job['url']}: connection refused")
        case luck if luck < 0.065:
            os._exit(9)
        case luck if luck < 0.08:
            time.sleep(60)
    return {"bytes": steps * 1024}


def keep_busy(pool: BossWorker[Any, Any], over: threading.Event) -> None:
    for page in range(1_000_000):
        pool.add_work({"url": f"https://example.org/pages/{page}", "page": page})
        if page > 180:
            pool.get_result()
        if over.is_set():
            return


def make(browser: Browser, url: str, places: dict[str, str]) -> None:
    base = url.partition("?")[0]
    for name, (route, scheme, (width, height)) in SHOTS.items():
        window = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme="dark" if scheme == "dark" else "light",
            device_scale_factor=2 if width == NARROW[0] else 1,
        )
        page = window.new_page()
        page.goto(url)
        page.goto(base + route.format(**places))
        page.wait_for_timeout(3000)
        page.screenshot(path=FOLDER / f"{name}.png")
        window.close()


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update(BOSSWORKER_ROOT=f"{folder}/jobs", BOSSWORKER_TASKS=f"{folder}/tasks", XDG_RUNTIME_DIR=folder)
        command = jobs.start(
            "for part in 1 2 3; do echo compiling part $part; sleep 1; done; echo 'foo.c:3: no such file' >&2; exit 2",
            shell=True,
            meta={"name": "build"},
        )
        logging.basicConfig(level=logging.ERROR)  # what jobs print is to be seen on the page, and not here
        pool = BossWorker(fetch, worker_count=4, global_timeout=4, name="thumbnails", logs="relay")
        url, over = pool.web(), threading.Event()
        feeder = threading.Thread(target=keep_busy, args=(pool, over))
        feeder.start()
        time.sleep(SECONDS)
        long = {"url": "https://example.org/pages/all", "page": 0, "parts": LONG_PARTS}
        (running,) = pool.add_work(long, timeout=600, priority=1)
        try:
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
                make(browser, url, {"running": str(running), "command": command})
                browser.close()
        finally:
            over.set()
            feeder.join()
            pool.shut_down(force=True)


if __name__ == "__main__":
    main()
