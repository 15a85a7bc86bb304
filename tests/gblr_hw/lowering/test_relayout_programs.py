"""Copies into other axes as instructions: programs compute what torch does, and pay for what they move."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

from gblr_hw.frontend import ExportedNetwork, export_network
from gblr_hw.lowering.calibration_batches import port_arrays
from gblr_hw.lowering.whole_network import lower_network
from simulator.machine.machine import Machine
from simulator.network.strided_bytes import strided_bytes
from simulator.numbers.execute_network import execute_network
from simulator.program.isa import Op
from simulator.program.program import Program
from simulator.timing.durations import resolve_timing
from simulator.timing.engine import run_engine
from simulator.timing.simulate import simulate
from tests.drawn.frontend_models import outputs_of, settled
from tests.drawn.relayout_models import CASES
from tests.gblr_hw.lowering.test_model_programs import MACHINES
from tests.oracles.hazards import orders
from tests.oracles.naive_network_program import naive_program


@cache
def exported(name: str) -> tuple[ExportedNetwork, torch.nn.Module, tuple[torch.Tensor, ...]]:
    torch.manual_seed(0)
    model, inputs = settled(*CASES[name]())
    return export_network(model, inputs), model, inputs


def agrees(program: Program, name: str, order: np.ndarray | None = None) -> None:
    _, model, inputs = exported(name)
    assert program.network is not None
    found = execute_network(program, port_arrays(program.network.inputs, inputs), order=order)
    for got, want in zip(found.values(), outputs_of(model, inputs), strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * np.abs(want).max())


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("name", CASES)
def test_a_program_computes_what_torch_does(name: str, machine: str) -> None:
    graph = exported(name)[0]
    program = lower_network(graph.network, graph.weights, MACHINES[machine])
    timing = resolve_timing(program, program.machine)
    for order in (None, *orders(timing, run_engine(timing)).values()):
        agrees(program, name, order)


@pytest.mark.parametrize("name", ["shifted_windows", "square_product", "flipped_tokens", "one_sequence_for_all"])
def test_a_naive_program_computes_the_same(name: str) -> None:
    graph, machine = exported(name)[0], MACHINES["tight-8"].with_(scratchpad={"kib": 256})
    lowered = lower_network(graph.network, graph.weights, machine)
    linears = {layer.name: layer for layer in lowered.layers}
    agrees(naive_program(graph.network, machine, linears), name)


def test_a_copy_moves_the_bytes_of_its_runs_and_a_program_survives_its_file(tmp_path) -> None:
    graph, machine = exported("space_and_time")[0], Machine.load("mid-32")
    program = lower_network(graph.network, graph.weights, machine)
    program.save(tmp_path / "a.program")
    again = Program.load(tmp_path / "a.program")
    assert simulate(again, machine).latency_cycles == simulate(program, machine).latency_cycles
    ins, network = program.instructions, program.network
    assert network is not None
    copies = 0
    for at in np.flatnonzero(ins.op == Op.LOAD_INPUT):
        operand = network.operators[ins.layer[at]].operands[max(int(ins.tile[at]), 0)]
        if operand.access != "strided":
            continue
        rows = np.arange(ins.token0[at], ins.token0[at] + ins.tokens[at])
        moved = strided_bytes(network, operand, int(ins.chunk[at]), rows, machine.cols, machine.dram.burst_bytes)
        assert ins.dram_bytes[at] == moved >= ins.tokens[at] * min(operand.groups * operand.width, machine.cols)
        copies += 1
    assert copies
