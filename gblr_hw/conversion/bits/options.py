"""What `bits` and `rank_bits` of a conversion may be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gblr_hw.lowering.quantise.tile_bits import narrow_kinds
from gblr_hw.weights.family import Family
from simulator.base.errors import InputError
from simulator.machine.machine import Machine

CHOOSE = "choose"


@dataclass(frozen=True)
class Narrow:
    """What a conversion makes narrow, and of how many bits."""

    bits: int
    dense: bool
    ranks: bool

    @property
    def by_kind(self) -> dict[str, int]:
        """As `lower` takes it."""
        kinds = {"dense": self.dense, "reduce": self.ranks, "expand": self.ranks}
        return {kind: self.bits for kind, narrow in kinds.items() if narrow}


def narrow_of(
    machine: Any, bits: int | str | None, rank_bits: int | None, family: Family, with_dense_tiles: bool
) -> Narrow | None:
    """What is narrow, None for nothing. Raises InputError for bits that the machine has no narrow tiles of, and for
    families and options without what is to have them.
    """
    if bits is None and rank_bits is None:
        return None
    for name, value in (("bits", bits), ("rank_bits", rank_bits)):
        if value is not None:
            _check_bits(name, machine, value)
    if bits == CHOOSE and rank_bits is not None:
        raise InputError("rank_bits", f"{rank_bits} with bits 'choose'", "that chooses both", "Leave it out.")
    if bits is not None and (family.whole or family.unit == "rank" or not with_dense_tiles):
        what = family.label if with_dense_tiles else "no dense tiles"
        raise InputError("bits", f"{bits} with {what}", "it is of dense tiles", "Leave it out, or allow dense tiles.")
    if rank_bits is not None and (family.whole or family.unit == "tile"):
        rule = "it is of ranks that are chosen one by one or in groups"
        raise InputError("rank_bits", f"{rank_bits} with {family.label}", rule, "Leave it out.")
    return Narrow(machine.datatypes.narrow_bits, bits is not None, rank_bits is not None)


def _check_bits(name: str, machine: Any, bits: int | str) -> None:
    if not isinstance(machine, Machine):
        raise InputError(name, f"{bits} with {type(machine).__name__}", "a machine says which there are", "Give one.")
    if bits == CHOOSE and name == "bits":
        if not machine.datatypes.narrow_bits:
            raise InputError(
                name,
                f"{CHOOSE!r} on machine '{machine.name}'",
                f"it has tiles of {machine.datatypes.weight_bits} bits and no others",
                "Set the machine's datatypes.narrow_bits.",
            )
    elif isinstance(bits, (str, bool)):
        raise InputError(name, repr(bits), f"a number of bits, or {CHOOSE!r}", "Choose 4.")
    elif not narrow_kinds({"dense": bits}, machine):
        raise InputError(name, str(bits), "all weights have them in any case", "Leave it out.")
