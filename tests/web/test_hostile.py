"""Requests that nobody in their right mind sends, to a page that is served: none does harm, nor gets in."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

import bossworker
from bossworker import BossWorker, jobs
from bossworker.cli import job_entries, queue_files
from bossworker.cli.queue_files import GroupSettings, QueueFolder
from bossworker.pool.caller.operating import Operator
from bossworker.web import answering, connections, snapshots
from bossworker.web.job_queries import JobQuery
from bossworker.web.plain_json import to_json
from bossworker.web.serving import PageServer
from bossworker.web.watched_pool import PoolAway, WatchedPool
from tests.conftest import wait_for
from tests.web.conftest import InProcess, client_of
from tests.web.test_page import Pool, Serve, one_pool, work

NASTY = "<script>window.harmed = 1</script><img src=x onerror=alert(1)>"
GETS = (
    "/", "/api/state", "/api/about", "/assets/main.js", "/api/jobs/mill", "/api/jobs/mill/1", "/api/jobs/mill/1/stack",
    "/api/jobs/mill/1/lines", "/api/jobs/mill/1/output", "/api/pools/mill/history", "/api/pools/mill/timeline",
    "/api/pools/mill/stack", "/api/pools/mill/trace", "/api/commands", "/api/commands/x", "/api/commands/x/output",
    "/api/commands/x/stack", "/api/tasks", "/api/tasks/x", "/api/tasks/x/output", "/api/tasks/x/messages",
    "/api/journals/x", "/api/journals/x/1", "/metrics",
)  # fmt: skip
POSTS = (
    "/api/pools/mill/pause", "/api/pools/mill/resume", "/api/pools/mill/resize", "/api/pools/mill/reload",
    "/api/jobs/mill/cancel", "/api/jobs/mill/retry", "/api/commands/cancel", "/api/commands/retry",
    "/api/commands/signal", "/api/commands/pause", "/api/commands/resume", "/api/commands/clean",
    "/api/tasks/x/stdin", "/api/tasks/x/data", "/api/tasks/x/close", "/api/tasks/x/signal", "/api/tasks/x/pause",
    "/api/tasks/x/resume", "/api/tasks/x/restart", "/api/tasks/x/delete", "/api/journals/x/retry",
    "/api/journals/x/forget",
)  # fmt: skip


class Server:
    """A page of nothing, served by a thread of this process: what it is patient with can be set."""

    def __init__(self, **settings: Any) -> None:
        self.served = PageServer([], **settings)
        self._stop: Callable[[], None] = lambda: None
        self._begun = threading.Event()
        self._thread = threading.Thread(target=self.served.run, args=(self._watch,))
        self._thread.start()
        assert self._begun.wait(30)

    def _watch(self, stop: Callable[[], None]) -> None:
        self._stop = stop
        self._begun.set()

    def client(self) -> httpx.Client:
        return client_of(self.served.url)

    @property
    def token(self) -> str:
        return self.served.url.partition("token=")[2]

    @property
    def watchers(self) -> int:
        return self.served.page.room.watchers

    def connect(self) -> socket.socket:
        address = urlsplit(self.served.url)
        return socket.create_connection((address.hostname, address.port), timeout=60)

    def send(self, text: str) -> socket.socket:
        """A connection that this has been sent on, with the token."""
        sock = self.connect()
        sock.sendall(text.replace("TOKEN", self.token).replace("\n", "\r\n").encode())
        return sock

    def close(self) -> None:
        self._stop()
        self._thread.join(30)


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    made: list[Server] = []

    def start(**settings: Any) -> Server:
        made.append(Server(**settings))
        return made[-1]

    yield start
    for one in made:
        one.close()


@pytest.fixture
def app() -> Iterator[Callable[..., InProcess]]:
    made: list[Any] = []

    def make(*pools: BossWorker, **settings: Any) -> InProcess:
        made.append(bossworker.web.app(*pools, **{"token": None, **settings}))
        return InProcess(made[-1])

    yield make
    for one in made:
        one.close()


def all_of(sock: socket.socket) -> bytes:
    """What comes until the other end hangs up."""
    parts = []
    try:
        while part := sock.recv(1 << 16):
            parts.append(part)
    except ConnectionResetError:
        pass
    finally:
        sock.close()
    return b"".join(parts)


def status_of(sock: socket.socket) -> int:
    """Of the first answer."""
    told = sock.recv(1 << 12)
    sock.close()
    return int(told.split(b" ", 2)[1])


# -- who gets in --------------------------------------------------------------------------------------------------


def test_without_the_token_there_is_nothing(pool: Pool, page: Serve) -> None:
    client = page(pool(work, worker_count=1, name="mill"))
    one_pool(client)
    base, token = str(client.base_url).rstrip("/"), client.headers["authorization"].removeprefix("Bearer ")
    ways: list[dict[str, Any]] = [
        {},
        {"headers": {"authorization": "Bearer"}},
        {"headers": {"authorization": f"Basic {token}"}},
        {"headers": {"authorization": f"Bearer {token[:-1]}"}},
        {"headers": {"authorization": f"Bearer {token}"}, "params": {"token": "wrong"}},
        {"headers": {"cookie": f"bossworker_page={token}"}},  # it is called otherwise at a port
        {"params": {"token": token.swapcase()}},
    ]
    with httpx.Client(base_url=base, trust_env=False, timeout=30) as stranger:
        for path in (*GETS, "/events", "/nonsense"):
            for way in ways if path in ("/", "/api/state") else ways[:1]:
                answer = stranger.get(path, **way)
                assert (answer.status_code, "token is needed" in answer.text) == (403, True), (path, way)
                assert "set-cookie" not in answer.headers
        for path in POSTS:
            assert stranger.post(path, json={}).status_code == 403, path
        for method in ("OPTIONS", "PUT", "DELETE", "TRACE"):
            assert stranger.request(method, "/api/state").status_code == 403, method


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example"},
        {"host": "127.0.0.1.evil.example"},
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "none, same-origin"},
    ],
    ids=str,
)
def test_other_pages_and_names_get_nothing_with_the_token_either(
    serve: Callable[..., Server], headers: dict[str, str]
) -> None:
    with serve().client() as client:
        assert client.get("/api/state").status_code == 200
        for path in ("/", "/api/state", "/assets/main.js", "/events"):
            assert client.get(path, headers=headers).status_code == 403
        assert client.post("/api/commands/cancel", json={"ids": []}, headers=headers).status_code == 403


def test_two_hosts_are_none(serve: Callable[..., Server]) -> None:
    server = serve()
    head = "GET /api/state HTTP/1.1\nAuthorization: Bearer TOKEN\nHost: localhost\n"
    assert status_of(server.send(f"{head}\n")) == 200
    assert status_of(server.send(f"{head}Host: evil.example\n\n")) == 400
    assert status_of(server.send("GET /api/state HTTP/1.0\nAuthorization: Bearer TOKEN\n\n")) == 403
    assert status_of(server.send("GET http://evil.example/ HTTP/1.1\nAuthorization: Bearer TOKEN\n\n")) == 400


def test_read_only_takes_no_order(app: Callable[..., InProcess], pool: Pool) -> None:
    bw = pool(work, worker_count=1, name="mill")
    client = app(bw, read_only=True)
    for path in POSTS:
        assert client.post(path, content=b'{"ids": []}').status_code == 403, path
    for path in GETS:  # and nothing of a look is an order
        assert client.get(path).status_code in (200, 404, 409, 503), path
        assert client.post(path, content=b"{}").status_code == 403, path
    assert (bw.stats().paused, len(bw.worker_pids)) == (False, 1)


def test_read_only_does_not_start_the_process_of_a_queue(
    app: Callable[..., InProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it is after the machine was started anew: commands wait, and nobody sees to them."""
    folder = QueueFolder("default")
    folder.settings = GroupSettings(paused=True)
    command = {"cmd": ["true"], "shell": False, "env": {}, "cwd": None, "timeout": 0, "memory": 0, "meta": {}}
    entry = job_entries.add(folder, command, after=[], not_before=0.0, priority=0)
    folder._write("settings.json", GroupSettings()._asdict())
    begun = threading.Event()

    def start(folder: QueueFolder) -> bool:
        begun.set()
        return True

    monkeypatch.setattr(QueueFolder, "_start_if_free", start)
    client = app(read_only=True)
    for _ in range(3):
        for path in ("/api/commands", "/api/commands?status=queued", f"/api/commands/{entry.id}"):
            assert client.get(path).status_code == 200
    assert client.get("/api/commands").json()["rows"][0]["status"] == "queued"
    assert not begun.is_set()
    assert not os.path.exists(folder.socket)
    other = app()
    assert other.get("/api/commands").json()["total"] == 1
    assert begun.wait(30)  # one that may steer has somebody see to it, as `bossworker ps` has


def test_a_queue_whose_process_does_not_start_holds_up_nobody(
    app: Callable[..., InProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_files, "START_SECONDS", 0.1)
    monkeypatch.setattr(QueueFolder, "_start_if_free", lambda folder: False)
    folder = QueueFolder("default")
    folder.put({"id": "20260101-000000-000000-" + "0" * 20, "command": {"cmd": ["true"], "shell": False, "env": {},
               "cwd": None, "timeout": 0, "meta": {}}, "created": 0.0, "after": [], "not_before": 0.0})  # fmt: skip
    client = app()
    assert client.get("/api/commands").json()["total"] == 1
    wait_for(lambda: "does not start" in client.get("/api/commands").json()["trouble"])


# -- bodies -------------------------------------------------------------------------------------------------------

HEAD = "POST /api/commands/cancel HTTP/1.1\nHost: localhost\nAuthorization: Bearer TOKEN\n"


def test_bodies_are_bounded(serve: Callable[..., Server]) -> None:
    server = serve()
    assert status_of(server.send(f'{HEAD}Content-Length: 11\n\n{{"ids": []}}')) == 200
    assert status_of(server.send(f"{HEAD}Content-Length: 1048577\n\n")) == 413  # before any of it is sent
    assert status_of(server.send(f"{HEAD}Content-Length: {'9' * 30}\n\n")) in (400, 413)
    for odd in ("-1", "1e3", "0x10", "1, 1000", "", "1 1"):
        assert status_of(server.send(f"{HEAD}Content-Length: {odd}\n\n")) in (400, 413), odd
    assert status_of(server.send(f"{HEAD}Content-Length: 11\nContent-Length: 12\n\n")) == 400
    assert status_of(server.send(f"{HEAD}Content-Length: 2\nTransfer-Encoding: chunked\n\n0\n\n")) in (200, 400)
    assert status_of(server.send(f"{HEAD}Transfer-Encoding: gzip\n\n")) in (400, 501)
    chunk = f"{1 << 16:x}\n{'x' * (1 << 16)}\n"
    sock = server.send(f"{HEAD}Transfer-Encoding: chunked\n\n")
    try:
        for _ in range(100):
            sock.sendall(chunk.replace("\n", "\r\n").encode())
    except OSError:  # it has hung up
        pass
    assert status_of(sock) == 413
    with server.client() as client:
        assert client.get("/api/state").status_code == 200


def test_a_body_that_does_not_come_is_not_waited_for(
    serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answering, "BODY_SECONDS", 0.1)
    assert status_of(serve().send(f"{HEAD}Content-Length: 100\n\nx")) == 408


@pytest.mark.parametrize(
    "body",
    [
        "[", "[]", "null", "1", '"x"', "\ud800", "{", '{"ids": 1}', '{"ids": "12"}', '{"ids": {"1": 2}}', "{}",
        '{"ids": [-1]}', '{"ids": [1.5]}', '{"ids": [NaN]}', '{"ids": [[]]}', '{"ids": [null]}', '{"query": []}',
        '{"query": "failed"}', '{"query": {"status": 5}}', '{"query": {"status": "queued", "since": "NaN"}}',
        '{"query": {"status": "queued", "since": 1e999}}', '{"query": {"status": "queued", "since": {}}}',
        "[" * 100_000, '{"a":' * 100_000, '{"ids": [' + "9" * 5000 + "]}",
    ],
    ids=lambda body: ascii(body)[:40],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(app: Callable[..., InProcess], pool: Pool, body: str) -> None:
    bw = pool(work, worker_count=1, name="mill")
    bw.pause()
    bw.add_work({}, {})
    client = app(bw)
    answer = client.post("/api/jobs/mill/cancel", content=body.encode("utf-8", "surrogatepass"))
    assert answer.status_code == 400, answer.text
    assert bw.stats().queued == 2


@pytest.mark.parametrize("order", ["resize", "reload", "forget", "signal", "stdin"])
def test_an_order_without_what_it_needs_is_refused(app: Callable[..., InProcess], pool: Pool, order: str) -> None:
    client = app(pool(work, worker_count=1, name="mill"))
    where = {"forget": "journals/x", "signal": "commands", "stdin": "tasks/x"}.get(order, "pools/mill")
    for body in (b"{}", b'{"workers": [], "signal": {}, "handler": [], "text": 5, "older_than": "x"}'):
        assert client.post(f"/api/{where}/{order}", content=body).status_code in (400, 404, 409, 503)


def test_an_id_that_is_named_twice_is_meant_once(app: Callable[..., InProcess]) -> None:
    jobid = jobs.start(["false"])
    jobs.wait(jobid, 60)
    told = app().post("/api/commands/retry", content=json.dumps({"ids": [jobid] * 3})).json()
    assert (told["count"], told["of"]) == (1, 1)
    again = wait_for(lambda: [one for one in jobs.listing() if one != jobid])
    assert len(again) == 1
    jobs.wait(again[0], 60)


# -- what is asked for --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["/api/jobs/mill", "/api/pools/mill/timeline", "/api/commands", "/api/jobs/mill/1/lines"]
)
@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e999", "x", "%00", "9" * 400, "-", "1_0", "٣"])
def test_numbers_that_are_none(app: Callable[..., InProcess], pool: Pool, path: str, value: str) -> None:
    client = app(pool(work, worker_count=1, name="mill"))
    for name in ("since", "until", "offset", "limit"):
        answer = client.get(f"{path}?{name}={value}")
        assert answer.status_code in (200, 400), (name, answer.text)
        json.loads(answer.text, parse_constant=pytest.fail)  # a browser takes no NaN


@pytest.mark.parametrize(
    "path",
    [
        "/assets/../routes.py", "/assets/%2e%2e/routes.py", "/assets/..%2froutes.py", "/assets//etc/passwd",
        "/assets/%2fetc%2fpasswd", "/assets/vendor/../../routes.py", "/assets/main.js%00.css", "/assets/", "/assets",
        "/api/commands/..%2f..%2fetc%2fpasswd/output", "/api/commands/%2e%2e/output", "/api/commands/./output",
        "/api/tasks/..%2f..%2fetc/output", "/api/journals/..%2fx", "/api/jobs/..%2fx/1", "//etc/passwd", "/..;/",
    ],
)  # fmt: skip
def test_no_path_leads_elsewhere(serve: Callable[..., Server], path: str) -> None:
    server = serve()
    sock = server.send(f"GET {path} HTTP/1.1\nHost: localhost\nConnection: close\nAuthorization: Bearer TOKEN\n\n")
    told = all_of(sock)
    assert int(told.split(b" ", 2)[1]) in (400, 404, 503), told
    assert b"root:" not in told
    assert b"def " not in told


def test_nothing_but_the_page_itself_is_html(app: Callable[..., InProcess], pool: Pool) -> None:
    bw = pool(work, worker_count=1, name=NASTY, logs="relay")
    client = app(bw)
    bw.add_work({"do": "raise", "n": NASTY, NASTY: NASTY})
    list(bw.results())
    jobid = jobs.start(["sh", "-c", f"echo '{NASTY}'", NASTY], meta={"name": NASTY, NASTY: NASTY})
    jobs.wait(jobid, 60)
    (told,) = wait_for(lambda: (found := client.get("/api/state").json()["pools"]) and not found[0]["away"] and found)
    key = httpx.URL(path=told["key"]).raw_path.decode().replace("/", "%2F")
    wait_for(lambda: client.get(f"/api/jobs/{key}").json()["total"] == 1)
    paths = [path.replace("mill", key).replace("commands/x", f"commands/{jobid}") for path in GETS]
    for path in [*paths, "/nonsense", f"/api/jobs/{NASTY}", f"/{NASTY}", "/api/jobs?x=" + NASTY]:
        answer = client.get(path)
        kind = answer.headers["content-type"].partition(";")[0]
        wanted = {"/": "text/html", "/assets/main.js": "text/javascript", "/metrics": "text/plain"}
        assert kind in (wanted.get(path, "application/json"), "text/plain"), path
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert path == "/" or kind != "text/html"


def test_any_text_of_a_command_is_told(app: Callable[..., InProcess]) -> None:
    """File names need not be UTF-8, and metadata may hold what JSON only has in Python."""
    jobid = jobs.start([b"/bin/echo".decode(), os.fsdecode(b"\xff\xfe"), "\x1b[31m\u202e"], meta={"x": "\ud800"})
    jobs.wait(jobid, 60)
    client = app()
    for path in ("/api/commands", f"/api/commands/{jobid}", f"/api/commands/{jobid}/output"):
        answer = client.get(path)
        assert answer.status_code == 200, path
        json.loads(answer.text)


def test_json_for_browsers() -> None:
    odd = {"a": [float("nan"), (float("inf"), 1.5)], "b": {"c": -float("inf")}, "d": "\ud800é", "e": True}
    told = to_json(odd)
    assert told.isascii()
    assert json.loads(told, parse_constant=pytest.fail) == {
        "a": [None, [None, 1.5]], "b": {"c": None}, "d": "\ud800é", "e": True
    }  # fmt: skip


# -- connections --------------------------------------------------------------------------------------------------


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Connections are looked at often; from when this is called on, with little patience."""
    monkeypatch.setattr(connections, "CHECKS", 1000)
    return lambda: monkeypatch.setattr(connections, "PATIENCE_SECONDS", 0.1)


def test_connections_that_ask_nothing_are_closed(serve: Callable[..., Server], impatient: Callable[[], None]) -> None:
    server = serve()
    silent = server.send("")
    begun = server.send("GET / HTTP/1.1\nHost: loc")
    answered = server.send("GET /api/state HTTP/1.1\nHost: localhost\n\n")
    assert b"HTTP/1.1 403" in answered.recv(1 << 12)
    impatient()
    assert all_of(silent) == b""  # and the other end hangs up
    assert all_of(begun) == b""
    all_of(answered)


def test_there_are_not_too_many_connections(serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MOST_CONNECTIONS", 3)
    server = serve()
    held = [server.send("GET / HT") for _ in range(3)]

    def is_refused() -> bool:
        try:
            return all_of(server.send("GET / HTTP/1.1\nHost: localhost\nConnection: close\n\n")) == b""
        except OSError:  # it hung up before we had said anything
            return True

    wait_for(is_refused)
    for sock in held:
        sock.close()
    wait_for(lambda: not is_refused())


def test_a_stream_that_nobody_reads_is_given_up(
    serve: Callable[..., Server], impatient: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve()
    monkeypatch.setattr(server.served.page.streams._shared, "latest", lambda: (time.monotonic_ns(), "x" * (1 << 20)))
    sock = server.send("GET /events HTTP/1.1\nHost: localhost\nAuthorization: Bearer TOKEN\n\n")
    wait_for(lambda: server.watchers == 1)
    impatient()
    wait_for(lambda: server.watchers == 0)
    sock.close()


def test_there_are_not_too_many_streams(serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "MOST_STREAMS", 2)
    server = serve()
    ask = "GET /events HTTP/1.1\nHost: localhost\nAuthorization: Bearer TOKEN\n\n"
    held = [server.send(ask) for _ in range(2)]
    wait_for(lambda: server.watchers == 2)
    assert status_of(server.send(ask)) == 503
    with server.client() as client:
        assert client.get("/api/state").status_code == 200  # all else goes on
    held[0].close()
    wait_for(lambda: server.watchers == 1)
    assert status_of(server.send(ask)) == 200
    held[1].close()


# -- pools that do not answer -------------------------------------------------------------------------------------


@contextmanager
def held(lock: Any) -> Iterator[Callable[[], bool]]:
    """Somebody waits for a pool that does not answer; whether they still do."""
    has, over = threading.Event(), threading.Event()

    def wait() -> None:
        with lock:
            has.set()
            over.wait(300)

    thread = threading.Thread(target=wait)
    thread.start()
    assert has.wait(30)
    yield thread.is_alive
    over.set()
    thread.join()


def test_a_pool_that_does_not_answer_holds_up_no_other(pool: Pool, app: Callable[..., InProcess]) -> None:
    stuck, good = pool(work, worker_count=1, name="stuck"), pool(work, worker_count=1, name="good")
    client = app(stuck, good)

    def state() -> dict[str, Any]:
        return {one["name"]: one for one in client.get("/api/state").json()["pools"]}

    wait_for(lambda: not any(one["away"] for one in state().values()))
    with held(client.app.room.pool("stuck").lock) as waits:
        assert state().keys() == {"stuck", "good"}
        good.add_work({})
        good.get_result()
        wait_for(lambda: state()["good"]["done"] == 1)
        assert client.get("/api/jobs/good").json()["total"] == 1
        assert waits()


def test_a_pool_that_is_away_is_not_waited_for() -> None:
    def connect() -> Any:
        raise ConnectionRefusedError("nobody is there")

    watched = WatchedPool("mill", "mill", connect)
    watched.look()
    with held(watched.lock) as waits:
        for ask in (
            lambda: watched.find(JobQuery(), 0, 10),
            lambda: watched.job(1),
            lambda: watched.ids(JobQuery(), 9),
        ):
            with pytest.raises(PoolAway, match="pool mill is away: nobody is there"):
                ask()
        assert waits()


def test_a_pool_that_answers_again_is_known_as_before(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    bw = pool(work, worker_count=1, name="mill")
    watched = WatchedPool("mill", "mill", lambda: bw)
    bw.add_work({"n": 1})
    bw.get_result()

    def is_seen() -> bool:
        watched.look()
        return watched.table.end_of(1) is not None

    wait_for(is_seen)

    def no_answer(*_: Any) -> Any:
        raise TimeoutError("it does not answer")

    with monkeypatch.context() as patch:
        patch.setattr(Operator, "now", no_answer)
        watched.look()
    assert watched.describe()["away"] == "it does not answer"
    watched.look()
    assert not watched.describe()["away"]
    assert watched.table.end_of(1) is not None


# -- the log ------------------------------------------------------------------------------------------------------


def test_each_order_has_a_line_in_the_log_also_one_that_is_refused(
    app: Callable[..., InProcess], pool: Pool, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level("INFO", "bossworker.web")
    client = app(pool(work, worker_count=1, name="mill"))
    assert client.post("/api/pools/mill/resize", content=b'{"workers": 0}').status_code == 409
    assert client.post("/api/pools/mill/reload", content=b'{"handler": "a\\nb"}').status_code == 409
    assert client.post("/api/jobs/mill/cancel", content=b'{"ids": [99]}').status_code == 200
    lines = [line for line in caplog.messages if line.startswith("order=")]
    assert lines[0].startswith("order=resize pool='mill' workers=0 refused='")
    assert lines[1].startswith("order=reload pool='mill' handler='a\\nb' refused=")
    assert lines[2].startswith("order=cancel pool='mill' jobs=1 done=0 by='the page")
    assert not any("\n" in line for line in lines)
