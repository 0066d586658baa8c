"""The service that may be killed: killed again and again, it deals with every file once."""

from __future__ import annotations

import hashlib
import json
import random
import signal
import subprocess
import time
from pathlib import Path

from bossworker import journal as journals
from tests.examples.runner import PROJECT, SECONDS, check_refused, command, environment, run

SERVICE = PROJECT / "examples" / "durable_service.py"


def test_every_file_is_done_once_however_often_it_is_killed(tmp_path: Path) -> None:
    folder, database, report = tmp_path / "files", tmp_path / "service.db", tmp_path / "report.json"
    folder.mkdir()
    contents = {str(folder / f"file {n}"): f"content {n}\n".encode() * n for n in range(40)}
    for path, content in contents.items():
        Path(path).write_bytes(content)
    chance = random.Random(3)
    arguments = (folder, database, "--workers", 2, "--seconds", 0.02, "--report", report)
    for _ in range(4):
        with subprocess.Popen(
            command(SERVICE, *arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
        ) as service:
            assert service.stdout is not None
            for _ in range(chance.randrange(1, 8)):
                service.stdout.readline()
            service.send_signal(signal.SIGKILL)
    ended = run(SERVICE, *arguments)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == "" or ended.stderr.startswith("recovered ")
    assert json.loads(report.read_text()) == {
        path: hashlib.sha256(content).hexdigest() for path, content in contents.items()
    }
    kept = journals.open(database)
    assert kept.counts() == {"queued": 0, "running": 0, "done": 40, "failed": 0, "cancelled": 0, "interrupted": 0}
    assert {kept.job(job.id)["path"] for job in kept.jobs()} == contents.keys()
    start = time.monotonic()
    again = run(SERVICE, *arguments)
    assert again.stdout.count("(before)") == 40
    assert (again.returncode, again.stderr) == (0, "")
    assert time.monotonic() - start < SECONDS


def test_arguments_that_make_no_sense(tmp_path: Path) -> None:
    check_refused(run(SERVICE, tmp_path / "missing", tmp_path / "db"), "no such folder")
    notes = tmp_path / "notes.txt"
    notes.write_text("not a journal\n")
    ended = run(SERVICE, tmp_path, notes)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "it is no SQLite database" in ended.stderr
