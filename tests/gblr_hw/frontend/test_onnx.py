"""ONNX models: each operator against onnxruntime, whole networks as programs, and what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from gblr_hw import lower
from gblr_hw.frontend.onnx_models.onnx_module import load_onnx
from simulator import InputError, Machine, execute_network

EDGE = Machine.load("edge-16")


def drawn(*shape: int) -> np.ndarray:
    return (np.random.default_rng(sum(shape)).normal(size=shape) * 0.5).astype(np.float32)


def saved(
    folder: Path, nodes: Sequence[Any], inputs: dict[str, Sequence[int | str]], constants: dict[str, np.ndarray],
    outputs: Sequence[str] = ("y",), opset: int = 17, kind: int = TensorProto.FLOAT,
) -> Path:  # fmt: skip
    """An ONNX file; shapes of outputs are left to inference."""
    values = [helper.make_tensor_value_info(name, kind, list(shape)) for name, shape in inputs.items()]
    results = [helper.make_empty_tensor_value_info(name) for name in outputs]
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(list(nodes), "g", values, results, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    model = onnx.shape_inference.infer_shapes(model)
    path = folder / "net.onnx"
    onnx.save(model, str(path))
    return path


def both(path: Path) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Our module's outputs and the runtime's, on the example inputs."""
    module, inputs = load_onnx(path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    feeds = {one.name: value.numpy() for one, value in zip(session.get_inputs(), inputs, strict=True)}
    found = module(*inputs)
    found = found if isinstance(found, tuple) else (found,)
    return [one.detach().numpy() for one in found], session.run(None, feeds)


ints = np.array
SHAPE = (2, 3, 6, 5)
OPERATORS: dict[str, tuple[Any, dict[str, np.ndarray]]] = {
    **{name: (helper.make_node(name, ["x"], ["y"]), {}) for name in (
        "Exp", "Neg", "Abs", "Erf", "Sin", "Cos", "Tanh", "Sigmoid", "Relu", "Identity", "Softplus", "HardSwish", "Mish",
        "Floor", "Ceil", "Round", "Sign", "LeakyRelu", "Elu", "HardSigmoid", "Softmax", "LogSoftmax", "GlobalAveragePool",
        "GlobalMaxPool", "Transpose", "Flatten", "Dropout", "ReduceMean", "ReduceMax")},
    **{name: (helper.make_node(name, ["x", "c"], ["y"]), {"c": drawn(5)}) for name in ("Add", "Sub", "Mul", "Div", "Max", "Min")},
    "constant first": (helper.make_node("Sub", ["c", "x"], ["y"]), {"c": drawn(6, 1)}),
    "power": (helper.make_node("Pow", ["x", "c"], ["y"]), {"c": np.float32(2)}),
    "prelu": (helper.make_node("PRelu", ["x", "c"], ["y"]), {"c": drawn(3, 1, 1)}),
    "clip": (helper.make_node("Clip", ["x", "low", "high"], ["y"]), {"low": np.float32(-0.1), "high": np.float32(0.3)}),
    "softmax of an axis": (helper.make_node("Softmax", ["x"], ["y"], axis=1), {}),
    "matmul": (helper.make_node("MatMul", ["x", "c"], ["y"]), {"c": drawn(5, 4)}),
    "batched matmul": (helper.make_node("MatMul", ["x", "c"], ["y"]), {"c": drawn(3, 5, 4)}),
    "einsum": (helper.make_node("Einsum", ["x", "c"], ["y"], equation="bchw,wk->bchk"), {"c": drawn(5, 4)}),
    "conv": (helper.make_node("Conv", ["x", "k", "b"], ["y"], pads=[1, 0, 1, 0], strides=[2, 1]), {"k": drawn(4, 3, 3, 2), "b": drawn(4)}),
    "conv padded unevenly": (helper.make_node("Conv", ["x", "k"], ["y"], pads=[1, 0, 0, 2]), {"k": drawn(4, 3, 3, 2)}),
    "conv same upper": (helper.make_node("Conv", ["x", "k"], ["y"], auto_pad="SAME_UPPER", strides=[2, 2]), {"k": drawn(4, 3, 2, 3)}),
    "conv same lower": (helper.make_node("Conv", ["x", "k"], ["y"], auto_pad="SAME_LOWER", strides=[2, 2]), {"k": drawn(4, 3, 2, 3)}),
    "grouped conv": (helper.make_node("Conv", ["x", "k"], ["y"], group=3, dilations=[2, 1]), {"k": drawn(6, 1, 2, 2)}),
    "conv transpose": (helper.make_node("ConvTranspose", ["x", "k"], ["y"], strides=[2, 2], output_padding=[1, 0]), {"k": drawn(3, 4, 2, 3)}),
    "max pool": (helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], strides=[2, 2], pads=[0, 0, 0, 1]), {}),
    "average pool": (helper.make_node("AveragePool", ["x"], ["y"], kernel_shape=[3, 2], pads=[1, 0, 1, 0]), {}),
    "batch norm": (helper.make_node("BatchNormalization", ["x", "s", "b", "m", "v"], ["y"]),
                   {"s": drawn(3), "b": drawn(3) + 1, "m": drawn(3), "v": np.abs(drawn(3)) + 1}),
    "layer norm": (helper.make_node("LayerNormalization", ["x", "s", "b"], ["y"], axis=-1), {"s": drawn(5), "b": drawn(5)}),
    "instance norm": (helper.make_node("InstanceNormalization", ["x", "s", "b"], ["y"]), {"s": drawn(3), "b": drawn(3)}),
    "reshape": (helper.make_node("Reshape", ["x", "c"], ["y"]), {"c": ints([0, -1, 5])}),
    "permute": (helper.make_node("Transpose", ["x"], ["y"], perm=[0, 2, 3, 1]), {}),
    "flatten at 2": (helper.make_node("Flatten", ["x"], ["y"], axis=2), {}),
    "unsqueeze": (helper.make_node("Unsqueeze", ["x", "c"], ["y"]), {"c": ints([1, -1])}),
    "concat": (helper.make_node("Concat", ["x", "c"], ["y"], axis=1), {"c": drawn(2, 1, 6, 5)}),
    "slice": (helper.make_node("Slice", ["x", "s", "e", "a", "t"], ["y"]),
              {"s": ints([1, -4]), "e": ints([2**31, -1]), "a": ints([1, 2]), "t": ints([1, 2])}),
    "slice backwards": (helper.make_node("Slice", ["x", "s", "e", "a", "t"], ["y"]),
                        {"s": ints([-1]), "e": ints([-(2**31)]), "a": ints([2]), "t": ints([-2])}),
    "gather": (helper.make_node("Gather", ["x", "c"], ["y"], axis=2), {"c": ints([3, -1, 0])}),
    "gather one": (helper.make_node("Gather", ["x", "c"], ["y"], axis=1), {"c": np.int64(-1)}),
    "expand": (helper.make_node("Expand", ["x", "c"], ["y"]), {"c": ints([4, 1, 1, 1, 1])}),
    "tile": (helper.make_node("Tile", ["x", "c"], ["y"]), {"c": ints([1, 2, 1, 3])}),
    "pad": (helper.make_node("Pad", ["x", "c", "v"], ["y"]), {"c": ints([0, 0, 1, 2, 0, 0, 0, 3]), "v": np.float32(1.5)}),
    "pad by reflection": (helper.make_node("Pad", ["x", "c"], ["y"], mode="reflect"), {"c": ints([0, 0, 1, 2, 0, 0, 0, 3])}),
    "sum of an axis": (helper.make_node("ReduceSum", ["x", "c"], ["y"], keepdims=0), {"c": ints([1])}),
    "norm": (helper.make_node("ReduceL2", ["x"], ["y"], axes=[3]), {}),
    "nearest": (helper.make_node("Resize", ["x", "", "c"], ["y"], mode="nearest", nearest_mode="floor",
                                 coordinate_transformation_mode="asymmetric"), {"c": np.array([1, 1, 2, 3], np.float32)}),
    "bilinear": (helper.make_node("Resize", ["x", "", "c"], ["y"], mode="linear"), {"c": np.array([1, 1, 2, 2], np.float32)}),
    "where": (helper.make_node("Where", ["m", "x", "c"], ["y"]), {"m": np.array([True, False, True, True, False]), "c": np.float32(-1)}),
}  # fmt: skip


@pytest.mark.parametrize("name", OPERATORS)
def test_each_operator_does_what_the_runtime_does(name: str, tmp_path: Path) -> None:
    node, constants = OPERATORS[name]
    opset = 18 if node.op_type == "Mish" else 17
    ours, theirs = both(saved(tmp_path, [node], {"x": SHAPE}, constants, opset=opset))
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-6, rtol=1e-5)


def test_split_has_several_outputs(tmp_path: Path) -> None:
    node = helper.make_node("Split", ["x", "c"], ["a", "b"], axis=2)
    ours, theirs = both(saved(tmp_path, [node], {"x": SHAPE}, {"c": ints([4, 2])}, outputs=("a", "b")))
    assert [one.shape for one in ours] == [one.shape for one in theirs]


def attention(folder: Path, tokens: int | str = 5) -> Path:
    """Pre-norm attention with residual; the reshapes' sizes come from the input's shape, as exporters write them."""
    nodes = [
        helper.make_node("LayerNormalization", ["x", "s", "b"], ["n"], axis=-1),
        helper.make_node("Shape", ["n"], ["shape"]),
        helper.make_node("Gather", ["shape", "one"], ["length"], axis=0),
        helper.make_node("Unsqueeze", ["length", "axis"], ["length1"]),
        helper.make_node("Concat", ["batch", "length1", "heads"], ["split"], axis=0),
        *(node for letter in "qkv" for node in (
            helper.make_node("MatMul", ["n", f"{letter}.weight"], [f"{letter}0"]),
            helper.make_node("Reshape", [f"{letter}0", "split"], [f"{letter}1"]),
            helper.make_node("Transpose", [f"{letter}1"], [f"{letter}2"], perm=[0, 2, 1, 3] if letter != "k" else [0, 2, 3, 1]))),
        helper.make_node("MatMul", ["q2", "k2"], ["raw"]),
        helper.make_node("Mul", ["raw", "scale"], ["scaled"]),
        helper.make_node("Softmax", ["scaled"], ["p"], axis=-1),
        helper.make_node("MatMul", ["p", "v2"], ["mixed"]),
        helper.make_node("Transpose", ["mixed"], ["back"], perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", ["back", "whole"], ["rows"]),
        helper.make_node("MatMul", ["rows", "o.weight"], ["o"]),
        helper.make_node("Add", ["o", "o.bias"], ["o1"]),
        helper.make_node("Add", ["x", "o1"], ["y"]),
    ]  # fmt: skip
    constants = {
        "s": drawn(16), "b": drawn(16), "one": np.int64(1), "axis": ints([0]), "batch": ints([-1]), "heads": ints([2, 8]),
        "whole": ints([0, 0, 16]), "scale": np.float32(8**-0.5), "o.weight": drawn(16, 16), "o.bias": drawn(16),
        **{f"{letter}.weight": drawn(16, 16) + i for i, letter in enumerate("qkv")},
    }  # fmt: skip
    return saved(folder, nodes, {"x": ("batch", tokens, 16)}, constants)


def test_a_whole_network_lowers_and_computes_what_the_runtime_does(tmp_path: Path) -> None:
    path = attention(tmp_path)
    ours, theirs = both(path)
    np.testing.assert_allclose(ours[0], theirs[0], atol=1e-5)
    module, inputs = load_onnx(path)
    program = lower(module, EDGE, example_inputs=inputs)
    assert {"q", "k", "v", "o"} <= {layer.name for layer in program.layers}
    (found,) = execute_network(program, {program.network.inputs[0].name: inputs[0].numpy()}).values()  # type: ignore[union-attr]
    np.testing.assert_allclose(found, theirs[0], atol=1e-5)


def test_free_dimensions_are_asked_for(tmp_path: Path) -> None:
    path = attention(tmp_path, tokens="length")
    with pytest.raises(InputError, match=r"input 'x': found axis 1 is free; .* Give it: --size x.1=N"):
        load_onnx(path)
    assert load_onnx(path, {"x.1": 7, "0": 2})[1][0].shape == (2, 7, 16)


def test_quantised_weights_are_what_their_codes_stand_for(tmp_path: Path) -> None:
    codes = np.random.default_rng(1).integers(-127, 128, (5, 4)).astype(np.int8)
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "xs", "xz"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "xs", "xz"], ["xd"]),
        helper.make_node("DequantizeLinear", ["w", "ws"], ["wd"], axis=1),
        helper.make_node("MatMul", ["xd", "wd"], ["y"]),
    ]
    steps = np.array([0.01, 0.02, 0.03, 0.04], np.float32)
    constants = {"xs": np.float32(2**-9), "xz": np.int8(0), "w": codes, "ws": steps}
    module, inputs = load_onnx(saved(tmp_path, nodes, {"x": (3, 5)}, constants))
    np.testing.assert_allclose(module(*inputs).detach().numpy(), inputs[0].numpy() @ (codes * steps), atol=1e-6)


def test_a_table_is_looked_up_by_integer_inputs(tmp_path: Path) -> None:
    node = helper.make_node("Gather", ["table", "x"], ["y"])
    path = saved(tmp_path, [node], {"x": (2, 3)}, {"table": drawn(9, 4)}, kind=TensorProto.INT64)
    ours, theirs = both(path)
    np.testing.assert_array_equal(ours[0], theirs[0])


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (helper.make_node("NonZero", ["x"], ["y"]), r"node 'y' \(NonZero\): found an operator that is not known"),
        (helper.make_node("Reshape", ["x", "x"], ["y"]), "no valid ONNX model"),
        (helper.make_node("Resize", ["x", "", "c"], ["y"], mode="cubic"), "mode 'cubic'"),
    ],
)
def test_what_is_refused(node: Any, message: str, tmp_path: Path) -> None:
    constants = {"c": np.array([1, 1, 2, 2], np.float32)}
    with pytest.raises(InputError, match=message):
        try:
            path = saved(tmp_path, [node], {"x": SHAPE}, constants)
        except onnx.shape_inference.InferenceError:
            path = tmp_path / "net.onnx"
            path.write_bytes(b"no model")
        load_onnx(path)


def test_files_that_are_no_models(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        load_onnx(tmp_path / "none.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"\x00" * 100)
    with pytest.raises(InputError, match="no valid ONNX model"):
        load_onnx(tmp_path / "bad.onnx")
