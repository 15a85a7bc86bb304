"""A machine priced by the table that ``--energy-table`` names."""

from __future__ import annotations

from simulator.machine.energy_table import EnergyTable
from simulator.machine.machine import Machine


def priced_by(machine: Machine, energy_table: str | None) -> Machine:
    """The machine with another energy table, if one is named; InputError where there is none of that name."""
    if energy_table is None:
        return machine
    EnergyTable.load(energy_table, "Check the name given to --energy-table.")
    return machine.with_(energy={"table": energy_table})
