"""Which family a conversion makes, from what is asked for and what the machine can run."""

from __future__ import annotations

from gblr_hw.conversion.conversion_input import Array
from gblr_hw.conversion.from_dense import FROM_DENSE, FitOptions, fitting_of
from gblr_hw.weights.family import FAMILIES, Family, converted, family_named, on_machine
from gblr_hw.weights.structure import check_square
from simulator.base.errors import InputError
from simulator.machine.machine import Machine

# What holds most at equal tiles.
DEFAULT = "lattice"


def choose_family(name: str | None, machine: Array | Machine, options: FitOptions) -> Family:
    """The family of that name; without one the freest that the machine runs in the tiles that are counted.

    Raises InputError for a name that is none, a family or options that the machine or the family cannot have.
    """
    scatter = machine.scatter if isinstance(machine, Machine) else True
    family = on_machine(FAMILIES[DEFAULT], scatter) if name is None else family_named(name, converted(), "family")
    if on_machine(family, scatter) is not family:
        raise InputError(
            "family",
            repr(name),
            "a machine without scatter would run it in more tiles than are counted",
            f"Use '{family.stand_in}', or a machine with scatter.",
        )
    if family.square_array:
        check_square(machine.rows, machine.cols)
    fitting = fitting_of(family.name)
    if options.intervals_only and not fitting.keeps_runs:
        able = ", ".join(FAMILIES[o].label for o, one in FROM_DENSE.items() if one.fitting and one.fitting.keeps_runs)
        raise InputError(
            "intervals_only",
            f"with {family.label}",
            f"only the family {able} keeps each rank's chunks one run (a machine without scatter does not run it)",
            "Leave it out, or convert to that family for a machine with scatter.",
        )
    if not options.with_dense_tiles and not fitting.without_tiles:
        raise InputError("with_dense_tiles", f"off with {family.label}", "nothing else is left", "Leave it on.")
    return family
