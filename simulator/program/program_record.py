"""What a program is: its parts, tied to a machine layout and checked when they are put together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from simulator.base.errors import InputError, refuse_program
from simulator.machine.machine import Machine
from simulator.network.network import Network
from simulator.program.check_heads import check_heads
from simulator.program.check_images import check_images
from simulator.program.check_network import check_network, check_operators
from simulator.program.check_places import check_places
from simulator.program.isa import Instructions
from simulator.program.operations import INPUT_CHUNK_OPS, TILE_OPS, VECTOR_OPERATOR_OPS, Place, is_any, listed, writes
from simulator.program.schedule import LayerSchedule


@dataclass(frozen=True, eq=False)
class ProgramRecord:
    """Instructions for one machine layout, with the layers' schedules, weights and provenance.

    ``tokens`` rows of activations enter every layer; layers run one after another, each reading its input from DRAM and
    writing its output there. ``machine`` is the one that it was laid out for; it also runs on any machine with the same
    ``layout_key``, so with another clock, bandwidth or latency. ``provenance`` is free text by key. With a ``network``
    every layer is one of its operators, in their order and of the same name, and has rows of its own.
    """

    machine: Machine
    tokens: int
    layers: tuple[LayerSchedule, ...]
    instructions: Instructions
    provenance: Mapping[str, str]
    network: Network | None = None

    def __post_init__(self) -> None:
        ins = self.instructions
        if self.network is not None:
            check_operators(self.layers, self.network, self.machine)
        if len(ins) and int(ins.layer.max()) >= len(self.layers):
            refuse_program("program: 'layer'", int(ins.layer.max()), f"it has {len(self.layers)} layers")
        names = [layer.name for layer in self.layers]
        if len(set(names)) != len(names):
            refuse_program("program: layer names", names, "every layer has a name of its own")
        if self.layers:
            self._check_instructions()
        check_places(ins, self.layers, self.machine, self.network)
        self._check_sources()
        if self.network is not None:
            check_network(ins, self.network, self.machine)
            check_heads(ins, self.layers, self.network, self.machine)
            check_images(ins, self.network, self.machine)

    def _check_sources(self) -> None:
        """What layers read of those before them is there, and as much as they read."""
        sizes: dict[str, int] = {}
        for layer in self.layers:
            where = f"program: layer '{layer.name}': sources"
            if layer.sources and self.network is not None:
                refuse_program(where, f"{len(layer.sources)} layers", "a network says what its operators read")
            for run in layer.sources:
                if not 0 <= run.first < run.last <= sizes.get(run.layer, 0):
                    found = f"outputs {run.first} to {run.last} of '{run.layer}'"
                    refuse_program(where, found, "a layer reads outputs of layers before it")
            width = sum(run.last - run.first for run in layer.sources)
            if layer.sources and width != layer.in_features:
                refuse_program(where, f"{width} outputs", f"they are its {layer.in_features} inputs")
            sizes[layer.name] = layer.out_features

    def _check_instructions(self) -> None:
        """Instructions against the tile tables of their layers and against the program's tokens."""
        ins, tables = self.instructions, [layer.tiles for layer in self.layers]
        sizes = np.array([len(table) for table in tables])
        self._refuse_first(
            (is_any(ins.op, TILE_OPS) | writes(ins.op, Place.WEIGHT_BUFFER)) & (ins.tile >= sizes[ins.layer]),
            lambda at: f"tile {ins.tile[at]}",
            lambda at: f"its tile table has {sizes[ins.layer[at]]} rows",
        )
        runs = np.flatnonzero(is_any(ins.op, TILE_OPS))
        tile = (np.cumsum(sizes) - sizes)[ins.layer[runs]] + ins.tile[runs]
        unlike = np.zeros(len(ins), dtype=bool)
        unlike[runs] = np.concatenate([table.kind for table in tables])[tile] != ins.op[runs]
        self._refuse_first(
            unlike,
            lambda _: "a tile instruction of another kind than its tile",
            lambda _: f"{listed(TILE_OPS, 'and')} run tiles of their own kind",
        )
        unlike[runs] = np.concatenate([table.row_cycles for table in tables])[tile] != ins.row_cycles[runs]
        self._refuse_first(
            unlike,
            lambda _: "row_cycles unlike the tile table's",
            lambda _: "an instruction takes its tile's cycles a row",
        )
        if self.network is None:
            self._check_plain(ins)

    def _check_plain(self, ins: Instructions) -> None:
        """What only programs of plain layers keep to: one number of tokens, and nothing of a network's instructions."""
        ends = ins.token0 + ins.tokens
        self._refuse_first(
            ends > self.tokens,
            lambda at: f"token {ends[at] - 1}",
            lambda _: f"the program has {self.tokens} tokens",
        )
        self._refuse_first(
            ins.other >= 0,
            lambda at: f"{ins.other[at]} rows of each query head",
            lambda _: "only scores and mix of a network have query heads",
        )
        self._refuse_first(
            is_any(ins.op, VECTOR_OPERATOR_OPS),
            lambda _: "a VECTOR without an operator",
            lambda _: "only the program of a network has VECTOR instructions",
        )
        self._refuse_first(
            is_any(ins.op, INPUT_CHUNK_OPS) & (ins.tile > 0),
            lambda at: f"operand {ins.tile[at]}",
            lambda _: "a layer without a network has one operand",
        )

    def _refuse_first(self, bad: np.ndarray, value: Callable[[int], str], rule: Callable[[int], str]) -> None:
        if bad.any():
            at = int(np.argmax(bad))
            refuse_program(f"program: layer '{self.layers[self.instructions.layer[at]].name}'", value(at), rule(at))

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
    def layer_rows(self) -> np.ndarray:
        """Rows that each layer computes, (L,) int64: its operator's, or the program's tokens."""
        if self.network is None:
            return np.full(len(self.layers), self.tokens, dtype=np.int64)
        return np.array([operator.rows for operator in self.network.operators], dtype=np.int64)

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
