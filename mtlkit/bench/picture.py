"""A result as a picture: how each trunk learned, how it scored, and what it costs.

draw(result, Path("out"))      # [out/bench.png, out/bench.svg]

A column is a task. Above stand its validation curves, a line for the mean over seeds and a band from the lowest to the
highest; below, in a row for each trunk, its scores on test data and its costs: a dot for each seed, a bar for the mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean, median
from textwrap import wrap
from typing import Any

from mtlkit.bench.plan import Measure
from mtlkit.bench.result import Result
from mtlkit.bench.run import Run
from mtlkit.bench.wording import counted, decimals_for, duration, number, short
from mtlkit.data.extra import bench_extra
from mtlkit.writing import whole

# More panels are too small to read; results.json has every task.
MAX_TASKS = 4

# Okabe and Ito's palette, which colour-blind people tell apart, without its yellow, which is too pale for a line.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#444444")
_INK, _QUIET, _FAINT = "#222222", "#707070", "#E4E4E4"
_DPI = 160

# Inches. A letter's width is that of the labels' font, and of the bolder one of the rows' names.
_PANEL, _CURVES, _ROW, _COST = 2.75, 2.45, 0.46, 1.35
_GAP, _TOP, _MIDDLE, _BOTTOM, _EDGE = 0.55, 1.45, 0.95, 0.95, 0.3
_LETTER, _NAME_LETTER = 0.077, 0.092
_LABEL_LETTERS, _NAME_LETTERS = 16, 24
_LABEL_GAP, _LINE = 0.17, 0.19

_TICKS = {"color": _QUIET, "labelsize": 8, "major.size": 0}
_SMALL: dict[str, Any] = {"fontsize": 8.5, "color": _QUIET}


def draw(result: Result, folder: Path) -> list[Path]:
    """Write bench.png and bench.svg into `folder`.

    Raises:
        MtlkitError: matplotlib is not installed, or a file can't be written.
    """
    bench_extra("matplotlib", "it")
    with _style():
        figure = _Page(result).drawn()
        paths = []
        for suffix in ("png", "svg"):
            paths.append(folder / f"bench.{suffix}")
            with whole(paths[-1]) as beside:
                figure.savefig(beside, format=suffix, dpi=_DPI, facecolor="white")
    return paths


@contextmanager
def _style() -> Iterator[None]:
    """Quiet axes, for this picture only: the user's own settings stay as they are."""
    import matplotlib

    settings: dict[Any, Any] = {
        # The names of tasks and trunks are no formulas, whatever dollar signs they hold.
        "text.parse_math": False,
        "text.color": _INK,
        "font.family": "DejaVu Sans",
        "font.size": 9,
        "axes.linewidth": 0.8,
        "axes.edgecolor": "#BBBBBB",
        "axes.labelcolor": _QUIET,
        **{f"axes.spines.{side}": False for side in ("left", "top", "right")},
        **{f"{axis}tick.{key}": value for axis in "xy" for key, value in _TICKS.items()},
    }
    with matplotlib.rc_context(settings):
        yield


class _Page:
    """The whole picture, laid out in inches so that text never depends on the number of panels."""

    def __init__(self, result: Result) -> None:
        from matplotlib.figure import Figure

        self.result, self.trunks = result, result.trunks
        self.tasks = list(result.measures)[:MAX_TASKS]
        self.colours = {trunk: _COLOURS[i % len(_COLOURS)] for i, trunk in enumerate(self.trunks)}
        names = max(len(short(trunk, _NAME_LETTERS)) for trunk in self.trunks)
        self.left = _EDGE + names * _NAME_LETTER + 0.3
        self.costs = self.left + len(self.tasks) * (_PANEL + _GAP)
        self.width = self.costs + 2 * _COST + 0.2 + _EDGE
        self.rows = _ROW * len(self.trunks)
        self.height = _TOP + _CURVES + _MIDDLE + self.rows + _BOTTOM
        self.figure = Figure(figsize=(self.width, self.height))

    def drawn(self) -> Any:
        for column, task in enumerate(self.tasks):
            x = self.left + column * (_PANEL + _GAP)
            self._curves(task, x)
            self._scores(task, x)
        summaries = self.result.summary()
        parameters = {t: [float(s.parameters)] for t, s in summaries.items() if s.parameters}
        times = {
            t: [run.seconds_per_step for run in self.result.runs_of(t) if run.seconds_per_step is not None]
            for t in self.trunks
        }
        self._cost("parameters", parameters, self.costs, number)
        self._cost("time a step", times, self.costs + _COST + 0.2, duration)
        self._words()
        return self.figure

    def _axes(self, x: float, top: float, width: float, height: float) -> Any:
        """Axes at inches from the left and the top."""
        box = (x / self.width, 1 - (top + height) / self.height, width / self.width, height / self.height)
        return self.figure.add_axes(box)

    def _text(self, x: float, top: float, text: str, **style: Any) -> None:
        self.figure.text(x / self.width, 1 - top / self.height, text, va="top", **style)

    def _curves(self, task: str, x: float) -> None:
        """Validation figures by epoch: mean and band, the kept epochs as dots, and each trunk's name at its end."""
        from matplotlib.ticker import MaxNLocator

        axes, measure = self._axes(x, _TOP, _PANEL, _CURVES), self.result.measures[task]
        self._text(x, _TOP - 0.48, short(task, 26), fontsize=12, weight="bold")
        self._text(x, _TOP - 0.24, f"{measure.metric} on validation data", **_SMALL)
        lines = {trunk: _curve(self.result.runs_of(trunk), task, measure.metric) for trunk in self.trunks}
        lines = {trunk: line for trunk, line in lines.items() if line}
        axes.yaxis.grid(True, color=_FAINT, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.yaxis.set_major_locator(MaxNLocator(5))
        if not lines:
            axes.set_xticks([])
            axes.set_yticks([])
            axes.text(0.5, 0.5, "no figures", transform=axes.transAxes, ha="center", color=_QUIET)
            return
        for trunk, line in lines.items():
            epochs, colour = list(line), self.colours[trunk]
            means = [fmean(values) for values in line.values()]
            axes.fill_between(
                epochs, [min(v) for v in line.values()], [max(v) for v in line.values()], color=colour, alpha=0.15, lw=0
            )
            axes.plot(
                epochs, means, color=colour, lw=1.8, marker="o" if len(epochs) == 1 else "", solid_capstyle="round"
            )
            for run in self.result.runs_of(trunk):
                kept = [r for r in run.epochs if r["epoch"] == run.best_epoch]
                values = [r["valid"][task][measure.metric] for r in kept]
                axes.plot([run.best_epoch] * len(values), values, ".", color=colour, ms=6, mec="white", mew=0.6)
        axes.set_xlabel("epoch", fontsize=8, loc="left")
        _limit(axes, lines)
        self._label(axes, {trunk: (list(line)[-1], fmean(list(line.values())[-1])) for trunk, line in lines.items()})

    def _label(self, axes: Any, ends: dict[str, tuple[float, float]]) -> None:
        """Names at the ends of lines, moved apart where they would overlap, with room made to the right of the data."""
        from matplotlib.ticker import MaxNLocator

        letters = max(len(short(trunk, _LABEL_LETTERS)) for trunk in ends)
        data = _PANEL - letters * _LETTER - 0.3
        low, last = axes.get_xlim()[0], max(x for x, _ in ends.values())
        axes.set_xlim(low, low + (last - low) * _PANEL / data)
        ticks = MaxNLocator(5, integer=True, min_n_ticks=1).tick_values(low, last)
        axes.set_xticks([tick for tick in ticks if low <= tick <= last])
        bottom, top = axes.get_ylim()
        wanted = {trunk: (y - bottom) / (top - bottom) for trunk, (_, y) in ends.items()}
        placed = _apart(wanted, _LABEL_GAP / _CURVES)
        for trunk, (x, y) in ends.items():
            text_x = x + (last - low) * 0.22 / data
            text_y = bottom + placed[trunk] * (top - bottom)
            colour = self.colours[trunk]
            axes.plot([x, text_x], [y, text_y], color=colour, lw=0.7, alpha=0.6)
            axes.text(text_x, text_y, " " + short(trunk, _LABEL_LETTERS), color=colour, va="center", fontsize=9)

    def _strip(self, x: float, width: float) -> Any:
        """Empty axes with a faint row for each trunk."""
        axes = self._axes(x, _TOP + _CURVES + _MIDDLE, width, self.rows)
        axes.set_ylim(len(self.trunks) - 0.5, -0.5)
        axes.set_yticks([])
        for row in range(len(self.trunks)):
            axes.axhline(row, color=_FAINT, lw=0.8, zorder=0)
        return axes

    def _scores(self, task: str, x: float) -> None:
        from matplotlib.ticker import MaxNLocator

        axes, measure = self._strip(x, _PANEL), self.result.measures[task]
        spreads = [s.test[task] for s in self.result.summary().values() if s.test]
        decimals = decimals_for(spreads)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.xaxis.grid(True, color=_FAINT, linewidth=0.8)
        for row, trunk in enumerate(self.trunks):
            values = _finite(self.result.scores(trunk, task))
            if values:
                self._dots(axes, row, values, fmean(values), f"{fmean(values):.{decimals}f}")
            else:
                word = "undefined" if self.result.runs_of(trunk) else "failed"
                place = axes.get_yaxis_transform()
                style = {"ha": "center", "va": "center", "color": _QUIET, "backgroundcolor": "white"}
                axes.text(0.5, row, word, transform=place, style="italic", **style)
        axes.margins(x=0.12)
        if not any(_finite(self.result.scores(trunk, task)) for trunk in self.trunks):
            axes.set_xticks([])
        self._text(x, _TOP + _CURVES + _MIDDLE - 0.25, f"{measure.metric} on test data{_better(measure)}", **_SMALL)

    def _dots(self, axes: Any, row: int, values: Sequence[float], middle: float, text: str) -> None:
        """A dot for each value, and a bar and a number for their middle."""
        colour = self.colours[self.trunks[row]]
        if len(values) > 1:
            axes.plot([middle, middle], [row - 0.17, row + 0.17], color=colour, lw=2.2, solid_capstyle="butt")
        axes.plot(values, [row] * len(values), "o", color=colour, ms=5.5, alpha=0.55 if len(values) > 1 else 1, mew=0)
        # On white, since a line of the grid may run behind it.
        white = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}
        axes.text(middle, row - 0.22, text, ha="center", va="bottom", fontsize=8, color=_INK, bbox=white)

    def _cost(self, title: str, values: dict[str, list[float]], x: float, written: Callable[[float], str]) -> None:
        """What a trunk costs, on a logarithmic axis without ticks: the numbers stand beside the dots."""
        axes = self._strip(x, _COST)
        axes.set_xscale("log")
        axes.minorticks_off()
        axes.set_xticks([])
        for row, trunk in enumerate(self.trunks):
            if values.get(trunk):
                middle = median(values[trunk])
                self._dots(axes, row, values[trunk], middle, written(middle))
        seen = [v for each in values.values() for v in each]
        if seen:
            # A picture of equal costs must not blow small differences up: the axis spans a factor of four at least.
            low, high = min(seen), max(seen)
            pad = max(1.35, (4 / (high / low)) ** 0.5)
            axes.set_xlim(low / pad, high * pad)
        axes.set_xlabel("log scale", fontsize=8, loc="left")
        self._text(x, _TOP + _CURVES + _MIDDLE - 0.25, title, **_SMALL)

    def _words(self) -> None:
        """Title, the names of the rows, how to read it, and where it comes from."""
        data, tasks = self.result.file["data"]["type"], counted(len(self.result.measures), "task")
        title = f"{counted(len(self.trunks), 'trunk')} on {data}, {tasks}"
        self._text(_EDGE, 0.22, title, fontsize=16, weight="bold")
        self._text(_EDGE, 0.58, _budget(self.result), fontsize=9.5, color=_QUIET)
        top = _TOP + _CURVES + _MIDDLE
        for row, trunk in enumerate(self.trunks):
            self.figure.text(
                _EDGE / self.width,
                1 - (top + (row + 0.5) * _ROW) / self.height,
                short(trunk, _NAME_LETTERS),
                color=self.colours[trunk],
                weight="bold",
                va="center",
                fontsize=10,
            )
        for index, line in enumerate(self._guide()):
            self._text(self.costs, _TOP + 0.06 + _LINE * index, line, **_SMALL)
        self._text(_EDGE, self.height - 0.42, self._source(), fontsize=7.5, color=_QUIET)

    def _guide(self) -> list[str]:
        seeds = self.result.file["bench"]["seeds"]
        sentences = ["Lines: validation data by epoch" + (", mean over seeds." if seeds > 1 else ".")]
        if seeds > 1:
            sentences.append("Bands: lowest to highest seed.")
        sentences.append("Dots on lines: the epoch that a run kept, by its lowest summed validation loss.")
        sentences.append(
            "Rows: test data, scored once a run" + (": a dot for each seed, a bar for the mean." if seeds > 1 else ".")
        )
        more = len(self.result.measures) - len(self.tasks)
        if more > 0:
            sentences.append(f"{more} more tasks are in results.json.")
        if self.result.failed:
            sentences.append(f"{len(self.result.failed)} of {len(self.result.runs)} runs failed and are left out.")
        return [line for sentence in sentences for line in wrap(sentence, round(2 * _COST / 0.072))]

    def _source(self) -> str:
        versions, machine = self.result.versions, self.result.machine
        where = machine["processor"] if machine["device"] == "cpu" else machine["device"]
        return f"mtlkit {versions['mtlkit']}, torch {versions['torch']}, {where}, {self.result.date[:10]}"


def _budget(result: Result) -> str:
    """What every run got: "For each trunk: 3 seeds, 8 epochs, 1,504 steps of 64 examples, adam"."""
    train = result.file["train"]
    steps = max((run.steps for run in result.runs), default=0)
    epochs = max((len(run.epochs) for run in result.runs), default=0)
    batch = f"{counted(steps, 'step')} of {counted(train['batch_size'], 'example')}"
    parts = [
        counted(result.file["bench"]["seeds"], "seed"),
        counted(epochs, "epoch"),
        batch,
        train["optimizer"]["type"],
    ]
    return "For each trunk: " + ", ".join(parts)


def _finite(values: Sequence[float]) -> list[float]:
    return [value for value in values if math.isfinite(value)]


def _curve(runs: Sequence[Run], task: str, metric: str) -> dict[int, list[float]]:
    """The finite validation figures of each epoch, one for each run."""
    line: dict[int, list[float]] = {}
    for run in runs:
        for record in run.epochs:
            value = record["valid"][task][metric]
            if math.isfinite(value):
                line.setdefault(record["epoch"], []).append(value)
    return line


def _limit(axes: Any, lines: dict[str, dict[int, list[float]]]) -> None:
    """Limits by the later three quarters of the epochs; where the first are far off, lines come in from outside."""
    last = max(epoch for line in lines.values() for epoch in line)
    late = [v for line in lines.values() for epoch, values in line.items() if epoch > last // 4 for v in values]
    late = late or [v for line in lines.values() for values in line.values() for v in values]
    low, high = min(late), max(late)
    pad = 0.08 * (high - low) or 0.05 * abs(high) or 0.05
    axes.set_ylim(low - pad, high + pad)
    first = min(epoch for line in lines.values() for epoch in line)
    axes.set_xlim(first - max(0.25, 0.02 * (last - first)), last)


def _apart(wanted: dict[str, float], gap: float) -> dict[str, float]:
    """Positions in 0 to 1 near the wanted ones, in the same order and at least `gap` apart where there is room."""
    names = sorted(wanted, key=wanted.__getitem__)
    gap = min(gap, 1 / max(len(names) - 1, 1))
    placed: list[float] = []
    for name in names:
        placed.append(max(wanted[name], placed[-1] + gap if placed else 0.0))
    for index in reversed(range(len(placed))):
        placed[index] = min(placed[index], placed[index + 1] - gap if index + 1 < len(placed) else 1.0)
    return dict(zip(names, placed, strict=True))


def _better(measure: Measure) -> str:
    return {True: ", higher is better", False: ", lower is better", None: ""}[measure.higher_is_better]
