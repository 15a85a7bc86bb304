"""What the engine says of drawn programs, in short; no compiler is imported here."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from simulator.timing.simulate import simulate
from tests.drawn.random_networks import built_network
from tests.drawn.random_programs import built_program, generator

SHAPES = ("soup", "chain", "phases")
SEEDS = 12


def report_hashes() -> Iterator[str]:
    """A digest of each program's report and of its events."""
    for seed in range(SEEDS):
        drawn = [built_network(generator(seed)), *(built_program(generator(seed), shape) for shape in SHAPES)]
        for machine, program in drawn:
            report = simulate(program, machine)
            events = (report.trace.start, report.trace.end, report.trace.done)
            told = report.to_json().encode() + b"".join(column.tobytes() for column in events)
            yield hashlib.sha256(told).hexdigest()[:16]
