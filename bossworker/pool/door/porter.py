"""A porter: the process of a client that holds ZeroMQ, between its handle and a door.

The handle speaks frames with it over a socket pair, as with a boss; the porter passes them on, and speaks JSON in their
place with a door that takes that. It ends with either side. libzmq's threads, and CURVE, are here, not in the program.
"""

from __future__ import annotations

import json
import select
import socket
from array import array
from contextlib import suppress
from typing import Any

import zmq

from bossworker.pool.door import door_protocol, json_form, side_process
from bossworker.pool.door.addresses import short_way
from bossworker.pool.door.door_protocol import FRAMES, Pieces, in_pieces, message_of
from bossworker.pool.wire import messages
from bossworker.pool.wire.batch import Batch, JobOptions
from bossworker.pool.wire.frames import Frame, frame_of
from bossworker.pool.wire.link import Link, LinkClosed
from bossworker.pool.wire.messages import Kind, ProtocolError
from bossworker.watch.event_records import FROM_NOW

MOST_UNSENT = 1 << 24  # bytes on their way to the handle; with more, nothing is taken from the door
LINGER_MILLISECONDS = 500
HEARTBEAT_MILLISECONDS = 2000
SEND_MILLISECONDS = 100  # for the door to take a message; then we look whether it is there
LOST_MILLISECONDS = 10_000


class Porter:
    """See the module. `run` returns when either side has hung up."""

    def __init__(self, handle: Link, settings: dict[str, Any]) -> None:
        self.handle = handle
        self.form = settings["hello"]["form"]
        self.pieces = Pieces()
        self.over = False
        self.welcomed = False
        self.journal = False  # whether the pool's journal keeps our jobs
        self._credited = 0  # bytes of JSON results
        self._context = zmq.Context()
        self._socket: Any = self._context.socket(zmq.DEALER)
        for option, value in (
            (zmq.LINGER, LINGER_MILLISECONDS),
            (zmq.SNDTIMEO, SEND_MILLISECONDS),
            (zmq.RECONNECT_IVL, 200),  # until we are let in; then a connection that is lost is the end
            (zmq.HEARTBEAT_IVL, HEARTBEAT_MILLISECONDS),
            (zmq.HEARTBEAT_TIMEOUT, LOST_MILLISECONDS),
        ):
            self._socket.setsockopt(option, value)
        if (keys := settings["keys"]) is not None:
            self._socket.setsockopt(zmq.CURVE_SERVERKEY, keys["server"].encode())
            self._socket.setsockopt(zmq.CURVE_PUBLICKEY, keys["public"].encode())
            self._socket.setsockopt(zmq.CURVE_SECRETKEY, keys["secret"].encode())
        self._monitor: Any = self._socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        self._connect(settings)
        self._poller = zmq.Poller()
        for one in (self._socket, self._monitor, handle.fileno()):
            self._poller.register(one, zmq.POLLIN)
        with suppress(zmq.Again):  # a door that refuses our key may have closed the line by now; nobody will answer
            self._socket.send(door_protocol.encode(settings["hello"]))

    def _connect(self, settings: dict[str, Any]) -> None:
        if not settings["path"]:
            self._socket.connect(settings["address"])
            self._look_up(*settings["address"].removeprefix("tcp://").rsplit(":", 1))
            return
        self._way = short_way(settings["path"])
        self._socket.connect(f"ipc://{self._way.__enter__()}")  # which must be there as long as it connects

    def _look_up(self, host: str, port: str) -> None:
        """Tell a handle that waits in vain why. ZeroMQ looks again and again; the name may be known by then."""
        try:
            socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
        except OSError as error:
            why = f"the host {host!r} is not known ({error.strerror})"
            with suppress(LinkClosed):
                self.handle.send(Kind.NOTE, b"", [why.encode()])

    def run(self) -> None:
        while not self.over:
            self._poller.poll()
            self._read_door()
            self._read_handle()
            self._look_whether_door_is_there()
        self._socket.disable_monitor()
        self._context.destroy(LINGER_MILLISECONDS)

    # -- the door -----------------------------------------------------------------------------------------

    def _read_door(self) -> None:
        if self.handle.unsent_bytes > MOST_UNSENT:
            return
        with suppress(zmq.Again):
            for _ in range(200):
                parts = self._socket.recv_multipart(zmq.DONTWAIT)
                if len(parts) == 1:
                    self._on_message(parts[0])

    def _on_message(self, data: bytes) -> None:
        if not self.welcomed:
            self.welcomed = True
            self.journal = bool(door_protocol.decode(data).get("journal"))
            self._tell_handle(Kind.READY, b"", data)
        elif self.form == FRAMES:
            self._on_frame(frame_of(memoryview(data)))
        else:
            self._on_json(door_protocol.decode(data), len(data))

    def _on_frame(self, frame: Frame) -> None:
        if frame.kind is not Kind.PIECE:
            self._tell_handle(frame.kind, bytes(frame.head), frame.body)
        elif (whole := self.pieces.add(frame)) is not None:
            self._on_frame(whole)

    def _on_json(self, told: dict[str, Any], size: int) -> None:
        match told["op"]:
            case "results":
                for segment in json_form.results_from_json(told):
                    self._tell_handle(Kind.RESULTS, segment.head(), *segment.body())
                self._credited += size  # here, since the handle counts frames, and the door messages
                self._send(door_protocol.encode({"op": "credit", "bytes": self._credited}))
            case "reply":
                number = told.pop("request")
                del told["op"]
                self._tell_handle(Kind.REPLY, messages.REQUEST.pack(number), json.dumps(told).encode())
            case "recall":
                for batch in json_form.jobs_from_json(told, JobOptions(0, 0.0, 0, 1)):
                    self._tell_handle(Kind.RECALL, batch.head(), *batch.body())
            case "taken":
                self._tell_handle(Kind.TAKEN, b"", array("Q", told["ids"]).tobytes())
            case "closed" | "goodbye" | "closing" as op:
                kind = {"closed": Kind.CLOSED, "goodbye": Kind.GOODBYE, "closing": Kind.CLOSE}[op]
                self._tell_handle(kind, b"", str(told.get("reason", "")).encode())

    def _send(self, message: Any) -> None:
        while not self.over:
            try:
                self._socket.send(message)
            except zmq.Again:
                self._look_whether_door_is_there()
            else:
                return

    def _look_whether_door_is_there(self) -> None:
        left = False
        with suppress(zmq.Again):
            while self._monitor.recv_multipart(zmq.DONTWAIT):
                left = True
        if left and self.welcomed:
            self._read_door()
            self._finish()

    def _finish(self) -> None:
        """Hand over what is left, and hang up."""
        self.over = True
        with suppress(LinkClosed):
            while not self.handle.flush():
                select.select([], [self.handle.fileno()], [])

    # -- the handle ---------------------------------------------------------------------------------------

    def _tell_handle(self, kind: Kind, head: bytes, *body: Any) -> None:
        try:
            self.handle.send(kind, head, body)
        except LinkClosed:
            self.over = True
            return
        self._watch_handle()

    def _watch_handle(self) -> None:
        unsent = self.handle.unsent
        self._poller.modify(self.handle.fileno(), zmq.POLLIN | (zmq.POLLOUT if unsent else 0))
        full = self.handle.unsent_bytes > MOST_UNSENT
        self._poller.modify(self._socket, 0 if full else zmq.POLLIN)

    def _read_handle(self) -> None:
        try:
            if self.handle.unsent:
                self.handle.flush()
                self._watch_handle()
            frames = self.handle.receive()
        except (LinkClosed, ProtocolError):
            self.over = True
            return
        for frame in frames:
            if self.form == FRAMES:
                for piece in in_pieces(message_of(frame.kind, bytes(frame.head), frame.body)):
                    self._send(piece)
            elif (told := _as_json(frame, self.journal)) is not None:
                self._send(door_protocol.encode(told))


def _as_json(frame: Frame, journal: bool) -> dict[str, Any] | None:
    """What the handle sends, for a door that takes JSON. None: nothing. `journal`: it ends its calls by RECORD."""
    match frame.kind:
        case Kind.SUBMIT:
            told = json_form.jobs_to_json(Batch.read(frame.head, frame.body))
            return {**told, "more": True} if journal else told
        case Kind.CREDIT:
            return None
        case Kind.TAKEN:
            return {"op": "taken", "ids": array("Q", bytes(frame.body)).tolist()}
        case Kind.CLOSE | Kind.STOP | Kind.FORGET as kind:
            return {"op": kind.name.lower()}
    return _request_as_json(frame)


def _request_as_json(frame: Frame) -> dict[str, Any]:
    match frame.kind:
        case Kind.CANCEL:
            (number,) = messages.REQUEST.unpack_from(frame.head)
            ids = array("Q", bytes(frame.body)).tolist()
            return {"op": "cancel", "request": number, "ids": ids, "queued_only": len(frame.head) > 8}
        case Kind.STACK:
            (number,) = messages.REQUEST.unpack_from(frame.head)
            (job_id,) = messages.JOB.unpack_from(frame.head, messages.REQUEST.size)
            return {"op": "stack", "request": number, "job": None if job_id == messages.EVERY_JOB else job_id}
        case Kind.EVENTS:
            (number,) = messages.REQUEST.unpack_from(frame.head)
            seen, wait = messages.EVENTS.unpack_from(frame.head, messages.REQUEST.size)
            return {"op": "events", "request": number, "seen": None if seen == FROM_NOW else seen, "wait": wait}
        case kind:
            (number,) = messages.REQUEST.unpack_from(frame.head)
            return {"op": kind.name.lower(), "request": number}


def main(handle: int) -> None:
    """The process's main."""
    link, settings = side_process.begin(handle)
    Porter(link, settings).run()
