"""The one gate of everything that commands write: what may not be, is told before the work begins."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from simulator.base.errors import InputError
from simulator.base.files import FileKind, output_file, output_folder
from simulator.machine.machine import preset_names
from simulator.machine.table_file import shipped_tables


@dataclass(frozen=True)
class Output:
    """A file that a command writes: the option that names it, and the kind it must be of, if any. Without a path it is
    not written.
    """

    option: str
    path: Path | None
    kind: FileKind | None = None


def check_outputs(
    outputs: Sequence[Output],
    *,
    inputs: Mapping[str, Path | None],
    folders: Mapping[str, Path | None] | None = None,
) -> None:
    """Raise InputError for an output that cannot be written as `simulator.base.files.output_file` says, that has not
    the ending of its kind, that would replace one of the ``inputs`` (name -> file), or that two options name.

    ``folders`` (option -> folder) are made when they are first written to; here they are only looked at.
    """
    written = [(output.option, output.path) for output in outputs if output.path is not None]
    read = [(name, path) for name, path in inputs.items() if path is not None]
    made = [(option, folder) for option, folder in (folders or {}).items() if folder is not None]
    for output in outputs:
        if output.path is not None:
            output_file(output.path)
            if output.kind is not None:
                output.kind.ending(output.path)
    for _, folder in made:
        output_folder(folder, make=False)
    for option, path in written:
        for name, source in read:
            if _same(path, source):
                raise InputError(
                    f"{option} '{path}'",
                    f"the file of {name}",
                    "an output never replaces what the same command reads",
                    "Give another name.",
                )
    taken = [*written, *made]
    for at, (option, path) in enumerate(taken):
        for other, second in taken[at + 1 :]:
            if _same(path, second):
                raise InputError(
                    f"{option} and {other}", f"one name, '{path}'", "each has a name of its own", "Change one of them."
                )


def machine_file(machine: str | None) -> Path | None:
    """The file that a ``--machine`` option reads; None for a preset."""
    return None if machine is None or machine in preset_names() else Path(machine)


def table_file(table: str | None) -> Path | None:
    """The file that an ``--energy-table`` option reads; None for a table of the package."""
    return None if table is None or table in shipped_tables("energy") else Path(table)


def _same(one: Path, two: Path) -> bool:
    try:
        return os.path.samefile(one, two)
    except (OSError, ValueError):  # one of them is not there
        return os.path.realpath(one) == os.path.realpath(two)
