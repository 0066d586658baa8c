"""Which file system a path is on, and whether it can be trusted with locks and syncs (Linux)."""

from __future__ import annotations

import os
import re

from bossworker.system import proc

_SHARED = (
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "lustre",
    "ceph",
    "beegfs",
    "gpfs",
    "afs",
    "glusterfs",
    "9p",
    "ocfs2",
)
_OCTAL = re.compile(rb"\\([0-7]{3})")


def file_system_of(path: str) -> tuple[str, str]:
    """Its type, and where it is mounted; two empty strings where that is not told."""
    device = os.stat(path).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    found = ("", "")
    for line in proc.read("self/mountinfo").splitlines():
        fields, _, rest = line.partition(b" - ")
        columns = fields.split()
        if len(columns) > 4 and columns[2].decode() == wanted and rest:
            found = rest.split()[0].decode(), os.fsdecode(_OCTAL.sub(_byte, columns[4]))
    return found


def _byte(match: re.Match[bytes]) -> bytes:
    return bytes((int(match[1], 8),))


def is_shared(kind: str) -> bool:
    """Whether a file system of this type may be another machine's: its locks, and what a sync means, are its own."""
    return kind in _SHARED or kind.startswith("fuse")
