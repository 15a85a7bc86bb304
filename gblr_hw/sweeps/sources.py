"""What a sweep runs: a network, read or exported once, and lowered for one machine after another."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from gblr_hw.files.checkpoint import load_checkpoint
from gblr_hw.frontend import export_network
from gblr_hw.lowering.pipeline import lower
from gblr_hw.lowering.whole_network import lower_network
from gblr_hw.weights.stored import LayerWeights
from simulator import Machine, Program
from simulator.base.errors import InputError
from simulator.network.network import Network


@dataclass(frozen=True, eq=False)
class Source:
    """A network that programs are made of.

    name: in the results. digest: what changes when the network does. layers: weights by layer. network: the operators
    of a whole model, None where layers run one after another, each with a point's `tokens` activation rows.
    """

    name: str
    digest: str
    layers: Mapping[str, LayerWeights]
    network: Network | None = None

    def lower(self, machine: Machine, tokens: int) -> Program:
        """The program for one machine. Raises InputError for a layer that the machine cannot hold."""
        if self.network is None:
            return lower(self.layers, machine, tokens=tokens)
        return lower_network(self.network, self.layers, machine)


def checkpoint_source(path: str | Path, gaussian: bool | None = None) -> Source:
    """The layers of a checkpoint file. Raises InputError for one that cannot be read."""
    path = Path(path)
    layers = load_checkpoint(path, gaussian=gaussian)
    digest = hashlib.sha256()
    for one in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if one.is_file():
            digest.update(f"{one.name} {gaussian} ".encode() + one.read_bytes())
    return Source(path.name, digest.hexdigest(), layers)


def model_source(
    model: nn.Module, example_inputs: Any, *, kwargs: Mapping[str, Any] | None = None, name: str = ""
) -> Source:
    """A whole model in evaluation mode, exported now. Raises InputError for what cannot be exported."""
    exported = export_network(model, example_inputs, kwargs=kwargs)
    digest = hashlib.sha256(repr(exported.network).encode())
    for key, value in model.state_dict().items():
        digest.update(f"{key} {tuple(value.shape)} ".encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return Source(name or type(model).__name__, digest.hexdigest(), exported.weights, exported.network)


def source_of(given: Any, example_inputs: Any = None, kwargs: Mapping[str, Any] | None = None) -> Source:
    """A source from what callers have: one, a checkpoint's path, or a model with example inputs."""
    if isinstance(given, Source):
        return given
    if isinstance(given, nn.Module):
        if example_inputs is None and kwargs is None:
            raise InputError(
                "example_inputs", "nothing", "a model is exported for inputs", "Give a tensor or a tuple of arguments."
            )
        return model_source(given, () if example_inputs is None else example_inputs, kwargs=kwargs)
    if isinstance(given, str | Path):
        return checkpoint_source(given)
    raise InputError(
        "source", type(given).__name__, "it is a checkpoint's path or a model with example inputs", "Give one of these."
    )
