"""``gblr-hw convert``: from a dense checkpoint to a structure family at one budget of the network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import typer

from analysis.tables.table import Column, count, format_table
from gblr_hw.cli.shared.acting import ALWAYS, check_acting
from gblr_hw.cli.shared.options import (
    CovariancesOption,
    JsonOption,
    LayerOption,
    LeaveOutOption,
    MachineOption,
    ShapeOption,
    TableOption,
    TokensOption,
    TransposedOption,
    print_json,
    progress_bar,
    say,
    shapes_of,
    told_of,
)
from gblr_hw.cli.shared.outputs import Output, check_outputs, machine_file
from gblr_hw.weights.family import FAMILIES, converted, converted_whole, told
from simulator.base.errors import InputError
from simulator.machine.machine import Machine

if TYPE_CHECKING:
    from gblr_hw.conversion.fit.fit_weights import Converted
    from gblr_hw.weights.stored import DenseWeights

_LIMITS, _SEVERAL = ("--latency", "--energy", "--bytes"), "several layers"
_ACTS_WITH = {
    **dict.fromkeys(("checkpoint", "output", "machine", "tiles", "latency", "energy_uj", "weight_bytes"), ALWAYS),
    **dict.fromkeys(("weight_bits", "rank_bits"), ALWAYS),
    "tokens": _LIMITS,
    **dict.fromkeys(("include", "exclude", "covariances", "hidden", "shape"), ALWAYS),
    **dict.fromkeys(("table", "layer", "leave_out", "transposed"), ALWAYS),
    "by_error": (_SEVERAL,),
    **dict.fromkeys(("intervals_only", "family", "work", "as_json"), ALWAYS),
}


def convert_command(
    context: typer.Context,
    checkpoint: Annotated[
        Path, typer.Argument(help="A checkpoint with dense layers; layers of other families are kept as they are.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Checkpoint to write (.safetensors).")],
    machine: MachineOption = "mid-32",
    tiles: Annotated[
        float | None,
        typer.Option("--tiles", help="Budget: fraction of the layers' dense tiles, all together (0.3 if none given)."),
    ] = None,
    latency: Annotated[
        str | None,
        typer.Option("--latency", help="Budget instead: 0.4x-dense, 0.05ms or 12000cycles, as simulated."),
    ] = None,
    energy_uj: Annotated[
        float | None, typer.Option("--energy", help="Budget instead: microjoules, as simulated.")
    ] = None,
    weight_bytes: Annotated[
        str | None,
        typer.Option("--bytes", help="Budget instead: bytes of weights in DRAM, 0.55x-dense or a number."),
    ] = None,
    weight_bits: Annotated[
        str | None,
        typer.Option(
            "--weight-bits",
            help="Of dense tiles: the machine's narrow_bits, rounded so that weights make up for each other's errors; "
            "or choose: tiles, ranks and bits together, within a latency, an energy or bytes.",
            metavar="N|choose",
        ),
    ] = None,
    rank_bits: Annotated[
        int | None, typer.Option("--rank-bits", help="Of ranks: the machine's narrow_bits.", min=1)
    ] = None,
    tokens: TokensOption = 197,
    include: Annotated[
        list[str] | None,
        typer.Option("--include", help="Shell pattern of layers to convert; may be repeated.", metavar="PATTERN"),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option("--exclude", help="Shell pattern of layers to leave dense; may be repeated.", metavar="PATTERN"),
    ] = None,
    covariances: CovariancesOption = None,
    hidden: Annotated[
        list[str] | None,
        typer.Option(
            "--hidden",
            help="Layers with hidden channels between them, to be reordered in both; * stands for the same text.",
            metavar="PRODUCER=CONSUMER",
        ),
    ] = None,
    by_error: Annotated[
        bool,
        typer.Option("--by-error", help="Move tiles between layers where that lowers their relative errors' sum."),
    ] = False,
    intervals_only: Annotated[
        bool, typer.Option("--intervals-only", help="Each rank's chunks stay one cyclic run, as GBLR blocks.")
    ] = False,
    family: Annotated[
        str | None,
        typer.Option(
            "--family",
            help=f"What to convert to. {told((*converted(), *converted_whole()))} Without it, the freest that the "
            "machine runs in the tiles that are counted.",
        ),
    ] = None,
    shape: ShapeOption = None,
    table: TableOption = None,
    layer: LayerOption = None,
    leave_out: LeaveOutOption = None,
    transposed: TransposedOption = None,
    work: Annotated[
        Path | None,
        typer.Option("--work", help="Folder for finished layers: an interrupted conversion goes on from there."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Convert a checkpoint's dense layers to layers of one structure family, at a budget of the whole network."""
    from gblr_hw.conversion.conversion import convert
    from gblr_hw.conversion.covariances import load_covariances
    from gblr_hw.files.checkpoint import read_checkpoint, save_checkpoint
    from gblr_hw.weights.dense_layers import dense_layers

    loaded_machine = Machine.load(machine)
    check_outputs(
        [Output("--output", output)],
        inputs={"the checkpoint": checkpoint, "--machine": machine_file(machine), "--covariances": covariances},
        folders={"--work": work},
    )
    told = told_of(table, layer, leave_out, transposed)
    contents = read_checkpoint(checkpoint, shapes=shapes_of(shape or ()), told=told)
    layers, notes = contents.layers, contents.account.notes()
    dense = dense_layers(layers, f"checkpoint '{checkpoint}'", include, exclude)
    budgets = {"--latency": latency, "--energy": energy_uj, "--bytes": weight_bytes}
    given = [name for name, value in budgets.items() if value is not None] or ["a budget in tiles"]
    check_acting(context, [*given, _SEVERAL if len(dense) > 1 else "one layer"], _ACTS_WITH)
    moments = None if covariances is None else load_covariances(covariances)
    with progress_bar(as_json) as progress:
        found = convert(
            dense, loaded_machine, tiles, moments, latency=latency, tokens=tokens,
            energy_pj=None if energy_uj is None else energy_uj * 1e6, intervals_only=intervals_only, family=family,
            allocation="by-error" if by_error else "even", hidden=_pairs(hidden or [], list(dense)), progress=progress,
            work=work, weight_bytes=weight_bytes, bits=_bits(weight_bits), rank_bits=rank_bits,
        )  # fmt: skip
    save_checkpoint({name: found.get(name, weights) for name, weights in layers.items()}, output)
    rows = _rows(dense, found, loaded_machine, moments, hidden or [])
    kinds = [FAMILIES[name] for name in dict.fromkeys(weights.family for weights in found.values())]
    if as_json:
        family_names = ", ".join(kind.name for kind in kinds)
        summary = {"checkpoint": str(output), "machine": loaded_machine.name, "family": family_names}
        print_json({**summary, "layers": rows, "left_out": notes})
        return
    _print_table(rows, with_bits=weight_bits is not None or rank_bits is not None)
    for note in notes:
        say(note)
    say(f"{', '.join(kind.label for kind in kinds)}, written to {output}")


def _bits(text: str | None) -> int | Literal["choose"] | None:
    if text is None or text.isdigit():
        return None if text is None else int(text)
    if text != "choose":
        raise InputError("--weight-bits", repr(text), "it is a number of bits, or choose", "Give 4.")
    return "choose"


def _pairs(patterns: list[str], names: list[str]) -> dict[str, str]:
    """Producer -> consumer, each pattern's * standing for the same text on both sides."""
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


def _rows(
    dense: Mapping[str, DenseWeights],
    found: Mapping[str, Converted],
    machine: Machine,
    moments: Mapping[str, np.ndarray] | None,
    hidden: list[str],
) -> list[dict[str, object]]:
    from gblr_hw.conversion.conversion_input import read_layers
    from gblr_hw.conversion.fit.fit_weights import relative_error
    from gblr_hw.conversion.fit.fit_whole import tiles_of
    from gblr_hw.weights.factors import evaluate
    from gblr_hw.weights.stored import LatticeWeights
    from gblr_hw.weights.structure import dense_tile_count

    problems, _ = read_layers(dense, machine, moments, _pairs(hidden, list(dense)))
    rows: list[dict[str, object]] = []
    for name, weights in found.items():
        rows.append(
            {
                "name": name,
                "tiles": tiles_of(weights, machine.rows, machine.cols),
                "dense_tiles": dense_tile_count(weights.out_features, weights.in_features, machine.rows, machine.cols),
                "kept_dense": int(weights.tiles.sum()) if isinstance(weights, LatticeWeights) else 0,
                "ranks": evaluate(weights).ranks,
                **_bits_of(weights, machine),
                "relative_error": relative_error(problems[name], weights),
            }
        )
    return rows


def _bits_of(weights: Converted, machine: Machine) -> dict[str, int]:
    """Bits of a layer's dense tiles and of its ranks, 0 without any."""
    from gblr_hw.weights.stored import LatticeWeights

    wide = machine.datatypes.weight_bits
    if not isinstance(weights, LatticeWeights):
        return {"dense_bits": 0, "rank_bits": wide}
    parts = (("dense_bits", weights.grid, weights.tiles), ("rank_bits", weights.rank_grid, weights.reads))
    return {name: (wide if grid is None else grid.bits) if bool(held.any()) else 0 for name, grid, held in parts}


def _print_table(rows: list[dict[str, object]], *, with_bits: bool) -> None:
    columns = [
        Column("layer", "name", align="left"),
        Column("tiles", "tiles", count),
        Column("dense layer's", "dense_tiles", count),
        Column("kept dense", "kept_dense", count),
        Column("ranks", "ranks", count),
        Column("relative error", "relative_error", lambda value: f"{value:.4f}"),
    ]
    if with_bits:
        columns.insert(4, Column("their bits", "dense_bits", count))
        columns.insert(6, Column("their bits", "rank_bits", count))
    print(format_table(columns, rows), end="")
    used, of = (sum(int(str(row[key])) for row in rows) for key in ("tiles", "dense_tiles"))
    print(f"{used:,} of {of:,} tiles ({used / of:.4f})")
