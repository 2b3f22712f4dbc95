"""Pictures of pairs: RGB, thermal, truth, prediction and errors, inline and on sheets."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from sartm.classes import Classes
from sartm.colours import display_palette
from sartm.config import ThermalRule
from sartm.data.pairs import Sample
from sartm.evaluation.metrics import ConfusionMatrix, count_pixels, means
from sartm.evaluation.report.tables import number
from sartm.files import write_atomic
from sartm.io.thermal import choose_levels, scale_thermal

Image = NDArray[np.uint8]

Kind = Literal["rgb", "thermal", "truth", "prediction", "error"]
KINDS: dict[Kind, str] = {
    "rgb": "RGB",
    "thermal": "thermal",
    "truth": "ground truth",
    "prediction": "prediction",
    "error": "errors (bright)",
}
"""What a picture shows, from left to right."""
FLAT = ("truth", "prediction")
"""Label colours, which stay exact."""
PICTURE_WIDTH = 320
"""Pixels; a page with eight pairs then stays below about 1 MB."""
TILE = 240
"""Width in pixels of one image on a sheet of validation pictures."""


@dataclass(frozen=True)
class PairPictures:
    """One pair to show."""

    name: str
    group: Literal["best", "worst"]
    caption: str
    images: dict[Kind, Image | None]
    """(H, W, 3) RGB or (H, W) grey in 8 bits, None where missing; every kind, in that order."""
    alt: dict[Kind, str]
    """What to read out instead of each image."""

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) of the label maps."""
        truth = self.images["truth"]
        assert truth is not None
        return truth.shape[0], truth.shape[1]


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
    matrix = ConfusionMatrix(len(classes), count_pixels(prediction, truth, classes))
    score = means(matrix, classes, "present")["present"]["miou"]
    share = float(wrong.sum() / max(1, (~ignored).sum()))
    return PairPictures(
        name,
        group,
        f"mean IoU of the classes present {number(score)} %, "
        f"{number(100 * share)} % of the pixels wrong",
        {
            "rgb": rgb,
            "thermal": thermal,
            "truth": _colour(truth, classes),
            "prediction": _colour(prediction, classes),
            "error": error,
        },
        {
            "rgb": f"RGB of {name}",
            "thermal": f"thermal of {name}",
            "truth": f"ground truth of {name}: {_shares(truth, classes)}",
            "prediction": f"prediction for {name}: {_shares(prediction, classes)}",
            "error": f"error map of {name}: {number(100 * share)} % of the pixels are wrong",
        },
    )


def draw_sample(
    sample: Sample,
    labels: NDArray[np.integer],
    classes: Classes,
    rule: ThermalRule,
    group: Literal["best", "worst"] = "best",
) -> PairPictures:
    """Pictures of a labelled sample and its label map (H, W), thermal as the model sees it.

    Thermal that the model did not look at, and that its rule does not take, is stretched.
    """
    thermal = None
    if sample.thermal is not None:
        levels = sample.levels or choose_levels(
            sample.thermal, rule, "auto", sample.name, sample.unseen, sample.black_hot
        )
        thermal = (255 * scale_thermal(sample.thermal, levels)).astype(np.uint8)
    assert sample.label is not None
    return draw_pair(sample.name, group, sample.label, labels, classes, sample.rgb, thermal)


def _shares(ids: NDArray[np.integer], classes: Classes) -> str:
    """The classes of a label map by area, largest first."""
    found, counts = np.unique(ids[ids != classes.ignore], return_counts=True)
    order = np.argsort(-counts, kind="stable")
    total = max(1, int(counts.sum()))
    return ", ".join(f"{classes.names[found[i]]} {100 * counts[i] / total:.1f} %" for i in order)


def _colour(ids: NDArray[np.integer], classes: Classes) -> Image:
    """(H, W) ids as (H, W, 3) RGB in display colours; ignored pixels mid grey."""
    picture = np.full((*ids.shape, 3), 128, np.uint8)
    known = ids != classes.ignore
    picture[known] = np.array(display_palette(classes), np.uint8)[ids[known]]
    return picture


def _grey(photo: Image) -> Image:
    return photo if photo.ndim == 2 else np.asarray(cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY))


def data_uri(image: Image, kind: Kind) -> str:
    """The image at most PICTURE_WIDTH wide, inline; flat colours as PNG.

    Source: RFC 2397.
    """
    height, width = image.shape[:2]
    if width > PICTURE_WIDTH:
        size = PICTURE_WIDTH, max(1, round(height * PICTURE_WIDTH / width))
        image = _resize(image, size, kind in FLAT)
    if kind in FLAT:
        return f"data:image/png;base64,{base64.b64encode(encode(image, 'png')).decode()}"
    return f"data:image/jpeg;base64,{base64.b64encode(encode(image, 'jpeg')).decode()}"


def encode(image: Image, kind: Literal["png", "jpeg"], quality: int = 80) -> bytes:
    """A file of (H, W, 3) RGB or (H, W) grey; `quality` is that of JPEG, up to 100."""
    ordered = image[..., ::-1] if image.ndim == 3 else image
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if kind == "jpeg" else []
    done, data = cv2.imencode(f".{kind}", np.ascontiguousarray(ordered), options)
    assert done
    return data.tobytes()


def draw_sheet(pairs: Sequence[PairPictures]) -> Image:
    """(H, W, 3) RGB: a row per pair with every kind of picture."""
    rows = []
    for pair in pairs:
        height, width = pair.shape
        size = TILE, max(1, round(height * TILE / width))
        rows.append(np.hstack([tile(image, size, kind in FLAT)
                               for kind, image in pair.images.items()]))  # fmt: skip
    return np.vstack(rows)


def tile(image: Image | None, size: tuple[int, int], flat: bool = False) -> Image:
    """(height, width, 3) RGB of an image at `size`, (width, height); mid grey where it is missing.

    Colours that `flat` says mean classes are not mixed.
    """
    if image is None:
        return np.full((size[1], size[0], 3), 128, np.uint8)
    colour = np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else image
    return _resize(colour, size, flat)


def _resize(image: Image, size: tuple[int, int], flat: bool) -> Image:
    method = cv2.INTER_NEAREST if flat else cv2.INTER_AREA
    return np.asarray(cv2.resize(image, size, interpolation=method), np.uint8)


def write_sheet(run: Path, step: int, sheet: Image) -> Path:
    """Write a sheet to report/val-STEP.jpg in the run's folder."""
    target = run / "report" / f"val-{step:08d}.jpg"
    write_atomic(target, encode(sheet, "jpeg", 92))
    return target
