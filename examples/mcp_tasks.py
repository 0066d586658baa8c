"""A tool server for agents: one tool that runs commands, each a durable task of the Model Context Protocol.

    python examples/mcp_tasks.py [--owner NAME]

JSON-RPC over stdin and stdout, a message a line (MCP 2025-11-25). A task is a detached job: it goes on when this
server, the agent or both end, and whichever server of the same owner is started next answers for it, since its state is
in a job directory, not here. A command gets all of its input with the call, so no task is ever ``input_required``.
"""

import argparse
import json
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from bossworker import jobs

TTL, POLL, CANCEL = 86_400_000, 500, 2.0  # ms that an ended task stays; ms between looks; seconds from TERM to KILL
NO_JSON, NO_REQUEST, NO_METHOD, BAD_PARAMS, OUR_FAULT = -32700, -32600, -32601, -32602, -32603  # errors of JSON-RPC
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


class Server:
    """Answers for the tasks of one owner. Each of its methods takes a request's parameters and returns the result."""

    def __init__(self, owner: str) -> None:
        self.owner = owner
        self.methods: dict[str, Callable[..., dict[str, Any]]] = {
            "initialize": lambda **_: HELLO,
            "ping": lambda **_: {},
            "tools/list": lambda **_: {"tools": [TOOL]},
            "tools/call": self.call,
            "tasks/list": self.list_all,
            "tasks/get": lambda taskId="", **_: describe(self.find(taskId)),
            "tasks/result": self.result,
            "tasks/cancel": self.cancel,
        }

    def find(self, jobid: object) -> jobs.Info:
        """A task of this owner's, for ids come from strangers."""
        info = jobs.info(str(jobid))
        if info is None or info.meta.get("owner") != self.owner:
            raise LookupError(f"there is no task {jobid!r}")
        return info

    def call(self, name: str = "", arguments: Any = None, task: Any = None, **_: object) -> dict[str, Any]:
        """Start a command: as a task, or until its end."""
        if name != TOOL["name"]:
            raise LookupError(f"there is no tool {name!r}")
        options = {name: arguments[name] for name in OPTIONS if arguments.get(name)}
        meta = {"owner": self.owner, "ttl": int((task or {}).get("ttl") or TTL)}
        jobid = jobs.start(arguments.get("command") or [], meta=meta, **options)
        if task is not None:
            return {"task": describe(self.find(jobid))}
        result = self.result(jobid)
        jobs.clean(jobid)
        return result

    def list_all(self, **_: object) -> dict[str, Any]:
        """This owner's tasks. One whose time to live is over is deleted."""
        infos = [info for info in map(jobs.info, jobs.listing()) if info and info.meta.get("owner") == self.owner]
        over = [one.jobid for one in infos if one.ended_at and time.time() > one.ended_at + one.meta["ttl"] / 1000]
        for jobid in over:
            jobs.clean(jobid)
        return {"tasks": [describe(one) for one in infos if one.jobid not in over]}

    def result(self, taskId: str = "", **_: object) -> dict[str, Any]:
        """What the tool returns, once the command has ended."""
        jobid = self.find(taskId).jobid
        failed = jobs.wait(jobid) != "completed"
        text = jobs.stdout(jobid) + jobs.stderr(jobid) or "; ".join(jobs.details(jobid))
        meta = {"io.modelcontextprotocol/related-task": {"taskId": jobid}}
        return {"content": [{"type": "text", "text": text}], "isError": failed, "_meta": meta}

    def cancel(self, taskId: str = "", **_: object) -> dict[str, Any]:
        """End it: TERM first, then KILL."""
        jobid = self.find(taskId).jobid
        if not jobs.signal(jobid, "TERM"):
            raise ValueError(f"task {jobid} has ended already")
        if STATES.get(jobs.wait(jobid, CANCEL)) == "working":
            jobs.signal(jobid)
            jobs.wait(jobid)
        return describe(self.find(jobid))


def describe(info: jobs.Info) -> dict[str, Any]:
    """A task, as the protocol has it."""
    times = info.created_at, info.ended_at or info.started_at or info.created_at
    created, updated = (datetime.fromtimestamp(one or 0.0, UTC).isoformat(timespec="milliseconds") for one in times)
    told = {"status": STATES.get(info.status, "failed"), "statusMessage": "; ".join(jobs.details(info.jobid))}
    dates = {"createdAt": created, "lastUpdatedAt": updated, "ttl": info.meta["ttl"], "pollInterval": POLL}
    return {"taskId": info.jobid, **told, **dates}


def respond(server: Server, line: str, turn: threading.Lock) -> None:
    """Answer a message on stdout, whatever it is; but for notifications."""
    answer: dict[str, Any] = {"jsonrpc": "2.0", "id": None}
    code = NO_JSON  # of what fails from here on
    try:
        request = json.loads(line)
        code = NO_REQUEST
        if not isinstance(request, dict):
            raise TypeError("a message is an object")
        if "id" not in request:
            return
        code, answer["id"], name = NO_METHOD, request["id"], request.get("method")
        if name not in server.methods:
            raise LookupError(f"there is no method {name!r}")
        code = BAD_PARAMS
        answer["result"] = server.methods[name](**(request.get("params") or {}))
    except Exception as error:  # whoever waits for an answer gets one
        code = code if isinstance(error, LookupError | TypeError | ValueError) else OUR_FAULT
        answer["error"] = {"code": code, "message": str(error)}
    with turn:
        print(json.dumps(answer), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--owner", default="agent", help="whose tasks are seen")
    server, turn = Server(parser.parse_args().owner), threading.Lock()
    for line in sys.stdin:  # a thread a request, for some wait
        threading.Thread(target=respond, args=(server, line, turn)).start()


if __name__ == "__main__":
    main()
