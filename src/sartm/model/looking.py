"""From a pair to the maps that clicks are answered on, and from a prompt to a mask, by looking at
the whole image first and then at a window on the object.

Shapes as in `model.clicks`: h and w the sides of the padded image, B prompts, N points.
"""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from sartm.model.clicks import ClickDecoder, ClickMaps, halve
from sartm.model.encoder import Levels
from sartm.model.sartm import SARTM

Array = npt.NDArray[Any]
Window = tuple[float, float, float]
"""x, y and side in pixels."""
Box = tuple[float, float, float, float]
"""x0, y0, x1, y1 in pixels from the image's upper left edge."""

SMALLEST = 64.0
"""Side of a window in pixels, at least."""
ROOM, MARGIN = 1.4, 16.0
"""A window's side: so many times the longer side of what is in it, and so many pixels more."""
OUTSIDE = -8.0
"""Logit of what lies outside of a window: whatever was there is not meant."""
SIMILAR, ASIDE = 1.25, 0.2
"""Windows are the same look whose sides differ by less, and whose middles by less of a side."""


def click_maps(
    model: SARTM, decoder: ClickDecoder, rgb: Tensor | None, thermal: Tensor | None
) -> ClickMaps:
    """What clicks on a pair are answered on.

    Args:
        model: whose maps they are.
        decoder: for clicks, in float32.
        rgb: (1, 3, H, W) in [0, 1], or None.
        thermal: (1, 1, H, W) in [0, 1] by the model's thermal rule, or None.
    """
    levels, drawn = frozen_maps(model, rgb, thermal)
    levels = Levels(*(level.float() for level in levels))
    return ClickMaps(decoder.features(levels, drawn.float()), draw_pixels(model, rgb, thermal))


def frozen_maps(model: SARTM, rgb: Tensor | None, thermal: Tensor | None) -> tuple[Levels, Tensor]:
    """The fused maps, and what the semantic decoder draws classes from."""
    levels = model.fuse(*model.encode(*model.shrink(rgb, thermal)))
    return levels, model.embed(levels)


def draw_pixels(model: SARTM, rgb: Tensor | None, thermal: Tensor | None) -> tuple[Tensor, ...]:
    """The halvings of both images, standardised and padded to multiples of 32; 0 where missing."""
    image = rgb if rgb is not None else thermal
    assert image is not None
    parts = [image.new_zeros(1, 3, *image.shape[2:]), image.new_zeros(1, 1, *image.shape[2:])]
    if rgb is not None:
        parts[0] = (rgb - model.rgb_mean) / model.rgb_std
    if thermal is not None:
        parts[1] = (thermal - model.config.thermal.mean) / model.config.thermal.std / 2
    parts.append(torch.ones_like(parts[1]))
    below, right = -image.shape[2] % 32, -image.shape[3] % 32
    return halve(F.pad(torch.cat(parts, 1).float(), (0, right, 0, below)))


def whole_window(size: Sequence[int]) -> Window:
    """The window on all of an image of (height, width)."""
    side = float(max(size))
    return (size[1] - side) / 2, (size[0] - side) / 2, side


def window_around(
    size: Sequence[int],
    mask: Array | None,
    points: Array,
    labels: Array,
    box: Box | None = None,
) -> Window:
    """The window on what is meant: the parts of a mask that were clicked, and what was clicked.

    Args:
        size: height and width of the image.
        mask: (h, w) true where the object seems to be, or None.
        points: (N, 2) x and y in pixels.
        labels: (N,) of the points.
        box: around the object.
    """
    adding = points[labels == 1]
    spans = [np.array([x, y, x, y], np.float64) for x, y in adding]
    if box is not None:
        spans.append(np.array(box, np.float64))
    if mask is not None and mask.any():
        spans += _clicked_parts(mask, adding)
    if not spans:
        return whole_window(size)
    found = np.array(spans)
    (x0, y0), (x1, y1) = found[:, :2].min(0), found[:, 2:].max(0)
    x0, y0, x1, y1 = float(x0), float(y0), float(x1), float(y1)
    side = max(ROOM * max(x1 - x0, y1 - y0) + MARGIN, SMALLEST)
    return place_window(size, (x0 + x1) / 2, (y0 + y1) / 2, side)


def place_window(size: Sequence[int], x: float, y: float, side: float) -> Window:
    """A window of a side about (x, y), moved to show as much of the image as it can."""
    side = min(side, float(max(size)))
    corner = []
    for middle, extent in ((x, float(size[1])), (y, float(size[0]))):
        if side >= extent:
            corner.append((extent - side) / 2)
        else:
            corner.append(min(max(middle - side / 2, 0.0), extent - side))
    return corner[0], corner[1], side


def _clicked_parts(mask: Array, adding: Array) -> list[Array]:
    """The boxes of the connected parts that a click lies in; of all where none does."""
    _, parts, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    places = np.floor(adding).astype(int)
    height, width = mask.shape
    hit = {int(parts[min(max(y, 0), height - 1), min(max(x, 0), width - 1)]) for x, y in places} - {
        0
    }
    boxes = []
    for index in hit or range(1, len(stats)):
        x, y, wide, high = stats[index, :4].tolist()
        boxes.append(np.array([x, y, x + wide, y + high], np.float64))
    return boxes


def paste(logits: Tensor, window: Window, size: Sequence[int]) -> Tensor:
    """(M, V, V) logits of a window to (M, h, w) of the image."""
    x, y, side = window
    height, width = size
    full = logits.new_full((len(logits), height, width), OUTSIDE)
    left, top = max(0, int(np.floor(x))), max(0, int(np.floor(y)))
    right, bottom = min(width, int(np.ceil(x + side))), min(height, int(np.ceil(y + side)))
    if right <= left or bottom <= top:
        return full
    across = 2 * (torch.arange(left, right, device=logits.device) + 0.5 - x) / side - 1
    down = 2 * (torch.arange(top, bottom, device=logits.device) + 0.5 - y) / side - 1
    grid = torch.stack(torch.meshgrid(across, down, indexing="xy"), -1)[None].to(logits.dtype)
    full[:, top:bottom, left:right] = F.grid_sample(
        logits[None], grid, padding_mode="border", align_corners=False
    )[0]
    return full


def look(
    decoder: ClickDecoder,
    maps: ClickMaps,
    size: Sequence[int],
    points: Array,
    labels: Array,
    box: Box | None = None,
    before: Tensor | None = None,
    several: bool = False,
) -> tuple[Tensor, Tensor]:
    """Masks for one prompt: a window is found, looked at, and looked at again where it was wrong.

    Args:
        decoder: in float32.
        maps: of the image.
        size: height and width of the image without padding.
        points: (N, 2) x and y in pixels from its upper left edge.
        labels: (N,): 1 adds, 0 takes away, -1 does not count.
        box: around the object.
        before: (h, w) logits of the mask before, over the padded image.
        several: the three masks of an ambiguous prompt, else one.

    Returns:
        (M, h, w) logits over the padded image and (M,) expected IoU.
    """
    if not len(points):  # a box or a mask alone
        points, labels = np.zeros((1, 2)), np.full(1, -1)
    padded = maps.pixels[0].shape[2:]
    device = maps.features.device
    given = torch.from_numpy(points.astype(np.float32))[None].to(device)
    kinds = torch.from_numpy(labels)[None].to(device)
    boxes = None if box is None else given.new_tensor([box])

    def once(window: Window, seen: Tensor | None) -> tuple[Tensor, Tensor]:
        previous = None if seen is None else seen[None, None]
        found = decoder(maps, given.new_tensor([window]), given, kinds, previous, boxes)
        return found.logits[0], found.scores[0]

    def wants(mask: Tensor | None) -> Window:
        seen = None if mask is None else (mask > 0).cpu().numpy()[: size[0], : size[1]]
        return window_around(size, seen, points, labels, box)

    first = 1 if several else 0
    chosen = slice(1, None) if several else slice(0, 1)
    if before is None and box is None:
        window = whole_window(size)
        logits, _ = once(window, None)
        before = paste(logits[:1], window, padded)[0]
    window = wants(before)
    logits, scores = once(window, before)
    best = first + int(scores[chosen].argmax())
    found = paste(logits[best : best + 1], window, padded)[0]
    better = wants(found)
    if not similar(window, better):
        window = better
        logits, scores = once(window, found)
    return paste(logits[chosen], window, padded), scores[chosen]


def similar(window: Window, other: Window) -> bool:
    """Whether two windows show about the same."""
    side = max(window[2], other[2])
    if side > SIMILAR * min(window[2], other[2]):
        return False
    off = max(
        abs(a + window[2] / 2 - b - other[2] / 2)
        for a, b in zip(window[:2], other[:2], strict=True)
    )
    return off < ASIDE * side
