"""Models as they are called: containers and caches in and out, keyword arguments, whole numbers, half precision; what
depends on constants alone; what the user treats; and what is said where there is nothing to do.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gblr_hw import lower
from gblr_hw.frontend import ExportedNetwork, export_network
from gblr_hw.frontend.capture import named_tensors
from gblr_hw.frontend.containers import tensors_in, with_tensors
from gblr_hw.lowering.calibration_batches import port_arrays
from simulator.base.errors import InputError
from simulator.machine.machine import Machine
from simulator.numbers.execute_network import execute_network
from tests.drawn.relayout_models import Apply, linears, x
from tests.oracles.run_graph import run_graph

transformers = pytest.importorskip("transformers")

_MID = Machine.load("mid-32")


class Layer:
    """A part of a cache, as libraries write them: neither a container nor a dataclass."""

    def __init__(self, keys: Tensor) -> None:
        self.keys, self.count, self._private = keys, 3, torch.zeros(2)


class Cache:
    def __init__(self, *keys: Tensor) -> None:
        self.layers = [Layer(one) for one in keys]

    def update(self, number: int, keys: Tensor) -> Tensor:
        self.layers[number].keys = torch.cat([self.layers[number].keys, keys], 1)
        return self.layers[number].keys


class Pair(NamedTuple):
    left: Tensor
    right: Any


@dataclass
class Record:
    hidden: Tensor
    cache: Any = None


def test_every_tensor_of_a_container_is_found_by_name_and_put_back() -> None:
    one, two, three, four = (torch.full((1,), float(n)) for n in range(4))
    value = {"a": [one, None, "text"], "b": Pair(two, 7), "c": Record(three, Cache(four)), "d": nn.Linear(1, 1)}
    assert [path for path, _ in tensors_in(value)] == [
        ("a", "0"), ("b", "0"), ("c", "hidden"), ("c", "cache", "layers", "0", "keys"),
    ]  # fmt: skip
    again = with_tensors(value, iter([one + 10, two + 10, three + 10, four + 10]))
    assert [float(tensor) for _, tensor in tensors_in(again)] == [10.0, 11.0, 12.0, 13.0]
    assert [float(tensor) for _, tensor in tensors_in(value)] == [0.0, 1.0, 2.0, 3.0]
    assert again["a"][1:] == [None, "text"] and again["b"].right == 7 and again["d"] is value["d"]
    assert isinstance(again["c"].cache, Cache) and again["c"].cache.layers[0].count == 3
    circle: dict[str, Any] = {"x": one}
    circle["self"] = circle
    assert len(tensors_in(circle)) == 1


def test_names_are_the_signatures_and_the_order_is_the_calls() -> None:
    def forward(a: Tensor, b: Any = None, *rest: Tensor, key: Any = None, **more: Tensor) -> None:
        return None

    one, two, three, four = (torch.zeros(n + 1) for n in range(4))
    named = named_tensors(forward, (one, {"k": two}), {"z": four, "key": [three, one]})
    assert [(name, len(tensor)) for name, tensor in named] == [
        ("a", 1), ("b_k", 2), ("z", 4), ("key_0", 3), ("key_1", 1),
    ]  # fmt: skip
    assert [name for name, _ in named_tensors(forward, (one, None, two, three), {})] == ["a", "rest_0", "rest_1"]


class Decoder(nn.Module):
    """Keeps its keys in the cache that it is given, and returns it."""

    def __init__(self) -> None:
        super().__init__()
        self.k, self.table = nn.Linear(4, 4), nn.Embedding(9, 4)

    def forward(self, ids: Tensor, cache: Cache, scale: float = 2.0, mask: Tensor | None = None) -> Record:
        hidden = self.table(ids) * scale
        keys = cache.update(0, self.k(hidden))
        return Record(hidden + keys.mean(1, keepdim=True), cache)


def test_a_cache_goes_in_and_comes_out() -> None:
    torch.manual_seed(0)
    model = Decoder().double().eval()
    ids, past = torch.randint(0, 9, (2, 1)), torch.randn(2, 3, 4).double()
    kwargs = {"cache": Cache(past), "scale": 3.0}
    exported = export_network(model, (ids,), kwargs=kwargs)
    assert [port.name for port in exported.network.inputs] == ["ids", "cache_layers_0_keys"]
    assert [port.name for port in exported.network.outputs] == ["hidden", "cache.layers.0.keys"]
    found = run_graph(exported.network, exported.weights, [ids.numpy(), past.numpy()])
    with torch.no_grad():
        wanted = model(ids, Cache(past), scale=3.0)
    np.testing.assert_allclose(found["hidden"], wanted.hidden.numpy(), atol=1e-12)
    np.testing.assert_allclose(found["cache.layers.0.keys"], wanted.cache.layers[0].keys.numpy())
    assert kwargs["cache"].layers[0].keys is past  # type: ignore[attr-defined]
    program = lower(model, _MID, example_inputs=(ids,), kwargs=kwargs, calibration=[((ids,), kwargs)])
    arrays = port_arrays(program.network.inputs, ((ids,), kwargs))  # type: ignore[union-attr]
    np.testing.assert_allclose(execute_network(program, arrays)["hidden"], wanted.hidden.numpy(), rtol=1e-5, atol=1e-6)


LLAMA = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 6,
         "num_key_value_heads": 2, "vocab_size": 31, "max_position_embeddings": 20, "bos_token_id": None,
         "eos_token_id": None}  # fmt: skip


def agrees(exported: ExportedNetwork, inputs: Mapping[str, Tensor], wanted: Any, tolerance: float = 1e-5) -> None:
    arrays = [inputs[port.name].numpy() for port in exported.network.inputs]
    found = run_graph(exported.network, exported.weights, arrays)
    named = {".".join(path): tensor for path, tensor in tensors_in(wanted)}
    assert list(found) == list(named)
    for name, array in found.items():
        np.testing.assert_allclose(array, named[name].numpy(), atol=tolerance, err_msg=name)


def test_a_decoder_of_transformers_as_it_comes() -> None:
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**LLAMA)).eval()
    assert model.config.use_cache
    ids = torch.randint(0, 31, (1, 5))
    exported = export_network(model, {"input_ids": ids})
    assert [port.name for port in exported.network.outputs] == [
        "logits", *(f"past_key_values.layers.{n}.{what}" for n in range(2) for what in ("keys", "values")),
    ]  # fmt: skip
    with torch.no_grad():
        agrees(exported, {"input_ids": ids}, model(ids))


def test_a_decoder_of_transformers_with_what_it_has_cached() -> None:
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**LLAMA)).eval()
    first, second = torch.randint(0, 31, (1, 5)), torch.randint(0, 31, (1, 1))
    with torch.no_grad():
        cache = model(first).past_key_values
        exported = export_network(model, (second,), kwargs={"past_key_values": cache})
        inputs = {"input_ids": second} | {
            f"past_key_values_{'_'.join(path)}": tensor.clone() for path, tensor in tensors_in(cache)
        }
        agrees(exported, inputs, model(second, past_key_values=cache))


def test_a_mask_that_is_an_input() -> None:
    torch.manual_seed(0)
    model = transformers.LlamaModel(transformers.LlamaConfig(**LLAMA)).eval()
    inputs = {"input_ids": torch.randint(0, 31, (2, 5)), "attention_mask": torch.tensor([[1] * 5, [0, 1, 1, 1, 1]])}
    exported = export_network(model, inputs)
    with torch.no_grad():
        wanted = model(**inputs)
    arrays = [inputs[port.name].numpy() for port in exported.network.inputs]
    found = run_graph(exported.network, exported.weights, arrays)["last_hidden_state"]
    # A row that is all padding is anything: the framework's softmax and ours need not agree there.
    np.testing.assert_allclose(found[:, 1:], wanted.last_hidden_state[:, 1:].numpy(), atol=1e-5)


@pytest.mark.parametrize("padded", [False, True])
def test_the_fast_path_of_torchs_transformer(padded: bool) -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(12, 3, 20, batch_first=True)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    mask = torch.tensor([[False] * 5, [False, False, False, True, True]]) if padded else None
    inputs = (x(), None, mask) if padded else (x(),)
    exported = export_network(model, inputs)
    arrays = [value.numpy() for _, value in tensors_in(inputs)]
    (found,) = run_graph(exported.network, exported.weights, arrays).values()
    wanted = _without_fast_path(model, inputs)
    np.testing.assert_allclose(found, wanted.numpy(), atol=1e-5)


def _without_fast_path(model: nn.Module, inputs: tuple[Any, ...]) -> Tensor:
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad():
            return model(*inputs)
    finally:
        torch.backends.mha.set_fastpath_enabled(True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_throughout(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = transformers.LlamaModel(transformers.LlamaConfig(**LLAMA)).to(dtype).eval()
    ids = torch.randint(0, 31, (1, 5))
    exported = export_network(model, (ids,))
    assert f"Parameters in {dtype} are read as float32." in exported.notes
    with torch.no_grad():
        wanted = model.float()(ids)
    found = run_graph(exported.network, exported.weights, [ids.numpy()])
    np.testing.assert_allclose(found["last_hidden_state"], wanted.last_hidden_state.numpy(), atol=0.05)


def test_constants_are_computed_whatever_computes_them() -> None:
    def forward(s: Any, a: Tensor) -> Tensor:
        mask = torch.ones(5, dtype=torch.long).index_fill(0, torch.tensor([1]), 0)
        positions = torch.cumsum(mask, 0) * mask
        order = torch.argsort(torch.linalg.vector_norm(s.t[positions], dim=-1))
        return s.l(a) + s.t[positions][order] * torch.special.i0(s.t[0]).sum()

    model = Apply(forward, t=nn.Parameter(torch.randn(6, 12)), **linears(l=(12, 12))).double().eval()
    inputs = x().double()
    exported = export_network(model, inputs)
    assert not exported.notes
    with torch.no_grad():
        np.testing.assert_allclose(
            run_graph(exported.network, exported.weights, [inputs.numpy()])["output"], model(inputs).numpy()
        )


def test_what_follows_from_given_words_alone_is_worked_out_from_the_example() -> None:
    def forward(s: Any, ids: Tensor) -> Tensor:
        kinds = torch.bitwise_and(ids, 3)
        last = ids.argmax(-1)
        return (s.w(ids) + s.p(kinds))[torch.arange(2), last]

    model = Apply(forward, w=nn.Embedding(9, 4), p=nn.Embedding(9, 4)).double().eval()
    ids = torch.tensor([[2, 3, 8, 1], [4, 8, 5, 6]])
    exported = export_network(model, ids)
    assert exported.notes == (
        "'bitwise_and' (aten.bitwise_and.Scalar) is worked out once, from the example's 'inputs_0': the program is for "
        "inputs that give the same.",
    )
    with torch.no_grad():
        np.testing.assert_allclose(
            run_graph(exported.network, exported.weights, [ids.numpy()])["output"], model(ids).numpy()
        )


@pytest.mark.parametrize(
    ("model", "inputs", "message"),
    [
        (Apply(lambda s, a: s.w * 2, w=nn.Parameter(torch.ones(3))), (torch.ones(2),),
         "model Apply: found no output that depends on an input (of 1); a network computes something from its inputs. "
         "Return what the model computes, and give the inputs that it computes it from as tensors."),
        (Apply(lambda s, a: None), (torch.ones(2),), "model Apply: found no output that depends on an input (of 0); "),
        (nn.Linear(2, 2), (3,), "example inputs: found no tensor; a network computes something from its inputs. "),
        (nn.Linear(2, 2), (torch.ones(2), 3),
         "example inputs: found too many positional arguments; they are arguments of Linear.forward. Give positional "),
    ],
)  # fmt: skip
def test_nothing_to_compute_is_said_in_a_sentence(model: nn.Module, inputs: tuple[Any, ...], message: str) -> None:
    with pytest.raises(InputError) as caught:
        lower(model.eval(), _MID, example_inputs=inputs)
    assert str(caught.value).startswith(message)


def test_a_model_that_returns_its_input_is_a_copy() -> None:
    inputs = torch.randn(2, 5)
    program = lower(nn.Identity().eval(), _MID, example_inputs=inputs)
    (found,) = execute_network(program, {"input": inputs.numpy()}).values()
    np.testing.assert_allclose(found, inputs.numpy())


class Noisy(nn.Module):
    def forward(self, a: Tensor) -> Tensor:
        logging.getLogger("torch").warning("this is about the library, not about the model")
        import warnings

        warnings.warn("nor is this", stacklevel=1)
        return a * 2


@pytest.fixture
def stderr_handler() -> Iterator[None]:
    handler = logging.StreamHandler()
    logging.getLogger("torch").addHandler(handler)
    yield
    logging.getLogger("torch").removeHandler(handler)


def test_an_export_is_quiet_and_leaves_logging_as_it_was(stderr_handler: None, capfd) -> None:
    before = logging.root.manager.disable
    export_network(Noisy().eval(), torch.ones(2, 3))
    assert capfd.readouterr() == ("", "")
    assert logging.root.manager.disable == before


class Drawing(nn.Module):
    """Noise at every call, and places in a random order."""

    def forward(self, a: Tensor) -> Tensor:
        order = torch.rand(a.shape[1]).argsort()
        return a[:, order] + torch.randn_like(a.t() * 2).t()


def test_one_draw_of_random_numbers_is_kept_and_noted() -> None:
    model, inputs = Drawing().eval(), torch.randn(2, 5)
    before = torch.random.get_rng_state()
    exported = export_network(model, inputs)
    assert torch.equal(before, torch.random.get_rng_state())
    drawn = [note for note in exported.notes if "draws random numbers at every call" in note]
    assert len(drawn) == 2 and all("after torch.manual_seed(0)" in note and __file__ in note for note in drawn)
    found = run_graph(exported.network, exported.weights, [inputs.numpy()])["output"]
    torch.manual_seed(0)
    np.testing.assert_allclose(found, model(inputs), atol=1e-6)


@pytest.mark.parametrize("nested", [True, False])
def test_padded_rows_of_an_encoder_are_computed_and_noted(nested: bool) -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True)
    model = nn.TransformerEncoder(layer, 1, enable_nested_tensor=nested).eval()
    inputs, hidden = torch.randn(2, 4, 8), torch.tensor([[False] * 4, [False, False, True, True]])
    exported = export_network(model, (inputs,), kwargs={"src_key_padding_mask": hidden})
    found = run_graph(exported.network, exported.weights, [inputs.numpy(), hidden.numpy()])["output"]
    wanted = model(inputs, src_key_padding_mask=hidden)  # with gradients: not the fast path
    np.testing.assert_allclose(found, wanted.detach().numpy(), atol=1e-5)
    assert any("src_key_padding_mask" in note for note in exported.notes) == nested
