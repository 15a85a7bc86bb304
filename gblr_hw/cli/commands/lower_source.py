"""What ``gblr-hw lower --model`` lowers: a known network, or a function of the user's own code."""

from __future__ import annotations

import importlib.util
import sys
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
    from gblr_hw.frontend.put_weights import put_weights
    from gblr_hw.frontend.random_gblr import replace_by_random_gblr
    from gblr_hw.frontend.sources import load_source

    if ":" in wish.name and wish.name.split(":")[0].endswith(".py"):
        model, inputs = _own(wish.name)
        given = True
    else:
        model, inputs = load_source(wish.name, batch=wish.batch, tokens=wish.tokens, past=wish.past, seed=wish.seed)
        given = wish.name == "minilm"
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


def _own(name: str) -> tuple[nn.Module, Any]:
    """``file.py:function``, which returns a model and example inputs."""
    from torch import nn

    file, _, function = name.rpartition(":")
    path = Path(file)
    spec = importlib.util.spec_from_file_location(path.stem, path) if path.is_file() else None
    if spec is None or spec.loader is None:
        raise InputError(f"model '{name}'", f"no file '{file}'", "it is FILE.py:FUNCTION", "Check the path.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    made = getattr(module, function, None)
    built = made() if callable(made) else None
    if not (isinstance(built, tuple) and len(built) == 2 and isinstance(built[0], nn.Module)):
        raise InputError(
            f"model '{name}'",
            f"{function} = {type(built if callable(made) else made).__name__}",
            "the function takes nothing and returns (nn.Module, example inputs)",
            "Write such a function.",
        )
    return built[0].eval(), built[1]
