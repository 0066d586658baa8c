"""A tool server for agents: one tool that runs commands, each a durable task of the Model Context Protocol.

    python examples/mcp_tasks.py [--owner NAME]

JSON-RPC over stdin and stdout, a message a line (MCP 2025-11-25). A task is a detached job: it goes on when this
server, the agent or both end, and whichever server of the same owner is started next answers for it.
"""

import argparse
import json
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from bossworker import jobs

TTL, POLL = 86_400_000, 500  # milliseconds that an ended task stays, and between looks
GRACE = 2.0  # seconds from TERM to KILL
TURN = threading.Lock()  # to print
STATES = {"created": "working", "running": "working", "completed": "completed", "terminated by request": "cancelled"}
HELLO = {
    "protocolVersion": "2025-11-25",
    "capabilities": {"tools": {}, "tasks": {"list": {}, "cancel": {}, "requests": {"tools": {"call": {}}}}},
    "serverInfo": {"name": "bossworker-tasks", "version": "1"},
}
COMMAND = {"type": "array", "items": {"type": "string"}, "description": "its words; no shell"}
OPTIONS = {"stdin": {"type": "string"}, "cwd": {"type": "string"}, "timeout": {"type": "number"}}
TOOL = {
    "name": "run_command",
    "description": "Run a command, for at most `timeout` seconds, and return its output.",
    "inputSchema": {"type": "object", "properties": {"command": COMMAND, **OPTIONS}, "required": ["command"]},
    "execution": {"taskSupport": "optional"},
}


class Tasks:
    """Those of one owner. Each method takes a request's parameters and returns its result."""

    def __init__(self, owner: str) -> None:
        self.owner = owner
        self.methods: dict[str, Callable[..., dict[str, Any]]] = {
            "initialize": lambda **_: HELLO,
            "ping": lambda **_: {},
            "tools/list": lambda **_: {"tools": [TOOL]},
            "tools/call": self.call,
            "tasks/list": self.list_all,
            "tasks/get": lambda taskId, **_: describe(self.find(taskId)),
            "tasks/result": self.result,
            "tasks/cancel": self.cancel,
        }

    def call(self, name: str, arguments: Any = None, task: Any = None, **_: object) -> dict[str, Any]:
        """Start a command: as a task, or until its end."""
        if name != TOOL["name"]:
            raise LookupError(f"there is no tool {name!r}")
        meta = {"owner": self.owner, "ttl": int((task or {}).get("ttl", TTL))}
        options = {name: arguments[name] for name in OPTIONS if arguments.get(name)}
        jobid = jobs.start(arguments.get("command") or [], meta=meta, **options)
        if task is not None:
            return {"task": describe(self.find(jobid))}
        result = self.result(jobid)
        jobs.clean(jobid)
        return result

    def find(self, task_id: object) -> jobs.Info:
        info = jobs.info(str(task_id))
        if info is None or info.meta.get("owner") != self.owner:  # ids come from strangers
            raise LookupError(f"there is no task {task_id!r}")
        return info

    def list_all(self, **_: object) -> dict[str, Any]:
        """One whose time to live is over is deleted."""
        mine = [one for one in map(jobs.info, jobs.listing()) if one and one.meta.get("owner") == self.owner]
        for one in list(mine):
            if one.ended_at and time.time() > one.ended_at + one.meta["ttl"] / 1000:
                jobs.clean(one.jobid)
                mine.remove(one)
        return {"tasks": [describe(one) for one in mine]}

    def result(self, taskId: object, **_: object) -> dict[str, Any]:
        """What the tool returns, once the command has ended."""
        jobid = self.find(taskId).jobid
        failed = jobs.wait(jobid) != "completed"
        text = jobs.stdout(jobid) + jobs.stderr(jobid) or "; ".join(jobs.details(jobid))
        meta = {"io.modelcontextprotocol/related-task": {"taskId": jobid}}
        return {"content": [{"type": "text", "text": text}], "isError": failed, "_meta": meta}

    def cancel(self, taskId: object, **_: object) -> dict[str, Any]:
        jobid = self.find(taskId).jobid
        if not jobs.signal(jobid, "TERM"):
            raise ValueError(f"task {jobid} has ended already")
        jobs.wait(jobid, GRACE)
        jobs.signal(jobid, "KILL")  # which does nothing when it has ended
        jobs.wait(jobid)
        return describe(self.find(jobid))


def describe(info: jobs.Info) -> dict[str, Any]:
    """A task, as the protocol has it."""
    state = {"status": STATES.get(info.status, "failed"), "statusMessage": "; ".join(jobs.details(info.jobid))}
    times = {
        "createdAt": iso(info.created_at),
        "lastUpdatedAt": iso(info.ended_at or info.started_at or info.created_at),
    }
    return {"taskId": info.jobid, **state, **times, "ttl": info.meta["ttl"], "pollInterval": POLL}


def iso(seconds: float | None) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds or 0))


def respond(tasks: Tasks, line: str) -> None:
    """Answer a message, whatever it is; but for notifications."""
    answer: dict[str, Any] = {"jsonrpc": "2.0", "id": None}
    code = -32700  # of an error from here on: this is no JSON
    try:
        request = json.loads(line)
        code = -32600  # no request
        if "id" not in dict(request):
            return
        answer["id"] = request["id"]
        code = -32601  # no such method
        method = tasks.methods[request["method"]]
        code = -32602  # bad parameters
        answer["result"] = method(**request.get("params", {}))
    except Exception as error:  # whoever waits for an answer gets one
        ours = not isinstance(error, LookupError | TypeError | ValueError)
        answer["error"] = {"code": -32603 if ours else code, "message": str(error)}
    with TURN:
        print(json.dumps(answer), flush=True)


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--owner", default="agent", help="whose tasks are seen")
tasks = Tasks(parser.parse_args().owner)
for line in sys.stdin:
    threading.Thread(target=respond, args=(tasks, line)).start()  # for some wait
