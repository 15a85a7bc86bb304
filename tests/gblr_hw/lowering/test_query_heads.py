"""Query heads that share keys and values stream as rows of one pass: cheaper where rows are few, and the same numbers."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from gblr_hw import lower
from gblr_hw.lowering.calibration_batches import port_arrays
from gblr_hw.lowering.groups.head_room import HeadRoom, heads_at_once, heads_in_pass, pass_cycles
from gblr_hw.lowering.whole_network import lower_network
from simulator.base.errors import InputError
from simulator.machine.machine import Machine
from simulator.network.evaluate_network import evaluate_network
from simulator.network.network import Network, Operand, Operator, Port, Tensor
from simulator.network.vector_steps import Step
from simulator.numbers.execute_network import execute_network
from simulator.program.isa import Instructions
from simulator.program.operations import Op
from simulator.program.program import Program
from simulator.timing.durations import resolve_timing
from simulator.timing.engine import run_engine
from simulator.timing.reference import run_reference
from simulator.timing.reference_durations import reference_timing
from simulator.timing.simulate import simulate
from tests.oracles.hazards import hazards, orders

_MID = Machine.load("mid-32")


def _machine(side: int) -> Machine:
    """An array of ``side`` x ``side`` with hardly any memory: 64 rows of sums for a side of 4, 16 for one of 16."""
    return _MID.with_(
        name=f"small-{side}",
        array={"rows": side, "cols": side},
        scratchpad={"kib": 16},
        accumulator={"kib": 1},
        weight_buffer={"kib": 1},
        vector={"lanes": side},
    )


def attention(
    heads: int, shared: int, width: int, tokens: int, keys: int, batch: int = 1, step: float = 0.0
) -> Network:
    """Attention of ``tokens`` queries on ``keys`` keys and values, ``shared`` query heads for each of their heads."""

    def tensor(name: str, rows: int, groups: int, size: int, kind: str = "result") -> Tensor:
        return Tensor(name, batch, rows, groups, size, kind, name in ("scores", "softmax"), step=step)  # type: ignore[arg-type]

    tensors = (
        tensor("q", tokens, heads, width, "input"),
        tensor("k", keys, heads // shared, width, "input"),
        tensor("v", keys, heads // shared, width, "input"),
        tensor("scores", tokens, heads, keys),
        tensor("softmax", tokens, heads, keys),
        tensor("mix", tokens, heads, width),
    )
    by_name = {one.name: one for one in tensors}

    def operand(name: str, access: str = "rows") -> Operand:
        one = by_name[name]
        return Operand(name, one.tokens, one.groups, one.width, access=access)  # type: ignore[arg-type]

    operators = (
        Operator("scores", "scores", (operand("q"), operand("k", "weights")), "scores", batch, tokens),
        Operator("softmax", "vector", (operand("scores"),), "softmax", batch, tokens, steps=(Step("softmax", (0,)),)),
        Operator("mix", "mix", (operand("softmax"), operand("v", "weights")), "mix", batch, tokens),
    )

    def port(name: str) -> Port:
        one = by_name[name]
        shape = (batch, one.tokens, one.groups, one.width)
        return Port(name, name, shape, shape, (0, 1, 2, 3))

    return Network(by_name, operators, (port("q"), port("k"), port("v")), (port("mix"),), {})


def _inputs(network: Network) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(7)
    return {port.name: rng.normal(size=port.shape) for port in network.inputs}


def _no_linear(name: str, rows: np.ndarray) -> np.ndarray:
    raise AssertionError(name)


@settings(max_examples=40, deadline=None)
@given(
    side=st.sampled_from([4, 8, 16]),
    per_chunk=st.sampled_from([1, 1, 2, 4]),
    chunks=st.integers(1, 2),
    shared=st.integers(1, 6),
    weights_heads=st.integers(1, 3),
    tokens=st.integers(1, 9),
    keys=st.integers(1, 21),
    batch=st.integers(1, 2),
)
def test_heads_that_share_keys_compute_what_the_graph_says(
    side: int, per_chunk: int, chunks: int, shared: int, weights_heads: int, tokens: int, keys: int, batch: int
) -> None:  # fmt: skip
    width = side // per_chunk if per_chunk > 1 else side * chunks
    network = attention(shared * weights_heads, shared, width, tokens, keys, batch)
    inputs = _inputs(network)
    (want,) = evaluate_network(network, _no_linear, inputs).values()
    machine = _machine(side)
    program = lower_network(network, {}, machine)
    timing = resolve_timing(program, machine)
    events = run_engine(timing)
    slow = run_reference(reference_timing(program, machine))
    np.testing.assert_array_equal(events.done, slow.done)
    assert hazards(program, machine, timing, events) == []
    for order in (None, *orders(timing, events).values()):
        (got,) = execute_network(program, inputs, order=order).values()
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-9)


@pytest.mark.parametrize("width", [5, 6, 12, 20])
@pytest.mark.parametrize("shared", [1, 2, 3])
def test_heads_of_awkward_widths_compute_what_the_graph_says(width: int, shared: int) -> None:
    network = attention(2 * shared, shared, width, 3, 11)
    inputs = _inputs(network)
    (want,) = evaluate_network(network, _no_linear, inputs).values()
    (got,) = execute_network(lower_network(network, {}, _machine(8)), inputs).values()
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("width", "shared"), [(8, 4), (4, 2), (2, 4), (16, 3), (5, 2)])
@pytest.mark.parametrize("tokens", [1, 3])
def test_int8_is_the_same_however_heads_meet_their_tiles(width: int, shared: int, tokens: int) -> None:
    """Sums are whole numbers and do not saturate here: what shares a pass must not show in any code."""
    network = attention(2 * shared, shared, width, tokens, 11)
    inputs = _inputs(network)
    alone = _repeated(network, shared)
    grown = {name: np.repeat(array, shared, axis=2) if name != "q" else array for name, array in inputs.items()}
    machine = _machine(8)
    results = []
    for one, arrays in ((network, inputs), (alone, grown)):
        program = lower_network(one, {}, machine, batches=[arrays])
        results.append(execute_network(program, arrays, "int8")["mix"])
    np.testing.assert_array_equal(*results)


def _repeated(network: Network, shared: int) -> Network:
    """The same attention with keys and values copied for every query head."""
    q, k = network.tensors["q"], network.tensors["k"]
    return attention(q.groups, 1, q.width, q.tokens, k.tokens, q.batch)


@pytest.mark.parametrize("machine", ["edge-16", "mid-32", "cloud-128"])
@pytest.mark.parametrize("width", [64, 128])
def test_a_tile_is_preloaded_once_for_the_heads_that_share_it(machine: str, width: int) -> None:
    """One new token after 1,024: 4 query heads a key head run in a third of the cycles of 1, and 4 times fewer bytes.

    Closed form: every tile is one pass, P cycles of the array apart, or as far as the channel brings them.
    """
    model = Machine.load(machine)
    reports = [simulate(lower_network(attention(32, n, width, 1, 1024), {}, model), model) for n in (1, 4)]
    alone, shared = (report.latency_cycles for report in reports)
    assert alone > 3 * shared
    tiles = 2 * 8 * 1024 * width // model.rows**2 * max(1, model.rows // width)
    bound = max(tiles * model.rows, 2 * 8 * 1024 * width * 1000 / model.dram_bytes_per_kilocycle)
    assert bound <= shared < 1.1 * bound
    burst = max(model.rows, model.dram.burst_bytes)  # a chunk of queries or of results, one row of it
    keys_and_values = [report.dram_bytes - 2 * 32 * width // model.rows * burst for report in reports]
    assert keys_and_values[1] == 2 * 8 * 1024 * width
    assert keys_and_values[0] == 4 * keys_and_values[1]


@pytest.mark.parametrize("machine", ["edge-16", "mid-32", "cloud-128"])
@pytest.mark.parametrize("width", [64, 128])
def test_long_prompts_are_hardly_dearer_with_shared_keys(machine: str, width: int) -> None:
    model = Machine.load(machine)
    cycles = [
        simulate(lower_network(attention(8, n, width, 256, 256), {}, model), model).latency_cycles for n in (1, 4)
    ]
    assert cycles[1] <= 1.1 * cycles[0]


@given(
    shared=st.integers(1, 12),
    of_chunk=st.sampled_from([1, 2, 4]),
    rows=st.integers(1, 40),
    buffers=st.integers(2, 64),
    side=st.sampled_from([4, 16, 32]),
)
def test_heads_in_a_pass_have_sums_and_are_worth_it(
    shared: int, of_chunk: int, rows: int, buffers: int, side: int
) -> None:
    shared, room = shared * of_chunk, HeadRoom(rows, max(buffers, 2 * of_chunk))
    at_once, in_pass = heads_at_once(shared, of_chunk, room), heads_in_pass(shared, of_chunk, room, side)
    assert 1 <= in_pass <= at_once <= shared
    assert 2 * at_once <= room.accumulators
    assert at_once % of_chunk == 0
    assert in_pass % of_chunk == 0 or of_chunk % in_pass == 0
    assert (in_pass - 1) * rows < side
    passes = [
        min(in_pass, last - q)
        for first in range(0, shared, at_once)
        for last in [min(shared, first + at_once)]
        for q in range(first, last, in_pass)
    ]
    assert sum(passes) == shared
    assert pass_cycles(shared, of_chunk, room, side) == sum(max(heads * rows, side) for heads in passes)


def _changed(program: Program, at: int, **values: int) -> Program:
    columns = {name: np.array(getattr(program.instructions, name)) for name in ("other", "src", "tokens")}
    for name, value in values.items():
        columns[name][at] = value
    rest = {f: getattr(program.instructions, f) for f in Instructions.__dataclass_fields__ if f not in columns}
    return replace(program, instructions=Instructions(**columns, **rest))


def test_rows_of_heads_that_do_not_belong_together_are_refused() -> None:
    program = lower_network(attention(8, 4, 4, 2, 11), {}, _machine(8))
    ins = program.instructions
    tile = int(np.flatnonzero((ins.op == Op.DENSE) & (ins.other > 0))[0])
    drain = int(np.flatnonzero((ins.op == Op.DRAIN) & (ins.other > 0))[0])
    store = int(np.flatnonzero(ins.op == Op.STORE)[0])
    assert (ins.tokens[tile], ins.other[tile]) == (8, 2)
    for at, values, message in (
        (tile, {"tokens": 7}, "field 'other': found 2; its rows are those of query heads that share a tile"),
        (tile, {"other": 1}, "field 'other': found 1; its rows are those of query heads that share a tile"),
        (tile, {"other": 0}, "field 'other': found 0; a query head has at least one row"),
        (tile, {"src": 16 * 1024 - 8}, "rows of all its heads lie in the scratchpad of 16384 bytes"),
        (drain, {"other": 1}, "field 'other': found 1; heads of one chunk have sums of their own"),
        (drain, {"src": 30}, "field 'other': found 2; there are 32 rows of sums"),
        (store, {"other": 2}, "only tiles and drains have rows of each query head"),
    ):
        with pytest.raises(InputError, match=message):
            _changed(program, at, **values)


@pytest.mark.parametrize("machine", [pytest.param("mid-32", marks=pytest.mark.night), "cloud-128", "small"])
@pytest.mark.parametrize(("heads", "shared", "width"), [(4, 2, 8), (8, 4, 16), (6, 3, 32), (4, 4, 32)])
def test_llama_with_shared_keys_and_a_cache_computes_what_torch_does(
    heads: int, shared: int, width: int, machine: str
) -> None:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        hidden_size=heads * width, intermediate_size=40, num_hidden_layers=2, num_attention_heads=heads,
        num_key_value_heads=heads // shared, vocab_size=31, max_position_embeddings=64, bos_token_id=None,
        eos_token_id=None,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config).eval()
    first, second = torch.randint(0, 31, (2, 37)), torch.randint(0, 31, (2, 1))
    with torch.no_grad():
        cache = model(first).past_key_values
        kwargs = {"past_key_values": copy.deepcopy(cache)}
        call = ((second,), kwargs)
        program = lower(
            model, _machine(8) if machine == "small" else Machine.load(machine), example_inputs=(second,),
            kwargs=kwargs, calibration=[call],
        )  # fmt: skip
        wanted = model(second, past_key_values=copy.deepcopy(cache)).logits.numpy()
    assert program.network is not None
    together = width % program.machine.rows == 0 or shared * width % program.machine.rows == 0
    assert (program.instructions.other[program.instructions.op == Op.DENSE] > 0).any() == together
    arrays = port_arrays(program.network.inputs, call)  # type: ignore[arg-type]
    np.testing.assert_allclose(execute_network(program, arrays)["logits"], wanted, rtol=0, atol=1e-5)
    codes = execute_network(program, arrays, "int8")["logits"]
    assert np.sum(codes * wanted) > 0.99 * np.linalg.norm(codes) * np.linalg.norm(wanted)
