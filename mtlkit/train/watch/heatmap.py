"""Heat maps of what is known by pairs, on a page that is written whole or not at all.

    with page(Path("affinity.png"), 6.0, 5.0, "the picture of an affinity") as figure:
        matrix(figure.subplots(), values, tasks, tasks, title="mean cosine similarity", colours="RdBu", low=-1.0)

What is NaN is grey. The user's own settings of matplotlib stay as they are.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mtlkit.data.extra import bench_extra
from mtlkit.writing import whole

_NAME_LETTERS = 16
_MOST_NUMBERS = 12  # rows or columns beyond which cells are too small for numbers
_POINTS = 8.0
_UNKNOWN = "#DDDDDD"
_OTHER_FONTS = (
    *(f"Noto Sans CJK {place}" for place in ("JP", "SC", "TC", "KR")),
    *("Hiragino Sans", "PingFang SC", "Apple SD Gothic Neo"),  # macOS
    *("Yu Gothic", "Microsoft YaHei", "Malgun Gothic"),  # Windows
    *("WenQuanYi Zen Hei", "IPAexGothic", "Noto Sans", "Noto Sans Devanagari", "Noto Sans Thai", "Arial Unicode MS"),
)
_CELL, _LEAST, _MOST = 0.42, 2.2, 7.0  # inches


@contextmanager
def page(path: Path, width: float, height: float, use: str) -> Iterator[Any]:
    """An empty figure, which is written to `path` as a PNG at the end, beside and then renamed.

    It is planned with so many inches, and written with as many as what is drawn takes.

    Raises:
        MtlkitError: matplotlib is not installed, which `use` needs, or the file can't be written.
    """
    matplotlib, figures = bench_extra("matplotlib", use), bench_extra("matplotlib.figure", use)
    with matplotlib.rc_context({"text.parse_math": False, "font.family": _families(use), "font.size": _POINTS}):
        figure = figures.Figure(figsize=(width, height), layout="constrained")
        yield figure
        with whole(path) as beside, warnings.catch_warnings():
            # A box in place of a letter that no font has says enough.
            warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
            # "tight": names and titles of any length are on it, where the layout has no room for them.
            figure.savefig(beside, format="png", dpi=150, facecolor="white", bbox_inches="tight")


def _families(use: str) -> list[str]:
    """DejaVu Sans, which comes with matplotlib, and for letters that it lacks what is installed of others."""
    installed = bench_extra("matplotlib.font_manager", use).get_font_names()
    return ["DejaVu Sans", *(name for name in _OTHER_FONTS if name in installed)]


def matrix(
    axes: Any,
    values: Tensor,
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    title: str,
    colours: str,
    low: float,
    high: float = 1.0,
    decimals: int = 2,
) -> None:
    """A heat map of values [rows, columns], with their numbers where there are few.

    Args:
        axes: of matplotlib.
        values: what is shown, NaN where it is not known.
        rows: their names, from the top down.
        columns: their names.
        title: what the values are.
        colours: a colour map of matplotlib.
        low: the value of its first colour.
        high: of its last.
        decimals: of the numbers.
    """
    axes.set_facecolor(_UNKNOWN)
    image = axes.imshow(values.numpy(), cmap=colours, vmin=low, vmax=high)
    axes.set_title(title)
    most = max(len(rows), len(columns))
    # Names of very many rows would run into one another.
    points = min(_POINTS, 0.8 * 72 * side(most) / most)
    axes.set_xticks(range(len(columns)), short(columns), rotation=90, fontsize=points)
    axes.set_yticks(range(len(rows)), short(rows), fontsize=points)
    axes.figure.colorbar(image, ax=axes, shrink=0.8)
    if most > _MOST_NUMBERS:
        return
    for row, column in torch.cartesian_prod(torch.arange(len(rows)), torch.arange(len(columns))).tolist():
        value = float(values[row, column])
        if value == value:
            colour = "white" if abs(value) > 0.7 * max(abs(low), abs(high)) else "black"
            # What rounds to 0 has no sign.
            written = f"{round(value, decimals) + 0.0:.{decimals}f}"
            axes.text(column, row, written, ha="center", va="center", color=colour)


def side(count: int) -> float:
    """How many inches so many rows or columns take."""
    return max(_LEAST, min(_MOST, _CELL * count))


def short(names: Sequence[str]) -> list[str]:
    """Long names without their middle: both the start and the end tell names apart."""
    half = _NAME_LETTERS // 2
    return [name if len(name) <= _NAME_LETTERS else f"{name[:half]}…{name[1 - half :]}" for name in names]
