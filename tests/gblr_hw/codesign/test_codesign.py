"""Co-design: bounds are kept, seeds decide, an interrupted search ends as any other, and the front is one."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from analysis.pictures.codesign_picture import CodesignPoint, draw_codesign
from gblr_hw.codesign import ahead
from gblr_hw.codesign.front import area_levels, error_levels, fastest, plain_against_scatter, unbeaten
from gblr_hw.codesign.loop import Outcome, codesign
from gblr_hw.codesign.measure import Measurements, pair_of
from gblr_hw.codesign.networks import Networks
from gblr_hw.codesign.problem import Bounds, Pair, Problem
from gblr_hw.codesign.report import answer, document, front_table, gains
from gblr_hw.codesign.search import search
from gblr_hw.codesign.settle import settle
from gblr_hw.codesign.share_layers import descend, ladder_of, rounded, share_layers
from gblr_hw.codesign.space import MachineChoice, Space
from gblr_hw.conversion.conversion_input import read_layers
from gblr_hw.conversion.fit.fit_layer import Schedule
from gblr_hw.conversion.fit.fit_weights import relative_error
from gblr_hw.cost.hardware_cost import HardwareCost
from gblr_hw.files.checkpoint import save_checkpoint
from gblr_hw.lowering.pipeline import lower
from gblr_hw.weights.stored import DenseWeights, LayerWeights
from simulator import simulate
from simulator.base.errors import InputError
from simulator.machine.area import area_mm2
from simulator.machine.machine import Machine
from tests.oracles.elsewhere import work_elsewhere

TRIALS = 20
QUICK = Schedule(steps=2, sweeps=1, final_steps=1, final_sweeps=2)
BASE = Machine.load("mid-32")
SMALL = Space(
    sides=(8, 16),
    banks_per_lane=(1.0, 1.25),
    scratchpad_kib_per_lane=(2.0,),
    accumulator_kib_per_lane=(0.5,),
    rank_kib_per_bank=(4,),
    weight_tiles=(4, 64),
    shares=(0.3, 0.5, 0.7),
)
TINY = SMALL.model_copy(
    update={
        "sides": (8,),
        "banks_per_lane": (1.0,),
        "families": ("rank_groups", "low_rank", "dense"),
        "shares": (0.4, 0.7),
    }
)


def _layers() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    rank = 6
    smooth = rng.normal(size=(64, rank)) @ rng.normal(size=(rank, 48)) + 0.3 * rng.normal(size=(64, 48))
    rough = rng.normal(size=(48, 64)) * np.kron(rng.random((3, 4)) < 0.5, np.ones((16, 16))) + 0.1
    return {"smooth": smooth, "rough": rough}


def _problem(
    bounds: Bounds | None = None,
    work: Path | None = None,
    space: Space = SMALL,
    layers: dict[str, np.ndarray] | None = None,
) -> Problem:
    problems, biases = read_layers(layers or _layers(), SimpleNamespace(rows=8, cols=8), None, {})
    return Problem(space, BASE, Networks(problems, biases, QUICK, work), 16, bounds or Bounds())


class _Fixed(torch.nn.Module):
    def __init__(self, weights: LayerWeights) -> None:
        super().__init__()
        self.held = weights

    def weights(self) -> LayerWeights:
        return self.held


@pytest.fixture(scope="module")
def outcome() -> Outcome:
    return codesign(_problem(), Measurements(None), trials=TRIALS)


def _told(outcome: Outcome) -> str:
    return json.dumps(document(outcome, _problem(), TRIALS, 0), sort_keys=True)


def test_another_seed_has_another_outcome() -> None:
    other = search(_problem(), Measurements(None), TRIALS, seed=7)
    assert other.pairs != search(_problem(), Measurements(None), TRIALS, seed=0).pairs


def test_trials_that_are_asked_for_together_are_those_of_one_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = _problem(space=TINY)
    together = search(problem, Measurements(None), 46, seed=3)
    monkeypatch.setattr("gblr_hw.codesign.search._BLIND", 1)
    assert search(problem, Measurements(None), 46, seed=3) == together
    # The check can fail: results matter from the twenty-first trial of a kind on.
    monkeypatch.setattr("gblr_hw.codesign.search._BLIND", 23)
    assert search(problem, Measurements(None), 46, seed=3) != together


def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Results are looked at from a kind's fourth trial on, and descents are short: a whole search is a second's work."""
    for name in ("search._BLIND", "search._STARTUP", "share_layers._STEPS"):
        monkeypatch.setattr(f"gblr_hw.codesign.{name}", 3)


def _small(work: Path, fitting: Callable[[str], None] = lambda what: None, **options: Any) -> Outcome:
    problem = _problem(space=TINY, work=work)
    problem = replace(problem, networks=replace(problem.networks, fitting=fitting))
    return codesign(problem, Measurements(work), trials=10, **options)


def _kept(work: Path) -> dict[str, bytes]:
    return {str(path.relative_to(work)): path.read_bytes() for path in work.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Outcome, dict[str, bytes]]:
    """A whole search of a small space, and what is in its folder then."""
    work = tmp_path_factory.mktemp("small")
    with pytest.MonkeyPatch.context() as monkeypatch:
        _quickly(monkeypatch)
        return _small(work), _kept(work)


Small = tuple[Outcome, dict[str, bytes]]


@pytest.mark.parametrize("where", [("fitting", 3), ("searching", 8), ("settling", 2), ("moving tiles", 2)])
def test_an_interrupted_search_ends_as_an_uninterrupted_one(
    where: tuple[str, int], small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _quickly(monkeypatch)
    told: list[str] = []

    def interrupt(what: str) -> None:
        told.append(what)
        if sum(one.startswith(where[0]) for one in told) == where[1]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _small(tmp_path, interrupt, progress=lambda done, of, what: interrupt(what))
    before = set(_kept(tmp_path))
    assert before <= set(small[1]) and len(Measurements(tmp_path)) < small[0].measured
    told.clear()
    again = _small(tmp_path, told.append)
    assert _told(again) == _told(small[0]) and again.pairs == small[0].pairs
    assert _kept(tmp_path) == small[1]
    # What was fitted before is not fitted again.
    assert len(told) == len({*small[1]} - before - {"measurements.json"})


def test_a_search_elsewhere_is_the_search_here(small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batches = work_elsewhere(monkeypatch)
    _quickly(monkeypatch)
    found = _small(tmp_path)
    assert _told(found) == _told(small[0]) and found.pairs == small[0].pairs
    assert _kept(tmp_path) == small[1]
    assert max(batches) > 4


@pytest.mark.night
def test_processes_and_killed_workers_give_the_same_search(
    outcome: Outcome, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("_made", "_simulated"):
        call, mark = getattr(ahead, name), tmp_path / f"died in {name}"

        def dies_once(*given: Any, call: Any = call, mark: Path = mark) -> Any:
            if not mark.exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*given)

        monkeypatch.setattr(ahead, name, dies_once)
    found = codesign(_problem(), Measurements(None), trials=TRIALS, jobs=2)
    assert _told(found) == _told(outcome) and found.pairs == outcome.pairs
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.night
@pytest.mark.filterwarnings("default")  # the cluster's own
def test_a_dask_cluster_gives_the_same_search(small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    distributed = pytest.importorskip("distributed")
    _quickly(monkeypatch)
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        found = _small(tmp_path, scheduler=cluster.scheduler_address)
    assert _told(found) == _told(small[0]) and _kept(tmp_path) == small[1]


def test_pairs_tell_what_the_simulator_and_the_area_model_say(outcome: Outcome) -> None:
    networks = _problem().networks
    for pair in outcome.front[::5]:
        layers = networks.layers(pair.network)
        report = simulate(
            lower({n: layer.weights for n, layer in layers.items()}, pair.machine, tokens=16), pair.machine
        )
        assert (pair.latency_cycles, pair.energy_pj) == (report.latency_cycles, report.energy_pj)
        assert pair.area_mm2 == area_mm2(pair.machine).total.mm2
        errors = [relative_error(replace(networks.problems[n], rows=pair.choice.side, cols=pair.choice.side), x.weights)
                  for n, x in layers.items()]  # fmt: skip
        assert pair.error == pytest.approx(np.mean(errors))
        assert Machine.from_dict(pair.machine.to_dict(), "front") == pair.machine


def test_the_front_is_what_no_pair_dominates(outcome: Outcome) -> None:
    names = Bounds().objectives
    assert names == ("latency_s", "error", "area_mm2", "energy_pj")
    values = {tuple(getattr(pair, name) for name in names) for pair in outcome.pairs}
    best = {
        row for row in values if not any(all(a <= b for a, b in zip(other, row, strict=True)) and other != row for other in values)
    }  # fmt: skip
    assert {tuple(getattr(pair, name) for name in names) for pair in outcome.front} == best
    assert len(outcome.front) == len(best) > 5


def test_both_kinds_are_asked_equally_and_lattices_only_with_scatter(outcome: Outcome) -> None:
    found = search(_problem(), Measurements(None), TRIALS, seed=0)
    assert any(pair.scatter for pair in found.pairs) and any(not pair.scatter for pair in found.pairs)
    assert all(pair.scatter for pair in outcome.pairs if pair.network.family == "lattice")
    assert {"lattice", "rank_groups", "block_sparse", "low_rank", "dense"} == {p.network.family for p in outcome.pairs}


def test_bounds_are_kept(outcome: Outcome) -> None:
    areas = sorted(pair.area_mm2 for pair in outcome.pairs)
    energies = sorted(pair.energy_pj for pair in outcome.pairs)
    bounds = Bounds(areas[len(areas) // 3], energies[len(energies) // 2])
    assert bounds.objectives == ("latency_s", "error")
    found = codesign(_problem(bounds), Measurements(None), trials=30)
    assert found.pairs and all(bounds.hold(pair) for pair in found.pairs)
    assert found.refused[0] > 0
    assert {row.max_area_mm2 for row in found.comparisons} == {bounds.max_area_mm2}


def test_settling_is_never_slower_and_leaves_no_better_neighbour() -> None:
    problem, known = _problem(), Measurements(None)
    pairs = search(problem, known, 24, seed=0).pairs
    area, error = area_levels(pairs, None)[-1], 0.5
    settled = settle(problem, known, pairs, [area], [error])
    everything = [
        pair
        for choice in problem.space.machines()
        for family in problem.space.families_of(choice.scatter)
        for share in problem.space.shares
        if (pair := pair_of(problem, choice, problem.networks.uniform(family, choice.side, share), known)) is not None
    ]
    for scatter in (False, True):
        before, after = (fastest(some, area, error, scatter) for some in (pairs, settled))
        best = fastest(everything, area, error, scatter)
        assert after is not None and best is not None
        assert before is None or after.latency_s <= 1.005 * before.latency_s
        # On this small space single steps reach the optimum of all of them.
        assert after.latency_s <= 1.005 * best.latency_s


def test_tiles_move_between_layers_where_that_is_faster() -> None:
    rng = np.random.default_rng(1)
    easy = rng.normal(size=(64, 2)) @ rng.normal(size=(2, 64)) + 0.05 * rng.normal(size=(64, 64))
    problem = _problem(layers={"easy": easy, "hard": rng.normal(size=(64, 64))})
    known = Measurements(None)
    choice = MachineChoice(8, False, 1.0, 2.0, 0.5, 4, 64, 25.6)
    pair = pair_of(problem, choice, problem.networks.uniform("rank_groups", 8, 0.7), known)
    assert pair is not None
    for slack, expected in ((1.0, (0.7, 0.7)), (1.05, (0.3, 0.7)), (9.0, (0.3, 0.3))):
        (tried,) = share_layers([(pair, slack * pair.error)], problem, known)
        moved = tried.after
        assert tried.before == pair and moved.latency_s <= tried.without_gradient.latency_s
        assert moved.network.shares == expected and moved.machine == pair.machine
        assert moved.error <= slack * pair.error
        assert moved is pair or moved.latency_s < pair.latency_s
    # Brute force over both layers' shares: the middle one is the cheapest by the closed form.
    ladder = ladder_of(pair, problem)
    within = [
        (ladder.cycles[0, i] + ladder.cycles[1, j], i, j)
        for i in range(3)
        for j in range(3)
        if (ladder.errors[0, i] + ladder.errors[1, j]) / 2 <= 1.05 * pair.error
    ]
    assert min(within)[1:] == tuple(
        rounded(ladder, descend(ladder, np.array([2, 2]), 1.05 * pair.error), 1.05 * pair.error)
    )


def test_the_gradient_is_that_of_the_closed_form() -> None:
    problem = _problem()
    choice = MachineChoice(8, True, 1.0, 2.0, 0.5, 4, 64, 25.6)
    pair = pair_of(problem, choice, problem.networks.uniform("lattice", 8, 0.5), Measurements(None))
    assert pair is not None
    ladder = ladder_of(pair, problem)
    # At a rung it is the cost of the fitted network, but that a trainer's cost takes the dense form where that is less.
    model = torch.nn.ModuleDict({n: _Fixed(x.weights) for n, x in problem.networks.layers(pair.network).items()})
    rung = torch.tensor([1.0, 1.0], dtype=torch.float64)
    assert float(ladder.latency_at(rung)) >= float(HardwareCost(pair.machine, 16)(model).latency_cycles) - 1e-3
    assert float(ladder.error_at(rung)) == pytest.approx(pair.error)
    places = torch.tensor([0.4, 1.3], dtype=torch.float64, requires_grad=True)
    for total in (ladder.latency_at, ladder.error_at):
        (slope,) = torch.autograd.grad(total(places), places)
        for layer in range(2):
            step = torch.zeros(2, dtype=torch.float64)
            step[layer] = 0.05
            with torch.no_grad():
                change = float(total(places + step) - total(places - step)) / 0.1
            assert float(slope[layer]) == pytest.approx(change, rel=0.02)


def test_comparison_takes_the_fastest_of_each_kind_within_area_and_error(outcome: Outcome) -> None:
    pairs = outcome.pairs
    for row in outcome.comparisons:
        for pair, scatter in ((row.plain, False), (row.scatter, True)):
            allowed = [p.latency_s for p in pairs
                       if p.scatter == scatter and p.area_mm2 <= row.max_area_mm2 and p.error <= row.max_error]  # fmt: skip
            assert (pair is None and not allowed) or (pair is not None and pair.latency_s <= 1.005 * min(allowed))
    levels = error_levels(pairs)
    assert 1 <= len(levels) <= 8 and list(levels) == sorted(levels)
    assert plain_against_scatter(pairs, [1.0], levels) == []
    assert "no error level in common" in answer([])
    for row in outcome.comparisons:
        if row.plain is not None and row.scatter is not None and row.speedup_per_area is not None:
            areas = row.plain.area_mm2 / row.scatter.area_mm2
            assert row.speedup_per_area == pytest.approx(row.speedup * areas)
    assert gains(replace(outcome, moved=())).startswith("No pair became faster")
    assert "of 1 cases" in answer([row for row in outcome.comparisons if row.speedup is not None][:1])


def test_a_long_front_is_told_in_part(outcome: Outcome) -> None:
    assert front_table(outcome.front[:2]).count("\n") == 4
    assert front_table([outcome.front[0]] * 100).count("\n") == 26


def test_every_choice_of_the_default_space_is_a_machine_of_the_energy_table() -> None:
    space = Space(scratchpad_kib_per_lane=(2.0, 16.0), accumulator_kib_per_lane=(0.5, 4.0), rank_kib_per_bank=(4, 16))
    layer = {"one": DenseWeights(torch.eye(8))}
    for choice in list(space.machines())[::7]:
        machine = space.machine(choice, BASE)
        assert simulate(lower(layer, machine, tokens=1), machine).energy_pj > 0


def _refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


def test_what_cannot_be_reached_is_told_with_what_can() -> None:
    least = min(area_mm2(SMALL.machine(choice, BASE)).total.mm2 for choice in SMALL.machines())
    _refused(
        lambda: codesign(_problem(Bounds(1.0)), Measurements(None), trials=4),
        rf"max area: found 1 mm2; the smallest machine of the space, plain-8-\S+, takes {least:.1f} mm2",
    )
    _refused(
        lambda: codesign(_problem(Bounds(max_energy_pj=1.0)), Measurements(None), trials=20),
        r"max energy: found 1e-06 uJ; the least that was reached is \d+\.\d+ uJ, by \w+ on (plain|scatter)-",
    )
    _refused(
        lambda: codesign(_problem(Bounds(-1.0)), Measurements(None)),
        "max_area_mm2: found -1; a bound is positive and finite",
    )
    _refused(lambda: search(_problem(), Measurements(None), 1, 0), "trials: found 1; there are 2 kinds of machine")


def test_bad_spaces_and_folders_are_told(tmp_path: Path) -> None:
    path = tmp_path / "space.toml"
    for text, message in (
        ("sides = [16, 8]", "sides must rise"),
        ("shares = []", "shares must have a value"),
        ("sides = [10]", "1.25 banks a lane of 10 lanes are not a whole number"),
        ('families = ["lattice"]', "a plain machine is not given lattice"),
        ('families = ["width"]', "field 'families.0': found 'width'"),
        ("shares = [1.5]", "field 'shares.0': found 1.5"),
        (
            "speed = 3",
            "field 'speed': found unknown key with value 3; no key 'speed' exists. Fields are sides, scatter",
        ),
        ('sides = ["8"]', "field 'sides.0': found '8'; Input should be a valid integer"),
        ("gb_per_s = [true]", "field 'gb_per_s.0': found True; Input should be a valid number"),
        ("scatter = [1]", "field 'scatter.0': found 1; Input should be a valid boolean"),
        ("sides = ", "text that is not TOML"),
    ):
        path.write_text(text)
        _refused(lambda: Space.load(path), message)
    path.write_text("sides = [8]\nscatter = [true]\n")
    assert Space.load(path).sides == (8,)
    (tmp_path / "measurements.json").write_text('{"format": "other"}')
    _refused(
        lambda: Measurements(tmp_path), "measurements.json: field 'format': found 'other'; Input should be 'gblr-hw c"
    )
    row = {"latency_cycles": "9", "energy_pj": 1.0, "unfit": ""}
    document = {"format": "gblr-hw codesign measurements", "version": 1, "measurements": {"a": row}}
    (tmp_path / "measurements.json").write_text(json.dumps(document))
    _refused(
        lambda: Measurements(tmp_path), "field 'measurements.a.latency_cycles': found '9'; Input should be a valid"
    )
    _refused(lambda: draw_codesign([], [10.0]), "draw_codesign: points: found no pair")


@pytest.mark.night
def test_a_machine_that_cannot_hold_the_network_is_refused_not_hidden() -> None:
    # A token of so many inputs takes more than any scratchpad has.
    problem = _problem(layers={"deep": np.ones((16, 2**17))})
    choice = next(iter(SMALL.machines()))
    assert pair_of(problem, choice, problem.networks.uniform("low_rank", 8, 0.5), Measurements(None)) is None
    _refused(lambda: search(problem, Measurements(None), 8, 0), "space: found no pair measured")


def test_a_missing_optuna_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    _refused(lambda: search(_problem(), Measurements(None), 4, 0), r"no package 'optuna'.*gblr-hw\[codesign\]")


def test_the_command_writes_front_machines_and_picture(tmp_path: Path) -> None:
    from gblr_hw.cli.app import app

    layers = {name: DenseWeights(torch.from_numpy(matrix).float()) for name, matrix in _layers().items()}
    save_checkpoint({**layers, "head": DenseWeights(torch.eye(4))}, tmp_path / "net.safetensors")
    space = tmp_path / "space.toml"
    space.write_text(
        'sides = [8]\nbanks_per_lane = [1.0]\nshares = [0.5]\nfamilies = ["low_rank", "block_sparse", "dense"]\n'
        "scratchpad_kib_per_lane = [2.0]\naccumulator_kib_per_lane = [0.5]\nrank_kib_per_bank = [4]\nweight_tiles = [16]\n"
    )
    call = [
        "codesign", str(tmp_path / "net.safetensors"), "--space", str(space), "--tokens", "8", "--trials", "12",
        "--exclude", "head", "--work", str(tmp_path / "work"), "-o", str(tmp_path / "front.json"),
        "--picture", str(tmp_path / "front.png"), "--machines", str(tmp_path / "machines"),
    ]  # fmt: skip
    result = CliRunner().invoke(app, call)
    assert result.exit_code == 0, result.output
    assert "plain against scatter" in result.output and "Within equal areas and errors" in result.output
    front = json.loads((tmp_path / "front.json").read_text())
    assert front["layers"] == ["smooth", "rough"] and front["area_table"]["node_nm"] == 180
    assert (tmp_path / "front.png").read_bytes().startswith(b"\x89PNG")
    for row in front["front"]:
        assert Machine.load(tmp_path / "machines" / f"{row['machine_name']}.toml").to_dict() == row["machine"]
    again = CliRunner().invoke(app, [*call, "--json"])
    assert json.loads(again.stdout) == front
    bad = CliRunner().invoke(app, [*call, "--include", "nothing"])
    assert isinstance(bad.exception, InputError) and "no dense layer" in str(bad.exception)


def test_the_picture_has_a_panel_for_each_area_with_a_pair() -> None:
    points = [CodesignPoint(1e-5 * k, 0.5 / k, 20.0 * k, k % 2 == 0, "low_rank") for k in range(1, 5)]
    figure = draw_codesign(points, [10.0, 50.0, 100.0], title="pairs")
    assert [axes.get_title() for axes in figure.axes] == ["up to 50 mm²", "up to 100 mm²"]


def test_equal_pairs_stand_on_the_front_once(outcome: Outcome) -> None:
    pair: Pair = outcome.front[0]
    assert unbeaten([pair, replace(pair)], ("latency_s", "error")) == [pair]


def test_families_that_are_chosen_whole_are_searched_where_they_are_named(tmp_path: Path) -> None:
    space = SMALL.model_copy(update={"families": ("blast", "monarch", "dense"), "sides": (8,)})
    found = codesign(_problem(space=space, work=tmp_path), Measurements(tmp_path), trials=8)
    families = {pair.network.family for pair in found.pairs if pair.scatter}
    assert families == {"blast", "monarch", "dense"}
    assert {pair.network.family for pair in found.pairs if not pair.scatter} == {"dense"}
    assert all((pair.tile_share < 1) == (pair.network.family != "dense") for pair in found.pairs)
    fitted: list[str] = []
    problem = _problem(space=space, work=tmp_path)
    again = replace(problem, networks=replace(problem.networks, fitting=fitted.append))
    assert codesign(again, Measurements(tmp_path), trials=8).pairs == found.pairs and not fitted
    with pytest.raises(InputError, match="layer 'odd': found 31 x 29; no blocks that 'blast' is tried with divide it"):
        search(_problem(space=space, layers={"odd": np.ones((31, 29))}), Measurements(None), 2, 0)
