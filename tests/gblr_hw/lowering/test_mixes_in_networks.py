"""Chains of ranks as linear operators of a network: in both modes, with and without calibration, free of hazards."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from gblr_hw import MonarchLinear, lower
from gblr_hw.frontend import export_network
from gblr_hw.lowering.whole_network import lower_network
from gblr_hw.weights.factors import Factors
from simulator import InputError, Machine
from simulator.numbers.execute_network import execute_network
from simulator.program.operations import Op
from simulator.timing.durations import resolve_timing
from simulator.timing.engine import run_engine
from tests.drawn.mixed_layers import as_chain, blast_factors, matrix_and_bias
from tests.drawn.random_programs import generator
from tests.oracles.hazards import hazards

SMALL = Machine.load("edge-16").with_(name="small", array={"rows": 8, "cols": 8}, rank_memory={"banks": 16})


def two_layers() -> tuple[nn.Sequential, dict[str, Factors]]:
    """Two BLAST layers with a ReLU between them, as a model of dense ones; the first has its outputs in another order."""
    rng = generator(5)
    factors = {"0": blast_factors(rng, 32, 64, 4, 8), "2": blast_factors(rng, 64, 32, 2, 8)}
    factors["0"] = replace(factors["0"], output_order=rng.permutation(64))
    model = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 32)).eval()
    for name, one in factors.items():
        matrix, bias = matrix_and_bias(one)
        layer = model[int(name)]
        layer.weight.data, layer.bias.data = torch.from_numpy(matrix).float(), torch.from_numpy(bias).float()
    return model, factors


@pytest.mark.parametrize("mode", ["float", "int8"])
def test_chains_in_a_network(mode):
    model, factors = two_layers()
    x = torch.from_numpy(generator(6).normal(size=(9, 32))).float()
    exported = export_network(model, x)
    network, weights = exported.network, exported.weights
    expected = model(x).detach().numpy()
    seen = []

    def as_chains(name, held, machine, tokens, examples, steps=None, keep_zeros=False):
        seen.append(name)
        return as_chain(factors[name].in_natural_order(), machine, tokens, None, name, examples, steps)

    port = network.inputs[0].name
    batches = [{port: x.numpy()}] if mode == "int8" else []
    program = lower_network(network, weights, SMALL, batches, lower_linear=as_chains)
    assert len(seen) == 2 and (program.instructions.op == Op.MIX).any()
    result = execute_network(program, {port: x.numpy()}, mode)[network.outputs[0].name]
    error = np.sqrt(np.mean((result - expected) ** 2)) / np.sqrt(np.mean(expected**2))
    assert error <= (1e-5 if mode == "float" else 0.06)
    timing = resolve_timing(program, SMALL)
    assert hazards(program, SMALL, timing, run_engine(timing)) == []


def test_outputs_of_an_operator_are_in_order():
    model, factors = two_layers()
    exported = export_network(model, torch.zeros(9, 32))
    network, weights = exported.network, exported.weights

    def out_of_order(name, held, machine, tokens, examples, steps=None, keep_zeros=False):
        return as_chain(factors[name], machine, tokens, None, name)

    with pytest.raises(
        InputError, match="'output_order': found outputs in another order; in a network they are in the"
    ):
        lower_network(network, weights, SMALL, lower_linear=out_of_order)


@pytest.mark.parametrize("sizes", [(96, 192, 4, 24), (195, 260, 5, 25)])
def test_a_network_of_one_layer_takes_the_block_that_runs_fastest(sizes):
    """By estimated cost it is half as large, and the layer takes 8 % longer than in a checkpoint."""
    torch.manual_seed(3)
    *shape, values = sizes
    layer, machine = MonarchLinear(*shape, values=values).eval(), Machine.load("edge-16")
    x = torch.randn(197, sizes[0])
    program, alone = lower(layer, machine, example_inputs=(x,)), lower({"q": layer.weights()}, machine, 197)
    assert program.layers[0].block_tokens == alone.layers[0].block_tokens == 197
    cycles = [int(run_engine(resolve_timing(one, machine)).done.max()) for one in (program, alone)]
    assert cycles[0] <= 1.05 * cycles[1]
    (found,) = execute_network(program, {program.network.inputs[0].name: x.numpy()}).values()
    assert np.allclose(found, layer(x).detach(), atol=1e-5)
