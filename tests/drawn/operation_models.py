"""Small models of one operation each: what looks through rows, resizes images, compares, and picks."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.drawn.relayout_models import Apply, linears, x


def of(function: Callable[..., Tensor | tuple[Tensor, ...]]) -> nn.Module:
    """The function behind a linear layer, so that its input is a result."""
    return Apply(lambda s, a: function(s.l(a)), **linears(l=(12, 12)))


def emptied(a: Tensor) -> tuple[Tensor, ...]:
    """Attention of rows that finite numbers mask whole, which weigh all places alike, also where another mask left
    minus infinity.
    """
    scores = a @ a.mT
    band = torch.ones(5, 5).triu(1).bool()
    constant, by_input = (torch.arange(5) > 2)[:, None].expand(5, 5), (a[:, :, :1] > 0).expand(-1, -1, 5)
    found = [scores.masked_fill(mask, number) for mask in (constant, by_input) for number in (-1e9, -2e4)]
    behind = scores.masked_fill(band, float("-inf"))
    least = torch.finfo(torch.float32).min
    found += [behind.masked_fill(constant, least), torch.where(by_input, least, behind)]
    return tuple(one.softmax(-1) for one in found)


def images(height: int = 6, width: int = 5) -> Tensor:
    return torch.randn(2, 4, height, width)


def after_convolution(module: nn.Module | Callable[[Tensor], Tensor]) -> nn.Module:
    return Apply(
        lambda s, a: module(s.c(a)), c=nn.Conv2d(4, 6, 1), **({"m": module} if isinstance(module, nn.Module) else {})
    )


def routed(s: Apply, a: Tensor) -> Tensor:
    """Two of three experts for each token, weighted; every expert runs on every token."""
    scores, chosen = s.gate(a).softmax(-1).topk(2, -1)
    weights = torch.zeros(2, 5, 3, dtype=a.dtype).scatter(-1, chosen, scores)
    return sum(weights[..., n : n + 1] * getattr(s, f"e{n}")(a) for n in range(3))


def scanned(s: Apply, a: Tensor) -> Tensor:
    """A state that each token decays and feeds."""
    state, found = torch.zeros(2, 12, dtype=a.dtype), []
    decay, fed = torch.sigmoid(s.d(a)), s.l(a)
    for token in range(a.shape[1]):
        state = decay[:, token] * state + fed[:, token]
        found.append(state)
    return torch.stack(found, 1)


def written(a: Tensor) -> Tensor:
    a = a.clone()
    a[:, 1:3] = a[:, 3:5] * 2
    a[:, :, 0] = 0.5
    return a


def masked(a: Tensor) -> Tensor:
    a = a.clone()
    a[a > 0.5] = 0.25
    return a


CASES: dict[str, Callable[[], tuple[nn.Module, tuple[Tensor, ...]]]] = {
    "topk": lambda: (of(lambda a: a.topk(3, -1)), (x(),)),
    "topk_of_tokens": lambda: (of(lambda a: a.topk(2, 1, largest=False)), (x(),)),
    "sort": lambda: (of(lambda a: a.sort(-1, descending=True)), (x(),)),
    "argsort": lambda: (of(lambda a: a.argsort(1)), (x(),)),
    "argmax": lambda: (of(lambda a: (a.argmax(-1), a.argmin(1, keepdim=True), a[0].argmax())), (x(),)),
    "max_and_min": lambda: (of(lambda a: (*a.max(-1), *a.min(1), a.max(), a.amin(0))), (x(),)),
    "gather": lambda: (of(lambda a: a.gather(-1, a.argsort(-1)[..., :4])), (x(),)),
    "gather_tokens": lambda: (of(lambda a: a.gather(1, a.argsort(1)[:, :2])), (x(),)),
    "gather_at_constants": lambda: (of(lambda a: a.gather(-1, (torch.arange(70) * 5 % 12).view(2, 5, 7))), (x(),)),
    "gather_from_constants": lambda: (
        Apply(lambda s, a: s.t.expand(2, 5, 12).gather(-1, s.l(a).argsort(-1)), t=nn.Parameter(torch.randn(12)),
              **linears(l=(12, 12))), (x(),)),
    "scatter": lambda: (of(lambda a: a.scatter(-1, a.topk(2, -1)[1], 7.0)), (x(),)),
    "scatter_values": lambda: (of(lambda a: a.scatter(1, a.topk(2, 1)[1], a[:, :2] * 3)), (x(),)),
    "scatter_add": lambda: (of(lambda a: a.scatter_add(-1, (a > 0).long(), a)), (x(),)),
    "running_sums": lambda: (of(lambda a: (a.cumsum(1), a.cumsum(-1), a.cumprod(0))), (x(),)),
    "rows_at_computed_places": lambda: (of(lambda a: a[torch.arange(2), a[..., 0].argmax(-1)]), (x(),)),
    "rows_of_a_constant": lambda: (
        Apply(lambda s, a: s.t[s.l(a).argmax(-1)], t=nn.Parameter(torch.randn(12, 2, 3)), **linears(l=(12, 12))), (x(),)),
    "written_in_place": lambda: (of(written), (x(),)),
    "rows_that_masks_empty": lambda: (of(emptied), (x(),)),
    "written_where_true": lambda: (of(masked), (x(),)),
    "index_copy": lambda: (of(lambda a: a.index_copy(1, torch.tensor([3, 0]), a[:, :2] + 1)), (x(),)),
    "experts": lambda: (Apply(routed, **linears(gate=(12, 3), e0=(12, 4), e1=(12, 4), e2=(12, 4))), (x(),)),
    "scan": lambda: (Apply(scanned, **linears(d=(12, 12), l=(12, 12))), (x(),)),
    "comparisons": lambda: (
        of(lambda a: (a > 0, a <= 0.5, a == a.abs(), a != 0, a < a.flip(-1), a <= 0.1, a.isnan(), a.isinf())), (x(),)),
    "choices": lambda: (
        of(lambda a: (torch.where(a > 0, a, a * 3), torch.where(a > 0, 1.0, a), a.masked_fill(a > 0, 0.5),
                      torch.where(a > 0, a, float("-inf")).softmax(-1), (a > 0).any(-1), (a > -9).all(1))), (x(),)),
    "rounded": lambda: (of(lambda a: (a.to(torch.int32), a.floor(), a.ceil(), a.round(), a.trunc(), a.sign())), (x(),)),
    "remainders": lambda: (of(lambda a: (a % 0.7, a.remainder(a.abs() + 1), a // 0.3, a.int() % 3)), (x(),)),
    "powers": lambda: (of(lambda a: (2.0 ** a, torch.exp2(a), a.abs().log2(), torch.logaddexp(a, a * 2))), (x(),)),
    "elu_and_prelu": lambda: (
        Apply(lambda s, a: (functional.elu(s.l(a)), functional.selu(s.l(a)), functional.celu(s.l(a), 0.7), s.p(s.l(a)),
                            s.q(s.l(a).transpose(1, 2))),
              p=nn.PReLU(), q=nn.PReLU(12), **linears(l=(12, 12))), (x(),)),
    "log_sigmoid_and_others": lambda: (
        of(lambda a: (functional.logsigmoid(a), a.expm1(), a.abs().log1p(), a.tan(), a.atan(), functional.mish(a))), (x(),)),
    "norms": lambda: (
        of(lambda a: (functional.normalize(a, dim=-1), a.norm(dim=1), a.norm(p=1, dim=-1, keepdim=True),
                      a.norm(p=float("inf"), dim=-1), a.norm(p=3, dim=-1))), (x(),)),
    "variances": lambda: (of(lambda a: (a.var(-1), a.std(1, keepdim=True), a.var((1, 2), correction=0), a.prod(-1))), (x(),)),
    "clamped_by_values": lambda: (of(lambda a: a.clamp(min=a.flip(-1) - 1, max=a.abs())), (x(),)),
    "heads_with_matrices_of_their_own": lambda: (
        Apply(lambda s, a: s.l(a).unflatten(-1, (3, 4)).transpose(1, 2) @ s.w, w=nn.Parameter(torch.randn(3, 4, 6)),
              **linears(l=(12, 12))), (x(),)),
    "sequences_with_matrices_of_their_own": lambda: (Apply(lambda s, a: a @ s.w, w=nn.Parameter(torch.randn(2, 12, 3))), (x(),)),
    "heads_with_scales_of_their_own": lambda: (
        Apply(lambda s, a: s.l(a).unflatten(-1, (3, 4)).transpose(1, 2) * s.w, w=nn.Parameter(torch.randn(3, 1, 1)),
              **linears(l=(12, 12))), (x(),)),
    "constant_queries": lambda: (
        Apply(lambda s, a: functional.scaled_dot_product_attention(s.q.expand(2, -1, -1), s.l(a), a),
              q=nn.Parameter(torch.randn(1, 3, 12)), **linears(l=(12, 12))), (x(),)),
    "product_with_a_vector": lambda: (
        Apply(lambda s, a: (s.l(a) @ s.v, s.v @ s.l(a).transpose(1, 2), s.l(a) @ a[0, 0]), v=nn.Parameter(torch.randn(12)),
              **linears(l=(12, 12))), (x(),)),
    "group_norm": lambda: (after_convolution(nn.GroupNorm(3, 6)), (images(),)),
    "group_norm_of_lines": lambda: (
        Apply(lambda s, a: s.n(s.l(a).transpose(1, 2)), n=nn.GroupNorm(4, 12), **linears(l=(12, 12))), (x(),)),
    "instance_norm": lambda: (after_convolution(nn.InstanceNorm2d(6, affine=True)), (images(),)),
    "nearest": lambda: (after_convolution(nn.Upsample(scale_factor=2)), (images(),)),
    "nearest_to_a_size": lambda: (after_convolution(nn.Upsample(size=(7, 9))), (images(),)),
    "bilinear": lambda: (after_convolution(nn.Upsample(scale_factor=2, mode="bilinear")), (images(),)),
    "bilinear_to_the_corners": lambda: (
        after_convolution(nn.Upsample(size=(9, 7), mode="bilinear", align_corners=True)), (images(),)),
    "bicubic": lambda: (after_convolution(nn.Upsample(size=(9, 7), mode="bicubic")), (images(),)),
    "ceil_mode": lambda: (after_convolution(nn.MaxPool2d(3, 2, ceil_mode=True)), (images(),)),
    "ceil_mode_of_padded_means": lambda: (after_convolution(nn.AvgPool2d(3, 2, 1, ceil_mode=True)), (images(),)),
    "means_without_the_padding": lambda: (
        after_convolution(nn.AvgPool2d(2, 2, 1, ceil_mode=True, count_include_pad=False)), (images(),)),
    "uneven_windows": lambda: (after_convolution(nn.AdaptiveAvgPool2d((4, 3))), (images(),)),
    "pools_of_lines": lambda: (
        Apply(lambda s, a: (functional.max_pool1d(s.l(a).transpose(1, 2), 2), functional.avg_pool1d(s.l(a), 3),
                            functional.adaptive_avg_pool1d(s.l(a), 5)), **linears(l=(12, 12))), (x(),)),
    "even_kernel_to_the_same_size": lambda: (nn.Conv2d(4, 3, (2, 4), padding="same"), (images(),)),
    "transposed_convolution": lambda: (nn.ConvTranspose2d(4, 3, 2, 2), (images(),)),
    "transposed_convolution_that_overlaps": lambda: (nn.ConvTranspose2d(4, 3, 3, 2, 1, 1), (images(),)),
    "transposed_convolution_by_groups": lambda: (nn.ConvTranspose2d(4, 6, (4, 3), (2, 1), 1, groups=2), (images(),)),
    "transposed_convolution_of_lines": lambda: (nn.ConvTranspose1d(12, 5, 4, 3, 1), (x().transpose(1, 2),)),
    "volume": lambda: (nn.Conv3d(3, 4, (2, 3, 3), (1, 2, 2), (1, 1, 1)), (torch.randn(2, 3, 4, 6, 5),)),
    "tubelets": lambda: (nn.Conv3d(3, 4, (2, 3, 3), (2, 3, 3)), (torch.randn(1, 3, 4, 6, 6),)),
    "embedding_bags": lambda: (
        Apply(lambda s, ids: s.b(ids), b=nn.EmbeddingBag(9, 4, mode="sum")), (torch.randint(0, 9, (3, 4)),)),
    "uneven_embedding_bags": lambda: (
        Apply(lambda s, ids: s.b(ids, torch.tensor([0, 2, 5])), b=nn.EmbeddingBag(9, 4, mode="mean")), (torch.randint(0, 9, (7,)),)),
    "filled_like": lambda: (of(lambda a: a + torch.full_like(a, 2.0) + torch.zeros_like(a)), (x(),)),
}  # fmt: skip
