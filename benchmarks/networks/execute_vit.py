"""ViT-Base, whole and at full size, instruction by instruction in float, against PyTorch."""

from __future__ import annotations

import time

import numpy as np
import torch

from gblr_hw import lower
from gblr_hw.frontend.sources import load_source
from gblr_hw.lowering.calibration_batches import port_arrays
from simulator.machine.machine import Machine
from simulator.numbers.execute_network import execute_network


def main() -> None:
    model, inputs = load_source("transformers:google/vit-base-patch16-224")
    program = lower(model, Machine.load("mid-32"), example_inputs=inputs)
    assert program.network is not None
    begin = time.process_time()
    (found,) = execute_network(program, port_arrays(program.network.inputs, inputs)).values()
    seconds = time.process_time() - begin
    with torch.no_grad():
        expected = model(*inputs).logits.numpy()
    error = np.abs(found - expected).max() / np.abs(expected).max()
    print(f"{len(program.instructions):,} instructions in {seconds:.1f} CPU s, {error:.1e} from PyTorch")


if __name__ == "__main__":
    main()
