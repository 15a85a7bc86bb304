"""The options of ``gblr-hw convert``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from gblr_hw.cli.options.shared_options import (
    CheckpointOutput,
    CovariancesOption,
    JsonOption,
    MachineOption,
    ShapeOption,
    TensorOptions,
    TokensOption,
)
from gblr_hw.weights.family import converted, converted_whole, told
from simulator.base.errors import InputError


@dataclass(frozen=True, kw_only=True)
class ConvertOptions:
    """What ``gblr-hw convert`` was asked for."""

    output: CheckpointOutput
    checkpoint: Annotated[
        Path | None,
        typer.Argument(help="A checkpoint with dense layers; layers of other families are kept as they are."),
    ] = None
    machine: MachineOption = "mid-32"
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            help="Convert the linear layers and convolutions of a model, named as for `lower`: a known network, or "
            "FILE.py:FUNCTION, which returns (module, example inputs). A checkpoint then fills its weights.",
            metavar="NAME",
        ),
    ] = None
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            "--calibrate",
            help="Of a model: a .npz or .safetensors file of its inputs by name, or FILE.py:FUNCTION, which yields "
            "batches.",
            metavar="FILE",
        ),
    ] = None
    in_order: Annotated[
        bool,
        typer.Option(
            "--in-order/--alone",
            help="Of a model: layer after layer, each on the inputs that those before it leave, and making up for what "
            "they got wrong; or each layer by itself.",
        ),
    ] = True
    shrink: Annotated[
        str,
        typer.Option(
            "--shrink",
            help="Draw what the inputs' moments say off their diagonal to zero: a share, or auto, by their noise.",
            metavar="auto|X",
        ),
    ] = "0"
    by_loss: Annotated[
        bool,
        typer.Option(
            "--by-loss",
            help="Of a model: tiles go where its output would lose most without them, by second moments of gradients.",
        ),
    ] = False
    distil: Annotated[
        int, typer.Option("--distil", help="Of a model: train what was converted for so many steps.", min=0)
    ] = 0
    tiles: Annotated[
        float | None,
        typer.Option("--tiles", help="Budget: fraction of the layers' dense tiles, all together (0.3 if none given)."),
    ] = None
    latency: Annotated[
        str | None,
        typer.Option("--latency", help="Budget instead: 0.4x-dense, 0.05ms or 12000cycles, as simulated."),
    ] = None
    energy_uj: Annotated[float | None, typer.Option("--energy", help="Budget instead: microjoules, as simulated.")] = (
        None
    )
    weight_bytes: Annotated[
        str | None,
        typer.Option("--bytes", help="Budget instead: bytes of weights in DRAM, 0.55x-dense or a number."),
    ] = None
    weight_bits: Annotated[
        str | None,
        typer.Option(
            "--weight-bits",
            help="Of dense tiles: the machine's narrow_bits, rounded so that weights make up for each other's errors; "
            "or choose: tiles, ranks and bits together, within a latency, an energy or bytes.",
            metavar="N|choose",
        ),
    ] = None
    rank_bits: Annotated[
        int | None, typer.Option("--rank-bits", help="Of ranks: the machine's narrow_bits.", min=1)
    ] = None
    tokens: TokensOption = 197
    include: Annotated[
        list[str] | None,
        typer.Option("--include", help="Shell pattern of layers to convert; may be repeated.", metavar="PATTERN"),
    ] = None
    exclude: Annotated[
        list[str] | None,
        typer.Option("--exclude", help="Shell pattern of layers to leave dense; may be repeated.", metavar="PATTERN"),
    ] = None
    covariances: CovariancesOption = None
    hidden: Annotated[
        list[str] | None,
        typer.Option(
            "--hidden",
            help="Layers with hidden channels between them, to be reordered in both; * stands for the same text.",
            metavar="PRODUCER=CONSUMER",
        ),
    ] = None
    by_error: Annotated[
        bool,
        typer.Option("--by-error", help="Move tiles between layers where that lowers their relative errors' sum."),
    ] = False
    intervals_only: Annotated[
        bool, typer.Option("--intervals-only", help="Each rank's chunks stay one cyclic run, as GBLR blocks.")
    ] = False
    family: Annotated[
        str | None,
        typer.Option(
            "--family",
            help=f"What to convert to. {told((*converted(), *converted_whole()))} Without it, the freest that the "
            "machine runs in the tiles that are counted.",
        ),
    ] = None
    shape: ShapeOption = None
    tensors: TensorOptions
    work: Annotated[
        Path | None,
        typer.Option("--work", help="Folder for finished layers: an interrupted conversion goes on from there."),
    ] = None
    as_json: JsonOption = False


def shrink_of(text: str) -> float | Literal["auto"]:
    """``--shrink``: a share, or auto."""
    if text == "auto":
        return "auto"
    try:
        share = float(text)
    except ValueError:
        share = math.nan
    if not 0 <= share <= 1:
        raise InputError("--shrink", repr(text), "it is auto, or a share from 0 to 1", "Give auto.")
    return share


def bits_of(text: str | None) -> int | Literal["choose"] | None:
    """``--weight-bits``: a number, or choose."""
    if text is None or text.isdigit():
        return None if text is None else int(text)
    if text != "choose":
        raise InputError("--weight-bits", repr(text), "it is a number of bits, or choose", "Give 4.")
    return "choose"


def hidden_pairs(patterns: list[str], names: list[str]) -> dict[str, str]:
    """``--hidden PRODUCER=CONSUMER`` options: producer -> consumer, * standing for the same text on both sides."""
    pairs = {}
    for pattern in patterns:
        producer, sign, consumer = pattern.partition("=")
        if not sign or producer.count("*") > 1 or producer.count("*") != consumer.count("*"):
            raise InputError(
                "--hidden", repr(pattern), "it is PRODUCER=CONSUMER with at most one * on each side", "Correct it."
            )
        before, _, after = producer.partition("*")
        found = [
            name for name in names
            if name == producer or ("*" in producer and name.startswith(before) and name.endswith(after))
        ]  # fmt: skip
        if not found:
            raise InputError("--hidden", repr(pattern), f"'{producer}' must match a layer", "Check the names.")
        for name in found:
            pairs[name] = consumer.replace("*", name[len(before) : len(name) - len(after)])
    return pairs
