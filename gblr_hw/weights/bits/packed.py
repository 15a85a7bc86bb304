"""Codes of up to four bits two to a byte, the first in the lower half; others a byte each. Two's complement."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from simulator.base.arithmetic import ceil_div


def packed_bytes(count: int, bits: int) -> int:
    """Bytes of so many codes."""
    return ceil_div(count, 2) if bits <= 4 else count


def pack_codes(codes: npt.NDArray[np.int8], bits: int) -> npt.NDArray[np.uint8]:
    """Bytes of a matrix of codes, row by row."""
    flat = np.ascontiguousarray(codes).ravel().view(np.uint8)
    if bits > 4:
        return flat.copy()
    pairs = np.append(flat, np.zeros(len(flat) % 2, np.uint8)).reshape(-1, 2)
    return np.asarray(pairs[:, 0] & 15 | pairs[:, 1] << 4, np.uint8)


def unpack_codes(packed: npt.NDArray[np.uint8], bits: int, shape: tuple[int, int]) -> npt.NDArray[np.int8]:
    """The codes again, (m, n)."""
    if bits > 4:
        return packed.view(np.int8).reshape(shape)
    nibbles = np.stack([packed & 15, packed >> 4], axis=1).ravel()[: shape[0] * shape[1]].astype(np.int8)
    return np.asarray(np.where(nibbles > 7, nibbles - 16, nibbles).astype(np.int8).reshape(shape))
