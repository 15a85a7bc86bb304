"""Dense GEMMs on a systolic array that overlaps nothing, counted as SCALE-Sim 3.0 counts them.

The array works a GEMM off in folds. A fold loads its stationary operand, streams the other one past it and waits until
the last sum has left; only then does the next fold begin. All folds cost the same, however little of the array they
fill, so the count is a closed form (SCALE-Sim 3.0, `get_compute_report_items()[1]` without stalls, that is with
``InterfaceBandwidth = CALC``). How our own machine differs is told in docs/references.md.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from simulator.base.arithmetic import ceil_div
from simulator.base.errors import InputError

MAX_SIZE = 2**31 - 1
MAX_COUNT = 2**63 - 1  # counts go into int64 columns and JSON readers that have nothing wider

Dataflow = Literal["ws", "os", "is"]

# Option sets by the name that `gblr-hw simulate --as` takes.
OPTION_SETS: Mapping[str, Dataflow] = MappingProxyType({"scalesim-ws": "ws", "scalesim-os": "os", "scalesim-is": "is"})
_STATIONARY = {"ws": "weight", "os": "output", "is": "input"}
_EXPRESSIONS = {
    "ws": "ceil(K/R) ceil(N/C) (2R + C + M - 2) - 1",
    "os": "ceil(M/R) ceil(N/C) (R + C + K - 2) - 1",
    "is": "ceil(K/R) ceil(M/C) (2R + C + N - 2) - 1",
}


@dataclass(frozen=True)
class Gemm:
    """The product of an (m, k) and a (k, n) matrix: m tokens through a layer of k inputs and n outputs.

    Raises InputError unless every size lies between 1 and 2**31 - 1 and the product of the three fits int64.
    """

    name: str
    m: int
    k: int
    n: int

    def __post_init__(self) -> None:
        for axis in ("m", "k", "n"):
            _keep_size(self, axis, f"GEMM '{self.name}'", axis.upper())
        if self.macs > MAX_COUNT:
            raise _too_many(self, f"{self.macs} multiply-adds")

    @property
    def macs(self) -> int:
        return self.m * self.k * self.n


@dataclass(frozen=True)
class SystolicArray:
    """The option set: a dataflow ("ws", "os" or "is") on ``rows`` x ``cols`` cells, SCALE-Sim's height and width.

    Raises InputError for any other dataflow and for sides outside 1 to 2**31 - 1.
    """

    dataflow: Dataflow
    rows: int
    cols: int

    def __post_init__(self) -> None:
        if self.dataflow not in _EXPRESSIONS:
            raise InputError("dataflow", repr(self.dataflow), 'it is "ws", "os" or "is"', "Use one of these.")
        for side in ("rows", "cols"):
            _keep_size(self, side, f"array {self.rows}x{self.cols}", side)

    @property
    def formula(self) -> str:
        return f"SCALE-Sim 3.0, {_STATIONARY[self.dataflow]} stationary"

    @property
    def expression(self) -> str:
        """The closed form in M, K, N and the array's R rows and C columns."""
        return _EXPRESSIONS[self.dataflow]


@dataclass(frozen=True)
class GemmCycles:
    """What a GEMM costs; ``compute_cycles`` is the sum of the three parts less 1, because the clock starts at 0.

    ``fill_and_drain_cycles``: the skew across R rows and C columns, R + C - 2 cycles a fold. ``utilisation``: useful
    multiply-adds over cells x ``compute_cycles``; None where that is 0 (a 1 x 1 array, output stationary, one
    multiply-add: SCALE-Sim divides by zero). ``mapping_efficiency``: cells that hold an operand, mean of the folds.
    """

    row_folds: int
    col_folds: int
    cycles_per_fold: int
    stationary_load_cycles: int
    stream_cycles: int
    fill_and_drain_cycles: int
    compute_cycles: int
    utilisation: float | None
    mapping_efficiency: float

    @property
    def folds(self) -> int:
        return self.row_folds * self.col_folds


def gemm_cycles(gemm: Gemm, array: SystolicArray) -> GemmCycles:
    """Cycles of ``gemm`` on ``array``, in exact integers; raises InputError where the count does not fit int64."""
    across_rows, across_cols, streamed = _axes(gemm, array.dataflow)
    row_folds, col_folds = ceil_div(across_rows, array.rows), ceil_div(across_cols, array.cols)
    folds = row_folds * col_folds
    load = 0 if array.dataflow == "os" else array.rows
    skew = array.rows + array.cols - 2
    cycles = folds * (load + streamed + skew) - 1
    cells = array.rows * array.cols
    if cycles * cells > MAX_COUNT:
        raise _too_many(gemm, f"{cycles} cycles on {array.rows} x {array.cols} cells")
    return GemmCycles(
        row_folds=row_folds,
        col_folds=col_folds,
        cycles_per_fold=load + streamed + skew,
        stationary_load_cycles=folds * load,
        stream_cycles=folds * streamed,
        fill_and_drain_cycles=folds * skew,
        compute_cycles=cycles,
        utilisation=gemm.macs / (cycles * cells) if cycles else None,
        mapping_efficiency=across_rows * across_cols / (folds * cells),
    )


def _axes(gemm: Gemm, dataflow: Dataflow) -> tuple[int, int, int]:
    """The axis along the array's rows, the one along its columns, and the one that is streamed."""
    if dataflow == "ws":
        return gemm.k, gemm.n, gemm.m
    if dataflow == "is":
        return gemm.k, gemm.m, gemm.n
    return gemm.m, gemm.n, gemm.k


def _keep_size(record: Gemm | SystolicArray, field: str, where: str, label: str) -> None:
    # A numpy integer would overflow where Python's own cannot.
    size = operator.index(getattr(record, field))
    if not 1 <= size <= MAX_SIZE:
        raise InputError(
            where, f"{label} = {size}", f"a size lies between 1 and {MAX_SIZE}", "Give whole numbers in that range."
        )
    object.__setattr__(record, field, size)


def _too_many(gemm: Gemm, found: str) -> InputError:
    return InputError(
        f"GEMM '{gemm.name}'", found, f"counts are at most {MAX_COUNT}", "Check the sizes, or split the GEMM."
    )
