"""Whole programs by regime: what is measured, and what the tables say of rows made by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.docs.sources import read_lines
from benchmarks.networks import regimes
from benchmarks.networks.regime_sentences import (
    FEW,
    MACHINES,
    MANY,
    NARROW_ARRAYS,
    SCATTER,
    TOGETHER,
    Programs,
    beside_linears,
    per_cent,
    reasons_text,
)
from benchmarks.networks.regime_tables import (
    FOUR_BITS,
    KEY,
    STRUCTURES,
    WAYS,
    Regime,
    regimes_table,
    shares_of,
    structures_text,
    summary_table,
)
from benchmarks.networks.regimes import cases, measure
from benchmarks.shared.result_lines import ResultLines
from gblr_hw.frontend.sources import bert
from simulator.timing.report import CAUSES

DATA = Path(__file__).parents[2] / "docs/data/regimes.jsonl"
TINY = Regime("prefill 16", 5, 2)


def rows(cycles: dict[str, int], network: str = "net", **what: Any) -> list[dict[str, Any]]:
    """A program in all ways: of 500 cycles where nothing is said."""
    base = {"network": network, "regime": "decode", "batch": 1, "machine": "mid-32", **what}
    kept = {"roofline_fraction": 0.94, "bound": "memory", "linear_share": 0.875}
    return [base | kept | {"way": way, "latency_cycles": cycles.get(way, 500)} for way in ("dense", *WAYS)]


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split("|")[1:-1]]


def test_a_program_is_shown_in_every_way_over_dense() -> None:
    (*_, line) = regimes_table(rows({"dense": 1000, "Monarch": 300, FOUR_BITS: 550})).splitlines()
    assert cells(line) == [
        "net", "decode", "1", "mid-32", "1,000", "94% memory", "87.5 %", "0.500", "0.500", "0.500", "0.300", "0.500",
        "0.550", "Monarch",
    ]  # fmt: skip


def test_networks_of_a_regime_are_one_line_with_least_and_most() -> None:
    both = rows({"dense": 1000, "BLAST": 300}) + rows({"dense": 1000, "BLAST": 400}, "other")
    (line,) = summary_table(both).splitlines()[2:]
    assert cells(line) == ["decode", "1", "mid-32", "2", *["0.50"] * 4, "0.30 to 0.40", "0.50"]


def test_a_structure_is_told_where_four_bits_are_as_fast() -> None:
    fast = rows({"dense": 1000, "low rank": 400, FOUR_BITS: 450})
    slow = [row for name in ("a", "b") for row in rows({"dense": 1000, FOUR_BITS: 500}, name, batch=8)]
    first, *_, last = structures_text([*fast, *slow]).splitlines()
    assert first == (
        "- *low rank*: 0.40 to 0.50 of dense's cycles, the fewest of the 5 in 3 of 3 programs, and fewer than four bits in "
        "1. Not fewer than those: decode x 8 on mid-32 (a, b)."
    )
    assert last.endswith("in 0. Not fewer than those: decode x 1 on mid-32 (net); decode x 8 on mid-32 (a, b).")
    won = structures_text(rows({"dense": 1000, FOUR_BITS: 900})).splitlines()[0]
    assert (
        won
        == "- *low rank*: 0.50 of dense's cycles, the fewest of the 5 in 1 of 1 programs, and fewer than four bits in 1."
    )


def test_regimes_stand_in_their_order_and_programs_that_lack_a_way_are_left_out() -> None:
    many, begun = rows({}, regime="prefill 16", batch=8), rows({}, regime="prefill 16")[:-1]
    lines = regimes_table([*rows({}), *many, *begun]).splitlines()[2:]
    assert [cells(line)[1:3] for line in lines] == [["prefill 16", "8"], ["decode", "1"]]


def test_each_program_is_asked_for_once_and_encoders_do_not_decode() -> None:
    asked = list(cases())
    assert len(set(asked)) == len(asked) == 16
    assert {network for network, regime in asked if regime.past} == {"GPT-2", "TinyLlama"}


def test_what_is_there_is_not_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 96,
             "vocab_size": 32, "max_position_embeddings": 8, "type_vocab_size": 2}  # fmt: skip
    monkeypatch.setattr(regimes, "NETWORKS", {"tiny": lambda request: bert(request, sizes)})
    monkeypatch.setattr(regimes, "MACHINES", ("edge-16",))
    monkeypatch.setattr(regimes, "WAYS", ("block sparse", FOUR_BITS))
    results = ResultLines(tmp_path / "rows.jsonl", KEY)
    for row in measure("tiny", TINY, results):
        results.add(row)
    found = {(row["machine"], row["way"]): row for row in results.rows}
    assert len(found) == 3
    dense, sparse, narrow = (found["edge-16", way] for way in ("dense", "block sparse", FOUR_BITS))
    assert sparse["multiplications"] < dense["multiplications"] == narrow["multiplications"]
    assert narrow["dram_bytes"] < dense["dram_bytes"] and narrow["tiles"] == dense["tiles"]
    assert sum(dense["causes"].values()) == dense["latency_cycles"]
    assert list(measure("tiny", TINY, ResultLines(tmp_path / "rows.jsonl", KEY))) == []


@pytest.fixture(scope="module")
def measured() -> Programs:
    return Programs(read_lines(DATA))


def test_every_program_was_measured_in_every_way(measured: Programs) -> None:
    wanted = {(name, one.title, one.batch, machine) for name, one in cases() for machine in regimes.MACHINES}
    assert set(measured.cases) == wanted
    assert len(read_lines(DATA)) == len(wanted) * (1 + len(WAYS))


def test_bytes_decide_at_few_rows_and_multiplications_at_many(measured: Programs) -> None:
    for regime, machines, bound in ((FEW, NARROW_ARRAYS, "memory"), (MANY, SCATTER, "compute")):
        assert {mine["dense"]["bound"] for mine in measured.of(regime, machines)} == {bound}
    for mine in measured.of((*FEW, *TOGETHER, *MANY), SCATTER):
        shares = shares_of(mine)
        assert max(shares[way] for way in STRUCTURES if way != "Monarch") < 0.75 and shares[FOUR_BITS] <= 1
    for mine in measured.of(("decode x 1", "decode x 8"), SCATTER):
        assert shares_of(mine)["Monarch"] < 0.75


def test_structures_but_monarch_pay_least_at_the_longest_prompt(measured: Programs) -> None:
    for network in ("MiniLM", "GPT-2", "TinyLlama"):
        for machine in SCATTER:
            of = [measured.of((regime,), (machine,), (network,))[0] for regime in MANY]
            for way in STRUCTURES:
                shares = [shares_of(mine)[way] for mine in of]
                assert max(shares) == shares[-1], (network, machine, way)


def test_a_large_array_waits_for_weights_to_enter_it(measured: Programs) -> None:
    for mine in measured.of(FEW, ("cloud-128",)):
        causes = mine["dense"]["causes"]
        assert max(CAUSES, key=lambda cause: causes[cause]) == "weight_preload"


def test_without_a_permutation_network_three_structures_pay_less(measured: Programs) -> None:
    every = (*FEW, *TOGETHER, *MANY)
    pairs = zip(measured.of(every, ("plain-32",)), measured.of(every, ("mid-32",)), strict=True)
    for plain, mid in ((shares_of(a), shares_of(b)) for a, b in pairs):
        assert all(abs(plain[way] - mid[way]) < 0.02 for way in ("low rank", "block sparse"))
        assert all(plain[way] > mid[way] for way in ("lattice", "Monarch", "BLAST"))


def test_monarch_adds_most_to_what_is_no_linear_in_every_prefill(measured: Programs) -> None:
    for mine in measured.of(("prefill 16 x 1", *MANY), MACHINES):
        assert max(STRUCTURES, key=lambda way: beside_linears(mine[way])) == "Monarch"


def test_sentences_have_a_figure_wherever_one_belongs(measured: Programs) -> None:
    told = reasons_text(read_lines(DATA))
    assert len(told.splitlines()) == 7
    assert "None" not in told and "nan" not in told and "()" not in told


def test_a_share_of_one_program_is_one_figure() -> None:
    programs = Programs(rows({}) + rows({}, "other", regime="prefill 197"))
    both = programs.of(("decode x 1", "prefill 197 x 1"), ("mid-32",))
    assert per_cent(both, lambda row: row["linear_share"]) == "88 %"
    assert per_cent(both, lambda row: 0.25 if row["network"] == "net" else 0.5) == "25 to 50 %"
