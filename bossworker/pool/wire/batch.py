"""A batch of jobs on its way from the caller to a worker: consecutive ids, the same options, one stretch of bytes.

The bytes are **blocks**. A block is one pickled job, or one pickled list of many jobs made of plain data. A batch can
be split at any job, also inside a block: then both halves carry that block's bytes, and `skip` says how many of its
jobs belong to somebody else. So the boss cuts and joins batches without looking into a single job.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate
from struct import Struct
from typing import NamedTuple

from bossworker.pool.wire.frames import Part, pack
from bossworker.pool.wire.messages import BATCH_HEAD, BLOCK_COUNT, BLOCK_SIZE, Kind
from bossworker.pool.wire.parcel import Held

JOINED_BYTES = 1 << 20  # a batch grows by joining to this size, so that what is used up is freed in pieces
SUBMIT_BYTES = 1 << 20  # jobs travel to the boss in frames of about this size,
SUBMIT_JOBS = 1 << 14  # and at most this many jobs
_ONE_BLOCK = Struct("=" + BLOCK_COUNT + BLOCK_SIZE)
_COUNT_ITEM = array(BLOCK_COUNT).itemsize
_BLOCK_COLUMNS = _COUNT_ITEM + array(BLOCK_SIZE).itemsize  # bytes a block in the columns
_NO_COUNTS, _NO_SIZES = array(BLOCK_COUNT), array(BLOCK_SIZE)


class JobOptions(NamedTuple):
    """What holds for every job of a batch."""

    priority: int
    timeout: float  # seconds; 0: no limit
    retries: int
    attempt: int  # 1 for the first


class Batch:
    """See the module. `count` jobs from `first_id` on; the first `skip` jobs of the first block are not ours.

    One that has come in a frame and goes on as it is does so unread: its columns are taken apart when they are needed.
    """

    __slots__ = (
        "_blocks",
        "_body",
        "_counts",
        "_held",
        "_sizes",
        "count",
        "file",
        "first_id",
        "job_options",
        "payload",
        "skip",
    )

    def __init__(
        self,
        first_id: int,
        count: int,
        skip: int,
        job_options: JobOptions,
        counts: array[int],
        sizes: array[int],
        payload: bytes | bytearray | memoryview,
        file: Held | None = None,
    ) -> None:
        self.first_id = first_id
        self.count = count
        self.skip = skip
        self.job_options = job_options
        self._counts = counts
        self._sizes = sizes
        self._body: memoryview | None = None  # columns and payload as they came, while they are unchanged
        self._blocks = 0  # in that body
        self.payload = payload
        self.file = file  # with the data of a single large job
        self._held = -1  # jobs in all the blocks, ours or not, once it is known

    @property
    def counts(self) -> array[int]:
        """How many jobs each block holds."""
        self._take_apart()
        return self._counts

    @property
    def sizes(self) -> array[int]:
        """How many bytes each block has."""
        self._take_apart()
        return self._sizes

    def _take_apart(self) -> None:
        body = self._body
        if body is not None:
            sizes_at = self._blocks * _COUNT_ITEM
            self._counts = array(BLOCK_COUNT, bytes(body[:sizes_at]))
            self._sizes = array(BLOCK_SIZE, bytes(body[sizes_at : self._blocks * _BLOCK_COLUMNS]))
            self._body = None

    @property
    def held(self) -> int:
        if self._held < 0:
            self._held = sum(self.counts)
        return self._held

    @property
    def ids(self) -> range:
        return range(self.first_id, self.first_id + self.count)

    @property
    def blocks(self) -> int:
        """How many blocks there are."""
        return len(self._counts) if self._body is None else self._blocks

    def head(self) -> bytes:
        return BATCH_HEAD.pack(self.first_id, self.count, self.skip, self.blocks, *self.job_options)

    def body(self) -> tuple[bytes | bytearray | memoryview, ...]:
        if self._body is not None:
            return (self._body,)
        return self._counts.tobytes(), self._sizes.tobytes(), self.payload

    @classmethod
    def read(cls, head: memoryview, body: memoryview, file: Held | None = None) -> Batch:
        first_id, count, skip, blocks, *job_options = BATCH_HEAD.unpack(head)
        payload = body[blocks * _BLOCK_COLUMNS :]
        batch = cls(first_id, count, skip, JobOptions(*job_options), _NO_COUNTS, _NO_SIZES, payload, file)
        batch._body, batch._blocks = body, blocks
        return batch

    def join(self, other: Batch) -> bool:
        """Take `other` in at the end, if it follows on with the same terms; False when it does not."""
        if self.first_id + self.count != other.first_id or self.job_options != other.job_options:
            return False
        if len(self.payload) + len(other.payload) > JOINED_BYTES:
            return False
        if other.skip or self.file or other.file or self.skip + self.count != self.held:
            return False
        if not isinstance(self.payload, bytearray):
            self.payload = bytearray(self.payload)
        self.payload += other.payload
        self.counts.extend(other.counts)
        self.sizes.extend(other.sizes)
        self.count += other.count
        self._held = self.held + other.held
        return True

    def with_options(self, job_options: JobOptions) -> Batch:
        return Batch(
            self.first_id, self.count, self.skip, job_options, self.counts, self.sizes, self.payload, self.file
        )

    def part(self, start: int, stop: int) -> Batch:
        """The jobs at positions start..stop-1 as a batch of their own, with just the blocks they need."""
        ends = list(accumulate(self.counts))  # jobs up to the end of each block
        first = bisect_left(ends, self.skip + start + 1)
        last = bisect_left(ends, self.skip + stop)
        at = sum(self.sizes[:first])
        size = sum(self.sizes[first : last + 1])
        return Batch(
            self.first_id + start,
            stop - start,
            self.skip + start - (ends[first - 1] if first else 0),
            self.job_options,
            self.counts[first : last + 1],
            self.sizes[first : last + 1],
            bytes(memoryview(self.payload)[at : at + size]),
            self.file,
        )


def pack_one(job_id: int, job_options: JobOptions, block: bytes, fds: Sequence[int] = ()) -> list[Part]:
    """A packed SUBMIT frame with one job."""
    return pack(
        Kind.SUBMIT, BATCH_HEAD.pack(job_id, 1, 0, 1, *job_options), (_ONE_BLOCK.pack(1, len(block)), block), fds
    )


def pack_batches(batches: Sequence[Batch]) -> list[Part]:
    """Packed SUBMIT frames, one a batch."""
    return [part for batch in batches for part in pack(Kind.SUBMIT, batch.head(), batch.body())]


def cut_up(batch: Batch) -> list[Batch]:
    """A batch as pieces of a size to travel."""
    if batch.count <= SUBMIT_JOBS and len(batch.payload) <= SUBMIT_BYTES:
        return [batch]
    cursor = BatchCursor(batch)
    pieces = []
    while len(cursor):
        pieces.append(cursor.cut(SUBMIT_JOBS, SUBMIT_BYTES))
    return pieces


class BatchCursor:
    """Cuts a queued batch into smaller ones from the front, at a cost that does not grow with what is left."""

    __slots__ = ("batch", "block", "offset", "skip", "taken")

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.taken = 0  # jobs cut off so far
        self.block = 0  # the block the next job is in
        self.offset = 0  # where that block's bytes start
        self.skip = batch.skip  # jobs of that block which are not ours, or cut off already

    def __len__(self) -> int:
        return self.batch.count - self.taken

    @property
    def ids(self) -> range:
        return self.batch.ids[self.taken :]

    def rest(self) -> Batch:
        """What has not been cut off yet."""
        batch = self.batch
        return Batch(
            batch.first_id + self.taken,
            len(self),
            self.skip,
            batch.job_options,
            batch.counts[self.block :],
            batch.sizes[self.block :],
            bytes(memoryview(batch.payload)[self.offset :]),
            batch.file,
        )

    def cut(self, most: int, most_bytes: int) -> Batch:
        """The next jobs, at most `most` of them, in blocks of at most `most_bytes` (but one block at least)."""
        batch = self.batch
        if not self.taken and batch.count <= most and len(batch.payload) <= most_bytes:
            self.taken = batch.count
            return batch
        counts, sizes, block = batch.counts, batch.sizes, self.block
        wanted = self.skip + min(most, len(self))
        held, size = counts[block], sizes[block]  # by the blocks up to here
        while held < wanted and size + sizes[block + 1] <= most_bytes:
            block += 1
            held += counts[block]
            size += sizes[block]
        used = min(wanted, held)
        part = Batch(
            batch.first_id + self.taken,
            used - self.skip,
            self.skip,
            batch.job_options,
            counts[self.block : block + 1],
            sizes[self.block : block + 1],
            bytes(memoryview(batch.payload)[self.offset : self.offset + size]),
            batch.file,
        )
        self.taken += part.count
        if used == held:  # the last block is used up wholly
            self.skip, self.block, self.offset = 0, block + 1, self.offset + size
        else:
            self.skip, self.block = used - (held - counts[block]), block
            self.offset += size - sizes[block]
        return part
