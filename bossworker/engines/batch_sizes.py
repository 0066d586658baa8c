"""How many jobs make a batch: as many as are worth an engine's trouble with it, as far as can be seen."""

from __future__ import annotations

BATCH_SECONDS = 0.1  # work aimed at in a batch, for each worker that runs it,
SECONDS_A_SLOT = 0.01  # or, on a large cluster, this for each of its slots: a batch costs a scheduler some 6 ms
FRESH_WEIGHT = 0.5  # of the newest batch in the running estimate of a job's length
LEAST_SECONDS = 2e-6  # that a job is taken for: its way through a pool takes as long
QUICK_BATCHES = 5  # a node has the next batch, too, while it runs one that takes at most this many times that work
STARVED = 0.1  # of the time that a batch takes: if its node has waited for it longer, batches get longer,
STRETCH = 1.5  # times each time,
MOST_STRETCH = 5.0  # up to this many times what they should be worth; and shorter again,
RELIEF = 0.97  # times with each batch that came in time
GROWTH = 16  # times as many jobs as in the largest batch so far, at most


class BatchSizes:
    """A running estimate of the length of a pool's jobs. See the module."""

    def __init__(self) -> None:
        self._seconds: float | None = None  # that a job takes
        self._most = 1  # jobs in a batch, so far
        self._stretch = 1.0

    def learn(self, jobs: int, seconds: float) -> None:
        """What the jobs of a batch took, added up."""
        if jobs:
            self._most = max(self._most, jobs)
            sample = max(seconds / jobs, LEAST_SECONDS)
            old = self._seconds
            self._seconds = sample if old is None else old + FRESH_WEIGHT * (sample - old)

    def note_wait(self, waited: float, seconds: float) -> None:
        """A node has waited for a batch of that many seconds, though there were jobs for it: they came too slowly.

        Where processors are busy, or the scheduler is, a batch takes long on its way. Fewer of them are then on it.
        """
        late = waited > STARVED * seconds
        self._stretch = min(STRETCH * self._stretch, MOST_STRETCH) if late else max(1.0, RELIEF * self._stretch)

    def jobs_in_batch(self, workers: int, slots: int) -> int:
        """Jobs for one slot of an engine that has `slots`, each with `workers`."""
        if self._seconds is None:
            return workers
        wanted = workers * round(self._stretch * batch_seconds(slots) / self._seconds)
        return max(workers, min(wanted, GROWTH * self._most))

    def quick(self, jobs: int, workers: int, slots: int) -> bool:
        """Whether that many jobs are through so soon that the way of the next batch counts. Not while nothing is known.

        A batch that waits on a node behind a long one would be late, and is lost with that node.
        """
        if self._seconds is None:
            return False
        return jobs / workers * self._seconds <= QUICK_BATCHES * batch_seconds(slots)


def batch_seconds(slots: int) -> float:
    """Work worth a batch."""
    return max(BATCH_SECONDS, SECONDS_A_SLOT * slots)
