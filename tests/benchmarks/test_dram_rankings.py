"""What tables of rankings say of families that change places, on rows made by hand."""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.dram.ranking_tables import networks_text
from benchmarks.dram.study_rankings import KEY, jobs
from benchmarks.dram.study_tables import claims_text, setting_text, settings_text
from benchmarks.structures.in_networks import in_family
from gblr_hw.weights.chains import MonarchWeights
from gblr_hw.weights.stored import DenseWeights
from simulator import Machine


def row(family: str, plain: int, banks: int, **what: Any) -> dict[str, Any]:
    on = [
        {"model": model, "channels": channels, "gb_per_s": 25.6, "cycles": cycles}
        for model, channels, cycles in (("bandwidth", 1, plain), ("hbm2-1600", 2, banks))
    ]
    return {"network": "net", "machine": "mid-32", "family": family, "on": on, **what}


def test_pairs_that_change_places_are_named_with_their_distance() -> None:
    others = [row(name, 500, 500) for name in ("block sparse", "lattice", "Monarch", "BLAST")]
    rows = [row("dense", 1000, 1000), row("low rank", 300, 340), *others]
    held = networks_text([*rows, row("GBLR", 310, 350)])
    assert "the order is that of one latency under all 1 standards" in held
    moved = networks_text([*rows, row("GBLR", 310, 330)])
    assert "1 of 15 pairs change places, in shares of dense: GBLR and low rank by 0.010 (hbm2-1600)." in moved


def test_a_network_that_lacks_a_family_is_not_shown_yet() -> None:
    names = ("dense", "low rank", "block sparse", "lattice", "Monarch", "BLAST", "GBLR")
    whole = [row(name, 500, 500) for name in names]
    begun = [one | {"network": "begun"} for one in whole[:3]]
    assert networks_text([*whole, *begun]) == networks_text(whole)


def trained(family: str, plain: int, banks: int, accuracy: float = 0.9) -> dict[str, Any]:
    setting = {"part": "digits", "trained_for": "edge-16", "budget": 1.0 if family == "dense" else 0.5, "seed": 0}
    return row(family, plain, banks, accuracy=accuracy, **setting)


STUDY = [
    trained("dense", 1000, 1000),
    trained("low rank", 300, 340),
    trained("Monarch", 310, 330),
    trained("BLAST", 200, 200, 0.8),  # not as accurate
    trained("narrower", 290, 350),
    trained("automatic choice", 300, 340),
]


def test_a_setting_is_shown_with_what_changes_places() -> None:
    shown = setting_text(STUDY)
    assert "| low rank         |   90.0 % |                  0.300 |                    0.340 |" in shown
    assert "5 of 10 pairs change places, the widest of them, in shares of dense: Monarch and narrower by 0.020" in shown


def test_the_fastest_of_a_setting_is_one_that_keeps_the_accuracy() -> None:
    line = settings_text(STUDY).splitlines()[2]
    assert [cell.strip() for cell in line.split("|")[4:-1]] == ["mid-32", "5", "5 of 10", "0.020", "4", "0 of 1"]


def test_claims_are_told_before_one_latency_and_before_banks() -> None:
    told = claims_text(STUDY)
    line = told.splitlines()[2]
    assert [cell.strip() for cell in line.split("|")[4:-1]] == [
        "low rank 0.300", "Monarch 0.330", "narrower 0.290", "Monarch 0.330",
    ]  # fmt: skip
    assert "*automatic choice* has the fewest cycles among structures in 1 of 1 cases before one latency, 0 b" in told
    assert "*automatic choice, any width* has the fewest cycles among structures in 0 of 1 cases" in told


def test_a_network_that_cannot_reach_its_target_is_in_no_table() -> None:
    lost = {key: value for key, value in trained("GBLR", 1, 1).items() if key not in ("accuracy", "on")}
    assert claims_text([*STUDY, lost | {"unreachable": "why"}]) == claims_text(STUDY)
    assert settings_text([*STUDY, lost | {"unreachable": "why"}]) == settings_text(STUDY)


def test_each_network_of_the_study_is_asked_for_once() -> None:
    asked = [tuple(job) for job in jobs()]
    assert len(set(asked)) == len(asked) and len(asked[0]) == len(KEY) - 1
    assert sum(family == "dense" for *_, family in asked) == 3


def test_layers_that_no_blocks_divide_stay_dense() -> None:
    weights = {"odd": DenseWeights(torch.ones(97, 96), None), "even": DenseWeights(torch.ones(96, 96), torch.ones(96))}
    found = in_family(weights, "Monarch", Machine.load("mid-32"), 0.3)
    assert found["odd"] is weights["odd"]
    assert isinstance(found["even"], MonarchWeights) and found["even"].bias is weights["even"].bias
