"""The lower level of the IR: a whole program, tied to a machine layout, checked when it is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from simulator.check_places import check_places
from simulator.errors import InputError
from simulator.isa import TILE_OPS, Instructions, Op
from simulator.machine import Machine
from simulator.schedule import LayerSchedule


@dataclass(frozen=True, eq=False)
class Program:
    """Instructions for one machine layout, with the layers' schedules, weights and provenance.

    ``tokens`` rows of activations enter every layer; layers run one after another, each reading its input from DRAM and
    writing its output there. ``machine`` is the one that it was laid out for; it also runs on any machine with the same
    ``layout_key``, so with another clock, bandwidth or latency. ``provenance`` is free text by key.
    """

    machine: Machine
    tokens: int
    layers: tuple[LayerSchedule, ...]
    instructions: Instructions
    provenance: Mapping[str, str]

    def __post_init__(self) -> None:
        ins = self.instructions
        if len(ins) and int(ins.layer.max()) >= len(self.layers):
            _refuse("program: 'layer'", int(ins.layer.max()), f"it has {len(self.layers)} layers")
        names = [layer.name for layer in self.layers]
        if len(set(names)) != len(names):
            _refuse("program: layer names", names, "every layer has a name of its own")
        for index, layer in enumerate(self.layers):
            self._check_layer(index, layer)
        check_places(ins, self.layers, self.machine)

    def _check_layer(self, index: int, layer: LayerSchedule) -> None:
        ins = self.instructions
        mine = ins.layer == index
        uses_tile = mine & (np.isin(ins.op, TILE_OPS) | (ins.op == Op.LOAD_WEIGHTS))
        tile = ins.tile[uses_tile]
        where = f"program: layer '{layer.name}'"
        if len(tile) and tile.max() >= len(layer.tiles):
            _refuse(where, f"tile {int(tile.max())}", f"its tile table has {len(layer.tiles)} rows")
        is_tile = mine & np.isin(ins.op, TILE_OPS)
        if (layer.tiles.kind[ins.tile[is_tile]] != ins.op[is_tile]).any():
            _refuse(
                where,
                "a tile instruction of another kind than its tile",
                "DENSE, REDUCE and EXPAND run tiles of their own kind",
            )
        if (layer.tiles.row_cycles[ins.tile[is_tile]] != ins.row_cycles[is_tile]).any():
            _refuse(where, "row_cycles unlike the tile table's", "an instruction takes its tile's cycles a row")
        ends = (ins.token0 + ins.tokens)[mine]
        if len(ends) and ends.max() > self.tokens:
            _refuse(where, f"token {int(ends.max()) - 1}", f"the program has {self.tokens} tokens")

    def layer_index(self, name: str) -> int:
        """Index of a layer by name; InputError lists the names there are."""
        for index, layer in enumerate(self.layers):
            if layer.name == name:
                return index
        known = ", ".join(layer.name for layer in self.layers[:12]) + (", ..." if len(self.layers) > 12 else "")
        raise InputError(
            f"layer '{name}'", "no such layer", f"the program has the layers {known}", "Use one of these names."
        )

    @cached_property
    def tile_count(self) -> int:
        """Weight tiles of all layers, each counted once."""
        return sum(len(layer.tiles) for layer in self.layers)

    def require_machine(self, machine: Machine) -> None:
        """Raise InputError if this program was laid out for other sizes than ``machine`` has."""
        own = self.machine
        if machine.layout_key != own.layout_key:
            raise InputError(
                f"program for machine '{own.name}' ({own.rows} x {own.cols}, layout {own.layout_key})",
                f"machine '{machine.name}' ({machine.rows} x {machine.cols}, layout {machine.layout_key})",
                "a program runs only on the array, memories, banks and datatypes that it was laid out for",
                f"Lower the checkpoint again with `--machine {machine.name}`.",
            )

    def save(self, path: str | Path) -> None:
        """Write program, weights and provenance as one file, atomically; equal programs give equal bytes."""
        from simulator.program_file import save_program

        save_program(self, Path(path))

    @staticmethod
    def load(path: str | Path) -> Program:
        """Read and verify a file that ``save`` wrote; InputError names the file and what is wrong with it."""
        from simulator.program_file import load_program

        return load_program(Path(path))

    def __str__(self) -> str:
        from simulator.listing import print_program

        return print_program(self)


def _refuse(where: str, value: object, rule: str) -> None:
    raise InputError(where, str(value), rule, "The file is damaged or not ours: lower the checkpoint again.")
