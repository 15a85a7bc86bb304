"""BLAST layers in two stages: the same function, faster than whole, never slower than dense."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from gblr_hw import BLASTLinear, lower
from gblr_hw.lowering.chains.stage_blast import least_whole, stages_of
from gblr_hw.lowering.emit.emit import emit
from gblr_hw.lowering.lower_parts import _staged
from gblr_hw.lowering.passes.block_tokens import input_half_bytes
from gblr_hw.weights.chains import BLASTWeights
from gblr_hw.weights.stored import DenseWeights
from simulator import InputError, Machine, Program, execute, execute_network, simulate
from simulator.program.parse_listing import parse_program
from simulator.program.schedule import Slice
from simulator.timing.durations import resolve_timing
from simulator.timing.engine import run_engine
from tests.drawn.random_programs import generator
from tests.oracles.hazards import hazards

SMALL = Machine.load("edge-16").with_(name="small", rank_memory={"kib": 4}, dram={"gb_per_s": 20.0})


def blast(seed: int, sides: tuple[int, int], blocks: tuple[int, int], rank: int, *, bias: bool = True) -> BLASTWeights:
    torch.manual_seed(seed)
    with torch.no_grad():
        layer = BLASTLinear(*sides, blocks, rank, bias=bias)
        layer.D.normal_()
        return layer.weights()


def in_stages(
    weights: BLASTWeights, examples: np.ndarray | None = None, machine: Machine = SMALL, tokens: int = 60
) -> Program:
    stages = stages_of("q", weights, machine, tokens)
    assert stages is not None
    return emit(_staged(stages, machine, tokens, examples, ()), machine, tokens, {})


def assert_same_function(weights: BLASTWeights, program: Program) -> None:
    x = generator(3).normal(size=(program.tokens + 1, weights.in_features))
    bias = 0.0 if weights.bias is None else weights.bias.double().numpy()
    wanted = x @ weights.matrix().numpy().T + bias
    found = execute(program, {"q": x})["q"]
    assert np.abs(found - wanted).max() <= 1e-5 * np.abs(wanted).max()
    coarse = execute(program, {"q": x}, "int8")["q"]
    assert np.linalg.norm(coarse - wanted) <= 0.05 * np.linalg.norm(wanted)


@pytest.mark.parametrize(
    ("sides", "blocks", "rank", "bias"),
    [((96, 192), (3, 3), 48, True), ((120, 90), (3, 4), 37, False), ((64, 96), (2, 4), 40, True)],
)
def test_stages_compute_the_layer(sides, blocks, rank, bias):
    weights = blast(1, sides, blocks, rank, bias=bias)
    program = in_stages(weights)
    assert_same_function(weights, program)
    assert_same_function(weights, in_stages(weights, generator(4).normal(size=(800, sides[0]))))
    timing = resolve_timing(program, SMALL)
    assert hazards(program, SMALL, timing, run_engine(timing)) == []


@pytest.mark.parametrize(("rank", "tokens", "kib"), [(32, 60, 19), (32, 47, 18), (64, 53, 28)])
def test_products_whose_inputs_take_both_buffers_follow_each_other(rank, tokens, kib):
    """Chunks of the next product come while the one before still reads: none before its place is free."""
    machine = SMALL.with_(
        scratchpad={"kib": kib}, rank_memory={"kib": 8}, weight_buffer={"kib": 2}, dram={"gb_per_s": 6}
    )
    program = in_stages(blast(1, (64, 256), (8, 8), rank), machine=machine, tokens=tokens)
    sizes = [layer.in_features * layer.block_tokens for layer in program.layers if layer.sources]
    assert len(sizes) > 2
    assert max(sizes) > input_half_bytes(machine)
    timing = resolve_timing(program, machine)
    assert hazards(program, machine, timing, run_engine(timing)) == []
    assert_same_function(blast(1, (64, 256), (8, 8), rank), program)


def test_ranks_of_two_turns_keep_to_their_places():
    """More rows than one turn's places hold: the banks are filled for both turns, no bank above its half."""
    program = in_stages(blast(0, (192, 768), (6, 6), 96), machine=Machine.load("mid-32"), tokens=800)
    assert program.layers[0].held_slots > 0


def test_stages_are_taken_where_they_run_faster():
    """Beside the layer whole and dense, and no slower than what its tiles take."""
    machine, weights = Machine.load("edge-16"), blast(2, (768, 3072), (6, 6), 192)
    told: list[str] = []
    staged = lower({"q": weights}, machine, 197, dump=lambda stage, text: told.append(text))
    assert any("* in stages" in text for text in told)
    report = simulate(staged, machine)
    dense = lower({"q": DenseWeights(weights.matrix().float(), weights.bias)}, machine, 197)
    assert report.latency_cycles < 0.36 * simulate(dense, machine).latency_cycles
    assert report.latency_cycles < 1.1 * sum(layer.tiles for layer in report.layers) * 197
    assert least_whole(weights, machine, 197) > report.latency_cycles


def test_a_module_in_stages_takes_what_its_checkpoint_takes():
    """Its products read ahead from two places in turn, its ranks' turns are those of a block's rows."""
    machine, torch_layer = Machine.load("edge-16"), BLASTLinear(512, 1024, (8, 8), 192)
    with torch.no_grad():
        torch_layer.D.normal_()
    stored = simulate(lower({"q": torch_layer.weights()}, machine, 100), machine).latency_cycles
    program = lower(torch_layer.eval(), machine, example_inputs=(torch.randn(1, 100, 512),))
    assert len(program.layers) > 8
    assert simulate(program, machine).latency_cycles <= 1.01 * stored
    timing = resolve_timing(program, machine)
    assert hazards(program, machine, timing, run_engine(timing)) == []


def test_a_layer_that_fits_stays_whole():
    assert stages_of("q", blast(0, (96, 192), (3, 3), 24), Machine.load("mid-32"), 197) is None


def test_sources_are_kept_in_files_and_listings(tmp_path):
    program = in_stages(blast(1, (96, 192), (3, 3), 48))
    program.save(tmp_path / "q.program")
    for again in (Program.load(tmp_path / "q.program"), parse_program(str(program))):
        assert [layer.sources for layer in again.layers] == [layer.sources for layer in program.layers]
        assert str(again) == str(program)


def test_sources_that_are_not_there_are_refused():
    program = in_stages(blast(1, (96, 192), (3, 3), 48))
    *layers, last = program.layers
    for sources, message in (
        ((Slice("none", 0, 48),), "outputs 0 to 48 of 'none'; a layer reads outputs of layers before it"),
        ((*last.sources[:-1], Slice(layers[0].name, 0, 1)), "outputs; they are its .* inputs"),
    ):
        with pytest.raises(InputError, match=message):
            replace(program, layers=(*layers, replace(last, sources=sources)))


def latency(program: Program) -> int:
    return int(run_engine(resolve_timing(program, program.machine)).done.max())


class ByHand(nn.Module):
    """A BLAST layer as people write it; ``batched``: with bmm and a sum, else with einsum."""

    def __init__(self, layer: BLASTLinear, *, batched: bool) -> None:
        super().__init__()
        self.batched = batched
        self.C, self.D = nn.Parameter(layer.C.detach().clone()), nn.Parameter(layer.D.detach().clone())
        self.B = nn.Parameter(layer.B.detach().clone())
        self.bias = None if layer.bias is None else nn.Parameter(layer.bias.detach().clone())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = x.reshape(len(x), len(self.C), -1)
        if self.batched:
            inner = torch.bmm(rows.transpose(0, 1), self.C.transpose(1, 2))
            mixed = (inner[None] * self.D[:, :, None]).sum(1)
            outputs = torch.bmm(mixed, self.B.transpose(1, 2)).transpose(0, 1)
        else:
            inner = torch.einsum("njp,jrp->njr", rows, self.C)
            mixed = torch.einsum("njr,ijr->nir", inner, self.D)
            outputs = torch.einsum("nir,ipr->nip", mixed, self.B)
        outputs = outputs.reshape(len(x), -1)
        return outputs if self.bias is None else outputs + self.bias


@pytest.mark.parametrize(
    ("sides", "blocks", "rank", "bias", "staged"),
    [((240, 480), (3, 3), 64, True, True), ((120, 90), (3, 4), 17, False, False), ((96, 64), (4, 2), 9, True, False)],
)
def test_modules_and_checkpoints_take_the_same(sides, blocks, rank, bias, staged):
    """One layer as a module of ours, by hand in two ways, and from its tensors: one function, nearly the same cycles."""
    layer = BLASTLinear.from_weights(blast(5, sides, blocks, rank, bias=bias)).eval()
    x = torch.from_numpy(generator(6).normal(size=(60, sides[0])).astype(np.float32))
    wanted = layer(x).detach().double().numpy()
    cycles = [latency(lower({"q": layer.weights()}, SMALL, 60))]
    for module in (layer, ByHand(layer, batched=True).eval(), ByHand(layer, batched=False).eval()):
        program = lower(module, SMALL, example_inputs=(x,))
        assert (len(program.layers) > 1) == staged
        assert program.network is not None
        (port,), (name,) = program.network.inputs, [port.name for port in program.network.outputs]
        found = execute_network(program, {port.name: x.numpy()})[name]
        assert np.abs(found - wanted).max() <= 1e-5 * np.abs(wanted).max()
        cycles.append(latency(program))
    assert len(set(cycles[1:])) == 1
    if staged:
        # The parts of a checkpoint's layer follow each other with a gap (rule C1), those of a network do not.
        assert max(cycles) <= 1.05 * min(cycles)
