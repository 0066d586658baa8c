"""What native/core.c offers."""

from collections.abc import Callable
from typing import Any, TypeVar

from typing_extensions import Buffer

Kind = TypeVar("Kind", bound=dict[Any, Any])

INTERFACE: int

def pack_result(value: object, /) -> bytes | None: ...
def encode_blocks(jobs: tuple[object, ...], block_jobs: int, block_bytes: int, /) -> list[bytes | None]: ...
def load_block(data: Buffer, /) -> list[dict[Any, Any]] | None: ...
def load_results(data: Buffer, kind: type[Kind], /) -> list[Kind] | None: ...
def attach(results: list[Any], origin: object, origin_slot: object, at_slot: object, /) -> None: ...
def track(result: dict[Any, Any], /) -> dict[Any, Any]: ...
def prepare_starts() -> bytes | None: ...
def start(
    argv: list[str],
    files: list[bytes],
    environment: list[bytes],
    more: list[str],
    folder: str,
    stdio: tuple[int, int, int],
    prepared: bytes,
    /,
) -> tuple[int, object]: ...
def look_at_start(start: object, /) -> tuple[int, int] | None: ...
def prctl(option: int, argument: int | Buffer, /) -> int: ...

class Spawners:
    def __new__(cls, cells: Buffer, slots: int, low: int, event: int, children: int, /) -> Spawners: ...
    def add(self, job_id: int, cell: int, what_starts: tuple[object, ...], /) -> None: ...
    def lend(self, out: int, err: int, /) -> None: ...
    def release(self, given_up: bool, /) -> None: ...
    def hold(self, holds: bool, /) -> None: ...
    def withdraw(self, ids: set[int], /) -> list[int]: ...
    def take_over(self, started: float, /) -> list[tuple[int, int, int, float, float, int, object]]: ...
    def collect(self) -> tuple[list[tuple[int]], list[tuple[Any, ...]], float]: ...

class Loop:
    armed: int
    end: int
    open: bool
    over: bool
    copy: bool
    by_value: bool
    pipe: int
    error_pipe: int
    short_seconds: float

    @property
    def at(self) -> int: ...
    def __new__(
        cls,
        slot: Buffer,
        unclaimed: int,
        published: int,
        marks: int,
        ends: int,
        outcomes: int,
        payload: int,
        payload_size: int,
        output: int,
        reads: int,
        /,
    ) -> Loop: ...
    def run(
        self, work: Callable[[Any], object], jobs: list[Any], position: int, index: int, number: int, /
    ) -> object: ...
