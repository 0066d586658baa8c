"""What an engine runs on its nodes: a batch, or an answer to the program. Found there by name; nothing travels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bossworker.engines.node_messages import (
    BatchAnswer,
    BatchOrder,
    Body,
    Node,
    NodeRequest,
    PoolSpec,
    VersionError,
    packed,
    packed_answer,
    unpacked,
)
from bossworker.engines.resident import NodeStartError, Resident, end_resident, find_resident, resident_for


def run_batch(
    spec: bytes,
    order: bytes,
    body: Body,
    node: Node,
    claim: Callable[[int], bool],
    make_room: Callable[[], None] | None = None,
) -> tuple[bytes, Body]:
    """Run a batch; a `BatchAnswer`, packed. See `Resident.run`."""
    try:
        told: BatchOrder = BatchOrder(*unpacked(order))
        resident = resident_for(PoolSpec(*unpacked(spec)), node)
        return packed_answer(resident.run(told, body, lambda: claim(told.number), make_room))
    except (NodeStartError, VersionError) as error:
        return packed_answer(BatchAnswer("unstarted", node.name, reason=str(error)))


def attend(pool: str, request: bytes, node: Node) -> bytes:
    """Answer the program. May wait for the boss."""
    try:
        asked = NodeRequest(*unpacked(request))
    except VersionError as error:
        return packed((str(error),))  # which a program of that version does not read, either: it sees that it cannot
    return packed((_attend(pool, asked, node),))


def _attend(pool: str, request: NodeRequest, node: Node) -> Any:
    match request.act:
        case "start":
            return _start(request.body, node)
        case "end" | "end now":
            return end_resident(pool, request.act == "end now")
    resident = find_resident(pool)
    if resident is None:
        return None
    return _ACTS[request.act](resident, request)


_ACTS: dict[str, Callable[[Resident, NodeRequest], Any]] = {
    "report": lambda resident, _: resident.report(),
    "stop": lambda resident, _: resident.stop(),
    "ask": lambda resident, request: resident.ask(request),
}


def _start(spec: bytes, node: Node) -> str:
    """Why the pool's part here did not come up; empty: it did."""
    try:
        resident_for(PoolSpec(*unpacked(spec)), node)
    except NodeStartError as error:
        return str(error)
    return ""
