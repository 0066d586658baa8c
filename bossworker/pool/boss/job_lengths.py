"""How long jobs take and how large their results are, as far as can be seen: it decides how many make a batch."""

from __future__ import annotations

from bossworker.pool.wire.recorder import PAYLOAD_SIZE

BATCH_SECONDS = 0.01  # work aimed at in a batch: handing one over costs 0.3 ms in three processes, 0.8 ms if all sleep
LEAST_SECONDS = BATCH_SECONDS / 20  # work that is not shared out among more workers: to hand it over costs as much
SOON_SECONDS = 200e-6  # a batch that takes longer is not stayed awake for
SLOWEST_SAMPLE = 10 * BATCH_SECONDS  # caps what one long job does to the estimate
FRESH_WEIGHT = 0.5  # of the newest batch in the running estimate of a job's length


class JobLengths:
    """Running estimates over a pool's jobs. See the module."""

    def __init__(self) -> None:
        self._seconds: float | None = None  # that a job takes
        self._result_bytes = 0.0

    def learn(self, seconds: float, size: float) -> None:
        """What a job of the last batch took, and the bytes of its result."""
        sample = min(max(seconds, 1e-7), SLOWEST_SAMPLE)
        old = self._seconds
        self._seconds = sample if old is None else old + FRESH_WEIGHT * (sample - old)
        self._result_bytes += FRESH_WEIGHT * (min(size, PAYLOAD_SIZE) - self._result_bytes)

    def jobs_in_batch(self) -> int:
        """Jobs worth BATCH_SECONDS whose results find room in the recorder; 0 if one would not."""
        jobs = round(BATCH_SECONDS / self._seconds) if self._seconds else 1
        return min(jobs, int(PAYLOAD_SIZE / max(1.0, self._result_bytes)))

    def jobs_not_to_split(self) -> int:
        """So few jobs are no work to be shared out."""
        return round(LEAST_SECONDS / self._seconds) if self._seconds else 1

    def is_soon(self, jobs: int) -> bool:
        """Whether this many jobs may be done within the instant that the boss stays awake for."""
        return jobs * (self._seconds or 0.0) <= SOON_SECONDS
