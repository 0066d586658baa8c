"""The process of a scribe, from its start to its end: it takes a journal over, serves it, and gives it back."""

from __future__ import annotations

import gc
import os
import sqlite3
from typing import Any

from bossworker.errors import JournalError, JournalInUse
from bossworker.journal import recovery
from bossworker.journal.boss_side import BossSide
from bossworker.journal.caller_side import CallerSide
from bossworker.journal.database import Database, DiskFull
from bossworker.journal.file_check import unusable
from bossworker.journal.flight_file import FlightFile
from bossworker.journal.forgetting import Forgetting
from bossworker.journal.handing_over import hand_over
from bossworker.journal.job_lanes import Lanes
from bossworker.journal.ownership import Ownership
from bossworker.journal.ranges import Ranges
from bossworker.journal.scribe import Scribe
from bossworker.pool.door.side_process import begin
from bossworker.pool.wire.filed_memory import FiledMemory
from bossworker.system.titles import set_title


def main(fd: int) -> None:
    """The process's whole life. `fd`: of its line to the program."""
    link, settings = begin(fd)
    set_title("bossworker scribe", f"bossworker {settings['name']}: scribe")
    gc.disable()
    gc.freeze()
    caller = CallerSide(link)
    try:
        _serve(caller, settings)
    except JournalInUse as error:
        caller.tell_error("in use", str(error), error.pid)
    except JournalError as error:
        caller.tell_error("error", str(error))
    except MemoryError:
        caller.tell_error("error", f"the scribe of the journal {settings['journal']} has no memory left")
    except (DiskFull, OSError) as error:
        caller.tell_error("error", f"the journal {settings['journal']} cannot be used: {error}")
    except sqlite3.Error as error:
        caller.tell_error("error", str(unusable(settings["journal"], error)))


def _serve(caller: CallerSide, settings: dict[str, Any]) -> None:
    path = settings["journal"]
    ownership = Ownership(path, settings["program"])
    store = Database(path)
    flights = FlightFile(path)
    try:
        memory, lanes, left = _open(caller, store, flights, settings)
        boss = caller.await_boss()
        forgetting = Forgetting(store, settings["max_age"], settings["max_size"], caller.note)
        if boss is None or Scribe(caller, BossSide(boss), store, lanes, memory, left, forgetting).run():
            # While the lock is held: another owner must not find these recorders, nor lose its own.
            flights.remove()
    finally:
        store.close()
        ownership.release()


def _open(
    caller: CallerSide, store: Database, flights: FlightFile, settings: dict[str, Any]
) -> tuple[FiledMemory, Lanes, Ranges]:
    """Take over what an earlier owner has left, and tell the program of it."""
    books = recovery.take_stock(store)
    session = os.urandom(16).hex()
    with store.transaction:
        started = recovery.take_over(store, books, settings["interrupted"])
        store.set_meta("session", session)
    store.empty_log()  # so that the database tells whose flight file it is, even without its log
    memory = flights.make(session, settings["workers"])
    store.on_commit = memory.note_commit
    lanes = Lanes(settings["workers"])
    rerun = len(started) if settings["interrupted"] == recovery.RERUN else 0
    for piece in recovery.pieces(store, books):
        lanes.add(piece)
    told = {"next_id": store.next_id(), "queued": lanes.jobs - rerun, "interrupted": len(started), "rerun": rerun}
    caller.tell_opened(told, memory)
    return memory, lanes, hand_over(store, books, caller)
