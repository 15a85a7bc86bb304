"""What networks would take were the elements of their VECTORs priced as float lanes, not as 32-bit integers.

python -m benchmarks.energy_tables.float_lanes [--out docs/data/float_lanes.json]
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before numpy and torch are loaded

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from analysis.tables.table import Column, count, format_table, percent
from benchmarks.shared.measurement import out_option, write_json
from benchmarks.study.runs import PARTS, as_trained
from gblr_hw.frontend import export_network
from gblr_hw.frontend.sources import load_source
from gblr_hw.lowering.whole_network import lower_network
from simulator import Machine, simulate
from simulator.machine.energy_table import EnergyTable
from simulator.program.operations import Op

MACHINE = "mid-32"
AS_PRICED = ("mul_i32", "add_i32")  # of the event `vector_ops` (simulator/machine/events.py)


def _of_study(part: str, width: int) -> tuple[nn.Module, Any]:
    return as_trained(PARTS[part].build(width, PARTS[part].depth)), PARTS[part].example


_NETWORKS: Mapping[str, Callable[[], tuple[nn.Module, Any]]] = {
    "digits ViT of the study": lambda: _of_study("digits", 128),
    "digits ViT, narrowed to 32": lambda: _of_study("digits", 32),
    "Fashion-MNIST ViT of the study": lambda: _of_study("fashion-vit", 96),
    "Fashion-MNIST Mixer of the study": lambda: _of_study("fashion-mixer", 96),
    "MiniLM-L6, 64 tokens": lambda: load_source("minilm", tokens=64),
}


def rows() -> list[dict[str, Any]]:
    """Of dense networks: elements of VECTORs' passes, microjoules of all work, and of these elements, as they are
    priced and at the three prices of a float lane.
    """
    machine, found = Machine.load(MACHINE), []
    table = EnergyTable.load(machine.energy.table).data
    lane, priced = table.arithmetic["float_lane"], sum(table.op[name].pj for name in AS_PRICED)
    for name, load in _NETWORKS.items():
        exported = export_network(*load())
        program = lower_network(exported.network, exported.weights, machine)
        report, ins = simulate(program, machine), program.instructions
        elements = report.accesses["vector_ops"] - int(ins.tokens[ins.op == Op.DRAIN].sum()) * machine.cols
        prices = {"priced": priced, "value": lane.pj, "low": lane.low, "high": lane.high}
        told = {key: round(1e-6 * elements * pj, 4) for key, pj in prices.items()}
        found.append({"network": name, "elements": elements, "work": round(1e-6 * report.energy_pj, 3), **told})
    return found


def float_lanes_table(found: list[dict[str, Any]]) -> str:
    """The share of VECTORs' elements in all work, and all work with float lanes over all work as it is priced."""
    shown = [
        {
            **{key: row[key] for key in ("network", "elements", "work")},
            "share": row["priced"] / row["work"],
            **{key: 1 + (row[key] - row["priced"]) / row["work"] for key in ("value", "low", "high")},
        }
        for row in found
    ]
    columns = [
        Column(f"dense, on {MACHINE}", "network", align="left"),
        Column("elements of VECTORs", "elements", count),
        Column("work (µJ)", "work", lambda value: f"{value:,.1f}"),
        Column("their share", "share", percent),
        Column("work with float lanes", "value", _times),
        *(Column(key, key, _times) for key in ("low", "high")),
    ]
    return format_table(columns, shown, markdown=True)


def _times(value: object) -> str:
    return f"{value:.4f} x"


def main() -> None:
    options = out_option(__doc__)
    found = rows()
    print(float_lanes_table(found), end="")
    write_json(options.out, rows=found)


if __name__ == "__main__":
    main()
