"""What documents, docstrings and comments point to exists: files, links, modules, commands, sections, imports."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = ("simulator", "analysis", "gblr_hw", "benchmarks", "tests")
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
SOURCES = sorted(path for floor in FLOORS for path in (ROOT / floor).rglob("*.py"))

# Files that are the user's or somebody else's, not ours.
NOT_OURS = {"mine.py", "FILE.py", "file.py", "mine.toml", "FILE.toml", "flooded.toml"}
OTHER_PACKAGES = ("transformers/", "timm/", "torch/")  # the zoo tells lines of their files

_FILE = re.compile(r"(?<![\w/.$<>-])(?:[\w.-]+/)*[\w.-]+\.(?:py|md|toml|jsonl|cpp|tcl)\b(?![\w/(])")
_FOLDER = re.compile(rf"(?<![\w/.-])(?:{'|'.join((*FLOORS, 'docs'))})/(?:[\w-]+/)*(?:[\w-]+)?(?![\w/.*<-])")
_MODULE = re.compile(rf"(?<![\w./-])(?:{'|'.join(FLOORS)})(?:\.\w+)+")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_PYTEST = re.compile(r"pytest (tests/\S+\.py) -k ['\"]?([\w ]+?)['\"]?(?=[`'\").,]|\s+\d|$)", re.MULTILINE)
_MAKE = re.compile(r"`make ([\w-]+)")
_SECTION = re.compile(r"machine\.md[^.\n]{0,3},?\s+section\s+(\d+)|section\s+(\d+)\s+of\s+the\s+manual", re.IGNORECASE)


@cache
def paths() -> tuple[str, ...]:
    """Every file and folder that is ours."""
    found = {path.relative_to(ROOT) for floor in (*FLOORS, "docs") for path in (ROOT / floor).rglob("*")}
    found |= {path.relative_to(ROOT) for path in ROOT.iterdir()}
    return tuple(str(path) for path in found if "__pycache__" not in path.parts)


@cache
def endings() -> frozenset[str]:
    """Every path as it may be named: whole, or from any folder on."""
    return frozenset(
        "/".join(parts[at:]) for parts in (path.split("/") for path in paths()) for at in range(len(parts))
    )


def named_files(text: str) -> Iterator[str]:
    """Paths of source files, documents and data, and folders of the house, that a text names."""
    for match in _FILE.finditer(text):
        yield re.sub(r"^(?:\.{1,2}/)+", "", match[0])
    for match in _FOLDER.finditer(text):
        yield match[0].rstrip("/")


def missing_files(text: str) -> list[str]:
    files = {name for name in named_files(text) if PurePosixPath(name).name not in NOT_OURS}
    return sorted(name for name in files if name not in endings() and not name.startswith(OTHER_PACKAGES))


@cache
def module_file(name: str) -> Path | None:
    path = ROOT / name.replace(".", "/")
    found = (path.with_suffix(".py"), path / "__init__.py", path / "__main__.py")
    return next((one for one in found if one.is_file()), path if path.is_dir() else None)


@cache
def names_in(path: Path) -> frozenset[str]:
    """Every name that a module or package has at its top, or anywhere inside (methods, fields)."""
    source = path.read_text(encoding="utf-8") if path.is_file() else ""
    return frozenset(re.findall(r"\w+", source))


def missing_modules(text: str) -> list[str]:
    """Dotted names of ours that are neither a module nor a name in one."""
    missing = []
    for name in set(_MODULE.findall(text)):
        parts = name.split(".")
        for at in range(len(parts), 0, -1):
            file = module_file(".".join(parts[:at]))
            if file is not None:
                if not set(parts[at:]) <= names_in(file):
                    missing.append(name)
                break
    return sorted(missing)


def prose(source: str) -> str:
    """Docstrings and comments of a source, without the marks that begin comment lines."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            found.append(ast.get_docstring(node) or "")
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            found.append(token.string.lstrip("# "))
    return "\n".join(found)


def anchors(text: str) -> set[str]:
    """Anchors of a document's headings, as they are linked."""
    found = set()
    for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE):
        kept = re.sub(r"[^\w\- ]", "", heading.strip().lower().replace("`", ""))
        found.add(kept.replace(" ", "-"))
    return found


def broken_links(document: Path) -> list[str]:
    broken = []
    for target in _LINK.findall(document.read_text(encoding="utf-8")):
        if "://" in target or target.startswith("mailto:"):
            continue
        name, _, anchor = target.partition("#")
        file = (document.parent / name).resolve() if name else document
        if not file.exists() or (anchor and anchor not in anchors(file.read_text(encoding="utf-8"))):
            broken.append(target)
    return broken


def unmatched_tests(text: str) -> list[str]:
    """Commands `pytest FILE -k WORDS` that choose no test."""
    found = []
    for file, words in _PYTEST.findall(text):
        path = ROOT / file
        tests = re.findall(r"def (test_\w+)", path.read_text(encoding="utf-8")) if path.is_file() else []
        if not any(all(word in name for word in words.split()) for name in tests):
            found.append(f"{file} -k {words}")
    return found


def missing_targets(text: str) -> list[str]:
    """`make TARGET` that the Makefile does not have."""
    known = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    return sorted(set(_MAKE.findall(text)) - known)


def missing_sections(text: str) -> list[str]:
    known = set(re.findall(r"^## (\d+)\.", (ROOT / "docs/machine.md").read_text(encoding="utf-8"), re.MULTILINE))
    return sorted({one or other for one, other in _SECTION.findall(text)} - known)


def pointing_nowhere(text: str) -> list[str]:
    return [
        *missing_files(text),
        *missing_modules(text),
        *unmatched_tests(text),
        *missing_targets(text),
        *missing_sections(text),
    ]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_documents_point_to_what_exists(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    assert broken_links(document) + pointing_nowhere(text) == []


@pytest.mark.parametrize("name", ["Makefile", "pyproject.toml", "simulator/area_tables/cmos-180.toml"])
def test_other_files_point_to_what_exists(name: str) -> None:
    assert missing_files((ROOT / name).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("floor", FLOORS)
def test_docstrings_and_comments_point_to_what_exists(floor: str) -> None:
    found = {}
    for path in SOURCES:
        if path.relative_to(ROOT).parts[0] == floor and path != Path(__file__):
            missing = pointing_nowhere(prose(path.read_text(encoding="utf-8")))
            if missing:
                found[str(path.relative_to(ROOT))] = missing
    assert found == {}


def missing_imports(source: str) -> list[str]:
    """Modules of the house, and names of theirs, that a source imports and that are not there; functions included."""
    missing = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            wanted = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            wanted = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        missing += [name for one in wanted if one.split(".")[0] in FLOORS for name in missing_modules(one)]
    return missing


def test_imports_find_what_they_name_also_inside_functions() -> None:
    found = {str(path.relative_to(ROOT)): missing_imports(path.read_text(encoding="utf-8")) for path in SOURCES}
    assert {name: missing for name, missing in found.items() if missing} == {}


def test_what_points_nowhere_is_found() -> None:
    assert missing_files("see `simulator/base/errors.py`, errors.py, base/errors.py and docs/machine.md") == []
    assert missing_files("see `simulator/errors.py` and gone.py; write mine.py") == ["gone.py", "simulator/errors.py"]
    assert missing_files("in simulator/nowhere/ and `gblr_hw/weights/`") == ["simulator/nowhere"]
    assert missing_modules("`gblr_hw.convert`, simulator.base.errors.InputError, simulator.base") == []
    assert missing_modules("python -m benchmarks.gone.away, simulator.base.errors.Gone") == [
        "benchmarks.gone.away",
        "simulator.base.errors.Gone",
    ]
    assert unmatched_tests("`pytest tests/test_pointers.py -k nowhere`") == []
    assert unmatched_tests("`pytest tests/test_pointers.py -k elsewhere`") == ["tests/test_pointers.py -k elsewhere"]
    assert missing_targets("`make docs` and `make gone`") == ["gone"]
    assert missing_sections(f"machine.md, section 13 and machine.md, section {99}; section {77} of the manual") == [
        "77",
        "99",
    ]
    assert missing_imports("def f():\n    from simulator.base.gone import x\n    import os") == [
        "simulator.base.gone.x"
    ]
    assert anchors("# The machine's manual\n### By how much") == {"the-machines-manual", "by-how-much"}
    assert prose('"""Say."""\n\nx = 1  # see gone.py\n') == "Say.\nsee gone.py"
