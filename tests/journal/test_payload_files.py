"""Large jobs and results are in files beside the database, and no crash leaves one without the other."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path
from typing import Any

import pytest

from bossworker import BossWorker, JournalError
from bossworker import journal as journals
from bossworker.failure import Outcome, decode_text
from bossworker.journal.payload_files import LARGE_BYTES
from bossworker.journal.whole_payloads import whole_results
from bossworker.pool.wire.frames import Frame
from bossworker.pool.wire.messages import Kind
from bossworker.pool.wire.parcel import Parcel, into_file
from bossworker.pool.wire.segments import read_segments, single
from tests.conftest import wait_for
from tests.journal.programs import Program
from tests.journal.test_files import disk, fill
from tests.journal.test_power_cut import shim

__all__ = ["disk", "shim"]

SIZE = LARGE_BYTES + 100_000


def twice(job: dict[str, Any]) -> dict[str, Any]:
    return {"data": job["data"] * 2}


def files(journal: Path) -> list[Path]:
    return sorted(journal.with_name(f"{journal.name}-files").glob("*"))


def test_they_are_in_files_of_this_users_alone_and_go_with_their_jobs(tmp_path: Path) -> None:
    journal = tmp_path / "jobs.db"
    with BossWorker(twice, worker_count=1, journal=journal) as pool:
        pool.add_work({"data": os.urandom(SIZE)}, {"data": b"small"})
        assert [len(result["data"]) for result in pool.results()] == [2 * SIZE, 10]
        made = files(journal)
        assert sorted(file.suffix for file in made) == [".job", ".result"]
        assert {stat.S_IMODE(one.stat().st_mode) for one in made} == {0o600}
        assert stat.S_IMODE(made[0].parent.stat().st_mode) == 0o700
        assert journals.open(journal).size() > 3 * SIZE
        told = journals.open(journal).result(1)  # its owner says where it is
        assert told is not None
        assert told["data"] == journals.open(journal).job(1)["data"] * 2
    assert journal.stat().st_size < SIZE
    result = journals.open(journal).result(1)
    assert result is not None
    assert result["data"] == result.job["data"] * 2
    assert journals.open(journal).job(1) == result.job
    assert journals.open(journal).forget() == 2
    assert files(journal) == []
    with pytest.raises(KeyError, match="there is no job 1"):
        journals.open(journal).result(1)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["jobs.db", "jobs.db-lock"]


def test_a_result_that_is_too_large_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bossworker.journal.whole_payloads.MOST_BYTES", 300_000)
    for size, outcome in ((200_000, Outcome.OK), (400_000, Outcome.BAD_RESULT | Outcome.TEXT)):
        in_file = into_file(memoryview(Parcel([b"pickle", bytes(size)]).inline()))
        assert in_file is not None
        segment = single(7, 1, 1, 0.0, 1.0, Outcome.OK, in_file[0])
        body = memoryview(b"".join(map(bytes, segment.body())))
        frame, (whole,) = whole_results(Frame(Kind.RESULTS, memoryview(segment.head()), body, [in_file[1]]))
        assert (whole.first_id, whole.outcomes[0]) == (7, outcome)
        (sent,) = read_segments(frame.head, frame.body)
        assert bytes(sent.payload) == whole.payload
        if outcome:
            text = str(decode_text(whole.payload).text)
            assert text == "BossWorkerAsync: the result has 400030 bytes, and a journal keeps at most 300000 of one"


def test_a_retry_has_a_file_of_its_own(tmp_path: Path) -> None:
    journal = tmp_path / "jobs.db"
    with BossWorker(twice, worker_count=1, journal=journal) as pool:
        pool.add_work({"data": os.urandom(SIZE)})
        (first,) = pool.results()
        journals.open(journal).retry(1)
        wait_for(lambda: pool.stats() and pool.pending())
        (again,) = pool.results()
        assert again == first
    assert journals.open(journal).forget(status="done") == 2
    assert files(journal) == []


def test_jobs_that_wait_are_not_in_the_scribes_memory(tmp_path: Path) -> None:
    with BossWorker(twice, worker_count=1, journal=tmp_path / "jobs.db") as pool:
        pool.pause()
        for _ in range(8):
            pool.add_work({"data": os.urandom(8_000_000)})
        scribe = pool._connection._scribe.pid  # type: ignore[attr-defined]
        resident = int(Path(f"/proc/{scribe}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        pool.cancel(*range(1, 9))
        pool.resume()
        assert len(list(pool.results())) == 8
    # Four of them may be with the boss; without files, the scribe had all eight, and what it wrote of them.
    assert resident < 8 * 8_000_000


def test_what_was_left_is_run_with_its_payload_by_the_next_owner(tmp_path: Path) -> None:
    journal = tmp_path / "jobs.db"
    pool = BossWorker(twice, worker_count=1, journal=journal)
    pool.pause()
    sent = [os.urandom(SIZE + n) for n in range(8)]
    pool.add_work(*[{"data": data} for data in sent])
    pool.shut_down(force=True)
    with BossWorker(twice, worker_count=1, journal=journal) as again:
        results = list(again.results())
    assert [result["data"] for result in results] == [data * 2 for data in sent]
    assert [result.job["data"] for result in results] == sent


def test_a_file_that_is_gone_is_told_and_harms_nobody_else(tmp_path: Path) -> None:
    journal = tmp_path / "jobs.db"
    with BossWorker(twice, worker_count=1, journal=journal) as pool:
        pool.add_work({"data": b"1" * SIZE})
        assert pool.get_result().ok
        pool.pause()
        pool.add_work({"data": b"2" * SIZE}, {"data": b"3"})
        pool.shut_down(force=True)
    for file in files(journal):
        file.unlink() if file.suffix == ".result" else os.truncate(file, 1000)
    told = journals.open(journal).result(1)
    assert told is not None
    assert told.error_kind == "bad_result"
    assert "the result is lost: " in str(told.error)
    assert told.job is None
    with BossWorker(twice, worker_count=1, journal=journal) as pool:
        results = {result.job_id: result for result in pool.results()}
    assert results[3] == {"data": b"33"}
    assert (results[2].error_kind, results[2].attempts) == ("bad_job", 0)
    assert "the job is lost: " in str(results[2].error)


def test_the_files_of_a_journal_that_was_moved_away_are_left_to_it(tmp_path: Path) -> None:
    """As the error of a damaged one advises."""
    journal, moved = tmp_path / "jobs.db", tmp_path / "moved.db"
    for n in range(2):
        with BossWorker(twice, worker_count=1, journal=journal) as pool:
            pool.add_work({"data": bytes([n]) * SIZE})
            assert len(pool.get_result()["data"]) == 2 * SIZE
        if n == 0:
            journal.rename(moved)
    kept = files(journal)
    assert len(kept) == 4
    (tmp_path / "jobs.db-files").rename(tmp_path / "moved.db-files")
    result = journals.open(moved).result(1)
    assert result is not None
    assert result["data"] == bytes(2 * SIZE)
    assert len(files(moved)) == 4
    assert journals.open(moved).forget() == 1
    assert len(files(moved)) == 2


def test_on_a_full_disk_neither_row_nor_file_is_left(disk: Path) -> None:
    journal = disk / "jobs.db"
    with BossWorker(twice, worker_count=1, journal=journal) as pool:
        pool.pause()
        ballast = fill(disk)
        os.truncate(ballast, ballast.stat().st_size - 2 * SIZE)
        with pytest.raises(JournalError, match=r"did not take the jobs: .*(full|No space)"):
            pool.add_work(*[{"data": os.urandom(SIZE)}] * 4)
        assert files(journal) == []
        assert pool.pending() == 0
        ballast.unlink()
        pool.resume()
        pool.add_work({"data": b"x" * SIZE})
        assert [len(result["data"]) for result in pool.results()] == [2 * SIZE]
        assert len(files(journal)) == 2


def test_a_kill_at_any_step_leaves_rows_with_their_files_and_nothing_else(tmp_path: Path) -> None:
    """A process that adds, and then deletes, is killed before each system call and each statement in turn."""
    program = Program(
        """
        import signal
        from bossworker.journal import payload_files
        from bossworker.journal.database import Database
        from bossworker.journal.ranges import Ranges
        from bossworker.pool.wire.batch import Batch, JobOptions
        from bossworker.pool.wire.segments import single
        from bossworker.system import syncing
        from array import array

        steps_left = 0
        def step():
            global steps_left
            steps_left -= 1
            if not steps_left:
                os.kill(os.getpid(), signal.SIGKILL)

        class Calls:  # in the place of `os`
            def __getattr__(self, name):
                if name in ("open", "write", "close", "fsync", "mkdir", "unlink", "rmdir"):
                    step()
                return getattr(os, name)

        class Connection:
            def __init__(self, db):
                self.db = db
            def execute(self, *what):
                step()
                return self.db.execute(*what)
            def __getattr__(self, name):
                return getattr(self.db, name)

        def add_and_delete(path):
            store = Database(path)
            payload_files.os = syncing.os = Calls()
            store._db = store.files._db = store.jobs._db = store.results._db = Connection(store._db)
            data = b"j" * 2_000_000
            with store.transaction:
                options = JobOptions(0, 0, 0, 1)
                store.jobs.add(Batch(7, 1, 0, options, array("I", [1]), array("Q", [len(data)]), data), 0)
                store.results.add(single(7, 1, 1, 0.0, 1.0, 0, b"r" * 2_000_000), 0)
            with store.transaction:
                store.delete(Ranges([range(7, 8)]))

        def look(path):
            store = Database(path)
            rows, segment = list(store.jobs.rows()), store.results.segment_of(7)
            names = sorted(name for _, _, some in os.walk(payload_files.folder_of(path)) for name in some)
            known = sorted(name for (name,) in store._db.execute("SELECT name FROM files"))
            whole = [len(store.jobs.part(row, row.ids).payload) for row in rows], segment and len(segment[0].payload)
            store.close()
            return names == known, whole

        seen, more = [], 1
        while True:
            place = f"{path}.{more}"
            if not (pid := os.fork()):
                steps_left = more
                add_and_delete(place)
                os._exit(0)
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            seen.append(look(place))
            if code == 0:
                break
            assert code == -9, code
            more += 1
        tell(seen)
        """,
        tmp_path / "jobs.db",
        tmp_path / "log",
    )
    seen = program.told()
    assert program.wait() == 0
    assert all(same for same, _ in seen)
    states = [whole for _, whole in seen]
    nothing: list[object] = [[], None]
    both = [[2_000_000], 2_000_000]
    first, last = states.index(both), len(states) - 1 - states[::-1].index(both)
    assert len(states) > 40
    assert states == [nothing] * first + [both] * (last + 1 - first) + [nothing] * (len(states) - last - 1)


CUT = """
    pool = BossWorker(lambda job: {"n": job["n"], "data": bytes([job["n"] % 256]) * len(job["data"])},
                      worker_count=1, journal=path)
    accepted = Path(path).parent.parent / "accepted"
    tell("up")
    n = 0
    while True:
        pool.add_work({"n": n, "data": bytes([n % 256]) * 1_500_000})
        with open(accepted, "a") as file:
            file.write(f"{n}\\n")
        n += 1
        time.sleep(0.01)
"""


def test_after_a_power_cut_what_was_accepted_has_its_payload(tmp_path: Path, shim: Path) -> None:
    disk, copy, accepted = tmp_path / "disk", tmp_path / "copy", tmp_path / "accepted"
    disk.mkdir()
    copy.mkdir()
    cuts = {"LD_PRELOAD": str(shim), "CUT_FROM": str(disk), "CUT_TO": str(copy)}
    program = Program(CUT, disk / "jobs.db", tmp_path / "log", cuts)
    assert program.told() == "up"
    wait_for(lambda: accepted.exists() and len(accepted.read_text().split()) > 5)
    time.sleep(0.05)
    program.kill()
    with BossWorker(lambda job: {"n": job["n"], "data": job["data"]}, worker_count=1, journal=copy / "jobs.db") as pool:
        results = list(pool.results())
    jobs = {result.job["n"]: result for result in results}
    assert set(map(int, accepted.read_text().split())) <= jobs.keys()
    for n, result in jobs.items():
        assert result.job["data"] == bytes([n % 256]) * 1_500_000
        assert result.error_kind == "interrupted" or result["data"] == result.job["data"]
