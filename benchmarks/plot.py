"""The picture of a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from benchmarks import peers
from benchmarks.compared import POOLS, Measured
from benchmarks.curves import Drawn
from benchmarks.report import heading
from benchmarks.rows import Outcome

OURS = "#0b6e4f"
SHORT = "#c1442e"
BESIDE = "#9db8ae"  # rows without a floor
COLOURS = {
    "bossworker": OURS,
    "socketpair": "#63b796",
    "nospin": "#63b796",
    "pool": "#c9a227",
    "executor": "#4f7fb5",
    "loky": "#8d6a9f",
    "joblib": "#a0644b",
    "pebble": "#7a8aa0",
    "mpire": "#c77d9a",
    "deadpool": "#5c5c5c",
}
DASHES = {"pool.map": "-", "pool.imap_64": "-.", "pool.imap_1": ":"}
PANELS = ("length", "size", "scaling", "crowd", "stall", "idle", "memory")
INCH_A_ROW = 0.27
INCH_A_PANEL = 3.3

mpl.use("Agg")


def draw(path: Path, outcomes: Sequence[Outcome], drawn: Sequence[Drawn]) -> None:
    """Ratios on the left of the sheet, curves on its right; only what was measured."""
    bars = [outcome for outcome in outcomes if outcome.ours]
    panels = sorted((each for each in drawn if each.lines), key=lambda each: PANELS.index(each.curve.key))
    lines = (len(panels) + 1) // 2
    height = max(3.0, INCH_A_ROW * len(bars) + 1.2, INCH_A_PANEL * lines)
    figure = Figure(figsize=(17 if panels else 9, height), layout="constrained")
    left: Any = figure
    right: Any = figure
    if bars and panels:
        sheets: Any = figure.subfigures(1, 2, width_ratios=(1, 1.35))
        left, right = sheets
    if bars:
        _draw_ratios(left.subplots(), bars)
    if panels:
        axes = list(right.subplots(lines, 2, squeeze=False).flat)
        for panel, ax in zip(panels, axes, strict=False):
            DRAWERS[panel.curve.key](ax, panel)
        for ax in axes[len(panels) :]:
            ax.set_visible(False)
    figure.supxlabel(heading({}), fontsize=7, color="#555555")
    figure.savefig(path, dpi=110)


def draw_compared(path: Path, rows: Sequence[Measured]) -> None:
    """A panel a work, a bar a pool."""
    columns = 3
    lines = -(-len(rows) // columns)
    figure = Figure(figsize=(12, 2.4 * lines + 0.5), layout="constrained")
    axes = list(figure.subplots(lines, columns, squeeze=False).flat)
    for row, ax in zip(rows, axes, strict=False):
        _draw_work(ax, row)
    for ax in axes[len(rows) :]:
        ax.set_visible(False)
    figure.supxlabel(heading({}).partition("\n")[0], fontsize=7, color="#555555")
    figure.savefig(path, dpi=110)


def _draw_work(ax: Any, row: Measured) -> None:
    pools = [pool for pool in POOLS if pool in row.seconds]
    batch = row.work.mode == "batch"
    heights = [1 / row.median(pool) if batch else row.median(pool) for pool in pools]
    bars = ax.barh(range(len(pools)), heights, color=[COLOURS[pool] for pool in pools], height=0.7)
    ax.bar_label(bars, [f" {row.work.value(row.median(pool))}" for pool in pools], fontsize=8)
    ax.set_yticks(range(len(pools)), [POOLS[pool] for pool in pools], fontsize=8)
    ax.set_ylim(len(POOLS) - 0.5, -0.5)
    if max(heights) > 20 * min(heights):  # one that is far off would leave the others no room
        ax.set_xscale("log")
        ax.set_xlim(min(heights) / 2, max(heights) * 4)
    ax.margins(x=0.35)
    ax.tick_params(bottom=False, labelbottom=False, which="both")
    ax.spines[["top", "right", "bottom"]].set_visible(False)
    scale = ", by factors" if ax.get_xscale() == "log" else ""
    ax.set_title(f"{row.work.text}\n({'more' if batch else 'less'} is better{scale})", fontsize=9, loc="left")


def _draw_ratios(ax: Any, outcomes: Sequence[Outcome]) -> None:
    """A bar a row, with a line from the least to the most, and a mark at the floor."""
    places = range(len(outcomes))
    spreads = [outcome.ratio for outcome in outcomes]
    middles = [ratio.median for ratio in spreads if ratio]
    ranges = [
        [ratio.median - ratio.least for ratio in spreads if ratio],
        [ratio.most - ratio.median for ratio in spreads if ratio],
    ]
    colours = [{True: OURS, False: SHORT, None: BESIDE}[outcome.met] for outcome in outcomes]
    ax.barh(places, middles, xerr=ranges, color=colours, height=0.62, error_kw={"lw": 0.8, "ecolor": "#222222"})
    floors = [(place, outcome.row.floor) for place, outcome in enumerate(outcomes) if outcome.row.floor is not None]
    marks = [floor for _, floor in floors], [place for place, _ in floors]
    ax.plot(*marks, "|", color="black", ms=13, mew=2, label="floor")
    for place, (outcome, ratio) in enumerate(zip(outcomes, spreads, strict=True)):
        if ratio:
            beyond = max(ratio.most, 1.08 * (outcome.row.floor or 0))
            ax.annotate(f" {ratio.median:.3g}", (beyond, place), va="center", fontsize=8)
    ax.axvline(1, color="#222222", lw=0.8)
    ax.set_xscale("log")
    ax.margins(x=0.15, y=0.01)
    ax.set_yticks(places, [f"{outcome.row.work} / {outcome.row.beside}" for outcome in outcomes], fontsize=7)
    ax.invert_yaxis()
    ax.set_title("times faster than ... (median, min–max)", fontsize=10)
    if floors:
        ax.legend(loc="lower right", fontsize=8)


def _draw_lines(ax: Any, drawn: Drawn) -> None:
    """A line a way over the range, both axes by factors."""
    for line in drawn.lines:
        spots = [(place, value) for place, value in enumerate(line.values) if value]
        places = [place for place, _ in spots]
        ax.plot(places, [value.median for _, value in spots], marker="o", ms=3.5, **_style(line.way))
        ax.fill_between(
            places,
            [value.least for _, value in spots],
            [value.most for _, value in spots],
            color=_style(line.way)["color"],
            alpha=0.15,
            lw=0,
        )
    ax.set_yscale("log")
    ax.yaxis.set_minor_formatter(NullFormatter())
    ax.set_xticks(range(len(drawn.curve.points)), [point.at for point in drawn.curve.points], fontsize=7)
    ax.set_xlabel(drawn.curve.axis, fontsize=8)
    _finish(ax, drawn)
    ax.legend(fontsize=6.5)


def _draw_bars(at: int, log: bool) -> Callable[[Any, Drawn], None]:
    """A bar a way: what it gave at one place."""

    def draw_bars(ax: Any, drawn: Drawn) -> None:
        shown = [(line.way, value) for line in drawn.lines if (value := line.values[at])]
        colours = [_style(way)["color"] for way, _ in shown]
        bars = ax.barh(range(len(shown)), [value.median for _, value in shown], color=colours, height=0.62)
        ax.bar_label(bars, [f" {_plain(value.median)}" for _, value in shown], fontsize=8)
        ax.set_yticks(range(len(shown)), [peers.label(way) for way, _ in shown], fontsize=7)
        ax.invert_yaxis()
        ax.margins(x=0.2)
        if log:
            ax.set_xscale("log")
        ax.set_xlabel(f"{drawn.curve.points[at].at} {drawn.curve.unit}".strip(), fontsize=8)
        _finish(ax, drawn, unit=False)

    return draw_bars


def _plain(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def _finish(ax: Any, drawn: Drawn, unit: bool = True) -> None:
    ax.set_title(drawn.curve.title, fontsize=9, loc="right")
    if unit:
        ax.set_ylabel(drawn.curve.unit, fontsize=8)
    ax.tick_params(labelsize=7)
    ax.grid(alpha=0.2)


def _style(way: str) -> dict[str, Any]:
    peer = way.partition(".")[0]
    ours = peer == "bossworker"
    return {
        "color": COLOURS[peer],
        "ls": DASHES.get(way, "-"),
        "lw": 2 if ours else 1.2,
        "zorder": 3 if ours else 2,
        "label": peers.label(way),
    }


DRAWERS: dict[str, Callable[[Any, Drawn], None]] = {
    "length": _draw_lines,
    "size": _draw_lines,
    "scaling": _draw_lines,
    "crowd": _draw_lines,
    "stall": _draw_bars(1, log=True),
    "idle": _draw_bars(0, log=False),
    "memory": _draw_bars(0, log=False),
}
