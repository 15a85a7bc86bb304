"""The passes after the last node: norms into weights, chains into operators, idioms, names, and the checked graph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from gblr_hw.frontend.graph.builder import Builder
from gblr_hw.frontend.graph.draft import Draft, pruned, renamed
from gblr_hw.frontend.tidy.cut_padding import padding_cut
from gblr_hw.frontend.tidy.early_copies import copies_moved_up
from gblr_hw.frontend.tidy.fold_norm import norms_folded
from gblr_hw.frontend.tidy.fuse import fused
from gblr_hw.frontend.tidy.fuse_chains import chains_fused
from gblr_hw.frontend.tidy.idioms import simplified
from gblr_hw.weights.stored import LayerWeights
from simulator.network.network import Network, Operator, Port


def finished(builder: Builder, outputs: Sequence[Port]) -> tuple[Network, Mapping[str, LayerWeights], tuple[str, ...]]:
    """The graph that a builder holds, its weights by operator, and its notes."""
    inputs = builder.ports()
    draft = Draft(
        builder.tensors, tuple(builder.operators), builder.weights, builder.values, inputs, tuple(outputs),
        builder.homes,
    )  # fmt: skip
    draft = norms_folded(pruned(draft))
    draft = fused(padding_cut(chains_fused(draft)))
    draft = replace(draft, operators=tuple(_tidy(operator) for operator in draft.operators))
    draft = copies_moved_up(pruned(_named_after_modules(draft)))
    network = Network(draft.tensors, draft.operators, draft.inputs, draft.outputs, draft.values)
    return network, draft.weights, tuple(builder.notes)


def _tidy(operator: Operator) -> Operator:
    return simplified(operator) if operator.kind == "vector" else operator


def _named_after_modules(draft: Draft) -> Draft:
    """A vector operator that is all that is left of a module without modules inside gets the module's name, and so
    does its transposed copy."""
    homes = [draft.homes[operator.name] for operator in draft.operators]
    count = Counter(home.path for home in homes)
    names = {
        operator.name: home.path
        for operator, home in zip(draft.operators, homes, strict=True)
        if operator.kind == "vector" and home.leaf and home.path and count[home.path] == 1
        and home.path not in draft.tensors
    }  # fmt: skip
    names |= {
        f"{old}.transposed": f"{new}.transposed" for old, new in names.items() if f"{old}.transposed" in draft.tensors
    }
    return renamed(draft, names)
