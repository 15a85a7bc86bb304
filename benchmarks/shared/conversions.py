"""A network's layers converted by one method after another as `gblr_hw.convert` does it; a work folder keeps each."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from benchmarks.shared.measurement import told_each
from gblr_hw import collect_covariances, convert, lower
from gblr_hw.conversion.covariances import load_covariances, save_covariances
from gblr_hw.conversion.fit.fit_layer import QUICK
from gblr_hw.conversion.fit.fit_weights import Converted
from gblr_hw.conversion.fit.fit_whole import tiles_of
from gblr_hw.conversion.in_order.conversion_in_order import measured
from gblr_hw.conversion.in_order.one_by_one import convert_by_loss
from gblr_hw.conversion.in_order.pair_moments import stages
from gblr_hw.conversion.in_order.share_by_loss import Sensitivity
from gblr_hw.files.checkpoint import load_checkpoint, save_checkpoint
from gblr_hw.frontend.put_weights import put_layers
from gblr_hw.layers.matrix_layers import dense_weights
from gblr_hw.weights.stored import DenseWeights
from gblr_hw.weights.structure import dense_tile_count
from simulator import Machine, simulate

Layers = Mapping[str, Converted]
Make = Callable[[Any, str, float], Layers]


@dataclass(eq=False)
class Conversions:
    """model: in evaluation mode. batches: those that calibrate. names: the layers that may change. rows: batch -> mask
    of what is no padding.

    Fits, and the way that tiles are shared, are the library's own: nothing is tuned.
    """

    model: nn.Module
    batches: Sequence[Any]
    names: Sequence[str]
    machine: Machine
    work: Path
    rows: Callable[[Any], Tensor] | None = None

    @cached_property
    def sensitivity(self) -> Sensitivity:
        """Measured once for all conversions, each of which would find the same; the work folder keeps it."""
        paths = [self.work / f"{name}.safetensors" for name in ("outputs", "inputs")]
        if not all(path.exists() for path in paths):
            known = measured(self.model, self.batches, stages(self.model, self.batches, self.names), self.rows)
            self.work.mkdir(parents=True, exist_ok=True)
            for path, moments in zip(paths, (known.outputs, known.inputs), strict=True):
                save_covariances(moments, path)
        return Sensitivity(*(load_covariances(path) for path in paths))

    @cached_property
    def dense(self) -> dict[str, DenseWeights]:
        """The layers as they are."""
        found = dense_weights(self.model)
        return {name: found[name] for name in self.names}

    @property
    def four_bits(self) -> Machine:
        """The machine with tiles of four bits beside those of eight."""
        return self.machine.with_(datatypes={"narrow_bits": 4})

    def by_loss(self, family: str, share: float) -> Layers:
        """Each layer by itself, tiles where the output would lose most: `gblr-hw convert --model --alone --by-loss`."""
        return convert_by_loss(
            self.dense, self.machine, self.sensitivity, share, family=family, schedule=QUICK, progress=_progress,
            work=self.work / "fitted",
        )  # fmt: skip

    def in_order(self, family: str, share: float) -> Layers:
        """Layer after layer, tiles by loss: `gblr_hw.convert(model, machine, batches=...)`."""
        return convert(
            self.model, self.machine, share, batches=self.batches, names=self.names, family=family,
            allocation="by-loss", sensitivity=self.sensitivity, rows=self.rows, work=self.work / "fitted",
            progress=_progress,
        ).weights  # fmt: skip

    def rounded(self, _family: str, _share: float) -> Layers:
        """All tiles, in four bits, errors made up for."""
        moments = collect_covariances(self.model, self.batches, self.names, self.rows)
        return convert(self.dense, self.four_bits, 1.0, moments, family="block-sparse", bits=4)

    @property
    def methods(self) -> Mapping[str, tuple[str, Make]]:
        """By name, what a method is given (a family, or another method's name) and how it makes layers."""
        return METHODS

    def made(self, method: str, share: float) -> dict[str, Converted]:
        """The layers of one of the methods."""
        family, make = self.methods[method]
        return dict(self.kept(method, share, lambda: make(self, family, share)))

    def on(self, method: str) -> Machine:
        """The machine that a method's layers are for."""
        return self.four_bits if method == "int4" else self.machine

    def kept(self, method: str, share: float, make: Callable[[], Layers]) -> Layers:
        """A method's layers, which the work folder keeps."""
        path = self.work / f"{method}-{share:g}.safetensors"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            save_checkpoint(dict(make()), path)
        return load_checkpoint(path)

    def tiles(self, found: Layers, gone: Sequence[str] = ()) -> float:
        """Share of the dense tiles of all layers. gone: beginnings of names of those that are left out."""
        rows, cols = self.machine.rows, self.machine.cols
        dense = {
            name: dense_tile_count(one.out_features, one.in_features, rows, cols) for name, one in self.dense.items()
        }
        left = [name for name in dense if not name.startswith(tuple(gone))]
        return sum(tiles_of(found[one], rows, cols) if one in found else dense[one] for one in left) / sum(
            dense.values()
        )


METHODS: Mapping[str, tuple[str, Make]] = {
    "low-rank-by-loss": ("low-rank", Conversions.by_loss),
    "lattice-by-loss": ("lattice", Conversions.by_loss),
    "low-rank-in-order": ("low-rank", Conversions.in_order),
    "lattice-in-order": ("lattice", Conversions.in_order),
    "block-sparse-in-order": ("block-sparse", Conversions.in_order),
    "int4": ("block-sparse", Conversions.rounded),
}


def costs(model: nn.Module, found: Layers, machine: Machine, example: Any) -> dict[str, int]:
    """Cycles and DRAM bytes of one program of the whole network with layers in their places."""
    student = copy.deepcopy(model)
    put_layers(student, found, "converted layers")
    report = simulate(lower(student, machine, example_inputs=example), machine)
    return {"latency_cycles": int(report.latency_cycles), "dram_bytes": int(report.dram_bytes)}


_progress = told_each(8)
