"""What every test gets: a pool that is shut down, and a check that nothing is left behind.

The whole suite runs in several processes side by side (pytest-xdist); `turns.py` keeps those tests apart that must run
alone.
"""

from __future__ import annotations

import copyreg
import ctypes
import gc
import importlib
import os
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from bossworker import BossWorker, pickling
from bossworker.pool import reloading
from bossworker.system import processes
from bossworker.system.cpython import signal as _signal  # enums would take longer than all the rest
from tests.costs import COSTLY
from tests.large_pages import use_large_pages
from tests.turns import Turns

OPEN = "/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"
LEAVE_SECONDS = 5.0  # for what was told to end to be gone
MOST_PROCESSES = 4  # that run tests side by side, two a core: tests wait for much of their time

MOST_TMPDIR = 25  # letters: a test's folder in it takes some 55 more, a task's socket 24, and there may be 103 on macOS
GROWTH = 16 << 20  # bytes of this process, after which memory is given back

turns: Turns | None = None
slender = 0  # bytes of this process when it last gave memory back


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--thorough", action="store_true", help="run those tests, too, that a quick run of a folder leaves out"
    )
    parser.addoption(
        "--long", action="store_true", help="the same, with storms at full length, and repeat what shows itself rarely"
    )


@pytest.fixture
def long(request: pytest.FixtureRequest) -> bool:
    """Whether there is time to repeat what shows itself rarely."""
    return bool(request.config.getoption("--long"))


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """The whole suite, or a folder, in several processes; single files in this one, where a debugger works."""
    if names_files(config):
        return 0
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(2 * cpus, MOST_PROCESSES)


def names_files(config: pytest.Config) -> bool:
    """Whether single files were asked for, or single tests, and no folder."""
    return all(".py" in argument for argument in config.args)


def start_pythons_quickly() -> None:
    """Tests start thousands of them. So each finds compiled whatever it loads, and that is not setuptools."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # launchers do without it in any case
    sys.dont_write_bytecode = False
    os.environ["SETUPTOOLS_USE_DISTUTILS"] = "stdlib"


CHOSEN_BY_USERS = (
    *("BOSSWORKER_PYTHON", "BOSSWORKER_QUEUE_IDLE", "BOSSWORKER_ROOT", "BOSSWORKER_TASKS"),
    *("COLUMNS", "FORCE_COLOR", "GITHUB_ACTIONS", "LINES", "NO_COLOR"),
)


def forget_what_users_choose() -> None:
    """A user, or a service that runs the tests, may have it otherwise. A test that is about one of these sets it."""
    for variable in CHOSEN_BY_USERS:
        os.environ.pop(variable, None)


def plain_folder() -> str:
    """The one for temporary files; but tests write paths into shell scripts, and bind sockets below their folders."""
    told = tempfile.gettempdir()
    return told if shlex.quote(told) == told and len(told) <= MOST_TMPDIR else "/tmp"


def pytest_collection(session: pytest.Session) -> None:
    """Of several processes, each begins with other tests: so each compiles a part of them, and finds the rest done.

    That takes ten seconds of a processor, in a fresh copy of the tree.
    """
    own = getattr(session.config, "workerinput", None)
    if own is None:
        return
    folders = [Path(argument) for argument in session.config.args if os.path.isdir(argument)]
    files = sorted({file for folder in folders for file in folder.resolve().rglob("test_*.py")})
    start = len(files) * int(own["workerid"].removeprefix("gw")) // own["workercount"]
    for file in files[start:] + files[:start]:
        with suppress(Exception, pytest.skip.Exception):  # told when it is collected
            importlib.import_module(".".join(file.relative_to(session.config.rootpath).with_suffix("").parts))


def pytest_configure(config: pytest.Config) -> None:
    """Temporary files go where no other program's are; of several processes, each has a folder in that of the first.

    The paths are short, as those of Unix sockets must be.
    """
    global turns
    if sys.getfilesystemencoding() != "utf-8":
        raise pytest.UsageError("names and arguments of tests are in UTF-8: unset PYTHONUTF8, or set LC_ALL=C.UTF-8")
    start_pythons_quickly()
    forget_what_users_choose()
    worker = hasattr(config, "workerinput")
    if worker:
        turns = Turns(tempfile.gettempdir())
    # Not a TemporaryDirectory, which a child that a test forks might tidy up.
    folder = tempfile.mkdtemp(prefix="t-", dir=None if worker else plain_folder())
    before = os.environ.get("TMPDIR")
    tempfile.tempdir = os.environ["TMPDIR"] = folder
    os.environ["XDG_STATE_HOME"] = f"{folder}/state"  # jobs of tests that name no root are not among the user's
    os.mkdir(f"{folder}/state")
    if worker or config.option.basetemp is None:
        config.option.basetemp = f"{folder}/t"

    def tidy_up() -> None:
        tempfile.tempdir = None
        del os.environ["TMPDIR"]
        if before is not None:
            os.environ["TMPDIR"] = before
        shutil.rmtree(folder, ignore_errors=True)

    config.add_cleanup(tidy_up)


CHOICES = {"BOSSWORKER_START_METHOD": "start_method", "BOSSWORKER_TRANSPORT": "transport"}
"""Variables, and what they choose for pools where a test does not say: ``BOSSWORKER_TRANSPORT=socketpair``."""


def pytest_sessionstart(session: pytest.Session) -> None:
    defaults: dict[str, Any] = BossWorker.__init__.__kwdefaults__  # type: ignore[assignment]
    defaults.update({name: os.environ[variable] for variable, name in CHOICES.items() if variable in os.environ})
    set_up_hypothesis(session.config.getoption("--long"))


def set_up_hypothesis(long: bool) -> None:
    """The same examples at each run, and few of them; --long looks further."""
    from hypothesis import settings  # here, since workers that are spawned load this module, too

    settings.register_profile("long", database=None, deadline=None, max_examples=2000)
    settings.register_profile(
        "quick", derandomize=True, database=None, deadline=None, max_examples=25, stateful_step_count=30
    )
    settings.load_profile("long" if long else "quick")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Those that must run alone come last: so the others wait for them only once. One that takes long comes first."""
    if not (config.getoption("--thorough") or config.getoption("--long") or names_files(config)):
        left_out = left_out_quickly(items)
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=list(left_out))
    items.sort(key=lambda item: is_marked(item, "alone") - is_marked(item, "early"))


def left_out_quickly(items: list[pytest.Item]) -> set[pytest.Item]:
    """What costs much, and what is marked since other tests say it, too."""
    costly = set(COSTLY.read_text().splitlines())
    return {item for item in items if item.nodeid in costly or is_marked(item, "thorough")}


def is_marked(item: pytest.Item, name: str) -> bool:
    return item.get_closest_marker(name) is not None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    if turns is None:
        return (yield)
    with turns.taken(is_marked(item, "alone")):
        return (yield)


@pytest.fixture(scope="session", autouse=True)
def collect_quickly() -> None:
    """What is here already is not looked through at each test, and lies in few pages."""
    gc.collect()
    gc.freeze()
    use_large_pages()


@pytest.fixture(scope="session", autouse=True)
def hear_signals() -> None:
    """What a shell starts in the background, or nohup, ignores some signals, and so would every program under test."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGQUIT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def signals_as_before() -> Iterator[None]:
    """Fail a test that leaves a signal ignored, blocked, or handled in its own way: so it would be for all to come."""
    before = signals_set()
    yield
    changed = {number: now for number, now in signals_set().items() if now != before[number]}
    for number in changed:
        if before[number][0] is not None:
            _signal.signal(number, before[number][0])
    _signal.pthread_sigmask(_signal.SIG_SETMASK, [number for number, (_, blocked) in before.items() if blocked])
    assert not changed, f"left otherwise: signals, by number, with handler and whether blocked: {changed}"


def signals_set() -> dict[int, tuple[Any, bool]]:
    """Of each signal: its handler, and whether this thread blocks it."""
    blocked = _signal.pthread_sigmask(_signal.SIG_BLOCK, ())
    return {number: (_signal.getsignal(number), number in blocked) for number in range(1, signal.NSIG)}


@pytest.fixture(scope="session", autouse=True)
def inherit_orphans() -> None:
    """Processes that lose their parents become ours, so that none escapes the check below."""
    processes.adopt_orphans()


@pytest.fixture(autouse=True)
def exceptions_as_usual() -> None:
    """Forget what ``distributed`` has registered for them in a test before: they are pickled in another way with it."""
    for kind in list(copyreg.dispatch_table):
        if issubclass(kind, BaseException):
            del copyreg.dispatch_table[kind]


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Fail a test that leaves a process, a descriptor, a shared-memory segment or a temporary file behind."""
    gc.callbacks.clear()  # hypothesis leaves one, in which a signal handler of another test would raise unheard
    before = _traces()
    yield
    with newcomers_known():
        left = tidy_up_after(before)
    assert not left, f"left behind: {sorted(left)}"


def tidy_up_after(before: set[str]) -> set[str]:
    """End what a test has left, and give its memory back; which traces it left, of those that were not there before."""
    gc.collect()
    end_resource_tracker()
    deadline = time.monotonic() + LEAVE_SECONDS
    while (left := _traces() - before) and time.monotonic() < deadline:
        processes.reap_all()
        time.sleep(0.01)
        gc.collect()
    for pid in processes.children(os.getpid()):  # also what stands apart
        processes.kill_tree(pid)
    processes.end_children(1.0)
    gc.freeze()  # what lives on is not looked through again at each test: that would take longer than most of them
    give_back_memory()
    return left


@contextmanager
def newcomers_known() -> Iterator[None]:
    """Around full collections: the next pool need not look at all classes and modules, as it has to after one.

    That would take longer than all else of its start, and have each page copied that one of them is on.
    """
    pickling.identify_classes()
    reloading._specs_now()
    yield
    for newcomers in (pickling._new_classes, reloading._new_specs):
        found = newcomers.look()
        if found is not None and not found.young:  # nothing was made meanwhile
            newcomers.all_known(found)


trackers: list[Any] = []  # of this process; multiprocessing's modules keep the one that they have loaded first


def end_resource_tracker() -> None:
    """End the process that multiprocessing keeps, as if its module had never been loaded.

    A pool keeps it running from then on; and one that is killed without its module's knowledge is warned of later.
    """
    module = sys.modules.pop("multiprocessing.resource_tracker", None)
    if module is not None:
        trackers.append(module._resource_tracker)
        vars(sys.modules["multiprocessing"]).pop("resource_tracker", None)  # or `from multiprocessing import` finds it
    for tracker in trackers:
        if tracker._pid is not None:
            os.kill(tracker._pid, signal.SIGKILL)
            os.waitpid(tracker._pid, 0)
            os.close(tracker._fd)
            tracker._pid = tracker._fd = None


def give_back_memory() -> None:
    """Pools are forked from this process: the more memory the allocator keeps, the slower are all tests to come."""
    global slender
    size = processes.resident_bytes(os.getpid())
    if size > slender + GROWTH and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        trim(0)
        use_large_pages()
        slender = processes.resident_bytes(os.getpid())


def _traces() -> set[str]:
    traces = {f"process {pid} {_command(pid)}" for pid in processes.children(os.getpid())}
    traces |= {f"descriptor {fd.name} {_target(fd)}" for fd in os.scandir(OPEN) if _target(fd)}
    for folder in ("/dev/shm", tempfile.gettempdir()):
        if os.path.isdir(folder):
            names = os.listdir(folder)
            traces |= {f"file {folder}/{name}" for name in names if "bossworker" in name}
    return traces


def _target(entry: os.DirEntry[str]) -> str:
    try:
        target = os.readlink(entry.path) if OPEN.startswith("/proc/") else "open"
    except OSError:
        return ""
    return "" if target.startswith("/proc/") else target


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").strip()
    except OSError:
        return ""


@pytest.fixture
def pool() -> Iterator[Callable[..., BossWorker]]:
    """Makes pools, which end with the test."""
    made: list[BossWorker] = []

    def make(*args: Any, **settings: Any) -> BossWorker:
        made.append(BossWorker(*args, **settings))
        return made[-1]

    yield make
    for one in made:
        one.shut_down(force=True)


def wait_for(condition: Callable[[], Any], seconds: float = 20.0, what: str = "") -> Any:
    """Wait until the condition is true; fail after `seconds`. It is looked at less often as time goes by."""
    started = time.monotonic()
    while not (value := condition()):
        waited = time.monotonic() - started
        if waited > seconds:
            pytest.fail(f"waited {seconds} s in vain{' for ' + what if what else ''}")
        time.sleep(min(0.001 + waited / 20, 0.01))
    return value


def signals_in(mask: str) -> set[int]:
    """The signals of a mask in /proc/PID/status, less those that libc keeps to itself.

    What posix_spawn starts ignores them, and nobody can change that: 32 and 33, with glibc.
    """
    return {int(number) for number in signal.valid_signals() if int(mask, 16) >> (number - 1) & 1}


def alive(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
