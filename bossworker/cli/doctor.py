"""``doctor``: what this machine lacks, or has too little of, for what this package does."""

from __future__ import annotations

import argparse
import os
import platform
import resource
import shutil
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from typing import NamedTuple

from bossworker.cli.command_parser import make_parser, show_json
from bossworker.cli.progress_line import colours
from bossworker.commands import record
from bossworker.commands.jobdir import HIDDEN, time_of
from bossworker.commands.roots import find_root, is_id
from bossworker.jobs.cleaning import DEBRIS_SECONDS
from bossworker.pool.door.addresses import MOST_NAME, runtime_folders
from bossworker.pool.wire.doorway import MOST_PATH_BYTES
from bossworker.system import compiled, identity, proc
from bossworker.system.cpus import usable_cpus
from bossworker.system.mounts import file_system_of

OK, WARNING = "ok", "warning"
_FEW_PROCESSES, _FEW_FILES = 256, 256
_LITTLE_SPACE, _FEW_INODES = 1 << 28, 10_000
_SQLITE = (3, 51, 3)
_SQLITE_BACKPORTS = {(3, 44): 6, (3, 50): 7}
_REMOTE = {"nfs", "nfs4", "cifs", "smb3", "fuse.sshfs", "lustre", "9p", "gpfs", "beegfs"}


class Finding(NamedTuple):
    """One thing that was looked at."""

    what: str
    state: str
    text: str


def doctor_parser() -> argparse.ArgumentParser:
    return make_parser(
        "doctor",
        "Look at what commands and pools need here: versions, limits, disks, sockets, and what crashes have left.\n"
        "Exit status 1 if there is something to be warned of.",
        ["", "--json", "|| echo have a look"],
    )


def doctor(argv: Sequence[str]) -> int:
    options = doctor_parser().parse_args(argv)
    findings = [finding for look in LOOKS for finding in _found(look)]
    for one in findings:
        if options.json:
            show_json(one._asdict())
        else:
            mark = f"\x1b[33m{one.state}\x1b[0m" if colours(1) and one.state == WARNING else one.state
            print(f"{mark:8} {one.what}: {one.text}")
    return int(any(one.state == WARNING for one in findings))


def _found(look: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """What it finds; also where it cannot look, since there is no home, for instance."""
    try:
        yield from look()
    except (OSError, RuntimeError) as error:
        yield Finding(look.__name__.strip("_"), WARNING, str(error))


def _finding(what: str, good: bool, text: str, advice: str = "") -> Finding:
    return Finding(what, OK, text) if good else Finding(what, WARNING, f"{text}; {advice}" if advice else text)


def _versions() -> Iterator[Finding]:
    from bossworker import __version__

    yield Finding("bossworker", OK, f"{__version__}, Python {platform.python_version()}, {platform.platform()}")
    for name in ("pyzmq", "cloudpickle"):
        try:
            yield Finding(name, OK, metadata.version(name))
        except metadata.PackageNotFoundError:
            yield Finding(name, WARNING, f"it is not installed: pip install {name}")
    yield Finding("compiled core", OK, compiled.explain())


def _sqlite() -> Iterator[Finding]:
    found = sqlite3.sqlite_version_info
    good = found >= _SQLITE or found[2] >= _SQLITE_BACKPORTS.get(found[:2], sys.maxsize)
    advice = "before 3.51.3, two writers in WAL mode can lose what was committed; a journal here has one owner only"
    yield _finding("SQLite", good, sqlite3.sqlite_version, advice)


def _limits() -> Iterator[Finding]:
    yield Finding("cores", OK, f"{usable_cpus()} for this process")
    for what, name, few in (
        ("processes", "RLIMIT_NPROC", _FEW_PROCESSES),
        ("open files", "RLIMIT_NOFILE", _FEW_FILES),
    ):
        if hasattr(resource, name):
            soft, hard = resource.getrlimit(getattr(resource, name))
            unlimited = soft == resource.RLIM_INFINITY
            text = f"{name} is {'unlimited' if unlimited else soft}"
            yield _finding(what, unlimited or soft >= few, text, f"raise it: ulimit (up to {hard})")


def _kernel() -> Iterator[Finding]:
    if sys.platform == "linux":
        yield _finding("/proc", proc.is_ours(), "it shows our processes" if proc.is_ours() else identity.NO_PROC)
    there = hasattr(os, "pidfd_open")
    yield _finding("pidfd", there, "there" if there else "ends of processes are looked for, not told of")


def _disks() -> Iterator[Finding]:
    root = find_root()
    if os.path.lexists(root) and not os.path.isdir(root):
        yield Finding("job directories", WARNING, f"{root} is no folder; have BOSSWORKER_ROOT name another one")
    else:
        yield from _disk("job directories", _existing(root))
    yield from _disk("temporary files", os.environ.get("TMPDIR") or "/tmp")


def _existing(path: str) -> str:
    while not os.path.isdir(path) and path != "/":
        path = os.path.dirname(path)
    return path


def _disk(what: str, path: str) -> Iterator[Finding]:
    try:
        usage, files = shutil.disk_usage(path), os.statvfs(path)
    except OSError as error:
        yield Finding(what, WARNING, f"{path}: {error.strerror}")
        return
    kind, _ = file_system_of(path)
    text = f"{path} ({kind or 'unknown file system'}), {usage.free / 2**30:.1f} GiB and {files.f_favail:,} inodes free"
    enough = usage.free >= _LITTLE_SPACE and (not files.f_files or files.f_favail >= _FEW_INODES)
    if kind in _REMOTE:
        yield Finding(what, WARNING, f"{text}; over a network, others' jobs may be unknown here: set BOSSWORKER_ROOT")
    else:
        yield _finding(what, enough and os.access(path, os.W_OK), text, "there should be more room, or another place")


def _sockets() -> Iterator[Finding]:
    folder = runtime_folders()[0]
    short_enough = len(os.fsencode(folder)) + len("/") + MOST_NAME <= MOST_PATH_BYTES
    yield _finding("sockets", short_enough, f"in {folder}", "an address holds about 100 bytes: choose a shorter folder")


def _leftovers() -> Iterator[Finding]:
    root, left = find_root(), 0
    if os.path.isdir(root):
        ids = [name[1:] for name in os.listdir(root) if name.startswith(HIDDEN) and is_id(name[1:])]
        left = sum(time.time() - time_of(one) > DEBRIS_SECONDS for one in ids)
    total = len(record.listing())
    yield _finding("job directories left half made", not left, f"{left} (of {total})", "bossworker clean deletes them")
    folders = list(_folders_of_dead_runs())
    yield _finding("folders of runs that were killed", not folders, str(len(folders)), f"delete {', '.join(folders)}")


def _folders_of_dead_runs() -> Iterator[str]:
    """``run`` makes one for long outputs, named after its pid."""
    place = os.environ.get("TMPDIR") or "/tmp"
    for name in os.listdir(place) if os.path.isdir(place) else ():
        number = name.rpartition("-")[2]
        if name.startswith("bossworker-run-") and number.isdigit() and identity.start_time(int(number)) is None:
            yield os.path.join(place, name)


LOOKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    _versions,
    _sqlite,
    _limits,
    _kernel,
    _disks,
    _sockets,
    _leftovers,
)
