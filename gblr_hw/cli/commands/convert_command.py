"""``gblr-hw convert``: from a dense checkpoint, or a model, to a structure family at one budget of the network."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
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
from gblr_hw.cli.sources.convert_source import ModelSource, Reached, data_file, source_of
from gblr_hw.cli.sources.lower_source import model_file
from gblr_hw.weights.family import FAMILIES, converted, converted_whole, told
from simulator.base.errors import InputError
from simulator.machine.machine import Machine

if TYPE_CHECKING:
    from gblr_hw.conversion.fit.fit_weights import Converted
    from gblr_hw.files.accounting import Told
    from gblr_hw.weights.stored import DenseWeights, LayerWeights

_LIMITS, _SEVERAL = ("--latency", "--energy", "--bytes"), "several layers"
_LAYERS, _MODEL, _ORDER = "a checkpoint's layers", "a model", "--in-order"
_ALONE = "each layer by itself (of a model: --alone) and none by loss"
_ACTS_WITH = {
    **dict.fromkeys(("checkpoint", "output", "machine", "tiles"), ALWAYS),
    **dict.fromkeys(("latency", "energy_uj", "weight_bytes", "weight_bits", "rank_bits"), (_ALONE,)),
    "model": ALWAYS,
    **dict.fromkeys(("data", "in_order", "by_loss", "distil"), (_MODEL,)),
    "shrink": (_ORDER,),
    "tokens": _LIMITS,
    **dict.fromkeys(("include", "exclude"), ALWAYS),
    "hidden": (_ALONE, _ORDER),
    **dict.fromkeys(("covariances", "shape", "table", "layer", "leave_out", "transposed"), (_LAYERS,)),
    "by_error": (_SEVERAL,),
    "intervals_only": (_ALONE,),
    **dict.fromkeys(("family", "work", "as_json"), ALWAYS),
}


def convert_command(
    context: typer.Context,
    output: Annotated[Path, typer.Option("--output", "-o", help="Checkpoint to write (.safetensors).")],
    checkpoint: Annotated[
        Path | None,
        typer.Argument(help="A checkpoint with dense layers; layers of other families are kept as they are."),
    ] = None,
    machine: MachineOption = "mid-32",
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            help="Convert the linear layers of a model, named as for `lower`: a known network, or FILE.py:FUNCTION, "
            "which returns (module, example inputs). A checkpoint then fills its weights.",
            metavar="NAME",
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            "--calibrate",
            help="Of a model: a .npz or .safetensors file of its inputs by name, or FILE.py:FUNCTION, which yields "
            "batches.",
            metavar="FILE",
        ),
    ] = None,
    in_order: Annotated[
        bool,
        typer.Option(
            "--in-order/--alone",
            help="Of a model: layer after layer, each on the inputs that those before it leave, and making up for what "
            "they got wrong; or each layer by itself.",
        ),
    ] = True,
    shrink: Annotated[
        str,
        typer.Option(
            "--shrink",
            help="Draw what the inputs' moments say off their diagonal to zero: a share, or auto, by their noise.",
            metavar="auto|X",
        ),
    ] = "0",
    by_loss: Annotated[
        bool,
        typer.Option(
            "--by-loss",
            help="Of a model: tiles go where its output would lose most without them, by second moments of gradients.",
        ),
    ] = False,
    distil: Annotated[
        int, typer.Option("--distil", help="Of a model: train what was converted for so many steps.", min=0)
    ] = 0,
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
    """Convert dense layers of a checkpoint, or of a model, to layers of one structure family, at a budget of the whole
    network.

    A model's layers are converted in the order in which they run, unless --alone says otherwise; layers that came out
    badly are named.
    """
    from gblr_hw.conversion.conversion import convert
    from gblr_hw.files.checkpoint import save_checkpoint
    from gblr_hw.weights.dense_layers import dense_layers

    loaded_machine = Machine.load(machine)
    check_outputs(
        [Output("--output", output)],
        inputs={
            "the checkpoint": checkpoint, "--machine": machine_file(machine), "--covariances": covariances,
            "--model": model_file(model), "--data": data_file(data),
        },
        folders={"--work": work},
    )  # fmt: skip
    told = told_of(table, layer, leave_out, transposed)
    budgets = {"--latency": latency, "--energy": energy_uj, "--bytes": weight_bytes}
    given = [name for name, value in budgets.items() if value is not None] or ["a budget in tiles"]
    in_order = in_order and model is not None
    way = _ORDER if in_order else "--by-loss" if by_loss else _ALONE
    how = [*given, way, _LAYERS] if model is None else [_MODEL, way, *given]
    shrinking = _share(shrink)
    source = None if model is None else source_of(model, data, checkpoint)
    layers, moments, notes = _given(checkpoint, source, shape or (), told, covariances)
    dense = dense_layers(
        layers, f"checkpoint '{checkpoint}'" if model is None else f"model '{model}'", include, exclude
    )
    check_acting(context, [*how, _SEVERAL if len(dense) > 1 and way == _ALONE else "one layer"], _ACTS_WITH)
    pairs = _pairs(hidden or [], list(dense))
    moments = moments if source is None else source.moments(list(dense))
    with progress_bar(as_json) as progress:
        if source is not None and in_order:
            found = source.in_order(
                loaded_machine, list(dense), tiles, pairs, family, shrinking, by_loss, work, progress
            )  # fmt: skip
        elif source is not None and by_loss:
            found = source.by_loss(dense, loaded_machine, moments, tiles, family, work, progress)
        else:
            found = convert(
                dense, loaded_machine, tiles, moments, latency=latency, tokens=tokens,
                energy_pj=None if energy_uj is None else energy_uj * 1e6, intervals_only=intervals_only, family=family,
                allocation="by-error" if by_error else "even", hidden=pairs, progress=progress,
                work=work, weight_bytes=weight_bytes, bits=_bits(weight_bits), rank_bits=rank_bits,
            )  # fmt: skip
        if source is not None and distil:
            found = source.distilled(found, distil, progress)
        reached = None if source is None else source.reached(loaded_machine, found)
    kept = layers if source is None else dict(found)
    save_checkpoint({name: found.get(name, weights) for name, weights in kept.items()}, output)
    rows = _rows(dense, found, loaded_machine, moments, hidden or [])
    _tell(
        rows, found, loaded_machine, output, notes, reached, as_json, weight_bits is not None or rank_bits is not None
    )


def _given(
    checkpoint: Path | None,
    source: ModelSource | None,
    shape: Sequence[str],
    told: Told,
    covariances: Path | None,
) -> tuple[Mapping[str, LayerWeights], Mapping[str, np.ndarray] | None, list[str]]:
    """Layers by name, the moments that a file has of them, and what is to be told."""
    from gblr_hw.conversion.covariances import load_covariances
    from gblr_hw.files.checkpoint import read_checkpoint

    if source is not None:
        return source.dense(), None, source.notes
    if checkpoint is None:
        raise InputError("arguments", "no checkpoint", "there is a checkpoint or a --model", "Name one.")
    contents = read_checkpoint(checkpoint, shapes=shapes_of(shape), told=told)
    moments = None if covariances is None else load_covariances(covariances)
    return contents.layers, moments, contents.account.notes()


def _tell(
    rows: list[dict[str, object]],
    found: Mapping[str, Converted],
    machine: Machine,
    output: Path,
    notes: list[str],
    reached: Reached | None,
    as_json: bool,
    with_bits: bool,
) -> None:
    kinds = [FAMILIES[name] for name in dict.fromkeys(weights.family for weights in found.values())]
    warned = _warnings(rows)
    if as_json:
        family_names = ", ".join(kind.name for kind in kinds)
        summary: dict[str, object] = {"checkpoint": str(output), "machine": machine.name, "family": family_names}
        if reached is not None:
            summary |= vars(reached)
        print_json({**summary, "layers": rows, "warnings": warned, "left_out": notes})
        return
    _print_table(rows, with_bits=with_bits)
    for text in (*warned, *notes):
        say(text)
    if reached is not None:
        share = reached.latency_cycles / reached.dense_cycles
        say(f"{reached.latency_cycles:,} cycles, {share:.4f} of the dense model's {reached.dense_cycles:,}")
        energy, dense_energy = 1e-6 * reached.energy_pj, 1e-6 * reached.dense_energy_pj
        say(f"{energy:,.4g} uJ, {energy / dense_energy:.4f} of the dense model's {dense_energy:,.4g}")
        say(f"error of the model's output on the batches, {reached.output_error:.4f} of its norm")
    say(f"{', '.join(kind.label for kind in kinds)}, written to {output}")


def _warnings(rows: list[dict[str, object]]) -> list[str]:
    """A sentence for each layer that came out badly, as the Python `convert` has them."""
    from gblr_hw.conversion.in_order.convert_model import badly_told

    errors = {str(row["name"]): float(str(row["relative_error"])) for row in rows}
    return [text for name, error in errors.items() if (text := badly_told(name, error))]


def _share(text: str) -> float | Literal["auto"]:
    """Of ``--shrink``."""
    if text == "auto":
        return "auto"
    try:
        share = float(text)
    except ValueError:
        share = math.nan
    if not 0 <= share <= 1:
        raise InputError("--shrink", repr(text), "it is auto, or a share from 0 to 1", "Give auto.")
    return share


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
