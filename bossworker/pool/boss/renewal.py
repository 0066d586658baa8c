"""Which handlers a worker has, where the program has reloaded them; and who tries new ones first."""

from __future__ import annotations


class Renewal:
    """Handlers come in generations: 0 are those that the pool was made with.

    One worker tries a new generation before the others get it. It takes the place of one that was through with its
    job, so that never more workers are at work than were asked for, and no two have one index. If it comes up, the
    others are replaced, each when it is through with its job; if not, all goes on with the old handlers.
    """

    def __init__(self) -> None:
        self.current = 0
        self._on_trial = 0  # 0: none is
        self._slot: int | None = None  # of the worker that tries it

    @property
    def needs_place(self) -> bool:
        """Whether a worker should leave, for another to try new handlers."""
        return self._on_trial > 0 and self._slot is None

    def begin(self, generation: int) -> None:
        """The next worker that is started tries these."""
        self._on_trial = generation

    def for_next(self, slot: int) -> int:
        """The handlers for a worker that is about to be started."""
        if not self.needs_place:
            return self.current
        self._slot = slot
        return self._on_trial

    def is_tried_by(self, slot: int) -> bool:
        return slot == self._slot

    def accept(self) -> None:
        """They work."""
        self.current, self._on_trial, self._slot = self._on_trial, 0, None

    def reject(self) -> None:
        """They do not."""
        self._on_trial, self._slot = 0, None
