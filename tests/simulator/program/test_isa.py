"""Instruction columns refuse what no program may hold; programs and schedules refuse what does not fit together."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest

from simulator.base.errors import InputError
from simulator.machine.machine import Machine
from simulator.program.isa import Instructions
from simulator.program.operations import PRODUCERS, TILE_OPS, TRANSFER_OPS, VECTOR_OPS, After, Op, Unit, unit_of_op
from simulator.program.program import Program
from simulator.program.schedule import PARAMETER_BYTES, RANK_PARAMETER_BYTES, LayerSchedule, Payload, Slice, TileTable
from tests.drawn.random_programs import assembled, built_layer, generator, narrowed, small_machine
from tests.drawn.strategies import case

_, _, PROGRAM = case(22, layers=2, tokens=9, stored=True, array={"rows": 4, "cols": 6, "scatter": True})


def first(op: Op) -> int:
    return int(np.flatnonzero(PROGRAM.instructions.op == op)[0])


def changed(column: str, at: int, value: int) -> Instructions:
    data = getattr(PROGRAM.instructions, column).copy()
    data[at] = value
    return replace(PROGRAM.instructions, **{column: data})


def waiting(column: After, at: int, value: int) -> Instructions:
    after = PROGRAM.instructions.after.copy()
    after[column, at] = value
    return replace(PROGRAM.instructions, after=after)


def test_the_program_under_test_has_every_operation():
    assert set(PROGRAM.instructions.op.tolist()) >= set(Op) - {Op.DENSE, Op.VECTOR, Op.MIX}


@pytest.mark.parametrize(
    ("column", "op", "value", "message"),
    [
        ("op", Op.STORE, 10, r"field 'op': found 10; operations are 0 to 9 \(LOAD_PARAMETERS, .*MIX\)"),
        ("op", Op.STORE, -1, "field 'op': found -1"),
        ("layer", Op.STORE, -1, "field 'layer': found -1; a layer index is not negative"),
        ("tile", Op.EXPAND, -1, "field 'tile': found -1; a tile index is not negative"),
        ("tile", Op.LOAD_WEIGHTS, -2, "field 'tile': found -2"),
        ("dram_bytes", Op.LOAD_INPUT, 0, "field 'dram_bytes': found 0; a transfer moves at least one byte"),
        ("tokens", Op.DRAIN, 0, "field 'tokens': found 0; a token block holds at least one token"),
        ("tokens", Op.REDUCE, -5, "field 'tokens': found -5"),
        ("token0", Op.LOAD_INPUT, -1, "field 'token0': found -1; a token index is not negative"),
        ("row_cycles", Op.REDUCE, 0, "field 'row_cycles': found 0; a token row takes at least one cycle"),
        ("accumulate", Op.DRAIN, 2, "field 'accumulate': found 2; accumulate is 0 or 1"),
        ("other", Op.STORE, 64, "field 'other': found 64; only a VECTOR has a second operand, and only tiles"),
            ("other", Op.DRAIN, 0, "field 'other': found 0; a query head has at least one row"),
        ("other", Op.STORE, -2, "field 'other': found -2"),
    ],
)  # fmt: skip
def test_bad_columns_are_refused(column, op, value, message):
    with pytest.raises(InputError, match=f"program: instruction {first(op)}: {message}"):
        changed(column, first(op), value)


def test_dependences_name_earlier_producers_of_their_kind():
    drain = first(Op.DRAIN)
    for value in (drain, drain + 1, len(PROGRAM.instructions)):
        with pytest.raises(
            InputError,
            match=rf"instruction {drain}: field 'after.array': found {value}; a dependence names an earlier instruction, or -1",
        ):
            waiting(After.ARRAY, drain, value)
    with pytest.raises(InputError, match="field 'after.array': found -2"):
        waiting(After.ARRAY, drain, -2)
    with pytest.raises(InputError, match="field 'after.vector': found 0; it must name one of DRAIN, VECTOR"):
        waiting(After.VECTOR, drain, 0)


def test_a_tile_waits_for_no_store():
    """No cause of the array's time line would be to blame (rule C1), and nothing that a tile writes is stored."""
    at, store = int(np.flatnonzero(np.isin(PROGRAM.instructions.op, TILE_OPS))[-1]), first(Op.STORE)
    with pytest.raises(
        InputError, match=rf"instruction {at}: field 'after.store': found {store}; a tile waits for no store"
    ):
        waiting(After.STORE, at, store)


def test_columns_have_one_length_and_are_read_only():
    ins = PROGRAM.instructions
    with pytest.raises(InputError, match=r"program: column 'slot': found shape \(3,\); it must have shape"):
        replace(ins, slot=np.zeros(3, dtype=np.int64))
    with pytest.raises(InputError, match=r"column 'after': found shape \(4, "):
        replace(ins, after=ins.after[:4])
    for field in fields(Instructions):
        assert not getattr(ins, field.name).flags.writeable


def test_columns_are_as_narrow_as_they_may_be():
    ins = PROGRAM.instructions
    wide = {field.name for field in fields(Instructions) if getattr(ins, field.name).dtype == np.int64}
    assert wide == {"src", "dst", "other", "dram_bytes"}
    huge = ins.dram_bytes.copy()
    huge[first(Op.STORE)] = 2**40
    assert replace(ins, dram_bytes=huge).dram_bytes.max() == 2**40
    slots = ins.slot.astype(np.int64)
    for value in (2**31, -(2**31) - 1):
        slots[3] = value
        with pytest.raises(
            InputError, match=rf"column 'slot': found {value}; it lies between -2147483648 and 2147483647"
        ):
            replace(ins, slot=slots)


def test_tables_cover_the_instruction_set():
    assert set(TILE_OPS) | set(TRANSFER_OPS) | set(VECTOR_OPS) == set(Op)
    assert sorted(op for ops in PRODUCERS.values() for op in ops) == sorted(Op)
    for engines, queues in ((1, 1), (2, 2), (3, 3)):
        unit = unit_of_op(engines)
        assert len(unit) == len(Op)
        assert len({unit[op] for op in TRANSFER_OPS}) == queues
        assert {unit[op] for op in TILE_OPS} == {Unit.ARRAY}
        assert {unit[op] for op in VECTOR_OPS} == {Unit.VECTOR}


# ---- programs
# ---------------------------------------------------------------------------------------------------------------


def refused(instructions: Instructions, message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(PROGRAM, instructions=instructions)


@pytest.mark.parametrize(
    ("column", "op", "value", "message"),
    [
        ("layer", Op.STORE, 2, "'layer': found 2; it has 2 layers"),
        ("tile", Op.EXPAND, 10**6, "tile 1000000; its tile table has"),
        ("op", Op.EXPAND, Op.DENSE, "DENSE, REDUCE, EXPAND and MIX run tiles of their own kind"),
        ("row_cycles", Op.REDUCE, 9, "an instruction takes its tile's cycles a row"),
        ("token0", Op.STORE, 9, "the program has 9 tokens"),
        ("slot", Op.LOAD_WEIGHTS, 10**6, "field 'slot': found 1000000; it lies between 0 and"),
        ("slot", Op.EXPAND, -1, "field 'slot': found -1"),
        ("dst", Op.LOAD_INPUT, 10**9, "field 'dst': found 1000000000; it lies between 0 and"),
        ("src", Op.REDUCE, -1, "field 'src': found -1"),
        ("dst", Op.EXPAND, 10**6, "field 'dst': found 1000000"),
        ("src", Op.DRAIN, -1, "field 'src': found -1"),
        ("src", Op.STORE, 10**9, "field 'src': found 1000000000"),
        ("chunk", Op.LOAD_INPUT, 10**6, "field 'chunk': found 1000000"),
        ("other", Op.DENSE, 3, "3 rows of each query head; only scores and mix of a network have query heads"),
        ("chunk", Op.STORE, -1, "field 'chunk': found -1"),
    ],
)  # fmt: skip
def test_programs_refuse_places_that_do_not_exist(column, op, value, message):
    refused(changed(column, first(op), value), message)


def test_programs_refuse_two_layers_of_one_name():
    with pytest.raises(InputError, match="every layer has a name of its own"):
        replace(PROGRAM, layers=(PROGRAM.layers[0], replace(PROGRAM.layers[1], name=PROGRAM.layers[0].name)))


def with_layer(**changes: object) -> Program:
    index = next(i for i, layer in enumerate(PROGRAM.layers) if layer.ranks)
    layers = list(PROGRAM.layers)
    layers[index] = replace(layers[index], **changes)
    return replace(PROGRAM, layers=tuple(layers))


def with_tiles(**changes: object) -> Program:
    tiles = next(layer for layer in PROGRAM.layers if layer.ranks).tiles
    columns = {}
    for name, (at, value) in changes.items():
        columns[name] = getattr(tiles, name).copy()
        columns[name][at] = value
    return with_layer(tiles=replace(tiles, **columns))


def test_schedules_refuse_what_does_not_fit():
    layer = next(layer for layer in PROGRAM.layers if layer.ranks)
    bank = layer.rank_bank.copy()
    bank[0] = PROGRAM.machine.rank_memory.banks
    for change, message in (
        ({"block_tokens": 0}, "'block_tokens': found 0; sizes are at least 1"),
        ({"in_features": -3}, "'in_features': found -3; sizes are at least 1"),
        ({"rank_bank": layer.rank_bank[1:]}, f"it must have one row for each of {layer.ranks} ranks"),
        ({"rank_bank": bank}, f"rank 0: bank: found {bank[0]}; it lies between 0 and {bank[0] - 1}"),
        ({"rank_slot": layer.rank_slot - 1}, "slot: found -1"),
        ({"out_features": layer.out_features + 1}, "output parameters"),
        ({"payload": replace(layer.payload, codes=layer.payload.codes[1:])}, "payload: found .* the tile table describes"),
        ({"held_slots": 0, "rank_slot": layer.rank_slot, "rank_bank": layer.rank_bank - 1}, "rank .*: bank: found -1"),
        ({"output_order": np.zeros(layer.out_features)}, "'output_order': found .* entries; it names each output once"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=message):
            with_layer(**change)
    for change, message in (
        ({"kind": (0, Op.DRAIN)}, "a tile is DENSE, REDUCE, EXPAND or MIX"),
        ({"lo": (0, -1)}, "0 <= lo <= hi for every lane"),
        ({"lane": (0, layer.ranks)}, f"ranks are numbered 0 to {layer.ranks - 1}"),
        ({"lane_ptr": (0, 1)}, "lane_ptr starts at 0, never falls"),
        ({"source": (0, 10**6)}, "tile 0: 'source': found 1000000; it lies between 0 and"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=message):
            with_tiles(**change)


def test_slots_of_ranks_that_take_turns():
    """Rule M4: two slots in memory serve five; a REDUCE of ranks in slots 1 and 2, an EXPAND of ranks in slots 3 and 4."""
    columns = {
        "kind": [Op.REDUCE, Op.EXPAND], "source": [0, -1], "target": [-1, 0], "row_cycles": [1, 1], "lane_ptr": [0, 2, 4],
        "lane": [1, 2, 3, 4], "first": [1, 1, 1, 0], "lo": [0] * 4, "hi": [1] * 4,
    }  # fmt: skip
    layer = LayerSchedule(
        name="layer", form="ranks", in_features=1, out_features=1, ranks=5, block_tokens=3, multiplications=4,
        tiles=TileTable(**{name: np.array(values) for name, values in columns.items()}), rank_bank=np.zeros(5),
        rank_slot=np.arange(5), held_slots=2,
        payload=Payload(np.zeros(4, int), np.zeros(4), np.ones(1), np.ones(5), np.zeros(1), 0.0, 0.0),
    )  # fmt: skip
    assert layer.shares_places
    assert layer.memory_slot.tolist() == [0, 1, 0, 1, 0]
    assert layer.first_slot.tolist() == [0, 2]
    assert layer.last_slot.tolist() == [2, 4]
    # Six bytes an output; four for each of a row's three places and each of five slots.
    assert layer.parameter_bytes(3) == PARAMETER_BYTES + 5 * 3 * RANK_PARAMETER_BYTES


def test_a_layer_reads_all_its_inputs_of_layers_before_it():
    """Rule E3: two layers of four and three outputs, and one of five inputs that reads runs of them."""
    rng = generator(8)
    machine = small_machine(rng)
    sizes = {"one": (2, 4), "two": (2, 3), "last": (5, 6)}
    layers = {name: built_layer(rng, machine, name, sides) for name, sides in sizes.items()}

    def program(*runs: Slice) -> Program:
        last = replace(layers["last"], sources=runs)
        return assembled(machine, (layers["one"], layers["two"], last), 1, [])

    assert program(Slice("one", 0, 4), Slice("two", 2, 3)).layers[2].sources[1].first == 2
    assert program().layers[2].sources == ()
    for runs, message in (
        (
            (Slice("one", 0, 4), Slice("two", 3, 4)),
            "outputs 3 to 4 of 'two'; a layer reads outputs of layers before it",
        ),
        ((Slice("last", 0, 5),), "outputs 0 to 5 of 'last'; a layer reads outputs of layers before it"),
        ((Slice("one", 0, 4),), "found 4 outputs; they are its 5 inputs"),
        ((Slice("one", 0, 4), Slice("two", 1, 3)), "found 6 outputs; they are its 5 inputs"),
    ):
        with pytest.raises(InputError, match=message):
            program(*runs)


def test_payloads_are_finite():
    payload = PROGRAM.layers[0].payload
    for name in ("row_step", "bias", "rank_divisor", "values"):
        column = getattr(payload, name).copy()
        if len(column):
            column[0] = np.nan
            with pytest.raises(
                InputError, match=f"payload: '{name}': found NaN or infinity; every stored number is finite"
            ):
                replace(payload, **{name: column})
    with pytest.raises(InputError, match="'input_step': found -1.0; an activation step is finite and not negative"):
        replace(payload, input_step=-1.0)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ({"gathered": [0]}, r"'gathered': found 0 of the 3 lanes of tile 0; a MIX has lanes of both kinds"),
        ({"gathered": [3]}, r"'gathered': found 3 of the 3 lanes of tile 0"),
        ({"kind": [Op.EXPAND]}, r"'gathered': found a tile whose kind says otherwise; EXPAND lanes read ranks"),
        ({"kind": [Op.REDUCE]}, r"'gathered': found a tile whose kind says otherwise"),
        ({"hi": [1, 1, 1]}, r"'lo', 'hi': found weights of a lane that a MIX writes; they are those of its reads"),
        ({"gathered": [2, 2]}, r"tile table: found columns of unequal length \(1 kinds\)"),
    ],
)
def test_lanes_of_a_mix(edit, message):
    """Two ranks mixed into a third: which lanes read and which write follows from nothing else."""
    columns = {
        "kind": [Op.MIX], "source": [-1], "target": [-1], "row_cycles": [1], "lane_ptr": [0, 3], "lane": [0, 1, 2],
        "first": [0, 0, 1], "lo": [0, 0, 0], "hi": [1, 1, 0], "gathered": [2],
    }  # fmt: skip
    table = TileTable(**{name: np.array(values) for name, values in columns.items()})
    assert table.scattered.tolist() == [1] and table.lane_gathers.tolist() == [True, True, False]
    with pytest.raises(InputError, match=message):
        TileTable(**{name: np.array(values) for name, values in (columns | edit).items()})


def narrow_table(**edit: list[int]) -> TileTable:
    """A dense tile of two inputs and three outputs, a REDUCE of two ranks and an EXPAND of them; the last two narrow."""
    columns = {
        "kind": [Op.DENSE, Op.REDUCE, Op.EXPAND], "source": [0, 0, -1], "target": [0, -1, 0], "row_cycles": [1, 1, 1],
        "lane_ptr": [0, 2, 4, 6], "lane": [0, 1, 0, 1, 0, 1], "first": [0, 0, 1, 1, 0, 0], "lo": [0, 0, 0, 0, 1, 2],
        "hi": [3, 3, 2, 2, 2, 4], "narrow": [0, 1, 1], "shift": [1, 2, 3, 4, 5, 6],
    }  # fmt: skip
    return TileTable(**{name: np.array(values) for name, values in (columns | edit).items()})


def test_shifts_of_narrow_tiles():
    """Rule A6: one for each rank that a REDUCE writes, and for each output up to the last that an EXPAND reaches."""
    table = narrow_table()
    assert [table.column_shifts(tile).tolist() for tile in range(3)] == [[], [1, 2], [3, 4, 5, 6]]
    machine = Machine.load("edge-16").with_(array={"cols": 5}, datatypes={"narrow_bits": 2})
    assert table.weight_bits(machine).tolist() == [8, 2, 2]
    # Descriptor; lanes; three bytes of shifts for five columns; packed weights.
    assert table.record_bytes(machine).tolist() == [8 + 6, 8 + 8 + 3 + 1, 8 + 8 + 3 + 1]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ({"narrow": [0, 2, 1]}, r"'narrow': found neither 0 nor 1; a tile is wide \(0\) or narrow \(1\)"),
        ({"narrow": [0, 0, 1]}, "'shift': found 6 shifts; narrow tiles write 4 columns, each with a shift"),
        ({"narrow": [0, 1]}, "tile table: found columns of unequal length"),
        ({"shift": [1, 2, 3, 4, 5, 8]}, "'shift': found 8; a column's shift lies between 0 and 7"),
        ({"shift": [1, 2, -3, 4, 5, 7]}, "'shift': found -3"),
    ],
)
def test_bad_narrow_tables_are_refused(edit, message):
    with pytest.raises(InputError, match=message):
        narrow_table(**edit)


def test_narrow_tiles_need_a_machine_and_codes_of_its_bits():
    rng = generator(3)
    machine = small_machine(rng, datatypes={"narrow_bits": 4})
    layer = narrowed(rng, built_layer(rng, machine), machine)
    while not layer.tiles.weight_count[layer.tiles.narrow == 1].any():
        layer = narrowed(rng, built_layer(rng, machine), machine)
    at = int(np.flatnonzero(np.repeat(layer.tiles.narrow == 1, layer.tiles.weight_count))[0])
    assembled(machine, (layer,), layer.block_tokens, [])
    plain = machine.with_(datatypes={"narrow_bits": 0})
    with pytest.raises(InputError, match="a narrow tile on machine 'random'; 'datatypes.narrow_bits' is 0"):
        assembled(plain, (layer,), layer.block_tokens, [])
    for code in (8, -9):
        codes = layer.payload.codes.copy()
        codes[at] = code
        wrong = replace(layer, payload=replace(layer.payload, codes=codes))
        with pytest.raises(InputError, match=f"found {code} in a narrow tile; weights of 4 bits lie between -8 and 7"):
            assembled(machine, (wrong,), layer.block_tokens, [])


@pytest.mark.parametrize(("wide", "narrow"), [(4, 4), (8, 3), (8, 1), (5, 2), (3, 4)])
def test_narrow_bits_divide_the_wide_ones(wide, narrow):
    with pytest.raises(InputError, match=f"narrow_bits = {narrow} beside weight_bits = {wide}; it is 0, or from 2"):
        Machine.load("edge-16").with_(datatypes={"weight_bits": wide, "narrow_bits": narrow})
