"""Pickles of anybody's, to be looked at: what is more than plain data in them becomes text. No code of theirs runs."""

from __future__ import annotations

import io
import pickle
from typing import Any

from bossworker.pool.wire.frames import Buffer
from bossworker.pool.wire.parcel import is_parcel, split_parcel


class Opaque:
    """Stands for an object whose class is not looked up."""

    _name = "object"

    def __new__(cls, *arguments: Any, **named: Any) -> Opaque:
        """Whatever a pickle makes it from."""
        made = super().__new__(cls)
        made._parts = [*arguments, *(f"{name}={value!r}" for name, value in named.items())]
        return made

    _parts: list[Any]

    def __setstate__(self, state: Any) -> None:
        self._parts.append(state)

    def append(self, value: Any) -> None:
        self._parts.append(value)

    def extend(self, values: Any) -> None:
        self._parts += values

    add = append

    def __setitem__(self, key: Any, value: Any) -> None:
        self._parts.append((key, value))

    def __call__(self, *arguments: Any) -> Opaque:
        return Opaque(self, *arguments)

    def __hash__(self) -> int:
        return id(self)

    def __repr__(self) -> str:
        parts = ", ".join(map(repr, self._parts))
        return f"<{self._name}{f' {parts}' if parts else ''}>"


class _Loader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        return type("Opaque", (Opaque,), {"_name": f"{module}.{name}"})

    def persistent_load(self, pid: object) -> Any:
        return Opaque(pid)


def load_opaque(payload: Buffer) -> Any:
    """What it holds. Raises anything when it is no pickle."""
    if is_parcel(memoryview(payload)):
        data, *buffers = split_parcel(memoryview(payload))
        return _Loader(io.BytesIO(data), buffers=buffers).load()
    return _Loader(io.BytesIO(payload)).load()
