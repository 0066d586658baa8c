"""The folders of home lines: one whose program was killed goes with the next that is made; no other one does."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from bossworker import BossWorker
from bossworker.engines import home_folder
from bossworker.engines.home_folder import OWNER, PREFIX, SOCKET, make_home, remove_home, remove_if_left
from bossworker.engines.home_line import HomeDoor, WayHome
from bossworker.system import identity
from tests.engines.marks import PATIENCE

PROGRAM = """
import time
from concurrent.futures import ThreadPoolExecutor
from bossworker import BossWorker

if __name__ == "__main__":
    bw = BossWorker(lambda job: job, engine=ThreadPoolExecutor(1), worker_count=1)
    print("up", flush=True)
    time.sleep(1000)
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where folders are made; short enough for a socket."""
    short = Path(tempfile.mkdtemp(prefix="h-"))
    monkeypatch.setattr(home_folder, "_short_place", lambda: str(short))
    yield short
    for found in short.glob("*"):
        if found.is_dir() and not found.is_symlink():
            for one in found.iterdir():
                one.unlink()
            found.rmdir()
        else:
            found.unlink()
    short.rmdir()


def left_by(place: Path, owner: object, mode: int = 0o700) -> Path:
    """A folder with a socket, or what stands for one."""
    folder = place / f"{PREFIX}x"
    folder.mkdir(mode=0o700)
    (folder / SOCKET).touch()
    if owner is not None:
        (folder / OWNER).symlink_to(owner if isinstance(owner, str) else json.dumps(owner))
    folder.chmod(mode)
    return folder


def dead() -> identity.Identity:
    """This process's own identity, if it had been started at another time: its pid is used again."""
    pid, _, *rest = identity.own()
    return [pid, 1, *rest]


def folders() -> list[Path]:
    return sorted(Path(tempfile.gettempdir()).glob(f"{PREFIX}*"))


def test_what_a_killed_program_left_goes_with_the_next_pool(tmp_path: Path, pool: Callable[..., BossWorker]) -> None:
    """A program whose nodes were killed with it: they were in its own process."""
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, str(script)], env=environment, stdout=subprocess.PIPE) as program:
        assert program.stdout is not None
        assert program.stdout.read(2) == b"up"
        (left,) = folders()
        with ThreadPoolExecutor(1) as executor, pool(lambda job: job, engine=executor, worker_count=1):
            assert left in folders()  # its program is there
        program.send_signal(signal.SIGKILL)
    assert folders() == [left]
    with ThreadPoolExecutor(1) as executor, pool(lambda job: job, engine=executor, worker_count=1):
        assert left not in folders()
        assert len(folders()) == 1
    assert folders() == []


def test_a_home_is_made_and_removed(place: Path) -> None:
    path = Path(make_home())
    assert path.parent.parent == place
    assert path.parent.stat().st_mode & 0o777 == 0o700
    path.touch()
    remove_if_left(str(path.parent))
    assert path.exists()
    remove_home(str(path))
    assert list(place.iterdir()) == []
    remove_home(str(path))


@pytest.mark.parametrize("what", ["dead", "empty"])
def test_what_goes(place: Path, what: str) -> None:
    """Also what was left in the instant before it had an owner."""
    if what == "dead":
        left_by(place, dead())
    else:
        (place / f"{PREFIX}x").mkdir(mode=0o700)
    home_folder.sweep(str(place))
    assert list(place.iterdir()) == []


def elsewhere() -> identity.Identity:
    return [*dead()[:2], "another boot", dead()[3], "another host"]


def contained() -> identity.Identity:
    return [*dead()[:3], "another namespace", dead()[4]]


@pytest.mark.parametrize(
    ("owner", "mode"),
    [
        (identity.own, 0o700),
        (elsewhere, 0o700),
        (contained, 0o700),
        (lambda: None, 0o700),  # it has none, and is not empty
        (lambda: "not ours", 0o700),
        (lambda: "[]x", 0o700),
        (dead, 0o755),  # others may have put into it what they like
    ],
)
def test_what_stays(place: Path, owner: Callable[[], Any], mode: int) -> None:
    folder = left_by(place, owner(), mode)
    home_folder.sweep(str(place))
    assert (folder / SOCKET).exists()


def test_others_have_theirs(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = left_by(place, dead())
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    home_folder.sweep(str(place))
    assert (folder / SOCKET).exists()


def test_a_link_leads_nowhere(place: Path) -> None:
    folder = left_by(place, dead())
    target = folder.rename(place / "elsewhere")
    (place / f"{PREFIX}x").symlink_to(target)
    home_folder.sweep(str(place))
    assert (target / SOCKET).exists()


def test_a_folder_that_is_taken_for_left_is_made_again(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By another program, before it has its owner."""
    make = tempfile.mkdtemp
    made: list[str] = []

    def make_and_lose(*args: Any, **options: Any) -> str:
        made.append(make(*args, **options))
        if len(made) == 1:
            home_folder.sweep(str(place))
        return made[-1]

    monkeypatch.setattr(tempfile, "mkdtemp", make_and_lose)
    path = make_home()
    assert os.path.dirname(path) == made[1]
    assert [str(one) for one in place.iterdir()] == made[1:]


@pytest.fixture
def door(place: Path) -> Iterator[HomeDoor]:
    made = HomeDoor()
    made.serve(lambda number, node: True, lambda nodes: None, pytest.fail)
    yield made
    made.close()


def test_a_node_that_has_merely_lost_its_line_leaves_the_folder(door: HomeDoor) -> None:
    """The program is there: others have lines to it, and more may come."""
    lost = threading.Event()
    WayHome(door.path, "a node", lambda request: b"", lost.set)
    (thread,) = [one for one in threading.enumerate() if one.name == "bossworker way home"]
    (line,) = door._lines
    with socket.socket(fileno=os.dup(line.fileno())) as sock:
        sock.shutdown(socket.SHUT_RDWR)
    thread.join(PATIENCE)
    assert lost.is_set()
    assert os.path.exists(door.path)
