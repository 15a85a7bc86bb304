"""Reading any supported checkpoint into named layer weights, and writing the toolkit's own format."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from gblr_hw.files.own_format import METADATA_KEY, decode, encode
from gblr_hw.files.published import Kernels, layers_from_state, strip_prefixes
from gblr_hw.files.tensor_files import read_tensors, write_safetensors
from gblr_hw.weights.collect import weights_of
from gblr_hw.weights.stored import WEIGHT_KINDS, LayerWeights, check_matrix_size
from simulator.base.errors import InputError


def load_checkpoint(
    path: str | os.PathLike[str], gaussian: bool | None = None, *, kernels: Kernels | None = None
) -> dict[str, LayerWeights]:
    """Layer name -> weights, from the toolkit's own format, a published state dict (bare, or nested in a Lightning
    file; .pt, .pth, .ckpt, .bin) or plain safetensors; told apart by content. Which tensors are layers: see
    `gblr_hw.files.published`.

    gaussian: whether published GBLR layers use the Gaussian (own files record it: leave it out, or it must agree).
    kernels: layer name -> (k1, k2) for published GBLR convolutions, which do not hold their kernel's shape. Layers come
    in the order of the file; plain safetensors have none, there names are sorted naturally (block 2 before block 10).
    Dense layers in half precision stay in the file's mapped pages until they are evaluated, in float32; other layers
    are read as float32. Nothing but tensors is ever unpickled. Raises InputError for whatever is wrong with the file.
    """
    file = Path(path)
    tensors = read_tensors(file)
    try:
        layers = _layers(tensors.metadata, tensors.state, tensors.nested, tensors.ordered, gaussian, kernels)
        for weights in layers.values():
            check_matrix_size(weights.out_features, weights.in_features)
    except InputError as error:
        raise InputError(f"{file}: {error.where}", error.value, error.rule, error.remedy) from None
    return layers


def save_checkpoint(checkpoint: Mapping[str, LayerWeights] | nn.Module, path: str | os.PathLike[str]) -> None:
    """Write layers (or every layer of a model, as `weights_of` finds them) in the toolkit's own format, atomically.

    Raises InputError on an empty checkpoint, on objects that are no weights, and if the folder does not exist.
    """
    layers = weights_of(checkpoint) if isinstance(checkpoint, nn.Module) else dict(checkpoint)
    if not layers:
        raise InputError("checkpoint", "no layers", "it must hold at least one", "Nothing was written.")
    for name, weights in layers.items():
        if not isinstance(weights, WEIGHT_KINDS):
            raise InputError(
                f"layer '{name}'", type(weights).__name__, "a checkpoint holds layer weights", "Pass module.weights()."
            )
    tensors, metadata = encode(layers)
    write_safetensors(Path(path), tensors, {METADATA_KEY: metadata})


def _layers(
    metadata: Mapping[str, str],
    state: dict[str, Tensor],
    nested: bool,
    ordered: bool,
    gaussian: bool | None,
    kernels: Kernels | None,
) -> dict[str, LayerWeights]:
    if METADATA_KEY in metadata:
        if kernels:
            raise InputError(
                "kernels", repr(dict(kernels)), "the file records its convolutions' kernels", "Leave it out."
            )
        return decode(metadata[METADATA_KEY], state, gaussian)
    names = state if ordered else sorted(state, key=_natural)
    layers = layers_from_state(strip_prefixes({name: state[name] for name in names}, nested=nested), gaussian, kernels)
    if not layers:
        raise InputError(
            "checkpoint",
            f"{len(state)} tensors and no layer ({', '.join(list(state)[:3])}{' ...' if len(state) > 3 else ''})",
            "a layer is NAME.widths with its factors, or NAME.weight with two or four dimensions",
            "Check that this is the network's checkpoint.",
        )
    return layers


def _natural(name: str) -> list[tuple[int, int | str]]:
    return [(0, int(part)) if part.isdigit() else (1, part) for part in re.split(r"(\d+)", name) if part]
