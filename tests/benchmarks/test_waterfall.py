"""The waterfall's measurements: the compiler with parts left out, scatter on and off, kept networks and their tables."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings

from analysis.pictures.block_map import coverage
from benchmarks.study import lowering_steps, waterfall, waterfall_tables
from benchmarks.study import structures as study_structures
from benchmarks.study.settings import gather
from gblr_hw import lower
from gblr_hw.files.checkpoint import save_checkpoint
from gblr_hw.frontend import export_network
from gblr_hw.layers.lattice_linear import LatticeLinear
from gblr_hw.lowering.lower_layer import lower_layer
from gblr_hw.models.vit import ViT, ViTShape
from gblr_hw.weights.factors import evaluate, structure_of
from gblr_hw.weights.stored import DenseWeights, GBLRWeights, LatticeWeights
from gblr_hw.weights.structure import Structure
from simulator import Machine, simulate
from simulator.base.errors import InputError
from simulator.program.operations import Op
from tests.drawn.strategies import generator, seeds


def blocks(seed: int, side: int = 96, count: int = 40) -> GBLRWeights:
    torch.manual_seed(seed)
    widths, locations = 0.05 + 0.5 * torch.rand(2, count), torch.rand(2, count)
    return GBLRWeights(widths, locations, torch.randn(count, 1, side), torch.randn(count, side, 1), None, 1.0, False)


def random_structure(seed: int) -> Structure:
    rng = generator(seed)
    ranks, inputs, outputs = (int(n) for n in rng.integers(1, (20, 6, 6)))
    reads, writes = rng.random((ranks, inputs)) < 0.5, rng.random((ranks, outputs)) < 0.5
    alive = (reads.any(axis=1) & writes.any(axis=1))[:, None]
    return Structure(np.zeros((outputs, inputs), bool), reads & alive, writes & alive)


@settings(deadline=None, max_examples=50)
@given(seed=seeds)
def test_orders_are_those_of_a_plain_sort(seed: int) -> None:
    structure, size = random_structure(seed), 3

    def start(chunks: np.ndarray) -> int:
        return next((c for c in range(len(chunks)) if chunks[c] and not chunks[c - 1]), 0)

    ranks = range(len(structure.reads))
    wanted = sorted(ranks, key=lambda k: (start(structure.reads[k]), start(structure.writes[k]), k))
    group = lowering_steps.by_start(structure, size)
    assert [group[k] for k in wanted] == [at // size for at in ranks]
    assert lowering_steps.in_index_order(structure, size).tolist() == [k // size for k in ranks]


@pytest.mark.parametrize("name", list(lowering_steps.ORDERS))
def test_a_group_runs_the_union_of_its_ranks_chunks(name: str) -> None:
    weights, machine = blocks(3), lowering_steps.without_scatter(Machine.load("edge-16"))
    grouping = lowering_steps.ORDERS[name]
    schedule = lowering_steps.stored_form(grouping)("layer", weights, machine, 49)
    structure = structure_of(evaluate(weights), 16, 16)
    if grouping is not None:
        group = grouping(structure, 16)
        unions = [
            structure.reads[group == g].any(axis=0).sum() + structure.writes[group == g].any(axis=0).sum()
            for g in range(group.max() + 1)
        ]
        assert len(schedule.tiles) == sum(unions)
    # Every rank is in one tile of each chunk that it touches.
    tiles = schedule.tiles
    for op, side, chunk in ((Op.REDUCE, structure.reads, tiles.source), (Op.EXPAND, structure.writes, tiles.target)):
        found = Counter(
            (int(rank), int(chunk[tile]))
            for tile in np.flatnonzero(tiles.kind == op)
            for rank in tiles.lane[tiles.lane_ptr[tile] : tiles.lane_ptr[tile + 1]]
        )
        assert found == Counter(zip(*(axis.tolist() for axis in np.nonzero(side)), strict=True))


@settings(deadline=None, max_examples=10)
@given(seed=seeds)
def test_each_step_of_the_compiler_is_worth_something(seed: int) -> None:
    weights, machine = blocks(seed), Machine.load("edge-16")
    plain = lowering_steps.without_scatter(machine)
    index, start, searched = (
        len(lowering_steps.stored_form(order)("layer", weights, plain, 49).tiles)
        for order in lowering_steps.ORDERS.values()
    )
    packed = len(lowering_steps.stored_form()("layer", weights, machine, 49).tiles)
    assert packed == structure_of(evaluate(weights), 16, 16).tile_count(16, 16)
    assert packed <= searched <= index
    assert packed <= start


def test_the_plain_preset_is_the_middle_one_without_scatter() -> None:
    ours = lowering_steps.without_scatter(Machine.load("mid-32")).model_dump()
    preset = Machine.load("plain-32").model_dump()
    assert {key for key in ours if ours[key] != preset[key]} == {"name", "description"}


def test_steps_end_where_lowering_does() -> None:
    weights, machine = blocks(1), Machine.load("edge-16")
    dense = DenseWeights(torch.randn(96, 96))
    steps = waterfall.compiler_steps(waterfall.layer_cycles, {"layer": dense}, {"layer": weights}, machine)
    program = lower({"layer": weights}, machine, tokens=waterfall.TOKENS)
    assert steps[-1].cycles == simulate(program, machine).latency_cycles
    plain = lowering_steps.without_scatter(machine)
    program = lower({"layer": dense}, plain, tokens=waterfall.TOKENS)
    assert steps[0].cycles == simulate(program, plain).latency_cycles
    assert [step.owed_to for step in steps] == ["network", "network", "compiler", "compiler", "compiler", "machine"]
    best, grouped = steps[4].cycles, steps[3].cycles
    assert best is not None
    assert grouped is not None
    assert best <= grouped


def small_vit() -> ViT:
    torch.manual_seed(0)
    model = ViT(ViTShape(width=32, depth=1)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    return model


def lattice(outputs: int, inputs: int) -> LatticeWeights:
    """One rank on every chunk, and the first tile dense."""
    structure = Structure.full(outputs, inputs, 1, 16, 16)
    tiles = structure.tiles.copy()
    tiles[0, 0] = True
    return LatticeLinear(inputs, outputs, Structure(tiles, structure.reads, structure.writes), 16, 16).weights()


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two kept networks of one block, and the part that they belong to."""
    model, example = small_vit(), (torch.zeros(1, 8, 8),)
    exported = export_network(model, example)
    measure = waterfall.NetworkCycles(exported.network, exported.weights)
    monkeypatch.setattr(waterfall, "network_cycles", lambda part: measure)
    name = "blocks.0.mlp.fc1"
    sides = model.get_submodule(name).weight.shape
    for family in (waterfall.BLIND, waterfall.LEARNED):
        network = study_structures.network_file(tmp_path, "digits", "edge-16", family, 0.5, 0)
        save_checkpoint({name: lattice(*sides)}, network.path)
    return tmp_path


def study_rows(blind_cycles: float = 7000.0) -> list[dict[str, Any]]:
    found = []
    for family, budget, accuracy, cycles in (
        ("dense", 1.0, 0.97, 8000.0),
        (waterfall.BLIND, 0.5, 0.965, blind_cycles),
        (waterfall.LEARNED, 0.5, 0.975, 4000.0),
    ):
        costs = {name: dict.fromkeys(("edge-16", "mid-32"), cycles) for name in ("latency_cycles", "energy_pj")}
        key = {"part": "digits", "machine": "edge-16", "family": family, "budget": budget, "seed": 0}
        found.append({**key, "accuracy": accuracy, **costs})
    return found


def test_a_kept_network_is_taken_apart_and_training_follows(kept: Path) -> None:
    study = gather(study_rows())
    ((setting, network),) = waterfall.chosen_networks(study, kept)
    with pytest.raises(InputError, match="cycles on edge-16; the results say 7000 for it"):
        waterfall.network_steps(setting, network)
    measured = waterfall.network_cycles("digits")
    cycles = measured(study_structures.loaded(network), Machine.load("edge-16"), lower_layer)
    study = gather(study_rows(cycles))
    ((setting, network),) = waterfall.chosen_networks(study, kept)
    data = json.loads(json.dumps({"networks": [waterfall.network_steps(setting, network)]}))
    (found,) = waterfall_tables.network_waterfalls(data, study)
    assert found.title == "digits, edge-16: width shrinkage 0.5x, 96.5 %"
    assert [step.cycles for step in found.steps[-4:]] == [None, None, 4000.0, None]
    assert found.steps[-2].at_most
    model = small_vit()
    machine = Machine.load("edge-16")
    program = lower(model, machine, example_inputs=(torch.zeros(1, 8, 8),))
    measure = waterfall.network_cycles("digits")
    assert measure({}, machine, lower_layer) == simulate(program, machine).latency_cycles
    table = waterfall_tables.step_table(found)
    assert "≤ 4,000" in table
    assert "Together: network x" in table
    scattered = waterfall.scatter_rows(waterfall.kept_networks(study, kept))
    assert "automatic choice" in waterfall_tables.scatter_table(scattered)
    old = waterfall_tables.scatter_table([{**scattered[0], "family": "block low rank"}])
    assert "rank groups" in old and "block low rank" not in old
    with pytest.raises(InputError, match=r"layer 'blocks\.7': found not in the network"):
        measure({"blocks.7": lattice(32, 32)}, machine, lower_layer)
    with pytest.raises(InputError, match=r"found a network of digits, edge-16, 0\.5x; the study has its setting"):
        waterfall_tables.network_waterfalls(data, gather(study_rows()[::2]))


def test_the_quickest_network_within_a_point_is_chosen_or_the_most_accurate() -> None:
    rows = study_rows()
    quick = {**rows[1], "budget": 0.3, "accuracy": 0.955, "latency_cycles": {"edge-16": 3000.0, "mid-32": 1.0}}
    slow = {**rows[1], "budget": 0.9, "accuracy": 0.96}
    chosen = waterfall.blind_setting(gather([*rows, quick, slow]), "digits", "edge-16")
    assert chosen is not None
    assert chosen.budget == 0.5
    chosen = waterfall.blind_setting(gather([rows[0], quick]), "digits", "edge-16")
    assert chosen is not None
    assert chosen.budget == 0.3
    assert waterfall.blind_setting(gather(rows[1:]), "digits", "edge-16") is None


def test_the_command_without_kept_networks_measures_random_intervals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = [{"label": "dense", "owed_to": "network", "cycles": 10.0, "at_most": False}]
    monkeypatch.setattr(waterfall, "random_intervals", lambda machines: [{"title": "random", "steps": steps}] * 3)
    monkeypatch.setattr(waterfall, "read_study", lambda path: gather(study_rows()))
    picture, out = tmp_path / "w.png", tmp_path / "waterfall.json"
    command = ["waterfall", "--results", "none", "--networks", str(tmp_path), "--picture", str(picture)]
    monkeypatch.setattr(sys, "argv", [*command, "--out", str(out)])
    waterfall.main()
    assert "and what is there stays as it is" in capsys.readouterr().out
    data = json.loads(out.read_text())
    (table, *_) = map(waterfall_tables.step_table, waterfall_tables.random_waterfalls(data))
    assert "| dense | network |     10 |    1.000 |" in table
    assert picture.exists()
    kept = {"networks": [{"part": "digits", "machine": "edge-16", "budget": 0.5, "seed": 0, "steps": steps}]}
    out.write_text(json.dumps({**data, **kept, "taken": "by hand"}))
    waterfall.main()
    again = json.loads(out.read_text())
    assert (again["networks"], again["taken"], again["random"]) == (kept["networks"], "by hand", data["random"])


def test_tables_of_structures_add_up(kept: Path) -> None:
    network = study_structures.network_file(kept, "digits", "edge-16", waterfall.LEARNED, 0.5, 0)
    assert study_structures.named(network.path) == network
    ((name, weights),) = study_structures.loaded(network).items()
    one = study_structures.layer_tiles(name, weights, 16, 16)
    m, n = weights.out_features, weights.in_features
    assert (one.full, one.dense, one.ranks) == (m * n // 256, 1, 1)
    assert (one.reduce, one.expand, one.tiles) == (n // 16, m // 16, 1 + n // 16 + m // 16)
    both = study_structures.all_layers([one, one])
    assert (both.full, both.tiles) == (2 * one.full, 2 * one.tiles)
    counted = json.loads(json.dumps(study_structures.counted(network)))
    table = study_structures.structure_tables([counted])
    assert "digits, trained for edge-16: automatic choice, 0.5x, seed 0" in table
    assert "100.0 %" in table
    covered = study_structures.covered(evaluate(weights), 16)
    factors = evaluate(weights)
    np.testing.assert_array_equal(covered[16:], coverage(factors.writes, factors.reads)[16:])
    assert (covered[:16, :16] == 17).all()
    assert len(study_structures.structure_picture([network]).axes) == 2  # one map and the colour bar


def test_missing_and_misnamed_networks_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = study_structures.network_file(tmp_path, "digits", "edge-16", "ranks", 0.5, 0)
    with pytest.raises(InputError, match=r"no such file.*Run `make study`"):
        study_structures.loaded(network)
    with pytest.raises(InputError, match=r"PART\.MACHINE\.FAMILY\.BUDGET\.SEED\.safetensors"):
        study_structures.named(tmp_path / "other.safetensors")
    monkeypatch.setattr(study_structures, "NETWORKS", tmp_path)
    monkeypatch.setattr(sys, "argv", ["study_structures"])
    with pytest.raises(SystemExit, match="no network"):
        study_structures.main()
