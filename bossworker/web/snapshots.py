"""What comes by itself: one stream a tab, with a snapshot of everything four times a second (server-sent events).

A browser keeps six connections to a host, in all of its tabs together. So a tab has one stream, which it closes while
it is hidden. Nothing piles up here for one that does not read: a stream waits until its connection takes more.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from anyio import sleep
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from bossworker.web.watch_room import SharedSnapshot, WatchRoom

TICK_SECONDS = 0.1  # between looks for a new snapshot
MOST_STREAMS = 200
RETRY_MILLISECONDS = 1000  # for a browser to come back


class SnapshotStreams:
    """See the module."""

    def __init__(self, room: WatchRoom) -> None:
        self._room = room
        self._shared = SharedSnapshot(room)
        self.is_over: Callable[[], bool] = lambda: False

    async def endpoint(self, request: Request) -> Response:
        """For a tab."""
        if self._room.watchers >= MOST_STREAMS:
            return PlainTextResponse("too many look at this page already", 503)
        headers = {"X-Accel-Buffering": "no"}
        return StreamingResponse(self._snapshots(request), media_type="text/event-stream", headers=headers)

    async def _snapshots(self, request: Request) -> AsyncIterator[str]:
        yield f"retry: {RETRY_MILLISECONDS}\n\n"
        with self._room.watched():
            seen = 0
            while not (self._room.over or self.is_over() or await request.is_disconnected()):
                serial, text = await run_in_threadpool(self._shared.latest)
                if serial != seen:
                    seen = serial
                    yield f"event: now\ndata: {text}\n\n"
                await sleep(TICK_SECONDS)

    async def state(self, request: Request) -> Response:
        """The same, once."""
        _, text = await run_in_threadpool(self._shared.latest)
        return Response(text, media_type="application/json")
