"""Conversion to few bits: dense tiles on grids, ranks around them, and tiles, ranks and bits chosen together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gblr_hw.conversion.bits.around import OnGrid, as_lowered, rounded_ranks, rounded_tiles, tiles_and_ranks
from gblr_hw.conversion.bits.choose import held_error
from gblr_hw.conversion.bits.compensate import round_compensating
from gblr_hw.conversion.conversion import convert
from gblr_hw.conversion.conversion_input import read_layers
from gblr_hw.conversion.fit.fit_layer import Schedule, block_sparse_layer, truncated_layer
from gblr_hw.conversion.fit.fit_problem import Fit, FitProblem
from gblr_hw.files.checkpoint import load_checkpoint, save_checkpoint
from gblr_hw.lowering.pipeline import lower
from gblr_hw.lowering.quantise.kept_codes import keeps_codes
from gblr_hw.weights.bits.choose_steps import fitting_grid
from gblr_hw.weights.bits.grid import round_nearest
from gblr_hw.weights.stored import LatticeWeights
from gblr_hw.weights.structure import Structure
from simulator import simulate
from simulator.base.errors import InputError
from simulator.machine.machine import Machine
from simulator.numbers.execute import execute, input_step
from simulator.program.operations import Op
from tests.oracles.integer_layer import int8_outputs

EDGE = Machine.load("edge-16").with_(datatypes={"narrow_bits": 4})
QUICK = Schedule(steps=2, sweeps=2, final_steps=2, final_sweeps=5)
SHAPES = {"a": (48, 64), "b": (64, 40)}


def layers() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Matrices and second moments of inputs that are alike."""
    rng = np.random.default_rng(0)
    matrices, moments = {}, {}
    for name, (m, n) in SHAPES.items():
        matrices[name] = rng.normal(size=(m, n)) * np.exp(rng.normal(size=n))
        mix = rng.normal(size=(n, n)) * np.exp(rng.normal(size=(n, 1)))
        moments[name] = mix @ mix.T / n + 0.01 * np.eye(n)
    return matrices, moments


def problems() -> dict[str, FitProblem]:
    matrices, moments = layers()
    return read_layers(matrices, EDGE, moments, {})[0]


def converted(**options: Any) -> dict[str, LatticeWeights]:
    matrices, moments = layers()
    found = convert(matrices, EDGE, covariances=moments, schedule=QUICK, **options)
    return {name: one for name, one in found.items() if isinstance(one, LatticeWeights)}


def total(found: dict[str, LatticeWeights]) -> float:
    return sum(held_error(problem, found[name], 8) for name, problem in problems().items())


def weight_bytes(found: dict[str, LatticeWeights], **how: Any) -> int:
    return sum(int(layer.tiles.record_bytes(EDGE).sum()) for layer in lower(found, EDGE, 8, **how).layers)


def test_all_tiles_in_four_bits_are_the_compensated_matrix_and_run_as_it_is() -> None:
    found = converted(tiles=1.0, bits=4)
    program = lower(found, EDGE, 8)
    assert program.layers[0].tiles.narrow.all() and all(keeps_codes(layer, EDGE) for layer in program.layers)
    for name, problem in problems().items():
        expected = round_compensating(problem, 4, 16).stored()
        np.testing.assert_array_equal(found[name].dense.numpy(), expected.matrix().astype(np.float32))


def test_kept_tiles_are_rounded_alone_and_ranks_take_up_what_they_leave() -> None:
    problem = problems()["a"]
    sparse, start = block_sparse_layer(problem, 7)
    rng = np.random.default_rng(1)
    full = Structure.full(48, 64, 3, 16, 16)
    structure = Structure(sparse.tiles, full.reads, full.writes)
    fit = Fit(rng.normal(size=(48, 3)) * 1e-3, rng.normal(size=(3, 64)), start.dense)
    one, four = rounded_tiles(problem, structure, fit, 4, turns=1), rounded_tiles(problem, structure, fit, 4)
    assert problem.squared_error(four.fit) <= problem.squared_error(one.fit) < problem.squared_error(start)
    assert four.grid is not None and four.fit.dense is not None
    kept = np.repeat(np.repeat(sparse.tiles, 16, axis=0), 16, axis=1)
    codes = four.grid.codes_of(four.fit.dense)
    assert not codes[~kept].any() and codes[kept].any()
    # Compensation among the kept inputs: no single code is better, as ranks and steps stand.
    least = problem.squared_error(four.fit)
    for i, j in rng.permutation(np.argwhere(kept))[:60].tolist():
        for change in (-1, 1):
            dense = four.fit.dense.copy()
            dense[i, j] += change * four.grid.spacing(64)[i, j]
            if abs(codes[i, j] + change) <= 7:
                # Tiles were settled before the last ranks were fitted.
                assert problem.squared_error(Fit(four.fit.u, four.fit.v, dense)) >= least * (1 - 5e-3)


def test_ranks_beside_codes_lose_less_than_codes_alone_and_either_order_is_tried() -> None:
    problem = problems()["a"]
    errors = [
        problem.squared_error(tiles_and_ranks(problem, 4, ranks, structure_first=first).fit)
        for ranks, first in ((0, True), (8, False), (8, True), (16, True))
    ]
    assert max(errors[1:3]) < 0.8 * errors[0] and errors[3] < errors[2]


@pytest.mark.parametrize(
    "budget",
    [{"weight_bytes": "0.3x-dense"}, {"weight_bytes": "0.75x-dense"}, {"latency": "0.8x-dense", "tokens": 4}],
)
def test_chosen_together_is_never_worse_than_one_way_for_all(budget: dict[str, Any]) -> None:
    found = converted(bits="choose", **budget)
    dense = converted(tiles=1.0)
    rivals = [dense, converted(tiles=1.0, bits=4)]
    for family in ("block-sparse", "lattice", "low-rank"):
        for bits in (None, 4) if family != "low-rank" else (None,):
            try:
                rivals.append(converted(family=family, bits=bits, **budget))
            except InputError as error:
                assert "least" in str(error) or "smallest" in str(error)

    def cost(one: dict[str, LatticeWeights]) -> float:
        if "latency" in budget:
            return float(simulate(lower(one, EDGE, 4), EDGE).latency_cycles)
        return float(weight_bytes(one))

    share = float(next(iter(budget.values())).removesuffix("x-dense"))
    assert cost(found) <= share * cost(dense)
    within = [one for one in rivals if cost(one) <= share * cost(dense)]
    assert within and all(total(found) <= total(one) * (1 + 1e-9) for one in within)
    assert keeps_codes(lower(found, EDGE, 8).layers[0], EDGE)


def test_bytes_of_four_bits_are_counted_before_tiles_are_rounded() -> None:
    wide, narrow = (converted(weight_bytes="0.4x-dense", family="block-sparse", bits=bits) for bits in (None, 4))
    least = weight_bytes(converted(tiles=1.0))
    for found in (wide, narrow):
        assert weight_bytes(found) <= 0.4 * least
    assert narrow["a"].tiles.sum() > 1.5 * wide["a"].tiles.sum()


@pytest.mark.parametrize("family", ["low-rank", "lattice", "rank-groups"])
def test_ranks_in_four_bits_keep_their_codes_and_lose_what_is_said(family: str, tmp_path: Path) -> None:
    matrices, _ = layers()
    wide, narrow = (converted(tiles=0.6, family=family, rank_bits=bits) for bits in (None, 4))
    path = tmp_path / "a.safetensors"
    save_checkpoint(narrow, path)
    read = load_checkpoint(path)
    program = lower(read, EDGE, 8)
    assert "rounded" not in program.provenance
    for layer, (name, problem) in zip(program.layers, problems().items(), strict=True):
        held = read[name]
        assert isinstance(held, LatticeWeights) and torch.equal(held.v, narrow[name].v)
        assert held.rank_grid is not None and held.rank_grid.bits == 4
        assert layer.tiles.narrow[layer.tiles.kind != Op.DENSE].all() and keeps_codes(layer, EDGE, ranks=True)
        inputs = np.random.default_rng(3).normal(size=(8, len(problem.matrix[0])))
        found = execute(program, {name: inputs}, mode="int8")[name]
        assert found.tolist() == int8_outputs(layer, EDGE, inputs.tolist(), input_step(inputs, 8))
        # White inputs: what lowering's own rounding of u loses is about what is foreseen.
        white = FitProblem(problem.matrix, None, 16, 16)
        foreseen = np.sqrt(white.squared_error(as_lowered(problem, narrow[name])))
        expected = inputs @ matrices[name].T
        assert np.linalg.norm(found - expected) / np.linalg.norm(expected) < 1.3 * foreseen / np.linalg.norm(
            matrices[name]
        )
        assert held_error(problem, wide[name], 8) < held_error(problem, narrow[name], 8)


def test_rounded_ranks_lose_less_than_nearest_ones() -> None:
    problem = problems()["a"]
    structure, fit = truncated_layer(problem, 8)
    made = rounded_ranks(problem, OnGrid(structure, fit), 4)
    assert made.rank_grid is not None
    made.rank_grid.codes_of(made.fit.v)
    nearest = round_nearest(fit.v, fitting_grid(fit.v, 4, 16)).matrix()
    least = problem.squared_error(fit)
    extra = [problem.squared_error(one) - least for one in (made.fit, Fit(fit.u, nearest))]
    assert 0 < extra[0] < 0.7 * extra[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bits": 1}, "weight_bits: found 1; machine 'edge-16' has tiles of 8 and 4 bits"),
        ({"bits": 9}, "weight_bits: found 9; machine 'edge-16' has tiles of 8 and 4 bits"),
        ({"bits": 8}, "bits: found 8; all weights have them in any case"),
        ({"bits": "few"}, "bits: found 'few'; a number of bits, or 'choose'"),
        ({"bits": "choose"}, "bits: found 'choose' with a budget in tiles; tiles count the same"),
        ({"bits": 4, "family": "low-rank"}, "bits: found 4 with low rank; it is of dense tiles"),
        ({"bits": 4, "family": "blast"}, "it is of dense tiles"),
        ({"bits": 4, "with_dense_tiles": False}, "bits: found 4 with no dense tiles"),
        ({"rank_bits": 3}, "weight_bits: found 3; machine 'edge-16' has tiles of 8 and 4 bits"),
        ({"rank_bits": 8}, "rank_bits: found 8; all weights have them in any case"),
        ({"rank_bits": 4, "bits": "choose", "weight_bytes": 999}, "rank_bits: found 4 with bits 'choose'"),
        ({"rank_bits": 4, "family": "block-sparse"}, "rank_bits: found 4 with block sparse; it is of ranks"),
        ({"weight_bytes": "much"}, "weight_bytes: found 'much'; it is a number of bytes, or a fraction"),
        ({"weight_bytes": 0.5}, "weight_bytes: found 0.5"),
        ({"weight_bytes": 500, "tiles": 0.3}, "budget: found tiles and weight_bytes; there is one budget"),
        ({"weight_bytes": 50, "bits": "choose"}, "budget: found 50 bytes; the least that was found takes"),
    ],
)
def test_what_is_refused(options: dict[str, Any], message: str) -> None:
    if options == {"bits": 4, "family": "blast"}:
        options = {**options}
        matrices, moments = layers()
        with pytest.raises(InputError, match=message):
            convert(matrices, EDGE, covariances=moments, **options)
        return
    with pytest.raises(InputError, match=message):
        converted(**options)


def test_machines_without_narrow_tiles_are_refused() -> None:
    matrices, _ = layers()
    for machine, bits, message in (
        (Machine.load("edge-16"), 4, "has tiles of 8 bits"),
        (Machine.load("edge-16"), "choose", "bits: found 'choose' on machine 'edge-16'; it has tiles of 8 bits"),
        (Machine.load("edge-16").with_(datatypes={"weight_bits": 4}), 4, "all weights have them in any case"),
        (Machine.load("edge-16").with_(datatypes={"weight_bits": 2}), 4, "has tiles of 2 bits"),
    ):
        with pytest.raises(InputError, match=message):
            convert(matrices, machine, bits=bits)
