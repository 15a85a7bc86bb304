"""``gblr-hw lower``: from a checkpoint, or a whole model, to a program."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import typer

from gblr_hw.cli.options.lower_options import ROWS, LowerOptions
from gblr_hw.cli.options.shared_options import shapes_of
from gblr_hw.cli.options.taking import takes
from gblr_hw.cli.shared.acting import ALWAYS, check_acting
from gblr_hw.cli.shared.outputs import Output, check_outputs, machine_file
from gblr_hw.cli.shared.tables import print_program_table
from gblr_hw.cli.shared.telling import print_json, progress_bar, say
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


@takes(LowerOptions)
def lower_command(context: typer.Context, options: LowerOptions) -> None:
    """Lower a checkpoint, layer after layer in the form that runs fastest, or a whole model with all its operators."""
    checkpoint = options.checkpoint
    if checkpoint is not None and options.model is None and is_onnx(str(checkpoint)):
        options = replace(options, model=str(checkpoint), checkpoint=None)
    check_acting(context, _given(options.checkpoint, options.model, options.gblr), _ACTS_WITH)
    if options.model == "list":
        _list_models(options.as_json)
        return
    wanted = _stages(options.dump_after, options.model)
    machine = Machine.load(options.machine)
    target = options.output or _default_output(options.checkpoint, options.model)
    check_outputs(
        [Output("--output", target)],
        inputs={
            "the checkpoint": options.checkpoint, "--machine": machine_file(options.machine),
            "--model": model_file(options.model),
        },
    )  # fmt: skip
    with progress_bar(options.as_json or bool(wanted)) as progress:
        how = {"dump": _dump(wanted), "progress": progress, "weight_bits": options.weight_bits}
        program, notes = (_lower_checkpoint if options.model is None else _lower_model)(options, machine, **how)
    program.save(target)
    if options.as_json:
        print_json(_summary(program, target) | {"left_out": notes})
    elif not wanted:
        print_program_table(program)
        for note in notes:
            say(note)
        if options.model is None and options.tokens is None:
            say(f"{ROWS} activation rows enter each layer, as --tokens does not say otherwise")
        say(f"written to {target}")


def _dump(wanted: set[str]) -> Callable[[str, str], None] | None:
    """What prints the stages that are wanted; None without any."""

    def dump(stage: str, text: str) -> None:
        if stage in wanted:
            print(f"-- after {stage}")
            for line in text.splitlines():
                print(printable(line))

    return dump if wanted else None


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


def _lower_checkpoint(options: LowerOptions, machine: Machine, **how: Any) -> tuple[Program, list[str]]:
    """The program of a checkpoint's layers, and a sentence for each kind of matrix that was left out."""
    from gblr_hw.files.checkpoint import read_checkpoint
    from gblr_hw.lowering.pipeline import lower

    assert options.checkpoint is not None
    told, shapes = options.tensors.told(), shapes_of(options.shape or ())
    contents = read_checkpoint(options.checkpoint, gaussian=options.gaussian, shapes=shapes, told=told)
    return lower(contents.layers, machine, tokens=options.tokens or ROWS, **how), contents.account.notes()


def _lower_model(options: LowerOptions, machine: Machine, **how: Any) -> tuple[Program, list[str]]:
    """The program of a model, and a sentence for each kind of tensor that was left out."""
    from gblr_hw.lowering.lower_model import lower_model

    assert options.model is not None
    wish = Wish(
        options.model, options.batch, options.tokens, options.past, options.seed, options.checkpoint, options.gaussian,
        options.random_weights, options.gblr, tuple(options.tensors.leave_out or ()), renames(options.rename or ()),
        sizes_of(options.size or ()),
    )  # fmt: skip
    treat = treatments(options.treat or ())
    model, inputs, kwargs, notes = model_of(wish)
    how |= {"treat": treat, "by_example": options.by_example, "drop_zeros": options.drop_zeros}
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
