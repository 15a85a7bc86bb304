"""What checkpoints, structures and converted models show of themselves, as text, HTML, data frames and pictures."""

from __future__ import annotations

from html import escape
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch
from torch import nn

from gblr_hw import convert, load_checkpoint, lower, save_checkpoint
from gblr_hw.files.named_layers import Checkpoint
from gblr_hw.weights.stored import DenseWeights, LatticeWeights
from gblr_hw.weights.structure import Structure
from simulator import Machine, simulate
from simulator.base.errors import InputError
from simulator.base.pictures import _PICTURES

EDGE = Machine.load("edge-16")
STRUCTURE = Structure(
    np.array([[True, False], [False, False], [False, False]]),
    np.array([[True, True], [False, True], [False, False]]),
    np.array([[True, False, False], [True, True, False], [False, False, False]]),
)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    torch.manual_seed(0)
    made = convert({"fc1": np.eye(64, dtype=np.float32)}, EDGE, tiles=0.5, family="low-rank")
    save_checkpoint({**made, "fc2": DenseWeights(torch.ones(16, 32), torch.zeros(16))}, tmp_path / "c.safetensors")
    assert isinstance(made, Checkpoint)
    return load_checkpoint(tmp_path / "c.safetensors")


def test_a_checkpoint_is_a_dict_and_a_table(checkpoint: Checkpoint) -> None:
    assert isinstance(checkpoint, dict) and set(checkpoint) == {"fc1", "fc2"}
    lines = repr(checkpoint).splitlines()
    assert lines[1].split() == ["layer", "family", "outputs", "inputs", "numbers"]
    assert lines[4].split() == ["fc2", "dense", "16", "32", "528"]
    weights = checkpoint["fc1"]
    assert isinstance(weights, LatticeWeights)
    held = sum(getattr(weights, name).numel() for name in ("u", "v", "reads", "writes", "tiles", "dense"))
    assert lines[3].split() == ["fc1", "low_rank", "64", "64", f"{held:,}"]
    assert lines[0] == f"2 layers, {held + 528:,} numbers"
    assert "<td" in checkpoint._repr_html_()
    frame = checkpoint.to_dataframe()
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame["multiplications"]) == [16 * 128, 512] and list(frame["ranks"]) == [16, 0]


def test_a_checkpoint_is_drawn_by_its_blocks(checkpoint: Checkpoint) -> None:
    assert checkpoint.plot(["fc1"], title="a").get_suptitle() == "a"
    with pytest.raises(InputError, match=r"plot: layers: found 'fc9'; layers are fc1, fc2"):
        checkpoint.plot(["fc9"])
    with pytest.raises(InputError, match="none with blocks"):
        checkpoint.plot(["fc2"])


def test_a_structure_tells_its_parts() -> None:
    rows = [line.rsplit(maxsplit=2) for line in repr(STRUCTURE).splitlines()[3:]]
    assert [row[1:] for row in rows] == [["1", "6"], ["2", "3"], ["1.5", "2"], ["1.5", "3"], ["3", "6"]]
    frame = STRUCTURE.to_dataframe()
    assert list(frame["ranks"]) == [1, 2, 0, 1, 0, 0] and list(frame["dense"]) == [True] + 5 * [False]
    (panel, _) = STRUCTURE.plot().axes
    assert panel.images[0].get_array().tolist() == [[2, 2], [0, 1], [0, 0]]


def test_a_converted_model_is_a_table_too() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(32, 32)).eval()
    found = convert(model, EDGE, batches=[torch.randn(64, 32)], tiles=0.5, family="block-sparse")
    assert found.warnings and escape(found.warnings[0]) in found._repr_html_()
    assert list(found.to_dataframe()["tiles"]) == [2]


def test_every_picture_that_is_promised_is_drawn() -> None:
    torch.manual_seed(0)
    program = lower(nn.Sequential(nn.Linear(24, 40), nn.Linear(40, 30)), EDGE, tokens=9)
    for owner in (program, simulate(program, EDGE), EDGE):
        kinds = _PICTURES[type(owner).__name__]
        assert kinds
        for kind in (None, *kinds):
            assert owner.plot(kind, title="t").get_suptitle() == "t"
    png = EDGE.plot()._repr_png_()
    assert png.startswith(b"\x89PNG") and png == EDGE.plot("area")._repr_png_()
    with pytest.raises(InputError, match=r"Machine\.plot: found kind 'pie'; it is one of area"):
        EDGE.plot("pie")


def test_without_the_floor_that_draws_it_is_said_what_to_import(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(_PICTURES, "Machine")
    with pytest.raises(InputError, match=r"no picture; pictures are drawn by the package 'analysis'.*import analysis"):
        EDGE.plot()
