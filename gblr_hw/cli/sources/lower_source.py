"""What ``gblr-hw lower --model`` lowers: a known network, or a function of the user's own code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from simulator.base.errors import InputError

if TYPE_CHECKING:
    from torch import nn

    from gblr_hw.frontend.put_weights import Filled


# Kinds of models, which options act with.
ONNX, OWN, KNOWN, EMPTY = "an ONNX model", "a model file", "a known network", "a network without weights"


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
    sizes: Mapping[str, int] = field(default_factory=dict)


def model_of(wish: Wish) -> tuple[nn.Module, Any, dict[str, Any], list[str]]:
    """The model in evaluation mode, with weights, example inputs, keyword arguments beside them, and a sentence for
    each kind of tensor that was left out. Raises InputError if weights are missing.
    """
    from gblr_hw.frontend.own_model import own_model
    from gblr_hw.frontend.put_weights import put_weights
    from gblr_hw.frontend.random_gblr import check_fraction, replace_by_random_gblr
    from gblr_hw.frontend.sources import load_source

    if wish.gblr is not None:
        check_fraction(wish.gblr)
    kwargs: dict[str, Any] = {}
    if is_onnx(wish.name):
        from gblr_hw.frontend.onnx_models.onnx_module import load_onnx

        model, inputs = load_onnx(Path(wish.name), wish.sizes, wish.seed)
    elif model_file(wish.name) is not None:
        model, inputs, kwargs = own_model(wish.name)
    else:
        model, inputs = load_source(wish.name, batch=wish.batch, tokens=wish.tokens, past=wish.past, seed=wish.seed)
    given = has_weights(wish.name)
    notes = []
    if wish.checkpoint is not None:
        notes = _check_filled(wish, put_weights(model, wish.checkpoint, wish.gaussian, wish.rename), given)
    elif not given and not wish.random_weights:
        raise InputError(
            f"model '{wish.name}'",
            "no weights",
            "nothing is fetched",
            "Name a checkpoint, or give --random-weights: cycles do not depend on values.",
        )
    if wish.gblr is not None and not replace_by_random_gblr(model, wish.gblr, seed=wish.seed):
        raise InputError(
            f"--gblr {wish.gblr:g}",
            f"no layer to replace in '{wish.name}'",
            "linear layers and ungrouped convolutions inside a module become GBLR",
            "Leave it out.",
        )
    return model, inputs, kwargs, notes


def is_onnx(name: str) -> bool:
    """Whether a model is named by an ONNX file."""
    return name.endswith(".onnx")


def model_file(name: str | None) -> Path | None:
    """The file of a model that is named FILE.py:FUNCTION or FILE.onnx; None for the name of a known network."""
    if name is not None and is_onnx(name):
        return Path(name)
    file, colon, _ = (name or "").rpartition(":")
    return Path(file) if colon and file.endswith(".py") else None


def has_weights(name: str) -> bool:
    """Whether a model comes with weights: one from a file does, and some known networks."""
    from gblr_hw.frontend.sources import SOURCES

    return model_file(name) is not None or (name in SOURCES and SOURCES[name].weights)


def kinds_of_model(name: str) -> list[str]:
    """What kind of model ``--model`` names, as tables of options call it."""
    if is_onnx(name):
        return [ONNX]
    if model_file(name) is not None:
        return [OWN]
    return [KNOWN] if has_weights(name) else [KNOWN, EMPTY]


def _check_filled(wish: Wish, filled: Filled, given: bool) -> list[str]:
    """Raise InputError unless every parameter got a value and every tensor a place, or the user lets them go: a
    sentence for what they let go. given: the model has values of its own.
    """
    from gblr_hw.files.accounting import listed, matches

    kept = [name for name in filled.missing if given and matches(name, wish.leave_out)]
    missing = [] if wish.random_weights else [name for name in filled.missing if name not in kept]
    unused = [name for name in filled.unused if not matches(name, wish.leave_out)]
    for pattern in wish.leave_out:
        if not any(matches(name, (pattern,)) for name in (*filled.unused, *(filled.missing if given else ()))):
            raise InputError(
                f"--leave-out '{pattern}'",
                "no tensor without a place in the model, and no parameter without a value",
                f"those are {', '.join([*filled.unused, *filled.missing][:4]) or 'none'}",
                "Leave it out.",
            )
    if unused:
        raise InputError(
            f"checkpoint '{wish.checkpoint}'",
            f"{len(unused)} tensors that the model has no place for ({100 * filled.unused_share:.1f} % of the file's "
            f"weights): {listed(unused)}",
            "every tensor of the checkpoint is put into the model",
            "Give the code that it belongs to, match names with --rename OLD=NEW, or let them go: --leave-out PATTERN.",
        )
    if missing:
        raise InputError(
            f"checkpoint '{wish.checkpoint}'",
            f"nothing for {len(missing)} parameters, of which {', '.join(missing[:3])}",
            "every parameter of the model has a value",
            "Give a whole checkpoint, match names with --rename OLD=NEW, or "
            + (
                "let them keep what the model's code gives them: --leave-out PATTERN."
                if given
                else "--random-weights for the others: cycles do not depend on values."
            ),
        )
    gone = [name for name in filled.unused if name not in unused]
    return [
        *([f"left out, as asked for: {listed(gone)}"] if gone else []),
        *([f"not in the checkpoint, with the values of the model's code: {listed(kept)}"] if kept else []),
    ]


def renames(given: Sequence[str]) -> dict[str, str]:
    """``--rename OLD=NEW`` options as a mapping of prefixes."""
    found: dict[str, str] = {}
    for text in given:
        old, equals, new = text.partition("=")
        if not equals or not (old or new):
            raise InputError("--rename", repr(text), "it is OLD=NEW, prefixes of names", "Write such a pair.")
        found[old] = new
    return found


def sizes_of(given: Sequence[str]) -> dict[str, int]:
    """``--size INPUT.AXIS=N`` (or ``AXIS=N`` for all inputs) options as a mapping."""
    found: dict[str, int] = {}
    for text in given:
        name, _, number = text.rpartition("=")
        if not name.rpartition(".")[2].isdigit() or not number.isdigit() or int(number) < 1:
            raise InputError("--size", repr(text), "it is INPUT.AXIS=N or AXIS=N", "Write such a pair.")
        found[name] = int(number)
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
