"""The zoo's short version: one architecture of each kind goes through whole, and the document says what was measured."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.docs.sources import read_lines
from benchmarks.zoo import timm_models, zoo
from benchmarks.zoo.hand_written import NETWORKS
from benchmarks.zoo.tables import refused_table, whole_table
from gblr_hw.frontend import export_network, multiplications_of
from gblr_hw.frontend.capture import quiet

pytest.importorskip("transformers")


@pytest.mark.parametrize(
    "name", [pytest.param(one, marks=pytest.mark.night) if at % 2 else one for at, one in enumerate(zoo.SHORT)]
)
def test_an_architecture_goes_through_whole(name: str) -> None:
    with quiet():
        record = zoo.measure(name)
    assert record["state"] == "whole", record
    assert record["error"] < 1e-5
    assert 0 < record["multiplications"] <= record["spent"]
    assert record["cycles"] > 0 and record["operators"] > record["copies"]


def test_what_happens_to_one_network_is_a_record(monkeypatch) -> None:
    def broken(name: str) -> zoo.Record:
        raise RuntimeError("first line\nsecond")

    assert zoo.guarded("x", 5, broken) == {
        "network": "x", "source": "transformers", "state": "crashed", "why": "RuntimeError: first line",
    }  # fmt: skip

    def slow(name: str) -> zoo.Record:
        while True:
            pass

    assert zoo.guarded("U-Net", 1, slow)["why"] == "it takes more than 1 s"


def test_a_run_goes_on_where_it_stopped_and_its_tables_say_what_was_measured(tmp_path: Path, monkeypatch) -> None:
    calls: list[str] = []

    def measured(name: str, seconds: int) -> zoo.Record:
        calls.append(name)
        if name == "GRU":
            return {"network": name, "source": "s", "state": "refused", "where": "node 'a'", "why": "of a rule"}
        return {
            "network": name, "source": "s", "state": "whole", "parameters": 3, "operators": 2, "copies": 0,
            "multiplications": 1000, "spent": 2048, "cycles": 70, "error": 2e-7, "notes": [],
        }  # fmt: skip

    monkeypatch.setattr(zoo, "guarded", measured)
    out = tmp_path / "zoo.jsonl"
    for only in (["U-Net"], ["U-Net", "GRU"]):
        monkeypatch.setattr(sys, "argv", ["zoo", "--out", str(out), "--only", *only])
        zoo.main()
    assert calls == ["U-Net", "GRU"]
    records = read_lines(out)
    assert [one["network"] for one in records] == ["U-Net", "GRU"]
    text = " ".join((whole_table(records) + refused_table(records)).split())
    assert "1 of 2 architectures go through whole (mid-32; worst error against PyTorch 2.0e-07), 0 of them" in text
    assert "| U-Net | 3 | 2 | 0 | 1,000 | 2,048 | 70 | 2e-07 |" in text
    assert "| GRU | node 'a' | of a rule |" in text


def test_every_short_name_is_a_network() -> None:
    from benchmarks.zoo.small_configurations import model_types

    assert set(zoo.SHORT) <= {*NETWORKS, *model_types()}


# Half of what the counter counts is what the graph multiplies, kinds of which neither sees more than the other.
COUNTED = ("bert", "llama", "t5", "swin", "convnext", "convolutions, inverted and gated", "convolutions in groups, shuffled",
           "windows of attention, shifted", "volumes")  # fmt: skip


@pytest.mark.parametrize("name", COUNTED)
def test_useful_multiplications_are_half_of_the_flop_counters(name: str) -> None:
    with quiet():
        model, (args, kwargs) = zoo.built(name)
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            model(*args, **kwargs)
        exported = export_network(model, args, kwargs=kwargs)
    assert 2 * sum(multiplications_of(exported.network, exported.weights).values()) == counter.get_total_flops()


def test_what_stands_in_the_way_names_a_way_that_the_zoo_goes() -> None:
    with quiet():
        record = zoo.measure("experts, as many loops")
    assert record["state"] == "whole" and record["way"] == "by_example" and record["error"] < 1e-5
    assert "| experts, as many loops \\* |" in " ".join(whole_table([record]).split())


def test_what_is_all_but_equal_is_compared_in_float64() -> None:
    class Close(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x[..., :1] * (1 + 1e-9) > x[..., 1:]).to(x.dtype)

    x = torch.ones(1, 3, 2)
    found = {"output": np.ones((1, 3, 1))}
    compared = zoo._compared(Close(), (x,), {}, found)
    assert compared["error"] == 0.0 and compared["float32"] > 1


def test_timms_networks_are_there_or_a_sentence_says_why_not(monkeypatch) -> None:
    def missing() -> None:
        raise ImportError("No module named 'timm'")

    monkeypatch.setattr(timm_models, "_timm", missing)
    assert timm_models.timm_names() == (
        [], "timm is not installed (No module named 'timm'): pip install timm torchvision",
    )  # fmt: skip


def test_a_small_network_of_timm_goes_through_whole() -> None:
    pytest.importorskip("timm")
    with quiet():
        record = zoo.measure("timm:deit")
    assert record["state"] == "whole" and record["source"] == "timm" and record["error"] < 1e-5
