"""What raw thermal values are in degrees, where somebody or the file says so; never guessed."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from sartm.errors import InputError
from sartm.io.cameras import invert_thermal
from sartm.io.flir import KELVIN

Array = npt.NDArray[Any]
Scale = tuple[float, float]
"""Gain and offset: degrees Celsius = gain x value + offset."""

SCALES: dict[str, Scale] = {
    "celsius": (1.0, 0.0),
    "kelvin": (1.0, -KELVIN),
    "tlinear": (0.01, -KELVIN),
}
"""Words for what cameras write; `tlinear` is FLIR's linear output, hundredths of a Kelvin."""


def read_scale(text: str) -> Scale | None:
    """What --degrees says: a word of `SCALES`, GAIN:OFFSET, or nothing.

    Raises InputError for anything else.
    """
    if not text:
        return None
    if text in SCALES:
        return SCALES[text]
    try:
        gain, offset = (float(part) for part in text.split(":"))
    except ValueError:
        gain, offset = math.nan, math.nan
    if not (math.isfinite(gain) and math.isfinite(offset) and gain > 0):
        raise InputError(
            f"degrees are {text[:60]!r}; give {', '.join(SCALES)} (0.01 K, as FLIR's TLinear), or "
            f"GAIN:OFFSET of Celsius = GAIN x value + OFFSET, such as 0.04:-273.15"
        )
    return gain, offset


def choose_scale(degrees: str, radiometric: bool) -> Scale | None:
    """How raw thermal values become degrees; None where nothing says so.

    Raises InputError where `degrees` is no scale, or says something else than the files.
    """
    if radiometric and degrees not in ("", "celsius"):
        raise InputError(
            f"radiometric files are read as Celsius, but --degrees says {degrees[:60]}; leave one "
            f"of the two out"
        )
    return SCALES["celsius"] if radiometric else read_scale(degrees)


def to_degrees(raw: Array, scale: Scale, black_hot: bool = False) -> npt.NDArray[np.float32]:
    """Raw thermal (H, W) to Celsius; `black_hot`: it was inverted when it was read."""
    values = invert_thermal(raw) if black_hot else raw
    if scale == (1.0, 0.0):
        return values.astype(np.float32)
    return np.asarray(values * np.float64(scale[0]) + scale[1], np.float32)
