"""Branches and shapes that depend on data, decided while a model is captured by the values of its example inputs.

torch.export follows shapes without values. Beside these the framework can carry values along, of which what depends on
data is taken here: a number that Python asks for, and the sizes of what is found or kept.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch._functorch.config as functorch_config
from torch import Tensor, nn
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorConverter, FakeTensorMode
from torch.fx import Node
from torch.fx.experimental import proxy_tensor
from torch.utils._mode_utils import no_dispatch
from torch.utils._pytree import tree_iter, tree_map_only

from simulator.base.errors import InputError

# What an operation's arguments depend on: inputs by place, and this for the model's parameters.
_WEIGHTS = frozenset({-1})

# Where not all arguments tell the shape of a result: the place of the first that does.
_DECIDING = {"aten.index.Tensor": 1, "aten.masked_select.default": 1, "aten.repeat_interleave.self_Tensor": 1}

# As many answers to one line stand in its note: experts of a large layer.
_MOST_TOLD = 64

# Lines of the framework and ours are none of the model's.
_FOREIGN = (str(Path(torch.__file__).parent), str(Path(__file__).parent))


@dataclass
class Decisions:
    """What a capture found to depend on data.

    by_example: whether what the model computes with its weights, or from inputs that are no whole numbers, decides too.
    found: the lines of the model that ask, each with the names of the inputs that decide there, in order.
    told: what each of them was told, in order: a number, or how many rows were found.
    refused: why none of it was decided, for whoever needs it.
    """

    model: nn.Module
    by_example: bool
    inputs: Sequence[tuple[str, Tensor]]
    found: dict[str, tuple[str, ...]] = field(default_factory=dict)
    told: dict[str, list[str]] = field(default_factory=dict)
    refused: InputError | None = None
    active: bool = False
    _of_storage: dict[int, frozenset[int]] = field(default_factory=dict)
    _held: list[Any] = field(default_factory=list)

    @contextmanager
    def during(self, tensors: Sequence[Tensor]) -> Iterator[None]:
        """While a model's code is followed, with what stands for its inputs."""
        for place, tensor in enumerate(tensors):
            self._mark([tensor], frozenset({place}))
        for parameter in self.model.parameters():
            self._mark([parameter], _WEIGHTS)
        self.active = True
        try:
            yield
        finally:
            self.active = False

    def pass_on(self, arguments: Iterable[Any], results: Iterable[Any]) -> None:
        """What is computed depends on the inputs that its arguments depend on; so does what is written in place."""
        tensors = [one for one in arguments if isinstance(one, FakeTensor)]
        inputs = self._inputs(tensors)
        if inputs:
            self._mark([*(one for one in results if isinstance(one, FakeTensor))], inputs)

    def written(self, tensors: Iterable[Any], arguments: Iterable[Any]) -> None:
        """``tensors`` are changed in place by an operation on ``arguments``."""
        inputs = self._inputs([one for one in arguments if isinstance(one, FakeTensor)])
        if inputs:
            self._mark([one for one in tensors if isinstance(one, FakeTensor)], inputs)

    def decide(self, arguments: Iterable[Any]) -> str | None:
        """The line that asks for a number or shape which depends on ``arguments``, noted; None if that is no input.
        Raises InputError unless they may decide.
        """
        inputs = self._inputs([one for one in arguments if isinstance(one, FakeTensor)])
        named = [self.inputs[place] for place in sorted(inputs - _WEIGHTS)]
        if not named or not self.active:
            return None
        line, names = line_of_model(traceback.extract_stack()), tuple(name for name, _ in named)
        weighed = bool(inputs & _WEIGHTS) or any(value.dtype.is_floating_point for _, value in named)
        if weighed and not self.by_example:
            raise by_data(self.model, line, names)
        self.found[line] = tuple(dict.fromkeys((*self.found.get(line, ()), *names)))
        return line

    def tell(self, line: str, result: Any) -> None:
        """Keep what a line was told: the rows that were found, or the number."""
        first = next(iter(tree_iter(result)), None)
        size = first.shape[0] if isinstance(first, Tensor) and first.dim() else first
        self.told.setdefault(line, []).append(str(size))

    def notes(self) -> list[str]:
        """One line for each line of the model that asked, with what it was told: of experts, the rows of each."""
        return [
            f"Decided once, by the example's {_quoted(names)} (the program is for inputs that decide the same): {line}"
            f"{_listed(self.told.get(line, []))}"
            for line, names in self.found.items()
        ]

    def _inputs(self, tensors: Iterable[FakeTensor]) -> frozenset[int]:
        return frozenset().union(*(self._of_storage.get(_storage(one), frozenset()) for one in tensors))

    def _mark(self, tensors: Iterable[Tensor], inputs: frozenset[int]) -> None:
        for one in tensors:
            key = _storage(one)
            self._of_storage[key] = self._of_storage.get(key, frozenset()) | inputs
            self._held.append(one.untyped_storage())  # so that nothing else gets its place in memory


def by_data(model: nn.Module, line: str, names: Sequence[str]) -> InputError:
    """The refusal of a branch or shape that depends on values of inputs."""
    return InputError(
        f"model {type(model).__name__}",
        line,
        f"a branch or a shape depends there on the values of {_quoted(names)}, and the network has static shapes",
        "Let the example inputs decide (--by-example, or by_example=True): the program is then for inputs that decide "
        "the same, which its notes say, line by line. Or lower a part that has no such branch: FILE.py:FUNCTION may "
        "return any module of the model, with inputs of its own.",
    )


@contextmanager
def decided(decisions: Decisions) -> Iterator[None]:
    """While it lasts, what an export traces carries values along, and what depends on data is taken from them."""
    before, made_before = FakeTensorMode.dispatch, FakeTensorConverter.from_real_tensor

    def made(self: FakeTensorConverter, mode: FakeTensorMode, tensor: Tensor, *args: Any, **kwargs: Any) -> FakeTensor:
        stand_in = made_before(self, mode, tensor, *args, **kwargs)
        if type(tensor) is nn.Parameter:  # of these the framework forgets to carry the values
            stand_in.real_tensor = tensor.data
        return stand_in

    def dispatch(
        self: FakeTensorMode, func: OpOverload, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        arguments = list(tree_iter((args, kwargs or {})))
        if self.propagate_real_tensors and _by_values(func, arguments):
            line = decisions.decide(tree_iter(args[_DECIDING.get(str(func), 0) :]))
            result = _of_values(self, func, args, kwargs or {})
            if line is not None:
                decisions.tell(line, result)
        else:
            written = _written_once(func, args, kwargs or {}) if self.propagate_real_tensors else []
            result = before(self, func, types, args, kwargs or {})
            with no_dispatch():
                for tensor, value in written:
                    tensor.copy_(value)
        decisions.pass_on(arguments, tree_iter(result))
        if func._schema.is_mutable:
            decisions.written(_mutated(func, args, kwargs or {}), arguments)
        return result

    noted_before = proxy_tensor.snapshot_fake

    def noted(value: Tensor, include_real: bool = False) -> Tensor | None:
        return noted_before(value, include_real=True)

    proxy_tensor.snapshot_fake = noted  # type: ignore[assignment]
    FakeTensorMode.dispatch = dispatch  # type: ignore[method-assign]
    FakeTensorConverter.from_real_tensor = made  # type: ignore[method-assign, assignment]
    try:
        with functorch_config.patch(fake_tensor_propagate_real_tensors=True):
            yield
    finally:
        proxy_tensor.snapshot_fake = noted_before
        FakeTensorMode.dispatch = before  # type: ignore[method-assign]
        FakeTensorConverter.from_real_tensor = made_before  # type: ignore[method-assign]


def depends_on_values(target: Any) -> bool:
    """Whether an operation's result has a shape, or is a number, that only values tell."""
    tags = getattr(target, "tags", ())
    return torch.Tag.dynamic_output_shape in tags or torch.Tag.data_dependent_output in tags


def decided_value(node: Node) -> Tensor | None:
    """What a node of a captured model is for the example inputs, if their values were carried along."""
    value = node.meta.get("val")
    return value.real_tensor if isinstance(value, FakeTensor) else None


def _by_values(func: OpOverload, arguments: Sequence[Any]) -> bool:
    tensors = [one for one in arguments if isinstance(one, FakeTensor)]
    if not depends_on_values(func) or any(one.real_tensor is None for one in tensors):
        return False
    if func is torch.ops.aten.index.Tensor:
        return any(one.dtype in (torch.bool, torch.uint8) for one in tensors[1:])
    return bool(tensors)


def _of_values(mode: FakeTensorMode, func: OpOverload, args: Any, kwargs: Any) -> Any:
    with no_dispatch():
        values, options = tree_map_only(FakeTensor, lambda one: one.real_tensor, (args, kwargs))
        found = func(*values, **options)

    def stand_in(value: Tensor) -> FakeTensor:
        one = mode.from_tensor(value, static_shapes=True)
        one.real_tensor = value
        return one

    return tree_map_only(Tensor, stand_in, found)


def _written_once(func: OpOverload, args: Sequence[Any], kwargs: Any) -> list[tuple[Tensor, Tensor]]:
    """What an operation writes in place, and the values that it holds then. An operation that the framework takes apart
    is carried out as a whole and once more in parts: what is added in place, is added twice.
    """
    fakes = [one for one in tree_iter((args, kwargs)) if isinstance(one, FakeTensor)]
    if not func._schema.is_mutable or any(one.real_tensor is None for one in fakes):
        return []
    values = {id(one): one.real_tensor for one in fakes}
    with no_dispatch():
        copies = {
            id(one): one.real_tensor.clone()  # type: ignore[union-attr]
            for one in _mutated(func, args, kwargs)
            if isinstance(one, FakeTensor)
        }
        given, options = tree_map_only(FakeTensor, lambda one: copies.get(id(one), one.real_tensor), (args, kwargs))
        func(*given, **options)
    return [(values[key], copy) for key, copy in copies.items()]  # type: ignore[misc]


def _mutated(func: OpOverload, args: Sequence[Any], kwargs: Any) -> Iterator[Any]:
    for place, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            yield args[place] if place < len(args) else kwargs.get(argument.name)


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def line_of_model(frames: Iterable[traceback.FrameSummary]) -> str:
    """``file:line: code`` of the innermost frame that is neither the framework's nor ours; nothing without one."""
    own = [one for one in frames if not one.filename.startswith(_FOREIGN)][-1:]
    return "".join(f"{frame.filename}:{frame.lineno}: {(frame.line or '').strip()}" for frame in own)


def _listed(told: Sequence[str]) -> str:
    more = f" and {len(told) - _MOST_TOLD} more" if len(told) > _MOST_TOLD else ""
    return f" (rows or numbers there, in order: {', '.join(told[:_MOST_TOLD])}{more})" if told else ""


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)
