"""``bossworker run --dry-run``: what would be run."""

from __future__ import annotations

import os

from bossworker.cli import printers
from bossworker.cli.runner import Feed, Planner, await_either
from bossworker.commands.hosting.relaying import tagged

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bossworker.cli.replacements import Row


def print_planned(feed: Feed, planner: Planner, as_json: bool) -> None:
    """To stdout, as it is read."""
    while (found := feed.next(planner.text)) is not None or not feed.exhausted:
        if found is not None:
            printers.write(1, _told(planner, *found, as_json))
        else:
            await_either(-1, feed.waits_for, 0.0 if feed.has_more else None)


def _told(planner: Planner, row: Row, text: str, as_json: bool) -> bytes:
    if as_json:
        return printers.json_line(printers.planned(row, text))
    return tagged(os.fsencode(f"{text}\n"), os.fsencode(planner.tag(row)))
