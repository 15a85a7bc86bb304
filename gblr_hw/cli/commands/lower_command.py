"""``gblr-hw lower``: from a checkpoint, or a whole model, to a program."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gblr_hw.cli.shared.acting import ALWAYS, check_acting
from gblr_hw.cli.shared.options import (
    GaussianOption,
    JsonOption,
    LayerOption,
    LeaveOutOption,
    MachineOption,
    SeedOption,
    ShapeOption,
    TableOption,
    TransposedOption,
    print_json,
    progress_bar,
    say,
    shapes_of,
    told_of,
)
from gblr_hw.cli.shared.outputs import Output, check_outputs, machine_file
from gblr_hw.cli.shared.tables import print_program_table
from gblr_hw.cli.sources.lower_source import (
    EMPTY,
    KNOWN,
    ONNX,
    Wish,
    is_onnx,
    kinds_of_model,
    model_file,
    model_of,
    renames,
    sizes_of,
    treatments,
)
from simulator.base.errors import InputError
from simulator.base.text import printable
from simulator.machine.machine import Machine
from simulator.program.program import Program

if TYPE_CHECKING:
    from gblr_hw.files.accounting import Told

_ROWS = 197
_MOST = 2**20  # of any size of a model's inputs; a program has no more rows than that
_LAYERS, _LIST = "a checkpoint's layers", "--model list"
_MODEL, _FILLED, _MODEL_FILLED = "a model", "a checkpoint", "a model's checkpoint"
_ACTS_WITH = {
    "checkpoint": (_FILLED, ONNX),
    "machine": (_LAYERS, _MODEL),
    "tokens": (_LAYERS, KNOWN),
    "gaussian": (_FILLED,),
    "model": ALWAYS,
    "random_weights": (EMPTY,),
    "batch": (KNOWN,),
    "past": (KNOWN,),
    "gblr": (_MODEL,),
    "seed": (KNOWN, ONNX, "--gblr"),
    "treat": (_MODEL,),
    "by_example": (_MODEL,),
    "drop_zeros": (_MODEL,),
    "weight_bits": (_LAYERS, _MODEL),
    "table": (_LAYERS,),
    "layer": (_LAYERS,),
    "leave_out": (_FILLED,),
    "transposed": (_LAYERS,),
    "shape": (_LAYERS,),
    "rename": (_MODEL_FILLED,),
    "size": (ONNX,),
    "output": (_LAYERS, _MODEL),
    "dump_after": (_LAYERS, _MODEL),
    "as_json": ALWAYS,
}


def lower_command(
    context: typer.Context,
    checkpoint: Annotated[
        Path | None,
        typer.Argument(help="A checkpoint (our format, the published layout, plain dense weights) or an ONNX model."),
    ] = None,
    machine: MachineOption = "mid-32",
    tokens: Annotated[
        int | None,
        typer.Option(
            "--tokens",
            help=f"Activation rows that enter every layer [default: {_ROWS}]; of a model: tokens.",
            min=1,
            max=_MOST,
        ),
    ] = None,
    gaussian: GaussianOption = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            help="Lower a whole network: transformers:google/vit-base-patch16-224 (`--model list` names all), or "
            "FILE.py:FUNCTION, which returns (module, example inputs), or with a dict of keyword arguments as a third. "
            "A checkpoint then fills its weights.",
            metavar="NAME",
        ),
    ] = None,
    random_weights: Annotated[
        bool, typer.Option("--random-weights", help="Draw weights that no checkpoint gives; cycles do not change.")
    ] = False,
    batch: Annotated[
        int, typer.Option("--batch", help="Of a model: sequences or images at once.", min=1, max=_MOST)
    ] = 1,
    past: Annotated[int, typer.Option("--past", help="Of a causal model: tokens in the cache.", min=0, max=_MOST)] = 0,
    gblr: Annotated[
        float | None,
        typer.Option("--gblr", help="Of a model: random GBLR layers at this fraction of the multiplications."),
    ] = None,
    seed: SeedOption = 0,
    treat: Annotated[
        list[str] | None,
        typer.Option("--treat", help="What an operation that is not known costs.", metavar="NAME=free|vector"),
    ] = None,
    by_example: Annotated[
        bool,
        typer.Option(
            "--by-example", help="Of a model: branches and shapes that depend on data are the example inputs'."
        ),
    ] = False,
    drop_zeros: Annotated[
        bool, typer.Option("--drop-zeros", help="Of a model: leave out tiles whose weights are all zero.")
    ] = False,
    weight_bits: Annotated[
        int | None,
        typer.Option("--weight-bits", help="Of all tiles: the machine's weight_bits [default] or narrow_bits.", min=1),
    ] = None,
    table: TableOption = None,
    layer: LayerOption = None,
    leave_out: LeaveOutOption = None,
    transposed: TransposedOption = None,
    shape: ShapeOption = None,
    rename: Annotated[
        list[str] | None,
        typer.Option("--rename", help="Of a model's checkpoint: what a prefix of names becomes.", metavar="OLD=NEW"),
    ] = None,
    size: Annotated[
        list[str] | None,
        typer.Option("--size", help="Of an ONNX model: a free dimension, INPUT.AXIS=N.", metavar="INPUT.AXIS=N"),
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
    if checkpoint is not None and model is None and is_onnx(str(checkpoint)):
        model, checkpoint = str(checkpoint), None
    check_acting(context, _given(checkpoint, model, gblr), _ACTS_WITH)
    if model == "list":
        _list_models(as_json)
        return
    wanted = _stages(dump_after, model)
    loaded = Machine.load(machine)
    target = output or _default_output(checkpoint, model)
    sources = {"the checkpoint": checkpoint, "--machine": machine_file(machine), "--model": model_file(model)}
    check_outputs([Output("--output", target)], inputs=sources)

    def dump(stage: str, text: str) -> None:
        if stage in wanted:
            print(f"-- after {stage}")
            for line in text.splitlines():
                print(printable(line))

    with progress_bar(as_json or bool(wanted)) as progress:
        how = {"dump": dump if wanted else None, "progress": progress, "weight_bits": weight_bits}
        if model is None:
            told = told_of(table, layer, leave_out, transposed)
            shapes = shapes_of(shape or ())
            program, notes = _lower_checkpoint(checkpoint, loaded, tokens or _ROWS, gaussian, told, shapes, **how)
        else:
            wish = Wish(
                model, batch, tokens, past, seed, checkpoint, gaussian, random_weights, gblr, tuple(leave_out or ()),
                renames(rename or ()), sizes_of(size or ()),
            )  # fmt: skip
            told_model = {"treat": treatments(treat or ()), "by_example": by_example, "drop_zeros": drop_zeros}
            program, notes = _lower_model(wish, loaded, **told_model, **how)
    program.save(target)
    if as_json:
        print_json(_summary(program, target) | {"left_out": notes})
    elif not wanted:
        print_program_table(program)
        for note in notes:
            say(note)
        if model is None and tokens is None:
            say(f"{_ROWS} activation rows enter each layer, as --tokens does not say otherwise")
        say(f"written to {target}")


def _given(checkpoint: Path | None, model: str | None, gblr: float | None) -> list[str]:
    """What the command is about, as the table of options names it."""
    if model == "list":
        return [_LIST]
    given = [] if checkpoint is None else [_FILLED]
    if model is None and checkpoint is None:
        raise InputError("arguments", "no checkpoint", "there is a checkpoint or a --model", "Name one.")
    if model is None:
        return [_LAYERS, *given]
    filled = [*given, _MODEL_FILLED] if given else []
    return [*kinds_of_model(model), _MODEL, *filled, *([] if gblr is None else ["--gblr"])]


def _default_output(checkpoint: Path | None, model: str | None) -> Path:
    if checkpoint is not None:
        return checkpoint.with_suffix(".program")
    assert model is not None
    return Path(model.replace(":", "/").rpartition("/")[2].removesuffix(".onnx") + ".program")


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
    told: Told,
    shapes: Mapping[str, tuple[int, int]],
    **how: Any,
) -> tuple[Program, list[str]]:
    """The program of a checkpoint's layers, and a sentence for each kind of matrix that was left out."""
    from gblr_hw.files.checkpoint import read_checkpoint
    from gblr_hw.lowering.pipeline import lower

    assert checkpoint is not None
    contents = read_checkpoint(checkpoint, gaussian=gaussian, shapes=shapes, told=told)
    return lower(contents.layers, machine, tokens=tokens, **how), contents.account.notes()


def _lower_model(wish: Wish, machine: Machine, **how: Any) -> tuple[Program, list[str]]:
    """The program of a model, and a sentence for each kind of tensor that was left out."""
    from gblr_hw.lowering.lower_model import lower_model

    model, inputs, kwargs, notes = model_of(wish)
    return lower_model(model, machine, inputs, kwargs=kwargs, **how), notes


def _list_models(as_json: bool) -> None:
    from gblr_hw.frontend.sources import SOURCES

    if as_json:
        print_json(list(SOURCES))
    else:
        print("\n".join(SOURCES))


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
