"""Pools with journals."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def side_processes(quick_side_processes: None) -> None:
    """The scribes of pools that are made in this process are forked. (Those of programs are started, as ever.)"""
