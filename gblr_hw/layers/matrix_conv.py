"""A convolution as a matrix product over windows, and as a module whose matrix is any structured layer's."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from gblr_hw.weights.stored import LayerWeights
from simulator.base.errors import InputError

Pair = tuple[int, int]


@dataclass(frozen=True)
class Geometry:
    """How a convolution reads an image (H, W): zeros before its first row and column and behind its last, and the steps
    of its kernel.
    """

    kernel: Pair
    stride: Pair
    dilation: Pair
    before: Pair
    behind: Pair


class MatrixConv2d(nn.Module):
    """A convolution whose kernel is the matrix (oc, k1 k2 ic) of a structured linear layer: inputs (B, ic, H, W) ->
    (B, oc, H', W').

    inner: the layer, its inputs in (k1, k2, ic) order. shell: the convolution whose place this one takes, which says
    how images are read; of its class, since code of a model's own may pad them in a way of its own. It is called with
    the inner layer's kernel and bias.

    State dict: the inner layer's, under "inner.".
    """

    def __init__(self, inner: nn.Module, shell: nn.Conv2d) -> None:
        super().__init__()
        self.inner = inner
        # In a tuple, which registers no parameters: only the way in which it reads is needed.
        self._shell = (_emptied(shell),)
        self.sizes = shell.weight.shape
        self.in_channels, self.out_channels = shell.in_channels, shell.out_channels

    @property
    def shell(self) -> nn.Conv2d:
        """The convolution that says how images are read; its own weights are zero."""
        return self._shell[0]

    @property
    def weight(self) -> Tensor:
        """The kernel (oc, ic, k1, k2), under nn.Conv2d's name."""
        inner: Any = self.inner
        return kernel_of(inner.matrix(), self.sizes)

    @property
    def bias(self) -> Tensor | None:
        """(oc,), the inner layer's."""
        bias = self.inner.bias
        return bias if isinstance(bias, Tensor) else None

    def forward(self, inputs: Tensor) -> Tensor:
        kernel, bias = self.weight, self.bias
        own = {"weight": kernel, "bias": kernel.new_zeros(self.out_channels) if bias is None else bias}
        result: Tensor = functional_call(self.shell, own, (inputs,))
        return result

    def output_sizes(self, inputs: Sequence[int]) -> list[int]:
        """Of images of sizes (B, ic, H, W) the sizes of what comes out; nothing is computed."""
        own = {
            "weight": torch.empty(self.sizes, device="meta"),
            "bias": torch.empty(self.out_channels, device="meta"),
        }
        found: Tensor = functional_call(self.shell, own, (torch.empty(*inputs, device="meta"),))
        return list(found.shape)

    def weights(self) -> LayerWeights:
        """A copy of the inner layer's."""
        inner: Any = self.inner
        found: LayerWeights = inner.weights()
        return found


def _emptied(shell: nn.Conv2d) -> nn.Conv2d:
    """A copy that holds no weights: a zero stands for all of them."""
    weight, bias = shell.weight, shell.bias
    try:
        shell.weight = shell.bias = None  # type: ignore[assignment]
        emptied = copy.deepcopy(shell)
    finally:
        shell.weight, shell.bias = weight, bias
    zero = torch.zeros(1, dtype=weight.dtype)
    emptied.weight = nn.Parameter(zero.expand(weight.shape), requires_grad=False)
    emptied.bias = nn.Parameter(zero.expand(len(weight)), requires_grad=False)
    return emptied


def is_matrix_conv(module: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Whether a module is an nn.Conv2d, or of a class made of it, with one group and zeros around its images."""
    return isinstance(module, nn.Conv2d) and module.groups == 1 and module.padding_mode == "zeros"


def kernel_of(matrix: Tensor, sizes: Sequence[int]) -> Tensor:
    """A matrix (oc, k1 k2 ic) as a kernel of sizes (oc, ic, k1, k2)."""
    outputs, channels, rows, cols = sizes
    return matrix.reshape(outputs, rows, cols, channels).permute(0, 3, 1, 2)


def geometry(name: str, module: nn.Conv2d, height: int, width: int) -> Geometry:
    """How a convolution reads images of a size.

    A class made of nn.Conv2d is called once with ones, to see what its code does before it multiplies. Raises
    InputError for code that does not put zeros around the image and multiply it once by the module's weight.
    """
    if type(module) is nn.Conv2d:
        return _seen(module, (0, 0), (0, 0), module.stride, module.padding, module.dilation)
    parameter = module.weight
    image = torch.ones(1, module.in_channels, height, width, dtype=parameter.dtype, device=parameter.device)
    with torch.no_grad(), _Calls() as calls:
        type(module).forward(module, image)  # not the module itself: a hook of it may be what asks
    if len(calls.found) == 1:
        given, weight, _, stride, padding, dilation, groups = calls.found[0]
        zeros = _zeros_around(given, height, width)
        if weight is parameter and groups == 1 and zeros is not None:
            return _seen(module, *zeros, stride, padding, dilation)
    raise InputError(
        f"layer '{name}'", type(module).__name__, "code of its own puts zeros around the image and multiplies it once "
        "by the module's weight", "Leave the layer out.",
    )  # fmt: skip


def windows(name: str, module: nn.Conv2d, images: Tensor) -> Tensor:
    """What a convolution's windows read of images (B, ic, H, W), or of one (ic, H, W): (B, H', W', k1 k2 ic), each row
    in (k1, k2, ic) order.
    """
    if images.dim() == 3:
        return windows(name, module, images[None])[0]
    read = geometry(name, module, *images.shape[-2:])
    (top, left), (bottom, right) = read.before, read.behind
    padded = functional.pad(images, (left, right, top, bottom))
    spans = [d * (k - 1) + 1 for k, d in zip(read.kernel, read.dilation, strict=True)]
    found = padded.unfold(2, spans[0], read.stride[0]).unfold(3, spans[1], read.stride[1])
    found = found[..., :: read.dilation[0], :: read.dilation[1]]  # (B, ic, H', W', k1, k2)
    return found.permute(0, 2, 3, 4, 5, 1).flatten(3)


def windows_key(module: nn.Conv2d) -> Any:
    """What two convolutions have alike that read the same windows of an image."""
    sizes = (module.kernel_size, module.stride, module.padding, module.dilation)
    return (type(module), *map(str, sizes))


def _seen(module: nn.Conv2d, before: Pair, behind: Pair, stride: Any, padding: Any, dilation: Any) -> Geometry:
    """With the padding of the call on top of zeros that were there before it."""
    kernel = _pair(module.kernel_size)
    stride, dilation = _pair(stride), _pair(dilation)
    total = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)] if padding == "same" else [0, 0]
    own = (total[0] // 2, total[1] // 2) if isinstance(padding, str) else _pair(padding)
    rest = (total[0] - own[0], total[1] - own[1]) if isinstance(padding, str) else own
    return Geometry(
        kernel, stride, dilation, (before[0] + own[0], before[1] + own[1]), (behind[0] + rest[0], behind[1] + rest[1])
    )


def _pair(value: Any) -> Pair:
    found = (value, value) if isinstance(value, int) else tuple(value)
    return (int(found[0]), int(found[-1]))


def _zeros_around(given: Tensor, height: int, width: int) -> tuple[Pair, Pair] | None:
    """Zeros before and behind an image of ones (H, W) in what was made of it; None if anything else was."""
    ones = given.nonzero()
    if given.dim() != 4 or not len(ones):
        return None
    top, left = (int(place) for place in ones.min(0).values[-2:])
    bottom, right = given.shape[-2] - height - top, given.shape[-1] - width - left
    if min(bottom, right) < 0:
        return None
    whole = functional.pad(torch.ones_like(given[..., :height, :width]), (left, right, top, bottom))
    return ((top, left), (bottom, right)) if torch.equal(whole, given) else None


class _Calls(TorchFunctionMode):
    """Keeps what convolutions are called with while it is in force."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[Any, ...]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.conv2d:
            self.found.append(_arguments(*args, **(kwargs or {})))
        return func(*args, **(kwargs or {}))


def _arguments(
    input: Tensor,
    weight: Tensor,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> tuple[Any, ...]:
    return input, weight, bias, stride, padding, dilation, groups
