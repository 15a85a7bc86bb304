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
        "tensors of few bits are read as the numbers that they stand for, and rounded anew, as their blocks' scales do not "
        f"fit a machine's (one step an output, times a power of two in narrow tiles): 1 of {kind.name}"
    ]


def blocks_of(kind: gguf.GGMLQuantizationType, codes: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Bytes of blocks (blocks, 32) of codes, Q4_1 with an offset of -8 scales."""
    head = scale.astype(np.float16)[:, None].view(np.uint8)
    if kind is KIND.Q8_0:
        return np.concatenate([head, codes.astype(np.int8).view(np.uint8)], axis=1)
    if kind is KIND.Q4_1:
        head = np.concatenate([head, (-8 * scale).astype(np.float16)[:, None].view(np.uint8)], axis=1)
    raised = (codes + 8).astype(np.uint8)
    return np.concatenate([head, raised[:, :16] | raised[:, 16:] << 4], axis=1)


@pytest.mark.parametrize(
    ("kind", "powers", "fits"),
    [
        (KIND.Q4_0, [0, 3, 1], True),
        (KIND.Q4_1, [0, 3, 1], True),
        (KIND.Q8_0, [0, 0, 0], True),
        (KIND.Q8_0, [0, 1, 0], False),
        (KIND.Q4_0, [0, 9, 0], False),
        (KIND.Q4_0, [0, 1.5, 0], False),
    ],
    ids=str,
)
def test_blocks_that_fit_the_machine_keep_their_codes(
    kind: gguf.GGMLQuantizationType, powers: list[float], fits: bool, tmp_path: Path
) -> None:
    rng = np.random.default_rng(1)
    limit = 127 if kind is KIND.Q8_0 else 7
    codes = rng.integers(-limit, limit + 1, (40 * 3, 32))
    codes[:, :2] = limit, 1
    scale = (rng.integers(1025, 2048, (40, 1)) / 2**12 * 2.0 ** np.array(powers)).ravel()
    data = blocks_of(kind, codes, scale).reshape(40, -1)
    path = written(tmp_path / "net.gguf", {"blk.0.attn_q.weight": (data, kind)})
    contents = read_checkpoint(path)
    layer = contents.layers["blk.0.attn_q"]
    assert isinstance(layer, DenseWeights) and (layer.grid is not None) == fits
    (note,) = contents.account.notes()
    assert note.startswith("tensors of few bits keep their codes" if fits else "tensors of few bits are read as")
    if fits:
        machine = Machine.load("mid-32").with_(datatypes={"narrow_bits": 4})
        program = lower(contents.layers, machine, tokens=4)
        assert "rounded" not in program.provenance
        assert program.layers[0].tiles.narrow.all() == (kind is not KIND.Q8_0)
        assert sorted(program.layers[0].payload.codes.tolist()) == sorted(codes.ravel().tolist())


def test_a_negative_scale_turns_codes_and_eight_has_no_place(tmp_path: Path) -> None:
    """What plain converters write: the largest weight of each block is code -8 times a scale of either sign."""
    for lowest, fits in ((-7, True), (-8, False)):
        codes = np.full((2, 32), 3)
        codes[0, 0] = lowest
        path = written(
            tmp_path / "net.gguf",
            {"blk.0.attn_q.weight": (blocks_of(KIND.Q4_0, codes, np.array([-0.5, 0.5])), KIND.Q4_0)},
        )
        layer = load_checkpoint(path)["blk.0.attn_q"]
        assert isinstance(layer, DenseWeights) and (layer.grid is not None) == fits
        assert layer.weight[0, 0] == -0.5 * lowest


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
