"""Zeros around an image that only convolutions read become their own padding."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from torch.fx import Node

_PADS = ("aten.pad.default", "aten.constant_pad_nd.default")
_CONVOLUTION = "aten.conv2d.default"
_OWN_LAYER = "gblr_hw.layer.default"
_PADDING = 4  # place of a convolution's padding among its arguments


def fold_padding(nodes: Iterable[Node], treated: Collection[str], own: Collection[str] = ()) -> None:
    """Let convolutions read what the pads in front of them read. Their padding then has four numbers: above, on the
    left, below, on the right. treated: names of nodes and operations that are lowered in a way of their own. own: paths
    of layers kept whole that are convolutions.
    """
    for node in nodes:
        zeros = None if {node.name, str(node.target), _CONVOLUTION} & set(treated) else _zeros(node)
        if zeros is None or not node.users or not all(_takes(user, node, own) for user in node.users):
            continue
        around = (zeros[2], zeros[0], zeros[3], zeros[1])
        for user in list(node.users):
            user.args = _widened(user, node.args[0], around)


def _widened(user: Node, image: Any, around: tuple[int, int, int, int]) -> tuple[Any, ...]:
    """A convolution's arguments with more zeros around another image."""
    if str(user.target) == _OWN_LAYER:
        before = user.args[3] if len(user.args) > 3 else (0, 0, 0, 0)
        return (image, *user.args[1:3], _summed(before, around))
    own = list(user.args[_PADDING]) if len(user.args) > _PADDING else [0, 0]  # type: ignore[arg-type]
    own = own if len(own) == 4 else [own[0], own[-1]] * 2
    defaults = (None, [1, 1], [0, 0])
    args = [*user.args, *defaults[len(user.args) - 2 :]] if len(user.args) < _PADDING + 1 else list(user.args)
    return (image, *args[1:_PADDING], _summed(own, around), *args[_PADDING + 1 :])


def _summed(own: Any, more: Iterable[int]) -> list[int]:
    return [one + other for one, other in zip(own, more, strict=True)]


def _zeros(node: Node) -> tuple[int, int, int, int] | None:
    """Zeros on the left, on the right, above and below that a node puts around images; None if it does more."""
    if str(node.target) not in _PADS:
        return None
    names = [argument.name for argument in node.target._schema.arguments]  # type: ignore[union-attr]
    given = dict(zip(names, node.args, strict=False)) | node.kwargs
    sizes = given["pad"]
    plain = given.get("mode", "constant") == "constant" and not given.get("value")
    if not plain or not isinstance(sizes, (list, tuple)) or len(sizes) not in (2, 4):
        return None
    if not all(isinstance(size, int) and size >= 0 for size in sizes):
        return None
    left, right, above, below = (*sizes, 0, 0)[:4]
    return left, right, above, below


def _takes(user: Node, pad: Node, own: Collection[str]) -> bool:
    """Whether a node is a convolution of images that reads a pad as its image, and nowhere else."""
    is_own = str(user.target) == _OWN_LAYER and user.args[1] in own
    if not (is_own or str(user.target) == _CONVOLUTION) or user.kwargs or list(user.all_input_nodes).count(pad) != 1:
        return False
    image = user.args[0]
    return image is pad and len(pad.meta["val"].shape) == 4
