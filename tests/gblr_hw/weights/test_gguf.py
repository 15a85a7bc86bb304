"""GGUF files: numbers against the format's blocks decoded by hand, names and shapes, what is told, what is refused."""

from __future__ import annotations

import sys
from pathlib import Path

import gguf
import numpy as np
import pytest

from gblr_hw import load_checkpoint, lower
from gblr_hw.files.checkpoint import read_checkpoint
from gblr_hw.weights.stored import DenseWeights
from simulator import Machine
from simulator.base.errors import InputError

KIND = gguf.GGMLQuantizationType


def written(path: Path, tensors: dict[str, tuple[np.ndarray, gguf.GGMLQuantizationType]]) -> Path:
    """A file of tensors that are given as numbers (float kinds) or as bytes of blocks."""
    writer = gguf.GGUFWriter(path, "llama")
    for name, (array, kind) in tensors.items():
        writer.add_tensor(name, array, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def halves(data: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(data).view(np.float16).astype(np.float64)


def by_hand(blocks: np.ndarray, kind: gguf.GGMLQuantizationType) -> np.ndarray:
    """What the format's description says of one block, (blocks, bytes) -> (blocks, weights)."""
    if kind is KIND.Q8_0:  # a half, 32 signed bytes
        return halves(blocks[:, :2]) * blocks[:, 2:].view(np.int8)
    if kind in (KIND.Q4_0, KIND.Q4_1):  # halves, 16 bytes: low nibbles are the first 16 weights, high ones the others
        first = 2 if kind is KIND.Q4_0 else 4
        codes = np.concatenate([blocks[:, first:] & 15, blocks[:, first:] >> 4], axis=1).astype(np.float64)
        scale = halves(blocks[:, :2])
        return scale * (codes - 8) if kind is KIND.Q4_0 else scale * codes + halves(blocks[:, 2:4])
    assert kind is KIND.Q6_K  # 128 bytes of low nibbles, 64 of upper pairs of bits, 16 signed scales, a half
    low, high, scales, scale = (
        blocks[:, :128],
        blocks[:, 128:192],
        blocks[:, 192:208].view(np.int8),
        halves(blocks[:, 208:]),
    )
    found = np.zeros((len(blocks), 256))
    for half in range(2):
        for i in range(32):
            bytes_of = low[:, 64 * half + i], low[:, 64 * half + 32 + i]
            upper = high[:, 32 * half + i]
            nibbles = bytes_of[0] & 15, bytes_of[1] & 15, bytes_of[0] >> 4, bytes_of[1] >> 4
            for part, nibble in enumerate(nibbles):
                code = (nibble | (upper >> 2 * part & 3) << 4).astype(np.float64) - 32
                at = 128 * half + 32 * part + i
                found[:, at] = scale[:, 0] * scales[:, at // 16] * code
    return found


@pytest.mark.parametrize("kind", [KIND.Q8_0, KIND.Q4_0, KIND.Q4_1, KIND.Q6_K], ids=lambda kind: kind.name)
def test_numbers_are_those_of_the_blocks(kind: gguf.GGMLQuantizationType, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    weights, size = gguf.GGML_QUANT_SIZES[kind]
    m, n = 6, 2 * weights
    blocks = rng.integers(0, 256, (m * n // weights, size), np.uint8)
    scales = {KIND.Q4_1: (0, 2), KIND.Q6_K: (208,)}.get(kind, (0,))
    for at in scales:  # halves that are numbers
        blocks[:, at : at + 2] = rng.normal(size=(len(blocks), 1)).astype(np.float16).view(np.uint8)
    path = written(tmp_path / "net.gguf", {"blk.0.attn_q.weight": (blocks.reshape(m, -1), kind)})
    contents = read_checkpoint(path)
    layer = contents.layers["blk.0.attn_q"]
    assert isinstance(layer, DenseWeights) and (layer.out_features, layer.in_features) == (m, n)
    np.testing.assert_allclose(layer.weight.numpy(), by_hand(blocks, kind).reshape(m, n), rtol=1e-6, atol=1e-7)
    assert contents.account.notes() == [
        f"tensors of few bits are read as the numbers that they stand for, and rounded anew: 1 of {kind.name}"
    ]


def test_a_network_of_several_kinds_is_accounted_for_and_lowered(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    up, norm, table = rng.normal(size=(48, 32)), rng.normal(size=32), rng.normal(size=(2000, 32))
    path = written(
        tmp_path / "net.gguf",
        {
            "token_embd.weight": (table.astype(np.float16), KIND.F16),
            "blk.1.ffn_up.weight": (up.astype(np.float32), KIND.F32),
            "blk.1.ffn_norm.weight": (norm.astype(np.float32), KIND.F32),
            "output.weight": (gguf.quants.quantize(table.astype(np.float32), KIND.Q8_0), KIND.Q8_0),
        },
    )
    layers = load_checkpoint(path)
    assert list(layers) == ["blk.1.ffn_up", "output"]
    np.testing.assert_array_equal(layers["blk.1.ffn_up"].weight.numpy(), up.astype(np.float32))
    np.testing.assert_allclose(layers["output"].weight.numpy(), table, atol=np.abs(table).max() / 127)
    assert lower({"up": layers["blk.1.ffn_up"]}, Machine.load("edge-16"), tokens=4).layers[0].out_features == 48


def test_what_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = written(tmp_path / "net.gguf", {"a.weight": (np.ones((32, 32), np.float32), KIND.F32)})
    short = tmp_path / "short.gguf"
    for cut in (8, 30, good.stat().st_size - 100):
        short.write_bytes(good.read_bytes()[:cut])
        with pytest.raises(InputError, match=r"no readable GGUF \(.*\); a GGUF file is complete .* Copy it again"):
            load_checkpoint(short)
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(
        InputError, match=r"found a GGUF file; the package 'gguf' reads them. pip install 'gblr-hw\[gguf"
    ):
        load_checkpoint(good)
