"""The lower level of the IR: a whole program, with its file and its listing."""

from __future__ import annotations

from pathlib import Path

from simulator.base.shown import html_table
from simulator.program.listing import print_program
from simulator.program.program_file import load_program, save_program
from simulator.program.program_record import ProgramRecord


class Program(ProgramRecord):
    """Instructions for one machine layout, with the layers' schedules, weights and provenance (``ProgramRecord``)."""

    def save(self, path: str | Path) -> None:
        """Write program, weights and provenance as one file, atomically; equal programs give equal bytes."""
        save_program(self, Path(path))

    @staticmethod
    def load(path: str | Path) -> Program:
        """Read and verify a file that ``save`` wrote; InputError names the file and what is wrong with it."""
        return load_program(Path(path), Program)

    def __repr__(self) -> str:
        tiles = sum(len(layer.tiles) for layer in self.layers)
        what = "network of operators" if self.network is not None else "layers"
        return (
            f"<Program for '{self.machine.name}': {len(self.layers):,} {what}, {tiles:,} tiles, "
            f"{len(self.instructions):,} instructions, {self.tokens:,} rows; str() lists it>"
        )

    def _repr_html_(self) -> str:
        """In a notebook: the layers, or the operators that lowering gave tiles, in the program's order."""
        columns = ("layer", "form", "inputs", "outputs", "ranks", "tiles")
        rows = [
            (layer.name, layer.form, layer.in_features, layer.out_features, layer.ranks, len(layer.tiles))
            for layer in self.layers
        ]
        return html_table(repr(self).strip("<>").removesuffix("; str() lists it"), columns, rows)

    def __str__(self) -> str:
        return print_program(self)
