"""A transformer as an operator graph, built by hand: what a front end would make of one, in any size."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from gblr_hw.weights.stored import DenseWeights, LayerWeights
from simulator.network.network import Network, Operand, Operator, Port, Tensor
from simulator.network.vector_steps import Step


@dataclass(frozen=True)
class Sizes:
    """batch sequences of ``tokens``; ``heads`` of ``width`` channels, ``shared`` of them to a head of keys and values."""

    batch: int = 1
    tokens: int = 7
    heads: int = 2
    width: int = 8
    shared: int = 1
    hidden: int = 24
    layers: int = 1

    @property
    def channels(self) -> int:
        return self.heads * self.width


@dataclass
class _Builder:
    sizes: Sizes
    rng: np.random.Generator
    tensors: dict[str, Tensor] = field(default_factory=dict)
    operators: list[Operator] = field(default_factory=list)
    weights: dict[str, LayerWeights] = field(default_factory=dict)

    def tensor(self, name: str, groups: int, width: int, **how: object) -> str:
        self.tensors[name] = Tensor(name, self.sizes.batch, self.sizes.tokens, groups, width, **how)  # type: ignore[arg-type]
        return name

    def view(self, name: str, groups: int, width: int, **how: object) -> Operand:
        return Operand(name, self.sizes.tokens, groups, width, **how)  # type: ignore[arg-type]

    def add(self, name: str, kind: str, operands: tuple[Operand, ...], **how: object) -> str:
        sizes = self.sizes
        self.operators.append(Operator(name, kind, operands, f"{name}.y", sizes.batch, sizes.tokens, **how))  # type: ignore[arg-type]
        return f"{name}.y"

    def linear(self, name: str, source: str, inputs: int, outputs: int) -> str:
        weight = self.rng.normal(size=(outputs, inputs)) / np.sqrt(inputs)
        bias = torch.from_numpy(self.rng.normal(size=outputs)).float()
        self.weights[name] = DenseWeights(torch.from_numpy(weight).float(), bias)
        self.tensor(f"{name}.y", 1, outputs)
        return self.add(name, "linear", (self.view(source, 1, inputs),))

    def norm(self, name: str, source: str) -> str:
        channels = self.sizes.channels
        self.tensor(f"{name}.y", 1, channels)
        steps = (Step("layer_norm", (0,), None, (1e-5,)), Step("multiply", (1,), "gain"), Step("add", (2,), "offset"))
        constants = {"gain": self.rng.normal(size=channels), "offset": self.rng.normal(size=channels)}
        return self.add(name, "vector", (self.view(source, 1, channels),), steps=steps, constants=constants)

    def elementwise(self, name: str, sources: tuple[str, ...], width: int, step: Step) -> str:
        self.tensor(f"{name}.y", 1, width)
        return self.add(name, "vector", tuple(self.view(s, 1, width) for s in sources), steps=(step,))

    def attention(self, name: str, source: str) -> str:
        sizes, channels = self.sizes, self.sizes.channels
        heads, keys = sizes.heads, sizes.heads // sizes.shared
        q, k, v = (
            self.linear(f"{name}.{part}", source, channels, count * sizes.width)
            for part, count in (("query", heads), ("key", keys), ("value", keys))
        )
        self.tensor(f"{name}.scores.y", heads, sizes.tokens, padded=True)
        self.tensor(f"{name}.softmax.y", heads, sizes.tokens, padded=True)
        self.tensor(f"{name}.mix.y", heads, sizes.width)
        weights = self.view(k, keys, sizes.width, access="weights")
        scores = self.add(f"{name}.scores", "scores", (self.view(q, heads, sizes.width), weights))
        mask = np.triu(np.full((sizes.tokens, sizes.tokens), -1e9), 1).reshape(1, sizes.tokens, 1, sizes.tokens)
        steps = (Step("multiply", (0,), None, (sizes.width**-0.5,)), Step("add", (1,), "mask"), Step("softmax", (2,)))
        operands = (self.view(scores, heads, sizes.tokens),)
        soft = self.add(f"{name}.softmax", "vector", operands, steps=steps, constants={"mask": mask})
        weights = self.view(v, keys, sizes.width, access="weights")
        mixed = self.add(f"{name}.mix", "mix", (self.view(soft, heads, sizes.tokens), weights))
        return self.linear(f"{name}.out", mixed, channels, channels)


def transformer(sizes: Sizes, seed: int = 0) -> tuple[Network, dict[str, LayerWeights]]:
    """A causal transformer with norms before attention and MLP; port "x" (batch, tokens, channels) to port "y"."""
    b, channels = _Builder(sizes, np.random.default_rng(seed)), sizes.channels
    x = b.tensor("x", 1, channels, kind="input")
    for layer in range(sizes.layers):
        name = f"block{layer}"
        made = b.attention(f"{name}.attention", b.norm(f"{name}.norm1", x))
        x = b.elementwise(f"{name}.add1", (x, made), channels, Step("add", (0, 1)))
        hidden = b.linear(f"{name}.up", b.norm(f"{name}.norm2", x), channels, sizes.hidden)
        hidden = b.elementwise(f"{name}.gelu", (hidden,), sizes.hidden, Step("gelu", (0,)))
        made = b.linear(f"{name}.down", hidden, sizes.hidden, channels)
        x = b.elementwise(f"{name}.add2", (x, made), channels, Step("add", (0, 1)))
    shape = (sizes.batch, sizes.tokens, channels)
    ports = [Port(name, tensor, shape, shape, (0, 1, 2)) for name, tensor in (("x", "x"), ("y", x))]
    return Network(b.tensors, tuple(b.operators), (ports[0],), (ports[1],), {}), b.weights
