"""What becomes of rankings, rows and simulation time where the DRAM is a standard's banks and not one bandwidth.

python -m benchmarks.dram.standards [--out docs/data/dram.json]

Families of a layer and ViT-Base's 50 linears, on the machine's own DRAM and on each standard's with as many channels as
come nearest to its bandwidth; the order of weight records in memory; patterns of bursts; the simulator's own time.
Weights are random: cycles do not depend on them. A few minutes.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before numpy and torch are loaded

from collections.abc import Iterator
from statistics import median
from typing import Any

import numpy as np
import torch

from benchmarks.dram.tables import families_table, layout_table, networks_table, patterns_table, speed_table
from benchmarks.shared.measurement import cpu_seconds, out_option, write_json
from benchmarks.speed.vit_base import FORMS, TOKENS, random_blocks, vit_base
from benchmarks.structures.formats import Case, formats
from gblr_hw import lower
from simulator import Machine, Program, simulate
from simulator.dram.banks import new_controller
from simulator.dram.mapping import MAPPINGS, SCHEDULERS
from simulator.dram.standards import STANDARDS
from simulator.dram.traces import BurstTrace, run_trace
from simulator.machine.dram_choice import with_dram_model
from simulator.machine.machine import BANDWIDTH
from simulator.program.operations import Place, writes
from simulator.timing.banked_transfers import banked_transfers
from simulator.timing.durations import resolve_timing
from simulator.timing.engine import run_engine

MODELS = (BANDWIDTH, "ddr4-3200", "lpddr4-3200", "lpddr5-6400", "hbm2-1600")
CASES = (("mid-32", 197), ("mid-32", 1), ("edge-16", 197), ("edge-16", 1))
LAYER = (768, 768, 3, 128)  # inputs, outputs, blocks and rank of the published formats
SHARE = 0.3  # of the multiplications, of random intervals
PATTERN_BURSTS = 50_000
ROUNDS = 21

Row = dict[str, Any]


def families() -> Iterator[Row]:
    """Cycles of each family of one layer on each DRAM."""
    inputs, outputs, blocks, rank = LAYER
    for name, tokens in CASES:
        machine = Machine.load(name)
        torch.manual_seed(0)
        makers = dict(formats(Case("layer", inputs, outputs, tokens, blocks, rank), machine))
        makers["GBLR"] = lambda: random_blocks(outputs, inputs, SHARE, torch.Generator().manual_seed(0))
        programs = {family: lower({"layer": make()}, machine, tokens=tokens) for family, make in makers.items()}
        for on in memories(machine):
            for family, program in programs.items():
                report = simulate(program, on)
                yield {
                    "machine": name,
                    "tokens": tokens,
                    "model": on.dram.model,
                    "channels": on.dram.channels,
                    "gb_per_s": on.dram.gb_per_s,
                    "family": family,
                    "cycles": report.latency_cycles,
                }


def memories(machine: Machine) -> list[Machine]:
    """The machine with its own DRAM, and with each standard's behind one bandwidth of as many bytes."""
    found = [machine]
    for model in MODELS[1:]:
        banks = with_dram_model(machine, model)
        plain = machine.with_(dram={"gb_per_s": banks.dram.gb_per_s})
        found += [one for one in (plain, banks) if one not in found]
    return found


def networks(programs: dict[tuple[str, str], Program]) -> Iterator[Row]:
    """ViT-Base, dense and GBLR, on each DRAM."""
    for (form, name), program in programs.items():
        for model in MODELS if name == "mid-32" else (BANDWIDTH, "hbm2-2400"):
            machine = with_dram_model(program.machine, model)
            report = simulate(program, machine)
            row: Row = {"form": form, "machine": name, "model": model, "cycles": report.latency_cycles}
            row |= {"channels": machine.dram.channels, "gb_per_s": machine.dram.gb_per_s}
            if report.dram is not None:
                row |= {
                    key: getattr(report.dram, key) for key in ("bursts", "hits", "misses", "conflicts", "refreshes")
                }
                row |= {"efficiency": report.dram.efficiency, "utilisation": report.dram.utilisation}
            yield row


def layouts(programs: dict[tuple[str, str], Program]) -> Iterator[Row]:
    """Weight records in the order in which they are loaded, against any order within each layer."""
    for form, tokens in (("dense", 1), ("gblr", 1)):
        machine = with_dram_model(Machine.load("mid-32"), "lpddr5-6400")
        program = lower(vit_base(form), machine, tokens=tokens)
        ins = program.instructions
        loads = np.flatnonzero(writes(ins.op, Place.WEIGHT_BUFFER))
        timing = resolve_timing(program, machine)
        for order in ("as loaded", "shuffled"):
            banked = banked_transfers(program, machine)
            assert banked is not None
            if order == "shuffled":
                banked = banked._replace(first=_shuffled(banked.first, ins.layer, loads, banked.bursts))
            done = int(run_engine(timing, banked).done.max())
            behind = banked.first[loads][1:] == (banked.first + banked.bursts)[loads][:-1]
            counted = banked.memory.counted()
            bursts = counted["reads"] + counted["writes"]
            yield {
                "form": form,
                "tokens": tokens,
                "order": order,
                "behind": float(behind.mean()),
                "hits": counted["hits"] / bursts,
                "conflicts": counted["conflicts"] / bursts,
                "cycles": done,
            }


def _shuffled(first: np.ndarray, layer: np.ndarray, loads: np.ndarray, bursts: np.ndarray) -> np.ndarray:
    """The records of each layer in a random order, each still in a place of its own."""
    rng, result = np.random.default_rng(0), first.copy()
    for index in np.unique(layer[loads]):
        mine = loads[layer[loads] == index]
        places, which = np.unique(first[mine], return_inverse=True)
        sizes = np.zeros(len(places), dtype=np.int64)
        sizes[which] = bursts[mine]
        order = rng.permutation(len(places))
        begins = np.empty(len(places), dtype=np.int64)
        begins[order] = places.min() + np.cumsum(sizes[order]) - sizes[order]
        result[mine] = begins[which]
    return result


def patterns() -> Iterator[Row]:
    """Efficiency of one channel, read without a pause."""
    for name, standard in STANDARDS.items():
        rng, stripe = np.random.default_rng(0), standard.bank_groups * standard.row_bursts
        kinds = {
            "streaming": np.arange(PATTERN_BURSTS),
            "a row each": np.arange(PATTERN_BURSTS) * stripe,
            "a row each of one bank": np.arange(PATTERN_BURSTS) * stripe * standard.banks,
            "random": rng.integers(0, 1 << 24, PATTERN_BURSTS),
        }
        for mapping in list(MAPPINGS)[:1] + list(MAPPINGS)[2:3]:
            for scheduler in SCHEDULERS:
                for kind, numbers in kinds.items():
                    memory = new_controller(standard, 1, mapping, scheduler, 32)
                    report = run_trace(BurstTrace.of(numbers), memory, standard.clocks()["tBL"])
                    yield {
                        "standard": name,
                        "mapping": mapping,
                        "scheduler": scheduler,
                        "pattern": kind,
                        "efficiency": report.efficiency,
                    }


def speed(programs: dict[tuple[str, str], Program]) -> Iterator[Row]:
    """CPU time of ``simulate`` with each DRAM over that with one bandwidth, side by side."""
    for (form, name), program in programs.items():
        for model in MODELS[1:] if name == "mid-32" else ("hbm2-2400",):
            machine, plain = with_dram_model(program.machine, model), program.machine
            samples = [
                (
                    cpu_seconds(lambda p=program, m=plain: simulate(p, m)),
                    cpu_seconds(lambda p=program, m=machine: simulate(p, m)),
                )
                for _ in range(ROUNDS + 1)
            ][1:]
            report = simulate(program, machine)
            assert report.dram is not None
            yield {
                "form": form,
                "machine": name,
                "model": model,
                "bursts": report.dram.bursts,
                "bandwidth_s": median(one for one, _ in samples),
                "banks_s": median(other for _, other in samples),
                "ratio": median(other / one for one, other in samples),
            }


def main() -> None:
    options = out_option(__doc__)
    torch.set_num_threads(1)
    programs = {
        (form, name): lower(vit_base(form), Machine.load(name), tokens=TOKENS)
        for form in FORMS
        for name in ("mid-32", "cloud-128")
    }
    data = {
        "families": list(families()),
        "networks": list(networks(programs)),
        "layouts": list(layouts(programs)),
        "patterns": list(patterns()),
        "speed": list(speed(programs)),
    }
    for table, rows in (
        (families_table, data["families"]),
        (networks_table, data["networks"]),
        (layout_table, data["layouts"]),
        (patterns_table, data["patterns"]),
        (speed_table, data["speed"]),
    ):
        print(table(rows))
    write_json(options.out, **data)


if __name__ == "__main__":
    main()
