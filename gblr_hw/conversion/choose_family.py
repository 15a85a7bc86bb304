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


def choose_family(
    name: str | None, machine: Array | Machine, options: FitOptions, among: tuple[str, ...] | None = None
) -> Family:
    """The family of that name; without one the freest that the machine runs in the tiles that are counted.

    among: names that are asked for, those that are made tile by tile if None.

    Raises InputError for a name that is none, a family or options that the machine or the family cannot have.
    """
    scatter = machine.scatter if isinstance(machine, Machine) else True
    named = None if name is None else family_named(name, among or converted(), "family")
    family = named or on_machine(FAMILIES[DEFAULT], scatter)
    if on_machine(family, scatter) is not family:
        raise InputError(
            "family",
            repr(name),
            "a machine without scatter would run it in more tiles than are counted",
            f"Use '{family.stand_in}', or a machine with scatter.",
        )
    if family.square_array:
        check_square(machine.rows, machine.cols)
    if family.whole:
        _check_whole(family, options)
        return family
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


def _check_whole(family: Family, options: FitOptions) -> None:
    """Raise InputError for options on chunks and tiles, which layers that are chosen whole do not have."""
    for what, given in (("intervals_only", options.intervals_only), ("with_dense_tiles", not options.with_dense_tiles)):
        if given:
            raise InputError(what, f"with {family.label}", "it says which chunks and tiles are kept", "Leave it out.")
