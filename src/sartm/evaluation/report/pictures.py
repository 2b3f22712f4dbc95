"""Pictures of single pairs: RGB, thermal, truth, prediction, errors."""

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NotRequired, TypedDict

import cv2
import numpy as np
from numpy.typing import NDArray

from sartm.classes import Classes
from sartm.evaluation.metrics import ConfusionMatrix, means
from sartm.evaluation.report.tables import number
from sartm.io.decode import write_atomic

Image = NDArray[np.uint8]

PICTURE_WIDTH = 320
"""Pixels; a page with eight pairs then stays below about 1 MB."""


class PairPictures(TypedDict):
    """One pair to show: (H, W, 3) RGB or (H, W) grey images in 8 bits, None where missing."""

    name: str
    group: Literal["best", "worst"]
    caption: str
    rgb: Image | None
    thermal: Image | None
    truth: Image
    prediction: Image
    error: Image
    alt: NotRequired[dict[str, str]]
    """What to read out instead of an image, per key above."""


def draw_pair(
    name: str,
    group: Literal["best", "worst"],
    truth: NDArray[np.integer],
    prediction: NDArray[np.integer],
    classes: Classes,
    rgb: Image | None = None,
    thermal: Image | None = None,
) -> PairPictures:
    """Colour two label maps (H, W) by the class table and mark where they differ.

    In the error map wrong pixels are bright, right ones a dark grey image, ignored ones mid grey:
    brightness alone tells them apart.
    """
    ignored = truth == classes.ignore
    wrong = (truth != prediction) & ~ignored
    photo = rgb if rgb is not None else thermal
    grey = np.full(truth.shape, 90, np.uint8) if photo is None else _grey(photo)
    if grey.shape != truth.shape:
        grey = np.asarray(cv2.resize(grey, truth.shape[::-1]), np.uint8)
    error = np.repeat((grey // 3)[..., None], 3, axis=2)
    error[ignored], error[wrong] = (128, 128, 128), (255, 176, 0)
    matrix = ConfusionMatrix(len(classes))
    matrix.update(prediction, truth, classes.ignore)
    score = means(matrix, classes, "present")["present"]["miou"]
    share = float(wrong.sum() / max(1, (~ignored).sum()))
    return {
        "name": name,
        "group": group,
        "caption": f"mean IoU of the classes present {number(score)} %, "
        f"{number(100 * share)} % of the pixels wrong",
        "rgb": rgb,
        "thermal": thermal,
        "truth": _colour(truth, classes),
        "prediction": _colour(prediction, classes),
        "error": error,
        "alt": {
            "truth": f"ground truth of {name}: {_shares(truth, classes)}",
            "prediction": f"prediction for {name}: {_shares(prediction, classes)}",
            "error": f"error map of {name}: {number(100 * share)} % of the pixels are wrong",
        },
    }


def _shares(ids: NDArray[np.integer], classes: Classes) -> str:
    """The classes of a label map by area, largest first."""
    found, counts = np.unique(ids[ids != classes.ignore], return_counts=True)
    order = np.argsort(-counts, kind="stable")
    total = max(1, int(counts.sum()))
    return ", ".join(f"{classes.names[found[i]]} {100 * counts[i] / total:.1f} %" for i in order)


def _colour(ids: NDArray[np.integer], classes: Classes) -> Image:
    """(H, W) ids as (H, W, 3) RGB; ignored pixels mid grey."""
    picture = np.full((*ids.shape, 3), 128, np.uint8)
    known = ids != classes.ignore
    picture[known] = np.array(classes.palette, np.uint8)[ids[known]]
    return picture


def _grey(photo: Image) -> Image:
    return photo if photo.ndim == 2 else np.asarray(cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY))


def data_uri(image: Image, flat: bool) -> str:
    """The image at most PICTURE_WIDTH wide, inline. Flat label colours stay exact: PNG, not JPEG.

    Source: RFC 2397.
    """
    height, width = image.shape[:2]
    if width > PICTURE_WIDTH:
        size = (PICTURE_WIDTH, max(1, round(height * PICTURE_WIDTH / width)))
        method = cv2.INTER_NEAREST if flat else cv2.INTER_AREA
        image = np.asarray(cv2.resize(image, size, interpolation=method), np.uint8)
    ordered = image[..., ::-1] if image.ndim == 3 else image
    kind, options = ("png", []) if flat else ("jpeg", [cv2.IMWRITE_JPEG_QUALITY, 80])
    _, encoded = cv2.imencode(f".{kind}", np.ascontiguousarray(ordered), options)
    return f"data:image/{kind};base64,{base64.b64encode(encoded.tobytes()).decode()}"


TILE = 240
"""Width in pixels of one image on a sheet of validation pictures."""


def draw_sheet(pairs: Sequence[PairPictures]) -> Image:
    """(H, W, 3) RGB: a row per pair with RGB, thermal, truth, prediction and errors."""
    rows = []
    for pair in pairs:
        tiles = (pair["rgb"], pair["thermal"], pair["truth"], pair["prediction"], pair["error"])
        height, width = pair["truth"].shape[:2]
        size = TILE, max(1, round(height * TILE / width))
        row = [_tile(image, size, flat=place in (2, 3)) for place, image in enumerate(tiles)]
        rows.append(np.concatenate(row, axis=1))
    return np.concatenate(rows)


def _tile(image: Image | None, size: tuple[int, int], flat: bool) -> Image:
    if image is None:
        return np.full((size[1], size[0], 3), 128, np.uint8)
    colour = np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else image
    method = cv2.INTER_NEAREST if flat else cv2.INTER_AREA
    return np.asarray(cv2.resize(colour, size, interpolation=method), np.uint8)


def write_sheet(run: Path, step: int, sheet: Image) -> Path:
    """Write a sheet to report/val-STEP.jpg in the run's folder."""
    target = run / "report" / f"val-{step:08d}.jpg"
    options = [cv2.IMWRITE_JPEG_QUALITY, 92]
    _, encoded = cv2.imencode(".jpg", np.ascontiguousarray(sheet[..., ::-1]), options)
    write_atomic(target, encoded.tobytes())
    return target
