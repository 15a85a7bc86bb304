"""What `bits` of a conversion may be."""

from __future__ import annotations

from typing import Any

from gblr_hw.lowering.quantise.tile_bits import narrow_kinds
from gblr_hw.weights.family import Family
from simulator.base.errors import InputError
from simulator.machine.machine import Machine

CHOOSE = "choose"


def narrow_bits_of(machine: Any, bits: int | str, family: Family, with_dense_tiles: bool) -> int:
    """The bits of dense tiles. Raises InputError for bits that the machine has no narrow tiles of, and for families and
    options without dense tiles.
    """
    if not isinstance(machine, Machine):
        raise InputError(
            "bits", f"{bits} with {type(machine).__name__}", "a machine says which there are", "Give a Machine."
        )
    narrow = machine.datatypes.narrow_bits
    if bits == CHOOSE:
        if not narrow:
            raise InputError(
                "bits",
                f"{CHOOSE!r} on machine '{machine.name}'",
                f"it has tiles of {machine.datatypes.weight_bits} bits and no others",
                "Set the machine's datatypes.narrow_bits.",
            )
    elif isinstance(bits, (str, bool)):
        raise InputError("bits", repr(bits), f"a number of bits, or {CHOOSE!r}", "Choose 4.")
    elif not narrow_kinds({"dense": bits}, machine):
        raise InputError("bits", str(bits), "all weights have them in any case", "Leave it out.")
    if family.whole or family.unit == "rank" or not with_dense_tiles:
        what = family.label if with_dense_tiles else "no dense tiles"
        raise InputError("bits", f"{bits} with {what}", "it is of dense tiles", "Leave it out, or allow dense tiles.")
    return narrow
