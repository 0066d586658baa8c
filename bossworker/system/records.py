"""What a run of commands, which is to reach its first one soon, needs of ``typing``: to load that takes 4 ms."""

from __future__ import annotations

from collections import namedtuple

__all__ = ["NamedTuple", "Protocol"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NamedTuple, Protocol
else:

    class _Maker(type):
        """Has ``collections`` make the class of what stands in its body, where annotations are text."""

        def __new__(cls, name, bases, body):
            if not bases:
                return super().__new__(cls, name, bases, body)
            fields = body["__annotations__"]
            defaults = [body.pop(field) for field in fields if field in body]
            made = namedtuple(name, fields, defaults=defaults)
            for key, value in body.items():
                setattr(made, key, value)
            return made

    class NamedTuple(metaclass=_Maker):
        """As that of ``typing``."""

    class Protocol:
        """As that of ``typing``, where nobody asks ``isinstance``."""
