"""The floor plan holds: imports point down, no circle of rooms, no crowded room."""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = ("simulator", "analysis", "gblr_hw")
MOST_MODULES = 14
MOST_LINES = 70  # of a function, its docstring aside


def _modules() -> dict[str, Path]:
    """Every module of the product by its dotted name, packages too."""
    found = {}
    for floor in FLOORS:
        for path in (ROOT / floor).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = _modules()


def imported(source: str, modules: dict[str, Path]) -> Iterator[str]:
    """Modules that a source imports anywhere, also inside functions."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield from (name for name in (whole if whole in modules else node.module,) if name in modules)


def _room(module: str) -> str:
    return module if MODULES[module].name == "__init__.py" else module.rpartition(".")[0]


def _arrows(of: str) -> Iterator[tuple[str, str]]:
    for module, path in MODULES.items():
        for other in imported(path.read_text(encoding="utf-8"), MODULES):
            # Front doors (simulator, gblr_hw) gather what their rooms make: they stand before the house, not in it.
            if MODULES[module].name != "__init__.py" and other not in FLOORS and module.startswith(of):
                yield module, other


@pytest.mark.parametrize("floor", FLOORS)
def test_imports_point_down(floor: str) -> None:
    above = FLOORS[FLOORS.index(floor) + 1 :]
    upward = [(a, b) for a, b in _arrows(f"{floor}.") if b.split(".")[0] in above]
    assert upward == []


def circle(arrows: list[tuple[str, str]]) -> list[str]:
    """A circle of arrows, empty if there is none."""
    graph: dict[str, set[str]] = {}
    for tail, head in arrows:
        graph.setdefault(tail, set()).add(head)
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


def test_no_circle_of_modules_or_rooms() -> None:
    arrows = list(_arrows(""))
    rooms = [(_room(a), _room(b)) for a, b in arrows]
    assert circle(arrows) == []
    assert circle([(a, b) for a, b in rooms if a != b]) == []


def test_a_circle_is_found() -> None:
    assert set(circle([("a", "b"), ("b", "c"), ("c", "b")])) == {"b", "c"}


def test_rooms_are_not_crowded() -> None:
    folders: dict[Path, int] = {}
    for path in MODULES.values():
        if path.name != "__init__.py":
            folders[path.parent] = folders.get(path.parent, 0) + 1
    crowded = {str(folder.relative_to(ROOT)): count for folder, count in folders.items() if count > MOST_MODULES}
    assert crowded == {}


def long_functions(source: str, most: int) -> dict[str, int]:
    """Functions of a source, also those inside others, that have more lines without their docstring."""
    found = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            told = ast.get_docstring(node, clean=False)
            first = node.body[0]
            lines = (node.end_lineno or 0) - node.lineno + 1
            lines -= 0 if told is None else (first.end_lineno or 0) - first.lineno + 1
            if lines > most:
                found[node.name] = lines
    return found


def test_functions_are_not_long() -> None:
    found = {name: long_functions(path.read_text(encoding="utf-8"), MOST_LINES) for name, path in MODULES.items()}
    assert {name: long for name, long in found.items() if long} == {}


def test_a_long_function_is_found() -> None:
    source = 'def f(\n    a,\n):\n    """One\n\n    two."""\n    return a\n'
    assert long_functions(source, 3) == {"f": 4}
    assert long_functions(source, 4) == {}


def test_the_reader_of_imports_sees_all_kinds() -> None:
    modules = {"a.b": Path("a/b.py"), "a.c": Path("a/c.py"), "a.d": Path("a/d.py")}
    source = "import a.b\nfrom a import c\ndef f():\n    from a.d import x\n"
    assert list(imported(source, modules)) == ["a.b", "a.c", "a.d"]
