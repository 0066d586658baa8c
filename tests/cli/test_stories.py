"""What people type, from beginning to end."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bossworker import jobs
from tests.cli.conftest import Cli, start_program
from tests.conftest import wait_for

pytestmark = pytest.mark.usefixtures("all_leave")


def test_forty_thousand_files_of_which_some_are_bad(cli: Cli, here: Path, root: Path) -> None:
    """A bioinformatician: failures at hand, with the command that runs them again, and no flood of inodes."""
    files = [f"sample{number}.bam" for number in range(60)]
    for name in files:
        (here / name).write_text("bad" if name.startswith("sample1.") else "good")
    (here / "bams.txt").write_text("".join(f"{name}\n" for name in files))
    typed = ["run", "-j", "4", "--joblog", "log", "--timeout", "4000%"]
    command = [
        "-c",
        "grep -q good {} || { echo {} is truncated >&2; exit 3; }; wc -c < {} > {.}.txt",
        "::::",
        "bams.txt",
    ]
    said = cli(*typed, *command)
    assert said.status == 1
    assert "failed 2: grep -q good sample1.bam" in said.err
    assert "exit code 3" in said.err
    assert "    sample1.bam is truncated" in said.err
    assert said.err.splitlines()[-1].startswith("rerun them: bossworker run --resume-failed -j 4 --joblog log")
    assert len(list(here.glob("*.txt"))) == 60
    assert len(jobs.listing()) == 1
    (here / "sample1.bam").write_text("good")
    again = cli("run", "--resume-failed", *typed[1:], *command)
    assert (again.status, again.err) == (0, "skipping 59 done; 1 to do\n")


def test_the_night_after(cli: Cli, here: Path) -> None:
    """The node went down, the list has grown in the middle: what is done is skipped by what it is, not by its line."""
    names = [f"f{number}" for number in range(8)]
    (here / "list").write_text("".join(f"{name}\n" for name in names))
    script = "touch {}.begun; case {} in f5|f6) test -e go || exec sleep 600;; esac"
    program = start_program("run", "-j", "2", "--joblog", "log", "-c", script, "::::", "list")
    wait_for(lambda: (here / "f5.begun").exists() and (here / "f6.begun").exists())
    wait_for(lambda: len((here / "log").read_text().splitlines()) >= 6)
    wait_for(lambda: all(f"touch {name}.begun" in (here / "log.running").read_text() for name in ("f5", "f6")))
    program.send_signal(signal.SIGKILL)
    program.communicate()
    (here / "go").touch()
    (here / "list").write_text("".join(f"{name}\n" for name in [*names[:3], "new", *names[3:]]))
    said = cli("run", "-j", "2", "--resume", "--joblog", "log", "-c", script, "::::", "list")
    assert said.status == 0
    assert said.err == "skipping 5 done; 4 to do, 2 of them were interrupted\n"
    assert (here / "new.begun").exists()
    assert sorted(path.name for path in here.glob("log*")) == ["log"]


def test_checks_in_ci(cli: Cli, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A CI engineer: one line of checks a command; only what failed is open, and the report is there."""
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    (here / "checks.txt").write_text("echo lint ok\necho types | tr a-z A-Z\necho broken >&2; exit 4\n")
    said = cli("run", "-j1", "--halt", "now,fail=1", "--junit", "out.xml", "-a", "checks.txt")
    assert said.status == 4
    assert "::group::echo lint ok\nlint ok\n::endgroup::\n" in said.out
    assert "::group::echo types | tr a-z A-Z\nTYPES\n::endgroup::\n" in said.out
    assert said.out.splitlines()[-1].startswith("::error title=echo broken")
    assert "\x1b" not in said.out + said.err
    suite = ElementTree.parse(here / "out.xml").getroot()
    assert (suite.get("tests"), suite.get("failures")) == ("3", "1")


def test_an_agent_comes_back(root: Path, here: Path) -> None:
    """Each call is a process of its own: the answer is true whoever asks, and the cursor gives only what is new."""
    script = f"""
import os, time
print('x' * 4095, flush=True)
while not os.path.exists('{here}/go'):
    time.sleep(0.01)
print('end')
raise SystemExit(3)
"""

    def call(*argv: str) -> tuple[int, dict[str, object]]:
        program = start_program(*argv)
        out, _ = program.communicate(timeout=120)
        return program.returncode, json.loads(out or "{}")

    status, started = call("start", "--json", "--", sys.executable, "-c", script)
    assert status == 0
    jobid = str(started["id"])
    status, told = call("wait", jobid, "--timeout", "0.2", "--json")
    assert (status, told["status"]) == (124, "running")
    wait_for(lambda: len(jobs.stdout(jobid)) == 4096)
    _, new = call("log", jobid, "--since", "4096", "--json")
    assert (new["text"], new["next"]) == ("", 4096)
    (here / "go").touch()
    status, told = call("wait", jobid, "--timeout", "60", "--json")
    assert (status, told["exit_code"], told["status"]) == (3, 3, "terminated by error")
    _, new = call("log", jobid, "--since", "4096", "--json")
    assert (new["text"], new["next"], new["exit_code"]) == ("end\n", 4100, 3)


def test_a_backup_of_the_night(cli: Cli, here: Path) -> None:
    """A sysadmin: started in one terminal, asked for in another."""
    program = start_program("start", "--name", "backup", "--", "sh", "-c", "echo saved; exit 0")
    out, _ = program.communicate(timeout=60)
    assert cli("wait", "backup").status == 0
    assert out.strip() in cli("show", "backup").out
    assert "completed" in cli("ps", "--name", "backup").out
    assert cli("log", "last", "-f").out == "saved\n"
    assert os.listdir(os.environ["BOSSWORKER_ROOT"]) == [out.strip()]
