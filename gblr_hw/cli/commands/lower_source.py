"""What ``gblr-hw lower --model`` lowers: a known network, or a function of the user's own code."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from simulator.base.errors import InputError

if TYPE_CHECKING:
    from torch import nn

    from gblr_hw.frontend.put_weights import Filled


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
    leave_out: tuple[str, ...] = ()
    rename: Mapping[str, str] = field(default_factory=dict)


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
        _check_filled(wish, put_weights(model, wish.checkpoint, wish.gaussian, wish.rename), given)
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


def _check_filled(wish: Wish, filled: Filled, given: bool) -> None:
    """Raise InputError unless every parameter got a value and every tensor a place, or the user lets them go."""
    from gblr_hw.files.accounting import matches

    unused = [name for name in filled.unused if not matches(name, wish.leave_out)]
    for pattern in wish.leave_out:
        if not any(matches(name, (pattern,)) for name in filled.unused):
            raise InputError(
                f"--leave-out '{pattern}'",
                "no tensor without a place in the model",
                f"those are {', '.join(filled.unused[:4]) or 'none'}",
                "Leave it out.",
            )
    if unused:
        raise InputError(
            f"checkpoint '{wish.checkpoint}'",
            f"{len(unused)} tensors that the model has no place for ({100 * filled.unused_share:.1f} % of the file's "
            f"weights): {', '.join(unused[:4])}{', ...' if len(unused) > 4 else ''}",
            "every tensor of the checkpoint is put into the model",
            "Give the code that it belongs to, match names with --rename OLD=NEW, or let them go: --leave-out PATTERN.",
        )
    if filled.missing and not wish.random_weights and not given:
        missing = filled.missing
        raise InputError(
            f"checkpoint '{wish.checkpoint}'",
            f"nothing for {len(missing)} parameters, of which {', '.join(missing[:3])}",
            "every parameter of the model has a value",
            "Give a whole checkpoint, match names with --rename OLD=NEW, or --random-weights for the others: cycles do "
            "not depend on values.",
        )


def renames(given: Sequence[str]) -> dict[str, str]:
    """``--rename OLD=NEW`` options as a mapping of prefixes."""
    found: dict[str, str] = {}
    for text in given:
        old, equals, new = text.partition("=")
        if not equals or not (old or new):
            raise InputError("--rename", repr(text), "it is OLD=NEW, prefixes of names", "Write such a pair.")
        found[old] = new
    return found


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
