"""What ``gblr-hw train --model`` trains: the user's own module, on the user's own batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gblr_hw.cli.sources.lower_source import is_onnx, model_file
from simulator.base.errors import InputError

if TYPE_CHECKING:
    from torch import nn

    from gblr_hw.training.fit_to_latency import FittedNetwork
    from simulator.machine.machine import Machine

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class HeldOut:
    """How a model does on batches that it was not trained on: mean loss, and the share of classes that it names right
    (None where a loss of the user's own is minimised).
    """

    loss: float
    accuracy: float | None

    def record(self) -> dict[str, float | None]:
        """As JSON has it."""
        return {"loss": self.loss, "accuracy": self.accuracy}

    def told(self) -> str:
        """As a line has it."""
        share = "" if self.accuracy is None else f", accuracy {self.accuracy:.1%}"
        return f"loss {self.loss:.4f}{share}"


def train_own(
    model: str,
    data: str,
    machine: Machine,
    target: str,
    family: str,
    epochs: int,
    seed: int,
    learning_rate: float,
    checkpoint: Path | None,
    progress: Progress,
) -> tuple[FittedNetwork, HeldOut, HeldOut]:
    """The network that meets the target, and how the given one and it do on held-out batches.

    model, data: ``FILE.py:FUNCTION``, as `own_model` and `own_loaders` take them. checkpoint: see `fit_to_latency`.
    Raises InputError for a file or a function that does not do what they ask, for what their code raises later, and for
    batches that the model or the loss cannot take; an error that is not of their code comes out as it is.
    """
    from gblr_hw.frontend.own_model import own_loaders, own_model, own_training
    from gblr_hw.training.fit_to_latency import fit_to_latency

    ours, theirs = _files(model, data)
    files = {f"data '{data}'": theirs, f"model '{model}'": ours}
    module, inputs, kwargs = own_model(model)
    batches, held_out, loss_of = own_loaders(data)
    for what, loader in (("training", batches), ("held-out", held_out)):
        _check_batch(f"data '{data}'", files, what, loader, module, loss_of)
    before = own_training(files, lambda: held_out_of(module, held_out, loss_of))
    fitted = own_training(
        files,
        lambda: fit_to_latency(
            module, machine, target, batches, loss_of=loss_of, example_inputs=_example(module, inputs, kwargs),
            family=family, epochs=epochs, seed=seed, learning_rate=learning_rate, checkpoint=checkpoint,
            progress=lambda done, of, loss, cycles: progress(done, of, f"loss {loss:.4f}, {cycles:,.0f} cycles"),
        ),
    )  # fmt: skip
    return fitted, before, own_training(files, lambda: held_out_of(fitted.model, held_out, loss_of))


def _files(model: str, data: str) -> tuple[Path, Path]:
    """The files of ``--model`` and ``--data``."""
    from gblr_hw.frontend.own_model import LOADERS_RULE

    ours, theirs = model_file(model), model_file(data)
    if is_onnx(model) or ours is None:
        raise InputError("--model", repr(model), "a model to train is FILE.py:FUNCTION", "Write such a function.")
    if theirs is None or is_onnx(data):
        raise InputError(f"--data with {model}", repr(data), f"it is FILE.py:FUNCTION; {LOADERS_RULE}", "Name it.")
    return ours, theirs


def _check_batch(
    where: str,
    files: Mapping[str, Path],
    what: str,
    loader: Any,
    module: nn.Module,
    loss_of: Callable[[nn.Module, Any], Any] | None,
) -> None:
    """Raise InputError unless a loader's first batch is of the form that is asked for, and makes a loss."""
    from gblr_hw.frontend.foreign_code import told_error
    from gblr_hw.frontend.own_model import LOADERS_RULE, own_call, own_training
    from gblr_hw.training.fit_to_latency import cross_entropy

    first = own_call(where, files[where], lambda: next(iter(loader)))
    if loss_of is None and not (isinstance(first, (tuple, list)) and len(first) == 2):
        found = f"a {what} batch of {type(first).__name__}"
        if isinstance(first, (tuple, list)):
            found += f" of {len(first)}"
        raise InputError(where, found, LOADERS_RULE, "Yield such batches, or return a loss that takes them.")
    try:
        own_training(files, lambda: _tried(module, first, loss_of or cross_entropy))
    except (TypeError, ValueError, RuntimeError, IndexError) as error:  # as layers of PyTorch's refuse what they get
        raise InputError(
            f"{where}: {what} batch", told_error(error), "the model takes its inputs, and the loss what comes of them",
            "Yield such batches.",
        ) from error  # fmt: skip


def held_out_of(model: nn.Module, batches: Any, loss_of: Callable[[nn.Module, Any], Any] | None) -> HeldOut:
    """A model's mean loss over batches, and its accuracy where it names classes: logits (B, classes, ...) beside
    integers.
    """
    import torch
    from torch.nn import functional

    from gblr_hw.layers.model_calls import call_of

    losses, right, of, classes = list[float](), 0, 0, loss_of is None
    model.eval()
    with torch.no_grad():
        for batch in batches:
            if loss_of is not None:
                losses.append(float(loss_of(model, batch)))
                continue
            given, wanted = batch
            args, kwargs = call_of(model, given)
            found = model(*args, **kwargs)
            losses.append(float(functional.cross_entropy(found, wanted)))
            classes = classes and not wanted.is_floating_point()
            if classes:
                right, of = right + int((found.argmax(1) == wanted).sum()), of + wanted.numel()
    return HeldOut(math.fsum(losses) / len(losses), right / of if classes else None)


def _tried(module: nn.Module, batch: Any, loss_of: Callable[[nn.Module, Any], Any]) -> None:
    """A loss of one batch, so that what cannot be taken is known before the training."""
    import torch

    with torch.no_grad():
        loss = loss_of(module, batch)
    if getattr(loss, "shape", None) != ():
        raise TypeError(f"the loss is one number, not {tuple(getattr(loss, 'shape', ())) or type(loss).__name__}")


def _example(module: nn.Module, inputs: Any, kwargs: dict[str, Any]) -> Any:
    """Example inputs as one value: those by place get their names where there are others by name."""
    import inspect

    if not kwargs:
        return inputs
    args = inputs if isinstance(inputs, tuple) else (inputs,)
    return dict(inspect.signature(module.forward).bind(*args, **kwargs).arguments)
