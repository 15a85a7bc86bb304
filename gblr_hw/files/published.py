"""The authors' published layout: state dicts of GBLR layers, bare or nested in a Lightning file, next to dense layers.

Layers are found by their keys:

* ``NAME.widths, .locations, .lr_weight1, .lr_weight2`` (with optional ``.bias, .freq_in, .freq_out, .sigma``): a GBLR
layer;
* ``NAME.gaudi_modules.<i>.widths, ...`` with an optional ``NAME.bias``: a convolution with one GBLR per kernel
position;
* ``NAME.gaudi_module.widths, ...`` with an optional ``NAME.bias``: a convolution as one GBLR over ``oc x (k1 k2 ic)``;
* ``NAME.weight`` with two dimensions, ``NAME.bias`` optional: a dense layer;
* ``NAME.in_proj_weight``, ``NAME.in_proj_bias`` (nn.MultiheadAttention): a dense layer NAME.in_proj;
* ``NAME.weight`` with four dimensions (oc, ic, k1, k2): a dense layer over im2col rows in (k1, k2, ic) order;
* ``NAME.lr_weight1`` (r, n), ``NAME.lr_weight2`` (m, r) without masks: a low-rank layer;
* ``NAME.B, .C, .D`` (BLAST) and ``NAME.blkdiag1, .blkdiag2`` (Monarch), see `gblr_hw.files.published_chains`;
* ``NAME.weight_orig``, ``NAME.weight_mask`` (pruning): the dense layer of their product.

A dense matrix that is stored inputs first (GPT-2's Conv1D) is turned: its bias tells. Weights that are not real
floating-point numbers are refused. Every other tensor is accounted for (`gblr_hw.files.accounting`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from gblr_hw.files.accounting import Account, Told, account_for, is_table, matches
from gblr_hw.files.layer_tensors import as_float32, check_keys, optional_float32
from gblr_hw.files.published_chains import Size, published_chain
from gblr_hw.weights.chains import BLASTWeights, MonarchWeights
from gblr_hw.weights.checks import check_shape
from gblr_hw.weights.from_factors import low_rank_weights
from gblr_hw.weights.stored import ConvWeights, DenseWeights, GBLRWeights, LatticeWeights, LayerWeights
from simulator.base.errors import InputError

REQUIRED_KEYS = ("widths", "locations", "lr_weight1", "lr_weight2")
OPTIONAL_KEYS = ("bias", "freq_in", "freq_out", "sigma")
# Transformers' Conv1D (GPT-2 and its kin) stores its matrix inputs first, under these names.
CONV1D_NAMES = ("c_attn", "c_fc", "c_proj", "q_attn")
DEFAULT_SIGMA = 100.0
ROOT = "layer"

Kernels = Mapping[str, tuple[int, int]]
Shapes = Mapping[str, Size]
Built = TypeVar("Built")


def strip_prefixes(state: Mapping[str, Tensor], *, nested: bool = False) -> dict[str, Tensor]:
    """Drop what wrappers put before every name: ``model.`` (Lightning), ``module.``, ``_orig_mod.`` (torch.compile).

    A Lightning file (nested) may also hold names of its own, such as a loss's: there ``model.`` is dropped where it
    stands.
    """
    names = dict(state)
    if nested:
        shortened = {name.removeprefix("model."): tensor for name, tensor in names.items()}
        names = shortened if len(shortened) == len(names) else names
    for _ in range(3):
        for prefix in ("model.", "module.", "_orig_mod."):
            if names and all(name.startswith(prefix) for name in names):
                names = {name.removeprefix(prefix): tensor for name, tensor in names.items()}
    return names


def _sigma(mapping: Mapping[str, Tensor], gaussian: bool) -> float:
    if "sigma" not in mapping:
        if gaussian:
            raise InputError(
                "tensor 'sigma'",
                "nothing",
                "a mask with the Gaussian needs its sigma",
                "Pass gaussian=False, or add sigma.",
            )
        return DEFAULT_SIGMA
    sigma = torch.as_tensor(mapping["sigma"])
    if sigma.numel() != 1 or sigma.is_complex():
        raise InputError(
            "tensor 'sigma'",
            f"{sigma.dtype} of shape {tuple(sigma.shape)}",
            "sigma is one number",
            "Check the layer's tensors.",
        )
    return float(sigma)


def _check_frequencies(mapping: Mapping[str, Tensor], name: str, channels: int) -> None:
    if name not in mapping:
        return
    freq, expected = mapping[name], torch.arange(channels // 2 + 1)
    check_shape(name, freq, tuple(expected.shape), f"it holds the frequencies 0 .. n/2 of {channels} channels")
    # In the tensor's own type: half precision rounds the frequencies above 2048.
    if not torch.equal(freq.detach().cpu(), expected.to(freq.dtype)):
        raise InputError(
            f"tensor '{name}'",
            "other values",
            f"it must be 0, 1, ..., {channels // 2}",
            "Leave it out to have it rebuilt.",
        )


def gblr_from_state(mapping: Mapping[str, Tensor], gaussian: bool | None) -> GBLRWeights:
    """One published layer as weights; half precision is read as float32.

    mapping: the keys of one layer, without its name. gaussian: whether it was trained with the Gaussian term, which the
    file does not say. Raises InputError on missing, unknown or malformed tensors, and when gaussian is None.
    """
    check_keys("GBLR", mapping, REQUIRED_KEYS, OPTIONAL_KEYS)
    if not isinstance(gaussian, bool):
        raise InputError(
            "gaussian",
            repr(gaussian),
            "the published layout does not say whether the mask was trained with its Gaussian term",
            "Pass gaussian=True or gaussian=False (`--gaussian`, `--no-gaussian`), as in the training configuration.",
        )
    weights = GBLRWeights(
        widths=as_float32("widths", mapping["widths"]),
        locations=as_float32("locations", mapping["locations"]),
        lr_weight1=as_float32("lr_weight1", mapping["lr_weight1"]),
        lr_weight2=as_float32("lr_weight2", mapping["lr_weight2"]),
        bias=optional_float32("bias", mapping),
        sigma=_sigma(mapping, gaussian),
        gaussian=gaussian,
    )
    _check_frequencies(mapping, "freq_in", weights.in_features)
    _check_frequencies(mapping, "freq_out", weights.out_features)
    return weights


def _conv_from_parts(
    parts: list[GBLRWeights], arrangement: str, bias: Tensor | None, kernel: tuple[int, int] | None
) -> LayerWeights:
    if kernel is None and arrangement == "positions":
        side = math.isqrt(len(parts))
        if side * side != len(parts):
            raise InputError(
                "convolution",
                f"{len(parts)} kernel positions",
                "the file does not hold the kernel's shape, and it is not square",
                "Pass kernels={layer name: (k1, k2)}.",
            )
        kernel = (side, side)
    bias = None if bias is None else as_float32("bias", bias)
    if kernel is None:
        # Without the kernel's shape it is still, exactly, a linear layer over im2col rows.
        whole = parts[0]
        return GBLRWeights(
            whole.widths, whole.locations, whole.lr_weight1, whole.lr_weight2, bias, whole.sigma, whole.gaussian
        )
    count = kernel[0] * kernel[1]
    inputs = parts[0].in_features
    if arrangement == "unfolded" and inputs % count:
        raise InputError(
            "convolution",
            f"{inputs} inputs",
            f"a {kernel[0]} x {kernel[1]} kernel needs a multiple of {count}",
            "Fix kernels.",
        )
    return ConvWeights(
        parts=tuple(parts),
        arrangement="positions" if arrangement == "positions" else "unfolded",
        kernel=kernel,
        in_channels=inputs if arrangement == "positions" else inputs // count,
        out_channels=parts[0].out_features,
        bias=bias,
    )


def _dense_from_state(weight: Tensor, bias: Tensor | None, transposed: bool = False) -> DenseWeights | None:
    if weight.dim() not in (2, 4):
        return None
    # Half precision stays as it is, in the file's own pages; whoever evaluates the layer makes float32 of it.
    matrix = weight.detach() if weight.dtype in (torch.float16, torch.bfloat16) else as_float32("weight", weight)
    if weight.dim() == 4:
        matrix = matrix.permute(0, 2, 3, 1).reshape(weight.shape[0], -1)
    matrix = matrix.T.contiguous() if transposed else matrix
    return DenseWeights(matrix, None if bias is None else as_float32("bias", bias))


def _is_low_rank(tensors: Mapping[str, Tensor]) -> bool:
    """The authors' low-rank layer: the two factors of one block without masks."""
    pair = [tensors.get(key) for key in ("lr_weight1", "lr_weight2")]
    return "widths" not in tensors and all(one is not None and one.dim() == 2 for one in pair)


def _low_rank_from_state(tensors: Mapping[str, Tensor]) -> LatticeWeights:
    """``lr_weight1`` (r, n) and ``lr_weight2`` (m, r)."""
    bias = tensors.get("bias")
    return low_rank_weights(
        as_float32("lr_weight2", tensors["lr_weight2"]),
        as_float32("lr_weight1", tensors["lr_weight1"]),
        None if bias is None else as_float32("bias", bias),
    )


class _Reader:
    """Walks a flat state dict in order and builds each layer when its first key is met. ``used``: names of tensors that
    are part of layers; ``tables``: of look-up tables.
    """

    def __init__(
        self,
        state: Mapping[str, Tensor],
        gaussian: bool | None,
        kernels: Kernels,
        told: Told,
        sizes: frozenset[int] = frozenset(),
        shapes: Shapes | None = None,
    ) -> None:
        self.gaussian, self.kernels, self.told, self.sizes = gaussian, kernels, told, sizes
        self.shapes = dict(shapes or {})
        self.state = state
        self.used: set[str] = set()
        self.tables: list[str] = []
        self.layers: dict[str, dict[str, Tensor]] = {}
        for key, tensor in state.items():
            name, _, last = key.rpartition(".")
            self.layers.setdefault(name or ROOT, {})[last] = tensor
        self.turned = self._conv1d_names()

    def _conv1d_names(self) -> frozenset[str]:
        """Last components of layers that are stored inputs first: those whose bias has as many entries as the matrix
        has columns and not rows, and, where there are such, all that Conv1D is used for.
        """
        proven = {
            name.rpartition(".")[2]
            for name, tensors in self.layers.items()
            if "weight" in tensors and "bias" in tensors and tensors["weight"].dim() == 2
            and tensors["bias"].numel() == tensors["weight"].shape[1] != tensors["weight"].shape[0]
        }  # fmt: skip
        return frozenset(proven | set(CONV1D_NAMES)) if proven.intersection(CONV1D_NAMES) else frozenset(proven)

    def _use(self, name: str, *keys: str) -> None:
        prefix = "" if name == ROOT and f"{name}.{keys[0]}" not in self.state else f"{name}."
        self.used.update(f"{prefix}{key}" for key in keys)

    def _gblr(self, name: str) -> GBLRWeights:
        self._use(name, *self.layers[name])
        return self._named(name, lambda: gblr_from_state(self.layers[name], self.gaussian))

    @staticmethod
    def _named(name: str, build: Callable[[], Built]) -> Built:
        try:
            return build()
        except InputError as error:
            raise InputError(f"layer '{name}': {error.where}", error.value, error.rule, error.remedy) from None

    def read(self) -> dict[str, LayerWeights]:
        found: dict[str, LayerWeights] = {}
        for name, tensors in self.layers.items():
            conv = re.fullmatch(r"(.*?)\.?(gaudi_modules\.\d+|gaudi_module)", name)
            if conv and any(key in tensors for key in REQUIRED_KEYS):
                owner = conv.group(1) or ROOT
                if owner not in found:
                    arrangement = "unfolded" if conv.group(2) == "gaudi_module" else "positions"
                    found[owner] = self._conv(owner, name.removesuffix(conv.group(2)), arrangement)
            elif _is_low_rank(tensors):
                self._use(name, *(key for key in ("lr_weight1", "lr_weight2", "bias") if key in tensors))
                found[name] = self._named(name, lambda tensors=tensors: _low_rank_from_state(tensors))  # type: ignore[misc]
            elif any(key in tensors for key in REQUIRED_KEYS):
                found[name] = self._gblr(name)
            elif read := published_chain(tensors):
                self._use(name, *tensors)
                size = self.shapes.get(name)
                found[name] = self._named(name, partial(read, tensors, size))
            else:
                self._add_dense(found, name, tensors, "weight", "bias", name)
                self._add_dense(found, name, tensors, "in_proj_weight", "in_proj_bias", f"{name}.in_proj")
                self._add_masked(found, name, tensors)
        return found

    def _add_dense(
        self,
        found: dict[str, LayerWeights],
        name: str,
        tensors: dict[str, Tensor],
        weight: str,
        bias: str,
        new_name: str,
    ) -> None:
        if weight not in tensors or matches(f"{name}.{weight}", self.told.leave_out):
            return
        given = tensors[weight]
        if given.dim() == 2 and is_table(name, given, bias in tensors, self.told, self.sizes):
            self.tables.append(weight if name == ROOT and weight in self.state else f"{name}.{weight}")
            return
        scales = [key for key in tensors if "scale" in key]
        if given.is_floating_point() and given.itemsize == 1 and scales:
            raise InputError(
                f"layer '{name}': tensor '{weight}'",
                f"dtype {given.dtype} with '{scales[0]}' beside it",
                "numbers of eight bits are read as they are, and a scale would be lost",
                "Multiply the scales in, and save float32 weights.",
            )
        turned = given.dim() == 2 and (name.rpartition(".")[2] in self.turned or matches(name, self.told.transposed))
        dense = self._named(new_name, lambda: _dense_from_state(given, tensors.get(bias), turned))
        if dense is not None:
            self._use(name, weight, *([bias] if bias in tensors else []))
            found[new_name] = dense

    def _add_masked(self, found: dict[str, LayerWeights], name: str, tensors: dict[str, Tensor]) -> None:
        """A matrix as pruning keeps it: ``weight_orig`` and the ``weight_mask`` that it is multiplied by."""
        parts = [tensors.get(key) for key in ("weight_orig", "weight_mask")]
        if any(one is None for one in parts) or parts[0].shape != parts[1].shape:  # type: ignore[union-attr]
            return
        product = as_float32("weight_orig", tensors["weight_orig"]) * tensors["weight_mask"].float()
        dense = self._named(name, lambda: _dense_from_state(product, tensors.get("bias")))
        if dense is not None:
            self._use(name, "weight_orig", "weight_mask", *(["bias"] if "bias" in tensors else []))
            found[name] = dense

    def _conv(self, owner: str, prefix: str, arrangement: str) -> LayerWeights:
        if arrangement == "positions":
            stem = f"{prefix}gaudi_modules."
            count = sum(name.startswith(stem) and name.removeprefix(stem).isdigit() for name in self.layers)
            names = [f"{stem}{index}" for index in range(count)]
            absent = [name for name in names if name not in self.layers]
            if absent:
                raise InputError(
                    f"layer '{owner}'", f"no {absent[0]}", "kernel positions count from 0", "Check the file."
                )
        else:
            names = [f"{prefix}gaudi_module"]
        parts = [self._gblr(name) for name in names]
        bias = self.layers.get(owner, {}).get("bias")
        if bias is not None:
            self._use(owner, "bias")
        return self._named(owner, lambda: _conv_from_parts(parts, arrangement, bias, self.kernels.get(owner)))


def structured_names(state: Mapping[str, Tensor]) -> set[str]:
    """Names of a flat state dict's tensors that belong to structured layers, with their biases."""
    tensors: dict[str, dict[str, Tensor]] = {}
    for name, tensor in state.items():
        tensors.setdefault(name.rpartition(".")[0], {})[name.rpartition(".")[2]] = tensor
    owners = {name.rpartition(".")[0] for name in state if name.rpartition(".")[2] in REQUIRED_KEYS}
    owners |= {owner for owner, own in tensors.items() if published_chain(own)}
    convolutions = {re.sub(r"\.?(gaudi_modules\.\d+|gaudi_module)$", "", owner) for owner in owners} - owners
    biases = {f"{owner}.bias" if owner else "bias" for owner in convolutions}
    return {name for name in state if name.rpartition(".")[0] in owners or name in biases}


def layers_from_state(
    state: Mapping[str, Tensor],
    gaussian: bool | None,
    kernels: Kernels | None = None,
    told: Told | None = None,
    sizes: frozenset[int] = frozenset(),
    shapes: Shapes | None = None,
) -> tuple[dict[str, LayerWeights], Account]:
    """All layers of a flat state dict, in the order of its keys, and what became of every other tensor; see the
    module's docstring for what is read.

    A layer whose keys have no name before them ("widths", "weight") is named "layer".

    gaussian: whether GBLR layers use the Gaussian (needed only if there are any). kernels: layer name -> (k1, k2)
    for GBLR convolutions; without it, one GBLR per position is taken for a square kernel, and the unfolded
    arrangement is read as a GBLR layer over im2col rows. told: what the user says of tensors. sizes: rows of look-
    up tables, from a configuration. shapes: layer name -> (m, n) of Monarch layers, which padding hides. Raises
    InputError naming the layer, the tensor, the rule and the remedy.
    """
    kernels, told = kernels or {}, told or Told()
    reader = _Reader(state, gaussian, kernels, told, sizes, shapes)
    layers = reader.read()
    for option, names in (("kernels", kernels), ("shapes", shapes or {})):
        unknown = sorted(set(names) - set(layers))
        if unknown:
            raise InputError(
                option, repr(unknown[0]), f"the layers are {', '.join(layers) or 'none'}", "Correct the name."
            )
    plain = sorted(name for name in shapes or {} if not isinstance(layers[name], MonarchWeights | BLASTWeights))
    if plain:
        rule = "only factors that are padded do not say their layer's shape"
        raise InputError("shapes", repr(plain[0]), rule, "Leave it out for this layer.")
    return layers, account_for(state, reader.used, reader.tables, told)
