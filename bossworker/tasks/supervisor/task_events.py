"""What a task's clients are told of: output, a few times a second at most, and what happens to the command."""

from __future__ import annotations

from bossworker.tasks.wire import protocol
from bossworker.tasks.wire.protocol import encode
from bossworker.tasks.wire.stream_files import NAMES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from bossworker.system.eventloop import Loop
    from bossworker.tasks.supervisor.clients import Client, Service
    from bossworker.tasks.supervisor.streams import Streams

OUTPUT_PAUSE = 0.01  # seconds between two events that tell of output on the same stream


class TaskEvents:
    """See the module. `exit_event` makes the event of the command's last end."""

    def __init__(self, loop: Loop, streams: Streams, exit_event: Callable[[], dict[str, Any]]) -> None:
        self._loop = loop
        self._streams = streams
        self._exit_event = exit_event
        self._told: dict[int, bool] = {}  # streams whose output was told of a moment ago; whether more has come
        self.service: Service | None = None  # once there can be clients

    @property
    def clients(self) -> int:
        """How many are connected."""
        return len(self.service.clients) if self.service else 0

    def tell(self, event: dict[str, Any], key: object = None) -> None:
        """Send an event to all clients that watch."""
        if self.service is not None:
            self.service.tell(event, key)

    def watch(self, client: Client, over: bool) -> None:
        """Tell it what happens from now on, and first what has happened already; `over`: also the command's end."""
        if self.service is not None:
            self.service.begin_watching(client)
        # Watching first, then told what is so already: what happens from now on is sent behind that. It may be told
        # twice, but not missed.
        client.answer({})
        for stream, store in self._streams.stores.items():
            if store.limit > store.start or store.ended:
                client.tell(encode(self._output_event(stream)), stream)
        if over:
            client.tell(encode(self._exit_event()), protocol.EXIT)

    def output_came(self, stream: int) -> None:
        """Tell of it now, and again after a pause if more has come by then."""
        # Output that comes within the pause is told at its end: its last piece is never left untold.
        if stream in self._told:
            self._told[stream] = True
        else:
            self._tell_output(stream)

    def _tell_output(self, stream: int) -> None:
        self._told[stream] = False
        self.tell(self._output_event(stream), stream)
        self._loop.after(OUTPUT_PAUSE, lambda: self._pause_is_over(stream))

    def _pause_is_over(self, stream: int) -> None:
        if self._told.pop(stream):
            self._tell_output(stream)

    def _output_event(self, stream: int) -> dict[str, Any]:
        store = self._streams.stores[stream]
        return {"event": protocol.OUTPUT, "stream": NAMES[stream], "limit": store.limit, "eof": store.ended}
