"""The options of ``gblr-hw advise``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from gblr_hw.cli.options.shared_options import (
    CovariancesOption,
    ExcludeOption,
    IncludeOption,
    JsonOption,
    MachineOption,
    PlaceOptions,
    TensorOptions,
)

TOKENS = "1,16,64,197,1024"


@dataclass(frozen=True, kw_only=True)
class AdviseOptions:
    """What ``gblr-hw advise`` was asked for."""

    checkpoint: Annotated[Path | None, typer.Argument(help="A checkpoint with dense layers; or give --model.")] = None
    model: Annotated[
        str | None,
        typer.Option("--model", help="A model, as `gblr-hw lower` takes it; a checkpoint fills it.", metavar="NAME"),
    ] = None
    machine: MachineOption = "mid-32"
    tokens: Annotated[
        str | None, typer.Option("--tokens", help=f"Tokens of a sequence, of each regime [default: {TOKENS}].")
    ] = None
    bandwidth: Annotated[
        str | None, typer.Option("--bandwidth", help="DRAM GB/s of each regime [default: the machine's].")
    ] = None
    error: Annotated[
        float | None,
        typer.Option("--error", help="Relative error that all ways are held to [default: that of dense 4 bits]."),
    ] = None
    tiles: Annotated[
        float | None, typer.Option("--tiles", help="Instead: structures get this share of the dense tiles.")
    ] = None
    by: Annotated[str, typer.Option("--by", help="What is least in the best: latency, energy or bytes.")] = "latency"
    narrow_bits: Annotated[
        int, typer.Option("--narrow-bits", help="Of the machine's narrow tiles, where it has none; 0: no such ways.")
    ] = 4
    way: Annotated[
        list[str] | None, typer.Option("--way", help="Compare only these; may be repeated.", metavar="NAME")
    ] = None
    covariances: CovariancesOption = None
    include: IncludeOption = None
    exclude: ExcludeOption = None
    random_weights: Annotated[
        bool, typer.Option("--random-weights", help="Of a model without weights; only with --tiles.")
    ] = False
    simulated: Annotated[
        bool, typer.Option("--simulate/--no-simulate", help="Run the ways that look best cycle by cycle as well.")
    ] = True
    tensors: TensorOptions
    place: PlaceOptions
    output: Annotated[Path | None, typer.Option("--output", "-o", help="JSON of everything to write.")] = None
    picture: Annotated[
        Path | None, typer.Option("--picture", help="Map of winners to draw, tokens by bandwidth (PNG, SVG or PDF).")
    ] = None
    as_json: JsonOption = False
