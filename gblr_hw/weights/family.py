"""The registry of structure families: what each is called and how it behaves, in one entry.

Whatever treats families differently asks a field of the entry, never its name. What takes code is kept in the rooms
above, by family (`gblr_hw/conversion/from_dense.py`) or by what a field says (projection by unit, phases by training),
and each of those tables is checked against this registry when it is imported. Nothing here is heavy to import, so that
the command line can name families without torch.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, TypeVar, get_args

from analysis.pictures.family_marks import MARKS, mark_key
from simulator.base.errors import InputError

Unit = Literal["tile", "rank", "rank_group", "chunk"]
Training = Literal["plain", "projection", "sized", "width_penalty", "annealed", "hardware_penalty", "trials"]
UNITS: tuple[Unit, ...] = get_args(Unit)
TRAININGS: tuple[Training, ...] = get_args(Training)

Key = TypeVar("Key", bound=str)
Part = TypeVar("Part")

# The default of every field, so that one left out is told with its entry's name.
_MISSING: Any = object()


@dataclass(frozen=True, kw_only=True)
class Family:
    """One structure family. Every field has to be given.

    name: in files, in Python and on the command line: lower case, with underscores.
    label: in tables and pictures; its mark is the one that `analysis/pictures/family_marks.py` has for it.
    about: a clause for help texts.
    unit: what a projection takes from a layer at a time: a dense "tile"; a whole "rank"; a chunk of a "rank_group", P
        ranks that share their chunks; or any rank's "chunk" as well as any tile. None: its layers are stored as weights
        of a kind of their own, and are no points of the tile lattice.
    training: how a network of it is trained: "plain", as the dense start itself; "projection" from the dense weights;
        "sized", blocks and ranks chosen for the target and fitted to the dense weights, then trained; a
        "width_penalty"; "annealed" masks, from scratch; a "hardware_penalty", then projection; "trials", which choose
        another family. None: it cannot be trained.
    candidates: the families that trials choose between; the first wins a tie. Empty for all other trainings.
    converted: whether conversion makes it from pretrained weights at a budget.
    whole: whether its layers are chosen whole, by blocks and ranks, and lose nothing at a time: conversion then tries
        sizes, and co-design searches it where a space names it.
    square_array: whether its tiles are full on both sides only where the array's rows equal its columns.
    stand_in: the family that takes its place on a machine without a permutation network, where it would take more tiles
        than are counted; None where it needs no such network.
    """

    name: str = _MISSING
    label: str = _MISSING
    about: str = _MISSING
    unit: Unit | None = _MISSING
    training: Training | None = _MISSING
    candidates: tuple[str, ...] = _MISSING
    converted: bool = _MISSING
    whole: bool = _MISSING
    square_array: bool = _MISSING
    stand_in: str | None = _MISSING

    def __post_init__(self) -> None:
        for field in fields(self):
            if getattr(self, field.name) is _MISSING:
                raise self.incomplete(field.name, "nothing", "every field is given")
        if not self.name.isidentifier() or self.name != self.name.lower():
            raise self.incomplete("name", repr(self.name), "it is lower case, with underscores")
        for name in ("label", "about"):
            if not getattr(self, name):
                raise self.incomplete(name, "no text", "tables and help say it")
        if self.unit not in (None, *UNITS):
            raise self.incomplete("unit", repr(self.unit), f"it is None or one of {', '.join(UNITS)}")
        if self.training not in (None, *TRAININGS):
            raise self.incomplete("training", repr(self.training), f"it is None or one of {', '.join(TRAININGS)}")
        if bool(self.candidates) != (self.training == "trials"):
            raise self.incomplete("candidates", repr(self.candidates), "trials have some, and nothing else has any")
        cut = self.converted and not self.whole
        if self.unit is None and (cut or self.training == "projection"):
            raise self.incomplete("unit", "None", "what is converted or projected loses something at a time")
        if self.whole and self.training == "projection":
            raise self.incomplete("whole", "True", "what is projected loses something at a time")
        if self.training == "sized" and not self.whole:
            raise self.incomplete("whole", "False", "sizes are chosen of what is chosen whole")

    def incomplete(self, field: str, found: str, rule: str) -> InputError:
        """The error for an entry that a table cannot work with."""
        remedy = "Complete the entry in gblr_hw/weights/family.py, or the table that asks for it."
        return InputError(f"family '{self.name}': field '{field}'", found, rule, remedy)

    @property
    def mark(self) -> str:
        """What pictures know it by."""
        return mark_key(self.label)

    @property
    def needs_target(self) -> bool:
        """Whether it is trained towards a latency or an energy."""
        return self.training not in (None, "plain")

    @property
    def from_scratch(self) -> bool:
        """Whether it is trained from an untrained network, not from the dense start."""
        return self.training in ("plain", "annealed")


def registry(*entries: Family) -> dict[str, Family]:
    """The entries by name. Raises InputError, naming entry and field, where they do not fit together."""
    found: dict[str, Family] = {}
    for entry in entries:
        if entry.name in found:
            raise entry.incomplete("name", f"{entry.name!r} twice", "each family has one entry")
        found[entry.name] = entry
    for entry in entries:
        if entry.mark not in MARKS:
            raise entry.incomplete("label", repr(entry.label), "analysis/pictures/family_marks.py has a mark for it")
        for name in entry.candidates:
            if name not in found or found[name].training in (None, "trials"):
                raise entry.incomplete("candidates", repr(name), "each is a family that can be trained")
        other = None if entry.stand_in is None else found.get(entry.stand_in)
        if entry.stand_in is not None and (other is None or other.stand_in is not None or not other.converted):
            raise entry.incomplete("stand_in", repr(entry.stand_in), "it is a family that any machine runs as counted")
    return found


FAMILIES = registry(
    Family(
        name="dense",
        label="dense",
        about="the matrix as it is",
        unit=None,
        training="plain",
        candidates=(),
        converted=False,
        whole=False,
        square_array=False,
        stand_in=None,
    ),
    Family(
        name="low_rank",
        label="low rank",
        about="whole ranks, each of which reads and writes everything",
        unit="rank",
        training="projection",
        candidates=(),
        converted=True,
        whole=False,
        square_array=False,
        stand_in=None,
    ),
    Family(
        name="block_sparse",
        label="block sparse",
        about="dense tiles only",
        unit="tile",
        training="projection",
        candidates=(),
        converted=True,
        whole=False,
        square_array=False,
        stand_in=None,
    ),
    Family(
        name="rank_groups",
        label="rank groups",
        about="any chunk set of P ranks at a time, which an array without scatter runs",
        unit="rank_group",
        training="projection",
        candidates=(),
        converted=True,
        whole=False,
        square_array=True,
        stand_in=None,
    ),
    Family(
        name="lattice",
        label="lattice",
        about="any chunk set of each rank",
        unit="chunk",
        training="projection",
        candidates=(),
        converted=True,
        whole=False,
        square_array=False,
        stand_in="rank_groups",
    ),
    Family(
        name="monarch",
        label="Monarch",
        about="a grid of low-rank blocks, or the product of two block-diagonal factors",
        unit="chunk",
        training="sized",
        candidates=(),
        converted=True,
        whole=True,
        square_array=False,
        stand_in="rank_groups",
    ),
    Family(
        name="blast",
        label="BLAST",
        about="a basis for each block of inputs and of outputs, and a diagonal for each pair",
        unit=None,
        training="sized",
        candidates=(),
        converted=True,
        whole=True,
        square_array=False,
        stand_in="rank_groups",
    ),
    Family(
        name="kronecker",
        label="Kronecker",
        about="a sum of Kronecker products",
        unit=None,
        training=None,
        candidates=(),
        converted=True,
        whole=True,
        square_array=False,
        stand_in="rank_groups",
    ),
    Family(
        name="tensor_train",
        label="tensor train",
        about="two cores of a tensor train",
        unit=None,
        training=None,
        candidates=(),
        converted=True,
        whole=True,
        square_array=False,
        stand_in="rank_groups",
    ),
    Family(
        name="width",
        label="GBLR, width penalty",
        about="GBLR fitted to the dense weights on random intervals, all widths shrunk alike for 70 % of the run",
        unit=None,
        training="width_penalty",
        candidates=(),
        converted=False,
        whole=False,
        square_array=False,
        stand_in=None,
    ),
    Family(
        name="gblr_published",
        label="GBLR, published recipe",
        about="GBLR from scratch, masks annealed from blurred to sharp, all widths shrunk alike while above the target",
        unit=None,
        training="annealed",
        candidates=(),
        converted=False,
        whole=False,
        square_array=False,
        stand_in=None,
    ),
    Family(
        name="hardware",
        label="GBLR, hardware penalty",
        about="GBLR with the hardware cost, then projection",
        unit=None,
        training="hardware_penalty",
        candidates=(),
        converted=False,
        whole=False,
        square_array=False,
        stand_in=None,
    ),
    Family(
        name="learned",
        label="automatic choice",
        about="dense tiles, whole ranks or ranks by chunk, whichever a short trial favours",
        unit=None,
        training="trials",
        candidates=("block_sparse", "low_rank", "lattice"),
        converted=False,
        whole=False,
        square_array=False,
        stand_in=None,
    ),
)
# Names in files that earlier releases wrote.
ALIASES = {"block_low_rank": "rank_groups"}
# Labels in files that earlier releases wrote; a study's own variant of a family has more words behind a comma.
_OLD_LABELS = {"learned lattice": "automatic choice"}


def trained() -> tuple[str, ...]:
    """Names of the families that can be trained."""
    return tuple(name for name, family in FAMILIES.items() if family.training is not None)


def converted() -> tuple[str, ...]:
    """Names of the families that are made from pretrained weights tile by tile, from the plainest to the freest."""
    return tuple(name for name, family in FAMILIES.items() if family.converted and not family.whole)


def converted_whole() -> tuple[str, ...]:
    """Names of the families that are made from pretrained weights at a budget by trying sizes."""
    return tuple(name for name, family in FAMILIES.items() if family.converted and family.whole)


def on_lattice() -> tuple[str, ...]:
    """Names of the families whose layers are points of the tile lattice."""
    return tuple(name for name, family in FAMILIES.items() if family.unit is not None)


def canonical(name: str) -> str:
    """The name under which a family is registered: blanks and hyphens are underscores, and old names are today's."""
    key = name.strip().lower().replace("-", "_").replace(" ", "_")
    return ALIASES.get(key, key)


def renamed(text: str) -> str:
    """A name or a label that earlier releases wrote, as today's; any other text as it is."""
    for old, new in ALIASES.items():
        if text in (old, old.replace("_", " ")):
            return new if text == old else FAMILIES[new].label
    family, comma, variant = text.partition(",")
    return _OLD_LABELS.get(family, family) + comma + variant


def old_labels(label: str) -> tuple[str, ...]:
    """The labels that earlier releases wrote for what `renamed` calls by this one."""
    family, comma, variant = label.partition(",")
    aliases = (old.replace("_", " ") for old, new in ALIASES.items() if FAMILIES[new].label == label)
    return (*aliases, *(old + comma + variant for old, new in _OLD_LABELS.items() if new == family))


def family_named(name: str, among: Collection[str], where: str) -> Family:
    """The family of a name as people write it. Raises InputError, naming `where`, unless it is `among` those asked."""
    key = canonical(name)
    if key not in among:
        raise InputError(
            where, repr(name), f"it must be one of {', '.join(among)}", "Choose one; hyphens are underscores."
        )
    return FAMILIES[key]


def lattice_family(name: str) -> Family:
    """The family of a layer that is a point of the tile lattice, by its exact name. Raises InputError for others."""
    if name not in on_lattice():
        now = f" '{name}' is called '{ALIASES[name]}' now." if name in ALIASES else ""
        raise InputError("family", repr(name), f"it must be one of {', '.join(on_lattice())}", f"Use 'lattice'.{now}")
    return FAMILIES[name]


def on_machine(family: Family, scatter: bool) -> Family:
    """The family, or on a machine without a permutation network what stands in for it."""
    return family if scatter or family.stand_in is None else FAMILIES[family.stand_in]


def told(names: Iterable[str]) -> str:
    """Families with what they are, for a help text; old names are told beside the new ones."""
    old = {new: f" (or its old name {name})" for name, new in ALIASES.items()}
    return "; ".join(f"{name}{old.get(name, '')}: {FAMILIES[name].about}" for name in names) + "."


def complete(table: Mapping[Key, Part], wanted: Iterable[str], field: str) -> Mapping[Key, Part]:
    """A table of the rooms above, by family or by what a field of families says, with exactly the `wanted` entries.

    Raises InputError, naming the entry that is missing, or that nobody asks for, and the field that the table is for.
    """
    asked = tuple(wanted)
    for name in (*asked, *table):
        if (name in table) != (name in asked):
            found = "no entry" if name in asked else "an entry"
            whose = f"'{name}'" if name in FAMILIES else f"what is a '{name}'"
            rule = "the table has one for each family (or value of its field) that asks for one, and no other"
            raise InputError(f"family {whose}: field '{field}'", found, rule, "Complete the table, or the registry.")
    return table
