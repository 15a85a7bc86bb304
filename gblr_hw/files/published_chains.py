"""Published layouts of matrices that are products of more than two factors.

* BLAST (Lee et al., NeurIPS 2024): ``B (b_out, m / b_out, r)``, ``C (b_in, r, n / b_in)``, ``D (b_out, b_in, r)``;
* Monarch (Dao et al., ICML 2022): ``blkdiag1 (k, q, p)``, ``blkdiag2 (l, s, r)``, with strided outputs;

each with an optional ``bias (m,)``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from gblr_hw.files.layer_tensors import as_float32, check_keys, optional_float32
from gblr_hw.weights.chains import BLASTWeights, MonarchWeights
from simulator.base.errors import InputError

# Outputs and inputs of a layer.
Size = tuple[int, int]
BLAST_KEYS = ("B", "C", "D")
MONARCH_KEYS = ("blkdiag1", "blkdiag2")


def blast_from_state(mapping: Mapping[str, Tensor], size: Size | None = None) -> BLASTWeights:
    """A BLAST layer from its published keys; half precision is read as float32.

    size: (m, n), which must be the factors'; None for no check. Raises InputError on missing, unknown or malformed
    tensors.
    """
    check_keys("BLAST", mapping, BLAST_KEYS)
    B, C, D = (as_float32(name, mapping[name]) for name in BLAST_KEYS)
    weights = BLASTWeights(B, C, D, optional_float32("bias", mapping))
    found = (weights.out_features, weights.in_features)
    if size is not None and size != found:
        rule = f"its factors make {found[0]} x {found[1]}, and BLAST pads nothing"
        raise InputError("shape", f"{size[0]} x {size[1]}", rule, "Leave the shape out.")
    return weights


def monarch_from_state(mapping: Mapping[str, Tensor], size: Size | None = None) -> MonarchWeights:
    """A Monarch layer, with strided outputs, from its published keys; half precision is read as float32.

    size: (m, n), which padding can hide; without it there is none, but that a bias tells m. Raises InputError on
    missing, unknown or malformed tensors.
    """
    check_keys("Monarch", mapping, MONARCH_KEYS)
    first, second = (as_float32(name, mapping[name]) for name in MONARCH_KEYS)
    bias = optional_float32("bias", mapping)
    for name, tensor in zip(MONARCH_KEYS, (first, second), strict=True):
        if tensor.dim() != 3:
            rule = "it must have the shape (blocks, outputs of a block, inputs of a block)"
            raise InputError(f"tensor '{name}'", f"shape {tuple(tensor.shape)}", rule, "Check the layer's tensors.")
    outputs = second.shape[0] * second.shape[1] if bias is None else bias.numel()
    m, n = (outputs, first.shape[0] * first.shape[2]) if size is None else size
    return MonarchWeights(first, second, in_features=n, out_features=m, bias=bias)


def published_chain(
    tensors: Mapping[str, Tensor],
) -> Callable[[Mapping[str, Tensor], Size | None], BLASTWeights | MonarchWeights] | None:
    """How to read the tensors under one name: None if they are of neither layout. Two of a layout's tensors tell it,
    so that a missing one is told rather than its rest left out.
    """
    if any(key in tensors for key in MONARCH_KEYS):
        return monarch_from_state
    blocks = [key for key in BLAST_KEYS if key in tensors and tensors[key].dim() == 3]
    return blast_from_state if len(blocks) > 1 else None
