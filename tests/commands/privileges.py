"""What only the superuser can set up: programs that run as somebody else, or in namespaces of their own."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

NOBODY = 65534


def need_root() -> None:
    if os.geteuid():
        pytest.skip("needs the superuser")


def as_nobody() -> list[str]:
    """The beginning of a command line that runs a program without any right but to read everything (and so Python)."""
    need_root()
    if shutil.which("setpriv") is None:
        pytest.skip("needs setpriv")
    caps = "-all,+dac_read_search"
    ids = [f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    return ["setpriv", *ids, f"--inh-caps={caps}", f"--ambient-caps={caps}"]


def nobodys_folder(path: Path) -> Path:
    """A folder of its own, which it may reach."""
    path.mkdir()
    for above in path.parents:
        if above != Path(above.anchor):
            os.chmod(above, os.stat(above).st_mode | 0o011)
    os.chown(path, NOBODY, NOBODY)
    return path


def python_as_nobody(code: str, *args: str, **more: str) -> str:
    """What a program prints that nobody runs."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **more}
    argv = [*as_nobody(), sys.executable, "-c", code, *args]
    told = subprocess.run(argv, env=environment, stdout=subprocess.PIPE, text=True, check=True, timeout=60)
    return told.stdout


def make_sudo(path: Path) -> list[str]:
    """The beginning of a command line that anybody may use to run a program as root, as with sudo."""
    need_root()
    shutil.copy(os.path.realpath(sys.executable), path)
    os.chmod(path, 0o4755)
    code = "import os, sys; os.setresgid(0, 0, 0); os.setresuid(0, 0, 0); os.execvp(sys.argv[1], sys.argv[1:])"
    sudo = [str(path), "-I", "-S", "-c", code]
    told = subprocess.run([*as_nobody(), *sudo, "id", "-u"], capture_output=True, text=True, check=False)
    if told.stdout != "0\n" or not os.stat(path).st_mode & stat.S_ISUID:
        pytest.skip(f"no program may take root's rights here: {told.stderr}")
    return sudo


def unshare(*options: str, setup: str = "true") -> list[str]:
    """The beginning of a command line that runs a program in namespaces of its own, with /proc as `setup` makes it."""
    argv = ["unshare", *options, "sh", "-c", f'{setup} && exec "$@"', "sh"]
    if os.geteuid() or shutil.which("unshare") is None or subprocess.run([*argv, "true"], check=False).returncode:
        pytest.skip("namespaces need the superuser")
    return argv
