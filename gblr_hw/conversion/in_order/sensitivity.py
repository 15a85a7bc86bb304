"""How much a model's output minds an error behind each layer: second moments of gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from gblr_hw.layers.matrix_layers import matrix_layer, matrix_of, output_rows
from gblr_hw.layers.model_calls import Batch, run_batch, tensors_of
from simulator.base.errors import InputError

FloatArray = npt.NDArray[np.float64]
MOST_OUTPUTS = 16_384  # of a layer: its moments then take 2 GiB


def output_moments(
    model: nn.Module,
    batches: Iterable[Batch],
    names: Sequence[str],
    rows: Callable[[Batch], Tensor] | None = None,
    seed: int = 0,
) -> dict[str, FloatArray]:
    """Sum of g g^T (m, m) of each layer's output for one row of the loss, float64: g is the loss's gradient by it.

    Where the model returns `logits`, the loss is the negative log-likelihood of a label that is drawn, for each row,
    from the model's own distribution: half of tr(B E C E^T) then estimates by how many nats a row's distribution
    moves when the layer's matrix is wrong by E and its inputs have second moments C (Fisher information, in the
    Kronecker form of Martens & Grosse, 2015). Otherwise it is the output's product with Gaussian noise, and half of the
    same trace estimates half of the output's squared error.

    rows: batch -> mask over the leading axes of the output, so that padding does not count. Raises InputError for a
    layer that is neither linear nor a convolution, has more than 16,384 outputs (a vocabulary's head) or does not run,
    outputs without numbers, and a model that does not run.
    """
    _check_sizes(model, names)
    sums: dict[str, Tensor] = {}
    generator, count = torch.Generator().manual_seed(seed), 0

    def watch(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        layer = matrix_layer(model, name)

        def add(gradient: Tensor) -> None:
            rows = output_rows(layer, gradient)
            g = rows.reshape(-1, rows.shape[-1])
            sums[name] = sums.get(name, torch.zeros((), dtype=torch.float64)) + (g.T @ g).double()

        def hook(_: nn.Module, _inputs: Any, output: Tensor) -> None:
            output.requires_grad_(True)
            output.register_hook(add)

        return hook

    results: list[Any] = []
    hooks = [matrix_layer(model, name).register_forward_hook(watch(name)) for name in names]
    hooks.append(model.register_forward_hook(lambda _module, _inputs, output: results.append(output)))
    try:
        with _only_outputs(model):
            for index, batch in enumerate(batches):
                run_batch(model, batch, f"batch {index}")
                loss, judged = _loss(results.pop(), None if rows is None else rows(batch).bool(), generator)
                loss.backward()
                count += judged
    finally:
        for hook in hooks:
            hook.remove()
    for name in names:
        if name not in sums:
            raise InputError(f"layer '{name}'", "no gradient", "the output depends on every layer", "Leave it out.")
    return {name: (sums[name] / count).cpu().numpy() for name in names}


def _check_sizes(model: nn.Module, names: Sequence[str]) -> None:
    for name in names:
        outputs = len(matrix_of(matrix_layer(model, name)))
        if outputs > MOST_OUTPUTS:
            raise InputError(
                f"layer '{name}'", f"{outputs:,} outputs",
                f"by loss a layer has at most {MOST_OUTPUTS:,}: second moments of gradients take their square",
                "Exclude it, as a vocabulary's head mostly is.",
            )  # fmt: skip


@contextmanager
def _only_outputs(model: nn.Module) -> Iterator[None]:
    """Gradients of layers' outputs alone, in evaluation mode."""
    training, trained = model.training, [one for one in model.parameters() if one.requires_grad]
    model.eval()
    try:
        for one in trained:
            one.requires_grad_(False)
        with torch.enable_grad():
            yield
    finally:
        for one in trained:
            one.requires_grad_(True)
        model.train(training)


def _loss(result: Any, mask: Tensor | None, generator: torch.Generator) -> tuple[Tensor, int]:
    """The loss of one call, and of how many rows it is the sum."""
    logits = getattr(result, "logits", None)
    if isinstance(logits, Tensor):
        chosen = logits.flatten(0, -2) if mask is None else logits[mask]
        labels = torch.multinomial(chosen.detach().float().softmax(-1), 1, generator=generator)[:, 0]
        return functional.cross_entropy(chosen, labels, reduction="sum"), len(chosen)
    output = next((one for one in tensors_of(result) if one.is_floating_point()), None)
    if output is None:
        raise InputError(
            "model", f"returns {type(result).__name__}", "its first output is a tensor of numbers", "Return such a one."
        )
    output = output.flatten(0, -2) if mask is None else output[mask]
    return (output * torch.randn(output.shape, generator=generator).to(output)).sum(), len(output)
