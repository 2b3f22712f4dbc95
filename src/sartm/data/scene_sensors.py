"""From a drawn canvas to images: light, weather, RGB camera, thermal camera and its display.

Light is linear until the RGB camera's tone curve (a square root, near the sRGB gamma). Slow steps
run at a quarter of the resolution. Noise comes from fixed periodic tiles at random offsets.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from sartm.data.scene_canvas import (
    COARSE,
    DEPTH,
    FINE,
    GLOW,
    MOTTLE,
    PAVING,
    RED,
    RISE,
    ROW,
    SLOPE,
    TEMPERATURE,
    TILE,
    Array,
    Climate,
    Colour,
    Stage,
    crop,
    noise_tiles,
    paving_tile,
)  # fmt: skip

Bytes = npt.NDArray[np.uint8]
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
    depth = np.take(table[:, DEPTH], parts)
    ground = depth == 0
    height, width = depth.shape
    tilt = abs(math.tan(camera.roll)) * width / 2
    first = int(np.clip(camera.horizon - tilt, 0, height - 1))
    across, away = camera.ground(first)
    below = ground[first:]
    np.copyto(depth[first:], away, where=below)
    depth[:first][ground[:first]] = 400.0
    offsets = rng.integers(0, TILE, 6)
    tiles = noise_tiles()
    grain = crop(tiles[0], height, width, int(offsets[0]), int(offsets[1]))
    grain *= 0.6
    grain += 0.7 * crop(tiles[2], height, width, int(offsets[4]), int(offsets[5]))
    clouds = crop(tiles[1], height, width, int(offsets[2]), int(offsets[3]))
    _texture_ground(tiles, across, away, below, grain[first:], clouds[first:])
    shade = np.take(table[:, FINE], parts)
    shade *= grain
    coarse = np.take(table[:, COARSE], parts)
    coarse *= clouds
    shade += coarse
    rows = np.arange(height, dtype=np.float32)[:, None]
    slope = rows - np.take(table[:, ROW], parts)
    slope *= np.take(table[:, SLOPE], parts)
    shade += slope
    if (table[:, PAVING] > 0).any():
        shade[first:] += _paving(np.take(table[:, PAVING], parts[first:]), across, away)
    lit = _ground_light(stage, ground, clouds)
    shade += 1.0
    shade *= lit
    np.clip(shade, 0.04, 2.5, out=shade)
    return Fields(parts, table, depth, ground, grain, clouds, shade, lit)


def _texture_ground(
    tiles: tuple[Array, Array, Array],
    across: Array,
    away: Array,
    below: npt.NDArray[np.bool_],
    grain: Array,
    clouds: Array,
) -> None:
    """Replace grain and clouds on the ground by textures that shrink with distance."""
    for tile, scale, fade, target in (
        (tiles[2], 110.0, 14.0, grain), (tiles[1], 26.0, 90.0, clouds),
    ):  # fmt: skip
        flat = cv2.remap(
            tile, (across * scale) % TILE, (away * (0.5 * scale)) % TILE, cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_WRAP,
        )  # fmt: skip
        flat *= fade / (fade + away)
        np.copyto(target, flat, where=below)


def _paving(amplitude: Array, across: Array, away: Array) -> Array:
    laid = cv2.remap(
        paving_tile(), (across * 150) % TILE, (away * 150) % TILE, cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_WRAP,
    )  # fmt: skip
    laid *= 12 / (12 + away)
    return np.asarray(laid * amplitude, np.float32)


def _ground_light(stage: Stage, ground: npt.NDArray[np.bool_], clouds: Array) -> Array:
    height, width = ground.shape
    sigma = max(0.6, height / 260)
    soft = cv2.GaussianBlur(stage.canvas.shadow, (0, 0), sigma)
    light = cv2.resize(soft, (width, height), interpolation=cv2.INTER_LINEAR) * np.float32(1 / 255)
    sun = stage.climate.sun
    if sun > 0.3 and stage.chance(0.5):
        # Light that falls through leaves: bright and dark spots on the ground.
        level = stage.uniform(-0.8, 0.6)
        light *= 1 - (0.6 * sun) * np.clip((clouds - level) * 4, 0, 1)
    return np.where(ground, light, np.float32(1)).astype(np.float32)


def light_scene(stage: Stage, fields: Fields, lights: Lights, weather: Weather) -> Array:
    """Linear light (H, W, 3) that reaches the RGB camera, not yet exposed."""
    table, parts = fields.table, fields.parts
    scene = np.take(np.ascontiguousarray(table[:, RED : RED + 3]), parts, axis=0)
    light = _light_map(stage, fields, lights)
    light *= fields.shade[..., None]
    scene *= light
    if table[:, GLOW : GLOW + 3].any():
        glow = np.take(np.ascontiguousarray(table[:, GLOW : GLOW + 3]), parts, axis=0)
        glow *= np.clip(1 + 0.3 * fields.clouds, 0.2, 2)[..., None]
        scene += glow
    if math.isfinite(weather.visibility):
        scene = _add_fog(stage, fields, lights, weather, scene)
    return scene


def _light_map(stage: Stage, fields: Fields, lights: Lights) -> Array:
    height, width = fields.depth.shape
    ambient = np.array(lights.ambient, np.float32)
    if not lights.lamps and not lights.headlights:
        return np.broadcast_to(ambient, (height, width, 3)).copy()
    camera = stage.camera
    depth = fields.depth[::4, ::4]
    columns = (np.arange(depth.shape[1], dtype=np.float32)[None] * 4 - width / 2) / camera.focal
    rows = (
        np.arange(depth.shape[0], dtype=np.float32)[:, None] * 4 - camera.horizon
    ) / camera.focal
    x, y = columns * depth, camera.above - rows * depth
    small = np.empty((*depth.shape, 3), np.float32)
    small[:] = ambient
    for lamp_x, lamp_y, lamp_z in lights.lamps:
        distance = (x - lamp_x) ** 2 + (depth - lamp_z) ** 2 + (y - lamp_y) ** 2
        reach = 1 / (1 + distance / LAMP_RANGE**2) ** 2
        # Lamp heads are screened towards the sky.
        reach *= np.where(y > lamp_y + 0.5, 0.3, 1.0)
        small += (0.25 * reach)[..., None] * np.array((1.0, 0.93, 0.8), np.float32)
    if lights.headlights:
        beam = np.exp(-((columns / 0.38) ** 2)) * np.exp(-np.clip(-rows - 0.01, 0, 1) / 0.05)
        beam *= lights.headlights / (1 + (depth / 12) ** 2)
        small += beam[..., None] * np.array((1.0, 0.96, 0.86), np.float32)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR))


def _add_fog(stage: Stage, fields: Fields, lights: Lights, weather: Weather, scene: Array) -> Array:
    clear = cv2.exp(fields.depth * np.float32(-3.9 / weather.visibility))
    clear = np.asarray(clear).reshape(fields.depth.shape)
    ambient = np.array(lights.ambient, np.float32)
    veil = ambient * stage.uniform(0.3, 0.6)
    if lights.lamps or lights.headlights:
        veil = veil + 0.25 * scene[::8, ::8].mean(axis=(0, 1))
    scene *= clear[..., None]
    scene += (1 - clear)[..., None] * veil
    return scene


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
    return np.asarray(cv2.resize(opacity, (width, height), interpolation=cv2.INTER_LINEAR))


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
    sample = scene[::6, ::6].mean(axis=2)
    # Lamps must not darken the rest of the picture: leave out the brightest 2 %.
    usual = np.minimum(sample, np.percentile(sample, 98))
    mean = float(np.sqrt(usual).mean()) + 1e-5
    scene *= np.float32((camera.brightness / mean) ** 2)
    return scene


def take_rgb(rng: np.random.Generator, camera: RgbCamera, exposed: Array) -> Bytes:
    """Exposed linear light (H, W, 3) to an 8-bit picture."""
    height, width = exposed.shape[:2]
    scale = height / 480
    exposed *= np.array(camera.balance, np.float32)
    if camera.bloom:
        exposed += _bloom(exposed, camera.bloom)
    if camera.vignette:
        exposed *= _vignette(height, width, camera.vignette)[..., None]
    np.clip(exposed, 0, 1, out=exposed)
    picture = np.asarray(cv2.sqrt(exposed)).reshape(height, width, 3)
    if camera.blur * scale > 0.2:
        picture = cv2.GaussianBlur(picture, (0, 0), camera.blur * scale)
    elif camera.blur < 0:
        soft = cv2.GaussianBlur(picture, (0, 0), max(1.0 * scale, 0.4))
        picture = cv2.addWeighted(picture, 1 - camera.blur, soft, camera.blur, 0)
    if camera.saturation != 1:
        grey = picture.mean(axis=2, keepdims=True)
        picture = grey + (picture - grey) * np.float32(camera.saturation)
    picture = picture * 255
    if camera.noise:
        picture += _rgb_noise(rng, height, width, camera.noise)
    levels = np.asarray(cv2.convertScaleAbs(np.clip(picture, 0, 255)))
    levels = np.asarray(cv2.LUT(levels, _contrast_curve(camera.contrast)))
    if camera.quality:
        flags = [cv2.IMWRITE_JPEG_QUALITY, camera.quality]
        packed = cv2.imencode(".jpg", levels, flags)[1]
        levels = np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR))
    return np.ascontiguousarray(levels, np.uint8)


def _contrast_curve(contrast: float) -> Bytes:
    """An S-curve that keeps black and white; contrast 0 is a straight line."""
    tone = np.arange(256, dtype=np.float32) / 255
    smooth = tone * tone * (3 - 2 * tone)
    return np.rint(255 * (tone + contrast * (smooth - tone))).clip(0, 255).astype(np.uint8)


def _bloom(exposed: Array, strength: float) -> Array:
    """Light scattered in the lens around what is brighter than white."""
    height, width = exposed.shape[:2]
    small = cv2.resize(exposed, ((width + 3) // 4, (height + 3) // 4), interpolation=cv2.INTER_AREA)
    over = np.minimum(np.maximum(small - 0.9, 0), 30)
    if not over.any():
        return np.zeros((1, 1, 3), np.float32)
    scale = height / 480
    total = cv2.GaussianBlur(over, (0, 0), max(1.2 * scale, 0.3)) * 0.5
    total += cv2.GaussianBlur(over, (0, 0), max(4.5 * scale, 0.5)) * 0.35
    tiny = cv2.resize(over, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    wide = cv2.GaussianBlur(tiny, (0, 0), max(5 * scale, 0.5))
    total += 0.5 * np.asarray(cv2.resize(wide, (over.shape[1], over.shape[0])))
    return np.asarray(cv2.resize(total * np.float32(strength), (width, height)))


def _vignette(height: int, width: int, strength: float) -> Array:
    columns = np.linspace(-1, 1, width, dtype=np.float32)[None]
    rows = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    return np.asarray(1 - strength * 0.5 * (columns**2 + rows**2), np.float32)


def _rgb_noise(rng: np.random.Generator, height: int, width: int, deviation: float) -> Array:
    grain = noise_tiles()[0]
    offsets = [int(value) for value in rng.integers(0, TILE, 8)]
    bright = crop(grain, height, width, offsets[0], offsets[1]) * np.float32(deviation)
    if deviation < 2:
        return np.asarray(bright[..., None], np.float32)
    colour = [
        crop(grain, height, width, offsets[2 + 2 * index], offsets[3 + 2 * index])
        * np.float32(deviation * 0.5)
        for index in range(3)
    ]
    noise = cv2.merge(colour)
    noise += bright[..., None]
    return np.asarray(noise, np.float32)


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
    celsius = np.take(table[:, TEMPERATURE], parts)
    texture = 0.5 * fields.grain
    texture += 0.7 * fields.clouds
    texture *= np.take(table[:, MOTTLE], parts)
    celsius += texture
    rows = np.arange(height, dtype=np.float32)[:, None]
    rise = rows - np.take(table[:, ROW], parts)
    rise *= np.take(table[:, RISE], parts)
    celsius += np.clip(rise, -6, 6)
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
    sigma = camera.blur * height / 480
    return np.asarray(cv2.GaussianBlur(celsius, (0, 0), sigma) if sigma > 0.2 else celsius)


def misalign(rng: np.random.Generator, celsius: Array, pixels: float) -> Array:
    """Shift, turn and scale the thermal field; no pixel moves by more than `pixels`."""
    height, width = celsius.shape
    radius = math.hypot(height, width) / 2
    angle, reach = rng.uniform(0, 2 * math.pi), 0.6 * pixels * math.sqrt(rng.uniform(0, 1))
    turn = rng.uniform(-0.2, 0.2) * pixels / radius
    scale = 1 + rng.uniform(-0.2, 0.2) * pixels / radius
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), math.degrees(turn), scale)
    matrix[:, 2] += (reach * math.cos(angle), reach * math.sin(angle))
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
    sample = celsius[::3, ::3]
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
