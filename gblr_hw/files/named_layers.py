"""Layers by name as they show themselves: a checkpoint that was read, or what a conversion made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from torch import Tensor

from gblr_hw.weights.factors import Factors, evaluate
from gblr_hw.weights.multiplications import multiplications
from gblr_hw.weights.stored import LayerWeights
from simulator.base.errors import InputError
from simulator.base.shown import Table, Tabled, data_frame

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Weights = TypeVar("Weights", bound=LayerWeights)


class Checkpoint(Tabled, dict[str, Weights]):
    """Layer name -> weights: a dict that shows itself as a table of its layers."""

    def table(self) -> Table:
        """A row for each layer, without evaluating masks."""
        rows = [
            (name, one.family, one.out_features, one.in_features, stored_numbers(one)) for name, one in self.items()
        ]
        caption = f"{len(self):,} layers, {sum(row[-1] for row in rows):,} numbers"
        return Table(caption, ("layer", "family", "outputs", "inputs", "numbers"), rows)

    def to_dataframe(self) -> Any:
        """A pandas.DataFrame with a row for each layer, as `gblr-hw show --json` prints them: name, family,
        in_features, out_features, ranks, ranks_alive, multiplications (a token) and what that is of the dense layer's.
        Raises InputError without pandas.
        """
        return data_frame(layer_rows(self))

    def plot(self, layers: Iterable[str] | None = None, title: str = "") -> Figure:
        """Block maps as a matplotlib figure: how many ranks write each entry of a layer's matrix.

        layers: names of those to draw, all that have ranks if None. Raises InputError for a name that is not there, and
        where nothing has ranks.
        """
        names = list(self) if layers is None else list(layers)
        for name in names:
            if name not in self:
                raise InputError("plot: layers", repr(name), f"layers are {', '.join(list(self)[:8])}", "Correct it.")
        return draw_maps({name: evaluated(self[name]) for name in names}, title)


def evaluated(weights: LayerWeights) -> Factors:
    """What the hardware runs of a layer, its channels in their own order."""
    return evaluate(weights).in_natural_order()


def layer_rows(layers: Mapping[str, LayerWeights]) -> list[dict[str, Any]]:
    """Family, sizes, ranks and multiplications of each layer, of the evaluated form."""
    rows = []
    for name, weights in layers.items():
        factors, count = evaluated(weights), multiplications(weights)
        rows.append(
            {
                "name": name,
                "family": factors.family,
                "in_features": factors.in_features,
                "out_features": factors.out_features,
                "ranks": factors.ranks,
                "ranks_alive": int((factors.reads.any(axis=1) & factors.writes.any(axis=1)).sum()),
                "multiplications": count,
                "multiplications_of_dense": count / (factors.in_features * factors.out_features),
            }
        )
    return rows


def draw_maps(layers: Mapping[str, Factors], title: str = "") -> Figure:
    """The map of overlapping blocks of each layer that has ranks. Raises InputError where none has."""
    from analysis.pictures.block_map import coverage, draw_block_maps

    maps = {name: coverage(factors.writes, factors.reads) for name, factors in layers.items() if factors.ranks}
    if not maps:
        raise InputError(
            "layers", "none with blocks", "a map shows the blocks of layers that have ranks", "Name another one."
        )
    return draw_block_maps(maps, title=title)


def stored_numbers(weights: object) -> int:
    """How many numbers a layer's tensors hold, its masks and biases included."""
    if isinstance(weights, Tensor):
        return weights.numel()
    if isinstance(weights, tuple):
        return sum(map(stored_numbers, weights))
    if is_dataclass(weights):
        return sum(stored_numbers(getattr(weights, field.name)) for field in fields(weights))
    return 0
