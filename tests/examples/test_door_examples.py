"""The examples of pools that other programs use."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from bossworker import BossWorker
from tests.examples.runner import PROJECT, check_clean, command, environment, run

EXAMPLES = PROJECT / "examples"


@pytest.fixture(autouse=True)
def runtime_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Doors of these tests are not those of the user."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


def test_shared_pool() -> None:
    ended = run(EXAMPLES / "shared_pool.py", "--requests", 20)
    check_clean(ended)
    *lines, last = ended.stdout.splitlines()
    assert sorted(lines) == [f"web worker {name}: 20 thumbnails, from a pool of 2" for name in "abc"]
    assert last == "60 thumbnails in all, 0 web workers failed"


def test_remote_client(tmp_path: Path) -> None:
    program, keys = EXAMPLES / "remote_client.py", tmp_path / "keys"
    check_clean(run(program, "keys", keys))
    with subprocess.Popen(
        command(program, "serve", keys), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    ) as server:
        assert server.stdout is not None
        address = server.stdout.readline().strip()
        asked = run(program, "ask", keys, address, 12, 97, 360360)
        check_clean(asked)
        assert asked.stdout.splitlines() == [
            "12 = 2 * 2 * 3",
            "97 = 97",
            "360360 = 2 * 2 * 2 * 3 * 3 * 5 * 7 * 11 * 13",
        ]
        server.send_signal(signal.SIGTERM)
        _, complaints = server.communicate()
    assert (server.returncode, complaints) == (0, "")


def test_json_client() -> None:
    def square(job: dict[str, int]) -> dict[str, int]:
        return {"square": job["n"] ** 2}

    with BossWorker(square, worker_count=1) as pool, pool.listen(accept="json") as door:
        ended = run(EXAMPLES / "json_client.py", door.address, '{"n": 7}', '{"m": 1}')
        check_clean(ended)
        assert sorted(ended.stdout.splitlines()) == [
            '1 ok {"square": 49}',
            """2 exception {"ERROR": "KeyError: 'n'"}""",
            "closed ",
        ]
    with BossWorker(square, worker_count=1) as pool, pool.listen() as door:
        ended = run(EXAMPLES / "json_client.py", door.address, '{"n": 7}')
    assert ended.returncode == 1
    assert 'opened with accept="pickle"' in ended.stderr
