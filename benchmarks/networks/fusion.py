"""What keeping values in the scratchpad is worth: every operator through DRAM against groups of operators by cost.

``python -m benchmarks.networks.fusion [--out docs/data/fusion.json]``: two minutes.
"""

from __future__ import annotations

from benchmarks.networks.tables import fusion_table
from benchmarks.shared.measurement import out_option, write_json
from gblr_hw.frontend import ExportedNetwork, export_network
from gblr_hw.frontend.random_gblr import replace_by_random_gblr
from gblr_hw.frontend.sources import load_source
from gblr_hw.lowering.groups.fuse_groups import LONGEST
from gblr_hw.lowering.whole_network import lower_network
from simulator.machine.machine import Machine
from simulator.timing.simulate import simulate

MACHINES = ("edge-16", "mid-32", "cloud-128")
CASES = (
    ("DeiT-S", "transformers:facebook/deit-small-patch16-224", 1.0),
    ("DeiT-S, GBLR 15 %", "transformers:facebook/deit-small-patch16-224", 0.15),
    ("Mixer-S/16", "mixer-s16", 1.0),
)


def _row(title: str, exported: ExportedNetwork, machine: Machine) -> dict[str, object]:
    found = []
    for longest in (1, 2, LONGEST):
        program = lower_network(exported.network, exported.weights, machine, longest=longest)
        found.append(simulate(program, machine))
    alone, pairs, chosen = found
    return {
        "network": title,
        "machine": machine.name,
        "alone": alone.latency_cycles,
        "pairs": pairs.latency_cycles / alone.latency_cycles,
        "cycles": chosen.latency_cycles / alone.latency_cycles,
        "bytes": chosen.dram_bytes / alone.dram_bytes,
        "energy": chosen.energy_pj / alone.energy_pj,
    }


def main() -> None:
    options = out_option(__doc__)
    rows = []
    for title, source, fraction in CASES:
        model, inputs = load_source(source)
        if fraction < 1:
            replace_by_random_gblr(model, fraction)
        exported = export_network(model, inputs)
        rows += [_row(title, exported, Machine.load(name)) for name in MACHINES]
    print(fusion_table(rows), end="")
    write_json(options.out, rows=rows)


if __name__ == "__main__":
    main()
