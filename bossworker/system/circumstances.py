"""What a process passes on to its children: its rights, its limits, and where it is."""

from __future__ import annotations

import os
import resource

from bossworker.system import proc

_STATUS = (
    b"Uid:", b"Gid:", b"Groups:", b"NoNewPrivs:", b"Seccomp:", b"Seccomp_filters:", b"Cap",
    b"Cpus_allowed:", b"Mems_allowed:",
)  # fmt: skip
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
    return (
        os.getresuid() if hasattr(os, "getresuid") else (os.getuid(), os.geteuid()),
        os.getresgid() if hasattr(os, "getresgid") else (os.getgid(), os.getegid()),
        tuple(os.getgroups()),
        os.getpriority(os.PRIO_PROCESS, 0),
        (root.st_dev, root.st_ino),
        *_told_by_kernel(),
    )


def _told_by_kernel() -> tuple[object, ...]:
    if not os.path.exists(f"{proc.ROOT}/thread-self"):
        return tuple(map(resource.getrlimit, _LIMITS))
    lines = proc.read("thread-self/status").splitlines()
    return (
        tuple(line for line in lines if line.startswith(_STATUS)),
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
