"""The IDX reader on files made here, Fashion-MNIST where it is installed, and both as data sets by name."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gblr_hw.cost.target import parse_target
from gblr_hw.demo.data_sets import DIGITS, data_set
from gblr_hw.demo.fashion_mnist import FOLDER, fashion_mnist, read_idx
from gblr_hw.demo.single import train_single
from simulator import Machine
from simulator.base.errors import InputError


def _idx(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def _folder(path: Path, images: int = 12, labels: int | None = None) -> Path:
    rng = np.random.default_rng(0)
    for part in ("train", "t10k"):
        pictures = rng.integers(0, 256, (images, 28, 28), dtype=np.uint8)
        names = rng.integers(0, 10, images if labels is None else labels, dtype=np.uint8)
        (path / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(_idx(pictures)))
        (path / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(_idx(names)))
    return path


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 4), min_size=0, max_size=4), st.booleans(), st.integers(0, 2**20))
def test_what_is_written_reads_back(
    tmp_path_factory: pytest.TempPathFactory, shape: list[int], zipped: bool, seed: int
) -> None:
    array = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    path = tmp_path_factory.mktemp("idx") / ("a.gz" if zipped else "a")
    path.write_bytes(gzip.compress(_idx(array)) if zipped else _idx(array))
    found = read_idx(path)
    assert found.shape == tuple(shape)
    assert (found == array).all()


def test_sets_are_standardised_and_fixed(tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    train_set, test_set = fashion_mnist(9, 5, folder)
    assert (len(train_set), len(test_set)) == (9, 5)
    images = torch.stack([train_set[i][0] for i in range(9)])
    assert images.shape == (9, 28, 28)
    assert abs(float(images.mean())) < 1e-4
    assert float(images.std()) == pytest.approx(1.0, abs=1e-4)
    again, _ = fashion_mnist(9, 5, folder)
    assert all(torch.equal(again[i][0], train_set[i][0]) for i in range(9))
    shorter, _ = fashion_mnist(4, 5, folder)
    assert [int(shorter[i][1]) for i in range(4)] == [int(train_set[i][1]) for i in range(4)]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "the first bytes"),
        (b"\0\0\x0d\1\0\0\0\1\0", "the first bytes 00000d01"),
        (b"\0\0\x08\2\0\0\0\1", "less than its header"),
        (_idx(np.zeros((2, 3), np.uint8))[:-1], "5 values for the shape (2, 3)"),
    ],
)
def test_files_that_are_not_whole_are_refused(content: bytes, text: str, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(content)
    with pytest.raises(InputError, match="whole IDX file") as caught:
        read_idx(path)
    assert text in str(caught.value)
    (tmp_path / "x.gz").write_bytes(content)
    with pytest.raises(InputError, match="whole IDX file"):
        read_idx(tmp_path / "x.gz")


def test_a_missing_data_set_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="apt-get install dataset-fashion-mnist"):
        fashion_mnist(folder=tmp_path)
    with pytest.raises(InputError, match="there are 12"):
        fashion_mnist(13, 5, _folder(tmp_path))
    with pytest.raises(InputError, match="one label goes with each image"):
        fashion_mnist(9, 5, _folder(tmp_path, labels=11))


@pytest.mark.skipif(not FOLDER.exists(), reason="dataset-fashion-mnist is not installed")
def test_the_real_set() -> None:
    train_set, test_set = fashion_mnist()
    assert (len(train_set), len(test_set)) == (60_000, 10_000)
    labels = torch.tensor([int(test_set[i][1]) for i in range(10_000)])
    assert labels.bincount().tolist() == [1000] * 10


def test_data_sets_by_name(tmp_path: Path) -> None:
    assert data_set("digits") is DIGITS
    named = data_set(f"fashion-mnist:{_folder(tmp_path)}")
    train_set, test_set = named.load()
    assert (len(train_set), len(test_set)) == (12, 12)
    assert train_set[0][0].shape == (named.shape.image, named.shape.image) == (28, 28)
    assert named.shape.tokens == DIGITS.shape.tokens == 16
    with pytest.raises(InputError, match="dataset-fashion-mnist"):
        data_set(f"fashion-mnist:{tmp_path / 'none'}").load()


def test_a_network_is_trained_on_another_data_set(tmp_path: Path) -> None:
    data = data_set(f"fashion-mnist:{_folder(tmp_path)}")
    network, dense = train_single(
        "block-sparse", Machine.load("edge-16"), parse_target("0.8x-dense"), data=data, images=1, epochs=1
    )
    assert network.model(torch.zeros(2, 28, 28)).shape == (2, 10)
    assert network.kind == "block_sparse"
    assert network.reached <= 0.8 * dense


@pytest.mark.parametrize("text", ["mnist", "fashion-mnist:", "digits:here", ""])
def test_other_data_sets_are_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"it is one of digits, fashion-mnist, fashion-mnist:FOLDER"):
        data_set(text)
