"""Known networks, whole, dense and with random GBLR layers: operators, programs, cycles, energy, share of linears.

Random layers have intervals of all sizes at all places, as training that knows nothing of the machine leaves them, so
the table shows what such structures are worth, not what the machine could make of better ones. Weights are random:
cycles and energy do not depend on them. Resumable: one JSON line for each network, fraction and machine in --out; what
is there is not measured again, unless with --again. `--table` prints the tables of docs/networks.md, which `make docs`
writes there.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.networks.tables import models_table
from gblr_hw.frontend import export_network, multiplications_of
from gblr_hw.frontend.random_gblr import replace_by_random_gblr
from gblr_hw.frontend.sources import load_source
from gblr_hw.lowering.whole_network import lower_network
from simulator.machine.machine import Machine
from simulator.timing.simulate import simulate

OUT = Path("docs/data/models.jsonl")
MACHINES = ("mid-32", "cloud-128")
# ViT-Base at the published 5.65 G: the authors' counting gives dense 17.2 G, which is all linears and one of the two
# products of attention (16.845 + 0.358); linears then have (5.65 - 0.358) / 16.845 of theirs.
PUBLISHED = 0.314


@dataclass(frozen=True)
class Case:
    """A network of `gblr_hw.frontend.sources` with the sizes of its inputs, and its name in the table."""

    title: str
    source: str
    tokens: int | None = None
    past: int = 0
    fractions: tuple[float, ...] = (1.0, 0.5, 0.3, 0.15)


CASES = (
    Case("ViT-B/16", "transformers:google/vit-base-patch16-224", fractions=(1.0, 0.5, PUBLISHED, 0.3, 0.15)),
    Case("DeiT-S", "transformers:facebook/deit-small-patch16-224"),
    Case("Mixer-S/16", "mixer-s16"),
    Case("ResNet-18", "resnet-18"),
    Case("BERT-base, 128 tokens", "transformers:bert-base-uncased", 128),
    Case("MiniLM-L6, 64 tokens", "minilm", 64),
    Case("GPT-2, prefill 1024", "transformers:gpt2", 1024),
    Case("GPT-2, decode 1 after 1024", "transformers:gpt2", 1, 1024),
    Case("Llama block 4096, prefill 128", "transformers:llama-block-4096", 128),
    Case("Llama block 4096, decode 1 after 1024", "transformers:llama-block-4096", 1, 1024),
)


def measure(case: Case, fraction: float, machines: list[str]) -> list[dict[str, object]]:
    """One record for each machine."""
    model, inputs = load_source(case.source, tokens=case.tokens, past=case.past)
    if fraction < 1:
        replace_by_random_gblr(model, fraction)
    begin = time.process_time()
    exported = export_network(model, inputs)
    export_s = time.process_time() - begin
    multiplications = sum(multiplications_of(exported.network, exported.weights).values())
    records = []
    for name in machines:
        machine = Machine.load(name)
        begin = time.process_time()
        program = lower_network(exported.network, exported.weights, machine)
        lower_s = time.process_time() - begin
        report = simulate(program, machine)
        with tempfile.TemporaryDirectory() as folder:
            program.save(Path(folder) / "program")
            size = (Path(folder) / "program").stat().st_size
        linear = sum(layer.latency_cycles for layer in report.layers if layer.kind == "linear")
        records.append(
            {
                "network": case.title,
                "fraction": fraction,
                "machine": name,
                "operators": len(exported.network.operators),
                "multiplications": multiplications,
                "instructions": len(program.instructions),
                "program_bytes": size,
                "export_cpu_s": round(export_s, 2),
                "lower_cpu_s": round(lower_s, 2),
                "latency_cycles": report.latency_cycles,
                "roofline_fraction": round(report.roofline_fraction, 4),
                "bound": report.bound,
                "energy_uj": round(report.energy_pj * 1e-6, 1),
                "dram_bytes": report.dram_bytes,
                "linear_share": round(linear / report.latency_cycles, 4),
            }
        )
    return records


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--only", help="networks whose title contains this")
    parser.add_argument("--table", action="store_true", help="print the tables and measure nothing")
    parser.add_argument("--again", action="store_true", help="measure what is there already once more")
    arguments = parser.parse_args()
    if arguments.again:
        arguments.out.unlink(missing_ok=True)
    records = [json.loads(line) for line in arguments.out.read_text().splitlines()] if arguments.out.exists() else []
    if not arguments.table:
        known = {(r["network"], r["fraction"], r["machine"]) for r in records}
        for case in CASES:
            if arguments.only and arguments.only not in case.title:
                continue
            for fraction in case.fractions:
                missing = [m for m in MACHINES if (case.title, fraction, m) not in known]
                if not missing:
                    continue
                for record in measure(case, fraction, missing):
                    records.append(record)
                    with arguments.out.open("a") as file:
                        file.write(json.dumps(record) + "\n")
                    print(case.title, f"{fraction:g}", record["machine"], record["latency_cycles"], flush=True)
    for machine in MACHINES:
        print(
            f"\n{machine}: dense, and cycles, energy of GBLR at a fraction of the multiplications, relative to dense\n"
        )
        print(models_table(records, machine))


if __name__ == "__main__":
    main()
