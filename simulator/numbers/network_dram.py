"""A network's tensors in DRAM as its program moves them: chunks of operands' views, stored chunks, tiles of
activations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache

import numpy as np
from numpy.typing import ArrayLike

from simulator.base.arithmetic import ceil_div
from simulator.network.evaluate_network import constant_values
from simulator.network.image_rows import ImageRows
from simulator.network.network import Network, Operand, Operator, Tensor
from simulator.network.network_layout import head_stride, keeps_padding
from simulator.network.operand_views import channel_places, operand_window, strided_places, table_rows, window_tokens
from simulator.network.tensor_values import input_values, stored_tensors
from simulator.numbers.activation_codes import ActivationCodes
from simulator.program.schedule import LayerSchedule

Block = Callable[[int, np.ndarray], np.ndarray]  # (chunk, rows (T,)) -> (T, C)


class NetworkDram:
    """Arrays (batch, tokens, channels) of stored numbers by tensor name, parts within their wholes.

    What a chunk holds beyond a tensor's channels reads as zero and is not kept when stored. At the start the inputs
    (by port name) and the constants are there. Raises InputError for inputs that are not the ports'.
    """

    def __init__(self, network: Network, side: int, codes: ActivationCodes, inputs: Mapping[str, ArrayLike]) -> None:
        self._network, self._side, self._codes = network, side, codes
        self.arrays = stored_tensors(network, codes.unwritten)
        given = input_values(network, inputs)
        for name, tensor in network.tensors.items():
            if tensor.kind == "result":
                continue
            values = given[name] if tensor.kind == "input" else constant_values(network, name)
            self.arrays[name][:] = codes.encode(name, values).reshape(tensor.batch, tensor.tokens, -1)
        self.reader = cache(self._reader)
        self._stored = cache(self._stored_lanes)

    def store(self, name: str, chunk: int, rows: np.ndarray, block: np.ndarray) -> None:
        """Keep (T, C) numbers as chunk ``chunk`` of the given rows."""
        lanes, channels = self._stored(name, chunk)
        batch, token = np.divmod(rows, self._network.tensors[name].tokens)
        self.arrays[name][batch[:, None], token[:, None], channels] = block[:, lanes]

    def _stored_lanes(self, name: str, chunk: int) -> tuple[np.ndarray, np.ndarray]:
        tensor = self._network.tensors[name]
        return _lanes(channel_places(tensor.groups, tensor.width, tensor.padded, self._side), chunk, self._side)

    def _reader(self, layer: int, which: int) -> Block:
        """How operand ``which`` of operator ``layer`` is brought: a function of chunk and rows of its view."""
        operand = self._network.operators[layer].operands[which]
        if operand.access == "image":
            return self._image_reader(operand)
        tensor, values, side = self._network.tensors[operand.tensor], self.arrays[operand.tensor], self._side
        if operand.access == "transposed":
            places = channel_places(tensor.groups, tensor.width, tensor.padded, side)
        else:
            places = channel_places(operand.groups, operand.width, keeps_padding(self._network, operand), side)
        if operand.access == "strided":
            return self._strided_reader(operand, places, values)
        lanes_of = cache(lambda chunk: _lanes(places, chunk, side))
        tokens = self._tokens_of(operand, tensor, values)
        channel0 = 0 if operand.access == "transposed" else operand.channel0
        repeat = operand.width if operand.access == "window" else len(places)
        outside = float(self._codes.encode(operand.tensor, operand.window.fill)) if operand.window else 0.0

        def block(chunk: int, rows: np.ndarray) -> np.ndarray:
            lanes, channels = lanes_of(chunk)
            token, batch = tokens(rows, channels)
            read = values[batch[:, None], token, channel0 + channels % repeat]
            result = np.zeros((len(rows), side))
            result[:, lanes] = np.where(token < 0, outside, read)
            return result

        return block

    def _image_reader(self, operand: Operand) -> Block:
        """Rows of padded images, counted over the batch: (rows, pixels, channels of the chunk)."""
        image, values = ImageRows.of(operand), self.arrays[operand.tensor]
        width = operand_window(operand).image[1]
        outside = float(self._codes.encode(operand.tensor, operand_window(operand).fill))

        def block(chunk: int, rows: np.ndarray) -> np.ndarray:
            channels = operand.channel0 + _chunk_channels(operand, chunk, self._side)
            batch, down, across = image.pixels(int(rows[0]), len(rows))
            token = operand.token0 + down[:, None] * width + across
            read = values[batch[:, None, None], token[:, :, None], channels]
            beyond = (down[:, None] < 0) | (across < 0)
            return np.where(beyond[:, :, None], outside, read)

        return block

    def places(self, layer: int, which: int, chunk: int, rows: np.ndarray) -> np.ndarray | None:
        """Bytes from its region's begin at which each number of an image's block goes; None for other operands."""
        operand = self._network.operators[layer].operands[which]
        if operand.access != "image":
            return None
        image = ImageRows.of(operand)
        row = rows[:, None, None] % operand.kept * image.row_bytes
        column = np.arange(image.columns.size)[None, :, None] * image.pixel
        return row + column + _chunk_channels(operand, chunk, self._side)

    def _strided_reader(self, operand: Operand, places: np.ndarray, values: np.ndarray) -> Block:
        """Rows and channels of a view in other axes."""

        def block(chunk: int, rows: np.ndarray) -> np.ndarray:
            lanes, channels = _lanes(places, chunk, self._side)
            result = np.zeros((len(rows), self._side))
            result[:, lanes] = values[strided_places(operand, rows, channels)]
            return result

        return block

    def _tokens_of(
        self, operand: Operand, tensor: Tensor, values: np.ndarray
    ) -> Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
        """(rows of the view, channels of the view) -> tokens to read (T, channels or 1), -1 outside, and sequences."""
        if operand.access == "gather":
            assert operand.indices is not None
            indices = self.arrays[operand.indices]

            def named(rows: np.ndarray, _: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
                batch, token = np.divmod(rows, operand.tokens)
                return table_rows(operand, indices[batch, token], values.shape[1]), batch % len(values)

            return named
        if operand.access == "window":
            table = window_tokens(operand_window(operand))

            def positions(rows: np.ndarray, channels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
                token = table[(rows % operand.tokens)[:, None], channels // operand.width]
                return np.where(token < 0, -1, token + operand.token0), rows // operand.tokens % len(values)

            return positions
        count = tensor.tokens if operand.access == "transposed" else operand.tokens
        token0 = 0 if operand.access == "transposed" else operand.token0

        def in_order(rows: np.ndarray, _: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            batch, token = np.divmod(rows, count)
            return token0 + token[:, None], batch % len(values)

        return in_order

    def activation_tile(self, layer: LayerSchedule, operator: Operator, tile: int, row: int) -> np.ndarray:
        """(lanes, C) stored numbers that tile ``tile`` of a scores or mix operator holds, for the sequence of output
        row ``row``.
        """
        reads, weights = operator.operands
        tiles, side, scores = layer.tiles, self._side, operator.kind == "scores"
        values = self.arrays[weights.tensor]
        sequence = values[row // operator.tokens % len(values)]
        key_chunks = ceil_div(weights.tokens, side)
        head, stride = weights.width, head_stride(self._network, operator, side)
        packed, padded = int(tiles.source[tile]), int(tiles.target[tile])
        if not scores:
            packed, padded = padded, packed
        query, keys = padded // key_chunks, padded % key_chunks
        begin = weights.channel0 + query * weights.groups // reads.groups * weights.width
        stored = sequence[weights.token0 : weights.token0 + weights.tokens, begin : begin + weights.width]
        whole = np.zeros((side, side))  # (keys, channels), where the query head's channels lie in their chunk
        channels = packed * side + np.arange(side) - query * stride
        mine = np.flatnonzero((channels >= 0) & (channels < head))
        part = stored[keys * side : (keys + 1) * side, channels[mine]]
        whole[: len(part), mine] = part
        whole = whole.T if scores else whole
        lanes = slice(tiles.lane_ptr[tile], tiles.lane_ptr[tile + 1])
        held = (np.arange(side) >= tiles.lo[lanes, None]) & (np.arange(side) < tiles.hi[lanes, None])
        return np.where(held, whole[tiles.lane[lanes]], 0.0)


def _chunk_channels(operand: Operand, chunk: int, side: int) -> np.ndarray:
    """Channels of an image's view that are loaded with a chunk."""
    return np.arange(chunk * side, min(operand.width, (chunk + 1) * side))


def _lanes(places: np.ndarray, chunk: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Lanes of a chunk that hold channels, and which."""
    channels = np.flatnonzero(places // side == chunk)
    return places[channels] % side, channels
