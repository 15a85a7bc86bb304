"""The RTL against the fast engine and ``execute``: every event of every instruction, every bit of every output."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from gblr_hw.lowering.emit.emit import emit
from gblr_hw.lowering.passes.block_tokens import sum_places
from simulator.base.errors import InputError
from simulator.program.operations import TILE_OPS, Op
from simulator.rtl.bench.agreement import numbers_for
from tests.drawn.mixed_layers import as_chain, many_parts
from tests.drawn.random_programs import generator
from tests.drawn.rtl_corpus import BY_DAY, PROGRAMS, Case, compiled, rtl_case, rtl_machine

_SEEN: Counter[str] = Counter()


@pytest.mark.parametrize("name", BY_DAY)
def test_rtl_agrees_on_every_cycle_and_every_bit(name, rtl_folder, corpus_scale):
    rtl = compiled(name, rtl_folder)
    found = []
    for seed in range(PROGRAMS * corpus_scale):
        case = rtl_case(name, seed)
        result = case.compare(rtl, memory_seed=seed + 1)
        found += [f"{name} {seed}: {what}" for what in (*result.timing, *result.numbers)]
        _note(case)
    assert found == []


@pytest.mark.parametrize("one_input", [False, True])
def test_the_hardware_lets_ranks_take_turns(rtl_folder, one_input):
    """Ranks in the places of those that were read, round after round; inputs in the place of the block before."""
    rtl, machine = compiled("8x8", rtl_folder), rtl_machine("8x8")
    rounds = []
    for seed in range(6):
        factors = many_parts(generator(seed), machine, 12, chunks=9 if one_input else 3)
        layer = as_chain(factors, machine, 30, one_input=one_input)
        program = emit([layer], machine, 30, {})
        result = Case(machine, program, numbers_for(program, seed)).compare(rtl)
        assert [*result.timing, *result.numbers] == []
        rounds.append(layer.slots // layer.held_slots)
    assert max(rounds) > 2


def test_hardware_without_mix_runs_what_has_none(rtl_folder, corpus_scale):
    if corpus_scale == 1:
        pytest.skip("another machine to compile: `make verify` does")
    rtl, found, refused = compiled("4x3", rtl_folder, mix=False), [], 0
    for seed in range(PROGRAMS * corpus_scale):
        case = rtl_case("4x3", seed)
        if Op.MIX in case.program.instructions.op:
            refused += 1
            with pytest.raises(InputError, match=r"found [\d,]+ MIX tiles; this RTL was generated without them"):
                case.compare(rtl)
        else:
            result = case.compare(rtl)
            found += [f"{seed}: {what}" for what in (*result.timing, *result.numbers)]
    assert found == []
    assert 10 < refused < PROGRAMS * corpus_scale / 2


def _note(case):
    ins = case.program.instructions
    _SEEN.update(Op(op).name for op in ins.op.tolist())
    _SEEN["conflict"] += int((ins.row_cycles > 1).sum())
    _SEEN["one token"] += int((ins.tokens[np.isin(ins.op, TILE_OPS)] == 1).any())
    _SEEN["several blocks"] += sum(layer.block_tokens < case.program.tokens for layer in case.program.layers)
    _SEEN["weights reloaded"] += int((ins.op == Op.LOAD_WEIGHTS).sum() > case.program.tile_count)
    places = [sum_places(case.machine, layer.block_tokens) for layer in case.program.layers]
    _SEEN["more than two places of sums"] += any(count > 2 for count, _ in places)
    _SEEN["layers of other places"] += len(set(places)) > 1
    narrow = [
        bool(case.program.layers[ins.layer[i]].tiles.narrow[ins.tile[i]])
        for i in np.flatnonzero(np.isin(ins.op, TILE_OPS))
    ]
    _SEEN["narrow"] += any(narrow)
    _SEEN["narrow behind wide"] += any(after and not before for before, after in pairwise(narrow))
    _SEEN["bias alone"] += int(((ins.op == Op.DRAIN) & (ins.accumulate == 0)).any())
    _SEEN[f"{case.machine.dma.engines} engines"] += 1


def test_the_corpus_reaches_every_feature():
    """Runs behind the test above, in the same process."""
    if not _SEEN:
        pytest.skip("the corpus was not run in this process")
    wanted = [op.name for op in Op if op != Op.VECTOR]  # the RTL has the subset of plain layers
    wanted += ["conflict", "one token", "several blocks", "weights reloaded", "bias alone"]
    wanted += ["narrow", "narrow behind wide", "more than two places of sums", "layers of other places"]
    wanted += ["1 engines", "2 engines", "3 engines"]
    assert [feature for feature in wanted if _SEEN[feature] < 10] == []
