"""`mtlkit export m/ --out m.onnx`: a file that runs without mtlkit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mtlkit.cli import console
from mtlkit.cli.given import Folder, checked, names, read_from, refuse_several


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

    refuse_several("export")

    with read_from(folder):
        model, table = load(checked(folder)), runfile.open_table(folder)
    chosen = names(tasks)
    kind: Any = format
    exporting.export(model, out, format=kind, tasks=chosen, predictions=predictions, length=length, table=table)
    written = model.tasks if chosen is None else tuple(dict.fromkeys(chosen))
    inputs, outputs = ", ".join(model.inputs_of(written)), ", ".join(written)
    line = f"written: {out}: {inputs} -> {outputs}; it gives what the model gives"
    console.out.print(line, highlight=False, markup=False, soft_wrap=True)
