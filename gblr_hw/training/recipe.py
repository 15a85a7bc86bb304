"""How one network is trained, and the network that comes of it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from gblr_hw.training.loop.loop import EpochRecord
from gblr_hw.weights.family import FAMILIES, Family, family_named, trained
from simulator.base.errors import InputError


@dataclass(frozen=True)
class Recipe:
    """How one network is made. The defaults are the demo's, the same for all families.

    family: one that can be trained (`gblr_hw.weights.family.trained()`); its entry there says how. Hyphens and names of
        earlier releases become the registered name.
    epochs: after the dense start, in all phases together; the learned family's trials come on top, each with
        `trial_share` of them.
    layers: regular expression for the linear layers that are replaced.
    geometry_rate: widths and locations learn at this multiple of the learning rate.
    sigma_start, sigma_end: of the Gaussian where masks are annealed, over the whole run.
    penalty_fraction, penalty_share: the hardware penalty aims at this fraction of the dense latency (or at the target,
        if that is more) over this share of the epochs; the projection does the rest.
    project_end: part of its phase over which a projection shrinks the structure. width_end: the same for the path
        of shrinking widths. gblr_width: mean width of the intervals that a GBLR network starts from, or
        every width where masks are annealed.
    intervals_only: projections keep cyclic runs. regrow: see ProjectionSchedule. distil_weight, temperature: how much
        of the objective is the dense start's logits (see Distillation); 0 for labels only.
    device, bfloat16: where it trains, and whether under autocast.
    """

    family: str
    epochs: int = 12
    learning_rate: float = 2e-3
    batch_size: int = 64
    weight_decay: float = 0.01
    seed: int = 0
    layers: str = r"blocks\..*"
    geometry_rate: float = 2.0
    penalty_fraction: float = 0.9
    penalty_share: float = 0.25
    project_end: float = 0.6
    width_end: float = 0.7
    gblr_width: float = 0.5
    sigma_start: float = 1.0
    sigma_end: float = 100.0
    intervals_only: bool = False
    regrow: float = 0.0
    trial_share: float = 0.25
    distil_weight: float = 0.0
    temperature: float = 2.0
    device: str = "cpu"
    bfloat16: bool = False

    @property
    def entry(self) -> Family:
        """The family's entry in the registry."""
        return FAMILIES[self.family]

    @property
    def trial_epochs(self) -> int:
        """Epochs of a trial."""
        return max(1, round(self.trial_share * self.epochs))

    def __post_init__(self) -> None:
        object.__setattr__(self, "family", family_named(self.family, trained(), "recipe family").name)
        if self.epochs < 1:
            raise InputError("recipe epochs", str(self.epochs), "it must be at least 1", "Try 12.")
        if self.entry.from_scratch and self.entry.needs_target and self.distil_weight:
            raise InputError(
                "recipe distil_weight",
                f"{self.distil_weight:g} with {self.entry.label}",
                "it is trained from scratch, and what it starts from can teach it nothing",
                "Leave it out, or train a family that starts from the dense network.",
            )
        if self.intervals_only and not (self.entry.training == "hardware_penalty" or self.entry.unit == "chunk"):
            raise InputError(
                "recipe intervals_only",
                f"with {self.entry.label}",
                "only a projection that takes single chunks from ranks can keep them runs",
                "Leave it out, or train a lattice.",
            )


@dataclass(frozen=True)
class TrainedNetwork:
    """A trained model (evaluation mode, on the CPU), its test accuracy, the epochs of all phases.

    target, reached: wanted and exact latency in cycles, or energy in pJ, as the hardware measures. kind: the family in
    the end, which trials have chosen where the recipe's is one of those.
    """

    recipe: Recipe
    model: nn.Module
    accuracy: float
    history: tuple[EpochRecord, ...]
    target: float | None
    reached: float
    diverged: bool
    kind: str
