"""The lower level of the IR: a whole program, with its file and its listing."""

from __future__ import annotations

from pathlib import Path

from simulator.base.pictures import Pictured
from simulator.base.shown import Table, Tabled
from simulator.program.program_file import load_program, save_program
from simulator.program.program_record import ProgramRecord


class Program(Tabled, Pictured, ProgramRecord):
    """Instructions for one machine layout, with the layers' schedules, weights and provenance (``ProgramRecord``)."""

    def save(self, path: str | Path) -> None:
        """Write program, weights and provenance as one file, atomically; equal programs give equal bytes."""
        save_program(self, Path(path))

    @staticmethod
    def load(path: str | Path) -> Program:
        """Read and verify a file that ``save`` wrote; InputError names the file and what is wrong with it."""
        return load_program(Path(path), Program)

    def table(self) -> Table:
        """The layers, or the operators that lowering gave tiles, in the program's order."""
        tiles = sum(len(layer.tiles) for layer in self.layers)
        what = "operators of a network" if self.network is not None else "layers"
        caption = (
            f"Program for '{self.machine.name}': {len(self.layers):,} {what}, {tiles:,} tiles, "
            f"{len(self.instructions):,} instructions, {self.tokens:,} rows"
        )
        columns = ("layer", "form", "inputs", "outputs", "ranks", "tiles")
        rows = [
            (layer.name, layer.form, layer.in_features, layer.out_features, layer.ranks, len(layer.tiles))
            for layer in self.layers
        ]
        return Table(caption, columns, rows)

    def __str__(self) -> str:
        from simulator.program.listing import print_program  # which loading and simulating do without

        return print_program(self)
