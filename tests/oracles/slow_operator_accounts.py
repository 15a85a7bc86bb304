"""The array's time line by operator and cause, cycle by cycle in plain Python, from the manual's rule C4 alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache

from simulator.program.operations import Op
from simulator.program.program import Program
from simulator.timing.engine import STALL_NAMES, Events

TILES = (Op.DENSE, Op.REDUCE, Op.EXPAND, Op.MIX)
AT_WORK = {
    Op.LOAD_PARAMETERS: "wait_weights",
    Op.LOAD_WEIGHTS: "wait_weights",
    Op.LOAD_INPUT: "wait_input",
    Op.STORE: "wait_input",
    **dict.fromkeys(TILES, "wait_array"),
}


def count_operators(program: Program, unit: Sequence[int], events: Events) -> tuple[Counter, Counter]:
    """(operator, cause) -> cycles, up to the end of the last tile and after it; ``unit`` runs each instruction."""
    ins = program.instructions
    done, end = events.done.tolist(), events.end.tolist()

    @cache
    def started_after(i: int) -> tuple[int, int]:
        """The cycle from which instruction i is at work or in line, and who was before that (-1: nobody)."""
        candidates = [(0, -1)]
        candidates += [(done[d], int(d)) for d in ins.after[:, i] if d >= 0]
        earlier = [j for j in range(i) if unit[j] == unit[i]]
        candidates += [(end[earlier[-1]], earlier[-1])] if earlier else []
        latest = max(cycle for cycle, _ in candidates)
        return next(candidate for candidate in candidates if candidate[0] == latest)

    def at_work(i: int, cycle: int) -> tuple[int, str]:
        while cycle < started_after(i)[0]:
            i = started_after(i)[1]
        return int(ins.layer[i]), AT_WORK.get(Op(int(ins.op[i])), "wait_vector")

    line: Counter = Counter()
    tail: Counter = Counter()
    tiles = [i for i in range(len(ins)) if ins.op[i] in TILES]
    last = done.index(max(done, default=0)) if done else -1
    for cycle in range(max(done, default=0)):
        tile = next((i for i in tiles if cycle < end[i]), None)
        if tile is None:
            tail[at_work(last, cycle)] += 1
        elif cycle >= events.start[tile]:
            row_cycle = (cycle - int(events.start[tile])) % int(ins.row_cycles[tile])
            line[int(ins.layer[tile]), "bank_conflict" if row_cycle else "compute"] += 1
        else:
            cause = STALL_NAMES[events.stall[tile]]
            column = int(events.stall[tile]) - 1
            producer = int(ins.after[column, tile]) if column < len(ins.after) else -1
            if producer >= 0 and cycle < done[producer]:
                line[at_work(producer, cycle)] += 1
            else:
                line[int(ins.layer[tile]), cause] += 1
    return line, tail
