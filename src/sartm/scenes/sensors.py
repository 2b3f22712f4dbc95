"""From a lit canvas to images: RGB camera, thermal camera and its display.

Light is linear until the RGB camera's tone curve (a square root, near the sRGB gamma). Slow steps
run at a quarter of the resolution. Noise comes from fixed periodic tiles at random offsets.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from sartm.scenes.canvas import (
    MOTTLE,
    TEMPERATURE,
    TILE,
    Array,
    Climate,
    Colour,
    Stage,
    crop,
    floats,
    noise_tiles,
)  # fmt: skip
from sartm.scenes.light import SHARPEST, Fields, Weather, _look_up

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class RgbCamera:
    """Tone, sharpness and noise of one exposure."""

    brightness: float
    """Mean of the picture that the exposure aims at, 0-1."""
    balance: Colour
    saturation: float
    contrast: float
    blur: float
    """Pixels at 480 rows."""
    bloom: float
    noise: float
    """Deviation in levels of 255."""
    vignette: float
    quality: int
    """JPEG quality; 0 leaves the picture uncompressed."""


def expose(camera: RgbCamera, scene: Array) -> Array:
    """Scale linear light so that the picture's mean is about the camera's aim; in place."""
    sample = np.ascontiguousarray(scene[::6, ::6, 1])
    # Lamps must not darken the rest of the picture: leave out the brightest 2 %.
    usual = np.minimum(sample, np.percentile(sample, 98))
    mean = float(np.sqrt(usual).mean()) + 1e-5
    scene *= np.float32((camera.brightness / mean) ** 2)
    return scene


def take_rgb(rng: np.random.Generator, camera: RgbCamera, exposed: Array) -> Bytes:
    """Exposed linear light (H, W, 3) to an 8-bit picture."""
    height, width = exposed.shape[:2]
    scale = height / 480
    if camera.bloom:
        _add_bloom(exposed, camera.bloom)
    if camera.vignette:
        exposed *= cv2.merge([_vignette(height, width, camera.vignette)] * 3)
    np.minimum(exposed, np.float32(1.2), out=exposed)
    tones = cv2.sqrt(np.maximum(exposed, np.float32(0), out=exposed))
    picture = np.asarray(cv2.convertScaleAbs(tones, alpha=240))
    if camera.blur >= 0:
        picture = cv2.GaussianBlur(picture, (0, 0), max(camera.blur * scale, SHARPEST))
    else:
        soft = cv2.GaussianBlur(picture, (0, 0), max(scale, 0.4))
        picture = cv2.addWeighted(picture, 1 - camera.blur, soft, camera.blur, 0)
    levels = cv2.transform(picture, _colour_matrix(camera))
    if camera.noise:
        levels = cv2.add(levels, _rgb_noise(rng, height, width, camera.noise), dtype=cv2.CV_8U)
    levels = np.asarray(cv2.LUT(levels, _contrast_curve(camera.contrast)))
    if camera.quality:
        packed = cv2.imencode(".jpg", levels, [cv2.IMWRITE_JPEG_QUALITY, camera.quality])[1]
        levels = np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR))
    return np.ascontiguousarray(levels, np.uint8)


def _colour_matrix(camera: RgbCamera) -> npt.NDArray[np.float32]:
    """White balance and saturation as one (3, 3) matrix."""
    mix = camera.saturation * np.eye(3) + (1 - camera.saturation) / 3
    gains = np.sqrt(np.array(camera.balance))
    return floats(255 / 240 * mix * gains[None])


def _contrast_curve(contrast: float) -> Bytes:
    """An S-curve that keeps black and white; contrast 0 is a straight line."""
    tone = np.arange(256, dtype=np.float32) / 255
    smooth = tone * tone * (3 - 2 * tone)
    return np.rint(255 * (tone + contrast * (smooth - tone))).clip(0, 255).astype(np.uint8)


def _add_bloom(exposed: Array, strength: float) -> None:
    """Add the light scattered in the lens around what is brighter than white, in place."""
    height, width = exposed.shape[:2]
    small = cv2.resize(exposed, ((width + 3) // 4, (height + 3) // 4), interpolation=cv2.INTER_AREA)
    over = np.minimum(np.maximum(small - np.float32(0.9), 0), 30)
    if not over.any():
        return
    scale = height / 480
    total = cv2.GaussianBlur(over, (0, 0), max(1.2 * scale, 0.3)) * np.float32(0.5)
    tiny = cv2.resize(over, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    for sigma, weight in ((1.4, 0.35), (5.0, 0.5)):
        wide = cv2.GaussianBlur(tiny, (0, 0), max(sigma * scale, 0.4))
        total += np.float32(weight) * floats(cv2.resize(wide, (over.shape[1], over.shape[0])))
    exposed += cv2.resize(total * np.float32(strength), (width, height))


def _vignette(height: int, width: int, strength: float) -> Array:
    columns = np.linspace(-1, 1, width, dtype=np.float32)[None]
    rows = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    return np.asarray(1 - strength * 0.5 * (columns**2 + rows**2), np.float32)


def _rgb_noise(rng: np.random.Generator, height: int, width: int, deviation: float) -> Array:
    """Noise (H, W, 3) that is mostly grey, in levels."""
    grain = noise_tiles()[0]
    offsets = [int(value) for value in rng.integers(0, TILE, 6)]
    grey, warm, cold = (
        crop(grain, height, width, *offsets[index : index + 2]) for index in (0, 2, 4)
    )
    coloured = 0.45 * deviation if deviation > 1.5 else 0.0
    if not coloured:
        return floats(cv2.merge([grey * np.float32(deviation)] * 3))
    return np.asarray(
        cv2.merge(
            [
                cv2.addWeighted(grey, deviation, warm, coloured, 0),
                cv2.addWeighted(grey, deviation, warm, -0.5 * coloured, 0),
                cv2.addWeighted(grey, deviation, cold, coloured, 0),
            ]
        )
    )


@dataclass(frozen=True)
class ThermalCamera:
    """Optics, noise and display of one thermal exposure."""

    blur: float
    """Pixels at 480 rows."""
    noise: float
    """Kelvin."""
    pattern: float
    """Kelvin of fixed column noise."""
    display: str
    """dark, percentile, linear or equalised."""
    low: float
    high: float
    """Percentiles (dark, percentile), or Kelvin below and above the air (linear)."""
    middle: float
    """dark, percentile: display value 0-1 of the median."""
    detail: float
    """Weight of the local contrast that is added."""


def radiate(stage: Stage, fields: Fields, weather: Weather, smoke: Array | None) -> Array:
    """Apparent temperature (H, W) float32 in Celsius, through the weather: exact, no camera yet."""
    table, parts, climate = fields.table, fields.parts, stage.climate
    celsius = _look_up(table, TEMPERATURE, parts)
    texture = floats(cv2.addWeighted(fields.grain, 0.5, fields.clouds, 0.7, 0))
    texture *= _look_up(table, MOTTLE, parts)
    celsius += texture
    if climate.sun > 0.3:
        celsius -= (1 - fields.lit) * np.float32(4 * climate.sun)
    if math.isfinite(weather.visibility) and weather.visibility < 400:
        depth = np.minimum(fields.depth, 150)
        clear = cv2.exp(depth * np.float32(-3.9 * weather.thermal_share / weather.visibility))
        celsius -= climate.air
        celsius *= np.asarray(clear).reshape(celsius.shape)
        celsius += climate.air
    if smoke is not None:
        heat = climate.air + stage.uniform(0, 6)
        celsius += smoke * np.float32(weather.thermal_share) * (np.float32(heat) - celsius)
    return floats(celsius)


def focus(celsius: Array, camera: ThermalCamera) -> Array:
    """Temperatures (H, W) as the camera's optics show them."""
    sigma = max(camera.blur * celsius.shape[0] / 480, SHARPEST)
    return floats(cv2.GaussianBlur(celsius, (0, 0), sigma))


def misalign(rng: np.random.Generator, celsius: Array, pixels: float) -> Array:
    """Shift, turn and scale the thermal field; no pixel moves by more than `pixels`."""
    height, width = celsius.shape
    radius = math.hypot(height, width) / 2
    angle, reach = rng.uniform(0, 2 * math.pi), 0.6 * pixels * math.sqrt(rng.uniform(0, 1))
    turn = rng.uniform(-0.2, 0.2) * pixels / radius
    scale = 1 + rng.uniform(-0.2, 0.2) * pixels / radius
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), math.degrees(turn), scale)
    matrix[:, 2] += np.array((reach * math.cos(angle), reach * math.sin(angle)))
    moved = cv2.warpAffine(
        celsius, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(moved, np.float32)


SHADING = 1.0
"""Kelvin by which `add_thermal_noise` raises the whole picture, as it did when data were drawn."""


def add_thermal_noise(rng: np.random.Generator, celsius: Array, camera: ThermalCamera) -> Array:
    """Temporal noise, column noise and the slow shading of an uncooled sensor: `SHADING` higher."""
    height, width = celsius.shape
    grain = noise_tiles()[0]
    offsets = [int(value) for value in rng.integers(0, TILE, 6)]
    noisy = celsius + crop(grain, height, width, offsets[0], offsets[1]) * np.float32(camera.noise)
    columns = crop(grain, 1, width, offsets[2], offsets[3])
    rows = crop(grain, height, 1, offsets[4], offsets[5])
    noisy += columns * np.float32(camera.pattern)
    noisy += rows * np.float32(0.3 * camera.pattern)
    noisy += _vignette(height, width, float(rng.uniform(-0.5, 0.5)))
    return np.asarray(noisy, np.float32)


def show_thermal(climate: Climate, celsius: Array, camera: ThermalCamera) -> Bytes:
    """Celsius (H, W) to the camera's 8-bit display."""
    sample = np.ascontiguousarray(celsius[::4, ::4])
    if camera.display == "linear":
        low, high = climate.air - camera.low, climate.air + camera.high
    else:
        low, high = (float(v) for v in np.percentile(sample, (camera.low, camera.high)))
        high = max(high, low + 5.0)
    scaled = np.clip((celsius - np.float32(low)) * np.float32(1 / (high - low)), 0, 1)
    if camera.display == "equalised":
        equal = cv2.equalizeHist((scaled * 255).astype(np.uint8))
        return np.asarray(cv2.addWeighted((scaled * 255).astype(np.uint8), 0.5, equal, 0.5, 0))
    if camera.display in ("dark", "percentile"):
        usual = float(np.clip(np.median((sample - low) / (high - low)), 0.02, 0.95))
        gamma = float(np.clip(math.log(camera.middle) / math.log(usual), 0.5, 4.5))
        scaled = np.asarray(cv2.pow(scaled, gamma)).reshape(celsius.shape)
    if camera.detail:
        sigma = max(0.5, 4 * celsius.shape[0] / 480)
        small = cv2.resize(scaled, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        soft = cv2.resize(cv2.GaussianBlur(small, (0, 0), sigma / 2), scaled.shape[::-1])
        scaled = scaled + np.float32(camera.detail) * (scaled - soft)
    return np.asarray(cv2.convertScaleAbs(np.clip(scaled, 0, 1), alpha=255))
