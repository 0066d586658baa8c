"""What a run leaves out since an earlier one has done it: ``--resume`` and ``--resume-failed``."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bossworker.cli import joblog, printers
from bossworker.cli.inputs import Inputs
from bossworker.cli.planning import CommandPlanner
from bossworker.cli.replacements import Row
from bossworker.cli.run_options import RunOptions
from bossworker.cli.runner import Feed

MOST_COUNTED = 200_000  # jobs that are looked through before a run begins, to tell how many are left


class Earlier:
    """What is done: by the joblog, and, of ``--resume``, what has results in files of its own."""

    def __init__(self, options: RunOptions, names: Sequence[str]) -> None:
        self._options = options
        self._log = options.joblog or ""
        self._finished = joblog.Finished(joblog.read(self._log), failed_too=not options.resume_failed)
        self._has_results = _results(options, names) if options.resume and options.results else None

    def __bool__(self) -> bool:
        return bool(self._finished) or self._has_results is not None

    def leaves_out(self, row: Row, text: str) -> bool:
        """Whether this one is done."""
        return self._finished.takes(text) or (self._has_results is not None and self._has_results(row))

    def count_left(self, inputs: Inputs) -> int:
        """How many are to do; also told. What is here stays as it is."""
        before, self._finished = self._finished, self._finished.copy()
        feed, planner = Feed(inputs, self.leaves_out), CommandPlanner(self._options, inputs.names)
        interrupted = joblog.Begun(self._log).interrupted() if self._log else ()
        left = begun = 0
        while (found := feed.next(planner.text)) is not None or feed.has_more:
            if found is not None:
                left += 1
                begun += found[1] in interrupted
        self._finished = before
        if not self._options.quiet:
            told = f", {begun:,} of them were interrupted" if begun else ""
            printers.say(f"skipping {feed.skipped:,} done; {left:,} to do{told}")
        return left


def _results(options: RunOptions, names: Sequence[str]) -> Callable[[Row], bool] | None:
    from bossworker.cli import result_files

    name = options.results or ""
    if result_files.is_table(name):
        return None
    return result_files.ResultFolders(name, names, options.repeated is not None).has
