"""The execution trace as Chrome-trace JSON, which Perfetto (https://ui.perfetto.dev) and chrome://tracing open.

Format: "Trace Event Format", complete events ("X") with times in microseconds; one track for each unit and one for the
layers. Operators of a network overlap: they have as many tracks as it takes, and name the units' spans.
"""

from __future__ import annotations

import gzip
import itertools
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from analysis.file_kinds import TRACES
from analysis.traces.compact_trace import MIXED, Spans, compact
from analysis.traces.spans import check_trace, lanes, layer_spans, operator_spans
from simulator.base.errors import InputError
from simulator.base.files import replacing
from simulator.timing.report import LayerReport, Report

_PID = 1
_EVENTS_AT_ONCE = 1 << 16
_MOST_SPANS = 200_000  # some 40 MB, which browsers open within seconds


@dataclass(frozen=True)
class _LayerSpan:
    """A layer, or an operator of a network, on one of the tracks that come before the units' (from 0)."""

    layer: int
    start: int
    end: int
    track: int


def save_chrome_trace(report: Report, path: str | Path, most_spans: int = _MOST_SPANS) -> None:
    """Write the trace of ``report`` to ``path`` (.json or .json.gz), atomically and in little memory.

    A cycle lasts 1 / (1000 clock_ghz) microseconds, and begins at the nearest whole nanosecond, which is what viewers
    resolve: spans that meet in cycles meet in the picture, whatever the clock. Layer spans divide the array's time
    line; those of a network's operators go from their first to their last cycle on array or vector unit. Of programs
    with more than ``most_spans`` instructions neighbours are merged (``compact_trace``). The same report gives the same
    bytes. Raises ``InputError`` for another ending, a clock of zero or a trace that does not fit together.
    """
    ending = TRACES.ending(path)
    if not report.clock_ghz > 0:
        raise InputError(
            "report.clock_ghz", str(report.clock_ghz), "the clock must be above 0", "Correct the machine file."
        )
    trace, layers = check_trace(report), _layer_spans(report)
    spans = compact(trace, most_spans)
    with replacing(path) as file:
        if ending.endswith(".gz"):
            # A fixed name and time in the gzip header keep the bytes the same.
            with gzip.GzipFile("", "wb", compresslevel=6, fileobj=file, mtime=0) as packed:
                _write(packed, report, layers, spans)
        else:
            _write(file, report, layers, spans)


def _layer_spans(report: Report) -> list[_LayerSpan]:
    if not report.network:
        return [_LayerSpan(i, start, end, 0) for i, (_, start, end) in enumerate(layer_spans(report))]
    spans = operator_spans(report)
    return [_LayerSpan(*span, lane) for span, lane in zip(spans, lanes(spans), strict=True)]


def _write(file: gzip.GzipFile | BinaryIO, report: Report, layers: list[_LayerSpan], spans: Spans) -> None:
    other: dict[str, object] = {
        "program": report.program,
        "machine": report.machine,
        "clock_ghz": report.clock_ghz,
        "latency_cycles": report.latency_cycles,
    }
    if spans.gap_cycles >= 0:
        other |= {"instructions": len(report.trace.op), "merged_gap_cycles": spans.gap_cycles}
    head = {"displayTimeUnit": "ns", "otherData": other}
    file.write((_json(head)[:-1] + ',"traceEvents":[\n').encode())
    first = True
    above = max((span.track for span in layers), default=0) + 1
    head_lines = (_metadata(report, above), _layer_events(report, layers))
    for lines in itertools.chain(head_lines, _unit_events(report, spans, above)):
        if lines:
            file.write((("" if first else ",\n") + ",\n".join(lines)).encode())
            first = False
    file.write(b"\n]}\n")


def _metadata(report: Report, above: int) -> list[str]:
    names = ["layers"] if not report.network else [f"operators {i}" for i in range(1, above + 1)]
    tracks = enumerate([*names, *report.trace.unit_names], start=1)
    events = [
        {"ph": "M", "pid": _PID, "name": "process_name", "args": {"name": f"{report.program} on {report.machine}"}}
    ]
    for tid, name in tracks:
        events.append({"ph": "M", "pid": _PID, "tid": tid, "name": "thread_name", "args": {"name": name}})
        events.append({"ph": "M", "pid": _PID, "tid": tid, "name": "thread_sort_index", "args": {"sort_index": tid}})
    return [_json(event) for event in events]


def _layer_events(report: Report, spans: list[_LayerSpan]) -> list[str]:
    return [
        _json(
            {
                "name": report.layers[span.layer].name,
                "cat": "operator" if report.network else "layer",
                "ph": "X",
                "pid": _PID,
                "tid": 1 + span.track,
                "ts": _nanoseconds(span.start, report) / 1000,
                "dur": (_nanoseconds(span.end, report) - _nanoseconds(span.start, report)) / 1000,
                "args": {
                    "start_cycle": span.start,
                    "cycles": span.end - span.start,
                    **_described(report, report.layers[span.layer]),
                },
            }
        )
        for span in spans
    ]


def _described(report: Report, layer: LayerReport) -> dict[str, object]:
    if not report.network:
        return {"form": layer.form, "tiles": layer.tiles}
    own = {"charged_cycles": layer.latency_cycles, "bound": layer.bound, "rows": layer.tokens, "tiles": layer.tiles}
    return {"kind": layer.group, **({"steps": layer.steps} if layer.steps else {}), **own}


def _unit_events(report: Report, spans: Spans, above: int) -> Iterator[list[str]]:
    """Text of the spans' events, some at a time: a million of them need no more memory than the trace itself."""
    trace = report.trace
    operations = {op: _json(name) for op, name in enumerate(trace.op_names)} | {MIXED: _json("mixed")}
    tracks = [
        f'"cat":{_json(name)},"ph":"X","pid":{_PID},"tid":{tid}'
        for tid, name in enumerate(trace.unit_names, start=above + 1)
    ]
    layers = [_json(layer.name) for layer in report.layers]
    for low in range(0, len(spans.op), _EVENTS_AT_ONCE):
        some = slice(low, low + _EVENTS_AT_ONCE)
        columns = (spans.op, spans.unit, spans.layer, spans.start, spans.end, spans.done)
        rows = zip(*(column[some].tolist() for column in columns), strict=True)
        merged = _merged(spans, some)
        yield [
            f'{{"name":{layers[layer] if report.network else operations[op]},{tracks[unit]},'
            f'"ts":{begin / 1000},"dur":{(finish - begin) / 1000},'
            f'"args":{{{_key(report, operations[op], layers[layer])},"start_cycle":{start},"cycles":{end - start},'
            f'"done_cycle":{done}{more}}}}}'
            for (op, unit, layer, start, end, done), more in zip(rows, merged, strict=False)
            for begin, finish in [(_nanoseconds(start, report), _nanoseconds(end, report))]
        ]


def _key(report: Report, operation: str, layer: str) -> str:
    """What the span's name does not tell."""
    return f'"operation":{operation}' if report.network else f'"layer":{layer}'


def _merged(spans: Spans, some: slice) -> Iterable[str]:
    """What spans of several instructions tell besides; nothing where none were merged."""
    if spans.gap_cycles < 0:
        return itertools.repeat("")
    rows = zip(spans.instructions[some].tolist(), spans.busy[some].tolist(), strict=True)
    return (f',"instructions":{count},"busy_cycles":{busy}' for count, busy in rows)


def _nanoseconds(cycle: int, report: Report) -> int:
    """When a cycle begins, to the nearest nanosecond."""
    return int(cycle / report.clock_ghz + 0.5)


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
