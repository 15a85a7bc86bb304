"""Marks of a machine's fields: keys and files follow from them, as they did before there were marks."""

from __future__ import annotations

import json
import tomllib
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import pytest
from typer.testing import CliRunner

from gblr_hw.lowering.pipeline import lower
from simulator.base.errors import InputError
from simulator.machine.field_marks import LAYOUT, TIME, MachineField, Moves, Section, machine_fields
from simulator.machine.machine import MEMORIES, Array, Cycles, Dram, Kib, Machine, preset_names
from simulator.program.program import Program
from simulator.timing.report import Report
from simulator.timing.simulate import simulate
from tests.drawn.strategies import ENERGY_TABLE, generator, layer_weights

MID = Machine.load("mid-32")
FIELDS = {".".join(field.path): field for field in machine_fields(Machine)}

# Every field of the first machine files. What came later is not added here: it has a default.
FIRST_FIELDS = {
    "schema", "name", "description", "array.rows", "array.cols", "array.clock_ghz", "array.scatter",
    "datatypes.weight_bits", "datatypes.activation_bits", "datatypes.accumulator_bits",
    "scratchpad.kib", "scratchpad.banks", "scratchpad.word_bits", "accumulator.kib", "accumulator.banks", "accumulator.word_bits",
    "rank_memory.kib", "rank_memory.banks", "rank_memory.word_bits", "rank_memory.network_cycles", "rank_memory.requantise_cycles",
    "weight_buffer.kib", "weight_buffer.banks", "weight_buffer.word_bits", "dma.engines",
    "dram.gb_per_s", "dram.latency_ns", "dram.burst_bytes", "dram.kind",
    "vector.lanes", "vector.latency_cycles", "vector.parameter_kib", "energy.table",
}  # fmt: skip

# A change of each field that is large enough to tell.
CHANGES: dict[str, Any] = {
    "name": "other", "description": "other",
    "array.rows": 16, "array.cols": 16, "array.clock_ghz": 3.0, "array.scatter": False,
    "datatypes.weight_bits": 4, "datatypes.activation_bits": 4, "datatypes.accumulator_bits": 24, "datatypes.narrow_bits": 4,
    "datatypes.zero_gating": True,
    "scratchpad.kib": 256, "scratchpad.banks": 8, "scratchpad.word_bits": 64,
    "accumulator.kib": 64, "accumulator.banks": 8, "accumulator.word_bits": 64,
    "rank_memory.kib": 1024, "rank_memory.banks": 32, "rank_memory.word_bits": 512, "rank_memory.network_cycles": 100,
    "rank_memory.requantise_cycles": 100,
    "weight_buffer.kib": 16, "weight_buffer.banks": 2, "weight_buffer.word_bits": 64, "dma.engines": 1,
    "dram.gb_per_s": 1.0, "dram.latency_ns": 1000.0, "dram.burst_bytes": 4096, "dram.kind": "hbm2",
    "dram.model": "ddr4-3200", "dram.mapping": "bank-group-row-column-channel", "dram.scheduler": "fcfs", "dram.queue_entries": 1,
    "vector.lanes": 1, "vector.latency_cycles": 1000, "vector.parameter_kib": 64,
    "energy.temperature_k": 350,
}  # fmt: skip


BANKS = MID.with_(dram={"model": "ddr4-3200"})


def base_of(name: str) -> Machine:
    """The machine on which a field does something."""
    if name == "dram.scheduler":  # which has a choice where rows of several groups wait
        return BANKS.with_(dram={"mapping": "row-bank-group-column-channel"})
    return BANKS if name in ("dram.mapping", "dram.queue_entries") else MID


def with_field(machine: Machine, name: str, value: Any) -> Machine:
    section, _, field = name.rpartition(".")
    return machine.with_(**({section: {field: value}} if section else {field: value}))


@cache
def program() -> Program:
    """Layers of ranks and of dense tiles, whose loads, tiles and drains all stand in each other's way."""
    return lower({f"layer{i}": layer_weights(generator(i), MID) for i in (1, 4, 6)}, MID, tokens=70)


def report_on(machine: Machine) -> Report:
    return simulate(program(), machine)


def test_layout_keys_are_those_of_saved_programs() -> None:
    """Literal, from before keys followed from marks: another key would refuse every program saved until now."""
    keys = {name: Machine.load(name).layout_key for name in preset_names()}
    assert keys == {
        "cloud-128": "83f97390e8038c18",
        "edge-16": "0b95ad781ffdc68c",
        "mid-32": "96e9aa6b4593e7c4",
        "plain-32": "b15f68d2b3bf1ca7",
    }
    odd = MID.with_(
        name="odd",
        array={"rows": 7, "cols": 12, "clock_ghz": 1.3},
        datatypes={"weight_bits": 5, "accumulator_bits": 24},
        weight_buffer={"kib": 1},
        accumulator={"kib": 1},
        rank_memory={"kib": 2, "banks": 13},
        dram={"gb_per_s": 3.0, "latency_ns": 10.5},
        vector={"parameter_kib": 4},
    )
    assert odd.layout_key == "f6b0a840fd7ef7d5"


def test_every_later_field_has_a_default() -> None:
    """So that machine files and programs without it load, and mean what they meant."""
    assert set(FIELDS) >= FIRST_FIELDS
    assert [name for name, field in FIELDS.items() if name not in FIRST_FIELDS and not field.came_later] == []
    assert [name for name in FIRST_FIELDS if FIELDS[name].came_later] == []


def test_the_first_machine_files_still_load() -> None:
    first = {
        "schema": 1, "name": "first", "array": {"rows": 4, "cols": 4, "clock_ghz": 1.0, "scatter": True},
        "datatypes": {"weight_bits": 8, "activation_bits": 8, "accumulator_bits": 32},
        "scratchpad": {"kib": 8, "banks": 1, "word_bits": 32}, "accumulator": {"kib": 2, "banks": 1, "word_bits": 32},
        "rank_memory": {"kib": 2, "banks": 4, "word_bits": 32, "network_cycles": 2, "requantise_cycles": 1},
        "weight_buffer": {"kib": 1, "banks": 1, "word_bits": 32}, "dma": {"engines": 3},
        "dram": {"gb_per_s": 1.0, "latency_ns": 10.0, "burst_bytes": 32, "kind": "lpddr4"},
        "vector": {"lanes": 4, "latency_cycles": 2, "parameter_kib": 1}, "energy": {"table": "cmos-45"},
    }  # fmt: skip
    machine = Machine.from_dict(first, "test")
    assert machine.to_record() == {**first, "description": ""}
    assert Machine.from_dict(json.loads(machine.to_json()), "test") == machine


@pytest.mark.parametrize("name", CHANGES)
def test_the_layout_key_moves_with_the_fields_marked_layout(name: str) -> None:
    """And those alone may be changed under a program."""
    changed = with_field(base_of(name), name, CHANGES[name])
    assert changed != MID
    moves = FIELDS[name].moves.what == "layout"
    assert (changed.layout_key != MID.layout_key) == moves
    if moves:
        with pytest.raises(InputError, match="a program runs only on the array, memories, banks and datatypes"):
            program().require_machine(changed)
    else:
        program().require_machine(changed)


def test_a_change_of_every_field_is_tried() -> None:
    assert {*CHANGES, "schema", "energy.table"} == set(FIELDS)


@pytest.mark.parametrize("name", [name for name in CHANGES if FIELDS[name].moves.what != "layout"])
def test_a_mark_says_what_moves(name: str) -> None:
    """Cycles for a time, energy and no cycles for a price, neither for what is computed with nowhere."""
    before, after = report_on(base_of(name)), report_on(with_field(base_of(name), name, CHANGES[name]))
    moved = (after.latency_cycles != before.latency_cycles, after.energy_pj != before.energy_pj)
    assert moved in {
        "time": {(True, True), (True, False)}, "price": {(False, True)}, "nothing": {(False, False)},
    }[FIELDS[name].moves.what]  # fmt: skip


def test_an_energy_table_moves_the_price() -> None:
    changed = MID.with_(dram={"kind": "test"}, energy={"table": str(ENERGY_TABLE)})
    assert FIELDS["energy.table"].moves.what == "price"
    assert report_on(changed).latency_cycles == report_on(MID).latency_cycles
    assert report_on(changed).energy_pj != report_on(MID).energy_pj


def test_machine_show_prints_every_field() -> None:
    from gblr_hw.cli.app import app

    shown = tomllib.loads(CliRunner().invoke(app, ["machine", "show", "mid-32"]).stdout)
    names = {f"{key}.{inner}" for key, part in shown.items() if isinstance(part, dict) for inner in part}
    assert names | {key for key, part in shown.items() if not isinstance(part, dict)} == set(FIELDS)


def test_memories_are_the_sections_that_are_memories() -> None:
    assert MEMORIES == ("scratchpad", "accumulator", "rank_memory", "weight_buffer")


# ---- fields that come later, as a change would add them
# --------------------------------------------------------------------------------------------------------------


class LaterDram(Dram):
    refresh_cycles: Annotated[Cycles, TIME] = 0


class LaterArray(Array):
    spare_kib: Annotated[Kib, LAYOUT] = 4


class Noc(Section):
    hop_cycles: Annotated[Cycles, TIME] = 1


class LaterMachine(Machine):
    array: LaterArray
    dram: LaterDram
    noc: Noc = Noc()


LATER = LaterMachine.from_dict(MID.to_record(), "test")


def test_a_later_field_is_absent_where_it_has_its_default() -> None:
    """Old machines load, and neither their keys nor the bytes of their programs move."""
    assert (LATER.dram.refresh_cycles, LATER.array.spare_kib, LATER.noc.hop_cycles) == (0, 4, 1)
    assert LATER.layout_key == MID.layout_key
    assert LATER.to_json() == MID.to_json()
    assert [".".join(field.path) for field in machine_fields(LaterMachine) if field.came_later] == [
        "array.spare_kib", "datatypes.narrow_bits", "datatypes.zero_gating",
        "dram.model", "dram.mapping", "dram.scheduler", "dram.queue_entries", "dram.refresh_cycles",
        "energy.temperature_k", "noc.hop_cycles",
    ]  # fmt: skip


def test_a_later_field_stands_where_it_differs(tmp_path: Path) -> None:
    timed = LATER.with_(dram={"refresh_cycles": 7}, noc={"hop_cycles": 2})
    assert isinstance(timed, LaterMachine)
    assert timed.layout_key == MID.layout_key
    assert json.loads(timed.to_json()) == {
        **MID.to_record(), "dram": {**MID.to_record()["dram"], "refresh_cycles": 7}, "noc": {"hop_cycles": 2},
    }  # fmt: skip
    larger = LATER.with_(array={"spare_kib": 8})
    assert larger.layout_key not in {LATER.layout_key, LATER.with_(array={"spare_kib": 16}).layout_key}
    for machine in (LATER, timed, larger):
        assert LaterMachine.from_dict(json.loads(machine.to_json()), "test") == machine
        path = tmp_path / "machine.toml"
        path.write_text(machine.to_toml(), encoding="utf-8")
        assert LaterMachine.load(path) == machine
        assert "refresh_cycles = " in path.read_text(encoding="utf-8")  # shown, default or not


def test_a_field_says_what_it_moves_or_is_refused() -> None:
    with pytest.raises(TypeError, match=r"Unmarked\.page_bytes has 0 marks .* one of LAYOUT, TIME, PRICE and NOTHING"):

        class Unmarked(Dram):
            page_bytes: int = 4096

    with pytest.raises(TypeError, match=r"Twice\.page_bytes has 2 marks"):

        class Twice(Dram):
            page_bytes: Annotated[int, TIME, LAYOUT] = 4096

    with pytest.raises(TypeError, match=r"Marked\.dram has 1 marks of what it moves; a section has none"):

        class Marked(Machine):
            dram: Annotated[Dram, TIME]


def test_a_default_is_checked_like_any_value() -> None:
    class Wrong(Dram):
        refresh_cycles: Annotated[Cycles, TIME] = -1

    with pytest.raises(ValueError, match="greater than or equal to 0"):
        Wrong.model_validate(MID.to_dict()["dram"])


def test_a_value_that_no_file_can_hold_is_told() -> None:
    class Open(Dram):
        pages: Annotated[int | None, TIME] = None

    class OpenMachine(Machine):
        dram: Open

    with pytest.raises(TypeError, match="a machine's field holds None"):
        OpenMachine.from_dict(MID.to_record(), "test").to_toml()


def test_a_key_of_its_own_is_the_marks() -> None:
    field: MachineField = FIELDS["vector.parameter_kib"]
    assert field.moves == Moves("layout", key="parameter_kib")
