"""Modules of the RTL alone, in Amaranth's own simulator, and the smallest whole accelerator in it."""

from __future__ import annotations

import re

import numpy as np
import pytest
from amaranth.back import verilog
from amaranth.hdl import Elaboratable
from amaranth.sim import Simulator

from simulator.base.errors import InputError
from simulator.numbers.numerics import fixed_point, requantise
from simulator.program.encoding import packed_multiplier
from simulator.rtl.base.dram_model import DramModel
from simulator.rtl.base.sizes import Sizes
from simulator.rtl.base.tools import TOOLS, installed_version
from simulator.rtl.units.accelerator import Accelerator
from simulator.rtl.units.banked_memory import BankedMemory
from simulator.rtl.units.systolic_array import SystolicArray
from simulator.timing.durations import channel_cycles
from tests.drawn.rtl_corpus import rtl_machine
from tests.drawn.strategies import generator


def run(module: Elaboratable, process) -> None:
    simulator = Simulator(module)
    simulator.add_clock(1e-6)
    simulator.add_testbench(process)
    simulator.run()


@pytest.mark.parametrize(("banks", "read", "write"), [(8, 5, 3), (4, 4, 4), (1, 1, 1), (16, 7, 16)])
def test_banked_memory_is_a_flat_memory(banks, read, write):
    width, depth = 6, 61
    rng = generator(banks)
    memory = BankedMemory(width=width, depth=depth, banks=banks, reads=[read], writes=[write])
    flat = np.full(memory.rows * banks, -1)

    async def process(context):
        for _ in range(200):
            start = int(rng.integers(0, depth - write + 1))
            values, enable = rng.integers(0, 1 << width, write), rng.random(write) < 0.7
            port = memory.write_ports[0]
            context.set(port.address, start)
            context.set(port.data, sum(int(v) << (width * i) for i, v in enumerate(values)))
            context.set(port.enable, sum(int(e) << i for i, e in enumerate(enable)))
            await context.tick()
            flat[start : start + write][enable] = values[enable]
            first = int(rng.integers(0, depth - read + 1))
            context.set(port.enable, 0)
            context.set(memory.read_ports[0].address, first)
            found = context.get(memory.read_ports[0].data)
            for i, expected in enumerate(flat[first : first + read].tolist()):
                assert expected < 0 or (found >> (width * i)) & ((1 << width) - 1) == expected

    run(memory, process)


@pytest.mark.parametrize("bytes_per_kilocycle", [1, 700, 1000, 25_600])
@pytest.mark.parametrize("latency", [0, 1, 7])
def test_channel_is_held_and_answers_as_the_rules_say(bytes_per_kilocycle, latency):
    """Rules D2 and D4: held for the cycles of whole bursts, data `latency` cycles behind."""
    machine = rtl_machine("4x3")
    dram = DramModel(machine.dram.burst_bytes)
    rate = machine.with_(dram={"gb_per_s": bytes_per_kilocycle / 1000})
    bursts = 1 if bytes_per_kilocycle < 700 else 5
    held = int(channel_cycles(rate, np.array([bursts * machine.dram.burst_bytes]))[0])

    async def process(context):
        context.set(dram.bytes_per_kilocycle, bytes_per_kilocycle)
        context.set(dram.latency_cycles, latency)
        context.set(dram.bursts, bursts)
        context.set(dram.start, 1)
        seen = []
        for cycle in range(min(held + latency + 3, 3000)):
            seen.append((context.get(dram.free), context.get(dram.respond), context.get(dram.respond_last)))
            await context.tick()
            context.set(dram.start, 0)
            assert seen[cycle][0] == (cycle == 0 or cycle >= held)
            assert seen[cycle][1] == (latency <= cycle < latency + held)
            assert seen[cycle][2] == (cycle == latency + held - 1)

    run(dram, process)


def test_rows_leave_the_array_together_behind_its_sides():
    """Rules A1, A2 and A5: the next tile's weights are loaded while this one streams, and swapped in as a wavefront."""
    machine = rtl_machine("4x3")
    sizes = Sizes(machine)
    array = SystolicArray(sizes, cell_instances=False)
    rng = generator(0)
    tiles = rng.integers(-128, 128, (2, 4, 3))
    rows = rng.integers(-128, 128, (2, 4, 4))  # tile, token, lane: T = P, so that tiles stand back to back
    found = {}

    async def process(context):
        for cycle in range(20):
            loading, p = divmod(cycle, 4)
            context.set(array.load_valid, loading < 2)
            context.set(array.load_row, p)
            for q, port in enumerate(array.load_weights):
                context.set(port, int(tiles[min(loading, 1), p, q]))
            streaming, t = divmod(cycle - 4, 4)
            active = streaming in (0, 1)
            context.set(array.row_valid, active)
            context.set(array.swap, active and t == 0)
            for p, port in enumerate(array.row_codes):
                context.set(port, int(rows[streaming, t, p]) if active else 0)
            if context.get(array.sums_valid):
                found[cycle] = [context.get(port) for port in array.sums]
            await context.tick()

    run(array, process)
    expected = np.concatenate([rows[0] @ tiles[0], rows[1] @ tiles[1]])
    assert list(found) == list(range(4 + 4 + 3 - 1, 4 + 4 + 3 - 1 + 8))  # row t leaves P + Q - 1 cycles after it enters
    assert list(found.values()) == expected.tolist()


def unit_lines(sizes: Sizes) -> dict[str, list[str]]:
    """Verilog of every unit of an accelerator by name: ports and lines sorted, since Yosys orders them by the numbers by
    which it tells names apart, and without these.
    """
    top = Accelerator(sizes, cell_instances=True)
    text = verilog.convert(top, name="accelerator", ports=[*top.ports(), *top.dma.channel_ports()], emit_src=False)
    modules = re.sub(r"\$\d+", "", text).split("\nmodule ")[1:]
    return {m.lstrip("\\").split("(")[0].strip(): sorted(re.split(r"[\s,;()]*[\n,]", m)) for m in modules}


def test_mix_makes_tile_store_and_sequencer_larger_and_nothing_else():
    """The units that benchmarks/synthesis measures with and without MIX tiles are all that know of them."""
    machine = rtl_machine("2x2")
    with_mix, without = (unit_lines(Sizes(machine, mix)) for mix in (True, False))
    assert set(with_mix) == set(without)
    changed = {name for name, lines in with_mix.items() if lines != without[name]}
    assert changed == {"accelerator.tile_store", "accelerator.tiles"}


def test_sides_of_one_and_long_latencies_have_no_rtl():
    machine = rtl_machine("2x2")
    with pytest.raises(InputError, match="RTL of machine '2x2': array: found 1 x 2; sides are at least 2"):
        Sizes(machine.with_(array={"rows": 1}))
    with pytest.raises(
        InputError, match=r"dram.latency_ns: found 1024 cycles; the queue of transfers under way holds 1023"
    ):
        Sizes(machine.with_(dram={"latency_ns": 1024.0}))


def test_multiplier_and_shift_share_four_bytes():
    ratios = np.array([0.0, 0.37, 2.0**-36, 2.0**20])
    multiplier, shift = fixed_point(ratios)
    word = packed_multiplier(multiplier, shift)
    assert (word < 2**32).all()
    assert (
        requantise(np.int64(1000), word & (2**26 - 1), word >> 26, 8)
        == requantise(np.int64(1000), multiplier, shift, 8)
    ).all()


def test_a_missing_package_is_named_with_what_brings_it():
    assert all(installed_version(tool) for tool in TOOLS)
    with pytest.raises(
        InputError, match=r"package 'no-such-hdl': found not installed; .* pip install \"gblr-hw\[rtl\]\""
    ):
        installed_version("no-such-hdl")


def test_the_multiplier_table_has_a_row_for_both_ranks_of_a_place():
    """Rule M4: slots go up to twice those that memory holds."""
    machine = rtl_machine("4x3").with_(rank_memory={"kib": 1, "banks": 64}, vector={"parameter_kib": 64})
    assert machine.rank_rows_per_bank == 4
    assert Sizes(machine).rank_slots == 8
