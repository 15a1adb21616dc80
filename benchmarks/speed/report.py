"""What a run of the speed benchmarks found, as JSON and Markdown, and the short table of the README.

found = report(rows, quick=False)
write(found, Path("benchmarks/reports"))        # speed-2026-11-25-1b9fe32.json and .md
text = with_short_table(readme, found)          # between <!-- speed --> and <!-- /speed -->
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.speed.measure import Row
from mtlkit.bench.machine import machine, versions

Report = dict[str, Any]

BEGIN, END = "<!-- speed -->", "<!-- /speed -->"
# What the README shows: each of these beside the peer that it has a target for.
SHORT = (
    "default spec",
    "10 heads",
    "100 heads",
    "1,000 heads",
    "MLP, 20,000 rows",
    "cnn",
    "resnet18",
    "predict, default spec",
    "predict, MLP",
)
THREADS = (1, 2)
_MORE_VERSIONS = ("accelerate", "torchjd", "timm")


def code() -> dict[str, Any]:
    """The commit, and whether files differ from it. Asked before measuring, since the code may change meanwhile."""
    changed = _git("status", "--porcelain", "--", "mtlkit", "benchmarks")
    return {"commit": _git("rev-parse", "--short", "HEAD"), "dirty": bool(changed)}


def report(rows: Iterable[Row], measured: dict[str, Any], quick: bool, seconds: float) -> Report:
    """Everything that a figure depends on, and the figures."""
    more = {name: found for name in _MORE_VERSIONS if (found := _version(name))}
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        **{key: value for key, value in machine().items() if key in ("processor", "cores", "device", "system")},
        "versions": {**versions(), **more},
        **measured,
        "quick": quick,
        "seconds": round(seconds),
        "rows": [row.as_dict() for row in rows],
    }


def write(found: Report, folder: Path) -> tuple[Path, Path]:
    """The JSON and the Markdown file of a report; those of an earlier one of the same day and commit are replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f"speed-{found['date'][:10]}-{found['commit']}" + ("-quick" if found["quick"] else "")
    paths = folder / f"{name}.json", folder / f"{name}.md"
    # Strict JSON has no NaN.
    paths[0].write_text(json.dumps(_without_nan(found), indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    paths[1].write_text(markdown(found))
    return paths


def newest(folder: Path) -> Report:
    """The newest report of a folder that has all that the README shows.

    Raises:
        FileNotFoundError: it has none.
    """
    found = [json.loads(path.read_text()) for path in folder.glob("speed-*.json")]
    shown = {(case, threads) for case in SHORT for threads in THREADS}
    whole = [
        one for one in found if not one["quick"] and shown <= {(row["case"], row["threads"]) for row in one["rows"]}
    ]
    if not whole:
        raise FileNotFoundError(
            f"{folder}: found no report speed-*.json of a whole run. Run python -m benchmarks first"
        )
    return max(whole, key=lambda one: one["date"])


def markdown(found: Report) -> str:
    """The whole report."""
    lines = [f"# Speed, {found['date'][:10]}", "", *_header(found), ""]
    for place in _unique(map(_place, found["rows"])):
        device, threads, family = place
        rows = [
            row for row in found["rows"] if (row["device"], row["threads"], row["family"]) == (device, threads, family)
        ]
        lines += [f"## {family}, {device}, {_threads(threads)}", "", *_table(rows), ""]
    if not any(row["device"] == "cuda" for row in found["rows"]):
        lines += ["## GPU", "", "Not measured: this machine has none that torch can use.", ""]
    return "\n".join(lines)


def with_short_table(text: str, found: Report) -> str:
    """A document with the short table between its markers.

    Raises:
        ValueError: it has not exactly one pair of markers.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(END) < text.index(BEGIN):
        raise ValueError(f"expected one {BEGIN} and one {END} after it; put them where the table is to stand")
    before, _, rest = text.partition(BEGIN)
    return before + f"{BEGIN}\n{short_table(found)}\n" + END + rest.partition(END)[2]


def short_table(found: Report) -> str:
    """The ratios that the README shows, by number of threads."""
    rows = [
        row for row in found["rows"] if row["case"] in SHORT and row["target"] is not None and row["device"] == "cpu"
    ]
    threads = _unique(row["threads"] for row in rows)
    lines = ["| case | beside | " + " | ".join(f"mtlkit/peer, {_threads(n)}" for n in threads) + " |"]
    lines.append("|---|---|" + "---:|" * len(threads))
    for case, peer in _unique((row["case"], row["peer"]) for row in rows):
        ratios = {row["threads"]: row["ratio"] for row in rows if (row["case"], row["peer"]) == (case, peer)}
        lines.append(f"| {case} | {peer} | " + " | ".join(_number(ratios.get(n)) for n in threads) + " |")
    return "\n".join([*lines, "", _where(found)])


def _header(found: Report) -> list[str]:
    trial = "A short trial; " if found["quick"] else ""
    return [
        _where(found),
        "",
        f"{trial}{found['seconds'] / 60:.1f} minutes, {found['system']}. Costs are medians; a ratio is the median of",
        "the ratios within a round. `fit` is what a fit costs once, beside its steps.",
    ]


def _where(found: Report) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    dirty = " with changes that are not committed" if found["dirty"] else ""
    gpu = "" if found["device"] == "cpu" else f", {found['device']}"
    machine = f"{found['processor']}, {found['cores']} cores{gpu}"
    return f"{found['date'][:10]}, {machine}, {versions}, commit {found['commit']}{dirty}."


def _place(row: dict[str, Any]) -> tuple[str, int, str]:
    return row["device"], row["threads"], row["family"]


def _table(rows: Sequence[dict[str, Any]]) -> list[str]:
    lines = ["| case | peer | unit | mtlkit | peer's | ratio | target | holds | `fit`, ms |"]
    lines.append("|---|---|---|" + "---:|" * 4 + "---|---:|")
    for row in rows:
        if row["note"]:
            lines.append(f"| {row['case']} | {row['note']} | | | | | | | |")
            continue
        costs = (_cost(row[key]) for key in ("mtlkit", "other"))
        holds = {None: "", True: "yes", False: "**no**"}[row["holds"]]
        cells = [row["case"], row["peer"], row["unit"], *costs, _number(row["ratio"]), _number(row["target"]), holds]
        fixed = "" if row["fixed_ms"] is None else f"{row['fixed_ms']:.1f}"
        lines.append("| " + " | ".join([*cells, fixed]) + " |")
    return lines


def _number(value: float | None) -> str:
    return "" if value is None or value != value else f"{value:.3g}"


def _cost(value: float | None) -> str:
    return _number(value) if value is None or not value >= 100 else f"{value:,.0f}"


def _threads(count: int) -> str:
    return f"{count} thread" + ("s" if count > 1 else "")


def _unique(values: Iterable[Any]) -> list[Any]:
    return [*dict.fromkeys(values)]


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_without_nan(one) for one in value]
    return None if value != value else value


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout.strip()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
