"""What a command may take of memory and of the disk, looked at some twenty times a second while it runs."""

from __future__ import annotations

from bossworker.commands import output

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

TICK = 0.05  # seconds between looks


class Quota:
    """That of one command."""

    def __init__(
        self, memory: int, max_output: int, streams: tuple[int, ...], members: Callable[[], list[int]]
    ) -> None:
        """
        Args:
            memory: Bytes that all of it may hold together; 0: no limit.
            max_output: Bytes of each stream that are kept, the newest; 0: all.
            streams: The descriptors of their files, open for reading, too.
            members: The pids of the command and all that it has started.
        """
        self.memory = memory
        self.max_output = max_output
        self._streams = streams
        self._members = members

    def __bool__(self) -> bool:
        return bool(self.memory or self.max_output)

    def check(self) -> str:
        """Cut its output to the limit; why the command has to end, if it has to."""
        self.trim()
        if not self.memory:
            return ""
        from bossworker.system import memory  # loaded where there is a limit

        held = memory.excess(self._members(), self.memory)
        return memory.describe_excess(held, self.memory) if held else ""

    def trim(self, at_last: bool = False) -> None:
        """Cut its output to the limit; `at_last` once it has ended."""
        if self.max_output:
            for fd in self._streams:
                try:
                    # The command writes on while it is cut: see there.
                    output.trim(fd, self.max_output, at_last)
                except OSError:  # where neither is possible: it grows
                    pass
