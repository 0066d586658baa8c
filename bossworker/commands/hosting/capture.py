"""Where the output of hosted commands goes: two files without a name, which a slot's commands use one after the other.

So what succeeds leaves nothing behind, and costs no file.
"""

from __future__ import annotations

import os

from bossworker.commands import output

IN_RECORD = 1 << 18  # bytes of a stream that are in a record; what is longer is handed over as a file


class Capture:
    """The two files of a slot."""

    def __init__(self) -> None:
        out = _nameless()
        try:
            self.streams = out, _nameless()
        except OSError:
            os.close(out)
            raise

    def take(self, folder: str, name: str) -> tuple[bytes | str, bytes | str]:
        """What was written: bytes, or the path of a file in this folder. The files are empty from then on."""
        out, err = self.streams
        return _taken(out, folder, f"{name}.out"), _taken(err, folder, f"{name}.err")

    def close(self) -> None:
        """Whoever writes on has it for himself."""
        for fd in self.streams:
            os.close(fd)


_NEEDED = 3  # descriptors to start a command: a pipe's two, and one for looks


def make_capture(starting: int) -> Capture:
    """OSError when there is no room for it, or no descriptor would be left for its command.

    Args:
        starting: Commands that are about to start, this one too: each needs a descriptor that tells of its end.
    """
    made = Capture()
    spare: list[int] = []
    try:
        spare += (os.dup(made.streams[0]) for _ in range(_NEEDED + starting))
    except OSError:
        made.close()
        raise
    finally:
        for fd in spare:
            os.close(fd)
    return made


def own_stream(fd: int) -> int:
    """Another descriptor of our own stdout or stderr; of nothing where that is closed."""
    try:
        return os.dup(fd)
    except OSError:
        return os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)


def _taken(fd: int, folder: str, name: str) -> bytes | str:
    size = os.lseek(fd, 0, os.SEEK_END)  # as fstat has it, in a third of the time
    if not size:
        return b""
    taken = output.read_at(fd) if size <= IN_RECORD else _handed_over(fd, folder, name)
    os.ftruncate(fd, 0)
    return taken


def _handed_over(fd: int, folder: str, name: str) -> str:
    from bossworker.commands import ended_job

    os.makedirs(folder, 0o700, exist_ok=True)
    path = f"{folder}/{name}"
    ended_job.copy(fd, os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    return path


def _nameless() -> int:
    """A file without a name, that is appended to, whoever writes."""
    if hasattr(os, "O_TMPFILE"):
        try:
            folder = os.environ.get("TMPDIR") or "/tmp"
            return os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError:  # not every file system has such files
            pass
    import fcntl
    import tempfile  # which takes milliseconds to load

    with tempfile.TemporaryFile(buffering=0) as file:
        fcntl.fcntl(file, fcntl.F_SETFL, fcntl.fcntl(file, fcntl.F_GETFL) | os.O_APPEND)
        return os.dup(file.fileno())
