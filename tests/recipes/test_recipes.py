"""The recipes of docs/house.md are true: each change touches the files that it says and then works all the way."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from tests.recipes.recipe import ROOT, Edit, Recipe, carry_out, run_check

RECIPES = (
    "tile_kind",
    "instruction",
    "operator",
    "vector_function",
    "timing_parameter",
    "size_parameter",
    "family",
    "energy_event",
)


def _recipe(name: str) -> Recipe:
    return importlib.import_module(f"tests.recipes.{name}").RECIPE


@pytest.mark.parametrize("name", RECIPES)
def test_a_change_made_by_the_recipe_works_all_the_way(name: str, tmp_path: Path) -> None:
    recipe = _recipe(name)
    assert len(recipe.files) <= recipe.most
    carry_out(recipe, tmp_path)
    assert run_check(f"tests.recipes.{name}", tmp_path) == ""


@pytest.mark.parametrize("name", RECIPES)
def test_the_check_fails_without_the_change(name: str, tmp_path: Path) -> None:
    recipe = _recipe(name)
    carry_out(Recipe(recipe.change, recipe.most, ()), tmp_path)
    assert run_check(f"tests.recipes.{name}", tmp_path) != ""


def test_the_table_of_the_house_says_what_each_recipe_touches() -> None:
    text = (ROOT / "docs" / "house.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([a-z ]+) \| (\d+) \| (\d+) \|", text, flags=re.M)
    told = {change: int(now) for change, _, now in rows}
    assert told == {recipe.change: len(recipe.files) for recipe in map(_recipe, RECIPES)}


def test_an_edit_that_does_not_fit_is_an_error(tmp_path: Path) -> None:
    wrong = Recipe("nothing", 1, (Edit("simulator/program/operations.py", "no such line", ""),))
    with pytest.raises(ValueError, match=r"operations.py: 'no such line' stands there 0 times, not once"):
        carry_out(wrong, tmp_path)
