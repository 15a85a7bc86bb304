"""Layers as a network of operators that have nothing to do with each other: the same numbers, and a table of both."""

from __future__ import annotations

import numpy as np
import torch

from benchmarks.networks.plain_as_network import as_network
from benchmarks.networks.tables import plain_as_network_table
from benchmarks.speed.vit_base import random_blocks, random_dense
from gblr_hw.lowering.pipeline import lower
from gblr_hw.lowering.whole_network import lower_network
from simulator.machine.machine import Machine
from simulator.numbers.execute import execute
from simulator.numbers.execute_network import execute_network


def test_both_kinds_of_program_compute_the_same() -> None:
    generator = torch.Generator().manual_seed(3)
    weights = {"a": random_blocks(50, 70, 0.5, generator), "b": random_dense(33, 19, generator)}
    machine, tokens = Machine.load("edge-16"), 11
    rng = np.random.default_rng(1)
    x = {name: rng.normal(size=(tokens, layer.in_features)) for name, layer in weights.items()}
    plain = execute(lower(weights, machine, tokens=tokens), x)
    network = lower_network(as_network(weights, tokens), weights, machine)
    ports = {f"{name}.x": values[None, :, None] for name, values in x.items()}
    found = execute_network(network, ports)
    for name, values in plain.items():
        np.testing.assert_allclose(found[f"{name}.y"][0, :, 0], values, rtol=0, atol=1e-9)


def test_the_table_divides_network_by_plain() -> None:
    def told(cycles: int, moved: int, seconds: float) -> dict[str, float]:
        return {"latency_cycles": cycles, "dram_bytes": moved, "lowering_cpu_s": seconds}

    row = {"checkpoint": "c", "plain": told(200, 80, 1.0), "network": told(150, 100, 2.5)}
    table = plain_as_network_table([row | {"machine": name} for name in ("edge-16", "mid-32")])
    assert table.splitlines()[-1].replace(" ", "") == "|c|0.75,1.25|0.75,1.25|1.00,2.50|"
