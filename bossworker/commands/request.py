"""What somebody wants run, checked: one place for the pool's jobs and for `jobs.start`."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from bossworker.commands import jobdir
from bossworker.system import cpython, identity
from bossworker.system.checks import check_seconds

KEYS = ("cmd", "shell", "stdin", "env", "cwd", "timeout", "meta")
SHELL = "/bin/sh"
JOB_VARIABLE = "BOSSWORKER_JOB"
"""The variable that holds the job's id, for the command and all that it starts."""

_JOB_VARIABLE = JOB_VARIABLE.encode()
_MARKS_OF_A_TASK = (b"BOSSWORKER_TASK_ID", b"BOSSWORKER_TASK_PID", b"BOSSWORKER_TASK_FD")

Stdin = bytes | Path | None


class Request(NamedTuple):
    """A command that may be started. Paths are absolute."""

    argv: list[str]
    shell: bool
    stdin: Stdin
    env: dict[str, str | None]
    cwd: str | None
    timeout: float
    meta: dict[str, Any]

    def record(self) -> dict[str, Any]:
        """What is written into the job directory; of what is fed to stdin, only how much."""
        stdin = self.stdin
        return {
            "argv": self.argv,
            "shell": self.shell,
            "stdin": f"{len(stdin)} bytes" if isinstance(stdin, bytes) else stdin and str(stdin),
            "env": self.env,
            "cwd": self.cwd,
            "timeout": self.timeout,
            "meta": self.meta,
            "created": time.time(),
            "by": identity.own(),
        }

    def encoded_argv(self) -> list[bytes]:
        """As the operating system takes it."""
        return [os.fsencode(arg) for arg in self.argv]

    def environment(self, jobid: str, *, detached: bool = False) -> list[bytes]:
        """Ours with the changes and the job's id, as the operating system takes it.

        A detached job does not inherit the marks of the task that started it. By these, whoever looks at a task whose
        supervisor was killed finds what is left of it, and ends it.
        """
        variables = dict(cpython.environment())
        for mark in _MARKS_OF_A_TASK if detached else ():
            variables.pop(mark, None)
        for name, value in self.env.items():
            if value is None:
                variables.pop(os.fsencode(name), None)
            else:
                variables[os.fsencode(name)] = os.fsencode(value)
        variables[_JOB_VARIABLE] = jobid.encode()
        return list(map(b"=".join, variables.items()))

    def open_stdin(self) -> int:
        """A descriptor to read it from: all of it is there already, so nothing has to be pumped, and nothing can stall.

        OSError when it cannot be opened, or there is no room for it.
        """
        if self.stdin is None:
            return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        if isinstance(self.stdin, bytes):
            return _stored(self.stdin)
        fd = os.open(self.stdin, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # of a pipe, open would wait for a writer
        os.set_blocking(fd, True)
        return fd


def _stored(data: bytes) -> int:
    """A file without a name that holds the data. OSError names the folder where there was no room for it."""
    import tempfile

    try:
        with tempfile.TemporaryFile(buffering=0) as file:
            view = memoryview(data)
            while view:
                view = view[file.write(view) :]
            file.seek(0)
            return os.dup(file.fileno())
    except OSError as error:
        raise OSError(error.errno, f"stdin cannot be stored: {error.strerror}", tempfile.gettempdir()) from error


def check(job: Mapping[str, Any], name: str = "cmd") -> Request:
    """A request from a job's keys; `name` is what the caller calls the command.

    Raises:
        TypeError, ValueError: Names the key, its value, and what is allowed.
    """
    for key in job:
        if key not in KEYS:
            raise ValueError(_unknown(key))
    if job.get("cmd") is None:
        raise ValueError(f"{name} is missing: a list of str, the program and its arguments; allowed are {_list(KEYS)}")
    shell = job.get("shell", False)
    if not isinstance(shell, bool):
        raise TypeError(f"shell must be True or False, not {shell!r}")
    timeout = job.get("timeout")
    return Request(
        argv=_check_shell_command(name, job["cmd"]) if shell else check_argv(name, job["cmd"]),
        shell=shell,
        stdin=_check_stdin(job.get("stdin")),
        env=check_env(job.get("env")),
        cwd=_check_cwd(job.get("cwd")),
        timeout=0.0 if timeout is None else check_seconds("timeout", timeout),
        meta=check_meta(job.get("meta")),
    )


def _unknown(key: object) -> str:
    import difflib

    near = difflib.get_close_matches(str(key), KEYS, 1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return f"unknown key {key!r:.200}{hint}; allowed are {_list(KEYS)}"


def _list(names: tuple[str, ...]) -> str:
    return ", ".join(names)


def check_argv(name: str, value: object) -> list[str]:
    """A program and its arguments, as str. TypeError or ValueError that names them `name`."""
    if isinstance(value, str):
        raise ValueError(f"{name} must be a list of str: {value!r:.200} is one str, which needs shell=True")
    if not isinstance(value, (list, tuple)):
        raise TypeError(f"{name} must be a list of str or path-likes, not {value!r:.200}")
    if not value:
        raise ValueError(f"{name} must name a program, and is empty")
    argv = [_check_argument(f"{name}[{index}]", one) for index, one in enumerate(value)]
    if not argv[0]:
        raise ValueError(f"{name}[0] must name a program, and is empty")
    return argv


def _check_shell_command(name: str, value: object) -> list[str]:
    if isinstance(value, (list, tuple)) and len(value) == 1:
        (value,) = value
    if not isinstance(value, str):
        raise TypeError(f"{name} must be one str with shell=True, not {value!r:.200}")
    return [SHELL, "-c", _check_text(name, value)]


def check_path(name: str, value: object) -> str:
    """A path, absolute. TypeError or ValueError that names it `name`."""
    text = _check_argument(name, value)
    if not text:
        raise ValueError(f"{name} must not be empty")
    return os.path.abspath(text)


def _check_argument(name: str, value: object) -> str:
    if isinstance(value, str):
        return _check_text(name, value)
    if not isinstance(value, os.PathLike):
        raise TypeError(f"{name} must be a str or path-like, not {value!r:.200}")
    return _check_text(name, os.fsdecode(value))


def _check_text(name: str, value: str) -> str:
    if "\0" in value:
        raise ValueError(f"{name} must not hold a NUL character: {value!r:.200}")
    try:
        os.fsencode(value)
    except UnicodeEncodeError:
        raise ValueError(f"{name} cannot be encoded for the operating system: {value!r:.200}") from None
    return value


def _check_stdin(value: object) -> Stdin:
    if value is None:
        return None
    if isinstance(value, str):
        try:
            return value.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            raise ValueError(f"stdin cannot be encoded as UTF-8: {value!r:.200}") from None
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    if not isinstance(value, os.PathLike):
        raise TypeError(f"stdin must be bytes or str to feed, a Path to read from, or None, not {value!r:.200}")
    path = os.path.abspath(_check_argument("stdin", value))
    if not os.path.exists(path) or os.path.isdir(path):
        raise ValueError(f"stdin must be a file that exists, not {path!r}")
    if not os.access(path, os.R_OK):
        raise ValueError(f"stdin must be a file that may be read, not {path!r}")
    return Path(path)


def check_env(value: object, what: str = "env") -> dict[str, str | None]:
    """Variables and their values, as str. TypeError or ValueError that names `what` and the variable."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise TypeError(f"{what} must be a dict of variables, not {value!r:.200}")
    return {_check_variable(what, name): _check_value(f"{what}[{name!r}]", one) for name, one in value.items()}


def _check_variable(what: str, name: object) -> str:
    if not isinstance(name, str):
        raise TypeError(f"{what}: the name of a variable must be a str, not {name!r:.200}")
    if not name or "=" in name:
        raise ValueError(f"{what}: the name of a variable must not be empty or hold '=': {name!r:.200}")
    return _check_text(what, name)


def _check_value(what: str, value: object) -> str | None:
    return None if value is None else _check_argument(what, value)


def _check_cwd(value: object) -> str | None:
    if value is None:
        return None
    path = os.path.abspath(_check_argument("cwd", value))
    if not os.path.isdir(path):
        raise ValueError(f"cwd must be a folder that exists, not {path!r}")
    return path


def check_meta(value: object) -> dict[str, Any]:
    """A mapping of what JSON can hold, as a dict.

    TypeError says which key holds something else, and what; ValueError if it is nested too deep.
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise TypeError(f"meta must be a dict, not {value!r:.200}")
    meta = dict(value)
    if jobdir.is_too_deep(meta):  # or nested in itself
        raise ValueError(f"meta must be nested at most {jobdir.MAX_DEPTH} deep")
    _check_json("meta", meta)
    try:
        return json.loads(json.dumps(meta))  # type: ignore[no-any-return]
    except ValueError as error:  # an int too long to be written out
        raise TypeError(f"meta must hold only what JSON can: {error}") from None


def _check_json(name: str, value: object) -> None:
    if isinstance(value, dict):
        for key, one in value.items():
            if not isinstance(key, str):  # JSON would make it one
                raise TypeError(f"{name}: a key must be a str, not {key!r:.200} ({type(key).__name__})")
            _check_json(f"{name}[{key!r:.200}]", one)
    elif isinstance(value, (list, tuple)):
        for index, one in enumerate(value):
            _check_json(f"{name}[{index}]", one)
    elif not _is_json(value):
        raise TypeError(f"{name} must be what JSON can hold, not {value!r:.200} ({type(value).__name__})")


def _is_json(value: object) -> bool:
    """Whether it is one of JSON's own, which NaN and the infinities are not."""
    return value is None or isinstance(value, (str, int)) or (isinstance(value, float) and math.isfinite(value))
