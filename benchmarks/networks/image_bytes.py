"""DRAM bytes of convolutional networks against the least that their groups of operators can move, and what depthwise
convolutions take of the cycles.

The least: every weight and parameter once, the model's input once, every stored activation written once and read once
by each group of operators that reads it, in the chunks that it is stored in.

``python -m benchmarks.networks.image_bytes [--out docs/data/image_bytes.json]``: two minutes.
"""

from __future__ import annotations

import numpy as np

from benchmarks.networks.tables import image_bytes_table
from benchmarks.shared.measurement import out_option, write_json
from gblr_hw.frontend import ExportedNetwork, export_network
from gblr_hw.frontend.sources import load_source
from gblr_hw.lowering.whole_network import lower_network
from gblr_hw.weights.stored import GroupedWeights
from simulator.base.arithmetic import ceil_div
from simulator.machine.machine import Machine
from simulator.network.network_layout import output_chunks
from simulator.program.operations import Op
from simulator.program.program import Program
from simulator.timing.simulate import simulate

MACHINES = ("edge-16", "mid-32", "cloud-128")
CASES = (
    ("ResNet-18", "resnet-18"),
    ("ResNet-50", "transformers:microsoft/resnet-50"),
    ("MobileNet-V2", "transformers:google/mobilenet_v2_1.0_224"),
)


def least_bytes(program: Program) -> int:
    """The bytes that nothing can be saved of while groups of operators are as they are."""
    network, columns, side = program.network, program.instructions, program.machine.cols
    assert network is not None
    moved = np.maximum(columns.dram_bytes, 0)
    held = int(moved[columns.op == Op.LOAD_PARAMETERS].sum())
    held += sum(int(layer.tile_bytes(program.machine).sum()) for layer in program.layers)
    for index in np.unique(columns.layer[columns.op == Op.STORE]).tolist():
        operator = network.operators[index]
        held += operator.rows * output_chunks(network, operator, side) * side
    first = 0
    for text in program.provenance["groups"].split(","):
        last = first + int(text.split("x")[0])
        read = {
            operand.tensor
            for operator in network.operators[first:last]
            for operand in operator.operands
            if operand.access != "weights"
        }
        for name in read - {operator.output for operator in network.operators[first:last]}:
            tensor = network.tensors[name]
            channels = tensor.channels(side)
            held += tensor.rows * (channels if tensor.kind == "input" else ceil_div(channels, side) * side)
        first = last
    return held


def _row(title: str, exported: ExportedNetwork, machine: Machine) -> dict[str, object]:
    program = lower_network(exported.network, exported.weights, machine)
    report = simulate(program, machine)
    assert program.network is not None
    depthwise = {
        name
        for name, weights in exported.weights.items()
        if isinstance(weights, GroupedWeights) and weights.kernel.shape[1] == 1
    }
    mine = sum(layer.latency_cycles for layer in report.layers if layer.name in depthwise)
    return {
        "network": title,
        "machine": machine.name,
        "cycles": report.latency_cycles,
        "dram_bytes": report.dram_bytes,
        "share_of_least": report.dram_bytes / least_bytes(program),
        "depthwise": mine / report.latency_cycles,
        "energy_uj": report.energy_pj * 1e-6,
    }


def main() -> None:
    options = out_option(__doc__)
    rows = []
    for title, source in CASES:
        exported = export_network(*load_source(source))
        rows += [_row(title, exported, Machine.load(name)) for name in MACHINES]
    print(image_bytes_table(rows), end="")
    write_json(options.out, rows=rows)


if __name__ == "__main__":
    main()
