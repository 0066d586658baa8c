"""What we rely on in CPython's private parts: when one of these fails under a new version, look there first."""

from __future__ import annotations

import ast
import ctypes
import logging
import mmap
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, as_completed, wait
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import bossworker
from bossworker.pool.caller import pool_future
from bossworker.system import cpython

HOME = Path(bossworker.__file__).parent


# -- _signal and _socket --------------------------------------------------------------------------------------


def test_signals_without_enums_are_the_same_signals() -> None:
    for name in ("SIGINT", "SIGKILL", "SIGCHLD", "SIG_IGN", "SIG_DFL", "SIG_BLOCK", "SIG_SETMASK", "NSIG"):
        number = getattr(cpython.signal, name)
        assert number == getattr(signal, name)
        assert type(number) is int
    handler = cpython.signal.getsignal(signal.SIGINT)
    assert handler is signal.getsignal(signal.SIGINT)
    assert cpython.signal.default_int_handler is signal.default_int_handler
    before = cpython.signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGUSR1,))
    try:
        assert {*before, signal.SIGUSR1} == set(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
    finally:
        cpython.signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_sockets_without_selectors_speak_to_the_usual_ones() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        bare = cpython.socket.socket(fileno=ours.detach())
        bare.sendall(b"here")
        assert theirs.recv(10) == b"here"
        bare.close()
    assert cpython.socket.AF_UNIX == socket.AF_UNIX
    assert cpython.socket.CMSG_SPACE(4) == socket.CMSG_SPACE(4)


# -- sys._getframe ---------------------------------------------------------------------------------------------


def test_the_current_frame_is_the_one_that_calls() -> None:
    assert cpython.current_frame().f_code.co_name == "test_the_current_frame_is_the_one_that_calls"
    assert cpython.current_frame(1) is cpython.current_frame().f_back


# -- _json ----------------------------------------------------------------------------------------------------

GOOD_JSON = """
import sys
sys.path.append(sys.argv[1])
from bossworker.system.cpython import dumps, loads
print(dumps(loads('{"a": [1, 2.5, null, "\\\\u00fc"]}')), "json" in sys.modules, "re" in sys.modules)
"""


def test_json_without_the_module() -> None:
    """What both ways say is in `test_json.py`. From 3.12 on, what is no JSON has the module loaded, for its error."""
    command = [sys.executable, "-I", "-S", "-c", GOOD_JSON, str(HOME.parent)]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert told == '{"a": [1, 2.5, null, "\\u00fc"]} False False\n'


# -- _posixsubprocess.fork_exec -------------------------------------------------------------------------------


def fork_exec(*argv: bytes, files: list[bytes], **changes: object) -> tuple[int, bytes]:
    """The status with which the program ends, and what was reported when none could be executed."""
    settings: dict[str, Any] = {"cwd": b"/", "environment": None, "keep": (), "umask": -1, "session": False}
    null = os.open(os.devnull, os.O_RDWR)
    failure, reporter = os.pipe()
    try:
        settings |= {"last_step": None, "stdio": (null, null, null)} | changes
        keep = tuple(sorted((*settings.pop("keep"), reporter)))
        pid = cpython.fork_exec(list(argv), files, report=(failure, reporter), keep=keep, **settings)
    finally:
        os.close(reporter)
        os.close(null)
    with open(failure, "rb") as report:
        told = report.read()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), told


def test_the_first_file_that_can_be_executed_is() -> None:
    assert fork_exec(b"sh", b"-c", b"exit 3", files=[b"/nowhere/sh", b"/bin/sh"]) == (3, b"")


def test_the_child_tells_why_it_cannot_execute() -> None:
    status, told = fork_exec(b"x", files=[b"/nowhere/x"])
    assert (status, told) == (255, b"OSError:2:")
    status, told = fork_exec(b"sh", files=[b"/bin/sh"], cwd=b"/nowhere")
    assert (status, told.split(b":")[:2]) == (255, [b"OSError", b"2"])
    assert told.split(b":")[2].startswith(b"noexec")


def test_the_program_gets_what_was_given() -> None:
    ours, theirs = os.pipe()
    kept, other = os.pipe()
    script = 'pwd; umask; echo "$A"; for fd; do [ -e /proc/$$/fd/$fd ]; echo $?; done; ps -o sid= -p $$; echo $$'
    stdio = (os.open(os.devnull, os.O_RDONLY), theirs, theirs)
    steps: list[int] = []
    try:
        ended = fork_exec(
            b"sh", b"-c", script.encode(), b"sh", b"%d" % kept, b"%d" % other, files=[b"/bin/sh"],
            cwd=b"/usr", environment=[b"A=b", b"PATH=/usr/bin:/bin"], stdio=stdio, keep=(kept,), umask=0o27,
            session=True, last_step=lambda: steps.append(1),
        )  # fmt: skip
    finally:
        for fd in (stdio[0], theirs, kept, other):
            os.close(fd)
    with open(ours) as told:
        folder, umask, variable, there, gone, session, pid = told.read().split()
    assert ended == (0, b"")
    assert (folder, int(umask, 8), variable, there, gone) == ("/usr", 0o27, "b", "0", "1")
    assert session == pid
    assert steps == []  # taken in the child


def test_the_last_step_is_taken_in_the_child() -> None:
    assert fork_exec(b"sh", files=[b"/bin/sh"], last_step=lambda: os._exit(7))[0] == 7


# -- SemLock._rebuild -----------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="semaphores have names on this platform")
def test_a_semaphore_in_shared_memory_is_one_in_every_process() -> None:
    area = mmap.mmap(-1, mmap.PAGESIZE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(area))
    assert ctypes.CDLL(None).sem_init(ctypes.c_void_p(address), 1, 0) == 0
    semaphore = cpython.semaphore_at(address)
    assert semaphore.handle == address
    assert not semaphore.acquire(False)
    pid = os.fork()
    if pid == 0:
        semaphore.release()
        semaphore.release()
        os._exit(0)
    os.waitpid(pid, 0)
    assert [semaphore.acquire(False) for _ in range(3)] == [True, True, False]
    KEPT.append(semaphore)  # freeing it would close what libc has not opened


KEPT: list[object] = []


# -- os.environb._data and subprocess._args_from_interpreter_flags --------------------------------------------


def test_the_environment_as_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOSSWORKER_TEST", "ü")
    assert dict(cpython.environment()) == dict(os.environb)
    assert type(cpython.environment()) is dict, "as quick as we rely on"
    assert cpython.environment()[b"BOSSWORKER_TEST"] == "ü".encode()


def test_an_interpreters_flags_are_passed_on() -> None:
    program = "from bossworker.system.cpython import interpreter_flags; print(*interpreter_flags())"
    flags = ["-O", "-W", "error", "-X", "dev", "-b"]
    told = subprocess.run(
        [sys.executable, *flags, "-c", program], cwd=HOME.parent, capture_output=True, text=True, check=True
    ).stdout.split()
    assert set(told) >= {"-O", "-Werror", "dev", "-b"}


# -- the end of a process -------------------------------------------------------------------------------------

ENDING = """
import atexit, os, sys, threading, weakref
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from bossworker.system import cpython

class Resident: pass
resident = Resident()
executor = ThreadPoolExecutor(1)
executor.submit(int).result()
atexit.register(print, "the program's atexit", flush=True)
weakref.finalize(resident, print, "the program's finalize", flush=True)
if os.fork() == 0:
    cpython.forget_exit_functions()
    cpython.forget_executors()
    late = threading.Event()
    threading.Timer(0.1, late.set).start()
    ThreadPoolExecutor(1).submit(lambda: late.wait() and print("executor", flush=True))
    atexit.register(print, "atexit", flush=True)
    atexit.register(lambda: 1 / 0)
    weakref.finalize(resident, print, "finalize", flush=True)
    cpython.join_threads()
    cpython.run_exit_functions()
    os._exit(0)
os.wait()
print("the program ends", executor.submit(int).result(), flush=True)
"""


def test_a_fork_ends_what_is_its_own() -> None:
    told = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ENDING], cwd=HOME.parent, capture_output=True, text=True, check=True
    )
    assert told.stdout.splitlines() == [
        "executor", "finalize", "atexit", "the program ends 0", "the program's finalize", "the program's atexit"
    ]  # fmt: skip
    assert told.stderr.count("ZeroDivisionError") == 1


def test_the_handlers_of_logging_are_found() -> None:
    handler = logging.NullHandler()
    assert handler in cpython.log_handlers()
    handler.close()
    del handler
    assert None not in cpython.log_handlers()


# -- concurrent.futures.Future --------------------------------------------------------------------------------


class Asked(Future[int]):
    """Notes what is asked of it."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def __getattribute__(self, name: str) -> object:
        if name in ("_waiters", "_condition"):
            self.asked.append(name)
        return super().__getattribute__(name)


def test_the_states_of_a_future() -> None:
    future: Future[int] = Future()
    assert future._state == pool_future.PENDING
    future.cancel()
    future.set_running_or_notify_cancel()
    assert future._state == pool_future.CANCELLED
    done: Future[int] = Future()
    done.set_result(1)
    assert done._state == pool_future.FINISHED


@pytest.mark.parametrize("way", [wait, lambda fs, timeout: list(as_completed(fs, timeout))])
def test_who_waits_for_a_future_asks_for_its_waiters_with_the_lock_held(way: Callable[..., object]) -> None:
    future = Asked()
    with suppress(TimeoutError):
        way([future], timeout=0)
    assert future.asked[:2] == ["_condition", "_waiters"]


def test_waiters_are_told_by_three_calls() -> None:
    future: Future[int] = Future()
    thread = threading.Thread(target=wait, args=([future],))
    thread.start()
    while not future._waiters:
        time.sleep(0.001)
    (waiter,) = future._waiters
    assert all(callable(getattr(waiter, name)) for name in ("add_result", "add_exception", "add_cancelled"))
    future.set_result(1)
    thread.join()


# -- nowhere else ---------------------------------------------------------------------------------------------


DOCUMENTED = ("os._exit", "sys._current_frames", "sys._getframe", "_thread", "__future__")


def private_names(path: Path) -> list[str]:
    """What a module imports of private modules, or reads of private attributes of the standard library's modules."""
    tree = ast.parse(path.read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    modules = {alias.name for node in imports if isinstance(node, ast.Import) for alias in node.names}
    modules |= {node.module or "" for node in imports if isinstance(node, ast.ImportFrom)}
    library = {name for name in modules if name.split(".")[0] in sys.stdlib_module_names}
    found = [name for name in library if name.startswith("_") and name not in DOCUMENTED]
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
            owner = ast.unparse(node.value)
            if owner.split(".")[0] in library and ast.unparse(node) not in DOCUMENTED:
                found.append(ast.unparse(node))
    return found


@pytest.mark.once("the text of our modules")
def test_what_is_private_to_cpython_is_used_in_one_module() -> None:
    users = {path: private_names(path) for path in HOME.rglob("*.py")}
    assert {path.name for path, names in users.items() if names} == {"cpython.py"}
    assert set(users[HOME / "system/cpython.py"]) == {
        "_json", "_posixsubprocess", "_signal", "_socket", "_multiprocessing",
        "subprocess._args_from_interpreter_flags",
        "atexit._clear", "atexit._run_exitfuncs", "threading._shutdown",
    }  # fmt: skip


# -- sys._current_frames --------------------------------------------------------------------------------------


def test_a_thread_beside_this_one_is_seen() -> None:
    program = """
import _thread, time
print(cpython.has_other_threads())
running = _thread.allocate_lock()
running.acquire()
_thread.start_new_thread(lambda: (running.release(), time.sleep(60)), ())
running.acquire()
print(cpython.has_other_threads())
"""
    ended = subprocess.run(
        [sys.executable, "-c", f"from bossworker.system import cpython\n{program}"],
        cwd=HOME.parent, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert ended.stdout.split() == ["False", "True"]
