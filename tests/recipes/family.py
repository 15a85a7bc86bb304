"""A structure family: "every other rank", low rank whose ranks come in pairs, converted to and trained."""

from __future__ import annotations

from tests.recipes.recipe import Edit, Recipe, after

_MADE = "gblr_hw/conversion/from_dense.py"

RECIPE = Recipe(
    change="family",
    most=3,
    edits=(
        after(
            "gblr_hw/weights/family.py",
            "FAMILIES = registry(\n",
            '    Family(\n        name="rank_pairs",\n        label="rank pairs",\n        about="whole ranks, two at a time",\n'
            '        unit="rank",\n        training="projection",\n        candidates=(),\n        converted=True,\n        whole=False,\n'
            "        square_array=False,\n        stand_in=None,\n    ),\n",
        ),
        after(
            "analysis/pictures/family_marks.py", "_OWN = {\n", '    "rank_pairs": Mark("rank pairs", "#225522", "1"),\n'
        ),
        after(
            _MADE,
            "def _fit_low_rank(problem: FitProblem, tiles: int, options: FitOptions) -> tuple[Structure, Fit]:\n"
            "    return truncated_layer(problem, tiles)\n",
            "\n\ndef _fit_pairs(problem: FitProblem, tiles: int, options: FitOptions) -> tuple[Structure, Fit]:\n"
            "    whole = 2 * _a_whole_rank(problem, options)\n"
            "    return truncated_layer(problem, max(whole // 2, tiles // whole * whole))\n",
        ),
        Edit(
            _MADE,
            '        "low_rank": FromDense(',
            '        "rank_pairs": FromDense(\n            ranks_start, Fitting(_fit_pairs, _a_whole_rank, keeps_runs=False, '
            'without_tiles=True)\n        ),\n        "low_rank": FromDense(',
        ),
    ),
)


def check() -> None:
    import numpy as np
    import torch
    from torch import nn

    from analysis.pictures.family_marks import MARKS
    from gblr_hw import convert
    from gblr_hw.codesign.space import Space
    from gblr_hw.conversion.from_dense import layer_start
    from gblr_hw.weights.factors import evaluate
    from gblr_hw.weights.family import FAMILIES, trained
    from tests.recipes.small_program import small_machine

    assert "rank_pairs" in trained() and "rank_pairs" in MARKS and "rank_pairs" in Space().families
    weight = torch.randn(24, 24, generator=torch.Generator().manual_seed(0))
    found = convert({"layer": weight}, small_machine(), tiles=0.8, family="rank-pairs")["layer"]
    assert found.family == "rank_pairs"
    matrix = evaluate(found).matrix()
    assert 0 < np.linalg.norm(matrix - weight.numpy()) < np.linalg.norm(weight.numpy())
    layer = layer_start(nn.Linear(24, 24), "rank_pairs", 4, 4)
    assert layer.family == "rank_pairs" and FAMILIES[layer.family].unit == "rank"
