"""Who descends from whom."""

import pytest

from bossworker.system import descendants


def test_parents_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    family = {1: [2, 5], 2: [3, 4], 5: [6]}
    monkeypatch.setattr(descendants, "children", lambda pid: family.get(pid, []))
    monkeypatch.setattr(descendants, "is_detached", lambda pid: False)
    assert descendants.descendants(1) == [2, 3, 4, 5, 6]


def test_a_chain_of_any_length(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(descendants, "children", lambda pid: [pid + 1] if pid < 5000 else [])
    monkeypatch.setattr(descendants, "is_detached", lambda pid: False)  # whatever process has the number now
    assert descendants.descendants(1) == list(range(2, 5001))
