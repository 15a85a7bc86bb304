"""From a module to torch.export's graph, with layers that have weights of their own kept whole."""

from __future__ import annotations

import copy
import io
import re
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, redirect_stderr
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch._decomp import get_decompositions
from torch._subclasses.fake_tensor import FakeTensor
from torch.fx import Node
from torch.nn import functional

from gblr_hw.frontend.containers import arguments_by_name, tensors_in, with_tensors
from gblr_hw.frontend.decide import Decisions, decided, line_of_model
from gblr_hw.frontend.foreign_code import drawn_alike, quiet, told_error, unended
from gblr_hw.frontend.graph.builder import Layers
from gblr_hw.layers.matrix_conv import MatrixConv2d
from gblr_hw.weights.checks import not_stored
from gblr_hw.weights.stored import WEIGHT_KINDS, ConvWeights, LayerWeights
from simulator.base.errors import InputError

# The layers of the export that is running, by the path that their operator carries. An operator of torch's library is
# one for the whole process, so what it stands for has to be found by name.
_LAYERS: dict[str, nn.Module] = {}


@torch.library.custom_op("gblr_hw::layer", mutates_args=())
def _layer(inputs: Tensor, path: str, sizes: list[int], zeros: list[int] | None = None) -> Tensor:
    """A layer as one node; ``sizes``: of its output. zeros: around a convolution's images (above, on the left, below,
    on the right) that another node put there; nothing runs with them.
    """
    with _original(_LAYERS[path]):
        return _LAYERS[path](inputs).clone()


@_layer.register_fake
def _(inputs: Tensor, path: str, sizes: list[int], zeros: list[int] | None = None) -> Tensor:
    return inputs.new_empty(sizes)


@dataclass(frozen=True)
class Captured:
    """A model's nodes in order, what its placeholders hold, its own layers, and its outputs.

    constants: placeholder name -> tensor. names: id of a parameter's tensor -> its name in the model. inputs: of the
    placeholders that are model inputs, name -> (the input's name, its example). layers: path -> (module, weights) of
    layers kept whole. outputs: (name, node or constant). decisions: what was decided by the example's values, None
    where nothing depends on them.
    """

    nodes: tuple[Node, ...]
    constants: Mapping[str, Any]
    names: Mapping[int, str]
    inputs: Mapping[str, tuple[str, Tensor]]
    layers: Layers
    outputs: tuple[tuple[str, Any], ...]
    decisions: Decisions | None = None


@dataclass
class _Call:
    """One call of a model as a function of tensors: its arguments by name, and the names of what it returns."""

    forward: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    returned: list[str] = field(default_factory=list)
    decisions: Decisions | None = None

    def __call__(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        # Caches are changed in place: each trace works on copies of its own.
        found = iter(tensors)
        args, kwargs = with_tensors((self.args, self.kwargs), found)
        with self.decisions.during(tensors) if self.decisions is not None else nullcontext():
            outputs = tensors_in(self.forward(*args, **kwargs))
        self.returned = [_output_name(path) for path, _ in outputs]
        return tuple(tensor for _, tensor in outputs)


def own_layers(model: nn.Module) -> dict[str, tuple[nn.Module, LayerWeights]]:
    """Modules with a method ``weights()`` that gives a layer's weights, by path; those inside others left out."""
    found: dict[str, tuple[nn.Module, LayerWeights]] = {}
    for path, module in model.named_modules():
        if any(path.startswith(f"{outer}.") or not outer for outer in found):
            continue
        weights = _own_weights(module)
        if isinstance(weights, WEIGHT_KINDS):
            found[path] = (module, weights)
    return found


def _own_weights(module: nn.Module) -> Any:
    """What a module's method ``weights()`` gives; None without one, and for a user's method of that name that is
    something else: it asks for arguments, or fails.
    """
    try:
        own = getattr(module, "weights", None)
        return own() if callable(own) and not isinstance(own, nn.Module) else None
    except InputError:
        raise
    except Exception:
        return None


def capture(
    model: nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    known: Callable[[str], bool],
    by_example: bool = False,
) -> Captured:
    """Export a model in evaluation mode for one call with example arguments.

    Operations that are not ``known`` by name are taken apart, where the framework says how; the others stay whole.
    What depends on the values of inputs of whole numbers alone (masks, positions) is decided by the example's;
    by_example: so is what depends on others. Raises InputError if the model is training, takes other arguments, or
    torch.export cannot follow it.
    """
    training = [name for name, module in model.named_modules() if module.training]
    if training:
        raise InputError(
            f"model, module '{training[0]}'" if training[0] else "model",
            "training mode",
            "the front end takes models in evaluation mode",
            "Call model.eval().",
        )
    if isinstance(model, torch.jit.ScriptModule):
        raise InputError(
            "model", type(model).__name__, "the front end follows a module's Python code, which TorchScript has left",
            "Give the module that it was made from.",
        )  # fmt: skip
    named = _named_inputs(model, args, kwargs)
    _check_stored("example inputs", named)
    _check_stored(f"model {type(model).__name__}", [*model.named_parameters(), *model.named_buffers()])
    layers = own_layers(model)
    call = _Call(model.forward, tuple(args), dict(kwargs))
    program = _exported(model, call, named, layers, known, by_example)
    signature = program.graph_signature
    held: dict[str, Any] = {}
    names: dict[int, str] = {}
    inputs: dict[str, tuple[str, Tensor]] = {}
    for spec in signature.input_specs:
        if spec.kind.name == "USER_INPUT":
            inputs[str(spec.arg.name)] = named[len(inputs)]
            continue
        target = str(spec.target)
        tensor = program.state_dict.get(target, program.constants.get(target))
        held[str(getattr(spec.arg, "name", None))] = tensor
        if isinstance(tensor, Tensor):
            names.setdefault(id(tensor), target)
    nodes = tuple(program.graph.nodes)
    return Captured(nodes, held, names, inputs, layers, _outputs(program, call.returned), call.decisions)


def split_arguments(example: Any, kwargs: Mapping[str, Any] | None = None) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments of one call, from a tensor, a tuple or list of positional ones, or a mapping of
    keyword ones, and further keyword ones.
    """
    if isinstance(example, Mapping):
        return (), {**example, **(kwargs or {})}
    args = tuple(example) if isinstance(example, (list, tuple)) else () if example is None else (example,)
    return args, dict(kwargs or {})


def named_tensors(
    forward: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> list[tuple[str, Tensor]]:
    """The tensors in the arguments of a call, in the order of the network's inputs, with their names.

    Raises TypeError for arguments that the function does not take.
    """
    by_path: dict[int, list[str]] = {}
    for path, value in arguments_by_name(forward, args, kwargs):
        for inner, tensor in tensors_in(value, path):
            by_path.setdefault(id(tensor), []).append(re.sub(r"\W", "_", "_".join(inner)))
    # The order is that of the call; the names that of the signature. One tensor may be given twice.
    return [(by_path[id(tensor)].pop(0), tensor) for _, tensor in tensors_in((tuple(args), dict(kwargs)))]


def _named_inputs(model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[tuple[str, Tensor]]:
    try:
        named = named_tensors(model.forward, args, kwargs)
    except TypeError as error:
        raise InputError(
            "example inputs", str(error), f"they are arguments of {type(model).__name__}.forward",
            "Give positional arguments as a tuple, keyword arguments as a dict.",
        ) from None  # fmt: skip
    if not named:
        raise InputError(
            "example inputs", "no tensor", "a network computes something from its inputs",
            "Give at least one tensor that the model reads.",
        )  # fmt: skip
    return named


def _check_stored(where: str, tensors: Sequence[tuple[str, Tensor]]) -> None:
    """Raise InputError for tensors whose numbers are not there: export takes some, and ends the process at others."""
    for name, tensor in tensors:
        # A layer that is not initialised yet has no tensor to look at: export says so.
        found = "" if nn.parameter.is_lazy(tensor) else not_stored(tensor)
        if found:
            raise InputError(
                f"{where}: tensor '{name}'", found, "a tensor is dense and stored in full",
                "Give it as .to_dense() does, on the CPU, with numbers.",
            )  # fmt: skip


def _exported(
    model: nn.Module,
    call: _Call,
    named: Sequence[tuple[str, Tensor]],
    layers: Layers,
    known: Callable[[str], bool],
    by_example: bool,
) -> torch.export.ExportedProgram:
    """Without values if that is possible, else with those of the example where something depends on them."""
    tensors = [tensor for _, tensor in named]
    program: torch.export.ExportedProgram | None = None
    try:
        program = _traced(model, call, tensors, layers, known)
        if not any(sized_by_data(node) for node in program.graph.nodes):
            return program
    except (InputError, KeyboardInterrupt):
        raise
    except BaseException as error:  # the model's code may end the process
        if not type(error).__module__.startswith("torch."):
            raise _cannot_follow(model, error) from error
    call.decisions = Decisions(model, by_example, named)
    try:
        with decided(call.decisions):
            return _traced(model, call, tensors, layers, known)
    except InputError as refused:
        if program is None:
            raise
        call.decisions.refused = refused  # what has no static shape may be nothing that an output needs
        return program
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise _cannot_follow(model, error) from error


def sized_by_data(node: Node) -> bool:
    """Whether a node, or what it reads, is a number or has a shape that only values tell."""
    for one in (node, *node.all_input_nodes):
        value = one.meta.get("val")
        found = value.shape if isinstance(value, Tensor) else (value,)
        if any(isinstance(size, (torch.SymInt, torch.SymFloat, torch.SymBool)) for size in found):
            return True
    return False


def _traced(
    model: nn.Module, call: _Call, tensors: Sequence[Tensor], layers: Layers, known: Callable[[str], bool]
) -> torch.export.ExportedProgram:
    fast, carried = torch.backends.mha.get_fastpath_enabled(), call.decisions is not None
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with (
            torch.no_grad(),
            _opaque(layers, carried),
            _as_function(model, call),
            _converted_once(),
            _written_as_numbers(),
            quiet(),
            unended(),
            _unprinted(),
        ):
            with drawn_alike():
                program = torch.export.export(model, tuple(tensors), strict=False)
            return _taken_apart(_run_decompositions(program, {}), known)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


# How the framework's text begins where values are read that a traced tensor has not.
_NO_VALUES = "The tensor has a non-zero number of elements, but its data is not allocated yet"


def _cannot_follow(model: nn.Module, error: BaseException) -> InputError:
    line = line_of_model(traceback.extract_tb(error.__traceback__))
    where = f"model {type(model).__name__}"
    if line and str(error).startswith(_NO_VALUES):
        return InputError(
            where,
            line,
            "a tensor's values are taken there one by one (as a list of places, say), and a traced tensor has none",
            "Give that line a tensor in place of the list; or lower a part: FILE.py:FUNCTION may return any module of "
            "the model, with inputs of its own.",
        )
    return InputError(
        where,
        told_error(error),
        "torch.export has to follow the model with static shapes",
        "Run torch.export.export on it for the whole message, and rewrite what it names; or lower a part: "
        "FILE.py:FUNCTION may return any module of the model, with inputs of its own."
        f"{f' It is raised in {line}.' if line else ''}",
    )


@contextmanager
def _unprinted() -> Iterator[None]:
    """While it lasts, nothing reaches standard error: the framework prints the graph that it has when it gives up."""
    with redirect_stderr(io.StringIO()):
        yield


@contextmanager
def _converted_once() -> Iterator[None]:
    """While it lasts, a module that is converted to the types that it has already stays as it is: routers do so at
    every call, and the traced parameters cannot be put in others' places.
    """
    before = nn.Module._apply

    def apply(self: nn.Module, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        held = [*self.parameters(recurse), *self.buffers(recurse)]
        if all((new.dtype, new.device) == (old.dtype, old.device) for old, new in ((one, fn(one)) for one in held)):
            return self
        return before(self, fn, recurse)

    nn.Module._apply = apply  # type: ignore[method-assign]
    try:
        yield
    finally:
        nn.Module._apply = before  # type: ignore[method-assign]


@contextmanager
def _written_as_numbers() -> Iterator[None]:
    """While it lasts, a single number in a text is the number (``f"expert_{index}"``), as where nothing is traced."""

    def written(self: FakeTensor, spec: str) -> str:
        return format(self.item(), spec) if self.dim() == 0 else object.__format__(self, spec)

    before = FakeTensor.__format__
    FakeTensor.__format__ = written  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        FakeTensor.__format__ = before  # type: ignore[method-assign]


@contextmanager
def _as_function(model: nn.Module, call: _Call) -> Iterator[None]:
    """While it lasts, the model is a function of tensors. Its own layer, if it is one, stays in its place."""
    before = model.__dict__.get("forward")
    call.forward = model.forward

    def forward(*tensors: Tensor) -> tuple[Tensor, ...]:
        return call(*tensors)

    model.forward = forward
    try:
        yield
    finally:
        model.__dict__.pop("forward", None)
        if before is not None:
            model.forward = before


# Operations that the framework takes apart in a table of its own, but not by default.
_ALSO_TAKEN_APART = (torch.ops.aten.grid_sampler_2d.default,)


@cache
def _taken_apart_by() -> Mapping[Any, Callable[..., Any]]:
    """What takes operations apart; the framework goes through all of its operations for it."""
    return {**torch.export.default_decompositions(), **get_decompositions(_ALSO_TAKEN_APART)}


def _taken_apart(program: torch.export.ExportedProgram, known: Callable[[str], bool]) -> torch.export.ExportedProgram:
    table = _taken_apart_by()
    for _ in range(3):
        targets = {node.target for node in program.graph.nodes if node.op == "call_function"}
        wanted = {target: table[target] for target in targets if target in table and not known(str(target))}
        if not wanted:
            break
        program = _run_decompositions(program, wanted)
    return program


def _run_decompositions(program: torch.export.ExportedProgram, table: dict[Any, Any]) -> torch.export.ExportedProgram:
    """Each time that values are carried through a graph, the same random numbers are drawn."""
    with drawn_alike():
        return program.run_decompositions(table)


@contextmanager
def _opaque(layers: Layers, carried: bool) -> Iterator[None]:
    """While it lasts, a call of one of ``layers`` is one node. carried: values go through it too, of a copy, because
    what is traced has no values of its own.
    """
    for path, (module, weights) in layers.items():
        _LAYERS[path] = copy.deepcopy(module) if carried else module
        module.forward = _call_of(path, module, weights)
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
    if isinstance(module, MatrixConv2d):
        return module.output_sizes(inputs.shape)
    if not isinstance(weights, ConvWeights):
        return [*inputs.shape[:-1], weights.out_features]
    kernel = torch.empty(weights.out_channels, weights.in_channels, *weights.kernel, device="meta")
    image = torch.empty(inputs.shape, device="meta")
    return list(functional.conv2d(image, kernel, None, module.stride, module.padding, module.dilation).shape)


def _outputs(program: torch.export.ExportedProgram, names: Sequence[str]) -> tuple[tuple[str, Any], ...]:
    """The outputs with the names that the model's own containers give them."""
    output = next(node for node in program.graph.nodes if node.op == "output")
    kinds = [spec.kind.name for spec in program.graph_signature.output_specs]
    values = [value for value, kind in zip(output.args[0], kinds, strict=True) if kind == "USER_OUTPUT"]
    return tuple(zip(names, values, strict=True))


def _output_name(path: Sequence[str]) -> str:
    parts = [f"output{part}" if part.isdigit() and not place else part for place, part in enumerate(path)]
    return ".".join(parts) or "output"
