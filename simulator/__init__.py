"""The accelerator: machines, the block-schedule IR, cycle-exact engines, energy and functional execution."""

from simulator.engine import DeadlockError
from simulator.errors import InputError
from simulator.execute import execute
from simulator.execute_network import execute_network
from simulator.machine import Machine, preset_names
from simulator.program import Program
from simulator.report import CAUSES, LayerReport, Report
from simulator.simulate import simulate

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
