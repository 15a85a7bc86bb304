"""Small models of one operation each: functions that are runs of others, volumes, spectra, bags, writing at places."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.drawn.operation_models import after_convolution, images, of
from tests.drawn.relayout_models import Apply, heads, linears, x

Made = tuple[nn.Module, tuple[Tensor, ...]]


def positive(function: Callable[[Tensor], Tensor], low: float = 0.1, high: float = 0.9) -> Callable[[], Made]:
    """An elementwise function of values in a range."""
    return lambda: (Apply(lambda s, a: function(a * 1)), (torch.rand(2, 5, 12) * (high - low) + low,))


def volumes() -> Tensor:
    return torch.randn(2, 4, 5, 6, 7)


def written(function: Callable[..., Tensor], *inputs: Tensor) -> Callable[[], Made]:
    return lambda: (Apply(lambda s, *a: function(a[0] * 2, *a[1:])), (torch.randn(3, 6, 4), *inputs))


def put(a: Tensor, places: tuple[Tensor | slice, ...], source: Tensor | float) -> Tensor:
    a = a.clone()
    a[places] = source
    return a


def joined(a: Tensor) -> Tensor:
    """Attention of values to themselves, its heads innermost in each row."""
    return (a @ a.transpose(-1, -2) @ a).permute(0, 2, 3, 1).flatten(2)


def masked(places: Callable[[Tensor], tuple[Tensor | slice, ...]]) -> Callable[[Tensor], Tensor]:
    return lambda a: put(a, places(a), 7.0)


def rotated(a: Tensor) -> Tensor:
    pairs = torch.view_as_complex(a.reshape(*a.shape[:-1], -1, 2))
    turns = torch.polar(torch.ones(5, 6, dtype=a.dtype), torch.arange(30, dtype=a.dtype).reshape(5, 6))
    return torch.view_as_real(pairs * turns).flatten(-2)


def filtered(s: Apply, a: Tensor) -> Tensor:
    spectrum = torch.fft.rfft2(s.l(a), dim=(1, 2), norm="ortho")
    weight = torch.view_as_complex(s.w.to(a.dtype))
    return torch.fft.irfft2(spectrum * weight, s=(5, 12), dim=(1, 2), norm="ortho")


def written_spectrum(a: Tensor) -> tuple[Tensor, ...]:
    """Parts of spectra in place of others: of zeros, of a constant, and of a real value."""
    spectrum = torch.fft.rfft(a)
    kept = torch.zeros_like(spectrum)
    kept[..., :3] = spectrum[..., :3]
    kept[:, 1] = 2 - 1j
    beside = torch.full((2, 5, 9), 1 + 2j, dtype=spectrum.dtype)
    beside[..., 1:8] = a[..., :7]
    either = torch.where(spectrum.abs() > 2, spectrum, spectrum * 0.5)
    return torch.fft.irfft(kept, n=12), torch.view_as_real(beside), torch.view_as_real(either)


class Complexes(nn.Module):
    """A linear layer of complex weights."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(3, 7, 2)), nn.Parameter(torch.randn(3, 2))

    def forward(self, a: Tensor) -> Tensor:
        weight, bias = (torch.view_as_complex(one) for one in (self.weight, self.bias))
        return torch.view_as_real(functional.linear(torch.fft.rfft(a), weight, bias))


class Filter(nn.Module):
    """Values times a filter in the spectrum's domain."""

    def __init__(self) -> None:
        super().__init__()
        self.l, self.w = nn.Linear(12, 12), nn.Parameter(torch.randn(5, 7, 2))

    def forward(self, a: Tensor) -> Tensor:
        return filtered(self, a)


def cyclic(kernel: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda a: torch.fft.irfft(
        torch.fft.rfft(a, dim=1) * torch.fft.rfft(kernel.to(a.dtype), dim=0)[:, None], n=5, dim=1
    )


_MASK = torch.tensor([[True, False, True, False, True, True], [False] * 6, [True] * 6])
_BAGS = torch.tensor([1, 0, 3, 0, 0, 2, 2])

FUNCTIONS_OF_OTHERS: dict[str, Callable[[], Made]] = {
    **{
        name: positive(getattr(torch, name))
        for name in ("asin", "acos", "sinh", "cosh", "asinh", "atanh", "erfc", "log10", "signbit")
    },
    "acosh": positive(torch.acosh, 1.1, 3.0),
    "angles": lambda: (of(lambda a: torch.atan2(a[..., :6], a[..., 6:])), (x(),)),
    "hypot": lambda: (of(lambda a: torch.hypot(a[..., :6], a[..., 6:])), (x(),)),
    "copysign": lambda: (of(lambda a: torch.copysign(a[..., :6].abs() + 1, a[..., 6:])), (x(),)),
    "fmod": lambda: (of(lambda a: torch.fmod(a * 3, 2.0)), (x(),)),
    "lengths_above_six": lambda: (of(lambda a: functional.normalize(a * 9, dim=-1)), (x(),)),
    "clipped_on_one_side": lambda: (of(lambda a: (a * 20).clamp_min(0.5) + (a * 20).clamp_max(-0.5)), (x(),)),
    "softplus": lambda: (of(lambda a: functional.softplus(a * 200)), (x(),)),
    "softplus_of_a_slope": lambda: (of(lambda a: functional.softplus(a * 5, beta=2.0, threshold=3.0)), (x(),)),
    "log_sigmoid": lambda: (of(lambda a: functional.logsigmoid(a * 400)), (x(),)),
    "random_slopes": lambda: (of(nn.RReLU(0.1, 0.3).eval()), (x(),)),
    "buckets": lambda: (of(lambda a: torch.bucketize(a, torch.tensor([-0.5, 0.0, 0.5])) * 1.0), (x(),)),
    "searched": lambda: (of(lambda a: torch.searchsorted(torch.tensor([-0.5, 0.0]), a, right=True) * 1.0), (x(),)),
    "kth_and_median": lambda: (of(lambda a: (a.kthvalue(3, -1)[0], a.median(1)[0])), (x(),)),
    "log_cumulative": lambda: (of(lambda a: torch.logcumsumexp(a * 300, -1)), (x(),)),
    "distances": lambda: (of(lambda a: torch.cdist(a[:, :3], a)), (x(),)),
    "distances_by_magnitude": lambda: (of(lambda a: torch.cdist(a[:, :3], a, p=1)), (x(),)),
    "diagonals": lambda: (of(lambda a: torch.diagonal(a, -1, 1, 2)), (x(),)),
    "strides": lambda: (of(lambda a: torch.as_strided(a, (2, 3, 4), (60, 24, 1), 5)), (x(),)),
    "mask_of_a_computed_type": lambda: (
        Apply(lambda s, a: (m := torch.arange(12) % 3 > 0).type_as(y := s.l(a)).masked_fill(m, -1e4) + y,
              **linears(l=(12, 12))), (x(),)),
    "strides_of_transposed": lambda: (of(lambda a: a.transpose(1, 2).as_strided((2, 4, 4, 5), (60, 12, 3, 1))), (x(),)),
    "strides_of_every_third": lambda: (of(lambda a: a[:, 1:, ::3].as_strided((2, 3, 4), (60, 12, 3))), (x(),)),
    "strides_of_the_permuted": lambda: (
        Apply(lambda s, a: s.l(a).view(2, 5, 3, 4).transpose(1, 2).as_strided((2, 3, 3, 3, 4), (60, 4, 12, 12, 1)),
              **linears(l=(12, 12))), (x(),)),
    "reduced_at_places": lambda: (
        Apply(lambda s, a, i: torch.zeros(2, 5, 9, dtype=a.dtype).scatter_reduce(2, i, s.l(a), "sum"), **linears(l=(12, 12))),
        (x(), torch.randint(0, 9, (2, 5, 12)))),
    "bilinear": lambda: (Apply(lambda s, a: s.b(a, s.l(a)), b=nn.Bilinear(12, 4, 3), **linears(l=(12, 4))), (x(),)),
    "matrix_and_vector": lambda: (of(lambda a: torch.addmv(torch.ones(5, dtype=a.dtype), a[0], a[1, 0], alpha=2)), (x(),)),
    **{
        f"padded_{mode}": lambda mode=mode: (after_convolution(lambda a: functional.pad(a, (2, 1, 1, 2), mode)), (images(),))
        for mode in ("reflect", "replicate", "circular")
    },
    "resized_by_a_factor": lambda: (
        after_convolution(lambda a: functional.interpolate(a, scale_factor=0.7, mode="bilinear")), (images(8, 9),)),
    "resized_smoothly": lambda: (
        after_convolution(lambda a: functional.interpolate(a, size=(3, 4), mode="bicubic", antialias=True)), (images(),)),
    "repeated_by_a_factor": lambda: (
        after_convolution(lambda a: functional.interpolate(a, scale_factor=1.3)), (images(8, 9),)),
    "sampled": lambda: (
        Apply(lambda s, a, g: functional.grid_sample(a * 2, g.tanh(), align_corners=False)),
        (images(), torch.randn(2, 3, 4, 2))),
    "largest_and_its_place": lambda: (
        after_convolution(lambda a: functional.max_pool2d(a, (3, 2), 2, 1, return_indices=True)), (images(7, 8),)),
    "dilated_places": lambda: (
        after_convolution(lambda a: functional.max_pool2d(a, 2, 1, 0, 2, return_indices=True)), (images(7, 8),)),
    "pooled_and_back": lambda: (
        after_convolution(lambda a: functional.max_unpool2d(*functional.max_pool2d(a, 2, return_indices=True), 2)),
        (images(6, 8),)),
    "largest_of_uneven_windows": lambda: (after_convolution(nn.AdaptiveMaxPool2d((4, 3))), (images(),)),
    "dilated_transposed_convolution": lambda: (nn.ConvTranspose2d(4, 3, 3, 2, 1, dilation=2), (images(),)),
    "volume_by_groups": lambda: (nn.Conv3d(4, 8, (2, 3, 3), padding=1, groups=2), (volumes(),)),
    "volume_to_the_same_size": lambda: (nn.Conv3d(4, 3, (2, 3, 4), padding="same"), (volumes(),)),
    "transposed_volume": lambda: (nn.ConvTranspose3d(4, 3, 2, 2), (volumes(),)),
    "transposed_volume_that_overlaps": lambda: (nn.ConvTranspose3d(4, 6, 3, 2, 1, 1, groups=2), (volumes(),)),
    "transposed_volume_with_gaps": lambda: (nn.ConvTranspose3d(4, 2, (1, 3, 3), (2, 1, 1), 0, dilation=(1, 2, 2)), (volumes(),)),
    "pools_of_volumes": lambda: (
        Apply(lambda s, a: (functional.max_pool3d(a * 1, 2, padding=1), functional.avg_pool3d(a * 1, 3, 2, 1),
                            functional.avg_pool3d(a * 1, 2, 2, 1, count_include_pad=False),
                            functional.adaptive_avg_pool3d(a * 1, (2, 3, 1)))), (volumes(),)),
    "fourier": lambda: (of(lambda a: torch.view_as_real(torch.fft.fft2(a))), (x(),)),
    "fourier_there_and_back": lambda: (of(lambda a: torch.fft.ifft(torch.fft.fft(a, norm="forward"), norm="forward").real), (x(),)),
    "spectrum": lambda: (of(lambda a: (torch.fft.rfft(a, dim=1).abs(), torch.fft.rfft(a).angle()[..., 1:6])), (x(),)),
    "filter_of_a_spectrum": lambda: (Filter(), (x(),)),
    "cyclic_convolution": lambda: (of(cyclic(torch.randn(5))), (x(),)),
    "frames_of_a_signal": lambda: (
        of(lambda a: torch.view_as_real(torch.stft(a.flatten(1), 16, 8, window=torch.hann_window(16, dtype=a.dtype),
                                                   return_complex=True))), (x(),)),
    "parts_of_spectra_in_others_places": lambda: (of(written_spectrum), (x(),)),
    "linear_layer_of_complex_weights": lambda: (Complexes(), (x(),)),
    "rotations": lambda: (of(rotated), (x(),)),
    "quotient_of_complex": lambda: (
        of(lambda a: torch.view_as_real(torch.view_as_complex(a.reshape(2, 5, 6, 2)) / torch.complex(a[..., :6], a[..., 6:].abs() + 1))),
        (x(),)),
    "weighted_bags": lambda: (
        Apply(lambda s, i, w: s.b(i, per_sample_weights=w.to(s.b.weight.dtype)), b=nn.EmbeddingBag(9, 4, mode="sum")),
        (torch.randint(0, 9, (3, 4)), torch.rand(3, 4))),
    "bags_with_padding": lambda: (
        Apply(lambda s, i: (s.m(i, torch.tensor([0, 3, 5])), s.s(i, torch.tensor([0, 3, 3]))), m=nn.EmbeddingBag(9, 4, mode="mean", padding_idx=0),
              s=nn.EmbeddingBag(9, 4, mode="sum", padding_idx=0)), (_BAGS,)),
    "a_number_where_a_row_says_so": written(masked(lambda a: (a[:, 0, 0] > 0,))),
    "a_number_where_a_column_says_so": written(masked(lambda a: (slice(None), a[0, :, 0] > 0))),
    "a_number_in_rows": written(lambda a, i: a.index_put((i,), torch.zeros((), dtype=a.dtype)), torch.tensor([0, 2, 2])),
    "values_by_a_mask": written(lambda a, s: put(a, (_MASK,), s.to(a.dtype)), torch.randn(10, 4)),
    "values_along_two_dimensions": written(
        lambda a, i, s: put(a, (torch.arange(3), i), s.to(a.dtype)), torch.tensor([1, 5, 0]), torch.randn(3, 4)),
    "values_in_columns": written(lambda a, i, s: put(a, (slice(None), i), s.to(a.dtype)), torch.tensor([1, 5]), torch.randn(3, 2, 4)),
    "values_at_a_table_of_places": written(
        lambda a, s: put(a, (torch.tensor([[1, 1], [0, 2]]), torch.tensor([1, 3])), s.to(a.dtype)), torch.randn(2, 2, 4)),
    "sums_at_places": written(
        lambda a, s: a.index_put((torch.tensor([[1, 1], [0, 2]]), torch.tensor([3, 3])), s.to(a.dtype), accumulate=True),
        torch.randn(2, 2, 4)),
    "added_rows": written(lambda a, i, s: a.index_add(1, i, s.to(a.dtype), alpha=2.0), torch.tensor([1, 1]), torch.randn(3, 2, 4)),
    "copied_rows": written(lambda a, i, s: a.index_copy(1, i, s.to(a.dtype)), torch.tensor([4, 1]), torch.randn(3, 2, 4)),
    "one_value_repeated_into_a_layer": lambda: (
        Apply(lambda s, a: s.l((a * 2).unsqueeze(2).expand(-1, -1, 2, -1).flatten(2)), **linears(l=(24, 4))), (x(),)),
    "repeated_beside_others": lambda: (
        Apply(lambda s, a: torch.cat([s.l(a).view(2, 5, 3, 4), s.l(a.mean(1, keepdim=True)).view(2, 1, 3, 4).expand(2, 5, 3, 4)], -1),
              **linears(l=(12, 12))), (x(),)),
    "heads_innermost": lambda: (
        Apply(lambda s, a: s.p(joined(heads(s.l(a)))), **linears(l=(12, 24), p=(24, 7))), (x(),)),
    "converted_at_every_call": lambda: (Apply(lambda s, a: s.l.to(a.dtype)(a), **linears(l=(12, 4))), (x(),)),
}  # fmt: skip
