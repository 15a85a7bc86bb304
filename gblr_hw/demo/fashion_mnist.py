"""Fashion-MNIST from Debian's package, and a reader for the IDX format that it comes in."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from simulator.base.errors import InputError

# Where Debian's dataset-fashion-mnist puts its files.
FOLDER = Path("/usr/share/datasets/fashion-mnist")
_SPLIT_SEED = 2024
_UNSIGNED_BYTES = 8


def fashion_mnist(
    train_images: int | None = None, test_images: int | None = None, folder: Path = FOLDER
) -> tuple[Dataset[tuple[Tensor, Tensor]], Dataset[tuple[Tensor, Tensor]]]:
    """Training and test sets of images (28, 28) float32, standardised by the training set, and labels 0-9.

    The first `train_images` of a fixed permutation of the training images, the first `test_images` of the test images
    (all, if None), so accuracies of different runs compare image by image.

    Raises
    ------
    InputError: files that are missing (the message says how to get them) or no IDX files, more images than there are.
    """
    images, labels = _read_pair(folder, "train", train_images)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(_SPLIT_SEED))[:train_images]
    images, labels = images[order], labels[order]
    held_out, held_labels = _read_pair(folder, "t10k", test_images)
    mean, std = images.mean(), images.std()
    # A TensorDataset's type does not say that each example is a pair.
    train_set = cast(Dataset[tuple[Tensor, Tensor]], TensorDataset((images - mean) / std, labels))
    test = TensorDataset((held_out[:test_images] - mean) / std, held_labels[:test_images])
    return train_set, cast(Dataset[tuple[Tensor, Tensor]], test)


def _read_pair(folder: Path, part: str, wanted: int | None) -> tuple[Tensor, Tensor]:
    images = read_idx(folder / f"{part}-images-idx3-ubyte.gz")
    labels = read_idx(folder / f"{part}-labels-idx1-ubyte.gz")
    if images.ndim != 3 or labels.shape != images.shape[:1]:
        raise InputError(
            f"data set '{folder}'",
            f"{part} images of shape {images.shape} and labels of shape {labels.shape}",
            "one label goes with each image",
            "Take both files from one release.",
        )
    if wanted is not None and not 1 <= wanted <= len(labels):
        raise InputError(
            f"number of {part} images", str(wanted), f"there are {len(labels)}", "Ask for at least 1 and no more."
        )
    return torch.from_numpy(images.astype(np.float32)), torch.from_numpy(labels.astype(np.int64))


def read_idx(path: Path) -> npt.NDArray[np.uint8]:
    """An array of unsigned bytes from an IDX file, gzipped if the name ends in .gz (format: yann.lecun.com/exdb/mnist).

    Raises
    ------
    InputError: a file that is missing, is no IDX file of unsigned bytes, or has another length than its header says.
    """
    if not path.exists():
        raise InputError(
            f"data file '{path}'",
            "no such file",
            "Fashion-MNIST comes with Debian's package dataset-fashion-mnist",
            "Install it (apt-get install dataset-fashion-mnist), or unpack it and name the folder.",
        )
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError) as error:
        raise _bad_file(path, str(error)) from error
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] != _UNSIGNED_BYTES:
        raise _bad_file(path, f"the first bytes {content[:4].hex()}")
    dimensions = content[3]
    header = 4 + 4 * dimensions
    if len(content) < header:
        raise _bad_file(path, f"{len(content)} bytes, less than its header")
    shape = struct.unpack(f">{dimensions}I", content[4:header])
    if len(content) - header != int(np.prod(shape, dtype=np.int64)):
        raise _bad_file(path, f"{len(content) - header} values for the shape {shape}")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def _bad_file(path: Path, found: str) -> InputError:
    return InputError(
        f"data file '{path}'", found, "it must be a whole IDX file of unsigned bytes", "Fetch the file again."
    )
