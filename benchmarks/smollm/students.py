"""Networks of other matrices than the dense one's, fewer or smaller ones as well, and what they learn from it."""

from __future__ import annotations

import copy
import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from gblr_hw.conversion.in_order.distil import Lesson
from gblr_hw.frontend.put_weights import put_layers
from gblr_hw.layers.model_calls import Batch
from gblr_hw.weights.stored import DenseWeights, LayerWeights


def block_of(name: str) -> int:
    """The number of the block of a matrix."""
    return int(name.split(".layers.")[1].split(".")[0])


def kept_blocks(found: Mapping[str, LayerWeights]) -> list[int]:
    """The numbers of the blocks of which matrices are there."""
    return sorted({block_of(name) for name in found})


def with_layers(model: nn.Module, found: Mapping[str, LayerWeights]) -> nn.Module:
    """A copy of a Llama whose blocks have these layers, by their names in the model. Blocks of which no layer is there
    are left out; layers may be narrower, by hidden units or by heads with their keys and values, which the code of
    transformers counts by the sizes.
    """
    student, structured = copy.deepcopy(model), dict[str, LayerWeights]()
    for name, weights in found.items():
        layer = student.get_submodule(name)
        if not weights_differ(layer, weights):
            structured[name] = weights
            continue
        layer.out_features, layer.in_features = weights.out_features, weights.in_features
        if isinstance(weights, DenseWeights):
            layer.weight = nn.Parameter(weights.weight.clone())
        else:  # of its size, so that the structure can take its place
            layer.weight = nn.Parameter(torch.zeros(weights.out_features, weights.in_features))
            structured[name] = weights
    put_layers(student, structured, "students")
    student.model.layers = nn.ModuleList(student.model.layers[index] for index in kept_blocks(found))
    return student


def weights_differ(layer: nn.Module, weights: LayerWeights) -> bool:
    """Whether they have other sizes than the layer."""
    return (layer.out_features, layer.in_features) != (weights.out_features, weights.in_features)


def layers_of(student: nn.Module, found: Mapping[str, LayerWeights]) -> dict[str, nn.Module]:
    """The modules of a network that `with_layers` made, by the names in the model."""
    place = {number: index for index, number in enumerate(kept_blocks(found))}
    return {
        name: student.get_submodule(name.replace(f".{block_of(name)}.", f".{place[block_of(name)]}.", 1))
        for name in found
    }


def weights_of_layers(layers: Mapping[str, nn.Module]) -> dict[str, LayerWeights]:
    """What the modules hold now."""
    return {
        name: DenseWeights(layer.weight.detach().clone()) if isinstance(layer, nn.Linear) else layer.weights()
        for name, layer in layers.items()
    }


def targets(kept: Sequence[int], count: int) -> list[int]:
    """The dense model's block behind which a student's block should leave the same: that before the next one kept."""
    return [*(after - 1 for after in kept[1:]), count - 1]


@dataclass
class Lessons:
    """The dense model's hidden states on texts, kept in a folder: several students learn from the same.

    model: a Llama. Logits are made of the last states anew. saved_s: CPU seconds that the states would have taken which
    were there already.
    """

    model: nn.Module
    folder: Path
    saved_s: float = field(default=0.0)

    @torch.no_grad()
    def __call__(self, batch: Batch, blocks: Sequence[int]) -> Lesson:
        """Of a batch of `input_ids` (N, T), and `logits_to_keep` if not all positions count: logits, and the states
        (N, T, C) behind blocks.
        """
        parts = [self._of_text(text) for text in batch["input_ids"]]
        states = [torch.stack([part[f"{block}"] for part in parts]) for block in blocks]
        last = torch.stack([part["last"] for part in parts])
        keep = batch.get("logits_to_keep")
        return SimpleNamespace(logits=self.model.lm_head(last if keep is None else last[:, keep])), states

    def _of_text(self, ids: Tensor) -> dict[str, Tensor]:
        path = self.folder / f"{hashlib.sha256(ids.numpy().tobytes()).hexdigest()[:24]}.safetensors"
        is_new = not path.exists()
        if is_new:
            self._make(ids, path)
        with safe_open(path, "pt") as file:
            self.saved_s += 0.0 if is_new else float(file.metadata()["cpu_s"])
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118

    def _make(self, ids: Tensor, path: Path) -> None:
        begin, found = time.process_time(), dict[str, Tensor]()
        modules = {f"{index}": block for index, block in enumerate(self.model.model.layers)}
        modules["last"] = self.model.model.norm

        def watch(name: str):  # type: ignore[no-untyped-def]
            return lambda _module, _inputs, output: found.update(
                {name: (output[0] if isinstance(output, tuple) else output)[0].clone()}
            )

        hooks = [module.register_forward_hook(watch(name)) for name, module in modules.items()]
        try:
            self.model.model(input_ids=ids[None])
        finally:
            for hook in hooks:
                hook.remove()
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(found, path, {"cpu_s": f"{time.process_time() - begin:.3f}"})
