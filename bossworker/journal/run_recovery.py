"""What a run that is gone has left in its journal: which of its commands never began, and which may have run.

Whoever asks has the lock, which the run's host held as well: nobody writes to their cells any more.
"""

from __future__ import annotations

import os

from bossworker.commands.hosting.cells import QUEUED, Cells, size_of_cells
from bossworker.commands.hosting.lost_records import LostRecords
from bossworker.journal.run_database import DONE, FAILED, INTERRUPTED, RunDatabase, StoredCommand
from bossworker.system import identity

STOPPED = "its run was stopped"
INTERRUPTED_KIND = "interrupted"
"""The kind of what was running then."""
TOKEN_BYTES = 16  # behind the cells: whose they are
_RESTARTED = "it may have run: the machine was restarted before its end was known"


def cells_path(path: str) -> str:
    """Of the file with the cells of a journal's commands (``commands/hosting/cells.py``)."""
    return f"{path}-cells"


def settle(store: RunDatabase) -> None:
    """Note how each command has ended that the last run had with its crew, or that it never began."""
    cells = _cells_of_last_run(store)
    told = LostRecords("", "", {}, STOPPED, INTERRUPTED_KIND)
    for row, cell in store.unfinished():
        if cells is None or cell >= cells.count:
            store.end(row, StoredCommand(INTERRUPTED, kind=INTERRUPTED_KIND, reason=_RESTARTED))
            continue
        found = cells.read(cell)
        # The host marks a cell before it starts a command: so this one never was, whenever the host was killed.
        if found.state == QUEUED:
            store.forget(row)
            continue
        record = told.make(row, found, found.started_at)
        state = DONE if not record.kind else INTERRUPTED if record.kind == INTERRUPTED_KIND else FAILED
        told_of = record.exit_code, record.signal, record.kind, record.reason, record.started_at, record.seconds
        store.end(row, StoredCommand(state, 1, *told_of))
    if cells is not None:
        cells.close()


def _cells_of_last_run(store: RunDatabase) -> Cells | None:
    """None: they cannot be believed."""
    token, count = store.meta("token"), store.meta("cells") or 0
    if store.meta("boot") != identity.boot_id() or not token:
        return None
    try:
        fd = os.open(cells_path(store.path), os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        return Cells(count, fd) if os.pread(fd, TOKEN_BYTES + 1, size_of_cells(count)) == token else None
    finally:
        os.close(fd)
