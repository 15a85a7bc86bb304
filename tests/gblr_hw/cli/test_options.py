"""Options as the fields of a dataclass: the command line gives them, and the command gets one value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import pytest
import typer
from typer.testing import CliRunner

from gblr_hw.cli.options.convert_options import bits_of, hidden_pairs, shrink_of
from gblr_hw.cli.options.shared_options import JsonOption, TensorOptions
from gblr_hw.cli.options.taking import takes
from gblr_hw.files.accounting import Told
from simulator.base.errors import InputError


@dataclass(frozen=True, kw_only=True)
class _Inner:
    table: Annotated[list[str] | None, typer.Option("--table")] = None


@dataclass(frozen=True, kw_only=True)
class _Outer:
    size: Annotated[int, typer.Option("--size", min=1)] = 4
    inner: _Inner
    name: Annotated[str, typer.Argument()]
    as_json: JsonOption = False


def _app(got: list[Any]) -> typer.Typer:
    app = typer.Typer(add_completion=False)

    @app.command()
    @takes(_Outer)
    def command(context: typer.Context, options: _Outer) -> None:
        """What it does."""
        got.append((context.command.params, options))

    return app


def test_fields_are_options_in_their_order_and_a_group_stands_for_its_own() -> None:
    got: list[Any] = []
    result = CliRunner().invoke(_app(got), ["n", "--table", "a", "--table", "b", "--json"])
    assert result.exit_code == 0, result.output
    ((parameters, options),) = got
    assert options == _Outer(size=4, inner=_Inner(table=["a", "b"]), name="n", as_json=True)
    assert [one.name for one in parameters][:4] == ["size", "table", "name", "as_json"]


def test_what_a_field_demands_is_demanded() -> None:
    got: list[Any] = []
    for arguments, said in (((), "Missing argument"), (("n", "--size", "0"), "Invalid value for")):
        result = CliRunner().invoke(_app(got), arguments)
        assert result.exit_code == 2
        assert said in result.output
    assert "What it does." in CliRunner().invoke(_app(got), ["--help"]).output
    assert not got


def test_what_is_said_of_tensors() -> None:
    assert TensorOptions().told() == Told.of()
    assert TensorOptions(table=["a"], layer=["b"], leave_out=["c"], transposed=["d"]).told() == Told.of(
        ["a"], ["b"], ["c"], ["d"]
    )


def test_texts_of_convert() -> None:
    assert (shrink_of("auto"), shrink_of("0.5"), bits_of(None), bits_of("4"), bits_of("choose")) == (
        "auto",
        0.5,
        None,
        4,
        "choose",
    )
    assert hidden_pairs(["*.fc1=*.fc2"], ["a.fc1", "b.fc1", "c"]) == {"a.fc1": "a.fc2", "b.fc1": "b.fc2"}
    for wrong in (lambda: shrink_of("2"), lambda: bits_of("many"), lambda: hidden_pairs(["a"], ["a"])):
        with pytest.raises(InputError):
            wrong()
