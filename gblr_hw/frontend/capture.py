"""From a module to torch.export's graph, with layers that have weights of their own kept whole."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Node
from torch.nn import functional

from gblr_hw.frontend.graph.builder import Layers
from gblr_hw.weights.stored import WEIGHT_KINDS, ConvWeights, LayerWeights
from simulator.base.errors import InputError

# The layers of the export that is running, by the path that their operator carries. An operator of torch's library is
# one for the whole process, so what it stands for has to be found by name.
_LAYERS: dict[str, nn.Module] = {}


@torch.library.custom_op("gblr_hw::layer", mutates_args=())
def _layer(inputs: Tensor, path: str, sizes: list[int]) -> Tensor:
    """A layer as one node; ``sizes``: of its output."""
    with _original(_LAYERS[path]):
        return _LAYERS[path](inputs).clone()


@_layer.register_fake
def _(inputs: Tensor, path: str, sizes: list[int]) -> Tensor:
    return inputs.new_empty(sizes)


@dataclass(frozen=True)
class Captured:
    """A model's nodes in order, what its placeholders hold, its own layers, and its outputs.

    constants: placeholder name -> tensor. names: id of a parameter's tensor -> its name in the model. inputs: names of
    the placeholders that are model inputs. layers: path -> (module, weights) of layers kept whole. outputs: (name,
    node or constant).
    """

    nodes: tuple[Node, ...]
    constants: Mapping[str, Any]
    names: Mapping[int, str]
    inputs: tuple[str, ...]
    layers: Layers
    outputs: tuple[tuple[str, Any], ...]


def own_layers(model: nn.Module) -> dict[str, tuple[nn.Module, LayerWeights]]:
    """Modules with a method ``weights()`` that gives a layer's weights, by path; those inside others left out."""
    found: dict[str, tuple[nn.Module, LayerWeights]] = {}
    for path, module in model.named_modules():
        if any(path.startswith(f"{outer}.") or not outer for outer in found):
            continue
        own = getattr(module, "weights", None)
        weights = own() if callable(own) else None
        if isinstance(weights, WEIGHT_KINDS):
            found[path] = (module, weights)
    return found


def capture(model: nn.Module, example_inputs: Any, known: Callable[[str], bool]) -> Captured:
    """Export a model in evaluation mode. example_inputs: a tensor, a tuple of arguments, or a dict of keyword ones.

    Operations that are not ``known`` by name are taken apart, where the framework says how; the others stay whole.
    Raises InputError if the model is training or torch.export cannot follow it.
    """
    if any(module.training for module in model.modules()):
        raise InputError(
            "model", "training mode", "the front end takes models in evaluation mode", "Call model.eval()."
        )
    args, kwargs = _arguments(example_inputs)
    layers = own_layers(model)
    program = _exported(model, args, kwargs, layers, known)
    signature = program.graph_signature
    held: dict[str, Any] = {}
    names: dict[int, str] = {}
    inputs = []
    for spec in signature.input_specs:
        name = getattr(spec.arg, "name", None)
        if spec.kind.name == "USER_INPUT":
            value = getattr(spec.arg, "value", None)
            if not isinstance(spec.arg, torch.export.graph_signature.TensorArgument):
                held[str(name)] = value
            else:
                inputs.append(spec.arg.name)
            continue
        target = str(spec.target)
        tensor = program.state_dict.get(target, program.constants.get(target))
        held[str(name)] = tensor
        if isinstance(tensor, Tensor):
            names.setdefault(id(tensor), target)
    nodes = tuple(program.graph.nodes)
    return Captured(nodes, held, names, tuple(inputs), layers, _outputs(program))


def _arguments(example: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(example, Mapping):
        return (), dict(example)
    return (tuple(example), {}) if isinstance(example, Sequence) else ((example,), {})


def _exported(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    layers: Layers,
    known: Callable[[str], bool],
) -> torch.export.ExportedProgram:
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), _opaque(layers), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.export(model, args, kwargs, strict=False)
            return _taken_apart(program.run_decompositions({}), known)
    except InputError:
        raise
    except Exception as error:
        text = str(error).strip().splitlines()
        raise InputError(
            f"model {type(model).__name__}",
            f"{type(error).__name__}: {text[0] if text else ''}",
            "torch.export has to follow the model with static shapes, and no branch may depend on data",
            "Run torch.export.export on it for the whole message, and rewrite what it names.",
        ) from error
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def _taken_apart(program: torch.export.ExportedProgram, known: Callable[[str], bool]) -> torch.export.ExportedProgram:
    table = torch.export.default_decompositions()
    for _ in range(3):
        targets = {node.target for node in program.graph.nodes if node.op == "call_function"}
        wanted = {target: table[target] for target in targets if target in table and not known(str(target))}
        if not wanted:
            break
        program = program.run_decompositions(wanted)
    return program


@contextmanager
def _opaque(layers: Layers) -> Iterator[None]:
    """While it lasts, a call of one of ``layers`` is one node."""
    for path, (module, weights) in layers.items():
        module.forward = _call_of(path, module, weights)
        _LAYERS[path] = module
    try:
        yield
    finally:
        for module, _ in layers.values():
            module.__dict__.pop("forward", None)


def release(layers: Mapping[str, Any]) -> None:
    """Forget the layers of an export that is done."""
    for path in layers:
        _LAYERS.pop(path, None)


@contextmanager
def _original(module: nn.Module) -> Iterator[None]:
    patched = module.__dict__.pop("forward", None)
    try:
        yield
    finally:
        if patched is not None:
            module.forward = patched


def _call_of(path: str, module: nn.Module, weights: LayerWeights) -> Any:
    def forward(inputs: Tensor) -> Tensor:
        return torch.ops.gblr_hw.layer(inputs, path, _output_sizes(module, weights, inputs))

    return forward


def _output_sizes(module: Any, weights: LayerWeights, inputs: Tensor) -> list[int]:
    if not isinstance(weights, ConvWeights):
        return [*inputs.shape[:-1], weights.out_features]
    kernel = torch.empty(weights.out_channels, weights.in_channels, *weights.kernel, device="meta")
    image = torch.empty(inputs.shape, device="meta")
    return list(functional.conv2d(image, kernel, None, module.stride, module.padding, module.dilation).shape)


def _outputs(program: torch.export.ExportedProgram) -> tuple[tuple[str, Any], ...]:
    """The outputs with the names that the model's own containers give them."""
    output = next(node for node in program.graph.nodes if node.op == "output")
    flat = list(output.args[0])
    kinds = [spec.kind.name for spec in program.graph_signature.output_specs]
    values = [value for value, kind in zip(flat, kinds, strict=True) if kind == "USER_OUTPUT"]
    spec = program.call_spec.out_spec
    tree = torch.utils._pytree.tree_unflatten(list(range(len(values))), spec)
    paths = torch.utils._pytree.tree_flatten_with_path(tree)[0]
    named = {index: _path_name(path) for path, index in paths}
    return tuple((named.get(index, "") or f"output{index or ''}", value) for index, value in enumerate(values))


def _path_name(path: Sequence[Any]) -> str:
    parts = [str(getattr(key, "key", getattr(key, "idx", getattr(key, "name", "")))) for key in path]
    return ".".join(f"output{part}" if part.isdigit() and not index else part for index, part in enumerate(parts))
