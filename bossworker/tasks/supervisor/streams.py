"""All streams of one task: on the disk as long as the task is there, connected anew at each start of its command."""

from __future__ import annotations

import os

from bossworker.tasks.supervisor.pipes import Feeder, Messages, Outlet, Pump, message_pair
from bossworker.tasks.supervisor.store import ByteStore, MessageStore, Store
from bossworker.tasks.wire.stream_files import DATA, MARKS, NAMES, STDERR, STDIN, STDOUT, Marks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from bossworker.system.eventloop import Loop
    from bossworker.tasks.supervisor.clients import Client


class Streams:
    """The supervisor's side of stdin, stdout, stderr and data."""

    def __init__(
        self,
        loop: Loop,
        folder: int,
        *,
        cap: int | None,
        retain: int | None,
        changed: Callable[[int], object],
    ) -> None:
        """
        Args:
            folder: The descriptor of the folder that the streams are kept in.
            cap: This many of the newest bytes of each stream are kept; None: all.
            retain: This many bytes are kept after they have been read; None: all.
            changed: Called with a stream's number when more of it has come, or nothing more will.
        """
        self._loop = loop
        self._changed = changed
        self._marks = os.open(MARKS, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666, dir_fd=folder)
        marks = [Marks(self._marks, stream) for stream in range(len(NAMES))]
        self._bytes = {
            stream: ByteStore(folder, NAMES[stream], marks[stream], cap, retain) for stream in (STDOUT, STDERR)
        }
        self._messages = MessageStore(folder, NAMES[DATA], marks[DATA], cap, None)
        self.stores: dict[int, Store] = {**self._bytes, DATA: self._messages}
        """What is on the disk, by stream."""
        self._pumps: list[tuple[int, Pump]] = []  # more than one a stream when something outlived the command
        self._data: list[Messages] = []
        self._outlets: dict[int, Outlet] = {}
        self.goes_on = False
        """Whether the command will, or may, be started again: then no stream is at its end."""

    def connect(self) -> tuple[tuple[int, int, int], int]:
        """Connect a command that is about to start: its stdin, stdout, stderr, and the descriptor for messages.

        They are the caller's to close. OSError when there are no descriptors left; then nothing is open.
        """
        opened: list[int] = []
        try:
            opened += (*os.pipe(), *os.pipe(), *os.pipe())
            ours, theirs = message_pair()
        except OSError:
            for fd in opened:
                os.close(fd)
            raise
        their_in, our_in, our_out, their_out, our_err, their_err = opened
        self._connect(our_in, our_out, our_err, ours)
        return (their_in, their_out, their_err), theirs.detach()

    def _connect(self, stdin: int, stdout: int, stderr: int, data: Any) -> None:
        for store in self.stores.values():
            store.end(False)
        for stream, pipe in ((STDOUT, stdout), (STDERR, stderr)):
            self._pumps.append((stream, self._pump(stream, pipe)))
        messages = Messages(self._loop, data, self._messages, lambda: self._on(DATA))
        self._data.append(messages)
        self._outlets = {STDIN: Feeder(self._loop, stdin), DATA: messages}

    def _pump(self, stream: int, pipe: int) -> Pump:
        return Pump(self._loop, pipe, self._bytes[stream], lambda pump: self._on(stream))

    def _on(self, stream: int) -> None:
        """Something came, or the last end of a pipe was closed."""
        self._pumps = [(number, pump) for number, pump in self._pumps if pump.open]
        self._data = [messages for messages in self._data if messages.open]
        self._settle(stream)
        self._changed(stream)

    def _settle(self, stream: int) -> None:
        connected = self._data if stream == DATA else [pump for number, pump in self._pumps if number == stream]
        if not connected and not self.goes_on:
            self.stores[stream].end()

    def drain(self) -> None:
        """Take what the command has written so far."""
        for pump in [pump for _, pump in self._pumps]:
            pump.drain()
        for messages in list(self._data):
            messages.drain()

    def command_ended(self) -> None:
        """Nobody reads stdin any more. Whatever the command left behind may go on writing."""
        feeder = self._outlets.get(STDIN)
        if feeder is not None:
            feeder.close(immediate=True)
        for stream, store in self.stores.items():
            before = store.ended
            self._settle(stream)
            if store.ended != before:  # its pipe was closed before it was known that there would be no restart
                self._changed(stream)

    def write(self, stream: int, client: Client, data: bytes, wait: float | None) -> None:
        """Hand bytes or a message to the command; the client has its answer when they have been taken."""
        outlet = self._outlets.get(stream)
        if outlet is None:
            client.refuse("the stream is closed", closed=True)
        else:
            outlet.write(client, data, wait)

    def close_stream(self, stream: int, immediate: bool) -> None:
        """Close a stream that is written to, when what waits has been taken or at once; or read from, at once."""
        if stream in (STDIN, DATA) and stream in self._outlets:
            self._outlets[stream].close(immediate)
        for number, pump in list(self._pumps):
            if number == stream:
                if not immediate:
                    pump.drain()
                pump.close()

    def forget(self, client: Client) -> None:
        """It has hung up: what it has not handed over yet is dropped."""
        for outlet in self._outlets.values():
            outlet.forget(client)

    def consumed(self, stream: int, upto: int) -> None:
        """Somebody has read everything below `upto`."""
        self.stores[stream].consumed(upto)

    @property
    def connected(self) -> bool:
        """Whether somebody has an end of what a command wrote to."""
        return bool(self._pumps or self._data)

    def info(self) -> dict[str, Any]:
        """For each stream by its name: start, limit, eof."""
        feeder = self._outlets.get(STDIN)
        taken = feeder.taken if feeder else 0
        told: dict[str, Any] = {NAMES[STDIN]: {"start": taken, "limit": taken, "eof": not (feeder and feeder.open)}}
        for stream, store in self.stores.items():
            told[NAMES[stream]] = {"start": store.start, "limit": store.limit, "eof": store.ended}
        return told

    def trouble(self) -> list[str]:
        """What cannot be written at present, and why."""
        channels: list[Pump | Messages] = [*(pump for _, pump in self._pumps), *self._data]
        return [channel.trouble for channel in channels if channel.trouble]

    def close(self) -> None:
        """Give up all descriptors."""
        for stream in range(len(NAMES)):
            self.close_stream(stream, immediate=True)
        for messages in list(self._data):
            messages.close(immediate=True)
        for store in self.stores.values():
            store.close()
        os.close(self._marks)
