"""The proximal width step and sigma annealing: arithmetic, stopping, exact resume, and the two adapters."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from gblr_hw.layers.conv import GBLRConv2d
from gblr_hw.layers.linear import GBLRLinear
from gblr_hw.training.hooks import SigmaAnnealing, WidthShrinkage, lightning_callback, mean_width, trainer_callback
from simulator.base.errors import InputError


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(GBLRLinear(8, 8, 4), nn.ReLU(), GBLRLinear(8, 4, 2))


def test_shrinkage_is_a_soft_threshold_by_threshold_times_rate() -> None:
    net = model()
    with torch.no_grad():
        net[0].widths.copy_(torch.tensor([[0.5, 0.01, 1.2, 0.0], [0.3, 0.5, -0.2, 1.0]]))
        net[0].locations[0, 0] = 1.25
        net[0].locations[0, 1] = -0.25
    optimizer = torch.optim.SGD([{"params": [net[0].widths], "lr": 0.5}, {"params": [net[2].widths], "lr": 2.0}])
    WidthShrinkage(net, 0.1, optimizer=optimizer).step()
    wanted = torch.tensor([[0.45, 0.0, 1.0, 0.0], [0.25, 0.45, 0.0, 0.95]])
    torch.testing.assert_close(net[0].widths.detach(), wanted)
    torch.testing.assert_close(net[2].widths.detach(), torch.full((2, 2), 0.3))
    torch.testing.assert_close(net[0].locations.detach()[0, :2], torch.tensor([0.25, 0.75]))


def test_shrinkage_stops_at_the_target_and_keeps_its_turn() -> None:
    net = model()
    shrink = WidthShrinkage(net, 0.1, learning_rate=1.0, target_width=0.35, every=2)
    shrink.step()
    assert mean_width(net) == pytest.approx(0.5)
    for _ in range(20):
        shrink.step()
    assert mean_width(net) == pytest.approx(0.3)
    assert shrink.state_dict() == {"steps": 21}


def test_mean_width_ignores_blocks_with_an_empty_side() -> None:
    layer = GBLRLinear(4, 4, 2)
    with torch.no_grad():
        layer.widths.copy_(torch.tensor([[0.0, 0.5], [1.0, 0.25]]))
    assert mean_width(layer) == pytest.approx((0.5 + 0.25) / 4)


def test_frozen_widths_are_left_and_convolutions_are_reached() -> None:
    net = nn.Sequential(GBLRConv2d(2, 3, 2, arrangement="positions"), GBLRLinear(4, 4))
    net[1].widths.requires_grad_(False)
    WidthShrinkage(net, 0.1, learning_rate=1.0).step()
    assert float(net[1].widths.min()) == 0.5
    assert all(float(part.widths.detach().max()) == pytest.approx(0.4) for part in net[0].parts)


def test_sigma_schedules() -> None:
    net = model()
    anneal = SigmaAnnealing(net, 1.0, 101.0, over_steps=10, begin=2)
    seen = [float(net[2].sigma)]
    for _ in range(14):
        anneal.step()
        seen.append(float(net[2].sigma))
    assert seen[:4] == pytest.approx([1, 1, 1, 11])
    assert seen[12:] == pytest.approx([101, 101, 101])
    geometric = SigmaAnnealing(net, 1.0, 100.0, over_steps=2, schedule="geometric")
    geometric.step()
    assert geometric.sigma == pytest.approx(10.0)


def test_resume_is_exact() -> None:
    net, other = model(), model()
    straight, first = SigmaAnnealing(net, 1.0, 9.0, 8), SigmaAnnealing(other, 1.0, 9.0, 8)
    shrink, first_shrink = (WidthShrinkage(m, 0.03, learning_rate=0.7, every=3) for m in (net, other))
    for _ in range(4):
        first.step()
        first_shrink.step()
    resumed = SigmaAnnealing(other, 1.0, 9.0, 8)
    resumed.load_state_dict(first.state_dict())
    resumed_shrink = WidthShrinkage(other, 0.03, learning_rate=0.7, every=3)
    resumed_shrink.load_state_dict(first_shrink.state_dict())
    for _ in range(7):
        straight.step()
        shrink.step()
    for _ in range(3):
        resumed.step()
        resumed_shrink.step()
    for one, two in zip(net.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(one, two)


class FakeCallback:
    """Stands for the libraries' base classes, whose other methods do nothing."""

    def on_fit_end(self) -> str:
        return "base"


def test_lightning_adapter_steps_once_per_optimiser_step_and_keeps_state() -> None:
    net = model()
    anneal = SigmaAnnealing(net, 1.0, 5.0, 4)
    callback = lightning_callback(FakeCallback, anneal)
    assert isinstance(callback, FakeCallback)
    assert callback.on_fit_end() == "base"
    trainer = SimpleNamespace(global_step=0)
    callback.on_train_start(trainer, None)
    for batch, step in enumerate([0, 1, 1, 2]):
        trainer.global_step = step
        callback.on_train_batch_end(trainer, None, None, None, batch)
    assert anneal.steps == 2
    again = lightning_callback(FakeCallback, SigmaAnnealing(model(), 1.0, 5.0, 4))
    again.load_state_dict(callback.state_dict())
    again.on_train_start(trainer, None)
    again.on_train_batch_end(trainer, None, None, None, 0)
    assert again.hooks[0].steps == 2


def test_trainer_adapter_continues_from_the_global_step() -> None:
    anneal = SigmaAnnealing(model(), 1.0, 5.0, 4)
    callback = trainer_callback(FakeCallback, anneal)
    callback.on_train_begin(None, SimpleNamespace(global_step=2), None, model=None)
    callback.on_step_end(None, SimpleNamespace(global_step=3), None, model=None)
    assert anneal.steps == 3
    assert anneal.sigma == pytest.approx(4.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "Give one of the two"),
        ({"threshold": -1.0, "learning_rate": 1.0}, "threshold: found -1.0"),
        ({"target_width": 2.0, "learning_rate": 1.0}, "target_width"),
        ({"every": 0, "learning_rate": 1.0}, "every: found 0"),
    ],
)
def test_bad_shrinkage_is_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        WidthShrinkage(model(), **({"threshold": 0.1} | options))


def test_other_mistakes_are_refused() -> None:
    with pytest.raises(InputError, match="Swap layers with replace_linear"):
        SigmaAnnealing(nn.Linear(2, 2), 1.0, 2.0, 1)
    with pytest.raises(InputError, match="it must hold the widths"):
        WidthShrinkage(model(), 0.1, optimizer=torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1))
    with pytest.raises(InputError, match="start: found 0"):
        SigmaAnnealing(model(), 0.0, 2.0, 1)
    with pytest.raises(InputError, match="over_steps and begin"):
        SigmaAnnealing(model(), 1.0, 2.0, 0)
    with pytest.raises(InputError, match="schedule"):
        SigmaAnnealing(model(), 1.0, 2.0, 1, schedule="cosine")  # type: ignore[arg-type]
