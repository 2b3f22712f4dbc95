"""What the service reads of images that are sent to it or annotated, called where it can be killed.

Imported in the decoding process: nothing of the network's or of the web's is imported here.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from sartm.classes import Classes
from sartm.data.pairs import Sample, check_ids, match_sizes, read_images, read_pair
from sartm.data.sets import Pair
from sartm.errors import InputError
from sartm.io.cameras import Camera
from sartm.io.decode import FourChannel, image_size, read_rgb, read_rgb_alone, read_thermal
from sartm.io.flir import is_radiometric, read_radiometric
from sartm.io.labels import read_label
from sartm.io.places import Place, find_place
from sartm.io.sources import Source, Upload

Array = npt.NDArray[Any]
View = Literal["rgb", "thermal", "fourth"]

LEAST_SIDE = 32
"""Pixels to which the network pads a side that is shorter."""
RESIZE_OR_REGISTER = (
    "If both show the same view set resize_thermal; if not, register the cameras first: sartm data "
    "align"
)


@dataclass(frozen=True)
class Extent:
    """How large an image may be."""

    pixels: int
    """Height x width, a side counting 32 at least."""
    side: int
    """The longer of height and width."""

    def check(self, name: str, size: Iterable[int]) -> None:
        """Refuse an image of (height, width) pixels that is too large."""
        height, width = size
        shown = f"{name}: {height}x{width} (height x width)"
        if max(height, width) > self.side:
            raise InputError(f"{shown} has a side of more than {self.side} pixels; cut it up")
        if max(height, LEAST_SIDE) * max(width, LEAST_SIDE) > self.pixels:
            raise InputError(
                f"{shown} counts more than {self.pixels / 1e6:g} million pixels, "
                f"each side as {LEAST_SIDE} at least; cut it into tiles"
            )


def read_uploads(
    rgb: Upload | None,
    thermal: Upload | None,
    resize_thermal: bool,
    four_channel: FourChannel,
    extent: Extent,
    camera: Camera = Camera(),
) -> Sample:
    """The pair in two uploads, read as `sartm predict` reads two files.

    Raises:
        InputError: neither is given, one cannot be read or is too large, or the sizes differ.
    """
    if rgb is None and thermal is None:
        raise InputError("no image; send rgb, thermal or both as files of a multipart form")
    _check_headers((rgb, thermal), extent)
    images = read_images(
        rgb, thermal, four_channel=four_channel, camera=camera, max_pixels=extent.pixels
    )
    for name, image in (("rgb", images.rgb), ("thermal", images.thermal)):
        if image is not None:  # a header may say something else
            extent.check(name, image.shape[:2])
    images = match_sizes(images, "the pair", resize_thermal, RESIZE_OR_REGISTER)
    return images.as_sample("upload")


def read_placed(
    rgb: Upload | None,
    thermal: Upload | None,
    resize_thermal: bool,
    four_channel: FourChannel,
    extent: Extent,
    camera: Camera,
) -> tuple[Sample, Place, str]:
    """As `read_uploads`, with where and when they say it was, and what is odd about that."""
    sample = read_uploads(rgb, thermal, resize_thermal, four_channel, extent, camera)
    return sample, *find_place((rgb, thermal), moved=False)


def read_view(upload: Upload, view: View, extent: Extent) -> Array:
    """What an upload shows: RGB (H, W, 3), or raw thermal values (H, W)."""
    _check_headers((upload,), extent)
    if view == "rgb":
        shown: Array | None = read_rgb(upload, extent.pixels)
    elif view == "thermal":
        shown = read_thermal(upload, extent.pixels)
    else:
        _, shown, _ = read_rgb_alone(upload, max_pixels=extent.pixels)
    if shown is None:
        raise InputError("the image has no thermal channel; send the thermal image by itself")
    extent.check(upload.name, shown.shape[:2])
    return shown


def read_values(
    upload: Upload, view: Literal["thermal", "fourth"], extent: Extent
) -> tuple[Array, str]:
    """Thermal values (H, W) of an upload and their unit: celsius of a radiometric file, or raw."""
    if view == "thermal" and is_radiometric(upload.data):
        found: Array = read_radiometric(upload, extent.pixels)
        extent.check(upload.name, found.shape)
        return found, "celsius"
    return read_view(upload, view, extent), "raw"


def read_inputs(pair: Pair, camera: Camera, extent: Extent, resize_thermal: bool = False) -> Sample:
    """RGB and thermal of a pair to annotate, white-hot; InputError as `read_pair`."""
    pair = replace(pair, label=None)
    sample = read_pair(
        pair,
        four_channel="auto",
        camera=camera,
        max_pixels=extent.pixels,
        resize_thermal=resize_thermal,
    )
    extent.check(sample.name, sample.size)
    return sample


def read_ids(source: Source, classes: Classes, coloured: bool | None, extent: Extent) -> Array:
    """(H, W) class ids of a label, all of them known to the class table."""
    if isinstance(source, Upload):
        _check_headers((source,), extent)
    labels = read_label(source, classes.ignore, classes.palette, extent.pixels, coloured)
    name = source.name if not isinstance(source, str) else source
    extent.check(name, labels.shape)
    check_ids(labels, classes, name)
    return labels


def read_correction(
    upload: Upload,
    pair: Pair,
    camera: Camera,
    classes: Classes,
    extent: Extent,
    resize_thermal: bool = False,
) -> Array:
    """(H, W) class ids that were sent for a pair; InputError where they do not fit it."""
    labels = read_ids(upload, classes, False, extent)
    size = read_inputs(pair, camera, extent, resize_thermal).size
    if labels.shape != size:
        raise InputError(
            f"the label is {labels.shape[0]}x{labels.shape[1]} but the pair is "
            f"{size[0]}x{size[1]}; send one of its size"
        )
    return np.ascontiguousarray(labels)


def _check_headers(uploads: Iterable[Upload | None], extent: Extent) -> None:
    for upload in uploads:
        if upload is not None:
            extent.check(upload.name, image_size(upload, extent.pixels))
