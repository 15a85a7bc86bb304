"""Programs of whole networks compute what their networks say: naive programs of random networks, walked instruction by
instruction, against whole-tensor evaluation; and programs that were damaged on purpose, which must not.
"""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings

from simulator.evaluate_network import evaluate_network
from simulator.execute_network import execute_network
from tests.drawn_networks import all_outputs, drawn_inputs, drawn_network, lowered, square_machine
from tests.random_programs import generator, seeds


@settings(max_examples=80)
@given(seeds)
def test_float_equals_whole_tensor_evaluation(seed):
    rng = generator(seed)
    machine = square_machine(rng)
    made = drawn_network(rng, machine.cols)
    network = all_outputs(made)
    program = lowered(made, network, machine, single_groups=bool(rng.random() < 0.5))
    inputs = drawn_inputs(made)
    expected = evaluate_network(network, made.apply, inputs)
    result = execute_network(program, inputs)
    for name in expected:
        np.testing.assert_allclose(result[name], expected[name], rtol=1e-9, atol=1e-9, err_msg=name)
