"""The job directory: what it promises at every instant."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bossworker.commands import jobdir, safe_files
from bossworker.commands.jobdir import JobDirectory
from bossworker.commands.safe_files import Damaged
from bossworker.system import folders
from tests.commands.disk import fill


def create(root: Path, **job: object) -> JobDirectory:
    directory, streams = jobdir.create(str(root), {"argv": ["true"], **job})
    for fd in streams:
        os.close(fd)
    return directory


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[JobDirectory]:
    made = create(tmp_path)
    yield made
    made.close()


def modes(path: Path) -> dict[str, str]:
    found = {str(one.relative_to(path)): oct(stat.S_IMODE(one.stat().st_mode)) for one in path.rglob("*")}
    return {".": oct(stat.S_IMODE(path.stat().st_mode)), **found}


PRIVATE = {
    ".": "0o700", "files": "0o700", "job.json": "0o600", "status.json": "0o600", "stdout": "0o600", "stderr": "0o600",
}  # fmt: skip


@pytest.mark.parametrize("umask", [0o022, 0o000, 0o777, 0o277])
def test_all_is_private_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        directory = create(tmp_path)
        directory.write_status({"state": "running"})
        directory.take_room()
        directory.write_last_status({"state": "completed"})
        directory.close()
    finally:
        os.umask(before)
    assert modes(Path(directory.path)) == PRIVATE


def test_ids_sort_by_time_and_differ() -> None:
    ids = [jobdir.new_id() for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert [one[:22] for one in ids] == sorted(one[:22] for one in ids)
    assert all(re.fullmatch(r"\d{8}-\d{6}-\d{6}-[0-9a-f]{20}", one) for one in ids)


def test_status_replaces_status(directory: JobDirectory) -> None:
    directory.take_room()
    for number in range(3):
        directory.write_status({"number": number})
        assert safe_files.read_json(directory.fd, jobdir.STATUS) == {"number": number}
    directory.write_last_status({"number": "last"})
    assert safe_files.read_json(directory.fd, jobdir.STATUS) == {"number": "last"}
    assert sorted(os.listdir(directory.path)) == ["files", "job.json", "status.json", "stderr", "stdout"]


def test_a_long_last_status_needs_not_fit_the_room(directory: JobDirectory) -> None:
    directory.take_room()
    directory.write_last_status({"reason": "x" * 5000})
    assert safe_files.read_json(directory.fd, jobdir.STATUS) == {"reason": "x" * 5000}


@pytest.mark.parametrize("make", [lambda path: None, Path.mkdir])
def test_the_last_status_stands_though_its_room_was_thrown_away(
    directory: JobDirectory, make: Callable[[Path], None]
) -> None:
    directory.take_room()
    directory.write_status({"state": "running"})
    room = Path(directory.path, ".status.next")
    room.unlink()
    make(room)
    directory.write_last_status({"state": "completed"})
    assert safe_files.read_json(directory.fd, jobdir.STATUS) == {"state": "completed"}


def test_one_runs_the_command_and_no_other_ever(directory: JobDirectory) -> None:
    directory.claim()
    late = JobDirectory(directory.path, safe_files.open_folder(directory.path))
    with pytest.raises(FileExistsError):
        late.claim()
    directory.write_last_status({"state": "completed"})
    with pytest.raises(FileExistsError):
        late.claim()
    late.close()
    assert sorted(os.listdir(directory.path)) == ["files", "job.json", "status.json", "stderr", "stdout"]


def test_nobody_runs_it_once_it_is_being_deleted(directory: JobDirectory) -> None:
    os.rename(directory.path, f"{directory.path}.gone")
    for _ in range(2):
        with pytest.raises(FileNotFoundError):
            directory.claim()
        Path(directory.path).mkdir(exist_ok=True)  # another of its name
    assert sorted(os.listdir(f"{directory.path}.gone")) == ["files", "job.json", "stderr", "stdout"]


def test_requests_do_not_take_each_other_back(directory: JobDirectory) -> None:
    for number in (9, 15, 18, 9):
        jobdir.request_signal(directory.fd, number)
    assert jobdir.requested_signals(directory.fd) == {9, 15, 18}


def test_a_word_that_is_withdrawn_just_now(directory: JobDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its signal came too late for a command that has ended by itself."""
    assert jobdir.request_signal(directory.fd, 15)
    assert not jobdir.request_signal(directory.fd, 15)
    monkeypatch.setattr("time.sleep", lambda _: jobdir.withdraw_signal(directory.fd, 15))
    assert directory.requested_signals(exited=False) == {15}
    assert directory.requested_signals(exited=True) == set()


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"text"', '{"a": 1} x', "\xff", "[" * 200_000, '{"a": 1'])
def test_damage_is_told(directory: JobDirectory, text: str) -> None:
    Path(directory.path, "job.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(Damaged, match=r"job\.json is damaged"):
        safe_files.read_json(directory.fd, "job.json")


def test_nothing_but_a_regular_file_is_read(directory: JobDirectory, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("{}")
    for make in (lambda path: path.symlink_to(secret), os.mkfifo, Path.mkdir):
        path = Path(directory.path, "thing")
        make(path)
        with pytest.raises(OSError, match="thing"):
            safe_files.read_json(directory.fd, "thing")
        path.rmdir() if path.is_dir() else path.unlink()


def test_what_json_cannot_hold_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        create(tmp_path, meta={"a": object()})
    assert os.listdir(tmp_path) == []


def test_a_root_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        create(tmp_path / "nowhere")


def test_removal_counts_files_and_follows_no_link(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    directory = create(tmp_path)
    directory.close()
    files = Path(directory.path, "files")
    (files / "deep" / "er").mkdir(parents=True)
    (files / "deep" / "er" / "one").touch()
    (files / "link").symlink_to(outside)
    (files / "deep").chmod(0)
    os.mkfifo(files / "pipe")
    assert folders.remove(directory.path) == 3 + 3  # job.json, stdout, stderr; one, link, pipe
    assert not os.path.exists(directory.path)
    assert (outside / "kept").exists()
    assert folders.remove(directory.path) == 0


def test_what_is_removed_may_be_reached_by_a_link(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "link").symlink_to("root")
    directory = create(tmp_path / "link")
    directory.close()
    assert folders.remove(directory.path) == 3
    assert os.listdir(tmp_path / "root") == []


# -- a full disk ----------------------------------------------------------------------------------------


def test_on_a_full_disk_none_is_made_and_nothing_left(small_disk: Path) -> None:
    fill(small_disk)
    with pytest.raises(OSError, match="No space") as caught:
        create(small_disk)
    assert caught.value.errno == errno.ENOSPC
    assert os.listdir(small_disk) == ["ballast"]


@pytest.mark.parametrize("pages", range(1, 8))
def test_a_disk_that_fills_up_on_the_way(small_disk: Path, pages: int) -> None:
    """Wherever it happens: either all of a directory is there, or nothing."""
    fill(small_disk, leave=pages * 4096)
    try:
        directory = create(small_disk)
    except OSError:
        assert os.listdir(small_disk) == ["ballast"]
    else:
        assert safe_files.read_json(directory.fd, "job.json")["argv"] == ["true"]
        directory.close()


def test_what_runs_finds_room_on_a_full_disk_and_so_does_the_last_word(small_disk: Path) -> None:
    """Whether the room of the first status can be had again, or another is faster."""
    for greedy in (False, True):
        directory = create(small_disk)
        directory.take_room()
        directory.write_status({"state": "created"})
        fill(small_disk)
        if greedy:
            os.link(f"{directory.path}/status.json", small_disk / "held")  # its room is not given back
        directory.write_status({"state": "running", "command": [1]})
        assert safe_files.read_json(directory.fd, jobdir.STATUS) == {"state": "running", "command": [1]}
        directory.write_last_status({"state": "completed", "reason": "x" * 700})
        assert safe_files.read_json(directory.fd, jobdir.STATUS)["state"] == "completed"
        assert sorted(os.listdir(directory.path)) == ["files", "job.json", "status.json", "stderr", "stdout"]
        directory.close()
        (small_disk / "ballast").unlink()


def test_the_last_word_finds_room_on_a_full_disk(small_disk: Path) -> None:
    directory = create(small_disk)
    directory.write_status({"state": "running"})
    directory.take_room()
    fill(small_disk)
    with pytest.raises(OSError, match="No space"):
        directory.write_status({"state": "cannot"})
    assert safe_files.read_json(directory.fd, jobdir.STATUS) == {"state": "running"}
    directory.write_last_status({"state": "completed", "reason": "x" * 700})
    assert safe_files.read_json(directory.fd, jobdir.STATUS)["state"] == "completed"
    directory.close()
