"""What a network's quality may be measured by: its accuracy, of which more is better, a perplexity or a loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from analysis.tables.table import percent
from simulator.base.errors import InputError


def _four_digits(value: float) -> str:
    return f"{value:.4g}"


@dataclass(frozen=True)
class Quality:
    """One measure.

    name: of the field in files and in code. sense: which way is better. axis: label of a picture's axis, whose numbers
        are ``scale`` times the field's.
    told: a value in words. best: what the best network is called.
    close: the worst value that is as good as makes no difference, as (factor, offset) of the reference's; margin: that
        difference, in words. near: the worst value that is shown beside the best, in the same form.
    """

    name: str
    sense: Literal["max", "min"]
    axis: str
    scale: float
    told: Callable[[Any], str]
    best: str
    close: tuple[float, float]
    margin: str
    near: tuple[float, float]

    @property
    def sign(self) -> float:
        """1 where more is better, -1 where less is."""
        return 1.0 if self.sense == "max" else -1.0

    def is_close(self, value: float, reference: float) -> bool:
        """Whether a value is as good as the reference's, or better, or so little worse as makes no difference."""
        factor, offset = self.close
        return self.sign * value >= self.sign * (factor * reference + offset)


QUALITIES = {
    one.name: one
    for one in (
        Quality(
            "accuracy", "max", "accuracy (%)", 100.0, percent, "the most accurate", (1.0, -0.01), "one point",
            (1.0, -0.08),
        ),
        Quality(
            "perplexity", "min", "perplexity", 1.0, _four_digits, "the one of least perplexity", (1.1, 0.0), "a tenth",
            (2.0, 0.0),
        ),
        # Of a perplexity's logarithm.
        Quality("loss", "min", "loss", 1.0, _four_digits, "the one of least loss", (1.0, 0.1), "0.1", (1.0, 0.7)),
    )
}  # fmt: skip


def one_quality(where: str, qualities: set[str]) -> Quality:
    """The one measure that all networks of a front have. Raises InputError for several, which no front compares."""
    if len(qualities) != 1:
        raise InputError(
            where, " and ".join(sorted(qualities)), "networks of one front are measured alike",
            "Give files of one kind at a time.",
        )  # fmt: skip
    return QUALITIES[next(iter(qualities))]
