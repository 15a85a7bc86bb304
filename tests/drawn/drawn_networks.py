"""Small networks at random: every access and kind, grouped queries, concatenations, sizes that fit no array."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from simulator.machine.machine import Machine
from simulator.network.network import Network, Operand, Window
from simulator.network.vector_steps import Step
from simulator.program.program import Program
from tests.drawn.random_programs import small_machine
from tests.drawn.small_networks import Sketch, window_operand
from tests.oracles.naive_network_program import dense_schedule, naive_program


def square_machine(rng: np.random.Generator) -> Machine:
    """A few cells a side, memories with room for whole tensors."""
    side = int(rng.choice([2, 4, 5, 8]))
    return small_machine(
        rng, array={"rows": side, "cols": side}, scratchpad={"kib": 256}, accumulator={"kib": 16},
        rank_memory={"kib": 16, "banks": 2 * side},
    )  # fmt: skip


def drawn_network(rng: np.random.Generator, side: int) -> Sketch:
    """A stem (rows, an image or a table), then a few blocks on its rows; every result is an output."""
    made = Sketch(rng)
    batch = int(rng.integers(1, 3))
    stem = [_rows_stem, _image_stem, _table_stem][int(rng.integers(3))]
    x = stem(made, batch, side)
    blocks = [_mlp, _attention, _token_mixer, _concatenation, _slices]
    for number, which in enumerate(rng.integers(0, len(blocks), 2)):
        x = blocks[which](made, x, f"b{number}", side)
    return made


def lowered(made: Sketch, network: Network, machine: Machine, single_groups: bool = False) -> Program:
    """The naive program, its weights in float32 as programs store them (``made`` then computes with the same)."""
    for name, (matrix, bias) in made.weights.items():
        made.weights[name] = (matrix.astype(np.float32).astype(float), bias.astype(np.float32).astype(float))
    linears = {
        operator.name: dense_schedule(network, operator, *made.weights[operator.name], machine)
        for operator in network.operators
        if operator.kind == "linear"
    }
    return naive_program(network, machine, linears, single_groups)


def drawn_inputs(made: Sketch) -> dict[str, np.ndarray]:
    """Normal numbers; for index inputs, rows of a table of at least five."""
    inputs = {}
    for port in made.inputs:
        index = port.dtype == "index"
        inputs[port.name] = made.rng.integers(0, 5, port.shape) if index else made.rng.normal(size=port.shape)
    return inputs


def all_outputs(made: Sketch) -> Network:
    """The network with every result as an output, so that each can be compared."""
    return made.network(*(operator.output for operator in made.operators))


def with_steps(network: Network, largest: dict[str, float]) -> Network:
    """Activation steps of 8 bits from the largest magnitude of each tensor."""
    tensors = {name: replace(t, step=largest[name] / 127 or 1.0) for name, t in network.tensors.items()}
    return replace(network, tensors=tensors)


def _rows_stem(made: Sketch, batch: int, side: int) -> str:
    rng = made.rng
    groups, width = int(rng.integers(1, 4)), int(rng.integers(1, 2 * side + 2))
    return made.input("x", batch, int(rng.integers(1, 8)), groups, width, padded=bool(rng.random() < 0.5))


def _image_stem(made: Sketch, batch: int, side: int) -> str:
    """Convolution, then pooling; strides, padding and dilation."""
    rng = made.rng
    height, width, channels = int(rng.integers(3, 7)), int(rng.integers(3, 7)), int(rng.choice([1, 3, side, 2 * side]))
    before = int(rng.integers(0, 3))  # tokens that are no pixels
    x = made.input("x", batch, before + height * width, 1, channels, padded=bool(rng.random() < 0.3))
    window = Window(
        (height, width), (int(rng.integers(1, 4)), 2), (int(rng.integers(1, 3)), 1), (1, int(rng.integers(0, 2))),
        (1, int(rng.integers(1, 3))),
    )  # fmt: skip
    outputs = int(rng.integers(1, 2 * side + 1))
    conv = made.linear("conv", window_operand(x, window, channels, token0=before), outputs, batch=batch)
    pool = Window(window.output, (2, 1), (1, 2), (1, 0), fill=-np.inf)
    steps = [Step("max_groups", (0,))]
    return made.vector("pool", [window_operand(conv, pool, outputs)], steps, 1, outputs, batch=batch)


def _table_stem(made: Sketch, batch: int, side: int) -> str:
    """Embeddings of tokens and of positions, summed."""
    rng = made.rng
    tokens, width = int(rng.integers(1, 8)), int(rng.integers(1, 2 * side + 1))
    index = made.input("ids", batch, tokens, 1, 1, index=True)
    table = made.constant("table", rng.normal(size=(1, 9, 1, width)), padded=bool(rng.random() < 0.5))
    positions = made.constant("positions", rng.normal(size=(1, tokens, 1, width)))
    words = Operand(table, tokens, 1, width, access="gather", indices=index)
    return made.vector("embed", [words, positions], [Step("add", (0, 1))], 1, width, batch=batch)


def _mlp(made: Sketch, x: str, name: str, side: int) -> str:
    """Norm, two linears with an activation between them, residual."""
    tensor, rng = made.tensors[x], made.rng
    groups, width = tensor.groups, tensor.width
    scale = {"gamma": rng.normal(size=(groups, width)), "beta": rng.normal(size=(1, 1, groups, width))}
    steps = [Step("layer_norm", (0,), None, (1e-5,)), Step("multiply", (1,), "gamma"), Step("add", (2,), "beta")]
    normed = made.vector(f"{name}.norm", [x], steps, groups, width, scale, padded=bool(rng.random() < 0.5))
    hidden = made.linear(f"{name}.up", normed, int(rng.integers(1, 3 * side)))
    active = made.vector(f"{name}.gelu", [hidden], [Step("gelu", (0,))], 1, made.tensors[hidden].width)
    down = made.linear(f"{name}.down", active, groups * width, groups, padded=bool(rng.random() < 0.5))
    return made.vector(f"{name}.add", [x, down], [Step("add", (0, 1))], groups, width, padded=tensor.padded)


def _attention(made: Sketch, x: str, name: str, side: int) -> str:
    """Grouped-query attention with a causal mask; heads begin at a chunk's edge."""
    tensor, rng = made.tensors[x], made.rng
    heads, groups = [(1, 1), (2, 1), (2, 2), (4, 2)][int(rng.integers(4))]
    width, inner = int(rng.integers(1, side + 3)), int(rng.integers(1, side + 3))
    q = made.linear(f"{name}.q", x, heads * width, heads, padded=True)
    # Keys follow what is no key: other channels, and where there are tokens to spare, another token.
    fused = made.linear(f"{name}.k", x, 2 * groups * width, 2 * groups)
    v = made.linear(f"{name}.v", x, groups * inner, groups, padded=bool(rng.random() < 0.5))
    skipped = int(tensor.tokens > 1 and rng.random() < 0.3)
    tokens = tensor.tokens - skipped
    keys = Operand(fused, tokens, groups, width, skipped, groups * width, "weights")
    scores = made.scores(f"{name}.scores", q, keys, padded=True)
    mask = np.where(np.tri(tensor.tokens, tokens) > 0, 0.0, -np.inf)[None, :, None]
    bias = rng.normal(size=(tensor.batch, 1, heads, tokens))
    steps = [
        Step("multiply", (0,), None, (width**-0.5,)), Step("add", (1,), "bias"), Step("add", (2,), "mask"),
        Step("softmax", (3,)),
    ]  # fmt: skip
    constants = {"mask": mask, "bias": bias}
    weights = made.vector(f"{name}.softmax", [scores], steps, heads, tokens, constants, padded=True)
    values = made.whole(v, tokens=tokens, token0=skipped, access="weights")
    mixed = made.mix(f"{name}.mix", weights, values, padded=bool(rng.random() < 0.5) or inner % side != 0)
    out = made.linear(f"{name}.out", mixed, tensor.groups * tensor.width, tensor.groups)
    return made.vector(f"{name}.add", [out, x], [Step("add", (0, 1))], tensor.groups, tensor.width)


def _token_mixer(made: Sketch, x: str, name: str, side: int) -> str:
    """A linear over tokens, between two transposes."""
    tensor = made.tensors[x]
    channels = tensor.groups * tensor.width
    # Rows of a transpose are the stored channels of one chunk: pack them first.
    packed = made.vector(f"{name}.pack", [x], [Step("copy", (0,))], tensor.groups, tensor.width)
    turned = Operand(packed, channels, 1, tensor.tokens, access="transposed")
    columns = made.vector(f"{name}.turn", [turned], [Step("copy", (0,))], 1, tensor.tokens, tokens=channels)
    mixed = made.linear(f"{name}.mix", columns, tensor.tokens + 1)
    back = Operand(mixed, tensor.tokens + 1, 1, channels, access="transposed")
    return made.vector(f"{name}.back", [back], [Step("tanh", (0,))], 1, channels, tokens=tensor.tokens + 1)


def _concatenation(made: Sketch, x: str, name: str, side: int) -> str:
    """A class token before the tokens, two halves of the channels, and a row that all share."""
    tensor, rng = made.tensors[x], made.rng
    left, right = int(rng.integers(1, side + 2)), int(rng.integers(1, side + 2))
    whole = made.tensor(
        f"{name}.whole", tensor.batch, tensor.tokens + 1, 1, left + right, padded=bool(rng.random() < 0.5)
    )
    made.constant(f"{name}.class", rng.normal(size=(1, 1, 1, left + right)), within=(whole, 0, 0))
    made.linear(f"{name}.left", x, left, within=(whole, 1, 0))
    made.linear(f"{name}.right", x, right, within=(whole, 1, left))
    row = made.constant(f"{name}.row", rng.normal(size=(1, 1, 1, left + right)))
    first = made.whole(whole, tokens=1)  # the class token of each sequence, for all its rows
    scaled = made.vector(f"{name}.scale", [whole, row], [Step("multiply", (0, 1))], 1, left + right)
    return made.vector(f"{name}.first", [scaled, first], [Step("add", (0, 1))], 1, left + right)


def _slices(made: Sketch, x: str, name: str, side: int) -> str:
    """Both halves of a fused projection, and the sum of groups of one of them."""
    tensor, rng = made.tensors[x], made.rng
    groups, width = int(rng.integers(1, 4)), int(rng.integers(1, side + 2))
    fused = made.linear(f"{name}.fused", x, 2 * groups * width, 2 * groups, padded=bool(rng.random() < 0.5))
    halves = [Operand(fused, tensor.tokens, groups, width, channel0=i * groups * width) for i in range(2)]
    steps = [Step("silu", (0,)), Step("multiply", (2, 1))]
    gated = made.vector(f"{name}.gate", list(halves), steps, groups, width, padded=bool(rng.random() < 0.5))
    order = tuple(float(i) for i in rng.permutation(width))
    steps = [Step("permute", (0,), None, order), Step("sum_groups", (1,))]
    tail = made.whole(gated, tokens=max(1, tensor.tokens - 1), token0=int(tensor.tokens > 1))
    return made.vector(f"{name}.sum", [tail], steps, 1, width)
