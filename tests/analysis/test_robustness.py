"""Orders of families under other prices: ratios by hand, the worst one against every corner, DRAM, words and files."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from analysis.pictures.tornado import draw_tornado
from analysis.tables.contenders import Contender, load_contenders
from analysis.tables.records import NetworkPoint, save_points
from analysis.tables.robustness import Claim, claim_table, claims_of, ratio_interval, sentence, worst_ratio
from simulator.base.errors import InputError
from simulator.machine.energy import energy_model
from simulator.machine.machine import Machine

MID = Machine.load("mid-32")
EVENTS = {"mac_active": 1000, "register_bits": 5000, "wire_bits": 5000, "scratchpad_read": 40, "dram_read_bytes": 640}


def run(family: str, cycles: int = 100, accuracy: float | None = None, **events: int) -> Contender:
    return Contender(family, "", family, "mid-32", accuracy, cycles, {**EVENTS, **events}, {})


def claims(*runs: Contender, accuracy: float | None = None) -> list[Claim]:
    return claims_of(runs, lambda name: Machine.load(name), accuracy)


def energy(one: Contender, machine: Machine = MID) -> float:
    """Straight from the model, both sums."""
    model = energy_model(machine)
    parts = (model.by_component(one.events, one.latency_cycles), model.standing_by_component(one.latency_cycles))
    return sum(value for sums in parts for value, _, _ in sums.values())


def test_the_ratio_is_that_of_the_whole_energies() -> None:
    few, many = run("few"), run("many", dram_read_bytes=6400)
    (claim,) = claims(many, few)
    assert (claim.better, claim.worse) == ("few", "many")
    assert claim.ratio == pytest.approx(energy(few) / energy(many), abs=1e-12)


def test_an_entry_alone_by_hand() -> None:
    """DRAM's price at its low and high, everything else as it is."""
    few, many = run("few"), run("many", dram_read_bytes=6400)
    (claim,) = claims(few, many)
    entry = energy_model(MID).table.data.dram["lpddr4"]
    for end, found in zip((entry.low, entry.high), claim.by_entry["dram"], strict=True):
        extra = [8 * bytes_ * (end - entry.pj_per_bit) for bytes_ in (640, 6400)]
        assert found == pytest.approx((energy(few) + extra[0]) / (energy(many) + extra[1]), abs=1e-12)


def test_the_interval_of_a_ratio_of_work_is_that_of_every_corner() -> None:
    few, many = run("few", cycles=80), run("many", cycles=200, dram_read_bytes=6400, mac_active=9000)
    model, spent, ends = energy_model(MID), [], {}
    for one in (few, many):
        pj: dict[str, float] = {}
        for cost, times in model.costs(one.events, one.latency_cycles):
            if cost.pj > 0:
                pj[cost.entry] = pj.get(cost.entry, 0.0) + times * cost.pj
                ends[cost.entry] = (cost.low / cost.pj, cost.high / cost.pj)
        spent.append(pj)
    corners = [dict(zip(ends, corner, strict=True)) for corner in itertools.product(*ends.values())]
    ratios = [sum(spent[0][e] * c[e] for e in spent[0]) / sum(spent[1][e] * c[e] for e in spent[1]) for c in corners]
    found = ratio_interval((few.events, few.latency_cycles), (many.events, many.latency_cycles), MID)
    assert found == (pytest.approx(min(ratios), abs=1e-12), pytest.approx(max(ratios), abs=1e-12))
    assert found[0] < found[1]


def test_costs_of_one_entry_move_together() -> None:
    """Additions of narrow and wide multiplications are one entry; so are reads and writes of DRAM."""
    one, two = run("one", mac_narrow=1000, mac_active=0), run("two")
    (claim,) = claims(one, two)
    assert {"op.add_i32", "op.mul_i8", "op.mul_i4_i8", "dram", "sram", "wires", "clock_and_control"} <= set(
        claim.by_entry
    )


def test_the_worst_ratio_is_that_of_every_corner() -> None:
    """Brute force over all corners of the box, on random sums of awkward sizes, zeros among them."""
    for seed in range(40):
        rng = np.random.default_rng(seed)
        names = [f"e{i}" for i in range(int(rng.integers(1, 8)))]
        one, two = ({n: float(rng.integers(0, 4) * rng.random()) for n in names} for _ in range(2))
        one["always"], two["always"] = 0.3, 0.4
        factors = {n: (float(rng.random()), float(1 + 9 * rng.random())) for n in names} | {"always": (1.0, 1.0)}
        corners = itertools.product(*(factors[n] for n in factors))
        brute = max(
            sum(one[n] * f for n, f in zip(factors, corner, strict=True))
            / sum(two[n] * f for n, f in zip(factors, corner, strict=True))
            for corner in corners
        )
        assert worst_ratio(one, two, factors)[0] == pytest.approx(brute, rel=1e-9, abs=1e-9)


def test_a_kind_of_dram_turns_an_order() -> None:
    """Fewer bytes but more multiplications: under DDR4's price it takes less, under LPDDR5's it takes more."""
    work, moves = run("work", mac_active=300000), run("moves", dram_read_bytes=2200)
    (claim,) = claims(work, moves)
    assert set(claim.by_dram) == {"ddr4", "lpddr4", "lpddr5", "hbm2"}
    for kind, ratio in claim.by_dram.items():
        before = MID.with_(dram={"kind": kind})
        pair = {one.family: energy(one, before) for one in (work, moves)}
        assert ratio == pytest.approx(pair[claim.better] / pair[claim.worse], abs=1e-12)
    assert claim.breaking_dram and not claim.survives
    assert "turned before" in sentence(claim)


def test_recorded_latencies_move_energy_and_have_an_order_of_their_own() -> None:
    def slow(family: str, cycles: int, slower: int) -> Contender:
        return Contender(family, "g", family, "mid-32", None, cycles, EVENTS, {"slow": slower})

    energy_claim, latency_claim = claims(slow("a", 100, 400), slow("b", 120, 300))
    assert (latency_claim.measure, latency_claim.ratio, latency_claim.by_dram) == (
        "latency",
        100 / 120,
        {"slow": 4 / 3},
    )
    assert not latency_claim.survives
    assert latency_claim.by_entry == {}
    assert energy_claim.by_dram["slow"] > 1 > energy_claim.ratio
    said = sentence(latency_claim)
    assert said == "On mid-32, g: a is faster than b (0.833 of it); turned before slow (up to 1.333)."


def test_a_recorded_standard_has_the_price_of_its_kind() -> None:
    one = Contender("a", "", "a", "mid-32", None, 100, {**EVENTS, "dram_read_bytes": 64}, {"ddr4-3200": 150})
    two = Contender("b", "", "b", "mid-32", None, 100, EVENTS, {"ddr4-3200": 200})
    (claim,) = [each for each in claims(one, two) if each.measure == "energy"]
    before = MID.with_(dram={"kind": "ddr4"})
    later = [replace(run_, latency_cycles=run_.cycles_by_dram["ddr4-3200"]) for run_ in (one, two)]
    expected = energy(later[0], before) / energy(later[1], before)
    assert claim.by_dram["ddr4-3200"] == pytest.approx(expected, abs=1e-12)
    assert claim.by_dram["ddr4-3200"] != pytest.approx(claim.by_dram["ddr4"], abs=1e-6)


def test_a_family_is_its_cheapest_run_that_is_accurate_enough() -> None:
    good, cheap = run("a", accuracy=0.9), run("a", accuracy=0.5, dram_read_bytes=64)
    other = run("b", accuracy=0.8, dram_read_bytes=320)
    (claim,) = claims(good, cheap, other)  # 0.8 is what both reach
    assert (claim.better, claim.worse) == ("b", "a")
    (claim,) = claims(good, cheap, other, accuracy=0.4)
    assert (claim.better, claim.worse) == ("a", "b")
    with pytest.raises(InputError, match="no machine with two families that reach 0.85; an order has two or more"):
        claims(good, cheap, other, accuracy=0.85)


def test_of_equals_neither_takes_less() -> None:
    with pytest.raises(InputError, match="no machine with two families"):
        claims(run("a"), run("b"))


def test_sentences_say_what_holds() -> None:
    (claim,) = claims(run("few"), run("many", dram_read_bytes=64000, mac_active=2000))
    said = sentence(claim)
    assert said.startswith("On mid-32: few takes less energy than many (0.")
    assert "any one entry of the table leaves it so" in said
    assert "all entries together leave it so" in said and "every DRAM leaves it so" in said
    (claim,) = claims(run("work", mac_active=300000), run("moves", dram_read_bytes=2200))
    assert "alone (up to" in sentence(claim) and "entries together can turn it" in sentence(claim)


def test_table_and_picture_have_every_claim() -> None:
    found = claims(run("a"), run("b", dram_read_bytes=1000), run("c", dram_read_bytes=1010))
    assert len(found) == 2
    assert claim_table(found).count("mid-32") == 2
    figure = draw_tornado(found)
    assert len([axes for axes in figure.axes if axes.get_visible()]) == 2
    # The closest to turning comes first.
    assert figure.axes[0].get_xlabel() == "energy, b over c"
    many = draw_tornado(found * 8)
    assert len([axes for axes in many.axes if axes.get_visible()]) == 12
    with pytest.raises(InputError, match="no claim; a picture needs one"):
        draw_tornado([])


# ---- files
# ----------------------------------------------------------------------------------------------------------------------


def point(**changes: object) -> NetworkPoint:
    return NetworkPoint(**{**dict(name="n", family="lattice", accuracy=0.9, multiplications=1, machine="mid-32",
        latency_cycles=7, latency_s=7e-9, energy_pj=1.0, events=EVENTS), **changes})  # fmt: skip


@pytest.mark.parametrize("name", ["points.json", "points.csv"])
def test_points_carry_their_events(tmp_path: Path, name: str) -> None:
    save_points([point()], tmp_path / name)
    (found,) = load_contenders(tmp_path / name)
    assert (found.family, found.machine, found.accuracy, found.latency_cycles) == ("lattice", "mid-32", 0.9, 7)
    assert found.events == EVENTS
    save_points([point(), point(events=None)], tmp_path / name)
    with pytest.raises(InputError, match="point 2: found no counted events; energy under other prices is") as caught:
        load_contenders(tmp_path / name)
    assert "Measure it again" in str(caught.value)


def test_reports_and_lines_are_read(tmp_path: Path) -> None:
    report, lines = tmp_path / "dense.json", tmp_path / "study.jsonl"
    report.write_text(json.dumps({"program": "p", "machine": "mid-32", "latency_cycles": 9, "accesses": EVENTS}))
    (found,) = load_contenders(report)
    assert (found.name, found.family, found.latency_cycles, found.accuracy) == ("dense", "dense", 9, None)
    one = {"family": "a", "machine": "mid-32", "group": "g", "latency_cycles": 5, "events": EVENTS}
    both = {
        "family": "b", "part": "digits", "accuracy": 0.5, "machine": "edge-16",
        "latency_cycles": {"edge-16": 1, "mid-32": 2}, "events": {"edge-16": EVENTS, "mid-32": EVENTS},
    }  # fmt: skip
    lines.write_text(json.dumps({**one, "cycles_by_dram": {"slow": 8}}) + "\n" + json.dumps(both) + "\n")
    found = load_contenders(lines)
    assert [(c.family, c.group, c.machine, c.latency_cycles) for c in found] == [
        ("a", "g", "mid-32", 5), ("b", "digits", "edge-16", 1), ("b", "digits", "mid-32", 2),
    ]  # fmt: skip
    assert found[0].cycles_by_dram == {"slow": 8}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("r.json", "{}", "r.json: found no field 'program'; results are network points"),
        ("r.json", "[]", "r.json: found a list; results are"),
        ("r.toml", "", "found the ending '.toml'; results are"),
        ("r.jsonl", "", "found no run; an order needs runs"),
        ("r.jsonl", '{"a": 1}', "line 1: found no field 'latency_cycles'"),
        ("r.jsonl", '{"latency_cycles": 1, "machine": "m"}', "line 1: found 'family' null; it is a str"),
        ("r.jsonl", '{"latency_cycles": 1, "machine": "m", "family": "f"}', "line 1: found no counted events"),
        (
            "r.jsonl",
            '{"latency_cycles": 1, "machine": "m", "family": "f", "events": {"x": 1}}',
            r"line 1: found events \['x'\]; the events are .*mac_active",
        ),
    ],
)
def test_other_files_are_refused(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        load_contenders(tmp_path / name)


@pytest.mark.parametrize("events", [{"a": -1}, {"a": 1.5}, {"a": True}, [1]])
def test_points_refuse_other_events(events: object) -> None:
    with pytest.raises(InputError, match="field 'events'.*must be whole numbers by name, 0 or more"):
        point(events=events)
