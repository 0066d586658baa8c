"""New handlers for a pool on an engine: one node tries them, then all batches ask for them.

Each batch travels with the generation of the handlers that it wants, at least. A node that has older ones takes up the
new ones before it runs it (``Resident.renew``). So no job that was added after a reload runs with what was before,
also where a node has heard nothing of it yet, or comes later.
"""

from __future__ import annotations

from collections import deque
from functools import partial

from bossworker.engines.adapter import Adapter
from bossworker.engines.line_calls import LineCalls
from bossworker.engines.node_messages import NodeRequest, PoolSpec, packed
from bossworker.engines.program_side import ProgramSide
from bossworker.pool.reloading import handlers_in
from bossworker.pool.wire.messages import WARNING


class LineRenewals:
    """See the module. One after the other."""

    def __init__(self, adapter: Adapter, program: ProgramSide, calls: LineCalls) -> None:
        self._adapter = adapter
        self._program = program
        self._calls = calls
        self._waiting: deque[tuple[int, bytes]] = deque()  # the first is being tried
        self._last = 0  # generation

    def add(self, number: int, renewed: bytes) -> None:
        """Request `number` of the program's, with what it has packed for workers."""
        self._waiting.append((number, renewed))
        if len(self._waiting) == 1:
            self._begin()

    def _begin(self) -> None:
        self._last += 1
        spec = self._adapter.spec._replace(handlers=handlers_in(self._waiting[0][1]), generation=self._last)
        self._calls.then(self._adapter.try_spec(packed(spec)), partial(self._on_tried, spec), "")

    def _on_tried(self, spec: PoolSpec, why_not: str) -> None:
        number, _ = self._waiting.popleft()
        if not why_not:
            self._take_up(spec)
        self._program.reply(number, {"error": why_not})
        if self._waiting:
            self._begin()

    def _take_up(self, spec: PoolSpec) -> None:
        """From now on, batches ask for it. The nodes hear of it at once, so that the next batch need not wait."""
        adapter = self._adapter
        adapter.take_spec(adapter.spec._replace(handlers=spec.handlers, generation=spec.generation))
        self._calls.then(adapter.ask(NodeRequest("start", body=adapter.packed_spec), None, None), self._on_told, {})

    def _on_told(self, told: dict[str, str]) -> None:
        for node, why_not in told.items():
            if why_not and not self._program.over:
                self._program.note(WARNING, f"handlers not reloaded: node={node!r} reason={why_not!r}")
