"""Small made-up reports for the tests of tables, pictures and trace files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from simulator.timing.report import CAUSES, LayerReport, Report, Trace

UNITS = ("dma_load", "array", "vector", "dma_store")
OPS = ("load_weights", "load_input", "dense", "reduce", "expand", "bias", "requantise", "store")


def fake_report(names: Sequence[str], tiles: int = 6, seed: int = 0, scale: int = 1, clock_ghz: float = 1.0) -> Report:
    """A report of layers ``names``, ``tiles`` tiles each, whose trace obeys the rules of a real one."""
    rng = np.random.default_rng(seed)
    rows, layers, now = [], [], 0
    for index, name in enumerate(names):
        began = now
        for _ in range(tiles):
            cycles = int(rng.integers(20, 400)) * scale
            rows.append((int(rng.integers(0, 2)), 0, index, now, now + cycles // 2))
            rows.append((int(rng.integers(2, 5)), 1, index, now, now + cycles - int(rng.integers(0, 10))))
            rows.append((int(rng.integers(5, 7)), 2, index, now + cycles // 4, now + cycles // 3))
            rows.append((7, 3, index, now + cycles // 2, now + cycles // 2 + cycles // 5))
            now += cycles
        shares = np.floor(rng.dirichlet((8, 0.5, 1, 2, 1, 0.7, 0.4, 0.6)) * (now - began)).astype(int)
        shares[0] += now - began - shares.sum()
        causes = dict(zip(CAUSES, shares.tolist(), strict=True))
        layers.append(
            LayerReport(
                name,
                "ranks",
                64,
                64,
                8,
                17,
                now - began,
                causes,
                9,
                {"dense": 1, "reduce": 4, "expand": 4},
                0,
                7.5,
                1000,
                2000,
                100,
                5.0,
                float(rng.random()),
                "linear",
                "linear",
                "",
                "compute",
                10,
                20,
            )
        )
    op, unit, layer, start, end = np.array(rows, np.int64).reshape(-1, 5).T
    trace = Trace(op, unit, layer, start, end, end + 3, OPS, UNITS)
    return Report(
        program="digits-vit",
        machine="mid-32",
        rows=32,
        cols=32,
        clock_ghz=clock_ghz,
        latency_cycles=now,
        latency_s=now * 1e-9,
        energy_pj=1e6,
        energy_by_component={"array": 1e6},
        energy_range_pj=(5e5, 2e6),
        energy_ranges_pj={"array": (5e5, 2e6)},
        standing_pj={"clock_and_control": 2e5},
        standing_ranges_pj={"clock_and_control": (1e5, 4e5)},
        energy_table="45nm",
        energy_table_sha256="0" * 64,
        dram_bytes=5,
        dram_read_bytes=3,
        dram_write_bytes=2,
        accesses={"scratchpad": 1},
        tiles=9 * len(layers),
        multiplications=1000,
        macs=2000,
        utilisation=0.4,
        roofline_cycles=now // 2,
        roofline_fraction=0.5,
        bound="compute",
        network=False,
        dram_bytes_per_cycle=25.6,
        cycles_by_bound={"compute": now},
        cycles_by_group={"linear": now},
        layers=tuple(layers),
        units=(),
        trace=trace,
    )


# Operators of a block: group, multiplications of a row.
_BLOCK = {
    "norm1": ("norm", 0),
    "attn.qkv": ("linear", 768 * 2304),
    "attn.scores": ("attention matmul", 768 * 197),
    "attn.softmax": ("softmax", 0),
    "attn.mix": ("attention matmul", 768 * 197),
    "attn.proj": ("linear", 768 * 768),
    "mlp.fc1": ("linear", 768 * 3072),
    "mlp.act": ("other vector", 0),
    "mlp.fc2": ("linear", 768 * 3072),
}


def fake_network_report(blocks: int, spread: float = 0.05, seed: int = 0) -> Report:
    """A report of a transformer of that many blocks on 197 rows; ``spread``: of cycles and bytes, natural logarithm."""
    names = [f"blocks.{i}.{name}" for i in range(blocks) for name in _BLOCK]
    report = fake_report(names, seed=seed)
    rng = np.random.default_rng(seed)
    layers = []
    for layer in report.layers:
        group, multiplications = _BLOCK[layer.name.split(".", 2)[2]]
        cycles = int((multiplications * 197 / 800 + 20_000) * np.exp(spread * rng.normal()))
        moved = int((multiplications + 197 * 3072) * np.exp(spread * rng.normal()))
        causes = dict.fromkeys(CAUSES, 0) | {"compute": cycles}
        changed = {"latency_cycles": cycles, "cycles_by_cause": causes, "dram_bytes": moved, "tokens": 197}
        layers.append(replace(layer, group=group, multiplications=multiplications, **changed))
    total = sum(layer.latency_cycles for layer in layers)
    longer = total // int(report.trace.done.max())
    times = {name: getattr(report.trace, name) * longer for name in ("start", "end", "done")}
    return replace(
        report,
        program="transformer",
        network=True,
        layers=tuple(layers),
        trace=replace(report.trace, unit_names=("weight_dma", "array", "vector", "output_dma"), **times),
        latency_cycles=total,
        dram_bytes=sum(layer.dram_bytes for layer in layers),
    )
