"""The C halves of json, signal and socket, without what the modules of these names bring along.

``json`` loads regular expressions, ``signal`` and ``socket`` load enum: about a mebibyte for each supervisor. Where the
interpreter has no such halves, the whole modules stand in.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    import socket
    from typing import Any
else:
    try:
        import _signal as signal
        import _socket as socket
    except ImportError:
        import signal
        import socket

__all__ = ["NO_SIGPIPE", "dumps", "loads", "signal", "socket"]

NO_SIGPIPE = int(getattr(socket, "MSG_NOSIGNAL", 0))
"""For every send: a peer that is gone is an error, and does not kill a program that has SIGPIPE at its default."""

try:
    from _json import encode_basestring_ascii, make_encoder, make_scanner  # type: ignore[attr-defined, unused-ignore]
except ImportError:
    from json import dumps, loads
else:

    class _AsUsual:
        """How the scanner is to read: as ``json.loads`` does unless told otherwise."""

        strict = True
        object_hook = object_pairs_hook = None
        parse_float, parse_int = float, int
        parse_constant = {"-Infinity": -float("inf"), "Infinity": float("inf"), "NaN": float("nan")}.__getitem__

    def _refuse(value: object) -> object:
        raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")

    _scan = make_scanner(_AsUsual)  # type: ignore[arg-type]

    def dumps(value: Any) -> str:  # type: ignore[misc]
        """JSON, in ASCII."""
        encode = make_encoder({}, _refuse, encode_basestring_ascii, None, ": ", ", ", False, False, False)
        return "".join(encode(value, 0))

    def loads(text: str) -> Any:  # type: ignore[misc]
        """What JSON says; ValueError if it is none."""
        text = text.strip(" \t\r\n")
        try:
            value, end = _scan(text, 0)
        except (StopIteration, SystemError):  # the latter where it looks in vain for the error class of json.decoder
            raise ValueError("not JSON") from None
        if end != len(text):
            raise ValueError("not JSON: something follows")
        return value
