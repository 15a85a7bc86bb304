"""Tensors from GGUF files, the format of GGML's language models, through the package that its authors keep.

Blocks of few bits (Q4_0, Q4_1, Q8_0, Q6_K and the others that the package knows) become the numbers that they stand
for.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from simulator.base.errors import InputError
from simulator.base.memory import check_memory

MAGIC = b"GGUF"
# Kinds whose numbers are read as they are.
_PLAIN = ("F64", "F32", "F16", "BF16")


def read_gguf(path: Path) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Tensors by name, shaped as (outputs, inputs), in float32; and what is to be told of
    them. Raises InputError without the package gguf, for damaged files, and for kinds that it cannot read.
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
    return state, _told(tensors)


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
    shape = tuple(int(size) for size in reversed(tensor.shape))
    try:
        values = np.asarray(gguf.quants.dequantize(tensor.data, tensor.tensor_type), np.float32).reshape(shape)
    except NotImplementedError:
        rule = "the package 'gguf' knows how to read its kind"
        raise InputError(where, kind, rule, "Update the package, or convert the file to Q8_0 or F16.") from None
    except Exception as error:
        found = f"{kind} of shape {shape} ({error})"
        raise InputError(where, found, "its blocks fill its shape", "The file is damaged: copy it again.") from None
    return torch.from_numpy(np.array(values))


def _told(tensors: list[Any]) -> tuple[str, ...]:
    rounded = Counter(one.tensor_type.name for one in tensors if one.tensor_type.name not in _PLAIN)
    if not rounded:
        return ()
    kinds = ", ".join(f"{count} of {kind}" for kind, count in sorted(rounded.items()))
    return (f"tensors of few bits are read as the numbers that they stand for, and rounded anew: {kinds}",)
