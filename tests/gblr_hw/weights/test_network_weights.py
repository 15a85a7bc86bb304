"""Linear operators from checkpoints: every family against its matrix, and messages."""

from __future__ import annotations

import numpy as np
import pytest

from gblr_hw.weights.network_weights import linear_of
from simulator.base.errors import InputError
from tests.drawn.strategies import FAMILIES, generator, layer_weights, matrix_and_bias, small_machine


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_times_the_matrix(family):
    for seed in range(10):
        rng = generator(seed)
        weights = layer_weights(rng, small_machine(rng), family)
        matrix, bias = matrix_and_bias(weights)
        rows = rng.normal(size=(4, matrix.shape[1]))
        found = linear_of({"layer": weights})("layer", rows)
        np.testing.assert_allclose(found, rows @ matrix.T + bias, rtol=1e-9, atol=1e-9)


def test_messages():
    rng = generator(0)
    weights = layer_weights(rng, small_machine(rng), "dense")
    linear = linear_of({"layer": weights})
    with pytest.raises(InputError, match="operator 'other': found no weights; weights are there for layer"):
        linear("other", np.zeros((1, 1)))
    with pytest.raises(InputError, match="operator 'layer': found rows of 99 channels; its weights read"):
        linear("layer", np.zeros((1, 99)))
