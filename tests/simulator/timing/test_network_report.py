"""What a simulation tells about a whole network: operators, bounds, groups, and sums that lose nothing."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings

from gblr_hw.cli.main import main
from gblr_hw.cli.shared.report_tables import layer_rows, print_report
from simulator.network.network import OPERATOR_KINDS
from simulator.timing.operator_bounds import bound_of, group_of
from simulator.timing.report import BOUNDS, CAUSES, GROUPS
from simulator.timing.simulate import simulate
from tests.drawn.random_networks import built_network
from tests.drawn.random_programs import generator, seeds
from tests.drawn.strategies import case
from tests.oracles.timelines import network


def causes(**cycles: int) -> dict[str, int]:
    return dict.fromkeys(CAUSES, 0) | cycles


@settings(max_examples=100)
@given(seeds)
def test_nothing_is_lost(seed):
    machine, program = built_network(generator(seed))
    report = simulate(program, machine)
    total = report.latency_cycles
    assert report.network
    assert [layer.name for layer in report.layers] == [operator.name for operator in program.network.operators]
    assert sum(layer.latency_cycles for layer in report.layers) == total
    assert sum(report.cycles_by_bound.values()) == sum(report.cycles_by_group.values()) == total
    assert report.dram_bytes == sum(layer.dram_bytes for layer in report.layers)
    assert sum(layer.energy_pj for layer in report.layers) == pytest.approx(report.energy_pj, rel=1e-9)
    assert sum(layer.vector_cycles for layer in report.layers) == report.units[4].busy_cycles
    assert sum(layer.dram_cycles for layer in report.layers) == sum(unit.busy_cycles for unit in report.units[:3])
    assert report.multiplications == sum(layer.multiplications * layer.tokens for layer in report.layers)
    for layer, operator in zip(report.layers, program.network.operators, strict=True):
        assert sum(layer.cycles_by_cause.values()) == layer.latency_cycles >= 0
        assert (layer.kind, layer.tokens) == (operator.kind, operator.rows)
        assert (layer.bound == "hidden") == (layer.latency_cycles == 0)
        assert (layer.bound in ("vector", "bandwidth", "latency", "hidden")) or operator.kind != "vector"
    assert 0 <= report.roofline_cycles <= total


def test_the_manuals_network():
    program = network()
    report = simulate(program, program.machine)
    fc1, softmax, fc2 = report.layers
    assert (fc1.bound, softmax.bound, fc2.bound) == ("latency", "vector", "bandwidth")
    assert report.cycles_by_group == {
        "linear": 647, "attention matmul": 0, "softmax": 68, "norm": 0, "other vector": 0,
    }  # fmt: skip
    assert report.cycles_by_bound == dict.fromkeys(BOUNDS, 0) | {"latency": 366, "bandwidth": 281, "vector": 68}
    assert (softmax.kind, softmax.steps, softmax.vector_cycles, softmax.dram_cycles) == ("vector", "softmax", 60, 0)
    assert report.multiplications == 2 * 32 * 32 * 40
    assert report.utilisation == 2 * 32 * 32 * 40 / (715 * 1024)
    assert fc1.utilisation == 32 * 32 * 40 / (366 * 1024)
    assert json.loads(report.to_json())["layers"][1]["bound"] == "vector"


def test_products_of_activations_count_for_every_head():
    machine, program = built_network(generator(5))
    layers = {layer.name: layer for layer in simulate(program, machine).layers}
    q, scores = program.network.tensors["q"], program.network.tensors["scores"]
    for name in ("score", "mix"):
        assert layers[name].multiplications == q.groups * q.width * scores.width > 0
        held = program.layers[program.layer_index(name)].tiles.weight_count.sum()
        assert layers[name].tile_bound == held / (machine.rows * machine.cols)


def test_the_vector_units_work_is_a_roof():
    program = network()
    fast = program.machine.with_(dram={"gb_per_s": 1e5})
    assert simulate(program, fast).bound == "vector"
    assert simulate(program, fast).roofline_cycles == 20 + 60 + 20
    assert simulate(program, program.machine).bound == "memory"


@pytest.mark.parametrize(
    ("cycles", "vector_unit", "channel", "bound"),
    [
        (causes(), False, 5, "hidden"),
        (causes(compute=5, tail=5), False, 0, "compute"),
        (causes(compute=5, tail=6), False, 0, "drain"),
        (causes(bank_conflict=9, compute=8), False, 0, "conflicts"),
        (causes(weight_preload=9, compute=8), False, 0, "preload"),
        (causes(wait_weights=5, wait_input=4, compute=8), False, 5, "bandwidth"),
        (causes(wait_weights=5, wait_input=4, compute=8), False, 4, "latency"),
        (causes(wait_array=5, wait_vector=4, compute=8), False, 0, "drain"),
        (causes(wait_vector=4), True, 0, "vector"),
        (causes(wait_vector=4, wait_input=5), True, 3, "bandwidth"),
    ],
)
def test_bounds(cycles, vector_unit, channel, bound):
    assert bound_of(cycles, vector_unit, channel) == bound in BOUNDS


def test_groups():
    found = [group_of(kind, ()) for kind in OPERATOR_KINDS]
    assert found == ["linear", "attention matmul", "attention matmul", "other vector"]
    assert group_of("vector", ("multiply", "softmax")) == "softmax"
    assert group_of("vector", ("add", "rms_norm")) == group_of("vector", ("layer_norm", "multiply")) == "norm"
    assert {*found, "softmax", "norm"} == set(GROUPS)


def test_rows_are_sorted_and_the_rest_is_one_row():
    machine, program = built_network(generator(3), "chain", 200)
    report = simulate(program, machine)
    rows = layer_rows(report, "cycles", None)
    cycles = [row["latency_cycles"] for row in rows]
    assert cycles == sorted(cycles, reverse=True)
    assert rows[-1]["cumulative"] == 1
    assert [row["name"] for row in layer_rows(report, "program", None)] == [layer.name for layer in report.layers]
    assert layer_rows(report, "cycles", 9) == rows
    few = layer_rows(report, "cycles", 2)
    assert few[:2] == rows[:2]
    assert few[2]["name"] == "7 others"
    for key in ("latency_cycles", "dram_bytes", "energy_pj", "tiles", "tile_bound"):
        assert sum(row[key] for row in few) == pytest.approx(sum(row[key] for row in rows))
    assert few[2]["cumulative"] == 1
    assert sum(few[2]["cycles_by_cause"].values()) == few[2]["latency_cycles"]


def test_tables_of_a_network(golden, capsys):
    program = network()
    report = simulate(program, program.machine)
    print_report(report)
    print_report(report, "program", 2)
    golden("network_report.txt", capsys.readouterr().out)


def test_tables_of_plain_layers_in_order_or_by_cycles(capsys):
    machine, _, program = case(2, layers=4)
    report = simulate(program, machine)
    assert not report.network
    print_report(report)
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()[2:6]]
    assert names == [layer.name for layer in report.layers]
    print_report(report, "cycles", 1)
    longest = max(report.layers, key=lambda layer: layer.latency_cycles)
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split()[0] == longest.name
    assert lines[3].startswith("3 others")


def test_the_command_line(tmp_path, monkeypatch, capsys):
    program = network()
    program.save(tmp_path / "net.program")
    files = {
        kind: tmp_path / f"{kind}.{end}" for kind, end in (("roofline", "svg"), ("timeline", "png"), ("trace", "json"))
    }
    options = [part for kind, path in files.items() for part in (f"--{kind}", str(path))]
    for arguments in (options, ["--json"], ["--order", "program", "--top", "1"], ["--top", "0"], ["--order", "size"]):
        monkeypatch.setattr("sys.argv", ["gblr-hw", "simulate", str(tmp_path / "net.program"), *arguments])
        with pytest.raises(SystemExit) as stop:
            main()
        shown = capsys.readouterr()
        if arguments == options:
            assert [line.split()[0] for line in shown.out.splitlines()[2:5]] == ["fc1", "fc2", "softmax"]
            assert all(path.stat().st_size > 0 for path in files.values())
        elif arguments == ["--json"]:
            assert shown.out == simulate(program, program.machine, "net").to_json()
        elif arguments[-1] == "1":
            assert shown.out.splitlines()[3].startswith("2 others")
        else:
            assert stop.value.code == 2
            assert f"Invalid value for '{arguments[0]}'" in shown.err


def test_order_and_top_are_for_programs(monkeypatch, capsys):
    for option in (("--order", "cycles"), ("--top", "3")):
        monkeypatch.setattr("sys.argv", ["gblr-hw", "simulate", "--gemm", "4x4x4", *option])
        with pytest.raises(SystemExit) as stop:
            main()
        assert stop.value.code == 2
        assert f"{option[0]} with one GEMM: found nothing for it to act on" in capsys.readouterr().err
