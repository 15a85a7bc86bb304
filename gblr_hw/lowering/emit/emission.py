"""What emission of a network carries along: the stream, buffers in rotation, and who stored or used what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from gblr_hw.lowering.emit.instruction_stream import Ref, Stream, latest
from gblr_hw.lowering.emit.place_transfers import LoadState
from gblr_hw.lowering.emit.runs_of_layer import BlockRows
from gblr_hw.lowering.emit.scratch_hazards import Hazards
from gblr_hw.lowering.groups.fuse_groups import Group
from gblr_hw.lowering.groups.scratchpad_map import Key, ScratchRegion
from simulator.base.arithmetic import ceil_div
from simulator.machine.machine import Machine
from simulator.network.network import Network, Operand
from simulator.program.schedule import LayerSchedule


@dataclass
class Emission:
    """State of a whole emission. step: passes through the array so far (and steps of the vector unit alone). sequence:
    instructions of the vector class so far. stores: for each result, (first row not covered, its last store) by block.
    parameter_users: the last instruction that used each load of parameters. stages: the step at which each began.
    """

    network: Network
    schedules: Sequence[LayerSchedule]
    machine: Machine
    stream: Stream = field(default_factory=Stream)
    loads: LoadState = field(default_factory=LoadState)
    hazards: Hazards = field(default_factory=Hazards)
    step: int = 0
    sequence: int = 0
    stores: dict[str, list[tuple[int, Ref]]] = field(default_factory=dict)
    parameter_users: list[Ref | None] = field(default_factory=list)
    last_drain: Ref | None = None
    stages: list[int] = field(default_factory=list)

    @property
    def side(self) -> int:
        return self.machine.cols

    def stored(self, tensor: str, rows: int | None = None) -> Ref | None:
        """The store after which the first ``rows`` rows (all if None) of a tensor, and of what lies in it, are in
        DRAM.
        """
        refs: list[Ref | None] = []
        for part in self.network.parts(tensor):
            for end, ref in self.stores.get(part, []):
                refs.append(ref)
                if rows is not None and part == tensor and end >= rows:
                    break
        return latest(refs)


@dataclass(frozen=True)
class ParameterSizes:
    """Bytes of an operator's parameters: held for any block; held, and streamed, for each of a block's rows."""

    held: int = 0
    held_a_row: int = 0
    streamed_a_row: int = 0

    @property
    def by_block(self) -> bool:
        return self.held_a_row + self.streamed_a_row > 0

    def of_block(self, rows: int) -> int:
        return self.held + (self.held_a_row + self.streamed_a_row) * rows


@dataclass
class GroupState:
    """State of one group. accumulators: buffers of ``piece_rows`` rows in the accumulator memory, which drains use in
    turn. before: the last drain of the group before. drain_refs: this group's drains. sizes: by operator, what its
    parameters take; parameters_stay: whether they are loaded once; parameters: by operator, their load and its number.
    resident: by operator, the numbers of its weight loads, their slots and their places among all loads.
    """

    group: Group
    regions: Mapping[Key, ScratchRegion]
    piece_rows: int
    accumulators: int
    before: Ref | None
    sizes: Mapping[int, ParameterSizes]
    parameters_stay: bool
    drain_refs: list[Ref] = field(default_factory=list)
    parameters: dict[int, tuple[Ref, int]] = field(default_factory=dict)
    resident: dict[int, tuple[np.ndarray, np.ndarray, int]] = field(default_factory=dict)
    begins: list[int] = field(default_factory=list)  # first step of each block
    images: dict[Operand, tuple[int, Ref]] = field(default_factory=dict)  # one past the last row loaded, its last load


@dataclass
class Block:
    """One block of a group: rows [row0, row0 + rows) of its operators' outputs, which are those from ``token0`` of
    ``sequence``. loaded: chunk loads of each view (ids by chunk, the last one). written: last writer of each
    result, by the copy of its region.
    """

    number: int
    row0: int
    rows: int
    sequence: int
    token0: int
    loaded: dict[Operand, tuple[np.ndarray, Ref]] = field(default_factory=dict)
    written: dict[tuple[str, int], Ref] = field(default_factory=dict)

    def piece_rows(self, pieces: int) -> int:
        """Rows of each of the block's pieces; the last may have fewer."""
        return ceil_div(self.rows, pieces)

    def piece(self, index: int, piece: np.ndarray, pieces: int) -> BlockRows:
        """The rows of operator ``index`` that instructions on those pieces work on."""
        size = self.piece_rows(pieces)
        return BlockRows(index, self.row0 + piece * size, np.minimum(size, self.rows - piece * size))
