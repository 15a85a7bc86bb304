"""What is searched: sizes of the machine, the family of the structure and its share of the tiles; read from TOML."""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from simulator.base.arithmetic import ceil_div
from simulator.base.errors import InputError
from simulator.base.files import read_text
from simulator.machine.machine import MAX_SIDE, Machine

Family = Literal["lattice", "rank_groups", "block_sparse", "low_rank", "dense"]
FAMILIES: tuple[Family, ...] = ("lattice", "rank_groups", "block_sparse", "low_rank", "dense")
_LEAST_MACRO_KIB = 4  # the energy table's smallest
_NAME_BITS = 8  # a memory word of one code a lane
_MOST_WORD_BITS = 512

_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Count = Annotated[int, Field(ge=1, le=2**20)]
_Share = Annotated[float, Field(gt=0, le=1)]


@dataclass(frozen=True)
class MachineChoice:
    """One point of the machine's side of a space; KiB and banks are resolved by `Space.machine`."""

    side: int
    scatter: bool
    banks_per_lane: float
    scratchpad_kib_per_lane: float
    accumulator_kib_per_lane: float
    rank_kib_per_bank: int
    weight_tiles: int
    gb_per_s: float


class Space(BaseModel):
    """Values of each quantity, ascending. Memories grow with the array, so that every size has the same choices.

    sides: P = Q. banks_per_lane: of the rank memory, with scatter; a plain machine has one bank a lane, since it
    reaches no other. network_cycles: register stages of each crossbar. weight_tiles: decompressed tiles that the
    weight buffer holds. shares: tiles of a layer over its dense tiles. A plain machine is not given lattices: it
    would run them as rank groups that were not fitted as such.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    sides: tuple[Annotated[int, Field(ge=2, le=MAX_SIDE)], ...] = (8, 16, 32, 64)
    scatter: tuple[bool, ...] = (False, True)
    banks_per_lane: tuple[Annotated[float, Field(ge=1, le=4)], ...] = (1.0, 1.25, 2.0)
    network_cycles: Annotated[int, Field(ge=0, le=64)] = 2
    scratchpad_kib_per_lane: tuple[_Positive, ...] = (2.0, 4.0, 8.0, 16.0)
    accumulator_kib_per_lane: tuple[_Positive, ...] = (0.5, 1.0, 2.0, 4.0)
    rank_kib_per_bank: tuple[_Count, ...] = (4, 8, 16)
    weight_tiles: tuple[_Count, ...] = (4, 8, 16, 32)
    parameter_kib: _Count = 64
    gb_per_s: tuple[_Positive, ...] = (25.6,)
    families: tuple[Family, ...] = FAMILIES
    shares: tuple[_Share, ...] = (0.15, 0.2, 0.3, 0.4, 0.5, 0.7)

    @model_validator(mode="after")
    def _in_order(self) -> Space:
        for name in type(self).model_fields:
            values = getattr(self, name)
            if not isinstance(values, tuple):
                continue
            if not values:
                raise ValueError(f"{name} must have a value")
            rising = name == "families" or all(a < b for a, b in pairwise(values))
            if not rising or len(set(values)) != len(values):
                raise ValueError(f"{name} must rise, without repeats")
        for side, banks in itertools.product(self.sides, self.banks_per_lane):
            if side * banks != int(side * banks):
                raise ValueError(f"{banks:g} banks a lane of {side} lanes are not a whole number")
        if False in self.scatter and not self.families_of(False):
            raise ValueError("families: a plain machine is not given lattices, so one more family is needed")
        return self

    @staticmethod
    def load(path: Path) -> Space:
        """Read a TOML file that gives some of the fields; InputError names file, field, value and rule."""
        try:
            return Space.model_validate(tomllib.loads(read_text(path)))
        except tomllib.TOMLDecodeError as error:
            raise InputError(
                f"space '{path}'", f"text that is not TOML ({error})", "a space must parse as TOML", "Mend the line."
            ) from error
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"])
            raise InputError(
                f"space '{path}'" + (f": field '{field}'" if field else ""),
                repr(first["input"])[:80] if field else "values that do not fit together",
                first["msg"].removeprefix("Value error, "),
                f"Fields are {', '.join(Space.model_fields)}.",
            ) from error

    def families_of(self, scatter: bool) -> tuple[Family, ...]:
        """Families that such a machine is given."""
        return tuple(family for family in self.families if scatter or family != "lattice")

    def machine(self, choice: MachineChoice, base: Machine) -> Machine:
        """The machine of a choice; clock, DRAM timing, DMA engines and datatypes are those of ``base``."""
        side = choice.side
        banks = round(side * choice.banks_per_lane) if choice.scatter else side
        macros = max(1, side // 8)
        word = min(_MOST_WORD_BITS, max(64, side * _NAME_BITS))
        scratchpad, accumulator = (
            max(round(per_lane * side), _LEAST_MACRO_KIB * macros)
            for per_lane in (choice.scratchpad_kib_per_lane, choice.accumulator_kib_per_lane)
        )
        tile_bytes = ceil_div(side * side * base.datatypes.weight_bits, 8)
        weights = max(_LEAST_MACRO_KIB, ceil_div(choice.weight_tiles * tile_bytes, 1024))
        ranks = banks * choice.rank_kib_per_bank
        name = (
            f"{'scatter' if choice.scatter else 'plain'}-{side}-b{banks}-s{scratchpad}-a{accumulator}-r{ranks}"
            f"-w{weights}-g{choice.gb_per_s:g}"
        )
        return base.with_(
            name=name,
            description=f"Found by gblr-hw codesign, from {base.name}.",
            array={"rows": side, "cols": side, "scatter": choice.scatter},
            scratchpad={"kib": scratchpad, "banks": macros, "word_bits": word},
            accumulator={"kib": accumulator, "banks": macros, "word_bits": 256},
            rank_memory={
                "kib": ranks,
                "banks": banks,
                "network_cycles": self.network_cycles if choice.scatter else 0,
            },
            weight_buffer={"kib": weights, "banks": 1, "word_bits": word},
            dram={"gb_per_s": choice.gb_per_s},
            vector={"lanes": 2 * side, "parameter_kib": self.parameter_kib},
        )

    def machines(self) -> Iterator[MachineChoice]:
        """Every choice of a machine."""
        for scatter in self.scatter:
            rest = (
                self.banks_per_lane if scatter else (1.0,),
                self.scratchpad_kib_per_lane,
                self.accumulator_kib_per_lane,
                self.rank_kib_per_bank,
                self.weight_tiles,
                self.gb_per_s,
            )
            for side, values in itertools.product(self.sides, itertools.product(*rest)):
                yield MachineChoice(side, scatter, *values)
