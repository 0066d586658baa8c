"""Machines that are not as ours: other encodings, file systems, interpreters."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from bossworker.tasks import TaskPool
from tests.tasks.programs import python, shell

PROJECT = str(Path(__file__).parents[2])
ENVIRONMENT = {**os.environ, "PYTHONPATH": PROJECT}

PRINTS = r"""
import os, sys
from bossworker.tasks import TaskPool
pool = TaskPool(os.fsdecode(sys.argv[1]))
os.chdir(sys.argv[1])
os.mkdir("\u00fc\u2026")
command = ["sh", "-c", 'printf "%s|%s|%s|%s" "$1" "$A" "$PWD" "$BOSSWORKER_TASKS"', "sh", "\u00e9\u2026\udcff"]
given = {"env": {"A": "\u00e4"}, "cwd": "\u00fc\u2026", "lockfile": "\u00f6\u2026"}
for behavior in ("background", "foreground"):
    task = pool.spawn(command, behavior=behavior, **given)
    assert task.wait(20)
    sys.stdout.buffer.write(task.stream("stdout").read() + b"\n")
    sys.stdout.buffer.flush()
    assert os.path.exists("\u00f6\u2026")
    task.delete()
"""


@pytest.fixture
def latin_1(tmp_path: Path) -> dict[str, str]:
    """The environment of a program under a locale whose encoding is Latin-1, which Python is told to overlook."""
    if shutil.which("localedef") is None or not os.path.isdir("/usr/share/i18n/locales"):
        pytest.skip("needs localedef")
    made = ["localedef", "-i", "en_US", "-f", "ISO-8859-1", str(tmp_path / "en_US.ISO-8859-1")]
    if subprocess.run(made, capture_output=True, check=False).returncode > 1:
        pytest.skip("the locale cannot be made")
    environment = {**ENVIRONMENT, "LOCPATH": str(tmp_path), "LC_ALL": "en_US.ISO-8859-1"}
    code = "import sys; print(sys.getfilesystemencoding())"
    told = subprocess.run(python(code), env=environment, capture_output=True, text=True, check=True).stdout
    assert told == "iso8859-1\n"
    return {**environment, "PYTHONUTF8": "1"}


def test_the_command_gets_the_bytes_that_the_program_means(latin_1: dict[str, str], tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + "/p\u00e4\u2026".encode()
    os.mkdir(path)
    ended = subprocess.run([*python(PRINTS), path], env=latin_1, capture_output=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr.decode()
    told = b"|".join(["\u00e9\u2026".encode() + b"\xff", "\u00e4".encode(), path + "/\u00fc\u2026".encode(), path])
    assert ended.stdout == (told + b"\n") * 2


NO_SPLICE = """
#include <errno.h>
#include <sys/types.h>
ssize_t splice(int in, long *in_at, int out, long *out_at, size_t size, unsigned flags) { errno = EINVAL; return -1; }
"""


def test_output_is_kept_where_a_file_system_knows_no_splice(tmp_path: Path, pool: TaskPool) -> None:
    """eCryptfs and vboxsf, for instance."""
    compiler = shutil.which(sysconfig.get_config_var("CC").split()[0]) or shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    (tmp_path / "no_splice.c").write_text(NO_SPLICE)
    library = str(tmp_path / "no_splice.so")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, str(tmp_path / "no_splice.c")], check=True)
    code = "import sys; from bossworker.tasks import TaskPool; TaskPool(sys.argv[1]).spawn(cmd=sys.argv[2])"
    argv = python(code, pool.path, "echo hello; seq 100000; echo end >&2")
    subprocess.run(argv, env={**ENVIRONMENT, "LD_PRELOAD": library}, check=True, timeout=60)
    (task,) = pool.search()
    status = task.wait(20)
    assert status is not None
    assert (status["exit_code"], task.info(fresh=True)["trouble"]) == (0, [])
    assert b"".join(task.stream(1).follow()) == b"hello\n" + b"".join(b"%d\n" % n for n in range(1, 100_001))
    assert task.stream(2).read() == b"end\n"


def test_a_program_that_is_no_python_is_told_so(
    pool: TaskPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the interpreter for supervisors can be named."""
    program = tmp_path / "application"
    program.write_text("#!/bin/sh\nexit 0\n")
    program.chmod(0o755)
    python_program = sys.executable
    monkeypatch.setattr(sys, "executable", str(program))
    for behavior in ("background", "foreground"):
        with pytest.raises(Exception, match=r"sys.executable|the supervisor ended"):
            pool.spawn(["true"], behavior=behavior)
    monkeypatch.setenv("BOSSWORKER_PYTHON", python_program)
    for behavior in ("background", "foreground"):
        task = pool.spawn(shell("exit 3"), behavior=behavior)
        status = task.wait(20)
        assert status is not None
        assert status["exit_code"] == 3
        task.delete()


def test_a_python_that_needs_its_home(pool: TaskPool, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told to supervisors that are started from nothing, too."""
    monkeypatch.setenv("PYTHONHOME", f"{sys.base_prefix}:{sys.base_exec_prefix}")
    assert "-I" not in pool.supervisor_cmd
    for behavior in ("background", "foreground"):
        task = pool.spawn(["true"], behavior=behavior)
        assert task.wait(20)
        task.delete()
