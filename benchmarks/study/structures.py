"""What learned structures look like: tiles and ranks of every layer, and maps of where a matrix keeps its entries.

``python -m benchmarks.study.structures build/study/networks/NAME.safetensors ...`` prints a table for each network that
`make study` left (those of seed 0); P and Q are those of the machine in the file's name. With ``--out
docs/data/study_structures.json`` the network that documents show of each part is counted into that file and drawn into
docs/images/study-structures.png; `make docs` writes the tables into docs/claims-tables.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from analysis.pictures import style
from analysis.pictures.block_map import coverage, draw_block_maps
from analysis.pictures.family_marks import REFERENCE
from analysis.tables.table import Column, count, format_table, percent
from benchmarks.shared.measurement import write_json
from benchmarks.study.settings import Study, read_study
from benchmarks.study.tables import LEARNED
from gblr_hw.files.checkpoint import load_checkpoint
from gblr_hw.weights.factors import Factors, evaluate, structure_of
from gblr_hw.weights.family import old_labels, renamed
from gblr_hw.weights.stored import LayerWeights
from gblr_hw.weights.structure import dense_tile_count
from simulator import Machine
from simulator.base.arithmetic import ceil_div
from simulator.base.errors import InputError

NETWORKS = Path("build/study/networks")


@dataclass(frozen=True)
class SavedNetwork:
    """A network of the study that was kept: what it is, and its file."""

    part: str
    trained_for: str
    family: str
    budget: float
    seed: int
    path: Path

    @property
    def title(self) -> str:
        return f"{self.part}, trained for {self.trained_for}: {self.family}, {self.budget:g}x, seed {self.seed}"


def network_file(folder: Path, part: str, trained_for: str, family: str, budget: float, seed: int) -> SavedNetwork:
    """Where the study keeps a network: under its family's label, or under an old one if it was kept under that."""
    labels = [family, *old_labels(family)]
    names = [f"{part}.{trained_for}.{label.replace(' ', '_')}.{budget}.{seed}.safetensors" for label in labels]
    paths = [folder / name for name in names]
    path = next((path for path in paths if path.exists()), paths[0])
    return SavedNetwork(part, trained_for, family, budget, seed, path)


def named(path: Path) -> SavedNetwork:
    """What a file of the study is, from its name. Raises InputError for another name."""
    fields = path.name.removesuffix(".safetensors").split(".")
    try:
        part, trained_for, family, *budget, seed = fields
        label = renamed(family.replace("_", " "))
        return SavedNetwork(part, trained_for, label, float(".".join(budget)), int(seed), path)
    except ValueError:
        raise InputError(
            f"file '{path}'",
            f"the name '{path.name}'",
            "the study's networks are PART.MACHINE.FAMILY.BUDGET.SEED.safetensors",
            "Give a file of build/study/networks, which `make study` writes.",
        ) from None


def loaded(network: SavedNetwork) -> dict[str, LayerWeights]:
    """Its layers. Raises InputError where the file is missing."""
    if not network.path.exists():
        raise InputError(
            f"network '{network.path}'", "no such file", "the study keeps its networks of seed 0", "Run `make study`."
        )
    return load_checkpoint(network.path)


@dataclass(frozen=True)
class LayerTiles:
    """Tiles of one layer, or of several together. full: those of the dense layer; ranks: living ones."""

    layer: str
    size: str
    full: int
    dense: int
    ranks: int
    reduce: int
    expand: int

    @property
    def tiles(self) -> int:
        return self.dense + self.reduce + self.expand


def layer_tiles(name: str, weights: LayerWeights, rows: int, cols: int) -> LayerTiles:
    """What a layer needs on an array of P = rows and Q = cols, ranks packed by chunk."""
    factors = evaluate(weights)
    structure = structure_of(factors, rows, cols)
    return LayerTiles(
        name,
        f"{factors.out_features} x {factors.in_features}",
        dense_tile_count(factors.out_features, factors.in_features, rows, cols),
        int(structure.tiles.sum()),
        structure.ranks,
        int(ceil_div(structure.reads.sum(axis=0), cols).sum()),
        int(ceil_div(structure.writes.sum(axis=0), rows).sum()),
    )


def all_layers(layers: Sequence[LayerTiles]) -> LayerTiles:
    """Their sum."""
    sums = (sum(getattr(one, key) for one in layers) for key in ("full", "dense", "ranks", "reduce", "expand"))
    return LayerTiles("all", "", *sums)


def counted(network: SavedNetwork) -> dict[str, Any]:
    """A network of the study and the tiles of its layers, as docs/data keeps them."""
    machine = Machine.load(network.trained_for)
    layers = [layer_tiles(name, one, machine.rows, machine.cols) for name, one in loaded(network).items()]
    key = {field.name: getattr(network, field.name) for field in fields(network) if field.name != "path"}
    return {**key, "layers": [asdict(one) for one in layers]}


def structure_tables(networks: Sequence[Mapping[str, Any]]) -> str:
    """One table a network, one below the other."""
    return "\n".join(structure_table(one) for one in networks)


def structure_table(network: Mapping[str, Any]) -> str:
    """The layers of a counted network, under its title."""
    columns = (
        Column("layer", "layer", align="left"),
        Column("outputs x inputs", "size"),
        Column("tiles if dense", "full", count),
        Column("dense tiles", "dense", count),
        Column("ranks", "ranks", count),
        Column("reduce", "reduce", count),
        Column("expand", "expand", count),
        Column("tiles", "tiles", count),
        Column("of dense", "of_dense", percent),
        Column("of the network", "of_network", percent),
    )
    layers = [LayerTiles(**one) for one in network["layers"]]
    total = all_layers(layers)
    rows = [
        {
            **asdict(one),
            "tiles": one.tiles,
            "of_dense": one.tiles / one.full,
            "of_network": one.tiles / max(1, total.tiles),
        }
        for one in (*layers, total)
    ]
    key = {field: value for field, value in network.items() if field != "layers"}
    title = SavedNetwork(**key | {"family": renamed(network["family"])}, path=Path()).title
    return f"{title}\n\n{format_table(columns, rows, markdown=True)}"


def structure_picture(networks: Sequence[SavedNetwork], layers_each: int = 4) -> Figure:
    """Maps of the first structured layers of each network: how many ranks cover each entry."""
    counts: dict[str, NDArray[np.integer]] = {}
    for network in networks:
        side = Machine.load(network.trained_for).rows
        layers = [(name, evaluate(weights)) for name, weights in loaded(network).items()]
        structured = [(name, factors) for name, factors in layers if factors.family != REFERENCE]
        counts |= {f"{network.part} {name}": covered(factors, side) for name, factors in structured[:layers_each]}
    sides = {Machine.load(network.trained_for).rows for network in networks}
    side = sides.pop() if len(sides) == 1 else 0
    return draw_block_maps(counts, chunks=(side, side) if side else None, title=_picture_title(networks))


def covered(factors: Factors, side: int) -> NDArray[np.int32]:
    """(m, n) ranks at every entry; a dense tile counts as the ``side`` ranks that it can hold."""
    counts = coverage(factors.writes, factors.reads)
    return counts if factors.dense_support is None else counts + side * factors.dense_support.astype(np.int32)


def _picture_title(networks: Sequence[SavedNetwork]) -> str:
    return ", ".join(f"{network.part} {network.budget:g}x on {network.trained_for}" for network in networks)


def shown_networks(results: Study, folder: Path) -> list[SavedNetwork]:
    """One kept network of each part: automatic choice trained for the part's first machine, seed 0.

    It is that of the budget nearest the middle which is no plain low rank, or else that of the middle.
    """
    found = []
    for part in results.parts:
        machine = results.training_machines(part)[0]
        settings = [s for s in results.of(part, LEARNED, machine) if 0 in s.runs]
        settings.sort(key=lambda s: -s.budget)
        middle = len(settings) // 2
        nearest = sorted(range(len(settings)), key=lambda at: abs(at - middle))
        for at in sorted(nearest, key=lambda at: settings[at].runs[0].kind == "low_rank"):
            network = network_file(folder, part, machine, LEARNED, settings[at].budget, seed=0)
            if network.path.exists():
                found.append(network)
                break
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", type=Path, help="files; without any, all that the study left")
    parser.add_argument("--results", type=Path, default=Path("docs/data/study.jsonl"))
    parser.add_argument("--out", type=Path, help="count the networks that documents show into this file, and draw them")
    parser.add_argument("--picture", type=Path, default=Path("docs/images/study-structures.png"))
    options = parser.parse_args()
    try:
        if options.out is None:
            networks = [named(path) for path in options.networks or sorted(NETWORKS.glob("*.safetensors"))]
        else:
            networks = shown_networks(read_study(options.results), NETWORKS)
        if not networks:
            raise InputError(
                f"folder '{NETWORKS}'", "no network", "the study keeps its networks of seed 0", "Run `make study`."
            )
        data = [counted(network) for network in networks]
        print(structure_tables(data), end="")
        if options.out is not None:
            style.save_figure(structure_picture(networks), options.picture)
            write_json(options.out, networks=data)
    except InputError as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
