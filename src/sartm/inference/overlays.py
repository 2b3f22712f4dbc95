"""Pictures of a label map to look at: over its image, with names, beside what the cameras saw."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from sartm.classes import Classes, Colour
from sartm.colours import display_palette
from sartm.io.cameras import enhance_display

ROWS = 256
"""Rows of pixels that are drawn or counted at a time."""
PANEL = 2048
"""Width in pixels to which pictures beside each other are shrunk at most."""

Array = npt.NDArray[Any]
Picture = npt.NDArray[np.uint8]


def draw_overlay(
    image: Picture,
    labels: Array,
    classes: Classes,
    opacity: float = 0.5,
    out: Picture | None = None,
) -> Picture:
    """(H, W, 3) the image with classes in their display colours, outlined; the rest stays clear.

    Outlines lie inside their regions and are twice as opaque, so that what is small or far from its
    surroundings in brightness is seen as well. Drawn into `out`, which may be the image itself.
    """
    palette = np.array(display_palette(classes), np.uint8)
    clear = not classes.prompts[0]
    mixed = np.empty((*labels.shape, 3), np.uint8) if out is None else out
    width = line_width(labels.shape)
    for top in range(0, len(mixed), ROWS):
        rows = slice(top, top + ROWS)
        ids, below = labels[rows], np.ascontiguousarray(image[rows])
        colours = np.take(palette, ids, axis=0)  # a third of the time of palette[labels]
        drawn = cv2.addWeighted(below, 1 - opacity, colours, opacity, 0)
        strong = min(1.0, 2 * opacity)
        line = cv2.addWeighted(below, 1 - strong, colours, strong, 0)
        drawn = cv2.copyTo(line, find_outlines(labels, top, top + len(ids), width), drawn)
        if clear:
            drawn = cv2.copyTo(below, (ids == 0).astype(np.uint8), drawn)
        mixed[rows] = drawn
    return mixed


def line_width(size: Sequence[int]) -> int:
    """Pixels of an outline in an image of (height, width): 1 for every 480 of the shorter side."""
    return max(1, round(min(size) / 480))


def find_outlines(labels: Array, top: int, bottom: int, width: int) -> npt.NDArray[np.uint8]:
    """1 where a pixel of some rows lies within `width` of another class, else 0; (rows, W)."""
    first = max(0, top - width)
    near = np.ascontiguousarray(labels[first : bottom + width])
    square = np.ones((2 * width + 1, 2 * width + 1), np.uint8)
    differ = cv2.erode(near, square) != cv2.dilate(near, square)
    return np.asarray(differ[top - first : bottom - first], np.uint8)


def draw_grey(grey: Picture, clahe: bool = False) -> Picture:
    """A thermal picture (H, W) as (H, W, 3), with more local contrast by CLAHE."""
    picture = enhance_display(grey) if clahe else grey
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_GRAY2RGB), np.uint8)


def place_beside(panels: Sequence[Picture], width: int | None = None) -> Picture:
    """Pictures (H, W, 3) of one size in a row; with `width` at most so wide, and even sides."""
    height, panel = panels[0].shape[:2]
    scale, even = min(1.0, PANEL / panel), 1
    if width is not None:
        scale, even = min(1.0, width / (panel * len(panels))), 2
    size = tuple(max(even, int(side * scale) // even * even) for side in (panel, height))
    if size != (panel, height):
        panels = [cv2.resize(each, size, interpolation=cv2.INTER_AREA) for each in panels]  # type: ignore[misc]
    return np.concatenate(panels, axis=1)


def encode_picture(picture: Picture) -> bytes:
    """(H, W, 3) RGB as JPEG; its own channels change places, to save memory of a large one."""
    for top in range(0, len(picture), ROWS):  # of all rows in place OpenCV makes a copy
        rows = picture[top : top + ROWS]
        cv2.cvtColor(rows, cv2.COLOR_RGB2BGR, dst=rows)
    _, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 90])
    return data.tobytes()


def draw_legend(width: int, classes: Classes, ids: Sequence[int]) -> Picture:
    """(h, width, 3) white band with colour and name of classes; h is even."""
    palette = display_palette(classes)
    entries = [(classes.names[index].replace("_", " "), palette[index]) for index in ids]
    size = min(max(round(width / 45), 11), 48)
    font = ImageFont.load_default(size)
    lines = _break_lines(entries or [("nothing but the rest", (255, 255, 255))], font, width, size)
    height = -(-(len(lines) * 3 * size // 2 + size // 2) // 2) * 2
    band = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(band)
    for number, line in enumerate(lines):
        x, y = size // 2, size // 2 + number * 3 * size // 2
        for name, colour, wide in line:
            draw.rectangle((x, y, x + size, y + size), colour, "#666")
            draw.text((x + 3 * size // 2, y + size // 2), name, "black", font, anchor="lm")
            x += wide
    return np.asarray(band)


def _break_lines(
    entries: Sequence[tuple[str, Colour]], font: Any, width: int, size: int
) -> list[list[tuple[str, Colour, int]]]:
    """Entries in lines of at most `width` pixels, each with its width."""
    lines: list[list[tuple[str, Colour, int]]] = [[]]
    for name, colour in entries:
        wide = round(font.getlength(name)) + 3 * size
        if lines[-1] and size // 2 + sum(each[2] for each in lines[-1]) + wide > width:
            lines.append([])
        lines[-1].append((name, colour, wide))
    return lines
