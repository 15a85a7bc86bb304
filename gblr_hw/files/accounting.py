"""What became of every tensor of a state dict: part of a layer, or left out for a reason that is told.

A tensor with less than two dimensions larger than 1 (a norm's scale, a statistic) and one that is added or looked up,
not multiplied, is no layer. Whether a matrix is a look-up table is not in the file. A layer that has a bias is none.
Else the answer is the user's, or what the name says, or the configuration's beside the file; and where none of these
says anything and the shape is that of a vocabulary, it is asked for, never guessed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from torch import Tensor

from simulator.base.errors import InputError

# Components of names under which frameworks keep what is looked up by an index: token, position and type embeddings,
# relative position biases, and the table that T5's encoder and decoder share.
_TABLE = re.compile(r"emb|^(wte|wpe|shared|lookup)$|(bias_table|attention_bias|tokens?_type|codebook)", re.IGNORECASE)
_ADDED = re.compile(r"emb|pos|cls|token|regist|prompt|mask|query|latent|bias_table", re.IGNORECASE)
# A head over a vocabulary has the shape of a table.
_HEAD = re.compile(r"head|classifier|decoder|output|logits|proj|fc|dense|linear|mlp|lin|out$|^w\d?$", re.IGNORECASE)
# Sizes in a configuration whose tables are looked up.
_TABLE_SIZES = ("vocab_size", "max_position_embeddings", "n_positions", "type_vocab_size", "num_embeddings")
_VOCABULARY, _TALL = 1000, 8  # a matrix of so many rows, this many times as tall as wide, could be a table


@dataclass(frozen=True)
class Told:
    """What the user says of a file's tensors, by shell patterns on their names.

    tables: look-up tables. layers: matrices that are layers, whatever they are called. leave_out: what may stay out.
    transposed: dense layers that are stored inputs first.
    """

    tables: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()
    leave_out: tuple[str, ...] = ()
    transposed: tuple[str, ...] = ()

    @staticmethod
    def of(
        tables: Iterable[str] = (),
        layers: Iterable[str] = (),
        leave_out: Iterable[str] = (),
        transposed: Iterable[str] = (),
    ) -> Told:
        return Told(tuple(tables), tuple(layers), tuple(leave_out), tuple(transposed))


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether a tensor's name, or that of the layer it belongs to, fits one of the shell patterns."""
    return any(fnmatchcase(name, one) or fnmatchcase(name.rpartition(".")[0], one) for one in patterns)


@dataclass
class Account:
    """Tensors that are in no layer, by the reason: ``tables`` are looked up, ``added`` are added or scale channels,
    ``left_out`` the user lets go, ``unknown`` nothing accounts for. ``weights``: elements of all floating-point
    tensors of the file. ``read``: sentences on how tensors were read.
    """

    tables: dict[str, int] = field(default_factory=dict)
    added: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)
    unknown: dict[str, str] = field(default_factory=dict)
    weights: int = 0
    unknown_weights: int = 0
    read: tuple[str, ...] = ()

    def notes(self) -> list[str]:
        """How tensors were read, and a sentence for each reason that left matrices out."""
        found = list(self.read)
        for names, what in ((self.tables, "looked up, not multiplied"), (self.left_out, "as asked for")):
            if names:
                share = 100 * sum(names.values()) / max(1, self.weights)
                found.append(f"left out, {what}: {listed(list(names))} ({share:.1f} % of the file's weights)")
        return found

    def require_whole(self) -> None:
        """Raise InputError if some tensor is in no layer and nothing says why."""
        if not self.unknown:
            return
        share = 100 * self.unknown_weights / max(1, self.weights)
        shapes = [f"{name} {shape}" for name, shape in self.unknown.items()]
        raise InputError(
            "checkpoint",
            f"{len(shapes)} tensors that no layer accounts for, {share:.1f} % of the weights: {listed(shapes)}",
            "every tensor of a checkpoint is part of a layer that we read, or left out knowingly",
            "Give the model's code (--model FILE.py:FUNCTION), or leave them out by name: --leave-out PATTERN "
            "(leave_out=[...]).",
        )


def listed(names: list[str], most: int = 4) -> str:
    """The first names, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def config_sizes(path: Path) -> frozenset[int]:
    """Rows of look-up tables that the ``config.json`` beside a checkpoint declares; empty without one."""
    file = path.parent / "config.json"
    if not file.is_file() or file.stat().st_size > 1 << 20:
        return frozenset()
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError):
        return frozenset()
    if not isinstance(content, dict):
        return frozenset()
    return frozenset(v for k in _TABLE_SIZES if isinstance(v := content.get(k), int) and not isinstance(v, bool))


def is_table(layer: str, weight: Tensor, has_bias: bool, told: Told, sizes: frozenset[int]) -> bool:
    """Whether the matrix of a layer is looked up and not multiplied. Raises InputError where that must be asked."""
    if matches(layer, told.tables) or matches(f"{layer}.weight", told.tables):
        return True
    if has_bias or matches(layer, told.layers) or matches(f"{layer}.weight", told.layers):
        return False
    last = layer.rpartition(".")[2]
    if _TABLE.search(last):
        return True
    if _HEAD.search(last):
        return False
    rows, width = weight.shape
    if rows in sizes and rows > width:
        return True
    if rows >= _VOCABULARY and rows >= _TALL * width:
        raise InputError(
            f"layer '{layer}'",
            f"a {rows} x {width} matrix without a bias",
            "it could be a look-up table as well as a layer, and the file does not say",
            f"Say which: --table {layer} (tables=[...]) or --layer {layer} (layers=[...]).",
        )
    return False


def account_for(state: Mapping[str, Tensor], used: set[str], tables: Iterable[str], told: Told) -> Account:
    """Where every tensor went. used: names that are part of layers. tables: names that are look-up tables."""
    account, looked_up = Account(), set(tables)
    for name, tensor in state.items():
        count = tensor.numel() if tensor.is_floating_point() else 0
        account.weights += count
        if name in used:
            continue
        if name in looked_up:
            account.tables[name] = count
        elif matches(name, told.leave_out):
            account.left_out[name] = count
        elif not count or sum(side > 1 for side in tensor.shape) < 2 or _is_added(name, tensor):
            account.added[name] = count
        else:
            account.unknown[name] = f"{tuple(tensor.shape)}"
            account.unknown_weights += count
    return account


def _is_added(name: str, tensor: Tensor) -> bool:
    """A parameter of its own, broadcast over sequences, whose name says that it is added: positions, class tokens."""
    last = name.rpartition(".")[2]
    if last in ("weight", "bias") or not _ADDED.search(last):
        return False
    return tensor.shape[0] == 1 or tensor.dim() == 2
