"""What a run needs only at its end, or when something fails, is loaded while all is well.

See ``commands/hosting/later_modules.py``: the package may be replaced under a run. As a rule the run has nothing else
to do then: its commands run, and enough of them are with the host.
"""

from __future__ import annotations

from bossworker.commands.hosting import later_modules

MODULES = (
    *later_modules.OF_RUN,
    "bossworker.cli.json_text",
    "bossworker.cli.reruns",
    "bossworker.cli.summary",
    "bossworker.errors",
)


def load() -> None:
    """All of them."""
    later_modules.load(MODULES)
