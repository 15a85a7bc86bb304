"""Documents follow from their figures: `make docs` changes nothing, and no table of measured figures stands by hand."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from benchmarks.docs.__main__ import documents, rewritten, told
from benchmarks.docs.blocks import BLOCKS, Block
from benchmarks.docs.pictures import PICTURES, stale
from benchmarks.docs.quoted_figures import QUOTES
from benchmarks.docs.quotes import Quote, quoted
from benchmarks.docs.sources import SOURCES, load, read_json, read_lines
from benchmarks.shared.marked_blocks import marks
from simulator.base.errors import InputError
from tests.drawn.corpus import SIZES
from tests.mutation.mutants import MUTANTS

ROOT = Path(__file__).parents[2]
NAMED = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

# Tables that stand by hand: document and first words of the heading -> why nothing makes them.
BY_HAND = {
    ("README.md", "| to | read |"): "a list of the documents",
    (
        "docs/machine.md",
        "",
    ): "the manual's rules; its time lines are recomputed by tests/simulator/program/test_manual.py",
    ("docs/house.md", ""): "a map, not a measurement; held by tests/test_house.py and tests/recipes/",
    ("docs/training.md", ""): "names and what they mean",
    ("docs/networks.md", "| |"): "what is refused, in words, with one run of a 2.1 GB file",
    ("docs/bits.md", "| | command | what happens |"): "commands and what they do",
    ("docs/codesign.md", "| side | quantity | values"): "what a search ranges over, not what it found",
    ("docs/references.md", "| | SCALE-Sim 3.0 | our machine |"): "rules of two machines, not measurements",
    ("docs/verification.md", "| what | command | size |"): "commands and the sizes that they are run with",
    ("docs/energy.md", "| part | 45 nm"): "where entries come from, in words",
    ("docs/advice.md", "| way | is |"): "what is compared, in words",
    ("docs/sweeps.md", "| `--set` | what it is |"): "names and what they mean; held by tests/gblr_hw/sweeps",
    ("docs/sweeps.md", "| column | unit |"): "names and what they mean; held by tests/gblr_hw/sweeps",
}
# Files of docs/data that are no figures.
SETTINGS = {"docs/data/codesign_space.toml"}


@cache
def figures() -> dict[str, Any]:
    return load(ROOT)


@pytest.mark.parametrize("document", documents())
def test_writing_a_document_again_changes_nothing(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    assert rewritten(document, text, figures()) == text, "run `make docs`"


def test_pictures_show_the_figures() -> None:
    assert [name for name, _ in stale(ROOT, figures())] == [], "run `make docs`"
    assert all((ROOT / name).is_file() for name in PICTURES)


def tables_by_hand(text: str) -> list[str]:
    """Headings of the tables outside of marked blocks, and code blocks with ruled columns."""
    for name in re.findall(r"^<!-- begin (.+) -->$", text, re.MULTILINE):
        begin, end = marks(name)
        text = text[: text.index(begin)] + text[text.index(end) + len(end) :]
    headings = re.findall(r"^(\|.*)\n\|[\s:|-]+\|$", text, re.MULTILINE)
    return headings + re.findall(r"^(\S.*)\n-+(?:  +-+)+$", text, re.MULTILINE)


def allowed(document: str, heading: str) -> bool:
    return any(name == document and heading.startswith(start) for name, start in BY_HAND)


@pytest.mark.parametrize("path", NAMED, ids=lambda path: path.name)
def test_every_table_is_made_from_figures_or_named_here(path: Path) -> None:
    document = str(path.relative_to(ROOT))
    headings = tables_by_hand(path.read_text(encoding="utf-8"))
    assert [heading for heading in headings if not allowed(document, heading)] == []


def test_what_is_named_as_written_by_hand_is_there() -> None:
    for document, start in BY_HAND:
        headings = tables_by_hand((ROOT / document).read_text(encoding="utf-8"))
        assert any(heading.startswith(start) for heading in headings), (document, start)


def test_tables_by_hand_are_found() -> None:
    table = "| a | b |\n|---|--:|\n| 1 | 2 |\n"
    assert tables_by_hand(f"x\n\n{table}") == ["| a | b |"]
    assert tables_by_hand(f"x\n\n<!-- begin a -->\n\n{table}\n<!-- end a -->\n") == []
    assert tables_by_hand("```\nkind  cycles\n----  ------\nnorm       1\n```\n") == ["kind  cycles"]


def test_every_file_of_figures_is_a_source_and_is_shown() -> None:
    kept = {str(path.relative_to(ROOT)) for path in (ROOT / "docs/data").iterdir()} - SETTINGS
    assert kept | {"docs/synthesis.json"} == {source.path for source in SOURCES.values()}
    shown = {name for block in BLOCKS for name in block.sources}
    assert set(SOURCES) - shown == {"sweeps"}  # a picture
    assert len({(block.document, block.name) for block in BLOCKS}) == len(BLOCKS)


def test_a_file_that_was_read_off_a_document_says_so_under_its_table() -> None:
    for name, data in figures().items():
        if isinstance(data, dict) and "taken" in data:
            assert data["command"] == SOURCES[name].command
            blocks = [block for block in BLOCKS if name in block.sources]
            assert blocks
            assert all(data["taken"] in block.written(figures()) for block in blocks)


def test_figures_of_the_mutants_and_of_the_corpus_are_of_those_that_are_there() -> None:
    told = [(one["rule"], one["error"], one["place"]) for one in figures()["mutants"]["mutants"]]
    assert told == [(one.rule, one.error, one.place) for one in MUTANTS], f"run `{SOURCES['mutants'].command}`"
    assert figures()["corpus"]["programs"] == SIZES, f"run `{SOURCES['corpus'].command}`"
    assert figures()["corpus"]["differences"] == 0


def test_a_block_says_what_it_rests_on() -> None:
    block = Block("docs/d.md", "n", ("growth", "models"), lambda figures: "| a |\n")
    assert block.written({"growth": {"taken": "read off"}, "models": []}) == (
        "| a |\n\n*From [growth.json](data/growth.json), made by `python -m benchmarks.speed.growth --out "
        "docs/data/growth.json` (read off); and [models.jsonl](data/models.jsonl), made by `python -m "
        "benchmarks.networks.models --again`.*\n"
    )
    assert "](docs/data/growth.json)" in replace(block, document="README.md").resting_on({"growth": {}, "models": []})


def test_figures_of_a_phrase_are_replaced_where_it_stands() -> None:
    quote = Quote("d.md", "takes {} cycles, {} % of", lambda figures: figures["x"])
    found = quoted("It takes 1,234\ncycles,  5.6 % of 7.", quote, {"x": ["9", "10.25"]})
    assert found == "It takes 9\ncycles,  10.25 % of 7."
    for text in ("takes no cycles", "takes 1 cycles, 2 % of; takes 1 cycles, 2 % of"):
        with pytest.raises(
            InputError, match=r"document 'd\.md', phrase 'takes \{\} cycles.*stands in its document once"
        ):
            quoted(text, quote, {"x": ["9", "10"]})
    with pytest.raises(InputError, match="3 figures for it"):
        quoted("takes 1 cycles, 2 % of", quote, {"x": ["9", "10", "11"]})


def test_phrases_that_rest_on_figures_are_in_documents_that_are_written() -> None:
    assert {quote.document for quote in QUOTES} <= set(documents())


def test_a_marked_block_that_nothing_makes_is_refused() -> None:
    text = (ROOT / "docs/speed.md").read_text(encoding="utf-8") + "\n".join(marks("stranger"))
    with pytest.raises(InputError, match=r"block 'stranger': found a marked block that nothing makes"):
        rewritten("docs/speed.md", text, figures())


def test_missing_and_broken_files_of_figures_are_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"figures 'docs/data/demo\.json': found no such file.*benchmarks\.demo"):
        load(tmp_path)
    (tmp_path / "x").write_text("{\n")
    with pytest.raises(InputError, match="the file is JSON"):
        read_json(tmp_path / "x")
    with pytest.raises(InputError, match="each line is JSON"):
        read_lines(tmp_path / "x")


def test_the_command_names_what_has_changed() -> None:
    assert told(["README.md"]) == "README.md\n"
    assert told([]) == "nothing has changed\n"
