"""The options of ``gblr-hw lower``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from gblr_hw.cli.options.shared_options import (
    GaussianOption,
    JsonOption,
    MachineOption,
    SeedOption,
    ShapeOption,
    TensorOptions,
)

ROWS = 197  # of activations, where none are asked for
_MOST = 2**20  # of any size of a model's inputs; a program has no more rows than that


@dataclass(frozen=True, kw_only=True)
class LowerOptions:
    """What ``gblr-hw lower`` was asked for."""

    checkpoint: Annotated[
        Path | None,
        typer.Argument(help="A checkpoint (our format, the published layout, plain dense weights) or an ONNX model."),
    ] = None
    machine: MachineOption = "mid-32"
    tokens: Annotated[
        int | None,
        typer.Option(
            "--tokens",
            help=f"Activation rows that enter every layer [default: {ROWS}]; of a model: tokens.",
            min=1,
            max=_MOST,
        ),
    ] = None
    gaussian: GaussianOption = None
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            help="Lower a whole network: transformers:google/vit-base-patch16-224 (`--model list` names all), or "
            "FILE.py:FUNCTION, which returns (module, example inputs), or with a dict of keyword arguments as a third. "
            "A checkpoint then fills its weights.",
            metavar="NAME",
        ),
    ] = None
    random_weights: Annotated[
        bool, typer.Option("--random-weights", help="Draw weights that no checkpoint gives; cycles do not change.")
    ] = False
    batch: Annotated[
        int, typer.Option("--batch", help="Of a model: sequences or images at once.", min=1, max=_MOST)
    ] = 1
    past: Annotated[int, typer.Option("--past", help="Of a causal model: tokens in the cache.", min=0, max=_MOST)] = 0
    gblr: Annotated[
        float | None,
        typer.Option("--gblr", help="Of a model: random GBLR layers at this fraction of the multiplications."),
    ] = None
    seed: SeedOption = 0
    treat: Annotated[
        list[str] | None,
        typer.Option("--treat", help="What an operation that is not known costs.", metavar="NAME=free|vector"),
    ] = None
    by_example: Annotated[
        bool,
        typer.Option(
            "--by-example", help="Of a model: branches and shapes that depend on data are the example inputs'."
        ),
    ] = False
    drop_zeros: Annotated[
        bool, typer.Option("--drop-zeros", help="Of a model: leave out tiles whose weights are all zero.")
    ] = False
    weight_bits: Annotated[
        int | None,
        typer.Option("--weight-bits", help="Of all tiles: the machine's weight_bits [default] or narrow_bits.", min=1),
    ] = None
    tensors: TensorOptions
    shape: ShapeOption = None
    rename: Annotated[
        list[str] | None,
        typer.Option("--rename", help="Of a model's checkpoint: what a prefix of names becomes.", metavar="OLD=NEW"),
    ] = None
    size: Annotated[
        list[str] | None,
        typer.Option("--size", help="Of an ONNX model: a free dimension, INPUT.AXIS=N.", metavar="INPUT.AXIS=N"),
    ] = None
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Program file to write [default: NAME.program]."),
    ] = None
    dump_after: Annotated[
        list[str] | None,
        typer.Option("--dump-after", help="Print what a pass made, for every layer; may be repeated.", metavar="PASS"),
    ] = None
    as_json: JsonOption = False
