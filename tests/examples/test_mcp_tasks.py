"""The tool server for agents: tasks that outlive it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bossworker import jobs
from tests.conftest import wait_for
from tests.examples.runner import PROJECT, command, environment

SERVER = PROJECT / "examples" / "mcp_tasks.py"


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("BOSSWORKER_ROOT", str(tmp_path / "jobs"))
    yield
    for jobid in jobs.listing():
        jobs.clean(jobid)


class Agent:
    """A client of a server of its own."""

    def __init__(self, owner: str = "agent") -> None:
        pipe = subprocess.PIPE
        self.server = subprocess.Popen(
            command(SERVER, "--owner", owner), stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=environment()
        )
        self._last = 0

    def send(self, method: str, **params: Any) -> int:
        assert self.server.stdin is not None
        self._last += 1
        self.server.stdin.write(
            json.dumps({"jsonrpc": "2.0", "id": self._last, "method": method, "params": params}) + "\n"
        )
        self.server.stdin.flush()
        return self._last

    def answer(self) -> dict[str, Any]:
        assert self.server.stdout is not None
        return dict(json.loads(self.server.stdout.readline()))

    def ask(self, method: str, **params: Any) -> Any:
        number = self.send(method, **params)
        answer = self.answer()
        assert answer["id"] == number
        return answer["error"]["message"] if "error" in answer else answer["result"]

    def start(self, *argv: str, ttl: int = 60_000) -> dict[str, Any]:
        told = self.ask("tools/call", name="run_command", arguments={"command": argv}, task={"ttl": ttl})
        return dict(told["task"])

    def leave(self) -> None:
        _, err = self.server.communicate(timeout=60)
        assert (self.server.returncode, err) == (0, "")


@pytest.fixture
def agent() -> Iterator[Agent]:
    agent = Agent()
    yield agent
    if agent.server.poll() is None:
        agent.leave()


def test_a_task_outlives_its_server(agent: Agent, tmp_path: Path) -> None:
    assert "tasks" in agent.ask("initialize", protocolVersion="2025-11-25", capabilities={})["capabilities"]
    assert agent.ask("tools/list")["tools"][0]["execution"] == {"taskSupport": "optional"}
    task = agent.start("sh", "-c", f"echo hi; while [ ! -e {tmp_path}/go ]; do sleep 0.01; done; exit 3")
    assert (task["status"], task["ttl"]) == ("working", 60_000)
    agent.leave()

    other = Agent()
    assert [one["taskId"] for one in other.ask("tasks/list")["tasks"]] == [task["taskId"]]
    number = other.send("tasks/result", taskId=task["taskId"])  # which waits, and keeps nobody waiting
    assert other.ask("tasks/get", taskId=task["taskId"])["status"] == "working"
    (tmp_path / "go").touch()
    answer = other.answer()
    assert (answer["id"], answer["result"]["isError"]) == (number, True)
    assert answer["result"]["content"] == [{"type": "text", "text": "hi\n"}]
    found = other.ask("tasks/get", taskId=task["taskId"])
    assert (found["status"], found["statusMessage"].partition(";")[0]) == ("failed", "exit code 3")
    other.leave()


def test_a_call_without_a_task_waits_and_leaves_nothing(agent: Agent) -> None:
    told = agent.ask("tools/call", name="run_command", arguments={"command": ["rev"], "stdin": "ih\n"})
    assert (told["content"][0]["text"], told["isError"]) == ("hi\n", False)
    assert jobs.listing() == []


def test_cancelling(agent: Agent) -> None:
    task = agent.start("sleep", "600")
    wait_for(lambda: jobs.status(task["taskId"]) == "running")
    assert agent.ask("tasks/cancel", taskId=task["taskId"])["status"] == "cancelled"
    assert "has ended already" in agent.ask("tasks/cancel", taskId=task["taskId"])


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("no json", -32700),
        ("[1, 2]", -32600),
        ('{"id": 1, "method": "tools/destroy"}', -32601),
        ('{"id": 1, "method": "tasks/get"}', -32602),
        ('{"id": 1, "method": "tools/call", "params": {"name": "run_command", "arguments": {"command": []}}}', -32602),
        ('{"id": 1, "method": "tools/call", "params": {"name": "run_command", "arguments": 3}}', -32603),
    ],
)
def test_whoever_asks_for_nonsense_gets_an_answer(agent: Agent, line: str, code: int) -> None:
    assert agent.server.stdin is not None
    agent.server.stdin.write(f"{line}\n")
    agent.server.stdin.write('{"method": "notifications/initialized"}\n')
    agent.server.stdin.flush()
    assert agent.answer()["error"]["code"] == code
    assert agent.ask("ping") == {}


def test_strangers_and_time_to_live(agent: Agent) -> None:
    task = agent.start("true", ttl=1)
    stranger = Agent("somebody else")
    for jobid in (task["taskId"], "../../etc", None, 3):
        assert "there is no task" in stranger.ask("tasks/get", taskId=jobid)
    assert stranger.ask("tasks/list") == {"tasks": []}
    stranger.leave()
    jobs.wait(task["taskId"])
    wait_for(lambda: agent.ask("tasks/list") == {"tasks": []})
    assert jobs.listing() == []
    assert "must be a list" in agent.ask("tools/call", name="run_command", arguments={"command": "rm -rf"}, task={})
