"""What a sweep runs: networks, read or exported once each, lowered for one machine after another, as they are or with
their dense layers converted.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from gblr_hw.conversion.fit.fit_weights import Converted
from gblr_hw.files.checkpoint import load_checkpoint
from gblr_hw.frontend import export_network
from gblr_hw.frontend.put_weights import put_layers
from gblr_hw.layers.matrix_layers import dense_weights
from gblr_hw.lowering.pipeline import lower
from gblr_hw.lowering.whole_network import lower_network
from gblr_hw.sweeps.axes import NETWORK_FIELDS, Settings
from gblr_hw.weights.dense_layers import dense_layers
from gblr_hw.weights.stored import DenseWeights, LayerWeights
from simulator import Machine, Program
from simulator.base.errors import InputError
from simulator.network.network import Network as Graph


@dataclass(frozen=True, eq=False)
class Source:
    """What programs are made of; all of it goes to other processes.

    name: in the results. digest: what changes when the network does. layers: weights by layer. graph: the operators of
    a whole model, None where layers run one after another, each with a point's `tokens` activation rows.
    relative_error: of layers that were converted, 0 for a network that is dense on purpose, None where no family is
    asked for.
    """

    name: str
    digest: str
    layers: Mapping[str, LayerWeights]
    graph: Graph | None = None
    relative_error: float | None = None

    def lower(self, machine: Machine, tokens: int) -> Program:
        """The program for one machine. Raises InputError for a layer that the machine cannot hold."""
        if self.graph is None:
            return lower(self.layers, machine, tokens=tokens)
        return lower_network(self.graph, self.layers, machine)


@dataclass(frozen=True, eq=False)
class Network:
    """A network as it is. dense: its dense layers, for `gblr_hw.conversion`; InputError where there are none. with_:
    the same with converted layers in their places, by name.
    """

    source: Source
    dense: Callable[[], Mapping[str, DenseWeights]]
    with_: Callable[[Mapping[str, Converted]], Source]


@dataclass(frozen=True, eq=False)
class Networks:
    """The networks of a sweep. fields: the settings that tell one from another. load: one of them, by these."""

    fields: tuple[str, ...]
    load: Callable[[Settings], Network]

    def check(self, fields: tuple[str, ...]) -> None:
        """Raise InputError for settings that ask for another network where there is one; of tokens, which may be those
        of a checkpoint's layers, each network tells.
        """
        for field in fields:
            if field in NETWORK_FIELDS and field not in (*self.fields, "tokens"):
                raise InputError(
                    f"--set {field}", "a network that it does not tell from another",
                    "a checkpoint is one of several files, a batch that of a known network",
                    "Leave it out, or from Python give a function of these settings that returns the network.",
                )  # fmt: skip

    def asked(self, settings: Settings) -> tuple[tuple[str, Any], ...]:
        """Which network a point is of, as what `network` takes."""
        return tuple((field, settings[field]) for field in self.fields if field in settings)

    def network(self, asked: tuple[tuple[str, Any], ...], settings: Settings) -> Network:
        """That network. Raises InputError for one that cannot be read, or has no such tokens as a point sets."""
        found = self.load(dict(asked))
        if found.source.graph is not None and "tokens" in settings and "tokens" not in self.fields:
            raise InputError(
                "--set tokens", f"the model '{found.source.name}'", "a model's sizes are those of its example inputs",
                "Sweep each size by itself.",
            )  # fmt: skip
        return found


def checkpoint_network(path: str | Path, gaussian: bool | None = None) -> Network:
    """The layers of a checkpoint file. Raises InputError for one that cannot be read."""
    path = Path(path)
    layers = load_checkpoint(path, gaussian=gaussian)
    digest = hashlib.sha256()
    for one in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if one.is_file():
            digest.update(f"{one.name} {gaussian} ".encode() + one.read_bytes())
    source = Source(path.name, digest.hexdigest(), layers)
    return Network(
        source,
        lambda: dense_layers(layers, f"checkpoint '{path}'", None, None),
        lambda converted: replace(source, layers={**layers, **converted}),
    )


def model_network(
    model: nn.Module, example_inputs: Any, *, kwargs: Mapping[str, Any] | None = None, name: str = ""
) -> Network:
    """A whole model in evaluation mode, exported now. Raises InputError for what cannot be exported."""
    exported = export_network(model, example_inputs, kwargs=kwargs)
    digest = hashlib.sha256(repr(exported.network).encode())
    for key, value in model.state_dict().items():
        digest.update(f"{key} {tuple(value.shape)} ".encode() + value.detach().cpu().contiguous().numpy().tobytes())
    source = Source(name or type(model).__name__, digest.hexdigest(), exported.weights, exported.network)

    def dense() -> Mapping[str, DenseWeights]:
        return dense_layers(dense_weights(model), f"model '{source.name}'", None, None)

    def with_(converted: Mapping[str, Converted]) -> Source:
        student = copy.deepcopy(model)
        put_layers(student, converted, "converted layers")
        again = export_network(student, example_inputs, kwargs=kwargs)
        return replace(source, layers=again.weights, graph=again.network)

    return Network(source, dense, with_)


def networks_of(given: Any, example_inputs: Any = None, kwargs: Mapping[str, Any] | None = None) -> Networks:
    """What callers have as networks: a checkpoint's path, a model with example inputs, a function of a point's settings
    that returns either (a model as a tuple, with its inputs), or nothing where points name their checkpoints.
    """
    if isinstance(given, Networks):
        return given
    if given is None:
        return Networks(("checkpoint",), _named_checkpoint)
    if callable(given) and not isinstance(given, nn.Module):
        return Networks(NETWORK_FIELDS, lambda settings: _network_of(given(settings)))
    one = _network_of((given, example_inputs, kwargs) if isinstance(given, nn.Module) else given)
    return Networks((), lambda settings: one)


def _named_checkpoint(settings: Settings) -> Network:
    if "checkpoint" not in settings:
        rule = "it is a network, or points have a checkpoint each"
        raise InputError("source", "nothing", rule, "Give one, or an axis 'checkpoint'.")
    return checkpoint_network(str(settings["checkpoint"]))


def _network_of(given: Any) -> Network:
    if isinstance(given, str | Path):
        return checkpoint_network(given)
    if isinstance(given, tuple) and len(given) in (2, 3) and isinstance(given[0], nn.Module):
        model, inputs, kwargs = (*given, None)[:3]
        if inputs is None and kwargs is None:
            raise InputError(
                "example_inputs", "nothing", "a model is exported for inputs", "Give a tensor or a tuple of arguments."
            )
        return model_network(model, () if inputs is None else inputs, kwargs=kwargs)
    found = "a model without inputs" if isinstance(given, nn.Module) else type(given).__name__
    rule = "it is a checkpoint's path or a model with example inputs"
    raise InputError("source", found, rule, "Give one of these.")
