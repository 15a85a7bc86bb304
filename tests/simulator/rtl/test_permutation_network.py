"""The permutation network against a plain model: what went in, a fixed number of steps later."""

import itertools
import random

import pytest
from amaranth.sim import Simulator
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.rtl.units.permutation_network import GATES_PER_STAGE, GatherNetwork, ScatterNetwork, place_registers

# lanes, banks, width, cycles: one lane, one bank, lanes that are no power of two, more lanes than banks, deep pipelines.
SHAPES = [
    (1, 1, 1, 0),
    (1, 1, 5, 3),
    (1, 8, 3, 1),
    (3, 1, 4, 2),
    (2, 2, 8, 1),
    (3, 4, 7, 0),
    (5, 8, 6, 4),
    (7, 4, 5, 5),
    (8, 16, 32, 3),
    (13, 32, 9, 2),
    (6, 16, 3, 9),
    (33, 2, 4, 4),
]


def scatter_cycle(rng: random.Random, lanes: int, banks: int, width: int) -> list[tuple[int, int, int]]:
    """(valid, bank, data) a lane: valid lanes name different banks, the others name any."""
    free = rng.sample(range(banks), banks)
    crowd = rng.choice((0.0, 0.5, 1.0))
    cycle = []
    for _ in range(lanes):
        valid = bool(free) and rng.random() < crowd
        cycle.append((int(valid), free.pop() if valid else rng.randrange(banks), rng.getrandbits(width)))
    rng.shuffle(cycle)
    return cycle


def scattered(cycle: list[tuple[int, int, int]], banks: int) -> list[tuple[int, int]]:
    out = [(0, 0)] * banks
    for valid, bank, data in cycle:
        if valid:
            out[bank] = (1, data)
    return out


def run_scatter(lanes: int, banks: int, width: int, cycles: int, seed: int, length: int = 24) -> None:
    rng = random.Random(seed)
    network = ScatterNetwork(lanes, banks, width, cycles)
    inputs = [scatter_cycle(rng, lanes, banks, width) for _ in range(length)]

    async def bench(ctx):
        for now in range(length + cycles):
            for lane in range(lanes):
                valid, bank, data = inputs[now][lane] if now < length else (0, 0, 0)
                ctx.set(network.valid[lane], valid)
                ctx.set(network.bank[lane], bank)
                ctx.set(network.data[lane], data)
            seen = [(ctx.get(network.out_valid[b]), ctx.get(network.out_data[b])) for b in range(banks)]
            if now < cycles:
                assert [valid for valid, _ in seen] == [0] * banks, f"a valid bank in cycle {now}, before any input"
            else:
                assert seen == scattered(inputs[now - cycles], banks), f"cycle {now}"
            await (ctx.tick() if cycles else ctx.delay(1e-6))  # without registers there is no clock

    simulate(network, bench)


def run_gather(lanes: int, banks: int, width: int, cycles: int, seed: int, length: int = 40) -> None:
    """Elastic: the model moves what a stage holds whenever its bit of ``advance`` is set, bubbles and overwriting
    included.
    """
    rng = random.Random(seed)
    network = GatherNetwork(banks, lanes, width, cycles)

    async def bench(ctx):
        stages: list[list[int] | None] = [None] * cycles
        for now in range(length):
            words = [rng.getrandbits(width) for _ in range(banks)]
            chosen = [rng.randrange(banks) for _ in range(lanes)]
            # Any pattern a caller may drive: a stage that loads while the next one holds loses what it held.
            advance = rng.choice((0, (1 << cycles) - 1, rng.getrandbits(max(cycles, 1))))
            for bank, word in enumerate(words):
                ctx.set(network.data[bank], word)
            for lane, bank in enumerate(chosen):
                ctx.set(network.bank[lane], bank)
            ctx.set(network.advance, advance)
            entering = [words[bank] for bank in chosen]
            seen = [ctx.get(network.out_data[lane]) for lane in range(lanes)]
            expected = stages[-1] if cycles else entering
            assert expected is None or seen == expected, f"cycle {now}"
            feed = [entering, *stages[:-1]]
            stages = [new if advance >> i & 1 else old for i, (old, new) in enumerate(zip(stages, feed, strict=False))]
            await (ctx.tick() if cycles else ctx.delay(1e-6))  # without registers there is no clock

    simulate(network, bench)


def simulate(network, bench) -> None:
    simulator = Simulator(network)
    if network.cycles:
        simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_scatter_delivers_every_sum_after_exactly_its_cycles(shape):
    run_scatter(*shape, seed=sum(shape))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gather_delivers_what_each_stage_was_told_to_load(shape):
    run_gather(*shape, seed=sum(shape))


@settings(max_examples=25, deadline=None)
@given(
    lanes=st.integers(1, 11),
    banks=st.sampled_from([1, 2, 4, 8, 16]),
    width=st.integers(1, 12),
    cycles=st.integers(0, 5),
    seed=st.integers(0, 999),
)
def test_both_networks_at_any_size(lanes, banks, width, cycles, seed):
    run_scatter(lanes, banks, width, cycles, seed, length=8)
    run_gather(lanes, banks, width, cycles, seed, length=16)


@settings(max_examples=200, deadline=None)
@given(
    depths=st.lists(st.integers(1, 4), max_size=7),
    cycles=st.integers(0, 9),
    data=st.data(),
)
def test_registers_are_placed_as_promised(depths, cycles, data):
    bits = data.draw(st.lists(st.integers(1, 99), min_size=len(depths) + 1, max_size=len(depths) + 1))
    counts = place_registers(depths, bits, cycles)
    assert len(counts) == len(bits) and sum(counts) == cycles and min(counts) >= 0
    if cycles == 0:
        return

    def price(inner: tuple[int, ...]) -> tuple[int, int]:
        longest, path = 0, 0
        for depth, registers in zip(depths, (*inner, 1), strict=True):
            path += depth
            longest, path = max(longest, path), 0 if registers else path
        return max(longest, GATES_PER_STAGE), sum(b for b, r in zip(bits[1:-1], inner, strict=True) if r)

    if depths:
        assert counts[-1] == 1
        choices = itertools.product((0, 1), repeat=len(depths) - 1)
        assert price(counts[1:-1]) == min(price(inner) for inner in choices if sum(inner) < cycles)
