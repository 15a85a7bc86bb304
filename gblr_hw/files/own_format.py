"""The toolkit's own checkpoint format: what is in the tensors and in the metadata of a safetensors file.

Metadata has one key, whose value is JSON: ``{"version": 1, "layers": [record, ...]}`` in the order of the layers. A
record has "name", "kind" and what the tensors do not say:

* dense: tensors weight, bias;
* gblr: sigma, gaussian; the tensors of the published layout;
* lattice: family, chunk_in, chunk_out; u, v; reads, writes, tiles packed eight to a byte; dense unless there are no
tiles;
* blast: tensors B, C, D, bias;
* monarch: arrangement, in_features, out_features; blkdiag1, blkdiag2, bias;
* kronecker: tensors left, right, bias; tensor_train: core1, core2, bias;
* dense and lattice on a grid of few bits: bits, group, inputs; tensors step (m,) and shift (m, groups), and in place
of weight or dense codes, two to a byte up to 4 bits, the first in the lower half; in place of v the same, all with v_
before their names;
* conv: arrangement, kernel, in_channels, out_channels, parts (sigma and gaussian of each); tensors parts.I.widths ...
and bias.

Tensors are named LAYER.FIELD, so that a plain safetensors reader finds its way.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gblr_hw.files.grid_tensors import decode_grid, encode_grid
from gblr_hw.files.tensor_files import sorted_json
from gblr_hw.weights.chains import BLASTWeights, KroneckerWeights, MonarchWeights, TensorTrainWeights
from gblr_hw.weights.checks import check_matrix_size
from gblr_hw.weights.family import ALIASES
from gblr_hw.weights.stored import (
    ConvWeights,
    DenseWeights,
    GBLRWeights,
    LatticeWeights,
    LayerWeights,
    named_tensors,
)
from simulator.base.arithmetic import ceil_div
from simulator.base.errors import InputError

METADATA_KEY = "gblr_hw"
VERSION = 1
_PACKED = ("reads", "writes", "tiles")

Record = dict[str, Any]


def encode(layers: Mapping[str, LayerWeights]) -> tuple[dict[str, Tensor], str]:
    """Tensors by name and the metadata's JSON. Raises InputError if two layers' names make the same tensor name."""
    tensors: dict[str, Tensor] = {}
    records: list[Record] = []
    for name, weights in layers.items():
        record, own = _encode_layer(weights)
        records.append({"name": name, **record})
        for field, tensor in own.items():
            key = f"{name}.{field}"
            if key in tensors:
                raise InputError(
                    f"layer '{name}'", f"tensor name '{key}'", "it is taken by another layer", "Rename one."
                )
            tensors[key] = tensor
    return tensors, sorted_json({"version": VERSION, "layers": records})


def _encode_layer(weights: LayerWeights) -> tuple[Record, dict[str, Tensor]]:
    tensors = dict(named_tensors(weights))
    if isinstance(weights, DenseWeights):
        return {"kind": "dense", **encode_grid(weights.grid, tensors, "weight")}, tensors
    if isinstance(weights, GBLRWeights):
        return {"kind": "gblr", "sigma": weights.sigma, "gaussian": weights.gaussian}, tensors
    if isinstance(weights, LatticeWeights):
        for name in _PACKED:
            tensors[name] = torch.from_numpy(np.packbits(tensors[name].cpu().numpy()))
        if not bool(weights.tiles.any()):
            del tensors["dense"]
        grid = encode_grid(weights.grid, tensors, "dense") | encode_grid(weights.rank_grid, tensors, "v", "v_")
        sizes = {**grid, "chunk_in": weights.chunk_in, "chunk_out": weights.chunk_out}
        return {"kind": "lattice", "family": weights.family, **sizes}, tensors
    if isinstance(weights, BLASTWeights):
        return {"kind": "blast"}, tensors
    if isinstance(weights, MonarchWeights):
        sizes = {"in_features": weights.in_features, "out_features": weights.out_features}
        return {"kind": "monarch", "arrangement": weights.arrangement, **sizes}, tensors
    if isinstance(weights, KroneckerWeights):
        return {"kind": "kronecker"}, tensors
    if isinstance(weights, TensorTrainWeights):
        return {"kind": "tensor_train"}, tensors
    if not isinstance(weights, ConvWeights):
        raise InputError("layer", weights.family, "no file holds it as one", "Save the model's own file.")
    record = {
        "kind": "conv",
        "arrangement": weights.arrangement,
        "kernel": list(weights.kernel),
        "in_channels": weights.in_channels,
        "out_channels": weights.out_channels,
        "parts": [{"sigma": part.sigma, "gaussian": part.gaussian} for part in weights.parts],
    }
    return record, tensors


def decode(metadata: str, state: Mapping[str, Tensor], gaussian: bool | None) -> dict[str, LayerWeights]:
    """Layers from the metadata's JSON and the tensors. gaussian None, or it must agree with every GBLR layer.

    Raises InputError on an unknown version or kind, missing or malformed records and tensors, and tensors of no layer.
    """
    try:
        header = json.loads(metadata)
        version, records = header["version"], header["layers"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise InputError(
            f"metadata '{METADATA_KEY}'",
            repr(metadata[:40]),
            "it is JSON with a version and layers",
            "Write the file again.",
        ) from None
    if version != VERSION:
        raise InputError(
            f"metadata '{METADATA_KEY}'",
            f"version {version!r}",
            f"this release reads version {VERSION}",
            "Update the toolkit, or convert the file with the release that wrote it.",
        )
    if not isinstance(records, list) or not records:
        raise InputError(
            f"metadata '{METADATA_KEY}'", "no layers", "a checkpoint has at least one", "Write the file again."
        )
    layers: dict[str, LayerWeights] = {}
    used: set[str] = set()
    for record in records:
        name = record.get("name") if isinstance(record, dict) else None
        if not isinstance(name, str) or name in layers:
            raise InputError(
                f"metadata '{METADATA_KEY}'",
                f"layer name {name!r}",
                "names are text and differ",
                "Write the file again.",
            )
        layers[name] = _decode_layer(name, record, state, used, gaussian)
    stray = sorted(set(state) - used)
    if stray:
        raise InputError(
            f"tensor '{stray[0]}'", "no layer that owns it", "every tensor has a record", "Write the file again."
        )
    return layers


def _decode_layer(
    name: str, record: Record, state: Mapping[str, Tensor], used: set[str], gaussian: bool | None
) -> LayerWeights:
    def take(field: str, optional: bool = False) -> Tensor | None:
        key = f"{name}.{field}"
        if key not in state:
            if optional:
                return None
            raise InputError(f"tensor '{field}'", "nothing", "the layer's record needs it", "The file is incomplete.")
        used.add(key)
        tensor = state[key]
        return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor

    kinds: dict[str, Callable[[Record, Any, bool | None], LayerWeights]] = {
        "dense": _decode_dense,
        "gblr": _decode_gblr,
        "lattice": _decode_lattice,
        "conv": _decode_conv,
        "blast": _decode_blast,
        "monarch": _decode_monarch,
        "kronecker": _decode_kronecker,
        "tensor_train": _decode_tensor_train,
    }
    try:
        kind = record.get("kind")
        if kind not in kinds:
            raise InputError("kind", repr(kind), f"it is one of {', '.join(kinds)}", "Update the toolkit.")
        return kinds[kind](record, take, gaussian)
    except InputError as error:
        raise InputError(f"layer '{name}': {error.where}", error.value, error.rule, error.remedy) from None
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"layer '{name}'", f"a malformed record ({error})", "it holds what its kind needs", "Write the file again."
        ) from None


def _decode_dense(record: Record, take: Any, gaussian: bool | None) -> DenseWeights:
    weight, grid = decode_grid(record, take, "weight")
    return DenseWeights(take("weight") if weight is None else weight, take("bias", optional=True), grid)


def _decode_gblr(record: Record, take: Any, gaussian: bool | None, prefix: str = "") -> GBLRWeights:
    if gaussian is not None and gaussian != record["gaussian"]:
        raise InputError(
            "gaussian",
            str(gaussian),
            f"the file records gaussian={record['gaussian']}",
            "Leave gaussian out for this file.",
        )
    if not isinstance(record["gaussian"], bool):
        raise InputError("gaussian", repr(record["gaussian"]), "it is true or false", "Write the file again.")
    names = ("widths", "locations", "lr_weight1", "lr_weight2")
    return GBLRWeights(
        **{name: take(f"{prefix}{name}") for name in names},
        bias=take(f"{prefix}bias", optional=True),
        sigma=float(record["sigma"]),
        gaussian=record["gaussian"],
    )


def _unpack(name: str, packed: Tensor, shape: tuple[int, int]) -> Tensor:
    count = shape[0] * shape[1]
    if packed.dtype != torch.uint8 or tuple(packed.shape) != (ceil_div(count, 8),):
        raise InputError(
            f"tensor '{name}'",
            f"{packed.dtype} of shape {tuple(packed.shape)}",
            f"it packs {shape[0]} x {shape[1]} flags eight to a byte",
            "Write the file again.",
        )
    bits = np.unpackbits(packed.numpy(), count=count).astype(np.bool_)
    return torch.from_numpy(bits.reshape(shape))


def _decode_lattice(record: Record, take: Any, gaussian: bool | None) -> LatticeWeights:
    u, (held, rank_grid) = take("u"), decode_grid(record, take, "v", "v_")
    v = take("v") if held is None else held
    chunk_in, chunk_out = record["chunk_in"], record["chunk_out"]
    if not (isinstance(chunk_in, int) and isinstance(chunk_out, int) and chunk_in > 0 and chunk_out > 0):
        raise InputError(
            "chunk_in and chunk_out", f"{chunk_in!r}, {chunk_out!r}", "positive integers", "Write it again."
        )
    if u.dim() != 2 or v.dim() != 2 or u.shape[1] != v.shape[0]:
        raise InputError(
            "tensors 'u' and 'v'",
            f"shapes {tuple(u.shape)} and {tuple(v.shape)}",
            "they are (m, K) and (K, n)",
            "The file is damaged: write it again.",
        )
    (m, ranks), n = u.shape, v.shape[1]
    check_matrix_size(m, n)
    rows, cols = ceil_div(m, chunk_out), ceil_div(n, chunk_in)
    dense, grid = decode_grid(record, take, "dense")
    return LatticeWeights(
        u=u,
        v=v,
        reads=_unpack("reads", take("reads"), (ranks, cols)),
        writes=_unpack("writes", take("writes"), (ranks, rows)),
        tiles=_unpack("tiles", take("tiles"), (rows, cols)),
        # One stored zero stands for a layer without tiles: the whole matrix would cost more than the layer.
        dense=torch.zeros(1, 1).expand(m, n) if dense is None else dense,
        bias=take("bias", optional=True),
        chunk_in=chunk_in,
        chunk_out=chunk_out,
        family=str(ALIASES.get(record["family"], record["family"])),
        grid=grid,
        rank_grid=rank_grid,
    )


def _decode_blast(record: Record, take: Any, gaussian: bool | None) -> BLASTWeights:
    return BLASTWeights(take("B"), take("C"), take("D"), take("bias", optional=True))


def _decode_monarch(record: Record, take: Any, gaussian: bool | None) -> MonarchWeights:
    return MonarchWeights(
        take("blkdiag1"),
        take("blkdiag2"),
        in_features=int(record["in_features"]),
        out_features=int(record["out_features"]),
        bias=take("bias", optional=True),
        arrangement=record["arrangement"],
    )


def _decode_kronecker(record: Record, take: Any, gaussian: bool | None) -> KroneckerWeights:
    return KroneckerWeights(take("left"), take("right"), take("bias", optional=True))


def _decode_tensor_train(record: Record, take: Any, gaussian: bool | None) -> TensorTrainWeights:
    return TensorTrainWeights(take("core1"), take("core2"), take("bias", optional=True))


def _decode_conv(record: Record, take: Any, gaussian: bool | None) -> ConvWeights:
    k1, k2 = (int(size) for size in record["kernel"])
    return ConvWeights(
        parts=tuple(
            _decode_gblr(part, take, gaussian, prefix=f"parts.{index}.") for index, part in enumerate(record["parts"])
        ),
        arrangement=record["arrangement"],
        kernel=(k1, k2),
        in_channels=int(record["in_channels"]),
        out_channels=int(record["out_channels"]),
        bias=take("bias", optional=True),
    )
