"""From a model to its weights: every layer that computes a matrix product, by module name."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

from torch import Tensor, nn

from gblr_hw.weights.stored import WEIGHT_KINDS, DenseWeights, LayerWeights
from simulator.base.errors import InputError


def layer_weights(module: nn.Module) -> LayerWeights | None:
    """The weights of one module, or None if it is not a layer by itself.

    Layers are nn.Linear, transformers' Conv1D, nn.Conv2d (as a dense layer over im2col rows in (k1, k2, ic) order) and
    any module with a method ``weights()`` that returns one of the weight kinds. Raises InputError for a grouped
    convolution.
    """
    own = getattr(module, "weights", None)
    if callable(own):
        weights = own()
        return weights if isinstance(weights, WEIGHT_KINDS) else None
    if isinstance(module, nn.Linear):
        return DenseWeights(module.weight.detach().clone(), _copy(module.bias))
    if is_conv1d(module):
        return DenseWeights(module.weight.detach().T.clone(), _copy(module.bias))  # type: ignore[arg-type, operator]
    if isinstance(module, nn.Conv2d):
        if module.groups != 1:
            raise InputError(
                "convolution",
                f"groups={module.groups}",
                "only groups=1 is one matrix product",
                "Leave it out with exclude=.",
            )
        return DenseWeights(matrix_of_kernel(module.weight.detach()).clone(), _copy(module.bias))
    return None


def matrix_of_kernel(kernel: Tensor) -> Tensor:
    """A kernel (oc, ic, k1, k2) as a matrix (oc, k1 k2 ic)."""
    return kernel.permute(0, 2, 3, 1).reshape(len(kernel), -1)


def is_conv1d(module: nn.Module) -> bool:
    """Whether a module is transformers' Conv1D: a linear layer that stores its matrix inputs first (GPT-2)."""
    weight = getattr(module, "weight", None)
    return type(module).__name__ == "Conv1D" and isinstance(weight, Tensor) and weight.dim() == 2


def joint_projection(module: nn.Module) -> DenseWeights | None:
    """The joint query, key and value matrix of an nn.MultiheadAttention, which no submodule holds; None without one."""
    if not isinstance(module, nn.MultiheadAttention) or module.in_proj_weight is None:
        return None
    return DenseWeights(module.in_proj_weight.detach().clone(), _copy(module.in_proj_bias))


def _copy(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.detach().clone()


def weights_of(model: nn.Module, *, exclude: str | Iterable[str] = ()) -> dict[str, LayerWeights]:
    """Module name -> weights of every layer of `model`, in its order; copies, so that later training does not change
    them.

    A model that is itself a layer is named "layer"; a module under several names appears under its first. The joint
    input projection of nn.MultiheadAttention appears as NAME.in_proj. exclude: shell patterns on names of modules to
    leave out with all that is inside them. Raises InputError if nothing is found, and on NaN or infinite weights.
    """
    patterns = [exclude] if isinstance(exclude, str) else list(exclude)
    found: dict[str, LayerWeights] = {}
    closed: list[str] = []
    for name, module in model.named_modules():
        if any(name.startswith(f"{owner}.") or owner == "" for owner in closed):
            continue
        if name and any(fnmatchcase(name, one) for one in patterns):
            closed.append(name)
            continue
        try:
            weights = layer_weights(module)
        except InputError as error:
            raise InputError(f"layer '{name}': {error.where}", error.value, error.rule, error.remedy) from None
        if weights is not None:
            found[name or "layer"] = weights
            closed.append(name)
        elif (joint := joint_projection(module)) is not None:
            found[f"{name}.in_proj" if name else "in_proj"] = joint
    if not found:
        raise InputError(
            "model", type(model).__name__, "it must have at least one layer with a matrix", "Check the model."
        )
    return found
