"""A journal of a pool on an engine: its scribe stands between the program's handle and the thread that has batches."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import bossworker.journal
from bossworker import AsyncBossWorker, BossDied, BossWorker, JournalInUse
from bossworker.engines.flight_notes import FlightNotes
from bossworker.journal.job_lanes import MOST_WINDOW, Lanes
from bossworker.pool.wire.filed_memory import MOST_PASSED, FiledMemory
from bossworker.system import processes
from tests.conftest import alive, wait_for
from tests.engines.conftest import Face, descendants
from tests.engines.marks import PATIENCE, leave_a_mark, runs
from tests.engines.test_batch_book import batch_of


def counts(path: Path) -> dict[str, int]:
    """How many jobs there are, by their status; but for those that there are none of."""
    return {status: count for status, count in bossworker.journal.open(path).counts().items() if count}


def test_what_is_added_and_what_comes_back_is_recorded(face: Face, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    bw = face(kind, leave_a_mark, worker_count=2, journal=path)
    bw.add_work(*({"n": n, "folder": str(tmp_path)} for n in range(300)))
    assert sorted(result["n"] for result in bw.results()) == list(range(300))
    assert counts(path) == {"done": 300}
    bw.add_work({"n": 7, "folder": str(tmp_path)}, {"n": 300, "folder": str(tmp_path)}, resume=True)
    stored = {result["n"]: result.stored for result in bw.results()}
    assert stored == {7: True, 300: False}
    with pytest.raises(JournalInUse):
        face(kind, leave_a_mark, worker_count=1, journal=path)
    bw.shut_down()
    assert runs(tmp_path) == Counter(range(301))


PROGRAM = """
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from bossworker import BossWorker
from tests.engines.marks import leave_a_mark

if __name__ == "__main__":
    folder, engine = sys.argv[1:]
    if engine == "processes":
        engine = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
    bw = BossWorker(leave_a_mark, engine=engine, worker_count=1, journal=folder + "/jobs.db")
    bw.add_work(*({"n": n, "folder": folder, "waits": n == 2} for n in range(100)))
    print("added", flush=True)
    list(bw.results())
"""


def executor_processes(program: int) -> dict[int, bool]:
    """Those that multiprocessing has started for a program; whether it is the one that sees to semaphores."""
    commands = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in descendants(program)}
    return {pid: b"resource_tracker" in one for pid, one in commands.items() if b"multiprocessing" in one}


def end_executor(started: dict[int, bool]) -> None:
    """Which does not end with its program; and the semaphores go once nobody has them any more."""
    for pid, tracks in started.items():
        if not tracks and alive(pid):
            os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not any(map(alive, started)), PATIENCE)


@pytest.mark.parametrize("interrupted", ["report", "rerun"])
def test_the_program_is_killed(
    face: Face, engine: Callable[[str], Any], kind: str, tmp_path: Path, interrupted: str
) -> None:
    """What the engine was given may have run; what it was not given has not, and is run by the next owner."""
    script, path = tmp_path / "program.py", tmp_path / "jobs.db"
    script.write_text(PROGRAM)
    place = kind if kind == "processes" else f"dask://{engine(kind).scheduler.address.removeprefix('tcp://')}"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(script), str(tmp_path), place]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as program:
        assert program.stdout is not None
        assert program.stdout.read(5) == b"added"
        wait_for(lambda: 2 in runs(tmp_path), PATIENCE)
        executors = executor_processes(program.pid)
        program.kill()
    (tmp_path / "go").touch()
    bw = face(kind, leave_a_mark, worker_count=1, journal=path, interrupted=interrupted)
    results = {result.job["n"]: result for result in bw.results()}
    cut_off = {n for n, result in results.items() if result.error_kind == "interrupted"}
    again = {n for n, result in results.items() if result.attempts == 2}
    assert set(results) | {0, 1} == set(range(100))
    assert all(result.ok for n, result in results.items() if n not in cut_off)
    suspects = cut_off if interrupted == "report" else again
    assert 2 in suspects
    assert len(suspects) < 50  # what the engine had; the rest was queued in the program
    ran = runs(tmp_path)
    assert all(ran[n] == 1 for n in range(100) if n not in suspects)
    assert all(ran[n] <= (1 if interrupted == "report" else 2) for n in suspects)
    bw.shut_down()
    end_executor(executors)


def test_the_scribe_is_killed(face: Face, kind: str, tmp_path: Path) -> None:
    """The pool ends with it; nothing that is noted as unbegun is begun later."""
    path = tmp_path / "jobs.db"
    bw = face(kind, leave_a_mark, worker_count=1, journal=path)
    bw.add_work(*({"n": n, "folder": str(tmp_path), "waits": True} for n in range(3)))
    wait_for(lambda: runs(tmp_path), PATIENCE)
    os.kill(bw._connection._scribe.pid, signal.SIGKILL)  # type: ignore[attr-defined]
    with pytest.raises(BossDied, match="the pool's scribe"):
        bw.get_result()
    (tmp_path / "go").touch()
    other = face(kind, leave_a_mark, worker_count=1, journal=path)
    results = {result.job["n"]: result.error_kind for result in other.results()}
    assert results[0] == "interrupted"
    assert set(results.values()) == {"interrupted", None}
    assert max(runs(tmp_path).values()) == 1
    other.shut_down()


def test_an_exception_through_with_leaves_what_is_queued(face: Face, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    bw = face(kind, leave_a_mark, worker_count=1, journal=path)
    bw.add_work(*({"n": n, "folder": str(tmp_path), "waits": True} for n in range(50)))
    wait_for(lambda: runs(tmp_path), PATIENCE)
    with pytest.raises(ZeroDivisionError), bw:
        raise ZeroDivisionError
    (tmp_path / "go").touch()
    with face(kind, leave_a_mark, worker_count=1, journal=path) as bw:
        results = {result.job["n"]: result.error_kind for result in bw.results()}
    assert set(results) == set(range(50))
    assert Counter(results.values())[None] >= 40
    assert max(runs(tmp_path).values()) == 1


def test_on_an_event_loop(engine: Callable[[str], Any], tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"

    async def main() -> None:
        async with AsyncBossWorker(leave_a_mark, engine=engine("processes"), worker_count=1, journal=path) as bw:
            found = [result["n"] async for result in bw.map({"n": n, "folder": str(tmp_path)} for n in range(20))]
            assert found == list(range(20))

    asyncio.run(main())
    assert counts(path) == {"done": 20}


def test_an_engine_that_cannot_be_used_leaves_the_journal(tmp_path: Path) -> None:
    """It is given back, with its scribe."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as executor:
        pass
    before = set(processes.children(os.getpid()))
    with pytest.raises(bossworker.WorkerStartError, match="takes no tasks"):
        BossWorker(leave_a_mark, engine=executor, journal=tmp_path / "jobs.db")
    assert set(processes.children(os.getpid())) <= before
    with BossWorker(leave_a_mark, worker_count=1, journal=tmp_path / "jobs.db"):
        pass


def test_a_scribe_passes_on_as_many_as_the_engine_wants() -> None:
    lanes = Lanes(1)
    assert lanes.least < 100
    lanes.set_least(100)
    assert lanes.least == 100
    lanes.set_least(10 * MOST_WINDOW)
    assert lanes.least == MOST_WINDOW


def test_notes_tell_what_the_engine_was_given(tmp_path: Path) -> None:
    fd = os.memfd_create("notes")
    os.ftruncate(fd, FiledMemory.size)
    memory = FiledMemory(fd)
    notes = FlightNotes(memory)
    assert notes.begin(1, batch_of(1, 10))
    assert notes.begin(2, batch_of(20, 5))
    assert notes.begin(3, batch_of(30, 1))
    notes.forget(2)
    notes.keep({3})
    for number in range(4, 4 + MOST_PASSED - 10):  # what is back is written over as late as can be
        assert notes.begin(number, batch_of(1000, 1))
        notes.keep({3})
    given = list(memory.claimed())
    assert {range(1, 11), range(30, 31)} <= set(given)
    assert range(20, 25) not in given
    assert not notes.begin(100_000, batch_of(40, 1))
    notes.close()
    memory.close_file()
