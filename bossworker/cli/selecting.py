"""Which jobs, tasks and pools are meant: a name, a unique beginning of an id, ``last``, ``all`` or ``failed``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from heapq import merge
from itertools import islice
from typing import NamedTuple

from bossworker.cli.command_list import CommandList
from bossworker.cli.entries import Entry, EntryError, described, has_failed, is_cancelled, is_meant, short
from bossworker.cli.task_entries import task_entries
from bossworker.errors import BossWorkerError
from bossworker.pool.door.addresses import all_doors

LAST, ALL, FAILED = "last", "all", "failed"
LEAST = 3  # letters of an id


def check_name(text: str) -> str:
    """A name that something may be found by. ValueError."""
    if text in ("", LAST, ALL, FAILED):  # empty: a variable of the shell that is not set, perhaps
        raise ValueError(f"it is anything but nothing, and {LAST}, {ALL} and {FAILED}, which mean others")
    return text


class SelectError(BossWorkerError):
    """None is meant, or several are; the text is for people."""


class Choice(NamedTuple):
    """A job or task that is meant."""

    entry: Entry
    named: bool
    """By itself, not by ``all`` or ``failed``: then it is an error that it does not run, where it should."""


def select(texts: Sequence[str]) -> list[Entry]:
    """Each is meant once, in the order of the texts. SelectError says which text means none, or too many."""
    return [choice.entry for choice in choose(texts)]


def choose(texts: Sequence[str]) -> list[Choice]:
    """The same, and whether each was named."""
    found: dict[str, Choice] = {}
    for text in texts:
        for entry in _meant(text):
            before = found.get(entry.id)
            found[entry.id] = Choice(entry, text not in (ALL, FAILED) or (before is not None and before.named))
    return list(found.values())


def pools_there() -> Iterator[Entry]:
    """Pools that answer. They are meant by their names alone: ``kill all`` leaves them, and what they run, in peace."""
    if all_doors():  # or there is no need to load what speaks with one
        from bossworker.cli.pool_entries import pool_entries

        yield from pool_entries()


def everything() -> Iterator[Entry]:
    """Jobs, queued ones too, and tasks, the newest first."""
    return merge(CommandList(), task_entries(), key=lambda entry: entry.id, reverse=True)


def _meant(text: str) -> list[Entry]:
    if text == LAST:
        return list(islice(everything(), 1)) or _none("there is none yet")
    if text == ALL:
        return list(everything())
    if text == FAILED:
        return [entry for entry in everything() if _failed(entry)]
    entries = [one for one in everything() if is_meant(one.id, text)] if len(text) >= LEAST else []
    if len(entries) == 1 and (text == entries[0].id or text.startswith(short(entries[0].id))):
        return entries
    # A name comes before a shorter beginning: "add" and "2026" may be both, and kill must not end another one.
    if named := _named(text) or _pool_named(text):
        return named
    if len(entries) > 1:
        several = ", ".join(entry.id for entry in entries[:3])
        raise SelectError(f"{text!r} is the beginning of {len(entries)} ids: {several}...; give more of it")
    return entries or _none(f"there is no job, task or pool {text!r}: bossworker ps lists them")


def _named(text: str) -> list[Entry]:
    """The newest of this name."""
    for entry in everything():
        try:
            if text and entry.name == text:
                return [entry]
        except EntryError:  # deleted just now
            continue
    return []


def _pool_named(text: str) -> list[Entry]:
    return [pool for pool in pools_there() if text in (pool.name, pool.id)][:1]


def _none(text: str) -> list[Entry]:
    raise SelectError(text)


def _failed(entry: Entry) -> bool:
    found = described(entry)
    return found is not None and has_failed(found) and not is_cancelled(found)
