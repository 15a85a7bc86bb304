"""Machine files: presets, derived sizes, round trip, and every kind of bad value told in one paragraph."""

from __future__ import annotations

import re

import pytest
from hypothesis import given

from simulator.base.errors import InputError
from simulator.machine.machine import Machine, preset_names
from tests.drawn.strategies import sampled, small_machine

MID = Machine.load("mid-32").to_toml()


def test_presets_are_the_four_shipped():
    assert preset_names() == ("cloud-128", "edge-16", "mid-32", "plain-32")
    for name in preset_names():
        machine = Machine.load(name)
        assert machine.name == name
        assert machine.description
    assert (Machine.load("mid-32").rows, Machine.load("mid-32").cols) == (32, 32)


def test_plain_32_is_mid_32_without_scatter():
    mid, plain = Machine.load("mid-32").to_dict(), Machine.load("plain-32").to_dict()
    changed = [
        f"{key}.{inner}" if isinstance(value, dict) else key
        for key, value in mid.items()
        for inner in (value if isinstance(value, dict) else [key])
        if (value[inner] != plain[key][inner] if isinstance(value, dict) else value != plain[key])
    ]
    assert sorted(changed) == ["array.scatter", "description", "name", "rank_memory.network_cycles"]


def test_derived_sizes_of_mid_32():
    machine = Machine.load("mid-32")
    assert machine.weight_slots == 32 * 1024 // (32 * 32) == 32
    assert machine.accumulator_rows == 128 * 1024 // (32 * 4) == 1024
    assert machine.rank_rows_per_bank == 512 * 1024 // (64 * 4) == 2048
    assert machine.group_size == 32
    assert machine.dram_latency_cycles == 100
    assert machine.dram_bytes_per_kilocycle == 25_600


def test_derived_sizes_off_the_beaten_track():
    """P != Q, widths below a byte, a clock that does not divide: nothing is a constant of the presets."""
    machine = Machine.load("mid-32").with_(
        array={"rows": 7, "cols": 12, "clock_ghz": 1.3},
        datatypes={"weight_bits": 5, "accumulator_bits": 24},
        weight_buffer={"kib": 1},
        accumulator={"kib": 1},
        rank_memory={"kib": 2, "banks": 13},
        dram={"gb_per_s": 3.0, "latency_ns": 10.5},
    )
    assert machine.weight_slots == 1024 // 53  # 7 x 12 x 5 bits = 52.5 bytes
    assert machine.accumulator_rows == 8192 // (12 * 24)
    assert machine.rank_rows_per_bank == 2 * 8192 // (13 * 24)
    assert machine.group_size == 7
    assert machine.dram_latency_cycles == 14  # 13.65
    assert machine.dram_bytes_per_kilocycle == 2308  # 2307.69


@pytest.mark.parametrize(
    ("latency", "clock", "cycles"), [(0.0, 1.0, 0), (100.0, 0.5, 50), (0.1, 1.0, 1), (100.0, 1.1, 110)]
)
def test_latency_is_rounded_up_to_cycles(latency, clock, cycles):
    assert (
        Machine.load("mid-32").with_(array={"clock_ghz": clock}, dram={"latency_ns": latency}).dram_latency_cycles
        == cycles
    )


@given(sampled(small_machine))
def test_toml_and_dict_round_trip(machine):
    path_text = machine.to_toml()
    assert Machine.from_dict(machine.to_dict(), "test") == machine
    import tomllib

    assert Machine.from_dict(tomllib.loads(path_text), "test") == machine


# ---- bad files
# --------------------------------------------------------------------------------------------------------------


def refused(tmp_path, text: str, message: str) -> None:
    path = tmp_path / "m.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=message) as caught:
        Machine.load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "pydantic" not in str(caught.value)


@pytest.mark.parametrize(
    ("find", "replacement", "message"),
    [
        ("rows = 32", "rows = 32\nrow = 3", r"field 'array.row': found unknown key with value 3; no key 'array.row' exists\. Compare with"),
        (r"\[dma\]", "[npu]\ncores = 2\n[dma]", "field 'npu': found unknown key"),
        ("rows = 32", "rows = 0", "field 'array.rows': found 0; Input should be greater than or equal to 1"),
        ("rows = 32", "rows = -32", "field 'array.rows': found -32"),
        ("rows = 32", "rows = 257", "field 'array.rows': found 257; Input should be less than or equal to 256"),
        ("rows = 32", "rows = 32.0", r"field 'array.rows': found 32\.0; Input should be a valid integer"),
        ("rows = 32", "rows = '32'", "field 'array.rows': found '32'; Input should be a valid integer"),
        ("rows = 32", "rows = true", "field 'array.rows': found True; Input should be a valid integer"),
        ("scatter = true", "scatter = 1", "field 'array.scatter': found 1; Input should be a valid boolean"),
        (r"clock_ghz = 1\.0", "clock_ghz = 0.0", "field 'array.clock_ghz': found 0.0; Input should be greater than or equal to 0.000001"),
        (r"clock_ghz = 1\.0", "clock_ghz = 1e-300", "field 'array.clock_ghz': found 1e-300; Input should be greater than or equal to 0.000001"),
        (r"clock_ghz = 1\.0", "clock_ghz = inf", "field 'array.clock_ghz': found inf"),
        (r"gb_per_s = 25\.6", "gb_per_s = nan", "field 'dram.gb_per_s': found nan"),
        (r"gb_per_s = 25\.6", "gb_per_s = -1.0", "field 'dram.gb_per_s': found -1.0"),
        ("weight_bits = 8", "weight_bits = 16", "field 'datatypes.weight_bits': found 16; Input should be less than or equal to 8"),
        ("accumulator_bits = 32", "accumulator_bits = 64", "field 'datatypes.accumulator_bits': found 64"),
        ("kib = 512", "kib = 99999999999999999999", "field 'scratchpad.kib': found 99999999999999999999"),
        ("banks = 64", "banks = 16", "rank_memory.banks = 16 is fewer than the 32 lanes of the array"),
        ("kib = 32", "kib = 1", "weight_buffer.kib = 1 holds fewer than two tiles of 32 x 32 weights; preload needs two"),
        ("engines = 3", "engines = 4", "field 'dma.engines': found 4; Input should be 1, 2 or 3"),
        ("schema = 1", "schema = 2", "field 'schema': found 2; Input should be 1"),
        ("schema = 1", "", "field 'schema': found nothing; the key 'schema' is required"),
        (r"burst_bytes = 64", "", "field 'dram.burst_bytes': found nothing; the key 'dram.burst_bytes' is required"),
        (r'name = "mid-32"', 'name = "../etc/passwd"', "field 'name': found '../etc/passwd'; String should match pattern"),
        (r'name = "mid-32"', 'name = ""', "field 'name': found ''"),
        ("rows = 32", "rows = ", r"found text that is not TOML \(.*line \d+.*\); a machine file must parse as TOML\. Mend the line named"),
        ("rows = 32", "rows = 32\nrows = 33", "found text that is not TOML"),
        ("schema = 1", "schema = 1\ndma = 3", "found text that is not TOML"),
        ("rows = 32", "rows = " + "9" * 5000, "found TOML with a number of too many digits; a machine file must parse as TOML"),
        ("rows = 32", "rows = 0x" + "f" * 5000, "field 'array.rows': found a value of type int, too long to be shown; Input should be less than or equal to 256"),
        ("rows = 32", "rows = " + "[" * 5000 + "]" * 5000, "found TOML that is nested too deeply; a machine file must parse as TOML"),
        (r'name = "mid-32"', 'name = "' + "x" * 200_000 + '"', "field 'name': found 'x{98,}…x+'; String should have at most 64 characters"),
        (r'name = "mid-32"', r'name = "a\\u001b[2Jb"', r"field 'name': found 'a\\x1b\[2Jb'; String should match pattern"),
    ],
)  # fmt: skip
def test_bad_values_name_file_field_value_and_rule(tmp_path, find, replacement, message):
    text, count = re.subn(find, replacement, MID, count=1)
    assert count == 1
    refused(tmp_path, text, message)


def test_empty_and_foreign_files(tmp_path):
    refused(tmp_path, "", "field 'schema': found nothing")
    refused(tmp_path, "hello", "found text that is not TOML")
    path = tmp_path / "latin.toml"
    path.write_bytes(MID.replace("mobile", "m\xf6bile").encode("latin-1"))
    with pytest.raises(
        InputError,
        match=r"latin\.toml: found byte 0xf6 at position \d+; a machine file must be UTF-8 text. Save it as UTF-8",
    ):
        Machine.load(path)


def test_missing_machine(tmp_path):
    message = r"machine 'mid-31': found no such preset or file; a machine is one of cloud-128, edge-16, mid-32, plain-32 or a TOML file"
    with pytest.raises(InputError, match=message):
        Machine.load("mid-31")
    with pytest.raises(InputError, match="no such preset or file"):
        Machine.load(tmp_path)


def test_a_value_where_a_section_belongs():
    with pytest.raises(
        InputError, match="test: field 'dma': found 3; Input should be a valid dictionary or instance of Dma"
    ):
        Machine.from_dict({**Machine.load("mid-32").to_dict(), "dma": 3}, "test")


def test_changes_in_code_are_checked_too():
    with pytest.raises(InputError, match="machine 'mid-32', changed in code: field 'array.rows': found 0"):
        Machine.load("mid-32").with_(array={"rows": 0})
    with pytest.raises(InputError, match="field 'arrray': found unknown key"):
        Machine.load("mid-32").with_(arrray={"rows": 4})
    with pytest.raises(InputError, match="field 'array.depth': found unknown key"):
        Machine.load("mid-32").with_(array={"depth": 4})


def test_machines_are_immutable():
    machine = Machine.load("mid-32")
    with pytest.raises(ValueError, match="frozen"):
        machine.array.rows = 5
