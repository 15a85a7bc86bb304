"""BLAST and Monarch checkpoints in the published layouts: layers computed by other people's code, and files to refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gblr_hw import BLASTLinear, MonarchLinear, load_checkpoint
from gblr_hw.weights.chains import BLASTWeights, MonarchWeights
from gblr_hw.weights.factors import evaluate
from gblr_hw.weights.stored import DenseWeights
from simulator.base.errors import InputError

REFERENCE = Path(__file__).parents[2] / "data" / "reference"
BLAST = ("blast_b3_r24_96x192", "blast_b4x2_r10_64x60")
MONARCH = ("monarch_k4_64x96", "monarch_k8_96x64")


def saved(value: object, path: Path) -> Path:
    torch.save(value, path)
    return path


@pytest.mark.parametrize("name", [*BLAST, *MONARCH])
def test_a_reference_layer_gives_the_published_outputs(name: str) -> None:
    layers = load_checkpoint(REFERENCE / f"{name}.pt")
    weights = layers["fc"]
    assert list(layers) == ["fc"]
    known = np.load(REFERENCE / f"{name}.npz")
    factors = evaluate(weights).in_natural_order()
    bias = 0.0 if factors.bias is None else factors.bias
    assert np.abs(known["x"] @ factors.matrix().T + bias - known["y"]).max() < 1e-5
    if "matrix" in known:
        assert np.abs(factors.matrix() - known["matrix"]).max() < 1e-5


def test_a_reference_layer_as_a_module() -> None:
    for name in (*BLAST, *MONARCH):
        state = torch.load(REFERENCE / f"{name}.pt", weights_only=True)
        own = {key.removeprefix("fc."): tensor for key, tensor in state.items()}
        known = np.load(REFERENCE / f"{name}.npz")
        if name in BLAST:
            layer: BLASTLinear | MonarchLinear = BLASTLinear.from_state(own)
        else:
            sizes = {key: int(known[key]) for key in ("in_features", "out_features")}
            layer = MonarchLinear.from_state(own, **sizes)
        assert np.abs(layer(torch.from_numpy(known["x"])).detach().numpy() - known["y"]).max() < 1e-5
        assert set(layer.state_dict()) == set(own)


def padded() -> dict[str, Tensor]:
    torch.manual_seed(3)
    return {"a.blkdiag1": torch.randn(3, 4, 5), "a.blkdiag2": torch.randn(3, 5, 4), "b.weight": torch.randn(2, 3)}


def test_a_shape_that_padding_hides(tmp_path: Path) -> None:
    path = saved(padded(), tmp_path / "net.pt")
    plain = load_checkpoint(path)["a"]
    assert (plain.out_features, plain.in_features) == (15, 15)
    told = load_checkpoint(path, shapes={"a": (13, 14)})["a"]
    assert isinstance(told, MonarchWeights) and (told.out_features, told.in_features) == (13, 14)
    assert np.array_equal(evaluate(told).matrix(), evaluate(plain).matrix()[:13, :14])
    with_bias = padded() | {"a.bias": torch.randn(14)}
    assert load_checkpoint(saved(with_bias, tmp_path / "bias.pt"))["a"].out_features == 14


def test_half_precision_wrappers_and_neighbours(tmp_path: Path) -> None:
    torch.manual_seed(0)
    state = {
        "module.blocks.0.fc.B": torch.randn(2, 3, 4).half(), "module.blocks.0.fc.C": torch.randn(2, 4, 3).half(),
        "module.blocks.0.fc.D": torch.randn(2, 2, 4).half(), "module.head.weight": torch.randn(5, 6),
    }  # fmt: skip
    layers = load_checkpoint(saved(state, tmp_path / "net.pt"))
    assert list(layers) == ["blocks.0.fc", "head"]
    assert isinstance(layers["blocks.0.fc"], BLASTWeights) and isinstance(layers["head"], DenseWeights)
    assert layers["blocks.0.fc"].B.dtype == torch.float32


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"fc.D": None}, "layer 'fc': BLAST layer: found no D; a layer has B, C, D"),
        ({"fc.B": None}, "layer 'fc': BLAST layer: found no B"),
        ({"fc.E": torch.ones(2, 2)}, "layer 'fc': BLAST layer: found unknown tensors E"),
        ({"fc.C": torch.ones(2, 3, 5)}, "layer 'fc': tensor 'C': found shape (2, 3, 5); B has bases of 4 columns"),
        ({"fc.D": torch.ones(2, 3, 4)}, "layer 'fc': tensor 'D': found shape (2, 3, 4)"),
        ({"fc.D": torch.full((2, 2, 4), torch.nan)}, "layer 'fc': tensor 'D': found nan at index (0, 0, 0)"),
        ({"fc.D": torch.ones(2, 2, 4, dtype=torch.int8)}, "layer 'fc': tensor 'D': found dtype torch.int8"),
        ({"fc.bias": torch.ones(3)}, "layer 'fc': tensor 'bias': found shape (3,); the layer has 6 outputs"),
    ],
)
def test_bad_blast_files(change: dict[str, Tensor | None], words: str, tmp_path: Path) -> None:
    state = {"fc.B": torch.ones(2, 3, 4), "fc.C": torch.ones(2, 4, 3), "fc.D": torch.ones(2, 2, 4)} | change
    path = saved({key: tensor for key, tensor in state.items() if tensor is not None}, tmp_path / "net.pt")
    with pytest.raises(InputError) as caught:
        load_checkpoint(path)
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"a.blkdiag2": None}, "layer 'a': Monarch layer: found no blkdiag2; a layer has blkdiag1, blkdiag2"),
        ({"a.blkdiag1": None}, "layer 'a': Monarch layer: found no blkdiag1"),
        ({"a.blkdiag2": torch.ones(3, 5)}, "layer 'a': tensor 'blkdiag2': found shape (3, 5)"),
        ({"a.blkdiag2": torch.ones(3, 5, 5)}, "the first gives k q = 12 values and the second reads l r = 15"),
        (
            {"a.blkdiag1": torch.full((3, 4, 5), torch.inf)},
            "layer 'a': tensor 'blkdiag1': found inf at index (0, 0, 0)",
        ),
        (
            {"a.blkdiag1": torch.ones(3, 4, 5, dtype=torch.complex64)},
            "layer 'a': tensor 'blkdiag1': found dtype torch.complex64",
        ),
        ({"a.bias": torch.ones(16)}, "out_features: found 16; 'blkdiag2' of shape (3, 5, 4) has 15 at most"),
    ],
)
def test_bad_monarch_files(change: dict[str, Tensor | None], words: str, tmp_path: Path) -> None:
    state = {key: tensor for key, tensor in (padded() | change).items() if tensor is not None}
    with pytest.raises(InputError) as caught:
        load_checkpoint(saved(state, tmp_path / "net.pt"))
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        ({"a": (16, 15)}, "layer 'a': out_features: found 16; 'blkdiag2' of shape (3, 5, 4) has 15 at most"),
        ({"a": (15, 0)}, "layer 'a': in_features: found 0; it must be at least 1"),
        ({"c": (15, 15)}, "shapes: found 'c'; the layers are a, b"),
        ({"b": (2, 3)}, "shapes: found 'b'; only factors that are padded do not say their layer's shape"),
    ],
)
def test_bad_shapes(shapes: dict[str, tuple[int, int]], words: str, tmp_path: Path) -> None:
    path = saved(padded(), tmp_path / "net.pt")
    with pytest.raises(InputError) as caught:
        load_checkpoint(path, shapes=shapes)
    assert words in str(caught.value)


def test_a_shape_of_a_blast_layer_must_be_its_own() -> None:
    with pytest.raises(InputError, match="BLAST pads nothing"):
        load_checkpoint(REFERENCE / f"{BLAST[0]}.pt", shapes={"fc": (192, 95)})
    assert load_checkpoint(REFERENCE / f"{BLAST[0]}.pt", shapes={"fc": (192, 96)})


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (None, "BLAST layer: found a NoneType; it maps B, C, D to tensors"),
        ([1, 2], "BLAST layer: found a list; it maps B, C, D to tensors"),
        ({"B": 1, "C": torch.ones(1, 1, 1), "D": torch.ones(1, 1, 1)}, "tensor 'B': found a int; weights are tensors"),
        (
            {"B": torch.ones(2, 3, 4, device="meta"), "C": torch.ones(2, 4, 3), "D": torch.ones(2, 2, 4)},
            "tensor 'B': found shape (2, 3, 4) on the device 'meta', which holds no numbers",
        ),
        (
            {"B": torch.ones(2, 3, 4), "C": torch.ones(2, 4, 3), "D": torch.ones(2, 2, 4).to_sparse()},
            "tensor 'D': found shape (2, 2, 4), layout torch.sparse_coo; weights are dense tensors",
        ),
    ],
)
def test_bad_states(state: Any, words: str) -> None:
    with pytest.raises(InputError) as caught:
        BLASTLinear.from_state(state)
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("size", [23.5, "24", True])
def test_a_size_is_a_whole_number(size: Any) -> None:
    state = {"blkdiag1": torch.ones(4, 8, 6), "blkdiag2": torch.ones(4, 6, 8)}
    with pytest.raises(InputError, match=f"in_features: found {size!r}; it is a whole number"):
        MonarchLinear.from_state(state, in_features=size)
