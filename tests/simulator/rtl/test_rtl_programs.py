"""The RTL against the fast engine and ``execute``: every event of every instruction, every bit of every output."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from simulator.program.operations import TILE_OPS, Op
from tests.drawn.rtl_corpus import NAMES, PROGRAMS, compiled, rtl_case

_SEEN: Counter[str] = Counter()


@pytest.mark.parametrize("name", NAMES)
def test_rtl_agrees_on_every_cycle_and_every_bit(name, rtl_folder, corpus_scale):
    rtl = compiled(name, rtl_folder)
    found = []
    for seed in range(PROGRAMS * corpus_scale):
        case = rtl_case(name, seed)
        result = case.compare(rtl, memory_seed=seed + 1)
        found += [f"{name} {seed}: {what}" for what in (*result.timing, *result.numbers)]
        _note(case)
    assert found == []


def _note(case):
    ins = case.program.instructions
    _SEEN.update(Op(op).name for op in ins.op.tolist())
    _SEEN["conflict"] += int((ins.row_cycles > 1).sum())
    _SEEN["one token"] += int((ins.tokens[np.isin(ins.op, TILE_OPS)] == 1).any())
    _SEEN["several blocks"] += sum(layer.block_tokens < case.program.tokens for layer in case.program.layers)
    _SEEN["weights reloaded"] += int((ins.op == Op.LOAD_WEIGHTS).sum() > case.program.tile_count)
    _SEEN["bias alone"] += int(((ins.op == Op.DRAIN) & (ins.accumulate == 0)).any())
    _SEEN[f"{case.machine.dma.engines} engines"] += 1


def test_the_corpus_reaches_every_feature():
    """Runs behind the test above, in the same process."""
    if not _SEEN:
        pytest.skip("the corpus was not run in this process")
    wanted = [op.name for op in Op if op != Op.VECTOR]  # the RTL has the subset of plain layers
    wanted += ["conflict", "one token", "several blocks", "weights reloaded", "bias alone"]
    wanted += ["1 engines", "2 engines", "3 engines"]
    assert [feature for feature in wanted if _SEEN[feature] < 10] == []
