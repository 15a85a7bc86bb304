"""The manual cannot rot: its cycle tables are the engine's, its sums are the reports', its rule numbers are the code's."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from simulator.program.operations import Op
from simulator.timing.durations import resolve_timing
from simulator.timing.engine import run_engine
from simulator.timing.reference import run_reference
from simulator.timing.simulate import simulate
from tests.oracles.timelines import MANUAL, TIMELINES, lines, read_tables
from tests.simulator.timing.test_engines import assert_same_events

ROOT = MANUAL.parents[1]
TEXT = MANUAL.read_text(encoding="utf-8")
SOURCES = sorted(
    path
    for folder in ("simulator", "gblr_hw", "analysis", "tests", "benchmarks")
    for path in (ROOT / folder).rglob("*.py")
)
_RULE = r"[A-Z]\d+"
_LIST = rf"{_RULE}(?:(?:, and|,| and| or| to)? ?{_RULE})*"
_CITED = re.compile(rf"(?:\b[Rr]ules? |machine\.md, )({_LIST})")
_IN_MANUAL = re.compile(rf"\(({_LIST})\)")


def rules() -> list[str]:
    return re.findall(rf"^\*\*({_RULE})\.\*\*", TEXT, flags=re.MULTILINE)


def cited(text: str, pattern: re.Pattern[str]) -> set[str]:
    """Rule numbers that a text cites, "A1 to A5" spelled out; comments and docstrings may break lines anywhere."""
    found = set()
    for words in pattern.findall(re.sub(r"[\s#]+", " ", text)):
        found |= set(re.findall(_RULE, words))
        for letter, first, last in re.findall(r"([A-Z])(\d+) to \1(\d+)", words):
            found |= {f"{letter}{number}" for number in range(int(first), int(last) + 1)}
    return found


def test_the_manual_has_a_table_for_every_time_line():
    assert sorted(read_tables(TEXT)) == sorted(TIMELINES)


@pytest.mark.parametrize("name", TIMELINES)
def test_cycle_tables_are_the_engines(name):
    assert read_tables(TEXT)[name] == lines(TIMELINES[name])
    program = TIMELINES[name]
    assert_same_events(resolve_timing(program, program.machine))


@pytest.mark.parametrize("name", [name for name in TIMELINES if TIMELINES[name].network is None])
def test_sums_below_the_tables_are_the_reports(name):
    program = TIMELINES[name]
    report = simulate(program, program.machine)
    section = TEXT.split(f"### {name}\n")[1].split("\n#")[0]
    total, causes = re.findall(r"^(\d+) cycles: ((?:\d+ \w+(?:, )?)+)\.", section, flags=re.MULTILINE)[0]
    told = {cause: int(count) for count, cause in re.findall(r"(\d+) (\w+)", causes)}
    assert told == {cause: count for cause, count in report.layers[0].cycles_by_cause.items() if count}
    assert (
        int(total) == report.latency_cycles == int(run_reference(resolve_timing(program, program.machine)).done.max())
    )


def test_what_a_vector_operator_costs():
    program = TIMELINES["A network: a vector operator between two layers"]
    timing = resolve_timing(program, program.machine)
    steps = program.instructions.op == Op.VECTOR
    without = replace(timing, busy=np.where(steps, 0, timing.busy), tail=np.where(steps, 0, timing.tail))
    total, compute = (run_reference(timing).done.max(), int(timing.busy[timing.is_tile].sum()))
    assert f"{total} cycles, {compute} of them computing" in TEXT
    assert f"Without the softmax it would be {run_engine(without).done.max()}." in TEXT


def test_what_the_conflict_costs():
    program = TIMELINES["A bank conflict and a starved channel"]
    timing = resolve_timing(program, program.machine)
    without = replace(timing, busy=np.where(timing.is_tile, program.instructions.tokens, timing.busy))
    assert f"Without the conflict {run_reference(without).done.max()}" in TEXT


def test_every_rule_has_one_number():
    numbers = rules()
    assert len(set(numbers)) == len(numbers) > 30


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_rule_that_code_cites_exists(path):
    text = path.read_text(encoding="utf-8")
    assert cited(text, _CITED) <= set(rules())
    sections = set(re.findall(r"^## (\d+)\.", TEXT, flags=re.MULTILINE))
    for words in re.findall(r"machine\.md, sections? ((?:\d+(?: to | and |, )?)+)", re.sub(r"[\s#]+", " ", text)):
        assert set(re.findall(r"\d+", words)) <= sections


def test_the_manual_cites_its_own_rules():
    assert cited(TEXT, _IN_MANUAL) | cited(TEXT, _CITED) <= set(rules())


def test_every_rule_of_time_is_cited_in_the_simulator_and_in_tests():
    timed = {rule for rule in rules() if rule[0] in "QDAV"} - {"V3"} | {"B2"}  # V3 is about values
    for folder in ("simulator", "tests"):
        texts = [path.read_text(encoding="utf-8") for path in SOURCES if path.is_relative_to(ROOT / folder)]
        assert timed - set().union(*(cited(text, _CITED) for text in texts)) == set()


def test_citations_are_found():
    text = "see rules A1 to A3, B2 and Q1 (machine.md, E4), rule\n    # V1; not rule A or P9"
    assert cited(text, _CITED) == {"A1", "A2", "A3", "B2", "Q1", "E4", "V1"}


def test_tables_are_read_with_their_headings():
    text = "### One\n| instruction | preload | start | end | done | why |\n|---|---|---|---|---|---|\n| STORE 0 | | 1 | 2 | 3 | x |\n\n| a | b |\n"
    assert read_tables(text) == {"One": [("STORE 0", "", 1, 2, 3)]}
