"""Start a program: nothing of Python runs between fork and exec, so that it is quick, and safe where threads run.

It gets descriptors 0, 1 and 2 and no other, leads a session of its own, and has default signal dispositions.
"""

from __future__ import annotations

import errno
import os

from bossworker.system.cpython import close, fork_exec, signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

NOT_FOUND, NOT_EXECUTABLE = 127, 126  # exit codes, as a shell's

_MOST_KNOWN = 64
_known: dict[tuple[bytes, bytes], list[bytes]] = {}  # programs and paths: a pool runs the same few again and again
_DEFAULT_PATH = os.defpath.encode()
_NAMES = "HUP INT QUIT ABRT ALRM TERM USR1 USR2 CHLD CONT TSTP TTIN TTOU URG WINCH IO VTALRM PROF XCPU SYS"
_SIGNALS = [getattr(signal, f"SIG{name}") for name in _NAMES.split() if hasattr(signal, f"SIG{name}")]


class CannotStart(Exception):
    """The program does not run: the exit code that a shell would give, and the reason for people."""

    def __init__(self, exit_code: int, reason: str) -> None:
        super().__init__(reason)
        self.exit_code = exit_code
        self.reason = reason


def tell(fd: int, error: CannotStart) -> None:
    """Write the reason where the command's own complaints would stand. Nothing is lost when there is no room."""
    try:
        os.write(fd, error.reason.encode("utf-8", "surrogateescape") + b"\n")
    except OSError:
        pass


def candidates(program: bytes, environment: list[bytes] | None) -> list[bytes]:
    """The files that a program's name may mean: itself with a slash, otherwise one a folder of the PATH."""
    if b"/" in program:
        return [program]
    if environment is None:
        path = os.environb.get(b"PATH", _DEFAULT_PATH)
    else:
        path = next((line[5:] for line in environment if line.startswith(b"PATH=")), _DEFAULT_PATH)
    known = _known.get((program, path))
    if known is None:
        if len(_known) >= _MOST_KNOWN:
            _known.clear()
        known = _known[program, path] = [os.path.join(folder, program) for folder in path.split(b":")]
    return known


def start(
    argv: list[bytes],
    environment: list[bytes] | None,
    cwd: bytes,
    stdio: tuple[int, int, int],
    *,
    umask: int = -1,
    keep: tuple[int, ...] = (),
    session: bool = True,
    last_step: Callable[[], object] | None = None,
    files: list[bytes] | None = None,
    none_ignored: bool = False,
) -> int:
    """Start a program; its pid.

    Args:
        environment: ``NAME=value`` each, or None for ours; the PATH in it finds the program.
        stdio: What becomes descriptors 0, 1 and 2. None of them may be one of these itself.
        umask: The program's, or -1 for ours.
        keep: Descriptors that it gets too.
        session: Whether it leads a session of its own.
        last_step: Called in the child just before exec: Python between fork and exec after all. Only for a process
            without threads, and slower.
        files: What its name may mean, if that is known: as `candidates` gives it.
        none_ignored: Whether this process is known to ignore no signal. Otherwise each start pays for a look.

    Raises:
        CannotStart: It cannot be run. What was forked for it is reaped.
        OSError: No process could be made.
    """
    check_name(argv)
    # Closed by exec. A fork of another thread just now would hold it open, until that child ends or executes something
    # itself: we hear of our program's start only then.
    failure, reporter = os.pipe()
    try:
        kept = tuple(sorted((*keep, reporter))) if keep else (reporter,)
        files = files or candidates(argv[0], environment)
        # What comes for these signals until they are ignored again is handled by doing nothing: as if it had been
        # ignored.
        ignored = [] if none_ignored else let_go_of_ignored()
        try:
            pid = fork_exec(argv, files, cwd, environment, stdio, (failure, reporter), kept, umask, session, last_step)
        finally:
            for number in ignored:
                signal.signal(number, signal.SIG_IGN)
        close(reporter)  # at once, since the end of the file is waited for
        reporter = -1
        report = _report(failure)
        if not report:
            return pid
        try:
            os.waitpid(pid, 0)
        except ChildProcessError:  # where SIGCHLD is ignored, nothing is left to be reaped
            pass
    finally:
        os.close(failure)
        if reporter >= 0:
            os.close(reporter)
    raise _reason(report, argv[0], cwd)


def check_name(argv: list[bytes] | list[str]) -> None:
    """CannotStart: it has none."""
    if not (argv and argv[0]):
        raise CannotStart(NOT_FOUND, "a program without a name")


def _report(failure: int) -> bytes:
    """Why there is no program. Written piece by piece, and closed by exec or the child's end."""
    report = b""
    while part := os.read(failure, 1000):
        report += part
    return report


def let_go_of_ignored() -> list[int]:
    """Handlers become default at exec, but what is ignored stays so: handle it instead, by doing nothing."""
    disposition, ignore = signal.getsignal, signal.SIG_IGN  # looked up once: each command pays for this
    ignored = [number for number in _SIGNALS if disposition(number) == ignore]
    try:
        for number in ignored:
            signal.signal(number, _nothing)
    except ValueError:  # not the main thread: the program inherits it, as from any subprocess
        return []
    return ignored


def empty_signal_mask() -> Callable[[], object] | None:
    """The last step of a program that would start with signals blocked, since we have; None where we have not."""
    if not signal.pthread_sigmask(signal.SIG_BLOCK, ()):
        return None
    return lambda: signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _nothing(number: int, frame: object) -> None:
    pass


def _reason(report: bytes, program: bytes, cwd: bytes) -> CannotStart:
    """From what the child wrote before it ended: ``exception:errno in hex:where``."""
    _, code, where = report.split(b":", 2)
    number = int(code, 16)
    in_folder = where == b"noexec:chdir" or (
        where == b"noexec" and number in (errno.ENOENT, errno.ENOTDIR, errno.EACCES)
    )
    return refusal(number, program, cwd if in_folder else b"")


def refusal(number: int, program: bytes, folder: bytes) -> CannotStart:
    """Why it does not run.

    Args:
        number: Of the error.
        folder: The one that cannot be changed to, if that is why.
    """
    text, name = os.strerror(number), f"{os.fsdecode(program)!r:.200}"
    if folder:
        return CannotStart(NOT_EXECUTABLE, f"cannot change to {os.fsdecode(folder)!r}: {text}")
    if number in (errno.ENOENT, errno.ENOTDIR):
        return CannotStart(NOT_FOUND, f"cannot run {name}: {text}")
    return CannotStart(NOT_EXECUTABLE, f"cannot run {name}: {text}")
