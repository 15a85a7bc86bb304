"""SCALE-Sim's cycles: its own answers, the array played out register by register, and what the forms promise."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.base.errors import InputError
from simulator.scalesim.scalesim_topology import read_topology
from simulator.scalesim.systolic_gemm import MAX_COUNT, MAX_SIZE, Gemm, SystolicArray, gemm_cycles
from tests.oracles.play_array import play_gemm

ROWS = Path(__file__).parents[2] / "data" / "scalesim-3.0.0.csv"
DATAFLOWS = ("ws", "os", "is")
sides = st.integers(1, 12)


def cycles(m: int, k: int, n: int, dataflow: str, rows: int, cols: int) -> int:
    return gemm_cycles(Gemm("g", m, k, n), SystolicArray(dataflow, rows, cols)).compute_cycles


def written(tmp_path: Path, text: str) -> Path:
    (tmp_path / "net.csv").write_text(text, encoding="utf-8")
    return tmp_path / "net.csv"


def scalesim_rows() -> list[dict[str, str]]:
    """What SCALE-Sim 3.0.0 answered (benchmarks/peers/scalesim_rows.py)."""
    with ROWS.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_every_row_of_scalesim_is_reproduced_from_its_topology_line(tmp_path: Path) -> None:
    rows = scalesim_rows()
    assert len(rows) > 150
    assert {row["dataflow"] for row in rows} == set(DATAFLOWS)
    for row in rows:
        (gemm,) = read_topology(written(tmp_path, f"Layer,\n{row['layer']},{row['line']}\n"))
        array = SystolicArray(row["dataflow"], int(row["rows"]), int(row["cols"]))
        assert gemm_cycles(gemm, array).compute_cycles == int(row["compute_cycles"]), row


@pytest.mark.parametrize(
    ("dataflow", "expected"),
    # (K/R)(N/C) = 2 x 3 folds of 2x4 + 5 + 7 - 2 = 18; (M/R)(N/C) = 2 x 3 of 4 + 5 + 6 - 2 = 13; 2 x 2 of 13 + 11 - 2 = 22.
    [("ws", 6 * 18 - 1), ("os", 6 * 13 - 1), ("is", 4 * 22 - 1)],
)
def test_the_sum_written_out(dataflow: str, expected: int) -> None:
    assert cycles(7, 6, 11, dataflow, 4, 5) == expected


@given(m=sides, k=sides, n=sides, dataflow=st.sampled_from(DATAFLOWS), rows=sides, cols=sides, seed=st.integers(0, 99))
def test_the_array_played_out_takes_as_long(
    m: int, k: int, n: int, dataflow: str, rows: int, cols: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    x, w = rng.integers(-9, 10, (m, k)), rng.integers(-9, 10, (k, n))
    gemm, array = Gemm("g", m, k, n), SystolicArray(dataflow, rows, cols)
    last_cycle, product = play_gemm(gemm, array, x, w)
    assert last_cycle == gemm_cycles(gemm, array).compute_cycles
    assert np.array_equal(product, x @ w)


@given(m=sides, k=sides, n=sides, dataflow=st.sampled_from(DATAFLOWS), rows=sides, cols=sides)
def test_parts_bounds_and_symmetry(m: int, k: int, n: int, dataflow: str, rows: int, cols: int) -> None:
    counted = gemm_cycles(Gemm("g", m, k, n), SystolicArray(dataflow, rows, cols))
    parts = counted.stationary_load_cycles + counted.stream_cycles + counted.fill_and_drain_cycles
    assert parts == counted.compute_cycles + 1 == counted.folds * counted.cycles_per_fold
    assert (counted.compute_cycles + 1) * rows * cols >= m * k * n
    assert 0 < counted.mapping_efficiency <= 1
    assert cycles(m + 1, k, n, dataflow, rows, cols) >= counted.compute_cycles
    # Input stationary is weight stationary of the transposed product.
    assert cycles(m, k, n, "is", rows, cols) == cycles(n, k, m, "ws", rows, cols)


def test_utilisation_is_scalesims_overall_utilisation() -> None:
    counted = gemm_cycles(Gemm("g", 197, 768, 768), SystolicArray("ws", 32, 32))
    assert counted.utilisation == pytest.approx(197 * 768 * 768 / (167615 * 1024))
    # SCALE-Sim 3.0.0, 36 positions x 150 x 16 filters on 32 x 32, output stationary: 19.946808510638298 %, 28.125 %.
    padded = gemm_cycles(Gemm("g", 36, 150, 16), SystolicArray("os", 32, 32))
    assert padded.utilisation == pytest.approx(0.19946808510638298)
    assert padded.mapping_efficiency == 0.28125


def test_a_single_multiply_add_takes_no_cycle_of_a_clock_that_starts_at_0() -> None:
    counted = gemm_cycles(Gemm("g", 1, 1, 1), SystolicArray("os", 1, 1))
    assert (counted.compute_cycles, counted.utilisation) == (0, None)


def test_counts_are_exact_far_beyond_32_bits_also_from_numpy_sizes() -> None:
    sizes = np.int32([40_000, 50_257, 60_001])
    gemm = Gemm("g", *sizes)
    array = SystolicArray("ws", np.int16(3), np.int16(7))
    assert gemm.macs == 40_000 * 50_257 * 60_001
    assert gemm_cycles(gemm, array).compute_cycles == 16_753 * 8_572 * (6 + 7 + 40_000 - 2) - 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Gemm("g", 0, 1, 1), "GEMM 'g': found M = 0; a size lies between 1 and 2147483647."),
        (lambda: Gemm("g", 1, 1, MAX_SIZE + 1), "GEMM 'g': found N = 2147483648; a size lies between 1"),
        (lambda: Gemm("g", MAX_SIZE, MAX_SIZE, 3), f"multiply-adds; counts are at most {MAX_COUNT}."),
        (lambda: SystolicArray("ws", 4, -1), "array 4x-1: found cols = -1; a size lies between 1"),
        (lambda: SystolicArray("rs", 4, 4), 'dataflow: found \'rs\'; it is "ws", "os" or "is".'),
        (
            lambda: gemm_cycles(Gemm("g", 1, 1, 1), SystolicArray("ws", MAX_SIZE, MAX_SIZE)),
            "cycles on 2147483647 x 2147483647 cells; counts are at most",
        ),
    ],
)
def test_sizes_out_of_range_are_told(make: object, message: str) -> None:
    with pytest.raises(InputError) as told:
        make()
    assert message in str(told.value)


def test_gemm_topology_is_m_n_k_with_or_without_the_last_comma(tmp_path: Path) -> None:
    text = "Layer Name, M, N, K, Sparsity,\n qkv , 128,512,1536,\n\nproj,128,64,32\n,,,,\nlast,1,2,3,4:4,\n"
    assert read_topology(written(tmp_path, text)) == (
        Gemm("qkv", 128, 1536, 512),
        Gemm("proj", 128, 32, 64),
        Gemm("last", 1, 3, 2),
    )


def test_convolutions_are_unrolled_as_scalesim_does(tmp_path: Path) -> None:
    text = (
        "Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels, Num Filter, Strides,\n"
        "Conv1, 224, 224, 11, 11, 3, 96, 4,\n"  # ceil((224 - 11 + 4) / 4) = 55 positions a side
        "dw, 8, 9, 3, 2, 1, 1, 2, #dw\n"
        "DPconv, 6, 6, 3, 3, 2, 5, 1,\n"
    )
    assert read_topology(written(tmp_path, text)) == (
        Gemm("Conv1", 55 * 55, 11 * 11 * 3, 96),
        Gemm("dw", 4 * 5, 6, 1),
        Gemm("DPconvChannel_0", 16, 9, 5),
        Gemm("DPconvChannel_1", 16, 9, 5),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "net.csv: found an empty file; a topology has a heading"),
        ("Layer,M,N,K,\n", "net.csv: found no layers; a topology has a line for each layer"),
        ("a,1,2,3,\nb,1,2,3,\n", "net.csv: line 1: found 'a, 1, 2, 3'; the first line is a heading, not a layer"),
        (
            "Layer,M,K,N,\na,1,2,3,\n",
            "line 1: found the columns M, K, N; SCALE-Sim reads them as M, N, K, in this order",
        ),
        ("Layer,M,N,K,\na,1,2,\n", "line 2: found 3 columns; a GEMM has a name and M, N, K; a convolution"),
        ("Layer,M,N,K,\na,1,2,x,\n", "line 2: found K = 'x'; a size is a whole number between 1 and 2147483647"),
        ("Layer,M,N,K,\na,1,0,3,\n", "line 2: found N = '0'; a size is a whole number"),
        ("Layer,M,N,K,\na,1,2," + "9" * 5000 + ",\n", "a size is a whole number between 1 and"),
        ("Layer,M,N,K,\na,1,2,3,2:4,\n", "line 2: found the sparsity '2:4'; only dense layers are counted"),
        ("h,\na,3,9,4,1,1,1,1,\n", "line 2: found a filter of 4 x 1 on 3 x 9; a filter is no larger than its input"),
        ("h,\nDP,3,9,1,1,70000,1,1,\n", "line 2: found 70000 channels; a depthwise layer has at most 65536"),
        (
            '"Layer","M","K","N"\n"a","1","2","3"\n',
            "line 1: found the columns M, K, N; SCALE-Sim reads them as M, N, K",
        ),
        (
            "Layer,M (rows),K (inputs),N (outputs),\na,1,2,3,\n",
            "line 1: found the columns M (rows), K (inputs), N (outp",
        ),
        (
            "Layer,m_dim,k_dim,n_dim,\na,1,2,3,\n",
            "line 1: found the columns m_dim, k_dim, n_dim; SCALE-Sim reads them as",
        ),
        (
            "Layer,M,M,K,\na,1,2,3,\n",
            "line 1: found the columns M, M, K; SCALE-Sim reads them as M, N, K, in this order",
        ),
        ("Layer,M,cols,N,\na,1,2,3,\n", "line 1: found the columns M, cols, N; SCALE-Sim reads them as M, N, K"),
        (
            "Layer,M,N,K,Batch,\na,1,2,3,4,\n",
            "line 2: found a batch of 4; layers are counted one at a time, so a batch",
        ),
        ('Layer,M,N,K,\n"a,1,2,3,\n', "line 2: found broken CSV (unexpected end of data); a topology is a CSV file"),
        ("Layer,M,N,K,\n" + "a" * 200000 + ",1,2,3,\n", "line 2: found broken CSV (field larger than field limit"),
    ],
)
def test_what_is_not_a_topology_is_told_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError) as told:
        read_topology(written(tmp_path, text))
    assert message in str(told.value)


def test_a_topology_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"none.csv: found 'No such file or directory' when opening it; a topology must"
    ):
        read_topology(tmp_path / "none.csv")
    (tmp_path / "latin.csv").write_bytes(b"Layer,M,N,K,\n\xe9,1,2,3,\n")
    with pytest.raises(InputError, match=r"latin.csv: found byte 0xe9 at position 13; a topology must be UTF-8 text"):
        read_topology(tmp_path / "latin.csv")


@pytest.mark.parametrize(
    "text",
    [
        '"Layer","M","N","K"\n"a","1","2","3"\n',
        "\ufeffLayer name, M (rows), N (outputs), K (inputs),\na, 1, 2, 3,\n",
        "Layer,M,N,K,Batch,\na,1,2,3,1,\n",
        "Layer,rows,cols,depth\r\na,1,2,3\r\n",
    ],
)
def test_headings_as_people_write_them(tmp_path: Path, text: str) -> None:
    assert read_topology(written(tmp_path, text)) == (Gemm("a", 1, 3, 2),)
