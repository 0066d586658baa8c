"""The parts of `run` without a process: replacement strings, inputs, halting, joblogs, quantities."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bossworker.cli import joblog
from bossworker.cli.halting import HaltRule, RunTally, parse_halt
from bossworker.cli.inputs import InputError, Inputs, Source
from bossworker.cli.joblog import Finished, Joblog, normalised
from bossworker.cli.quantities import MOST_JOBS, parse_duration, parse_jobs, parse_share, parse_size
from bossworker.cli.replacements import Row, Template
from bossworker.cli.run_arguments import parse_run
from bossworker.cli.runner import median
from bossworker.cli.throttle import TICK, Throttle
from bossworker.system import proc

TEXTS = st.text(st.characters(exclude_characters="\0", codec="utf-8"))
COMMANDS = st.lists(TEXTS, min_size=1, max_size=4).filter(lambda words: bool(words[0]))


@given(TEXTS)
def test_an_argument_comes_out_as_it_went_in(text: str) -> None:
    row = Row(1, (text,))
    assert Template(["echo", "{}"], shell=False).argv(row) == ["echo", text]
    assert shlex.split(Template(["echo {}"], shell=True).command_line(row)) == ["echo", text]


@given(st.lists(TEXTS, min_size=1, max_size=4))
def test_a_words_braces_are_looked_at_once(args: list[str]) -> None:
    """What is replaced is never looked through for replacement strings."""
    row = Row(7, tuple(f"{{{one}}}" for one in args))
    assert Template(["{1}"], shell=False).argv(row) == [row.args[0]]
    assert Template(["x", "{}"], shell=False).argv(row) == ["x", *row.args]


@given(st.lists(COMMANDS, max_size=6), st.data())
def test_joblogs_come_back(
    tmp_path_factory: pytest.TempPathFactory, commands: list[list[str]], data: st.DataObject
) -> None:
    values = [data.draw(st.integers(-1, 255)) for _ in commands]
    path = str(tmp_path_factory.mktemp("log") / "log")
    log = Joblog(path, append=False)
    lines = []
    for seq, (words, value) in enumerate(zip(commands, values, strict=True), 1):
        lines.append(joblog.LogLine(seq, value, 0, shlex.join(words)))
        log.add(seq, 1.0, 0.1, 0, value, 0, shlex.join(words))
    log.close()
    assert list(joblog.read(path)) == lines


@given(COMMANDS)
def test_however_it_is_quoted_a_command_is_the_same(words: list[str]) -> None:
    backslashed = " ".join("".join(one if one.isalnum() and one.isascii() else f"\\{one}" for one in word) or "''"
                           for word in words)  # fmt: skip
    if "\n" not in backslashed:  # which a backslash would take away
        assert normalised(backslashed) == normalised(shlex.join(words))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("echo a > b", "echo 'a > b'"),
        ("echo a > 'b c'", "echo a '>' 'b c'"),
        ("echo '$x'", 'echo "$x"'),
        ("echo 'a b'", "echo a b"),
        ("echo ''", "echo"),
        ("echo '*' 'a b'", "echo * 'a b'"),
    ],
)
def test_what_means_something_else_is_not_the_same(one: str, other: str) -> None:
    assert normalised(one) != normalised(other)


def test_what_is_finished_is_taken_as_often_as_it_was() -> None:
    lines = [joblog.LogLine(1, 0, 0, "a"), joblog.LogLine(2, 3, 0, "b"), joblog.LogLine(3, 0, 0, "a")]
    done = Finished(iter(lines), failed_too=False)
    assert [done.takes(one) for one in "aaab"] == [True, True, False, False]
    assert Finished(iter([*lines, joblog.LogLine(2, 0, 0, "b")]), failed_too=False).takes("b")
    assert Finished(iter(lines), failed_too=True).takes("b")


def rows(*sources: Source, **settings: object) -> list[tuple[str, ...]]:
    return list(Inputs(sources, **settings))  # type: ignore[arg-type]


def test_sources_are_combined_or_go_along() -> None:
    ab, cd, ef = (Source(args=list(one)) for one in ("ab", "cd", "ef"))
    assert rows(ab, cd) == [("a", "c"), ("a", "d"), ("b", "c"), ("b", "d")]
    assert rows(ab, cd._replace(linked=True), ef) == [
        ("a", "c", "e"), ("a", "c", "f"), ("b", "d", "e"), ("b", "d", "f"),
    ]  # fmt: skip
    assert rows(ab, Source(args=[])) == []


@pytest.mark.parametrize("per_job", [0, 1, 2, 3, 7])
@pytest.mark.parametrize("text", ["", "a", "a\n", "a\nb\nc", "\n\n", "a\n" * 6])
def test_the_number_of_jobs_is_known_before(tmp_path: Path, text: str, per_job: int) -> None:
    (tmp_path / "in").write_text(text)
    inputs = Inputs([Source(path=str(tmp_path / "in")), Source(args=["x", "y"])], per_job=per_job)
    assert inputs.total() == len(list(inputs))


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(InputError, match="cannot read '/nosuch': No such file"):
        rows(Source(path="/nosuch"))


@pytest.mark.parametrize("text", ["", "now", "now,fail", "now,fail=0", "later,fail=1", "now,fail=x", "now,fail=1 "])
def test_halting_that_makes_no_sense(text: str) -> None:
    with pytest.raises(ValueError, match=r"now\|soon"):
        parse_halt(text)


@given(st.sampled_from(["fail", "success", "done"]), st.integers(1, 5), st.booleans(), st.lists(st.booleans()))
def test_it_halts_once_and_never_too_early(what: str, number: int, percent: bool, ends: list[bool]) -> None:
    rule = HaltRule("soon", what, 20 * number if percent else number, percent)
    tally = RunTally(rule, len(ends))
    halts = [tally.add(ok, 0 if ok else 3) for ok in ends]
    assert sum(halts) <= 1
    counted = {"fail": ends.count(False), "success": ends.count(True), "done": len(ends)}[what]
    enough = 100 * counted >= rule.number * len(ends) if percent else counted >= number
    assert any(halts) == (bool(counted) and enough)
    assert 0 <= tally.exit_status <= 101


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("1.5", 1.5), (".5", 0.5), ("2m", 120), ("1h30m", 5400), ("1d", 86400), ("0", 0)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "x", "-1", "1x", "1 h", "h", "1h-", "nan", "inf"])
def test_what_is_no_quantity(text: str) -> None:
    for parse in (parse_duration, parse_size, parse_share):
        with pytest.raises(ValueError, match="it is a number"):
            parse(text)


def test_sizes_and_numbers_of_jobs(tmp_path: Path) -> None:
    assert [parse_size(one) for one in ("10", "1K", "2m", "1.5G", "1GiB")] == [10, 1024, 2 << 20, 3 << 29, 1 << 30]
    (tmp_path / "jobs").write_text("3\n")
    found = [parse_jobs(one, 4) for one in ("2", "50%", "+1", "-1", "-9", "0", "1%", str(tmp_path / "jobs"))]
    assert found == [2, 2, 5, 3, 1, MOST_JOBS, 1, 3]
    assert [parse_jobs(one, 8) for one in ("12.5%", "37.5%")] == [1, 3]


def test_a_number_of_jobs_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, content in {"2": "7", "+1": "no number", "share": "12.5%\n", "bad": "two"}.items():
        (tmp_path / name).write_text(content)
    assert [parse_jobs(one, 8) for one in ("2", "+1", "share")] == [2, 9, 1]
    for text in ("bad", "none", "1.5", "%", "."):
        with pytest.raises(ValueError, match="it is a number"):
            parse_jobs(text, 8)


@given(st.lists(st.floats(0, 1e9), min_size=1))
def test_the_median(values: list[float]) -> None:
    import statistics

    assert median(values) == statistics.median(values)


@pytest.mark.parametrize(
    "argv",
    [
        ["-j", "x", "true"],
        ["--timeout", "soon", "true"],
        ["--nosuch", "true"],
        ["-c", "a", "b"],
        ["--header", "x", "true"],
        ["--env", "NOSUCHVARIABLE", "true"],
        ["-d", "", "true"],
        ["--resume-failed", "true"],
        ["-f", "a:b", "-u"],
        ["--nice", "very", "true"],
    ],
)
def test_command_lines_that_make_no_sense(argv: Sequence[str], capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit:
        parse_run(argv)
    assert exit.value.code == 255
    assert "--help" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("told", "load", "pause"),
    [
        (b"9.00 9.00 9.00 4/200 77", (3.0, False), 0.0),  # this process is one of the four
        (b"0.00 0.00 0.00 5/200 77", (3.0, False), TICK),
        (b"0.00 0.00 0.00 5/200 77", (50.0, True), 0.0),  # of eight cores
        (b"0.00 0.00 0.00 6/200 77", (50.0, True), TICK),
        (b"", (0.0, False), TICK),  # the load average then
        (b"", (2.0, False), 0.0),
    ],
)
@pytest.mark.parametrize("running", [0, 1])
def test_load_keeps_all_of_them(
    told: bytes, load: tuple[float, bool], pause: float, running: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proc, "read", lambda name: {"loadavg": told}[name])
    monkeypatch.setattr("os.getloadavg", lambda: (1.0, 9.0, 9.0))
    assert Throttle(0.0, load, 0, 8).pause(running) == pause


@pytest.mark.parametrize(
    ("told", "short", "very_short"),
    [(b"99", True, True), (b"100", True, False), (b"200", False, False), (b"", False, False)],
)
def test_want_of_memory_keeps_all_but_one(
    told: bytes, short: bool, very_short: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = b"MemFree: 1 kB\nMemAvailable: %s kB\nBuffers: 1 kB\n" % told if told else b""
    monkeypatch.setattr(proc, "read", lambda name: {"meminfo": text}[name])
    found = Throttle(0.0, None, 200 << 10, 8)
    assert [found.pause(running) for running in (0, 1)] == [0.0, TICK * short]
    assert found.memory_is_short is very_short
