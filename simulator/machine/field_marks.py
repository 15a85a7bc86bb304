"""What each field of a machine moves, said where the field is declared. The layout key and what files carry follow from
it, so that a new field needs no list besides its own line.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import ConfigDict
from pydantic.fields import FieldInfo

from simulator.base.schema import Strict


@dataclass(frozen=True)
class Moves:
    """What changes if a field does; it stands in the field's ``Annotated``.

    what: "layout", where programs put things: a program runs only on machines that agree in it. "time", cycles or
    seconds (and what they cost). "price", energy or area alone. "nothing" that is computed: names and words.
    key: its place in the layout key, where that is not its section's and its own name.
    """

    what: Literal["layout", "time", "price", "nothing"]
    key: str = ""


LAYOUT, TIME, PRICE, NOTHING = Moves("layout"), Moves("time"), Moves("price"), Moves("nothing")


class Section(Strict):
    """A part of a machine: immutable, strict, and every field is a section or has a mark of what it moves.

    A field without a mark, or with two, is a TypeError that names it when the class is made. A field with a default
    that moves something came later than the first machine files: the default means "as before", so that files without
    it still load, and it stands in keys and files only where it differs.
    """

    model_config = ConfigDict(validate_default=True)

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        for name, field in cls.model_fields.items():
            marks = [mark for mark in field.metadata if isinstance(mark, Moves)]
            if len(marks) != (1 if _section_of(field) is None else 0):
                raise TypeError(
                    f"{cls.__name__}.{name} has {len(marks)} marks of what it moves; a section has none, any other "
                    "field one of LAYOUT, TIME, PRICE and NOTHING (simulator/machine/field_marks.py)"
                )


@dataclass(frozen=True)
class MachineField:
    """A field of a machine: ``path`` of section and name as in a file, and its mark."""

    path: tuple[str, ...]
    moves: Moves
    info: FieldInfo

    @property
    def came_later(self) -> bool:
        """Whether files may be without it, and are where it has its default."""
        return self.moves.what != "nothing" and not self.info.is_required()


def machine_fields(section: type[Section], above: tuple[str, ...] = ()) -> Iterator[MachineField]:
    """Every field of a section and of those within it, in the order of declaration."""
    for name, info in section.model_fields.items():
        path = (*above, info.alias or name)
        inner = _section_of(info)
        if inner is None:
            yield MachineField(path, next(mark for mark in info.metadata if isinstance(mark, Moves)), info)
        else:
            yield from machine_fields(inner, path)


def layout_values(section: Section) -> dict[str, Any]:
    """Values that a program's layout follows from, by section; later fields only where they differ from before."""
    data, found = section.model_dump(by_alias=True), dict[str, Any]()
    for field in machine_fields(type(section)):
        value = _value(data, field.path)
        if field.moves.what == "layout" and not (field.came_later and value == field.info.get_default()):
            _put(found, (field.moves.key,) if field.moves.key else field.path, value)
    return found


def recorded_values(section: Section) -> dict[str, Any]:
    """Every value by section, but later fields only where they differ from before: files of programs that do not use a
    new field keep their bytes.
    """
    data, found = section.model_dump(by_alias=True), dict[str, Any]()
    for field in machine_fields(type(section)):
        value = _value(data, field.path)
        if not (field.came_later and value == field.info.get_default()):
            _put(found, field.path, value)
    return found


def _section_of(field: FieldInfo) -> type[Section] | None:
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, Section) else None


def _value(data: dict[str, Any], path: tuple[str, ...]) -> Any:
    for name in path:
        data = data[name]
    return data


def _put(data: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    for name in path[:-1]:
        data = data.setdefault(name, {})
    data[path[-1]] = value
