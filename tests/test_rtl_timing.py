"""The RTL's waiting, with dependences that no compiler would write, and what happens when the RTL is broken."""

from __future__ import annotations

import pytest

from tests.rtl_corpus import NAMES, PROGRAMS, compiled, rtl_case, run_both, timing_differences, with_random_waits
from tests.strategies import generator


@pytest.mark.parametrize("name", NAMES[::-1])
def test_rtl_waits_as_the_engine_does(name, rtl_folder, corpus_scale):
    rtl = compiled(name, rtl_folder)
    found = []
    for seed in range(10_000, 10_000 + PROGRAMS * corpus_scale):
        case = with_random_waits(rtl_case(name, seed), generator(seed))
        events, hardware = run_both(rtl, case)
        found += [f"{name} {seed}: {what}" for what in timing_differences(case, events, hardware)]
    assert found == []
