"""What silently breaks a rig, seen in its images; of films see `watch`.

    misaligned    thermal fits RGB better elsewhere: registration.displacement
    flat          an image without contrast: black, saturated, a closed shutter
    colourless    RGB of grey pixels: a thermal image given as RGB, or a grey camera
    black-hot     thermal whose warm things look dark:                 `measure_polarity`
    frozen        one camera repeats a frame while the other one's picture changes
    stale         frames share a partner for longer than the cameras' rates explain

How often each is found, and raised for nothing: benchmarks/alarms.py.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

from sartm.data.pairs import Sample
from sartm.errors import InputError
from sartm.registration.displacement import (
    Displacement,
    describe_displacement,
    measure_displacement,
)
from sartm.registration.estimate import align_thermal

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
OnMisaligned = Literal["warn", "align", "rgb", "thermal", "fail"]

WORDS = {
    "misaligned": "thermal does not lie on RGB; register the cameras: sartm data align",
    "rgb flat": "RGB has no contrast: covered, black or overexposed",
    "thermal flat": "thermal has no contrast: covered, or its shutter is closed",
    "colourless": "RGB has no colour: a thermal image given as RGB, or a grey camera",
    "black-hot": "thermal looks black-hot (warm is dark); if so pass --black-hot",
    "rgb frozen": "RGB repeats one frame while thermal changes",
    "thermal frozen": "thermal repeats one frame while RGB changes",
    "stale": "frames share one partner for long: one camera has stopped or lags",
}
"""What each alarm means and what to do, in a line."""

_SIDE = 160
"""Longer side of the images that statistics are taken of."""
_GREY = 1.0
"""Largest mean of (largest - smallest channel) of an RGB image that shows no colour."""
_BLACK_HOT = -1.0
"""Polarity below which thermal is reported as black-hot: 3 % of white-hot images lie there."""
_DARK = 70.0
"""Mean grey level of RGB below which it is night."""


@dataclass(frozen=True)
class PairCheck:
    """What one pair looks like."""

    offset: Displacement | None
    """None where a camera is missing."""
    polarity: float | None
    """Above 0 thermal looks white-hot, below black-hot; None without thermal."""
    alarms: tuple[str, ...]
    """Keys of `WORDS`."""

    def describe(self) -> dict[str, Any]:
        """For a summary."""
        found: dict[str, Any] = {}
        if self.offset is not None:
            found["registration"] = describe_displacement(self.offset)
        if self.polarity is not None:
            found["polarity"] = round(self.polarity, 2)
        return found | {"alarms": list(self.alarms)}


def check_pair(sample: Sample, registration: bool = True) -> PairCheck:
    """Look at a pair, or at the one image there is; about 40 ms, 5 without the registration."""
    alarms, offset, polarity = [], None, None
    rgb = None if sample.rgb is None else _shrink(sample.rgb)
    thermal = None if sample.thermal is None else _shrink(_known(sample))
    flat = [name for name, image, least in (("rgb", rgb, 6.0), ("thermal", thermal, 1.5))
            if image is not None and _is_flat(image, least)]  # fmt: skip
    alarms += [f"{name} flat" for name in flat]
    if rgb is not None and not flat and float(np.ptp(rgb, axis=2).mean()) <= _GREY:
        alarms.append("colourless")
    if thermal is not None and "thermal" not in flat:
        polarity = measure_polarity(thermal, None if rgb is None or flat else rgb.mean(axis=2))
        if polarity < _BLACK_HOT:
            alarms.append("black-hot")
    if registration and sample.rgb is not None and sample.thermal is not None:
        offset = measure_displacement(sample.rgb, _known(sample))
        if offset.misaligned:
            alarms.append("misaligned")
    return PairCheck(offset, polarity, tuple(alarms))


def handle_misaligned(sample: Sample, check: PairCheck, how: OnMisaligned) -> Sample:
    """A pair to label in place of one whose thermal does not lie on RGB; others stay as they are.

    Args:
        sample: the pair.
        check: what `check_pair` says of it.
        how: `warn` changes nothing; `align` estimates where thermal lies and moves it, and changes
            nothing where that cannot be told; `rgb` and `thermal` leave the other one out.

    Raises:
        InputError: `how` is `fail`.
    """
    if check.offset is None or not check.offset.misaligned or how == "warn":
        return sample
    off = f"thermal lies about {check.offset.distance:.0f} pixels off RGB"
    if how == "fail":
        raise InputError(
            f"pair {sample.name!r}: {off}; register the cameras (sartm data align), or choose "
            f"another --on-misaligned"
        )
    if how == "rgb":
        return replace(sample, thermal=None, unseen=None, note=_join(sample, f"{off}: RGB alone"))
    if how == "thermal":
        return replace(sample, rgb=None, note=_join(sample, f"{off}: thermal alone"))
    assert sample.rgb is not None
    assert sample.thermal is not None
    try:
        moved = align_thermal(
            sample.rgb, sample.thermal, None, f"pair {sample.name!r}", sample.unseen
        )
    except InputError:
        return replace(sample, note=_join(sample, f"{off}, and could not be aligned"))
    note = _join(sample, f"{off}, and was aligned")
    return replace(sample, thermal=moved.image, unseen=~moved.valid, note=note)


def _join(sample: Sample, note: str) -> str:
    return f"{sample.note}; {note}" if sample.note else note


def _known(sample: Sample) -> Array:
    """Thermal with NaN where it is no measurement."""
    assert sample.thermal is not None
    if sample.unseen is None:
        return sample.thermal
    return np.where(sample.unseen, np.float32(np.nan), sample.thermal.astype(np.float32))


def _shrink(image: Array) -> Floats:
    """Of at most `_SIDE` pixels, float32; what is not finite becomes the median of the rest."""
    factor = _SIDE / max(image.shape[:2])
    if image.dtype not in (np.uint8, np.uint16, np.float32):
        image = image.astype(np.float32)
    if factor < 1:
        size = [max(1, round(side * factor)) for side in image.shape[1::-1]]
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    small = image.astype(np.float32)
    known = np.isfinite(small)
    if not known.all():
        small[~known] = np.median(small[known]) if known.any() else 0.0
    return small


def _is_flat(image: Floats, least: float) -> bool:
    """Whether an image spans less than `least` grey levels, or than 1e-4 of floats' own size."""
    low, high = np.percentile(image, (1, 99))
    return bool(high - low < min(least, max(1e-4 * abs(high), 1e-6)) or high - low < least / 3)


def measure_polarity(thermal: Floats, grey: Floats | None) -> float:
    """Whether warm is bright in small float images: above 0 so, below 0 the reverse.

    Small things are warmer than what is around them more often than colder: the skewness of what
    stands out is above 0. By day the upper part of the picture is colder than the lower. At night
    (`grey`, the visible image, is dark) what is lit is warm and the sky is cold, so that both
    images go together. The weights were set on four cameras, see the benchmark.
    """
    low, high = (float(value) for value in np.percentile(thermal, (1, 99)))
    heat = ((thermal - low) / max(high - low, 1e-6)).clip(0, 1)
    outstanding = heat - cv2.GaussianBlur(heat, (0, 0), 6)
    deviation = max(float(outstanding.std()), 1e-4)
    skewness = float(np.clip((outstanding**3).mean() / deviation**3, -8, 8))
    third = max(len(heat) // 3, 1)
    above = float(heat[:third].mean() - heat[third:].mean()) if len(heat) > third else 0.0
    if grey is None or float(grey.mean()) >= _DARK:
        return skewness - 4 * above
    return 5 * _correlate(grey, heat) + 0.5 * skewness - 2 * above


def _correlate(first: Floats, second: Floats) -> float:
    """Of what stands out in two images."""
    a, b = (image - cv2.GaussianBlur(image, (0, 0), 12) for image in (first, second))
    product = float(np.linalg.norm(a)) * float(np.linalg.norm(b))
    return float((a * b).sum()) / product if product > 1e-6 else 0.0


def count_alarms(pairs: Iterable[Iterable[str]]) -> dict[str, int]:
    """How many pairs raised each alarm, in the order of `WORDS`."""
    counts = Counter(alarm for alarms in pairs for alarm in alarms)
    return {name: counts[name] for name in WORDS if counts[name]}


def word_alarms(counts: dict[str, int], pairs: int) -> str:
    """One line about all of them; "" where there are none.

    What a statistic also says of a few good pairs in a hundred is left out while it is so few.
    """
    told = {
        name: count
        for name, count in counts.items()
        if not (name in ("misaligned", "black-hot") and pairs > 20 and count <= 0.05 * pairs)
    }
    return "; ".join(f"{count} of {pairs}: {WORDS[name]}" for name, count in told.items())
