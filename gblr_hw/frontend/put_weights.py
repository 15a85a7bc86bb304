"""A checkpoint's weights into the code of a model: GBLR and lattice layers replace its own, the rest is copied. Every
tensor of the file and every parameter of the model is accounted for by name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gblr_hw.files.checkpoint import load_checkpoint
from gblr_hw.files.names import matched, renamed
from gblr_hw.files.own_format import METADATA_KEY
from gblr_hw.files.published import layers_from_state, structured_names
from gblr_hw.files.published_chains import MONARCH_KEYS
from gblr_hw.files.tensor_files import read_tensors
from gblr_hw.layers.blast_linear import BLASTLinear
from gblr_hw.layers.conv import GBLRConv2d
from gblr_hw.layers.kronecker_linear import KroneckerLinear, TensorTrainLinear
from gblr_hw.layers.lattice_linear import LatticeLinear
from gblr_hw.layers.linear import GBLRLinear
from gblr_hw.layers.matrix_conv import MatrixConv2d, is_matrix_conv, kernel_of
from gblr_hw.layers.monarch_linear import MonarchLinear
from gblr_hw.layers.replace import set_module
from gblr_hw.weights.chains import BLASTWeights, KroneckerWeights, MonarchWeights, TensorTrainWeights
from gblr_hw.weights.collect import is_conv1d
from gblr_hw.weights.from_factors import block_sparse_weights
from gblr_hw.weights.stored import ConvWeights, DenseWeights, GBLRWeights, LatticeWeights, LayerWeights
from simulator.base.errors import InputError

# The module that takes the place of a model's own, by what a checkpoint holds for it.
_LAYERS: Mapping[type, Any] = {
    GBLRWeights: GBLRLinear,
    LatticeWeights: LatticeLinear,
    BLASTWeights: BLASTLinear,
    MonarchWeights: MonarchLinear,
    KroneckerWeights: KroneckerLinear,
    TensorTrainWeights: TensorTrainLinear,
}


@dataclass(frozen=True)
class Filled:
    """What a checkpoint left open. missing: parameters and statistics of the model that it says nothing of, which keep
    what they have. unused: floating-point tensors of the file that the model has no place for. unused_share: of the
    file's weights.
    """

    missing: tuple[str, ...]
    unused: tuple[str, ...]
    unused_share: float


def put_weights(
    model: nn.Module, path: Path, gaussian: bool | None = None, rename: Mapping[str, str] | None = None
) -> Filled:
    """Fill ``model`` from a checkpoint in any supported layout, in place; what stays open on either side.

    gaussian: whether published GBLR layers use the Gaussian. rename: prefixes of the file's names and what they become.
    Names are matched with the model's whatever wrappers wrote before them (`gblr_hw.files.names`). GBLR, low-rank and
    lattice layers take the place of the model's own; everything else is copied by name. Raises InputError for a tensor
    that has another shape than the model's, and for a layer that the model does not have or that has other sizes.
    """
    file = read_tensors(path)
    layers: dict[str, LayerWeights] = {}
    plain: dict[str, Tensor] = {}
    if METADATA_KEY in file.metadata:
        layers = load_checkpoint(path, gaussian)
    else:
        state = _named_as_model(model, file.state, rename or {})
        structured = _to_replace(model, structured_names(state))
        plain = {name: tensor for name, tensor in state.items() if name not in structured}
        if structured:
            held = {name: state[name] for name in state if name in structured}
            layers, _ = layers_from_state(held, gaussian, shapes=_shapes(model, held))
    missing = _open_places(model)
    lost = []  # biases of layers that the model has without one
    put_layers(model, layers, str(path))
    for name, weights in layers.items():
        if not isinstance(weights, DenseWeights):
            missing = {place for place in missing if not place.startswith(f"{name}.")}
            continue
        missing.discard(f"{name}.weight")
        if weights.bias is not None:
            bias = f"{name}.bias"
            lost += [] if bias in model.state_dict() else [bias]
            missing.discard(bias)
    unused = _copy(model, plain, path, missing)
    total = sum(tensor.numel() for tensor in file.state.values() if tensor.is_floating_point())
    share = sum((plain | file.state)[name].numel() for name in [*unused, *lost]) / max(1, total)
    return Filled(tuple(sorted(missing)), (*unused, *lost), share)


def put_layers(model: nn.Module, layers: Mapping[str, LayerWeights], where: str) -> None:
    """Layers in the place of the model's own of the same names. Raises InputError, saying so of ``where``, for one that
    the model does not have or that has other sizes.
    """
    for name, weights in layers.items():
        _put_layer(model, name, weights, where)


def _named_as_model(model: nn.Module, state: Mapping[str, Tensor], rename: Mapping[str, str]) -> dict[str, Tensor]:
    """The file's tensors under the model's names."""
    given = renamed(state, rename)
    wanted = {*model.state_dict(), *(f"{name}.widths" for name, _ in model.named_modules())}
    found = matched(list(given.values()), wanted)
    return {found[given[name]]: tensor for name, tensor in state.items()}


def _to_replace(model: nn.Module, structured: set[str]) -> set[str]:
    """Those of structured layers' tensors whose layer the model has no places for: it holds another one there."""
    places = model.state_dict()
    owners = {name.rpartition(".")[0] for name in structured}
    own = {
        owner for owner in owners
        if all(name in places for name in structured if name.rpartition(".")[0] == owner)
        and not isinstance(model.get_submodule(owner) if owner else model, GBLRLinear)
    }  # fmt: skip
    return {name for name in structured if name.rpartition(".")[0] not in own}


def _shapes(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, tuple[int, int]]:
    """Outputs and inputs of the model's own layers in the place of Monarch layers, which padding hides."""
    found = {}
    for name in state:
        owner, _, key = name.rpartition(".")
        if key in MONARCH_KEYS and owner in dict(model.named_modules()):
            weight = getattr(model.get_submodule(owner), "weight", None)
            if isinstance(weight, Tensor) and weight.dim() == 2:
                turned = is_conv1d(model.get_submodule(owner))
                found[owner] = (weight.shape[1], weight.shape[0]) if turned else (weight.shape[0], weight.shape[1])
    return found


def _open_places(model: nn.Module) -> set[str]:
    """Names that a checkpoint must fill: parameters, once for each that several names share, and float statistics."""
    statistics = {name for name, tensor in model.named_buffers() if tensor.is_floating_point()}
    return {name for name, _ in model.named_parameters()} | (statistics & set(model.state_dict()))


def _put_layer(model: nn.Module, name: str, weights: LayerWeights, where: str) -> None:
    module = _module(model, name, where)
    is_turned = is_conv1d(module)
    shape = module.weight.T.shape if is_turned else module.weight.shape
    if (shape[0], math.prod(shape[1:])) != (weights.out_features, weights.in_features):
        raise InputError(
            f"{where}: layer '{name}'",
            f"{weights.out_features} x {weights.in_features}",
            f"the model's has a weight of shape {tuple(module.weight.shape)}",
            "Give the checkpoint of this model.",
        )
    has_place = isinstance(module, nn.Linear) or is_matrix_conv(module)
    if isinstance(weights, DenseWeights) and weights.grid is not None and has_place:
        set_module(model, name, _made(_all_tiles(weights, module), module).eval())
    elif isinstance(weights, DenseWeights):
        with torch.no_grad():
            module.weight.copy_(_stored(weights.weight, module.weight, is_turned))
            if weights.bias is not None and module.bias is not None:
                module.bias.copy_(weights.bias)
    else:
        set_module(model, name, _made(weights, module).eval())


def _all_tiles(weights: DenseWeights, module: nn.Linear | nn.Conv2d) -> LatticeWeights:
    """A dense layer as one that keeps its grid; its bias is the file's, or else the module's."""
    bias = module.bias if weights.bias is None else weights.bias
    m, n = weights.weight.shape
    whole = torch.ones(1, 1, dtype=torch.bool)
    return replace(block_sparse_weights(weights.weight, whole, bias, chunk_in=n, chunk_out=m), grid=weights.grid)


def _stored(matrix: Tensor, place: Tensor, is_turned: bool) -> Tensor:
    """A layer's matrix (m, n) as its module keeps it: inputs first (Conv1D), or as a kernel (oc, ic, k1, k2)."""
    if place.dim() == 4:
        return kernel_of(matrix, place.shape)
    return matrix.T if is_turned else matrix


def _copy(model: nn.Module, plain: Mapping[str, Tensor], path: Path, missing: set[str]) -> list[str]:
    """Copy tensors by name, and take them off ``missing``; floating-point tensors that have no place."""
    places = model.state_dict(keep_vars=True)
    owners: dict[int, list[str]] = {}
    for name, tensor in places.items():
        owners.setdefault(tensor.data_ptr(), []).append(name)
    unused = []
    with torch.no_grad():
        for name, tensor in plain.items():
            if name not in places:
                unused += [name] if tensor.is_floating_point() else []
                continue
            if places[name].shape != tensor.shape:
                raise InputError(
                    f"{path}: tensor '{name}'",
                    f"shape {tuple(tensor.shape)}",
                    f"the model's has shape {tuple(places[name].shape)}",
                    "Give the checkpoint of this model, or its configuration to the model.",
                )
            if _kind(places[name]) != _kind(tensor):
                raise InputError(
                    f"{path}: tensor '{name}'",
                    f"dtype {tensor.dtype}",
                    f"the model's has dtype {places[name].dtype}",
                    "Convert it first; integers of a quantised network need their scales.",
                )
            places[name].copy_(tensor)
            missing.difference_update(owners[places[name].data_ptr()])
    return unused


def _kind(tensor: Tensor) -> str:
    """What numbers a tensor holds; within a kind they are converted."""
    return "complex" if tensor.is_complex() else "real" if tensor.is_floating_point() else "whole"


def _module(model: nn.Module, name: str, where: str) -> Any:
    try:
        module = model.get_submodule(name)
    except AttributeError:
        module = None
    if module is None or not isinstance(getattr(module, "weight", None), Tensor):
        known = [n for n, m in model.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d)) or is_conv1d(m)]
        raise InputError(
            f"{where}: layer '{name}'",
            "no such layer in the model",
            f"it has {', '.join(known[:6])}{', ...' if len(known) > 6 else ''}",
            "Give the code that the checkpoint belongs to, or leave --model out and lower layer by layer.",
        )
    return module


def _made(weights: LayerWeights, module: Any) -> nn.Module:
    if isinstance(weights, ConvWeights):
        return GBLRConv2d.from_weights(weights, stride=module.stride, padding=module.padding, dilation=module.dilation)
    layer = layer_of(weights)
    shell = module.shell if isinstance(module, MatrixConv2d) else module
    if not is_matrix_conv(shell):
        return layer
    return MatrixConv2d(layer, shell)


def layer_of(weights: LayerWeights) -> nn.Module:
    """A linear layer that holds a copy of weights of any structure. Raises KeyError for dense and convolution ones."""
    made: nn.Module = _LAYERS[type(weights)].from_weights(weights)
    return made
