"""How the failures of a run can be run once more: by which command, and from which joblog."""

from __future__ import annotations

import os
from collections.abc import Sequence

from bossworker.cli.joblog import Joblog, JobLogError
from bossworker.cli.outcomes import Ended
from bossworker.cli.run_options import RunOptions

_MOST_COPIED = 2000  # characters of a command line that is told of once more
_HOW = ("--resume", "--resume-failed", "--retry-failed")


class Reruns:
    """See the module. `inputs_stay`: whether the run's inputs can be read once more."""

    def __init__(self, options: RunOptions, argv: Sequence[str], name: str, inputs_stay: bool) -> None:
        self._options = options
        self._argv = argv
        self._name = name
        # Nobody would read, or copy, a long command line once more.
        self._same_again = inputs_stay and sum(map(len, argv)) <= _MOST_COPIED
        self._own_log = ""
        self._no_own_log = False

    def keep(self, ended: Ended) -> str:
        """Without a joblog of the user's, failures have one beside their job directories, so that they can be rerun.

        Where there is no room for it, they cannot, and the run goes on; why, once.
        """
        from bossworker.commands.roots import find_root, make_root

        if self._no_own_log:
            return ""
        try:
            os.close(make_root())
            self._own_log = os.path.join(find_root(), f"{self._name}.joblog")
            log = Joblog(self._own_log, append=True)
            log.add_ended(ended)
            log.close()
        except (JobLogError, OSError, RuntimeError) as error:
            self._no_own_log = True
            return str(error)
        return ""

    def command(self) -> list[str]:
        """The command that runs what failed once more; empty if there is none."""
        options = self._options
        if options.journal:
            return self._once_more("--resume-failed") if self._same_again else []
        if options.function is not None or self._no_own_log:
            return []
        if options.kept_joblog and options.retry_failed:
            return self._once_more("--retry-failed")
        if options.kept_joblog and self._same_again:
            return self._once_more("--resume-failed")
        return ["bossworker", "run", "--retry-failed", "--joblog", options.kept_joblog or self._own_log]

    def _once_more(self, how: str) -> list[str]:
        return ["bossworker", "run", how, *(one for one in self._argv if one not in _HOW)]
