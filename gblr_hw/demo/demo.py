"""The demo: networks of every family trained on real digits, run on the simulated machines, compared in one table."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from analysis.pictures.block_map import coverage, draw_block_maps
from analysis.pictures.family_marks import REFERENCE
from analysis.pictures.front_picture import draw_front
from analysis.pictures.layer_bars import draw_layer_bars
from analysis.pictures.style import save_figure
from analysis.pictures.timeline import draw_timeline
from analysis.tables.records import NetworkPoint, save_points
from analysis.tables.table import Column, count, energy_from_pj, format_table, percent
from analysis.traces.chrome_trace import save_chrome_trace
from gblr_hw.demo.run_on_machine import largest_error, on_machine, record_layers
from gblr_hw.files.checkpoint import save_checkpoint
from gblr_hw.lowering.pipeline import lower
from gblr_hw.weights.collect import weights_of
from gblr_hw.weights.factors import evaluate
from gblr_hw.weights.multiplications import multiplications_by_layer
from simulator.base.files import replacing
from simulator.machine.machine import Machine
from simulator.program.program import Program
from simulator.timing.report import Report
from simulator.timing.simulate import simulate

MACHINES = ("mid-32", "plain-32")
FLOAT_TOLERANCE = 1e-5
CALIBRATION_IMAGES = 64

Say = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class DemoNetwork:
    """A trained network to be measured. family: what pictures know its family by. ``tokens_per_image`` rows enter its
    layers for each image.
    """

    name: str
    family: str
    target: str
    model: nn.Module
    accuracy: float
    tokens_per_image: int
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Measurement:
    """A network on one machine: the program, its simulation, and how well it computes what PyTorch computes."""

    network: DemoNetwork
    machine: Machine
    program: Program
    report: Report
    float_error: float
    int8_accuracy: float
    multiplications: int

    def point(self) -> NetworkPoint:
        """The record that fronts are drawn from."""
        network, report = self.network, self.report
        return NetworkPoint(
            name=network.name,
            family=network.family,
            accuracy=network.accuracy,
            multiplications=self.multiplications,
            machine=self.machine.name,
            latency_cycles=report.latency_cycles,
            latency_s=report.latency_s,
            energy_pj=report.energy_pj,
            target=network.target,
            seed=network.seed,
            tiles=report.tiles,
            dram_bytes=report.dram_bytes,
            events=report.accesses,
        )


def measure(
    network: DemoNetwork, machine: Machine, tokens: int, calibration: Tensor, images: Tensor, labels: Tensor
) -> Measurement:
    """Lower, simulate, and compare with PyTorch: every layer in float on test images, the whole network in int8.

    calibration: images from which int8 ranges are taken (training images). tokens: rows that a program run carries.
    """
    model = network.model.eval()
    checkpoint = weights_of(model)
    names = list(checkpoint)
    examples = {name: rows for name, (rows, _) in record_layers(model, names, calibration).items()}
    program = lower(checkpoint, machine, tokens=tokens, calibration=examples)
    report = simulate(program, machine, network.name)
    errors = largest_error(program, record_layers(model, names, images[:CALIBRATION_IMAGES]), "float")
    with on_machine(model, program, "int8"), torch.no_grad():
        correct = (model(images).argmax(dim=1) == labels).float().mean()
    return Measurement(
        network=network,
        machine=machine,
        program=program,
        report=report,
        float_error=max(errors.values()),
        int8_accuracy=float(correct),
        multiplications=sum(multiplications_by_layer(model).values()) * network.tokens_per_image,
    )


def demo_table(measurements: Sequence[Measurement], markdown: bool = False) -> str:
    """One row a network: accuracies, multiplications, and for each machine cycles, share of dense, energy."""
    machines = list(dict.fromkeys(m.machine.name for m in measurements))
    rows: dict[str, dict[str, object]] = {}
    dense = {m.machine.name: m.report for m in measurements if m.network.family == REFERENCE}
    for m in measurements:
        name, report = m.machine.name, m.report
        row = rows.setdefault(m.network.name, {"network": m.network.name, "accuracy": m.network.accuracy})
        row["multiplications"] = m.multiplications
        if name == machines[0]:
            row["int8"] = m.int8_accuracy
        row[f"cycles {name}"] = report.latency_cycles
        row[f"share {name}"] = report.latency_cycles / dense[name].latency_cycles if name in dense else None
        row[f"energy {name}"] = report.energy_pj
    columns = [
        Column("network", "network", align="left"),
        Column("accuracy", "accuracy", percent),
        Column("int8 accuracy", "int8", percent),
        Column("multiplications an image", "multiplications", count),
    ]
    for name in machines:
        columns += [
            Column(f"cycles {name}", f"cycles {name}", count),
            Column("of dense", f"share {name}", percent),
            Column("energy", f"energy {name}", energy_from_pj),
        ]
    return format_table(columns, list(rows.values()), markdown=markdown)


def write_results(measurements: Sequence[Measurement], shown: Measurement, out: Path, title: str) -> None:
    """Tables, points, pictures, checkpoints and programs into ``out``. ``shown`` is the network that pictures look
    into.
    """
    points = [m.point() for m in measurements]
    save_points(points, out / "points.json")
    with replacing(out / "table.md") as file:
        file.write(demo_table(measurements, markdown=True).encode())
    save_figure(draw_front(points, title=title), out / "front.png")
    save_figure(
        draw_layer_bars(shown.report, title=f"{shown.network.name} on {shown.machine.name}"), out / "layers.png"
    )
    save_figure(
        draw_timeline(shown.report, title=f"{shown.network.name} on {shown.machine.name}"), out / "timeline.png"
    )
    save_chrome_trace(shown.report, out / "trace.json.gz")
    maps = {}
    for name, weights in weights_of(shown.network.model).items():
        factors = evaluate(weights)
        if factors.ranks:
            maps[name] = coverage(factors.writes, factors.reads)
    chunks = (shown.machine.cols, shown.machine.rows)
    save_figure(
        draw_block_maps(maps, chunks=chunks, title=f"{shown.network.name}: overlapping blocks"), out / "blocks.png"
    )
    for m in measurements:
        slug = re.sub(r"[^A-Za-z0-9.]+", "-", m.network.name)
        if m.machine.name == measurements[0].machine.name:
            save_checkpoint(m.network.model, out / f"{slug}.safetensors")
        m.program.save(out / f"{slug}.{m.machine.name}.program")


def check_agreement(measurements: Sequence[Measurement]) -> str:
    """One sentence on the agreement with PyTorch. Raises ArithmeticError if a layer's float outputs differ."""
    worst = max(measurements, key=lambda m: m.float_error)
    if not worst.float_error <= FLOAT_TOLERANCE:
        raise ArithmeticError(
            f"{worst.network.name} on {worst.machine.name}: outputs differ from PyTorch by {worst.float_error:.2e} "
            f"of the largest output, more than {FLOAT_TOLERANCE:.0e}"
        )
    layers = sum(len(m.program.layers) for m in measurements)
    drop = max(m.network.accuracy - m.int8_accuracy for m in measurements)
    return (
        f"{layers} layers on {len({m.machine.name for m in measurements})} machines: "
        f"float outputs within {worst.float_error:.1e} "
        f"of PyTorch; int8 accuracy falls by at most {100 * drop:.1f} points"
    )


def images_and_labels(dataset: torch.utils.data.Dataset[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """A whole data set as two tensors."""
    examples = [dataset[index] for index in range(len(dataset))]  # type: ignore[arg-type]
    return torch.stack([image for image, _ in examples]), torch.tensor([int(label) for _, label in examples])
