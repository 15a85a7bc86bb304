"""Lowering against its promises: never slower than dense, exact tile counts, banks and groups that the machine can serve."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings

from gblr_hw.lowering.lower_layer import PASSES
from gblr_hw.lowering.passes.colour_banks import colour_banks
from gblr_hw.lowering.passes.plan import LayerPlan
from gblr_hw.lowering.pipeline import lower
from gblr_hw.weights.factors import evaluate
from gblr_hw.weights.from_factors import low_rank_weights
from gblr_hw.weights.stored import DenseWeights, GBLRWeights
from simulator import InputError, Machine, Program, execute, simulate
from simulator.program.operations import Op
from simulator.program.schedule import LayerSchedule
from tests.drawn.strategies import as_stored, generator, layer_weights, placed, seeds, small_machine
from tests.oracles.gblr_embedding import block_sparse_as_gblr


def random_blocks(side: int, blocks: int, mean_width: float, seed: int = 0) -> GBLRWeights:
    torch.manual_seed(seed)
    widths = torch.distributions.Exponential(1 / mean_width).sample((2, blocks)).clamp(0, 1)
    factors = (torch.randn(blocks, 1, side), torch.randn(blocks, side, 1))
    return GBLRWeights(widths, torch.rand(2, blocks), *factors, None, 1.0, False)


def lanes_of(layer: LayerSchedule, tile: int) -> np.ndarray:
    return layer.tiles.lane[layer.tiles.lane_ptr[tile] : layer.tiles.lane_ptr[tile + 1]]


@settings(deadline=None, max_examples=30)
@given(seed=seeds)
def test_never_slower_than_its_own_dense_form(seed: int) -> None:
    rng = generator(seed)
    machine = small_machine(rng)
    weights = layer_weights(rng, machine)
    tokens = int(rng.integers(1, 20))
    try:
        dense = lower({"d": DenseWeights(torch.from_numpy(evaluate(weights).matrix()).float(), None)}, machine, tokens)
    except InputError:
        return
    program = lower({"l": weights}, machine, tokens)
    assert simulate(program, machine).latency_cycles <= simulate(dense, machine).latency_cycles
    assert program.layers[0].multiplications / (machine.rows * machine.cols) <= len(program.layers[0].tiles) + 1e-9


@settings(deadline=None, max_examples=40)
@given(seed=seeds)
def test_tiles_are_those_of_the_lattice_and_fit_the_array(seed: int) -> None:
    rng = generator(seed)
    machine = small_machine(rng)
    weights = layer_weights(rng, machine)
    try:
        plan = placed(weights, machine, 5)
    except InputError:
        return
    layer = as_stored({"l": weights}, machine, 5).layers[0]
    if machine.scatter:
        assert len(layer.tiles) == plan.structure.tile_count(machine.rows, machine.cols)
    for tile in range(len(layer.tiles)):
        ranks, kind = lanes_of(layer, tile), layer.tiles.kind[tile]
        if kind == Op.DENSE:
            continue
        assert len(ranks) <= (machine.cols if kind == Op.REDUCE else machine.rows)
        repeats = np.bincount(layer.rank_bank[ranks]).max()
        assert layer.tiles.row_cycles[tile] == repeats
        if not machine.scatter:
            assert len(set(layer.rank_slot[ranks])) == 1
            assert repeats == 1
            assert layer.rank_bank[ranks].max() < machine.group_size
    if layer.ranks:
        assert (layer.rank_slot.max() + 1) * layer.block_tokens <= machine.rank_rows_per_bank
        places = set(zip(layer.rank_bank.tolist(), layer.rank_slot.tolist(), strict=True))
        assert len(places) == layer.ranks


def test_the_designs_table_on_a_random_layer() -> None:
    """Packing by chunk needs 0.41 of the dense tiles where 0.30 is the bound; a plain array gains nothing."""
    weights = {"l": random_blocks(768, 768, 0.15)}
    scattered = lower(weights, Machine.load("mid-32"), tokens=197).layers[0]
    assert 0.28 * 576 < scattered.multiplications / 1024 < 0.32 * 576
    assert len(scattered.tiles) < 0.43 * 576
    assert scattered.form == "ranks"
    plain = lower(weights, Machine.load("plain-32"), tokens=197).layers[0]
    assert plain.form == "dense"


def test_banks_are_free_of_conflicts_where_each_rank_is_in_one_set_a_side() -> None:
    """Koenig: one reduce and one expand set a rank, full sets, banks to spare."""
    machine = Machine.load("mid-32")
    rng = np.random.default_rng(3)
    chunks = 8
    reads, writes = (np.repeat(np.arange(chunks), 32), rng.permutation(np.repeat(np.arange(chunks), 32)))
    support = [np.kron(np.eye(chunks, dtype=bool)[side], np.ones(32, bool)) for side in (reads, writes)]
    torch.manual_seed(0)
    u, v = torch.randn(256, 256) * torch.from_numpy(support[1].T), torch.randn(256, 256) * torch.from_numpy(support[0])
    factors = evaluate(low_rank_weights(u, v))
    factors = type(factors)(
        **{**vars(factors), "reads": support[0], "writes": support[1], "block_sizes": ()},
    )
    plan = LayerPlan("l", factors, machine, tokens=8, block_tokens=8)
    coloured = colour_banks(plan)
    for side in (reads, writes):
        for chunk in range(chunks):
            assert np.bincount(coloured.rank_bank[side == chunk]).max() == 1


def test_blocks_as_wide_as_a_tile_become_dense_tiles() -> None:
    torch.manual_seed(1)
    kept = torch.rand(4, 4) < 0.5
    kept[0, 0] = True
    weights = block_sparse_as_gblr(torch.randn(128, 128), kept, chunk_in=32, chunk_out=32)
    layer = lower({"l": weights}, Machine.load("mid-32"), tokens=64).layers[0]
    assert layer.form == "dense"
    assert len(layer.tiles) == int(kept.sum())


def test_low_rank_needs_no_scatter() -> None:
    torch.manual_seed(2)
    weights = low_rank_weights(torch.randn(128, 32), torch.randn(32, 128))
    cycles = {
        name: simulate(lower({"l": weights}, Machine.load(name), tokens=256), Machine.load(name)).latency_cycles
        for name in ("mid-32", "plain-32")
    }
    assert cycles["plain-32"] <= cycles["mid-32"]


def test_same_input_gives_the_same_program_and_file(tmp_path: Path) -> None:
    weights = {"a": random_blocks(96, 40, 0.2), "b": DenseWeights(torch.ones(33, 7), torch.zeros(33))}
    machine = Machine.load("edge-16")
    one, two = (lower(weights, machine, tokens=9) for _ in range(2))
    assert str(one) == str(two)
    for name, program in (("one", one), ("two", two)):
        program.save(tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert str(Program.load(tmp_path / "one")) == str(one)


def test_every_pass_can_be_dumped() -> None:
    seen: dict[str, str] = {}
    lower({"a": random_blocks(64, 9, 0.3)}, Machine.load("edge-16"), tokens=3, dump=seen.__setitem__)
    assert tuple(seen) == PASSES
    assert all(text.strip() for text in seen.values())


def test_calibration_fixes_the_steps() -> None:
    weights = {"a": random_blocks(64, 32, 0.3)}
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(200, 8)) @ rng.normal(size=(8, 64)) + 2.0  # correlated, not centred
    machine = Machine.load("mid-32")
    exact = execute(lower(weights, machine, tokens=50), {"a": rows})["a"]
    program = lower(weights, machine, tokens=50, calibration={"a": rows})
    payload = program.layers[0].payload
    assert payload.input_step > 0
    assert payload.output_step == pytest.approx(np.abs(exact).max() / 127, rel=1e-5)
    error = np.linalg.norm(execute(program, {"a": rows}, mode="int8")["a"] - exact) / np.linalg.norm(exact)
    assert error < 0.03


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tokens": 0}, "tokens: found 0; it lies between 1 and"),
        ({"tokens": 10**9}, "tokens: found 1000000000; it lies between 1 and"),
        ({"calibration": {"x": np.ones((2, 4))}}, "calibration 'x': found no such layer; layers are a"),
        (
            {"calibration": {"a": np.ones((2, 5))}},
            r"calibration 'a': found shape \(2, 5\); the last axis holds 4 inputs",
        ),
        ({"calibration": {"a": np.full((2, 4), np.nan)}}, "calibration 'a': found NaN or infinity"),
    ],
)
def test_bad_arguments(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        lower({"a": DenseWeights(torch.ones(3, 4), None)}, Machine.load("edge-16"), **{"tokens": 4, **arguments})


def test_empty_checkpoint() -> None:
    with pytest.raises(InputError, match="checkpoint: found no layers; there must be at least one"):
        lower({}, Machine.load("edge-16"))


def test_an_accumulator_that_leaves_no_room_in_the_scratchpad_is_named() -> None:
    machine = Machine.load("mid-32").with_(accumulator={"kib": 4096})
    weights = {"a": DenseWeights(torch.ones(4, 40))}
    with pytest.raises(
        InputError,
        match=r"found accumulator of 4096 KiB; one token needs 64 input bytes, twice, in the scratchpad of 512 KiB, and "
        r"the accumulator's 32768 rows are drained into 1048576 bytes of it. Make \[accumulator\] smaller or \[scratchp",
    ):
        lower(weights, machine, 3)
    lower(weights, machine.with_(scratchpad={"kib": 2048}), 3)


def test_machine_too_small() -> None:
    with pytest.raises(
        InputError, match=r"layer 'a' \(4 x 300000, 0 ranks\) on machine 'mid-32': found scratchpad of 512 KiB"
    ):
        lower({"a": DenseWeights(torch.zeros(4, 300000), None)}, Machine.load("mid-32"))
