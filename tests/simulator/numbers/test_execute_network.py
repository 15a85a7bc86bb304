"""Programs of whole networks compute what their networks say: naive programs of random networks, walked instruction by
instruction, against whole-tensor evaluation; and programs that were damaged on purpose, which must not.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings

from gblr_hw.lowering.pipeline import lower
from simulator.base.errors import InputError
from simulator.calibration.calibrate_network import calibrate_network
from simulator.machine.machine import Machine
from simulator.network.evaluate_network import evaluate_network
from simulator.network.network import Network
from simulator.network.vector_steps import Step
from simulator.numbers.execute_network import execute_network
from simulator.numbers.vector_regions import VectorOperator, VectorPass
from simulator.program.operations import Op
from simulator.program.program import Program
from tests.drawn.drawn_networks import all_outputs, drawn_inputs, drawn_network, lowered, square_machine
from tests.drawn.random_programs import generator, seeds
from tests.drawn.small_networks import Sketch
from tests.drawn.strategies import FAMILIES, as_stored, gblr_weights, layer_weights, matrix_and_bias
from tests.oracles.naive_network_program import naive_program


def drawn(seed: int) -> tuple[Machine, Sketch, Network, dict[str, np.ndarray]]:
    rng = generator(seed)
    machine = square_machine(rng)
    made = drawn_network(rng, machine.cols)
    return machine, made, all_outputs(made), drawn_inputs(made)


@settings(max_examples=150)
@given(seeds)
def test_float_equals_whole_tensor_evaluation(seed):
    machine, made, network, inputs = drawn(seed)
    program = lowered(made, network, machine, single_groups=seed % 2 == 0)
    expected = evaluate_network(network, made.apply, inputs)
    result = execute_network(program, inputs)
    for name in expected:
        assert np.isfinite(expected[name]).all()
        np.testing.assert_allclose(result[name], expected[name], rtol=1e-9, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "conv"])
def test_linears_of_every_family(family):
    """REDUCE and EXPAND tiles, rank memory and its divisors, in both modes; two layers share the memories."""
    for seed in range(12):
        rng = generator(seed)
        machine = square_machine(rng)
        first = layer_weights(rng, machine, family)
        made = Sketch(rng)
        made.input("x", 2, 5, 1, first.in_features)
        made.linear("one", "x", first.out_features)
        made.vector("relu", ["one.out"], [Step("relu", (0,))], 1, first.out_features)
        made.linear("two", "relu.out", first.in_features)
        weights = {"one": first, "two": gblr_weights(rng, first.out_features, first.in_features)}
        made.weights.update({name: matrix_and_bias(layer) for name, layer in weights.items()})
        network, inputs = made.network("two.out"), drawn_inputs(made)
        program = naive_program(network, machine, _schedules(weights, machine, rng))
        expected = evaluate_network(network, made.apply, inputs)["two.out"]
        scale = np.abs(expected).max(initial=1e-30)
        assert np.abs(execute_network(program, inputs)["two.out"] - expected).max() <= 1e-5 * scale
        calibration = calibrate_network(network, made.apply, [inputs])
        program = naive_program(calibration.network, machine, _schedules(weights, machine, rng, calibration.rows))
        codes = execute_network(_without_layer_steps(program), inputs, "int8")["two.out"]
        assert np.sqrt(np.mean((codes - expected) ** 2)) <= 0.1 * scale


def _schedules(weights, machine, rng, rows=None) -> dict:
    program = as_stored(weights, machine, 5, rng) if rows is None else lower(weights, machine, 5, calibration=rows)
    return {layer.name: layer for layer in program.layers}


def _without_layer_steps(program: Program) -> Program:
    """Input and output steps as the network has them, not as the single layers."""
    layers = (
        replace(layer, payload=replace(layer.payload, input_step=0.0, output_step=0.0)) for layer in program.layers
    )
    return replace(program, layers=tuple(layers))


# ---- int8


def quantised(made: Sketch):
    """y = W x + b with each row of W at 127 codes."""

    def apply(name: str, rows: np.ndarray) -> np.ndarray:
        matrix, bias = made.weights[name]
        largest = np.abs(matrix.astype(np.float32)).max(axis=1, keepdims=True).astype(float)
        step = np.where(largest > 0, largest / 127, 1.0)
        return rows @ (np.rint(matrix / step) * step).T + bias

    return apply


@settings(max_examples=100)
@given(seeds)
def test_int8_is_half_a_step_from_exact_in_every_operator(seed):
    """Each operator, given the codes that the program stored before it, is within half a step of its exact value; a
    bias counts in parts of an accumulator step, and requantisation has 26 bits.
    """
    machine, made, network, inputs = drawn(seed)
    program = lowered(made, network, machine, single_groups=seed % 2 == 0)
    network = calibrate_network(network, quantised(made), [inputs]).network
    program = replace(program, network=network)
    codes = execute_network(program, inputs, "int8")

    def keep(name: str, values: np.ndarray) -> np.ndarray:
        step = network.tensors[name].step
        if name not in codes:
            return values if step == 0 else np.clip(np.rint(values / step), -127, 127) * step
        reach = np.clip(values, -127 * step, 127 * step)
        operator = network.operators[network.writer[name]]
        slack = 0.0
        if operator.kind == "linear":
            row_step = program.layers[network.writer[name]].payload.row_step.max()
            slack = 0.5 * row_step * network.tensors[operator.operands[0].tensor].step
        assert (np.abs(codes[name] - reach) <= 0.50001 * step + slack).all(), name
        return codes[name]

    evaluate_network(network, quantised(made), inputs, keep=keep)


def test_int8_of_whole_networks_is_near_float():
    """Stated bound: root mean square error below a tenth of the largest output, calibrated on the same inputs, median
    over networks below 2 %.
    """
    errors = []
    for seed in range(60):
        machine, made, network, inputs = drawn(seed)
        program = lowered(made, network, machine)
        calibrated = calibrate_network(network, made.apply, [inputs]).network
        last = made.operators[-1].output
        expected = execute_network(program, inputs)[last]
        result = execute_network(replace(program, network=calibrated), inputs, "int8")[last]
        errors.append(np.sqrt(np.mean((result - expected) ** 2)) / max(np.abs(expected).max(), 1e-30))
    assert max(errors) < 0.1
    assert np.median(errors) < 0.02


@pytest.mark.parametrize("bits", [16, 24])
def test_sums_with_a_bias_saturate_at_the_accumulator(bits):
    """One product of 127 x 127 and a bias that leaves the range of 16 bits, worked out in integers."""
    made = Sketch(generator(1))
    machine = square_machine(made.rng)
    machine = machine.with_(datatypes={"accumulator_bits": bits})
    made.input("x", 1, 1, 1, 1, step=1 / 127)
    made.linear("l", "x", 1, step=4 / 127)
    made.weights["l"] = (np.ones((1, 1)), np.array([3.0]))
    program = lowered(made, made.network("l.out"), machine)
    # The accumulator counts in 1 / 127^2: 127 x 127 + 3 x 127^2 = 64516.
    codes = min(64516, 2 ** (bits - 1) - 1) / 127**2 / (4 / 127)
    result = execute_network(program, {"x": np.ones((1, 1, 1, 1))}, "int8")["l.out"]
    assert float(result[0, 0, 0, 0]) == pytest.approx(np.floor(codes + 0.5) * 4 / 127, rel=1e-6)


def test_rows_of_tables_stay_what_they_are_in_int8():
    made = Sketch(generator(1))
    index = made.input("i", 1, 3, 1, 1, index=True)
    table = made.constant("table", np.linspace(-1, 1, 400)[None, :, None, None], step=1 / 127)
    row = made.whole(table, tokens=3, access="gather", indices=index)
    made.vector("v", [row], [Step("copy", (0,))], 1, 1, step=1 / 127)
    program = lowered(made, made.network("v.out"), square_machine(made.rng))
    found = execute_network(program, {"i": np.array([399, 200, 5])[None, :, None, None]}, "int8")["v.out"]
    expected = np.rint(np.linspace(-1, 1, 400)[[399, 200, 5]] * 127) / 127
    np.testing.assert_allclose(found[0, :, 0, 0], expected, rtol=1e-12)


def test_lanes_without_a_channel_hold_zeros():
    made = Sketch(generator(1))
    made.input("x", 1, 2, 2, 3)
    made.vector("v", ["x"], [Step("copy", (0,))], 2, 3, padded=True)
    vector = VectorOperator(made.network("v.out"), made.operators[0], 4)
    scratchpad = np.full(40, np.nan)
    vector.write(scratchpad, VectorPass(np.arange(2), -1, 2, (0, -1), 4), np.arange(1.0, 13).reshape(2, 2, 3))
    written = scratchpad[4:20].reshape(2, 2, 4)  # chunk, row, lane
    np.testing.assert_array_equal(written[..., 3], 0)
    np.testing.assert_array_equal(written[1, 0, :3], [4, 5, 6])
    assert np.isnan(scratchpad[[*range(4), *range(20, 40)]]).all()


# ---- damaged programs


def mixed_case() -> tuple[Program, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """A program with every operation but REDUCE and EXPAND; all results are compared."""
    rng = generator(3)
    machine = square_machine(rng)
    made = Sketch(rng)
    width = machine.cols + 1
    made.input("x", 2, 5, 2, width, padded=True)
    made.linear("q", "x", 4 * width, 4, padded=True)
    made.linear("k", "x", 2 * width, 2)
    made.scores("s", "q.out", "k.out", padded=True)
    made.vector("p", ["s.out"], [Step("softmax", (0,))], 4, 5, padded=True)
    made.mix("m", "p.out", "k.out", padded=True)
    made.vector("add", ["m.out", "q.out"], [Step("add", (0, 1))], 4, width, padded=True)
    network, inputs = all_outputs(made), drawn_inputs(made)
    program = lowered(made, network, machine)
    return program, inputs, execute_network(program, inputs)


def differ(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> bool:
    return any(not np.array_equal(first[name], second[name]) for name in first)


def changed(program: Program, at: int, **columns: int) -> Program:
    ins = program.instructions
    arrays = {name: getattr(ins, name).copy() for name in columns}
    for name, value in columns.items():
        arrays[name][at] = value
    return replace(program, instructions=replace(ins, **arrays))


ADDRESSES = [
    (Op.LOAD_INPUT, "dst"), (Op.DENSE, "src"), (Op.DENSE, "dst"), (Op.DRAIN, "src"), (Op.DRAIN, "dst"),
    (Op.VECTOR, "src"), (Op.VECTOR, "other"), (Op.VECTOR, "dst"), (Op.STORE, "src"),
]  # fmt: skip


@pytest.mark.parametrize(("op", "column"), ADDRESSES, ids=lambda x: str(getattr(x, "name", x)))
def test_a_wrong_address_gives_wrong_numbers(op, column):
    program, inputs, expected = mixed_case()
    ins, rng = program.instructions, generator(0)
    places = np.flatnonzero((ins.op == op) & (getattr(ins, column) >= 0))
    assert len(places)
    for at in rng.choice(places, min(12, len(places)), replace=False):
        for by in (1, program.machine.cols):
            damaged = changed(program, int(at), **{column: int(getattr(ins, column)[at]) + by})
            assert differ(execute_network(damaged, inputs), expected), (at, by)


@pytest.mark.parametrize("op", [Op.LOAD_PARAMETERS, Op.LOAD_INPUT, Op.DENSE, Op.DRAIN, Op.VECTOR, Op.STORE])
def test_a_missing_instruction_gives_wrong_numbers(op):
    program, inputs, expected = mixed_case()
    order, rng = np.arange(len(program.instructions)), generator(0)
    places = np.flatnonzero(program.instructions.op == op)
    for at in rng.choice(places, min(12, len(places)), replace=False):
        for mode in ("float", "int8") if op == Op.STORE else ("float",):
            damaged, reference = program, expected
            if mode == "int8":
                network = replace(
                    program.network, tensors={n: replace(t, step=0.05) for n, t in program.network.tensors.items()}
                )
                damaged = replace(program, network=network)
                reference = execute_network(damaged, inputs, "int8")
            assert differ(execute_network(damaged, inputs, mode, order=np.delete(order, at)), reference), (at, mode)


def test_other_damage_gives_wrong_numbers():
    """A flipped accumulate, a tile of other weights or of another sequence, rows or chunks that are others'."""
    program, inputs, expected = mixed_case()
    ins = program.instructions
    last = int(ins.op.tolist().index(Op.STORE))
    dense = int(np.flatnonzero((ins.op == Op.DENSE) & (ins.accumulate == 1))[0])
    load = int(np.flatnonzero(ins.op == Op.LOAD_WEIGHTS)[0])
    scores = [operator.kind for operator in program.network.operators].index("scores")
    second = int(np.flatnonzero((ins.op == Op.LOAD_WEIGHTS) & (ins.layer == scores) & (ins.token0 >= 5))[0])
    vector = int(np.flatnonzero(ins.op == Op.VECTOR)[-1])
    overlap = int(np.flatnonzero((ins.op == Op.LOAD_INPUT) & (ins.tile == 1))[-1])
    damages = [
        (dense, {"accumulate": 0}),
        (load, {"tile": int(ins.tile[load]) + 1}),
        (second, {"token0": 0}),
        (last, {"chunk": int(ins.chunk[last]) + 1}),
        (last, {"token0": 5}),  # the other sequence's rows
        (vector, {"other": int(ins.src[vector])}),
        (overlap, {"dst": int(ins.dst[overlap - 1])}),
    ]
    for at, columns in damages:
        damaged = changed(program, at, **columns)
        assert differ(execute_network(damaged, inputs), expected), (at, columns)


# ---- messages


def small_case() -> tuple[Sketch, Program]:
    made = Sketch(generator(1))
    machine = square_machine(made.rng)
    made.input("x", 1, 2, 2, 3)
    made.linear("l", "x", 6, 2)
    made.vector("v", ["l.out"], [Step("relu", (0,))], 2, 3)
    return made, lowered(made, made.network("v.out"), machine)


def refused(program: Program, message: str, mode: str = "float", **fields: object) -> None:
    inputs = {"x": np.ones((1, 2, 2, 3))}
    with pytest.raises(InputError) as error:
        execute_network(program, inputs, mode, **fields)  # type: ignore[arg-type]
    assert message in str(error.value)


def with_step(program: Program, **steps: float) -> Program:
    tensors = {n: replace(t, step=steps.get(n.split(".")[0], 0.1)) for n, t in program.network.tensors.items()}
    return replace(program, network=replace(program.network, tensors=tensors))


def test_mode_and_network_and_inputs():
    _, program = small_case()
    refused(program, 'mode: found \'int4\'; it is "float" or "int8"', mode="int4")
    plain = lower({"layer": layer_weights(generator(0), program.machine, "dense")}, program.machine, 2)
    refused(plain, "program: found no network; only the program of a whole network runs")
    with pytest.raises(InputError, match=r"input 'x': found shape \(2, 3\)"):
        execute_network(program, {"x": np.ones((2, 3))})


def test_steps_that_are_missing_or_disagree():
    _, program = small_case()
    refused(program, "tensor 'x': found activation step 0; in int8 every tensor has a step", mode="int8")
    refused(with_step(program, v=np.nan), "tensor 'v.out': found activation step nan", mode="int8")
    layers = (
        replace(program.layers[0], payload=replace(program.layers[0].payload, output_step=0.2)),
        *program.layers[1:],
    )
    refused(
        replace(with_step(program), layers=layers),
        "layer 'l': output step: found 0.2; the network's tensor has step 0.1",
        mode="int8",
    )


def test_parts_share_their_whole_s_step():
    made = Sketch(generator(1))
    made.tensor("whole", 1, 2, 1, 3, step=0.2)
    made.input("x", 1, 2, 1, 3, within=("whole", 0, 0), step=0.1)
    program = lowered(made, made.network("whole"), square_machine(made.rng))
    with pytest.raises(
        InputError, match="tensor 'x': found activation step 0.1; it lies in 'whole', which has step 0.2"
    ):
        execute_network(program, {"x": np.ones((1, 2, 1, 3))}, "int8")


def test_nan_has_no_code():
    made = Sketch(generator(1))
    made.input("x", 1, 2, 1, 3)
    made.vector("v", ["x"], [Step("log", (0,))], 1, 3)
    program = with_step(lowered(made, made.network("v.out"), square_machine(made.rng)))
    values = {"x": -np.ones((1, 2, 1, 3))}
    assert np.isnan(execute_network(program, values)["v.out"]).all()
    with pytest.raises(InputError, match=r"tensor 'v.out': found NaN; codes stand for numbers"):
        execute_network(program, values, "int8")


def test_an_empty_slot_and_a_region_outside():
    _, program = small_case()
    loads = np.flatnonzero(program.instructions.op == Op.LOAD_WEIGHTS)
    order = np.delete(np.arange(len(program.instructions)), loads)
    refused(program, "program: layer 'l': found weight slot 3 is empty; a tile is loaded before it runs", order=order)
    vector = int(np.flatnonzero(program.instructions.op == Op.VECTOR)[0])
    size = program.machine.scratchpad.size_bytes
    refused(changed(program, vector, src=size - program.machine.cols), "operator 'v': found a region of")


def test_half_a_padded_group():
    made = Sketch(generator(1))
    machine = square_machine(made.rng)
    width = machine.cols + 1
    made.input("x", 1, 2, 2, width, padded=True)
    made.vector("v", ["x"], [Step("relu", (0,))], 2, width, padded=True)
    program = lowered(made, made.network("v.out"), machine)
    vector = int(np.flatnonzero(program.instructions.op == Op.VECTOR)[0])
    with pytest.raises(InputError, match="chunks 1 to 2; a VECTOR on padded groups computes whole ones, of 2 chunks"):
        execute_network(changed(program, vector, tile=1, chunk=2), {"x": np.ones((1, 2, 2, width))})


def test_three_operands_outputs_and_tiles_that_do_not_fit():
    _, program = small_case()
    operators = list(program.network.operators)
    three = replace(operators[1], operands=operators[1].operands * 3)
    network = replace(program.network, operators=(operators[0], three))
    refused(replace(program, network=network), "operator 'v': found 3 operands; a VECTOR instruction has one or two")
    wide = program.layers[0]
    payload = replace(wide.payload, bias=np.zeros(99), row_step=np.ones(99))
    layers = (replace(wide, out_features=99, payload=payload, output_order=np.arange(99)), program.layers[1])
    refused(replace(program, layers=layers), "layer 'l': found 99 outputs; its output 'l.out' is stored in")
