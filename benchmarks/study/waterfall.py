"""From dense to automatic choice, step by step: which cycles are owed to compiler, machine and training.

``python -m benchmarks.study.waterfall`` measures into docs/data/waterfall.json and draws docs/images/waterfall.png;
`make docs` writes the tables into docs/claims-tables.md. Of networks that the study has not kept the file stays as it
is. A minute.

Random intervals: one 768 x 768 layer (``benchmarks/structures/random_layer.py``), three draws; every step computes the
same matrix. Networks: for each part and training machine with scatter the GBLR network of width shrinkage that `make
study` kept (seed 0), of the budget with the least mean latency within a point of dense, or else the most accurate one.
All steps to that are the same network. The steps of training are other networks, at the same mean accuracy: the least
cycles along the front of the family's means over seeds, straight between neighbours.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from analysis.pictures import style
from benchmarks.shared.measurement import write_json
from benchmarks.structures.random_layer import SIDE, TOKENS, random_blocks
from benchmarks.study.equal_accuracy import cheapest
from benchmarks.study.lowering_steps import ORDERS, stored_form, without_scatter
from benchmarks.study.runs import PARTS
from benchmarks.study.settings import Setting, Study, read_study
from benchmarks.study.structures import NETWORKS, SavedNetwork, loaded, network_file
from benchmarks.study.tables import BLIND, LEARNED
from benchmarks.study.waterfall_picture import Step, draw_waterfall
from benchmarks.study.waterfall_tables import network_waterfalls, random_waterfalls
from gblr_hw.frontend import export_network
from gblr_hw.lowering.emit.emit import emit
from gblr_hw.lowering.lower_layer import lower_layer
from gblr_hw.lowering.whole_network import LowerLinear, lower_network
from gblr_hw.weights.stored import DenseWeights, LayerWeights
from simulator import Machine, simulate
from simulator.base.errors import InputError
from simulator.network.network import Network

MARGIN = 0.01
MACHINES = ("edge-16", "mid-32", "cloud-128")
PICTURED = MACHINES.index("mid-32")
# What of the file stays where the study has kept no networks.
LEFT = ("command", "taken", "networks", "scatter")
SCATTER_FAMILIES = (BLIND, "GBLR, hardware cost", "ranks", LEARNED, "low rank", "rank groups", "block sparse")

# Cycles of weights on a machine, with a way to lower them: the compiler's own, or one of ``lowering_steps``.
Measure = Callable[[Mapping[str, LayerWeights], Machine, LowerLinear], int]


def layer_cycles(layers: Mapping[str, LayerWeights], machine: Machine, lower_linear: LowerLinear) -> int:
    """Cycles of single layers, one after another, inputs and outputs through DRAM."""
    schedules = [lower_linear(name, weights, machine, TOKENS) for name, weights in layers.items()]
    return int(simulate(emit(schedules, machine, TOKENS, {}), machine).latency_cycles)


@dataclass(frozen=True, eq=False)
class NetworkCycles:
    """Cycles of a part's whole network, one image at a time, with a checkpoint's layers in it."""

    network: Network
    dense: Mapping[str, LayerWeights]

    def __call__(self, layers: Mapping[str, LayerWeights], machine: Machine, lower_linear: LowerLinear) -> int:
        learned = {name: one for name, one in layers.items() if not isinstance(one, DenseWeights)}
        unknown = sorted(set(learned) - set(self.dense))
        if unknown:
            raise InputError(
                f"layer '{unknown[0]}'",
                "not in the network",
                f"its linear layers are {', '.join(list(self.dense)[:6])}",
                "The part has changed since the network was kept: run `make study` again.",
            )
        weights = {**self.dense, **learned}
        program = lower_network(self.network, weights, machine, lower_linear=lower_linear)
        return int(simulate(program, machine).latency_cycles)


def network_cycles(part: str) -> NetworkCycles:
    """A part's network. Its numbers are random: timing depends on which layers are structured, not on numbers."""
    plan = PARTS[part]
    torch.manual_seed(0)
    model = plan.build(plan.width, plan.depth).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            # As after training: where all values are alike, as at the start, the program leaves work out.
            parameter.add_(0.01 * torch.randn_like(parameter))
    exported = export_network(model, plan.example)
    return NetworkCycles(exported.network, exported.weights)


def compiler_steps(
    measure: Measure, dense: Mapping[str, LayerWeights], blind: Mapping[str, LayerWeights], machine: Machine
) -> tuple[Step, ...]:
    """From dense to machine-blind structure on the machine without scatter, then to what scatter makes of it."""
    plain = without_scatter(machine)
    grouped = [measure(blind, plain, stored_form(grouping)) for grouping in ORDERS.values()]
    labels = ("ranks sorted by where intervals start", "ranks grouped by search")
    return (
        Step("dense, plain array", "network", measure(dense, plain, lower_layer)),
        Step("machine-blind GBLR, ranks in index order", "network", grouped[0]),
        *(Step(label, "compiler", cycles) for label, cycles in zip(labels, grouped[1:], strict=True)),
        Step("best form of each layer, dense included", "compiler", measure(blind, plain, lower_layer)),
        Step("scatter: ranks packed by chunk, best form", "machine", measure(blind, machine, lower_layer)),
    )


def random_intervals(machines: Sequence[str], seeds: Sequence[int] = (0, 1, 2)) -> list[dict[str, Any]]:
    """Random intervals on each machine, cycles of each step as means over draws."""
    torch.manual_seed(0)
    dense = {"layer": DenseWeights(torch.randn(SIDE, SIDE), None)}
    found = []
    for name in machines:
        draws = [
            compiler_steps(layer_cycles, dense, {"layer": random_blocks(seed)}, Machine.load(name)) for seed in seeds
        ]
        steps = [
            Step(same[0].label, same[0].owed_to, statistics.fmean(step.cycles or 0.0 for step in same))
            for same in zip(*draws, strict=True)
        ]
        found.append({"title": f"random intervals, 768 x 768, {name}", "steps": [asdict(step) for step in steps]})
    return found


def blind_setting(study: Study, part: str, machine: str) -> Setting | None:
    """The setting of width shrinkage that a waterfall starts from: the quickest within a point of dense, or else the
    most accurate.
    """
    dense, settings = study.dense(part), study.of(part, BLIND, machine)
    if dense is None:
        return None
    best = cheapest(settings, dense.accuracy - MARGIN, "latency_cycles", machine)
    return best or max((s for s in settings if s.reached), key=lambda s: s.accuracy, default=None)


def chosen_networks(study: Study, folder: Path) -> Iterator[tuple[Setting, SavedNetwork]]:
    """The machine-blind network of each part and training machine with scatter, where the study has kept it."""
    for part in study.parts:
        for machine in study.training_machines(part):
            setting = blind_setting(study, part, machine) if Machine.load(machine).scatter else None
            if setting is None:
                continue
            network = network_file(folder, part, machine, BLIND, setting.budget, seed=0)
            if network.seed in setting.runs and network.path.exists():
                yield setting, network


def network_steps(setting: Setting, network: SavedNetwork) -> dict[str, Any]:
    """Steps of the compiler and of the machine for one kept network."""
    machine = setting.trained_for
    steps = compiler_steps(network_cycles(setting.part), {}, loaded(network), Machine.load(machine))
    told = setting.runs[network.seed].latency_cycles[machine]
    if steps[-1].cycles != told:
        raise InputError(
            f"network '{network.path}'",
            f"{steps[-1].cycles} cycles on {machine}",
            f"the results say {told:.0f} for it",
            "Remove it and its line in the results, and run `make study`.",
        )
    key = {"part": setting.part, "machine": machine, "budget": setting.budget, "seed": network.seed}
    return {**key, "steps": [asdict(step) for step in steps]}


def scatter_rows(networks: Sequence[SavedNetwork]) -> list[dict[str, Any]]:
    """Cycles of each network with the permutation network and without it, the compiler doing its best on both."""
    measures: dict[str, NetworkCycles] = {}
    rows = []
    for network in networks:
        machine = Machine.load(network.trained_for)
        if network.part not in measures:
            measures[network.part] = network_cycles(network.part)
        measure, layers = measures[network.part], loaded(network)
        on, off = (measure(layers, m, lower_layer) for m in (machine, without_scatter(machine)))
        key = {"part": network.part, "machine": machine.name, "family": network.family, "budget": network.budget}
        rows.append({**key, "on": on, "off": off})
    return rows


def kept_networks(study: Study, folder: Path) -> list[SavedNetwork]:
    """Networks of seed 0, as far as they are kept: the middle budget of each part and training machine with scatter."""
    found = []
    for part in study.parts:
        for machine in study.training_machines(part):
            budgets = study.budgets(part, machine)
            if not budgets or not Machine.load(machine).scatter:
                continue
            middle = budgets[len(budgets) // 2]
            found += [network_file(folder, part, machine, family, middle, seed=0) for family in SCATTER_FAMILIES]
    return [network for network in found if network.path.exists()]


def waterfall_picture(data: Mapping[str, Any], study: Study) -> Figure:
    """Random intervals on one machine and every kept network, a panel each."""
    shown = [random_waterfalls(data)[PICTURED], *network_waterfalls(data, study)]
    return draw_waterfall([(one.title, one.steps) for one in shown])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("docs/data/study.jsonl"))
    parser.add_argument("--networks", type=Path, default=NETWORKS, help="folder of the networks that the study kept")
    parser.add_argument("--out", type=Path, default=Path("docs/data/waterfall.json"))
    parser.add_argument("--picture", type=Path, default=Path("docs/images/waterfall.png"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    try:
        study = read_study(options.results)
        measured = {"random": random_intervals(MACHINES)}
        networks = [network_steps(*one) for one in chosen_networks(study, options.networks)]
        kept = scatter_rows(kept_networks(study, options.networks))
        before = json.loads(options.out.read_text(encoding="utf-8")) if options.out.exists() else {}
        left = {} if networks else {name: value for name, value in before.items() if name in LEFT}
        data = {"networks": networks, "scatter": kept, **left, **measured}
        style.save_figure(waterfall_picture(data, study), options.picture)
        write_json(options.out, **data)
    except InputError as error:
        raise SystemExit(str(error)) from None
    if not kept:
        print(
            f"no networks in {options.networks}: only random intervals were measured, and what is there stays as it is"
        )


if __name__ == "__main__":
    main()
