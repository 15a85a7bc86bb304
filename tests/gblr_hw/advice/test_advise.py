"""Advice: every way keeps to the error, closed forms follow the simulator, and the winner is the one that must be."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from gblr_hw.advice.advise import FALLBACK, Regime, advise
from gblr_hw.advice.confirm import MIXED, confirm, layer_by_layer
from gblr_hw.advice.report import disagreements, document, sentence
from gblr_hw.advice.ways import WAYS, Way, _table
from gblr_hw.jobs.executors import Workers
from gblr_hw.weights.stored import DenseWeights
from simulator.base.errors import InputError
from simulator.machine.machine import Machine
from tests.oracles.elsewhere import work_elsewhere

BASE = Machine.load("mid-32")
MACHINE = BASE.with_(datatypes={"narrow_bits": 4})


def low_rank_layer(size: int, ranks: int, noise: float, seed: int = 0) -> DenseWeights:
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(size, ranks)) @ rng.normal(size=(ranks, size)) / np.sqrt(ranks)
    return DenseWeights(torch.from_numpy((matrix + noise * rng.normal(size=(size, size))).astype(np.float32)))


@pytest.fixture(scope="module")
def advice():
    layers = {
        "a": low_rank_layer(256, 32, 0.05),
        "b": low_rank_layer(256, 32, 0.05, 1),
        "c": low_rank_layer(128, 64, 0.3),
    }
    return advise(layers, MACHINE, error=0.12)


def test_layers_of_one_size_are_priced_once(advice):
    assert [(group.names, group.chosen) for group in advice.groups] == [(("a", "b"), "b"), (("c",), "c")]


def test_every_way_keeps_to_the_error_or_says_why_not(advice):
    for found in (found for group in advice.found for found in group.values()):
        assert found.error <= 0.12 * (1 + 1e-9) if found.weights is not None else found.why
    assert advice.found[0]["low_rank"].weights is not None
    assert "needs no ranks" in advice.found[0]["int4_and_ranks"].why  # four bits alone are within 0.12


def test_closed_forms_follow_the_simulator(advice):
    regimes = [Regime(tokens, gb) for tokens in (1, 64, 200) for gb in (6.4, 25.6)]
    run = layer_by_layer(advice)
    for way in advice.found[0]:
        if advice.stands_for(way) < 3:
            continue
        for regime in regimes:
            ((cycles, _, _),) = run([(dict.fromkeys(("a", "b", "c"), way), regime)], lambda *at: None)
            assert advice.total(way, regime, "latency_cycles") == pytest.approx(cycles, rel=0.12)


def test_bits_win_at_few_tokens_and_ranks_at_many(advice):
    few, many = Regime(1, 6.4), Regime(512, 25.6)
    assert advice.cost(0, FALLBACK, few).binds == "weight bytes"
    assert advice.cost(0, FALLBACK, many).binds == "multiplications"
    assert advice.total("dense_int4", few, "latency_cycles") < 0.6 * advice.total(FALLBACK, few, "latency_cycles")
    assert advice.total("dense_int4", many, "latency_cycles") > 0.97 * advice.total(FALLBACK, many, "latency_cycles")
    assert advice.best(many, "latency_cycles") not in ("dense_int4", FALLBACK)
    assert "which waits for multiplications" in sentence(advice, many, "latency_cycles")


def test_the_best_of_each_layer_is_never_dearer_than_one_way(advice):
    for tokens in (1, 32, 300):
        regime = Regime(tokens, 25.6)
        for measure in ("latency_cycles", "energy_pj", "dram_bytes"):
            one = min(advice.total(way, regime, measure) for way in advice.found[0])
            assert advice.mixed_total(regime, measure) <= one * (1 + 1e-9)


def test_preload_binds_where_rows_are_few_and_the_channel_is_wide(advice):
    assert advice.cost(0, FALLBACK, Regime(4, 1000.0)).binds == "preload"


def test_ranks_beside_four_bits_reach_what_four_bits_do_not():
    layer = low_rank_layer(256, 32, 0.02)
    within = advise({"a": layer}, MACHINE, error=0.06, ways=["int4_and_ranks", "dense_int4"])
    four, both = within.found[0]["dense_int4"], within.found[0]["int4_and_ranks"]
    assert "its error is" in four.why
    assert both.weights is not None
    assert both.error <= 0.06
    assert both.weights.u.shape[1] % 32 == 0


def test_the_default_error_is_that_of_four_bits():
    found = advise({"a": low_rank_layer(96, 96, 0.0)}, MACHINE, ways=["dense_int4"])
    assert found.errors is not None
    assert found.found[0]["dense_int4"].error == pytest.approx(found.errors[0])


def test_a_share_of_the_tiles_instead():
    found = advise(
        {"a": low_rank_layer(256, 200, 0.0)}, MACHINE, tiles=0.4, ways=["low_rank", "monarch", "block_sparse"]
    )
    for way in ("low_rank", "monarch", "block_sparse"):
        cost = found.cost(0, way, Regime(256, 25.6))
        assert float(cost.latency_cycles) < 0.55 * found.total(FALLBACK, Regime(256, 25.6), "latency_cycles")


def test_confirmed_ways_are_the_best_two_and_the_dense_ones(advice):
    regime = Regime(200, 25.6)
    confirmed = confirm(advice, [regime], "latency_cycles", layer_by_layer(advice))
    ranked = sorted(advice.found[0], key=lambda way: advice.total(way, regime, "latency_cycles"))
    assert {FALLBACK, *ranked[:2]} <= {one.way for one in confirmed} <= {FALLBACK, *ranked[:2], MIXED}
    assert disagreements(advice, confirmed, "latency_cycles") == []
    worse = [replace(one, latency_cycles=1.0) if one.way == FALLBACK else one for one in confirmed]
    assert "closed forms say" in disagreements(advice, worse, "latency_cycles")[0]


def _told(**place: Any) -> str:
    layers = {"a": low_rank_layer(128, 16, 0.05), "b": low_rank_layer(64, 32, 0.3)}
    with Workers(**place) as workers:
        found = advise(layers, MACHINE, error=0.12, ways=["dense_int4", "low_rank", "block_sparse"], workers=workers)
        regimes = [Regime(tokens, gb) for tokens in (1, 200) for gb in (6.4, 25.6)]
        confirmed = confirm(found, regimes, "latency_cycles", layer_by_layer(found, workers))
    return json.dumps(document(found, regimes, "latency_cycles", confirmed), sort_keys=True)


def test_advice_made_elsewhere_is_advice_made_here(monkeypatch):
    wanted = _told()
    batches = work_elsewhere(monkeypatch)
    assert _told() == wanted
    assert batches[0] == 2 * 4 and len(batches) == 2


@pytest.mark.night
@pytest.mark.filterwarnings("default")  # the cluster's own
def test_processes_and_a_cluster_give_the_same_advice():
    wanted = _told()
    assert _told(jobs=2) == wanted
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        assert _told(scheduler=cluster.scheduler_address) == wanted


def test_the_document_names_what_it_is(advice):
    told = document(advice, [Regime(1, 25.6)], "latency_cycles", [])
    assert (told["format"], told["version"]) == ("gblr-hw advice", 1)
    assert told["regimes"][0]["layers"][0]["ways"][FALLBACK]["binds"] == "weight bytes"


def test_plain_machines_say_what_they_do_not_run():
    plain = Machine.load("plain-32")
    found = advise({"a": low_rank_layer(96, 8, 0.01)}, plain, error=0.2).found[0]
    assert "no narrow tiles" in found["dense_int4"].why
    assert "permutation network" in found["lattice"].why
    assert found["rank_groups"].weights is not None


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"error": 0.1, "tiles": 0.5}, "compared at one of them"),
        ({"error": 0.001}, "from 0.02"),
        ({"tiles": 1.5}, "between 0 and 1"),
        ({"error": 0.1, "ways": ["lowrank"]}, "'lowrank'"),
    ],
)
def test_bad_options_are_refused(options, told):
    with pytest.raises(InputError, match=told):
        advise({"a": low_rank_layer(64, 4, 0.0)}, MACHINE, **options)


def test_without_narrow_tiles_there_is_no_error_of_four_bits():
    with pytest.raises(InputError, match="no narrow tiles"):
        advise({"a": low_rank_layer(64, 4, 0.0)}, BASE)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"make": "gone"}, "made 'gone'"),
        ({"name": "unheard"}, "has its name"),
        ({"colour": WAYS["dense_int4"].colour}, "another one's"),
    ],
)
def test_an_incomplete_way_fails_at_import(changed, told):
    with pytest.raises(TypeError, match=told):
        _table([WAYS["dense_int4"], replace(WAYS["low_rank"], **changed)])


def test_two_entries_of_one_name_fail_at_import():
    with pytest.raises(TypeError, match="two entries"):
        _table([WAYS["lattice"], Way("lattice", "lattice", "family", "none", "#123456")])
