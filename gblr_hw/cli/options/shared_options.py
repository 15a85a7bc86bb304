"""The table of options that several commands share, and what their texts mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from simulator.base.errors import InputError

if TYPE_CHECKING:
    from gblr_hw.files.accounting import Told

MachineOption = Annotated[
    str,
    typer.Option("--machine", "-m", help="A preset (see `gblr-hw machine list`) or a TOML file.", metavar="NAME|FILE"),
]
GaussianOption = Annotated[
    bool | None,
    typer.Option(
        "--gaussian/--no-gaussian",
        help="Whether a checkpoint in the published layout was trained with the mask's Gaussian term. The file does "
        "not say; our own format does.",
        show_default=False,
    ),
]
_PATTERN = "Shell pattern on names of tensors or layers; may be repeated."
TableOption = Annotated[
    list[str] | None,
    typer.Option("--table", help=f"Matrices that are looked up, not multiplied. {_PATTERN}", metavar="PATTERN"),
]
LayerOption = Annotated[
    list[str] | None,
    typer.Option("--layer", help=f"Matrices that are layers, not look-up tables. {_PATTERN}", metavar="PATTERN"),
]
LeaveOutOption = Annotated[
    list[str] | None,
    typer.Option(
        "--leave-out",
        help=f"Tensors that may stay out, and parameters that keep a model file's values. {_PATTERN}",
        metavar="PATTERN",
    ),
]
TransposedOption = Annotated[
    list[str] | None,
    typer.Option(
        "--transposed", help=f"Dense layers stored inputs first, without a bias to tell. {_PATTERN}", metavar="PATTERN"
    ),
]
ShapeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--shape", help="Outputs and inputs of a Monarch layer, which padding can hide.", metavar="NAME=OUTxIN"
    ),
]
CovariancesOption = Annotated[
    Path | None,
    typer.Option("--covariances", help="Safetensors with input second moments (n, n) under the layers' names."),
]
IncludeOption = Annotated[
    list[str] | None, typer.Option("--include", help="Shell pattern of layers; may be repeated.", metavar="PATTERN")
]
ExcludeOption = Annotated[
    list[str] | None,
    typer.Option("--exclude", help="Shell pattern of layers to leave out; may be repeated.", metavar="PATTERN"),
]
# The largest seed that every generator takes, also the next one's, which some commands use for a second one.
SeedOption = Annotated[int, typer.Option("--seed", help="Of random numbers.", min=0, max=2**32 - 2)]
CheckpointOutput = Annotated[Path, typer.Option("--output", "-o", help="Checkpoint to write (.safetensors).")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output, nothing else.")]
TokensOption = Annotated[int, typer.Option("--tokens", help="Activation rows that enter every layer.", min=1)]


@dataclass(frozen=True, kw_only=True)
class TensorOptions:
    """What the user says of a file's tensors."""

    table: TableOption = None
    layer: LayerOption = None
    leave_out: LeaveOutOption = None
    transposed: TransposedOption = None

    def told(self) -> Told:
        """As reading a checkpoint takes it."""
        from gblr_hw.files.accounting import Told

        return Told.of(self.table or (), self.layer or (), self.leave_out or (), self.transposed or ())


@dataclass(frozen=True, kw_only=True)
class PlaceOptions:
    """Where calls are made that do not hang on each other (`gblr_hw.jobs`)."""

    jobs: Annotated[int, typer.Option("--jobs", help="Processes.", min=1)] = 1
    scheduler: Annotated[
        str | None, typer.Option("--scheduler", help="Dask scheduler to work on instead, tcp://HOST:PORT.")
    ] = None

    def check(self) -> None:
        """Raise InputError for both."""
        if self.scheduler is not None and self.jobs > 1:
            found = f"{self.jobs} and --scheduler"
            raise InputError("--jobs", found, "one of them says where work is done", "Choose.")


def shapes_of(given: Sequence[str]) -> dict[str, tuple[int, int]]:
    """``--shape NAME=OUTxIN`` options as a mapping."""
    found: dict[str, tuple[int, int]] = {}
    for text in given:
        name, _, sizes = text.rpartition("=")
        outputs, _, inputs = sizes.partition("x")
        if not (name and outputs.isdecimal() and inputs.isdecimal()):
            raise InputError("--shape", repr(text), "it is NAME=OUTxIN", "Write such a pair, fc.1=64x96 say.")
        found[name] = (int(outputs), int(inputs))
    return found
