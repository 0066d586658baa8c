"""Operators: those who watch and steer all of a pool, from its own program or through a door."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import bossworker
from bossworker import BossWorker, BossWorkerError, PoolClosed
from bossworker.pool.caller.operating import FailedRecord, Operator, ReloadState, name_of
from bossworker.pool.wire.messages import DOOR_BITS, FIRST_RERUN_ID
from bossworker.pool.wire.opaque import load_opaque
from tests.conftest import wait_for


class Marble:
    """What only the pool's program knows."""

    def __init__(self, colour: str) -> None:
        self.colour = colour


def work(job: dict[str, Any]) -> Any:
    match job.get("do"):
        case "raise":
            raise ValueError(f"rattle {job['n']}")
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
        case "report":
            return {"ERROR": "so so"}
        case "sleep":
            time.sleep(job["seconds"])
        case "wait":
            wait_for(Path(job["path"]).exists)
        case "unless":
            if not os.path.exists(job["path"]):
                raise FileNotFoundError(job["path"])
    return {}


Clients = Callable[..., BossWorker]


@pytest.fixture(params=["own", "operate", "operate json"])
def operated(request: pytest.FixtureRequest, pool: Callable[..., BossWorker]) -> Iterator[Any]:
    """A pool, and its operator: of its own program, and of another."""

    def make(work_handler: Callable[..., Any] = work, **settings: Any) -> tuple[BossWorker, Operator]:
        bw = pool(work_handler, **settings)
        if "operate" not in request.param:
            return bw, bw.operator
        door = bw.listen(accept="json" if "json" in request.param else "pickle")
        made.append(bossworker.operate(door.address))
        return bw, made[-1]

    made: list[bossworker.RemoteOperator] = []
    yield make
    for one in made:
        one.close()


def test_what_has_failed_is_told_with_its_error_and_can_be_run_again(operated: Any, tmp_path: Path) -> None:
    bw, operator = operated(worker_count=2)
    path = tmp_path / "there"
    asked: list[dict[str, Any]] = [{"n": n} for n in range(70)]
    asked[7] = {"do": "raise", "n": 7}
    asked[30] = {"do": "die", "n": 30}
    asked[31] = {"do": "report", "n": 31}
    asked[66] = {"do": "unless", "n": 66, "path": str(path)}
    bw.add_work(*asked)
    list(bw.results())
    failed = {one.job_id: one for one in operator.failed()}
    assert {one: failed[one].kind for one in failed} == {8: "exception", 31: "crash", 32: "reported", 67: "exception"}
    assert failed[8].error == "ValueError: rattle 7"
    assert "in work" in failed[8].traceback
    assert failed[31].error == "BossWorkerAsync: worker died (signal 9, SIGKILL)"
    assert failed[32].error == "so so"
    now = operator.now()
    assert now.stats.failed_by_kind == {"exception": 2, "crash": 1, "reported": 1} == bw.stats().failed_by_kind
    assert now.last_ids == {0: 70}
    assert operator.stats().rate > 0
    assert [(one.first_id, one.jobs) for one in now.queued] == [(1, 70)]
    assert sorted(one.first_id + at for one in now.ended for at in range(len(one.outcomes))) == list(range(1, 71))
    content = operator.job(67)
    assert content is not None
    assert content.value == asked[66]
    found = operator.jobs([67, 3, 8, 9, 10, 31, 999])
    assert {67, 8, 31} <= set(found) < {67, 3, 8, 9, 10, 31}  # others may lie in the same batch
    assert {one: found[one].value for one in found} == {one: asked[one - 1] for one in found}
    assert content.options["attempt"] == 1
    path.touch()
    new = operator.run_again([67, 8, 5, 999], by="a test")
    assert list(new) == [67, 8]  # the others have not failed
    wait_for(lambda: operator.now().stats.done == 67 and operator.now().stats.failed == 5)
    ended = {one.first_id: one for one in operator.now(now.seen).ended}
    assert ended[new[67]].outcomes == b"\0"
    assert now.time - 60 < ended[new[67]].times[0] <= ended[new[67]].times[1] < now.time + 60
    assert [one.error for one in operator.failed(now.last_failed)] == ["ValueError: rattle 7"]
    assert bw.pending() == 0
    assert bw.get_result_nb() is None  # its program has had the results
    assert name_of(new[8]) == "again-2"


def test_an_operator_steers(operated: Any) -> None:
    bw, operator = operated(worker_count=1)
    operator.pause()
    assert bw.stats().paused
    ids = bw.add_work({"do": "sleep", "seconds": 60}, *({"n": n} for n in range(5)))
    wait_for(lambda: operator.queued() == [range(1, 7)])
    assert operator.cancel(ids[2:4]) == 2
    assert operator.queued() == [range(1, 3), range(5, 7)]
    operator.resume()
    wait_for(lambda: bw.stats().running == 1)
    assert "job 1 for" in operator.stack(1)
    assert "worker 0" in operator.stack()
    operator.resize(2)
    results = bw.results()
    assert sorted(next(results).job_id for _ in range(5)) == [2, 3, 4, 5, 6]
    assert operator.now().target == 2
    assert operator.cancel([1]) == 1
    assert next(bw.results()).error_kind == "cancelled"
    with pytest.raises(BossWorkerError, match="workers must be"):
        operator.resize(0)
    with pytest.raises(BossWorkerError, match="no such operation: 'nonsense'"):
        operator._ask("nonsense")
    with pytest.raises(BossWorkerError, match="refused"):
        operator._ask("now")
    assert operator.now().stats.done == 3


def test_others_jobs_are_seen_and_steered(pool: Callable[..., BossWorker], clients: Clients) -> None:
    bw = pool(work, worker_count=1)
    door = bw.listen()
    other, operator = clients(door), bw.operator
    (job_id,) = other.add_work({"do": "sleep", "seconds": 60})
    wait_for(lambda: bw.stats().running == 1)
    (worker,) = operator.now().stats.workers
    assert worker.job_id is not None
    assert name_of(worker.job_id) == f"{door.number}.1-{job_id}"
    assert operator.cancel([worker.job_id]) == 1
    assert next(other.results()).error_kind == "cancelled"
    assert list(operator.now().last_ids.values()) == [worker.job_id]
    other.shut_down()
    wait_for(lambda: not operator.now().last_ids)


def test_a_client_is_no_operator(pool: Callable[..., BossWorker], clients: Clients) -> None:
    bw = pool(work, worker_count=1, name="plain")
    client = clients(bw.listen())
    with pytest.raises(BossWorkerError, match=r"bossworker\.operate"):
        _ = client.operator
    with pytest.raises(BossWorkerError, match="the program that made the pool"):
        Operator("x", client._ask_operator).now()


def test_a_pool_that_has_ended(operated: Any) -> None:
    bw, operator = operated(worker_count=1)
    bw.shut_down()
    with pytest.raises((PoolClosed, bossworker.BossDied)):
        operator.now()


def test_what_is_not_plain_is_shown_and_not_run(operated: Any, tmp_path: Path) -> None:
    bw, operator = operated(worker_count=1)
    operator.pause()
    bw.add_work({"marble": Marble("green"), "path": tmp_path})
    content = wait_for(lambda: operator.job(1))
    assert "Marble" in repr(content.value["marble"])
    assert "green" in repr(content.value["marble"])
    assert operator.job(2) is None
    operator.resume()
    list(bw.results())


class Trap:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_an_opaque_pickle_runs_nothing(tmp_path: Path) -> None:
    shown = load_opaque(pickle.dumps({"a": [1, Trap(tmp_path / "sprung")], "set": {2}, "b": bytearray(b"x")}))
    assert "mkdir" in repr(shown["a"][1])
    assert not (tmp_path / "sprung").exists()


def test_a_flood_of_failures_is_counted_and_the_newest_kept(pool: Callable[..., BossWorker]) -> None:
    bw = pool(work, worker_count=2)
    bw.add_work(*({"do": "raise", "n": n} for n in range(8000)))
    assert sum(not result.ok for result in bw.results()) == 8000
    operator = bw.operator
    assert operator.now().stats.failed_by_kind == {"exception": 8000}
    found: list[FailedRecord] = []
    while more := operator.failed(found[-1].number if found else 0):
        found += more
    assert 1000 <= len(found) <= 5000
    assert len({one.job_id for one in found}) == len(found)


def test_ids_have_names() -> None:
    assert name_of(17) == "17"
    assert name_of((1 << DOOR_BITS) + (3 << 40) + 17) == "1.3-17"
    assert name_of(FIRST_RERUN_ID + 4) == "again-4"


@pytest.fixture
def mill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Writes a module that the program and its workers can import, with a handler."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(body: str) -> None:
        (tmp_path / "reloaded_mill.py").write_text(body)  # of another length each time, or the old bytecode is taken

    yield write
    sys.modules.pop("reloaded_mill", None)


def tried(operator: Operator, number: int) -> ReloadState:
    """What has come of a reload."""
    wait_for(lambda: operator.now().reload.tried >= number)
    return operator.now().reload


MILL = """
import os
def begin(): os.environ["MILL"] = "begun"
def grind(job): return {"by": %r, "was": os.environ.get("MILL")}
"""


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_a_handler_that_is_named_takes_over(
    operated: Any, mill: Callable[[str], None], start_method: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "bossworker")
    mill(MILL % "")
    first = import_module("reloaded_mill")
    settings = {"worker_count": 2, "start_method": start_method, "init_handler": first.begin}
    bw, operator = operated(work_handler=first.grind, **settings)
    assert operator.now().reload == ReloadState("reloaded_mill:grind")
    pids = {*bw.worker_pids}
    for number, by in enumerate(("one", "number two"), 1):
        mill(MILL % by)
        state = tried(operator, operator.reload("reloaded_mill:grind", by="a test"))
        assert state == ReloadState("reloaded_mill:grind", None, number)
        bw.add_work(*({} for _ in range(50)))
        assert {(result["by"], result["was"]) for result in bw.results()} == {(by, "begun")}  # the init_handler stays
    wait_for(lambda: len(bw.worker_pids) == 2)
    assert not pids & {*bw.worker_pids}
    assert "op=reload handler=reloaded_mill:grind by='a test'" in caplog.text
    bw.reload(named)  # the program has the last word
    assert operator.now().reload.handler == f"{__name__}:named"
    bw.add_work({})
    assert bw.get_result() == {"by": "named"}


def named(job: dict[str, Any]) -> dict[str, Any]:
    return {"by": "named"}


def test_a_handler_that_cannot_be_loaded_changes_nothing(operated: Any, mill: Callable[[str], None]) -> None:
    bw, operator = operated(worker_count=1)
    mill("raise ImportError('no such stone')")
    for name, why in (
        ("reloaded_mill:grind", "no such stone"),
        ("nowhere.at_all:grind", "No module named 'nowhere'"),
        ("json:grind", "no attribute 'grind'"),
        ("json:__doc__", "work_handler must be a callable"),
    ):
        assert why in tried(operator, operator.reload(name)).error, name
    assert operator.now().reload.handler == f"{__name__}:work"
    for odd in ("", "json", "json:", ":dumps", "json:dumps()", "__main__:work", "json:" + "x" * 400, 17):
        with pytest.raises(BossWorkerError, match="handler must be"):
            operator.reload(odd)
    bw.add_work({})
    assert bw.get_result() == {}


def test_one_reload_at_a_time(operated: Any, tmp_path: Path) -> None:
    bw, operator = operated(worker_count=1)
    path = tmp_path / "go on"
    bw.add_work({"do": "wait", "path": str(path)})
    wait_for(lambda: bw.stats().running)
    number = operator.reload(f"{__name__}:work")
    assert operator.now().reload == ReloadState(f"{__name__}:work", f"{__name__}:work", number - 1)
    with pytest.raises(BossWorkerError, match="are being tried"):
        operator.reload(f"{__name__}:work")
    path.touch()
    assert not tried(operator, number).error
    assert bw.get_result() == {}


def test_where_very_many_have_ended_the_newest_are_told_of(operated: Any) -> None:
    bw, operator = operated(worker_count=2)
    told = []
    for jobs in (20_000, 1500):
        seen = operator.now().seen
        bw.add_work(*({} for _ in range(jobs)))
        assert sum(result.ok for result in bw.results()) == jobs
        told.append(sum(len(one.outcomes) for one in operator.now(seen).ended))
    assert 1000 < told[0] < 2000  # a few records more or less
    assert told[1] == 1500
