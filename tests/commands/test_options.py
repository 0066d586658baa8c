"""What a command may be told besides what to run: limits, grace, where its output goes, which directories stay."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bossworker import TIMED_OUT, BossWorker, CommandHandler, Result, jobs, run_command
from bossworker.commands import output
from bossworker.jobs import Status
from bossworker.system import memory
from tests.commands.privileges import need_root
from tests.conftest import alive, wait_for

pytestmark = pytest.mark.usefixtures("root")
MIB = 1 << 20
Run = Callable[..., Result]


@pytest.fixture
def run(pool: Callable[..., BossWorker]) -> Run:
    """Runs one job in a pool."""
    commands = pool(run_command, worker_count=1)

    def one(cmd: object, **job: object) -> Result:
        commands.add_work({"cmd": cmd, **job})
        result = commands.get_result(timeout=60)
        assert result is not None
        return result

    return one


def detached(cmd: list[str], **settings: Any) -> str:
    jobid = jobs.start(cmd, **settings)
    jobs.wait(jobid, 60)
    return jobid


# -- grace ------------------------------------------------------------------------------------------------------

SLOW_TO_TIDY = ["sh", "-c", "trap 'sleep 1; echo tidy; exit 0' TERM; echo up; while :; do sleep 0.05; done"]
DEAF = ["sh", "-c", "trap '' TERM; while :; do sleep 0.05; done"]


def test_the_grace_of_a_job(run: Run) -> None:
    assert run(SLOW_TO_TIDY, timeout=0.3, grace=30)["stdout"] == "up\ntidy\n"
    assert run(SLOW_TO_TIDY, timeout=0.3)["stdout"] == "up\n"  # half a second is not enough
    assert run(DEAF, timeout=0.3, grace=0)["signal"] == signal.SIGKILL


def test_the_grace_of_a_job_when_the_pool_ends_it(pool: Callable[..., BossWorker]) -> None:
    commands = pool(run_command, worker_count=1, global_timeout=0.3, kill_grace=30)
    commands.add_work({"cmd": SLOW_TO_TIDY, "grace": 20}, {"cmd": DEAF, "grace": 0.1})
    first, second = commands.results()
    assert (first["stdout"], first.error_kind) == ("up\ntidy\n", "timeout")
    assert (second["signal"], second.error_kind) == (signal.SIGKILL, "timeout")
    assert second.duration < 20


def test_the_pools_end_comes_amid_a_long_grace(pool: Callable[..., BossWorker]) -> None:
    """Of the command's own timeout; the worker is not killed for it."""
    commands = pool(run_command, worker_count=1, kill_grace=1)
    before = commands.worker_pids
    (job,) = commands.add_work({"cmd": DEAF, "timeout": 0.2, "grace": 60})
    time.sleep(0.5)
    commands.cancel(job)
    result = next(commands.results())
    assert (result.error_kind, result["signal"]) == ("cancelled", signal.SIGKILL)
    assert commands.worker_pids == before


def test_the_grace_of_a_detached_job() -> None:
    assert jobs.stdout(detached(SLOW_TO_TIDY, timeout=0.3, grace=30)) == "up\ntidy\n"
    assert jobs.stdout(detached(SLOW_TO_TIDY, timeout=0.3, grace=0.1)) == "up\n"
    found = jobs.info(detached(["true"], grace=7))
    assert found is not None
    assert found.grace == 7


# -- memory -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["memory", "max_output"])
def test_more_than_32_bits_hold(run: Run, name: str) -> None:
    assert run(["true"], **{name: 1 << 40}).ok
    assert "must be an int from 0 to" in str(run(["true"], **{name: 1 << 63}).error)


GROWS = [sys.executable, "-c", "import time; data = bytearray(200 << 20); print(len(data), flush=True); time.sleep(60)"]
GROWS_BELOW = ["sh", "-c", '"$@" & wait', "sh", *GROWS]
SHARES = """
import os, time
data = bytearray(os.urandom(1 << 20) * 60)
for _ in range(4):
    if os.fork() == 0:
        time.sleep(1)
        os._exit(0)
for _ in range(4):
    os.wait()
"""


@pytest.mark.parametrize("cmd", [GROWS, GROWS_BELOW])
def test_a_command_that_outgrows_its_memory(run: Run, cmd: list[str]) -> None:
    result = run(cmd, memory=100 * MIB)
    assert result.error_kind == "memory"
    assert str(result.error).startswith("BossWorkerAsync: memory limit exceeded (")
    assert str(result.error).endswith(" MiB of 100)")
    assert result["status"] == "terminated by request"
    assert jobs.details(result["jobid"])[0].startswith("memory limit exceeded (")


def test_a_job_that_outgrows_its_memory() -> None:
    jobid = detached(GROWS_BELOW, memory=100 * MIB)
    assert jobs.status(jobid) is Status.TERMINATED_BY_REQUEST
    assert jobs.details(jobid)[0].startswith("memory limit exceeded (")
    found = jobs.info(jobid)
    assert found is not None
    assert found.memory == 100 * MIB


def test_what_is_shared_is_counted_once(run: Run) -> None:
    assert run([sys.executable, "-c", SHARES], memory=150 * MIB).ok


def test_how_an_excess_is_told() -> None:
    assert memory.describe_excess(612 * MIB, 512 * MIB) == "memory limit exceeded (612 MiB of 512)"
    assert memory.describe_excess(10_900_000, 10_000_000) == "memory limit exceeded (10.4 MiB of 9.5)"


def test_max_rss_is_the_commands_own(run: Run) -> None:
    run(["sh", "-c", "true"])
    for result in (run(["sleep", "0.2"]), run_command({"cmd": ["sleep", "0.2"]})):
        assert 100_000 < result["max_rss"] < 8 * MIB
    assert 100_000 < run(["true"])["max_rss"] < 8 * MIB
    assert run([sys.executable, "-c", "import time; x = bytearray(100 << 20); time.sleep(0.5)"])["max_rss"] > 100 * MIB
    found = jobs.info(detached(["sleep", "0.2"]))
    assert found is not None
    assert found.max_rss is not None
    assert 100_000 < found.max_rss < 8 * MIB


OOM_GROUP = Path("/sys/fs/cgroup/memory")


@pytest.fixture
def small_memory() -> Any:
    """A control group with little memory."""
    need_root()
    if not (OOM_GROUP / "memory.limit_in_bytes").exists():
        pytest.skip("no memory control group")
    group = OOM_GROUP / f"bossworker-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(64 * MIB))
    except OSError as error:
        pytest.skip(f"no memory control group: {error}")
    yield group
    wait_for(lambda: not (group / "cgroup.procs").read_text())
    group.rmdir()


@pytest.mark.alone  # the kernel counts such kills for the whole machine, and other tests ask for the count
def test_a_command_that_the_kernel_kills_for_want_of_memory(run: Run, small_memory: Path) -> None:
    script = f'echo $$ > {small_memory}/cgroup.procs; sleep 0.1; exec "$@"'
    cmd = ["sh", "-c", script, "sh", *GROWS]
    result = run(cmd)
    assert (result.error, result.error_kind) == ("terminated by signal 9 (SIGKILL), likely out of memory", "crash")
    assert jobs.details(result["jobid"])[:2] == ["likely out of memory", "terminated by signal 9"]
    jobid = detached(cmd)
    assert jobs.details(jobid)[:2] == ["likely out of memory", "terminated by signal 9"]
    assert jobs.status(jobid) is Status.TERMINATED_BY_ERROR
    assert "out of memory" not in str(run(["sh", "-c", "sleep 0.1; kill -9 $$"]).error)


# -- output -----------------------------------------------------------------------------------------------------


def on_disk(path: Path) -> int:
    return path.stat().st_blocks * 512


CHATTY = ["sh", "-c", "seq 400000; sleep 0.3; seq 400001 800000; sleep 0.3; echo end; sleep 0.3"]  # some 5 MB


@pytest.mark.parametrize("punches", [True, False])
def test_the_newest_output_is_kept(root: Path, monkeypatch: pytest.MonkeyPatch, punches: bool) -> None:
    if not punches:  # a file system without holes
        monkeypatch.setattr(output, "_punch", lambda fd, size: False)
    result = run_command({"cmd": CHATTY, "max_output": 100_000, "keep": "all"})
    stdout = root / result["jobid"] / "stdout"
    assert on_disk(stdout) <= 100_000 + 2 * output.BLOCK
    assert result["stdout_truncated"]
    assert result["stdout"].endswith("799999\n800000\nend\n")
    kept = jobs.stdout(result["jobid"])
    assert kept.endswith("799999\n800000\nend\n")
    assert 90_000 < len(kept) < 110_000
    assert "\0" not in kept


def test_where_there_are_no_holes_a_file_starts_anew_when_it_is_far_too_large(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "_punch", lambda fd, size: False)
    monkeypatch.setattr(output, "SLACK", 1000)
    path = tmp_path / "stdout"
    fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT)
    for size, left in ((19_000, 19_000), (2_000, 5_000)):
        os.write(fd, bytes(size - 4) + b"end\n")
        output.trim(fd, 5_000)
        assert path.stat().st_size == left
    assert path.read_bytes().endswith(b"end\n")
    os.close(fd)


def test_a_jobs_output_is_kept_below_a_limit_while_it_runs(root: Path) -> None:
    jobid = jobs.start(["sh", "-c", "seq 700000; echo up >&2; sleep 60"], max_output=100_000)
    wait_for(lambda: jobs.stderr(jobid))
    wait_for(lambda: on_disk(root / jobid / "stdout") <= 100_000 + 2 * output.BLOCK)
    assert jobs.stdout(jobid, offset=-7) == "700000\n"
    followed = jobs.follow(jobid, text=False)
    assert next(followed).lstrip(b"\0") != b""
    followed.close()  # type: ignore[attr-defined]
    jobs.clean(jobid)


def test_a_part_of_the_output_is_read_without_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    jobid = detached(["sh", "-c", "printf 0123456789; printf 'größe' >&2"])
    assert jobs.stdout(jobid, offset=4) == "456789"
    assert jobs.stdout(jobid, offset=-3) == "789"
    assert jobs.stdout(jobid, offset=2, limit=3) == "234"
    assert jobs.stdout(jobid, offset=-3, limit=1, text=False) == b"7"
    assert jobs.stdout(jobid, limit=0) == jobs.stdout(jobid, offset=10) == jobs.stdout(jobid, offset=1 << 40) == ""
    assert jobs.stdout(jobid, offset=-100) == "0123456789"
    assert jobs.stderr(jobid, encoding="latin-1") == "grÃ¶Ã\x9fe"
    assert list(jobs.follow(jobid, stream="stderr", encoding="latin-1")) == ["grÃ¶Ã\x9fe"]
    for wrong, error in (
        ({"offset": "1"}, TypeError), ({"limit": -1}, ValueError), ({"limit": 1.5}, TypeError),
        ({"encoding": "klingon"}, ValueError), ({"encoding": 8}, TypeError),
    ):  # fmt: skip
        with pytest.raises(error, match=r"offset must be|limit must be|encoding must be"):
            jobs.stdout(jobid, **wrong)
    read: list[int] = []
    pread = os.pread

    def noted(fd: int, count: int, at: int) -> bytes:
        read.append(count)
        return pread(fd, count, at)

    monkeypatch.setattr(os, "pread", noted)
    jobs.stdout(jobid, offset=-3)
    assert sum(read) == 3


def test_bytes_or_an_encoding(run: Run) -> None:
    binary = ["printf", r"a\377\000b"]
    result = run(binary, text=False)
    assert (result["stdout"], result["stderr"]) == (b"a\xff\x00b", b"")
    assert run(["printf", r"gr\366\337e"], encoding="latin-1")["stdout"] == "größe"
    assert run(["od", "-An", "-tx1"], stdin="ö", encoding="latin-1")["stdout"].split() == ["f6"]
    assert run(binary)["stdout"] == "a\ufffd\0b"


@pytest.mark.parametrize("value", ["stdout", subprocess.STDOUT])
def test_stderr_goes_where_stdout_goes(run: Run, value: object) -> None:
    script = "for i in 1 2 3; do echo out $i; echo err $i >&2; done"
    wanted = "".join(f"out {n}\nerr {n}\n" for n in (1, 2, 3))
    result = run(["sh", "-c", script], stderr=value)
    assert (result["stdout"], result["stderr"]) == (wanted, "")
    jobid = detached(["sh", "-c", script], stderr="stdout")
    assert (jobs.stdout(jobid), jobs.stderr(jobid)) == (wanted, "")
    assert run(["no-such-program"], stderr=value)["stdout"].startswith("cannot run")


# -- a terminal -------------------------------------------------------------------------------------------------

ASKS = """
import os, sys
print([os.isatty(fd) for fd in (0, 1, 2)], os.get_terminal_size(1))
print(repr(sys.stdin.read()), file=sys.stderr)
with open("/dev/tty", "w") as tty:
    tty.write("to the terminal\\n")
"""


def test_a_command_with_a_terminal(run: Run) -> None:
    wanted = "[True, True, True] os.terminal_size(columns=80, lines=24)\n''\nto the terminal\n"
    result = run([sys.executable, "-c", ASKS], pty=True)
    assert (result["stdout"], result["stderr"], result.ok) == (wanted, "", True)
    jobid = detached([sys.executable, "-c", ASKS], pty=True)
    assert (jobs.stdout(jobid), jobs.status(jobid)) == (wanted, "completed")
    fed = run([sys.executable, "-c", ASKS], pty=True, stdin="fed")["stdout"]
    assert fed == wanted.replace("[True,", "[False,").replace("''", "'fed'")
    jobid = detached([sys.executable, "-c", ASKS], pty=True, stdin="fed")
    assert jobs.stdout(jobid) == fed


def test_much_over_a_terminal_and_no_program_at_its_end(run: Run) -> None:
    result = run(["sh", "-c", "seq 200000"], pty=True, keep="all")
    assert jobs.stdout(result["jobid"]) == "".join(f"{n}\n" for n in range(1, 200001))
    assert run(["no-such-program"], pty=True)["stdout"].startswith("cannot run")
    jobid = detached(["sh", "-c", "seq 200000"], pty=True)
    assert jobs.stdout(jobid) == "".join(f"{n}\n" for n in range(1, 200001))
    assert jobs.stdout(detached(["no-such-program"], pty=True)).startswith("cannot run")


def test_a_timeout_over_a_terminal(run: Run) -> None:
    script = "echo up; trap 'echo bye; exit 3' TERM; while :; do sleep 0.05; done"
    result = run(["sh", "-c", script], pty=True, timeout=1)
    assert (result.error, result["exit_code"]) == (TIMED_OUT, 3)
    assert (result["stdout"][:3], result["stdout"][-4:]) == ("up\n", "bye\n")  # a shell says what ended, in between


# -- which directories stay -------------------------------------------------------------------------------------


def test_a_success_leaves_no_directory_and_is_there_while_it_runs(pool: Callable[..., BossWorker]) -> None:
    commands = pool(run_command, worker_count=1)
    commands.add_work({"cmd": ["sh", "-c", "echo working; sleep 60 & wait"]}, {"cmd": ["false"]})
    (jobid,) = wait_for(jobs.listing)
    wait_for(lambda: jobs.status(jobid) == "running")
    wait_for(lambda: jobs.stdout(jobid) == "working\n")
    found = jobs.info(jobid)
    assert found is not None
    assert found.pid is not None
    (sleep,) = wait_for(lambda: Path(f"/proc/{found.pid}/task/{found.pid}/children").read_text().split())
    os.kill(int(sleep), signal.SIGTERM)
    good, bad = commands.results()
    assert (good.ok, good["jobid"]) == (True, jobid)
    assert jobs.status(jobid) is Status.UNKNOWN
    assert jobs.listing() == [bad["jobid"]]


@pytest.mark.parametrize(("handlers", "jobs_own", "kept"), [
    ("none", "all", 2), ("all", "none", 0), ("all", "failed", 1), ("failed", None, 1),
])  # fmt: skip
def test_a_jobs_own_keep_counts(root: Path, handlers: str, jobs_own: str | None, kept: int) -> None:
    handler = CommandHandler(keep=handlers)
    for program in ("true", "false"):
        handler({"cmd": [program], **({"keep": jobs_own} if jobs_own else {})})
    assert len(os.listdir(root)) == kept


def test_what_a_success_has_left_lives_on_though_its_directory_goes(root: Path) -> None:
    result = run_command({"cmd": ["sh", "-c", "sleep 60 & echo $!; mkdir -p a/b; touch a/b/c"]})
    assert os.listdir(root) == []
    pid = int(result["stdout"])
    assert alive(pid)
    os.kill(pid, signal.SIGKILL)


# -- where paths lead -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["add_work", "many", "map"])
def test_relative_paths_are_the_callers(
    pool: Callable[..., BossWorker], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    (tmp_path / "d" / "e").mkdir(parents=True)
    (tmp_path / "in.txt").write_text("WRONG FILE")
    (tmp_path / "d" / "in.txt").write_text("right")
    monkeypatch.chdir(tmp_path)
    commands = pool(run_command, worker_count=1)
    monkeypatch.chdir(tmp_path / "d")
    job = {"cmd": ["sh", "-c", "cat; pwd"], "stdin": Path("in.txt"), "cwd": "e"}
    if way == "map":
        results = list(commands.map([job]))
    else:
        commands.add_work(*[job] * (2 if way == "many" else 1))
        results = list(commands.results())
    for result in results:
        assert result["stdout"] == f"right{tmp_path}/d/e\n"
        assert result.job == job


def test_a_job_that_is_none_is_told_as_ever(run: Run, pool: Callable[..., BossWorker]) -> None:
    assert run(["true"], cwd=7).error_kind == "bad_job"
    assert run(["true"], stdin=[1]).error_kind == "bad_job"
    with pytest.raises(TypeError, match="job 1"):
        pool(run_command, worker_count=1).add_work({"cmd": ["true"]}, 7)


# -- what is wrong ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("job", "told"),
    [
        ({"grace": -1}, "grace must be between"),
        ({"grace": "1"}, "grace must be a number of seconds"),
        ({"memory": 1.5}, "memory must be an int"),
        ({"memory": -1}, "memory must be an int from 0"),
        ({"max_output": "1k"}, "max_output must be an int"),
        ({"stderr": "file"}, r"stderr must be 'stdout' \(it goes where stdout goes\) or None, not 'file'"),
        ({"pty": 1}, "pty must be True or False, not 1"),
        ({"text": "no"}, "text must be True or False, not 'no'"),
        ({"encoding": "klingon"}, "encoding must be one that Python knows"),
        ({"encoding": "utf-8", "text": False}, "encoding must not be given with text=False"),
        ({"keep": "some"}, "keep must be one of 'all', 'failed', 'none', not 'some'"),
        ({"max_outptu": 1}, r"unknown key 'max_outptu' \(did you mean 'max_output'\?\)"),
    ],
)
def test_bad_options(job: dict[str, Any], told: str) -> None:
    import re

    result = run_command({"cmd": ["true"], **job})
    assert re.search(told, result["ERROR"])
    if set(job) <= {"grace", "memory", "max_output", "stderr", "pty"}:
        with pytest.raises((TypeError, ValueError), match=told):
            jobs.start(["true"], **job)


def test_a_job_is_no_part_of_the_task_that_starts_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or it would speak for the task, and end with it."""
    monkeypatch.setenv("BOSSWORKER_TASK_ID", "a task's")
    monkeypatch.setenv("BOSSWORKER_TASK_FD", "3")
    jobid = detached(["env"], env={"BOSSWORKER_TASK_PID": "told"})
    assert [line for line in jobs.stdout(jobid).splitlines() if "TASK" in line] == ["BOSSWORKER_TASK_PID=told"]
    assert "BOSSWORKER_TASK_ID=a task's" in run_command({"cmd": ["env"]})["stdout"]


def test_what_is_told_stands_in_the_directory(root: Path) -> None:
    jobid = detached(["true"], grace=3, memory=MIB, max_output=MIB, stderr="stdout", pty=True)
    job = json.loads((root / jobid / "job.json").read_text())
    assert {name: job[name] for name in ("grace", "memory", "max_output", "stderr", "pty")} == {
        "grace": 3.0, "memory": MIB, "max_output": MIB, "stderr": "stdout", "pty": True,
    }  # fmt: skip
