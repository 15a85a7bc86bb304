"""Tables of whole networks, from the figures in docs/data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from analysis.tables.table import Column, count, format_table, percent

Row = dict[str, Any]
SPARSE = (0.5, 0.3, 0.15)
# README shows these; docs/networks.md all.
SHORT_LIST = (
    "ViT-B/16",
    "DeiT-S",
    "Mixer-S/16",
    "ResNet-18",
    "BERT-base, 128 tokens",
    "GPT-2, prefill 1024",
    "GPT-2, decode 1 after 1024",
    "Llama block 4096, prefill 128",
)


def by_case(rows: Sequence[Row], machine: str) -> dict[tuple[str, float], Row]:
    """(network, fraction) -> its record on a machine."""
    return {(row["network"], row["fraction"]): row for row in rows if row["machine"] == machine}


def models_table(rows: Sequence[Row], machine: str) -> str:
    """One row a network: dense, and cycles and energy of each fraction relative to it."""
    found, lines = by_case(rows, machine), []
    for name in dict.fromkeys(row["network"] for row in rows):
        whole = found.get((name, 1.0))
        if whole is None:
            continue
        line = {
            "network": name,
            "operators": whole["operators"],
            "G": f"{whole['multiplications'] / 1e9:.2f}",
            "mb": f"{whole['program_bytes'] / 1e6:.0f}",
            "export": f"{whole['export_cpu_s']:.1f}",
            "s": f"{whole['lower_cpu_s']:.1f}",
            "cycles": whole["latency_cycles"],
            "roof": f"{whole['roofline_fraction']:.0%} {whole['bound']}",
            "mj": f"{whole['energy_uj'] / 1e3:.2f}",
            "share": f"{whole['linear_share']:.0%}",
        }
        for fraction in SPARSE:
            one = found.get((name, fraction))
            if one is not None:
                line[str(fraction)] = ", ".join(
                    f"{one[key] / whole[key]:.2f}" for key in ("latency_cycles", "energy_uj")
                )
        lines.append(line)
    columns = (
        Column("network", "network", align="left"),
        Column("operators", "operators"),
        Column("G mult.", "G"),
        Column("program MB", "mb"),
        Column("export s", "export"),
        Column("lowering s", "s"),
        Column("cycles", "cycles", count),
        Column("of the roof", "roof"),
        Column("mJ", "mj"),
        Column("linears", "share"),
        *(Column(f"{100 * fraction:.0f} %", str(fraction)) for fraction in SPARSE),
    )
    return format_table(columns, lines, markdown=True)


def short_models_table(rows: Sequence[Row], machine: str, fraction: float = 0.3) -> str:
    """The best known networks: dense, and cycles and energy of one fraction."""
    found, lines = by_case(rows, machine), []
    for name in SHORT_LIST:
        whole, one = found[name, 1.0], found[name, fraction]
        lines.append(
            {
                "network": name,
                "operators": whole["operators"],
                "cycles": whole["latency_cycles"],
                "share": f"{whole['linear_share']:.0%}",
                "roof": f"{whole['roofline_fraction']:.0%} {whole['bound']}",
                "sparse": f"{one['latency_cycles'] / whole['latency_cycles']:.1%}",
                "energy": f"{one['energy_uj'] / whole['energy_uj']:.1%}",
            }
        )
    columns = (
        Column("network", "network", align="left"),
        Column("operators", "operators"),
        Column("cycles, dense", "cycles", count),
        Column("share of linears", "share"),
        Column("of the roof", "roof"),
        Column(f"cycles, GBLR {100 * fraction:.0f} %", "sparse"),
        Column("energy", "energy"),
    )
    return format_table(columns, lines, markdown=True)


def kinds_text(printed: str) -> str:
    """Where a network spends its cycles, by kind of operator, out of what `gblr-hw simulate` prints."""
    parts = printed.strip().split("\n\n")
    (kinds,) = (part for part in parts if part.startswith("kind "))
    (cycles,) = (line for line in parts[-1].splitlines() if " cycles = " in line)
    return f"```\n{kinds}\n\n{cycles}\n```\n"


def fusion_table(rows: Sequence[Row]) -> str:
    """What keeping values in the scratchpad is worth."""
    columns = (
        Column("network", "network", align="left"),
        Column("machine", "machine", align="left"),
        Column("cycles, each operator through DRAM", "alone", count),
        Column("pairs", "pairs", percent),
        Column("groups by cost", "cycles", percent),
        Column("DRAM bytes", "bytes", percent),
        Column("energy", "energy", percent),
    )
    return format_table(columns, rows, markdown=True)


def image_bytes_table(rows: Sequence[Row]) -> str:
    """DRAM bytes of convolutional networks, and the share of the cycles that depthwise convolutions take."""
    columns = (
        Column("network", "network", align="left"),
        Column("machine", "machine", align="left"),
        Column("cycles", "cycles", count),
        Column("DRAM MB", "dram_bytes", lambda value: f"{value / 1e6:.1f}"),
        Column("of the least", "share_of_least", lambda value: f"{value:.2f}"),
        Column("depthwise, of the cycles", "depthwise", percent),
        Column("mJ", "energy_uj", lambda value: f"{value / 1e3:.2f}"),
    )
    return format_table(columns, rows, markdown=True)


def plain_as_network_table(rows: Sequence[Row]) -> str:
    """Plain programs, and what the network's emitter makes of the same layers relative to them, by machine."""
    machines, lines = list(dict.fromkeys(row["machine"] for row in rows)), []
    for title in dict.fromkeys(row["checkpoint"] for row in rows):
        mine = {row["machine"]: row for row in rows if row["checkpoint"] == title}
        line: Row = {"checkpoint": title}
        for machine, row in mine.items():
            shares = (row["network"][key] / row["plain"][key] for key in ("latency_cycles", "dram_bytes"))
            line[machine] = ", ".join(f"{share:.2f}" for share in shares)
        seconds = (mine["mid-32"][kind]["lowering_cpu_s"] for kind in ("plain", "network"))
        line["seconds"] = ", ".join(f"{one:.2f}" for one in seconds)
        lines.append(line)
    columns = (
        Column("layers", "checkpoint", align="left"),
        *(Column(machine, machine) for machine in machines),
        Column("lowering s, mid-32", "seconds"),
    )
    return format_table(columns, lines, markdown=True)


def accuracy_table(rows: Sequence[Row]) -> str:
    """What int8 costs real tasks."""
    columns = (
        Column("network", "network", align="left"),
        Column("numbers", "numbers", align="left"),
        Column("cycles a batch", "latency_cycles", count),
        Column("cosine", "cosine", lambda value: f"{value:.4f}"),
        Column("worst", "worst_cosine", lambda value: f"{value:.4f}"),
        Column("accuracy", "accuracy", percent),
        Column("probe of the dense model", "accuracy_of_dense_probe", percent),
        Column("lowering, CPU s", "lowering_cpu_s", lambda value: f"{value:.1f}"),
    )
    return format_table(columns, rows, markdown=True)


def sweeps_table(points: Sequence[Row]) -> str:
    """Cycles as more rows share each weight, beside both roofs."""
    columns = (
        Column("network", "network", align="left"),
        Column("rows", "rows"),
        Column("cycles", "latency_cycles", count),
        Column("multiplications / cells", "compute_roof_cycles", count),
        Column("bytes / bandwidth", "memory_roof_cycles", count),
        Column("of the higher roof", "roofline_fraction"),
        Column("bound", "bound"),
    )
    return format_table(columns, points, markdown=True)


def advice_table(rows: Sequence[Row]) -> str:
    """One row a network, error and regime: the winner, what is next, four bits; the simulator beside closed forms."""
    from gblr_hw.advice.advise import FALLBACK
    from gblr_hw.advice.confirm import label

    lines = []
    for row in (row for row in rows if "regimes" in row):
        held = f"{row['tiles']:.2f} of the tiles" if row["tiles"] else f"error {row['error'] or row['errors'][0]:.2f}"
        for regime in row["regimes"]:
            ways, dense = regime["closed_form"], regime["closed_form"][FALLBACK]
            best, second, *_ = sorted(ways, key=lambda way: ways[way])
            ran = regime["simulated"]
            lines.append(
                {
                    "network": f"{row['network']}, {held}",
                    "tokens": regime["tokens"],
                    "binds": regime["binds"],
                    "best": label(best),
                    "share": f"{ways[best] / dense:.3f}",
                    "simulated": f"{ran[best] / ran[FALLBACK]:.3f}",
                    "second": f"{label(second)} {ways[second] / dense:.3f}",
                    "int4": f"{ways['dense_int4'] / dense:.3f}",
                    "each": f"{regime['best_of_each'] / dense:.3f}",
                }
            )
    columns = (
        Column("network", "network", align="left"),
        Column("tokens", "tokens", count),
        Column("dense waits for", "binds", align="left"),
        Column("best way", "best", align="left"),
        Column("over dense, 8 bits", "share"),
        Column("simulated", "simulated"),
        Column("next", "second", align="left"),
        Column("4 bits", "int4"),
        Column("best of each layer", "each"),
    )
    decoded = [
        {
            "machine": row["machine"],
            **{f"cycles {bits}": row["decode"][bits]["cycles"] for bits in ("8", "4")},
            **{f"share {bits}": percent(row["decode"][bits]["share"]) for bits in ("8", "4")},
        }
        for row in rows
        if "decode" in row
    ]
    decode_columns = (
        Column("GPT-2, one token after 1,024", "machine", align="left"),
        Column("cycles, 8 bits", "cycles 8", count),
        Column("bytes over bandwidth", "share 8"),
        Column("cycles, 4 bits", "cycles 4", count),
        Column("bytes over bandwidth ", "share 4"),
    )
    return format_table(columns, lines, markdown=True) + "\n" + format_table(decode_columns, decoded, markdown=True)
