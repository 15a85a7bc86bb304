"""The table of counted events: every entry is priced, counted and happens, and nothing is without its counterpart."""

from __future__ import annotations

import runpy
from dataclasses import replace
from pathlib import Path

import pytest

from gblr_hw.cost import event_counts
from simulator.base.errors import InputError
from simulator.machine import energy_table
from simulator.machine.energy import energy_model
from simulator.machine.energy_table import EnergyTable
from simulator.machine.events import (
    EVENTS,
    Event,
    Free,
    MemoryAccess,
    Operations,
    _table,
    check_every_event,
    priced_entries,
)
from simulator.machine.machine import MEMORIES, Machine
from simulator.timing import accesses
from simulator.timing.accesses import count_events
from tests.drawn.strategies import ENERGY_TABLE, as_stored, generator, layer_weights, small_machine

EXTRA = Event("probe_ops", "operation", "vector", Operations(("add_i32",)), "never")


def test_the_table_is_by_name_in_the_order_of_reports() -> None:
    assert tuple(EVENTS) == (
        "mac_active", "mac_narrow", "mac_gated", "mac_padding", "register_bits", "wire_bits", "scratchpad_read", "scratchpad_write", "accumulator_read",
        "accumulator_write", "rank_memory_read", "rank_memory_write", "network_bits", "weight_buffer_read",
        "weight_buffer_write", "requantise_ops", "vector_ops", "dram_read_bytes", "dram_write_bytes",
    )  # fmt: skip
    assert all(name == event.name for name, event in EVENTS.items())


def test_every_event_happens() -> None:
    """None is declared, priced and then never counted."""
    found = dict.fromkeys(EVENTS, 0)
    for seed in range(6):
        machine = small_machine(generator(seed), array={"scatter": True})
        weights = {f"layer{i}": layer_weights(generator(seed + i), machine) for i in range(3)}
        machine = machine.with_(datatypes={"narrow_bits": 4, "zero_gating": bool(seed % 2)})
        counts = count_events(as_stored(weights, machine, 5, generator(seed)), machine)
        assert tuple(counts) == tuple(EVENTS)
        for name, values in counts.items():
            found[name] += int(values.sum())
    assert [name for name, times in found.items() if not times] == []


def test_every_event_costs_energy_but_the_free_one() -> None:
    model = energy_model(Machine.load("mid-32"))
    free = {name for name, costs in model.events.items() if sum(cost.pj for cost in costs) == 0}
    assert free == {name for name, event in EVENTS.items() if isinstance(event.price, Free)} == {"mac_padding"}
    for name, costs in model.events.items():
        assert {cost.component for cost in costs} <= {EVENTS[name].component}
        assert len(costs) == (
            len(EVENTS[name].price.names) if isinstance(EVENTS[name].price, Operations) else len(costs)
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "two words"}, "event 'two words': its name is an identifier"),
        ({"unit": "row"}, "its unit is one of operation, bit, word, byte"),
        ({"component": ""}, "reports sum it up under a component"),
        ({"price": None}, "it has a price, `Free` with a reason"),
        ({"price": Operations(())}, "its price has entries or is free"),
        ({"counted": ""}, "it says how many are counted"),
    ],
)
def test_an_incomplete_event_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        replace(EVENTS["vector_ops"], **change)
    with pytest.raises(TypeError, match="'price'"):
        Event("probe", "bit", "wires", counted="none")  # type: ignore[call-arg]


def test_events_are_named_once_and_memories_have_both() -> None:
    with pytest.raises(TypeError, match="event 'vector_ops': two entries"):
        _table([*EVENTS.values(), EVENTS["vector_ops"]])
    with pytest.raises(TypeError, match=r"\('rank_memory', 'write'\)\] is not both an event and an access"):
        _table([event for event in EVENTS.values() if event.name != "rank_memory_write"])
    spare = replace(EVENTS["scratchpad_read"], name="spare_read", price=MemoryAccess("spare", "read"))
    with pytest.raises(TypeError, match=r"\('spare', 'read'\)\] is not both"):
        _table([*EVENTS.values(), spare])
    assert {event.price.memory for event in EVENTS.values() if isinstance(event.price, MemoryAccess)} == set(MEMORIES)


def test_an_event_that_is_not_counted_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the simulator as in the closed form, when they are imported."""
    runpy.run_path(accesses.__file__)
    monkeypatch.setitem(EVENTS, EXTRA.name, EXTRA)
    with pytest.raises(TypeError, match=r"event 'probe_ops' of simulator/machine/events\.py is counted nowhere"):
        runpy.run_path(accesses.__file__)
    with pytest.raises(TypeError, match=r"closed form .* lacks the event 'probe_ops'"):
        runpy.run_path(event_counts.__file__)
    monkeypatch.delitem(EVENTS, EXTRA.name)
    monkeypatch.delitem(EVENTS, "vector_ops")
    with pytest.raises(KeyError, match="vector_ops"):
        runpy.run_path(accesses.__file__)
    with pytest.raises(TypeError, match=r"closed form .* has, and .* lacks, the event 'vector_ops'"):
        runpy.run_path(event_counts.__file__)


def test_names_are_held_against_the_table() -> None:
    check_every_event(EVENTS, "this test")
    with pytest.raises(TypeError, match="this test lacks the event 'mac_active'"):
        check_every_event([name for name in EVENTS if name != "mac_active"], "this test")


def test_written_bytes_cost_what_read_ones_do() -> None:
    """The closed form counts both as read."""
    assert EVENTS["dram_read_bytes"].price == EVENTS["dram_write_bytes"].price


def test_columns_do_not_move_with_the_order_of_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiled kernel is kept while its own file stays the same."""
    first = EVENTS["mac_active"]
    before = runpy.run_path(accesses.__file__)["_COLUMN"]
    monkeypatch.delitem(EVENTS, "mac_active")
    monkeypatch.setitem(EVENTS, "mac_active", first)
    assert tuple(EVENTS)[-1] == "mac_active"
    assert runpy.run_path(accesses.__file__)["_COLUMN"] == before


# ---- prices
# --------------------------------------------------------------------------------------------------------------


def refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = ENERGY_TABLE.read_text(encoding="utf-8")
    assert text.count(old) == 1
    path = tmp_path / "table.toml"
    path.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(InputError, match=message) as caught:
        EnergyTable.load(path)
    assert str(path) in str(caught.value)


def test_a_table_with_a_price_too_few_or_too_many_is_refused(tmp_path: Path) -> None:
    refused(
        tmp_path, "[op.mul_i32]", "[op.mul_i4]", r"op\.mul_i32: no such entry, and it prices the event 'requantise_ops'"
    )
    extra = '[op.shift_i32]\npj = 1.0\nlow = 1.0\nhigh = 1.0\nsource = "made_up"\n\n[op.mul_i32]'
    refused(tmp_path, "[op.mul_i32]", extra, r"op\.shift_i32: the price of no event")


def test_a_price_of_its_own_is_an_entry_and_a_line_of_the_table(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(EVENTS, EXTRA.name, replace(EXTRA, price=Operations(("probe_i8",))))
    refused(tmp_path, "schema = 1", "schema =  1", r"op\.probe_i8: no such entry, and it prices the event 'probe_ops'")
    text = ENERGY_TABLE.read_text(encoding="utf-8")
    path = tmp_path / "whole.toml"
    path.write_text(f'{text}\n[op.probe_i8]\npj = 6.0\nlow = 5.0\nhigh = 7.0\nsource = "made_up"\n', encoding="utf-8")
    machine = small_machine(generator(0)).with_(energy={"table": str(path)})
    sums = energy_model(machine).by_component({"probe_ops": 3}, cycles=0)
    assert sums["vector"] == (18.0, 15.0, 21.0)


def test_other_entries_of_tables_are_prices_too(monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(priced_entries()) == {
        "op.mul_i8", "op.mul_i4_i8", "op.add_i32", "op.mul_i32", "op.register_bit", "op.wire_bit_mm", "geometry.cell_pitch_mm",
        "geometry.wire_activity", "dram", "sram.read_pj", "sram.write_pj", "sram.leak_uw",
    }  # fmt: skip
    for name in ("dram_read_bytes", "dram_write_bytes"):
        monkeypatch.delitem(EVENTS, name)
    with pytest.raises(TypeError, match="energy tables' entry 'dram' is the price of no event"):
        runpy.run_path(energy_table.__file__)
    monkeypatch.undo()
    flash = type("Flash", (Operations,), {"names": ("flash.read_pj",)})
    monkeypatch.setitem(EVENTS, EXTRA.name, replace(EXTRA, price=flash(())))
    with pytest.raises(TypeError, match=r"have no entry 'flash\.read_pj', which prices the event 'probe_ops'"):
        runpy.run_path(energy_table.__file__)
