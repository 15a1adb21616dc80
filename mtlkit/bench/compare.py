"""The bench from its file to its figures: plan, runs, results.json, table, picture.

run_bench(Path("bench.toml"), Path("out"), trunks=["mlp", "timm:resnet18"], seeds=5, console=Console())
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mtlkit.bench.picture import draw
from mtlkit.bench.plan import Plan, read_plan
from mtlkit.bench.result import Result
from mtlkit.bench.run import run_once
from mtlkit.bench.table import line, print_table
from mtlkit.errors import MtlkitError


def run_bench(
    file: Path | None, out: Path, trunks: Sequence[str] | None, seeds: int | None, console: Console
) -> Result:
    """Train every trunk once for each seed, print a table, and write results.json, bench.png and bench.svg to `out`.

    Args:
        file: a bench file; the built-in comparison of mlp, cnn and rnn if None.
        trunks: instead of the file's: names of its trunks or of encoders, such as "cnn" or "timm:resnet18".
        seeds: instead of the file's number of seeds.

    Raises:
        SpecError, DataError: the file or its data are wrong; nothing is trained.
    """
    plan = read_plan(file, trunks, seeds)
    threads = torch.get_num_threads()
    torch.set_num_threads(plan.threads or threads)
    try:
        return _compare(plan, out, console)
    finally:
        torch.set_num_threads(threads)


def _compare(plan: Plan, out: Path, console: Console) -> Result:
    result = Result.of(plan)
    # Written before the first run too: a folder that can't be written should cost no training.
    written = [result.write(out)]
    _run_all(plan, result, out, console)
    print_table(result, console)
    try:
        written += draw(result, out)
    except MtlkitError as error:
        console.print(f"No picture: {escape(str(error))}")
    console.print("Written: " + ", ".join(escape(str(path)) for path in written), soft_wrap=True)
    return result


def _run_all(plan: Plan, result: Result, out: Path, console: Console) -> None:
    """Every seed of every trunk, seed by seed, so that what slows the machine for a while slows all trunks alike."""
    runs = [(trunk, seed) for seed in range(plan.seeds) for trunk in plan.specs]
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("", total=len(runs))
        for number, (trunk, seed) in enumerate(runs):
            epochs = 0

            def on_epoch(trunk: str = trunk, seed: int = seed) -> None:
                nonlocal epochs
                epochs += 1
                progress.update(bar, description=f"{escape(trunk)}, seed {seed}, epoch {epochs}")

            progress.update(bar, description=f"{escape(trunk)}, seed {seed}")
            run = run_once(plan, trunk, seed, on_epoch)
            result.runs.append(run)
            result.write(out)
            progress.update(bar, completed=number + 1)
            console.print(line(result, run), highlight=False)
