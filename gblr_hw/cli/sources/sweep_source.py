"""The networks that ``gblr-hw sweep`` runs: a checkpoint or a model that is named once, or the values of an axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gblr_hw.cli.options.sweep_options import SweepOptions
from gblr_hw.cli.sources.lower_source import KNOWN, Wish, kinds_of_model, model_file, model_of
from simulator.base.errors import InputError

if TYPE_CHECKING:
    from gblr_hw.sweeps.axes import Axis, Settings
    from gblr_hw.sweeps.networks import Network, Networks

LAYERS = "a checkpoint's layers"


@dataclass(frozen=True)
class Named:
    """What the arguments name. models, checkpoints: one of them is empty. sizes: options and axes that say how many
    tokens or sequences a model has.
    """

    checkpoints: tuple[str, ...]
    models: tuple[str, ...]
    sizes: tuple[str, ...]

    @classmethod
    def of(cls, options: SweepOptions, axes: Sequence[Axis]) -> Named:
        """Raises InputError unless there is one way to say which network it is, and for sizes that a model does not
        take or that are given twice.
        """
        values = {field: tuple(map(str, axis.values)) for axis in axes for field in axis.fields}
        ways = [values.get("checkpoint"), values.get("model")]
        ways += [None if one is None else (str(one),) for one in (options.checkpoint, options.model)]
        if sum(way is not None for way in ways) != 1:
            raise InputError(
                "arguments", "both or neither of a checkpoint and --model", "there is one network, or an axis of them",
                "Name one of them, or --set checkpoint=... or model=... .",
            )  # fmt: skip
        given = {"tokens": options.tokens is not None, "batch": options.batch != 1}
        for name, is_given in given.items():
            if is_given and name in values:
                raise InputError(f"--{name}", f"--set {name} too", "the points say what it is", f"Leave --{name} out.")
        sizes = [f"--{name}" for name, is_given in given.items() if is_given]
        sizes += [f"--set {name}" for name in given if name in values]
        return cls(ways[0] or ways[2] or (), ways[1] or ways[3] or (), tuple(sizes))

    @property
    def kinds(self) -> list[str]:
        """As the command's table of options names them."""
        return list(dict.fromkeys(kind for one in self.models for kind in kinds_of_model(one))) or [LAYERS]

    @property
    def files(self) -> Mapping[str, Path | None]:
        """What is read, by what it is."""
        return {
            **{f"the checkpoint '{one}'": Path(one) for one in self.checkpoints},
            **{f"the model '{one}'": model_file(one) for one in self.models},
        }

    def networks(self, options: SweepOptions) -> Networks:
        """The networks, each read when a point asks for it. Raises InputError for sizes that one does not have."""
        from gblr_hw.sweeps.networks import Networks, checkpoint_network, model_network

        if self.checkpoints:

            def read(settings: Settings) -> Network:
                path = str(settings.get("checkpoint", options.checkpoint))
                return checkpoint_network(path, options.gaussian)

            return Networks(("checkpoint",), read)
        for name in self.models:
            if self.sizes and KNOWN not in kinds_of_model(name):
                rule = "a model's sizes are those of its example inputs"
                raise InputError(self.sizes[0], f"the model '{name}'", rule, "Sweep each size by itself.")

        def load(settings: Settings) -> Network:
            name, batch = str(settings.get("model", options.model)), int(settings.get("batch") or options.batch)
            tokens = settings.get("tokens", options.tokens)
            wish = Wish(
                name, batch, None if tokens is None else int(tokens), 0, options.seed, None, None,
                options.random_weights, None,
            )  # fmt: skip
            made, inputs, kwargs, _ = model_of(wish)
            return model_network(made, inputs, kwargs=kwargs, name=name)

        return Networks(("model", "batch", "tokens"), load)
