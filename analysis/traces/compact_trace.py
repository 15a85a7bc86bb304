"""Long traces with fewer spans: neighbours of one unit, operator and operation become one, across gaps no longer than
needed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simulator.timing.report import Trace

MIXED = -1  # operation of a span whose instructions differ


@dataclass(frozen=True, eq=False)
class Spans:
    """Spans of instructions (int64 columns of one length); ``op`` is MIXED where they differ.

    instructions: how many are in it. busy: cycles for which they occupy the unit, without gaps. gap_cycles: the longest
    gap in a span; -1 if each span is one instruction, in program order.
    """

    op: np.ndarray
    unit: np.ndarray
    layer: np.ndarray
    start: np.ndarray
    end: np.ndarray
    done: np.ndarray
    instructions: np.ndarray
    busy: np.ndarray
    gap_cycles: int


def compact(trace: Trace, most: int) -> Spans:
    """Spans of ``trace``, at most ``most`` if merging within an operator can do it, else as few as that gives.

    Neighbours on a unit are merged if layer and operation are the same and the gap between them is at most 0, 1, 2, 4,
    ... cycles: the first of these that is enough. If none is, the operation no longer matters.
    """
    columns = {name: getattr(trace, name) for name in ("op", "unit", "layer", "start", "end", "done")}
    busy = trace.end - trace.start
    if len(trace.op) <= most:
        return Spans(**columns, instructions=np.ones(len(trace.op), np.int64), busy=busy, gap_cycles=-1)
    order = np.lexsort((trace.start, trace.unit))
    columns = {name: column[order] for name, column in columns.items()}
    gaps = columns["start"][1:] - columns["end"][:-1]
    gap, same = _smallest_gap(columns, gaps, most)
    first = np.flatnonzero(np.concatenate([[True], ~same | (gaps > gap)]))
    last = np.append(first[1:], len(order)) - 1
    uniform = np.minimum.reduceat(columns["op"], first) == np.maximum.reduceat(columns["op"], first)
    return Spans(
        op=np.where(uniform, columns["op"][first], MIXED),
        unit=columns["unit"][first],
        layer=columns["layer"][first],
        start=columns["start"][first],
        end=columns["end"][last],
        done=np.maximum.reduceat(columns["done"], first),
        instructions=last - first + 1,
        busy=np.add.reduceat(busy[order], first),
        gap_cycles=gap,
    )


def _smallest_gap(columns: dict[str, np.ndarray], gaps: np.ndarray, most: int) -> tuple[int, np.ndarray]:
    """The gap up to which to merge, and which neighbours may be merged at all."""
    longest = int(gaps.max(initial=0))
    steps = [0, *(1 << i for i in range(longest.bit_length())), longest]
    same = np.ones(len(gaps), dtype=bool)
    for names in (("unit", "layer", "op"), ("unit", "layer")):
        same = np.logical_and.reduce([columns[name][1:] == columns[name][:-1] for name in names])
        for gap in steps:
            if 1 + int(np.count_nonzero(~same | (gaps > gap))) <= most:
                return gap, same
    return longest, same
