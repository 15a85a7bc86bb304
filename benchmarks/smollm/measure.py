"""Perplexity of a language model on texts, with an interval over texts, and the cycles of its whole program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.shared.bootstrap import mean_interval
from gblr_hw.frontend import export_network
from gblr_hw.lowering.lower_layer import lower_operator
from gblr_hw.lowering.quantise.tile_bits import narrow_kinds
from gblr_hw.lowering.whole_network import lower_network
from gblr_hw.weights.stored import LayerWeights
from simulator import Machine, simulate
from simulator.program.schedule import LayerSchedule


@torch.no_grad()
def text_losses(model: nn.Module, ids: Tensor, size: int = 4) -> list[float]:
    """Mean negative log-likelihood of each text's tokens but the first, in nats. ids (N, T)."""
    found = []
    for at in range(0, len(ids), size):
        part = ids[at : at + size]
        logits = model(input_ids=part).logits[:, :-1]
        losses = functional.cross_entropy(logits.flatten(0, 1), part[:, 1:].flatten(), reduction="none")
        found += losses.view(len(part), -1).mean(1).tolist()
    return found


def perplexity(losses: Sequence[float]) -> float:
    return float(np.exp(np.mean(losses)))


def interval(losses: Sequence[float], against: Sequence[float]) -> list[float]:
    """95 % bootstrap interval over texts of the perplexity relative to another network's on the same texts."""
    apart = [one - other for one, other in zip(losses, against, strict=True)]
    return [float(np.exp(one)) for one in mean_interval(apart, [1.0] * len(apart))]


class _Prefill(nn.Module):
    """Logits of the last token alone, as generation begins."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.network = model

    def forward(self, ids: Tensor) -> Tensor:
        return self.network(input_ids=ids, logits_to_keep=1).logits


class Program:
    """The whole program of a prefill, whose linear layers may be others than the dense model's."""

    def __init__(self, model: nn.Module, machine: str = "mid-32", tokens: int = 256) -> None:
        self.model, self.machine, self.tokens = model, Machine.load(machine), tokens

    @cached_property
    def _exported(self):  # type: ignore[no-untyped-def]
        ids = torch.zeros(1, self.tokens, dtype=torch.int64)
        return export_network(_Prefill(self.model).eval(), (ids,))

    def cost(
        self, layers: Mapping[str, LayerWeights], without: Sequence[str] = (), bits: int | None = None
    ) -> dict[str, int]:
        """Latency and DRAM bytes with some layers in the place of the dense ones. without: paths of modules whose
        operators are taken out of the sums. bits: of all tiles of the blocks' weights; the head keeps eight.
        """
        weights = dict(self._exported.weights)
        for name, layer in layers.items():
            assert f"network.{name}" in weights, name
            weights[f"network.{name}"] = layer
        machine = self.machine if bits is None else self.machine.with_(datatypes={"narrow_bits": bits})
        narrow = narrow_kinds(bits, machine)

        def lower_linear(name: str, *args: Any, **kwargs: Any) -> LayerSchedule:
            return lower_operator(name, *args, narrow=narrow if ".layers." in name else (), **kwargs)

        report = simulate(lower_network(self._exported.network, weights, machine, lower_linear=lower_linear), machine)
        gone = tuple(f"network.{path}." for path in without)
        dropped = [one for one in report.layers if gone and one.name.startswith(gone)]
        return {
            "latency_cycles": int(report.latency_cycles - sum(one.latency_cycles for one in dropped)),
            "dram_bytes": int(report.dram_bytes - sum(one.dram_bytes for one in dropped)),
        }
