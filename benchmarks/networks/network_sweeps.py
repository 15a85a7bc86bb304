"""From memory-bound to compute-bound: cycles a token of a language model and an encoder as more rows share each weight.

GPT-2 decodes one token after 1024 for 1 to 64 sequences at once; BERT-base reads one text of 1 to 512 tokens; both on
mid-32. Beside the cycles stand the two roofs: multiplications over the array's cells, and bytes over the channel.
Writes --out (JSON) and --picture.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from analysis.pictures import colours, style
from analysis.pictures.axes import log_ticks, set_x, short_number
from benchmarks.networks.tables import sweeps_table
from gblr_hw.frontend import export_network
from gblr_hw.frontend.sources import load_source
from gblr_hw.lowering.whole_network import lower_network
from simulator.machine.machine import Machine
from simulator.program.operations import TRANSFER_OPS, is_any
from simulator.timing.durations import channel_cycles
from simulator.timing.simulate import simulate


@dataclass(frozen=True)
class Sweep:
    """A network, what is swept ("batch" or "tokens"), and its values."""

    title: str
    source: str
    what: str
    values: tuple[int, ...]
    past: int = 0


SWEEPS = (
    Sweep("GPT-2, one token after 1024", "transformers:gpt2", "batch", (1, 2, 4, 8, 16, 32, 64), 1024),
    Sweep("BERT-base, one text", "transformers:bert-base-uncased", "tokens", (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)),
)


_LINES = {
    "latency_cycles": ("simulated", "o-"),
    "compute_roof_cycles": ("multiplications / cells", "--"),
    "memory_roof_cycles": ("bytes / bandwidth", ":"),
}


def measure(sweep: Sweep, value: int, machine: Machine) -> dict[str, object]:
    """Cycles of one point, and its two roofs."""
    sizes = {"batch": value, "tokens": 1} if sweep.what == "batch" else {"tokens": value}
    exported = export_network(*load_source(sweep.source, past=sweep.past, **sizes))
    program = lower_network(exported.network, exported.weights, machine)
    report = simulate(program, machine)
    ins = program.instructions
    moved = int(ins.dram_bytes[is_any(ins.op, TRANSFER_OPS)].sum())
    return {
        "network": sweep.title,
        "what": sweep.what,
        "rows": value,
        "latency_cycles": report.latency_cycles,
        "compute_roof_cycles": report.multiplications // (machine.rows * machine.cols),
        "memory_roof_cycles": int(channel_cycles(machine, np.array([moved]))[0]),
        "bound": report.bound,
        "roofline_fraction": round(report.roofline_fraction, 4),
    }


def picture(points: list[dict]) -> Figure:  # type: ignore[type-arg]
    """Cycles a row against rows, log-log, one panel a sweep, with both roofs."""
    with style.house_style():
        figure = style.new_figure(9.0, 3.8)
        panels = figure.subplots(1, len(SWEEPS))
        for axes, sweep in zip(panels, SWEEPS, strict=True):
            mine = [p for p in points if p["network"] == sweep.title]
            rows = np.array([p["rows"] for p in mine])
            for key, (label, line) in _LINES.items():
                colour = colours.BLUE if key == "latency_cycles" else colours.GREY
                axes.plot(rows, np.array([p[key] for p in mine]) / rows, line, label=label, color=colour)
            axes.set_title(sweep.title)
            axes.set_xlabel("sequences at once" if sweep.what == "batch" else "tokens of the text")
            set_x(axes, 0.9, rows.max() * 1.1, True)
            axes.set_yscale("log")
            values = [p[key] / p["rows"] for p in mine for key in _LINES]
            low, high = min(values) / 1.3, max(values) * 1.3
            axes.set_ylim(low, high)
            axes.yaxis.set_major_locator(FixedLocator(log_ticks(low, high)))
            axes.yaxis.set_minor_locator(NullLocator())
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: short_number(value)))
        panels[0].set_ylabel("cycles a token, mid-32")
        panels[1].legend()
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/data/network_sweeps.json"))
    parser.add_argument("--picture", type=Path, default=Path("docs/images/sweeps.png"))
    arguments = parser.parse_args()
    machine = Machine.load("mid-32")
    points = []
    for sweep in SWEEPS:
        for value in sweep.values:
            points.append(measure(sweep, value, machine))
            print(points[-1], flush=True)
    arguments.out.write_text(json.dumps(points, indent=1) + "\n")
    style.save_figure(picture(points), arguments.picture)
    print(sweeps_table(points), end="")


if __name__ == "__main__":
    main()
