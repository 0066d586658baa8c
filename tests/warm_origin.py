"""The process that programs are forked from: see warm.py."""

from __future__ import annotations

import fcntl
import gc
import importlib
import json
import os
import runpy
import socket
import sys
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import bossworker
from bossworker.system import descendants

SET_NAME = 15  # PR_SET_NAME
LOADED = ("BossWorker", "run_command", "jobs", "tasks", "forkqueue")
"""What programs use of the package."""


def serve(fd: int, own: list[str], more: tuple[str, ...]) -> None:
    """Fork a program for each request; in a program, return when it has come to its end.

    Whoever asks adopts orphans. So a program is forked twice, and is not begun before the process between has been
    reaped: from then on it is a child of whoever asked.
    """
    asked = socket.socket(fileno=fd)
    load(more)
    adopter = os.getppid()
    name = Path("/proc/self/comm").read_bytes().rstrip()
    descendants.load_prctl()(SET_NAME, descendants.JOB)  # it stands apart: tests end what is below them
    gc.collect()
    gc.freeze()
    while True:
        try:
            message, fds, _, _ = socket.recv_fds(asked, 1 << 18, 100)
        except KeyboardInterrupt:  # Ctrl-C is meant for the tests
            continue
        if not message:
            os._exit(0)
        request = json.loads(message)
        go, begin = os.pipe()
        told, tell = os.pipe()
        between = os.fork()
        if not between:
            if pid := os.fork():
                os.write(tell, b"%d" % pid)
                os._exit(0)
            os.close(begin)
            os.read(go, 1)
            asked.detach()
            assert os.getppid() == adopter, "whoever starts programs adopts orphans"
            descendants.load_prctl()(SET_NAME, name)
            become(request, fds, own)
            return
        os.waitpid(between, 0)
        asked.send(b"%d %s" % (request["count"], os.read(told, 64)))
        for one in (go, begin, told, tell, *fds):
            os.close(one)


def load(more: tuple[str, ...]) -> None:
    for name in LOADED:
        getattr(bossworker, name)
    for module in ("zmq", *more):  # ZeroMQ, as each pool does
        importlib.import_module(module)


def become(request: dict[str, Any], fds: list[int], own: list[str]) -> None:
    """Be what Python would be that was started so."""
    aside = [fcntl.fcntl(fd, fcntl.F_DUPFD, 1000) for fd in fds]  # where no number is that they are to have
    os.closerange(3, 1000)
    for number, fd in zip(request["numbers"], aside):
        os.dup2(fd, number)
    os.closerange(1000, 1100)
    if request["session"]:
        os.setsid()
    if (group := request["group"]) not in (None, -1):
        os.setpgid(0, group)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv[:] = [request["kind"] or request["program"], *request["args"]]
    sys.orig_argv[:] = request["command"]
    first = {"-c": "", "-m": request["folder"], "": os.path.dirname(os.path.realpath(request["program"]))}
    added = [
        path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path and not sys.flags.ignore_environment
    ]
    sys.path[:] = [first[request["kind"]], *added, *own]
    open_streams()
    run(request["kind"], request["program"])


def open_streams() -> None:
    """As Python does when it starts."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        new = None
        with suppress(OSError):  # it is closed
            new = stream_like(getattr(sys, name), name, mode)
        setattr(sys, name, new)
        setattr(sys, f"__{name}__", new)


def stream_like(old: Any, name: str, mode: str) -> Any:
    encoding, _, errors = os.environ.get("PYTHONIOENCODING", "").partition(":")
    errors = old.errors if name == "stderr" else errors or old.errors
    new: Any = open(  # noqa: SIM115 - it is the process's
        old.fileno(), mode, encoding=encoding or old.encoding, errors=errors, newline="\n", closefd=False
    )
    new.buffer.raw.name = f"<{name}>"
    if mode == "w":
        unbuffered = bool(os.environ.get("PYTHONUNBUFFERED"))
        new.reconfigure(line_buffering=name == "stderr" or new.isatty(), write_through=unbuffered)
    return new


def run(kind: str, program: str) -> None:
    """Run it as ``__main__``. What it raises is told without the frames that are here."""
    main = ModuleType("__main__")
    sys.modules["__main__"] = main
    try:
        if kind == "-m":
            runpy._run_module_as_main(program)  # type: ignore[attr-defined]
        else:
            exec(code_of(kind, program, main), main.__dict__)
    except SystemExit:
        raise
    except BaseException as error:
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_globals is not main.__dict__:
            trace = trace.tb_next
        sys.excepthook(type(error), error.with_traceback(trace), trace)
        sys.excepthook = lambda *_: None
        raise  # for the exit status, or the end by SIGINT


def code_of(kind: str, program: str, main: ModuleType) -> Any:
    if kind == "-c":
        return compile(program, "<string>", "exec", dont_inherit=True)
    main.__file__ = program
    main.__dict__["__cached__"] = None
    with open(program, "rb") as file:
        return compile(file.read(), program, "exec", dont_inherit=True)
