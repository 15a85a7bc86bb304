"""Models with convolutions are converted as those of linear layers are: in order, by what their windows read."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from gblr_hw import convert, lower
from gblr_hw.conversion.covariances import collect_covariances
from gblr_hw.conversion.in_order.distil import Distillation, distil
from gblr_hw.conversion.in_order.pair_moments import stages
from gblr_hw.conversion.in_order.sensitivity import output_moments
from gblr_hw.layers import matrix_layers
from gblr_hw.layers.matrix_conv import MatrixConv2d
from simulator import Machine, simulate
from simulator.base.errors import InputError

MACHINE = Machine.load("edge-16")


class Ahead(nn.Conv2d):
    """Puts its zeros around the image itself."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv2d(functional.pad(x, (1, 1, 1, 1)), self.weight, self.bias)


class Residual(nn.Module):
    """Two branches read one image, with windows of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Ahead(3, 16, 3)
        self.deep = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.down = nn.Conv2d(16, 32, 1, 2, bias=False)
        self.next = nn.Conv2d(16, 32, 3, 2, padding=1)
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.stem(x))
        x = functional.relu(self.deep(x))
        return self.head(functional.relu(self.down(x) + self.next(x)).mean((2, 3)))


def network() -> tuple[nn.Module, list[Tensor]]:
    torch.manual_seed(0)
    return Residual(), list(torch.randn(24, 3, 8, 8).split(8))


def test_a_network_of_convolutions_comes_back_converted() -> None:
    model, batches = network()
    found = convert(model, MACHINE, batches=batches, tiles=0.6, family="lattice")
    assert [one.name for one in found.layers] == ["stem", "down", "next", "head"]
    assert isinstance(found.model.next, MatrixConv2d) and isinstance(found.model.deep, nn.Conv2d)
    used, dense = (sum(getattr(one, field) for one in found.layers) for field in ("tiles", "dense_tiles"))
    assert used == int(0.6 * dense)
    report = simulate(lower(found.model.eval(), MACHINE, example_inputs=batches[0]), MACHINE)
    assert report.latency_cycles == found.latency_cycles < found.dense_cycles
    model.eval()
    with torch.no_grad():
        lost = sum(float((model(one) - found.model(one)).square().sum()) for one in batches)
        whole = sum(float(model(one).square().sum()) for one in batches)
    assert found.output_error == pytest.approx((lost / whole) ** 0.5, rel=1e-4) and found.output_error < 0.5


def test_everything_kept_is_the_network_itself() -> None:
    model, batches = network()
    found = convert(model.eval(), MACHINE, batches=batches, tiles=1.0, family="block-sparse")
    torch.testing.assert_close(found.model(batches[0]), model(batches[0]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["monarch", "blast"])
def test_families_that_are_chosen_whole_run_on_windows(family: str) -> None:
    model, batches = network()
    found = convert(model, MACHINE, batches=batches, tiles=0.7, family=family, names="next")
    assert found.latency_cycles > 0 and found.output_error < 0.9


def test_branches_with_other_windows_are_stages_of_their_own() -> None:
    model, batches = network()
    assert stages(model, batches, ["head", "next", "down", "stem"]) == [["stem"], ["down"], ["next"], ["head"]]
    again = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1))
    assert stages(again, [torch.zeros(1, 3, 6, 6)], ["0", "1"]) == [["0"], ["1"]]


def test_moments_are_those_of_unfolded_images() -> None:
    model, batches = network()
    found = collect_covariances(model, batches, ["next"])["next"]
    with torch.no_grad():
        images = [functional.relu(model.deep(functional.relu(model.stem(one)))) for one in batches]
    # The framework's windows are (channels, k1, k2).
    rows = torch.cat([functional.unfold(one, 3, padding=1, stride=2).mT.reshape(-1, 16, 9) for one in images])
    rows = rows.transpose(1, 2).reshape(len(rows), -1).double()
    np.testing.assert_allclose(found, (rows.T @ rows / len(rows)).numpy(), rtol=1e-5, atol=1e-6)


def test_gradients_moments_are_sums_over_places() -> None:
    """Half of tr(B E C E^T), over all places, against the output's squared error of one that is disturbed."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 1, bias=False), nn.Flatten(), nn.Linear(12, 4)).eval()
    batches = [torch.randn(256, 2, 2, 2) for _ in range(8)]
    outputs = output_moments(model, batches, ["0"])["0"]
    matrix = model[2].weight.detach().reshape(4, 3, 4)
    wanted = torch.einsum("ocp,odp->cd", matrix, matrix)  # noise of unit variance on each output
    np.testing.assert_allclose(outputs, wanted.numpy(), rtol=0.2, atol=0.05)


def test_distillation_trains_structured_convolutions() -> None:
    model, batches = network()
    found = convert(model, MACHINE, batches=batches, tiles=0.25, family="block-sparse")
    better, losses = distil(model.eval(), found.weights, batches, Distillation(30, 1e-3))
    assert set(better) == set(found.weights) and sum(losses[-3:]) < 0.7 * sum(losses[:3])


def test_in_order_and_by_loss_go_together() -> None:
    model, batches = network()
    options: dict[str, Any] = {"batches": batches, "tiles": 0.8, "family": "low-rank"}
    assert convert(model, MACHINE, allocation="by-loss", **options).output_error < 1


def test_what_cannot_be_converted_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batches = network()
    with pytest.raises(InputError, match="names: found 'deep'; it must match a linear layer or a convolution of one g"):
        convert(model, MACHINE, batches=batches, names="deep")
    monkeypatch.setattr(matrix_layers, "MOST_INPUTS", 100)
    with pytest.raises(InputError, match="layer 'next': found 144 inputs; second moments.* 100 at most. Exclude it"):
        convert(model, MACHINE, batches=batches)
