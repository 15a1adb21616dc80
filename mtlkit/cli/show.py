"""`mtlkit show run.toml --cost`: a model drawn, written as a spec, or counted."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mtlkit.cli import console
from mtlkit.cli.given import read_from

if TYPE_CHECKING:
    from mtlkit.model import Model


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
    with read_from(source):
        model = _model_of(source)
    if spec:
        typer.echo(json.dumps(model.spec, indent=1, ensure_ascii=False))
        return
    from mtlkit import show as drawing

    if mermaid:
        typer.echo(drawing.mermaid(model))
    else:
        console.out.print(drawing.tree(model))


def _model_of(source: Path) -> Model:
    """The model of a folder, of a run file, or of a spec."""
    from mtlkit.build import build_model
    from mtlkit.saving import load

    return load(source) if os.path.isdir(source) else build_model(_spec_of(source))


def _spec_of(source: Path) -> Path | dict[str, Any]:
    """The file of a spec, or the spec of a run file."""
    from mtlkit import runfile
    from mtlkit.source import read

    tables = read(source)
    if not {"model", "data", "init_from"} & {*tables}:
        return source
    run, _ = runfile.checked_run(tables, str(source), more=("bench",))
    return runfile.spec_of(run)


def _print_cost(source: Path, batch: int, length: int, as_json: bool) -> None:
    """The cost of a spec, of a run file, or of the spec in a folder, whose weights are not read."""
    from mtlkit.guarded import Folder
    from mtlkit.saving import read_spec, without_pretrained
    from mtlkit.show.cost import Cost
    from mtlkit.show.cost_table import plain, tables

    with read_from(source):
        spec = without_pretrained(read_spec(Folder.of(source))) if os.path.isdir(source) else _spec_of(source)
        found = Cost.of(spec, batch=batch, length=length)
    if as_json:
        typer.echo(json.dumps(plain(found), indent=1, ensure_ascii=False))
    else:
        console.out.print(tables(found))
