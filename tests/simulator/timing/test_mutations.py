"""A one-cycle error in any rule of time turns some test red; docs/verification.md lists which."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutation.mutants import MUTANTS, Edit
from tests.mutation.mutation import edited, firsts
from tests.simulator.program.test_manual import rules

ROOT = Path(__file__).parents[3]
# Q4 is kept by every simulation (tests/oracles/bounds.py), V3 is about values, C6 about power; without the network (B3) and for ports (B1) nothing is timed.
TIMED = {rule for rule in rules() if rule[0] in "QDAVC"} - {"V3", "C6"} | {"B2"}


def test_mutants_are_noticed(corpus_scale):
    """Each sixth of the first of each rule in each place; at night (``make verify``) all of them."""
    every = corpus_scale > 1
    command = [sys.executable, "-m", "tests.mutation.mutation", *([] if every else ["--first", "--each", "6"])]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ran.stdout, ran.stderr
    results = json.loads(ran.stdout)
    assert len(results) == len(MUTANTS if every else firsts()[::6])
    assert [(r["rule"], r["error"], r["place"]) for r in results if not r["killed_by"]] == []


def test_every_rule_of_time_has_a_mutant():
    assert TIMED - {mutant.rule for mutant in MUTANTS} == {"Q4"}


def test_the_documentation_lists_every_mutant():
    text = (ROOT / "docs" / "verification.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| ([A-Z]\d+) +\| ([^|]+?) +\| (\w+) +\| [^|]+ \|$", text, flags=re.MULTILINE)
    assert listed == [(m.rule, m.error, m.place) for m in MUTANTS]


@pytest.mark.parametrize("module", sorted({edit.module for mutant in MUTANTS for edit in mutant.edits}))
def test_every_edit_fits_the_source_and_leaves_python(module):
    source = (ROOT / module.replace(".", "/")).with_suffix(".py").read_text(encoding="utf-8")
    for mutant in MUTANTS:
        if any(edit.module == module for edit in mutant.edits):
            changed = edited(module, source, mutant.edits)
            assert ast.dump(ast.parse(changed)) != ast.dump(ast.parse(source)), mutant


def test_an_edit_that_does_not_fit_is_an_error():
    edits = (Edit("simulator.timing.durations", "a + b", "a - b"),)
    assert edited("simulator.timing.durations", "c = a + b", edits) == "c = a - b"
    assert edited("simulator.timing.engine", "c = a + b", edits) == "c = a + b"
    for source in ("c = a", "c = a + b + (a + b)"):
        with pytest.raises(
            ValueError,
            match=r"simulator.timing.durations: 'a \+ b' stands there [02] times, not 1: adapt tests/mutation/mutants.py",
        ):
            edited("simulator.timing.durations", source, edits)
