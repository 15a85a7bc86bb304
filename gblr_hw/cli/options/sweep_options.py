"""The options of ``gblr-hw sweep``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from gblr_hw.cli.options.shared_options import GaussianOption, JsonOption, MachineOption, SeedOption


@dataclass(frozen=True, kw_only=True)
class SweepOptions:
    """What ``gblr-hw sweep`` was asked for."""

    settings: Annotated[
        list[str],
        typer.Option(
            "--set",
            help="What varies: any field of a machine file, machine, or tokens; fields with commas change together; "
            "repeat it for the product.",
            metavar="FIELD[,FIELD]=V1,V2",
        ),
    ]
    checkpoint: Annotated[Path | None, typer.Argument(help="Checkpoint whose layers run one after another.")] = None
    model: Annotated[
        str | None,
        typer.Option(
            "--model", help="A whole network: a known one (`gblr-hw lower --model list`) or FILE.py:FUNCTION."
        ),
    ] = None
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File of all points to write (.csv or .json).")
    ] = None
    picture: Annotated[
        Path | None, typer.Option("--picture", help="Picture of energy over latency (PNG, SVG or PDF).")
    ] = None
    machine: MachineOption = "mid-32"
    tokens: Annotated[
        int | None, typer.Option("--tokens", help="Activation rows of each layer [default: 197].", min=1)
    ] = None
    batch: Annotated[int, typer.Option("--batch", help="Batch of a known network.", min=1)] = 1
    gaussian: GaussianOption = None
    random_weights: Annotated[
        bool, typer.Option("--random-weights", help="Cycles do not depend on values: draw them.")
    ] = False
    sample: Annotated[
        int | None, typer.Option("--sample", help="Measure so many points of the product, drawn at random.", min=1)
    ] = None
    seed: SeedOption = 0
    jobs: Annotated[int, typer.Option("--jobs", help="Processes.", min=1)] = 1
    scheduler: Annotated[
        str | None, typer.Option("--scheduler", help="Dask scheduler to work on instead, tcp://HOST:PORT.")
    ] = None
    work: Annotated[
        Path | None, typer.Option("--work", help="Folder for finished points: an interrupted sweep goes on from there.")
    ] = None
    as_json: JsonOption = False
