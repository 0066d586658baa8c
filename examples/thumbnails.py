"""Thumbnails of a folder of images, with Pillow: a job an image, a worker a CPU.

    python examples/thumbnails.py [--images DIR] [--out DIR] [--size N] [--count N] [--workers N] [--timeout SECONDS]

Where there are no images, the same workers make some first: 2,000 of them, a few of them broken. Run it again after
Ctrl-C, or after more images came: it makes only the thumbnails that are missing or older than their images. Images that
fail are listed at the end; one that takes too long, or has its worker killed, costs no other its thumbnail.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from arguments import MAX_WORKERS, seconds, whole

from bossworker import BossWorker, Result

try:
    from PIL import Image
except ImportError:
    raise SystemExit("thumbnails.py needs Pillow: pip install pillow") from None

KINDS = {".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp"}
BROKEN_EVERY = 500  # of the images that are made, one is no image
REDRAW_SECONDS = 0.1  # between two looks of the progress line on a terminal,
LINE_SECONDS = 2.0  # and between two lines in a log


# -- in a worker ----------------------------------------------------------------------------------------


def work(job: dict[str, Any]) -> dict[str, Any]:
    """The work handler."""
    return make_image(**job["make"]) if "make" in job else make_thumbnail(**job["shrink"])


def make_image(path: str, number: int) -> dict[str, Any]:
    """A picture of stripes, another for each number."""
    if number % BROKEN_EVERY == BROKEN_EVERY - 1:
        Path(path).write_bytes(b"not an image")
        return {}
    image = Image.radial_gradient("L").resize((640, 480)).rotate(number % 360)
    Image.merge("RGB", (image, image.rotate(90), image.rotate(180))).save(path, quality=80)
    return {}


def make_thumbnail(path: str, thumbnail: str, size: int) -> dict[str, Any]:
    """Written beside its place, and put there when it is whole: a thumbnail that is there is good."""
    with Image.open(path) as image:
        image.thumbnail((size, size))
        unfinished = f"{thumbnail}.{os.getpid()}.part"
        try:
            image.convert("RGB").save(unfinished, "JPEG")
            os.replace(unfinished, thumbnail)
        finally:
            Path(unfinished).unlink(missing_ok=True)
        return {"size": image.size, "bytes": os.path.getsize(thumbnail)}


# -- in the caller --------------------------------------------------------------------------------------


def images_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in KINDS)


def image_jobs(folder: Path, count: int) -> Iterator[dict[str, Any]]:
    for number in range(count):
        yield {"make": {"path": str(folder / f"image-{number:05}.jpg"), "number": number}}


def thumbnail_jobs(images: Iterable[Path], out: Path, size: int) -> list[dict[str, Any]]:
    """A job for each image that has no thumbnail yet, or an older one."""
    jobs = []
    for path in images:
        thumbnail = out / f"{path.name}.jpg"
        if not thumbnail.exists() or thumbnail.stat().st_mtime < path.stat().st_mtime:
            jobs.append({"shrink": {"path": str(path), "thumbnail": str(thumbnail), "size": size}})
    return jobs


class Progress:
    """One line on stderr: rewritten on a terminal, otherwise written anew from time to time."""

    def __init__(self, what: str, total: int) -> None:
        self.what, self.total, self.done, self.failed = what, total, 0, 0
        self.terminal = sys.stderr.isatty()
        self.due = time.monotonic()

    def note(self, result: Result) -> None:
        self.done += 1
        self.failed += not result.ok
        if self.done == self.total or time.monotonic() >= self.due:
            self.show()

    def show(self) -> None:
        self.due = time.monotonic() + (REDRAW_SECONDS if self.terminal else LINE_SECONDS)
        at_end = self.done == self.total
        before, after = ("\r", "\x1b[K" + "\n" * at_end) if self.terminal else ("", "\n")
        text = f"{self.what}: {self.done:,} of {self.total:,}, {self.failed} failed"
        print(before + text, end=after, file=sys.stderr, flush=True)


def run(pool: BossWorker, what: str, jobs: Iterable[dict[str, Any]], total: int) -> Iterator[Result]:
    """The results of jobs, as they come, with a progress line."""
    progress = Progress(what, total)
    for result in pool.map(jobs, ordered=False):
        progress.note(result)
        yield result


def make_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(description="Thumbnails of a folder of images.")
    parser.add_argument("--images", type=Path, default=Path("images"), metavar="DIR", help="default: images")
    parser.add_argument("--out", type=Path, default=Path("thumbnails"), metavar="DIR", help="default: thumbnails")
    parser.add_argument("--size", type=whole(1, 10_000), default=128, metavar="N", help="pixels (default: 128)")
    parser.add_argument(
        "--count", type=whole(0, 10**6), default=2000, metavar="N", help="images to make if there are none (2000)"
    )
    parser.add_argument(
        "--workers", type=whole(1, MAX_WORKERS), metavar="N", help="default: the CPUs this process may use"
    )
    parser.add_argument("--timeout", type=seconds, default=30, metavar="SECONDS", help="an image (default: 30)")
    return parser


def main() -> int:
    """Run the program; its exit code: 1 if an image failed."""
    options = make_parser().parse_args()
    for folder in (options.images, options.out):
        folder.mkdir(parents=True, exist_ok=True)
    failures: list[Result] = []
    with BossWorker(work, worker_count=options.workers, global_timeout=options.timeout) as pool:
        if not images_of(options.images):
            for result in run(pool, "made", image_jobs(options.images, options.count), options.count):
                result.raise_for_error()
        images = images_of(options.images)
        jobs = thumbnail_jobs(images, options.out, options.size)
        for result in run(pool, "thumbnails", jobs, len(jobs)):
            if not result.ok:
                failures.append(result)
    print(f"{len(images):,} images, {len(jobs) - len(failures):,} thumbnails made, {len(failures)} failed")
    for result in sorted(failures, key=lambda result: str(result.job["shrink"]["path"])):
        print(f"failed ({result.error_kind}): {result.job['shrink']['path']}: {result.error}")
    return 1 if failures else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
