"""What a simulation tells: plain frozen records that every reader (tables, pictures, scripts) shares."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from simulator.base.pictures import Pictured
from simulator.base.shown import Shown, Table, Tabled, data_frame
from simulator.network.vector_functions import VECTOR_GROUPS

# The causes into which every cycle of the array's time line is divided; they sum to the latency exactly (machine.md,
# rule C).
CAUSES: tuple[str, ...] = (
    "compute",  # streaming token rows, one a cycle
    "bank_conflict",  # extra cycles of a row whose ranks share a bank
    "weight_preload",  # waiting for P rows of weights to enter the shadow registers
    "wait_weights",  # waiting for a weight tile from DRAM
    "wait_input",  # waiting for activations from DRAM, or on their way there
    "wait_array",  # waiting for sums of an earlier tile to leave the array
    "wait_vector",  # waiting for the vector unit: an accumulator that it still reads, or a result of its own
    "tail",  # after the last tile of a layer (of a network): the last drain and store
)

# What an operator is bound by (machine.md, rule C5); "hidden" if other operators' cycles cover all of its work.
BOUNDS: tuple[str, ...] = ("compute", "conflicts", "preload", "bandwidth", "latency", "drain", "vector", "hidden")

# What operators of a network are summed up under: matrix operators by their kind, vector operators by their functions.
MATRIX_GROUPS: Mapping[str, str] = {"linear": "linear", "scores": "attention matmul", "mix": "attention matmul"}
GROUPS: tuple[str, ...] = (*dict.fromkeys(MATRIX_GROUPS.values()), *VECTOR_GROUPS)


@dataclass(frozen=True)
class LayerReport:
    """One layer's, or one operator's, share of a simulation.

    ``cycles_by_cause``: keys of ``CAUSES``, summing to ``latency_cycles``: the layer's window (machine.md, rule C1), or
    the cycles charged to an operator of a network (rule C4).
    """

    name: str
    form: str  # "dense", "ranks" or "mixed" (both), as lowering chose; "activations" or "vector" in networks
    in_features: int
    out_features: int
    ranks: int
    tokens: int  # rows of activations that it works on
    latency_cycles: int
    cycles_by_cause: Mapping[str, int]
    tiles: int  # weight tiles of the layer, counted once (not once a token block)
    tiles_by_kind: Mapping[str, int]  # the same by kind: "dense", "reduce", ..., summing to ``tiles``
    narrow_tiles: int  # those of them whose weights have the machine's ``narrow_bits`` (rule A6)
    tile_bound: float  # stored weights that count / (rows x cols): no schedule has fewer tiles
    multiplications: int  # per row of activations, after evaluation of the masks
    macs: int  # multiply-accumulates that the array's cells perform for all tokens, padding included
    dram_bytes: int
    energy_pj: float
    utilisation: float  # useful multiplications x tokens / (latency x rows x cols)
    kind: str  # "linear", "scores", "mix" or "vector"
    group: str  # one of ``GROUPS``
    steps: str  # functions of the vector unit, in order
    bound: str  # one of ``BOUNDS``
    vector_cycles: int  # cycles for which it occupies the vector unit
    dram_cycles: int  # cycles for which it holds the DRAM channel

    def to_dict(self) -> dict[str, object]:
        """All figures as plain JSON types; tiles of each kind under a name of their own, "tiles_dense" and so on."""
        plain = {key: _plain(value) for key, value in vars(self).items() if key != "tiles_by_kind"}
        return {**plain, **{f"tiles_{kind}": count for kind, count in self.tiles_by_kind.items()}}


@dataclass(frozen=True)
class UnitReport:
    """Busy and stalled cycles of one unit; ``busy + sum(stalls) + idle_after_last`` is the latency."""

    name: str
    instructions: int
    busy_cycles: int
    stall_cycles: Mapping[str, int]
    idle_after_last_cycles: int


@dataclass(frozen=True)
class DramReport:
    """What happened in a memory with banks (machine.md, rules D5 to D12), in all of its channels.

    bursts: those that found their row open (hits), none open (misses), another one open (conflicts). refreshes: of
    channels. efficiency: share of the clocks in which a channel had something to do that data took. utilisation: share
    of all clocks.
    """

    model: str
    channels: int
    mapping: str
    scheduler: str
    bursts: int
    hits: int
    misses: int
    conflicts: int
    refreshes: int
    efficiency: float
    utilisation: float


@dataclass(frozen=True, eq=False, repr=False)
class Trace(Shown):
    """Event times of every instruction, one row each, in program order (int64 arrays of one length)."""

    op: np.ndarray  # index into ``op_names``
    unit: np.ndarray  # index into ``unit_names``
    layer: np.ndarray  # index into the report's layers
    start: np.ndarray  # cycle in which the instruction begins to occupy its unit
    end: np.ndarray  # first cycle in which the unit is free again
    done: np.ndarray  # first cycle in which dependent instructions may begin
    op_names: tuple[str, ...]
    unit_names: tuple[str, ...]


@dataclass(frozen=True, eq=False, repr=False)
class Report(Tabled, Pictured):
    """The result of ``simulate``: cycles, seconds, bytes, accesses and joules, whole and by part."""

    program: str
    machine: str
    rows: int
    cols: int
    clock_ghz: float
    latency_cycles: int
    latency_s: float
    energy_pj: float
    energy_by_component: Mapping[str, float]
    energy_range_pj: tuple[float, float]
    energy_ranges_pj: Mapping[str, tuple[float, float]]  # (low, high) of each component
    standing_pj: Mapping[str, float]  # clock, control, logic's leakage, DRAM's background and refresh: not in energy_pj
    standing_ranges_pj: Mapping[str, tuple[float, float]]
    energy_table: str
    energy_table_sha256: str
    dram_bytes: int
    dram_read_bytes: int
    dram_write_bytes: int
    accesses: Mapping[str, int]
    tiles: int
    multiplications: int  # of one token through all layers; of a network, of the whole run
    macs: int
    utilisation: float
    roofline_cycles: int  # the largest of the roofs (rule C3): no schedule of this program is faster
    roofline_fraction: float  # roofline_cycles / latency_cycles
    bound: str  # "compute", "memory" or, of a network, "vector": which roof is the lowest one
    network: bool  # whether this is a whole network, whose operators overlap
    dram_bytes_per_cycle: float  # the channel's bandwidth
    cycles_by_bound: Mapping[str, int]  # cycles of the layers that are bound by each of ``BOUNDS``
    cycles_by_group: Mapping[str, int]  # cycles of the layers of each of ``GROUPS``
    layers: tuple[LayerReport, ...]
    units: tuple[UnitReport, ...]
    trace: Trace
    dram: DramReport | None = None  # of a machine whose DRAM has banks

    def table(self) -> Table:
        """The layers or operators, those with the most cycles first, under a line for the whole."""
        caption = (
            f"Report of '{self.program}' on '{self.machine}': {self.latency_cycles:,} cycles, "
            f"{1e3 * self.latency_s:.4g} ms, {1e-6 * self.energy_pj:.4g} uJ, "
            f"{self.dram_bytes:,} DRAM bytes, {len(self.layers)} layers, "
            f"{100 * self.roofline_fraction:.0f} % of the {self.bound} roof"
        )
        columns = ("layer", "form", "cycles", "share", "bound by", "tiles", "DRAM bytes", "uJ")
        rows = [
            (
                layer.name, layer.form, layer.latency_cycles,
                f"{100 * layer.latency_cycles / max(1, self.latency_cycles):.1f} %", layer.bound, layer.tiles,
                layer.dram_bytes, 1e-6 * layer.energy_pj,
            )
            for layer in sorted(self.layers, key=lambda layer: -layer.latency_cycles)
        ]  # fmt: skip
        return Table(caption, columns, rows)

    def to_dataframe(self) -> Any:
        """A pandas.DataFrame with a row for each layer or operator, in the program's order.

        Each figure has a column, cycles by cause as "cycles_compute" and so on. Raises InputError without pandas.
        """
        rows = []
        for layer in self.layers:
            row = layer.to_dict()
            row.pop("cycles_by_cause")
            rows.append({**row, **{f"cycles_{cause}": cycles for cause, cycles in layer.cycles_by_cause.items()}})
        return data_frame(rows)

    def to_dict(self) -> dict[str, object]:
        """All figures but the trace, as plain JSON types."""
        skipped = {"layers", "units", "trace", "dram"}
        head = {key: _plain(value) for key, value in vars(self).items() if key not in skipped}
        head["layers"] = [layer.to_dict() for layer in self.layers]
        head["units"] = [{k: _plain(v) for k, v in vars(unit).items()} for unit in self.units]
        if self.dram is not None:
            head["dram"] = vars(self.dram)
        return head

    def to_json(self) -> str:
        """The figures as a JSON document; the same run gives the same bytes."""
        return json.dumps(self.to_dict(), indent=2, sort_keys=True) + "\n"


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    return value
