"""What a request holds, checked: numbers, ids, filters. ValueError and TypeError say what was expected."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from starlette.requests import Request

from bossworker.web.job_queries import STATUSES, JobQuery

MOST_ROWS = 500  # in an answer
MOST_TEXT = 1000  # characters of a filter
STREAMS = ("stdout", "stderr")

Id = TypeVar("Id")


def whole(value: object) -> int:
    """A number from 0 on."""
    text = str(value)
    if not (text.isascii() and text.isdecimal() and len(text) < 20):
        raise ValueError(f"a number is needed, not {text[:50]!r}")
    return int(text)


def number(value: Any) -> float:
    """Seconds, or a time: any number, but neither NaN nor infinite, which JSON does not have."""
    found = float(0 if value in (None, "") else value)
    if not math.isfinite(found):
        raise ValueError(f"a number is needed, not {str(value)[:50]!r}")
    return found


def offset_of(given: Any) -> int:
    """``since``: where to go on in a stream; a negative number counts from its end."""
    text = str(given.get("since", 0))
    return -whole(text[1:]) if text.startswith("-") else whole(text)


def text_in(told: Mapping[str, Any], name: str) -> str:
    """A text that has to be there."""
    if not isinstance(told.get(name), str):
        raise TypeError(f"{name} must be a text")
    return str(told[name])


def part_of(request: Request) -> tuple[int, int]:
    """Which part of a list is wanted: from where on, and how many."""
    given = request.query_params
    return whole(given.get("offset", 0)), min(MOST_ROWS, whole(given.get("limit", 100)))


def stream_of(given: Any) -> str:
    """``stdout`` or ``stderr``."""
    stream = str(given.get("stream", STREAMS[0]))
    if stream not in STREAMS:
        raise ValueError(f"stream must be {' or '.join(STREAMS)}, not {stream[:50]!r}")
    return stream


def query_of(given: Any, statuses: Sequence[str] = STATUSES) -> JobQuery:
    """A filter."""
    status = str(given.get("status", ""))
    if status and status not in statuses:
        raise ValueError(f"status must be one of {', '.join(statuses)}, not {status[:50]!r}")
    return JobQuery(
        status,
        str(given.get("kind", ""))[:50],
        since=number(given.get("since")),
        until=number(given.get("until")),
        text=str(given.get("text", "")).strip()[:MOST_TEXT],
    )


def ids_in(told: Mapping[str, Any], one: Callable[[Any], Id]) -> list[Id] | None:
    """Those that an order names, each once; None: a filter says which are meant."""
    if "ids" not in told:
        return None
    if not isinstance(told["ids"], list):
        raise TypeError("ids must be a list")
    return list(dict.fromkeys(map(one, told["ids"])))


def query_in(told: Mapping[str, Any]) -> Mapping[str, Any]:
    """The filter of an order that names none."""
    if not isinstance(told.get("query"), dict):
        raise TypeError("ids, a list, or query, an object, must say which are meant")
    found: Mapping[str, Any] = told["query"]
    return found
