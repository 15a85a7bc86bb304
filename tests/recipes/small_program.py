"""One dense layer on a 4 x 4 array, and changes of its program by hand: what recipes are tried on."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import torch

from gblr_hw import lower
from gblr_hw.weights.stored import DenseWeights
from simulator import Machine, Program
from simulator.program.isa import Instructions
from simulator.program.operations import TILE_OPS, After, Op, is_any


def small_machine() -> Machine:
    return Machine.load("edge-16").with_(name="small", array={"rows": 4, "cols": 4})


def dense_program(machine: Machine, inputs: int, outputs: int, tokens: int) -> tuple[Program, np.ndarray]:
    """The program of a random dense layer called "layer", without a bias, and its matrix."""
    weight = torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(0))
    return lower({"layer": DenseWeights(weight, None)}, machine, tokens=tokens), weight.numpy().astype(np.float64)


def with_ops(program: Program, kinds: Mapping[int, Op]) -> Program:
    """The program with some of its only layer's tiles, and the instructions that run them, of another kind."""
    layer, ins = program.layers[0], program.instructions
    kind, op = layer.tiles.kind.copy(), ins.op.copy()
    for tile, new in kinds.items():
        kind[tile] = new
        op[is_any(ins.op, TILE_OPS) & (ins.tile == tile)] = new
    layers = (replace(layer, tiles=replace(layer.tiles, kind=kind)),)
    return replace(program, layers=layers, instructions=replace(ins, op=op))


def behind_drains(program: Program, op: Op) -> Program:
    """The program with an instruction ``op`` behind each DRAIN, on what it wrote; stores wait for that instead."""
    ins = program.instructions
    drains = np.flatnonzero(ins.op == Op.DRAIN)
    place = np.arange(len(ins)) + np.searchsorted(drains, np.arange(len(ins)))  # of each old instruction
    columns = {}
    for field in fields(Instructions):
        old = getattr(ins, field.name)
        columns[field.name] = np.insert(old, drains + 1, old[..., drains], axis=-1)
    new = place[drains] + 1
    columns["op"][new] = op
    columns["src"][new] = columns["dst"][new]
    columns["accumulate"][new] = 0
    after = columns["after"]
    named = after >= 0
    after[named] = place[after[named]]
    after[:, new] = -1
    after[After.VECTOR, new] = new - 1
    stores = np.flatnonzero(columns["op"] == Op.STORE)
    after[After.VECTOR, stores] += 1
    return replace(program, instructions=Instructions(**columns))


def saved_and_loaded(program: Program) -> Program:
    with tempfile.TemporaryDirectory() as folder:
        program.save(Path(folder) / "one.program")
        return Program.load(Path(folder) / "one.program")
