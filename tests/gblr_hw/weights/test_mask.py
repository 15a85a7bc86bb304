"""The Gaudi mask: values, gradients, evaluation rules, precision and compilation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gblr_hw.weights.mask import MASK_THRESHOLD, evaluation_mask, frequencies, gaudi_mask, snap

SIZES = [1, 2, 3, 7, 32, 33, 57, 64]


def slow_mask(width: float, location: float, n: int, sigma: float | None) -> np.ndarray:
    """The formula of the paper, summed term by term over the frequencies of a real signal."""
    channels = np.arange(n)
    total = np.zeros(n)
    for f in range(n // 2 + 1):
        ratio = np.sinc(f * width) / np.sinc(f / n)
        term = width * ratio * np.exp(1j * math.pi * f * (1 / n - width) - 2j * math.pi * f * location)
        if sigma is not None:
            term *= math.exp(-(f**2) / (2 * sigma**2))
        # Frequencies 0 and n/2 have no mirror image.
        total += (1 if f == 0 or 2 * f == n else 2) * (term * np.exp(2j * math.pi * f * channels / n)).real
    return total


def interval(count: int, start: int, n: int) -> np.ndarray:
    return ((np.arange(n) - start) % n < count).astype(np.float64)


@settings(deadline=None, max_examples=60)
@given(
    n=st.sampled_from(SIZES),
    width=st.floats(0, 1),
    location=st.floats(0, 1),
    sigma=st.one_of(st.none(), st.floats(0.5, 200)),
)
def test_mask_is_the_papers_formula(n: int, width: float, location: float, sigma: float | None) -> None:
    mask = gaudi_mask(torch.tensor([width]).double(), torch.tensor([location]).double(), n, sigma=sigma)[0]
    width, location = float(torch.tensor(width)), float(torch.tensor(location))
    np.testing.assert_allclose(mask.numpy(), slow_mask(width, location, n, sigma), atol=1e-9)


@settings(deadline=None, max_examples=60)
@given(n=st.sampled_from([2, 3, 7, 33, 64, 768, 3072]), data=st.data())
def test_evaluation_without_gaussian_is_an_exact_cyclic_interval(n: int, data: st.DataObject) -> None:
    count, start = data.draw(st.integers(2, n)), data.draw(st.integers(0, n))
    width, location = torch.tensor([count / n]), torch.tensor([start / n])
    mask = evaluation_mask(width.double(), location.double(), n)[0]
    assert mask.dtype == torch.float32
    assert np.array_equal(mask.numpy(), interval(count, start, n))
    single = evaluation_mask(width, location, n)[0].numpy()
    # The zeros are exact in any precision; the ones are those of the published layers, which compute in float32.
    assert np.array_equal(single != 0, interval(count, start, n) != 0)
    np.testing.assert_allclose(single, interval(count, start, n), atol=5e-4)


@pytest.mark.parametrize("n", [33, 64])
def test_width_is_rounded_before_it_is_compared_with_one_channel(n: int) -> None:
    widths = torch.tensor([0.0, 0.4, 1.0, 1.4, 1.6, 2.4, -3.0]) / n
    support = (evaluation_mask(widths, torch.zeros(7), n) != 0).sum(dim=1)
    assert support.tolist() == [0, 0, 0, 0, 2, 2, 0]


def test_location_is_rounded_and_wraps() -> None:
    mask = evaluation_mask(torch.full((5,), 3 / 10), torch.tensor([0.94, 0.96, 1.0, -0.04, 7.0]), 10)
    assert mask[0].nonzero().flatten().tolist() == [0, 1, 9]
    assert mask[1].nonzero().flatten().tolist() == [0, 1, 2]
    assert all(torch.equal(mask[1], other) for other in mask[2:])


def test_width_above_one_overlaps_itself_as_the_formula_says() -> None:
    mask = evaluation_mask(torch.tensor([1.25]), torch.tensor([0.5]), 8)[0]
    torch.testing.assert_close(mask, torch.tensor([1.0, 1, 1, 1, 2, 2, 1, 1]))


def test_gaussian_support_is_wider_than_the_width_and_thresholded() -> None:
    mask = evaluation_mask(torch.tensor([16 / 64]), torch.tensor([0.25]), 64, sigma=8.0)[0]
    raw = gaudi_mask(torch.tensor([16 / 64]), torch.tensor([0.25]), 64, sigma=8.0)[0]
    assert int((mask != 0).sum()) > 16
    assert float(mask[mask != 0].abs().min()) >= MASK_THRESHOLD
    small = raw.abs() < MASK_THRESHOLD
    assert bool(small.any())
    assert float(mask[small].abs().max()) == 0


@pytest.mark.parametrize("sigma", [None, 3.0])
@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_gradients_by_finite_differences(n: int, sigma: float | None) -> None:
    widths = torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64, requires_grad=True)
    locations = torch.tensor([0.1, 0.9, 0.5], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda *given: gaudi_mask(*given, n, sigma=sigma), (widths, locations))


@pytest.mark.parametrize("sigma", [None, 100.0])
def test_gradient_at_zero_width_is_not_zero(sigma: float | None) -> None:
    widths = torch.zeros(1, requires_grad=True)
    gaudi_mask(widths, torch.tensor([0.5]), 16, sigma=sigma)[0, 8].backward()
    assert float(widths.grad) > 1


def test_straight_through_rounds_with_the_gradient_of_the_identity() -> None:
    values = torch.tensor([0.26, 0.74], requires_grad=True)
    snapped = snap(values, 4)
    assert snapped.tolist() == pytest.approx([0.25, 0.75])
    (snapped * torch.tensor([2.0, 3.0])).sum().backward()
    assert values.grad.tolist() == [2.0, 3.0]
    assert not snap(torch.tensor([0.3]), 4, straight_through=False).requires_grad


def test_autocast_and_half_parameters_do_not_lower_the_precision() -> None:
    widths, locations = torch.tensor([0.25, 0.5]), torch.tensor([0.5, 0.875])
    plain = gaudi_mask(widths, locations, 512, sigma=50.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(gaudi_mask(widths, locations, 512, sigma=50.0), plain)
    half = gaudi_mask(widths.half(), locations.half(), 512, sigma=50.0)
    assert half.dtype == torch.float32
    assert torch.equal(half, plain)


def test_frequencies() -> None:
    assert frequencies(5).tolist() == [0, 1, 2]
    assert frequencies(6).tolist() == [0, 1, 2, 3]
