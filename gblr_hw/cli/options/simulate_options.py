"""The options of ``gblr-hw simulate``."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from gblr_hw.cli.options.shared_options import JsonOption
from simulator.dram.standards import STANDARDS


class Order(StrEnum):
    """How the table of layers or operators is sorted."""

    PROGRAM = "program"
    CYCLES = "cycles"


@dataclass(frozen=True, kw_only=True)
class SimulateOptions:
    """What ``gblr-hw simulate`` was asked for."""

    program: Annotated[Path | None, typer.Argument(help="A program that `gblr-hw lower` wrote.")] = None
    machine: Annotated[
        str | None,
        typer.Option(
            "--machine",
            "-m",
            help="Preset or TOML file; without it the machine a program was lowered for, and mid-32 for GEMMs.",
            metavar="NAME|FILE",
        ),
    ] = None
    dram: Annotated[
        str | None,
        typer.Option(
            "--dram",
            help="Another DRAM for the machine: bandwidth (one latency, one bandwidth) or a standard's banks and rows: "
            f"{', '.join(STANDARDS)}; as many channels as come nearest to its bandwidth.",
            metavar="MODEL",
        ),
    ] = None
    gemm: Annotated[
        list[str] | None,
        typer.Option(
            "--gemm",
            help="Instead of a program: a dense layer of M tokens, K inputs, N outputs; repeatable.",
            metavar="MxKxN",
        ),
    ] = None
    topology: Annotated[
        Path | None,
        typer.Option("--topology", help="Instead of a program: layers of a SCALE-Sim topology (GEMM or convolution)."),
    ] = None
    array: Annotated[
        str | None, typer.Option("--array", help="For GEMMs: another array for the machine.", metavar="ROWSxCOLS")
    ] = None
    option_set: Annotated[
        str | None,
        typer.Option(
            "--as",
            help="For GEMMs: compute cycles as SCALE-Sim 3.0 counts them: scalesim-ws, scalesim-os or scalesim-is.",
            metavar="NAME",
        ),
    ] = None
    energy_table: Annotated[
        str | None,
        typer.Option(
            "--energy-table",
            help="Price events by another table: cmos-45, cmos-22, cmos-7 or a TOML file.",
            metavar="NAME|FILE",
        ),
    ] = None
    report: Annotated[Path | None, typer.Option("--report", help="Write all figures as JSON.")] = None
    trace: Annotated[
        Path | None, typer.Option("--trace", help="Write a Chrome trace (.json or .json.gz) for Perfetto.")
    ] = None
    dram_trace: Annotated[
        Path | None,
        typer.Option(
            "--dram-trace",
            help="Of a program: write its DRAM bursts for Ramulator 2, as addresses (.ldst) or banks and rows (.rw).",
        ),
    ] = None
    timeline: Annotated[
        Path | None, typer.Option("--timeline", help="Draw the units' time line (PNG, SVG or PDF).")
    ] = None
    bars: Annotated[
        Path | None, typer.Option("--bars", help="Draw every layer's cycles by cause (PNG, SVG or PDF).")
    ] = None
    roofline: Annotated[
        Path | None, typer.Option("--roofline", help="Draw every operator under the machine's roofs (PNG, SVG or PDF).")
    ] = None
    order: Annotated[
        Order | None,
        typer.Option(
            "--order",
            help="Rows of the table: as the program has them, or most cycles first (the default for whole networks).",
            show_default=False,
        ),
    ] = None
    top: Annotated[
        int | None, typer.Option("--top", help="Rows of the table; one more sums up all others.", min=1, metavar="N")
    ] = None
    as_json: JsonOption = False
