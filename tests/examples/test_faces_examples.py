"""The service over HTTP, and the thumbnails, small."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from bossworker.system import processes
from tests.conftest import alive, wait_for
from tests.examples.runner import PROJECT, SECONDS, command, environment, run

httpx = pytest.importorskip("httpx")
SERVICE = PROJECT / "examples" / "fastapi_service.py"
THUMBNAILS = PROJECT / "examples" / "thumbnails.py"
FOREVER = 10**9  # primes below that take longer than a test


# -- fastapi_service ------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def descendants(pid: int) -> set[int]:
    found = {pid}
    for child in processes.children(pid):
        found |= descendants(child)
    return found


@contextmanager
def serving(argv: list[str], port: int, servers: int = 1) -> Iterator[tuple[subprocess.Popen[str], Any]]:
    """A server that answers, and a client of it."""
    pytest.importorskip("fastapi")
    program = subprocess.Popen(
        argv, env=environment(), text=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=SECONDS) as client:

            def answers() -> bool:
                assert program.poll() is None, program.stderr.read() if program.stderr else ""
                with suppress(httpx.TransportError):
                    return bool(client.get("/stats").status_code == 200)
                return False

            wait_for(answers, SECONDS)
            wait_for(lambda: len(descendants(program.pid)) >= 4 * servers, SECONDS)  # boss, fork server, worker each
            yield program, client
    finally:
        left = descendants(program.pid)
        program.kill()
        program.communicate()
        wait_for(lambda: not any(alive(pid) for pid in left))


def service(port: int) -> list[str]:
    return command(SERVICE, "--port", port, "--workers", 1)


def uvicorn(port: int, *options: str, folder: Path = SERVICE.parent) -> list[str]:
    app = ["--app-dir", str(folder), "fastapi_service:app", "--port", str(port)]
    return [command("-m")[0], "-m", "uvicorn", *app, *options]


def test_the_service_answers_over_http() -> None:
    port = free_port()
    with serving(service(port), port) as (_, client):
        answer = client.get("/primes/1000").json()
        assert (answer["below"], answer["primes"]) == (1000, 168)
        assert client.get("/primes/many").status_code == 422
        assert client.get("/stats").json() == {"queued": 0, "running": 0, "done": 1, "failed": 0}


def test_a_client_that_hangs_up_cancels_its_job() -> None:
    port = free_port()
    with serving(service(port), port) as (_, client):
        with socket.create_connection(("127.0.0.1", port)) as impatient:
            impatient.sendall(f"GET /primes/{FOREVER} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            wait_for(lambda: client.get("/stats").json()["running"])
        wait_for(lambda: not client.get("/stats").json()["running"])
        assert client.get("/primes/10").json()["primes"] == 4


def test_at_term_the_service_answers_what_it_has() -> None:
    port = free_port()
    with serving(service(port), port) as (program, client), socket.create_connection(("127.0.0.1", port)) as last:
        last.sendall(b"GET /primes/60000 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        wait_for(lambda: client.get("/stats").json()["running"])
        everybody = descendants(program.pid)
        program.send_signal(signal.SIGTERM)
        answer = b""
        while data := last.recv(65536):
            answer += data
        assert b'"primes":6057' in answer
        assert program.wait(SECONDS) in (0, -signal.SIGTERM)
        wait_for(lambda: not any(alive(pid) for pid in everybody))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_several_processes_of_a_server_leave_nothing(number: int) -> None:
    port = free_port()
    with serving(uvicorn(port, "--workers", "3"), port, servers=3) as (program, client):
        assert client.get("/primes/100").json()["primes"] == 25
        everybody = descendants(program.pid)
        for pid in everybody if number == signal.SIGINT else {program.pid}:  # Ctrl-C is for all of a terminal
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        program.wait(SECONDS)
        wait_for(lambda: not any(alive(pid) for pid in everybody))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_server_that_reloads_leaves_nothing(tmp_path: Path, number: int) -> None:
    """Its pool ends with each version of the program, and the last one with the server."""
    for path in (SERVICE, SERVICE.parent / "arguments.py"):
        shutil.copy(path, tmp_path)
    port = free_port()
    with serving(uvicorn(port, "--reload", "--reload-dir", str(tmp_path), folder=tmp_path), port) as (program, client):
        bosses = {pid for pid in descendants(program.pid) if processes.children(pid)} - {program.pid}
        with (tmp_path / SERVICE.name).open("a") as file:
            file.write("NEW = 1\n")
        wait_for(lambda: not any(alive(pid) for pid in bosses), SECONDS)
        wait_for(lambda: len(descendants(program.pid)) >= 4, SECONDS)
        wait_for(lambda: answer_of(client, "/primes/100") == 25, SECONDS)
        everybody = descendants(program.pid)
        for pid in everybody if number == signal.SIGINT else {program.pid}:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        program.wait(SECONDS)
        wait_for(lambda: not any(alive(pid) for pid in everybody))


def answer_of(client: Any, path: str) -> int | None:
    """None while the server is not up again."""
    with suppress(httpx.TransportError):
        answer: int = client.get(path).json()["primes"]
        return answer
    return None


# -- thumbnails -----------------------------------------------------------------------------------------------


def thumbnails(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    pytest.importorskip("PIL")
    return run(THUMBNAILS, "--images", folder / "in", "--out", folder / "out", *arguments)


def test_thumbnails_are_made_once(tmp_path: Path) -> None:
    ended = thumbnails(tmp_path, "--count", 30, "--size", 16)
    assert (ended.returncode, ended.stdout) == (0, "30 images, 30 thumbnails made, 0 failed\n")
    assert "made: 30 of 30, 0 failed" in ended.stderr
    made = {path: path.stat().st_mtime for path in (tmp_path / "out").iterdir()}
    assert len(made) == 30
    from PIL import Image

    for path in made:
        with Image.open(path) as image:
            assert max(image.size) == 16
    (tmp_path / "out" / "image-00003.jpg.jpg").unlink()
    os.utime(tmp_path / "in" / "image-00005.jpg", (time.time() + 10, time.time() + 10))
    (tmp_path / "in" / "broken.png").write_bytes(b"no image")
    ended = thumbnails(tmp_path)
    assert ended.returncode == 1
    first, second = ended.stdout.splitlines()
    assert first == "31 images, 2 thumbnails made, 1 failed"
    assert re.fullmatch(r"failed \(exception\): .*/broken\.png: UnidentifiedImageError: .*", second)
    again = {path: path.stat().st_mtime for path in (tmp_path / "out").iterdir()}
    assert {path.name for path in again if again[path] != made[path]} == {"image-00003.jpg.jpg", "image-00005.jpg.jpg"}


def test_thumbnails_go_on_after_an_interruption(tmp_path: Path) -> None:
    pytest.importorskip("PIL")
    argv = command(THUMBNAILS, "--images", tmp_path / "in", "--out", tmp_path / "out", "--count", 60)
    program = subprocess.Popen(argv, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: (tmp_path / "out").exists() and len(list((tmp_path / "out").glob("*.jpg"))) > 4, SECONDS)
    program.send_signal(signal.SIGINT)
    program.communicate(timeout=SECONDS)
    assert program.returncode == 130
    assert not list((tmp_path / "out").glob("*.part"))
    there = len(list((tmp_path / "out").glob("*.jpg")))
    ended = thumbnails(tmp_path)
    assert (ended.returncode, ended.stdout) == (0, f"60 images, {60 - there} thumbnails made, 0 failed\n")
