"""What ``gblr-hw convert --model`` converts: a whole network, on batches of its own inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from gblr_hw.cli.sources.lower_source import Wish, model_file, model_of
from simulator.base.errors import InputError

if TYPE_CHECKING:
    from torch import nn

    from gblr_hw.conversion.fit.fit_weights import Converted
    from gblr_hw.weights.stored import DenseWeights
    from simulator.machine.machine import Machine

Progress = Callable[[int, int, str], None]

# Rows of an array that make a batch.
_BATCH = 4
_RULE = "it is a .npz or .safetensors file of the model's inputs by name, or FILE.py:FUNCTION, which yields batches"


@dataclass(frozen=True)
class Reached:
    """Of a whole program, converted and dense; output_error: of the model's output on its batches, of its norm."""

    latency_cycles: int
    dense_cycles: int
    energy_pj: float
    dense_energy_pj: float
    output_error: float


@dataclass(frozen=True, eq=False)
class ModelSource:
    """A model in evaluation mode, inputs that it is lowered for, and the batches that conversion runs it on."""

    model: nn.Module
    inputs: Any
    kwargs: Mapping[str, Any]
    batches: list[Any]
    notes: list[str]

    def dense(self) -> dict[str, DenseWeights]:
        """Its linear layers and convolutions as they are."""
        from gblr_hw.layers.matrix_layers import dense_weights

        return dense_weights(self.model)

    def moments(self, names: list[str]) -> dict[str, np.ndarray]:
        """Second moments of layers' inputs in the dense model."""
        from gblr_hw.conversion.covariances import collect_covariances

        return dict(collect_covariances(self.model, self.batches, names))

    def in_order(
        self,
        machine: Machine,
        names: list[str],
        tiles: float | None,
        hidden: Mapping[str, str],
        family: str | None,
        shrink: float | Literal["auto"],
        by_loss: bool,
        work: Path | None,
        progress: Progress,
    ) -> dict[str, Converted]:
        """The named layers, in the order in which they run."""
        from gblr_hw.conversion.fit.fit_layer import QUICK
        from gblr_hw.conversion.in_order.conversion_in_order import convert_in_order

        return convert_in_order(
            self.model, machine, self.batches, names, 0.3 if tiles is None else tiles, hidden=hidden, family=family,
            shrink=shrink, allocation="by-loss" if by_loss else "even", schedule=QUICK, work=work, progress=progress,
        )  # fmt: skip

    def by_loss(
        self,
        dense: Mapping[str, DenseWeights],
        machine: Machine,
        moments: Mapping[str, np.ndarray] | None,
        tiles: float | None,
        family: str | None,
        work: Path | None,
        progress: Progress,
    ) -> dict[str, Converted]:
        """The layers, each by itself. moments: of their inputs, where they are known."""
        from gblr_hw.conversion.fit.fit_layer import QUICK
        from gblr_hw.conversion.in_order.conversion_in_order import measured
        from gblr_hw.conversion.in_order.one_by_one import convert_by_loss
        from gblr_hw.conversion.in_order.pair_moments import stages

        known = measured(self.model, self.batches, stages(self.model, self.batches, dense), covariances=moments)
        share = 0.3 if tiles is None else tiles
        return convert_by_loss(
            dense, machine, known, share, family=family, schedule=QUICK, work=work, progress=progress
        )

    def distilled(self, found: Mapping[str, Converted], steps: int, progress: Progress) -> dict[str, Converted]:
        """Converted layers, trained for so many steps."""
        from gblr_hw.conversion.in_order.distil import Distillation, distil
        from gblr_hw.conversion.in_order.pair_moments import stages
        from gblr_hw.conversion.in_order.runs import chain_of

        blocks = chain_of(self.model, self.batches[0], stages(self.model, self.batches, found))
        return distil(self.model, found, self.batches, Distillation(steps), blocks, progress)[0]

    def reached(self, machine: Machine, found: Mapping[str, Converted]) -> Reached:
        """What the whole program takes, converted and dense, and what the conversion costs its output."""
        import copy

        from gblr_hw.conversion.in_order.convert_model import output_error
        from gblr_hw.frontend.put_weights import put_layers
        from gblr_hw.lowering.lower_model import lower_model
        from simulator.timing.simulate import simulate

        student = copy.deepcopy(self.model)
        put_layers(student, found, "converted layers")
        programs = (lower_model(one, machine, self.inputs, kwargs=self.kwargs) for one in (student, self.model))
        after, before = (simulate(program, machine) for program in programs)
        return Reached(
            int(after.latency_cycles), int(before.latency_cycles), float(after.energy_pj), float(before.energy_pj),
            output_error(self.model, student, self.batches),
        )  # fmt: skip


def source_of(model: str, data: str | None, checkpoint: Path | None) -> ModelSource:
    """The model that ``--model`` names, filled from a checkpoint if there is one, and the batches of ``--data``."""
    if data is None:
        raise InputError("--data", "nothing", "a model is converted on batches of its inputs", f"Give it: {_RULE}.")
    made, inputs, kwargs, notes = model_of(Wish(model, 1, None, 0, 0, checkpoint, None, False, None))
    return ModelSource(made.eval(), inputs, kwargs, _batches(made, data), notes)


def data_file(data: str | None) -> Path | None:
    """The file of ``--data``."""
    if data is None:
        return None
    return model_file(data) or Path(data)


def _batches(model: nn.Module, data: str) -> list[Any]:
    from gblr_hw.frontend.own_model import own_batches
    from gblr_hw.layers.model_calls import call_of

    if model_file(data) is not None:
        return own_batches(data)
    arrays = _arrays(data)
    rows = {name: len(array) if array.ndim else 0 for name, array in arrays.items()}
    if not rows or len(set(rows.values())) != 1 or 0 in rows.values():
        found = ", ".join(f"{name} {tuple(array.shape)}" for name, array in arrays.items()) or "nothing"
        raise InputError(f"--data '{data}'", found, "all arrays have as many rows, one an example", "Write it so.")
    alone = next(iter(arrays.values())) if len(arrays) == 1 else None
    taken = call_of(model, arrays)[1]
    if alone is None and taken.keys() != arrays.keys():
        unknown = sorted(arrays.keys() - taken.keys())
        raise InputError(f"--data '{data}'", f"'{unknown[0]}'", "names are the model's inputs", "Rename it.")
    starts = range(0, next(iter(rows.values())), _BATCH)
    if alone is not None and not taken:
        return [alone[at : at + _BATCH] for at in starts]
    return [{name: array[at : at + _BATCH] for name, array in arrays.items()} for at in starts]


def _arrays(data: str) -> dict[str, Any]:
    import torch

    from gblr_hw.files.tensor_files import read_tensors

    path = Path(data)
    if path.suffix == ".safetensors":
        return dict(read_tensors(path).state)
    if path.suffix != ".npz":
        raise InputError("--data", repr(data), _RULE, "Write such a file.")
    try:
        with np.load(path, allow_pickle=False) as found:
            return {name: torch.from_numpy(np.array(found[name])) for name in found.files}
    except (OSError, ValueError, TypeError) as error:
        text = (str(error).splitlines() or [""])[0]
        raise InputError(f"--data '{data}'", f"{type(error).__name__}: {text}", _RULE, "Write it again.") from error
