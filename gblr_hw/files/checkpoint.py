"""Reading any supported checkpoint into named layer weights, and writing the toolkit's own format."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

from torch import Tensor, nn

from gblr_hw.files.accounting import Account, Told, config_sizes, matches
from gblr_hw.files.named_layers import Checkpoint
from gblr_hw.files.own_format import METADATA_KEY, decode, encode
from gblr_hw.files.published import Kernels, Shapes, layers_from_state, strip_prefixes
from gblr_hw.files.tensor_files import TensorFile, read_tensors, write_safetensors
from gblr_hw.weights.bits.grid import Grid, kept_grid
from gblr_hw.weights.checks import check_matrix_size
from gblr_hw.weights.collect import weights_of
from gblr_hw.weights.stored import WEIGHT_KINDS, DenseWeights, LayerWeights
from simulator.base.errors import InputError


@dataclass(frozen=True)
class Contents:
    """A checkpoint's layers by name, and what became of every tensor that is in none of them."""

    layers: dict[str, LayerWeights]
    account: Account


def load_checkpoint(
    path: str | os.PathLike[str],
    gaussian: bool | None = None,
    *,
    kernels: Kernels | None = None,
    shapes: Shapes | None = None,
    tables: Iterable[str] = (),
    layers: Iterable[str] = (),
    leave_out: Iterable[str] = (),
    transposed: Iterable[str] = (),
) -> Checkpoint[LayerWeights]:
    """Layer name -> weights, a dict that shows itself as a table, from the toolkit's own format, a published state dict
    (bare, or nested in a Lightning file; .pt, .pth, .ckpt, .bin), plain safetensors, GGUF, or a folder of sharded files
    with their index; told apart by content. Which tensors are layers: see `gblr_hw.files.published`.

    gaussian: whether published GBLR layers use the Gaussian (own files record it: leave it out, or it must agree).
    kernels: layer name -> (k1, k2) for published GBLR convolutions, which do not hold their kernel's shape.
    shapes: layer name -> (outputs, inputs) of Monarch layers whose factors are padded; own files record them.
    tables, layers, leave_out, transposed: shell patterns on tensors' or layers' names: matrices that are looked up,
        matrices that are layers whatever they are called, tensors that may stay out, dense layers stored inputs first
        (`gblr_hw.files.accounting`).

    Layers come in the order of the file; plain safetensors have none, there names are sorted naturally (block 2 before
    block 10). Dense layers in half precision stay in the file's mapped pages until they are evaluated, in float32;
    other layers are read as float32. Nothing but tensors is ever unpickled. Raises InputError for whatever is wrong
    with the file, and if some tensor is in no layer and nothing says why.
    """
    told = Told.of(tables, layers, leave_out, transposed)
    return Checkpoint(read_checkpoint(path, gaussian, kernels=kernels, shapes=shapes, told=told).layers)


def read_checkpoint(
    path: str | os.PathLike[str],
    gaussian: bool | None = None,
    *,
    kernels: Kernels | None = None,
    shapes: Shapes | None = None,
    told: Told | None = None,
) -> Contents:
    """The same, and the account of every tensor."""
    file, told = Path(path), told or Told()
    tensors = read_tensors(file)
    sizes = config_sizes(file / "config.json" if file.is_dir() else file)
    try:
        contents = _layers(tensors, gaussian, kernels, told, sizes, shapes)
        contents.account.require_whole()
        for weights in contents.layers.values():
            check_matrix_size(weights.out_features, weights.in_features)
        _require_used(told, tensors.state, contents.layers)
    except InputError as error:
        raise InputError(f"{file}: {error.where}", error.value, error.rule, error.remedy) from None
    return contents


def _require_used(told: Told, state: Mapping[str, Tensor], layers: Mapping[str, LayerWeights]) -> None:
    """Raise InputError for a pattern that matches nothing: it would do nothing."""
    names = [*state, *layers]
    for option in fields(told):
        for pattern in getattr(told, option.name):
            if not any(matches(name, (pattern,)) for name in names):
                raise InputError(
                    f"{option.name} '{pattern}'",
                    "no tensor or layer of that name",
                    f"names are {', '.join(names[:4])}{', ...' if len(names) > 4 else ''}",
                    "Correct the pattern.",
                )


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
    tensors: TensorFile,
    gaussian: bool | None,
    kernels: Kernels | None,
    told: Told,
    sizes: frozenset[int],
    shapes: Shapes | None,
) -> Contents:
    state = tensors.state
    if METADATA_KEY in tensors.metadata:
        if kernels:
            raise InputError(
                "kernels", repr(dict(kernels)), "the file records its convolutions' kernels", "Leave it out."
            )
        if shapes:
            raise InputError("shapes", repr(dict(shapes)), "the file records its layers' shapes", "Leave it out.")
        for option in fields(told):
            for pattern in getattr(told, option.name):
                rule = "a file of ours records what each of its tensors is"
                raise InputError(option.name, repr(pattern), rule, "Leave it out.")
        return Contents(decode(tensors.metadata[METADATA_KEY], state, gaussian), Account())
    names = state if tensors.ordered else sorted(state, key=_natural)
    plain = strip_prefixes({name: state[name] for name in names}, nested=tensors.nested)
    layers, account = layers_from_state(plain, gaussian, kernels, told, sizes, shapes)
    if not layers:
        account.require_whole()
        raise InputError(
            "checkpoint",
            f"{len(state)} tensors and no layer ({', '.join(list(state)[:3])}{' ...' if len(state) > 3 else ''})",
            "a layer is NAME.widths with its factors, or NAME.weight with two or four dimensions",
            "Check that this is the network's checkpoint.",
        )
    account.read = tensors.notes
    return Contents(
        {name: _on_grid(weights, tensors.grids.get(f"{name}.weight")) for name, weights in layers.items()}, account
    )


def _on_grid(weights: LayerWeights, grid: Grid | None) -> LayerWeights:
    """The layer with the grid of its tensor, unless it was turned."""
    if grid is None or not isinstance(weights, DenseWeights) or weights.weight.shape[0] != len(grid.step):
        return weights
    return replace(weights, grid=kept_grid(grid, weights.weight.numpy()))


def _natural(name: str) -> list[tuple[int, int | str]]:
    return [(0, int(part)) if part.isdigit() else (1, part) for part in re.split(r"(\d+)", name) if part]
