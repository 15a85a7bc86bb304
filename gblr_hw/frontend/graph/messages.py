"""What the front end says about a node that it cannot lower: where it is, in the model's own source."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from torch.fx import Node

from simulator.base.errors import InputError

# Operations whose multiplications are the point of counting: nobody is offered to leave them out.
PRODUCTS = (
    "aten.mm", "aten.bmm", "aten.matmul", "aten.addmm", "aten.baddbmm", "aten.linear", "aten.conv1d", "aten.conv2d",
    "aten.conv3d", "aten.convolution", "aten.conv_transpose1d", "aten.conv_transpose2d", "aten.conv_transpose3d",
    "aten.scaled_dot_product_attention", "gblr_hw.layer",
)  # fmt: skip

# The call of a model that is captured stands in every trace, and is none of its lines.
_CAPTURE = str(Path(__file__).parents[1] / "capture.py")
_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in [^\n]*\n\s*(?P<code>[^\n]*)')


def source_of(node: Node) -> str:
    """``file:line: code`` of the innermost line of the model that made the node; the framework's own lines left out."""
    trace = node.meta.get("stack_trace") or ""
    frames = [frame for frame in _FRAME.finditer(trace) if frame["file"] != _CAPTURE]
    own = [frame for frame in frames if "/torch/nn/" not in frame["file"] and "/torch/_" not in frame["file"]]
    chosen = (own or frames)[-1:]
    return "".join(f"{frame['file']}:{frame['line']}: {frame['code'].strip()}" for frame in chosen)


def module_path(node: Node) -> str:
    """Path of the innermost module that the node belongs to."""
    stack = node.meta.get("nn_module_stack") or {}
    return next((str(path) for path, _ in reversed(list(stack.values()))), "") if stack else ""


def refusal(node: Node, rule: str, remedies: Iterable[str] = ()) -> InputError:
    """The error for a node, with both ways out."""
    target = str(node.target)
    product = target.rpartition(".")[0] in PRODUCTS
    choices = (
        f"Treat it as one pass of the vector unit, without its multiplications (--treat {node.name}=vector; "
        f"'{target}' names it too)" if product else
        f"Treat it as moving nothing or as one pass of the vector unit (--treat {node.name}=free or "
        f"--treat {node.name}=vector; its module's path or '{target}' name it too)"
    )  # fmt: skip
    ways = [*remedies, f'{choices}, or lower it yourself (plugins={{"{target}": function}}).']
    return InputError(f"node '{node.name}' ({target})", source_of(node) or "no source line", rule, " ".join(ways))
