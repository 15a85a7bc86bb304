"""The accelerator: machines, the block-schedule IR, cycle-exact engines, energy and functional execution."""

from simulator.base.errors import InputError
from simulator.machine.machine import Machine, preset_names
from simulator.numbers.execute import execute
from simulator.numbers.execute_network import execute_network
from simulator.program.program import Program
from simulator.timing.engine import DeadlockError
from simulator.timing.report import CAUSES, LayerReport, Report
from simulator.timing.simulate import simulate

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
