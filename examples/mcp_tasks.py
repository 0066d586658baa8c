"""A tool server for agents: one tool that runs commands, each a durable task of the Model Context Protocol.

    python examples/mcp_tasks.py [--owner NAME]

Speaks JSON-RPC over stdin and stdout, a message a line (MCP 2025-11-25, with tasks). A call of the tool as a task is
answered at once, with the id of a detached job. That goes on when this server, the agent or both end, and whichever
server is started next answers for it, as long as it is of the same owner: the state is in job directories, not here.
A command gets all of its input with the call (`stdin`), so no task is ever ``input_required``.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from bossworker import jobs

POLL, TTL = 500, 86_400_000  # milliseconds between two looks, and for which an ended task stays
CANCEL_SECONDS = 2.0  # between TERM and KILL
STATES = {
    jobs.Status.CREATED: "working",
    jobs.Status.RUNNING: "working",
    jobs.Status.COMPLETED: "completed",
    jobs.Status.TERMINATED_BY_REQUEST: "cancelled",
    jobs.Status.TERMINATED_BY_ERROR: "failed",
}
TOOL = {
    "name": "run_command",
    "description": "Run a command (a list of words, no shell) and return its output.",
    "inputSchema": {
        "type": "object",
        "properties": {
            "command": {"type": "array", "items": {"type": "string"}},
            "stdin": {"type": "string"},
            "cwd": {"type": "string"},
            "timeout": {"type": "number", "description": "seconds"},
        },
        "required": ["command"],
    },
    "execution": {"taskSupport": "optional"},
}

HELLO: dict[str, Any] = {
    "protocolVersion": "2025-11-25",
    "capabilities": {"tools": {}, "tasks": {"list": {}, "cancel": {}, "requests": {"tools": {"call": {}}}}},
    "serverInfo": {"name": "bossworker-tasks", "version": "1"},
}


NO_JSON, NO_REQUEST, NO_METHOD, BAD_PARAMS, OUR_FAULT = -32700, -32600, -32601, -32602, -32603  # errors of JSON-RPC


class Refused(Exception):
    """What the client has asked for makes no sense."""

    def __init__(self, text: str, code: int = BAD_PARAMS) -> None:
        super().__init__(text)
        self.code = code


class Server:
    """Answers requests. Each is answered in a thread of its own, for some wait."""

    def __init__(self, owner: str) -> None:
        self.owner = owner

    def answer(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """The result of a request. Refused says what is wrong with it."""
        match method, params:
            case "initialize", _:
                result = HELLO
            case "ping", _:
                result = {}
            case "tools/list", _:
                result = {"tools": [TOOL]}
            case "tools/call", _:
                result = self.call(params)
            case "tasks/list", _:
                result = {"tasks": list(map(self.describe, self.mine()))}
            case "tasks/get", {"taskId": jobid}:
                result = self.describe(self.find(jobid))
            case "tasks/result", {"taskId": jobid}:
                result = self.result(self.find(jobid))
            case "tasks/cancel", {"taskId": jobid}:
                result = self.cancel(self.find(jobid))
            case (("tasks/get" | "tasks/result" | "tasks/cancel"), _):
                raise Refused("taskId is missing")
            case _:
                raise Refused(f"there is no method {method!r}", NO_METHOD)
        return result

    def call(self, params: dict[str, Any]) -> dict[str, Any]:
        """Start a command: as a task, or until its end."""
        if params.get("name") != TOOL["name"]:
            raise Refused(f"there is no tool {params.get('name')!r}")
        asked, task = params.get("arguments") or {}, params.get("task")
        ttl = (task or {}).get("ttl") or TTL
        meta = {"owner": self.owner, "ttl": ttl}
        try:
            options: dict[str, Any] = {
                "stdin": asked.get("stdin"),
                "cwd": asked.get("cwd"),
                "timeout": asked.get("timeout") or 0,
            }
            jobid = jobs.start(asked.get("command") or [], meta=meta, **options)
        except (OSError, TypeError, ValueError) as error:
            raise Refused(str(error)) from error
        if task is not None:
            return {"task": self.describe(jobid)}
        result = self.result(jobid)
        jobs.clean(jobid)
        return result

    def mine(self) -> Iterator[str]:
        """The tasks of this owner; those whose time to live is over are deleted."""
        for jobid in jobs.listing():
            info = jobs.info(jobid)
            if info is None or info.meta.get("owner") != self.owner:
                continue
            if info.ended_at and datetime.now().timestamp() - info.ended_at > info.meta.get("ttl", TTL) / 1000:
                jobs.clean(jobid)
            else:
                yield jobid

    def find(self, jobid: object) -> str:
        """The task that is meant, if it is this owner's: ids come from strangers."""
        info = jobs.info(str(jobid))
        if info is None or info.meta.get("owner") != self.owner:
            raise Refused(f"there is no task {jobid!r}")
        return str(jobid)

    def describe(self, jobid: str) -> dict[str, Any]:
        """A task, as the protocol has it."""
        info = jobs.info(jobid)
        if info is None:
            raise Refused(f"there is no task {jobid!r} any more")
        created = info.created_at or 0.0
        return {
            "taskId": jobid,
            "status": STATES.get(info.status, "failed"),
            "statusMessage": "; ".join(jobs.details(jobid)),
            "createdAt": stamp(created),
            "lastUpdatedAt": stamp(info.ended_at or info.started_at or created),
            "ttl": info.meta.get("ttl", TTL),
            "pollInterval": POLL,
        }

    def result(self, jobid: str) -> dict[str, Any]:
        """What the tool returns, once the command has ended."""
        status = jobs.wait(jobid)
        text = jobs.stdout(jobid) + jobs.stderr(jobid)
        return {
            "content": [{"type": "text", "text": text or "; ".join(jobs.details(jobid))}],
            "isError": status is not jobs.Status.COMPLETED,
            "_meta": {"io.modelcontextprotocol/related-task": {"taskId": jobid}},
        }

    def cancel(self, jobid: str) -> dict[str, Any]:
        """End it: TERM first, then KILL."""
        if jobs.is_finished(jobid):
            raise Refused(f"task {jobid} has ended already")
        jobs.signal(jobid, "TERM")
        if jobs.wait(jobid, CANCEL_SECONDS) in (jobs.Status.CREATED, jobs.Status.RUNNING):
            jobs.signal(jobid)
            jobs.wait(jobid)
        return self.describe(jobid)


def stamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def parse(line: str) -> dict[str, Any]:
    """A message. Refused: it is none."""
    try:
        message = json.loads(line)
    except ValueError as error:
        raise Refused(f"no JSON: {error}", NO_JSON) from error
    if not isinstance(message, dict):
        raise Refused("a message is an object", NO_REQUEST)
    return message


def respond(server: Server, line: str, turn: threading.Lock) -> None:
    """Answer what stands in a line on stdout, whatever it is; but for notifications."""
    answer: dict[str, Any] = {"jsonrpc": "2.0", "id": None}
    try:
        request = parse(line)
        if "id" not in request:
            return
        answer["id"] = request["id"]
        answer["result"] = server.answer(str(request.get("method")), request.get("params") or {})
    except Refused as error:
        answer["error"] = {"code": error.code, "message": str(error)}
    except Exception as error:  # whoever waits for an answer gets one
        answer["error"] = {"code": OUR_FAULT, "message": f"{type(error).__name__}: {error}"}
    with turn:
        print(json.dumps(answer), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--owner", default="agent", help="whose tasks are seen")
    server, turn = Server(parser.parse_args().owner), threading.Lock()
    for line in sys.stdin:
        threading.Thread(target=respond, args=(server, line, turn)).start()


if __name__ == "__main__":
    main()
