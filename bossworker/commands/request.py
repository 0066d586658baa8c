"""What somebody wants run, checked: one place for the pool's jobs and for `jobs.start`."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from bossworker.commands import safe_files
from bossworker.system import cpython, identity
from bossworker.system.checks import check_count, check_seconds

KEYS = (
    "cmd", "shell", "stdin", "env", "cwd", "timeout", "meta",
    "grace", "memory", "max_output", "stderr", "pty", "text", "encoding", "keep",
)  # fmt: skip
_RARE_KEYS = frozenset(KEYS[7:])
KEEP = ("all", "failed", "none")
MERGED = "stdout"  # the value of "stderr" that sends it there
_SUBPROCESS_STDOUT = -2  # subprocess.STDOUT, which is taken, too; that module takes long to load
SHELL = "/bin/sh"
JOB_VARIABLE = "BOSSWORKER_JOB"
"""The variable that holds the job's id, for the command and all that it starts."""

TASK_VARIABLES = ("BOSSWORKER_TASK_ID", "BOSSWORKER_TASK_PID", "BOSSWORKER_TASK_FD")
"""Those of a background task's command: whoever has them speaks, and ends, for the task."""

_JOB_VARIABLE = JOB_VARIABLE.encode()
_TASK_VARIABLES = frozenset(map(str.encode, TASK_VARIABLES))

Stdin = bytes | Path | None
Checked = TypeVar("Checked")


class Request(NamedTuple):
    """A command that may be started. Paths are absolute."""

    argv: list[str]
    shell: bool
    stdin: Stdin
    env: dict[str, str | None]
    cwd: str | None
    timeout: float
    meta: dict[str, Any]
    grace: float | None = None
    """Seconds between TERM and KILL; None: as whoever runs it has it."""
    memory: int = 0
    max_output: int = 0
    merged: bool = False
    """Whether stderr goes where stdout goes."""
    pty: bool = False
    encoding: str | None = "utf-8"
    """Of what the result has of its output; None: bytes."""
    keep: str | None = None

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
            **self._more(),
            "meta": self.meta,
            "created": time.time(),
            "by": identity.own(),
        }

    def _more(self) -> dict[str, Any]:
        """What few jobs have, as far as this one has it."""
        if self[_USUAL:] == _DEFAULTS:
            return {}
        more = {
            "grace": self.grace,
            "memory": self.memory,
            "max_output": self.max_output,
            "stderr": MERGED if self.merged else None,
            "pty": self.pty,
        }
        return {name: value for name, value in more.items() if value}

    def encoded_argv(self) -> list[bytes]:
        """As the operating system takes it."""
        return [os.fsencode(arg) for arg in self.argv]

    def environment(self, jobid: str, apart: bool = False) -> list[bytes]:
        """Ours with the changes and the job's id, as the operating system takes it.

        Args:
            apart: Whether it is a part of nothing that we are a part of, such as a task's command.
        """
        variables = dict(cpython.environment())
        if apart:
            for variable in _TASK_VARIABLES:
                variables.pop(variable, None)
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
            safe_files.write_all(file.fileno(), data)
            file.seek(0)
            return os.dup(file.fileno())
    except OSError as error:
        raise OSError(error.errno, f"stdin cannot be stored: {error.strerror}", tempfile.gettempdir()) from error


_USUAL = len(Request._fields) - len(Request._field_defaults)  # fields that each request is given
_DEFAULTS = tuple(Request._field_defaults.values())


def with_absolute_paths(job: object) -> Any:
    """A job whose ``cwd`` and ``stdin`` mean the same in every folder; called where it is added.

    Whatever else it is stays as it is: whoever runs it says what is wrong.
    """
    if not isinstance(job, Mapping):
        return job
    cwd, stdin = job.get("cwd"), job.get("stdin")
    changes: dict[str, Any] = {}
    if isinstance(cwd, (str, os.PathLike)) and not os.path.isabs(cwd):
        changes["cwd"] = os.path.abspath(os.fsdecode(cwd))
    if isinstance(stdin, os.PathLike) and not os.path.isabs(stdin):
        changes["stdin"] = Path(os.path.abspath(os.fsdecode(stdin)))
    return {**job, **changes} if changes else job


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
    shell = _check_flag("shell", job)
    more = {} if _RARE_KEYS.isdisjoint(job) else _check_rare(job)
    return Request(
        argv=_check_shell_command(name, job["cmd"]) if shell else check_argv(name, job["cmd"]),
        shell=shell,
        stdin=_check_stdin(job.get("stdin"), more.get("encoding") or "utf-8"),
        env=check_env(job.get("env")),
        cwd=_check_cwd(job.get("cwd")),
        timeout=_check_optional("timeout", job, check_seconds) or 0.0,
        meta=check_meta(job.get("meta")),
        **more,
    )


def _check_rare(job: Mapping[str, Any]) -> dict[str, Any]:
    """What few jobs have: not looked for where there is none of it, since this is a part of each command's time."""
    return {
        "grace": _check_optional("grace", job, check_seconds),
        "memory": _check_optional("memory", job, _check_bytes) or 0,
        "max_output": _check_optional("max_output", job, _check_bytes) or 0,
        "merged": _check_stderr(job.get("stderr")),
        "pty": _check_flag("pty", job),
        "encoding": _check_encoding(job),
        "keep": _check_optional("keep", job, check_keep),
    }


def _check_flag(name: str, job: Mapping[str, Any], default: bool = False) -> bool:
    value = job.get(name, default)
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, not {value!r:.200}")
    return value


def _check_optional(name: str, job: Mapping[str, Any], check: Callable[[str, object], Checked]) -> Checked | None:
    value = job.get(name)
    return None if value is None else check(name, value)


def _check_bytes(name: str, value: object) -> int:
    return check_count(name, value, most=(1 << 63) - 1)


def check_keep(name: str, value: object) -> str:
    """Which directories stay. ValueError that names it `name`."""
    if value not in KEEP:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, KEEP))}, not {value!r:.200}")
    return str(value)


def _check_encoding(job: Mapping[str, Any]) -> str | None:
    """Of the text in the result; None for bytes."""
    if not _check_flag("text", job, default=True):
        if job.get("encoding") is not None:
            raise ValueError(
                f"encoding must not be given with text=False, which is for bytes: {job['encoding']!r:.200}"
            )
        return None
    value = job.get("encoding")
    return "utf-8" if value is None else check_encoding(value)


def check_encoding(value: object) -> str:
    """One that Python knows, for text. TypeError or ValueError."""
    if not isinstance(value, str):
        raise TypeError(f"encoding must be a str such as 'utf-8', not {value!r:.200}")
    try:
        "".encode(value)
    except LookupError:
        raise ValueError(f"encoding must be one that Python knows, such as 'utf-8', not {value!r:.200}") from None
    return value


def _check_stderr(value: object) -> bool:
    """Whether it goes where stdout goes. As in subprocess, its STDOUT says so, too."""
    if value is None:
        return False
    if value not in (MERGED, _SUBPROCESS_STDOUT):
        raise ValueError(f"stderr must be {MERGED!r} (it goes where stdout goes) or None, not {value!r:.200}")
    return True


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


def _check_stdin(value: object, encoding: str) -> Stdin:
    if value is None:
        return None
    if isinstance(value, str):
        try:
            return value.encode(encoding, "surrogateescape")
        except UnicodeEncodeError:
            raise ValueError(f"stdin cannot be encoded as {encoding}: {value!r:.200}") from None
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
    if safe_files.is_too_deep(meta):  # or nested in itself
        raise ValueError(f"meta must be nested at most {safe_files.MAX_DEPTH} deep")
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
