"""Tables: alignment, Markdown, units."""

from __future__ import annotations

import pytest

from analysis.tables.table import Column, count, energy_from_pj, format_table, percent, ratio, seconds, with_prefix
from simulator.base.errors import InputError

COLUMNS = [
    Column("network", "name", align="left"),
    Column("accuracy", "accuracy", percent),
    Column("latency (cycles)", "cycles", count),
]
ROWS = [{"name": "dense", "accuracy": 0.966, "cycles": 1234567}, {"name": "a|b\nc", "accuracy": None}]


def test_plain_text():
    assert format_table(COLUMNS, ROWS) == (
        "network  accuracy  latency (cycles)\n"
        "-------  --------  ----------------\n"
        "dense      96.6 %         1,234,567\n"
        "a|b c           -                 -\n"
    )


def test_markdown():
    assert format_table(COLUMNS, ROWS, markdown=True) == (
        "| network | accuracy | latency (cycles) |\n"
        "| ------- | -------: | ---------------: |\n"
        "| dense   |   96.6 % |        1,234,567 |\n"
        "| a\\|b c  |        - |                - |\n"
    )


def test_no_rows_and_wide_letters():
    assert format_table(COLUMNS[:1], []) == "network\n-------\n"
    lines = format_table(COLUMNS[:2], [{"name": "層", "accuracy": 1.0}]).splitlines()
    assert lines[2] == "層        100.0 %"


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (energy_from_pj(1.5e6), "1.5 µJ"),
        (energy_from_pj(0), "0 J"),
        (energy_from_pj(12.345), "12.35 pJ"),
        (seconds(1.234e-5), "12.34 µs"),
        (seconds(0.99999), "1 s"),
        (ratio(0.2981), "0.298x"),
        (with_prefix(2e15, "B"), "2000 TB"),
        (with_prefix(3e-15, "J"), "3e-15 J"),
    ],
)
def test_units(written, expected):
    assert written == expected


def test_bad_input():
    with pytest.raises(InputError, match="at least one"):
        format_table([], [])
    with pytest.raises(InputError, match="column 'x': found 'middle'"):
        format_table([Column("x", "x", align="middle")], [])
    with pytest.raises(InputError, match="found 'many'; the column holds numbers"):
        format_table([Column("x", "x", count)], [{"x": "many"}])
