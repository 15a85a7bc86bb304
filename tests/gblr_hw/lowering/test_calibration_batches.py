"""Calibration takes what data loaders give: labels, dicts, generators, batches of another size."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from gblr_hw import lower
from gblr_hw.lowering.calibration_batches import calibration_arrays
from simulator.base.errors import InputError
from simulator.machine.machine import Machine
from simulator.network.network import Port

PORTS = (
    Port("x", "x", (4, 6), (4, 6), (0, 1)),
    Port("ids", "ids", (4,), (4,), (0,), "index"),
)
X, IDS, LABELS = torch.arange(60.0).reshape(10, 6), torch.arange(10), torch.zeros(10)


def pieces(batches: Any) -> list[tuple[list[float], list[int]]]:
    found = calibration_arrays(PORTS, batches)
    return [(one["x"][:, 0].tolist(), one["ids"].tolist()) for one in found]


WHOLE = [([0.0, 6.0, 12.0, 18.0], [0, 1, 2, 3]), ([24.0, 30.0, 36.0, 42.0], [4, 5, 6, 7])]


@pytest.mark.parametrize(
    "batches",
    [
        DataLoader(TensorDataset(X, IDS, LABELS), 4),
        DataLoader(TensorDataset(X, IDS), 10),
        (batch for batch in [(X, IDS)]),
        [{"labels": LABELS, "ids": IDS, "x": X}],
        [(X[:4], IDS[:4], LABELS), (X[4:8], IDS[4:8])],
    ],
)
def test_inputs_are_found_and_cut(batches: Any) -> None:
    assert pieces(batches) == WHOLE


@pytest.mark.parametrize(
    ("batches", "said"),
    [
        ([(X,)], r"calibration batch 0: found shapes \[\(10, 6\)\]; the model was exported with \[\(4, 6\), \(4,\)\]"),
        ([(X[:, :5], IDS)], "calibration batch 0: found shapes"),
        ([(X, IDS[:7])], "calibration batch 0: found shapes"),
        ([{"x": X, "labels": LABELS, "more": X}], "calibration batch 0: found shapes"),
        ([(X[:3], IDS[:3])], "calibration: found no batch of the network's size"),
        ([], "calibration: found no batch of the network's size"),
    ],
)
def test_what_does_not_fit_is_refused(batches: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        calibration_arrays(PORTS, batches)


def test_a_loader_calibrates_a_model() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 8)).eval()
    x: Tensor = torch.randn(24, 16)
    loader = DataLoader(TensorDataset(x, torch.zeros(24)), 12)
    found = lower(model, "edge-16", example_inputs=(x[:4],), calibration=loader)
    wanted = lower(model, Machine.load("edge-16"), example_inputs=(x[:4],), calibration=list(x.split(4)))
    assert found.network is not None and wanted.network is not None
    steps = [{name: tensor.step for name, tensor in one.network.tensors.items()} for one in (found, wanted)]  # type: ignore[union-attr]
    assert steps[0] == steps[1]
    assert all(np.isfinite(step) and step > 0 for step in steps[0].values())
