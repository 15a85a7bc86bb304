"""Latency of a model by its tiles alone: the compute-bound form of the cost (tiles times max(tokens, P))."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from gblr_hw.layers.lattice_linear import LatticeLinear
from gblr_hw.layers.linear import GBLRLinear
from gblr_hw.weights.factors import evaluate, structure_of
from gblr_hw.weights.structure import dense_tile_count


@dataclass(frozen=True)
class TileLatency:
    """Cycles of all linear layers on a `rows` x `cols` array for `tokens` tokens, ranks packed by chunk (needs
    scatter).

    A stand-in for the simulator inside a training loop: no DRAM, no start-up, no vector unit.
    """

    rows: int
    cols: int
    tokens: int

    @property
    def tile_cycles(self) -> float:
        """Cycles per tile: streaming the tokens, or loading the weights when there are few."""
        return float(max(self.tokens, self.rows))

    def tiles(self, model: nn.Module) -> int:
        """Tiles of the model as it would be evaluated."""
        return sum(self._layer_tiles(module) for module in model.modules())

    def __call__(self, model: nn.Module) -> float:
        return self.tiles(model) * self.tile_cycles

    def _layer_tiles(self, module: nn.Module) -> int:
        if isinstance(module, LatticeLinear):
            return module.structure.tile_count(self.rows, self.cols)
        if isinstance(module, GBLRLinear):
            return structure_of(evaluate(module.weights()), self.rows, self.cols).tile_count(self.rows, self.cols)
        if isinstance(module, nn.Linear):
            return dense_tile_count(module.out_features, module.in_features, self.rows, self.cols)
        return 0
