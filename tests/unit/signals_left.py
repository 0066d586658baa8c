"""Tests for test_suite.py to run, in a suite that ignores Ctrl-C from its start."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

ENDED = "import signal; signal.raise_signal(signal.SIGINT)"


def test_heard() -> None:
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_heard_by_programs() -> None:
    assert subprocess.run([sys.executable, "-S", "-c", ENDED], check=False, stderr=-1).returncode == -signal.SIGINT


def test_leaves_one_ignored() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def test_leaves_one_blocked() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})


def test_finds_them_as_they_were() -> None:
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())
