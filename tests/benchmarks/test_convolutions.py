"""The study of convolutional networks: tones, what is judged, what is left out, tables, and conversions by one class."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchmarks.convolutions import crepe, efficientnet
from benchmarks.convolutions.efficientnet import without
from benchmarks.convolutions.tables import LABELS, networks_table
from benchmarks.shared.conversions import METHODS, Conversions, costs
from simulator import Machine
from simulator.base.errors import InputError


def test_tones_have_their_pitch_and_their_noise() -> None:
    frames, pitches = crepe.tones(40, 3, 40.0)
    assert frames.shape == (40, 1024) and pitches.min() >= 60 and pitches.max() <= 1500
    torch.testing.assert_close(frames.mean(1), torch.zeros(40), atol=1e-5, rtol=0)
    found = np.array([crepe.autocorrelation_pitch(one) for one in frames.numpy()])
    assert (abs(np.log2(pitches / found)) < 0.03).mean() > 0.9
    assert not torch.equal(crepe.tones(40, 4, 40.0)[0], frames)
    torch.testing.assert_close(crepe.tones(40, 3, 40.0)[0], frames)
    # As loud as the noise: half of the power is no tone, which a fit of its harmonics leaves.
    frames, pitches = crepe.tones(30, 5, 0.0)
    left = []
    for frame, pitch in zip(frames.numpy(), pitches, strict=True):
        angles = 2 * math.pi * pitch * np.outer(np.arange(1024) / 16_000, np.arange(1, 9))
        waves = np.concatenate([np.sin(angles), np.cos(angles), np.ones((1024, 1))], axis=1)
        rest = frame - waves @ np.linalg.lstsq(waves, frame, rcond=None)[0]
        left.append(rest.var() / frame.var())
    assert 0.45 < np.mean(left) < 0.53


def test_a_pitch_is_read_off_around_the_largest_output() -> None:
    made = torch.zeros(2, 360)
    made[0, 100] = 1.0
    made[1, 358:] = 0.5
    cents = 1997.3794084376191 + 20 * np.array([100, 358.5])
    np.testing.assert_allclose(crepe.pitch_of(made), 10 * 2 ** (cents / 1200))
    judged = crepe.judged(np.array([100.0, 103.0, 300.0]), np.array([100.0, 100.0, 100.0]))
    assert judged[0] == (1.0, 0.0, 1) and judged[2] == (0.0, 600.0, 1)
    assert judged[1][0] == 0.0 and judged[1][1] == pytest.approx(1200 * math.log2(1.03))


def test_crops_are_judged_by_what_dense_says() -> None:
    logits = torch.tensor([[2.0, 0.0, 1.0], [0.0, 3.0, 0.0]])
    same = efficientnet.judged(logits, logits.log_softmax(-1))
    assert same == (2.0, pytest.approx(0.0, abs=1e-6), 2)
    right, loss, count = efficientnet.judged(torch.zeros(2, 3), logits.log_softmax(-1))
    p = logits.softmax(-1)
    assert (right, count) == (1.0, 2) and loss == pytest.approx(float((p * (p.log() + math.log(3))).sum()), rel=1e-5)


def test_photographs_that_are_missing_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(efficientnet, "BACKGROUNDS", tmp_path)
    monkeypatch.setattr(efficientnet, "WALLPAPERS", tmp_path)
    with pytest.raises(InputError, match="no 'LadyBird' in .* Debian's .* bring them. apt-get install lomiri"):
        efficientnet.photo("LadyBird")
    assert len(set(efficientnet.PHOTOS)) == len(efficientnet.PHOTOS)


class _Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 64, 3)
        self.blocks = nn.ModuleList([nn.Conv2d(64, 64, 1), nn.Conv2d(64, 64, 1)])
        self.head = nn.Linear(64, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        for block in self.blocks:
            x = x + block(x).relu()
        return self.head(x.mean((2, 3)))


def test_conversions_of_a_small_network(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, names = _Net().eval(), ["stem", "blocks.0", "blocks.1", "head"]
    batches = [torch.randn(4, 3, 6, 6) for _ in range(3)]
    made = Conversions(model, batches, names, Machine.load("edge-16"), tmp_path)
    assert made.tiles({}) == 1.0
    # 4 x 4 tiles each of the blocks, four of the head, eight of the stem: 64 outputs of 27 inputs.
    assert made.tiles({}, ["blocks.0."]) == 1.0  # names of what is inside it
    assert made.tiles({}, ["blocks.0"]) == pytest.approx(28 / 44)
    for method in METHODS:
        found = made.made(method, 0.9)
        assert set(found) == set(names) and made.tiles(found) <= (1.0 if method == "int4" else 0.9)
        assert costs(model, found, made.on(method), batches[0][:1])["latency_cycles"] > 0
    monkey: Any = lambda: pytest.fail("what is kept is not made again")  # noqa: E731
    assert set(made.kept("int4", 0.9, monkey)) == set(names)
    short = without(model, ["blocks.0"])
    x = model.stem(batches[0]).relu()
    x = x + x
    torch.testing.assert_close(short(batches[0]), model.head((x + model.blocks[1](x).relu()).mean((2, 3))))


def test_a_table_has_controls_and_intervals() -> None:
    cost = {"latency_cycles": 50, "dram_bytes": 20}
    rows = [
        {"network": "crepe-tiny", "method": "dense", "share": 1.0, "tiles": 1.0, "judged": [[1.0, 2.0, 1]] * 4,
         "latency_cycles": 100, "dram_bytes": 40},
        {"network": "crepe-tiny", "method": "autocorrelation", "share": 0.0, "judged": [[0.0, 600.0, 1]] * 4},
        {"network": "crepe-tiny", "method": "int4", "share": 1.0, "tiles": 1.0, "judged": [[1.0, 2.0, 1]] * 4, **cost},
        {"network": "efficientnet-lite0", "method": "modules-dropped", "share": 2.0, "tiles": 0.9,
         "judged": [[8.0, 16.0, 16], [16.0, 0.0, 16]], **cost},
    ]  # fmt: skip
    lines = networks_table(rows, "crepe-tiny").splitlines()
    assert len(lines) == 5 and "within 50 cents" in lines[0]
    cells = [cell.strip() for cell in lines[4].split("|")[1:-1]]
    assert cells == ["dense in 4 bits", "1.000", "0.500", "0.500", "100.0 (100.0-100.0)", "2.00 (2.00-2.00)"]
    assert [cell.strip() for cell in lines[3].split("|")[2:5]] == ["-", "-", "-"]
    alone = networks_table(rows, "efficientnet-lite0").splitlines()[2]
    assert "2 blocks dropped" in alone and "75.0 (50.0-100.0)" in alone and "0.50 (0.00-1.00)" in alone
    assert {*METHODS, "dense", "modules-dropped"} <= set(LABELS)
