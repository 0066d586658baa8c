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
import time
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
ARGUMENTS = {
    "command": {"type": "array", "items": {"type": "string"}},
    "stdin": {"type": "string"},
    "cwd": {"type": "string"},
    "timeout": {"type": "number", "description": "seconds"},
}
TOOL = {
    "name": "run_command",
    "description": "Run a command (a list of words, no shell) and return its output.",
    "inputSchema": {"type": "object", "properties": ARGUMENTS, "required": ["command"]},
    "execution": {"taskSupport": "optional"},
}


class Refused(Exception):
    """What the client has asked for makes no sense: a text, and a code of JSON-RPC's."""


class Server:
    """Answers for the tasks of one owner."""

    def __init__(self, owner: str) -> None:
        self.owner = owner

    def answer(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """The result of a request. Refused says what is wrong with it."""
        match method:
            case "initialize":
                return HELLO
            case "ping":
                return {}
            case "tools/list":
                return {"tools": [TOOL]}
            case "tools/call":
                return self.call(**params)
            case "tasks/list":
                return {"tasks": [self.describe(jobid) for jobid in jobs.listing() if self.keeps(jobid)]}
            case "tasks/get" | "tasks/result" | "tasks/cancel":
                act = {"tasks/get": self.describe, "tasks/result": self.result, "tasks/cancel": self.cancel}[method]
                return act(str(params.get("taskId")))
        raise Refused(f"there is no method {method!r}", NO_METHOD)

    def call(self, name: str = "", arguments: Any = None, task: Any = None, **_: Any) -> dict[str, Any]:
        """Start a command: as a task, or until its end."""
        if name != TOOL["name"]:
            raise Refused(f"there is no tool {name!r}", BAD_PARAMS)
        options = {name: arguments[name] for name in ("stdin", "cwd", "timeout") if arguments.get(name)}
        meta = {"owner": self.owner, "ttl": (task or {}).get("ttl") or TTL}
        try:
            jobid = jobs.start(arguments.get("command") or [], meta=meta, **options)
        except (OSError, TypeError, ValueError) as error:
            raise Refused(str(error), BAD_PARAMS) from error
        if task is not None:
            return {"task": self.describe(jobid)}
        result = self.result(jobid)
        jobs.clean(jobid)
        return result

    def find(self, jobid: str) -> Any:
        """What is known of a task. Refused: it is not this owner's, for ids come from strangers."""
        info = jobs.info(jobid)
        if info is None or info.meta.get("owner") != self.owner:
            raise Refused(f"there is no task {jobid!r}", BAD_PARAMS)
        return info

    def keeps(self, jobid: str) -> bool:
        """Whether a task is this owner's. One whose time to live is over is deleted."""
        info = jobs.info(jobid)
        if info is None or info.meta.get("owner") != self.owner:
            return False
        over = bool(info.ended_at) and time.time() > info.ended_at + info.meta.get("ttl", TTL) / 1000
        if over:
            jobs.clean(jobid)
        return not over

    def describe(self, jobid: str) -> dict[str, Any]:
        """A task, as the protocol has it."""
        info = self.find(jobid)
        created, last = (
            datetime.fromtimestamp(seconds or 0.0, UTC).isoformat(timespec="milliseconds")
            for seconds in (info.created_at, info.ended_at or info.started_at or info.created_at)
        )
        told = {"status": STATES.get(info.status, "failed"), "statusMessage": "; ".join(jobs.details(jobid))}
        times = {"createdAt": created, "lastUpdatedAt": last, "ttl": info.meta.get("ttl", TTL), "pollInterval": POLL}
        return {"taskId": jobid, **told, **times}

    def result(self, jobid: str) -> dict[str, Any]:
        """What the tool returns, once the command has ended."""
        self.find(jobid)
        failed = jobs.wait(jobid) != "completed"
        text = jobs.stdout(jobid) + jobs.stderr(jobid) or "; ".join(jobs.details(jobid))
        meta = {"io.modelcontextprotocol/related-task": {"taskId": jobid}}
        return {"content": [{"type": "text", "text": text}], "isError": failed, "_meta": meta}

    def cancel(self, jobid: str) -> dict[str, Any]:
        """End it: TERM first, then KILL."""
        self.find(jobid)
        if jobs.is_finished(jobid):
            raise Refused(f"task {jobid} has ended already", BAD_PARAMS)
        jobs.signal(jobid, "TERM")
        if jobs.wait(jobid, CANCEL) in ("created", "running"):
            jobs.signal(jobid)
            jobs.wait(jobid)
        return self.describe(jobid)


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
        answer["error"] = {"code": error.args[1], "message": error.args[0]}
    except Exception as error:  # whoever waits for an answer gets one
        answer["error"] = {"code": OUR_FAULT, "message": f"{type(error).__name__}: {error}"}
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
