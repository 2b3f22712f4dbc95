"""The contact sheet of `sartm data check`: pairs of all splits with their labels, at a glance."""

import math
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from sartm.classes import Classes
from sartm.data.sets import Layout, Pair
from sartm.datatools.survey import Facts, read_parts, write_output
from sartm.io.thermal import scale_thermal

Array = npt.NDArray[Any]

_TILE, _NAME_LINE, _MARGIN = 300, 20, 8
"""Pixels of the contact sheet: width of an image, height of a line of text, space between."""


_SHEET_PAIRS = 12


def draw_contact_sheet(
    layout: Layout, facts: Sequence[Facts], splits: dict[Pair, list[str]], path: Path
) -> None:
    """RGB, thermal (stretched from its 1st to 99th percentile) and label of pairs in all splits."""
    count = min(_SHEET_PAIRS, len(facts))
    chosen = [facts[index * len(facts) // count] for index in range(count)]
    font = ImageFont.load_default(13)
    rows = [_sheet_row(one, splits[one.pair], layout, font) for one in chosen]
    legend = _legend(layout.classes, font, 2 * rows[0].width + _MARGIN)
    lines = [rows[index : index + 2] for index in range(0, len(rows), 2)]
    heights = [max(row.height for row in line) for line in lines]
    sheet = Image.new("RGB", (legend.width, sum(heights) + legend.height), "white")
    y = 0
    for line, height in zip(lines, heights, strict=True):
        for column, row in enumerate(line):
            sheet.paste(row, (column * (row.width + _MARGIN), y))
        y += height
    sheet.paste(legend, (0, y))
    buffer = BytesIO()
    sheet.save(buffer, "JPEG", quality=88)
    write_output(path, buffer.getvalue())


def _sheet_row(one: Facts, splits: Sequence[str], layout: Layout, font: Any) -> Image.Image:
    pair = one.pair
    height, width = one.size or (3, 4)
    tile = (_TILE, max(1, min(round(_TILE * height / width), 2 * _TILE)))
    row = Image.new("RGB", (3 * _TILE, tile[1] + _NAME_LINE + _MARGIN), "white")
    draw = ImageDraw.Draw(row)
    text = f"{pair.name}   {', '.join(splits)}   {height}x{width}"
    draw.text((2, 2), text, "black", font)
    for column, image in enumerate(_pictures(pair, layout)):
        x = column * _TILE
        if image is None:
            draw.rectangle((x, _NAME_LINE, x + _TILE - 2, _NAME_LINE + tile[1]), "#eee")
            said = ("no RGB", "no thermal", "no label")[column]
            draw.text((x + 8, _NAME_LINE + 8), said, "#a00", font)
        else:
            how = cv2.INTER_NEAREST if column == 2 else cv2.INTER_AREA
            small = cv2.resize(image, (tile[0] - 2, tile[1]), interpolation=how)
            row.paste(Image.fromarray(small), (x, _NAME_LINE))
    return row


def _pictures(pair: Pair, layout: Layout) -> tuple[Array | None, Array | None, Array | None]:
    """RGB, thermal and label as uint8 (H, W, 3); None for what is not there or not readable."""
    read, classes = read_parts(pair, layout), layout.classes
    thermal, label = read.thermal, read.label
    shown = None
    if thermal is not None:
        low, high = np.percentile(thermal[::2, ::2], (1, 99))
        grey = (255 * scale_thermal(thermal, (float(low), float(high)))).astype(np.uint8)
        shown = np.dstack([grey] * 3)
    if label is not None:
        table = np.full((65536, 3), 255, np.uint8)  # unknown ids and ignore: white
        table[: len(classes)] = classes.palette
        label = table[label]
    return read.rgb, shown, label


def _legend(classes: Classes, font: Any, width: int) -> Image.Image:
    column = 180
    per_line = max(width // column, 1)
    height = math.ceil(len(classes) / per_line) * _NAME_LINE + 2 * _MARGIN
    legend = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(legend)
    for id_, (name, colour) in enumerate(zip(classes.names, classes.palette, strict=True)):
        x, y = id_ % per_line * column + 2, id_ // per_line * _NAME_LINE + _MARGIN
        draw.rectangle((x, y + 2, x + 14, y + 14), colour, "#888")
        draw.text((x + 20, y), f"{id_} {name[:20]}", "black", font)
    return legend
