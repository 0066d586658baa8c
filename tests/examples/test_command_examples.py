"""The examples that run commands: over a pool, detached, and from a browser."""

from __future__ import annotations

import base64
import gzip
import hashlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import pytest

from bossworker import jobs
from bossworker.system import processes
from tests.conftest import wait_for
from tests.examples.runner import PROJECT, check_clean, command, environment, run

MAP_COMMANDS = PROJECT / "examples" / "map_commands.py"
WEB_JOBS = PROJECT / "examples" / "web_jobs.py"
EXTESTER = PROJECT / "examples" / "extester.py"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    (tree / "below").mkdir(parents=True)
    (tree / "a.txt").write_text("a\nb\n" * 500)
    (tree / "below" / "b 'quoted'.txt").write_text("c\n")
    (tree / os.fsdecode(b"\xff.txt")).write_text("")
    (tree / "other.bin").write_text("x")
    return tree


# -- map_commands ---------------------------------------------------------------------------------------


def test_compress(tree: Path, tmp_path: Path) -> None:
    ended = run(MAP_COMMANDS, tree, "--do", "gzip", "--pattern", "*.txt", "--root", tmp_path / "jobs")
    check_clean(ended)
    assert "3 files, 0 failed" in ended.stdout
    assert f"job directories: {tmp_path / 'jobs'}" in ended.stdout
    ids = jobs.listing(tmp_path / "jobs")
    packed = [jobs.result(one, "compressed.gz", text=False, root=tmp_path / "jobs") for one in ids]
    assert sorted(gzip.decompress(one or b"") for one in packed) == [b"", b"a\nb\n" * 500, b"c\n"]


def test_hash_and_count(tree: Path, tmp_path: Path) -> None:
    ended = run(MAP_COMMANDS, tree, "--pattern", "*", "--root", tmp_path / "jobs")
    check_clean(ended)
    told = {jobs.stdout(one, root=tmp_path / "jobs").lstrip("\\").split()[0] for one in jobs.listing(tmp_path / "jobs")}
    assert told == {hashlib.sha256(one.read_bytes()).hexdigest() for one in tree.rglob("*") if one.is_file()}
    ended = run(MAP_COMMANDS, tree, "--do", "count", "--pattern", "*.txt", "--root", tmp_path / "more")
    check_clean(ended)
    assert "1,001 lines" in ended.stdout


def test_failures_are_in_a_table(tree: Path, tmp_path: Path) -> None:
    (tree / "gone.txt").symlink_to("/no/such/file")
    ended = run(MAP_COMMANDS, tree, "--pattern", "*.txt", "--root", tmp_path / "jobs")
    assert ended.returncode == 1
    header, row, reason, *_ = ended.stdout.splitlines()
    assert header.split() == ["status", "error", "file"]
    assert re.fullmatch(r"terminated by error +exit code 1 +.*/gone\.txt", row)
    assert "No such file or directory" in reason
    assert "4 files, 1 failed" in ended.stdout


def test_a_root_that_cannot_be_made_is_named(tree: Path) -> None:
    ended = run(MAP_COMMANDS, tree, "--pattern", "*.txt", "--root", tree / "a.txt")
    assert ended.returncode == 1
    assert f"root cannot be made: Not a directory: '{tree / 'a.txt'}'" in ended.stdout


@pytest.mark.parametrize("args", [["/no/such/folder"], ["--workers", "0"], ["--do", "nonsense"]])
def test_bad_arguments(args: list[str]) -> None:
    ended = run(MAP_COMMANDS, *args)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "usage:" in ended.stderr


# -- extester -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dashes", ["--", "-"])
def test_extester_does_as_told(tmp_path: Path, dashes: str) -> None:
    options = "stdin", "stdout", "stderr", "repeat", "exit", "create"
    stdin, stdout, stderr, repeat, code, create = (dashes + name for name in options)
    ended = run(
        EXTESTER, stdin, stdout, "out", stderr, "err", repeat, 2, code, 5,
        create, "a.tmp=5", "few/new/dirs/b.tmp=13", "an/empty/dir/=0", cwd=tmp_path, input="in\n",
    )  # fmt: skip
    assert (ended.returncode, ended.stdout, ended.stderr) == (5, "in\nout\nout\n", "err\nerr\n")
    assert (tmp_path / "a.tmp").read_text() == "01234"
    assert (tmp_path / "few/new/dirs/b.tmp").read_text() == "0123456789012"
    assert (tmp_path / "an/empty/dir").is_dir()
    assert run(EXTESTER, "--kill", 15).returncode == -signal.SIGTERM
    assert run(EXTESTER, "--create", "nonsense").returncode == 2


@pytest.mark.parametrize("name", ["{outside}", "../outside", "a/../../outside", ".."])
def test_extester_makes_nothing_elsewhere(tmp_path: Path, name: str) -> None:
    here = tmp_path / "here"
    here.mkdir()
    ended = run(EXTESTER, "--create", name.format(outside=tmp_path / "outside") + "=3", cwd=here)
    assert ended.returncode == 2
    assert "below this folder" in ended.stderr
    assert os.listdir(tmp_path) == ["here"]


# -- web_jobs -------------------------------------------------------------------------------------------


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address, with its token, that a server in a process of its own prints."""
    root = tmp_path / "jobs"
    monkeypatch.setenv("BOSSWORKER_ROOT", str(root))
    argv = command(WEB_JOBS, "--port", 0, "--root", root)
    with subprocess.Popen(argv, env=environment(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


@pytest.fixture
def browser(server: str) -> Iterator[httpx.Client]:
    """One that has opened the address."""
    with httpx.Client(base_url=server.partition("?")[0], timeout=20) as client:
        answer = client.get(server)
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        assert "HttpOnly" in answer.headers["set-cookie"]
        assert "SameSite=Strict" in answer.headers["set-cookie"]
        yield client


def start(browser: httpx.Client, args: str, program: str = "extester") -> str:
    """Start a job as the form does; where the browser is sent."""
    answer = browser.post("/jobs", data={"program": program, "args": args})
    assert answer.status_code == 303, answer.text
    return answer.headers["location"]


def ended(browser: httpx.Client, job: str) -> dict[str, object]:
    told = wait_for(lambda: (now := browser.get(f"{job}/status").json())["status"] != "running" and now)
    assert isinstance(told, dict)
    return told


def test_a_job_by_browser(browser: httpx.Client) -> None:
    job = start(browser, "--stdout '<b>out</b>' --stderr err --create a.txt=5 'b/c d.txt=3' --exit 5")
    told = ended(browser, job)
    assert (told["status"], told["files"]) == ("terminated by error", ["a.txt", "b/c d.txt"])
    page = browser.get(job).text
    assert "&lt;b&gt;out&lt;/b&gt;" in page
    assert "<b>out" not in page
    assert "exit code 5" in page
    assert f'href="{job}/files/b/c%20d.txt"' in page
    assert browser.get(f"{job}/files/b/c%20d.txt").content == b"012"
    assert browser.get(f"{job}/stdout").text == "<b>out</b>\n"
    assert browser.get(f"{job}/stderr").text == "err\n"
    assert job.removeprefix("/jobs/") in browser.get("/").text
    assert browser.post(f"{job}/clean").headers["location"] == "/"
    assert browser.get(job).status_code == 404
    assert browser.get(f"{job}/status").json() == {"status": "unknown", "details": [], "files": []}


def test_a_running_job_by_browser(browser: httpx.Client) -> None:
    begun = time.monotonic()
    job = start(browser, "--stdout tick --repeat 1000 --sleep 0.05")
    assert time.monotonic() - begun < 20  # it did not wait for the 50 seconds
    assert browser.get(f"{job}/status").json()["status"] == "running"
    with browser.stream("GET", f"{job}/stdout") as stream:
        assert next(stream.iter_text()).startswith("tick\n")
    assert browser.post(f"{job}/kill").headers["location"] == job
    assert ended(browser, job)["status"] == "terminated by request"
    assert "terminated by signal 9" in browser.get(job).text


IDS = [
    "..",
    "%2e%2e",
    "..%2f..%2fetc",
    "%2fetc",
    "x" * 5000,
    "%00",
    "%ff%fe",
    "20260101-000000-000000-" + "0" * 20,
    "*",
]


def test_many_who_follow_keep_nobody_waiting(browser: httpx.Client) -> None:
    job = start(browser, "--sleep 60")
    with ExitStack() as followers:
        for _ in range(50):  # more than the threads that the server has for all
            followers.enter_context(browser.stream("GET", f"{job}/stdout"))
        assert browser.get(f"{job}/status").json()["status"] == "running"
        browser.post(f"{job}/kill")


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_whoever_hangs_up_while_nothing_comes_is_let_go(browser: httpx.Client) -> None:
    job = start(browser, "--sleep 60")
    for _ in range(4):
        with ExitStack() as followers:
            for _ in range(60):  # more than may follow at a time, in the end
                followers.enter_context(browser.stream("GET", f"{job}/stdout"))

    (server,) = [
        pid for pid in processes.children(os.getpid()) if b"web_jobs" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    threads = len(os.listdir(f"/proc/{server}/task"))
    assert threads < 60, "as many as the server has for all, and not one for each that ever followed"
    with browser.stream("GET", f"{job}/stdout") as answer:
        assert answer.status_code == 200
    browser.post(f"{job}/kill")


def test_of_much_output_the_page_shows_the_end(browser: httpx.Client) -> None:
    job = start(browser, "--stdout " + "x" * 1000 + " --repeat 200")
    assert ended(browser, job)["status"] == "completed"
    shown = browser.get(job).text.partition("<pre>")[2].partition("</pre>")[0]
    assert len(shown) == 1 << 16
    followed = browser.get(f"{job}/stdout").text
    assert len(followed) == 200 * 1001


def test_forms_of_other_pages(browser: httpx.Client) -> None:
    order = {"program": "date", "args": ""}
    for origin in ("http://evil.example", "http://127.0.0.1:1", "null", "http://[", "x" * 5000):
        assert browser.post("/jobs", data=order, headers={"Origin": origin}).status_code == 403, origin
    assert browser.post("/jobs", data=order, headers={"Host": "evil.example"}).status_code == 403
    assert "/jobs/" not in browser.get("/").text.replace('action="/jobs"', "")
    own = str(browser.base_url).rstrip("/")
    for site, status in (("cross-site", 403), ("same-site", 403), ("same-origin", 303), ("none", 303)):
        assert browser.post("/jobs", data=order, headers={"Origin": own, "Sec-Fetch-Site": site}).status_code == status


def test_a_local_user_without_the_token(browser: httpx.Client) -> None:
    job = start(browser, "--sleep 60")
    with httpx.Client(base_url=browser.base_url) as stranger:
        for path in ("/", job, f"{job}/status", f"{job}/stdout", "/?token=", "/?token=x", "/?token=%ff"):
            assert stranger.get(path).status_code == 403, path
        for path in (f"{job}/kill", f"{job}/clean"):
            assert stranger.post(path).status_code == 403
        assert stranger.post("/jobs", data={"program": "date", "args": ""}).status_code == 403
        stranger.cookies.set("web_jobs", "x" * 43)
        assert stranger.get("/", headers={"Authorization": "Bearer nonsense"}).status_code == 403
        token = browser.cookies["web_jobs"]
        stranger.cookies.clear()
        assert stranger.get("/", headers={"Authorization": f"Bearer {token}"}).status_code == 200
    assert browser.get(f"{job}/status").json()["status"] == "running"
    browser.post(f"{job}/kill")


def test_no_other_page_may_frame_or_script_it(browser: httpx.Client) -> None:
    job = start(browser, "--stdout '<script>alert(1)</script>' --create a.html=1")
    ended(browser, job)
    for path in ("/", job, f"{job}/stdout", f"{job}/status", f"{job}/files/a.html", "/nothing"):
        headers = browser.get(path).headers
        assert headers["x-frame-options"] == "DENY"
        assert headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
    style = re.search(r"<style>(.*?)</style>", browser.get("/").text, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert f"'sha256-{digest}'" in browser.get("/").headers["content-security-policy"]


def test_a_large_form_stops_nobody(browser: httpx.Client) -> None:
    """It is refused before it is read; and the largest that is not refused keeps no other visitor waiting."""
    for size in (1 << 20, 1 << 24):
        answer = browser.post("/jobs", content=b"program=extester&args=" + b"a" * size, headers={"Content-Type": FORM})
        assert answer.status_code == 413

    def endless() -> Iterator[bytes]:  # without a Content-Length
        for _ in range(100):
            yield b"a" * 10_000

    with suppress(httpx.WriteError):  # it need not have read all of it
        assert browser.post("/jobs", content=endless(), headers={"Content-Type": FORM}).status_code == 413
    largest = b"program=extester&args=--stdout+" + b"a" * 65_000
    assert browser.post("/jobs", content=largest, headers={"Content-Type": FORM}).status_code == 303
    assert browser.get("/").status_code == 200


def test_clients_that_send_and_read_slowly_stop_nobody(browser: httpx.Client) -> None:
    host, port, token = browser.base_url.host, browser.base_url.port, browser.cookies["web_jobs"]
    job = start(browser, "--stdout tick --repeat 1000 --sleep 0.05")
    with ExitStack() as slow:
        for n in range(60):  # more than the threads that the server has for all
            sock = slow.enter_context(socket.create_connection((host, port), 20))
            way = "POST /jobs HTTP/1.1\r\nContent-Length: 100" if n % 2 else f"GET {job}/stdout HTTP/1.1"
            sock.sendall(f"{way}\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n\r\npro".encode())
        assert browser.get(f"{job}/status").json()["status"] == "running"
        assert ended(browser, start(browser, "--stdout fine"))["status"] == "completed"
        browser.post(f"{job}/kill")


def test_names_that_are_no_utf8(browser: httpx.Client) -> None:
    answer = browser.post(
        "/jobs", content=b"program=extester&args=--create+%ED%A0%80%FF.txt=3", headers={"Content-Type": FORM}
    )
    assert answer.status_code == 303
    job = answer.headers["location"]
    ended(browser, job)
    folder = Path(os.environ["BOSSWORKER_ROOT"]) / job.removeprefix("/jobs/") / "files"
    Path(os.fsdecode(bytes(folder) + b"/a\xff.txt")).write_text("odd")
    assert "a\udcff.txt" in browser.get(f"{job}/status").json()["files"]
    page = browser.get(job)
    assert page.status_code == 200
    assert "/files/a%FF.txt" in page.text
    assert browser.get(f"{job}/files/a%FF.txt").content == b"odd"


FORM = "application/x-www-form-urlencoded"


def test_hostile_requests(browser: httpx.Client) -> None:
    for jobid in IDS:
        for path in ("", "/stdout", "/stderr", "/files/a", "/files/passwd"):
            assert raw(browser, "GET", f"/jobs/{jobid}{path}") in (400, 404, 405)
        for path in ("/kill", "/clean"):
            assert raw(browser, "POST", f"/jobs/{jobid}{path}") in (400, 404, 405)
    for data in ({"program": "sh", "args": "-c id"}, {}, {"program": "extester", "args": "'unbalanced"}):
        assert browser.post("/jobs", data=data).status_code == 400
    job = start(browser, "--create a.txt=1")
    ended(browser, job)
    for name in FILES:
        assert raw(browser, "GET", f"{job}/files/{name}") in (400, 404), name
    assert raw(browser, "GET", f"{job}/files/a.txt") == 200
    assert raw(browser, "GET", f"{job}/job.json") == 404


FILES = ["../job.json", "..%2fjob.json", "%2e%2e/stdout", "/etc/passwd", "%2fetc%2fpasswd", "a.txt/", "a.txt%00", ""]


def raw(browser: httpx.Client, method: str, path: str) -> int:
    """A request whose path nobody tidies up on the way; its status."""
    host, port = browser.base_url.host, browser.base_url.port
    with socket.create_connection((host, port), 20) as sock:
        token = browser.cookies["web_jobs"]
        head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n"
        sock.sendall(f"{head}Content-Length: 0\r\nConnection: close\r\n\r\n".encode())
        return int(sock.makefile("rb").readline().split()[1])
