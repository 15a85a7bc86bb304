"""A training run on disk: what it takes to go on after an interruption, exactly as if there had been none."""

from __future__ import annotations

import io
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from gblr_hw.training.loop.loop import EpochRecord, LoopState
from gblr_hw.weights.family import ALIASES
from simulator.base.errors import InputError
from simulator.base.files import replacing


@dataclass
class RunState:
    """A run of several phases, after some epoch.

    key: what is trained (recipe and target), so that a file is not taken for another run's. phase: the one going on.
    starts: state dicts of the model at the start of each phase so far, before the phase changed its layers. records:
    epochs of the phases that are over; of the present one too, once `loop` is there.
    """

    key: str
    phase: int = 0
    starts: list[dict[str, Any]] = field(default_factory=list)
    records: list[EpochRecord] = field(default_factory=list)
    loop: LoopState | None = None

    def save(self, path: Path) -> None:
        """Write the file whole or not at all."""
        content = {
            "key": self.key,
            "phase": self.phase,
            "starts": self.starts,
            "records": [asdict(record) for record in self.records],
            "loop": None if self.loop is None else vars(self.loop),
        }
        buffer = io.BytesIO()
        torch.save(content, buffer)
        with replacing(path) as file:
            file.write(buffer.getvalue())


def load_run(path: Path | None, key: str) -> RunState:
    """The state in a file, or that of a fresh run where there is no file.

    Raises
    ------
    InputError: a file that cannot be read, or that belongs to another run.
    """
    state = read_run(path)
    if state is None:
        return RunState(key)
    # Runs that earlier releases began say a family's old name.
    for old, new in ALIASES.items():
        state.key = state.key.replace(f"family='{old}'", f"family='{new}'")
    if state.key != key:
        raise InputError(
            f"checkpoint '{path}'",
            state.key,
            f"this run is {key}",
            "Give each run a file of its own, or delete it to start anew.",
        )
    return state


def read_run(path: Path | None) -> RunState | None:
    """The state in a file, whichever run it belongs to; None where there is no file. Raises InputError for any other
    file.
    """
    if path is None or not path.exists():
        return None
    try:
        content = torch.load(path, weights_only=True)
        loop = None if content["loop"] is None else LoopState(**content["loop"])
        records = [EpochRecord(**record) for record in content["records"]]
        return RunState(content["key"], content["phase"], content["starts"], records, loop)
    except Exception as error:
        raise InputError(
            f"checkpoint '{path}'", type(error).__name__, "it holds no training run", "Delete it to start anew."
        ) from error
