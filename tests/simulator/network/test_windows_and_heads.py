"""Windows of images and heads that share keys, by hand: which rows and bytes they are, on small sizes."""

from __future__ import annotations

import numpy as np
import pytest

from simulator.network.image_rows import ImageRows
from simulator.network.network import Network, Operand, Operator, Port, Tensor, Window
from simulator.network.network_layout import head_offset, head_steps, heads_of_chunk, heads_per_tile


def _image(
    kernel: tuple[int, int] = (3, 3),
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (1, 1),
    dilation: tuple[int, int] = (1, 1),
    channels: int = 2,
) -> ImageRows:
    """Windows on images of 4 x 5 pixels."""
    window = Window((4, 5), kernel, stride, padding, dilation)
    height, width = window.output
    return ImageRows.of(Operand("x", height * width, kernel[0] * kernel[1], channels, access="image", window=window))


def test_rows_of_an_image_and_the_bytes_of_its_windows() -> None:
    image = _image()
    assert (image.rows.size, image.columns.size, image.row_bytes) == (6, 7, 14)
    # Output rows 5 to 10 lie in the image's rows 1 and 2, whose windows are padded rows 1 to 4.
    assert image.needed(5, 6) == (1, 5)
    # The window of row 1, column 1: its first pixel's first channel, its third's second, its last's second.
    assert image.addresses(np.array([6]), np.array([0, 5, 17]), 4).tolist() == [[16, 21, 49]]
    # Three rows kept: padded row 3 is where row 0 was.
    assert image.addresses(np.array([6]), np.array([0, 5, 17]), 3).tolist() == [[16, 21, 7]]


@pytest.mark.parametrize(
    ("image", "channels", "runs"),
    [
        (_image(), 6, 1),  # three pixels behind one another
        (_image(), 8, 2),  # and one of the next row
        (_image(), 18, 3),
        (_image(dilation=(1, 2)), 4, 2),  # two pixels with one between
        (_image(kernel=(1, 3), padding=(0, 1)), 6, 1),
    ],
)
def test_runs_of_bytes_that_a_window_is_read_in(image: ImageRows, channels: int, runs: int) -> None:
    assert image.runs(np.arange(channels)) == runs


def test_pixels_that_rows_move() -> None:
    assert _image().moved_pixels(0, 6, packed=False) == 4 * 5  # no fill
    assert _image().moved_pixels(0, 1, packed=False) == 0
    apart = _image(kernel=(1, 1), stride=(2, 2), padding=(0, 0))
    assert apart.moved_pixels(0, 2, packed=False) == 2 * 5  # with what lies between
    assert apart.moved_pixels(0, 2, packed=True) == 2 * 3


def _attention(heads: int, shared: int, width: int, keys: int) -> tuple[Network, Operator, Operator]:
    """Scores and mix of 3 queries, of ``heads`` heads of which ``shared`` have keys and values in common."""

    def tensor(name: str, rows: int, groups: int, size: int, padded: bool = False) -> Tensor:
        return Tensor(name, 1, rows, groups, size, "result" if name in ("s", "y") else "input", padded)

    tensors = {
        one.name: one
        for one in (
            tensor("q", 3, heads, width),
            tensor("k", keys, heads // shared, width),
            tensor("s", 3, heads, keys, padded=True),
            tensor("v", keys, heads // shared, width),
            tensor("y", 3, heads, width),
        )
    }

    def read(name: str, access: str = "rows") -> Operand:
        one = tensors[name]
        return Operand(name, one.tokens, one.groups, one.width, access=access)  # type: ignore[arg-type]

    scores = Operator("scores", "scores", (read("q"), read("k", "weights")), "s", 1, 3)
    mix = Operator("mix", "mix", (read("s"), read("v", "weights")), "y", 1, 3)
    ports = tuple(Port(name, name, (1,), (1,), (0,)) for name in ("q", "k", "v"))
    return Network(tensors, (scores, mix), ports, (), {}), scores, mix


@pytest.mark.parametrize(
    ("shared", "width", "of_tile", "of_chunk"),
    [
        (4, 8, 4, 1),  # a head is a chunk
        (4, 16, 4, 1),
        (4, 4, 4, 2),  # two heads make up a chunk
        (3, 4, 1, 1),  # three do not make up whole chunks
        (4, 6, 1, 1),  # a head ends inside a chunk
    ],
)
def test_heads_of_tiles_and_of_chunks(shared: int, width: int, of_tile: int, of_chunk: int) -> None:
    network, scores, mix = _attention(12, shared, width, keys=20)
    assert (heads_per_tile(network, scores, 8), heads_per_tile(network, mix, 8)) == (of_tile, of_tile)
    assert (heads_of_chunk(network, scores, 8), heads_of_chunk(network, mix, 8)) == (1, of_chunk)


def test_how_far_heads_lie_apart() -> None:
    network, scores, mix = _attention(4, 2, 4, keys=20)
    # Queries and outputs every 4 channels, scores every 3 chunks of 8.
    assert head_steps(network, scores, 8) == (4, 24)
    assert head_steps(network, mix, 8) == (24, 4)
    # In a region of 3 rows a chunk is 24 bytes: the second head begins inside the first chunk.
    assert head_offset(4, np.arange(4), 3, 8).tolist() == [0, 4, 24, 28]
    assert head_offset(24, np.arange(2), 3, 8).tolist() == [0, 72]
