"""The accelerator: machines, the block-schedule IR, cycle-exact engines, energy and functional execution.

Names are imported when they are first used, so that the command line's help waits for none of them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from simulator.base.errors import DeadlockError, InputError
    from simulator.machine.machine import Machine, preset_names
    from simulator.numbers.execute import execute
    from simulator.numbers.execute_network import execute_network
    from simulator.program.program import Program
    from simulator.timing.report import CAUSES, LayerReport, Report
    from simulator.timing.simulate import simulate

_HOMES = {
    "CAUSES": "simulator.timing.report",
    "DeadlockError": "simulator.base.errors",
    "InputError": "simulator.base.errors",
    "LayerReport": "simulator.timing.report",
    "Machine": "simulator.machine.machine",
    "Program": "simulator.program.program",
    "Report": "simulator.timing.report",
    "execute": "simulator.numbers.execute",
    "execute_network": "simulator.numbers.execute_network",
    "preset_names": "simulator.machine.machine",
    "simulate": "simulator.timing.simulate",
}

__all__ = [
    "CAUSES",
    "DeadlockError",
    "InputError",
    "LayerReport",
    "Machine",
    "Program",
    "Report",
    "execute",
    "execute_network",
    "preset_names",
    "simulate",
]


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'simulator' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
