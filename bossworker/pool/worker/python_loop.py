"""What stands in for the compiled core's loop over a worker's jobs: the same members, the same trace, in Python.

The throughput of tiny jobs hangs on it: no system call a job, no call into Python but the handler's, and nothing looked
up twice.
"""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable
from typing import Any

from bossworker.errors import JobTimeout
from bossworker.pickling import MAIN
from bossworker.pool.wire.codec import RESULT_PROTOCOL
from bossworker.pool.wire.recorder import PAYLOAD_SIZE, Recorder

_pickle = pickle.dumps


class PythonLoop:
    """See the module, and ``native/worker_loop.c`` for the members."""

    def __init__(self, recorder: Recorder, is_small: Callable[[], bool]) -> None:
        """
        Args:
            is_small: Whether results are taken for small ones.
        """
        self._is_small = is_small
        self._claim, self._publish = recorder.unclaimed.acquire, recorder.published.release
        self._published = recorder.published._get_value
        self._columns = recorder.marks[1:], recorder.ends, recorder.payload
        self._claimed = False  # the job that would be the next to be published,
        self._index = 0  # this one of the batch
        self.armed = self.at = self.end = 0
        self.over = self.copy = self.by_value = False

    @property
    def open(self) -> bool:
        """Whether the job that was claimed last has no result yet."""
        return self._claimed and self._published() == self._index

    @open.setter
    def open(self, value: bool) -> None:
        self._claimed = value

    def run(self, work: Callable[[Any], object], jobs: list[Any], position: int, index: int, number: int) -> object:
        """As that of the core. What is not a dict, fails in being pickled or may be large is handed over as well."""
        claim, publish, clock = self._claim, self._publish, time.monotonic
        marks, ends, area = self._columns
        before, ahead, end = index - position, number - index, self.end
        by_value, small = self.by_value, self._is_small()
        claimed = False
        try:
            for job in jobs[position:]:
                claimed = claim(False)
                if not claimed:
                    self.over = True
                    break
                # As in `JobRunner.run_one`: claimed and armed are two steps, and a signal that comes between them is
                # repeated.
                self.armed = ahead + index
                value = work(job)
                if value is None:
                    value = {}
                if type(value) is not dict or "ERROR" in value or self.copy or not small:
                    return value
                try:
                    data = _pickle(value, RESULT_PROTOCOL)
                except JobTimeout:
                    raise
                except BaseException:
                    return value
                reach = end + len(data)
                if reach > PAYLOAD_SIZE or (by_value and MAIN in data):
                    return value
                self.armed = 0
                value = None
                area[end:reach] = data
                end = reach - 1  # the next one writes over the pickle's full stop
                ends[index] = end
                marks[index] = clock()
                # Counted, then struck off as claimed: where a signal handler raises between the two, `open` sees by the
                # count that the job has its result.
                publish()
                claimed = False
                index += 1
            return None
        finally:  # without a call, at which a signal handler might run
            self._claimed, self._index, self.at, self.end = claimed, index, index - before, end
