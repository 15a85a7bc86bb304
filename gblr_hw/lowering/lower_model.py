"""``lower`` for a whole model: export, example inputs to ports, calibration, program."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from gblr_hw.frontend import export_network
from gblr_hw.frontend.containers import tensors_in
from gblr_hw.frontend.export import Treatment
from gblr_hw.frontend.graph.registry import Lowering
from gblr_hw.lowering.whole_network import lower_network
from simulator.base.errors import InputError
from simulator.machine.machine import Machine
from simulator.network.network import Port
from simulator.program.program import Program


def lower_model(
    model: nn.Module,
    machine: Machine,
    example_inputs: Any = None,
    calibration: Sequence[Any] = (),
    percentile: float | None = None,
    treat: Mapping[str, Treatment] | None = None,
    plugins: Mapping[str, Lowering] | None = None,
    dump: Callable[[str, str], None] | None = None,
    progress: Callable[[int, int, str], None] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    drop_zeros: bool = False,
) -> Program:
    """The program of a model in evaluation mode for inputs of the shapes of ``example_inputs`` (a tensor, a tuple of
    positional or a dict of keyword arguments) and ``kwargs`` (keyword arguments beside them). calibration: batches like
    it (with kwargs: pairs of positional and keyword arguments), from which int8 steps are fitted (with percentile taken
    from magnitudes as they are). drop_zeros: as `lower_network` takes it. Raises InputError for what export, machine or
    calibration cannot take.
    """
    exported = export_network(model, example_inputs, kwargs=kwargs, treat=treat, plugins=plugins)
    ports = exported.network.inputs
    batches = [port_arrays(ports, batch, f"calibration batch {number}") for number, batch in enumerate(calibration)]
    program = lower_network(
        exported.network, exported.weights, machine, batches, percentile, dump, progress, drop_zeros=drop_zeros
    )
    if dump is not None and exported.notes:
        dump("notes", "\n".join(exported.notes) + "\n")
    if exported.treated:
        provenance = {**program.provenance, "treated": "; ".join(exported.treated)}
        program = replace(program, provenance=provenance)
    return program


def port_arrays(ports: Sequence[Port], inputs: Any, where: str = "inputs") -> dict[str, np.ndarray]:
    """A model's inputs as arrays by port name, in the order of the ports. Raises InputError if shapes differ."""
    values = [value.detach().cpu() for _, value in tensors_in(inputs)]
    shapes = [tuple(value.shape) for value in values]
    expected = [port.shape for port in ports]
    if shapes != expected:
        raise InputError(
            where, f"shapes {shapes}", f"the model was exported with {expected}", "Give inputs like those."
        )
    return {
        port.name: value.numpy() if port.dtype == "index" else value.to(torch.float64).numpy()
        for port, value in zip(ports, values, strict=True)
    }
