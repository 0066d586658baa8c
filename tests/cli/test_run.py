"""`run`: what it prints, what it leaves, and how it ends."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bossworker import jobs
from bossworker.system import processes
from tests.cli.conftest import PATIENT, Cli, start_program
from tests.conftest import wait_for


def inodes(folder: Path) -> int:
    return sum(len(folders) + len(files) for _, folders, files in os.walk(folder)) + folder.exists()


def test_a_success_leaves_nothing(cli: Cli, root: Path, here: Path) -> None:
    said = cli("run", "-j2", "true", ":::", *map(str, range(200)))
    assert (said.status, said.out, said.err) == (0, "", "")
    assert inodes(root) == 0
    assert not [name for name in os.listdir(os.environ["TMPDIR"]) if "bossworker-run" in name]


def test_a_failure_keeps_a_job_directory_of_few_files(cli: Cli, root: Path) -> None:
    said = cli("run", "-j2", "-c", "echo out {}; echo err {} >&2; test {} -ge 5", ":::", *map(str, range(40)))
    assert said.status == 5
    assert inodes(root) <= 10 + 3 * 5
    for jobid in jobs.listing():
        info = jobs.info(jobid)
        assert info is not None
        assert (info.exit_code, jobs.status(jobid)) == (1, "terminated by error")
        assert jobs.stdout(jobid) == f"out {int(info.env['PARALLEL_SEQ'] or 0) - 1}\n"
        assert list(jobs.follow(jobid, stream="stderr")) == [f"err {int(info.env['PARALLEL_SEQ'] or 0) - 1}\n"]


def test_long_output_of_a_failure_is_kept_as_well(cli: Cli, root: Path) -> None:
    said = cli("run", "-c", "seq {}; seq {} >&2; false", ":::", "100000")
    (jobid,) = jobs.listing()
    whole = "".join(f"{number}\n" for number in range(1, 100001))
    assert said.out == jobs.stdout(jobid) == jobs.stderr(jobid) == whole
    assert jobs.stdout(jobid, offset=-7) == "100000\n"
    assert jobs.clean(jobid) > 0


def test_the_summary(cli: Cli, root: Path) -> None:
    said = cli("run", "-j1", "-c", "echo why {} >&2; exit {}", ":::", "0", "3", "4")
    assert said.status == 2
    failed = [line for line in said.err.splitlines() if line.startswith("failed")]
    assert [line.rpartition(",")[0] for line in failed] == [
        "failed 2: echo why 3 >&2; exit 3: exit code 3",
        "failed 3: echo why 4 >&2; exit 4: exit code 4",
    ]
    assert "\n    why 3\n" in said.err
    assert "\x1b" not in said.err
    rerun = shlex.split(said.err.splitlines()[-1].removeprefix("rerun them: bossworker "))
    assert rerun[:2] == ["run", "--retry-failed"]
    assert cli(*rerun).status == 2


def test_the_summary_names_the_joblog_of_the_user(cli: Cli) -> None:
    said = cli("run", "-j1", "--joblog", "log", "-c", "exit {}", ":::", "0", "3")
    assert said.err.splitlines()[-1] == (
        "rerun them: bossworker run --resume-failed -j1 --joblog log -c 'exit {}' ::: 0 3"
    )


def test_a_program_that_is_not_there(cli: Cli) -> None:
    said = cli("run", "nosuchprogram", ":::", "a")
    assert said.status == 1
    assert "cannot run 'nosuchprogram': No such file or directory" in said.err
    assert cli("run", "echo {}; true", ":::", "a").status == 255  # it is one word: a shell's


def test_a_program_whose_name_has_a_space(cli: Cli, here: Path) -> None:
    program = here / "my program"
    program.write_text("#!/bin/sh\necho $#\n")
    program.chmod(0o755)
    assert cli("run", program, ":::", "a b").out == "1\n"


def test_arguments_are_never_a_shells(cli: Cli, here: Path) -> None:
    evil = ["; touch owned", "$(touch owned)", "`touch owned`", "a\nb", "'\"", "-n", "{}", "*"]
    assert cli("run", "-k", "printf", "%s|", ":::", *evil).out == "".join(f"{one}|" for one in evil)
    assert cli("run", "-k", "-c", "printf '%s|' {}", ":::", *evil).out == "".join(f"{one}|" for one in evil)
    assert not (here / "owned").exists()


def test_output_is_never_torn(cli: Cli) -> None:
    line = "x" * 200
    script = f"for i in 1 2 3 4 5; do echo {{}} {line}; sleep 0.01; done"
    for how in ((), ("--line-buffer",), ("--tag",)):
        lines = cli("run", "-j4", *how, "-c", script, ":::", *"abcdefgh").out.splitlines()
        bare = [one.rpartition("\t")[2] for one in lines]
        assert sorted(bare) == sorted(f"{letter} {line}" for letter in "abcdefgh" for _ in range(5))
        if not how:  # nor are those of one job apart
            assert [one[0] for one in lines[::5]] == [one[0] for one in lines[4::5]]


def test_what_a_command_leaves_running_writes_into_no_other_output(cli: Cli, here: Path) -> None:
    script = "if [ {} = 1 ]; then (while :; do echo late; sleep 0.002; done) & fi; sleep 0.03; echo {}"
    said = cli("run", "-j1", "-k", "-c", script, ":::", *"12345")
    assert [line for line in said.out.splitlines() if line != "late"] == list("12345")
    assert "late" not in said.out.partition("2\n")[2]


def test_a_dry_run_in_json(cli: Cli) -> None:
    said = cli("run", "--dry-run", "--json", "echo", "{2}", "{1}", ":::", "a", "b c", ":::", "d")
    assert [json.loads(line) for line in said.out.splitlines()] == [
        {"seq": 1, "args": ["a", "d"], "command": "echo d a"},
        {"seq": 2, "args": ["b c", "d"], "command": "echo d 'b c'"},
    ]
    assert cli("run", "--dry-run", "--json", "-c", "echo \udcff{}", ":::", "1").out.count("command") == 1


def test_json(cli: Cli) -> None:
    said = cli("run", "--quiet", "-k", "--json", "-c", "echo {}; exit {}", ":::", "0", "3")
    first, second = map(json.loads, said.out.splitlines())
    assert (first["seq"], first["args"], first["ok"], first["stdout"]) == (1, ["0"], True, "0\n")
    assert (first["exit_code"], first["error"], first["job"]) == (0, None, None)
    assert (second["exit_code"], second["error"], second["reason"]) == (3, "reported", "exit code 3")
    assert jobs.stdout(second["job"]) == "3\n"


def test_slots_are_taken_by_one_at_a_time(cli: Cli) -> None:
    said = cli("run", "-j3", "-c", "echo {%} $PARALLEL_JOBSLOT; sleep 0.02", ":::", *map(str, range(12)))
    assert {line.split()[0] for line in said.out.splitlines()} <= {"1", "2", "3"}
    assert all(len(set(line.split())) == 1 for line in said.out.splitlines())


def test_jobs_from_a_slow_pipe_begin_at_once(root: Path, here: Path) -> None:
    reading, writing = os.pipe()
    program = start_program("run", "-c", "touch {}", stdin=reading)
    os.close(reading)
    try:
        for name in ("first", "second"):
            os.write(writing, f"{name}\n".encode())
            wait_for((here / name).exists)
    finally:
        os.close(writing)
        assert program.communicate()[1] == ""
    assert program.returncode == 0


def test_an_endless_pipe_is_not_read_ahead(root: Path, here: Path) -> None:
    with subprocess.Popen(["yes"], stdout=subprocess.PIPE) as endless:
        assert endless.stdout is not None
        program = start_program("run", "--halt", "now,done=100", "--quiet", "true", stdin=endless.stdout)
        endless.stdout.close()
        program.communicate()
        assert program.returncode == 0
    assert endless.returncode == -signal.SIGPIPE


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_once_it_tidies_up(root: Path, here: Path, number: int, status: int) -> None:
    script = "trap 'echo tidied >> {}.tidied; exit 1' TERM; touch {}.begun; while :; do sleep 0.01; done"
    program = start_program("run", "-j2", "--joblog", "log", "-c", script, ":::", "a", "b", "c", program=PATIENT)
    wait_for(lambda: (here / "a.begun").exists() and (here / "b.begun").exists())
    program.send_signal(number)
    _, err = program.communicate(timeout=30)
    assert program.returncode == status
    assert {path.name for path in here.glob("*.tidied")} == {"a.tidied", "b.tidied"}
    assert not (here / "c.begun").exists()
    assert f"stopped by {signal.Signals(number).name}: 3 of its jobs were interrupted or not begun" in err
    assert len((here / "log").read_text().splitlines()) == 1  # so that --resume runs them again


@pytest.mark.parametrize(("known", "told"), [(True, "300"), (False, "1")])
def test_what_was_not_begun_is_counted(root: Path, here: Path, known: bool, told: str) -> None:
    """Also what was not looked at yet; of a pipe, nobody knows how much that is."""
    given = [":::", *map(str, range(1, 301))] if known else []
    program = start_program("run", "--delay", "600", "-c", "touch {}.begun; sleep 600", *given, stdin=subprocess.PIPE)
    assert program.stdin is not None
    program.stdin.write("1\n")
    program.stdin.flush()
    wait_for((here / "1.begun").exists)
    program.send_signal(signal.SIGTERM)
    others = "" if known else ", and those that were not read yet,"
    assert program.wait(30) == 143
    assert program.communicate()[1] == (
        f"stopped by SIGTERM: {told} of its jobs{others} were interrupted or not begun\n"
    )


def test_interrupted_twice_it_ends_at_once(root: Path, here: Path) -> None:
    script = "trap '' TERM INT; touch {}.begun; while :; do sleep 0.01; done"
    program = start_program("run", "-j2", "-c", script, ":::", "a", "b")
    wait_for(lambda: (here / "a.begun").exists() and (here / "b.begun").exists())
    program.send_signal(signal.SIGINT)
    for _ in range(3):
        time.sleep(0.1)
        with suppress(ProcessLookupError):
            program.send_signal(signal.SIGINT)
    _, err = program.communicate(timeout=30)
    assert program.returncode == 130
    assert "Traceback" not in err


@pytest.mark.parametrize("how", ["--group", "--line-buffer"])
def test_whoever_reads_may_stop_reading(root: Path, here: Path, how: str) -> None:
    reading, writing = os.pipe()
    program = start_program("run", "-j2", how, "echo", ":::", *map(str, range(500)), stdout=writing)
    os.close(writing)
    os.read(reading, 2)
    os.close(reading)
    _, err = program.communicate(timeout=60)
    assert (program.returncode, err) == (141, "")


def test_halting_now_ends_what_runs(cli: Cli, here: Path) -> None:
    began = time.monotonic()
    said = cli("run", "-j2", "--halt", "now,fail=1", "-c", "sleep {}; exit 3", ":::", "0.1", "600", "0")
    assert said.status == 3
    assert time.monotonic() - began < 60
    assert "halted by --halt now,fail=1" in said.err


def test_a_timeout_in_per_cent_of_the_median(cli: Cli, here: Path) -> None:
    said = cli("run", "-j2", "--joblog", "log", "--timeout", "1000%", "sleep", ":::", *["0.05"] * 6, "600")
    assert said.status == 1
    assert (here / "log").read_text().splitlines()[-1].split("\t")[6:] == ["-1", "15", "sleep 600"]
    assert "sleep 600: timed out" in said.err


def test_a_timeout_in_per_cent_spares_short_jobs(cli: Cli) -> None:
    assert cli("run", "-j2", "--timeout", "200%", "sleep", ":::", *["0.01"] * 6, "0.4").status == 0


def test_memory_and_nice_and_env_and_wd(cli: Cli, here: Path) -> None:
    said = cli("run", "--memory", "64M", sys.executable, "-c", "b = b'x' * (300 << 20); import time; time.sleep({})",
               ":::", "600")  # fmt: skip
    assert (said.status, "memory limit exceeded" in said.err) == (1, True)
    said = cli("run", "--env", "A=b c", "--wd", "new/{}", "-c", 'echo "$A"; pwd; echo {}', ":::", "x")
    assert said.out == f"b c\n{here}/new/x\nx\n"


def test_too_little_memory_starts_one_at_a_time(cli: Cli, here: Path) -> None:
    script = "mkdir lock || exit 1; sleep 0.02; rmdir lock; : {}"
    assert cli("run", "-j4", "--memfree", "900T", "-c", script, ":::", *"abcd").status == 0


def test_the_youngest_goes_back_when_memory_is_short(cli: Cli, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bossworker.cli import throttle

    def free() -> int:
        begun = here / "begun"
        return 100 if begun.exists() and len(begun.read_text().split()) == 2 else 1000

    monkeypatch.setattr(throttle, "free_memory", free)
    said = cli("run", "-j2", "--memfree", "500", "-c", "echo {} >> begun; sleep 0.3; echo {} {%}", ":::", "a", "b")
    assert sorted(said.out.split()) == ["1", "2", "a", "b"]
    assert said.status == 0
    assert len((here / "begun").read_text().split()) == 3


def test_a_function(cli: Cli, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "work_of_mine.py").write_text(
        "def double(job):\n    print('noise')\n    return {'n': 2 * int(job.get('n') or job['line'])}\n"
    )
    monkeypatch.setattr(sys, "path", list(sys.path))
    said = cli("run", "-k", "-f", "work_of_mine:double", stdin='{"n": 4}\n5\nx\n')
    lines = list(map(json.loads, said.out.splitlines()))
    assert lines[:2] == [{"n": 8}, {"n": 10}]
    assert lines[2]["ERROR"].startswith("ValueError: invalid literal")
    assert lines[2]["job"] == {"line": "x"}
    assert said.status == 1
    assert "failed 3: x: ValueError" in said.err
    (told,) = map(json.loads, cli("run", "--json", "-f", "work_of_mine:double", ":::", "3").out.splitlines())
    assert (told["ok"], told["result"], told["args"]) == (True, {"n": 6}, ["3"])
    assert cli("run", "-f", "work_of_mine:nothing", ":::", "1").status == 255
    sys.modules.pop("work_of_mine")


def test_junit(cli: Cli, here: Path) -> None:
    cli("run", "-j1", "--junit", "out.xml", "-c", "echo '<&>\x01'; exit {}", ":::", "0", "3")
    suite = ElementTree.parse(here / "out.xml").getroot()
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")
    good, bad = suite.findall("testcase")
    assert good.get("name") == "echo '<&>?'; exit 0"
    assert good.findtext("system-out") == "<&>?\n"
    failure = bad.find("failure")
    assert failure is not None
    assert failure.get("message") == "exit code 3"


def test_in_a_github_workflow(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    said = cli("run", "-j1", "-c", "echo {}; exit {}", ":::", "0", "3")
    assert said.out.splitlines() == [
        "::group::echo 0; exit 0",
        "0",
        "::endgroup::",
        "echo 3; exit 3",
        "3",
        "::error title=echo 3; exit 3::echo 3; exit 3: exit code 3",
    ]


def test_a_table_on_stdout_is_not_folded(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    said = cli("run", "--results", "-.csv", "-j1", "-c", "exit {}", ":::", "0", "3")
    assert [line.partition(",")[0] for line in said.out.splitlines()] == ["Seq", "1", "2"]


def test_output_that_ends_amid_a_line_hides_nothing_from_a_github_workflow(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    said = cli("run", "-j1", "-c", "printf out{}; printf err >&2; exit {}", ":::", "0", "3")
    assert "out0\n::endgroup::\n" in said.out
    assert "out3\n::error title=printf out3" in said.out
    assert said.err.startswith("err\nerr\n")


def test_the_first_command_starts_soon(root: Path, here: Path) -> None:
    """By CPU time, which other programs do not lengthen much; and nothing is loaded that it does not need."""
    before = os.times()
    program = start_program("run", "true", ":::", "1")
    program.communicate()
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    assert used < 1.0
    told = start_program("run", "true", ":::", "1", env={**os.environ, "PYTHONPROFILEIMPORTTIME": "1"}).communicate()[1]
    loaded = {line.rpartition("|")[2].strip() for line in told.splitlines()}
    heavy = {
        "asyncio",
        "cloudpickle",
        "dataclasses",
        "inspect",
        "json",
        "logging",
        "pathlib",
        "shutil",
        "socket",
        "zmq",
    }
    assert not loaded & heavy
    assert "bossworker.commands.hosting.host" in loaded


def test_keeping_the_order_of_much_output(cli: Cli, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bossworker.cli import printers

    monkeypatch.setattr(printers, "_MOST_HELD", 1000)
    said = cli("run", "-j3", "-k", "-c", "test {} = 0 && sleep 0.2; seq {}", ":::", "0", "500", "100000", "3", "400")
    expected = [str(n) for most in (0, 500, 100000, 3, 400) for n in range(1, most + 1)]
    assert said.out.split() == expected
    assert not [name for name in os.listdir(os.environ["TMPDIR"]) if "bossworker-run" in name]


def test_output_that_waits_for_its_turn_has_a_bound(cli: Cli, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bossworker.cli import printers
    from bossworker.cli.command_crew import CommandCrew

    monkeypatch.setattr(printers, "MOST_WAITING", 5)
    script = "if [ {} = 0 ]; then sleep 0.7; ls | wc -l; else touch {}; echo {}; fi"
    said = cli("run", "-j2", "-k", "-c", script, ":::", *map(str, range(150)))
    first, *others = said.out.split()
    assert int(first) <= 5 + 2 * CommandCrew.ahead + 4  # those that wait, and those that were with the crew
    assert others == [str(number) for number in range(1, 150)]


def test_what_failed_first_is_tried_again_first(cli: Cli, here: Path) -> None:
    script = "echo {} >> begun; exit $(({} % 2))"
    assert cli("run", "-j1", "--retries", "3", "-c", script, ":::", *map(str, range(60))).status == 30
    begun = (here / "begun").read_text().split()
    tried_again = [one for at, one in enumerate(begun) if one in begun[:at]]
    may_be_tried_again = [one for at, one in enumerate(begun) if int(one) % 2 and begun[:at].count(one) < 2]
    assert tried_again == may_be_tried_again


def test_what_all_wait_for_is_tried_again(cli: Cli, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bossworker.cli import printers

    monkeypatch.setattr(printers, "MOST_WAITING", 3)
    script = "if [ {} = 0 ] && mkdir once; then sleep 0.5; exit 1; fi; echo {}"
    said = cli("run", "-j2", "-k", "--retries", "2", "-c", script, ":::", *map(str, range(60)))
    assert said.out.split() == [str(number) for number in range(60)]
    assert said.status == 0


def test_nothing_runs_after_its_caller_is_killed(root: Path, here: Path) -> None:
    program = start_program("run", "-j2", "-c", "echo $$ > {}.pid; exec sleep 600", ":::", "a", "b")
    pids = wait_for(lambda: [int(path.read_text() or 0) for path in here.glob("*.pid")] if len(
        list(here.glob("*.pid"))) == 2 else None)  # fmt: skip
    program.kill()
    program.communicate()
    wait_for(lambda: not any(pid in processes.children(os.getpid()) for pid in pids) and not any(map(_runs, pids)))


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--colsep", "("], "'(': it is a regular expression: missing )"),
        (["-d", "\\x"], "it is a text, in which"),
        (["-d", "\\u2603"], "it is a text, in which"),
        (["-d", ""], "'': it is empty"),
        (["--joblog", ""], "'': it is empty"),
    ],
)
def test_options_that_make_no_sense(root: Path, here: Path, options: list[str], told: str) -> None:
    """An empty name of a file is a variable of the shell that is not set: what is asked for would not happen."""
    program = start_program("run", *options, "touch", ":::", "ran")
    _, err = program.communicate(timeout=60)
    assert program.returncode == 255
    assert told in err
    assert "Traceback" not in err
    assert not (here / "ran").exists()


def test_the_summary_sends_nothing_to_a_terminal_that_it_might_obey(cli: Cli) -> None:
    said = cli("run", "-c", ": {}; exit 1", ":::", "\x1b[2J")
    assert "failed 1: : '?[2J'; exit 1: exit code 1" in said.err
    assert "\x1b" not in said.err.partition("rerun them")[0]


def test_a_long_command_line_is_not_told_once_more(cli: Cli) -> None:
    many = [str(number) for number in range(2000)]
    said = cli("run", "-j1", "--joblog", "log", "--halt", "now,fail=1", "-c", "exit {}", ":::", "1", *many)
    assert said.err.splitlines()[-2] == "rerun them: bossworker run --retry-failed --joblog log"
    said = cli("run", "-j1", "--journal", "j", "--halt", "now,fail=1", "-c", "exit {}", ":::", "1", *many)
    assert said.err.splitlines()[-2] == "rerun them: the same, with --resume-failed"
