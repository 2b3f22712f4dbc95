"""Annotations of labelme, CVAT and Label Studio, as those programs export them."""

import base64
import binascii
import json
import math
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

import numpy as np

from sartm.datatools.annotations import LARGEST, Annotations, Picture, read_each, whole
from sartm.datatools.shapes import Mask, Points, Region, read_points
from sartm.errors import InputError
from sartm.files import nests_too_deeply, read_json, read_text
from sartm.io.header import SUFFIXES
from sartm.io.labels import read_label
from sartm.io.run_lengths import decode_runs
from sartm.io.sources import Upload

_CIRCLE = 64
"""Corners that stand for a circle."""


def read_labelme(place: Path) -> Annotations:
    """labelme: a JSON file per image, with polygons, rectangles, circles and masks."""
    return read_each(place, "labelme", ".json", _read_labelme_file)


def _read_labelme_file(path: Path, found: Annotations) -> None:
    content = read_json(path, LARGEST)
    size = whole(content["imageHeight"]), whole(content["imageWidth"])
    image = str(content.get("imagePath") or f"{path.stem}.png").replace("\\", "/")
    picture = found.picture(str(PurePosixPath(found.folder, image)), size)
    for order, one in enumerate(content["shapes"]):
        kind = one.get("shape_type") or "polygon"
        name, points = found.name(one["label"]), np.asarray(one["points"], np.float64)
        if kind == "polygon":
            picture.regions.append(Region(name, (read_points(points),), order=order))
        elif kind == "rectangle":
            picture.regions.append(Region(name, (_box(points[0], points[1]),), order=order))
        elif kind == "circle":
            radius = float(np.linalg.norm(points[1] - points[0]))
            circle = _ellipse(points[0], np.full(2, radius))
            picture.regions.append(Region(name, (circle,), order=order))
        elif kind == "mask":
            mask = partial(_labelme_mask, one["mask"], path, points, size)
            picture.regions.append(Region(name, mask=mask, order=order))
        else:
            found.left_out[f"{kind} shapes"] += 1


def _labelme_mask(text: str, path: Path, corners: Points, size: tuple[int, int]) -> Mask:
    try:
        data = base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ValueError("a mask is no base64 text") from None
    return _paste(read_label(Upload(f"a mask in {path.name}", data)) > 0, corners, size)


def _paste(mask: Mask, corners: Points, size: tuple[int, int]) -> Mask:
    """A mask put at the first of two corners."""
    left, top = (round(float(value)) for value in corners[0])
    whole_mask = np.zeros(size, bool)
    if left < 0 or top < 0 or top + mask.shape[0] > size[0] or left + mask.shape[1] > size[1]:
        raise ValueError("a mask reaches beyond its image")
    whole_mask[top : top + mask.shape[0], left : left + mask.shape[1]] = mask
    return whole_mask


def _box(first: Points, second: Points, turn: float = 0.0) -> Points:
    """A rectangle between two corners, turned by degrees about the first."""
    (left, top), (right, bottom) = first, second
    points = read_points([left, top, right, top, right, bottom, left, bottom])
    moved: Points = _turn(points - points[0], turn) + points[0]
    return moved


def _ellipse(middle: Points, sides: Points, turn: float = 0.0) -> Points:
    angle = np.linspace(0, 2 * np.pi, _CIRCLE, endpoint=False)
    points = np.stack([sides[0] * np.cos(angle), sides[1] * np.sin(angle)], axis=1)
    return read_points(_turn(points, turn) + middle)


def _turn(points: Points, degrees: float) -> Points:
    """Points (N, 2) turned clockwise, as y points down, about 0."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    x, y = points[:, 0], points[:, 1]
    return np.stack([cosine * x - sine * y, sine * x + cosine * y], axis=1)


def read_cvat(place: Path) -> Annotations:
    """CVAT for images 1.1: one XML of all images, with polygons, boxes, ellipses and masks."""
    return read_each(place, "CVAT", ".xml", _read_cvat_file)


def _read_cvat_file(path: Path, found: Annotations) -> None:
    text = read_text(path, LARGEST)
    # What defines entities can grow without bound, or name other files; CVAT writes none.
    if re.search(r"<!\s*(DOCTYPE|ENTITY)", text, re.I):
        raise InputError(f"{path} holds a document type or entities, which are not read")
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise InputError(f"{path} is not valid XML: {error}") from None
    for label in root.findall("meta//labels/label/name"):
        found.name(label.text or "")
    images = root.findall("image")
    if not images:
        raise InputError(f"{path}: no <image>; export as 'CVAT for images 1.1', not for video")
    for image in images:
        size = whole(image.attrib["height"]), whole(image.attrib["width"])
        picture = found.picture(image.attrib["name"], size)
        for shape in image:
            region = _cvat_shape(shape, size)
            if region is not None:
                found.name(region.name)
                picture.regions.append(region)
            elif "label" in shape.attrib and shape.tag != "tag":
                found.left_out[f"{shape.tag} shapes"] += 1


def _cvat_shape(shape: ElementTree.Element, size: tuple[int, int]) -> Region | None:
    value = shape.attrib
    name, order = value.get("label", ""), int(value.get("z_order", 0))
    turn = float(value.get("rotation", 0))
    if shape.tag == "polygon":
        corners = [float(number) for number in re.split("[,;]", value["points"])]
        return Region(name, (read_points(corners),), order=order)
    if shape.tag == "box":
        first, last = _pair(value, "xtl", "ytl"), _pair(value, "xbr", "ybr")
        middle = (first + last) / 2  # about which it turns, other than Label Studio's
        box = _turn(_box(first, last) - middle, turn) + middle
        return Region(name, (box,), order=order)
    if shape.tag == "ellipse":
        ellipse = _ellipse(_pair(value, "cx", "cy"), _pair(value, "rx", "ry"), turn)
        return Region(name, (ellipse,), order=order)
    if shape.tag == "mask":
        left, top, width, height = (int(value[one]) for one in ("left", "top", "width", "height"))
        if not (0 < width <= size[1] and 0 < height <= size[0]):
            raise ValueError("a mask is larger than its image")
        mask = partial(_cvat_mask, value["rle"], (left, top, width, height), size)
        return Region(name, mask=mask, order=order)
    return None


def _cvat_mask(text: str, box: tuple[int, int, int, int], size: tuple[int, int]) -> Mask:
    left, top, width, height = box
    runs = [int(number) for number in text.split(",")]
    inside = decode_runs(runs, width * height).reshape(height, width)
    return _paste(inside, np.array([[left, top]], np.float64), size)


def _pair(values: Mapping[str, Any], first: str, second: str) -> Points:
    return np.array([float(values[first]), float(values[second])])


def read_label_studio(place: Path) -> Annotations:
    """Label Studio's JSON: brush, polygon, rectangle and ellipse labels of one or more tasks."""
    return read_each(place, "Label Studio", ".json", _read_studio_file)


def _read_studio_file(path: Path, found: Annotations) -> None:
    try:
        tasks = json.loads(read_text(path, LARGEST))
        deep = nests_too_deeply(tasks)
    except RecursionError:
        deep = True
    if deep:
        raise ValueError("it is nested too deeply")
    for task in tasks if isinstance(tasks, list) else [tasks]:
        done = [one for one in task["annotations"] if not one.get("was_cancelled")]
        if not done:  # skipped, or to be annotated still
            continue
        file = _studio_name(_studio_image(task["data"]))
        picture = found.picture(file, None)
        for order, result in enumerate(done[0]["result"]):
            if "original_width" in result:
                size = whole(result["original_height"]), whole(result["original_width"])
                found.picture(file, size)
                picture.size = size
                _read_studio_result(result, order, picture, found)


def _studio_image(data: Mapping[str, Any]) -> str:
    """The address of the image among what a task shows: of what ends as images do, else as files
    do, the first."""
    texts = [text for text in data.values() if isinstance(text, str)]
    endings = [PurePosixPath(_studio_path(text)).suffix.lower() for text in texts]
    ranks = [(ending not in SUFFIXES, place) for place, ending in enumerate(endings) if ending]
    if not ranks:
        raise ValueError("a task without an image")
    return texts[min(ranks)[1]]


def _studio_path(address: str) -> str:
    """The path of a file in an address, which quotes it, or in its query where it is local."""
    before, _, query = address.partition("?")
    return unquote(query[2:] if query.startswith("d=") else before)


def _studio_name(address: str) -> str:
    """An upload is called by eight digits and a dash before its own name."""
    path = PurePosixPath(_studio_path(address))
    return str(path.with_name(re.sub(r"^[0-9a-f]{8}-", "", path.name)))


def _read_studio_result(
    result: dict[str, Any], order: int, picture: Picture, found: Annotations
) -> None:
    kind, value = result["type"], result["value"]
    labels = value.get(kind)
    if not labels or picture.size is None:
        found.left_out[f"{kind} results"] += 1
        return
    name, size = found.name(labels[0]), picture.size
    percent = np.array([size[1], size[0]], np.float64) / 100
    turn = float(value.get("rotation", 0))
    if kind == "brushlabels":
        mask = partial(_decode_brush, value["rle"], size)
        picture.regions.append(Region(name, mask=mask, order=order))
        return
    if kind == "polygonlabels":
        points = read_points(value["points"]) * percent
    elif kind == "rectanglelabels":
        corner, sides = _pair(value, "x", "y"), _pair(value, "width", "height")
        points = _box(corner * percent, (corner + sides) * percent, turn)
    elif kind == "ellipselabels":
        sides = _pair(value, "radiusX", "radiusY") * percent
        points = _ellipse(_pair(value, "x", "y") * percent, sides, turn)
    else:
        found.left_out[f"{kind} results"] += 1
        return
    picture.regions.append(Region(name, (points,), order=order))


def _decode_brush(values: list[int], size: tuple[int, int]) -> Mask:
    """Label Studio's run lengths: bits of a stream that holds RGBA, of which alpha is the mask.

    32 bits: how many values follow; 5: bits of a value, less 1; four times 4: bits of a length,
    less 1. Then runs: 1 bit, whether one value is repeated; 2 bits, which of the four; the length,
    less 1; the value, or as many values.
    """
    bits = np.unpackbits(np.asarray(values, np.uint8))
    place = 0

    def take(count: int) -> int:
        nonlocal place
        if place + count > len(bits):
            raise ValueError("brush strokes are cut off")
        number = int("".join(map(str, bits[place : place + count])), 2)
        place += count
        return number

    total = take(32)
    if total != 4 * size[0] * size[1]:
        raise ValueError(f"brush strokes of {total} values for an image of {size}")
    word = take(5) + 1
    lengths = [take(4) + 1 for _ in range(4)]
    out = np.zeros(total, np.uint8)
    weights = 1 << np.arange(word - 1, -1, -1, dtype=np.int64)
    done = 0
    while done < total:
        repeated = take(1)
        count = take(lengths[take(2)]) + 1
        if done + count > total:
            raise ValueError("brush strokes are longer than their image")
        if repeated:
            out[done : done + count] = take(word) & 255
        else:
            if place + count * word > len(bits):
                raise ValueError("brush strokes are cut off")
            block = bits[place : place + count * word].reshape(count, word)
            out[done : done + count] = block @ weights & 255
            place += count * word
        done += count
    alpha: Mask = out.reshape(*size, 4)[..., 3] > 0
    return alpha
