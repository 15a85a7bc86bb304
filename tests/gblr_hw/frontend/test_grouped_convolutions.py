"""Grouped and depthwise convolutions: what is useful is what the flop counter counts, and zeros are not stored."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from gblr_hw import lower
from gblr_hw.frontend import export_network, multiplications_of, spent_multiplications
from gblr_hw.lowering.calibration_batches import port_arrays
from gblr_hw.lowering.whole_network import lower_network
from gblr_hw.weights.factors import evaluate
from gblr_hw.weights.scaled_weights import scaled_outputs, scaled_weights
from gblr_hw.weights.stored import GroupedWeights
from simulator.base.errors import InputError
from simulator.machine.machine import Machine
from simulator.numbers.execute_network import execute_network
from simulator.program.isa import Op
from simulator.program.program import Program
from simulator.timing.simulate import simulate
from tests.drawn.frontend_models import check, outputs_of, settled
from tests.gblr_hw.lowering.test_model_programs import MACHINES

SIZES = {
    "depthwise": (12, 12, 3, 12),
    "with_a_multiplier": (6, 12, 3, 6),
    "in_four": (16, 24, 3, 4),
    "wide": (96, 96, 5, 96),
    "wide_in_pairs": (96, 96, 5, 48),
    "pointwise_in_two": (12, 6, 1, 2),
}


def built(name: str) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    inputs, outputs, kernel, groups = SIZES[name]
    torch.manual_seed(0)
    convolution = nn.Conv2d(inputs, outputs, kernel, 1, kernel // 2, groups=groups)
    model = nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(), nn.Conv2d(outputs, 5, 1))
    return settled(model, (torch.randn(2, inputs, 6, 5),))


@pytest.mark.parametrize("name", SIZES)
def test_useful_multiplications_are_half_of_what_the_flop_counter_counts(name: str) -> None:
    model, inputs = built(name)
    exported = check(model, inputs, 1e-6)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(*inputs)
    useful = sum(multiplications_of(exported.network, exported.weights).values())
    assert 2 * useful == counter.get_total_flops()
    program = lower_network(exported.network, exported.weights, MACHINES["mid-32"])
    assert (
        sum(layer.multiplications * rows for layer, rows in zip(program.layers, _rows(program), strict=True)) == useful
    )
    assert spent_multiplications(program) >= useful
    report = simulate(program, MACHINES["mid-32"])
    assert sum(layer.multiplications * layer.tokens for layer in report.layers) == useful


def _rows(program: Program) -> list[int]:
    assert program.network is not None
    return [operator.rows for operator in program.network.operators]


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("name", SIZES)
def test_a_program_computes_what_torch_does(name: str, machine: str, tmp_path) -> None:
    model, inputs = built(name)
    program = lower(model, MACHINES[machine], example_inputs=inputs, calibration=[inputs])
    program.save(tmp_path / "a.program")
    for one in (program, Program.load(tmp_path / "a.program")):
        arrays = port_arrays(one.network.inputs, inputs)  # type: ignore[union-attr]
        (found,) = execute_network(one, arrays).values()
        (wanted,) = outputs_of(model, inputs)
        np.testing.assert_allclose(found, wanted, atol=1e-5 * np.abs(wanted).max())
        (codes,) = execute_network(one, arrays, "int8").values()
        assert np.abs(codes - wanted).max() < 0.1 * np.abs(wanted).max()


def test_only_blocks_are_stored_and_only_tiles_that_they_touch() -> None:
    model, inputs = built("wide_in_pairs")
    program = lower(model, MACHINES["mid-32"], example_inputs=inputs)
    layer = program.layers[0]
    # 96 channels are 3 chunks; each of 25 kernel places meets each chunk once. 25 x 96 lanes of 2 weights.
    assert len(layer.tiles) == 25 * 3
    assert len(layer.payload.values) == 25 * 96 * 2
    sizes = layer.tiles.record_bytes(program.machine)
    assert int(sizes.sum()) == 8 * 75 + 4 * 2400 + 2 * 2400
    assert not layer.tiles.is_whole.any() and program.layers[-1].tiles.is_whole.all()
    loads = program.instructions.op == Op.LOAD_WEIGHTS
    first = loads & (program.instructions.layer == 0)
    assert set(program.instructions.dram_bytes[first].tolist()) <= set(sizes.tolist())


def test_a_large_depthwise_layer_is_no_longer_refused() -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(1200, 1200, 5, padding=2, groups=1200).eval()
    exported = export_network(layer, torch.randn(1, 1200, 2, 2))
    assert sum(multiplications_of(exported.network, exported.weights).values()) == 4 * 25 * 1200
    with pytest.raises(InputError, match="laid out as one block-diagonal matrix of at most 268435456 entries"):
        export_network(nn.Conv2d(8192, 8192, 3, groups=4096).eval(), torch.randn(1, 8192, 3, 3))


def test_scales_meet_their_inputs_and_outputs() -> None:
    torch.manual_seed(0)
    weights = GroupedWeights(torch.randn(6, 2, 3, 2), 3, torch.randn(6))
    matrix = evaluate(weights).matrix()
    rng = np.random.default_rng(0)
    columns, rows = rng.uniform(0.5, 2, weights.in_features), rng.uniform(0.5, 2, 6)
    scaled = evaluate(scaled_weights(weights, columns, rows))
    np.testing.assert_allclose(scaled.matrix(), matrix * columns * rows[:, None], rtol=1e-6, atol=1e-6)
    again = scaled_outputs(weights, torch.from_numpy(rows))
    np.testing.assert_allclose(again.bias.numpy(), weights.bias.numpy() * rows, rtol=1e-6)  # type: ignore[union-attr]
    with pytest.raises(InputError, match="groups: found 4; they divide the 6 outputs"):
        GroupedWeights(torch.randn(6, 2, 3, 3), 4)


ZEROS = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.Linear(64, 3)).eval()


def test_zero_weights_cost_what_others_do_unless_the_user_says_so() -> None:
    torch.manual_seed(0)
    inputs = (torch.randn(8, 64),)
    machine = Machine.load("mid-32")
    exported = export_network(ZEROS, inputs)
    full = lower_network(exported.network, exported.weights, machine)
    with torch.no_grad():
        for module in (ZEROS[0], ZEROS[2]):
            module.weight.zero_()
    exported = export_network(ZEROS, inputs)
    empty = lower_network(exported.network, exported.weights, machine)
    assert simulate(empty, machine).latency_cycles == simulate(full, machine).latency_cycles
    assert [layer.multiplications for layer in empty.layers] == [layer.multiplications for layer in full.layers]
    assert "dropped" not in empty.provenance
    dropped = lower_network(exported.network, exported.weights, machine, drop_zeros=True)
    assert dropped.provenance["dropped"] == "0: 4 of 4 tiles; 2: 4 of 4 tiles"
    assert simulate(dropped, machine).latency_cycles < simulate(full, machine).latency_cycles
    (found,) = execute_network(empty, port_arrays(empty.network.inputs, inputs)).values()  # type: ignore[union-attr]
    np.testing.assert_allclose(found, outputs_of(ZEROS, inputs)[0], rtol=1e-5, atol=1e-6)
