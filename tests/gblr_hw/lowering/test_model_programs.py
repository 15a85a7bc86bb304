"""Small networks of every architecture as programs: they compute what torch does, dense and with GBLR layers."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np
import pytest
import torch

from gblr_hw import lower
from gblr_hw.frontend import ExportedNetwork, export_network, multiplications_of
from gblr_hw.frontend.random_gblr import replace_by_random_gblr
from gblr_hw.layers.linear import GBLRLinear
from gblr_hw.lowering.calibration_batches import port_arrays
from gblr_hw.lowering.whole_network import lower_network
from gblr_hw.weights.stored import DenseWeights
from simulator.base.errors import InputError
from simulator.machine.machine import Machine
from simulator.numbers.execute import execute
from simulator.numbers.execute_network import execute_network
from simulator.program.operations import Op
from simulator.program.program import Program
from simulator.timing.durations import resolve_timing
from simulator.timing.engine import run_engine
from simulator.timing.simulate import simulate
from tests.drawn.frontend_models import MODELS, outputs_of, small_model
from tests.oracles.hazards import orders

_MID = Machine.load("mid-32")
MACHINES = {
    "mid-32": _MID,
    "plain-32": Machine.load("plain-32"),
    "cloud-128": Machine.load("cloud-128"),
    # Hardly any room, slow memory: blocks, spills and reloads everywhere.
    "tight-8": _MID.with_(
        name="tight-8",
        array={"rows": 8, "cols": 8},
        scratchpad={"kib": 4},
        accumulator={"kib": 1},
        weight_buffer={"kib": 1},
        dma={"engines": 1},
        dram={"gb_per_s": 1.0},
        vector={"lanes": 4},
    ),
}
# Float programs hold weights in float32, and transformers keeps rotary tables in it.
_TOLERANCE = 1e-5


def _check(program: Program, model: torch.nn.Module, inputs: tuple[torch.Tensor, ...], orders_: Iterator) -> None:  # type: ignore[type-arg]
    assert program.network is not None
    arrays = port_arrays(program.network.inputs, inputs)
    wanted = outputs_of(model, inputs)
    for order in orders_:
        found = execute_network(program, arrays, order=order)
        assert len(found) == len(wanted)
        for got, want in zip(found.values(), wanted, strict=True):
            np.testing.assert_allclose(got, want, rtol=0, atol=_TOLERANCE * np.abs(want).max())


@cache  # an export takes longer than everything behind it
def _exported(name: str, gblr: float) -> tuple[ExportedNetwork, torch.nn.Module, tuple[torch.Tensor, ...]]:
    model, inputs = small_model(name)
    if gblr < 1:
        replace_by_random_gblr(model, gblr)
    return export_network(model, inputs), model, inputs


def _multiplications(program: Program) -> int:
    return sum(layer.multiplications for layer in program.layers)


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("name", MODELS)
def test_a_program_computes_what_torch_does(name: str, machine: str) -> None:
    exported, model, inputs = _exported(name, 1)
    program = lower_network(exported.network, exported.weights, MACHINES[machine])
    timing = resolve_timing(program, program.machine)
    _check(program, model, inputs, iter((None, *orders(timing, run_engine(timing)).values())))


@pytest.mark.parametrize("name", MODELS)
def test_gblr_layers_compute_what_torch_does_and_multiply_less(name: str) -> None:
    dense, _, _ = _exported(name, 1)
    exported, model, inputs = _exported(name, 0.5)
    program = lower_network(exported.network, exported.weights, MACHINES["tight-8"])
    _check(program, model, inputs, iter((None,)))
    assert _multiplications(program) < _multiplications(
        lower_network(dense.network, dense.weights, MACHINES["tight-8"])
    )


@pytest.mark.parametrize("name", MODELS)
def test_the_report_counts_the_multiplications_of_the_graph(name: str) -> None:
    exported, _, _ = _exported(name, 1)
    program = lower_network(exported.network, exported.weights, _MID)
    report = simulate(program, _MID)
    counted = multiplications_of(exported.network, exported.weights)
    of_layer = {layer.name: layer.multiplications * layer.tokens for layer in report.layers if layer.multiplications}
    assert of_layer == {name: count for name, count in counted.items() if count}


def test_decode_is_bound_by_the_bytes_of_weights_and_cache() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(512, 512), torch.nn.ReLU(), torch.nn.Linear(512, 512)).eval()
    program = lower(model, _MID, example_inputs=(torch.randn(1, 512),))
    report = simulate(program, _MID)
    assert report.bound == "memory"
    assert report.roofline_fraction > 0.9
    many = simulate(lower(model, _MID, example_inputs=(torch.randn(256, 512),)), _MID)
    assert many.bound == "compute"


def test_int8_needs_calibration_and_then_stays_close() -> None:
    model, inputs = small_model("digits_vit")
    arrays = port_arrays(export_network(model, inputs).network.inputs, inputs)
    with pytest.raises(InputError, match="step"):
        execute_network(lower(model, _MID, example_inputs=inputs), arrays, "int8")
    program = lower(model, _MID, example_inputs=inputs, calibration=[inputs, inputs])
    (got,) = execute_network(program, arrays, "int8").values()
    (want,) = outputs_of(model, inputs)
    cosine = (got * want).sum() / np.linalg.norm(got) / np.linalg.norm(want)
    assert cosine > 0.99


def test_a_wide_head_is_cut_where_the_parameter_memory_ends() -> None:
    torch.manual_seed(0)
    model = torch.nn.Linear(8, 300).double().eval()
    machine = _MID.with_(name="narrow", vector={"parameter_kib": 2})
    inputs = (torch.randn(3, 8).double(),)
    program = lower(model, machine, example_inputs=inputs)
    assert [layer.name for layer in program.layers] == ["linear[0:128]", "linear[128:256]", "linear[256:300]"]
    _check(program, model, inputs, iter((None,)))
    whole = torch.nn.Sequential(model).eval()
    replace_by_random_gblr(whole, 0.5)
    _check(lower(whole, machine, example_inputs=inputs), whole, inputs, iter((None,)))


def test_a_wide_layer_is_cut_as_a_wide_operator_is() -> None:
    torch.manual_seed(0)
    machine = _MID.with_(name="narrow", vector={"parameter_kib": 2})
    x = np.random.default_rng(0).normal(size=(5, 8))
    ranks = GBLRLinear(8, 300, 6, gaussian=False).weights()
    for weights in (DenseWeights(torch.randn(300, 8), torch.randn(300)), ranks):
        (whole,) = execute(lower({"head": weights}, _MID, tokens=5), {"head": x}).values()
        program = lower({"first": DenseWeights(torch.ones(4, 4)), "head": weights}, machine, tokens=5)
        names = [layer.name for layer in program.layers]
        assert names[0] == "first"
        assert names[1:3] == ["head[0:128]", "head[128:256]"] or weights is ranks
        parts = execute(program, dict.fromkeys(names[1:], x))
        np.testing.assert_allclose(np.concatenate([parts[name] for name in names[1:]], axis=-1), whole, atol=1e-5)


class _Tied(torch.nn.Module):
    """A language model's head that shares its weights with the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = torch.nn.Embedding(11, 6), torch.nn.Linear(6, 11, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.embedding(ids)))


def test_tied_weights_are_a_table_and_a_layer() -> None:
    torch.manual_seed(0)
    model, inputs = _Tied().eval(), (torch.randint(0, 11, (2, 5)),)
    program = lower(model, _MID, example_inputs=inputs)
    assert [layer.name for layer in program.layers if layer.form == "dense"] == ["head"]
    _check(program, model, inputs, iter((None,)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_weights_are_used_as_they_are(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(9, 12), torch.nn.ReLU(), torch.nn.Linear(12, 4)).to(dtype).eval()
    inputs = (torch.randn(3, 9).to(dtype),)
    program = lower(model, _MID, example_inputs=inputs)
    _check(program, model.double(), tuple(one.double() for one in inputs), iter((None,)))


def test_calibration_batches_must_be_like_the_example() -> None:
    model = torch.nn.Linear(8, 8).eval()
    with pytest.raises(InputError, match=r"calibration batch 1: found shapes .*\(2, 7\).*exported with .*\(2, 8\)"):
        lower(model, _MID, example_inputs=(torch.ones(2, 8),), calibration=[torch.ones(2, 8), torch.ones(2, 7)])


def test_execute_of_single_layers_names_the_one_for_networks() -> None:
    exported, _, _ = _exported("digits_vit", 1)
    program = lower_network(exported.network, exported.weights, _MID)
    with pytest.raises(InputError, match="`execute` runs single layers. Run it .* with `execute_network`"):
        execute(program, {program.layers[0].name: np.ones((1, 4))})


def test_a_checkpoint_has_no_operations_around_its_layers() -> None:
    with pytest.raises(InputError, match="only a model has operations around its layers"):
        lower({}, _MID, example_inputs=(torch.ones(1, 8),))


def test_a_program_of_a_model_survives_its_file(tmp_path) -> None:
    model, inputs = small_model("gpt2_decode")
    program = lower(model, _MID, example_inputs=inputs, calibration=[inputs])
    program.save(tmp_path / "a.program")
    again = Program.load(tmp_path / "a.program")
    again.save(tmp_path / "b.program")
    assert (tmp_path / "a.program").read_bytes() == (tmp_path / "b.program").read_bytes()
    arrays = port_arrays(again.network.inputs, inputs)
    for mode in ("float", "int8"):
        got, want = (execute_network(p, arrays, mode) for p in (again, program))
        assert all(np.array_equal(got[name], want[name]) for name in want)
    assert np.count_nonzero(again.instructions.op == Op.VECTOR)


def test_more_rows_than_the_most_blocks_hold_are_worked_on_in_blocks_all_the_same() -> None:
    """1,024 blocks of 16 rows is what fits; one row more was worked on row by row."""
    cycles = {}
    for rows in (16384, 16385, 40000):
        inputs = torch.ones(1).expand(rows, 6)
        program = lower(torch.nn.Linear(6, 3).eval(), MACHINES["tight-8"], example_inputs=(inputs,))
        cycles[rows] = int(run_engine(resolve_timing(program, program.machine)).done.max()) / rows
    assert cycles[16385] == pytest.approx(cycles[16384], rel=0.02)
    assert cycles[40000] == pytest.approx(cycles[16384], rel=0.02)


def test_rows_have_a_limit_that_is_told_before_the_work() -> None:
    inputs = torch.ones(1).expand(2**23, 6)
    with pytest.raises(InputError, match=r"operator 'linear': found 8388608 rows; a program works on at most 4194304"):
        lower(torch.nn.Linear(6, 3).eval(), MACHINES["mid-32"], example_inputs=(inputs,))
