"""Every architecture that we can build, small, through the front end and onto a machine: what goes through, what it
costs, and why the rest is refused.

Networks are the model types of transformers with small configurations, timm's architectures where timm can be
imported, and some written by hand. Weights are random.
Resumable: one JSON line a network in --out; what is there is not measured again, unless with --again. An architecture
that needs longer than --seconds is refused as such. `make docs` puts the tables into docs/models.md.
"""

from __future__ import annotations

import argparse
import copy
import json
import re
import signal
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.zoo.hand_written import NETWORKS
from benchmarks.zoo.small_configurations import example_inputs, model_types, small_model
from benchmarks.zoo.tables import MACHINE, Record
from benchmarks.zoo.timm_models import PREFIX, small_timm, timm_names
from gblr_hw.frontend import ExportedNetwork, export_network, multiplications_of, spent_multiplications
from gblr_hw.frontend.capture import named_tensors, quiet
from gblr_hw.frontend.containers import tensors_in
from gblr_hw.lowering.whole_network import lower_network
from gblr_hw.weights.network_weights import linear_of
from simulator.base.errors import InputError
from simulator.machine.machine import Machine
from simulator.network.evaluate_network import evaluate_network
from simulator.timing.simulate import simulate

OUT = Path("docs/data/zoo.jsonl")
# One of each kind, for a test.
SHORT = ("bert", "llama", "t5", "mixtral", "swin", "U-Net", "convolutions, inverted and gated", "text reader (CRNN)")

# A larger error than this is none of float32's sums.
ROUNDING = 1e-5

Call = tuple[tuple[Any, ...], dict[str, Any]]


class OutOfTimeError(BaseException):
    """An architecture took longer than it may. No Exception: what a framework cannot follow is caught on the way."""


def built(name: str) -> tuple[nn.Module, Call]:
    """A network and one call of it."""
    torch.manual_seed(0)
    if name in NETWORKS:
        model, inputs = NETWORKS[name]()
        return _settled(model), (inputs, {})
    if name.startswith(PREFIX):
        model, inputs = small_timm(name)
        return _settled(model), (inputs, {})
    model = _settled(small_model(name))
    return model, ((), example_inputs(model))


def _settled(model: nn.Module) -> nn.Module:
    """In evaluation mode, with norms' statistics that are not the initial ones, and no matrix of zeros: a router whose
    scores are all alike leaves open which experts are chosen.
    """
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2.0)  # type: ignore[union-attr]
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1 and parameter.is_floating_point() and not parameter.any():
                parameter.normal_(0, 0.05)
    return model.eval()


def _source(name: str) -> str:
    return "written by hand" if name in NETWORKS else "timm" if name.startswith(PREFIX) else "transformers"


def measure(name: str) -> Record:
    """One network's record: what it is, and either its figures or why it was refused."""
    record: Record = {"network": name, "source": _source(name)}
    try:
        model, (args, kwargs) = built(name)
    except OutOfTimeError:
        raise
    except Exception as error:
        return {**record, "state": "not built", "why": _first_line(error)}
    machine = Machine.load(MACHINE)
    try:
        exported, way = _exported(model, args, kwargs)
        program = lower_network(exported.network, exported.weights, machine)
    except InputError as error:
        return {
            **record,
            "state": "refused",
            "where": error.where,
            "why": _reason(error),
        }
    inputs = {key: tensor.numpy() for key, tensor in named_tensors(model.forward, args, kwargs)}
    found = evaluate_network(exported.network, linear_of(exported.weights), inputs)
    return {
        **record,
        "state": "whole",
        "way": way,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "operators": len(exported.network.operators),
        "copies": sum(any(o.access == "strided" for o in one.operands) for one in exported.network.operators),
        "multiplications": sum(multiplications_of(exported.network, exported.weights).values()),
        "spent": spent_multiplications(program),
        "cycles": int(simulate(program, machine).latency_cycles),
        **_compared(model, args, kwargs, found),
        "notes": [_without_paths(note) for note in exported.notes],
    }


def _exported(model: nn.Module, args: Any, kwargs: Any) -> tuple[ExportedNetwork, str]:
    """The network, and how: as it comes, or by the way out that its refusal names."""
    try:
        return export_network(model, args, kwargs=kwargs), ""
    except InputError as error:
        if "by_example=True" not in error.remedy:
            raise
    return export_network(model, args, kwargs=kwargs, by_example=True), "by_example"


def _compared(model: nn.Module, args: Any, kwargs: Any, found: Mapping[str, np.ndarray]) -> Record:
    """The error against PyTorch in float32; where that is no rounding, in float64 if the model runs so: which of two
    that are all but equal comes first is a matter of rounding.
    """
    error = _error(found, _outputs(model, args, kwargs))
    if error > ROUNDING:
        try:
            doubled = torch.utils._pytree.tree_map_only(Tensor, _doubled, (args, kwargs))
            return {
                "error": min(error, _error(found, _outputs(copy.deepcopy(model).double(), *doubled))),
                "float32": error,
            }
        except Exception:
            return {"error": error}
    return {"error": error}


def _doubled(tensor: Tensor) -> Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor


def _outputs(model: nn.Module, args: Any, kwargs: Any) -> list[tuple[tuple[str, ...], Tensor]]:
    torch.manual_seed(0)  # of which a program holds a draw, where a model draws
    with torch.no_grad(), quiet():
        return tensors_in(model(*args, **kwargs))


def _without_paths(text: str) -> str:
    """Without the folders of this machine."""
    return re.sub(r"/[^ :'\"]*/(?:site-packages/|(?=benchmarks/))", "", text)


def _reason(error: InputError) -> str:
    """The rule, and for a model that cannot be followed what its code raised; no path of this machine."""
    if not error.where.startswith("model "):
        return error.rule
    return f"{_without_paths(error.value.partition(' (unhinted')[0])[:160]}: {error.rule}"


def _error(found: Mapping[str, np.ndarray], wanted: list[tuple[tuple[str, ...], Tensor]]) -> float:
    """Largest difference over all outputs that are numbers, each relative to its own largest magnitude."""
    worst = 0.0
    named = {_name(path): tensor for path, tensor in wanted}
    for name, array in found.items():
        want = named[name].double().numpy()
        sound = np.isfinite(want) & np.isfinite(array)
        if sound.any():
            worst = max(worst, float(np.abs(array - want)[sound].max() / max(np.abs(want[sound]).max(), 1e-9)))
    return worst


def _name(path: tuple[str, ...]) -> str:
    return ".".join(f"output{part}" if part.isdigit() and not place else part for place, part in enumerate(path)) or (
        "output"
    )


def _first_line(error: Exception) -> str:
    text = _without_paths((str(error).strip().splitlines() or [""])[0])
    return f"{type(error).__name__}: {text[:120]}"


@contextmanager
def within(seconds: int) -> Iterator[None]:
    """Raise OutOfTimeError where what is inside takes longer, in processor time: what else runs does not matter."""

    def stop(*_: object) -> None:
        raise OutOfTimeError

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def guarded(name: str, seconds: int, run: Callable[[str], Record] = measure) -> Record:
    """A record whatever happens; an exception of ours is no refusal, and says so."""
    record = {"network": name, "source": _source(name)}
    try:
        with within(seconds), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return run(name)
    except OutOfTimeError:
        return {**record, "state": "refused", "where": "time", "why": f"it takes more than {seconds} s"}
    except Exception as error:
        return {**record, "state": "crashed", "why": _first_line(error)}


def main() -> None:
    """Measure what is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--again", action="store_true", help="measure everything again")
    parser.add_argument("--seconds", type=int, default=120, help="for one architecture")
    parser.add_argument("--only", nargs="*", help="names of networks")
    parser.add_argument("--part", default="0/1", help="of the list, as NUMBER/PARTS")
    options = parser.parse_args()
    torch.set_num_threads(1)
    part, parts = (int(one) for one in options.part.split("/"))
    of_timm, without = timm_names()
    names = options.only or [*NETWORKS, *model_types(), *of_timm]
    known: list[Record] = []
    if options.out.exists() and not options.again:
        known = [json.loads(line) for line in options.out.read_text().splitlines()]
    done = {one["network"] for one in known}
    with options.out.open("w" if options.again else "a") as file:
        for number, name in enumerate(names):
            if name in done or number % parts != part:
                continue
            record = guarded(name, options.seconds)
            known.append(record)
            file.write(json.dumps(record, sort_keys=True) + "\n")
            file.flush()
            print(record["state"], name, record.get("why", ""), flush=True)
    print(dict(Counter(one["state"] for one in known)), without)


if __name__ == "__main__":
    main()
