"""Large payloads on the scribe's lines: what came in a memory file is on the disk, and travels on, in one piece."""

from __future__ import annotations

from array import array

from bossworker.failure import Outcome, encode_text
from bossworker.journal.database import MOST_BYTES
from bossworker.pool.wire.batch import Batch
from bossworker.pool.wire.frames import Frame
from bossworker.pool.wire.link import close_fds
from bossworker.pool.wire.messages import BLOCK_SIZE, Kind
from bossworker.pool.wire.parcel import give_back, with_data
from bossworker.pool.wire.segments import END, Segment, read_segments


def whole_batch(frame: Frame) -> Batch:
    batch = Batch.read(frame.head, frame.body)
    if frame.fds:
        batch.payload = _fetched(batch.payload, frame)
        batch = Batch(
            batch.first_id,
            batch.count,
            batch.skip,
            batch.job_options,
            batch.counts,
            array(BLOCK_SIZE, [len(batch.payload)]),
            batch.payload,
        )
    return batch


def whole_results(frame: Frame) -> tuple[Frame, list[Segment]]:
    segments = read_segments(frame.head, frame.body)
    if not frame.fds:
        return frame, segments
    last = segments[-1]
    payload, outcomes = _fetched(last.payload, frame), last.outcomes
    if len(payload) > MOST_BYTES:
        text = f"BossWorkerAsync: the result has {len(payload)} bytes, and a journal keeps at most {MOST_BYTES} of one"
        payload, outcomes = encode_text(text), bytes((Outcome.BAD_RESULT | Outcome.TEXT,))
    segments[-1] = last._replace(base=0, ends=END.pack(len(payload)), outcomes=outcomes, payload=payload)
    return results_frame(segments), segments


def results_frame(segments: list[Segment]) -> Frame:
    head = b"".join(segment.head() for segment in segments)
    body = b"".join(bytes(one) for segment in segments for one in segment.body())
    return Frame(Kind.RESULTS, memoryview(head), memoryview(body), [])


def _fetched(payload: bytes | bytearray | memoryview, frame: Frame) -> bytes:
    """A parcel with its data. Where that cannot be had, it is the table alone, and its reader finds that out."""
    try:
        if frame.fd is None:  # there was no room for another descriptor
            return bytes(payload)
        whole = with_data(payload, frame.fd)
        give_back(frame.fd)
        return whole
    except OSError:
        return bytes(payload)
    finally:
        close_fds(frame.fds)
