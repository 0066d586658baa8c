"""``bossworker run`` begins: its host is forked before the run loads what it needs, so that both load at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bossworker.cli.host_process import HostProcess


def begin() -> Callable[[Sequence[str]], int]:
    """Fork it; what makes the exit status of the arguments."""
    try:
        host = HostProcess()
    except OSError:  # the run will try again, and say so
        host = None
    try:
        from bossworker.cli import run_main
    except BaseException:
        if host is not None:
            host.drop()
        raise

    def main(argv: Sequence[str]) -> int:
        try:
            return run_main.main(argv, host)
        finally:
            if host is not None:
                host.drop()

    return main
