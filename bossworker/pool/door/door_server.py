"""A door's process: lets other programs speak with a pool's boss, and keeps from it whatever is no proper job.

It owns the public socket, and all that is known of clients. To the boss it is one more line that adds jobs, whose ids
have the door's and the client's number above the client's own; so a flood at the door costs the boss nothing, and what
this process may die of is no harm to the pool. It ends with the boss, or when it is told to.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from struct import error as StructError
from typing import Any

import zmq

from bossworker.pool.door import door_protocol, side_process
from bossworker.pool.door.addresses import remove_path
from bossworker.pool.door.arrivals import NOTE_SECONDS, Arrivals
from bossworker.pool.door.boss_line import BossLine, decoded
from bossworker.pool.door.client_mail import ClientMail
from bossworker.pool.door.client_requests import ClientRequests
from bossworker.pool.door.direct_lines import DirectLines
from bossworker.pool.door.door_clients import ClientList, DoorClient
from bossworker.pool.door.door_poller import DoorPoller
from bossworker.pool.door.door_protocol import FORM_OF, FRAMES
from bossworker.pool.door.door_router import DoorRouter, Taken
from bossworker.pool.door.greeting import Reception
from bossworker.pool.door.journaled_clients import JournaledClients
from bossworker.pool.door.keys import keys_of
from bossworker.pool.door.operators import Operators
from bossworker.pool.door.presence import Presence
from bossworker.pool.door.results_out import ResultsOut
from bossworker.pool.wire.batch import JobOptions
from bossworker.pool.wire.frames import Frame, frame_of
from bossworker.pool.wire.link import Link, LinkClosed, close_fds
from bossworker.pool.wire.messages import (
    FIRST_KEPT_CLIENT,
    INFO,
    LAST_CLIENT,
    Kind,
    ProtocolError,
)
from bossworker.pool.wire.segments import Segment, read_segments
from bossworker.system import processes

LINGER_SECONDS = 0.5  # at the end of the pool, for clients to take what they have not taken
ENDING_TICK = 0.02  # between looks whether they have
NOBODY_SECONDS = 3600.0
_NO_REQUEST = (ProtocolError, StructError, ValueError, TypeError, KeyError, OverflowError, RecursionError, MemoryError)


class DoorServer:
    """See the module. `run` returns when the door is closed."""

    def __init__(
        self, program: Link, boss: Link, settings: dict[str, Any], listener: int, scribe: Link | None = None
    ) -> None:
        options = settings["options"]
        self.form = FORM_OF[settings["accept"]]
        self.address = settings["address"]
        self.router = DoorRouter(settings["address"], listener, keys_of(settings["keys"]), self.form == FRAMES)
        self.program = program
        self.program_is_there = True
        self.clients = ClientList(LAST_CLIENT if scribe is None else FIRST_KEPT_CLIENT - 1)
        self.presence = Presence(self.clients)
        self.poller = DoorPoller()
        self.boss = BossLine(boss, self.poller)
        self.mail = ClientMail(self.router, self.form, self.presence.suspect)
        self.reception = Reception(self.clients, self.mail, settings, self.lose)
        self.mail.lines = self.lines = DirectLines(self.poller, self.reception.begin, self.read_line, self.line_to_boss)
        self.results = ResultsOut(self.clients, self.mail, self.lose)
        default = JobOptions(0, options["global_timeout"], options["retries"], 1)
        around = (self.poller, self.clients, self.mail, self.on_results)
        self.journal = JournaledClients(scribe, *around) if scribe is not None else None
        self.requests = ClientRequests(self.boss, self.mail, settings["door"], default, self.lose, self.journal)
        self.operators = Operators(self.boss, self.router, settings, self.describe_clients)
        self.arrivals = Arrivals(
            self.reception, self.operators, self.journal, self.mail, self.boss, self.address, self.presence.suspect
        )
        self.malformed = 0
        self.ends_at: float | None = None  # when the door is closed, whatever clients have not taken
        self.said_closed = False  # all clients have been told that they have got, or will get, what is theirs
        self.note_at = 0.0
        self.over = False
        self.poller.watch_socket(self.router.socket, self.read_strangers, clients=True)
        self.poller.watch_socket(self.router.monitor, self.on_hang_up)
        if self.router.zap is not None:
            self.poller.watch_socket(self.router.zap, self.answer_strangers)
        self.poller.watch(self.boss.fileno(), self.read_boss)
        self.poller.watch(program.fileno(), self.read_program)

    # -- the loop ---------------------------------------------------------------------------------------

    def run(self) -> None:
        self.program.send(Kind.READY, b"", [self.router.endpoint.encode()])
        while not self.over:
            self.poller.wait(self.seconds_to_sleep())
            self.look_who_is_there()
            self.end_if_due()
        self.router.close()

    def seconds_to_sleep(self) -> float:
        """Until something is due."""
        seconds = self.presence.seconds_until_due()
        if seconds is None:
            seconds = NOBODY_SECONDS
        return seconds if self.ends_at is None else min(seconds, ENDING_TICK)

    def end_if_due(self) -> None:
        """Once the pool is through: as soon as all clients have what is theirs, or have had time for it.

        What a line of a client's own does not take yet is still here, and would go with us.
        """
        if self.ends_at is None:
            return
        late, here = time.monotonic() >= self.ends_at, self.clients.by_route.values()
        waiting = any(client.outgoing for client in here)
        waiting = waiting or (self.journal is not None and self.journal.holds_up_end())
        if not self.said_closed and (late or not waiting):
            self.said_closed = True
            self.say_to_all("closed")
        self.over = self.over or late or (self.said_closed and not any(client.holds_up for client in here))

    def say_to_all(self, op: str, reason: str = "") -> None:
        for client in self.clients.by_route.values():
            self.mail.say(client, op, reason)

    # -- clients ----------------------------------------------------------------------------------------

    def answer_strangers(self) -> None:
        turned_away = self.router.answer_strangers()
        if turned_away:
            self.arrivals.note_refused(turned_away, "its key is not admitted")

    def on_hang_up(self) -> None:
        self.router.read_monitor()
        self.presence.look_soon()

    def read_strangers(self) -> None:
        for one in self.router.take(self.clients.by_route):
            try:
                self.on_message(one)
            except _NO_REQUEST as error:
                self.drop(one.route, error)
        self.stay_awake()

    def stay_awake(self) -> None:
        """For an instant, when jobs have come."""
        if self.requests.submitted:
            self.requests.submitted = False
            self.poller.stay_awake()

    def read_line(self, client: DoorClient) -> None:
        """What has come over one."""
        frames = self.lines.receive(client)
        if frames is None:
            self.presence.suspect(client)
            return
        for frame in frames:
            try:
                self.requests.on_frame(client, frame)
            except _NO_REQUEST as error:
                self.drop(client.route or b"", error)
            finally:
                close_fds(frame.fds)
        self.stay_awake()

    def on_message(self, message: Taken) -> None:
        route, data, key, user = message
        client = self.clients.by_route.get(route)
        if client is not None:
            self.on_client_message(client, data)
        elif route in self.operators.by_route:
            self.operators.on_message(route, bytes(data))
        else:
            self.arrivals.greet(route, door_protocol.decode_hello(data), key, user)

    def on_client_message(self, client: DoorClient, data: bytes | memoryview) -> None:
        """What a client of ours sends over ZeroMQ."""
        if client.expects_line:  # it speaks like this all the same
            self.lines.withdraw(client)
            self.reception.begin(client)
        if self.form == FRAMES:
            self.requests.on_frame(client, frame_of(memoryview(data)))
        else:
            self.requests.on_json(client, door_protocol.decode(bytes(data)))

    def drop(self, route: bytes, error: Exception) -> None:
        """A message that no client of ours sends: counted, told of now and then. People's own clients are told.

        ZeroMQ connects again by itself: a client that does not know that it was lost meanwhile learns it so.
        """
        self.malformed += 1
        if self.form != FRAMES or route in self.operators.by_route:
            known = route in self.clients.by_route or route in self.operators.by_route
            self.mail.send_to(route, {"op": "error" if known else "goodbye", "reason": str(error)})
        if time.monotonic() >= self.note_at:
            self.note_at = time.monotonic() + NOTE_SECONDS
            self.boss.note(
                f"messages dropped: messages={self.malformed} door={self.address!r} last={str(error)[:200]!r}"
            )

    def line_to_boss(self, client: DoorClient) -> socket.socket | None:
        """One for a client. What has to be kept has to go by here."""
        if client.keepsake is not None:
            return None
        line = self.boss.open_line(client.number)
        client.counted_by_boss = line is not None
        return line

    def describe_clients(self, on_told: Callable[[list[dict[str, Any]]], None]) -> None:
        """Tell of all, once the boss has told of those that it counts."""

        def tell(told: dict[str, Any]) -> None:
            counted = told.get("clients", {})
            on_told([client.describe(counted.get(str(client.number))) for client in self.clients.by_number.values()])

        if any(client.counted_by_boss for client in self.clients.by_number.values()):
            self.boss.ask(Kind.CLIENTS, b"", b"", decoded(tell))
        else:
            tell({})

    def look_who_is_there(self) -> None:
        """Lose those who have hung up, once nothing is left to be read.

        What one had sent before it hung up may still be there, since nothing can be sent to it any more at once.
        """
        self.presence.probe(self.mail.is_gone)
        if self.presence.suspects and not self.router.has_more():
            for client in self.presence.take_suspects():
                while client.line is not None and self.mail.is_gone(client):
                    self.read_line(client)
                if self.mail.is_gone(client):  # not if another client of its identity has come meanwhile
                    self.lose(client)
            self.arrivals.greet_late()

    def lose(self, client: DoorClient) -> None:
        """A client is gone. What it has is kept where it wanted that, for the next of its identity, or dropped."""
        if self.clients.by_number.get(client.number) is not client:
            return
        self.clients.detach(client)
        self.lines.withdraw(client)
        if client.keepsake is not None and client.keepsake.batches:
            self.boss.note(f"client away: identity={client.identity!r} unfinished={client.unfinished}", INFO)
            return
        self.clients.remove(client)
        self.requests.forget(client)
        if self.journal is not None and client.journaled:
            self.journal.leave(client)
            self.boss.note(f"client left: identity={client.identity!r} unfinished={client.unfinished}", INFO)
            return

        def forgotten(told: dict[str, Any]) -> None:
            client.take_over_figures(told)
            self.boss.note(f"client left: identity={client.identity!r} unfinished={client.unfinished}", INFO)

        self.boss.forget(client.number, decoded(forgotten))

    # -- the boss -----------------------------------------------------------------------------------------

    def read_boss(self) -> None:
        try:
            frames = self.boss.receive()
        except LinkClosed:
            self.lose_boss()
            return
        for frame in frames:
            self.on_boss_frame(frame)

    def lose_boss(self) -> None:
        """It has ended. If it said before that the pool was through, clients have their time all the same: what they
        have not taken is here, or comes from a scribe."""
        self.poller.forget(self.boss.fileno())
        if self.ends_at is None:
            self.say_to_all("goodbye", "the pool's boss is gone")
            self.over = True

    def on_boss_frame(self, frame: Frame) -> None:
        match frame.kind:
            case Kind.RESULTS:
                self.on_results(read_segments(frame.head, frame.body), frame.fd)
                close_fds(frame.fds)
            case Kind.CLOSE:
                self.reception.closed = True
                self.say_to_all("closing", "the pool is being shut down and takes no more work")
            case Kind.CLOSED:
                self.ends_at = time.monotonic() + LINGER_SECONDS

    def on_results(self, segments: list[Segment], file: int | None) -> None:
        """`file` has the data of the last one."""
        for segment in segments:
            self.requests.returned(segment)
        self.results.hand_out(segments, file)

    # -- the program --------------------------------------------------------------------------------------

    def read_program(self) -> None:
        if not self.program_is_there:
            return
        try:
            frames = self.program.receive()
        except LinkClosed:
            self.on_hung_up()
            return
        for frame in frames:
            if frame.kind is Kind.STATS:
                self.describe_clients(partial(self.answer_program, bytes(frame.head)))

    def answer_program(self, request: bytes, clients: list[dict[str, Any]]) -> None:
        told = {"clients": clients, "malformed": self.malformed, "refused": self.arrivals.refused}
        with suppress(LinkClosed):  # it closes the door
            self.program.send(Kind.REPLY, request, [json.dumps(told).encode()])

    def on_hung_up(self) -> None:
        """The program closes the door. If the pool has come to its end in order, which the boss says before, no
        client has lost anything, and each has a little time to take the rest.
        """
        self.poller.forget(self.program.fileno())
        self.program_is_there = False
        self.read_boss()
        if self.ends_at is None:
            self.say_to_all("goodbye", "the door was closed")
            self.over = True


def main(program: int, boss: int, *more: int) -> None:
    """The process's main. Of `more`, the listener is the first, for a path, and a scribe's line the last, for one."""
    link, settings = side_process.begin(program)
    listener = more[0] if settings["path"] else -1
    scribe = Link(socket.socket(fileno=more[-1])) if settings["journal"] else None
    processes.most_descriptors()  # libzmq aborts a process that has none left for whoever connects at a path
    try:
        server = DoorServer(link, Link(socket.socket(fileno=boss)), settings, listener, scribe)
    except zmq.ZMQError as error:
        link.send(Kind.START_FAILED, b"", [(error.strerror or str(error)).encode()])
        return
    try:
        server.run()
    finally:
        if settings["path"]:
            remove_path(settings["path"], settings["mark"])
