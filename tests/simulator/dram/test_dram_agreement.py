"""The kernels and the memory that counts clocks agree on random standards, mappings, queues and traces."""

from __future__ import annotations

import numpy as np
import pytest

from simulator.dram.banks import LINE_OF
from simulator.dram.mapping import MAPPINGS
from simulator.dram.standards import STANDARDS
from tests.drawn.random_dram import Drawn, drawn_memory, run_lists, run_runs
from tests.oracles.slow_dram import Burst, SlowChannel, Transfer, run_slowly

COUNTED = ("hits", "misses", "conflicts", "refreshes")


def traces(corpus_scale: int) -> int:
    """Of each kind; 5,000 in the nightly size."""
    return 60 if corpus_scale == 1 else 250 * corpus_scale


def slowly(drawn: Drawn) -> tuple[list[int], list[int], list[SlowChannel]]:
    return run_slowly(drawn.transfers, drawn.standard, drawn.channels, drawn.mapping, drawn.scheduler, drawn.queue)


def assert_same_counts(counted: dict[str, int], lines: list[SlowChannel], seed: int) -> None:
    want = {name: sum(line.found[name] for line in lines) for name in COUNTED}
    assert {name: counted[name] for name in COUNTED} == want, seed
    assert counted["busy"] == sum(line.busy for line in lines), seed
    assert counted["reads"] + counted["writes"] == sum(len(line.finished) for line in lines), seed


def test_kernel_of_lists_and_clocks_agree(corpus_scale: int) -> None:
    for seed in range(traces(corpus_scale)):
        drawn = drawn_memory(np.random.default_rng(seed), runs=False)
        report, (ends, _, lines) = run_lists(drawn), slowly(drawn)
        assert report.finished.tolist() == ends, seed
        assert_same_counts(report.counted, lines, seed)


def test_kernel_of_runs_and_clocks_agree(corpus_scale: int) -> None:
    for seed in range(traces(corpus_scale)):
        drawn = drawn_memory(np.random.default_rng(100_000 + seed), runs=True)
        (ends, takes, memory), (slow, taken, lines) = run_runs(drawn), slowly(drawn)
        assert (ends, takes) == (slow, taken), seed
        assert_same_counts(memory.counted(), lines, seed)


@pytest.mark.parametrize("mapping", MAPPINGS)
@pytest.mark.parametrize("name", STANDARDS)
def test_both_kernels_agree_on_long_runs_of_every_standard_and_mapping(name: str, mapping: str) -> None:
    rng = np.random.default_rng(7)
    for scheduler, channels in (("fcfs", 2), ("fr-fcfs", 1)):
        begins = rng.integers(0, 1 << 14, 6).tolist()
        transfers = tuple(
            Transfer(0, tuple(Burst(begin + i, write == 0) for i in range(60)))
            for begin, write in zip(begins, rng.integers(0, 3, 6).tolist(), strict=True)
        )
        drawn = Drawn(STANDARDS[name], channels, mapping, scheduler, 32, transfers)
        ends, _, memory = run_runs(drawn)
        report = run_lists(drawn)
        assert report.finished.tolist() == ends and report.counted == memory.counted()


def test_the_traces_reach_what_there_is() -> None:
    """Every outcome, both schedulers, refreshes, and runs long enough to be taken together."""
    reached = dict.fromkeys((*COUNTED, "reads", "writes", "fcfs", "fr-fcfs", "reordered"), 0)
    for seed in range(150):
        drawn = drawn_memory(np.random.default_rng(seed), runs=False)
        counted = run_lists(drawn).counted
        for name in (*COUNTED, "reads", "writes"):
            reached[name] += counted[name]
        reached[drawn.scheduler] += 1
        other = drawn._replace(scheduler="fcfs" if drawn.scheduler == "fr-fcfs" else "fr-fcfs")
        reached["reordered"] += run_lists(other).counted["hits"] != counted["hits"]
    assert min(reached.values()) >= 15, reached
    stripes = [drawn_memory(np.random.default_rng(seed), runs=True).memory().rules["stripe"] for seed in range(50)]
    assert sum(stripe > 8 for stripe in stripes) >= 8


@pytest.mark.parametrize("seed", range(40))
def test_more_time_between_commands_is_never_faster_in_order(seed: int) -> None:
    """Without reordering every clock is made of sums and maxima: a larger distance delays or changes nothing."""
    rng = np.random.default_rng(seed)
    drawn = drawn_memory(rng, runs=False)._replace(scheduler="fcfs")
    base = run_lists(drawn).finished
    for name in ("tCL", "tRCD", "tWR", "tRTP", "tRTW", "tWTR_L", "tCCD_L", "tRC", "tRRD_L"):
        timing = dict(drawn.standard.timing)
        timing[name] = timing[name]._replace(value=timing[name].value + int(rng.integers(1, 4)))
        if name == "tRCD":  # a row stays open for it
            for other in ("tRAS", "tRC"):
                timing[other] = timing[other]._replace(value=timing[other].value + 4)
        timing["tREFI"] = timing["tREFI"]._replace(value=1e9)
        same = {**drawn.standard.timing, "tREFI": timing["tREFI"]}
        base = run_lists(drawn._replace(standard=_with(drawn, same))).finished
        assert (run_lists(drawn._replace(standard=_with(drawn, timing))).finished >= base).all(), name


def _with(drawn: Drawn, timing: dict) -> object:
    from dataclasses import replace

    return replace(drawn.standard, timing=timing)


def test_channels_that_are_alike_and_clocks_agree(corpus_scale: int) -> None:
    """Many channels, of which those in the same state are served once: nothing shows it but who has a line."""
    shared = 0
    for seed in range(traces(corpus_scale)):
        rng = np.random.default_rng(200_000 + seed)
        drawn = drawn_memory(rng, runs=True)._replace(channels=2 ** int(rng.integers(3, 5)))
        (ends, takes, memory), (slow, taken, lines) = run_runs(drawn), slowly(drawn)
        assert (ends, takes) == (slow, taken), seed
        assert_same_counts(memory.counted(), lines, seed)
        shared += int((memory.lines[:, LINE_OF] != np.arange(drawn.channels)).any())
    assert shared >= traces(corpus_scale) // 2
