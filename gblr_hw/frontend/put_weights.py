"""A checkpoint's weights into the code of a model: GBLR and lattice layers replace its own, the rest is copied."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gblr_hw.files.checkpoint import load_checkpoint
from gblr_hw.files.own_format import METADATA_KEY
from gblr_hw.files.tensor_files import read_tensors
from gblr_hw.layers.conv import GBLRConv2d
from gblr_hw.layers.lattice_linear import LatticeLinear
from gblr_hw.layers.linear import GBLRLinear
from gblr_hw.layers.replace import set_module
from gblr_hw.weights.stored import ConvWeights, DenseWeights, GBLRWeights, LatticeWeights, LayerWeights
from simulator.base.errors import InputError


def put_weights(model: nn.Module, path: Path, gaussian: bool | None = None) -> list[str]:
    """Fill ``model`` from a checkpoint in any supported layout, in place; names of the parameters that it says nothing
    of (they keep what they have).

    Layer names are module paths. Raises InputError for a layer that the model does not have or that has other sizes.
    """
    layers = load_checkpoint(path, gaussian)
    file = read_tensors(path)
    plain: dict[str, Tensor] = {} if METADATA_KEY in file.metadata else file.state
    missing = {name for name, _ in model.named_parameters()}
    for name, weights in layers.items():
        module = _module(model, name, path)
        missing -= {f"{name}.{parameter}" for parameter, _ in module.named_parameters()}
        if isinstance(weights, DenseWeights) and not isinstance(module, nn.Linear):
            continue  # an embedding, or a layer stored the other way round: copied as it is below
        if (module.weight.shape[0], module.weight[0].numel()) != (weights.out_features, weights.in_features):
            raise InputError(
                f"{path}: layer '{name}'",
                f"{weights.out_features} x {weights.in_features}",
                f"the model's has a weight of shape {tuple(module.weight.shape)}",
                "Give the checkpoint of this model.",
            )
        if isinstance(weights, DenseWeights):
            with torch.no_grad():
                module.weight.copy_(weights.weight)
                if weights.bias is not None and module.bias is not None:
                    module.bias.copy_(weights.bias)
            continue
        set_module(model, name, _made(weights, module).eval())
    parameters = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    with torch.no_grad():
        for name, tensor in plain.items():
            if name in parameters and parameters[name].shape == tensor.shape:
                parameters[name].copy_(tensor)
                missing.discard(name)
    return sorted(missing)


def _module(model: nn.Module, name: str, path: Path) -> Any:
    try:
        module = model.get_submodule(name)
    except AttributeError:
        module = None
    if module is None or not isinstance(getattr(module, "weight", None), Tensor):
        known = [n for n, m in model.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
        raise InputError(
            f"{path}: layer '{name}'",
            "no such layer in the model",
            f"it has {', '.join(known[:6])}{', ...' if len(known) > 6 else ''}",
            "Give the code that the checkpoint belongs to, or leave --model out and lower layer by layer.",
        )
    return module


def _made(weights: LayerWeights, module: Any) -> nn.Module:
    if isinstance(weights, GBLRWeights):
        return GBLRLinear.from_weights(weights)
    if isinstance(weights, LatticeWeights):
        return LatticeLinear.from_weights(weights)
    assert isinstance(weights, ConvWeights)
    return GBLRConv2d.from_weights(weights, stride=module.stride, padding=module.padding, dilation=module.dilation)
