"""The RTL waits as the engine does, also with dependences that no compiler would write."""

from __future__ import annotations

import pytest

from tests.drawn.rtl_corpus import BY_DAY, PROGRAMS, compiled, rtl_case, with_random_waits
from tests.drawn.strategies import generator


@pytest.mark.parametrize("name", BY_DAY[::-1])
def test_rtl_waits_as_the_engine_does(name, rtl_folder, corpus_scale):
    rtl = compiled(name, rtl_folder)
    found = []
    for seed in range(10_000, 10_000 + PROGRAMS * corpus_scale):
        case = with_random_waits(rtl_case(name, seed), generator(seed))
        found += [f"{name} {seed}: {what}" for what in case.compare(rtl).timing]
    assert found == []
