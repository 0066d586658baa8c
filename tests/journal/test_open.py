"""``bossworker.journal.open``, in another process: while a pool has the journal, and while none has."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bossworker import BossWorker
from bossworker import journal as journals
from tests.conftest import wait_for
from tests.journal.programs import Program

kinds = pytest.mark.parametrize(("start_method", "transport"), [("fork", "zmq"), ("spawn", "socketpair")])
owned = pytest.mark.parametrize("owned", [True, False], ids=["owned", "alone"])

GOOD, BAD, WAITING = range(3), range(3, 5), range(5, 8)  # what jobs of these numbers are


def handle(job: dict[str, Any]) -> dict[str, Any]:
    flag = Path(job["flag"])
    if job["n"] in BAD and not flag.exists():
        raise ValueError(f"no flag for {job['n']}")
    while job["n"] in WAITING and not flag.exists():
        time.sleep(0.005)
    return {"n": job["n"], "twice": job["n"] * 2}


def in_another_process(path: Path, expression: str) -> Any:
    """What an expression of `journal` is there, as JSON."""
    program = "import json, sys; from bossworker.journal import open; journal = open(sys.argv[1]); " + (
        f"print(json.dumps({expression}))"
    )
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, path], capture_output=True, text=True, check=False, timeout=60
    )
    assert not ran.returncode, ran.stderr
    return json.loads(ran.stdout)


def left(path: Path, **settings: Any) -> tuple[BossWorker, dict[int, int]]:
    """A pool with jobs that have ended well, or badly, or wait for the flag; their ids by their numbers."""
    pool = BossWorker(handle, worker_count=1, journal=path, **settings)
    flag = str(path.with_suffix(".flag"))
    ids = {n: job_id for some in (GOOD, BAD, WAITING) for n, job_id in zip(some, add(pool, some, flag))}
    for _ in (*GOOD, *BAD):
        assert pool.get_result() is not None
    wait_for(lambda: pool.stats().running == 1)
    return pool, ids


def add(pool: BossWorker, numbers: range, flag: str) -> Sequence[int]:
    return pool.add_work(*[{"n": n, "flag": flag} for n in numbers])


def results_of(pool: BossWorker) -> dict[int, Any]:
    with pool:
        return {result.job_id: result for result in pool.results()}


@kinds
@owned
def test_what_is_in_it_and_what_is_retried(tmp_path: Path, start_method: Any, transport: Any, owned: bool) -> None:
    path = tmp_path / "jobs.db"
    pool, ids = left(path, start_method=start_method, transport=transport)
    if not owned:
        pool.shut_down(force=True)
    bad = [ids[n] for n in BAD]
    told = in_another_process(
        path,
        f"""{{
            "counts": journal.counts(),
            "jobs": [(job.id, job.status, job.error_kind, job.attempts) for job in journal.jobs()],
            "good": [dict(journal.result({ids[2]})), journal.job({ids[2]})["n"]],
            "bad": [journal.result({bad[0]}).error, [job.error for job in journal.jobs("failed")][0]],
            "reprs": [repr(job) for job in journal.jobs()][2:4],
            "none": journal.result({ids[6]}),
        }}""",
    )
    nothing = dict.fromkeys(("queued", "running", "done", "failed", "cancelled", "interrupted"), 0)
    begun = "running" if owned else "interrupted"
    assert told["counts"] == {**nothing, "queued": 2, "done": 3, "failed": 2, begun: 1}
    assert told["jobs"] == [
        *([ids[n], "done", None, 1] for n in GOOD),
        *([ids[n], "failed", "exception", 1] for n in BAD),
        [ids[5], begun, None, 1],
        *([ids[n], "queued", None, 0] for n in (6, 7)),
    ]
    assert told["good"] == [{"n": 2, "twice": 4}, 2]
    assert told["bad"] == ["ValueError: no flag for 3"] * 2
    assert told["reprs"] == [
        f"<JournalJob {ids[2]}, done>",
        f"<JournalJob {ids[3]}, failed: ValueError: no flag for 3>",
    ]
    assert told["none"] is None
    path.with_suffix(".flag").touch()
    new, of = in_another_process(
        path, "[journal.retry(status='failed'), [(job.id, job.retry_of) for job in journal.jobs() if job.retry_of]]"
    )
    assert of == [[one, old] for one, old in zip(new, bad)]
    assert not {*new} & {*ids.values()}
    if not owned:
        pool = BossWorker(handle, worker_count=1, journal=path, start_method=start_method, transport=transport)
    results = results_of(pool)
    assert {job_id for job_id, result in results.items() if not result.ok} == (set() if owned else {ids[5]})
    assert [results[one]["n"] for one in new] == [*BAD]
    assert results[ids[7]]["twice"] == 14
    assert in_another_process(path, "journal.counts()")["queued"] == 0


@owned
def test_what_has_not_ended_is_not_retried_and_then_nothing_is(tmp_path: Path, owned: bool) -> None:
    path = tmp_path / "jobs.db"
    pool, ids = left(path)
    if not owned:
        pool.shut_down(force=True)
    journal = journals.open(path)
    before = journal.counts()
    with pytest.raises(ValueError, match=rf"job {ids[6]} has not ended \(it is queued\)"):
        journal.retry(ids[3], ids[6])
    with pytest.raises(KeyError, match="there is no job 4711"):
        journal.retry(ids[3], 4711)
    assert journal.counts() == before
    pool.shut_down(force=True)


@kinds
@owned
def test_what_is_forgotten_is_gone_and_no_id_comes_again(
    tmp_path: Path, start_method: Any, transport: Any, owned: bool
) -> None:
    path = tmp_path / "jobs.db"
    pool, ids = left(path, start_method=start_method, transport=transport)
    if not owned:
        pool.shut_down(force=True)
    journal = journals.open(path)
    wait_for(lambda: sum(job.retrieved for job in journal.jobs()) >= 4)  # the last one, it may still be busy with
    forget = "[journal.forget(3600), journal.forget(status='failed', unretrieved=True)]"
    assert in_another_process(path, forget) == [0, 2]
    for use in (journal.job, journal.result, journal.retry):
        with pytest.raises(KeyError, match=f"no job {ids[3]}"):
            use(ids[3])
    assert journal.forget(unretrieved=True) == 3
    path.with_suffix(".flag").touch()
    if not owned:
        pool = BossWorker(handle, worker_count=1, journal=path, start_method=start_method, transport=transport)
    assert pool.add_work({"n": 0, "flag": ""})[0] == ids[7] + 1
    results = results_of(pool)
    waiting = {ids[n] for n in WAITING} if owned else {ids[n] for n in (6, 7)}
    assert results.keys() - {ids[5]} == waiting - {ids[5]} | {ids[7] + 1}
    assert all(result.ok for result in results.values() if result.job_id != ids[5])
    assert journals.open(path).forget(unretrieved=True) == len(results)
    assert sum(journals.open(path).counts().values()) == 0


@contextmanager
def asking(path: Path, expected: Callable[[dict[str, int]], bool]) -> Iterator[Counter[bool]]:
    """Ask some times a second, in a thread, how many jobs there are; how often it was as expected, and was not."""
    seen: Counter[bool] = Counter()
    stop = threading.Event()

    def ask() -> None:
        while not stop.wait(0.02):
            seen[expected(dict(journals.open(path).counts()))] += 1  # type: ignore[arg-type]

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()


def test_whoever_asks_is_answered_while_owners_are_killed_and_come(tmp_path: Path) -> None:
    path, log = tmp_path / "jobs.db", tmp_path / "log"
    body = """
        pool = BossWorker(note, worker_count=2, journal=path)
        if not os.path.exists(log):
            pool.add_work(*[{"n": n, "log": log, "seconds": 0.01} for n in range(200)])
        tell(os.getpid())
        sys.stdin.readline()
    """
    program = Program(body, path, log)
    program.told()
    with asking(path, lambda counts: sum(counts.values()) == 200) as seen:
        for victims in ((), ("scribe",)):
            before = seen[True]
            wait_for(lambda: seen[True] > before + 2)  # noqa: B023
            program.kill(*victims)
            if victims == ("scribe",):
                program.kill("program")
            program = Program(body, path, log)
            program.told()
        program.kill()
        before = seen[True]
        wait_for(lambda: seen[True] > before + 2)
    assert not seen[False]


def test_many_processes_ask_one_owner(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    pool, ids = left(path)
    script = (
        "import sys; from bossworker.journal import open; journal = open(sys.argv[1]); "
        f"print(journal.retry({ids[3]}), [journal.counts() for _ in range(20)])"
    )
    asked = [
        subprocess.Popen([sys.executable, "-W", "error", "-c", script, path], stdout=subprocess.PIPE, text=True)
        for _ in range(5)
    ]
    told = [one.communicate(timeout=60)[0] for one in asked]
    assert not any(one.returncode for one in asked)
    path.with_suffix(".flag").touch()
    results = results_of(pool)
    new = {job.id for job in journals.open(path).jobs() if job.retry_of == ids[3]}
    assert len(new) == 5
    assert {int(text.split("]")[0][1:]) for text in told} == new
    assert all(results[one]["n"] == 3 for one in new)


def test_the_new_ids_of_a_retry_are_ids(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    pool, ids = left(path)
    with journals.open(path) as journal:
        (new,) = journal.retry(ids[3])
        assert journal.job(new)["n"] == 3
        assert journal.result(new) is None
        path.with_suffix(".flag").touch()
        wait_for(lambda: journal.result(new) is not None)
        assert journal.retry(new)[0] > new
    results_of(pool)


@pytest.mark.parametrize("how", ["pending", "get_result", "results"])
def test_the_owner_waits_for_a_retry_when_it_waits_for_nothing_else(tmp_path: Path, how: str) -> None:
    path = tmp_path / "jobs.db"
    pool, ids = left(path)
    path.with_suffix(".flag").touch()
    with pool:
        assert len(list(pool.results())) == len(WAITING)
        (new,) = journals.open(path).retry(ids[3])
        if how == "pending":
            assert pool.pending() == 1
        result = next(pool.results()) if how == "results" else pool.get_result()
        assert (result.job_id, result["n"]) == (new, 3)
        assert pool.pending() == 0


def test_it_is_a_context_manager(tmp_path: Path) -> None:
    """Which people expect; nothing is held open in it, and another owner may come and go meanwhile."""
    path = tmp_path / "jobs.db"
    with BossWorker(handle, worker_count=1, journal=path) as pool:
        pool.add_work({"n": 0, "flag": str(tmp_path / "flag")})
        with journals.open(path) as journal:
            assert sum(journal.counts().values()) == 1
    with journals.open(path) as journal, BossWorker(handle, worker_count=1, journal=path):
        assert journal.counts()["done"] == 1
    journal.close()
    with pytest.raises(ZeroDivisionError), journals.open(path) as journal:
        raise ZeroDivisionError
