"""`mtlkit predict m/ new.csv`: predictions for new examples, or for the test data, as a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mtlkit.cli import console
from mtlkit.cli.given import Folder, checked, read_from, refuse_several


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

    refuse_several("predict")

    with read_from(folder):
        kept = runfile.open_run(checked(folder))
    with read_from(source or folder, out):
        written, rows = predict_file(kept, folder, source, out)
    console.out.print(f"{rows} predictions in {written}", highlight=False, markup=False)
