"""Large images in overlapping tiles, and logits to pixels a strip at a time, in bounded memory.

Shapes: K classes; (H, W) the image in pixels; logits lie at stride 4: (K, h, w). A tile begins at a
multiple of 4, so that its logits fall on the grid of the whole image's.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

STRIDE = 4
"""Pixels from one logit to the next."""
STRIP_BYTES = 8 * 2**20
"""Of logits resized at a time: full-size logits of all classes never exist."""


@dataclass(frozen=True)
class Tiling:
    """When an image is labelled in tiles, and in which."""

    above: int = 2**22
    """Images of more pixels than this are; smaller ones are seen as a whole."""
    side: int = 1024
    """Of a tile, in pixels; a multiple of 32 needs no padding."""
    overlap: int = 128
    """Least overlap of two tiles in pixels; there the one fades into the other."""

    def applies(self, size: tuple[int, int]) -> bool:
        """Whether an image of (height, width) is labelled in tiles."""
        return size[0] * size[1] > self.above


def resize_strips(rows: Iterable[Tensor], size: tuple[int, int]) -> Iterator[tuple[int, Tensor]]:
    """Logits resized bilinearly to the image, from top to bottom.

    Args:
        rows: (K, n, w) logits that follow each other from top to bottom.
        size: (H, W) of the image, at most 4 times that of the logits; the rest is padding.

    Yields:
        First row in pixels, and (K, m, W) logits of the pixels from there on.
    """
    top, part, first = 0, None, 0
    for chunk in rows:
        part = chunk if part is None else torch.cat([part, chunk], dim=1)
        last = part.shape[1] - 1  # waits: it is interpolated with the row that follows
        for strip in _resize(part, first, last, size[1]):
            yield top, strip[:, : size[0] - top]
            top += strip.shape[1]
            if top >= size[0]:
                return
        first = min(last, 1)
        part = part[:, last - first :]
    if part is not None:
        for strip in _resize(part, first, part.shape[1], size[1]):
            yield top, strip[:, : size[0] - top]
            top += strip.shape[1]
            if top >= size[0]:
                return


def _resize(part: Tensor, first: int, last: int, width: int) -> Iterator[Tensor]:
    """(K, 4 m, width) of rows `first` to `last`, with the neighbours that `part` has of them."""
    step = max(1, STRIP_BYTES // (part[:, 0].numel() * STRIDE**2 * part.element_size()))
    for begin in range(first, last, step):
        end = min(begin + step, last)
        above, below = max(begin - 1, 0), min(end + 1, part.shape[1])
        seen = part[:, above:below].float().numpy()
        size = (STRIDE * seen.shape[2], STRIDE * seen.shape[1])
        full = np.empty((len(seen), *size[::-1]), np.float32)
        for image, large in zip(seen, full, strict=True):  # a fifth of the time of F.interpolate
            cv2.resize(image, size, dst=large, interpolation=cv2.INTER_LINEAR)
        strip = torch.from_numpy(full)
        yield strip[:, STRIDE * (begin - above) : STRIDE * (end - above), :width]


def tile_logits(
    logits: Callable[[Iterator[tuple[slice, slice]]], Iterator[Tensor]],
    size: tuple[int, int],
    tiling: Tiling,
) -> Iterator[Tensor]:
    """Blended logits of an image from those of its tiles.

    Only one row of tiles is held at a time.

    Args:
        logits: (K, h, w) of the pixels in each of these rows and columns, in order.
        size: (H, W) of the image.
        tiling: the tiles.

    Yields:
        (K, n, ceil(W / 4)) that follow each other from top to bottom.
    """
    height, width = size
    down, across = (_starts(length, tiling) for length in size)
    heavy, wide = (
        _weights(starts, n, tiling) for starts, n in zip((down, across), size, strict=True)
    )
    tiles = logits(
        (slice(top, min(top + tiling.side, height)), slice(left, min(left + tiling.side, width)))
        for top in down
        for left in across
    )
    columns, held = -(-width // STRIDE), None
    for index, top in enumerate(down):
        row: Tensor | None = None
        for left, weight in zip(across, wide, strict=True):
            tile = next(tiles)[:, : len(heavy[index]), : len(weight)]
            if row is None:
                row = tile.new_zeros(tile.shape[0], tile.shape[1], columns)
            begin = left // STRIDE
            row[:, :, begin : begin + tile.shape[2]] += tile * weight
        assert row is not None
        row *= heavy[index][:, None]
        if held is not None:
            row[:, : held.shape[1]] += held
        if index + 1 == len(down):
            yield row
            return
        done = (down[index + 1] - top) // STRIDE  # below that the next tiles have a say
        yield row[:, :done]
        held = row[:, done:].clone()


def _starts(length: int, tiling: Tiling) -> list[int]:
    """First pixels of tiles that cover `length`, evenly spread, multiples of `STRIDE`."""
    rest = -(-max(length - tiling.side, 0) // STRIDE)  # in logits
    count = math.ceil(rest / ((tiling.side - tiling.overlap) // STRIDE)) + 1
    return [STRIDE * (index * rest // max(count - 1, 1)) for index in range(count)]


def _weights(starts: list[int], length: int, tiling: Tiling) -> list[Tensor]:
    """Of each tile's logits along one axis: they fade towards inner edges and add up to 1."""
    total, ramps = torch.zeros(-(-length // STRIDE)), []
    for start in starts:
        begin, end = start // STRIDE, min((start + tiling.side) // STRIDE, len(total))
        place = torch.arange(begin, end)
        ramp = torch.full((end - begin,), tiling.overlap / STRIDE)
        if start > 0:
            ramp = torch.minimum(ramp, place - begin + 0.5)
        if end < len(total):
            ramp = torch.minimum(ramp, end - place - 0.5)
        ramps.append(ramp)
        total[begin:end] += ramp
    return [
        ramp / total[start // STRIDE :][: len(ramp)]
        for start, ramp in zip(starts, ramps, strict=True)
    ]
