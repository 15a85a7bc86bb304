"""Which points of a product are measured where not all are: drawn, evenly spread, or asked for by a search."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

from gblr_hw.sweeps.axes import Settings
from gblr_hw.sweeps.measure import Row
from gblr_hw.sweeps.space import Space
from simulator.base.errors import InputError

if TYPE_CHECKING:
    from optuna import Study, Trial

Rows = Callable[[Sequence[Settings]], list[Row]]
Kind = Literal["drawn", "spread", "search"]

# How each name chooses: without a look at figures, drawn by numpy or spread by Optuna's QMC sampler (Sobol); or as a
# search of Optuna's for what no other beats in OBJECTIVES.
SAMPLERS: dict[str, Kind] = {"random": "drawn", "qmc": "spread", "tpe": "search", "nsga2": "search"}
OBJECTIVES = ("latency_cycles", "energy_pj")
# Points that a search asks for at a time, whatever the processes, so that the same ones are asked for in any number.
_AT_A_TIME = 16
_ASKED_A_POINT = 20  # at most: points come again, and a search that has found its front may never name enough others
_REFUSED = 1e30  # an objective of a point without figures


@dataclass(frozen=True)
class Sample:
    """So many points, by one of SAMPLERS; the same seed gives the same ones. InputError for another name."""

    size: int
    sampler: str
    seed: int

    def __post_init__(self) -> None:
        if self.sampler not in SAMPLERS:
            rule = f"it is one of {', '.join(SAMPLERS)}"
            raise InputError("--sampler", repr(self.sampler), rule, "Choose one.")


def sampled(space: Space, sample: Sample | None, rows: Rows) -> list[Row]:
    """Rows of all points of a space, or of a sample, in the order of the product.

    Raises InputError for more points than there are, and without optuna for a sampler of its.
    """
    if sample is None:
        return rows(space.all())
    space.check_sample(sample.size)
    kind = SAMPLERS[sample.sampler]
    if kind == "search":
        return _searched(space, sample, rows)
    chosen = space.drawn(sample.size, sample.seed) if kind == "drawn" else _spread(space, sample)
    return rows([space.at(space.places(index)) for index in chosen])


def _spread(space: Space, sample: Sample) -> list[int]:
    """Places in the product. Where the sequence comes back to points that it named, random ones make up the number."""
    optuna = _optuna(sample.sampler)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # its arguments may change, it says
        sampler = optuna.samplers.QMCSampler(scramble=True, seed=sample.seed, warn_independent_sampling=False)
    study = optuna.create_study(sampler=sampler)

    def asked() -> Iterator[int]:
        for _ in range(_ASKED_A_POINT * sample.size):
            trial = study.ask()
            # Numbers all of them: the sequence does not choose among names.
            places = [trial.suggest_int(name, 0, most) for name, most in _parameters(space)]
            study.tell(trial, 0.0)  # from the first on, Optuna knows what is asked for
            yield space.index(places)

    found = set(islice(dict.fromkeys(asked()), sample.size))
    others = (index for index in space.drawn(space.count, sample.seed) if index not in found)
    return sorted([*found, *islice(others, sample.size - len(found))])


def _searched(space: Space, sample: Sample, rows: Rows) -> list[Row]:
    """At most so many points: fewer where the search comes back to those that it knows."""
    study, known = _study(sample), dict[int, Row]()
    for _ in range(_ASKED_A_POINT * sample.size):
        trials = [study.ask() for _ in range(_AT_A_TIME)]
        asked = [space.index(_suggested(space, trial)) for trial in trials]
        new = [index for index in dict.fromkeys(asked) if index not in known][: sample.size - len(known)]
        known |= dict(zip(new, rows([space.at(space.places(index)) for index in new]), strict=True))
        if len(known) == sample.size:
            break
        for trial, index in zip(trials, asked, strict=True):
            row = known[index]
            trial.set_constraint("figures", float(row["error"] is not None))
            study.tell(trial, [_REFUSED if row["error"] else float(row[name]) for name in OBJECTIVES])
    return [known[index] for index in sorted(known)]


def _suggested(space: Space, trial: Trial) -> list[int]:
    """Places among the choices; where values are numbers, near places are near values."""
    found = []
    for choice, (name, most) in zip(space.choices, _parameters(space), strict=True):
        ordered = all(isinstance(value, int | float) for one in choice for value in one.values())
        at = trial.suggest_int(name, 0, most) if ordered else trial.suggest_categorical(name, range(most + 1))
        found.append(at)
    return found


def _parameters(space: Space) -> list[tuple[str, int]]:
    return [(",".join(choice[0]), len(choice) - 1) for choice in space.choices]


def _study(sample: Sample) -> Study:
    optuna = _optuna(sample.sampler)
    makes: dict[str, Callable[[], Any]] = {
        "tpe": lambda: optuna.samplers.TPESampler(seed=sample.seed, n_startup_trials=_AT_A_TIME, multivariate=True),
        "nsga2": lambda: optuna.samplers.NSGAIISampler(seed=sample.seed, population_size=_AT_A_TIME),
    }
    directions = ["minimize"] * len(OBJECTIVES)
    study: Study = optuna.create_study(directions=directions, sampler=makes[sample.sampler]())
    return study


def _optuna(sampler: str) -> ModuleType:
    try:
        import optuna
    except ImportError as error:
        rule = "this sampler is one of its"
        raise InputError(
            f"--sampler {sampler}", "no package 'optuna'", rule, "pip install 'gblr-hw[codesign]', or take random."
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
