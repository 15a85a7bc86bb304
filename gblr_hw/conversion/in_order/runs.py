"""A model run many times on the same batches, its first blocks once only: what they returned stands in for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from gblr_hw.layers.model_calls import Batch, input_of, run_batch

Hook = Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]


class _ReachedError(Exception):
    """All that is wanted of a run has been seen."""


class Runs:
    """A model in evaluation mode, its batches, and how many of its blocks need not run any more.

    blocks: paths of modules that run one after another, each once, of which everything later sees only what the last
    one returned (`chain_of` finds them); with none every run begins at the model's inputs.
    """

    def __init__(self, model: nn.Module, batches: Sequence[Batch], blocks: Sequence[str] = ()) -> None:
        self.model, self.batches, self.blocks = model, batches, tuple(blocks)
        self.done = 0
        self._outputs: list[Any] = []

    def skip(self, count: int) -> None:
        """Let the first ``count`` blocks stand as they are now: they run once more, those that do not stand yet."""
        if count <= self.done:
            return
        last = self.model.get_submodule(self.blocks[count - 1])
        self._outputs = [self._output(index, last) for index in range(len(self.batches))]
        self.done = count

    def inputs(self, index: int, points: Mapping[str, str]) -> dict[str, Tensor]:
        """What the modules at ``points`` (key -> path) are called with on a batch, by key, on the CPU in float32.

        The run ends when all have been called.
        """
        found: dict[str, Tensor] = {}

        def keep(key: str) -> Hook:
            def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
                found[key] = input_of(points[key], args, kwargs).detach().float().cpu()
                if len(found) == len(points):
                    raise _ReachedError

            return hook

        modules = {key: self.model.get_submodule(path) for key, path in points.items()}
        hooks = [one.register_forward_pre_hook(keep(key), with_kwargs=True) for key, one in modules.items()]
        self._run(index, hooks)
        return found

    def _output(self, index: int, block: nn.Module) -> Any:
        found: list[Any] = []

        def hook(_module: nn.Module, _args: Any, output: Any) -> None:
            found.append(output)
            raise _ReachedError

        self._run(index, [block.register_forward_hook(hook)])
        return found[0]

    def _run(self, index: int, hooks: Sequence[torch.utils.hooks.RemovableHandle]) -> None:
        training = self.model.training
        self.model.eval()
        try:
            with self._skipping(index):
                run_batch(self.model, self.batches[index])
        except _ReachedError:
            pass
        finally:
            self.model.train(training)
            for hook in hooks:
                hook.remove()

    @contextmanager
    def _skipping(self, index: int) -> Iterator[None]:
        skipped = [self.model.get_submodule(path) for path in self.blocks[: self.done]]
        value = self._outputs[index] if skipped else None
        try:
            for module in skipped:
                module.forward = lambda *_args, **_kwargs: value
            yield
        finally:
            for module in skipped:
                del module.forward


def chain_of(model: nn.Module, batch: Batch, stages: Sequence[Sequence[str]]) -> list[str]:
    """The blocks that hold the stages' layers, if what the one before returned is all that a block needs to run as it
    did; else none. Each is tried on one batch, with the others left out.

    stages: layers by name, in the order in which they run.
    """
    firsts = {stage[0]: stage[0] for stage in stages}
    for blocks in _candidates(model, stages):
        wanted, parts = Runs(model, [batch]).inputs(0, firsts), Runs(model, [batch], blocks)
        for count in range(len(blocks)):
            held = {name: name for name in firsts if block_index(blocks, name) == count}
            parts.skip(count)
            given = parts.inputs(0, held) if held else {}
            if given.keys() != held.keys() or not all(torch.equal(wanted[name], given[name]) for name in held):
                break
        else:
            return blocks
    return []


def block_index(blocks: Sequence[str], name: str) -> int | None:
    """The place of the block that holds a layer."""
    return next((index for index, path in enumerate(blocks) if name.startswith(f"{path}.")), None)


def _candidates(model: nn.Module, stages: Sequence[Sequence[str]]) -> Iterator[list[str]]:
    """Lists of modules of which two or more hold layers, those of the stages one after another, and no stage two."""
    for path, module in model.named_modules():
        if not isinstance(module, (nn.ModuleList, nn.Sequential)):
            continue
        children = [f"{path}.{name}" if path else name for name, _ in module.named_children()]
        order = [{block_index(children, name) for name in stage} for stage in stages]
        if any(len(held) > 1 for held in order):
            continue
        ran = [index for held in order for index in held if index is not None]
        if len(set(ran)) > 1 and ran == sorted(ran):
            yield children
