"""Any training loop, brought to a latency: layers that shrink on a schedule, driven by the optimiser's steps."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from gblr_hw.conversion.from_dense import layer_start
from gblr_hw.cost.target import UnreachableTargetError, parse_target
from gblr_hw.layers.matrix_layers import as_linear, linear_layer
from gblr_hw.layers.model_calls import call_of
from gblr_hw.layers.replace import linear_names, patterns_of, set_module
from gblr_hw.training.measure.whole_hardware import WholeNetwork, exported_measure, whole_hardware_of
from gblr_hw.training.shrink.project_training import ProjectionSchedule
from gblr_hw.weights.family import FAMILIES, family_named
from simulator import Machine
from simulator.base.errors import InputError


class LatencyTarget:
    """Swaps a model's linear layers for layers of a structure, and shrinks them to a latency while they are trained.

    Make it, then the optimiser, then `attach` the one to the other: from then on any loop will do (plain, Lightning,
    the Hugging Face Trainer; gradient accumulation and loss scaling too), since only the optimiser's own steps count.
    `finish` after the last step makes sure of the target. The structure shrinks in ten projections (see
    `ProjectionSchedule`), and stands still for the rest of the run.

    Parameters
    ----------
    model: changed in place: each matching linear layer (nn.Linear, transformers' Conv1D) becomes a `LatticeLinear` that
        computes the same. One that shares its weight with another module (a tied embedding) is not taken.
    machine: what it shall run on.
    target: "0.6x-dense", "50000cycles", "0.05ms", or a number of cycles: latency of the whole program, attention, norms
        and what stays on chip included.
    example_inputs: inputs shaped as they will be when the model runs: a tensor, a tuple of arguments, or a mapping of
        keyword arguments.
    steps: optimiser steps of the whole run.
    family: what layers become: "lattice", "low_rank", "block_sparse" or "rank_groups".
    layers, exclude: shell patterns on module names, one or several.
    start, end: part of the run over which the structure shrinks.

    Raises
    ------
    InputError: no layer matches, a family that is not shrunk in training, a model that cannot be exported, a target
        that is not below the dense latency.
    UnreachableTargetError: even empty layers would miss the target; the model is then as it was.
    """

    def __init__(
        self,
        model: nn.Module,
        machine: Machine,
        target: str | float,
        example_inputs: Any,
        steps: int,
        *,
        family: str = "lattice",
        layers: str | Iterable[str] = "*",
        exclude: str | Iterable[str] = (),
        start: float = 0.05,
        end: float = 0.6,
    ) -> None:
        shrunk = [name for name, entry in FAMILIES.items() if entry.training == "projection"]
        name = family_named(family, shrunk, "family").name
        if not 0 <= start < end <= 1:
            raise InputError("start and end", f"{start:g} and {end:g}", "0 <= start < end <= 1", "Try 0.05 and 0.6.")
        if steps < 1:
            raise InputError("steps", str(steps), "it is the number of optimiser steps of the run", "Count them.")
        self.model, self.machine, self.steps, self.seen = model, machine, steps, 0
        self.names = _chosen(model, layers, exclude)
        training = model.training
        args, kwargs = call_of(model, example_inputs)
        tokens = _rows_of_linears(model, self.names, args, kwargs)
        self.hardware = whole_hardware_of(machine, model, args, tokens, kwargs=kwargs)
        self.dense_cycles = self.hardware.measure(model)
        wanted = target if isinstance(target, str) else f"{target}cycles"
        self.target_cycles = parse_target(wanted).cycles(self.dense_cycles, machine.clock_ghz)
        made = {
            layer: layer_start(
                as_linear(linear_layer(model, layer)), name, self.hardware.rows, self.hardware.cols
            ).train(training)
            for layer in self.names
        }
        dense = {layer: linear_layer(model, layer) for layer in self.names}
        for layer, new in made.items():
            set_module(model, layer, new)
        self._schedule = ProjectionSchedule(
            self.target_cycles, self._exact, self.hardware.tile_cost, self.hardware.rows, self.hardware.cols,
            estimate=self.hardware.quick, start=start, end=end,
        )  # fmt: skip
        try:
            self._try()
        except UnreachableTargetError:
            for layer, old in dense.items():
                set_module(model, layer, old)
            raise
        finally:
            model.train(training)
        self._schedule.begin(model)
        self._attached: list[Any] = []
        self._call = args, kwargs
        # What the last projection measures with: of the model as it is by then, whose norms and biases may no longer be
        # ones and zeros, which an export leaves out.
        self._measure: WholeNetwork | None = None

    def _try(self) -> None:
        """Project onto the target and take it back, so that what cannot be reached is known before the training."""
        layers = [self.model.get_submodule(name) for name in self.names]
        states = [copy.deepcopy(layer.state_dict()) for layer in layers]
        self._schedule.project(self.model, self.target_cycles, self.hardware.measure, closely=False)
        for layer, state in zip(layers, states, strict=True):
            layer.load_state_dict(state)

    def attach(self, optimizer: torch.optim.Optimizer) -> LatencyTarget:
        """Follow an optimiser's steps from now on. InputError when it does not hold the layers' factors."""
        held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        for name in self.names:
            for part, parameter in self.model.get_submodule(name).named_parameters():
                if parameter.requires_grad and id(parameter) not in held:
                    raise InputError(
                        "optimizer", f"no '{name}.{part}'", "it trains the layers that shrink",
                        "Make the optimiser after the LatencyTarget, of model.parameters().",
                    )  # fmt: skip
        for handle in self._attached:
            handle.remove()
        self._attached = [
            optimizer.register_step_pre_hook(lambda *_: self._before()),
            optimizer.register_step_post_hook(lambda *_: self._after()),
        ]
        return self

    @property
    def progress(self) -> float:
        """Part of the run that is done."""
        return min(self.seen / self.steps, 1.0)

    def _before(self) -> None:
        self._schedule.before_step(self.model, self.progress)

    def _after(self) -> None:
        self._schedule.after_step(self.model, self.progress, 0.0)
        self.seen += 1

    def finish(self) -> float:
        """Meet the target whatever the loop has left undone, let go of the optimiser, and return the latency reached in
        cycles.
        """
        for handle in self._attached:
            handle.remove()
        self._attached = []
        self._measure = None
        self._schedule.finish(self.model)
        return self._exact(self.model)

    def estimated_cycles(self) -> float:
        """Latency of the model as it stands, in closed form, some per cent from the simulator's."""
        return self.hardware.quick(self.model)

    def _exact(self, model: nn.Module) -> float:
        """What lowering the model and simulating it gives."""
        if self._measure is None:
            (args, kwargs), training = self._call, model.training
            try:
                self._measure = exported_measure(self.machine, model, args, kwargs=kwargs)  # in evaluation mode
            finally:
                model.train(training)
        return self._measure(model)

    def state_dict(self) -> dict[str, Any]:
        """Beside the model's own state, all that is needed to go on."""
        return {"seen": self.seen, "schedule": self._schedule.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave; the model has its state back already."""
        self.seen = int(state["seen"])
        self._schedule.load_state_dict(state["schedule"])
        self._schedule.begin(self.model)


def _chosen(model: nn.Module, layers: str | Iterable[str], exclude: str | Iterable[str]) -> list[str]:
    """Names of the linear layers to replace. InputError where a pattern matches none, or none is left."""
    users: dict[int, int] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            users[id(parameter)] = users.get(id(parameter), 0) + 1
    first = {name for name, _ in model.named_modules()}  # of names that one module has
    candidates = [name for name in linear_names(model) if name in first]
    own = [name for name in candidates if users[id(linear_layer(model, name).weight)] == 1]
    listed = {"layers": patterns_of(layers), "exclude": patterns_of(exclude)}
    for what, patterns in listed.items():
        for one in patterns:
            if not any(fnmatchcase(name, one) for name in candidates):
                raise InputError(
                    what, repr(one),
                    f"it must match a linear layer; there are: {', '.join(candidates[:20]) or 'none'}"
                    + (f" and {len(candidates) - 20} more" if len(candidates) > 20 else ""),
                    "Correct it.",
                )  # fmt: skip
    found = [
        name
        for name in own
        if any(fnmatchcase(name, one) for one in listed["layers"])
        and not any(fnmatchcase(name, one) for one in listed["exclude"])
    ]
    if not found:
        raise InputError(
            "layers", ", ".join(map(repr, listed["layers"])),
            "at least one linear layer is left, with a weight of its own, that `exclude` does not take out",
            "Let `layers` name more.",
        )  # fmt: skip
    return found


@torch.no_grad()
def _rows_of_linears(model: nn.Module, names: list[str], args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    """Activation rows that the layers see, the most of any; InputError for a layer that the model does not call."""
    rows: dict[str, int] = {}

    def watch(name: str) -> Any:
        def seen(module: nn.Module, inputs: tuple[Tensor, ...], _: Any) -> None:
            rows[name] = max(rows.get(name, 1), inputs[0].numel() // max(inputs[0].shape[-1], 1))

        return model.get_submodule(name).register_forward_hook(seen)

    training, handles = model.training, [watch(name) for name in names]
    model.eval()
    try:
        model(*args, **kwargs)
    finally:
        for handle in handles:
            handle.remove()
        model.train(training)
    silent = [name for name in names if name not in rows]
    if silent:
        raise InputError(
            f"layer '{silent[0]}'", "not called", "the model calls each layer that is replaced as a module",
            f"Take it out: exclude={silent!r}.",
        )  # fmt: skip
    return max(rows.values())
