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

import json
import os
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from typer.core import TyperGroup

from mtlkit.errors import DataError, MtlkitError, PluginError, Problem, SpecError, UnknownNameError, printable
from mtlkit.registry import registries

if TYPE_CHECKING:
    from mtlkit.model import Model

# Of several processes that torchrun has started, one prints what is found.
_first = os.environ.get("RANK", "0") == "0"
_out = Console(quiet=not _first)
_err = Console(stderr=True)


class _Commands(TyperGroup):
    """typer ends an interrupted command without a word."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as interrupt:
            _err.print("interrupted")
            raise typer.Exit(130) from interrupt


app = typer.Typer(
    cls=_Commands,
    help="Multi-task learning in PyTorch whose architecture is data.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

File = Annotated[Path, typer.Argument(help="A run file: TOML, JSON or YAML.", show_default=False)]
Folder = Annotated[Path, typer.Argument(help="A folder that `mtlkit train` wrote.", show_default=False)]


@app.command()
def bench(
    file: Annotated[Path | None, typer.Argument(help="A bench file; the bundled digits if left out.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for results.json and the report.")] = Path("bench-results"),
    trunks: Annotated[
        str | None, typer.Option(help="Encoders to compare, as in mlp,cnn,timm:resnet18.", show_default=False)
    ] = None,
    sharing: Annotated[
        str | None, typer.Option(help="Sharing schemes for each of them, as in hard,mmoe.", show_default=False)
    ] = None,
    balancers: Annotated[
        str | None, typer.Option(help="Balancers for each of these, as in sum,upgrad.", show_default=False)
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(help="How many seeds for each variant.", min=1, show_default=False)
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(help="Runs at the same time, each in a process.", min=1, show_default=False)
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Folder where finished runs are kept; OUT/runs if left out.", show_default=False)
    ] = None,
) -> None:
    """Compare trunks, sharing schemes and balancers on one dataset at equal budget, over several seeds."""
    from mtlkit.bench import run_bench

    _refuse_several("bench")

    with _read_from(file):
        result = run_bench(
            file,
            out,
            _names(trunks),
            seeds,
            _out,
            sharing=_names(sharing),
            balancers=_names(balancers),
            jobs=jobs,
            cache=cache,
        )
    if result.failed or result.unwatched:
        raise typer.Exit(1)


@app.command()
def train(
    file: File,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the model; runs/<name of the file> if left out.", show_default=False)
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a model that is there.")] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the newest good checkpoint in the folder, or begin.")
    ] = False,
) -> None:
    """Train the model of a run file and keep it in a folder."""
    from mtlkit import runfile

    folder = out or Path("runs") / file.stem
    with _read_from(file):
        finished = runfile.train(file, folder, overwrite=overwrite, resume=resume)
    if finished.test is not None:
        _print_scores(finished.test, "test data")
    _out.print(f"kept in {folder}", highlight=False, markup=False)
    finished.trainer.processes.end()


@app.command()
def evaluate(
    folder: Folder,
    split: Annotated[str, typer.Option(help="train, valid or test.")] = "test",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Score a trained model on the data of its run file."""
    from mtlkit import runfile

    with _read_from(folder):
        kept = runfile.open_run(_checked(folder))
        scores = kept.trainer.evaluate(_examples(kept, split))
    if as_json and _first:
        finite = {t: {k: v if v == v else None for k, v in s.items()} for t, s in scores.items()}
        typer.echo(json.dumps(finite, indent=1, ensure_ascii=False))
    elif not as_json:
        _print_scores(scores, f"{split} data")


@app.command()
def predict(
    folder: Folder,
    source: Annotated[
        Path | None,
        typer.Argument(
            help="A CSV, Parquet or .npz file, or a folder of images; the test data if left out.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The file to write: .csv, .parquet or .npz.", show_default=False)
    ] = None,
) -> None:
    """Write a trained model's predictions: class probabilities and values, one row an example."""
    from mtlkit import runfile
    from mtlkit.prediction import predict_file

    _refuse_several("predict")

    with _read_from(folder):
        kept = runfile.open_run(_checked(folder))
    with _read_from(source or folder, out):
        written, rows = predict_file(kept, folder, source, out)
    _out.print(f"{rows} predictions in {written}", highlight=False, markup=False)


@app.command()
def show(
    source: Annotated[
        Path | None, typer.Argument(help="A spec, a run file, or a folder with a model.", show_default=False)
    ] = None,
    mermaid: Annotated[bool, typer.Option("--mermaid", help="Print a Mermaid flowchart.")] = False,
    spec: Annotated[bool, typer.Option("--spec", help="Print the spec with every default filled in.")] = False,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema of specs.")] = False,
    cost: Annotated[
        bool, typer.Option("--cost", help="Print parameters, FLOPs and memory of a step, and what balancing adds.")
    ] = False,
    batch: Annotated[int, typer.Option(help="With --cost: examples of a step.", min=1)] = 64,
    length: Annotated[int, typer.Option(help="With --cost: stands for an axis of any length.", min=1)] = 128,
    as_json: Annotated[bool, typer.Option("--json", help="With --cost: print JSON.")] = False,
) -> None:
    """Draw a model: inputs, encoders with shapes and parameters, who shares them, tasks. Or tell what it costs."""
    if schema:
        from mtlkit.schema import json_schema

        typer.echo(json.dumps(json_schema(), indent=1, ensure_ascii=False))
        return
    if source is None:
        raise typer.BadParameter("expected a spec, a run file or a folder (or --schema)")
    if cost:
        _print_cost(source, batch, length, as_json)
        return
    with _read_from(source):
        model = _model_of(source)
    if spec:
        typer.echo(json.dumps(model.spec, indent=1, ensure_ascii=False))
        return
    from mtlkit import show as drawing

    if mermaid:
        typer.echo(drawing.mermaid(model))
    else:
        _out.print(drawing.tree(model))


@app.command()
def export(
    folder: Folder,
    out: Annotated[Path, typer.Option(help="The file to write: .onnx or .pt2.", show_default=False)],
    format: Annotated[
        str | None, typer.Option(help="onnx or pt2; as the file's name ends if left out.", show_default=False)
    ] = None,
    tasks: Annotated[
        str | None, typer.Option(help="Only these, as in digit,slant, and what they need.", show_default=False)
    ] = None,
    predictions: Annotated[
        bool, typer.Option("--predictions", help="Class probabilities and values, not raw outputs.")
    ] = False,
    length: Annotated[
        int | None, typer.Option(help="Fix each axis of any length to this one.", min=1, show_default=False)
    ] = None,
) -> None:
    """Write a trained model as a file that runs without mtlkit, checked against the model."""
    from mtlkit import exporting, runfile
    from mtlkit.saving import load

    _refuse_several("export")

    with _read_from(folder):
        model, table = load(_checked(folder)), runfile.open_table(folder)
    chosen = _names(tasks)
    kind: Any = format
    exporting.export(model, out, format=kind, tasks=chosen, predictions=predictions, length=length, table=table)
    names = model.tasks if chosen is None else tuple(dict.fromkeys(chosen))
    inputs, outputs = ", ".join(model.inputs_of(names)), ", ".join(names)
    line = f"written: {out}: {inputs} -> {outputs}; it gives what the model gives"
    _out.print(line, highlight=False, markup=False, soft_wrap=True)


@app.command()
def suggest(
    file: File,
    out: Annotated[
        Path | None,
        typer.Option(
            help="A .yaml to write, or a folder; <name of the file>-grouped.yaml beside it if left out.",
            show_default=False,
        ),
    ] = None,
    lookahead: Annotated[
        bool, typer.Option("--lookahead", help="Measure what a step of each task does to the others' losses.")
    ] = False,
    steps: Annotated[int, typer.Option(help="Training steps in all, half of them in each of two runs.", min=2)] = 300,
    groups: Annotated[
        int | None, typer.Option(help="How many groups; found if left out.", min=1, show_default=False)
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that are there.")] = False,
) -> None:
    """Train briefly, measure how the tasks affect one another, and write a run file that groups them."""
    from mtlkit.suggest import suggest
    from mtlkit.suggest.words import command

    _refuse_several("suggest")

    with _read_from(file):
        found = suggest(file, out or file.parent, lookahead=lookahead, steps=steps, groups=groups, overwrite=overwrite)
    written = f"written: {found.run_file} and {found.picture}"
    for line in found.reason, "", written, f"train it with:  {command(found.run_file)}":
        _out.print(line, highlight=False, markup=False, soft_wrap=True)


@app.command()
def plugins(
    check: Annotated[bool, typer.Option("--check", help="Import each and say which are broken.")] = False,
) -> None:
    """List every registered part and who owns it. Imports none of them, unless --check."""
    table = Table("kind", "name", "owner", "target", box=None, pad_edge=False, header_style="bold")
    broken: list[str] = []
    for registry in registries.values():
        for entry in registry.entries():
            row = [registry.kind, entry.name, entry.owner, entry.target]
            if check:
                problem = _fault(registry, entry)
                row[3] += "  [red]broken[/red]" if problem else "  ok"
                broken += [problem] if problem else []
            table.add_row(*row)
    _out.print(table)
    for problem in broken:
        _err.print(problem, style="red", markup=False, highlight=False, soft_wrap=True)
    if broken:
        raise typer.Exit(1)


def _names(text: str | None) -> list[str] | None:
    """The names in a list with commas; None where the option is left out."""
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


def _refuse_several(command: str) -> None:
    number = int(os.environ.get("WORLD_SIZE", "1"))
    if number > 1:
        raise MtlkitError(f"`mtlkit {command}` runs in one process; found {number}. Start it without torchrun")


def _fault(registry: Any, entry: Any) -> str | None:
    """What is wrong with an entry, or None: it does not import, clashes, or its signature is no schema."""
    from mtlkit.part import schema_of

    try:
        schema_of(registry, entry.name)
    except MtlkitError as error:
        return str(error)
    return None


def _model_of(source: Path) -> Model:
    """The model of a folder, of a run file, or of a spec."""
    from mtlkit.build import build_model
    from mtlkit.saving import load

    return load(source) if os.path.isdir(source) else build_model(_spec_of(source))


def _checked(folder: Path) -> Path:
    """A folder that is there: that another was named is the user's mistake, and no damage."""
    if not os.path.isdir(folder):  # unlike Path.is_dir no error where the name is too long
        problem = Problem(str(folder), "is no folder. Expected one that `mtlkit train` wrote")
        raise SpecError([problem], "the command line")
    return folder


def _spec_of(source: Path) -> Path | dict[str, Any]:
    """The file of a spec, or the spec of a run file."""
    from mtlkit import runfile
    from mtlkit.source import read

    tables = read(source)
    if "model" not in tables and "data" not in tables:
        return source
    run, _ = runfile.checked_run(tables, str(source), more=("bench",))
    return runfile.complete(run.model, run.load_data())


def _print_cost(source: Path, batch: int, length: int, as_json: bool) -> None:
    """The cost of a spec, of a run file, or of the spec in a folder, whose weights are not read."""
    from mtlkit.guarded import Folder
    from mtlkit.saving import read_spec, without_pretrained
    from mtlkit.show.cost import Cost
    from mtlkit.show.cost_table import plain, tables

    with _read_from(source):
        spec = without_pretrained(read_spec(Folder.of(source))) if os.path.isdir(source) else _spec_of(source)
        found = Cost.of(spec, batch=batch, length=length)
    if as_json:
        typer.echo(json.dumps(plain(found), indent=1, ensure_ascii=False))
    else:
        _out.print(tables(found))


def _examples(kept: Any, split: str) -> Any:
    from mtlkit.runfile import for_tasks

    if split not in ("train", "valid", "test"):
        raise typer.BadParameter(f"found split {split!r}, expected train, valid or test")
    examples = getattr(kept.run.load_data(), split)
    if examples is None:
        raise DataError(f"the dataset {kept.run.data['type']!r} has no {split} data here")
    return for_tasks(examples, kept.trainer.model.tasks)


def _print_scores(scores: dict[str, dict[str, float]], what: str) -> None:
    names = list(dict.fromkeys(name for task in scores.values() for name in task))
    table = Table("task", *names, title=what, box=None, pad_edge=False, header_style="bold", title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    for task, values in scores.items():
        table.add_row(escape(task), *(f"{values[name]:.4f}" if name in values else "" for name in names))
    _out.print(table)


@contextmanager
def _read_from(file: Path | None, written: Path | None = None) -> Iterator[None]:
    """Errors name the file that they are about: what is below is given tables and arrays, and does not know it."""
    try:
        yield
    except SpecError as error:
        if file is None or str(file) in error.source:
            raise
        raise SpecError(error.problems, f"{error.source} of {file}") from error
    except DataError as error:
        if file is None or any(str(known) in str(error) for known in (file, written) if known):
            raise
        raise DataError(f"{file}: {error}") from error


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
        _err.print(printable(note), markup=False, highlight=False, soft_wrap=True)
    _err.print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
    sys.exit(status)


def _warn(message: Warning | str, *_: Any, **__: Any) -> None:
    text = printable(f"warning: {message}")
    _err.print(text, style="yellow", markup=False, highlight=False, soft_wrap=True)
