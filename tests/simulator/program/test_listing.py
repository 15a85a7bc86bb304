"""Listings parse back to the same program, are deterministic, and say which line does not parse."""

from __future__ import annotations

import re
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings

from simulator.base.errors import InputError
from simulator.numbers.execute import execute
from simulator.program.isa import Instructions
from simulator.program.listing import print_schedule
from simulator.program.parse_listing import parse_program
from simulator.timing.simulate import simulate
from tests.drawn.strategies import case, generator, seeds


@settings(max_examples=40)
@given(seeds)
def test_listing_parses_back(seed):
    machine, _, program = case(seed, layers=1 + seed % 3)
    text = str(program)
    parsed = parse_program(text)
    assert str(parsed) == text
    for field in fields(Instructions):
        np.testing.assert_array_equal(
            getattr(parsed.instructions, field.name), getattr(program.instructions, field.name)
        )
    assert simulate(parsed, machine).latency_cycles == simulate(program, machine).latency_cycles


def test_with_payloads_it_computes_the_same():
    _, _, program = case(5, layers=2)
    parsed = parse_program(str(program), [layer.payload for layer in program.layers])
    for layer in program.layers:
        inputs = {layer.name: generator(1).normal(size=(4, layer.in_features))}
        np.testing.assert_array_equal(execute(parsed, inputs)[layer.name], execute(program, inputs)[layer.name])


def test_a_layer_prints_as_in_the_program():
    _, _, program = case(5, layers=2)
    for layer in program.layers:
        assert print_schedule(layer) in str(program)


def test_names_with_spaces_quotes_and_newlines():
    from gblr_hw.lowering.pipeline import lower
    from gblr_hw.weights.stored import DenseWeights
    from simulator.machine.machine import Machine
    from tests.drawn.strategies import numbers

    names = ['a "b"\n c', "tile DENSE", "x=1", "wörter"]
    program = lower(
        {name: DenseWeights(numbers(generator(0), 3, 4)) for name in names}, Machine.load("edge-16"), tokens=2
    )
    assert [layer.name for layer in parse_program(str(program)).layers] == names


@pytest.mark.parametrize(
    ("find", "replacement", "message"),
    [
        (
            r"^program ",
            "programme ",
            r"listing, line 1: found 'programme tokens=.*it does not parse \(expected 'program'\)",
        ),
        (r"tokens=\d+\n", "\n", r"listing, line 1: found .*it does not parse"),
        (r" ranks=\d+", "", r"listing, line 4: found 'layer .*it does not parse \('ranks'\)"),
        (r"\nmachine .*\n", "\nmachine {]\n", r"listing, line 2: found 'machine \{\]'"),
        (r" LOAD_INPUT ", " FETCH ", r"listing, line \d+: found '\d+ FETCH .*it does not parse \('FETCH'\)"),
        (r"layer=0", "layre=0", r"line \d+: .*unknown operand 'layre'"),
        (r"tile=0", "tile=none", r"line \d+: .*invalid literal for int"),
        (r"after=[a-z]+:", "after=always:", r"line \d+: .*it does not parse"),
        (r"\n\d+ STORE [^\n]*\n$", "\n", r"listing, line \d+: found ''; it does not parse"),
        (
            r"  tile (DENSE|REDUCE) ",
            "  tile SPARSE ",
            r"line \d+: found '  tile SPARSE .*it does not parse \('SPARSE'\)",
        ),
    ],
)
def test_damaged_listings_name_the_line(find, replacement, message):
    text = str(case(22, layers=2, tokens=9, array={"rows": 4, "cols": 6, "scatter": True})[2])
    damaged, count = re.subn(find, replacement, text, count=1)
    assert count == 1
    with pytest.raises(InputError, match=message):
        parse_program(damaged)


def test_a_listing_without_any_one_word_is_read_or_refused():
    """Never a Python error: whatever is missing, the listing still means a program, or InputError says what is wrong."""
    text = str(case(22, layers=2, tokens=9, array={"rows": 4, "cols": 6, "scatter": True})[2])
    words = list(re.finditer(r"[^\s=:,\[\]>.-]+", text))
    refusals = 0
    for at in generator(0).integers(0, len(words), 400).tolist():
        try:
            parse_program(text[: words[at].start()] + text[words[at].end() :])
        except InputError:
            refusals += 1
    assert refusals > 200
