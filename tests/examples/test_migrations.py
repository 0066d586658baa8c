"""A program that changes over to the package is no longer than it was. (``test_docs.py`` runs both.)"""

from __future__ import annotations

import re

import pytest

from tests.examples.blocks import blocks_of
from tests.examples.runner import PROJECT

PAGES = ("concurrent-futures", "multiprocessing-pool", "joblib")
PARAMETERS = {
    "concurrent-futures": "max_workers mp_context initializer initargs max_tasks_per_child timeout chunksize wait",
    "loky": "max_workers context timeout kill_workers reuse job_reducers result_reducers initializer initargs env",
    "pebble": "max_workers max_tasks initializer initargs context args kwargs timeout chunksize",
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_users_of_another_pool_find_their_parameters(name: str) -> None:
    page = (PROJECT / "docs" / "coming-from" / f"{name}.md").read_text()
    there = " ".join(row.split("|")[1] for row in page.splitlines() if row.startswith("|"))
    missing = [parameter for parameter in PARAMETERS[name].split() if not re.search(rf"\b{parameter}\b", there)]
    assert not missing


@pytest.mark.parametrize("name", PAGES)
def test_a_program_is_no_longer_afterwards(name: str) -> None:
    page = PROJECT / "docs" / "coming-from" / f"{name}.md"
    programs = {block.file: block.text for block in blocks_of(page) if block.file}
    (before,) = (text for file, text in programs.items() if file.endswith("_before.py"))
    (after,) = (text for file, text in programs.items() if file.endswith("_after.py"))
    assert len(after.splitlines()) <= len(before.splitlines())
    assert "bossworker" in after
    assert "bossworker" not in before
