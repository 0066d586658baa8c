"""A service that can be killed at any time: every file of a folder is dealt with once, however often it is started.

    python examples/durable_service.py FOLDER JOURNAL [--workers N] [--seconds S] [--report FILE]

Kill it as often as you like, with SIGKILL or by pulling the plug, and start it again: files that are done are not done
again, those that were waiting still are, and what it was busy with is begun anew. A file that has changed since is a
new job. --seconds makes each file take longer, so that there is time to kill it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import sys
import time
from pathlib import Path
from typing import Any

from arguments import MAX_WORKERS, seconds, whole

from bossworker import BossWorker, JournalError, Result, journal


def deal_with(job: dict[str, Any]) -> dict[str, str]:
    """The work handler. It may run twice for a file if it is interrupted: so it must do no harm when it does."""
    time.sleep(job["seconds"])
    return {"sha256": hashlib.sha256(Path(job["path"]).read_bytes()).hexdigest()}


def jobs_of(folder: Path, pause: float) -> list[dict[str, Any]]:
    """A job a file. What makes it another job is in it: the same job is never run twice."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    stats = [path.stat() for path in files]
    return [
        {"path": str(path), "bytes": stat.st_size, "changed": stat.st_mtime_ns, "seconds": pause}
        for path, stat in zip(files, stats)
    ]


def tell(result: Result) -> None:
    """One line a file, as it is done."""
    outcome = result["sha256"][:12] if result.ok else result.error
    print(f"{outcome}  {result.job['path']}{'  (before)' if result.stored else ''}", flush=True)


def serve(folder: Path, database: Path, workers: int | None, pause: float) -> int:
    """Deal with all files that are there now; how many could not be."""
    failed = 0
    with BossWorker(deal_with, worker_count=workers, journal=database, interrupted="rerun") as pool:
        jobs = jobs_of(folder, pause)
        if jobs:
            pool.add_work(*jobs, resume=True)  # once this returns, they are on the disk
        for result in pool.results():
            tell(result)
            failed += not result.ok
    return failed


def write_report(database: Path, report: Path) -> None:
    """What the journal knows: each file that is done, and its checksum."""
    kept = journal.open(database)
    results = (kept.result(job.id) for job in kept.jobs("done"))
    found = {result.job["path"]: result["sha256"] for result in results if result is not None}
    part = report.with_suffix(".part")
    part.write_text(json.dumps(found, indent=1))
    os.replace(part, report)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("journal", type=Path, metavar="JOURNAL", help="the database; it is made if it is not there")
    parser.add_argument("--workers", type=whole(1, MAX_WORKERS), help="how many at a time (default: a CPU each)")
    parser.add_argument("--seconds", type=seconds, default=0.0, help="how long each file takes at least")
    parser.add_argument("--report", type=Path, metavar="FILE", help="JSON with the checksums of all that is done")
    arguments = parser.parse_args()
    if not arguments.folder.is_dir():
        parser.error(f"no such folder: {arguments.folder}")
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("bossworker").setLevel(logging.INFO)
    logging.getLogger("bossworker").addFilter(lambda record: record.getMessage().startswith("recovered"))
    try:
        failed = serve(arguments.folder, arguments.journal, arguments.workers, arguments.seconds)
        if arguments.report:
            write_report(arguments.journal, arguments.report)
    except JournalError as error:
        print(error, file=sys.stderr)
        return 2
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
