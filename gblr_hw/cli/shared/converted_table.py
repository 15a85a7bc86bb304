"""What became of each layer that was converted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from analysis.tables.table import Column, count, format_table
from simulator.machine.machine import Machine

if TYPE_CHECKING:
    from gblr_hw.conversion.fit.fit_weights import Converted
    from gblr_hw.weights.stored import DenseWeights


def layer_rows(
    dense: Mapping[str, DenseWeights],
    found: Mapping[str, Converted],
    machine: Machine,
    moments: Mapping[str, np.ndarray] | None,
    hidden: Mapping[str, str],
) -> list[dict[str, object]]:
    """A record a layer: tiles, ranks, bits and relative error. moments, hidden: as `convert` takes them."""
    from gblr_hw.conversion.conversion_input import read_layers
    from gblr_hw.conversion.fit.fit_weights import relative_error
    from gblr_hw.conversion.fit.fit_whole import tiles_of
    from gblr_hw.weights.factors import evaluate
    from gblr_hw.weights.stored import LatticeWeights
    from gblr_hw.weights.structure import dense_tile_count

    problems, _ = read_layers(dense, machine, moments, hidden)
    rows: list[dict[str, object]] = []
    for name, weights in found.items():
        rows.append(
            {
                "name": name,
                "tiles": tiles_of(weights, machine.rows, machine.cols),
                "dense_tiles": dense_tile_count(weights.out_features, weights.in_features, machine.rows, machine.cols),
                "kept_dense": int(weights.tiles.sum()) if isinstance(weights, LatticeWeights) else 0,
                "ranks": evaluate(weights).ranks,
                **_bits_of(weights, machine),
                "relative_error": relative_error(problems[name], weights),
            }
        )
    return rows


def _bits_of(weights: Converted, machine: Machine) -> dict[str, int]:
    """Bits of a layer's dense tiles and of its ranks, 0 without any."""
    from gblr_hw.weights.stored import LatticeWeights

    wide = machine.datatypes.weight_bits
    if not isinstance(weights, LatticeWeights):
        return {"dense_bits": 0, "rank_bits": wide}
    parts = (("dense_bits", weights.grid, weights.tiles), ("rank_bits", weights.rank_grid, weights.reads))
    return {name: (wide if grid is None else grid.bits) if bool(held.any()) else 0 for name, grid, held in parts}


def print_layers(rows: list[dict[str, object]], *, with_bits: bool) -> None:
    """Layers' records as a table, and the tiles of all together."""
    columns = [
        Column("layer", "name", align="left"),
        Column("tiles", "tiles", count),
        Column("dense layer's", "dense_tiles", count),
        Column("kept dense", "kept_dense", count),
        Column("ranks", "ranks", count),
        Column("relative error", "relative_error", lambda value: f"{value:.4f}"),
    ]
    if with_bits:
        columns.insert(4, Column("their bits", "dense_bits", count))
        columns.insert(6, Column("their bits", "rank_bits", count))
    print(format_table(columns, rows), end="")
    used, of = (sum(int(str(row[key])) for row in rows) for key in ("tiles", "dense_tiles"))
    print(f"{used:,} of {of:,} tiles ({used / of:.4f})")
