"""``lower`` for a whole model: export, example inputs to ports, calibration, program."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from torch import nn

from gblr_hw.frontend import export_network
from gblr_hw.frontend.export import Treatment
from gblr_hw.frontend.graph.registry import Lowering
from gblr_hw.lowering.calibration_batches import calibration_arrays
from gblr_hw.lowering.lower_layer import lower_operator
from gblr_hw.lowering.quantise.tile_bits import narrow_kinds
from gblr_hw.lowering.whole_network import lower_network
from simulator.machine.machine import Machine
from simulator.program.program import Program


def lower_model(
    model: nn.Module,
    machine: Machine,
    example_inputs: Any = None,
    calibration: Iterable[Any] | None = None,
    percentile: float | None = None,
    treat: Mapping[str, Treatment] | None = None,
    plugins: Mapping[str, Lowering] | None = None,
    dump: Callable[[str, str], None] | None = None,
    progress: Callable[[int, int, str], None] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    drop_zeros: bool = False,
    by_example: bool = False,
    weight_bits: int | Mapping[str, int] | None = None,
) -> Program:
    """The program of a model in evaluation mode for inputs of the shapes of ``example_inputs`` and ``kwargs``, as
    `gblr_hw.lowering.pipeline.lower` describes them.

    calibration: batches (with both kinds of arguments: pairs of positional and keyword arguments), from which int8
    steps are fitted; with ``percentile`` they are taken from magnitudes as they are. drop_zeros: as `lower_network`
    takes it; by_example: as `export_network` does; weight_bits: as `narrow_kinds` takes them. Raises InputError for
    what export, machine or calibration cannot take.
    """
    exported = export_network(model, example_inputs, kwargs=kwargs, treat=treat, plugins=plugins, by_example=by_example)
    batches = [] if calibration is None else calibration_arrays(exported.network.inputs, calibration)
    narrow = narrow_kinds(weight_bits, machine)
    program = lower_network(
        exported.network, exported.weights, machine, batches, percentile, dump, progress,
        lower_linear=partial(lower_operator, narrow=narrow), drop_zeros=drop_zeros, narrow=narrow,
    )  # fmt: skip
    if dump is not None and exported.notes:
        dump("notes", "\n".join(exported.notes) + "\n")
    said = {"treated": exported.treated, "decided": exported.decided}
    told = {key: "; ".join(lines) for key, lines in said.items() if lines}
    if told:
        program = replace(program, provenance={**program.provenance, **told})
    return program
