"""A run's options are read by two: argparse, and what does without it where all is written plainly."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from bossworker.cli import run_parser
from bossworker.cli.run_arguments import read_plain
from bossworker.cli.run_options import BY_NAME

VALUES = [
    "2",
    "-1",
    "0",
    "50%",
    "1h30m",
    "a b",
    "",
    "-",
    "--",
    ":",
    "=",
    "now,fail=1",
    "lr",
    "512M",
    "K=V",
    "\\n",
    "-k",
    "true",
]


def words_of(chance: random.Random) -> list[str]:
    """Some options, well written or not, and the words of a command."""
    words: list[str] = []
    for _ in range(chance.randrange(4)):
        name, value = chance.choice([*BY_NAME, "--foo", "-x"]), chance.choice(VALUES)
        joint = chance.choice(["", "=", "k"])
        words += chance.choice([[name], [name, value], [name, value], [name + joint + value]])
    return words + chance.choice([[], ["true"], ["--", "-k"], ["-"], ["echo", "-j", "{}"]])


def by_argparse(words: Sequence[str]) -> dict[str, object] | None:
    try:
        return vars(run_parser.parse(words))
    except SystemExit:
        return None


def test_what_is_read_without_argparse_means_what_it_means_to_argparse(capfd: pytest.CaptureFixture[str]) -> None:
    chance, plain = random.Random(17), 0
    for _ in range(200):
        words = words_of(chance)
        found = read_plain(words)
        plain += found is not None
        assert found is None or vars(found) == by_argparse(words), words
    assert plain > 50


@pytest.mark.parametrize(
    "line",
    [
        "true",
        "-j2 -k --tag -- -x",
        "-j 8 --joblog log --timeout=400% --retries 3 gzip -9 {}",
        "-a one -a two -N 2 --header : --colsep , --halt now,fail=1 --bar --results out echo",
        "-f work:handle --json --quiet --env A=1 --env B=2 --memfree 1G --delay 0.1",
    ],
)
def test_a_command_line_as_people_write_them_is_plain(line: str) -> None:
    assert read_plain(line.split()) is not None
