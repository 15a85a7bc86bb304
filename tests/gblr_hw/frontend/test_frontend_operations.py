"""Operations one by one, on awkward layouts, against torch; and what the front end refuses, in its own words."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from gblr_hw import lower
from gblr_hw.frontend import export_network
from gblr_hw.frontend.graph.builder import Builder
from gblr_hw.frontend.operators.vector_ops import pointwise
from gblr_hw.frontend.torch_ops import lower_views
from simulator.base.errors import InputError
from simulator.machine.machine import Machine
from simulator.numbers.execute_network import execute_network
from tests.drawn.frontend_models import check, settled


class Apply(nn.Module):
    """A function of named modules and the inputs."""

    def __init__(self, function: Callable[..., Any], **modules: nn.Module | nn.Parameter) -> None:
        super().__init__()
        self.function = function
        for name, module in modules.items():
            setattr(self, name, module)

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(self, *inputs)


def sequences() -> Tensor:
    return torch.randn(2, 5, 12)


def images() -> Tensor:
    return torch.randn(2, 3, 8, 6)


def heads(x: Tensor, count: int = 3) -> Tensor:
    return x.unflatten(-1, (count, -1)).transpose(1, 2)


def attend(q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
    return functional.scaled_dot_product_attention(q, k, v, **options).transpose(1, 2).flatten(2)


def linears(**sizes: tuple[int, int]) -> dict[str, nn.Module]:
    return {name: nn.Linear(*size) for name, size in sizes.items()}


def rotated(x: Tensor, by: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    return x * by.cos() + torch.cat((-second, first), -1) * by.sin()


def squeezed(s: Any, a: Tensor) -> Tensor:
    y = s.c(a)
    return y * torch.sigmoid(s.f(y.mean((2, 3))))[:, :, None, None]


def windowed(s: Any, a: Tensor) -> Tensor:
    tiles = a.permute(0, 2, 3, 1).reshape(2, 2, 4, 2, 3, 3).permute(0, 1, 3, 2, 4, 5).reshape(8, 12, 3)
    return s.l(tiles).view(2, 2, 2, 4, 3, 3).permute(0, 1, 3, 2, 4, 5).reshape(2, 8, 6, 3)


def dense_block(s: Any, a: Tensor) -> Tensor:
    first = s.c(a)
    second = torch.cat([first, s.d(first)], 1)
    return s.o(torch.cat([second, s.e(second)], 1))


def mixed(s: Any, a: Tensor) -> Tensor:
    q, k, v = s.l(a).view(2, 5, 2, 3, 4).unbind(3)
    return attend(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))


CASES: dict[str, Callable[[], tuple[nn.Module, tuple[Tensor, ...]]]] = {
    "module_without_modules": lambda: (nn.Linear(12, 3), (sequences(),)),
    "one_row": lambda: (nn.Linear(12, 3), (sequences()[0, 0],)),
    "two_dimensions": lambda: (nn.Sequential(nn.Linear(12, 3), nn.Softmax(-1)), (sequences()[0],)),
    "input_is_output": lambda: (nn.Identity(), (sequences(),)),
    "only_a_number": lambda: (Apply(lambda s, a: 2 - a / 3), (sequences(),)),
    "power_of_constant": lambda: (Apply(lambda s, a: s.w / (a * a + 1), w=nn.Parameter(torch.randn(12))), (sequences(),)),
    "einsum": lambda: (
        Apply(lambda s, a: torch.einsum("bthd,bshd->bhts", *(f(a).view(2, 5, 3, 4) for f in (s.q, s.k))),
              **linears(q=(12, 12), k=(12, 12))), (sequences(),)),
    "attention_module": lambda: (
        Apply(lambda s, a: s.m(a, a, a)[0], m=nn.MultiheadAttention(12, 3, batch_first=True)), (sequences(),)),
    "attention_averages": lambda: (
        Apply(lambda s, a: s.m(a, a, a)[1], m=nn.MultiheadAttention(12, 3, batch_first=True)), (sequences(),)),
    "tokens_first": lambda: (
        Apply(lambda s, a: s.m(a, a, a, need_weights=False)[0], m=nn.MultiheadAttention(12, 3)), (sequences(),)),
    "cross_attention": lambda: (
        Apply(lambda s, a, b: s.m(a, b, b)[0], m=nn.MultiheadAttention(12, 3, batch_first=True)),
        (sequences(), torch.randn(2, 7, 12))),
    "encoder_layer": lambda: (nn.TransformerEncoderLayer(12, 3, 20, batch_first=True), (sequences(),)),
    "grouped_queries": lambda: (
        Apply(lambda s, a: attend(heads(s.q(a), 4), heads(s.k(a), 2), heads(s.k(a), 2), is_causal=True, enable_gqa=True),
              **linears(q=(12, 12), k=(12, 6))), (sequences(),)),
    "one_key_for_all_queries": lambda: (
        Apply(lambda s, a: attend(heads(s.q(a), 4), s.k(a)[:, None], s.k(a)[:, None]), **linears(q=(12, 12), k=(12, 3))),
        (sequences(),)),
    "heads_outside_parts": lambda: (Apply(mixed, **linears(l=(12, 24))), (sequences(),)),
    "float_mask": lambda: (
        Apply(lambda s, a, m: attend(*(heads(s.q(a)),) * 3, attn_mask=m), **linears(q=(12, 12))),
        (sequences(), torch.randn(2, 1, 1, 5))),
    "truth_mask": lambda: (
        Apply(lambda s, a, m: attend(*(heads(s.q(a)),) * 3, attn_mask=m), **linears(q=(12, 12))),
        (sequences(), torch.tensor([[1, 1, 1, 0, 0], [1, 0, 1, 1, 1]]).bool()[:, None, None])),
    "filled_mask": lambda: (
        Apply(lambda s, a, m: torch.softmax((s.l(a) @ s.l(a).transpose(1, 2)).masked_fill(m[:, None] == 0, -1e9), -1) @ a,
              **linears(l=(12, 12))),
        (sequences(), torch.tensor([[1, 1, 1, 0, 0], [1, 0, 1, 1, 1]]))),
    "product_without_heads": lambda: (
        Apply(lambda s, a: torch.softmax(s.l(a) @ a.transpose(1, 2), -1) @ a, **linears(l=(12, 12))), (sequences(),)),
    "product_crosswise": lambda: (
        Apply(lambda s, a: a.transpose(1, 2) @ (s.l(a) @ a.transpose(1, 2)).transpose(1, 2), **linears(l=(12, 12))),
        (sequences(),)),
    "constant_on_the_left": lambda: (
        Apply(lambda s, a: s.w @ s.l(a), w=nn.Parameter(torch.randn(4, 5)), **linears(l=(12, 6))), (sequences(),)),
    "rotary": lambda: (
        Apply(lambda s, a: heads(s.l(a)) @ rotated(heads(s.l(a)), s.t).transpose(2, 3), t=nn.Parameter(torch.randn(5, 4)),
              **linears(l=(12, 12))), (sequences(),)),
    "interleaved_rotary": lambda: (
        Apply(lambda s, a: torch.stack([-s.l(a)[..., 1::2], s.l(a)[..., ::2]], -1).flatten(-2), **linears(l=(12, 12))),
        (sequences(),)),
    "gated": lambda: (
        Apply(lambda s, a: functional.silu(s.l(a).chunk(2, -1)[0]) * s.l(a).chunk(2, -1)[1], **linears(l=(12, 16))),
        (sequences(),)),
    "permuted_channels": lambda: (
        Apply(lambda s, a: s.l(s.l(a).view(2, 5, 3, 4).transpose(2, 3).flatten(2)), **linears(l=(12, 12))), (sequences(),)),
    "picked_channels": lambda: (
        Apply(lambda s, a: s.l(a)[:, :, [3, 0, 7]].flip(2), **linears(l=(12, 12))), (sequences(),)),
    "rolled": lambda: (Apply(lambda s, a: s.l(a).roll((1, -2), (1, 2)), **linears(l=(12, 12))), (sequences(),)),
    "padded": lambda: (Apply(lambda s, a: functional.pad(s.l(a), (0, 0, 1, 2)), **linears(l=(12, 12))), (sequences(),)),
    "joined_channels": lambda: (
        Apply(lambda s, a: s.o(torch.cat([s.a(a), s.b(a)], -1)), **linears(a=(12, 4), b=(12, 6), o=(10, 3))), (sequences(),)),
    "joined_images": lambda: (
        Apply(lambda s, a: s.o(torch.cat([functional.relu(s.a(a)), s.b(a)], 1)),
              a=nn.Conv2d(3, 4, 3), b=nn.Conv2d(3, 6, 3), o=nn.Conv2d(10, 3, 1)), (images(),)),
    "joined_twice": lambda: (
        Apply(dense_block, c=nn.Conv2d(3, 4, 3), d=nn.Conv2d(4, 4, 1), e=nn.Conv2d(8, 6, 1), o=nn.Conv2d(14, 2, 1)),
        (images(),)),
    "registers": lambda: (
        Apply(lambda s, a: torch.cat([s.t.expand(2, -1, -1), s.l(a)], 1)[:, 1:].mean(1),
              t=nn.Parameter(torch.randn(1, 2, 12)), **linears(l=(12, 12))), (sequences(),)),
    "table": lambda: (nn.Embedding(9, 6), (torch.randint(0, 9, (2, 5)),)),
    "one_dimensional_convolution": lambda: (
        Apply(lambda s, a: s.c(a.transpose(1, 2)).transpose(1, 2), c=nn.Conv1d(12, 7, 3, 2, 1)), (sequences(),)),
    "dilated_convolution": lambda: (nn.Conv2d(3, 4, 3, padding="same", dilation=2), (images(),)),
    "grouped_convolutions": lambda: (
        nn.Sequential(nn.Conv2d(3, 6, 3, padding=1, groups=3), nn.BatchNorm2d(6), nn.ReLU6(), nn.Conv2d(6, 4, 1),
                      nn.Hardswish(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)), (images(),)),
    "flattened_images": lambda: (
        nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(48, 5)), (images(),)),
    "pools": lambda: (
        nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.AvgPool2d(3, 2, 1, count_include_pad=False), nn.AvgPool2d(2),
                      nn.MaxPool2d(2, 1, 1)), (images(),)),
    "even_adaptive_pool": lambda: (nn.Sequential(nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d((4, 3))), (images(),)),
    "norm_without_a_product": lambda: (nn.Sequential(nn.ReLU(), nn.BatchNorm2d(3), nn.ReLU()), (images(),)),
    "norm_of_two_readers": lambda: (
        Apply(lambda s, a: s.n(s.c(a)) + s.c(a).amax(1, keepdim=True), c=nn.Conv2d(3, 4, 3), n=nn.BatchNorm2d(4)), (images(),)),
    "channels_last_norm": lambda: (
        Apply(lambda s, a: a + s.l(functional.gelu(s.n(a.permute(0, 2, 3, 1)))).permute(0, 3, 1, 2) * s.g[:, None, None],
              n=nn.LayerNorm(3), g=nn.Parameter(torch.randn(3)), **linears(l=(3, 3))), (images(),)),
    "gate_of_channels": lambda: (Apply(squeezed, c=nn.Conv2d(3, 6, 3), **linears(f=(6, 6))), (images(),)),
    "windows_of_an_image": lambda: (Apply(windowed, **linears(l=(3, 3))), (images(),)),
    "shuffled_pixels": lambda: (nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.PixelShuffle(2)), (images(),)),
    "rms_norm_and_log_softmax": lambda: (
        nn.Sequential(nn.RMSNorm(12), nn.Linear(12, 5), nn.LogSoftmax(-1)), (sequences(),)),
    "in_place": lambda: (Apply(lambda s, a: s.l(a).add_(a).relu_(), **linears(l=(12, 12))), (sequences(),)),
    "lstm": lambda: (nn.LSTM(12, 4, batch_first=True), (sequences(),)),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_operation_computes_what_torch_does(name: str) -> None:
    torch.manual_seed(0)
    check(*settled(*CASES[name]()))


def export(name: str) -> Any:
    torch.manual_seed(0)
    return export_network(*settled(*CASES[name]()))


def test_a_layer_called_twice_is_two_operators_with_the_same_weights() -> None:
    exported = check(*settled(Apply(lambda s, a: s.l(s.l(a)), **linears(l=(12, 12))), (sequences(),)))
    assert list(exported.weights) == ["l", "l#2"]
    assert exported.weights["l"] is exported.weights["l#2"]


def test_outputs_have_the_names_of_the_models_containers() -> None:
    model = Apply(lambda s, a: {"y": s.l(a), "z": (s.l(a)[:, 0], None, a.transpose(1, 2))}, **linears(l=(12, 12)))
    exported = check(*settled(model, (sequences(),)))
    assert [(port.name, port.shape) for port in exported.network.outputs] == [
        ("y", (2, 5, 12)), ("z.0", (2, 12)), ("z.2", (2, 12, 5)),
    ]  # fmt: skip


def test_outputs_that_are_constants_are_noted() -> None:
    model = Apply(lambda s, a: (s.l(a), s.l.weight * 2), **linears(l=(12, 3)))
    assert export_network(model.eval(), sequences()).notes == (
        "Output 'output1' does not depend on an input and is left out.",
    )


def test_keyword_inputs() -> None:
    class Keywords(nn.Module):
        def forward(self, a: Tensor, *, scale: Tensor) -> Tensor:
            return a * scale

    exported = export_network(Keywords().eval(), {"scale": torch.randn(2, 5, 1), "a": sequences()})
    assert {port.name for port in exported.network.inputs} == {"a", "scale"}


def test_the_same_model_gives_the_same_graph() -> None:
    assert str(export("encoder_layer").network) == str(export("encoder_layer").network)


def test_no_data_moves_where_heads_windows_and_flattening_only_name_axes() -> None:
    for name in ("attention_module", "encoder_layer", "grouped_queries", "windows_of_an_image", "shuffled_pixels"):
        names = [operator.name for operator in export(name).network.operators]
        assert not [one for one in names if "copy" in one or "transposed" in one], name


def test_an_operator_reads_two_tensors_at_most() -> None:
    model = Apply(
        lambda s, a: torch.relu((s.a(a) + s.b(a)) * (s.c(a) + s.d(a))).mean(-1, keepdim=True),
        **linears(a=(12, 4), b=(12, 4), c=(12, 4), d=(12, 4)),
    )
    exported = check(*settled(model, (sequences(),)))
    vectors = [operator for operator in exported.network.operators if operator.kind == "vector"]
    # With either sum taken in, the product would read three.
    assert [(len(one.operands), [step.function for step in one.steps]) for one in vectors] == [
        (2, ["add"]), (2, ["add"]), (2, ["multiply", "relu", "mean_width"]),
    ]  # fmt: skip


# What is refused.


def refused(model: nn.Module, *inputs: Tensor, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        export_network(model.eval(), inputs, **options)
    return str(caught.value)


class Summed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.l = nn.Linear(12, 12)

    def forward(self, a: Tensor) -> Tensor:
        return torch.lgamma(self.l(a))


def test_an_unknown_operation_names_its_node_line_and_both_ways_out() -> None:
    message = refused(Summed(), sequences())
    line = f"{__file__}:{Summed.forward.__code__.co_firstlineno + 1}: return torch.lgamma(self.l(a))"
    assert message == (
        f"node 'lgamma' (aten.lgamma.default): found {line}; the front end does not know this operation. Treat it as "
        "moving nothing or as one pass of the vector unit (--treat lgamma=free or --treat lgamma=vector; its module's "
        "path or 'aten.lgamma.default' name it too), or lower it yourself (plugins={\"aten.lgamma.default\": function})."
    )


@pytest.mark.parametrize("key", ["lgamma", "aten.lgamma.default", "aten.lgamma", "inner"])
def test_treatments_by_node_operation_and_module(key: str) -> None:
    model = nn.Sequential()
    model.add_module("inner", Summed())
    free = export_network(model.eval(), sequences(), treat={key: "free"})
    assert [one.name for one in free.network.operators] == ["inner.l"]
    assert free.notes == ("'lgamma' (aten.lgamma.default) is taken to cost nothing: its first input stands for it.",)
    vector = export_network(model, sequences(), treat={key: "vector"})
    assert [(one.name, [str(step) for step in one.steps]) for one in vector.network.operators] == [
        ("inner.l", []), ("inner.lgamma", ["copy(%0)"]),
    ]  # fmt: skip
    assert vector.notes == (
        "'lgamma' (aten.lgamma.default) is one pass of the vector unit that copies its input: executing the network does "
        "not compute it.",
    )


def test_a_plugin_lowers_what_the_front_end_does_not_know() -> None:
    def sine_cardinal(builder: Builder, a: Any) -> Any:
        x = pointwise(builder, "multiply", a["self"], numbers=(torch.pi,))
        return pointwise(builder, "divide", pointwise(builder, "sine", x), x)

    model = Apply(lambda s, a: torch.special.i0(s.l(a)), **linears(l=(12, 12)))
    assert "aten.special_i0.default" in refused(model, sequences()) or "aten.i0" in refused(model, sequences())
    model = Apply(lambda s, a: torch.sinc(s.l(a)), **linears(l=(12, 12)))
    exported = check(*settled(model, (sequences(),)), plugins={"aten.sinc.default": sine_cardinal})
    assert [str(step) for step in exported.network.operators[1].steps] == [
        "multiply(%0, 3.14159265)", "sine(%1)", "divide(%2, %1)",
    ]  # fmt: skip


REFUSALS: dict[str, tuple[Callable[[], tuple[nn.Module, Tensor]], str]] = {
    "complex": (
        lambda: (Apply(lambda s, a: torch.fft.fft(a).tanh().abs()), sequences()),
        "the front end does not know this operation on complex values",
    ),
    "computed_kernel": (
        lambda: (Apply(lambda s, a: functional.conv1d(a, a[:, :, :3])), torch.randn(5, 5, 12)),
        "a kernel that depends on an input",
    ),
    "computed_shape": (
        lambda: (Apply(lambda s, a: torch.special.i1(s.l(a)).sum(-1), **linears(l=(12, 12))), sequences()),
        "the front end does not know this operation",
    ),
    "places_and_values": (
        lambda: (Apply(lambda s, a: torch.cummax(s.l(a), 1), **linears(l=(12, 12))), sequences()),
        "the front end does not know this operation",
    ),
    "of_another_shape": (
        lambda: (Apply(lambda s, a: torch.linalg.qr(s.l(a))[0], **linears(l=(12, 12))), sequences()),
        "the front end does not know this operation",
    ),
    "of_whole_numbers": (
        lambda: (
            Apply(
                lambda s, a: s.l(a)[:, torch.bucketize(s.l(a)[0, :, 0].contiguous(), a[0, :4, 1].sort()[0])],
                **linears(l=(12, 12)),
            ),
            sequences(),
        ),
        "edges that depend on an input",
    ),
    "nan_weights": (lambda: (_with_nan(), sequences()), "every weight must be a finite float32 number"),
}


def _with_nan() -> nn.Module:
    layer = nn.Linear(12, 3)
    nn.init.constant_(layer.weight, float("nan"))
    return nn.Sequential(layer)


@pytest.mark.parametrize("name", REFUSALS)
def test_what_cannot_be_lowered_is_refused_at_its_node(name: str) -> None:
    build, rule = REFUSALS[name]
    message = refused(*build())
    assert message.startswith("node '") and rule in message
    assert re.search(r"\.py:\d+: ", message)


WAYS_OUT = [name for name in REFUSALS if name != "nan_weights"]


@pytest.mark.parametrize("choice", ["vector", "free"])
@pytest.mark.parametrize("name", WAYS_OUT)
def test_the_way_out_of_every_refusal_works(name: str, choice: str) -> None:
    """Treated as the message says, again and again if there is more, the model has outputs of torch's shapes."""
    model, inputs = REFUSALS[name][0]()
    treat: dict[str, Any] = {}
    for _ in range(6):
        try:
            exported = export_network(model.eval(), (inputs,), treat=treat)
            break
        except InputError as error:
            message = str(error)
            offered = re.findall(r"--treat ([\w.]+)=(free|vector)", message)
            node = re.match(r"node '(\w+)'", message)
            assert offered and node and node[1] == offered[0][0], message
            choices = {way for _, way in offered}
            treat[offered[0][0]] = choice if choice in choices else "vector"
    else:
        pytest.fail(f"still refused with {treat}")
    assert treat and len(exported.treated) == len(treat)
    with torch.no_grad():
        wanted = model(inputs)
    shapes = [tuple(one.shape) for one in torch.utils._pytree.tree_leaves(wanted)]
    assert [port.shape for port in exported.network.outputs] == shapes
    program = lower(model, Machine.load("mid-32"), example_inputs=(inputs,), treat=treat)
    assert program.provenance["treated"].split("; ") == list(exported.treated)
    arrays = {port.name: inputs.double().numpy() for port in program.network.inputs}  # type: ignore[union-attr]
    assert all(np.isfinite(array).all() for array in execute_network(program, arrays).values())


def test_a_training_model_is_refused() -> None:
    with pytest.raises(InputError) as caught:
        export_network(nn.Linear(2, 2), torch.randn(1, 2))
    assert (
        str(caught.value)
        == "model: found training mode; the front end takes models in evaluation mode. Call model.eval()."
    )
    # A list that was made anew is in training mode, whatever the model is.
    model = nn.Sequential(nn.Linear(2, 2)).eval()
    model.append(nn.Dropout())
    with pytest.raises(InputError, match=r"model, module '1': found training mode; .* Call model\.eval\(\)"):
        export_network(model, torch.randn(1, 2))


def test_a_branch_on_data_is_refused() -> None:
    message = refused(Apply(lambda s, a: a if a.sum() > 0 else -a), sequences())
    assert message.startswith(f"model Apply: found {__file__}:")
    assert "a branch or a shape depends there on the values of 'inputs_0', and the network has static shapes" in message


def test_a_shape_that_depends_on_data_is_refused() -> None:
    message = refused(Apply(lambda s, a: s.l(a).nonzero(), **linears(l=(12, 12))), sequences())
    assert message.startswith(f"model Apply: found {__file__}:")
    assert "a branch or a shape depends there on the values of" in message and "--by-example" in message


def test_a_layer_without_outputs_is_nothing_to_compute() -> None:
    layer = nn.Linear(12, 1)
    layer.weight = nn.Parameter(torch.zeros(0, 12))
    layer.bias = None  # type: ignore[assignment]
    message = refused(nn.Sequential(layer), sequences())
    assert message.startswith("model Sequential: found no output that depends on an input (of 1)")


def test_complex_inputs_are_refused() -> None:
    message = refused(nn.Identity(), torch.zeros(2, 3, dtype=torch.complex64))
    assert message == "input 'input': found torch.complex64; activations are real. Give real and imaginary parts apart."


def test_treatments_are_checked() -> None:
    model = Summed()
    assert refused(model, sequences(), treat={"lgamma": "cheap"}) == (
        "treatment of 'lgamma': found 'cheap'; it is 'free' or 'vector'. Choose one of them."
    )
    assert refused(model, sequences(), treat={"lgamma": "free", "cumsun": "free"}) == (
        "treatment of 'cumsun': found nothing of that name; it names a node, an operation, or a module with an operation "
        "that is not known. Take the name from the message about the operation."
    )
    products = Apply(lambda s, a: s.l(a) @ a.transpose(1, 2), **linears(l=(12, 12)))
    assert refused(products, sequences(), treat={"matmul": "free"}) == (
        "treatment of 'matmul': found 'free'; aten.matmul.default is a product, whose multiplications cost something. "
        "Use matmul=vector, or a plug-in lowering function."
    )


def test_dropout_that_is_on_is_refused() -> None:
    with pytest.raises(lower_views.layout.LayoutError, match="dropout is on in a model that is in evaluation mode"):
        lower_views._dropout(Builder(), {"train": True})
