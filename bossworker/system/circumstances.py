"""What a process passes on to its children: its rights, its limits, and where it is."""

from __future__ import annotations

import os
import resource

from bossworker.system import proc

_STATUS = (  # from where to where in /proc/PID/status: users and groups; capabilities, seccomp, processors
    (b"\nUid:", b"\nFDSize:"),
    (b"\nGroups:", b"\nNStgid:"),
    (b"\nCapInh:", b"\nvoluntary_ctxt_switches:"),
)
_NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid_for_children", "time_for_children", "user", "uts")
_FILES = ("cgroup", "oom_score_adj", "attr/current")
_LIMITS = [getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")]


def inherited() -> tuple[object, ...]:
    """What a child of the calling thread would get now. Two processes of which it is equal may do the same.

    User, groups, capabilities, limits, priority, processors, control group, root directory, namespaces. Without /proc,
    as much as can be asked for elsewhere. Not the umask, the environment and the working directory: whoever starts a
    command passes them on itself.
    """
    root = os.stat("/")
    status = proc.read("thread-self/status")
    return (
        os.getpriority(os.PRIO_PROCESS, 0),
        (root.st_dev, root.st_ino),
        *(_told_by_kernel(status) if status else _asked_for()),
    )


def _asked_for() -> tuple[object, ...]:
    """What can be known without /proc."""
    ids = [getattr(os, name) for name in ("getuid", "geteuid", "getgid", "getegid", "getgroups")]
    return (*(repr(ask()) for ask in ids), *map(resource.getrlimit, _LIMITS))


def _told_by_kernel(status: bytes) -> tuple[object, ...]:
    return (
        *(status[status.find(begin) : status.find(end)] for begin, end in _STATUS),
        proc.read("thread-self/limits"),
        (os.sched_getscheduler(0), os.sched_getparam(0).sched_priority),
        *(proc.read(f"thread-self/{name}") for name in _FILES),
        *map(_namespace, _NAMESPACES),
    )


def _namespace(kind: str) -> str:
    try:
        return os.readlink(f"{proc.ROOT}/thread-self/ns/{kind}")
    except OSError:
        return ""
