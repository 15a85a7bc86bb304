"""Tensors from GGUF files, the format of GGML's language models, through the package that its authors keep.

Blocks of few bits (Q4_0, Q4_1, Q8_0, Q6_K and the others that the package knows) become the numbers that they stand
for, with their grid where a machine can hold it (`gblr_hw.files.gguf_blocks`), so that their codes stay.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gblr_hw.files.gguf_blocks import FITS, grid_of_blocks
from gblr_hw.weights.bits.grid import Grid
from simulator.base.errors import InputError
from simulator.base.memory import check_memory

MAGIC = b"GGUF"
# Kinds whose numbers are read as they are.
_PLAIN = ("F64", "F32", "F16", "BF16")
_READ = "tensors of few bits are read as the numbers that they stand for"


def read_gguf(path: Path) -> tuple[dict[str, Tensor], dict[str, Grid], tuple[str, ...]]:
    """Tensors by name, shaped as (outputs, inputs), in float32; the grids of those that lie on one; and what is to be
    told of them. Raises InputError without the package gguf, for damaged files, and for kinds that it cannot read.
    """
    gguf = _package(path)
    try:
        reader = gguf.GGUFReader(str(path))
        tensors = list(reader.tensors)
        weights = sum(int(one.n_elements) for one in tensors)
        check_memory(str(path), f"{weights} weights in float32", 4 * weights, "Read it on a larger computer.")
    except InputError:
        raise
    except Exception as error:  # whatever its parser stumbles over
        found = f"no readable GGUF ({type(error).__name__}: {error})"
        raise InputError(str(path), found, "a GGUF file is complete and of version 2 or 3", "Copy it again.") from None
    state = {str(one.name): _numbers(gguf, path, one) for one in tensors}
    if len(state) != len(tensors):
        raise InputError(str(path), "a name twice", "every tensor has a name of its own", "Write the file again.")
    held = {str(one.name): grid_of_blocks(one.tensor_type.name, np.asarray(one.data), _shape(one)) for one in tensors}
    grids = {name: grid for name, grid in held.items() if grid is not None}
    return state, grids, _told(tensors, grids)


def _shape(tensor: Any) -> tuple[int, ...]:
    return tuple(int(size) for size in reversed(tensor.shape))


def _package(path: Path) -> Any:
    try:
        import gguf
    except ImportError:
        raise InputError(
            str(path), "a GGUF file", "the package 'gguf' reads them", "pip install 'gblr-hw[gguf]'"
        ) from None
    return gguf


def _numbers(gguf: Any, path: Path, tensor: Any) -> Tensor:
    where, kind = f"{path}: tensor '{tensor.name}'", tensor.tensor_type.name
    shape = _shape(tensor)
    try:
        values = np.asarray(gguf.quants.dequantize(tensor.data, tensor.tensor_type), np.float32).reshape(shape)
    except NotImplementedError:
        rule = "the package 'gguf' knows how to read its kind"
        raise InputError(where, kind, rule, "Update the package, or convert the file to Q8_0 or F16.") from None
    except Exception as error:
        found = f"{kind} of shape {shape} ({error})"
        raise InputError(where, found, "its blocks fill its shape", "The file is damaged: copy it again.") from None
    return torch.from_numpy(np.array(values))


def _told(tensors: list[Any], grids: Mapping[str, Grid]) -> tuple[str, ...]:
    told = []
    few = [one for one in tensors if one.tensor_type.name not in _PLAIN]
    anew = f"{_READ}, and rounded anew, as their blocks' scales do not fit a machine's ({FITS})"
    for said, on_grid in (("tensors of few bits keep their codes", True), (anew, False)):
        kinds = Counter(one.tensor_type.name for one in few if (str(one.name) in grids) == on_grid)
        if kinds:
            told.append(f"{said}: {', '.join(f'{count} of {kind}' for kind, count in sorted(kinds.items()))}")
    return tuple(told)
