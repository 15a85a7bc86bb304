"""The ways to hold a layer that advice compares, one entry each: a family, bits, or both."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from analysis.pictures.colours import NARROW, NARROW_AND_RANKS
from analysis.pictures.family_marks import MARKS, mark_key
from gblr_hw.weights.family import FAMILIES, converted, converted_whole, on_machine
from simulator.machine.machine import Machine
from simulator.program.operations import TILE_OPS, Op

Narrow = Literal["none", "all", "dense"]
Make = Literal["dense", "family", "dense_and_ranks"]


@dataclass(frozen=True)
class Way:
    """name: in files and on the command line. label: in tables and pictures. make: the whole matrix "dense"; the
    registered "family" of that name; or "dense_and_ranks", whole ranks for what the bits of dense tiles lose. narrow:
    which tiles have the machine's narrow_bits. colour: in the map of winners.
    """

    name: str
    label: str
    make: Make
    narrow: Narrow
    colour: str

    def __post_init__(self) -> None:
        if self.make not in get_args(Make) or self.narrow not in get_args(Narrow):
            raise TypeError(f"way '{self.name}': it is made {self.make!r} with {self.narrow!r} tiles narrow")
        if (self.make == "family") != (self.name in FAMILIES):
            raise TypeError(f"way '{self.name}': a way that is made as a family has its name, and no other has one")
        if self.make == "family" and not FAMILIES[self.name].converted:
            raise TypeError(f"way '{self.name}': it is no family that dense weights are converted to")

    @property
    def kinds(self) -> tuple[Op, ...]:
        """Kinds of tiles that are narrow."""
        return {"none": (), "all": tuple(TILE_OPS), "dense": (Op.DENSE,)}[self.narrow]

    def weight_bits(self, machine: Machine) -> dict[str, int]:
        """As `lower` takes them."""
        return {kind.name.lower(): machine.datatypes.narrow_bits for kind in self.kinds}

    def why_not(self, machine: Machine) -> str:
        """Why a machine does not run it as it is counted; empty if it does."""
        if self.kinds and not machine.datatypes.narrow_bits:
            return "the machine has no narrow tiles"
        if self.make == "family" and on_machine(FAMILIES[self.name], machine.scatter).name != self.name:
            return "without a permutation network its ranks take more tiles than are counted"
        return ""


def _table(entries: Iterable[Way]) -> dict[str, Way]:
    found: dict[str, Way] = {}
    for entry in entries:
        if entry.name in found:
            raise TypeError(f"way '{entry.name}': two entries")
        if entry.colour in {other.colour for other in found.values()}:
            raise TypeError(f"way '{entry.name}': its colour is another one's")
        found[entry.name] = entry
    return found


def _family(name: str) -> Way:
    return Way(name, FAMILIES[name].label, "family", "none", MARKS[mark_key(FAMILIES[name].label)].colour)


_NOT_COMPARED = ("kronecker", "tensor_train")  # nobody publishes networks of these alone
# In this order tables list them, and of equal ones the first wins.
WAYS = _table(
    (
        Way("dense_int8", "dense, 8 bits", "dense", "none", MARKS["dense"].colour),
        Way("dense_int4", "dense, 4 bits", "dense", "all", NARROW),
        _family("low_rank"),
        _family("block_sparse"),
        _family("rank_groups"),
        _family("lattice"),
        _family("monarch"),
        _family("blast"),
        Way("int4_and_ranks", "4 bits + ranks", "dense_and_ranks", "dense", NARROW_AND_RANKS),
    )
)
for _name in (*converted(), *converted_whole()):
    if _name not in WAYS and _name not in _NOT_COMPARED:
        raise TypeError(f"family '{_name}': advice compares it, or says that it does not (gblr_hw/advice/ways.py)")
