"""A program on disk: one safetensors file with columns, weights, provenance and a checksum; written atomically,
verified on load.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from pydantic import Field
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from simulator.base.errors import NOT_OURS, InputError
from simulator.base.files import replacing_named
from simulator.base.schema import Strict, parsed_json, validated
from simulator.machine.machine import Machine
from simulator.network.network_file import Place, Size, network_arrays, network_of, network_record
from simulator.program.isa import Instructions
from simulator.program.program_record import ProgramRecord
from simulator.program.schedule import LayerSchedule, Payload, Slice, TileTable

Made = TypeVar("Made", bound=ProgramRecord)

FORMAT = "gblr-hw-program"
VERSION = 2
_LAYER_SCALARS = ("name", "form", "in_features", "out_features", "ranks", "block_tokens", "multiplications")
_NETWORK = "network."  # what the names of a network's arrays begin with
# Columns of the tile table that files may be without, and whether a table needs them: without "gathered" no tile reads
# and writes ranks, without the others all tiles are wide.
_LATER_COLUMNS: Mapping[str, Callable[[TileTable], bool]] = {
    "gathered": lambda tiles: bool((tiles.gathered * tiles.scattered).any()),
    "narrow": lambda tiles: bool(tiles.narrow.any()),
    "shift": lambda tiles: bool(tiles.narrow.any()),
}
_LATER_ORDER = "output_order"  # of a layer: without it, outputs are in order
_PAYLOAD_ARRAYS = ("codes", "values", "row_step", "rank_divisor", "bias")

_Step = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Source(Strict):
    layer: str
    first: Place
    last: Size


class _Layer(Strict):
    name: str
    form: str
    in_features: Size
    out_features: Size
    ranks: Place
    block_tokens: Size
    multiplications: Annotated[int, Field(ge=0, lt=2**62)]
    input_step: _Step
    output_step: _Step
    held_slots: Place = 0  # in files only where ranks share places
    sources: list[_Source] = Field(default_factory=list)  # in files only of layers that read others' outputs


class _Header(Strict):
    """Everything of a program but its arrays; machine and network have schemas of their own."""

    format: Literal["gblr-hw-program"]
    version: Literal[2]
    machine: dict[str, Any]
    tokens: Size
    provenance: dict[str, str]
    layers: list[_Layer]
    network: dict[str, Any] | None
    sha256: str


def save_program(program: ProgramRecord, path: Path) -> None:
    """Write ``program`` to ``path``, whole or not at all."""
    arrays = _arrays(program)
    header: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "machine": program.machine.to_record(),
        "tokens": program.tokens,
        "provenance": dict(program.provenance),
        "layers": [
            {
                **{key: getattr(layer, key) for key in _LAYER_SCALARS},
                **({"held_slots": layer.held_slots} if layer.shares_places else {}),
                **({"sources": [run._asdict() for run in layer.sources]} if layer.sources else {}),
                "input_step": layer.payload.input_step,
                "output_step": layer.payload.output_step,
            }
            for layer in program.layers
        ],
        "network": None if program.network is None else network_record(program.network),
    }
    header["sha256"] = _checksum(header, arrays)
    with replacing_named(path) as scratch:
        # One metadata key: the library writes several in no fixed order, and equal programs must give equal bytes.
        save_file(arrays, scratch, metadata={"program": json.dumps(header, sort_keys=True)})


def load_program(path: Path, make: type[Made]) -> Made:
    """Read and verify a program file as a ``make``. InputError names the file and what is wrong with it."""
    if not path.is_file():
        raise InputError(
            f"program '{path}'", "no such file", "a program is a file that `gblr-hw lower` wrote", "Check the path."
        )
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if "program" not in metadata:
                raise InputError(
                    f"program '{path}'",
                    "a safetensors file without our header",
                    "a program is a file that `gblr-hw lower` wrote",
                    "If it is a checkpoint, run `gblr-hw lower` on it first.",
                )
            arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, ValueError, OSError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"program '{path}'",
            f"a file that does not read ({error})",
            "a program is a whole safetensors file",
            "It is truncated or of another kind: lower the checkpoint again.",
        ) from error
    header = parsed_json(metadata["program"], f"program '{path}'", "a program's header")
    _check_header(path, header, arrays)
    try:
        return _assemble(validated(_Header, header, "header", NOT_OURS), arrays, make)
    except InputError as error:
        raise InputError(f"program '{path}': {error.where}", error.value, error.rule, error.remedy) from error
    except (KeyError, IndexError, TypeError, ValueError, OverflowError) as error:
        raise InputError(
            f"program '{path}'",
            f"a column that is missing or of the wrong kind ({error})",
            f"format {FORMAT} version {VERSION} has it",
            NOT_OURS,
        ) from error


def _check_header(path: Path, header: Any, arrays: Mapping[str, np.ndarray]) -> None:
    header = header if isinstance(header, dict) else {}
    if header.get("format") != FORMAT or header.get("version") != VERSION:
        raise InputError(
            f"program '{path}': 'version'",
            f"{header.get('format')} {header.get('version')}",
            f"this release reads {FORMAT} version {VERSION}",
            "Lower the checkpoint again with this release.",
        )
    try:
        checksum = _checksum(header, arrays)
    except RecursionError:
        checksum = "none: it is nested too deeply"
    if header.get("sha256") != checksum:
        raise InputError(
            f"program '{path}': 'sha256'",
            "contents unlike the checksum in the header",
            "a program file is not edited or damaged",
            "Lower the checkpoint again.",
        )


def _arrays(program: ProgramRecord) -> dict[str, np.ndarray]:
    """Every array of a program by its name in the file; integers as int32 where they fit."""
    arrays = {f"instructions.{f.name}": _narrow(getattr(program.instructions, f.name)) for f in fields(Instructions)}
    for index, layer in enumerate(program.layers):
        prefix = f"layers.{index:05d}"
        for f in fields(TileTable):
            needed = _LATER_COLUMNS.get(f.name)
            if needed is None or needed(layer.tiles):  # what kinds say is not written down
                arrays[f"{prefix}.tiles.{f.name}"] = _narrow(getattr(layer.tiles, f.name))
        arrays[f"{prefix}.rank_bank"] = _narrow(layer.rank_bank)
        arrays[f"{prefix}.rank_slot"] = _narrow(layer.rank_slot)
        if layer.reorders:
            arrays[f"{prefix}.{_LATER_ORDER}"] = _narrow(layer.output_order)
        for name in _PAYLOAD_ARRAYS:
            arrays[f"{prefix}.payload.{name}"] = np.ascontiguousarray(getattr(layer.payload, name))
    if program.network is not None:
        arrays.update({f"{_NETWORK}{key}": values for key, values in network_arrays(program.network).items()})
    return arrays


def _narrow(column: np.ndarray) -> np.ndarray:
    fits = column.size == 0 or (column.min() >= -(2**31) and column.max() < 2**31)
    return np.ascontiguousarray(column, dtype=np.int32 if fits else np.int64)


def _checksum(header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of the header without its own checksum, and of every array with its name, type and shape."""
    rest = {key: value for key, value in header.items() if key != "sha256"}
    digest = hashlib.sha256(json.dumps(rest, sort_keys=True).encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} {array.dtype.str} {array.shape} ".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _assemble(header: _Header, arrays: Mapping[str, np.ndarray], make: type[Made]) -> Made:
    layers = []
    for index, entry in enumerate(header.layers):
        prefix = f"layers.{index:05d}"
        names = [
            f.name for f in fields(TileTable) if f.name not in _LATER_COLUMNS or f"{prefix}.tiles.{f.name}" in arrays
        ]
        tiles = TileTable(**{name: arrays[f"{prefix}.tiles.{name}"] for name in names})
        numbers = {name: arrays[f"{prefix}.payload.{name}"] for name in _PAYLOAD_ARRAYS}
        payload = Payload(input_step=entry.input_step, output_step=entry.output_step, **numbers)
        layers.append(
            LayerSchedule(
                tiles=tiles,
                rank_bank=arrays[f"{prefix}.rank_bank"],
                rank_slot=arrays[f"{prefix}.rank_slot"],
                payload=payload,
                output_order=arrays.get(f"{prefix}.{_LATER_ORDER}"),  # type: ignore[arg-type]
                held_slots=entry.held_slots,
                sources=tuple(Slice(run.layer, run.first, run.last) for run in entry.sources),
                **{key: getattr(entry, key) for key in _LAYER_SCALARS},
            )
        )
    instructions = Instructions(**{f.name: arrays[f"instructions.{f.name}"] for f in fields(Instructions)})
    return make(
        machine=Machine.from_dict(header.machine, "machine"),
        tokens=header.tokens,
        layers=tuple(layers),
        instructions=instructions,
        provenance=header.provenance,
        network=None if header.network is None else network_of(header.network, _network_part(arrays)),
    )


def _network_part(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {key.removeprefix(_NETWORK): values for key, values in arrays.items() if key.startswith(_NETWORK)}


def is_program(path: Path) -> bool:
    """Whether a file has our program header. A file that is missing or of another kind is simply not one."""
    if not path.is_file():
        return False
    try:
        with safe_open(path, framework="numpy") as file:
            return "program" in (file.metadata() or {})
    except (SafetensorError, OSError):
        return False
