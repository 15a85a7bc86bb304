"""The options of ``gblr-hw sweep``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from gblr_hw.cli.options.shared_options import GaussianOption, JsonOption, MachineOption, PlaceOptions, SeedOption


@dataclass(frozen=True, kw_only=True)
class SweepOptions:
    """What ``gblr-hw sweep`` was asked for."""

    settings: Annotated[
        list[str],
        typer.Option(
            "--set",
            help="What varies: any field of a machine file; machine, tokens, checkpoint, model, batch; family and "
            "budget, to which dense layers are converted first. Fields with commas change together; repeat it for the "
            "product.",
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
        Path | None, typer.Option("--output", "-o", help="File of all points to write (.csv, .json or .parquet).")
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
        int | None, typer.Option("--sample", help="Measure so many points of the product, as --sampler says.", min=1)
    ] = None
    sampler: Annotated[
        str,
        typer.Option(
            "--sampler",
            help="Which points: random; qmc, evenly spread; or what Optuna's tpe or nsga2 asks for, 16 at a time, in "
            "search of few cycles and little energy.",
            metavar="random|qmc|tpe|nsga2",
        ),
    ] = "random"
    seed: SeedOption = 0
    place: PlaceOptions
    work: Annotated[
        Path | None,
        typer.Option("--work", help="Folder for finished points and conversions, from which a sweep goes on."),
    ] = None
    as_json: JsonOption = False
