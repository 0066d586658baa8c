"""A program that changes over to the package is no longer than it was. (``test_docs.py`` runs both.)"""

from __future__ import annotations

import pytest

from tests.examples.blocks import blocks_of
from tests.examples.runner import PROJECT

PAGES = ("concurrent-futures", "multiprocessing-pool", "joblib")


@pytest.mark.parametrize("name", PAGES)
def test_a_program_is_no_longer_afterwards(name: str) -> None:
    page = PROJECT / "docs" / "coming-from" / f"{name}.md"
    programs = {block.file: block.text for block in blocks_of(page) if block.file}
    (before,) = (text for file, text in programs.items() if file.endswith("_before.py"))
    (after,) = (text for file, text in programs.items() if file.endswith("_after.py"))
    assert len(after.splitlines()) <= len(before.splitlines())
    assert "bossworker" in after
    assert "bossworker" not in before
