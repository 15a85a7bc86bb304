"""The data sets that ``gblr-hw train`` knows by name, each with the vision transformer that is trained on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch import Tensor
from torch.utils.data import Dataset

from gblr_hw.demo.data import digits
from gblr_hw.demo.fashion_mnist import FOLDER, fashion_mnist
from gblr_hw.models.vit import ViTShape
from simulator.base.errors import InputError

Sets = tuple[Dataset[tuple[Tensor, Tensor]], Dataset[tuple[Tensor, Tensor]]]


@dataclass(frozen=True)
class DataSet:
    """load() gives training and test set; shape: of the network, whose images are as large as the data's."""

    load: Callable[[], Sets]
    shape: ViTShape


DIGITS = DataSet(digits, ViTShape(width=128))
_FASHION_SHAPE = ViTShape(image=28, patch=7, width=128)

# By name, from a folder: all images of the IDX files in it. Data that comes with a package has no folder.
_PACKAGED: Mapping[str, DataSet] = {"digits": DIGITS}
_IN_FOLDERS: Mapping[str, tuple[Path, Callable[[Path], DataSet]]] = {
    "fashion-mnist": (FOLDER, lambda folder: DataSet(partial(fashion_mnist, folder=folder), _FASHION_SHAPE)),
}


def data_set(text: str) -> DataSet:
    """The data set of "digits", "fashion-mnist" (where Debian's package puts it) or "fashion-mnist:FOLDER".

    Raises InputError for another name, and for a folder where none is read. Files are read by `load`.
    """
    name, colon, folder = text.partition(":")
    if name in _PACKAGED and not colon:
        return _PACKAGED[name]
    if name in _IN_FOLDERS and (folder or not colon):
        usual, build = _IN_FOLDERS[name]
        return build(Path(folder) if folder else usual)
    known = ", ".join([*_PACKAGED, *_IN_FOLDERS, *(f"{one}:FOLDER" for one in _IN_FOLDERS)])
    raise InputError("data set", repr(text), f"it is one of {known}", "Choose one of them.")
