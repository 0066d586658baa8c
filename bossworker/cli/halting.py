"""When a run stops early (``--halt``), and what it exits with."""

from __future__ import annotations

from bossworker.system.records import NamedTuple

NEVER, SOON, NOW = "never", "soon", "now"
_OLD = {"0": "never", "1": "soon,fail=1", "2": "now,fail=1", "-1": "soon,success=1", "-2": "now,success=1"}
_RULE = r"(soon|now),(fail|success|done)=([0-9]+)(%?)"

MOST_FAILURES = 100  # that an exit status counts; 101: more
INTERRUPTED, OTHER = 130, 255


class HaltRule(NamedTuple):
    """``now,fail=1``: how to stop, and on how many of which."""

    when: str = NEVER
    what: str = "fail"
    number: int = 0
    percent: bool = False

    def __str__(self) -> str:
        return f"{self.when},{self.what}={self.number}{'%' if self.percent else ''}" if self.when != NEVER else NEVER


def parse_halt(text: str) -> HaltRule:
    """ValueError says what is allowed."""
    import re  # which takes 5 ms to load

    text = _OLD.get(text, text)
    if re.fullmatch(r"[0-9]+%", text, re.ASCII):
        text = f"soon,fail={text}"
    if text == NEVER:
        return HaltRule()
    found = re.fullmatch(_RULE, text, re.ASCII)
    if found is None or not int(found[3]):
        raise ValueError("it is never, or (now|soon),(fail|success|done)=N or =N%, such as now,fail=1")
    return HaltRule(found[1], found[2], int(found[3]), bool(found[4]))


class RunTally:
    """How many jobs have ended, and how; whether that is enough."""

    def __init__(self, rule: HaltRule, total: int | None = None) -> None:
        self.rule = rule
        self.total = total
        self.done = self.failed = 0
        self.known = self.known_failed = 0
        """Those of an earlier run. They count for the exit status, but do not halt this one."""
        self.halted = False
        self._last_exit = 0

    def add(self, ok: bool, exit_status: int) -> bool:
        """One has ended; whether the run has to halt from now on."""
        self.done += 1
        self.failed += not ok
        if self.halted or self.rule.when == NEVER:
            return False
        counted = {"fail": self.failed, "success": self.done - self.failed, "done": self.done}[self.rule.what]
        concerned = self.rule.what == "done" or ok == (self.rule.what == "success")
        self.halted = concerned and self._is_enough(counted)
        if self.halted:
            self._last_exit = exit_status
        return self.halted

    def _is_enough(self, counted: int) -> bool:
        if not self.rule.percent:
            return counted >= self.rule.number
        return bool(self.total) and 100 * counted >= self.rule.number * (self.total or 0)

    @property
    def left(self) -> int | None:
        """How many have not ended; None where nobody knows how many there are."""
        return None if self.total is None else max(0, self.total - self.done - self.known)

    @property
    def exit_status(self) -> int:
        """0, or how many failed, at most 101; of a run that one job halted, that job's, as GNU parallel's."""
        if self.halted and self.rule.what == "success":
            return 0
        if self.rule.percent:
            rounded_up = -(-100 * (self.failed + self.known_failed) // (self.total or self.done or 1))
            return min(rounded_up, MOST_FAILURES)
        failed = min(self.failed + self.known_failed, MOST_FAILURES + 1)
        return self._last_exit or failed if self.halted and self.rule.number == 1 else failed
