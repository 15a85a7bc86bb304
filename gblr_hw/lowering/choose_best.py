"""The choice among a layer's forms: each goes through the passes up to its schedule and is timed alone on the engine.

Forms that cannot win are passed over. The array alone takes max(T, P) cycles a tile and token block (machine.md, A2 and
A3), and a lower bound of the tiles is known before ranks are placed, so a form is not placed, let alone timed, when
that is more than the best latency so far. A layer with one form is not timed for it.

The form that wins may be cut into smaller blocks of tokens, where the first block's inputs and the last one's outputs
take so long beside the array that it would gain from them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from gblr_hw.lowering.chains.pack_mixes import pack_mixes
from gblr_hw.lowering.chains.take_turns import take_turns
from gblr_hw.lowering.emit.emit import emit_instructions
from gblr_hw.lowering.finer_blocks import Cut, cycles_and_bytes, finer_block
from gblr_hw.lowering.passes.block_tokens import block_tokens
from gblr_hw.lowering.passes.build_schedule import build_schedule
from gblr_hw.lowering.passes.choose_form import Form, candidate_forms, outline
from gblr_hw.lowering.passes.colour_banks import colour_banks
from gblr_hw.lowering.passes.group_ranks import group_ranks
from gblr_hw.lowering.passes.order_tiles import order_tiles
from gblr_hw.lowering.passes.pack_ranks import pack_ranks
from gblr_hw.lowering.passes.plan import LayerPlan, filled
from simulator.base.arithmetic import ceil_div
from simulator.base.errors import InputError
from simulator.program.schedule import LayerSchedule


@dataclass(frozen=True, eq=False)
class PlacedForm:
    """A form with its schedule; ``plan`` has everything but numbers."""

    form: Form
    plan: LayerPlan
    schedule: LayerSchedule

    @cached_property
    def cost(self) -> tuple[int, int]:
        """Latency in cycles and DRAM bytes of the layer alone. Raises InputError if the machine cannot hold it."""
        instructions = emit_instructions([self.schedule], self.plan.machine, self.plan.tokens)
        return cycles_and_bytes(instructions, [self.schedule.tiles], self.plan.machine)


@dataclass(frozen=True, eq=False)
class Choice:
    """The best form of a layer, and one line of text for each that was looked at."""

    best: PlacedForm
    summary: str


def choose_best(
    plan: LayerPlan, paper_count: int, explain: bool, forms: tuple[Form, ...] | None = None, finer: bool = False
) -> Choice:
    """The form that runs fastest on its own; ties go to fewer DRAM bytes, then to ranks over dense.

    ``explain``: whether the summary is wanted, which times a form without rivals too. forms: those there are, None for
    all. finer: whether its blocks of tokens may be smaller than they must. Raises InputError if the machine can hold
    none of them.
    """
    outlines: list[tuple[int, int, Form, LayerPlan]] = []
    lines: dict[int, str] = {}
    refusals = []
    forms = candidate_forms(plan) if forms is None else forms
    for index, form in enumerate(forms):
        try:
            cut = _outlines(plan, form)
        except InputError as error:
            refusals.append((index, error))
        else:
            outlines += [(_least_cycles(one), index, form, one) for one in cut]
    ranked: list[tuple[tuple[int, int], int, PlacedForm]] = []
    for bound, index, form, outlined in sorted(outlines, key=lambda entry: entry[:2]):
        if ranked and bound > ranked[0][0][0]:
            lines[index] = f"  {form.title}: at least {bound} cycles\n"
            continue
        try:
            placed = _place(form, outlined, paper_count)
            cost = placed.cost if explain or max(len(forms), len(outlines)) > 1 else (0, 0)
        except InputError as error:
            refusals.append((index, error))
            continue
        ranked = sorted([*ranked, (cost, index, placed)], key=lambda entry: entry[:2])
        lines[index] = f"  {form.title}: {len(placed.schedule.tiles)} tiles, {cost[0]} cycles, {cost[1]} bytes\n"
    if not ranked:
        raise max(refusals, key=lambda refusal: refusal[0])[1]
    _, chosen, best = ranked[0]
    if finer and (smaller := _finer(best)) is not best:
        (cycles, moved), best = smaller.cost, smaller
        lines[chosen] += f"  the same in blocks of {best.plan.block_tokens}: {cycles} cycles, {moved} bytes\n"
    lines[chosen] = "*" + lines[chosen][1:]
    return Choice(best, "".join(lines[index] for index in sorted(lines)))


def _finer(placed: PlacedForm) -> PlacedForm:
    """The form in the blocks of tokens that run fastest of its own and smaller ones, which have room where it has."""
    plan = placed.plan
    features, tiles = plan.factors.in_features + plan.factors.out_features, len(placed.schedule.tiles)
    blocks = (ceil_div(plan.tokens, plan.block_tokens),)
    cut = Cut(plan.machine, plan.tokens, plan.block_tokens, blocks, features, tiles, _least_cycles(plan))
    forms = {plan.block_tokens: placed}
    for size in cut.finer():
        schedule = replace(placed.schedule, block_tokens=size)
        forms.setdefault(size, PlacedForm(placed.form, filled(plan, block_tokens=size), schedule))
    return forms[finer_block(cut, forms, lambda size: forms[size].cost)]


def _outlines(plan: LayerPlan, form: Form) -> list[LayerPlan]:
    """The plan in this form, cut into blocks of tokens; one whose ranks feed ranks also with larger ones, whose inputs
    take both buffers. Raises InputError if the machine cannot hold it.
    """
    outlined = outline(plan, form)
    both = plan.one_input or len(outlined.factors.mix_source) > 0
    cut = block_tokens(pack_mixes(take_turns(filled(outlined, one_input=False))))
    if not both or cut.block_tokens == plan.tokens:
        return [cut]
    larger = block_tokens(pack_mixes(take_turns(filled(outlined, one_input=True))))
    return [cut, larger] if larger.block_tokens > cut.block_tokens else [cut]


def _least_cycles(plan: LayerPlan) -> int:
    """A lower bound of the latency: tiles as if ranks were packed by chunk, each max(T, P) cycles a token block, where
    narrow tiles have fewer than P (rule A6).
    """
    machine = plan.machine
    preload = ceil_div(machine.rows, machine.datatypes.narrow_rows) if plan.narrow else machine.rows
    tiles = plan.structure.tile_count(machine.rows, machine.cols)
    blocks, rest = divmod(plan.tokens, plan.block_tokens)
    return tiles * (blocks * max(plan.block_tokens, preload) + (max(rest, preload) if rest else 0))


def _place(form: Form, plan: LayerPlan, paper_count: int) -> PlacedForm:
    plan = pack_ranks(colour_banks(plan)) if plan.machine.scatter else group_ranks(plan)
    plan = order_tiles(plan)
    return PlacedForm(form, plan, build_schedule(plan, paper_count))
