"""Pickles of whatever can be pickled, by pickle or else by cloudpickle."""

from __future__ import annotations

import pickle

import cloudpickle

PROTOCOL = 5
MAIN = b"__main__"


def dumps(value: object, by_value: bool = False, beside: list[pickle.PickleBuffer] | None = None) -> bytes:
    """Pickle; what pickle cannot, lambdas and closures above all, by cloudpickle. Buffers go to `beside`, if given."""
    callback = None if beside is None else beside.append
    try:
        data = pickle.dumps(value, PROTOCOL, buffer_callback=callback)
        if not (by_value and MAIN in data):
            return data
    except Exception:
        pass
    if beside:
        beside.clear()
    return cloudpickle.dumps(value, PROTOCOL, buffer_callback=callback)  # type: ignore[no-any-return]
