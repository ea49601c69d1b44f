"""Draws what a worker recorded: a panel per run, all over one time axis, with a lane per kind of work.

A lane has as many rows as things in it overlap. A colour is an image; images that began together share a hue. Where the
GPU waits its lanes are red, and say for how long; where everything is settled a dotted line ends the run.
"""

import colorsys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

LANES = ("receive", "render", "decode", "encode", "upload", "reply")
GPU_LANES = ("render", "decode")
GREY = (0.55, 0.57, 0.6)
WAITING = (0.97, 0.82, 0.80)
DARK_RED = (0.6, 0.15, 0.12)
LEAST_LABEL = 0.03
"""Share of the width that the label of a wait needs; the one at the end of a run needs five times as much."""
GAP = 0.35
"""Between two lanes, in rows."""
MERGE_S = 0.0005
"""The GPU does not count as waiting for less than this: such a gap would be thinner than a line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """One call of the recorder; `names` are the images it was about, or one word for something else."""

    lane: str
    names: tuple[str, ...]
    began_s: float
    ended_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One panel."""

    title: str
    spans: Sequence[Span]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A rectangle in row `row` of a lane, from the top."""

    row: int
    name: str
    began_s: float
    ended_s: float


def draw(runs: Sequence[Run], caption: str, folder: Path, stem: str) -> list[Path]:
    """Writes `stem`.svg and `stem`.png into the folder."""
    panels = [{lane: lay_out(run.spans, lane) for lane in LANES} for run in runs]
    rows = [sum(_rows(bars) for bars in panel.values()) for panel in panels]
    figure = Figure(figsize=(16, 1.2 + sum(0.75 + 0.2 * each for each in rows)), layout="constrained", dpi=110)
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(runs), 1, sharex=True, squeeze=False, height_ratios=[each + 3 for each in rows])[:, 0]
    width_s = max((lasted_s(run) for run in runs), default=0.0) * 1.01 or 1.0
    for axis, run, panel in zip(axes, runs, panels, strict=True):
        _panel(axis, run, panel, width_s)
    axes[-1].set_xlabel("seconds since the first message was asked for")
    axes[-1].set_xlim(0, width_s)
    figure.suptitle(caption, fontsize=10)
    paths = [folder / f"{stem}.{kind}" for kind in ("svg", "png")]
    for path in paths:
        figure.savefig(path)
    return paths


def start(run: Run) -> float:
    """Zero on the run's time axis."""
    return min((span.began_s for span in run.spans), default=0.0)


def lasted_s(run: Run) -> float:
    """From zero to the end of its last span."""
    return max((span.ended_s for span in run.spans), default=0.0) - start(run)


def lay_out(spans: Sequence[Span], lane: str) -> list[Bar]:
    """The lane's bars, each image in one row from its first bar to its last, no two images at once in a row."""
    mine = sorted((span for span in spans if span.lane == lane), key=lambda span: span.began_s)
    ends: dict[str, float] = {}
    for span in mine:
        ends.update(dict.fromkeys(_keys(span), span.ended_s))
    free_from: list[float] = []
    row_of: dict[str, int] = {}
    bars = []
    for span in mine:
        for name in _keys(span):
            if name not in row_of:
                row = next((row for row, free_s in enumerate(free_from) if free_s <= span.began_s), len(free_from))
                free_from[row : row + 1] = [ends[name]]
                row_of[name] = row
            bars.append(Bar(row=row_of[name], name=name, began_s=span.began_s, ended_s=span.ended_s))
    return bars


def _keys(span: Span) -> Sequence[str]:
    """What must stay in one row: an image, or on the lane `receive`, which is about no image, the single span."""
    return [f"{span.began_s} {span.names[0]}"] if span.lane == "receive" else span.names


def colours(spans: Sequence[Span]) -> Mapping[str, tuple[float, float, float]]:
    """Each image's RGB colour. Images that had their first step together share a hue."""
    found: dict[str, tuple[float, float, float]] = {}
    groups = 0
    for span in sorted((span for span in spans if span.lane == "render"), key=lambda span: span.began_s):
        new = [name for name in span.names if name not in found]
        for number, name in enumerate(new):
            light = 0.42 + 0.26 * number / max(1, len(new) - 1) if len(new) > 1 else 0.5
            found[name] = colorsys.hls_to_rgb((0.58 + groups * 0.381966) % 1.0, light, 0.62)
        groups += bool(new)
    return found


def waits(spans: Sequence[Span]) -> list[tuple[float, float]]:
    """When the GPU did nothing between its first and its last work: (began, seconds)."""
    busy = sorted((span.began_s, span.ended_s) for span in spans if span.lane in GPU_LANES)
    idle = []
    until_s = busy[0][1] if busy else 0.0
    for began_s, ended_s in busy:
        if began_s - until_s > MERGE_S:
            idle.append((until_s, began_s - until_s))
        until_s = max(until_s, ended_s)
    return idle


def _rows(bars: Sequence[Bar]) -> int:
    return max((bar.row + 1 for bar in bars), default=1)


def _panel(axis: Axes, run: Run, panel: Mapping[str, Sequence[Bar]], width_s: float) -> None:
    zero, palette = start(run), colours(run.spans)
    idle = [(began_s - zero, seconds) for began_s, seconds in waits(run.spans)]
    top, ticks = 0.0, []
    for lane, bars in panel.items():
        rows = _rows(bars)
        if lane in GPU_LANES:
            axis.broken_barh(idle, (top - GAP / 2, rows + GAP), facecolors=WAITING, linewidth=0)
        for bar in bars:
            colour = palette.get(bar.name, GREY)
            place = (bar.began_s - zero, bar.ended_s - bar.began_s)
            edge = "white" if colour == GREY else colour  # a picture's reply may be thinner than a line
            axis.broken_barh([place], (top + bar.row + 0.06, 0.88), facecolors=colour, edgecolors=edge, linewidth=0.4)
        if lane == "render":
            _step_marks(axis, bars, zero, top)
            _wait_labels(axis, idle, top + rows / 2, width_s)
        ticks.append(top + rows / 2)
        top += rows + GAP
        axis.axhline(top - GAP / 2, color="0.85", linewidth=0.6)
    axis.set_ylim(top - GAP / 2, -GAP / 2)
    axis.set_yticks(ticks, [f"GPU: {lane}" if lane in GPU_LANES else lane for lane in panel])
    _end_mark(axis, lasted_s(run), top / 2, width_s)
    axis.tick_params(axis="y", length=0)
    axis.grid(axis="x", color="0.9", linewidth=0.5)
    axis.set_axisbelow(True)
    axis.set_title(run.title, loc="left", fontsize=11, fontweight="bold")
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)


def _step_marks(axis: Axes, bars: Sequence[Bar], zero: float, top: float) -> None:
    """A thin white line where one step ends."""
    ends = [bar.ended_s - zero for bar in bars]
    lows = [top + bar.row + 0.06 for bar in bars]
    axis.vlines(ends, lows, [low + 0.88 for low in lows], colors="white", linewidth=0.5)


def _wait_labels(axis: Axes, idle: Sequence[tuple[float, float]], middle: float, width_s: float) -> None:
    """How long the GPU waited, where there is room for it."""
    for began_s, seconds in idle:
        if seconds > LEAST_LABEL * width_s:
            text = f"waits\n{1000 * seconds:.0f} ms"
            axis.text(began_s + seconds / 2, middle, text, ha="center", va="center", fontsize=7, color=DARK_RED)


def _end_mark(axis: Axes, ended_s: float, middle: float, width_s: float) -> None:
    axis.axvline(ended_s, color="0.35", linewidth=1.0, linestyle=":")
    if width_s - ended_s > 5 * LEAST_LABEL * width_s:
        text = f"  all uploaded, answered and deleted after {ended_s:.2f} s"
        axis.text(ended_s, middle, text, ha="left", va="center", fontsize=10, color="0.35")
