"""The command line.

    mtlkit bench                       compare trunks on bundled data, offline; with a file, schemes and balancers too
    mtlkit train run.toml --out m/     train what a run file says
    mtlkit evaluate m/                 score what was trained on its test data
    mtlkit predict m/ new.csv          predict for a file of one's own, or a folder of images
    mtlkit show run.toml               draw a model: shapes, parameters, who shares what
    mtlkit export m/ --out m.onnx      write what runs without mtlkit: ONNX, or a program of torch (.pt2)
    mtlkit suggest run.toml            which tasks should share: a run file with an encoder for each group
    mtlkit plugins --check             list what is registered, and by whom

In several processes, `torchrun --nproc-per-node 2 -m mtlkit train run.toml`, the first of them writes and prints. So it
is with `evaluate`; `bench`, `predict`, `export` and `suggest` run in one.

Exit status: 2 for what the user wrote, 1 for a run that failed. torch is imported by the commands that need it, since
help should not take seconds.
"""

from __future__ import annotations

import re
import sys
import warnings
from typing import Any

import typer
from typer.core import TyperGroup

from mtlkit.cli import bench, console, evaluate, export, plugins, predict, show, suggest, train
from mtlkit.errors import DataError, MtlkitError, PluginError, SpecError, UnknownNameError, printable


class _Commands(TyperGroup):
    """typer ends an interrupted command without a word."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as interrupt:
            console.err.print("interrupted")
            raise typer.Exit(130) from interrupt


app = typer.Typer(
    cls=_Commands,
    help="Multi-task learning in PyTorch whose architecture is data.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
# In the order in which help lists them.
app.command()(bench.bench)
app.command()(train.train)
app.command()(evaluate.evaluate)
app.command()(predict.predict)
app.command()(show.show)
app.command()(export.export)
app.command()(suggest.suggest)
app.command()(plugins.plugins)


def main() -> None:
    """Run the command line; errors of mtlkit are printed without a traceback, warnings without their place in it."""
    warnings.showwarning = _warn
    try:
        app()
    except (SpecError, DataError, PluginError, UnknownNameError) as error:
        _fail(error, 2)
    except MtlkitError as error:
        _fail(error, 1)
    except (MemoryError, RuntimeError) as error:
        # Of torch, which has no kind of error for it on CPUs.
        if isinstance(error, RuntimeError) and not re.search("allocate memory|out of memory", str(error)):
            raise
        reason = str(error).partition("\n")[0]
        _fail(MtlkitError(f"out of memory: {reason}. Make the model, its batches or the data smaller"), 1)


def _fail(error: MtlkitError, status: int) -> None:
    for note in getattr(error, "__notes__", []):
        console.err.print(printable(note), markup=False, highlight=False, soft_wrap=True)
    console.err.print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
    sys.exit(status)


def _warn(message: Warning | str, *_: Any, **__: Any) -> None:
    text = printable(f"warning: {message}")
    console.err.print(text, style="yellow", markup=False, highlight=False, soft_wrap=True)
