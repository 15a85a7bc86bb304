"""The registry of structure families: incomplete entries are refused by name, and names of old are today's."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from analysis.pictures.family_marks import MARKS
from gblr_hw.files.checkpoint import load_checkpoint, save_checkpoint
from gblr_hw.weights.family import (
    ALIASES,
    FAMILIES,
    UNITS,
    Family,
    canonical,
    complete,
    converted,
    converted_whole,
    family_named,
    lattice_family,
    old_labels,
    on_lattice,
    on_machine,
    registry,
    renamed,
    told,
    trained,
)
from gblr_hw.weights.stored import LatticeWeights
from simulator.base.errors import InputError

ROOT = Path(__file__).parents[3]
OLD_FILE = ROOT / "tests" / "data" / "reference" / "rank_groups_by_their_old_name.safetensors"
GOOD: dict[str, Any] = {
    "name": "toy",
    "label": "lattice",  # a label that has a mark
    "about": "nothing real",
    "unit": "rank",
    "training": "projection",
    "candidates": (),
    "converted": True,
    "whole": False,
    "square_array": False,
    "stand_in": None,
}


def test_the_lists_that_everything_derives_from() -> None:
    plain = ("dense", "low_rank", "block_sparse", "rank_groups", "lattice")
    assert trained() == (*plain, "monarch", "blast", "width", "gblr_published", "hardware", "learned")
    assert converted() == ("low_rank", "block_sparse", "rank_groups", "lattice")
    assert converted_whole() == ("monarch", "blast", "kronecker", "tensor_train")
    assert on_lattice() == (*converted(), "monarch")
    assert [name for name, family in FAMILIES.items() if family.training and not family.needs_target] == ["dense"]
    assert {family.unit for family in FAMILIES.values()} == {None, *UNITS}
    assert all(f"{name}: {FAMILIES[name].about}" in told((name,)) for name in ("dense", "lattice"))
    assert "rank_groups (or its old name block_low_rank)" in told(("rank_groups",))


def test_every_family_has_a_mark_under_its_label() -> None:
    assert {family.mark: family.label for family in FAMILIES.values()} == {
        family.mark: MARKS[family.mark].label for family in FAMILIES.values()
    }


@pytest.mark.parametrize("field", [field.name for field in fields(Family) if field.name != "name"])
def test_a_field_left_out_is_told_with_its_entry(field: str) -> None:
    assert Family(**GOOD).name == "toy"
    with pytest.raises(InputError, match=f"family 'toy': field '{field}': found nothing; every field is given"):
        Family(**{key: value for key, value in GOOD.items() if key != field})


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"name": "Two Words"}, "field 'name': found 'Two Words'"),
        ({"label": ""}, "family 'toy': field 'label': found no text"),
        ({"unit": "row"}, "family 'toy': field 'unit': found 'row'; it is None or one of tile, rank"),
        ({"training": "hope"}, "family 'toy': field 'training': found 'hope'"),
        ({"unit": None}, "family 'toy': field 'unit': found None"),
        ({"candidates": ("dense",)}, "family 'toy': field 'candidates'"),
        ({"training": "trials"}, "family 'toy': field 'candidates': found ()"),
    ],
)
def test_a_field_that_makes_no_sense_is_told_with_its_entry(change: dict[str, Any], text: str) -> None:
    with pytest.raises(InputError, match=re.escape(text)):
        Family(**GOOD | change)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"name": "dense"}, "family 'dense': field 'name': found 'dense' twice"),
        ({"label": "unseen"}, "family 'toy': field 'label': found 'unseen'; analysis/pictures/family_marks.py has"),
        ({"training": "trials", "candidates": ("none",)}, "family 'toy': field 'candidates': found 'none'"),
        ({"training": "trials", "candidates": ("toy",)}, "family 'toy': field 'candidates': found 'toy'"),
        ({"stand_in": "dense"}, "family 'toy': field 'stand_in': found 'dense'"),
    ],
)
def test_entries_that_do_not_fit_together_are_told(change: dict[str, Any], text: str) -> None:
    assert list(registry(FAMILIES["dense"], Family(**GOOD))) == ["dense", "toy"]
    with pytest.raises(InputError, match=re.escape(text)):
        registry(FAMILIES["dense"], Family(**GOOD | change))


def test_tables_of_the_rooms_above_hold_what_is_asked_for_and_no_more() -> None:
    assert complete({"tile": 1, "rank": 2}, ("tile", "rank"), "unit") == {"tile": 1, "rank": 2}
    with pytest.raises(InputError, match="family what is a 'rank': field 'unit': found no entry"):
        complete({"tile": 1}, ("tile", "rank"), "unit")
    with pytest.raises(InputError, match="family 'lattice': field 'from_dense': found no entry"):
        complete({"low_rank": 1}, ("low_rank", "lattice"), "from_dense")
    with pytest.raises(InputError, match="family what is a 'row': field 'unit': found an entry"):
        complete({"tile": 1, "row": 2}, ("tile",), "unit")


@pytest.mark.parametrize(
    ("room", "text"),
    [
        ("gblr_hw.conversion.from_dense", "family 'toy': field 'from_dense': found no entry"),
        ("gblr_hw.conversion.conversion", "family 'toy': field 'from_dense': found no entry"),
        ("gblr_hw.training.networks", "family 'toy': field 'from_dense': found no entry"),
    ],
)
def test_a_registered_family_without_its_functions_stops_the_import(room: str, text: str) -> None:
    script = (
        f"import gblr_hw.weights.family as f; f.FAMILIES['toy'] = f.Family(**{GOOD!r})\n"
        f"import importlib; importlib.import_module('{room}')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 1
    assert text in done.stderr


def test_naming_families_loads_nothing_heavy() -> None:
    script = "import sys, gblr_hw.weights.family; print(sorted({'torch', 'matplotlib', 'sklearn'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("text", ["rank_groups", "rank-groups", "Rank groups", "block_low_rank", "block low rank"])
def test_hyphens_blanks_and_old_names_are_one_name(text: str) -> None:
    assert canonical(text) == "rank_groups"
    assert family_named(text, converted(), "here") is FAMILIES["rank_groups"]


def test_what_is_no_family_is_refused_with_those_that_are() -> None:
    with pytest.raises(InputError, match="--family: found 'learned'; it must be one of low_rank, block_sparse"):
        family_named("learned", converted(), "--family")
    with pytest.raises(InputError, match="'block_low_rank' is called 'rank_groups' now"):
        lattice_family("block_low_rank")
    with pytest.raises(InputError, match="family: found 'dense'; it must be one of low_rank"):
        lattice_family("dense")


def test_old_words_in_results_are_todays_in_the_same_form() -> None:
    assert renamed("block_low_rank") == "rank_groups"
    assert renamed("block low rank") == "rank groups"
    assert [renamed(text) for text in ("ranks", "a block low rank thing", "")] == [
        "ranks",
        "a block low rank thing",
        "",
    ]
    assert all(new in FAMILIES and old not in FAMILIES for old, new in ALIASES.items())
    for old, new in (("block low rank", "rank groups"), ("learned lattice, any width", "automatic choice, any width")):
        assert renamed(old) == new and old_labels(new) == (old,)
    assert renamed("ranks, intervals") == "ranks, intervals" and old_labels("lattice") == ()


def test_only_what_needs_scatter_is_stood_in_for() -> None:
    assert on_machine(FAMILIES["lattice"], scatter=False) is FAMILIES["rank_groups"]
    assert on_machine(FAMILIES["lattice"], scatter=True) is FAMILIES["lattice"]
    assert on_machine(FAMILIES["low_rank"], scatter=False) is FAMILIES["low_rank"]


def test_a_file_with_the_old_name_reads_and_is_written_with_the_new_one(tmp_path: Path) -> None:
    """The file is one that the last release without the registry wrote."""
    assert b"block_low_rank" in OLD_FILE.read_bytes()
    layers, raw = load_checkpoint(OLD_FILE), load_file(OLD_FILE)
    for name, layer in layers.items():
        assert isinstance(layer, LatticeWeights)
        assert layer.family == "rank_groups"
        assert torch.equal(layer.matrix(), raw[f"{name}.u"].double() @ raw[f"{name}.v"].double())
    save_checkpoint(layers, tmp_path / "new.safetensors")
    written = (tmp_path / "new.safetensors").read_bytes()
    assert b"block_low_rank" not in written
    assert b"rank_groups" in written
    for name, layer in load_checkpoint(tmp_path / "new.safetensors").items():
        assert isinstance(layer, LatticeWeights)
        assert torch.equal(layer.matrix(), layers[name].matrix())
