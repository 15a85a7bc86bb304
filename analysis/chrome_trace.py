"""The execution trace as Chrome-trace JSON, which Perfetto (https://ui.perfetto.dev) and chrome://tracing open.

Format: "Trace Event Format", complete events ("X") with times in microseconds; one track for each unit and
one for the layers.
"""

from __future__ import annotations

import gzip
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from analysis.files import replacing
from analysis.spans import check_trace, layer_spans
from simulator.errors import InputError
from simulator.report import Report, Trace

_PID = 1
_EVENTS_AT_ONCE = 1 << 16
_LAYER_TRACK = 1  # units follow from 2 on


def save_chrome_trace(report: Report, path: str | Path) -> None:
    """Write the trace of ``report`` to ``path`` (.json or .json.gz), atomically and in little memory.

    A cycle lasts 1 / (1000 clock_ghz) microseconds. Layer spans divide the array's time line. The same report gives the
    same bytes. Raises ``InputError`` for another ending, a clock of zero or a trace that does not fit together.
    """
    name = Path(path).name.lower()
    if not name.endswith((".json", ".json.gz")):
        raise InputError(
            str(path), f"the name {name!r}", "a trace is a .json or .json.gz file", "Choose one of the two endings."
        )
    if not report.clock_ghz > 0:
        raise InputError(
            "report.clock_ghz", str(report.clock_ghz), "the clock must be above 0", "Correct the machine file."
        )
    trace, spans = check_trace(report), layer_spans(report)
    with replacing(path) as file:
        if name.endswith(".gz"):
            # A fixed name and time in the gzip header keep the bytes the same.
            with gzip.GzipFile("", "wb", compresslevel=6, fileobj=file, mtime=0) as packed:
                _write(packed, report, trace, spans)
        else:
            _write(file, report, trace, spans)


def _write(file: gzip.GzipFile | BinaryIO, report: Report, trace: Trace, spans: list[tuple[str, int, int]]) -> None:
    head = {
        "displayTimeUnit": "ns",
        "otherData": {
            "program": report.program,
            "machine": report.machine,
            "clock_ghz": report.clock_ghz,
            "latency_cycles": report.latency_cycles,
        },
    }
    file.write((_json(head)[:-1] + ',"traceEvents":[\n').encode())
    first = True
    head_lines = (_metadata(report, trace), _layer_events(report, spans))
    for lines in itertools.chain(head_lines, _unit_events(report, trace)):
        if lines:
            file.write((("" if first else ",\n") + ",\n".join(lines)).encode())
            first = False
    file.write(b"\n]}\n")


def _metadata(report: Report, trace: Trace) -> list[str]:
    tracks = [(_LAYER_TRACK, "layers"), *enumerate(trace.unit_names, start=_LAYER_TRACK + 1)]
    events = [
        {"ph": "M", "pid": _PID, "name": "process_name", "args": {"name": f"{report.program} on {report.machine}"}}
    ]
    for tid, name in tracks:
        events.append({"ph": "M", "pid": _PID, "tid": tid, "name": "thread_name", "args": {"name": name}})
        events.append({"ph": "M", "pid": _PID, "tid": tid, "name": "thread_sort_index", "args": {"sort_index": tid}})
    return [_json(event) for event in events]


def _layer_events(report: Report, spans: list[tuple[str, int, int]]) -> list[str]:
    return [
        _json(
            {
                "name": name,
                "cat": "layer",
                "ph": "X",
                "pid": _PID,
                "tid": _LAYER_TRACK,
                "ts": _microseconds(start, report),
                "dur": _microseconds(end - start, report),
                "args": {"start_cycle": start, "cycles": end - start, "form": layer.form, "tiles": layer.tiles},
            }
        )
        for (name, start, end), layer in zip(spans, report.layers, strict=True)
    ]


def _unit_events(report: Report, trace: Trace) -> Iterator[list[str]]:
    """Text of the instructions' events, some at a time: a million of them need no more memory than the trace itself."""
    names = [_json(name) for name in trace.op_names]
    tracks = [
        f'"cat":{_json(name)},"ph":"X","pid":{_PID},"tid":{tid}'
        for tid, name in enumerate(trace.unit_names, start=_LAYER_TRACK + 1)
    ]
    layers = [_json(layer.name) for layer in report.layers]
    per_microsecond = report.clock_ghz * 1000
    for low in range(0, len(trace.op), _EVENTS_AT_ONCE):
        some = slice(low, low + _EVENTS_AT_ONCE)
        columns = (trace.op, trace.unit, trace.layer, trace.start, trace.end, trace.done)
        rows = zip(*(column[some].tolist() for column in columns), strict=True)
        yield [
            f'{{"name":{names[op]},{tracks[unit]},'
            f'"ts":{start / per_microsecond:.15g},"dur":{(end - start) / per_microsecond:.15g},'
            f'"args":{{"layer":{layers[layer]},"start_cycle":{start},"cycles":{end - start},"done_cycle":{done}}}}}'
            for op, unit, layer, start, end, done in rows
        ]


def _microseconds(cycles: int, report: Report) -> float:
    # Fifteen digits, as for the instructions: no rounding noise such as 0.30000000000000004.
    return float(f"{cycles / (report.clock_ghz * 1000):.15g}")


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
