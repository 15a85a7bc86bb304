"""The options of ``gblr-hw codesign``."""

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
    SeedOption,
    TensorOptions,
    TokensOption,
)


@dataclass(frozen=True, kw_only=True)
class CodesignOptions:
    """What ``gblr-hw codesign`` was asked for."""

    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint with dense layers, to be approximated.")]
    covariances: CovariancesOption = None
    machine: MachineOption = "mid-32"
    tokens: TokensOption = 64
    max_area: Annotated[
        float | None, typer.Option("--max-area-mm2", help="Largest area; without it area is an objective.")
    ] = None
    max_energy: Annotated[
        float | None, typer.Option("--max-energy-uj", help="Largest energy; without it energy is an objective.")
    ] = None
    trials: Annotated[int, typer.Option("--trials", help="Pairs to ask for, half of them with scatter.", min=1)] = 200
    seed: SeedOption = 0
    include: IncludeOption = None
    exclude: ExcludeOption = None
    tensors: TensorOptions
    space_file: Annotated[
        Path | None, typer.Option("--space", help="TOML with other values to search (docs/codesign.md).")
    ] = None
    work: Annotated[
        Path | None, typer.Option("--work", help="Folder for fits and measurements: a later search goes on from there.")
    ] = None
    place: PlaceOptions
    output: Annotated[Path | None, typer.Option("--output", "-o", help="JSON of the front to write.")] = None
    picture: Annotated[Path | None, typer.Option("--picture", help="Picture to draw (PNG, SVG or PDF).")] = None
    machines: Annotated[
        Path | None, typer.Option("--machines", help="Folder for the front's machines, a TOML file each.")
    ] = None
    as_json: JsonOption = False
