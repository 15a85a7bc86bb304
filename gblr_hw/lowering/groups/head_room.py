"""How many query heads that share tiles stream their rows through the array in one pass, and while a tile is loaded."""

from __future__ import annotations

from dataclasses import dataclass

from simulator.base.arithmetic import ceil_div


@dataclass(frozen=True)
class HeadRoom:
    """What a block leaves for query heads that share tiles: its rows, and accumulator buffers of as many rows."""

    rows: int
    accumulators: int


def heads_at_once(shared: int, of_chunk: int, room: HeadRoom) -> int:
    """How many of ``shared`` query heads run while their tile is loaded: as many as half of the buffers have sums for
    (the others are being drained), and the ``of_chunk`` heads of an output chunk together.
    """
    return max(1, min(shared, room.accumulators // 2) // of_chunk) * of_chunk


def heads_in_pass(shared: int, of_chunk: int, room: HeadRoom, side: int) -> int:
    """How many of them stream their rows in one pass: more while it is shorter than the preload (machine.md, A3), and
    whole output chunks of them, or parts that make up one.
    """
    most = min(heads_at_once(shared, of_chunk, room), ceil_div(side, room.rows))
    if most >= of_chunk:
        return most // of_chunk * of_chunk
    return max(count for count in range(1, most + 1) if of_chunk % count == 0)


def pass_cycles(shared: int, of_chunk: int, room: HeadRoom, side: int) -> int:
    """Cycles that the ``shared`` heads of one tile keep the array, from tile to tile."""
    at_once, in_pass = heads_at_once(shared, of_chunk, room), heads_in_pass(shared, of_chunk, room, side)
    whole, rest = divmod(shared, at_once)
    cycles = 0
    for heads, times in ((at_once, whole), (rest, 1 if rest else 0)):
        passes, left = divmod(heads, in_pass)
        cycles += times * (passes * max(in_pass * room.rows, side) + (max(left * room.rows, side) if left else 0))
    return cycles
