"""Light on a drawn scene: sun, sky, lamps, fog, smoke and glare."""

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
    PAVING,
    RED,
    TILE,
    Array,
    Colour,
    Stage,
    crop,
    floats,
    noise_tiles,
    paving_tile,
)

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
