"""What somebody does to the files of a journal, or to its scribe, while it has an owner."""

from __future__ import annotations

import os
import resource
import shutil
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bossworker import BossDied, BossWorker, JournalError, JournalInUse
from bossworker import journal as journals
from bossworker.system import processes
from tests.conftest import wait_for
from tests.journal.programs import role
from tests.journal.test_recovery import note, ran


def scribe() -> int:
    (pid,) = [pid for pid in processes.descendants(os.getpid()) if role(pid) == "scribe"]
    return pid


def jobs(log: Path, numbers: range, **more: Any) -> list[dict[str, Any]]:
    return [{"n": n, "log": str(log), **more} for n in numbers]


def replaced(path: Path) -> None:
    shutil.copy(path, path.with_suffix(".copy"))
    path.with_suffix(".copy").replace(path)


HARM: dict[str, Callable[[Path], object]] = {
    "removed": os.unlink,
    "its log removed": lambda path: os.unlink(f"{path}-wal"),
    "renamed": lambda path: path.rename(path.with_suffix(".old")),
    "replaced": replaced,
    "emptied": lambda path: os.truncate(path, 0),
    "its folder removed": lambda path: shutil.rmtree(path.parent),
}


@pytest.mark.parametrize("harm", HARM)
def test_what_is_not_on_the_disk_is_not_accepted(tmp_path: Path, harm: str, caplog: pytest.LogCaptureFixture) -> None:
    """SQLite would go on to write to files that have no name any more."""
    folder = tmp_path / "place"
    folder.mkdir()
    path, log = folder / "jobs.db", tmp_path / "log"
    pool = BossWorker(note, worker_count=1, journal=path)
    pool.add_work(*jobs(log, range(3)))
    assert len(list(pool.results())) == 3
    HARM[harm](path)
    with pytest.raises(BossDied, match="was moved, replaced or removed while it was in use"):
        pool.add_work(*jobs(log, range(10, 20)))
    assert any("journal closed" in text for text in caplog.messages)
    pool.shut_down(force=True)


def test_without_the_file_of_the_lock_there_is_one_owner_all_the_same(tmp_path: Path) -> None:
    path, log = tmp_path / "jobs.db", tmp_path / "log"
    with BossWorker(note, worker_count=1, journal=path) as pool:
        pool.add_work(*jobs(log, range(3)))
        os.unlink(f"{path}-lock")
        with pytest.raises(JournalInUse, match="belongs to another program"):
            BossWorker(note, worker_count=1, journal=path)
        assert len(list(pool.results())) == 3


def test_where_no_more_may_be_written_it_is_as_on_a_full_disk(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A quota, or a limit of a file's size: SQLite does not take these for a full disk."""
    path, log, gate = tmp_path / "jobs.db", tmp_path / "log", tmp_path / "gate"

    def wait_at_gate(job: dict[str, Any]) -> dict[str, Any]:
        while not gate.exists():
            time.sleep(0.005)
        return note(job)

    with BossWorker(wait_at_gate, worker_count=1, journal=path) as pool:
        pool.add_work(*jobs(log, range(5), more="x" * 100_000))
        resource.prlimit(scribe(), resource.RLIMIT_FSIZE, (1 << 16, resource.RLIM_INFINITY))
        for _ in range(2):
            with pytest.raises(JournalError, match="did not take the jobs"):
                pool.add_work(*jobs(log, range(10, 20)))
        gate.touch()
        wait_for(lambda: any("waits for room" in text for text in caplog.messages) or pool.stats() is None)
        resource.prlimit(scribe(), resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        pool.add_work(*jobs(log, range(20, 22)))
        assert Counter(result["n"] for result in pool.results()) == Counter([*range(5), 20, 21])
    assert ran(log) == Counter([*range(5), 20, 21])
    assert journals.open(path).counts()["done"] == 7


def test_a_scribe_that_gets_no_memory_says_so_and_loses_nothing(tmp_path: Path) -> None:
    path, log = tmp_path / "jobs.db", tmp_path / "log"
    pool = BossWorker(note, worker_count=1, journal=path)
    pool.pause()
    pool.add_work(*jobs(log, range(5)))
    size = int(Path(f"/proc/{scribe()}/statm").read_text().split()[0]) * resource.getpagesize()
    resource.prlimit(scribe(), resource.RLIMIT_AS, (size, resource.RLIM_INFINITY))
    accepted = 0
    with pytest.raises(BossDied, match=r"gave up .*has no memory left"):  # noqa: PT012
        while True:
            pool.add_work({"n": 100 + accepted, "log": str(log), "more": os.urandom(200_000)})
            accepted += 1
    pool.shut_down(force=True)
    with BossWorker(note, worker_count=1, journal=path) as again:
        results = Counter(result["n"] for result in again.results())
    assert results == Counter([*range(5), *range(100, 100 + accepted)])
    assert ran(log) == results
