"""``gblr-hw lower``: from a checkpoint, or a whole model, to a program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from gblr_hw.cli.commands.lower_source import Wish, model_of, renames, treatments
from gblr_hw.cli.shared.options import (
    GaussianOption,
    JsonOption,
    LayerOption,
    LeaveOutOption,
    MachineOption,
    TableOption,
    TransposedOption,
    check_output,
    console,
    print_json,
    progress_bar,
)
from gblr_hw.cli.shared.tables import print_program_table
from simulator.base.errors import InputError
from simulator.machine.machine import Machine
from simulator.program.program import Program

_ROWS = 197


def lower_command(
    checkpoint: Annotated[
        Path | None, typer.Argument(help="A checkpoint: our format, the published layout, or plain dense weights.")
    ] = None,
    machine: MachineOption = "mid-32",
    tokens: Annotated[
        int | None,
        typer.Option(
            "--tokens", help=f"Activation rows that enter every layer [default: {_ROWS}]; of a model: tokens.", min=1
        ),
    ] = None,
    gaussian: GaussianOption = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            help="Lower a whole network: transformers:google/vit-base-patch16-224 (`--model list` names all), or "
            "FILE.py:FUNCTION, which returns (module, example inputs). A checkpoint then fills its weights.",
            metavar="NAME",
        ),
    ] = None,
    random_weights: Annotated[
        bool, typer.Option("--random-weights", help="Draw weights that no checkpoint gives; cycles do not change.")
    ] = False,
    batch: Annotated[int, typer.Option("--batch", help="Of a model: sequences or images at once.", min=1)] = 1,
    past: Annotated[int, typer.Option("--past", help="Of a causal model: tokens in the cache.", min=0)] = 0,
    gblr: Annotated[
        float | None,
        typer.Option("--gblr", help="Of a model: random GBLR layers at this fraction of the multiplications."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of random weights.")] = 0,
    treat: Annotated[
        list[str] | None,
        typer.Option("--treat", help="What an operation that is not known costs.", metavar="NAME=free|vector"),
    ] = None,
    table: TableOption = None,
    layer: LayerOption = None,
    leave_out: LeaveOutOption = None,
    transposed: TransposedOption = None,
    rename: Annotated[
        list[str] | None,
        typer.Option(
            "--rename", help="Of a model's checkpoint: what a prefix of its names becomes.", metavar="OLD=NEW"
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Program file to write [default: NAME.program]."),
    ] = None,
    dump_after: Annotated[
        list[str] | None,
        typer.Option("--dump-after", help="Print what a pass made, for every layer; may be repeated.", metavar="PASS"),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Lower a checkpoint, layer after layer in the form that runs fastest, or a whole model with all its operators."""
    if model == "list":
        _list_models()
        return
    _check_acting(model, {"--rename": rename}, {"--table": table, "--layer": layer, "--transposed": transposed})
    wanted = _stages(dump_after, model)
    target = check_output(output or _default_output(checkpoint, model))
    loaded = Machine.load(machine)

    def dump(stage: str, text: str) -> None:
        if stage in wanted:
            print(f"-- after {stage}\n{text}", end="")

    with progress_bar(as_json or bool(wanted)) as progress:
        how = {"dump": dump if wanted else None, "progress": progress}
        if model is None:
            told = (table or (), layer or (), leave_out or (), transposed or ())
            program, notes = _lower_checkpoint(checkpoint, loaded, tokens or _ROWS, gaussian, told, **how)
        else:
            wish = Wish(
                model, batch, tokens, past, seed, checkpoint, gaussian, random_weights, gblr, tuple(leave_out or ()),
                renames(rename or ()),
            )  # fmt: skip
            program, notes = _lower_model(wish, loaded, treatments(treat or ()), **how), []
    program.save(target)
    if as_json:
        print_json(_summary(program, target) | {"left_out": notes})
    elif not wanted:
        print_program_table(program)
        for note in notes:
            console.print(note, highlight=False, soft_wrap=True)
        console.print(f"written to {target}", highlight=False, soft_wrap=True)


def _check_acting(model: str | None, of_model: Mapping[str, object], of_layers: Mapping[str, object]) -> None:
    """Raise InputError for an option that would do nothing: some are for whole models, some for a checkpoint alone."""
    idle, rule = (of_model, "it goes with --model") if model is None else (of_layers, "it goes with a checkpoint alone")
    for name, value in idle.items():
        if value:
            raise InputError(name, str(value), rule, "Leave it out.")


def _default_output(checkpoint: Path | None, model: str | None) -> Path:
    if checkpoint is not None:
        return checkpoint.with_suffix(".program")
    if model is None:
        raise InputError("arguments", "no checkpoint", "there is a checkpoint or a --model", "Name one.")
    return Path(model.replace(":", "/").rpartition("/")[2] + ".program")


def _stages(dump_after: list[str] | None, model: str | None) -> set[str]:
    from gblr_hw.lowering.lower_layer import PASSES
    from gblr_hw.lowering.whole_network import NETWORK_PASSES

    known = PASSES if model is None else NETWORK_PASSES
    wanted = set(dump_after or ())
    for name in wanted - set(known):
        raise InputError("--dump-after", repr(name), f"the passes are {', '.join(known)}", "Use one of these names.")
    return wanted


def _lower_checkpoint(
    checkpoint: Path | None,
    machine: Machine,
    tokens: int,
    gaussian: bool | None,
    told: tuple[Sequence[str], ...],
    **how: Any,
) -> tuple[Program, list[str]]:
    """The program of a checkpoint's layers, and a sentence for each kind of matrix that was left out."""
    from gblr_hw.files.accounting import Told
    from gblr_hw.files.checkpoint import read_checkpoint
    from gblr_hw.lowering.pipeline import lower

    assert checkpoint is not None
    contents = read_checkpoint(checkpoint, gaussian=gaussian, told=Told.of(*told))
    return lower(contents.layers, machine, tokens=tokens, **how), contents.account.notes()


def _lower_model(wish: Wish, machine: Machine, treat: dict[str, Literal["free", "vector"]], **how: Any) -> Program:
    from gblr_hw.lowering.lower_model import lower_model

    model, inputs = model_of(wish)
    return lower_model(model, machine, inputs, treat=treat, **how)


def _list_models() -> None:
    from gblr_hw.frontend.sources import SOURCES

    for name in SOURCES:
        print(name)


def _summary(program: Program, target: Path) -> dict[str, object]:
    cells = program.machine.rows * program.machine.cols
    rows = [
        {
            "name": layer.name,
            "form": layer.form,
            "ranks": layer.ranks,
            "tiles": len(layer.tiles),
            "tile_bound": layer.multiplications / cells,
            "multiplications": layer.multiplications,
        }
        for layer in program.layers
    ]
    return {
        "program": str(target),
        "machine": program.machine.name,
        "tokens": program.tokens,
        "layers": rows,
        "tiles": program.tile_count,
        "instructions": len(program.instructions),
    }
