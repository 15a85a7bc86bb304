"""Merged spans against a merge written with loops: nothing is lost, nothing is merged that need not be."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.traces.chrome_trace import save_chrome_trace
from analysis.traces.compact_trace import MIXED, compact
from analysis.traces.spans import lanes, operator_spans
from simulator.timing.report import Trace
from simulator.timing.simulate import simulate
from tests.drawn.fake_reports import fake_network_report
from tests.drawn.random_networks import built_network
from tests.drawn.random_programs import generator
from tests.oracles.timelines import network

OPS, UNITS = ("load", "dense", "drain"), ("dma", "array", "vector")


def random_trace(seed: int, count: int) -> Trace:
    rng = np.random.default_rng(seed)
    unit, now, rows = rng.integers(0, 3, count), [0, 0, 0], []
    for i in range(count):
        start = now[unit[i]] + int(rng.choice([0, 0, 1, 3, 20]))
        end = start + int(rng.integers(1, 9))
        now[unit[i]] = end
        rows.append((rng.integers(0, 3), unit[i], rng.integers(0, 2), start, end, end + rng.integers(0, 5)))
    return Trace(*np.array(rows, np.int64).reshape(-1, 6).T, OPS, UNITS)


def merged(trace: Trace, gap: int, any_operation: bool) -> list[tuple[int, ...]]:
    """(operation, unit, layer, start, end, done, instructions, busy), one unit after another."""
    spans: list[list[int]] = []
    for unit in range(len(UNITS)):
        first = True
        for i in np.flatnonzero(trace.unit == unit):
            op, layer, start, end, done = (int(getattr(trace, n)[i]) for n in ("op", "layer", "start", "end", "done"))
            last = spans[-1] if spans else []
            fits = not first and last[2] == layer and start - last[4] <= gap and (any_operation or last[0] == op)
            if fits:
                last[0] = last[0] if last[0] == op else MIXED
                last[4:] = [end, max(last[5], done), last[6] + 1, last[7] + end - start]
            else:
                spans.append([op, unit, layer, start, end, done, 1, end - start])
            first = False
    return [tuple(span) for span in spans]


@settings(max_examples=200)
@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(1, 40))
def test_spans_are_the_least_merged_that_fit(seed, count, most):
    trace = random_trace(seed, count)
    spans = compact(trace, most)
    if count <= most:
        assert spans.gap_cycles == -1
        assert spans.start.tolist() == trace.start.tolist()
        assert spans.instructions.tolist() == [1] * count
        return
    found = list(
        zip(
            *(
                getattr(spans, n).tolist()
                for n in ("op", "unit", "layer", "start", "end", "done", "instructions", "busy")
            ),
            strict=True,
        )
    )
    gaps = [0, *(1 << i for i in range(7))]
    ways = [(gap, any_operation) for any_operation in (False, True) for gap in gaps]
    enough = [way for way in ways if len(merged(trace, *way)) <= most]
    assert found == merged(trace, *(enough[0] if enough else (10**9, True)))
    assert spans.instructions.sum() == count
    assert spans.busy.sum() == (trace.end - trace.start).sum()


def test_lanes_hold_one_span_at_a_time_and_are_as_few_as_possible():
    for seed in range(40):
        machine, program = built_network(generator(seed))
        report = simulate(program, machine)
        spans = operator_spans(report)
        chosen = lanes(spans)
        for i, (_, begin, _) in enumerate(spans):
            at_once = [j for j in range(i) if spans[j][2] > begin]
            assert chosen[i] not in [chosen[j] for j in at_once]
            assert chosen[i] <= len(at_once)
        assert [index for index, _, _ in sorted(spans)] == sorted(set(report.trace.layer.tolist()))


def test_operators_spans_are_their_computing():
    program = network()
    report = simulate(program, program.machine)
    assert operator_spans(report) == [(0, 235, 358), (1, 366, 426), (2, 434, 557)]
    assert lanes([(0, 0, 9), (1, 3, 5), (2, 5, 7), (3, 8, 12), (4, 9, 10)]) == [0, 1, 1, 1, 0]


def test_a_networks_trace_names_operators(tmp_path):
    program = network()
    report = simulate(program, program.machine)
    save_chrome_trace(report, tmp_path / "t.json")
    events = json.loads((tmp_path / "t.json").read_text())["traceEvents"]
    tracks = {e["tid"]: e["args"]["name"] for e in events if e["name"] == "thread_name"}
    assert list(tracks.values()) == ["operators 1", "weight_dma", "input_dma", "output_dma", "array", "vector"]
    spans = [
        (tracks[e["tid"]], e["name"], e["args"].get("operation"), e["args"]["start_cycle"])
        for e in events
        if e["ph"] == "X"
    ]
    assert spans[:3] == [
        ("operators 1", "fc1", None, 235),
        ("operators 1", "softmax", None, 366),
        ("operators 1", "fc2", None, 434),
    ]
    assert [span for span in spans if span[0] == "vector"] == [
        ("vector", "fc1", "DRAIN", 338),
        ("vector", "softmax", "VECTOR", 366),
        ("vector", "fc2", "DRAIN", 537),
    ]
    softmax = next(e for e in events if e["name"] == "softmax" and e["cat"] == "operator")
    assert softmax["args"] == {
        "start_cycle": 366, "cycles": 60, "kind": "softmax", "steps": "softmax", "charged_cycles": 68, "bound": "vector", "rows": 40, "tiles": 0,
    }  # fmt: skip


@pytest.mark.parametrize("most", [50, 2_000])
def test_a_long_trace_is_merged_and_says_so(tmp_path, most):
    report = fake_network_report(12)
    trace = report.trace
    save_chrome_trace(report, tmp_path / "t.json", most)
    written = json.loads((tmp_path / "t.json").read_text())
    units = [e for e in written["traceEvents"] if e["ph"] == "X" and e["cat"] != "operator"]
    assert written["otherData"]["instructions"] == len(trace.op) == sum(e["args"]["instructions"] for e in units)
    assert sum(e["args"]["busy_cycles"] for e in units) == (trace.end - trace.start).sum()
    assert len(units) <= max(most, 4 * len(report.layers))
    assert ("mixed" in {e["args"]["operation"] for e in units}) == (most == 50)
