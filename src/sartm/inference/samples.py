"""Pairs as callers hand them over: files, PIL images, arrays or samples, held to one rule."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from sartm.data.pairs import RawImages, Sample, match_sizes, read_images
from sartm.errors import InputError
from sartm.io.opened import Opened, take_rgb, take_thermal

Array = npt.NDArray[Any]
Source = str | Path | Image.Image | Array | None

_REGISTER = "Register the two (sartm data align) or resize"


def as_sample(rgb: Source, thermal: Source) -> Sample:
    """A pair as somebody hands it over, read and checked."""
    if rgb is None and thermal is None:
        raise InputError("no input: give rgb, thermal or both")
    rgb_file = Path(rgb) if isinstance(rgb, str | Path) else None
    thermal_file = Path(thermal) if isinstance(thermal, str | Path) else None
    images = read_images(rgb_file, thermal_file)
    if not (rgb is None or isinstance(rgb, str | Path)):
        images = replace(images, rgb=take_rgb(_as_opened(rgb), "rgb"))
    if not (thermal is None or isinstance(thermal, str | Path)):
        images = replace(images, thermal=take_thermal(_as_opened(thermal), "thermal"))
    images = match_sizes(images, "pair", False, _REGISTER)
    return images.as_sample("pair")


def _as_opened(source: Image.Image | Array) -> Opened:
    return source if isinstance(source, Image.Image) else np.asarray(source)


def check_sample(sample: Sample) -> Sample:
    """A sample, which a caller may have built by hand, held to what files are held to."""
    rgb, thermal = sample.rgb, sample.thermal
    if rgb is not None:
        rgb = take_rgb(rgb, f"pair {sample.name!r}: rgb")
    if thermal is not None:
        thermal = take_thermal(thermal, f"pair {sample.name!r}: thermal")
    match_sizes(RawImages(rgb, thermal), f"pair {sample.name!r}", False, _REGISTER)
    return replace(sample, rgb=rgb, thermal=thermal)
