"""From a drawn canvas to images: light, weather, RGB camera, thermal camera and its display.

Light is linear until the RGB camera's tone curve (a square root, near the sRGB gamma). Slow steps
run at a quarter of the resolution. Noise comes from fixed periodic tiles at random offsets.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from sartm.scenes.canvas import (
    COARSE,
    DEPTH,
    FINE,
    GLOW,
    MOTTLE,
    PAVING,
    RED,
    TEMPERATURE,
    TILE,
    Array,
    Climate,
    Colour,
    Stage,
    crop,
    floats,
    noise_tiles,
    paving_tile,
)  # fmt: skip

Bytes = npt.NDArray[np.uint8]
SHARPEST = 0.42
"""Least blur in pixels: parts have hard edges, which no optics shows."""
LAMP_RANGE = 9.0
"""Metres at which a street lamp's light has fallen to about a half."""


@dataclass(frozen=True)
class Lights:
    """Where light comes from at dusk and night, and what dazzles the camera."""

    lamps: tuple[tuple[float, float, float], ...]
    """World positions of street lamps that are on."""
    ambient: Colour
    """Light that is everywhere, 1 on a sunny day."""
    headlights: float
    """Strength of the own car's headlights; 0 is off."""
    dazzle: tuple[tuple[float, float, float, float], ...] = ()
    """Blinding sources: column, row, size (pixels), strength."""


@dataclass(frozen=True)
class Weather:
    """What lies between the cameras and the scene."""

    visibility: float = math.inf
    """Distance in metres at which contrast has fallen to 2 %."""
    plumes: int = 0
    """Clouds of smoke."""
    thermal_share: float = 0.1
    """Part of the optical depth that thermal radiation sees."""


@dataclass(frozen=True)
class Fields:
    """What each pixel is made of: (H, W) float32 unless said otherwise."""

    parts: npt.NDArray[np.intp]
    table: Array
    depth: Array
    ground: npt.NDArray[np.bool_]
    grain: Array
    clouds: Array
    shade: Array
    """Brightness relative to the part's colour, textures and shadows included."""
    lit: Array
    """Share of the light that reaches the ground; 1 elsewhere."""


def gather_fields(stage: Stage) -> Fields:
    """Look up every pixel's part; textures follow the perspective of the ground."""
    canvas, camera, rng = stage.canvas, stage.camera, stage.rng
    table = canvas.table()
    parts = canvas.parts.astype(np.intp)
    depth = _look_up(table, DEPTH, parts)
    ground = depth == 0
    height, width = depth.shape
    tilt = abs(math.tan(camera.roll)) * width / 2
    first = int(np.clip(camera.horizon - tilt, 0, height - 1))
    across, away = camera.ground(first)
    np.copyto(depth[first:], away, where=ground[first:])
    np.copyto(depth[:first], np.float32(400), where=ground[:first])
    offsets = [int(value) for value in rng.integers(0, TILE, 6)]
    tiles = noise_tiles()
    grain = floats(
        cv2.addWeighted(
            crop(tiles[0], height, width, offsets[0], offsets[1]), 0.6,
            crop(tiles[2], height, width, offsets[4], offsets[5]), 0.7, 0,
        )
    )  # fmt: skip
    clouds = floats(crop(tiles[1], height, width, offsets[2], offsets[3]).copy())
    rough = _lay(tiles[0], across, away, 60, 30, 10)
    np.copyto(grain[first:], rough, where=ground[first:])
    smooth = _lay(tiles[1], across[::2, ::2], away[::2, ::2], 26, 13, 90)
    smooth = floats(cv2.resize(smooth, (width, height - first)))
    np.copyto(clouds[first:], smooth, where=ground[first:])
    shade: Array = _look_up(table, FINE, parts)
    shade *= grain
    coarse = _look_up(table, COARSE, parts)
    coarse *= clouds
    shade += coarse
    if table[:, PAVING].any():
        stones = _lay(paving_tile(), across, away, 150, 150, 12)
        stones *= _look_up(table, PAVING, parts[first:])
        shade[first:] += stones
    lit = _ground_light(stage, ground, clouds)
    shade += np.float32(1)
    shade *= lit
    np.maximum(shade, np.float32(0.04), out=shade)
    return Fields(parts, table, depth, ground, grain, clouds, shade, lit)


def _look_up(table: Array, column: int, parts: npt.NDArray[np.intp]) -> Array:
    return np.ascontiguousarray(table[:, column]).take(parts)


def _lay(
    tile: Array, across: Array, away: Array, scale_x: float, scale_z: float, fade: float
) -> Array:
    """A texture on the ground: `scale` pixels per metre, weaker beyond `fade` metres."""
    laid = floats(cv2.remap(tile, _wrap(across, scale_x), _wrap(away, scale_z), cv2.INTER_LINEAR))
    laid *= np.float32(fade) / (np.float32(fade) + away)
    return laid


def _wrap(metres: Array, scale: float) -> Array:
    """Texture coordinates in 0-TILE; much faster than the modulo operator."""
    turns = metres * np.float32(scale / TILE)
    turns -= np.floor(turns)
    turns *= np.float32(TILE)
    return turns


def _ground_light(stage: Stage, ground: npt.NDArray[np.bool_], clouds: Array) -> Array:
    height, width = ground.shape
    soft = cv2.GaussianBlur(stage.canvas.shadow, (0, 0), max(0.6, height / 260))
    light = floats(cv2.resize(soft, (width, height))) * np.float32(1 / 255)
    sun = stage.climate.sun
    if sun > 0.3 and stage.chance(0.5):
        # Light that falls through leaves: bright and dark spots on the ground.
        spots = clouds - np.float32(stage.uniform(-0.8, 0.6))
        spots *= np.float32(4)
        light *= 1 - np.float32(0.6 * sun) * spots.clip(0, 1)
    np.copyto(light, np.float32(1), where=~ground)
    return light


def light_scene(stage: Stage, fields: Fields, lights: Lights, weather: Weather) -> Array:
    """Linear light (H, W, 3) that reaches the RGB camera, not yet exposed."""
    table, parts = fields.table, fields.parts
    planes = _light_map(stage, fields, lights)
    shining = table[:, GLOW : GLOW + 3].any(axis=1)
    lit = np.flatnonzero(shining.take(parts)) if shining.any() else np.empty(0, np.intp)
    flicker = (1 + 0.3 * fields.clouds.take(lit)).clip(0.2, 2)
    for channel, plane in enumerate(planes):
        plane *= fields.shade
        plane *= _look_up(table, RED + channel, parts)
        plane.reshape(-1)[lit] += table[:, GLOW + channel].take(parts.take(lit)) * flicker
    if math.isfinite(weather.visibility):
        _add_fog(stage, fields, lights, weather, planes)
    return floats(cv2.merge(planes))


def _light_map(stage: Stage, fields: Fields, lights: Lights) -> list[Array]:
    """Light on each pixel as three planes (H, W), from a quarter of the resolution."""
    height, width = fields.depth.shape
    if not lights.lamps and not lights.headlights:
        return [np.full((height, width), ambient, np.float32) for ambient in lights.ambient]
    camera = stage.camera
    depth = fields.depth[::4, ::4]
    small_h, small_w = depth.shape
    columns = np.arange(small_w, dtype=np.float32)[None] * 4 - width / 2
    rows = np.arange(small_h, dtype=np.float32)[:, None] * 4 - camera.horizon
    columns, rows = columns / np.float32(camera.focal), rows / np.float32(camera.focal)
    x, y = columns * depth, camera.above - rows * depth
    lamp_light = np.zeros_like(depth)
    for lamp_x, lamp_y, lamp_z in lights.lamps:
        distance = (x - lamp_x) ** 2 + (depth - lamp_z) ** 2 + (y - lamp_y) ** 2
        # Lamp heads are screened towards the sky.
        lamp_light += (
            np.where(y > lamp_y + 0.5, np.float32(0.08), np.float32(0.25))
            / (1 + distance / LAMP_RANGE**2) ** 2
        )
    beam = np.exp(-((columns / 0.38) ** 2)) * np.exp(-np.clip(-rows - 0.01, 0, 1) / 0.05)
    beam = beam * lights.headlights / (1 + (depth / 12) ** 2)
    tints = zip(lights.ambient, (1.0, 0.93, 0.8), (1.0, 0.96, 0.86), strict=True)
    return [
        floats(cv2.resize(floats(lamp_light * lamp + beam * own + ambient), (width, height)))
        for ambient, lamp, own in tints
    ]


def _add_fog(
    stage: Stage, fields: Fields, lights: Lights, weather: Weather, planes: list[Array]
) -> None:
    """Mix the light with that of the fog, in place; Koschmieder's law."""
    clear = cv2.exp(fields.depth * np.float32(-3.9 / weather.visibility))
    share = stage.uniform(0.3, 0.6)
    for plane, ambient in zip(planes, lights.ambient, strict=True):
        veil = ambient * share
        if lights.lamps or lights.headlights:
            veil += 0.25 * float(plane[::8, ::8].mean())
        plane -= np.float32(veil)
        plane *= clear
        plane += np.float32(veil)


def smoke_opacity(stage: Stage, fields: Fields, weather: Weather) -> Array:
    """How much of the light from behind the smoke is lost, (H, W) in 0-0.97."""
    height, width = fields.depth.shape
    small_h, small_w = (height + 3) // 4, (width + 3) // 4
    rows = np.arange(small_h, dtype=np.float32)[:, None] / small_h
    columns = np.arange(small_w, dtype=np.float32)[None] / small_w
    clouds = noise_tiles()[1]
    total = np.zeros((small_h, small_w), np.float32)
    depth = fields.depth[::4, ::4]
    for _ in range(weather.plumes):
        middle, top = stage.uniform(0.05, 0.95), stage.uniform(-0.2, 0.35)
        wide, slant = stage.uniform(0.15, 0.5), stage.uniform(-0.5, 0.5)
        distance = (columns - middle - slant * (0.55 - rows)) / (wide * (0.5 + (1 - rows)))
        body = np.exp(-(distance**2)) * np.clip((rows - top) * 3, 0, 1)
        row, column = (int(value) for value in stage.rng.integers(0, TILE, 2))
        zoom = 480 / max(height, width)
        texture = cv2.resize(
            crop(clouds, max(2, round(small_h * zoom)), max(2, round(small_w * zoom)), row, column),
            (small_w, small_h), interpolation=cv2.INTER_LINEAR,
        )  # fmt: skip
        thick = body * np.clip(0.75 + 0.5 * texture, 0, 2) * stage.uniform(0.6, 1.6)
        start = float(np.exp(stage.uniform(math.log(3), math.log(18))))
        total += thick * np.clip((depth - start) / 2, 0, 1)
    opacity = np.minimum(1 - np.exp(-1.8 * total), 0.97).astype(np.float32)
    return floats(cv2.resize(opacity, (width, height), interpolation=cv2.INTER_LINEAR))


def add_dazzle(stage: Stage, lights: Lights, exposed: Array) -> None:
    """Add halo, streak and veil of blinding sources to exposed light (H, W, 3), in place."""
    if not lights.dazzle:
        return
    height, width = exposed.shape[:2]
    small = np.zeros(((height + 3) // 4, (width + 3) // 4), np.float32)
    columns = np.arange(small.shape[1], dtype=np.float32)[None] * 4
    rows = np.arange(small.shape[0], dtype=np.float32)[:, None] * 4
    for column, row, size, strength in lights.dazzle:
        square = (columns - column) ** 2 + (rows - row) ** 2
        small += strength / (1 + square / size**2) ** 1.5
        reach = size * 12
        streak = np.exp(-np.abs(rows - row) / (0.25 * size)) / (
            1 + np.abs(columns - column) / reach
        )
        small += 0.06 * strength * streak
        # One reflection inside the lens, on the other side of the middle.
        ghost_x, ghost_y = width - column, height - row
        ghost = (columns - ghost_x) ** 2 + (rows - ghost_y) ** 2 < (1.5 * size) ** 2
        small += 0.01 * strength * ghost
    tint = np.array((1.0, stage.uniform(0.85, 1.0), stage.uniform(0.6, 1.0)), np.float32)
    light = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    exposed += np.asarray(light)[..., None] * tint


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


def radiate(
    stage: Stage, fields: Fields, weather: Weather, smoke: Array | None, camera: ThermalCamera
) -> Array:
    """Apparent temperature (H, W) float32 in Celsius, through weather and optics, without noise."""
    table, parts, climate = fields.table, fields.parts, stage.climate
    height = fields.depth.shape[0]
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
    return floats(cv2.GaussianBlur(celsius, (0, 0), max(camera.blur * height / 480, SHARPEST)))


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


def add_thermal_noise(rng: np.random.Generator, celsius: Array, camera: ThermalCamera) -> Array:
    """Temporal noise, column noise and the slow shading of an uncooled sensor."""
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
