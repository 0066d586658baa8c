"""Commands as work: what comes back, and that nothing of a command is left, however it ends."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bossworker import CANCELLED, TIMED_OUT, BossWorker, CommandHandler, Result, jobs, run_command
from tests.commands.disk import fill
from tests.commands.supervised import escaping
from tests.conftest import alive, wait_for

Pools = Callable[..., BossWorker]

NESTED: list[object] = []
NESTED.append(NESTED)


@pytest.fixture(autouse=True)
def own_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "state" / "jobs"
    monkeypatch.setenv("BOSSWORKER_ROOT", str(root))
    return root


@pytest.fixture
def run(pool: Pools) -> Callable[..., Result]:
    """Runs one job in a pool."""
    commands = pool(run_command, worker_count=1)

    def one(cmd: object, **job: object) -> Result:
        commands.add_work({"cmd": cmd, **job})
        result = commands.get_result(timeout=20)
        assert result is not None
        return result

    return one


Run = Callable[..., Result]


# -- what comes back ------------------------------------------------------------------------------------


def test_a_command_that_goes_well(run: Run, own_root: Path) -> None:
    result = run(["sh", "-c", "echo out; echo err >&2; echo made > file"], meta={"n": [1, None]}, keep="all")
    assert result.ok
    assert (result["status"], result["exit_code"], result["signal"]) == ("completed", 0, None)
    assert (result["stdout"], result["stderr"]) == ("out\n", "err\n")
    assert (result["stdout_truncated"], result["stderr_truncated"]) == (False, False)
    assert result["meta"] == {"n": [1, None]}
    assert 0 < result["elapsed"] < 20
    assert result["user_time"] >= 0
    assert result["system_time"] >= 0
    assert result["max_rss"] > 100_000
    jobid = result["jobid"]
    assert jobs.listing() == [jobid]
    assert jobs.status(jobid) == "completed"
    assert jobs.result(jobid, "file") == "made\n"
    assert jobs.info(jobid).meta == {"n": [1, None]}  # type: ignore[union-attr]
    assert oct(own_root.stat().st_mode)[-3:] == "700"


@pytest.mark.parametrize(
    ("script", "error", "kind"),
    [
        ("exit 5", "exit code 5", "reported"),
        ("kill -9 $$", "terminated by signal 9 (SIGKILL)", "crash"),
        ("kill -40 $$", "terminated by signal 40", "crash"),
    ],
)
def test_a_command_that_goes_badly(run: Run, script: str, error: str, kind: str) -> None:
    result = run(["sh", "-c", f"echo said; {script}"])
    assert (result.error, result.error_kind, result["status"]) == (error, kind, "terminated by error")
    assert result["stdout"] == "said\n"
    assert not any(line.startswith("completed") for line in jobs.details(result["jobid"]))


@pytest.mark.parametrize(("program", "code"), [("no-such-program", 127), ("/etc/passwd", 126), ("/usr", 126)])
def test_a_program_that_cannot_run(run: Run, program: str, code: int) -> None:
    result = run([program])
    assert result.error is not None
    assert result.error.startswith(f"exit code {code}: cannot run {program!r}: ")
    assert (result["exit_code"], result["status"], result.error_kind) == (code, "terminated by error", "bad_job")
    assert result["stderr"].startswith("cannot run ")
    assert jobs.details(result["jobid"])[1] == f"exit code {code}"


def test_only_the_end_of_much_output_is_in_the_result(pool: Pools) -> None:
    commands = pool(CommandHandler(inline_output=10, keep="all"), worker_count=1)
    commands.add_work({"cmd": ["sh", "-c", "echo 123456789abc; echo 123456789 >&2"]})
    result = commands.get_result(timeout=20)
    assert result is not None
    assert (result["stdout"], result["stdout_truncated"]) == ("456789abc\n", True)
    assert (result["stderr"], result["stderr_truncated"]) == ("123456789\n", False)
    assert jobs.stdout(result["jobid"]) == "123456789abc\n"


def test_what_is_no_utf8_is_replaced(run: Run) -> None:
    assert run(["printf", r"a\377b"])["stdout"] == "a�b"


@pytest.mark.parametrize(("keep", "kept"), [("all", 2), ("failed", 1), ("none", 0)])
def test_which_directories_stay(pool: Pools, tmp_path: Path, keep: str, kept: int) -> None:
    commands = pool(CommandHandler(root=tmp_path / "own", keep=keep))
    commands.add_work({"cmd": ["true"]}, {"cmd": ["false"]})
    results = list(commands.results())
    assert len({result["jobid"] for result in results}) == 2
    assert len(os.listdir(tmp_path / "own")) == kept
    assert len(jobs.listing(tmp_path / "own")) == kept


# -- what goes in ---------------------------------------------------------------------------------------


def test_stdin_of_many_megabytes(run: Run) -> None:
    data = os.urandom(1 << 20) * 32
    assert run(["wc", "-c"], stdin=data)["stdout"].strip() == str(len(data))
    assert run(["true"], stdin=data).ok  # nobody reads it
    assert run(["head", "-c", "2"], stdin="häh")["stdout"] == "h�"


def test_stdin_from_a_file_or_nothing(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    assert run(["cat"], stdin=tmp_path / "file")["stdout"] == "content"
    assert run(["cat"])["stdout"] == ""


def test_environment_and_folder(run: Run, tmp_path: Path, own_root: Path) -> None:
    result = run(["sh", "-c", 'echo "$ADDED,${HOME-none}"; pwd'], env={"ADDED": "yes", "HOME": None}, cwd=tmp_path)
    assert result["stdout"] == f"yes,none\n{tmp_path}\n"
    result = run("pwd; echo $0", shell=True)
    assert result["stdout"] == f"{own_root}/{result['jobid']}/files\n/bin/sh\n"


def test_the_environment_is_ours_of_the_moment_byte_for_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environb, b"FROM_US", b"\xff=")
    monkeypatch.setenv("BOSSWORKER_JOB", "of an outer job")
    first = run_command({"cmd": ["env"], "keep": "all"})
    assert f"BOSSWORKER_JOB={first['jobid']}\n" in first["stdout"]
    assert "outer" not in first["stdout"]
    assert b"FROM_US=\xff=\n" in jobs.stdout(first["jobid"], text=False)
    monkeypatch.delenv("FROM_US")
    assert "FROM_US" not in run_command({"cmd": ["env"]})["stdout"]
    again = run_command({"cmd": ["env"], "env": {"FROM_US": "é", "BOSSWORKER_JOB": "mine"}})
    assert "FROM_US=é\n" in again["stdout"]
    assert f"BOSSWORKER_JOB={again['jobid']}\n" in again["stdout"]


def test_path_likes_are_arguments(run: Run, tmp_path: Path) -> None:
    assert run([Path("/bin/echo"), tmp_path])["stdout"] == f"{tmp_path}\n"


BAD_JOBS: list[tuple[dict[Any, Any], str]] = [
    ({}, "cmd is missing: a list of str"),
    ({"cmd": "date -u"}, "'date -u' is one str, which needs shell=True"),
    ({"cmd": []}, "cmd must name a program, and is empty"),
    ({"cmd": [""]}, "cmd[0] must name a program, and is empty"),
    ({"cmd": ["a", 1]}, "cmd[1] must be a str or path-like, not 1"),
    ({"cmd": ["a", b"b"]}, "cmd[1] must be a str or path-like, not b'b'"),
    ({"cmd": ["a\0b"]}, "cmd[0] must not hold a NUL character"),
    ({"cmd": 7}, "cmd must be a list of str or path-likes, not 7"),
    ({"cmd": ["a"], "shell": 1}, "shell must be True or False, not 1"),
    ({"cmd": ["a", "b"], "shell": True}, "cmd must be one str with shell=True"),
    ({"cmd": ["a"], "timout": 1}, "unknown key 'timout' (did you mean 'timeout'?); allowed are cmd, shell, stdin"),
    ({"cmd": ["a"], 7: 1}, "unknown key 7; allowed are"),
    ({"cmd": ["a"], "timeout": -1}, "timeout must be between 0 and"),
    ({"cmd": ["a"], "timeout": True}, "timeout must be a number of seconds, not True"),
    ({"cmd": ["a"], "timeout": "1"}, "timeout must be a number of seconds, not '1'"),
    ({"cmd": ["a"], "timeout": float("nan")}, "timeout must be between"),
    ({"cmd": ["a"], "cwd": "/no/such/folder"}, "cwd must be a folder that exists, not '/no/such/folder'"),
    ({"cmd": ["a"], "cwd": "/etc/passwd"}, "cwd must be a folder that exists"),
    ({"cmd": ["a"], "cwd": 7}, "cwd must be a str or path-like, not 7"),
    ({"cmd": ["a"], "env": ["A=1"]}, "env must be a dict of variables"),
    ({"cmd": ["a"], "env": {"A=B": "1"}}, "must not be empty or hold '=': 'A=B'"),
    ({"cmd": ["a"], "env": {"": "1"}}, "must not be empty"),
    ({"cmd": ["a"], "env": {"A": 1}}, "env['A'] must be a str or path-like, not 1"),
    ({"cmd": ["a"], "env": {"A": "\0"}}, "env['A'] must not hold a NUL"),
    ({"cmd": ["a"], "env": {1: "a"}}, "the name of a variable must be a str, not 1"),
    ({"cmd": ["a"], "meta": [1]}, "meta must be a dict, not [1]"),
    ({"cmd": ["a"], "meta": {"a": {1, 2}}}, "meta['a'] must be what JSON can hold, not {1, 2} (set)"),
    ({"cmd": ["a"], "meta": {"a": float("nan")}}, "meta['a'] must be what JSON can hold, not nan (float)"),
    (
        {"cmd": ["a"], "meta": {"a": [0, {"b": b"x"}]}},
        "meta['a'][1]['b'] must be what JSON can hold, not b'x' (bytes)",
    ),
    ({"cmd": ["a"], "meta": {1: 2}}, "meta: a key must be a str, not 1 (int)"),
    ({"cmd": ["a"], "meta": {"a": [{None: 2}]}}, "meta['a'][0]: a key must be a str, not None (NoneType)"),
    ({"cmd": ["a"], "meta": {"a": NESTED}}, "meta must be nested at most 100 deep"),
    ({"cmd": ["a"], "meta": {"a": 10**5000}}, "meta must hold only what JSON can: Exceeds the limit"),
    ({"cmd": ["a"], "stdin": 7}, "stdin must be bytes or str to feed"),
    ({"cmd": ["a"], "stdin": Path("/no/such/file")}, "stdin must be a file that exists"),
    ({"cmd": ["a\ud800"]}, "cmd[0] cannot be encoded"),
]


@pytest.mark.parametrize(("job", "told"), BAD_JOBS)
def test_bad_jobs(own_root: Path, job: dict[Any, Any], told: str) -> None:
    value = run_command(job)
    assert value["ERROR"].startswith("BossWorkerAsync: bad job: ")
    assert told in value["ERROR"]
    assert not own_root.exists()


def test_bad_jobs_of_a_pool(run: Run, own_root: Path) -> None:
    for job, _ in BAD_JOBS:
        if "cmd" in job and 7 not in job:
            result = run(**job)
            assert (result.error, result.error_kind) == (run_command(job)["ERROR"], "bad_job")
    assert not own_root.exists()


@pytest.mark.parametrize(
    ("settings", "error", "told"),
    [
        ({"keep": "some"}, ValueError, "keep must be one of 'all', 'failed', 'none', not 'some'"),
        ({"inline_output": -1}, ValueError, "inline_output must be an int from 0"),
        ({"inline_output": 1.5}, TypeError, "inline_output must be an int"),
        ({"root": 7}, TypeError, "root must be a path or None, not 7"),
        ({"root": ""}, ValueError, "root must be the path of a folder, not ''"),
    ],
)
def test_bad_settings(settings: dict[str, Any], error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=told):
        CommandHandler(**settings)


@pytest.mark.parametrize("below", ["", "/below"])
def test_a_root_that_cannot_be_made_is_named(pool: Pools, tmp_path: Path, below: str) -> None:
    (tmp_path / "file").touch()
    commands = pool(CommandHandler(root=f"{tmp_path}/file{below}"), worker_count=1)
    commands.add_work({"cmd": ["true"]})
    error = next(commands.results())["ERROR"]
    assert "root cannot be made: " in error
    assert f"'{tmp_path}/file{below}'" in error


def test_a_handler_travels(pool: Pools, tmp_path: Path) -> None:
    handler = pickle.loads(pickle.dumps(CommandHandler(root=tmp_path / "own", keep="none", inline_output=1)))
    assert (handler.root, handler.keep, handler.inline_output) == (str(tmp_path / "own"), "none", 1)
    commands = pool(handler, worker_count=1, start_method="spawn")
    commands.add_work({"cmd": ["echo", "hi"]})
    assert next(commands.results())["stdout"] == "\n"


# -- the end of a whole tree ----------------------------------------------------------------------------


def tree(mark: Path, deaf: bool = False) -> list[str]:
    """A command with a child, and a grandchild that has left it behind: all their pids are written to `mark`."""
    ignore = "import signal; signal.signal(15, signal.SIG_IGN); " if deaf else ""
    grandchild = escaping(f"{ignore}open({str(mark)!r}, 'a').write(f'{{os.getpid()}}\\n'); time.sleep(60)")
    script = f'echo started; echo $$ >> {mark}; "$@" & sleep 60 & echo $! >> {mark}; wait; sleep 60'
    return ["sh", "-c", script, "sh", *grandchild]


def pids(mark: Path) -> list[int]:
    wait_for(lambda: mark.exists() and mark.read_text().count("\n") == 3)
    return [int(line) for line in mark.read_text().split()]


def expect_gone(mark: Path) -> None:
    for pid in pids(mark):
        assert not Path(f"/proc/{pid}").exists(), Path(f"/proc/{pid}/status").read_text()


@pytest.mark.parametrize("deaf", [False, True])
def test_the_jobs_own_timeout(run: Run, tmp_path: Path, deaf: bool) -> None:
    result = run(tree(tmp_path / "mark", deaf), timeout=1.0)
    assert (result.error, result.error_kind) == (TIMED_OUT, "timeout")
    expect_gone(tmp_path / "mark")
    assert result["status"] == jobs.status(result["jobid"]) == "terminated by request"
    assert result["stdout"] == "started\n"
    assert jobs.details(result["jobid"])[:2] == ["timed out after 1 seconds", "terminated by signal 15"]


@pytest.mark.parametrize("deaf", [False, True])
def test_the_pools_timeout(pool: Pools, tmp_path: Path, deaf: bool) -> None:
    commands = pool(run_command, worker_count=1, global_timeout=1.0, kill_grace=60.0)
    before = commands.worker_pids
    commands.add_work({"cmd": tree(tmp_path / "mark", deaf), "meta": {"a": 1}})
    result = next(commands.results())
    assert (result.error, result.error_kind) == (TIMED_OUT, "timeout")
    assert result.duration < 20  # the grace of a minute was not spent
    assert (result["meta"], result["stdout"]) == ({"a": 1}, "started\n")
    assert result["status"] == jobs.status(result["jobid"]) == "terminated by request"
    expect_gone(tmp_path / "mark")
    assert commands.worker_pids == before
    assert isinstance(result.exception, BaseException)


def test_a_short_grace_is_enough(pool: Pools, tmp_path: Path) -> None:
    commands = pool(run_command, worker_count=1, global_timeout=1.0, kill_grace=0.3)
    before = commands.worker_pids
    commands.add_work({"cmd": tree(tmp_path / "mark", deaf=True)})
    result = next(commands.results())
    assert result.error_kind == "timeout"
    expect_gone(tmp_path / "mark")
    assert jobs.status(jobs.listing()[0]).startswith("terminated")
    if commands.worker_pids == before:  # not too slow for it
        assert result["jobid"] == jobs.listing()[0]


def test_a_cancel(pool: Pools, tmp_path: Path) -> None:
    commands = pool(run_command, worker_count=1)
    (job,) = commands.add_work({"cmd": tree(tmp_path / "mark")})
    pids(tmp_path / "mark")
    assert commands.cancel(job) == 1
    result = next(commands.results())
    assert (result.error, result.error_kind, result["ERROR"]) == (CANCELLED, "cancelled", CANCELLED)
    assert result["status"] == jobs.status(result["jobid"]) == "terminated by request"
    assert jobs.details(result["jobid"])[0] == "stopped by the pool"
    expect_gone(tmp_path / "mark")


def test_a_forced_shutdown(pool: Pools, tmp_path: Path) -> None:
    commands = pool(run_command, worker_count=1)
    commands.add_work({"cmd": tree(tmp_path / "mark", deaf=True)})
    members = pids(tmp_path / "mark")
    commands.shut_down(force=True)
    assert not any(map(alive, members))
    assert jobs.status(jobs.listing()[0]) == "terminated by error"


@pytest.mark.parametrize("victim", ["worker", "boss", "caller"])
def test_whoever_is_killed_the_command_goes_with_it(tmp_path: Path, victim: str) -> None:
    """In a caller of its own, since it may be the one."""
    program = f"""if True:
        from bossworker import BossWorker, run_command
        pool = BossWorker(run_command, worker_count=1)
        pool.add_work({{"cmd": {tree(tmp_path / "mark", deaf=True)!r}}})
        print(pool.worker_pids[0], pool.boss_pid, flush=True)
        try:
            print(pool.get_result().error_kind)
        except BaseException as error:
            print(type(error).__name__)
    """
    caller = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert caller.stdout is not None
    worker, boss = map(int, caller.stdout.readline().split())
    members = pids(tmp_path / "mark")
    os.kill({"worker": worker, "boss": boss, "caller": caller.pid}[victim], signal.SIGKILL)
    wait_for(lambda: not any(map(alive, members)), 10)
    told = caller.stdout.read()
    caller.stdout.close()
    caller.wait()
    assert told == {"worker": "crash\n", "boss": "BossDied\n", "caller": ""}[victim]
    (jobid,) = jobs.listing()
    wait_for(lambda: jobs.status(jobid) == "terminated by error")
    assert jobs.details(jobid) == ["its supervisor is gone: its exit status is not known"]


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM"])
def test_a_running_job_can_be_asked_and_ended(pool: Pools, tmp_path: Path, name: str) -> None:
    commands = pool(run_command, worker_count=1)
    commands.add_work({"cmd": tree(tmp_path / "mark", deaf=True)})
    members = pids(tmp_path / "mark")
    (jobid,) = jobs.listing()
    wait_for(lambda: jobs.status(jobid) == "running")
    assert jobs.signal(jobid, name)
    result = next(commands.results())
    number = int(signal.Signals[name])
    assert (result["status"], result["signal"]) == ("terminated by request", number)
    assert result.error == f"terminated by signal {number} ({name})"
    assert not any(map(alive, members))


def test_what_the_worker_had_before_lives_on(pool: Pools, tmp_path: Path) -> None:
    mark = tmp_path / "before"

    def start_server() -> None:
        mark.write_text(str(subprocess.Popen(["sleep", "60"]).pid))

    commands = pool(run_command, worker_count=1, init_handler=start_server)
    daemon = escaping(f"open({str(tmp_path / 'daemon')!r}, 'w').write(str(os.getpid())); time.sleep(60)")
    commands.add_work({"cmd": daemon})
    assert next(commands.results()).ok
    left = int(wait_for(lambda: (tmp_path / "daemon").exists() and (tmp_path / "daemon").read_text()))
    commands.add_work({"cmd": tree(tmp_path / "mark"), "timeout": 0.5})
    assert next(commands.results()).error_kind == "timeout"
    assert alive(int(mark.read_text()))
    assert alive(left)
    commands.shut_down()
    wait_for(lambda: not alive(left))
    assert not alive(int(mark.read_text()))


def test_what_an_earlier_command_left_lives_on_though_it_comes_to_us_late(pool: Pools, tmp_path: Path) -> None:
    """It had a parent for a while."""
    go, mark = tmp_path / "go", tmp_path / "mark"
    parent = "import os, time; os.fork() and os._exit(0); os.setsid()"
    wait = f"os.mkfifo({str(go)!r}); open({str(go)!r}).read()"
    child = f"os.fork() and os._exit(0); open({str(mark)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    commands = pool(run_command, worker_count=1)
    commands.add_work({"cmd": [sys.executable, "-c", f"{parent}; {wait}; {child}"]})
    assert next(commands.results()).ok
    wait_for(go.exists)
    commands.add_work({"cmd": ["sh", "-c", "echo > started; sleep 60"], "cwd": str(tmp_path), "timeout": 2})
    wait_for((tmp_path / "started").exists)
    go.write_text("")
    left = int(wait_for(lambda: mark.exists() and mark.read_text()))
    assert next(commands.results()).error_kind == "timeout"
    assert alive(left)


def test_orphans_of_a_command_leave_no_zombies(pool: Pools) -> None:
    commands = pool(run_command, worker_count=1)
    (worker,) = commands.worker_pids
    for _ in range(5):
        commands.add_work({"cmd": ["sh", "-c", "for i in 1 2 3; do (sleep 0.01 &) ; done; sleep 0.1"]})
    assert all(result.ok for result in commands.results())
    assert Path(f"/proc/{worker}/task/{worker}/children").read_text() == ""


@pytest.mark.parametrize("keep", ["all", "failed"])
def test_a_timeout_at_any_moment_costs_no_result_and_leaves_nothing(pool: Pools, keep: str) -> None:
    """The timeout comes before, in, and after the start of the command, and while its last word is written."""
    commands = pool(CommandHandler(keep=keep), worker_count=2, kill_grace=10.0)
    for number in range(150):
        commands.add_work({"cmd": ["sleep", "0.002"], "meta": {"n": number}}, timeout=0.0005 + 0.00008 * number)
    results = list(commands.results())
    assert len(results) == 150
    assert {result.error for result in results} <= {None, TIMED_OUT}
    for result in results:
        if "jobid" in result:
            kept = keep == "all" or not result.ok
            assert jobs.status(result["jobid"]) == (result["status"] if kept else "unknown")
            assert result.ok == (result["status"] == "completed")
    assert all(jobs.is_finished(jobid) for jobid in jobs.listing())
    assert not any(name.startswith(".") for name in os.listdir(os.environ["BOSSWORKER_ROOT"]))
    for worker in commands.worker_pids:
        assert Path(f"/proc/{worker}/task/{worker}/children").read_text() == ""


# -- outside a pool, and a full disk --------------------------------------------------------------------


def test_it_works_without_a_pool() -> None:
    child = subprocess.Popen(["sleep", "60"])
    try:
        assert run_command({"cmd": ["echo", "hi"]})["stdout"] == "hi\n"
        started = time.monotonic()
        assert run_command({"cmd": ["sleep", "60"], "timeout": 0.1})["ERROR"] == TIMED_OUT
        assert time.monotonic() - started < 20
        assert child.poll() is None
    finally:
        child.kill()
        child.wait()


def test_a_full_disk_is_told_and_the_pool_goes_on(pool: Pools, small_disk: Path) -> None:
    commands = pool(CommandHandler(root=small_disk / "jobs"), worker_count=1)
    commands.add_work({"cmd": ["true"]})
    assert next(commands.results()).ok
    fill(small_disk)
    for _ in range(3):
        commands.add_work({"cmd": ["true"]})
    results = list(commands.results())
    assert all("No space left on device" in str(result.error) for result in results)
    assert {result.error_kind for result in results} == {"exception"}
    (small_disk / "ballast").unlink()
    commands.add_work({"cmd": ["true"]})
    assert next(commands.results()).ok
    assert len(os.listdir(small_disk / "jobs")) == 0
    assert len(commands.worker_pids) == 1


def test_a_command_that_fills_the_disk(pool: Pools, small_disk: Path) -> None:
    commands = pool(CommandHandler(root=small_disk / "jobs"), worker_count=1)
    commands.add_work({"cmd": ["cat", "/dev/zero"]})
    result = next(commands.results())
    assert result.error == "exit code 1 (no space left on the job directory's disk)"
    assert jobs.status(result["jobid"], root=small_disk / "jobs") == "terminated by error"
    assert result["stdout_truncated"]


def test_a_root_that_is_deleted_comes_back(pool: Pools, own_root: Path) -> None:
    commands = pool(run_command, worker_count=1)
    for _ in range(2):
        commands.add_work({"cmd": ["true"]})
        assert next(commands.results()).ok
        jobs.clean(older_than=0)
        own_root.rmdir()
