"""What ``gblr-hw lower --model`` lowers: a known network, or a function of the user's own code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from simulator.base.errors import InputError

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Wish:
    """The options of a model: sizes of its inputs, where weights come from, GBLR in place of dense."""

    name: str
    batch: int
    tokens: int | None
    past: int
    seed: int
    checkpoint: Path | None
    gaussian: bool | None
    random_weights: bool
    gblr: float | None


def model_of(wish: Wish) -> tuple[nn.Module, Any]:
    """The model in evaluation mode, with weights, and example inputs. Raises InputError if weights are missing."""
    from gblr_hw.frontend.own_model import own_model
    from gblr_hw.frontend.put_weights import put_weights
    from gblr_hw.frontend.random_gblr import check_fraction, replace_by_random_gblr
    from gblr_hw.frontend.sources import load_source

    if wish.gblr is not None:
        check_fraction(wish.gblr)
    if model_file(wish.name) is not None:
        model, inputs = own_model(wish.name)
    else:
        model, inputs = load_source(wish.name, batch=wish.batch, tokens=wish.tokens, past=wish.past, seed=wish.seed)
    given = has_weights(wish.name)
    if wish.checkpoint is not None:
        missing = put_weights(model, wish.checkpoint, wish.gaussian)
        if missing and not wish.random_weights and not given:
            raise InputError(
                f"checkpoint '{wish.checkpoint}'",
                f"nothing for {len(missing)} parameters, of which {', '.join(missing[:3])}",
                "every parameter of the model has a value",
                "Give a whole checkpoint, or --random-weights for the others: cycles do not depend on values.",
            )
    elif not given and not wish.random_weights:
        raise InputError(
            f"model '{wish.name}'",
            "no weights",
            "nothing is fetched",
            "Name a checkpoint, or give --random-weights: cycles do not depend on values.",
        )
    if wish.gblr is not None:
        replace_by_random_gblr(model, wish.gblr, seed=wish.seed)
    return model, inputs


def model_file(name: str | None) -> Path | None:
    """The file of a model that is named FILE.py:FUNCTION; None for the name of a known network."""
    file, colon, _ = (name or "").rpartition(":")
    return Path(file) if colon and file.endswith(".py") else None


def has_weights(name: str) -> bool:
    """Whether a model comes with weights: one from a file does, and some known networks."""
    from gblr_hw.frontend.sources import SOURCES

    return model_file(name) is not None or (name in SOURCES and SOURCES[name].weights)


def treatments(given: Sequence[str]) -> dict[str, Literal["free", "vector"]]:
    """``--treat NAME=free|vector`` options as a mapping."""
    found: dict[str, Literal["free", "vector"]] = {}
    for text in given:
        name, _, how = text.rpartition("=")
        if not name or how not in ("free", "vector"):
            raise InputError(
                "--treat", repr(text), "it is NAME=free or NAME=vector", "Name a node, module or operation."
            )
        found[name] = cast(Literal["free", "vector"], how)
    return found
