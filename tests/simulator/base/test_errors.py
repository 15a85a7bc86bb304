"""Errors as people read them: one paragraph, of bounded length, without characters that act on a terminal."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.base.errors import InputError
from simulator.base.text import printable, shortened, told


@given(st.text(), st.text(), st.text(), st.text())
def test_any_parts_are_one_line_that_can_be_printed(where: str, value: str, rule: str, remedy: str) -> None:
    error = InputError(where, value, rule, remedy)
    assert str(error).isprintable()
    assert len(error.value) <= 200
    assert str(error) == f"{error.where}: found {error.value}; {error.rule}. {error.remedy}"
    str(error).encode()
    again = InputError(error.where, error.value, error.rule, error.remedy)
    assert str(again) == str(error)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_long_parts_lose_their_middle() -> None:
    long = "ab" * 100_000 + "end"
    error = InputError(long, long, long, long)
    assert len(str(error)) < 1000
    assert error.value.startswith("abab") and error.value.endswith("abend") and "…" in error.value
    assert InputError("file", "x", "a rule " * 60, "Mend it.").rule == "a rule " * 60  # short enough as a whole


def test_characters_that_act_on_a_terminal_are_shown_as_escapes() -> None:
    assert printable("a\x1b[2Jb\u202ec\td\ne") == "a\\x1b[2Jb\\u202ec d e"
    assert printable("bytes \udcff of a name") == "bytes \\udcff of a name"
    assert printable("Größe µs 字") == "Größe µs 字"
    assert str(InputError("layer 'x\x07'", "1\r2", "no", "Yes.")) == "layer 'x\\x07': found 1 2; no. Yes."


@pytest.mark.parametrize("limit", [1, 2, 3, 10, 11])
def test_shortened_text_has_its_length(limit: int) -> None:
    for size in range(14):
        text = "abcdefghijklmn"[:size]
        short = shortened(text, limit)
        assert len(short) <= limit
        assert short == text if size <= limit else short.count("…") == 1


def test_values_without_an_end_are_told_by_their_type() -> None:
    nest: list[object] = []
    for _ in range(100_000):
        nest = [nest]
    assert told(nest) == "a value of type list, too long to be shown"
    assert told(1 << 100_000) == "a value of type int, too long to be shown"
    assert told("x") == "'x'"
    while nest:  # taken apart by hand: freeing it at once recurses, too
        nest = nest.pop()  # type: ignore[assignment]
