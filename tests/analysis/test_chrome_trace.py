"""The trace file against the report that it tells, event by event."""

from __future__ import annotations

import gzip
import itertools
import json
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from analysis.traces.chrome_trace import save_chrome_trace
from analysis.traces.spans import check_trace, layer_spans
from simulator.base.errors import InputError
from simulator.timing.report import Trace
from tests.drawn.fake_reports import OPS, UNITS, fake_report

NAMES = ["fc1", 'odd "name"\n|µ', "fc2"]


def load(path):
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("clock_ghz", [1.0, 0.7, 0.1, 1.3, 3.0])
def test_every_instruction_is_one_event(tmp_path, clock_ghz):
    report = fake_report(NAMES, clock_ghz=clock_ghz)
    path = tmp_path / "trace.json"
    save_chrome_trace(report, path)
    events = load(path)["traceEvents"]
    tracks = {e["tid"]: e["args"]["name"] for e in events if e["name"] == "thread_name"}
    assert list(tracks.values()) == ["layers", *UNITS]
    spans = [e for e in events if e["ph"] == "X" and tracks[e["tid"]] != "layers"]
    trace = report.trace
    assert len(spans) == len(trace.op)
    for i, event in enumerate(spans):
        assert event["name"] == OPS[trace.op[i]]
        assert tracks[event["tid"]] == UNITS[trace.unit[i]]
        assert event["args"]["layer"] == NAMES[trace.layer[i]]
        assert event["args"]["done_cycle"] == trace.done[i]
        # Within half a nanosecond, in whole ones.
        assert event["ts"] == pytest.approx(trace.start[i] / (clock_ghz * 1000), abs=0.000501)
        assert event["ts"] + event["dur"] == pytest.approx(trace.end[i] / (clock_ghz * 1000), abs=0.000501)
        assert event["ts"] == round(event["ts"], 3) and event["dur"] == round(event["dur"], 3)
    for track in tracks:
        mine = sorted((e for e in spans if e["tid"] == track), key=lambda e: e["args"]["start_cycle"])
        for one, two in itertools.pairwise(mine):
            assert round(1000 * one["ts"]) + round(1000 * one["dur"]) <= round(1000 * two["ts"])


def test_layers_have_their_own_track_without_gaps(tmp_path):
    report = fake_report(NAMES)
    save_chrome_trace(report, tmp_path / "trace.json")
    layers = [e for e in load(tmp_path / "trace.json")["traceEvents"] if e.get("cat") == "layer"]
    assert [e["name"] for e in layers] == NAMES
    assert [e["args"]["start_cycle"] for e in layers] == [a for _, a, _ in layer_spans(report)]
    assert sum(e["args"]["cycles"] for e in layers) == report.latency_cycles
    assert {e["tid"] for e in layers} == {1}


def test_same_report_same_bytes_packed_or_not(tmp_path):
    report = fake_report(NAMES)
    for name in ("a.json", "b.json", "a.json.gz", "b.json.gz"):
        save_chrome_trace(report, tmp_path / name)
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert (tmp_path / "a.json.gz").read_bytes() == (tmp_path / "b.json.gz").read_bytes()
    assert (tmp_path / "a.json.gz").read_bytes()[3:8] == bytes(5)  # neither name nor time in the header
    assert gzip.decompress((tmp_path / "a.json.gz").read_bytes()) == (tmp_path / "a.json").read_bytes()


def test_no_instructions(tmp_path):
    save_chrome_trace(fake_report(["empty"], tiles=0), tmp_path / "trace.json")
    assert [e["ph"] for e in load(tmp_path / "trace.json")["traceEvents"]].count("X") == 1


def test_long_traces_are_streamed(tmp_path):
    count = 150_000
    zeros, start = np.zeros(count, np.int64), np.arange(count) * 2
    trace = Trace(zeros, zeros, zeros, start, start + 1, start + 1, OPS, UNITS)
    report = replace(fake_report(["fc"]), trace=trace)
    path = tmp_path / "trace.json"
    tracemalloc.start()
    try:
        save_chrome_trace(report, path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    whole = path.read_text().count('"ph":"X"')
    assert whole == count + 1
    # All lines at once would need some 90 MB, 65,536 at a time a good deal less.
    assert peak < 60e6


def broken(report, **changes):
    return replace(report, trace=replace(report.trace, **changes))


def test_traces_that_do_not_fit_together_are_refused(tmp_path):
    report = fake_report(NAMES)
    trace = report.trace
    cases = [
        (broken(report, op=trace.op + len(OPS)), r"trace\.op.*indices must lie below 8"),
        (broken(report, layer=trace.layer - 1), r"trace\.layer: found -1 to 1"),
        (broken(report, end=trace.end[:-1]), r"trace\.end.*all columns must be"),
        (broken(report, start=trace.start.astype(float)), r"trace\.start: found float64"),
        (broken(report, end=trace.start - 1), "ends before it starts"),
        (broken(report, unit=np.zeros_like(trace.unit)), "in unit 'dma_load' at once"),
    ]
    for bad, message in cases:
        with pytest.raises(InputError, match=message):
            check_trace(bad)
        with pytest.raises(InputError, match=message):
            save_chrome_trace(bad, tmp_path / "trace.json")
    assert list(tmp_path.iterdir()) == []


def test_other_bad_input(tmp_path):
    report = fake_report(NAMES)
    with pytest.raises(InputError, match="must sum to the latency"):
        layer_spans(replace(report, latency_cycles=report.latency_cycles + 1))
    with pytest.raises(InputError, match=r"\.json or \.json\.gz"):
        save_chrome_trace(report, tmp_path / "trace.txt")
    with pytest.raises(InputError, match="clock must be above 0"):
        save_chrome_trace(replace(report, clock_ghz=0.0), tmp_path / "trace.json")
