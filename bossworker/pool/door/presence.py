"""Which clients have hung up. ZeroMQ does not tell which one it was, so all are tried, now and again."""

from __future__ import annotations

import time
from collections.abc import Callable

from bossworker.pool.door.door_clients import ClientList, DoorClient

PROBE_SECONDS = 1.0  # between looks whether all clients are there, besides those when somebody hangs up
SETTLE_SECONDS = 0.02  # after a hang-up, for ZeroMQ to forget the route
SUSPECT_TICK = 0.001  # between looks whether all has been read from those who seem to be gone


class Presence:
    """See the module."""

    def __init__(self, clients: ClientList) -> None:
        self._clients = clients
        self._probe_at = time.monotonic() + PROBE_SECONDS
        self.suspects: list[DoorClient] = []  # that seem to be gone

    def seconds_until_due(self) -> float | None:
        """Until there is something to look at; None: nobody is here."""
        if self.suspects:
            return SUSPECT_TICK
        return self._probe_at - time.monotonic() if len(self._clients) else None

    def look_soon(self) -> None:
        """Somebody has hung up. ZeroMQ knows a little later what that means for each client."""
        # The hang-up is told before the route is forgotten: a message that is sent right now would still count as sent.
        self._probe_at = min(self._probe_at, time.monotonic() + SETTLE_SECONDS)

    def suspect(self, client: DoorClient) -> None:
        """It seems to be gone."""
        if client not in self.suspects:
            self.suspects.append(client)

    def probe(self, is_gone: Callable[[DoorClient], bool]) -> None:
        """Try all clients, once it is time."""
        if time.monotonic() >= self._probe_at:
            self._probe_at = time.monotonic() + PROBE_SECONDS
            for client in list(self._clients.by_route.values()):
                if is_gone(client):
                    self.suspect(client)

    def take_suspects(self) -> list[DoorClient]:
        """Those that seem to be gone; from now on, they do not."""
        suspects, self.suspects = self.suspects, []
        return suspects
