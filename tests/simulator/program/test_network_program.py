"""Programs of whole networks: they survive files and listings byte for byte, refuse what does not fit, and are counted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings

from simulator.base.arithmetic import ceil_div
from simulator.base.errors import InputError
from simulator.base.schema import Strict
from simulator.network.network import Window
from simulator.network.network_file import check_records, network_arrays, network_of, network_record
from simulator.program.encoding import encode, require_plain_layers
from simulator.program.isa import Instructions
from simulator.program.operations import After, Op
from simulator.program.parse_listing import parse_program
from simulator.program.program import Program
from simulator.timing.accesses import count_events
from simulator.timing.durations import resolve_timing
from simulator.timing.engine import run_engine
from simulator.timing.simulate import simulate
from tests.drawn.random_networks import built_network
from tests.drawn.random_programs import built_program, generator, seeds
from tests.oracles.hazards import hazards
from tests.oracles.hazards import without as taken_out
from tests.oracles.timelines import network as worked_network
from tests.simulator.program.test_program_file import assert_equal_programs

MACHINE, PROGRAM = built_network(generator(12), "soup", longest=200)
NETWORK = PROGRAM.network


def assert_equal_networks(one: Program, two: Program) -> None:
    assert_equal_programs(one, two)
    left, right = network_arrays(one.network), network_arrays(two.network)
    assert network_record(one.network) == network_record(two.network)
    assert list(left) == list(right)
    for key in left:
        assert left[key].dtype == right[key].dtype
        np.testing.assert_array_equal(left[key], right[key])


@settings(max_examples=25)
@given(seed=seeds)
def test_files_and_listings_round_trip(seed):
    _, program = built_network(generator(seed))
    with TemporaryDirectory() as folder:
        one, two = Path(folder) / "one", Path(folder) / "two"
        program.save(one)
        loaded = Program.load(one)
        assert_equal_networks(loaded, program)
        loaded.save(two)
        assert one.read_bytes() == two.read_bytes()
    payloads, arrays = [layer.payload for layer in program.layers], network_arrays(program.network)
    assert_equal_networks(parse_program(str(program), payloads, arrays), program)
    without = parse_program(str(program))
    assert str(without) == str(program)
    assert not any(values.any() for values in network_arrays(without.network).values())


def test_numbers_keep_their_type_and_every_bit(tmp_path):
    values = {name: np.nextafter(array, 9, dtype=array.dtype) for name, array in NETWORK.values.items()}
    values["scale"] = np.array(values["scale"], dtype=np.float32)
    tensors = {
        name: replace(tensor, step=0.1 + 1e-17 * at) for at, (name, tensor) in enumerate(NETWORK.tensors.items())
    }
    program = replace(PROGRAM, network=replace(NETWORK, tensors=tensors, values=values))
    program.save(tmp_path / "p")
    assert_equal_networks(Program.load(tmp_path / "p"), program)


def test_an_unknown_or_missing_part_of_a_record_is_refused():
    record, arrays = network_record(NETWORK), network_arrays(NETWORK)
    with pytest.raises(InputError, match=r"network: field 'edges': found unknown key with value \[\]; no key 'edges'"):
        network_of({**record, "edges": []}, arrays)
    with pytest.raises(KeyError, match="constants.00004.000"):
        network_of(record, {})
    with pytest.raises(
        InputError, match="network: 'tensors': found two of one name; every tensor has a name of its own"
    ):
        network_of({**record, "tensors": [record["tensors"][0], *record["tensors"]]}, arrays)
    text = str(PROGRAM).replace('"tokens"', '"token"', 1)
    with pytest.raises(InputError, match=r"network: field '\w+\.0.*\.token': found unknown key with value"):
        parse_program(text)


# ---- what does not fit
# ---------------------------------------------------------------------------------------------------------------------


def first(op: Op, form: str = "") -> int:
    forms = np.array([layer.form for layer in PROGRAM.layers])[PROGRAM.instructions.layer]
    return int(np.flatnonzero((PROGRAM.instructions.op == op) & ((forms == form) | (form == "")))[0])


def changed(column: str, at: int, value: int) -> Instructions:
    data = getattr(PROGRAM.instructions, column).copy()
    data[at] = value
    return replace(PROGRAM.instructions, **{column: data})


@pytest.mark.parametrize(
    ("column", "op", "form", "value", "message"),
    [
        ("tile", Op.LOAD_INPUT, "", 2, "field 'tile': found 2; it lies between 0 and"),
        ("tile", Op.LOAD_INPUT, "", -2, "field 'tile': found -2"),
        ("chunk", Op.LOAD_INPUT, "", 10**6, "field 'chunk': found 1000000; it lies between 0 and"),
        ("token0", Op.LOAD_INPUT, "", 10**6, r"field 'token0': found 10000\d\d; it lies between 0 and"),
        ("token0", Op.LOAD_WEIGHTS, "activations", -1, "field 'token0': found -1"),
        ("token0", Op.LOAD_WEIGHTS, "activations", 99, "field 'token0': found 99"),
        ("token0", Op.VECTOR, "", 10**6, r"field 'token0': found 10000\d\d"),
        ("token0", Op.STORE, "", 10**6, r"field 'token0': found 10000\d\d"),
        ("token0", Op.DENSE, "", 10**6, r"field 'token0': found 10000\d\d"),
        ("chunk", Op.DRAIN, "", -1, "field 'chunk': found -1"),
        ("chunk", Op.STORE, "", 10**6, "field 'chunk': found 1000000"),
        ("tile", Op.VECTOR, "", 10**6, "field 'tile': found 1000000"),
        ("src", Op.VECTOR, "", -1, "field 'src': found -1"),
        ("src", Op.VECTOR, "", 10**9, "field 'src': found 1000000000"),
        ("other", Op.VECTOR, "", 10**9, "field 'other': found 1000000000"),
        ("dst", Op.VECTOR, "", MACHINE.scratchpad.size_bytes, "field 'dst': found"),
        ("row_cycles", Op.VECTOR, "", 77, "field 'row_cycles': found 77; the steps of '.*' are [1-9] passes"),
    ],
)  # fmt: skip
def test_instructions_fit_their_operators(column, op, form, value, message):
    at = first(op, form)
    with pytest.raises(InputError, match=f"program: instruction {at}: {message}"):
        replace(PROGRAM, instructions=changed(column, at, value))


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("row_cycles", 0, "a VECTOR makes at least one pass"),
        ("chunk", 0, "a VECTOR processes at least one chunk"),
        ("tokens", 0, "a token block holds at least one token"),
        ("other", -2, "only a VECTOR has a second operand"),
    ],
)
def test_columns_of_a_vector(column, value, message):
    with pytest.raises(InputError, match=message):
        changed(column, first(Op.VECTOR), value)


def test_layers_are_the_operators():
    with pytest.raises(InputError, match="layer 8: found 'no layer' for 'pool'; every operator has its layer"):
        replace(PROGRAM, layers=PROGRAM.layers[:-1])
    with pytest.raises(InputError, match="layer 1: found 'q' for 'query'; every operator has its layer, in order"):
        layers = [replace(layer, name="q" if layer.name == "query" else layer.name) for layer in PROGRAM.layers]
        replace(PROGRAM, layers=tuple(layers))
    with pytest.raises(InputError, match="layer 'score': 'form': found dense; it is the form of an operator of kind"):
        layers = list(PROGRAM.layers)
        layers[3] = replace(layers[1], name="score", form="dense")
        empty = Instructions(**{name: column[..., :0] for name, column in vars(PROGRAM.instructions).items()})
        replace(PROGRAM, layers=tuple(layers), instructions=empty)


def test_only_square_arrays_of_equal_widths():
    wide = MACHINE.with_(array={"cols": MACHINE.rows + 1}, rank_memory={"banks": MACHINE.rows + 1})
    empty = Instructions(**{name: column[..., :0] for name, column in vars(PROGRAM.instructions).items()})
    with pytest.raises(InputError, match="a whole network runs on square arrays"):
        replace(PROGRAM, machine=wide, instructions=empty)
    narrow = MACHINE.with_(datatypes={"weight_bits": 4})
    with pytest.raises(
        InputError, match="'score': found weights of 4 bits, activations of 8; tiles of activations need"
    ):
        replace(PROGRAM, machine=narrow, instructions=empty)


def test_forms_say_what_a_layer_may_have():
    by_form = {layer.form: layer for layer in PROGRAM.layers}
    with pytest.raises(InputError, match="a layer of form vector has none"):
        replace(by_form["activations"], form="vector")
    with pytest.raises(InputError, match="a form is one of dense, ranks, mixed, activations, vector"):
        replace(by_form["vector"], form="sparse")
    with pytest.raises(InputError, match="a layer of form activations has no ranks"):
        replace(by_form["mixed"], form="activations")
    tiles = by_form["activations"].tiles
    with pytest.raises(InputError, match="tiles of activations are DENSE"):
        replace(by_form["activations"], tiles=replace(tiles, kind=np.full(len(tiles), Op.REDUCE)))
    with pytest.raises(InputError, match="payload: found 0; the tile table describes"):
        replace(by_form["activations"], form="dense")
    np.testing.assert_array_equal(by_form["activations"].tile_bytes(MACHINE), tiles.weight_count)


def test_plain_programs_have_no_vectors_and_no_second_operands():
    _, plain = built_program(generator(4), "chain")
    at = int(np.flatnonzero(plain.instructions.op == Op.LOAD_INPUT)[0])
    tile = plain.instructions.tile.copy()
    tile[at] = 1
    with pytest.raises(InputError, match="found operand 1; a layer without a network has one operand"):
        replace(plain, instructions=replace(plain.instructions, tile=tile))
    with pytest.raises(
        InputError, match="found a VECTOR without an operator; only the program of a network has VECTOR"
    ):
        replace(worked_network(), network=None)


def test_the_hardware_refuses_a_network():
    message = r"a network of 9 operators, the first of them that no layer is 'embed' \(vector\); encoding and RTL cover"
    with pytest.raises(InputError, match=message):
        require_plain_layers(PROGRAM)
    with pytest.raises(InputError, match=message + ".*Lower the model's layers without their graph"):
        encode(PROGRAM, ())
    require_plain_layers(built_program(generator(3))[1])


def test_verify_refuses_a_network_before_it_compiles_anything(tmp_path, monkeypatch, capsys):
    from gblr_hw.cli import main as cli

    PROGRAM.save(tmp_path / "p")
    monkeypatch.setattr("sys.argv", ["gblr-hw", "verify", str(tmp_path / "p"), "--cache", str(tmp_path / "rtl")])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 2
    assert "encoding and RTL cover programs of plain layers" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "rtl").exists()


# ---- counts
# ---------------------------------------------------------------------------------------------------------------------


def test_accesses_of_the_worked_network():
    """32 x 32, 40 tokens: a chunk's row is a word of 256 bits, a row of sums four."""
    program = worked_network()
    counts = count_events(program, program.machine)
    told = {name: values.tolist() for name, values in counts.items() if values.any()}
    assert told["vector_ops"] == [40 * 32, 3 * 40 * 32, 40 * 32]
    assert told["scratchpad_read"] == [40, 40, 40 + 40]  # the softmax reads once, whatever its passes
    assert told["scratchpad_write"] == [40 + 40, 40, 40]
    assert told["accumulator_write"] == [160, 0, 160]
    assert told["dram_read_bytes"] == [256 + 1280 + 1088, 0, 256 + 1088]
    assert told["dram_write_bytes"] == [0, 0, 1280]
    report = simulate(program, program.machine)
    drained = (40 * 32 * 2 + 3 * 40 * 32) * (3.1 + 0.1)  # a 32-bit multiply and an add each (cmos-45)
    assert report.energy_by_component["vector"] == pytest.approx(drained)


def test_tiles_of_activations_are_loaded_as_they_are():
    """A load writes the words that its codes fill; there is no record around them."""
    at = first(Op.LOAD_WEIGHTS, "activations")
    ins = PROGRAM.instructions
    held = int(PROGRAM.layers[ins.layer[at]].tiles.weight_count[ins.tile[at]])
    assert ins.dram_bytes[at] == held
    loads = np.arange(len(ins)) == at
    alone = Instructions(
        **{name: column[..., loads] if name != "after" else np.full((5, 1), -1) for name, column in vars(ins).items()}
    )
    counts = count_events(replace(PROGRAM, instructions=alone), MACHINE)
    burst = MACHINE.dram.burst_bytes
    assert counts["weight_buffer_write"].sum() == ceil_div(held * 8, MACHINE.weight_buffer.word_bits)
    assert counts["dram_read_bytes"].sum() == ceil_div(held, burst) * burst


# ---- hazards
# ---------------------------------------------------------------------------------------------------------------------


def found_hazards(program: Program, without: After | None = None) -> list[str]:
    timing = resolve_timing(program, program.machine)
    timing = timing if without is None else taken_out(timing, without)
    return hazards(program, program.machine, timing, run_engine(timing))


def test_the_worked_network_finds_what_it_reads():
    assert found_hazards(worked_network()) == []
    early = found_hazards(worked_network(), without=After.VECTOR)
    assert any("instruction 7 from" in what for what in early)  # the softmax, before the drain has written
    assert any(
        "instruction 8 from" in what and ", 7 until" in what for what in early
    )  # the tile that reads the softmax


def test_a_read_of_a_tensors_row_waits_for_its_store():
    """The second layer's input loaded from DRAM instead: without a store it is nobody's, with one it must wait."""
    program = worked_network()
    ins = program.instructions
    columns = {name: np.concatenate([column, column[..., 9:11]], axis=-1) for name, column in vars(ins).items()}
    columns["op"][-2:] = Op.STORE, Op.LOAD_INPUT
    columns["layer"][-2:] = 1, 2
    columns["src"][-2:], columns["dst"][-2:] = (2560, -1), (-1, 0)
    columns["dram_bytes"][-2:], columns["accumulate"][-2:], columns["after"][:, -2:] = 1280, 0, -1
    columns["tile"][-2:] = -1, 0
    columns["after"][After.VECTOR, -2] = 7
    assert any(
        "('dram', 'shares'" in what for what in found_hazards(replace(program, instructions=Instructions(**columns)))
    )
    columns["after"][After.STORE, -1] = 11
    assert found_hazards(replace(program, instructions=Instructions(**columns))) == []


def test_images_with_more_zeros_behind_them_are_read_back(tmp_path):
    """As "same" padding of an even kernel or of a stride puts them."""
    network = NETWORK
    (pool,) = [one for one in network.operators if one.operands[0].window is not None]
    window = replace(pool.operands[0].window, padding=(0, 0), after=(0, 2))
    moved = replace(pool, operands=(replace(pool.operands[0], window=window),))
    operators = tuple(moved if one is pool else one for one in network.operators)
    program = replace(PROGRAM, network=replace(network, operators=operators))
    program.save(tmp_path / "p")
    assert_equal_networks(Program.load(tmp_path / "p"), program)
    payloads, arrays = [layer.payload for layer in program.layers], network_arrays(program.network)
    assert_equal_networks(parse_program(str(program), payloads, arrays), program)


def test_a_record_without_a_field_of_its_part_fails_at_import():
    class Short(Strict):
        image: tuple[int, int]

    with pytest.raises(InputError, match="record of Window: found fields after, dilation, .* on one side alone"):
        check_records({Short: Window})
