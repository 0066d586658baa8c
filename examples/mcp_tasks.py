"""A tool server for agents: one tool that runs commands, each a durable task of the Model Context Protocol.

JSON-RPC over stdin and stdout, a message a line (MCP 2025-11-25). A task is a detached job: it goes on when this
server, the agent or both end, and whichever server of the same owner is started next answers for it."""

import argparse
import json
import sys
import threading
import time
from typing import Any

from bossworker import jobs

TTL, POLL = 86_400_000, 500  # milliseconds that an ended task stays, and between looks
TURN = threading.Lock()  # to print
STATES = {"created": "working", "running": "working", "completed": "completed", "terminated by request": "cancelled"}
COMMAND = {"type": "array", "items": {"type": "string"}, "description": "its words; no shell"}
OPTIONS = {"stdin": {"type": "string"}, "cwd": {"type": "string"}, "timeout": {"type": "number"}}
TOOL = {
    "name": "run_command",
    "description": "Run a command, for at most `timeout` seconds, and return its output.",
    "inputSchema": {"type": "object", "properties": {"command": COMMAND, **OPTIONS}, "required": ["command"]},
    "execution": {"taskSupport": "optional"},
}
ABILITIES: dict[str, Any] = {"tools": {}, "tasks": {"list": {}, "cancel": {}, "requests": {"tools": {"call": {}}}}}
HELLO = {"protocolVersion": "2025-11-25", "capabilities": ABILITIES, "serverInfo": {"name": "tasks", "version": "1"}}


def call(name: str, arguments: Any = None, task: Any = None, **_: object) -> dict[str, Any]:
    """Start a command: as a task, or until its end."""
    if name != TOOL["name"]:
        raise LookupError(f"there is no tool {name!r}")
    options = {name: arguments[name] for name in OPTIONS if arguments.get(name)}
    meta = {"owner": OWNER, "ttl": int((task or {}).get("ttl", TTL))}
    jobid = jobs.start(arguments.get("command") or [], meta=meta, **options)
    if task is not None:
        return {"task": get(jobid)}
    told = result(jobid)
    jobs.clean(jobid)
    return told


def get(taskId: object, **_: object) -> dict[str, Any]:
    """A task, as the protocol has it."""
    info = jobs.info(str(taskId))
    if info is None or info.meta.get("owner") != OWNER:  # ids come from strangers
        raise LookupError(f"there is no task {taskId!r}")
    state = {"status": STATES.get(info.status, "failed"), "statusMessage": "; ".join(jobs.details(info.jobid))}
    times = {"createdAt": info.created_at, "lastUpdatedAt": info.ended_at or info.started_at or info.created_at}
    stamps = {name: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at or 0)) for name, at in times.items()}
    return {"taskId": info.jobid, **state, **stamps, "ttl": info.meta["ttl"], "pollInterval": POLL}


def get_all(**_: object) -> dict[str, Any]:
    """One whose time to live is over is deleted."""
    mine = [one for one in map(jobs.info, jobs.listing()) if one and one.meta.get("owner") == OWNER]
    old = {one.jobid for one in mine if one.ended_at and time.time() > one.ended_at + one.meta["ttl"] / 1000}
    for jobid in old:
        jobs.clean(jobid)
    return {"tasks": [get(one.jobid) for one in mine if one.jobid not in old]}


def result(taskId: object, **_: object) -> dict[str, Any]:
    """What the tool returns, once the command has ended."""
    jobid = get(taskId)["taskId"]
    failed = jobs.wait(jobid) != "completed"
    text = jobs.stdout(jobid) + jobs.stderr(jobid) or "; ".join(jobs.details(jobid))
    meta = {"io.modelcontextprotocol/related-task": {"taskId": jobid}}
    return {"content": [{"type": "text", "text": text}], "isError": failed, "_meta": meta}


def cancel(taskId: object, **_: object) -> dict[str, Any]:
    jobid = get(taskId)["taskId"]
    if not jobs.signal(jobid, "KILL"):  # to all that it has started
        raise ValueError(f"task {jobid} has ended already")
    jobs.wait(jobid)
    return get(jobid)


METHODS = {"tools/call": call, "tasks/list": get_all, "tasks/get": get, "tasks/result": result, "tasks/cancel": cancel}
METHODS |= {"initialize": lambda **_: HELLO, "ping": lambda **_: {}, "tools/list": lambda **_: {"tools": [TOOL]}}


def respond(line: str) -> None:
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
        method: Any = METHODS[request["method"]]
        code = -32602  # bad parameters
        answer["result"] = method(**request.get("params", {}))
    except Exception as error:  # whoever waits for an answer gets one
        ours = not isinstance(error, LookupError | TypeError | ValueError)
        answer["error"] = {"code": -32603 if ours else code, "message": str(error)}
    with TURN:
        print(json.dumps(answer), flush=True)


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--owner", default="agent", help="whose tasks are seen")
OWNER = parser.parse_args().owner
for line in sys.stdin:
    threading.Thread(target=respond, args=(line,)).start()  # for some wait
