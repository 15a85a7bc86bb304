"""The networks that the synthesis benchmark measures really route what it says of them."""

import random

import pytest
from amaranth.sim import Simulator

from benchmarks.synthesis.switch_networks import (
    BenesGather,
    BenesScatter,
    OmegaGather,
    OmegaScatter,
    benes_switches,
)

SHAPES = [(2, 2, 3, 1), (3, 4, 5, 0), (4, 8, 6, 2), (8, 8, 4, 3), (8, 16, 9, 4), (13, 16, 4, 7)]  # lanes, banks, ...


def test_an_omega_network_scatters_lanes_that_stand_in_the_order_of_their_banks():
    for shape in SHAPES:
        run(OmegaScatter(*shape), *shape, scatter=True)


def test_an_omega_network_gathers_for_lanes_that_stand_in_the_order_of_their_banks():
    for lanes, banks, width, cycles in SHAPES:
        run(OmegaGather(banks, lanes, width, cycles), lanes, banks, width, cycles, scatter=False)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_benes_network_passes_every_permutation(shape):
    lanes, banks, width, cycles = shape
    rng = random.Random(sum(shape))
    for scatter in (True, False):
        network = BenesScatter(*shape) if scatter else BenesGather(banks, lanes, width, cycles)
        cases = []
        for _ in range(6):
            order = rng.sample(range(banks), banks)  # input i goes to output order[i]
            words = [rng.getrandbits(width) for _ in range(lanes if scatter else banks)]
            cases.append((order, words))

        async def bench(ctx, network=network, cases=cases, scatter=scatter):
            for order, words in cases:
                for port, word in zip(network.data, words, strict=True):
                    ctx.set(port, word)
                ctx.set(network.settings, sum(bit << i for i, bit in enumerate(flat_settings(order))))
                ctx.set(network.load, 1)
                ctx.set(network.swap, 1)
                await ctx.tick().repeat(2 + network.cycles)
                for i, word in enumerate(words):
                    if scatter or order[i] < lanes:
                        assert ctx.get(network.out_data[order[i]]) == word

        simulate(network, bench)


def run(network, lanes, banks, width, cycles, *, scatter):
    """Every cycle: some lanes side by side, banks in rising order; what comes out ``cycles`` later."""
    rng = random.Random(lanes * banks + cycles)
    length = 30
    inputs = []
    for _ in range(length):
        count = rng.randint(0, lanes)
        start = rng.randint(0, lanes - count)
        named = sorted(rng.sample(range(banks), count))
        words = [rng.getrandbits(width) for _ in range(lanes if scatter else banks)]
        inputs.append(({start + i: bank for i, bank in enumerate(named)}, words))

    async def bench(ctx):
        if not scatter:
            ctx.set(network.advance, -1)
        for now in range(length + cycles):
            chosen, words = inputs[now] if now < length else ({}, [0] * len(network.data))
            for port, word in zip(network.data, words, strict=True):
                ctx.set(port, word)
            for lane in range(lanes):
                ctx.set(network.valid[lane], lane in chosen)
                ctx.set(network.bank[lane], chosen.get(lane, rng.randrange(banks)))
            if now >= cycles:
                chosen, words = inputs[now - cycles]
                if scatter:
                    seen = {b: ctx.get(network.out_data[b]) for b in range(banks) if ctx.get(network.out_valid[b])}
                    assert seen == {bank: words[lane] for lane, bank in chosen.items()}
                else:
                    for lane, bank in chosen.items():
                        assert ctx.get(network.out_data[lane]) == words[bank]
            await (ctx.tick() if cycles else ctx.delay(1e-6))

    simulate(network, bench, clocked=bool(cycles))


def simulate(network, bench, clocked=True):
    simulator = Simulator(network)
    if clocked:
        simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()


def flat_settings(order):
    columns = benes_settings(order)
    bits = [bit for column in columns for bit in column]
    assert len(bits) == benes_switches(len(order))
    return bits


def benes_settings(order):
    """Columns of settings that send input i to output order[i]: the looping algorithm, one recursion a pair of outer
    columns. A switch is listed by its lower place.
    """
    size, half = len(order), len(order) // 2
    if size == 2:
        return [[order[0]]]
    back = {out: i for i, out in enumerate(order)}
    upper = {}  # input -> whether it passes the upper half
    for begin in range(half):
        place, side = begin, True
        while place not in upper:
            upper[place] = side
            partner = place ^ half  # the switch's other input takes the other half
            upper[partner] = not side
            place = back[order[partner] ^ half]  # shares the last switch with the partner: so the half of ``place``
    first = [int(not upper[i]) for i in range(half)]
    last = [int(not upper[back[out]]) for out in range(half)]
    halves = []
    for side in (True, False):
        halves.append([order[i if upper[i] == side else i ^ half] % half for i in range(half)])
    inner = [benes_settings(part) for part in halves]
    middle = [[*a, *b] for a, b in zip(*inner, strict=True)]
    return [first, *middle, last]
