"""A model whose matrix products come from the simulated machine computes what PyTorch computes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gblr_hw.demo.run_on_machine import largest_error, on_machine, record_layers
from gblr_hw.layers.conv import GBLRConv2d
from gblr_hw.layers.linear import GBLRLinear
from gblr_hw.lowering.pipeline import lower
from gblr_hw.weights.collect import weights_of
from simulator import InputError, Machine


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 7, (3, 2), stride=2, padding=1),
        nn.GELU(),
        GBLRConv2d(7, 9, 3, padding="same", arrangement="positions", blocks=4, gaussian=False),
        GBLRConv2d(9, 5, 2, arrangement="unfolded", blocks=6, gaussian=False),
        nn.Flatten(2),
        GBLRLinear(9, 8, 7, gaussian=False),
    ).eval()


def test_whole_network_in_both_modes() -> None:
    model, images = network(), torch.randn(2, 3, 8, 7)
    names = list(weights_of(model))
    with torch.no_grad():
        wanted = model(images)
    recorded = record_layers(model, names, images)
    machine = Machine.load("edge-16")
    examples = {name: rows for name, (rows, _) in recorded.items()}
    program = lower(model, machine, tokens=11, calibration=examples)
    assert max(largest_error(program, recorded, "float").values()) < 1e-5
    for mode, tolerance in (("float", 1e-5), ("int8", 0.1)):
        with on_machine(model, program, mode), torch.no_grad():
            given = model(images)
        assert float((given - wanted).abs().max()) < tolerance * float(wanted.abs().max())
    with torch.no_grad():
        assert torch.equal(model(images), wanted)  # the model is as it was


def test_a_layer_that_does_not_run() -> None:
    model = nn.ModuleDict({"used": nn.Linear(3, 3), "unused": nn.Linear(3, 3)})
    model.forward = lambda x: model["used"](x)  # type: ignore[method-assign]
    with pytest.raises(InputError, match="layer 'unused': found it did not run"):
        record_layers(model, ["used", "unused"], torch.ones(1, 3))
