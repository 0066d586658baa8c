"""A disk that is soon full."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

SIZE = 256 * 1024  # bytes


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, where that may be mounted."""
    disk = tmp_path / "disk"
    disk.mkdir()
    options = f"size={SIZE},mode=700"
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", disk], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"mount is not permitted: {mounted.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


def fill(disk: Path, leave: int = 0) -> None:
    """Leave this many bytes free."""
    with open(disk / "ballast", "wb", buffering=0) as file:
        with suppress(OSError):
            while True:
                file.write(bytes(4096))
        if leave:
            file.truncate(file.tell() - leave)
