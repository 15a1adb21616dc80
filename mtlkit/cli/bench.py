"""`mtlkit bench [bench.toml]`: what is compared, and where the report goes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mtlkit.cli import console
from mtlkit.cli.given import names, read_from, refuse_several


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

    refuse_several("bench")

    with read_from(file):
        result = run_bench(
            file,
            out,
            names(trunks),
            seeds,
            console.out,
            sharing=names(sharing),
            balancers=names(balancers),
            jobs=jobs,
            cache=cache,
        )
    if result.failed or result.unwatched:
        raise typer.Exit(1)
