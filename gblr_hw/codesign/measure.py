"""What a pair of a machine and a network costs: lowered, simulated, and remembered."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from gblr_hw.codesign.networks import NetworkChoice
from gblr_hw.codesign.problem import Pair, Problem
from gblr_hw.codesign.space import MachineChoice
from gblr_hw.conversion.fit.fit_weights import Converted
from gblr_hw.lowering.pipeline import lower
from simulator.base.errors import InputError
from simulator.base.files import output_folder, read_text, replacing
from simulator.base.schema import Strict, parsed_json, validated
from simulator.machine.area import area_mm2
from simulator.machine.machine import Machine
from simulator.timing.simulate import simulate

MEASUREMENTS = "measurements.json"  # in the work folder
_FORMAT, _VERSION = "gblr-hw codesign measurements", 1


@dataclass(frozen=True)
class Measured:
    """Simulated cost of a network on a machine, or why the machine cannot hold it (the costs are then 0)."""

    latency_cycles: int
    energy_pj: float
    unfit: str = ""


class Measurements:
    """Measured pairs by digest, in a file of the work folder if there is one; `save` writes what is new."""

    def __init__(self, work: Path | None) -> None:
        self.path = None if work is None else output_folder(work) / MEASUREMENTS
        self._known: dict[str, Measured] = {}
        self._saved = 0
        if self.path is not None and self.path.is_file():
            self._known = _read(self.path)
            self._saved = len(self._known)

    def __len__(self) -> int:
        return len(self._known)

    def of(self, problem: Problem, machine: Machine, network: NetworkChoice) -> Measured:
        """The network's cost on the machine, simulated if it is not known yet."""
        key = key_of(problem, machine, network)
        if key not in self._known:
            self._known[key] = simulated(problem, weights_of(problem, network), machine)
        return self._known[key]

    def missing(
        self, problem: Problem, pairs: Iterable[tuple[Machine, NetworkChoice]]
    ) -> dict[str, tuple[Machine, NetworkChoice]]:
        """Those of the pairs that are not known yet, by their digests."""
        found = {key_of(problem, *pair): pair for pair in pairs}
        return {key: pair for key, pair in found.items() if key not in self._known}

    def keep(self, key: str, measured: Measured) -> None:
        """Remember the cost of a pair by its digest."""
        self._known[key] = measured

    def save(self) -> None:
        """Write the file anew if anything was added."""
        if self.path is None or len(self._known) == self._saved:
            return
        rows = {key: asdict(measured) for key, measured in sorted(self._known.items())}
        with replacing(self.path) as file:
            document = {"format": _FORMAT, "version": _VERSION, "measurements": rows}
            file.write((json.dumps(document, indent=1) + "\n").encode())
        self._saved = len(self._known)


def key_of(problem: Problem, machine: Machine, network: NetworkChoice) -> str:
    """A digest of all that a pair's cost depends on; the network's layers are fitted if they are not yet."""
    about = machine.with_(name="any", description="").to_json()
    layers = problem.networks.layers(network)
    parts = [about, str(problem.tokens), *(f"{name} {layer.key}" for name, layer in layers.items())]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def mean_error(problem: Problem, network: NetworkChoice) -> float:
    """Of the network's layers."""
    layers = problem.networks.layers(network).values()
    return sum(layer.error for layer in layers) / len(layers)


def weights_of(problem: Problem, network: NetworkChoice) -> dict[str, Converted]:
    """The network's weights by layer."""
    return {name: layer.weights for name, layer in problem.networks.layers(network).items()}


def simulated(problem: Problem, weights: Mapping[str, Converted], machine: Machine) -> Measured:
    """The cost of a network of these weights on the machine."""
    try:
        program = lower(weights, machine, tokens=problem.tokens)
    except InputError as error:
        return Measured(0, 0.0, str(error))
    report = simulate(program, machine)
    return Measured(report.latency_cycles, report.energy_pj)


def pair_of(problem: Problem, choice: MachineChoice, network: NetworkChoice, known: Measurements) -> Pair | None:
    """The pair with all its numbers; None if the machine cannot hold the network."""
    machine = problem.space.machine(choice, problem.base)
    measured = known.of(problem, machine, network)
    if measured.unfit:
        return None
    tiles = sum(layer.tiles for layer in problem.networks.layers(network).values())
    return Pair(
        choice=choice,
        machine=machine,
        network=network,
        latency_cycles=measured.latency_cycles,
        latency_s=measured.latency_cycles / (machine.clock_ghz * 1e9),
        energy_pj=measured.energy_pj,
        error=mean_error(problem, network),
        area_mm2=area_mm2(machine).total.mm2,
        tile_share=tiles / problem.networks.dense_tiles(choice.side),
    )


class _Row(Strict):
    latency_cycles: Annotated[int, Field(ge=0, lt=2**63)]
    energy_pj: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    unfit: str


class _File(Strict):
    format: Literal["gblr-hw codesign measurements"]
    version: Literal[1]
    measurements: dict[str, _Row]


def _read(path: Path) -> dict[str, Measured]:
    what = "a work folder's file of measurements"
    document = parsed_json(read_text(path, what), str(path), what)
    rows = validated(_File, document, str(path), "Delete the file: its pairs are measured again.").measurements
    return {key: Measured(**dict(row)) for key, row in rows.items()}
