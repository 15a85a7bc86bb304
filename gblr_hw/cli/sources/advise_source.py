"""What ``gblr-hw advise`` compares: the dense layers of a checkpoint, or of a model, its network around them."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from gblr_hw.cli.options.advise_options import TOKENS
from gblr_hw.cli.options.shared_options import TensorOptions
from gblr_hw.cli.sources.lower_source import Wish, model_of
from simulator.base.errors import InputError

if TYPE_CHECKING:
    from gblr_hw.frontend.export import ExportedNetwork
    from gblr_hw.weights.stored import DenseWeights

_MOST_TOKENS = 1 << 20


def of_model(
    name: str, checkpoint: Path | None, tokens: str | None, random_weights: bool, leave_out: tuple[str, ...]
) -> tuple[list[int], Callable[[int], ExportedNetwork], dict[str, tuple[int, bool]]]:
    """Tokens of each regime, the network for so many, and the rows of every operator of it: of one token, or of every
    run. Raises InputError for tokens of a model whose inputs are given.
    """
    from gblr_hw.frontend.export import export_network
    from gblr_hw.frontend.sources import SOURCES

    counted = name in SOURCES and SOURCES[name].tokens > 0
    if tokens is not None and not counted:
        rule = "rows of this model follow from its own example inputs"
        raise InputError("--tokens", f"with --model {name}", rule, "Leave it out.")
    counts = numbers("--tokens", tokens or TOKENS) if counted else [1]

    @lru_cache(maxsize=1)
    def exported(count: int) -> ExportedNetwork:
        wish = Wish(name, 1, count if counted else None, 0, 0, checkpoint, None, random_weights, None, leave_out)
        built, inputs, kwargs, _ = model_of(wish)
        return export_network(built, inputs, kwargs=kwargs)

    rows = _rows(exported(max(counts)), max(counts)) if counted else _rows(exported(1), 0)
    return counts, exported, rows


def _rows(exported: ExportedNetwork, tokens: int) -> dict[str, tuple[int, bool]]:
    """Rows of each linear operator. One that has as many rows for each token scales with them; tokens 0: none does."""
    found = {}
    for operator in exported.network.operators:
        if operator.kind == "linear":
            scales = tokens > 0 and operator.rows % tokens == 0
            found[operator.name] = (operator.rows // tokens, True) if scales else (operator.rows, False)
    return found


def chosen(
    exported: ExportedNetwork, include: list[str] | None, exclude: list[str] | None, name: str
) -> dict[str, DenseWeights]:
    """The dense layers of a network that patterns choose."""
    from gblr_hw.weights.dense_layers import dense_layers

    return dense_layers(exported.weights, f"model '{name}'", include, exclude)


def of_checkpoint(
    checkpoint: Path | None,
    include: list[str] | None,
    exclude: list[str] | None,
    tensors: TensorOptions,
) -> dict[str, DenseWeights]:
    """The dense layers of a checkpoint that patterns choose."""
    from gblr_hw.files.checkpoint import load_checkpoint
    from gblr_hw.weights.dense_layers import dense_layers

    if checkpoint is None:
        raise InputError("advise", "neither a checkpoint nor --model", "there must be layers", "Name one of them.")
    layers = load_checkpoint(checkpoint, **vars(tensors.told()))
    return dense_layers(layers, f"checkpoint '{checkpoint}'", include, exclude)


def numbers(option: str, text: str) -> list[int]:
    """Whole numbers with commas between. Raises InputError, naming the option."""
    found = []
    for part in text.split(","):
        if not part.strip().isdigit() or not 1 <= int(part) <= _MOST_TOKENS:
            rule = f"it is whole numbers from 1 to {_MOST_TOKENS:,}, with commas between"
            raise InputError(option, repr(text), rule, "Write 1,16,197, say.")
        found.append(int(part))
    return list(dict.fromkeys(found))
