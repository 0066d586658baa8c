"""The files of a journal: damaged, another's, of another version, on a full disk, in use."""

from __future__ import annotations

import os
import re
import sqlite3
import stat
import subprocess
import sys
import time
import warnings
from collections import deque
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from bossworker import BossWorker, JournalError, JournalInUse
from bossworker import journal as journals
from bossworker.journal import database
from bossworker.system import mounts
from tests.conftest import wait_for


def double(job: dict[str, Any]) -> dict[str, Any]:
    return {"twice": job.get("n", 0) * 2, **({"data": bytes(job["size"])} if "size" in job else {})}


def made(path: Path, jobs: int = 3) -> None:
    with BossWorker(double, worker_count=1, journal=path) as pool:
        pool.add_work(*[{"n": n} for n in range(jobs)])
        assert len(list(pool.results())) == jobs


def test_all_of_it_is_this_users_alone(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    with BossWorker(double, worker_count=1, journal=str(path)) as pool:
        pool.add_work({})
        modes = {file.name: stat.S_IMODE(file.lstat().st_mode) for file in tmp_path.iterdir()}
        assert modes == dict.fromkeys(
            ["jobs.db", "jobs.db-wal", "jobs.db-lock", "jobs.db-flight", "jobs.db-socket"], 0o600
        )
    assert sorted(file.name for file in tmp_path.iterdir()) == ["jobs.db", "jobs.db-lock"]


def test_a_second_owner_hears_whose_it_is(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    link = tmp_path / "link.db"
    link.symlink_to(path)
    with BossWorker(double, worker_count=1, journal=path):
        for name in (path, link):
            with pytest.raises(JournalInUse, match=f"belongs to another program: process {os.getpid()}") as error:
                BossWorker(double, worker_count=1, journal=name)
            assert error.value.pid == os.getpid()
        assert journals.open(path).counts()["queued"] == 0


def _not_a_database(path: Path) -> None:
    path.write_bytes(b"These are my notes, and not a journal at all.\n" * 100)


def _torn(path: Path) -> None:
    made(path, 2000)
    data = bytearray(path.read_bytes())
    data[4096:12288] = os.urandom(8192)
    path.write_bytes(data)


def _cut_off(path: Path) -> None:
    made(path, 2000)
    path.write_bytes(path.read_bytes()[:-4096])


def _changed_job(path: Path) -> None:
    """A bit of what a page holds, and SQLite does not mind."""
    pool = BossWorker(double, worker_count=1, journal=path)
    pool.pause()
    pool.add_work({"n": 1, "text": "a word"})
    pool.shut_down(force=True)
    data = path.read_bytes()
    assert data.count(b"a word") == 1
    path.write_bytes(data.replace(b"a word", b"a wort"))


def _changed_result(path: Path) -> None:
    with BossWorker(lambda job: {"text": "a word"}, worker_count=1, journal=path) as pool:
        pool.add_work({"n": 1})
        assert len(list(pool.results())) == 1
    path.write_bytes(path.read_bytes().replace(b"a word", b"a wort"))


def _changed_retrieved(path: Path) -> None:
    """Of a small table: else results would come once more, or never."""
    _change(path, "retrieved", "first_id + 1000")


def _changed_end(path: Path) -> None:
    _change(path, "ended", "first_id + 1000")


def _change(path: Path, table: str, value: str) -> None:
    """As a bit does that has changed: what SQLite notes of a row beside it stays as it is."""
    made(path)
    with closing(sqlite3.connect(path)) as db:
        (text,) = db.execute("SELECT sql FROM sqlite_master WHERE name = ?", (table,)).fetchone()
        plain = re.sub(r"twin AS .* STORED", "twin", text)
        db.execute("PRAGMA writable_schema = ON")
        db.execute("UPDATE sqlite_master SET sql = ? WHERE name = ?", (plain, table))
        db.commit()
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"UPDATE {table} SET first_id = {value}")
        db.execute("PRAGMA writable_schema = ON")
        db.execute("UPDATE sqlite_master SET sql = ? WHERE name = ?", (text, table))
        db.commit()


def _anothers(path: Path) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE recipes (name, text)")


def _newer(path: Path) -> None:
    made(path)
    with closing(sqlite3.connect(path)) as ours:
        ours.execute("PRAGMA user_version = 99")


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (_not_a_database, "it is no SQLite database"),
        (_torn, "damaged|malformed"),
        (_cut_off, "damaged|malformed"),
        (_changed_job, "a record in the table jobs was changed"),
        (_changed_result, "a record in the table results was changed"),
        (_changed_retrieved, "a record in the table retrieved was changed"),
        (_changed_end, "a record in the table ended was changed"),
        (_anothers, "the database of another program"),
        (_newer, "its version is 99"),
    ],
)
def test_what_cannot_be_used_is_told_and_left_as_it_is(tmp_path: Path, harm: Any, words: str) -> None:
    path = tmp_path / "jobs.db"
    harm(path)
    before = path.read_bytes()
    for use in (lambda: BossWorker(double, worker_count=1, journal=path), lambda: journals.open(path)):
        with pytest.raises(JournalError, match=words):
            use()
    assert path.read_bytes() == before


def test_what_is_no_path_of_a_file(tmp_path: Path) -> None:
    for wrong, kind in [(7, TypeError), ("", ValueError), (":memory:", ValueError), (tmp_path, ValueError)]:
        with pytest.raises(kind, match="journal must be"):
            BossWorker(double, worker_count=1, journal=wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="worker_count must be at least 1"):
        BossWorker(double, worker_count=0, journal=tmp_path / "jobs.db")
    with pytest.raises(JournalError, match="cannot be locked: No such file"):
        BossWorker(double, worker_count=1, journal=tmp_path / "missing" / "jobs.db")
    with pytest.raises(JournalError, match="there is no journal"):
        journals.open(tmp_path / "jobs.db")
    with pytest.raises(ValueError, match="interrupted must be 'report' or 'rerun'"):
        BossWorker(double, worker_count=1, interrupted="maybe")  # type: ignore[arg-type]


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    """To open a pipe waits for somebody who writes to it: the pool did, and its scribe when all else was gone."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    program = (
        "import sys\nfrom bossworker import BossWorker, journal\n"
        "path = sys.argv[1]\n"
        "for use in (lambda: BossWorker(dict, worker_count=1, journal=path), lambda: journal.open(path)):\n"
        "    try: use()\n    except ValueError as error: print(error)"
    )
    for argv in (["-c", program, str(path)], ["-m", "bossworker", "run", "--journal", str(path), "echo", ":::", "a"]):
        done = subprocess.run([sys.executable, *argv], capture_output=True, text=True, timeout=60, check=False)
        assert (done.stdout + done.stderr).count("regular file") == (2 if argv[0] == "-c" else 1)
    assert os.listdir(tmp_path) == ["pipe"]


def test_a_lock_that_leads_elsewhere_is_not_written_to(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("not to be lost")
    os.symlink(precious, tmp_path / "jobs.db-lock")
    for use in (
        lambda: BossWorker(double, worker_count=1, journal=tmp_path / "jobs.db"),
        lambda: journals.open(tmp_path / "jobs.db"),
    ):
        with pytest.raises(JournalError, match=r"cannot be locked|there is no journal"):
            use()
    assert precious.read_text() == "not to be lost"


def test_an_empty_file_becomes_a_journal(tmp_path: Path) -> None:
    """Whoever makes one may be killed before it is anything."""
    path = tmp_path / "jobs.db"
    path.touch()
    made(path)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, where that may be mounted."""
    place = tmp_path / "disk"
    place.mkdir()
    options = "size=16m,mode=700"
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"mount is not permitted: {mounted.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def fill(disk: Path) -> Path:
    ballast = disk / "ballast"
    with open(ballast, "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return ballast


def test_on_a_full_disk_calls_are_refused_and_work_goes_on(disk: Path, caplog: pytest.LogCaptureFixture) -> None:
    with BossWorker(double, worker_count=1, journal=disk / "jobs.db") as pool:
        pool.pause()
        pool.add_work(*[{"n": n, "size": 2000} for n in range(300)])
        ballast = fill(disk)
        with pytest.raises(JournalError, match=r"did not take the jobs: .*full"):
            deque(
                pool.add_work(*[{"n": 0, "more": "x" * 1000}] * 50) for _ in range(100)
            )  # there may be some room left
        pending = pool.pending()
        pool.resume()
        wait_for(lambda: any("waits for room" in text for text in caplog.messages) or pool.get_result_nb())
        ballast.unlink()
        pool.add_work({"n": 1000})
        results = list(pool.results())
        assert results[-1] == {"twice": 2000}
        assert pool.pending() == 0
    counts = journals.open(disk / "jobs.db").counts()
    assert counts["done"] == pending + 1
    assert sum(counts.values()) == pending + 1


def test_a_full_disk_keeps_no_answer_back(disk: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Only results wait for room, and whoever asks for something else is answered."""
    gate = tmp_path / "gate"

    def wait_at_gate(job: dict[str, Any]) -> dict[str, Any]:
        while not gate.exists():
            time.sleep(0.005)
        return {"data": bytes(100_000)}

    with BossWorker(wait_at_gate, worker_count=1, journal=disk / "jobs.db") as pool:
        pool.add_work(*[{"n": n} for n in range(5)])
        ballast = fill(disk)
        gate.touch()
        wait_for(lambda: any("waits for room" in text for text in caplog.messages) or pool.stats() is None)
        pool.pause()
        assert pool.stats().paused
        assert pool.get_result_nb() is None
        pool.resume()
        ballast.unlink()
        assert len(list(pool.results())) == 5


def test_where_there_is_no_room_at_all(disk: Path) -> None:
    fill(disk)
    with pytest.raises(JournalError, match=r"full|No space left"):
        BossWorker(double, worker_count=1, journal=disk / "jobs.db")


def test_large_jobs_and_results(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    pool = BossWorker(lambda job: {"data": job["data"] * 2}, worker_count=1, journal=path)
    pool.pause()
    pool.add_work({"data": b"x" * 3_000_000}, {"data": b"y"})
    pool.shut_down(force=True)
    with BossWorker(lambda job: {"data": job["data"] * 2}, worker_count=1, journal=path) as again:
        results = list(again.results())
    assert [len(result["data"]) for result in results] == [6_000_000, 2]
    told = journals.open(path).result(1)
    assert told is not None
    assert told["data"] == b"x" * 6_000_000
    assert told.job == {"data": b"x" * 3_000_000}


def test_what_is_too_large_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bossworker.pool.caller.journal_outbox.MOST_BYTES", 1_000_000)
    with BossWorker(double, worker_count=1, journal=tmp_path / "jobs.db") as pool:
        for jobs in ([{}, {"data": b"x" * 2_000_000}], [{"data": b"x" * 2_000_000}]):
            with pytest.raises(JournalError, match=r"has 20\d+ bytes, and a journal keeps at most 1000000"):
                pool.add_work(*jobs)
        assert pool.pending() == 0
        pool.add_work({"n": 1})
        assert list(pool.results()) == [{"twice": 2}]
    assert database.MOST_BYTES > 1_000_000


def test_file_systems_are_known_by_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind, mounted = mounts.file_system_of(str(tmp_path))
    assert kind
    assert tmp_path.is_relative_to(mounted)
    assert [mounts.is_shared(one) for one in ("nfs4", "fuse.sshfs", "ext4", "tmpfs")] == [True, True, False, False]
    monkeypatch.setattr("bossworker.pool.caller.journaled.file_system_of", lambda path: ("nfs4", "/home"))
    with pytest.warns(RuntimeWarning, match=r"on nfs4 \(mounted at /home\).*put it on a local disk"):  # noqa: PT031
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside the tests' own threads
        BossWorker(double, worker_count=1, journal=tmp_path / "jobs.db").shut_down()


def test_nothing_of_it_is_loaded_without_a_journal() -> None:
    program = "import sys, bossworker; bossworker.BossWorker(len, worker_count=1).shut_down(); print(*sys.modules)"
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert not [name for name in told if "journal" in name or "sqlite" in name]
