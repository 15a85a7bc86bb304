"""The embedded data set: scikit-learn's real 8 x 8 digits, always split the same way."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

TEST_IMAGES = 500
_SPLIT_SEED = 2024


def digits() -> tuple[Dataset[tuple[Tensor, Tensor]], Dataset[tuple[Tensor, Tensor]]]:
    """Training (1297) and test (500) sets of images (8, 8) float32, standardised by the training set, and labels 0-9.

    The split is a fixed permutation, so accuracies of different runs compare image by image.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    order = torch.randperm(len(bunch.target), generator=torch.Generator().manual_seed(_SPLIT_SEED))
    images = torch.from_numpy(bunch.images).float()[order]
    labels = torch.from_numpy(bunch.target).long()[order]
    train = images[TEST_IMAGES:]
    images = (images - train.mean()) / train.std()
    # A TensorDataset's type does not say that each example is a pair.
    train_set = cast(Dataset[tuple[Tensor, Tensor]], TensorDataset(images[TEST_IMAGES:], labels[TEST_IMAGES:]))
    test_set = cast(Dataset[tuple[Tensor, Tensor]], TensorDataset(images[:TEST_IMAGES], labels[:TEST_IMAGES]))
    return train_set, test_set
