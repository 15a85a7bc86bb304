"""``lower``: the passes in order, every layer in its best form, and what any pass made, on request."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from torch import nn

from gblr_hw.frontend.export import Treatment
from gblr_hw.frontend.graph.registry import Lowering
from gblr_hw.lowering.emit.emit import emit
from gblr_hw.lowering.lower_model import lower_model
from gblr_hw.lowering.lower_parts import lower_parts
from gblr_hw.lowering.quantise.kept_codes import rounded_anew
from gblr_hw.lowering.quantise.tile_bits import narrow_kinds
from gblr_hw.weights.collect import weights_of
from gblr_hw.weights.stored import LayerWeights
from simulator.base.errors import InputError
from simulator.machine.machine import Machine
from simulator.program.listing import print_program
from simulator.program.program import Program
from simulator.program.schedule import LayerSchedule

MAX_TOKENS = 1 << 20

Dump = Callable[[str, str], None]  # (pass name, text)


def lower(
    source: Mapping[str, LayerWeights] | nn.Module,
    machine: Machine | str | Path,
    tokens: int = 197,
    calibration: Mapping[str, ArrayLike] | Iterable[Any] | None = None,
    dump: Dump | None = None,
    progress: Callable[[int, int, str], None] | None = None,
    *,
    example_inputs: Any = None,
    kwargs: Mapping[str, Any] | None = None,
    treat: Mapping[str, Treatment] | None = None,
    plugins: Mapping[str, Lowering] | None = None,
    by_example: bool = False,
    drop_zeros: bool = False,
    weight_bits: int | Mapping[str, int] | None = None,
) -> Program:
    """Lower a whole model, or the layers of a checkpoint, to a program. Deterministic.

    With ``example_inputs`` or ``kwargs`` the source is a model in evaluation mode, and all of it is lowered for inputs
    of their shapes: every operation, through torch.export. Without them the source is a checkpoint (layer name ->
    weights), or a model whose linear and convolution layers are taken; layers run one after another. One with more
    outputs than the parameter memory has room for becomes several, ``name[first:last]``, of the same inputs.

    Parameters
    ----------
    machine: a machine, its preset's name, or the path of a machine file.
    tokens: for layers: activation rows that enter each of them (output positions for a convolution).
    calibration: what int8 ranges are taken from. For layers: name -> (..., n) example inputs; layers without follow the
        white-input rule (machine.md, N1). For a model: batches like its example inputs, as a data loader gives them
        (what stands behind the inputs, as labels do, is left out, and larger batches are cut).
    dump: dump(pass name, text) receives what each pass made.
    progress: progress(done, of, layer name) is called per layer.
    example_inputs: a tensor, a tuple of positional or a dict of keyword arguments.
    kwargs: keyword arguments, alone or beside those.
    treat: operations that are not known, by node, module path or name, to "free" or "vector".
    plugins: operation -> lowering function (`gblr_hw.frontend.graph.registry`).
    by_example: for a model: branches and shapes that depend on the inputs' values are those of the example, also where
        weights or numbers that are no whole ones decide; provenance lists them.
    drop_zeros: for a model: leave out tiles of dense layers whose weights are all zero; provenance lists them.
    weight_bits: of the layers' tiles, the machine's weight_bits or narrow_bits (machine.md, A6), of all kinds or by
        kind: {"dense": 4}; wide if left out. Narrow weights are rounded to nearest. Dense
        weights of a layer that is stored on a grid of few bits (`gblr_hw.weights.bits`) keep their codes, in narrow
        tiles where the machine has them of so many bits, in wide ones where these hold the same numbers; provenance
        lists layers of which neither does ("rounded").

    Raises
    ------
    InputError: for a layer that the machine cannot hold, and for arguments that make no sense.
    """
    if not isinstance(machine, Machine):
        machine = Machine.load(machine)
    if example_inputs is not None or kwargs is not None:
        how: dict[str, Any] = {"treat": treat, "plugins": plugins, "dump": dump, "progress": progress, "kwargs": kwargs}
        how["weight_bits"] = weight_bits
        return _lower_whole(
            source, machine, example_inputs, calibration, by_example=by_example, drop_zeros=drop_zeros, **how
        )
    if by_example:
        raise InputError(
            "by_example",
            "no example inputs",
            "these decide branches and shapes of a whole model",
            "Give example_inputs.",
        )
    if drop_zeros:
        raise InputError(
            "drop_zeros", "layers one by one", "these have no tiles of zeros in the first place", "Leave it out."
        )
    if calibration is not None and not isinstance(calibration, Mapping):
        raise InputError(
            "calibration", type(calibration).__name__, "for layers it maps names to inputs", "Give example_inputs too."
        )
    checkpoint = weights_of(source) if isinstance(source, nn.Module) else source
    _check_layers(checkpoint, tokens, calibration)

    def dump_lazily(stage: str, make: Callable[[], str]) -> None:
        if dump is not None:
            dump(stage, make())

    schedules: list[LayerSchedule] = []
    narrow = narrow_kinds(weight_bits, machine)
    for done, (name, weights) in enumerate(checkpoint.items()):
        if progress is not None:
            progress(done, len(checkpoint), name)
        rows = (
            None
            if calibration is None or name not in calibration
            else _calibration_rows(name, calibration[name], weights.in_features)
        )
        schedules += lower_parts(name, weights, machine, tokens, rows, dump_lazily, dump is not None, narrow=narrow)
    provenance = {
        "forms": ",".join(s.form for s in schedules),
        "calibrated": ",".join(n for n in checkpoint if n in (calibration or {})),
        **rounded_anew(schedules, checkpoint, machine),
    }
    program = emit(schedules, machine, tokens, provenance)
    if dump is not None:
        dump("emit", print_program(program))
    return program


def check_tokens(tokens: int) -> None:
    """Raise InputError for a number of activation rows that no program has."""
    if not 1 <= tokens <= MAX_TOKENS:
        raise InputError(
            "tokens",
            str(tokens),
            f"it lies between 1 and {MAX_TOKENS}",
            "Give the number of activation rows that a layer sees.",
        )


def _check_layers(
    checkpoint: Mapping[str, LayerWeights], tokens: int, calibration: Mapping[str, ArrayLike] | None
) -> None:
    check_tokens(tokens)
    if not checkpoint:
        raise InputError(
            "checkpoint",
            "no layers",
            "there must be at least one linear or convolution layer",
            "Check which file or model it is.",
        )
    known = set(checkpoint)
    for name in calibration or {}:
        if name not in known:
            raise InputError(
                f"calibration '{name}'",
                "no such layer",
                f"layers are {', '.join(list(known)[:8])}",
                "Use the checkpoint's names.",
            )


def _lower_whole(
    source: Mapping[str, LayerWeights] | nn.Module,
    machine: Machine,
    example_inputs: Any,
    calibration: Mapping[str, ArrayLike] | Iterable[Any] | None,
    **how: Any,
) -> Program:
    """``how``: further arguments of `lower_model`."""
    if not isinstance(source, nn.Module):
        raise InputError(
            "source",
            type(source).__name__,
            "only a model has operations around its layers",
            "Give the nn.Module, or leave out example_inputs.",
        )
    if isinstance(calibration, Mapping):
        raise InputError("calibration", "a mapping", "for a model it is a list of batches", "Give model inputs.")
    return lower_model(source, machine, example_inputs, calibration, **how)


def _calibration_rows(name: str, values: ArrayLike, features: int) -> np.ndarray:
    rows = np.asarray(values, dtype=np.float64)
    if rows.ndim < 1 or rows.shape[-1] != features or rows.size == 0:
        raise InputError(
            f"calibration '{name}'",
            f"shape {rows.shape}",
            f"the last axis holds {features} inputs and there is at least one row",
            "Give inputs of this layer.",
        )
    if not np.isfinite(rows).all():
        raise InputError(
            f"calibration '{name}'", "NaN or infinity", "calibration inputs are finite", "Look where they come from."
        )
    return rows.reshape(-1, features)
