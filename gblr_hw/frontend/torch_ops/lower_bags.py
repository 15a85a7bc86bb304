"""Bags of a table's rows: their sums, means or largest."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import torch

from gblr_hw.frontend.graph import layout
from gblr_hw.frontend.graph.builder import Builder, Value
from gblr_hw.frontend.graph.layout import LayoutError, View
from gblr_hw.frontend.graph.registry import Arguments, lowers
from gblr_hw.frontend.operators.join_ops import concatenated
from gblr_hw.frontend.operators.lookup_ops import looked_up
from gblr_hw.frontend.operators.relays import regrouped, seen
from gblr_hw.frontend.operators.vector_ops import pointwise, reduced
from gblr_hw.frontend.torch_ops.lower_pointwise import combined


@lowers("aten.embedding_bag.default", "aten._embedding_bag.default", "aten._embedding_bag_forward_only.default")
def _embedding_bag(builder: Builder, a: Arguments) -> tuple[View]:
    """Bags are cut at constant places. A row that is padding counts in none."""
    if isinstance(a["offsets"], View):
        raise LayoutError("bags of a table are cut at places that depend on an input")
    table, padding = a["weight"], a["padding_idx"]
    function = ("sum", "mean", "max")[a["mode"]]
    padded = padding is not None and padding >= 0
    if padded and function == "max":
        raise LayoutError("the largest of a bag's rows is asked for, some of which are padding")
    if padded:
        table = builder.derived(("bags", id(table), padding), lambda: _without(table, padding), table)
    rows = looked_up(builder, table, [a["indices"]])
    if a["per_sample_weights"] is not None:
        given = a["per_sample_weights"]
        share = layout.insert(given, 1) if isinstance(given, View) else builder.keep(given.unsqueeze(1))
        rows = combined(builder, "multiply", rows, share)
    cuts = [*a["offsets"].tolist(), a["indices"].shape[0]]
    cuts = cuts[:-1] if a["include_last_offset"] else cuts
    if not padded or function == "sum":
        return (_over_bags(builder, function, rows, cuts),)
    ones = builder.derived(("counted", id(a["weight"]), padding), lambda: _without(torch.ones(len(table), 1), padding),
                           a["weight"])  # fmt: skip
    count = _over_bags(builder, "sum", looked_up(builder, ones, [a["indices"]]), cuts)
    share = pointwise(builder, "power", pointwise(builder, "maximum", count, numbers=(1.0,)), numbers=(-1.0,))
    return (pointwise(builder, "multiply", _over_bags(builder, "sum", rows, cuts), share),)


def _without(table: torch.Tensor, row: int) -> torch.Tensor:
    table = table.detach().clone()
    table[row] = 0
    return table


def _over_bags(builder: Builder, function: str, rows: View, cuts: list[int]) -> View:
    sizes = {last - first for first, last in pairwise(cuts)}
    if len(sizes) == 1 and 0 not in sizes:
        bags = regrouped(builder, rows, [len(cuts) - 1, sizes.pop(), rows.shape[1]])
        return reduced(builder, function, bags, [1], keep=False)
    parts: list[Value] = []
    for first, last in pairwise(cuts):
        if last == first:
            parts.append(builder.keep(torch.zeros(1, rows.shape[1])))
            continue
        bag = seen(builder, rows, partial(layout.take, position=0, start=first, count=last - first))
        parts.append(reduced(builder, function, bag, [0], keep=True))
    return concatenated(builder, parts, 0)
