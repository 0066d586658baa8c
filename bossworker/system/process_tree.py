"""The processes below one, as people read them: an indented line each, with pid, state and arguments."""

from __future__ import annotations

from collections.abc import Iterator

from bossworker.system import proc

MOST_LINES = 200
LONGEST_LINE = 400  # characters of the arguments
STATES = {
    "R": "running",
    "S": "sleeping",
    "D": "waiting for a device",
    "T": "stopped",
    "t": "traced",
    "Z": "ended, not waited for",
    "I": "idle",
}


def describe_below(pid: int) -> list[str]:
    """A line for each descendant of a process, parents first; empty where nothing is known of them."""
    lines: list[str] = []
    for one, depth in _walk(pid):
        if len(lines) == MOST_LINES:
            return [*lines, "..."]
        state, _ = proc.state_and_start(one)
        if state != "X":  # else it has ended just now
            lines.append(f"{'  ' * depth}{one} {STATES.get(state, state)}: {arguments(one)}")
    return lines


def _walk(pid: int) -> Iterator[tuple[int, int]]:
    """Pids, and how deep they lie; a chain may be longer than calls may be nested."""
    waiting = [(child, 0) for child in reversed(proc.children(pid))]
    while waiting:
        one, depth = waiting.pop()
        yield one, depth
        waiting += [(child, depth + 1) for child in reversed(proc.children(one))]


def arguments(pid: int) -> str:
    """Its command line, quoted as for a shell; its name in brackets where it has none."""
    import shlex  # takes long to load, for a process that is seldom asked

    words = proc.read(f"{pid}/cmdline").split(b"\0")[:-1]
    if not words:
        return f"[{proc.read(f'{pid}/comm').decode('utf-8', 'replace').rstrip()}]"
    line = shlex.join(word.decode("utf-8", "replace") for word in words)
    return line if len(line) <= LONGEST_LINE else f"{line[: LONGEST_LINE - 3]}..."
