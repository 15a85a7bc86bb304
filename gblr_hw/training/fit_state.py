"""A run of `fit_to_latency` on disk: what it takes to go on after a kill, to the same bits."""

from __future__ import annotations

import hashlib
import io
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from simulator.base.errors import InputError
from simulator.base.files import replacing


@dataclass
class FitState:
    """A run after an epoch, in what `weights_only` files hold.

    key: which run it is, so that a file is not taken for another one's. losses: of the epochs that are over. model,
    optimiser, target: their states, empty before the first epoch's end. draws: of every generator that batches or
    layers may draw from.
    """

    key: str
    losses: list[float] = field(default_factory=list)
    model: dict[str, Any] = field(default_factory=dict)
    optimiser: dict[str, Any] = field(default_factory=dict)
    target: dict[str, Any] = field(default_factory=dict)
    draws: dict[str, Any] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write the file whole or not at all."""
        buffer = io.BytesIO()
        torch.save(vars(self), buffer)
        with replacing(path) as file:
            file.write(buffer.getvalue())


def load_fit(path: Path | None, key: str) -> FitState:
    """The state in a file, or that of a fresh run where there is none.

    Raises InputError for a file that cannot be read, and for one of another run.
    """
    if path is None or not path.exists():
        return FitState(key)
    try:
        state = FitState(**torch.load(path, weights_only=True))
    except Exception as error:
        raise InputError(
            f"checkpoint '{path}'", type(error).__name__, "it holds no run of a model of one's own",
            "Delete it to start anew.",
        ) from error  # fmt: skip
    if state.key != key:
        raise InputError(
            f"checkpoint '{path}'", f"a run of {state.key}", f"this run is {key}",
            "Give each run a file of its own, or delete it to start anew.",
        )  # fmt: skip
    return state


def digest_of(model: nn.Module) -> str:
    """The first digits of a SHA-256 of a model's state: names, types and values."""
    found = hashlib.sha256()
    for name, value in model.state_dict().items():
        found.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        found.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:16]


def draws(batches: Any) -> dict[str, Any]:
    """States of the generators of PyTorch, NumPy and Python, and of those that a loader of batches has of its own."""
    numbers = np.random.get_state(legacy=True)
    assert isinstance(numbers, tuple)
    version, words, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "numpy": [numbers[0], torch.from_numpy(numbers[1].astype(np.int64)), *numbers[2:]],
        "python": [version, list(words), gauss],
        "loader": {name: one.get_state() for name, one in _generators(batches).items()},
    }


def draw_on(batches: Any, states: Mapping[str, Any]) -> None:
    """Let every generator go on from what `draws` gave."""
    torch.set_rng_state(states["torch"])
    name, words, *rest = states["numpy"]
    np.random.set_state((name, words.numpy().astype(np.uint32), *rest))
    version, integers, gauss = states["python"]
    random.setstate((version, tuple(integers), gauss))
    for place, one in _generators(batches).items():
        one.set_state(states["loader"][place])


def _generators(batches: Any) -> dict[str, torch.Generator]:
    """Generators of a DataLoader and of its samplers, by where they are."""
    places = {
        "loader": batches,
        "sampler": getattr(batches, "sampler", None),
        "batch_sampler": getattr(batches, "batch_sampler", None),
    }
    found = {place: getattr(one, "generator", None) for place, one in places.items()}
    return {place: one for place, one in found.items() if isinstance(one, torch.Generator)}
