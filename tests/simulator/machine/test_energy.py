"""Energy: every event of small programs counted and priced by hand, the shipped table, and what tables refuse."""

from __future__ import annotations

import hashlib
import math
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from gblr_hw.lowering.pipeline import lower
from gblr_hw.weights.stored import DenseWeights, LatticeWeights
from simulator.base.errors import InputError
from simulator.machine.energy import energy_model
from simulator.machine.energy_table import EnergyTable
from simulator.machine.events import EVENTS
from simulator.machine.machine import Machine, preset_names
from simulator.program.program import Program
from simulator.timing.accesses import count_events
from simulator.timing.report import Report
from simulator.timing.simulate import simulate
from tests.drawn.strategies import ENERGY_TABLE, as_stored

TOKENS = 3


def machine(scatter: bool = True) -> Machine:
    """P = 4, Q = 2. By the made-up table, w bits cost w pJ to read and 2 w to write, and a macro leaks 7 uW."""
    return Machine.from_dict(
        {
            "schema": 1,
            "name": "by-hand",
            "array": {"rows": 4, "cols": 2, "clock_ghz": 0.5, "scatter": scatter},
            "datatypes": {"weight_bits": 8, "activation_bits": 8, "accumulator_bits": 32},
            "scratchpad": {"kib": 8, "banks": 1, "word_bits": 16},
            "accumulator": {"kib": 1, "banks": 2, "word_bits": 64},
            "rank_memory": {"kib": 1, "banks": 4, "word_bits": 64, "network_cycles": 2, "requantise_cycles": 1},
            "weight_buffer": {"kib": 1, "banks": 1, "word_bits": 48},
            "dma": {"engines": 3},
            "dram": {"gb_per_s": 1.0, "latency_ns": 10.0, "burst_bytes": 24, "kind": "test"},
            "vector": {"lanes": 2, "latency_cycles": 4, "parameter_kib": 1},
            "energy": {"table": str(ENERGY_TABLE)},
        },
        "test",
    )


def one_tile() -> dict[str, DenseWeights]:
    return {"layer": DenseWeights(torch.ones(2, 4))}


def one_rank(inputs: int = 8) -> dict[str, LatticeWeights]:
    """A single rank over all inputs (two chunks of 4) and both outputs (one chunk of 2)."""
    return {
        "layer": LatticeWeights(
            u=torch.ones(2, 1),
            v=torch.ones(1, inputs),
            reads=torch.ones(1, inputs // 4, dtype=torch.bool),
            writes=torch.ones(1, 1, dtype=torch.bool),
            tiles=torch.zeros(1, inputs // 4, dtype=torch.bool),
            dense=torch.zeros(2, inputs),
            bias=None,
            chunk_in=4,
            chunk_out=2,
        )
    }


def assert_components(report: Report, expected: dict[str, float]) -> None:
    nonzero = {name: value for name, value in report.energy_by_component.items() if value}
    assert nonzero == pytest.approx(expected)
    assert report.energy_pj == pytest.approx(sum(expected.values()))


def test_energy_of_one_dense_tile():
    report = simulate(lower(one_tile(), machine(), tokens=TOKENS), machine())
    bits = TOKENS * 8 * (8 + 32) + 8 * 8  # an activation and a sum pass each cell; 8 weights enter
    leak = (1 + 2 + 4 + 1) * 7e-3 / 0.5  # macros x uW x ns
    assert_components(
        report,
        {
            "multiply_add": TOKENS * 8 * (2.0 + 3.0),
            "registers": bits * 0.5,
            "wires": bits * 10.0 * 0.1 * 0.5,
            # Inputs are rows of 4 x 8 bits, two words of 16; outputs 2 x 8 bits, one word.
            "scratchpad": TOKENS * (2 + 1) * 32.0 + TOKENS * (2 + 1) * 16.0,  # writes, then reads
            "accumulator": TOKENS * 128.0 + TOKENS * 64.0,  # the tile writes, the drain reads
            "weight_buffer": 2 * 96.0 + 2 * 48.0,  # a tile of 64 bits is two words of 48
            "vector": TOKENS * 2 * (5.0 + 3.0),
            # Parameters 2 x 8 bytes, inputs 12, tile 8 + 8, outputs 6: each one burst of 24.
            "dram": 4 * 24 * 8 * 1.5,
            "sram_leakage": report.latency_cycles * leak,
        },
    )
    assert (report.dram_read_bytes, report.dram_write_bytes, report.dram_bytes) == (72, 24, 96)


@pytest.mark.parametrize("scatter", [True, False])
def test_energy_of_two_reduce_tiles_and_an_expand_tile(scatter):
    report = simulate(as_stored(one_rank(), machine(scatter), TOKENS), machine(scatter))
    bits = 3 * (TOKENS * 8 * (8 + 32) + 8 * 8)
    sums = math.ceil(TOKENS * 32 / 64)  # words of one rank's sums: 3 x 32 bits in words of 64
    expected = {
        "multiply_add": TOKENS * (8 + 2) * 5.0,
        "registers": bits * 0.5,
        "wires": bits * 0.5,
        "scratchpad": TOKENS * (2 * 2 + 1) * 32.0 + TOKENS * (2 * 2 + 1) * 16.0,
        "accumulator": TOKENS * 128.0 + TOKENS * 64.0,
        # Two reduce tiles write, the second one reads first, the expand tile reads.
        "rank_memory": 2 * sums * 128.0 + 2 * sums * 64.0,
        "weight_buffer": 3 * 96.0 + 3 * 48.0,  # 32, 32 and 16 bits of packed weights: a word each
        "vector": TOKENS * 2 * 8.0 + TOKENS * 5.0,  # drained sums, and one requantised rank
        # Parameters 16 and a row of 4 multipliers (4 banks; 2 without scatter); inputs 12 twice; tiles 8 + 4 + 4 twice
        # and 8 + 4 + 2; outputs 6.
        "dram": ((2 if scatter else 1) + 6) * 24 * 8 * 1.5,
        "sram_leakage": report.latency_cycles * 8 * 7e-3 / 0.5,
    }
    if scatter:
        # Two scattered sums of four products and a gathered code, across max(P, Q) = 4 cells.
        expected["permutation_network"] = TOKENS * (2 * 18 + 8) * 10.0 * 0.1 * 0.5 * 4
    assert_components(report, expected)


def test_low_and_high_bound_every_component():
    program = as_stored(one_rank(), machine(), TOKENS)
    counts = {name: int(values.sum()) for name, values in count_events(program, machine()).items()}
    for value, low, high in energy_model(machine()).by_component(counts, 1000).values():
        assert 0 <= low <= value <= high
    report = simulate(program, machine())
    assert report.energy_range_pj[0] < report.energy_pj < report.energy_range_pj[1]


def test_report_carries_the_tables_name_and_hash():
    report = simulate(lower(one_tile(), machine(), tokens=TOKENS), machine())
    assert report.energy_table == "any-size"
    assert report.energy_table_sha256 == hashlib.sha256(ENERGY_TABLE.read_bytes()).hexdigest()


@pytest.mark.parametrize("preset", preset_names())
def test_every_event_has_a_price(preset):
    model = energy_model(Machine.load(preset))
    assert set(model.events) == set(EVENTS)
    with pytest.raises(KeyError, match="made_up_event"):
        model.by_component({"made_up_event": 1}, 0)


def test_unfilled_cells_cost_no_multiplication():
    """A 2 x 3 layer fills 6 of the 8 cells: the other two are padding, whose registers still move."""
    full = simulate(lower(one_tile(), machine(), tokens=TOKENS), machine())
    part = simulate(lower({"layer": DenseWeights(torch.ones(2, 3))}, machine(), tokens=TOKENS), machine())
    assert part.accesses["mac_active"] == TOKENS * 6
    assert part.accesses["mac_padding"] == TOKENS * 2
    assert part.energy_by_component["multiply_add"] == pytest.approx(0.75 * full.energy_by_component["multiply_add"])
    assert part.energy_by_component["registers"] == full.energy_by_component["registers"]


def test_reference_case():
    """197 x 768 x 768 on 32 x 32 at 45 nm, pJ per multiply-accumulate, against an independent estimate: every component's
    is inside the interval told, and most are near the value.
    """
    mid = Machine.load("mid-32")
    report = simulate(lower(nn.Linear(768, 768), mid, tokens=197), mid)
    macs = 197 * 768 * 768
    estimate = {"multiply_add": 0.30, "registers": 0.37, "wires": 0.19, "accumulator": 0.37, "dram": 0.49}
    per_mac = {name: value / macs for name, value in report.energy_by_component.items()}
    one = mid.with_(scratchpad={"banks": 1})  # the estimate's scratchpad is one macro of 512 KiB
    whole = simulate(lower(nn.Linear(768, 768), one, tokens=197), one)
    for found, name, value in (*((report, *pair) for pair in estimate.items()), (whole, "scratchpad", 0.17)):
        low, high = (end / macs for end in found.energy_ranges_pj[name])
        assert low - 1e-6 <= value <= high + 1e-6, name
    assert whole.energy_by_component["scratchpad"] / macs == pytest.approx(0.17, rel=0.1, abs=0)
    assert per_mac["multiply_add"] == pytest.approx(0.30, abs=1e-3)
    assert per_mac["registers"] == pytest.approx(0.37, rel=0.05, abs=0)
    assert per_mac["wires"] == pytest.approx(0.19, rel=0.15, abs=0)
    assert per_mac["accumulator"] == pytest.approx(0.37, rel=0.25, abs=0)
    assert per_mac["dram"] == pytest.approx(0.49, rel=0.1, abs=0)
    assert 0.05 < per_mac["scratchpad"] < 0.17  # four banks of 128 KiB here, one of 512 KiB there
    assert report.energy_pj / macs == pytest.approx(1.89, rel=0.1, abs=0)
    # What the estimate leaves out stands beside it.
    assert 0.05 < sum(report.standing_pj.values()) / report.energy_pj < 0.5


def test_grid_points_are_exact_and_the_middle_is_geometric():
    table = EnergyTable.load("cmos-45")
    grid = table.data.sram
    for row, size in enumerate(grid.size_kib):
        for column, bits in enumerate(grid.word_bits):
            found = table.sram("scratchpad", size, int(bits))
            assert found.read_pj == pytest.approx(grid.read_pj[row][column])
            assert found.write_pj == pytest.approx(grid.write_pj[row][column])
            assert found.leak_uw == pytest.approx(grid.leak_uw[row][column])
    middle = table.sram("scratchpad", math.sqrt(8 * 16), 64)
    assert middle.read_pj == pytest.approx(math.sqrt(grid.read_pj[1][0] * grid.read_pj[2][0]))
    between = table.sram("scratchpad", 8, 96)
    share = math.log(96 / 64) / math.log(2)
    assert between.write_pj == pytest.approx(grid.write_pj[1][0] ** (1 - share) * grid.write_pj[1][1] ** share)


@pytest.mark.parametrize(
    ("section", "change", "text"),
    [
        (
            "scratchpad",
            {"kib": 65536},
            "'scratchpad': kib / banks: found 16384; .*'cmos-45' covers 4 to 1024 and is not",
        ),
        ("accumulator", {"banks": 64}, "'accumulator': kib / banks: found 2; energy table 'cmos-45' covers 4 to 1024"),
        ("weight_buffer", {"word_bits": 32}, "'weight_buffer': word_bits: found 32; .* covers 64 to 512"),
        ("rank_memory", {"word_bits": 1024}, "^machine memory 'rank_memory': word_bits: found 1024; "),
        (
            "dram",
            {"kind": "ddr9"},
            r"field 'dram\.kind', .*: found 'ddr9'; the table knows ddr4, lpddr4, lpddr5, hbm2\. ",
        ),
        (
            "energy",
            {"table": "cmos-3"},
            r"^energy table 'cmos-3': found no such table or file; a table is one of cmos-22, cmos-45, cmos-7",
        ),
    ],
)
def test_outside_the_table_is_refused(section, change, text):
    changed = Machine.load("mid-32").with_(**{section: change})
    with pytest.raises(InputError, match=text):
        simulate(lower(nn.Linear(8, 8), changed, tokens=2), changed)


def edited(folder: Path, old: str, new: str) -> Path:
    text = ENERGY_TABLE.read_text(encoding="utf-8")
    assert old in text
    path = folder / "table.toml"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ("pj = 2.0", "pj = 5.0", r"op\.mul_i8: low <= value <= high does not hold \(1\.0, 5\.0, 4\.0\)"),
        ("pj = 2.0", "pj = -2.0", r"field 'op\.mul_i8\.pj': found -2\.0; Input should be greater than or equal to 0"),
        ("pj = 2.0", "pj = inf", r"field 'op\.mul_i8\.pj': found inf; Input should be a finite number"),
        ("pj = 2.0", 'pj = "two"', r"field 'op\.mul_i8\.pj': found 'two'; Input should be a valid number"),
        ("pj = 2.0\n", "", r"field 'op\.mul_i8\.pj': found nothing; the key 'op\.mul_i8\.pj' is required"),
        ("pj = 2.0", 'pj = "2.0"', r"field 'op\.mul_i8\.pj': found '2\.0'; Input should be a valid number"),
        ("pj = 2.0", "pj = 2.0\npj_too = 3.0", r"'op\.mul_i8\.pj_too': found unknown key with value 3\.0; no key"),
        ('source = "made_up"', 'source = "nowhere"', r"op\.mul_i8: source 'nowhere' is not in \[sources\]"),
        ("[1, 65536]", "[65536, 1]", r"size_kib and word_bits must rise"),
        ("[[7.0, 7.0], [7.0, 7.0]]", "[[7.0, 7.0]]", r"leak_uw must have 2 rows of 2 values"),
        ("[[1.0, 65536.0], [1.0", "[[0.0, 65536.0], [1.0", r"'sram\.read_pj\.0\.0': found 0\.0; .* greater than 0"),
        ("[0.0001, 1e9]", "[0, 1e9]", r"field 'sram\.size_kib\.0': found 0; Input should be greater than 0"),
        ("schema = 1", "schema = 2", r"field 'schema': found 2; Input should be 1"),
        ("schema = 1", "schema = = 1", r"found text that is not TOML"),
    ],
)
def test_bad_tables_are_refused(tmp_path, old, new, text):
    path = edited(tmp_path, old, new)
    with pytest.raises(InputError, match=text) as caught:
        EnergyTable.load(path)
    assert str(path) in str(caught.value)


def test_a_table_that_is_not_text_is_refused(tmp_path):
    path = tmp_path / "table.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="found a byte that is not UTF-8 .*; a table is UTF-8 text in TOML"):
        EnergyTable.load(path)


def test_shipped_tables_are_whole():
    folder = resources.files("simulator") / "energy_tables"
    names = [entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml")]
    assert names
    for name in names:
        table = EnergyTable.load(name)
        assert table.name == name
        assert table.data.excludes


def test_counts_are_whole_and_belong_to_layers():
    program: Program = as_stored({**one_rank(), "second": DenseWeights(torch.ones(2, 4))}, machine(), TOKENS)
    counts = count_events(program, machine())
    assert set(counts) == set(EVENTS)
    for values in counts.values():
        assert values.shape == (2,)
        assert values.dtype == np.int64
        assert (values >= 0).all()
    assert counts["mac_active"].tolist() == [TOKENS * 10, TOKENS * 8]
