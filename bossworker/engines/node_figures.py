"""What the nodes of an engine tell of themselves, as figures of a whole pool."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SUMS = ("running", "restarts", "failed_starts")


@dataclass
class NodeFigures:
    """A node, as the program knows it."""

    name: str
    batches: int = 0  # that it has done
    there: bool = True


def figures_of(
    told: Mapping[str, dict[str, Any]], known: Mapping[str, NodeFigures]
) -> tuple[dict[str, int], list[dict[str, Any]], list[dict[str, Any]]]:
    """Sums over the nodes' counts; their workers; and a line for each node."""
    totals = {key: sum(count[key] for count in told.values()) for key in SUMS}
    workers = [{**worker, "node": node} for node, count in sorted(told.items()) for worker in count["workers"]]
    nodes = [
        {
            "name": node,
            "workers": len(count["workers"]),
            "queued": count["queued"],
            "running": count["running"],
            "done": count["done"],
            "failed": count["failed"],
            "batches": known[node].batches if node in known else 0,
        }
        for node, count in sorted(told.items())
    ]
    return totals, workers, nodes
