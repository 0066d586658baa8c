"""Keys for doors that are reached over a network (CURVE: whoever connects is known by a key, and nobody listens in)."""

from __future__ import annotations

import json
import os
import string
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Self

from bossworker.system.checks import check_path

KEY_LENGTH = 40  # characters of a key, in Z85
_Z85 = frozenset(f"{string.ascii_letters}{string.digits}.-:+=^!/*?&<>()[]{{}}@%$#")


@dataclass(frozen=True, slots=True, repr=False)
class Keys:
    """A pair of keys, and which others are trusted. Made by :func:`bossworker.keys`.

    Two ways to use them:

    - One pair for the pool and its clients: give the same keys to ``listen`` and ``connect``. Whoever has them is let
      in, and could listen as well.
    - A pair for each side: ``pool.listen(address, keys=mine.admit(theirs.public))`` and
      ``connect(address, keys=theirs.trust(mine.public))``. Only the public halves travel.
    """

    public: str
    secret: str
    clients: frozenset[str] = frozenset()
    """Public keys of clients that are let in, besides our own."""
    server: str = ""
    """Public key of the pool that is connected to; our own when empty."""

    def admit(self, *public: str) -> Self:
        """The same keys, for a pool that lets in clients with these public keys."""
        return replace(self, clients=self.clients.union(map(check_key, public)))

    def trust(self, public: str) -> Self:
        """The same keys, for clients of a pool with this public key."""
        return replace(self, server=check_key(public))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write them to a new file that only this user may read. FileExistsError when there is one."""
        told = {"public": self.public, "secret": self.secret, "clients": sorted(self.clients), "server": self.server}
        fd = os.open(check_path("path", path), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(fd, "w", encoding="ascii") as file:
            json.dump(told, file)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read them from a file that `save` has written. ValueError when others may read it, or it holds no keys."""
        with open(check_path("path", path), encoding="ascii", errors="replace") as file:
            if os.fstat(file.fileno()).st_mode & 0o077:
                raise ValueError(f"the keys in {os.fspath(path)!r} are no secret: others may read it; chmod 600")
            text = file.read()
        try:
            told = json.loads(text)
            server = check_key(told["server"]) if told["server"] else ""
            return cls(check_key(told["public"]), check_key(told["secret"]), _keys(told["clients"]), server)
        except (KeyError, TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"there are no keys in {os.fspath(path)!r}") from error

    @property
    def admitted(self) -> frozenset[str]:
        """Public keys of all that are let in."""
        return self.clients | {self.public}

    def __repr__(self) -> str:
        return f"<Keys {self.public}, {len(self.clients)} clients admitted>"


def _keys(told: Iterable[object]) -> frozenset[str]:
    return frozenset(map(check_key, told))


def check_key(value: object) -> str:
    """A key in Z85, as it is printed."""
    if not isinstance(value, str):
        raise TypeError(f"a key must be a str, not {value!r}")
    if len(value) != KEY_LENGTH:
        raise ValueError(f"a key must have {KEY_LENGTH} characters (Z85), not {len(value)}")
    if strange := set(value) - _Z85:
        raise ValueError(f"a key must consist of characters of Z85, and {min(strange)!r} is none")
    return value


def check_keys(value: object) -> Keys | None:
    """Keys, or None."""
    if value is None:
        return None
    if not isinstance(value, Keys):
        raise TypeError(f"keys must be Keys (see bossworker.keys) or None, not {type(value).__name__}")
    for key in (value.public, value.secret, *value.clients, *([value.server] if value.server else [])):
        check_key(key)
    return value


def keys() -> Keys:
    """A new pair of keys, for ``listen`` and ``connect``: see :class:`Keys`."""
    import zmq

    public, secret = zmq.curve_keypair()
    return Keys(public.decode(), secret.decode())


def keys_of(told: dict[str, Any] | None) -> Keys | None:
    """What a door's process is told of them."""
    return None if told is None else Keys(told["public"], told["secret"], frozenset(told["clients"]))
