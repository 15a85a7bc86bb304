"""Which of several dense networks to start from: a wide one that gives up much, or a narrow one that gives up less."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from torch import nn
from torch.utils.data import Dataset

from analysis.pictures.family_marks import REFERENCE
from gblr_hw.training.loop.loop import Example
from gblr_hw.training.measure.hardware import Hardware
from gblr_hw.training.networks import train_network
from gblr_hw.training.recipe import Recipe, TrainedNetwork
from gblr_hw.training.trials import lowest_loss


@dataclass(frozen=True, eq=False)
class DenseStart:
    """A trained dense network, and the machine as it sees this network."""

    model: nn.Module
    hardware: Hardware

    def recipe(self, recipe: Recipe, target: float) -> Recipe:
        """A network that is quick enough as it is stays dense."""
        return replace(recipe, family=REFERENCE) if self.hardware.measure(self.model) <= target else recipe

    def train(
        self,
        recipe: Recipe,
        train_set: Dataset[Example],
        test_set: Dataset[Example],
        target: float,
        checkpoint: Path | None = None,
    ) -> TrainedNetwork:
        """Train towards the target, or on, where the network is within it already (see `train_network`)."""
        own = self.recipe(recipe, target)
        wanted = target if own.entry.needs_target else None
        return train_network(own, self.model, train_set, test_set, self.hardware, wanted, checkpoint=checkpoint)


def choose_start(
    recipe: Recipe,
    starts: Mapping[str, DenseStart],
    train_set: Dataset[Example],
    test_set: Dataset[Example],
    target: float,
) -> str:
    """Name of the start that ends a short trial with the lowest training loss; the first wins a tie.

    A trial is `recipe` with `trial_share` of its epochs; of a family that chooses by trials itself it is that of its
    first candidate, as its own choice comes after. Raises UnreachableTargetError when no start can reach the target.
    """
    family, *_ = (*recipe.entry.candidates, recipe.family)
    trial = replace(recipe, family=family, epochs=recipe.trial_epochs)
    return lowest_loss({n: partial(start.train, trial, train_set, test_set, target) for n, start in starts.items()})
