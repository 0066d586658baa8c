"""What the package offers is what it should be, no more and no less."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
import tomllib
import types
from importlib.util import find_spec
from operator import attrgetter
from pathlib import Path

import pytest

import bossworker
from bossworker import AsyncBossWorker, BossWorker, errors
from bossworker.pool.caller.pool_settings import PoolSettings

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"
POOL = {
    "BossWorker", "CommandHandler", "run_command", "JobFuture", "Executor", "AsyncBossWorker",
    "CurrentJob", "current_job",
    "Result", "Stats", "WorkerStats", "UnfinishedJob", "job_key", "TIMED_OUT", "CANCELLED",
    "INTERRUPTED", "JournalError", "JournalInUse",
    "BossWorkerError", "PoolClosed", "NothingPending", "WorkerStartError", "BossDied", "ResultHandlerError",
    "JobFailed", "JobTimedOut", "WorkerDied", "RemoteError", "JobTimeout",
    "AttachedPool", "ClientInfo", "Door", "DoorRefused", "Keys", "connect", "keys",
    "Operator", "RemoteOperator", "operate", "pools",
    "JobQueued", "JobStarted", "JobEnded", "JobProgress", "JobLog", "WorkerUp", "WorkerDown", "Missed",
}  # fmt: skip
EXTRAS = {  # and what they need
    "joblib": "joblib",
    "metrics": "prometheus_client",
    "otel": "opentelemetry",
    "web": "starlette",
}
ERRORS = (
    "PoolClosed",
    "NothingPending",
    "WorkerStartError",
    "BossDied",
    "ResultHandlerError",
    "JobFailed",
    "JobTimedOut",
    "WorkerDied",
    "DoorRefused",
    "JournalError",
    "JournalInUse",
    "RemoteError",
)


def _rank(name: str) -> tuple[int, str]:
    """Constants, then classes, then functions."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2), name


def test_the_exports_are_what_they_should_be() -> None:
    assert set(bossworker.__all__) == POOL
    assert len(bossworker.__all__) == len(POOL)


def test_the_exports_are_sorted() -> None:
    assert bossworker.__all__ == sorted(bossworker.__all__, key=_rank)


def test_the_package_by_itself_loads_next_to_nothing() -> None:
    """A supervisor, which is of this package, pays for each module in memory, and in the time to its start."""
    program = "import sys; before = {*sys.modules}; import bossworker; print(*sorted({*sys.modules} - before))"
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["bossworker"]


def test_a_pool_loads_what_it_needs_and_no_more() -> None:
    """Each of its processes inherits all of it."""
    spared = ["asyncio", "concurrent.futures", "multiprocessing", "pathlib", "subprocess", "urllib.parse", "zmq"]
    spared += ["bossworker.executor", "bossworker.pool.caller.operating", "bossworker.watch.pool_events"]
    program = f"import sys; from bossworker import BossWorker; print([m for m in {spared} if m in sys.modules])"
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert told.stdout == "[]\n"


def test_what_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'bossworker' has no attribute 'nonsense'"):
        _ = bossworker.nonsense  # type: ignore[attr-defined]


def test_every_export_is_there() -> None:
    for name in bossworker.__all__:
        assert getattr(bossworker, name) is not None


def test_nothing_else_is_public() -> None:
    for name in bossworker.__all__:  # loaded when asked for
        getattr(bossworker, name)
    public = {name for name in vars(bossworker) if not name.startswith("_")}
    modules = {name for name in public if isinstance(getattr(bossworker, name), types.ModuleType)}
    assert public - modules == POOL


def test_dir_lists_what_is_public_and_nothing_else() -> None:
    for name in bossworker.__all__:  # and with it the modules inside
        getattr(bossworker, name)
    installed = [name for name, needed in EXTRAS.items() if find_spec(needed)]
    assert dir(bossworker) == sorted([*POOL, "forkqueue", "jobs", "journal", "tasks", *installed, "__version__"])
    for module in (bossworker.forkqueue, bossworker.jobs, bossworker.journal, bossworker.tasks):
        assert dir(module) == sorted(module.__all__), module.__name__


COMPLETED = {  # what is offered behind a dot, but for what the standard library's classes have
    "BossWorker": """add_work boss_pid cancel events fileno get_result get_result_nb listen map name operator pause
        pending reload resize results resume shut_down stack stats submit trace web worker_pids""",
    "AsyncBossWorker": "aclose events map pause pool reload resize results resume run shut_down stack stats",
    "Executor": """kill_workers map pause resume shutdown stack stats submit terminate_workers with_options""",
    "JobFuture": "add_done_callback cancel cancelled done exception result running",
    "Door": "clients close malformed pid refused",
    "tasks.TaskPool": """apply_supervisor_env output_path search socket_dir socket_path spawn supervisor_cmd
        supervisor_env task_by_pid""",
    "tasks.Task": """apply_meta connect delete disconnect events id info kill pause restart resume stream
        terminate_supervisor wait""",
    "tasks.Stream": "close discard ended follow limit peek position read start write",
    "forkqueue.ForkQueue": """all_exit_ok allow_excess call debug delay exit fork fork_now ignore_children max_load
        min_free_memory run_back run_back_now running_now running_weight size system_back system_back_now trace wait
        waitpid waitpids weight""",
}


@pytest.mark.parametrize("name", COMPLETED)
def test_completion_offers_what_users_call_and_nothing_inner(name: str) -> None:
    kind = attrgetter(name)(bossworker)
    ours = [base for base in kind.__mro__ if base.__module__.startswith("bossworker")]
    offered = {member for base in ours for member in vars(base) if not member.startswith("_")}
    assert sorted(offered) == COMPLETED[name].split()


@pytest.mark.parametrize("name", EXTRAS)
def test_an_extra_is_an_attribute_and_says_what_it_needs(name: str) -> None:
    if find_spec(EXTRAS[name]):
        program = f"import bossworker; print(bossworker.{name}.__name__)"
        told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert told.stdout == f"bossworker.{name}\n"
    program = (
        f"import sys; sys.modules[{EXTRAS[name]!r}] = None\n"
        "import bossworker, inspect\n"
        f"assert {name!r} not in dict(inspect.getmembers(bossworker))\n"
        f"try: bossworker.{name}\n"
        "except ImportError as error: print(error)"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert told.stdout == f"bossworker.{name} needs {EXTRAS[name]}: pip install 'bossworker[{name}]'\n"


def test_the_version_has_one_source() -> None:
    """The build reads it from the package."""
    assert re.fullmatch(r"\d+\.\d+\.\d+([.\w]*)", bossworker.__version__)
    project = tomllib.loads(PYPROJECT.read_text())["project"]
    assert ("version" in project, project["dynamic"]) == (False, ["version"])


@pytest.mark.parametrize("name", ERRORS)
def test_every_error_derives_from_the_one(name: str) -> None:
    error = getattr(bossworker, name)
    assert issubclass(error, bossworker.BossWorkerError)
    assert issubclass(error, Exception)


def test_no_public_error_is_outside_the_tree() -> None:
    assert errors.WorkerDied is not None  # made when it is asked for
    found = {n for n, v in vars(errors).items() if isinstance(v, type) and issubclass(v, BaseException) and n[0] != "_"}
    assert found == {*ERRORS, "BossWorkerError", "JobTimeout"}


def test_a_job_timeout_stands_apart() -> None:
    assert issubclass(bossworker.JobTimeout, BaseException)
    assert not issubclass(bossworker.JobTimeout, Exception)


def test_the_fixed_texts() -> None:
    assert bossworker.TIMED_OUT == "BossWorkerAsync: timed out"
    assert bossworker.CANCELLED == "BossWorkerAsync: cancelled"
    assert errors.WORKER_DIED == "BossWorkerAsync: worker died"


class Own(BossWorker):
    """A program's own pool."""

    def __init__(self, n: int, *, more: str = "") -> None:
        super().__init__(dict, worker_count=n, name=more)


def test_help_shows_the_settings_of_a_pool() -> None:
    """Each with its default, as a notebook shows them; a subclass has its own."""
    own = inspect.signature(BossWorker)
    assert list(own.parameters)[:2] == ["work_handler", "result_handler"]
    assert set(own.parameters) == {"work_handler", *PoolSettings.__annotations__}
    assert own.parameters["kill_grace"].default == 1.0
    assert own.parameters["kill_grace"].kind is inspect.Parameter.KEYWORD_ONLY
    assert inspect.signature(AsyncBossWorker) == own
    assert list(inspect.signature(Own).parameters) == ["n", "more"]


def test_every_export_explains_itself() -> None:
    for name in bossworker.__all__:
        value = getattr(bossworker, name)
        assert isinstance(value, str) or value.__doc__
