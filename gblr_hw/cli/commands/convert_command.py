"""``gblr-hw convert``: from a dense checkpoint, or a model, to a structure family at one budget of the network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import typer

from gblr_hw.cli.options.convert_options import ConvertOptions, bits_of, hidden_pairs, shrink_of
from gblr_hw.cli.options.shared_options import shapes_of
from gblr_hw.cli.options.taking import takes
from gblr_hw.cli.shared.acting import ALWAYS, check_acting
from gblr_hw.cli.shared.converted_table import layer_rows, print_layers
from gblr_hw.cli.shared.outputs import Output, check_outputs, machine_file
from gblr_hw.cli.shared.telling import print_json, progress_bar, say
from gblr_hw.cli.sources.convert_source import ModelSource, Progress, Reached, data_file, source_of
from gblr_hw.cli.sources.lower_source import model_file
from gblr_hw.weights.family import FAMILIES
from simulator.base.errors import InputError
from simulator.machine.machine import Machine

if TYPE_CHECKING:
    from gblr_hw.conversion.fit.fit_weights import Converted
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


@dataclass(frozen=True, eq=False)
class _Given:
    """All layers, those that patterns choose, second moments of their inputs, hidden channels between them, the model
    if there is one, and what is to be told.
    """

    layers: Mapping[str, LayerWeights]
    dense: Mapping[str, DenseWeights]
    moments: Mapping[str, np.ndarray] | None
    hidden: Mapping[str, str]
    source: ModelSource | None
    notes: list[str]


@takes(ConvertOptions)
def convert_command(context: typer.Context, options: ConvertOptions) -> None:
    """Convert dense layers of a checkpoint, or of a model, to layers of one structure family, at a budget of the whole
    network.

    A model's layers are converted in the order in which they run, unless --alone says otherwise; layers that came out
    badly are named.
    """
    from gblr_hw.files.checkpoint import save_checkpoint

    machine = Machine.load(options.machine)
    check_outputs(
        [Output("--output", options.output)],
        inputs={
            "the checkpoint": options.checkpoint, "--machine": machine_file(options.machine),
            "--covariances": options.covariances, "--model": model_file(options.model),
            "--data": data_file(options.data),
        },
        folders={"--work": options.work},
    )  # fmt: skip
    shrink_of(options.shrink)  # refused here, if at all
    given = _given(context, options)
    with progress_bar(options.as_json) as progress:
        found = _converted(options, given, machine, progress)
        if given.source is not None and options.distil:
            found = given.source.distilled(found, options.distil, progress)
        reached = None if given.source is None else given.source.reached(machine, found)
    kept = given.layers if given.source is None else dict(found)
    save_checkpoint({name: found.get(name, weights) for name, weights in kept.items()}, options.output)
    rows = layer_rows(given.dense, found, machine, given.moments, given.hidden)
    _tell(options, machine, rows, found, given.notes, reached)


def _given(context: typer.Context, options: ConvertOptions) -> _Given:
    """What is converted. Raises InputError for options that cannot act on it."""
    from gblr_hw.weights.dense_layers import dense_layers

    model, source = options.model, None
    if model is None:
        layers, moments, notes = _checkpoint_layers(options)
    else:
        source = source_of(model, options.data, options.checkpoint)
        layers, moments, notes = source.dense(), None, source.notes
    where = f"checkpoint '{options.checkpoint}'" if model is None else f"model '{model}'"
    dense = dense_layers(layers, where, options.include, options.exclude)
    budgets = {"--latency": options.latency, "--energy": options.energy_uj, "--bytes": options.weight_bytes}
    limits = [name for name, value in budgets.items() if value is not None] or ["a budget in tiles"]
    way = _way(options)
    how = [*limits, way, _LAYERS] if model is None else [_MODEL, way, *limits]
    check_acting(context, [*how, _SEVERAL if len(dense) > 1 and way == _ALONE else "one layer"], _ACTS_WITH)
    pairs = hidden_pairs(options.hidden or [], list(dense))
    if source is not None:
        moments = source.moments(list(dense))
    return _Given(layers, dense, moments, pairs, source, notes)


def _way(options: ConvertOptions) -> str:
    """How layers are gone through, as the table of options names it."""
    if options.in_order and options.model is not None:
        return _ORDER
    return "--by-loss" if options.by_loss else _ALONE


def _checkpoint_layers(
    options: ConvertOptions,
) -> tuple[Mapping[str, LayerWeights], Mapping[str, np.ndarray] | None, list[str]]:
    """Layers by name, the moments that a file has of them, and what is to be told."""
    from gblr_hw.conversion.covariances import load_covariances
    from gblr_hw.files.checkpoint import read_checkpoint

    if options.checkpoint is None:
        raise InputError("arguments", "no checkpoint", "there is a checkpoint or a --model", "Name one.")
    shapes = shapes_of(options.shape or ())
    contents = read_checkpoint(options.checkpoint, shapes=shapes, told=options.tensors.told())
    moments = None if options.covariances is None else load_covariances(options.covariances)
    return contents.layers, moments, contents.account.notes()


def _converted(options: ConvertOptions, given: _Given, machine: Machine, progress: Progress) -> Mapping[str, Converted]:
    """The layers that were chosen, converted in the way that was asked for."""
    from gblr_hw.conversion.conversion import convert

    source, dense, tiles, family, work = given.source, given.dense, options.tiles, options.family, options.work
    way = _way(options)
    if source is not None and way == _ORDER:
        return source.in_order(
            machine, list(dense), tiles, given.hidden, family, shrink_of(options.shrink), options.by_loss, work,
            progress,
        )  # fmt: skip
    if source is not None and options.by_loss:
        return source.by_loss(dense, machine, given.moments, tiles, family, work, progress)
    energy_pj = None if options.energy_uj is None else options.energy_uj * 1e6
    return convert(
        dense, machine, tiles, given.moments, latency=options.latency, tokens=options.tokens, energy_pj=energy_pj,
        intervals_only=options.intervals_only, family=family, allocation="by-error" if options.by_error else "even",
        hidden=given.hidden, progress=progress, work=work, weight_bytes=options.weight_bytes,
        bits=bits_of(options.weight_bits), rank_bits=options.rank_bits,
    )  # fmt: skip


def _tell(
    options: ConvertOptions,
    machine: Machine,
    rows: list[dict[str, object]],
    found: Mapping[str, Converted],
    notes: list[str],
    reached: Reached | None,
) -> None:
    kinds = [FAMILIES[name] for name in dict.fromkeys(weights.family for weights in found.values())]
    warned = _warnings(rows)
    if options.as_json:
        family_names = ", ".join(kind.name for kind in kinds)
        summary: dict[str, object] = {
            "checkpoint": str(options.output),
            "machine": machine.name,
            "family": family_names,
        }
        if reached is not None:
            summary |= vars(reached)
        print_json({**summary, "layers": rows, "warnings": warned, "left_out": notes})
        return
    print_layers(rows, with_bits=options.weight_bits is not None or options.rank_bits is not None)
    for text in (*warned, *notes):
        say(text)
    if reached is not None:
        share = reached.latency_cycles / reached.dense_cycles
        say(f"{reached.latency_cycles:,} cycles, {share:.4f} of the dense model's {reached.dense_cycles:,}")
        energy, dense_energy = 1e-6 * reached.energy_pj, 1e-6 * reached.dense_energy_pj
        say(f"{energy:,.4g} uJ, {energy / dense_energy:.4f} of the dense model's {dense_energy:,.4g}")
        say(f"error of the model's output on the batches, {reached.output_error:.4f} of its norm")
    say(f"{', '.join(kind.label for kind in kinds)}, written to {options.output}")


def _warnings(rows: list[dict[str, object]]) -> list[str]:
    """A sentence for each layer that came out badly, as the Python `convert` has them."""
    from gblr_hw.conversion.in_order.convert_model import badly_told

    errors = {str(row["name"]): float(str(row["relative_error"])) for row in rows}
    return [text for name, error in errors.items() if (text := badly_told(name, error))]
