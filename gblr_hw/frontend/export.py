"""From an nn.Module to an operator graph and the weights of its matrix operators."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from gblr_hw.frontend.capture import Captured, capture, release, split_arguments
from gblr_hw.frontend.graph.builder import Builder
from gblr_hw.frontend.graph.layout import LayoutError
from gblr_hw.frontend.graph.registry import COMPLEX, LOWERINGS, Lowering
from gblr_hw.frontend.operators.outputs import output_port
from gblr_hw.frontend.tidy.finish import finished
from gblr_hw.frontend.torch_ops import (
    lower_bags,
    lower_choices,
    lower_complex,
    lower_functions,
    lower_images,
    lower_joins,
    lower_logic,
    lower_matrix,
    lower_pointwise,
    lower_pools,
    lower_rows,
    lower_views,
    lower_volumes,
)
from gblr_hw.frontend.translate import Translation, Treatment
from gblr_hw.weights.stored import LayerWeights
from simulator.base.errors import InputError
from simulator.network.network import Network

# The modules that declare lowering functions; naming them keeps the imports from looking unused.
_DECLARED = (
    lower_views, lower_pointwise, lower_functions, lower_rows, lower_pools, lower_matrix, lower_joins, lower_logic,
    lower_choices, lower_bags, lower_images, lower_volumes, lower_complex,
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class ExportedNetwork:
    """A model as an operator graph, the weights of each of its "linear" operators by operator name, and what to know
    about the translation. treated: what was accounted for as the user said, without being computed, one line each.
    decided: where the example's values decided a branch or a shape, one line each.
    """

    network: Network
    weights: Mapping[str, LayerWeights]
    notes: tuple[str, ...]
    treated: tuple[str, ...] = ()
    decided: tuple[str, ...] = ()


def export_network(
    model: nn.Module,
    example_inputs: Any = None,
    *,
    kwargs: Mapping[str, Any] | None = None,
    treat: Mapping[str, Treatment] | None = None,
    plugins: Mapping[str, Lowering] | None = None,
    by_example: bool = False,
) -> ExportedNetwork:
    """The operator graph of a model in evaluation mode.

    Parameters
    ----------
    example_inputs: a tensor, a tuple of positional arguments, or a dict of keyword arguments; kwargs: keyword arguments
    beside those. They may hold tensors in containers and caches; their shapes are the network's. Every tensor in what
    the model returns is an output, named by the keys and attributes that lead to it.
    treat: for operations that are not known, by node name, module path or operation ("aten.foo.default"): "free" passes
    the first input on, cut or repeated to the output's shape, "vector" lets the vector unit pass over it once. Neither
    computes the operation, which the notes say.
    plugins: operation -> lowering function (`registry.Lowering`), before the built-in ones.
    by_example: branches and shapes that depend on the inputs' values are those of the example, which the notes say line
    by line. Without it only inputs of whole numbers (words, masks, positions) may decide.

    Raises InputError for what torch.export cannot follow, and for an operation that is not known or a value that lies
    in a way that no operator can read, naming the node and its source line.
    """
    treat, plugins = dict(treat or {}), dict(plugins or {})

    def known(name: str) -> bool:
        tables: tuple[Mapping[str, Any], ...] = (plugins, LOWERINGS, COMPLEX, treat)
        return any(name in table or name.rpartition(".")[0] in table for table in tables)

    captured = capture(model, *split_arguments(example_inputs, kwargs), known, by_example)
    try:
        return _lowered(model, captured, treat, plugins)
    finally:
        release(captured.layers)


def _lowered(
    model: nn.Module, captured: Captured, treat: Mapping[str, Treatment], plugins: Mapping[str, Lowering]
) -> ExportedNetwork:
    """Without copies into other axes if that is possible, else with them.

    Sequences come first in most models' arrays, tokens in some: only how the model uses them shows which.
    """
    first: InputError | None = None
    for relays, tokens_first in ((False, False), (False, True), (True, False), (True, True)):
        builder = Builder(tokens_first=tokens_first, relays=relays)
        try:
            return _translated(model, captured, builder, treat, plugins)
        except InputError as error:
            if not isinstance(error.__cause__, LayoutError):
                raise
            first = error if first is None or (relays and not tokens_first) else first
    assert first is not None
    raise first from None


def _translated(
    model: nn.Module,
    captured: Captured,
    builder: Builder,
    treat: Mapping[str, Treatment],
    plugins: Mapping[str, Lowering],
) -> ExportedNetwork:
    builder.layers = captured.layers
    builder.parameter_names = captured.names
    builder.constant_names.update(captured.names)
    decided = captured.decisions.notes() if captured.decisions is not None else []
    for note in decided:
        builder.note(note)
    outputs = []
    for name, value in Translation(model, captured, builder, treat, plugins).run():
        outputs += output_port(builder, name, value)
    if not outputs:
        raise InputError(
            f"model {type(model).__name__}",
            f"no output that depends on an input (of {len(captured.outputs)})",
            "a network computes something from its inputs",
            "Return what the model computes, and give the inputs that it computes it from as tensors.",
        )
    _note_types(builder, captured)
    _note_fast_path(builder, model)
    return ExportedNetwork(*finished(builder, outputs), tuple(builder.treatments), tuple(decided))


def _note_fast_path(builder: Builder, model: nn.Module) -> None:
    """PyTorch's encoder packs padded batches for its fast path, which returns zeros where padding was."""
    for path, module in model.named_modules():
        if isinstance(module, nn.TransformerEncoder) and getattr(module, "use_nested_tensor", False):
            builder.note(
                f"'{path or type(module).__name__}': rows that a src_key_padding_mask hides are computed like others, "
                "as with enable_nested_tensor=False; PyTorch's fast path returns zeros there."
            )


def _note_types(builder: Builder, captured: Captured) -> None:
    small = {
        str(value.dtype) for value in captured.constants.values()
        if isinstance(value, torch.Tensor) and value.dtype in (torch.float16, torch.bfloat16)
    }  # fmt: skip
    if small:
        builder.note(f"Parameters in {', '.join(sorted(small))} are read as float32.")
