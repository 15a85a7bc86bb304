"""A model run many times on the same batches, its first blocks once only: what they returned stands in for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from gblr_hw.layers.matrix_layers import input_of, input_rows
from gblr_hw.layers.model_calls import Batch, run_batch

Hook = Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]


class _ReachedError(Exception):
    """All that is wanted of a run has been seen."""


class Runs:
    """A model in evaluation mode, its batches, and how many of its blocks need not run any more.

    blocks: paths of modules that run one after another, each once, of which everything later sees only what the last
    one of its list returned (`chain_of` finds them); with none every run begins at the model's inputs.
    """

    def __init__(self, model: nn.Module, batches: Sequence[Batch], blocks: Sequence[str] = ()) -> None:
        self.model, self.batches, self.blocks = model, batches, tuple(blocks)
        self.done = 0
        self._outputs: dict[str, list[Any]] = {}  # of each list's last block that stands, by batch

    def skip(self, count: int) -> None:
        """Let the first ``count`` blocks stand as they are now: they run once more, those that do not stand yet."""
        if count <= self.done:
            return
        last = {_list_of(path): path for path in self.blocks[self.done : count]}
        found = [self._returned(index, last) for index in range(len(self.batches))]
        self._outputs |= {key: [one[key] for one in found] for key in last}
        self.done = count

    def inputs(self, index: int, points: Mapping[str, str]) -> dict[str, Tensor]:
        """What the modules at ``points`` (key -> path) are called with on a batch, by key, on the CPU in float32; of a
        convolution what its windows read.

        The run ends when all have been called.
        """
        found: dict[str, Tensor] = {}

        def keep(key: str) -> Hook:
            def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
                given = input_of(points[key], args, kwargs).detach()
                found[key] = input_rows(points[key], module, given).float().cpu()
                if len(found) == len(points):
                    raise _ReachedError

            return hook

        modules = {key: self.model.get_submodule(path) for key, path in points.items()}
        hooks = [one.register_forward_pre_hook(keep(key), with_kwargs=True) for key, one in modules.items()]
        self._run(index, hooks)
        return found

    def _returned(self, index: int, blocks: Mapping[str, str]) -> dict[str, Any]:
        """What the blocks (key -> path) return on a batch, by key."""
        found: dict[str, Any] = {}

        def keep(key: str) -> Callable[[nn.Module, Any, Any], None]:
            def hook(_module: nn.Module, _args: Any, output: Any) -> None:
                found[key] = output
                if len(found) == len(blocks):
                    raise _ReachedError

            return hook

        modules = {key: self.model.get_submodule(path) for key, path in blocks.items()}
        self._run(index, [one.register_forward_hook(keep(key)) for key, one in modules.items()])
        return found

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
        skipped = [(self.model.get_submodule(path), _list_of(path)) for path in self.blocks[: self.done]]
        try:
            for module, key in skipped:
                module.forward = lambda *_args, value=self._outputs[key][index], **_kwargs: value
            yield
        finally:
            for module, _ in skipped:
                del module.forward


def chain_of(model: nn.Module, batch: Batch, stages: Sequence[Sequence[str]]) -> list[str]:
    """The blocks that hold the stages' layers, of as many lists of modules as there are (an encoder's and a decoder's,
    say), if what the last one of its list returned is all that is needed to run on as it did; else none. Each is tried
    on one batch, with the others left out.

    stages: layers by name, in the order in which they run.
    """
    found: list[str] = []
    for blocks in _candidates(model, stages):
        apart = not any(_within(one, other) or _within(other, one) for one in blocks for other in found)
        tried = _as_run([*found, *blocks], stages)
        if apart and tried and _is_chain(model, batch, stages, tried):
            found = tried
    return found


def standing(blocks: Sequence[str], stages: Sequence[Sequence[str]]) -> list[int]:
    """Of each stage, how many blocks stand when it is its turn: all of whose layers came before it."""
    held = [block_index(blocks, stage[0]) for stage in stages]
    found = []
    for place, index in enumerate(held):
        before = max((one + 1 for one in held[:place] if one is not None), default=0)
        ahead = next((one for one in held[place:] if one is not None), len(blocks))
        found.append(min(before, ahead) if index is None else index)
    return found


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


def _as_run(blocks: Sequence[str], stages: Sequence[Sequence[str]]) -> list[str]:
    """Blocks of several lists in the order in which these run; nothing where they take turns."""
    lists = {_list_of(path): [one for one in blocks if _list_of(one) == _list_of(path)] for path in blocks}
    turns = [key for stage in stages for key, own in lists.items() if block_index(own, stage[0]) is not None]
    order = list(dict.fromkeys(turns))
    return [path for key in order for path in lists[key]] if turns == sorted(turns, key=order.index) else []


def _is_chain(model: nn.Module, batch: Batch, stages: Sequence[Sequence[str]], blocks: Sequence[str]) -> bool:
    """Whether all stages are called with the same where the blocks before them are left out."""
    wanted, parts = Runs(model, [batch]).inputs(0, {one[0]: one[0] for one in stages}), Runs(model, [batch], blocks)
    for count, turns in groupby(zip(standing(blocks, stages), stages, strict=True), lambda one: one[0]):
        held = {stage[0]: stage[0] for _, stage in turns}
        parts.skip(count)
        given = parts.inputs(0, held)
        if given.keys() != held.keys() or not all(torch.equal(wanted[name], given[name]) for name in held):
            return False
    return True


def _list_of(path: str) -> str:
    """The path of the list that holds a block."""
    return path.rpartition(".")[0]


def _within(path: str, other: str) -> bool:
    return path == other or path.startswith(f"{other}.")
