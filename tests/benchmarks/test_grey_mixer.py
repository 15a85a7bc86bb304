"""The study's mixer mixes tokens and channels and trains towards a target."""

from __future__ import annotations

import pytest
import torch

from benchmarks.study.mixer import GreyMixer, GreyMixerShape
from gblr_hw.training.networks import train_network
from gblr_hw.training.recipe import Recipe
from simulator.base.errors import InputError
from tests.gblr_hw.training.test_training_runs import HARDWARE, LATENCY, small_sets


def test_the_mixer_mixes_tokens_and_channels_and_trains_towards_a_target() -> None:
    torch.manual_seed(0)
    shape = GreyMixerShape(image=8, pad=0, patch=2, width=16, depth=1, token_hidden=8, channel_hidden=16)
    model = GreyMixer(shape)
    assert (shape.tokens, GreyMixerShape().tokens) == (16, 64)
    assert model(torch.zeros(3, 8, 8)).shape == (3, 10)
    assert GreyMixer(GreyMixerShape(depth=1))(torch.zeros(2, 28, 28)).shape == (2, 10)
    # A pixel in one corner reaches every token through one block.
    images = torch.zeros(1, 8, 8, requires_grad=True)
    tokens = model.blocks[0](model.embed(images.view(1, 4, 2, 4, 2).transpose(2, 3).reshape(1, 16, 4)))
    tokens[0, 15].sum().backward()
    assert images.grad is not None
    assert bool((images.grad[0, :2, :2] != 0).any())
    target = 0.5 * LATENCY(model)
    network = train_network(Recipe("lattice", epochs=2, batch_size=32), model, *small_sets(), HARDWARE, target)
    assert target - LATENCY.tile_cycles < network.reached <= target


def test_patches_that_do_not_tile_are_refused() -> None:
    with pytest.raises(InputError, match="patches tile the padded image"):
        GreyMixerShape(pad=1)
