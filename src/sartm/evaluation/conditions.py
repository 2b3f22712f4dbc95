"""Bad conditions: what a failed, shifted or badly seeing camera does to a pair.

A condition changes a sample's raw values, as a camera would, before the model's thermal rule. What
is random in it depends on (seed, condition, pair) alone and not on the severity, so that a higher
severity is more of the same damage. Strengths in pixels are for images 640 wide and grow with the
width; those of `misregistered` are pixels of the image itself.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

from sartm.config import Modality
from sartm.data.pairs import Sample
from sartm.errors import InputError

Array = npt.NDArray[Any]


Change = Callable[[Sample, float, np.random.Generator], Sample]


Damage = Callable[[Array, float, np.random.Generator], npt.NDArray[Any]]


_Row = tuple[str, tuple[float, ...], str, Damage]


HAZE = 225.0
"""Grey level of light scattered into the camera by fog and rain."""


@dataclass(frozen=True)
class Condition:
    """One way in which a pair can be worse than those a model was trained on."""

    name: str
    needs: Modality
    """What the model must see for the condition to mean anything."""
    strengths: tuple[float, ...]
    """One per severity, mildest first."""
    about: str
    """What a strength is."""
    change: Change
    counted_in: Literal["steps", "strength"] = "steps"
    """What the table calls severity: 1, 2, 3, ... or the strength itself."""

    def severities(self) -> tuple[float | None, ...]:
        """One number per strength; None where there is only one."""
        if len(self.strengths) == 1:
            return (None,)
        steps = tuple(range(1, len(self.strengths) + 1))
        return self.strengths if self.counted_in == "strength" else steps


def degrade(sample: Sample, condition: Condition, strength: float, seed: int = 0) -> Sample:
    """The sample as under a condition: same size, same number types, same label."""
    text = f"{seed}/{condition.name}/{sample.name}"
    digest = hashlib.sha256(text.encode()).digest()
    return condition.change(sample, strength, np.random.default_rng(list(digest)))


def choose_conditions(names: Iterable[str] = (), modality: Modality = "both") -> list[Condition]:
    """Conditions by name, or every one that means something for what the model may see.

    Raises InputError for an unknown name or one that `modality` makes pointless.
    """
    wanted = list(dict.fromkeys(names))
    if not wanted:
        return [condition for condition in CONDITIONS.values() if _fits(condition, modality)]
    for name in wanted:
        if name not in CONDITIONS:
            raise InputError(
                f"unknown condition {name!r}; choose from {', '.join(CONDITIONS)} with --conditions"
            )
        if not _fits(CONDITIONS[name], modality):
            needs = CONDITIONS[name].needs
            raise InputError(
                f"condition {name} needs {'both modalities' if needs == 'both' else needs}, but "
                f"--modality is {modality}; leave one of the two out"
            )
    return [CONDITIONS[name] for name in wanted]


def _fits(condition: Condition, modality: Modality) -> bool:
    return modality in ("both", condition.needs)


# --- RGB: (H, W, 3) uint8 in, the same out -------------------------------------------------------


def _expose(rgb: Array, stops: float, _: np.random.Generator) -> Array:
    """Longer or shorter exposure: light, not grey values, is doubled per stop, then clipped."""
    light = (np.arange(256) / 255) ** 2.2 * 2.0**stops
    return np.asarray(cv2.LUT(rgb, (255 * light.clip(0, 1) ** (1 / 2.2)).round().astype(np.uint8)))


def _add_rgb_noise(rgb: Array, sigma: float, random: np.random.Generator) -> Array:
    noise = sigma * random.standard_normal(rgb.shape, np.float32)
    return _as_type(rgb + noise, rgb)


def _blur_by_motion(rgb: Array, length: float, random: np.random.Generator) -> Array:
    kernel = _line(_in_pixels(length, rgb), random.uniform(0, 180))
    return np.asarray(cv2.filter2D(rgb, -1, kernel, borderType=cv2.BORDER_REFLECT_101))


def _add_fog(rgb: Array, density: float, random: np.random.Generator) -> Array:
    """Koschmieder's law; depth is not known, so it grows from the bottom to the upper third."""
    height, width = rgb.shape[:2]
    depth = np.linspace(1.5, 0.1, height, dtype=np.float32).clip(0, 1)[:, None]
    patches = 1 + 0.12 * _clouds((height, width), random)
    through = np.exp(-density * depth * patches.clip(0.2, 2))[..., None]
    return _as_type(rgb * through + HAZE * (1 - through), rgb)


def _add_rain(rgb: Array, share: float, random: np.random.Generator) -> Array:
    """Streaks of one direction, from drops on `share` of the pixels, and a veil behind them."""
    drops = (random.random(rgb.shape[:2], np.float32) < share).astype(np.float32)
    line = _line(_in_pixels(20, rgb), 90 + random.uniform(-15, 15))
    streaks = cv2.filter2D(drops, -1, line / line.max(), borderType=cv2.BORDER_REFLECT_101)
    veil = (0.5 * streaks.clip(0, 1) + 15 * share)[..., None].clip(0, 0.9)
    return _as_type(rgb * (1 - veil) + HAZE * veil, rgb)


def _soil_rgb(rgb: Array, share: float, random: np.random.Generator) -> Array:
    """Mud on the lens, out of focus: dark brown."""
    mask = _blotches(rgb, share, random)[..., None]
    return _as_type(rgb * (1 - mask) + np.array([60, 52, 42], np.float32) * mask, rgb)


# --- Thermal: raw (H, W) in any number type, the same out; strengths are shares of its range -----


def _add_thermal_noise(raw: Array, share: float, random: np.random.Generator) -> Array:
    noise = share * _span(raw) * random.standard_normal(raw.shape, np.float32)
    return _as_type(raw + noise, raw)


def _lower_contrast(raw: Array, kept: float, _: np.random.Generator) -> Array:
    """As when the scene is evenly warm: all values move towards the middle one."""
    middle = np.float64(np.median(raw))
    return _as_type(middle + kept * (raw - middle), raw)


def _kill_columns(raw: Array, share: float, random: np.random.Generator) -> Array:
    """Columns of a sensor stuck at its coldest or hottest value."""
    draws, ends = random.random((2, raw.shape[1]))
    dead, stuck = draws < share, np.where(ends < 0.5, raw.min(), raw.max())
    out = raw.copy()
    out[:, dead] = stuck[dead].astype(raw.dtype)
    return out


def _invert(raw: Array, _: float, __: np.random.Generator) -> Array:
    """Black-hot instead of white-hot: 8 bits are a display's, other values span the image's own."""
    low, high = (0, 255) if raw.dtype == np.uint8 else (raw.min(), raw.max())
    return _as_type(np.float64(low) + high - raw, raw)


def _add_bands(raw: Array, share: float, random: np.random.Generator) -> Array:
    """Rows drift apart, eight by eight, as in uncooled sensors between two corrections."""
    bands = np.repeat(random.standard_normal(-(-raw.shape[0] // 8)), 8)[: raw.shape[0]]
    return _as_type(raw + share * _span(raw) * bands[:, None], raw)


def _soil_thermal(raw: Array, share: float, random: np.random.Generator) -> Array:
    """Mud on the lens is opaque and as warm as the scene is on average."""
    mask = _blotches(raw, share, random)
    return _as_type(raw * (1 - mask) + np.median(raw) * mask, raw)


def _shift(raw: Array, pixels: float, random: np.random.Generator) -> Array:
    """Whole pixels up, down, left or right, so that nothing is blurred; mirrored at the border."""
    by, axis, sign = int(pixels), random.integers(2), random.choice((-1, 1))
    padded = cv2.copyMakeBorder(raw, by, by, by, by, cv2.BORDER_REFLECT_101)
    top, left = (by + sign * by, by) if axis == 0 else (by, by + sign * by)
    return np.ascontiguousarray(padded[top : top + raw.shape[0], left : left + raw.shape[1]])


def damage_rgb(rgb: Array, random: np.random.Generator) -> Array:
    """An RGB image (H, W, 3) uint8 under one condition of those below, of any severity."""
    return _damage(_RGB, rgb, random)


def damage_thermal(raw: Array, random: np.random.Generator) -> Array:
    """A thermal image (H, W) under one condition of those below, inversion aside."""
    return _damage(tuple(row for row in _THERMAL if row[0] != "inverted"), raw, random)


def _damage(rows: Sequence[_Row], image: Array, random: np.random.Generator) -> Array:
    _, strengths, _, damage = rows[int(random.integers(len(rows)))]
    low, high = min(strengths), max(strengths)
    return damage(image, float(random.uniform(low, high)), random)


# --- What several of them need -------------------------------------------------------------------


def _line(length: int, degrees: float) -> Array:
    """(n, n) kernel of a straight line, sum 1."""
    size = length | 1
    kernel = np.zeros((size, size), np.float32)
    kernel[size // 2] = 1
    turn = cv2.getRotationMatrix2D((size // 2, size // 2), degrees, 1)
    turned = cv2.warpAffine(kernel, turn, (size, size))
    return np.asarray(turned / turned.sum())


def _clouds(size: tuple[int, int], random: np.random.Generator) -> Array:
    """(H, W) smooth noise, about standard normal: cells of an eighth of the width."""
    cells = random.standard_normal((8, 8), np.float32)
    return np.asarray(cv2.resize(cells, size[::-1], interpolation=cv2.INTER_CUBIC))


def _blotches(image: Array, share: float, random: np.random.Generator) -> Array:
    """(H, W) opacity in [0, 1]: soft-edged spots over `share` of the image."""
    field = _clouds((image.shape[0], image.shape[1]), random)
    spots = (field > np.quantile(field, 1 - share)).astype(np.float32)
    return np.asarray(cv2.GaussianBlur(spots, (0, 0), _in_pixels(5, image)))


def _in_pixels(length: float, image: Array) -> int:
    return max(1, round(length * int(image.shape[1]) / 640))


def _span(raw: Array) -> float:
    """From the 1st to the 99th percentile: what the scene spans, hot pixels aside."""
    low, high = np.percentile(raw, (1, 99))
    return float(high - low)


def _as_type(values: Array, like: Array) -> Array:
    """Rounded and clipped to the number type of `like`; floats stay floats."""
    if like.dtype.kind == "u":
        values = np.rint(values).clip(0, np.iinfo(like.dtype).max)
    return np.asarray(values.astype(like.dtype))


def _on(kind: Literal["rgb", "thermal"], damage: Damage) -> Change:
    def change(sample: Sample, strength: float, random: np.random.Generator) -> Sample:
        image = sample.rgb if kind == "rgb" else sample.thermal
        if image is None:
            return sample
        damaged = damage(image, strength, random)
        return replace(sample, rgb=damaged) if kind == "rgb" else replace(sample, thermal=damaged)

    return change


def _without_rgb(sample: Sample, _: float, __: np.random.Generator) -> Sample:
    return sample if sample.thermal is None else replace(sample, rgb=None)


def _without_thermal(sample: Sample, _: float, __: np.random.Generator) -> Sample:
    return sample if sample.rgb is None else replace(sample, thermal=None)


_COVERED = (0.05, 0.1, 0.2, 0.3, 0.45)


_RGB: tuple[_Row, ...] = (
    ("dark", (-1, -2, -3, -4, -5), "stops of exposure", _expose),
    ("overexposed", (0.5, 1, 1.5, 2, 3), "stops of exposure", _expose),
    ("noise", (8, 16, 24, 40, 60), "standard deviation in grey levels of 255", _add_rgb_noise),
    ("motion-blur", (5, 9, 15, 21, 31), "length of the path in pixels", _blur_by_motion),
    ("fog", (0.5, 1, 1.5, 2.2, 3), "optical depth at the horizon", _add_fog),
    ("rain", (0.001, 0.003, 0.006, 0.012, 0.02), "share of pixels with a drop", _add_rain),
    ("occluded", _COVERED, "share of the image behind mud", _soil_rgb),
)  # fmt: skip


_THERMAL: tuple[_Row, ...] = (
    ("noise", (0.05, 0.1, 0.15, 0.25, 0.4),
     "standard deviation as a share of the image's range", _add_thermal_noise),
    ("low-contrast", (0.6, 0.4, 0.25, 0.15, 0.08), "what is left of the contrast", _lower_contrast),
    ("dead-columns", (0.01, 0.02, 0.05, 0.1, 0.2), "share of columns", _kill_columns),
    ("inverted", (1,), "black-hot instead of white-hot", _invert),
    ("banding", (0.05, 0.1, 0.2, 0.3, 0.5),
     "standard deviation of rows as a share of the image's range", _add_bands),
    ("occluded", _COVERED, "share of the image behind mud", _soil_thermal),
)  # fmt: skip


CONDITIONS = {
    condition.name: condition
    for condition in (
        Condition("rgb-missing", "both", (1,), "no RGB image", _without_rgb),
        Condition("thermal-missing", "both", (1,), "no thermal image", _without_thermal),
        Condition(
            "misregistered",
            "both",
            (2, 5, 10, 20),
            "pixels by which the thermal image is moved, in one of four directions per pair",
            _on("thermal", _shift),
            "strength",
        ),
        *(Condition(f"rgb-{name}", "rgb", strengths, about, _on("rgb", damage))
          for name, strengths, about, damage in _RGB),
        *(Condition(f"thermal-{name}", "thermal", strengths, about, _on("thermal", damage))
          for name, strengths, about, damage in _THERMAL),
    )
}  # fmt: skip
"""Every condition, in the order of the table."""
