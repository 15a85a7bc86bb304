"""One-cycle errors in every rule of time, and errors in where windows of images and heads that share keys lie, as
replacements in the source of the simulator.

A rule that each engine implements for itself is broken in the engine alone, in the reference alone (their agreement must
notice) and, the same misreading, in both (only tests written by hand can notice). A duration lives in one place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ENGINE, REFERENCE, TIMING = "simulator.timing.engine", "simulator.timing.reference", "simulator.timing.durations"
OWN_TIMING = "simulator.timing.reference_durations"
MACHINE, ISA, REPORT, COUNTS = (
    "simulator.machine.machine",
    "simulator.program.operations",
    "simulator.timing.simulate",
    "simulator.timing.accesses",
)
SCHEDULE, RECORD = "simulator.program.schedule", "simulator.program.program_record"
ACCOUNTS, LAYOUT = "simulator.timing.cycle_accounts", "simulator.network.network_layout"
UNITS, BOUNDS = "simulator.timing.unit_accounts", "simulator.timing.operator_bounds"
IMAGES = "simulator.network.image_rows"
BANKS, CONTROLLER, MAPPING = "simulator.dram.banks", "simulator.dram.controller", "simulator.dram.mapping"
PLACES, ALIKE, BANKED = "simulator.timing.dram_places", "simulator.dram.alike", "simulator.timing.banked_transfers"

Check = Literal["agreement", "by hand", "banks"]  # the last: by hand, of a DRAM with banks


@dataclass(frozen=True)
class Edit:
    """``old`` stands ``times`` times in the source of ``module``; each becomes ``new``."""

    module: str
    old: str
    new: str
    times: int = 1


@dataclass(frozen=True)
class Mutant:
    """An error in ``rule``; ``check`` is the kind of test that must turn red."""

    rule: str
    error: str
    place: str
    check: Check
    edits: tuple[Edit, ...]


_NO_REFERENCE = Edit(
    REFERENCE,
    "def run_reference(",
    "from simulator.timing.engine import run_engine as run_reference\n\n\ndef _replaced(",
)


def _order(rule: str, error: str, engine: tuple[Edit, ...], reference: tuple[Edit, ...]) -> list[Mutant]:
    return [
        Mutant(rule, error, "engine", "agreement", engine),
        Mutant(rule, error, "reference", "agreement", reference),
        Mutant(rule, error, "both", "by hand", (*engine, _NO_REFERENCE)),
    ]


def _engine(old: str, new: str, times: int = 1) -> Edit:
    return Edit(ENGINE, old, new, times)


def _reference(old: str, new: str, times: int = 1) -> Edit:
    return Edit(REFERENCE, old, new, times)


def _shared(rule: str, error: str, module: str, old: str, new: str, check: Check = "by hand") -> list[Mutant]:
    return [Mutant(rule, error, module.rpartition(".")[2], check, (Edit(module, old, new),))]


_FREED = "free[chosen] = channel_free"
_LEAD = "(lead if d == After.ARRAY or d == After.WEIGHTS else 0)"
_END = "unit.busy_left = end - self.cycle"
_GRANT = "channel_left = int(clock.events.end[i]) - clock.cycle"


def _freed(cycles: int) -> tuple[Edit, ...]:
    """All units of the engine are free so many cycles later."""
    late = f" + {cycles}"
    return (
        _engine("array_free = shadow_free + busy[i]", "array_free = shadow_free + busy[i]" + late),
        _engine("vector_free = busy[i] +", f"vector_free = {cycles} + busy[i] +"),
        _engine("free[chosen] = channel_free", "free[chosen] = channel_free" + late),
    )


ORDER = [
    *_order(
        "Q1",
        "a unit is free a cycle early",
        _freed(-1),
        (_reference(_END, _END + " - 1"),),
    ),
    *_order(
        "Q1",
        "a unit is free a cycle late",
        _freed(1),
        (_reference(_END, _END + " + 1"),),
    ),
    *_order(
        "Q2",
        "a dependent starts a cycle late",
        (_engine("when = done[producer] +", "when = done[producer] + 1 +"),),
        (_reference("self.cycle < done + ahead", "self.cycle <= done + ahead"),),
    ),
    *_order(
        "Q2",
        "a dependent starts a cycle early",
        (_engine("when = done[producer] +", "when = done[producer] - 1 +"),),
        (_reference("self.cycle < done + ahead", "self.cycle < done + ahead - 1"),),
    ),
    *_order(
        "Q3",
        "a preload begins a cycle before its weights are there",
        (_engine("return done[weights], STALL_WEIGHTS", "return done[weights] - 1, STALL_WEIGHTS"),),
        (_reference("clock.unmet(i, (After.WEIGHTS,))", "clock.unmet(i, (After.WEIGHTS,), lead=-1)"),),
    ),
    *_order(
        "D3",
        "among requests of one cycle the highest unit goes first",
        (_engine("asked < earliest)", "asked <= earliest)"),),
        (_reference("min(waiting)", "min(waiting, key=lambda w: (w[0], -w[1]))", 2),),
    ),
    *_order(
        "D3",
        "inputs ask a cycle late",
        (
            _engine(
                "requests[u, 0] = max(requests[u, 1], free[u])",
                "requests[u, 0] = max(requests[u, 1], free[u]) + (u == 1)",
            ),
        ),
        (_reference("unit.requested_at = clock.cycle", "unit.requested_at = clock.cycle + (number == 1)"),),
    ),
    *_order(
        "D3",
        "the lowest unit goes first, whoever asked first",
        (_engine("asked < earliest)", "(asked < earliest and channel_free < earliest))"),),
        (_reference("(unit.requested_at, number)", "(0, number)"),),
    ),
    *_order(
        "D4",
        "the channel is free a cycle late",
        (_engine(_FREED, _FREED + "; channel_free += 1"),),
        (_reference(_GRANT, _GRANT + " + 1"),),
    ),
    *_order(
        "D4",
        "the channel is free a cycle early",
        (_engine(_FREED, _FREED + "; channel_free -= 1"),),
        (_reference(_GRANT, _GRANT + " - 1"),),
    ),
    *_order(
        "A2",
        "a preload takes a cycle more",
        (_engine("loader_free = begin + preload_cycles[i]", "loader_free = begin + preload_cycles[i] + 1"),),
        (_reference("i, int(clock.timing.preload[i]), True", "i, int(clock.timing.preload[i]) + 1, True"),),
    ),
    *_order(
        "A2",
        "the shadow registers are free a cycle late",
        (_engine("tile += 1", "shadow_free += 1; tile += 1"),),
        (_reference("loader.shadow_full = False", "loader.shadow_full = False\n            return"),),
    ),
    *_order(
        "A3",
        "a tile starts a cycle before its preload is finished",
        (
            _engine(
                "if loader_free > ready:\n                        ready, cause = loader_free, late",
                "if loader_free - 1 > ready:\n                        ready, cause = loader_free - 1, late",
            ),
        ),
        (_reference("loader.loaded == i and loader.left == 0", "loader.loaded == i and loader.left <= 1"),),
    ),
    *_order(
        "A4",
        "the lane table needs no lead",
        (_engine(_LEAD, "(lead if d == After.ARRAY else 0)"),),
        (_reference("if column in (After.ARRAY, After.WEIGHTS) else 0", "if column == After.ARRAY else 0"),),
    ),
    *_order(
        "A4",
        "sums need no lead",
        (_engine(_LEAD, "(lead if d == After.WEIGHTS else 0)"),),
        (_reference("if column in (After.ARRAY, After.WEIGHTS) else 0", "if column == After.WEIGHTS else 0"),),
    ),
]

DURATIONS = [
    *_shared("D1", "with two engines stores share the loads' queue", ISA, "2: (Unit.WEIGHT_DMA, Unit.WEIGHT_DMA, Unit.OUTPUT_DMA)", "2: (Unit.WEIGHT_DMA, Unit.WEIGHT_DMA, Unit.WEIGHT_DMA)"),
    *_shared("D1", "with three engines inputs share the weights' queue", ISA, "3: (Unit.WEIGHT_DMA, Unit.INPUT_DMA, Unit.OUTPUT_DMA)", "3: (Unit.WEIGHT_DMA, Unit.WEIGHT_DMA, Unit.OUTPUT_DMA)"),
    *_shared("Q2", "nothing may wait for a vector operator", ISA, "if OPERATIONS[op].queue is column)", "if OPERATIONS[op].queue is column and op != Op.VECTOR)"),
    *_shared("Q2", "anything may be waited for as if it were a drain", ISA, "if OPERATIONS[op].queue is column)", "if OPERATIONS[op].queue is column or column is After.VECTOR)"),
    *_shared("D2", "the last cycle of a transfer is cut off", TIMING, "return ceil_div(moved * 1000, machine.dram_bytes_per_kilocycle)", "return np.maximum(1, moved * 1000 // machine.dram_bytes_per_kilocycle)"),
    *_shared("D2", "a transfer takes a cycle more", TIMING, "return ceil_div(moved * 1000,", "return 1 + ceil_div(moved * 1000,"),
    *_shared("D2", "bursts are not filled up", TIMING, "moved = ceil_div(transfer_bytes, burst) * burst", "moved = transfer_bytes"),
    *_shared("D2", "a burst too many when the last one is full", TIMING, "ceil_div(transfer_bytes, burst) * burst", "(transfer_bytes // burst + 1) * burst"),
    *_shared("D2", "a byte more in a thousand cycles", MACHINE, "max(1, round(1000 * self.dram.gb_per_s / self.clock_ghz))", "1 + round(1000 * self.dram.gb_per_s / self.clock_ghz)"),
    *_shared("D4", "a latency a cycle longer", TIMING, "After.INPUT: machine.dram_latency_cycles", "After.INPUT: machine.dram_latency_cycles + 1"),
    *_shared("D4", "a latency rounded down", MACHINE, "math.ceil(round(", "math.floor(round("),
    *_shared("D5", "one memory channel, whatever the bandwidth", MACHINE, "1 if self.standard is None else round(", "1 if self.standard is None or self.gb_per_s > 0 else round(", "banks"),
    *_shared("D6", "the most significant part counts first", MAPPING, "for part in reversed(order):", "for part in order:", "banks"),
    *_shared("D7", "tile records begin anywhere in a burst", PLACES, "sizes = ceil_div(records_of([layer.tiles for layer in layers], machine), burst) * burst", "sizes = records_of([layer.tiles for layer in layers], machine)", "banks"),
    *_shared("D8", "a full queue takes bursts", CONTROLLER, "max(asked, line[TAKEN] + 1, free)", "max(asked, line[TAKEN] + 1)", "banks"),
    *_shared("D8", "a run opens a row before its burst has a place", CONTROLLER, "max(got + ahead, line[columns_at + free])", "asked + ahead", "banks"),
    *_shared("D9", "a run reads from a row in the clock in which it opens", CONTROLLER, "ready = max(ready, activate + to_column)", "ready = max(ready, activate)", "banks"),
    *_shared("D9", "a row is open a clock late", BANKS, 'activate_read=t["tRCD"]', 'activate_read=t["tRCD"] + 1', "banks"),
    *_shared("D10", "channels with other rows open are served as one", ALIKE, "lines[channel, bank] == lines[other, bank]", "lines[channel, bank] == lines[channel, bank]", "banks"),
    *_shared("D10", "a channel that waits is served as one that does not", ALIKE, "return free <= asked and free <=", "return free <=", "banks"),
    *_shared("D10", "channels of one line all get as many bursts", ALIKE, "+ 2 * (((channel - begin) & mask) < more)", "", "banks"),
    *_shared("D11", "a refresh takes a clock more", BANKS, 'refresh_takes=t["tRFC"]', 'refresh_takes=t["tRFC"] + 1', "banks"),
    *_shared("D12", "the cycle in which data end is cut off", BANKED, "ceil_div(data * clock, cycle)", "data * clock // cycle", "banks"),
    *_shared("A1", "a tile occupies the array a cycle longer", TIMING, "* ins.row_cycles[at]\n", "* ins.row_cycles[at] + 1\n"),
    *_shared("A1", "a tile occupies the array a cycle less", TIMING, "* ins.row_cycles[at]\n", "* ins.row_cycles[at] - 1\n"),
    *_shared("A2", "a preload takes a row more", TIMING, "cycles[tiles] = machine.rows\n", "cycles[tiles] = machine.rows + 1\n"),
    *_shared("A2", "a preload takes Q cycles", TIMING, "cycles[tiles] = machine.rows\n", "cycles[tiles] = machine.cols\n"),
    *_shared("A6", "a narrow tile's last rows are not preloaded", TIMING, "ceil_div(machine.rows, machine.datatypes.narrow_rows)", "np.maximum(1, machine.rows // machine.datatypes.narrow_rows)"),
    *_shared("A6", "a narrow tile is preloaded as a wide one", TIMING, "ceil_div(machine.rows, machine.datatypes.narrow_rows)", "machine.rows"),
    *_shared("A6", "a narrow tile overtakes a wide one", TIMING, "narrow & ~behind_wide", "narrow"),
    *_shared("A6", "the first tile of all stands behind a wide one", TIMING, "[[False], ~narrow", "[[True], ~narrow"),
    *_shared("A4", "a lead a cycle longer", TIMING, "lead = machine.rank_memory.network_cycles", "lead = 1 + machine.rank_memory.network_cycles"),
    *_shared("A4", "a lead without the requantisers' last cycle", TIMING, "lead = machine.rank_memory.network_cycles +", "lead = max(1, machine.rank_memory.network_cycles) - 1 +"),
    *_shared("A4", "REDUCE has the lead too", TIMING, "lead if entry.reads is Place.RANKS", "lead if entry.uses_ranks"),
    *_shared("A5", "sums leave a cycle later", TIMING, "machine.rows + machine.cols - 1", "machine.rows + machine.cols"),
    *_shared("A5", "sums leave a cycle sooner", TIMING, "machine.rows + machine.cols - 1", "machine.rows + machine.cols - 2"),
    *_shared("A5", "a REDUCE tile's sums skip a stage of the network", TIMING, "tail[list(through_network)] += network", "tail[list(through_network)] += max(0, network - 1)"),
    *_shared("A4", "a MIX tile has no lead", TIMING, "lead if entry.reads is Place.RANKS", "lead if entry.reads is Place.RANKS and entry.writes is not Place.RANKS"),
    *_shared("A5", "a MIX tile is done as an EXPAND", TIMING, "lambda entry: entry.writes is Place.RANKS", "lambda entry: entry.writes is Place.RANKS and entry.reads is not Place.RANKS"),
    *_shared("A5", "an EXPAND tile's sums pass the network too", TIMING, "lambda entry: entry.writes is Place.RANKS", "lambda entry: entry.uses_ranks"),
    *_shared("B2", "conflicts cost nothing", TIMING, "* ins.row_cycles[at]\n", "* 1\n"),
    *_shared("V1", "a drain's last rows are cut off", TIMING, "ceil_div(ins.tokens[at].astype(np.int64) * machine.cols, machine.vector.lanes)", "np.maximum(1, ins.tokens[at].astype(np.int64) * machine.cols // machine.vector.lanes)"),
    *_shared("V1", "a drain is done a cycle later", TIMING, "After.VECTOR: machine.vector.latency_cycles", "After.VECTOR: machine.vector.latency_cycles + 1"),
    *_shared("V2", "a pass more", TIMING, "ins.row_cycles[at] * ceil_div(", "(ins.row_cycles[at] + 1) * ceil_div("),
    *_shared("V2", "one pass, whatever the steps", TIMING, "ins.row_cycles[at] * ceil_div(", "ceil_div("),
    *_shared("V2", "a pass ends where the next begins", TIMING, "ins.row_cycles[at] * ceil_div(elements, machine.vector.lanes)", "ceil_div(ins.row_cycles[at] * elements, machine.vector.lanes)"),
    *_shared("V2", "a pass's last elements are cut off", TIMING, "ceil_div(elements, machine.vector.lanes)", "np.maximum(1, elements // machine.vector.lanes)"),
    *_shared("V2", "a vector operator's first chunk alone", TIMING, " * ins.chunk[at]", ""),
    *_shared("V2", "a lane fewer", TIMING, "ceil_div(elements, machine.vector.lanes)", "ceil_div(elements, max(1, machine.vector.lanes - 1))"),
    *_shared("V2", "a vector operator is done as it ends", TIMING, "tails[entry.queue])", "tails[entry.queue] * (entry.duration is not Duration.PASSES))"),
    *_shared("D2", "a transfer takes a cycle more", OWN_TIMING, "return _first(1000 * bursts", "return 1 + _first(1000 * bursts", "agreement"),
    *_shared("D4", "a latency a cycle longer", OWN_TIMING, "return math.ceil(Fraction(", "return 1 + math.ceil(Fraction(", "agreement"),
    *_shared("A5", "sums leave a cycle sooner", OWN_TIMING, "(machine.cols - 1) + 1", "(machine.cols - 1)", "agreement"),
    *_shared("A6", "a narrow tile overtakes a wide one", OWN_TIMING, "if narrow and not behind_wide else 1", "if narrow else 1", "agreement"),
    *_shared("V1", "a drain's last rows are cut off", OWN_TIMING, "return _first(rows * machine.cols, lanes)", "return max(1, rows * machine.cols // lanes)", "agreement"),
    *_shared("V2", "a pass more", OWN_TIMING, "range(_passes(program, i))", "range(1 + _passes(program, i))", "agreement"),
]  # fmt: skip

COUNTERS = [
    *_shared("C1", "a tail a cycle longer", ACCOUNTS, "_TAIL] = ends -", "_TAIL] = ends + 1 -", "agreement"),
    *_shared("C1", "conflicts counted as computing", ACCOUNTS, "_COMPUTE] += tokens[i]", "_COMPUTE] += end[i] - start[i]", "agreement"),
    *_shared("C1", "ties go to the dependence named last", ENGINE, "if when > ready:", "if when >= ready:", "agreement"),
    *_shared("C1", "a wait for the channel counted from the request of the unit", UNITS, "start[i] - max(ready, free)", "start[i] - free", "agreement"),
    *_shared("C2", "words not filled up", COUNTS, "return ceil_div(bits, word_bits)", "return bits // word_bits", "agreement"),
    *_shared("C2", "every lane of a MIX tile gathers", COUNTS, "[table.gathered for table in tiles]", "[table.gathered + table.scattered for table in tiles]", "agreement"),
    *_shared("C2", "narrow multiplications at the price of wide ones", COUNTS, "row[_MAC_NARROW if narrow else _MAC_ACTIVE]", "row[_MAC_ACTIVE]", "agreement"),
    *_shared("C2", "narrow tiles move the bits of wide ones", COUNTS, "[table.weight_bits(machine) for table in tiles]", "[np.full(len(table), machine.datatypes.weight_bits) for table in tiles]", "agreement"),
    *_shared("C2", "sums cross the network as if nothing were shifted", COUNTS, "machine.leaving_sum_bits", "machine.partial_sum_bits", "agreement"),
    *_shared("E4", "a narrow record without its shifts", SCHEDULE, "+ narrow * shift_bytes(machine)", "+ 0 * shift_bytes(machine)"),
    *_shared("E4", "a narrow record of wide weights", SCHEDULE, "np.where(narrow == 1, types.narrow_bits, types.weight_bits)", "np.full(len(narrow), types.weight_bits)"),
    *_shared("C2", "overwriting lanes read their sums", COUNTS, "words * (lanes - overwriting)", "words * lanes", "agreement"),
    *_shared("C2", "a drain of a bias alone reads sums", COUNTS, "costs.sum_words * accumulate[i]", "costs.sum_words * (accumulate[i] or reads == _ACCUMULATORS)", "agreement"),
    *_shared("C2", "a vector operator's passes counted once", COUNTS, " * row_cycles[i] * chunk[i]", " * chunk[i]", "agreement"),
    *_shared("C2", "operands read for every row though broadcast", LAYOUT, "return 1 if operand.tokens == 1 and (operator.tokens > 1 or read_by_all(network, operator, operand)) else 0", "return 0", "agreement"),
    *_shared("C2", "DRAM bytes without bursts", COUNTS, "ceil_div(dram_bytes[i], costs.burst_bytes) * costs.burst_bytes", "dram_bytes[i]", "agreement"),
    *_shared("C3", "a roof a cycle too high", REPORT, '"compute": ceil_div(', '"compute": 1 + ceil_div('),
    *_shared("C4", "a row's first cycle counted as a conflict too", ACCOUNTS, "(row_cycles[i] - 1)", "row_cycles[i]", "agreement"),
    *_shared("C4", "a gap is the tile's alone", ACCOUNTS, "since = max(at, done[after[column, i]])", "since = at", "agreement"),
    *_shared("C4", "an instruction is next when the one before it is done", ACCOUNTS, "end[previous[i]] > ready:", "done[previous[i]] > ready:", "agreement"),
    *_shared("C4", "nobody waits in a queue", ACCOUNTS, "if previous[i] >= 0 and", "if previous[i] < -1 and", "agreement"),
    *_shared("C4", "a store counts for the vector unit", ACCOUNTS, 'After.STORE: "wait_input"', 'After.STORE: "wait_vector"', "agreement"),
    *_shared("C4", "the tail goes back from the last instruction that is done", ACCOUNTS, "done[i] > done[last]", "i > last", "agreement"),
    *_shared("C5", "a cycle of the vector unit less", BOUNDS, "vector[layer[i]] += busy[i]", "vector[layer[i]] += busy[i] - 1", "agreement"),
    *_shared("C5", "array time holds the channel", BOUNDS, "if unit[i] < _ARRAY", "if unit[i] <= _ARRAY", "agreement"),
]  # fmt: skip

PLACES = [
    *_shared("B2", "pixels apart are one run of bytes", IMAGES, "(np.diff(shift) != 0) | (np.diff(down) != 0)", "np.diff(down) != 0"),
    *_shared("B2", "a run more, whatever is read", IMAGES, "(np.diff(down) != 0))) + 1", "(np.diff(down) != 0))) + 2"),
    *_shared("M2", "windows reach a row less", IMAGES, "rows - 1)) + self.rows.reach", "rows - 1)) + self.rows.reach - 1"),
    *_shared("M2", "windows begin a row lower", IMAGES, "return int(self.first_row(row0)), int(", "return int(self.first_row(row0)) + 1, int("),
    *_shared("M2", "rows come round a row late", IMAGES, "down * self.rows.dilation) % kept", "down * self.rows.dilation) % (kept + 1)"),
    *_shared("M2", "rows have no fill beside them", IMAGES, "return self.columns.size * self.pixel", "return self.columns.image * self.pixel"),
    *_shared("M4", "ranks of a later turn lie in places of their own", SCHEDULE, "self.rank_slot % self.held_slots", "self.rank_slot"),
    *_shared("M4", "a tile's slots are counted from its last turn", SCHEDULE, "self._turns(np.minimum) * self.held_slots", "self._turns(np.maximum) * self.held_slots"),
    *_shared("M4", "a tile's slots are counted from the layer's first turn", SCHEDULE, "self.rank_slot[tiles.lane[lanes]] // self.held_slots", "0 * self.rank_slot[tiles.lane[lanes]]"),
    *_shared("M4", "ranks that share a place share its multiplier", SCHEDULE, "RANK_PARAMETER_BYTES * self.slots", "RANK_PARAMETER_BYTES * self.held_slots"),
    *_shared("E3", "a layer reads outputs that are not there", RECORD, "run.last <= sizes.get(run.layer, 0)", "run.last <= 1 + sizes.get(run.layer, 0)"),
    *_shared("E3", "a layer reads its own outputs", RECORD, "            where = f\"program: layer '{layer.name}': sources\"", "            sizes[layer.name] = layer.out_features\n            where = f\"program: layer '{layer.name}': sources\""),
    *_shared("E3", "a layer reads fewer outputs than it has inputs", RECORD, "width != layer.in_features", "width > layer.in_features"),
    *_shared("E1", "rows of fill move bytes", IMAGES, "int(np.count_nonzero(down >= 0)) * columns", "len(down) * columns"),
    *_shared("E1", "what lies between the pixels that are read moves nothing", IMAGES, "else int(read[-1] - read[0]) + 1", "else len(read)"),
    *_shared("I2", "heads share a tile though they do not make up whole chunks", LAYOUT, " and shared % (side // stride) == 0)", ")"),
    *_shared("I2", "a head that ends inside a chunk shares its tile", LAYOUT, "else 1\n\n\ndef heads_of_chunk", "else shared\n\n\ndef heads_of_chunk"),
    *_shared("I2", "heads of a chunk share their sums", LAYOUT, "return side // stride", "return 1"),
    *_shared("I2", "heads of scores are read where they are written", LAYOUT, '(stride, keys) if operator.kind == "scores"', '(keys, stride) if operator.kind == "scores"'),
    *_shared("I2", "a narrow head begins at its chunk's edge", LAYOUT, "side * rows * side + head * step % side", "side * rows * side"),
    *_shared("I2", "heads lie a row too far apart", LAYOUT, "head * step // side * rows * side", "head * step // side * (rows + 1) * side"),
]  # fmt: skip

MUTANTS = (*ORDER, *DURATIONS, *COUNTERS, *PLACES)
