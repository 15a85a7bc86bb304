"""What is searched: sizes of the machine, the family of the structure and its share of the tiles; read from TOML."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from analysis.pictures.family_marks import REFERENCE
from gblr_hw.weights.family import FAMILIES, canonical, converted, converted_whole, on_machine
from simulator.base.arithmetic import ceil_div
from simulator.base.files import read_text
from simulator.base.schema import Listed, Strict, parsed_toml, validated
from simulator.machine.machine import MAX_SIDE, Machine

_LEAST_MACRO_KIB = 4  # the energy table's smallest
_NAME_BITS = 8  # a memory word of one code a lane
_MOST_WORD_BITS = 512

_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Count = Annotated[int, Field(ge=1, le=2**20)]
_Share = Annotated[float, Field(gt=0, le=1)]


def has_shares(family: str) -> bool:
    """Whether a network of the family takes a share of the dense tiles, rather than all of them."""
    return FAMILIES[family].converted


def searched() -> tuple[str, ...]:
    """Names of the families that are searched unless a space names its own, from the freest to the dense one.

    What is chosen whole is not among them: each of its fits tries many blocks, and is slow.
    """
    return (*reversed(converted()), REFERENCE)


def _family(name: str) -> str:
    known = (*searched(), *converted_whole())
    if canonical(name) not in known:
        raise ValueError(f"a family is one of {', '.join(known)}")
    return canonical(name)


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


class Space(Strict):
    """Values of each quantity, ascending. Memories grow with the array, so that every size has the same choices.

    sides: P = Q. banks_per_lane: of the rank memory, with scatter; a plain machine has one bank a lane, since it
    reaches no other. network_cycles: register stages of each crossbar. weight_tiles: decompressed tiles that the
    weight buffer holds. shares: tiles of a layer over its dense tiles. A plain machine is not given a family
    that another stands in for there (lattices: it would run them as rank groups that were not fitted as such).
    """

    sides: Listed[tuple[Annotated[int, Field(ge=2, le=MAX_SIDE)], ...]] = (8, 16, 32, 64)
    scatter: Listed[tuple[bool, ...]] = (False, True)
    banks_per_lane: Listed[tuple[Annotated[float, Field(ge=1, le=4)], ...]] = (1.0, 1.25, 2.0)
    network_cycles: Annotated[int, Field(ge=0, le=64)] = 2
    scratchpad_kib_per_lane: Listed[tuple[_Positive, ...]] = (2.0, 4.0, 8.0, 16.0)
    accumulator_kib_per_lane: Listed[tuple[_Positive, ...]] = (0.5, 1.0, 2.0, 4.0)
    rank_kib_per_bank: Listed[tuple[_Count, ...]] = (4, 8, 16)
    weight_tiles: Listed[tuple[_Count, ...]] = (4, 8, 16, 32)
    parameter_kib: _Count = 64
    gb_per_s: Listed[tuple[_Positive, ...]] = (25.6,)
    families: Listed[tuple[Annotated[str, AfterValidator(_family)], ...]] = searched()
    shares: Listed[tuple[_Share, ...]] = (0.15, 0.2, 0.3, 0.4, 0.5, 0.7)

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
            raise ValueError(f"families: a plain machine is not given {self.families[0]}, so one more family is needed")
        return self

    @staticmethod
    def load(path: Path) -> Space:
        """Read a TOML file that gives some of the fields; InputError names file, field, value and rule."""
        where = f"space '{path}'"
        document = parsed_toml(read_text(path, "a space"), where, "a space")
        return validated(Space, document, where, f"Fields are {', '.join(Space.model_fields)}.")

    def families_of(self, scatter: bool) -> tuple[str, ...]:
        """Families that such a machine is given."""
        return tuple(name for name in self.families if on_machine(FAMILIES[name], scatter).name == name)

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
