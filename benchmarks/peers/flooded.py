"""A machine whose memory never makes it wait, so that only the rules of its array are left."""

from __future__ import annotations

from simulator.machine.machine import Machine


def flooded(machine: Machine) -> Machine:
    """The same machine before a memory without latency or bandwidth limit."""
    return machine.with_(name=f"{machine.name}-flooded", dram={"gb_per_s": 1e6, "latency_ns": 0.0})
