"""Copies into other axes: what no operator can read where it lies is copied, at a cost, and computes what torch does."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gblr_hw.frontend import export_network
from gblr_hw.frontend.graph.builder import Builder
from gblr_hw.frontend.graph.layout import View, permute, take
from gblr_hw.frontend.operators.relays import natural, regrouped, relaid
from simulator.base.errors import InputError
from simulator.network.network import Digit, Network, Operand, Operator, Port, Strides
from simulator.network.network import Tensor as Stored
from simulator.network.network_file import network_arrays, network_of, network_record
from simulator.network.operand_views import operand_view
from simulator.network.strided_bytes import strided_bytes
from simulator.network.vector_steps import Step
from tests.drawn.frontend_models import check, settled
from tests.drawn.relayout_models import CASES, Apply, attend, heads, linears, x
from tests.oracles.run_graph import strided_rows


@pytest.mark.parametrize("name", CASES)
def test_values_in_other_axes_are_what_torch_computes(name: str) -> None:
    torch.manual_seed(0)
    check(*settled(*CASES[name]()))


def test_no_copy_is_made_where_none_is_needed() -> None:
    model, inputs = settled(*CASES["shifted_windows"]())
    copies = [
        o for o in export_network(model, inputs).network.operators if any(r.access == "strided" for r in o.operands)
    ]
    # Two parts for each way rolled, into windows (once for queries, keys and values), and back.
    assert len(copies) <= 9
    assert sum("view" in o.name or "reshape" in o.name for o in copies) <= 2
    plain = Apply(lambda s, a: attend(*(heads(s.l(a)),) * 3), **linears(l=(12, 12)))
    operators = export_network(*settled(plain, (x(),))).network.operators
    assert not any(read.access == "strided" for operator in operators for read in operator.operands)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.data())
def test_any_copy_reads_what_torch_reads(shape: list[int], data: st.DataObject) -> None:
    """Permuted, cut and flipped values of a random tensor in random roles, through both readings of a strided view."""
    batch, tokens, width = (data.draw(st.integers(1, 4)) for _ in range(3))
    builder = Builder()
    view = builder.input("x", (batch, tokens, width))
    builder.placed(view)
    array = torch.arange(batch * tokens * width).reshape(batch, tokens, width)
    order = data.draw(st.permutations(range(3)))
    seen, wanted = permute(view, order), array.permute(order)
    for dim in range(3):
        start = data.draw(st.integers(0, wanted.shape[dim] - 1))
        count = data.draw(st.integers(1, wanted.shape[dim] - start))
        seen, wanted = take(builder.placed(seen), dim, start, count), wanted.narrow(dim, start, count)
    roles = "".join(data.draw(st.sampled_from("btw")) for _ in range(3))
    flipped = [dim for dim in range(3) if data.draw(st.booleans())]
    found = relaid(builder, seen, roles, flipped)
    expected = wanted.flip(flipped) if flipped else wanted
    assert found.shape == tuple(expected.shape)
    stored = {"x": array.numpy().reshape(batch, tokens, width).astype(float)}
    for operator in builder.operators:
        operand = operator.operands[0]
        if operand.access == "strided":
            value = operand_view(operand, stored[operand.tensor])
            assert np.array_equal(value, strided_rows(stored[operand.tensor], operand))
        else:
            value = operand_view(operand, stored[operand.tensor])
        for step in operator.steps:
            if step.function == "permute":
                value = value[..., [int(one) for one in step.numbers]]
        stored[operator.output] = value.reshape(operator.batch, operator.tokens, -1)
    result = stored[found.tensor]
    sizes = {role: [s for s, r in zip(expected.shape, roles, strict=True) if r == role] for role in "btw"}
    arranged = expected.permute([dim for role in "btw" for dim in range(3) if roles[dim] == role])
    assert np.array_equal(result.reshape(-1), arranged.reshape(-1).numpy())
    assert result.shape == tuple(int(np.prod(sizes[role])) for role in "btw")


def test_regrouping_takes_apart_only_what_has_to_be() -> None:
    builder = Builder()
    view = builder.placed(builder.input("x", (2, 6, 4)))
    assert regrouped(builder, view, (2, 3, 2, 4)).tensor == "x"
    assert regrouped(builder, view, (2, 8, 3)).tensor != "x"
    assert builder.tensors[builder.operators[-1].output].batch == 2
    assert natural(4) == "bttw" and natural(0) == ""


TENSOR = Stored("x", 2, 6, 1, 10, kind="input")


def strided(rows: tuple[Digit, ...], channels: tuple[Digit, ...], tokens: int, width: int) -> Operand:
    return Operand("x", tokens, 1, width, access="strided", strides=Strides(rows, channels))


def network_with(operand: Operand, batch: int) -> Network:
    output = Stored("y", batch, operand.tokens, operand.groups, operand.width)
    operator = Operator("y", "vector", (operand,), "y", batch, operand.tokens, (Step("copy", (0,)),))
    port = Port("x", "x", (2, 6, 10), (2, 6, 10), (0, 1, 2))
    out = Port("y", "y", (batch, operand.tokens, operand.width), (batch, operand.tokens, operand.width), (0, 1, 2))
    return Network({"x": TENSOR, "y": output}, (operator,), (port,), (out,), {})


def naive_bytes(operand: Operand, chunk: int, rows: range, side: int, burst: int) -> int:
    """Element by element: a run goes on while the next element's address does."""
    stored = np.arange(120).reshape(2, 6, 10).astype(float)
    values = strided_rows(stored, operand).reshape(-1, operand.groups * operand.width)
    total, before, length = 0, None, 0
    for row in rows:
        for element in values[row, chunk * side : (chunk + 1) * side].astype(int).tolist():
            line, channel = divmod(element, 10)
            address = (channel // side * 12 + line) * side + channel % side
            if before is not None and address == before + 1:
                length += 1
            else:
                total += -(-length // burst) * burst
                length = 1
            before = address
    return total + -(-length // burst) * burst


@pytest.mark.parametrize("side", [4, 8, 16])
@pytest.mark.parametrize("burst", [1, 4, 64])
def test_bytes_are_whole_bursts_of_each_run(side: int, burst: int) -> None:
    views = {
        "rows": strided((Digit(2, 1), Digit(6, 0, 1)), (Digit(10, 0, 0, 1),), 6, 10),
        "turned": strided((Digit(2, 1), Digit(10, 0, 0, 1)), (Digit(6, 0, 1),), 10, 6),
        "backwards": strided((Digit(6, 0, 1), Digit(2, 1)), (Digit(5, 0, 0, 2),), 2, 5),
        "windows": strided((Digit(2, 1), Digit(3, 0, 1)), (Digit(2, 0, 3), Digit(10, 0, 0, 1)), 3, 20),
    }
    for operand in views.values():
        network = network_with(operand, 12 * 10 // (operand.tokens * operand.width) if operand.width != 5 else 6)
        rows = network.operators[0].rows
        for chunk in range(-(-operand.width // side)):
            for first, last in ((0, rows), (1, rows), (0, 1)):
                found = strided_bytes(network, operand, chunk, np.arange(first, last), side, burst)
                assert found == naive_bytes(operand, chunk, range(first, last), side, burst)


def test_strides_survive_a_file_and_others_leave_no_trace() -> None:
    network = network_with(strided((Digit(2, 1), Digit(6, 0, 1)), (Digit(10, 0, 0, 1),), 6, 10), 2)
    record = network_record(network)
    again = network_of(record, network_arrays(network))
    assert again.operators[0].operands == network.operators[0].operands
    plain = network_with(Operand("x", 6, 1, 10), 2)
    assert "strides" not in network_record(plain)["operators"][0]["operands"][0]
    assert network_of(network_record(plain), {}).operators[0].operands[0].strides is None


def test_strided_views_are_checked() -> None:
    stored = np.zeros((2, 6, 10))
    with pytest.raises(
        InputError, match="found strided to token 7, channel 10; the tensor has 6 tokens of 10 channels"
    ):
        operand_view(strided((Digit(2, 1), Digit(7, 0, 1)), (Digit(10, 0, 0, 1),), 7, 10), stored)
    with pytest.raises(
        InputError, match=r"found \(12, 9\) rows and channels; the view has sequences of 6 tokens of 1 x 10"
    ):
        operand_view(strided((Digit(2, 1), Digit(6, 0, 1)), (Digit(9, 0, 0, 1),), 6, 10), stored)
    with pytest.raises(InputError, match="strides of 'x': found None rows and channels"):
        operand_view(Operand("x", 6, 1, 10, access="strided"), stored)


def test_a_view_is_not_copied_without_leave() -> None:
    builder = Builder(relays=False)
    view = builder.placed(builder.input("x", (2, 6, 4)))
    assert isinstance(view, View)
    with pytest.raises(Exception, match="mixes axes|does not fit"):
        regrouped(builder, permute(view, (1, 0, 2)), (4, 12))
