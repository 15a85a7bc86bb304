"""`convert` of a whole model: a copy in a structure, what was reached, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from gblr_hw import convert, lower
from gblr_hw.layers.lattice_linear import LatticeLinear
from simulator import Machine, simulate
from simulator.base.errors import InputError

MACHINE = Machine.load("edge-16")


def network() -> tuple[nn.Sequential, list[torch.Tensor]]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 4))
    return model, list(torch.randn(128, 32).split(32))


def test_a_model_comes_back_converted_and_is_trained_on() -> None:
    model, batches = network()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = convert(model, MACHINE, batches=batches, tiles=0.5, exclude="4")
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert isinstance(found.model[0], LatticeLinear) and isinstance(found.model[4], nn.Linear)
    assert found.model.training and [one.name for one in found.layers] == ["0", "2"]
    assert sum(one.tiles for one in found.layers) == 0.5 * sum(one.dense_tiles for one in found.layers)
    report = simulate(lower(found.model.eval(), MACHINE, example_inputs=batches[0]), MACHINE)
    assert report.latency_cycles == found.latency_cycles < found.dense_cycles
    assert report.energy_pj == pytest.approx(found.energy_pj) and found.energy_pj < found.dense_energy_pj
    wanted, given = (torch.cat([one(batch).detach() for batch in batches]).double() for one in (model, found.model))
    assert found.output_error == pytest.approx(float((given - wanted).norm() / wanted.norm()), abs=1e-6)
    # What is dropped gets no gradient, so that training keeps the structure.
    found.model(batches[0]).square().sum().backward()
    layer = found.model[0]
    assert layer.dense.grad is not None and layer.dense.grad.abs().sum() > 0
    assert float((layer.dense.grad * (1 - layer.dense_mask)).abs().max()) == 0


def test_a_layer_that_came_out_badly_is_told() -> None:
    model, batches = network()
    found = convert(model, MACHINE, batches=batches, tiles=0.15, names="0")
    error = found.layers[0].relative_error
    assert error > 0.5 and found.warnings == (
        f"layer '0' came out badly: {error:.2f} of its output is lost; give more tiles, or exclude it",
    )
    assert found.warnings[0] in repr(found) and f"{found.latency_cycles:,} cycles" in repr(found)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "batches: found nothing; a model is converted on batches of its inputs"),
        ({"batches": []}, "batches: found none"),
        ({"batches": [torch.zeros(2, 32)], "names": "9"}, "names: found '9'; it must match a linear layer or a convolution of one group; there are: 0, 2"),
        ({"batches": [torch.zeros(2, 32)], "exclude": "*"}, "names: found '*'; a layer is left"),
        ({"batches": [torch.zeros(2, 32)], "covariances": {}}, "covariances: found with a model; moments of a model's"),
    ],
)  # fmt: skip
def test_what_cannot_be_converted_is_told(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        convert(network()[0], MACHINE, **options)
    assert message in str(error.value)


def test_batches_with_matrices_are_told() -> None:
    with pytest.raises(InputError, match="batches: found with matrices; it acts with a model"):
        convert({"a": torch.eye(32).numpy()}, MACHINE, batches=[])
