"""The options of ``gblr-hw sensitivity``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from gblr_hw.cli.options.shared_options import JsonOption


@dataclass(frozen=True, kw_only=True)
class SensitivityOptions:
    """What ``gblr-hw sensitivity`` was asked for."""

    files: Annotated[
        list[Path],
        typer.Argument(
            help="Points (.json, .csv) of `gblr-hw demo`, reports (.json) of `simulate --report`, or lines "
            "(.jsonl) of a study, with their counted events; several are joined.",
        ),
    ]
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Tornado picture to draw (PNG, SVG or PDF).")
    ] = None
    machine: Annotated[
        list[str] | None,
        typer.Option(
            "--machine",
            "-m",
            help="TOML file of a machine in the results that is no preset; repeatable.",
            metavar="FILE",
        ),
    ] = None
    energy_table: Annotated[
        str | None,
        typer.Option("--energy-table", help="Price events by another table than the machines'.", metavar="NAME|FILE"),
    ] = None
    accuracy: Annotated[
        float | None,
        typer.Option(
            "--accuracy",
            help="What a family's run must reach to stand for it; without it the highest that all families reach.",
            min=0.0,
            max=1.0,
        ),
    ] = None
    as_json: JsonOption = False
