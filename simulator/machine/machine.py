"""The machine as data: a validated description, loaded from a TOML file or a preset, and what engines need of it as
integers.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import Field, model_validator

from simulator.base.arithmetic import ceil_div
from simulator.base.errors import InputError
from simulator.base.files import read_text
from simulator.base.pictures import Pictured
from simulator.base.schema import parsed_toml, validated
from simulator.base.shown import Table, Tabled
from simulator.dram.mapping import MAPPINGS, SCHEDULERS
from simulator.dram.standards import STANDARDS, Standard
from simulator.machine.field_marks import (
    LAYOUT,
    NOTHING,
    PRICE,
    TIME,
    Moves,
    Section,
    layout_values,
    recorded_values,
)

MAX_SIDE = 256  # a lane number and an interval's end must fit the byte that a tile record gives them (machine.md, E4)

Bits = Annotated[int, Field(ge=2, le=8)]
Kib = Annotated[int, Field(ge=1, le=2**24)]
Side = Annotated[int, Field(ge=1, le=MAX_SIDE)]
Kelvin = Annotated[int, Field(ge=0, le=450)]
Cycles = Annotated[int, Field(ge=0, le=10**6)]
MAX_COLUMN_SHIFT = 7  # of a narrow tile's column (rule A6)
BANDWIDTH = "bandwidth"  # the DRAM model without banks (rule D5)
# The ratio of two rates fits an integer: no machine is slower than a thousand cycles, or bytes, a second.
Rate = Annotated[float, Field(ge=1e-6, le=1e6, allow_inf_nan=False)]


class Array(Section):
    """The P x Q weight-stationary array: ``rows`` input lanes, ``cols`` output lanes."""

    rows: Annotated[Side, LAYOUT]
    cols: Annotated[Side, LAYOUT]
    clock_ghz: Annotated[Rate, TIME]
    scatter: Annotated[bool, LAYOUT]


class Datatypes(Section):
    """Operand widths. Weights and activations are signed and symmetric, accumulators saturate. narrow_bits: of narrow
    tiles' weights (machine.md, A6), 0 for a machine that has none. zero_gating: a cell whose weight's code is 0 holds
    its multiplier still (C2).
    """

    weight_bits: Annotated[Bits, LAYOUT]
    activation_bits: Annotated[Bits, LAYOUT]
    accumulator_bits: Annotated[int, Field(ge=16, le=32), LAYOUT]
    narrow_bits: Annotated[int, Field(ge=0, le=4), LAYOUT] = 0
    zero_gating: Annotated[bool, PRICE] = False

    @model_validator(mode="after")
    def _narrow_divides_wide(self) -> Datatypes:
        wide, narrow = self.weight_bits, self.narrow_bits
        if narrow and (narrow < 2 or narrow >= wide or wide % narrow):
            raise ValueError(
                f"narrow_bits = {narrow} beside weight_bits = {wide}; it is 0, or from 2, less than weight_bits and a "
                "divisor of it"
            )
        return self

    @property
    def narrow_rows(self) -> int:
        """Narrow weights in the room of a wide one: rows of a narrow tile that are preloaded in a cycle (rule A6); 1
        where there are no narrow tiles.
        """
        return self.weight_bits // self.narrow_bits if self.narrow_bits else 1


class Memory(Section):
    """An on-chip memory of ``banks`` macros; a macro moves ``word_bits`` per access."""

    kib: Annotated[Kib, LAYOUT]
    # Programs depend on the rank memory's banks alone, but the key of schema 1 holds those of every memory.
    banks: Annotated[int, Field(ge=1, le=4096), LAYOUT]
    word_bits: Annotated[int, Field(ge=1, le=65536), PRICE]

    @property
    def size_bytes(self) -> int:
        return self.kib * 1024

    @property
    def bank_kib(self) -> float:
        return self.kib / self.banks


class RankMemory(Memory):
    """The banked memory of low-rank sums, its permutation network and the requantisers on its read side."""

    network_cycles: Annotated[Cycles, TIME]
    requantise_cycles: Annotated[Cycles, TIME]


class Dma(Section):
    """1: one queue for all transfers; 2: loads, stores; 3: weights, inputs, stores."""

    engines: Annotated[Literal[1, 2, 3], TIME]


class Dram(Section):
    """model: "bandwidth" (machine.md, D2 and D4), or a name of ``STANDARDS`` for banks and rows (D5 to D12), whose
    mapping, scheduler and places of a channel's queue are the last three fields.
    """

    gb_per_s: Annotated[Rate, TIME]
    latency_ns: Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False), TIME]
    burst_bytes: Annotated[int, Field(ge=1, le=65536), TIME]
    kind: Annotated[str, Field(min_length=1), PRICE]
    model: Annotated[str, TIME] = BANDWIDTH
    mapping: Annotated[str, TIME] = next(iter(MAPPINGS))
    scheduler: Annotated[str, TIME] = "fr-fcfs"
    queue_entries: Annotated[int, Field(ge=1, le=4096), TIME] = 32

    @model_validator(mode="after")
    def _names_are_known(self) -> Dram:
        for name, known in (
            ("model", (BANDWIDTH, *STANDARDS)),
            ("mapping", tuple(MAPPINGS)),
            ("scheduler", SCHEDULERS),
        ):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} = '{getattr(self, name)}'; it is one of {', '.join(known)}")
        for name in ("mapping", "scheduler", "queue_entries"):
            if self.standard is None and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(
                    f'{name} = {getattr(self, name)!r} does nothing where model = "{BANDWIDTH}"; name a standard as '
                    "the model, or leave it out"
                )
        if self.standard is not None:
            self._fits(self.standard)
        return self

    def _fits(self, standard: Standard) -> None:
        """What is said twice agrees: bandwidth and bursts are the standard's."""
        if self.burst_bytes != standard.burst_bytes:
            raise ValueError(
                f"burst_bytes = {self.burst_bytes}, but {standard.name} moves {standard.burst_bytes} bytes a burst"
            )
        peak, found = standard.gb_per_s, self.channels
        if found < 1 or found & (found - 1) or abs(self.gb_per_s - found * peak) > 0.01 * found * peak:
            raise ValueError(
                f"gb_per_s = {self.gb_per_s:g} is not 1, 2, 4, ... channels of {standard.name} at {peak:.1f} GB/s each"
            )

    @property
    def standard(self) -> Standard | None:
        """The standard whose banks are modelled, if any are."""
        return STANDARDS.get(self.model)

    @property
    def channels(self) -> int:
        """Memory channels; 1 where there are no banks."""
        return 1 if self.standard is None else round(self.gb_per_s / self.standard.gb_per_s)


class Vector(Section):
    """The unit that drains accumulators: bias, requantisation, write-back."""

    lanes: Annotated[int, Field(ge=1, le=65536), TIME]
    latency_cycles: Annotated[Cycles, TIME]
    parameter_kib: Annotated[Kib, Moves("layout", key="parameter_kib")]


class Energy(Section):
    """temperature_k: of what leaks; 0 for the table's own."""

    table: Annotated[str, Field(min_length=1), PRICE]
    temperature_k: Annotated[Kelvin, PRICE] = 0

    @model_validator(mode="after")
    def _temperature_is_a_chips(self) -> Energy:
        if self.temperature_k and not 200 <= self.temperature_k <= 450:
            raise ValueError(f"temperature_k = {self.temperature_k}; it is 0, or from 200 to 450 kelvin")
        return self


class Machine(Tabled, Pictured, Section):
    """One accelerator. ``Machine.load`` reads a preset name or a TOML file, ``with_`` makes a changed one; every field
    is listed by ``gblr-hw machine show``.

    Units are in the field names; ``rows`` = P input lanes, ``cols`` = Q output lanes (machine.md, section 1). Every
    field is marked with what it moves (``field_marks``). A new field needs a default that means "as before".
    """

    schema_version: Annotated[Literal[1], NOTHING] = Field(alias="schema")
    name: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9._-]+$"), NOTHING]
    description: Annotated[str, NOTHING] = ""
    array: Array
    datatypes: Datatypes
    scratchpad: Memory
    accumulator: Memory
    rank_memory: RankMemory
    weight_buffer: Memory
    dma: Dma
    dram: Dram
    vector: Vector
    energy: Energy

    @model_validator(mode="after")
    def _fits_together(self) -> Machine:
        lanes = max(self.rows, self.cols)
        if self.rank_memory.banks < lanes:
            raise ValueError(
                f"rank_memory.banks = {self.rank_memory.banks} is fewer than the {lanes} lanes of the array; "
                "a tile of distinct banks would not exist"
            )
        if self.weight_slots < 2:
            raise ValueError(
                f"weight_buffer.kib = {self.weight_buffer.kib} holds fewer than two tiles of {self.rows} x {self.cols} "
                "weights; preload needs two"
            )
        if self.dram.standard is not None and not 0.01 <= self.clock_ghz <= 100:
            raise ValueError(
                f"array.clock_ghz = {self.clock_ghz:g}; with a standard's DRAM it lies between 0.01 and 100"
            )
        if min(self.accumulator_rows, self.rank_rows_per_bank) < 2:
            raise ValueError("accumulator and rank memory must hold at least two rows: one in use, one being drained")
        return self

    @property
    def rows(self) -> int:
        return self.array.rows

    @property
    def cols(self) -> int:
        return self.array.cols

    @property
    def clock_ghz(self) -> float:
        return self.array.clock_ghz

    @property
    def scatter(self) -> bool:
        return self.array.scatter

    @property
    def dram_gb_per_s(self) -> float:
        return self.dram.gb_per_s

    @property
    def weight_slots(self) -> int:
        """Decompressed P x Q tiles that the weight buffer holds."""
        tile_bytes = ceil_div(self.rows * self.cols * self.datatypes.weight_bits, 8)
        return self.weight_buffer.size_bytes // tile_bytes

    @property
    def accumulator_rows(self) -> int:
        """Rows of Q sums that the accumulator memory holds."""
        return self.accumulator.size_bytes * 8 // (self.cols * self.datatypes.accumulator_bits)

    @property
    def rank_rows_per_bank(self) -> int:
        """Sums (one rank, one token) that a bank of the rank memory holds."""
        return self.rank_memory.size_bytes * 8 // (self.rank_memory.banks * self.datatypes.accumulator_bits)

    @property
    def partial_sum_bits(self) -> int:
        """Width of an exact sum of one code from each row of the array."""
        return self.datatypes.weight_bits + self.datatypes.activation_bits + (self.rows - 1).bit_length()

    @property
    def leaving_sum_bits(self) -> int:
        """Width of such a sum behind the shifters of narrow tiles' columns, of tiles of either width (rule A6)."""
        types = self.datatypes
        widened = types.narrow_bits + MAX_COLUMN_SHIFT - types.weight_bits if types.narrow_bits else 0
        return self.partial_sum_bits + max(widened, 0)

    @property
    def group_size(self) -> int:
        """Ranks of one rank-memory row that a plain array (no permutation network) can both write and read."""
        return min(self.rows, self.cols)

    @property
    def parameter_half_bytes(self) -> int:
        """Bytes of parameters that one layer may have: half of the memory, so that the next layer's can be loaded."""
        return self.vector.parameter_kib * 1024 // 2

    @property
    def multiplier_row(self) -> int:
        """Places in a row of the table of rank multipliers: the banks in use, up to a power of two (rule E5)."""
        return 1 << ((self.rank_memory.banks if self.scatter else self.group_size) - 1).bit_length()

    @property
    def dram_latency_cycles(self) -> int:
        # 100 ns at 1.1 GHz is 110 cycles, not the 111 that a product of binary fractions rounds up to.
        return math.ceil(round(self.dram.latency_ns * self.clock_ghz, 6))

    @property
    def dram_bytes_per_kilocycle(self) -> int:
        """DRAM bandwidth as an integer, so that no engine rounds differently (machine.md, D2)."""
        return max(1, round(1000 * self.dram.gb_per_s / self.clock_ghz))

    @cached_property
    def layout_key(self) -> str:
        """Hash of what a program is laid out for, the fields marked LAYOUT: sizes, banks, datatypes, scatter. Clocks
        and bandwidths are not in it.
        """
        return hashlib.sha256(json.dumps(layout_values(self), sort_keys=True).encode()).hexdigest()[:16]

    def with_(self, **sections: Mapping[str, Any] | str) -> Self:
        """A copy with some values changed, ``machine.with_(name="m2", dram={"gb_per_s": 4.0})``, validated again."""
        data = self.to_dict()
        for key, change in sections.items():
            old = data.get(key)
            data[key] = {**(old if isinstance(old, dict) else {}), **change} if isinstance(change, Mapping) else change
        return _validated(type(self), data, f"machine '{self.name}', changed in code")

    def table(self) -> Table:
        """Every field with its value."""
        sections = {key: one for key, one in self.to_dict().items() if isinstance(one, dict)}
        rows = [(f"{section}.{name}", value) for section, one in sections.items() for name, value in one.items()]
        return Table(f"{self.name}: {self.description}", ("field", "value"), rows)

    def __repr__(self) -> str:
        """In a terminal: a line for each section, without later fields that have their defaults."""
        sections = {key: one for key, one in self.to_record().items() if isinstance(one, dict)}
        rows = [(name, ", ".join(f"{k} {_toml(v)}" for k, v in one.items())) for name, one in sections.items()]
        return Table(f"{self.name}: {self.description}", ("section", "fields"), rows).text()

    def to_dict(self) -> dict[str, Any]:
        """The whole description as plain JSON types; ``from_dict`` reads it back."""
        return self.model_dump(by_alias=True)

    def to_record(self) -> dict[str, Any]:
        """What files carry: ``to_dict`` without later fields that have their defaults; ``from_dict`` reads it back."""
        return recorded_values(self)

    def to_json(self) -> str:
        """``to_record`` as one line of JSON, the same for equal machines."""
        return json.dumps(self.to_record(), sort_keys=True)

    @classmethod
    def from_dict(cls, data: dict[str, Any], where: str) -> Self:
        """Validate a description made of plain types; ``where`` names it in errors."""
        return _validated(cls, data, where)

    def to_toml(self) -> str:
        """The description as a TOML file that ``Machine.load`` reads back to an equal machine."""
        data = self.to_dict()
        flat = [f"{key} = {_toml(value)}" for key, value in data.items() if not isinstance(value, dict)]
        parts = ["\n".join(flat)]
        for key, section in data.items():
            if isinstance(section, dict):
                parts.append("\n".join([f"[{key}]", *(f"{k} = {_toml(v)}" for k, v in section.items())]))
        return "\n\n".join(parts) + "\n"

    @classmethod
    def load(cls, source: str | Path) -> Self:
        """Read a preset by name (``preset_names()``) or a TOML file by path.

        Raises InputError naming the file, the field, its value and the rule for anything that is not a valid machine.
        """
        if str(source) in preset_names():
            text = (resources.files("simulator") / "machines" / f"{source}.toml").read_text(encoding="utf-8")
            return _parse(cls, text, f"machine preset '{source}'")
        path = Path(source)
        if not path.is_file():
            raise InputError(
                f"machine '{source}'",
                "no such preset or file",
                f"a machine is one of {', '.join(preset_names())} or a TOML file",
                "Check the spelling, or start a file of your own from `gblr-hw machine show mid-32`.",
            )
        return _parse(cls, read_text(path, "a machine file"), str(path))


AnyMachine = TypeVar("AnyMachine", bound=Machine)

# The on-chip memories' sections, in the order in which they are declared.
MEMORIES = tuple(
    name
    for name, field in Machine.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, Memory)
)


def preset_names() -> tuple[str, ...]:
    """Names of the machines shipped with the package, sorted."""
    folder = resources.files("simulator") / "machines"
    return tuple(sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml")))


def _parse(model: type[AnyMachine], text: str, where: str) -> AnyMachine:
    return _validated(model, parsed_toml(text, where, "a machine file"), where)


def _validated(model: type[AnyMachine], data: dict[str, Any], where: str) -> AnyMachine:
    return validated(model, data, where, "Compare with `gblr-hw machine show mid-32`, which lists every key.")


def _toml(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return json.dumps(value)
        case int() | float():
            return repr(value)
        case _:
            raise TypeError(f"a machine's field holds {value!r}: there are booleans, numbers and text")
