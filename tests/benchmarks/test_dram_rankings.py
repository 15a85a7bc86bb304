"""What tables of rankings say of families that change places, on rows made by hand."""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.dram.ranking_tables import networks_text, study_text
from benchmarks.dram.rankings import in_family
from gblr_hw.weights.chains import MonarchWeights
from gblr_hw.weights.stored import DenseWeights
from simulator import Machine


def row(kind: str, family: str, plain: int, banks: int, accuracy: float = 0.9) -> dict[str, Any]:
    on = [
        {"model": model, "channels": channels, "gb_per_s": 25.6, "cycles": cycles}
        for model, channels, cycles in (("bandwidth", 1, plain), ("hbm2-1600", 2, banks))
    ]
    return {"kind": kind, "network": "net", "machine": "mid-32", "family": family, "accuracy": accuracy, "on": on}


def test_pairs_that_change_places_are_named_with_their_distance() -> None:
    others = [row("network", name, 500, 500) for name in ("block sparse", "lattice", "Monarch", "BLAST")]
    rows = [row("network", "dense", 1000, 1000), row("network", "low rank", 300, 340), *others]
    held = networks_text([*rows, row("network", "GBLR", 310, 350)])
    assert "the order is that of one latency under all 1 standards" in held
    moved = networks_text([*rows, row("network", "GBLR", 310, 330)])
    assert "1 of 15 pairs change places, in shares of dense: GBLR and low rank by 0.010 (hbm2-1600)." in moved


def test_the_fastest_is_one_that_keeps_the_accuracy() -> None:
    rows = [row("study", "dense", 1000, 1000), row("study", "low rank", 300, 340), row("study", "BLAST", 200, 200, 0.8)]
    assert "within 0.5 points of dense's accuracy: *low rank* (25.6 GB/s with one latency, 2 x" in study_text(rows)


def test_layers_that_no_blocks_divide_stay_dense() -> None:
    weights = {"odd": DenseWeights(torch.ones(97, 96), None), "even": DenseWeights(torch.ones(96, 96), torch.ones(96))}
    found = in_family(weights, "Monarch", Machine.load("mid-32"))
    assert found["odd"] is weights["odd"]
    assert isinstance(found["even"], MonarchWeights) and found["even"].bias is weights["even"].bias
