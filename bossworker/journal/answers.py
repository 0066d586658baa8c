"""How a journal answers what it is asked, a pool's (``contents.py``) or a run's (``run_contents.py``): in JSON."""

from __future__ import annotations

from base64 import b64encode
from typing import Any, ClassVar

from bossworker.journal.row_sums import RowDamaged

QUEUED, RUNNING, DONE, FAILED, CANCELLED, INTERRUPTED = STATUSES = (
    "queued",
    "running",
    "done",
    "failed",
    "cancelled",
    "interrupted",
)
ENDED = (DONE, FAILED, CANCELLED, INTERRUPTED)
UNKNOWN, NOT_NOW, DAMAGED = "unknown", "not now", "damaged"
PAGE_JOBS = 5000  # that are listed at a time

Answer = dict[str, Any]


class NotDone(Exception):
    """What is asked for cannot be done; the text says why. `why`: what it is, for a program."""

    def __init__(self, text: str, why: str) -> None:
        super().__init__(text)
        self.why = why


class Answering:
    """What answers questions, by a method for each of those that `asks` names."""

    asks: ClassVar[tuple[str, ...]] = ("counts", "size", "jobs", "job", "result", "retry", "forget")

    def answer(self, question: Answer) -> Answer:
        """Answer one. A question that is none of ours, or cannot be answered, is told so."""
        details = {key: value for key, value in question.items() if key != "ask"}
        try:
            if question["ask"] not in self.asks:
                raise NotDone(f"this journal is not asked for {question['ask']!r}", "")
            answer: Answer = getattr(self, question["ask"])(**details)
        except NotDone as error:
            return {"refused": str(error), "why": error.why}
        except RowDamaged as error:
            return {"refused": str(error), "why": DAMAGED}
        return answer


def text_of(payload: bytes | bytearray | memoryview) -> str:
    """A payload as JSON can hold it."""
    return b64encode(payload).decode()
