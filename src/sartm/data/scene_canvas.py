"""The drawing board of synthetic scenes: a camera, a map of parts, and what each part is made of.

Every pixel of a scene belongs to exactly one flat part (a face of a car, a sleeve, a lane marking).
Parts are filled far to near into one integer map, so that RGB, temperature, depth and label come
from the same drawing and labels are exact: nothing is blended.

Lengths are metres (x right, y up, z forward; the ground is y = 0), angles radians, temperatures
degrees Celsius. Colours are given as sRGB 0-255 and kept as linear reflectance.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
Colour = tuple[float, float, float]

NEAR = 0.6
"""Points closer than this many metres are drawn at this distance."""
TILE = 512
"""Side of the periodic noise tiles in pixels."""
SUBPIXEL_BITS = 4

# Columns of the part table.
RED, TEMPERATURE, DEPTH, GLOW, FINE, COARSE, PAVING, MOTTLE, SLOPE, ROW, RISE = (
    0, 3, 4, 5, 8, 9, 10, 11, 12, 13, 14,
)  # fmt: skip
COLUMNS = 15


class Shape(NamedTuple):
    """A filled outline in an object's own coordinates."""

    outline: Array
    """(N, 2): along, up; or (N, 3): along, up, across. Metres from the object's foot."""
    part: int | None
    """The part to fill; None leaves the picture and only sets the label."""
    label: int
    """Class id."""


@dataclass(frozen=True)
class Camera:
    """A pinhole camera above the ground; pitch is expressed by where the horizon lies."""

    width: int
    height: int
    focal: float
    """Pixels."""
    horizon: float
    """Row of the horizon in the image's middle column, pixels."""
    roll: float
    above: float
    """Metres above the ground."""

    def project(self, points: Array) -> Array:
        """World points (N, 3) to pixels (N, 2): column, row."""
        depth = np.maximum(points[:, 2], NEAR)
        across = self.focal * points[:, 0] / depth
        down = self.focal * (self.above - points[:, 1]) / depth
        cosine, sine = math.cos(self.roll), math.sin(self.roll)
        columns = self.width / 2 + across * cosine - down * sine
        rows = self.horizon + across * sine + down * cosine
        return np.stack([columns, rows], axis=1).astype(np.float32)

    def ground(self, first_row: int) -> tuple[Array, Array]:
        """World x and z (rows, width) where the rays below `first_row` meet the ground.

        Rays at or above the horizon get z = 400 m.
        """
        columns = np.arange(self.width, dtype=np.float32)[None] - self.width / 2
        rows = np.arange(first_row, self.height, dtype=np.float32)[:, None] - self.horizon
        cosine, sine = math.cos(self.roll), math.sin(self.roll)
        down = np.maximum(rows * cosine - columns * sine, self.focal * self.above / 400)
        depth = (self.focal * self.above) / down
        across = (columns * cosine + rows * sine) * depth / self.focal
        return across.astype(np.float32), depth.astype(np.float32)


@dataclass
class Canvas:
    """The map of parts, the label map and the part table while a scene is being drawn."""

    height: int
    width: int
    parts: npt.NDArray[np.uint16] = field(init=False)
    label: npt.NDArray[np.uint8] = field(init=False)
    shadow: npt.NDArray[np.uint8] = field(init=False)
    """Light that reaches the ground, 255 all of it; at half the resolution."""
    rows: list[tuple[float, ...]] = field(init=False)

    def __post_init__(self) -> None:
        self.parts = np.zeros((self.height, self.width), np.uint16)
        self.label = np.zeros((self.height, self.width), np.uint8)
        self.shadow = np.full(((self.height + 1) // 2, (self.width + 1) // 2), 255, np.uint8)
        self.rows = []

    def part(
        self,
        colour: Colour,
        celsius: float,
        depth: float,
        *,
        glow: Colour = (0.0, 0.0, 0.0),
        fine: float = 0.06,
        coarse: float = 0.06,
        paving: float = 0.0,
        mottle: float = 0.25,
        slope: float = 0.0,
        row: float = 0.0,
        rise: float = 0.0,
    ) -> int:
        """Register a surface and return its id.

        `glow` is emitted linear light (1 saturates at the exposure of a sunny day). `fine`,
        `coarse` and `paving` are relative amplitudes of three textures, `mottle` the thermal
        texture in Kelvin. Brightness and temperature change by `slope` (relative) and `rise`
        (Kelvin) per pixel below `row`. `depth` 0 marks the ground, whose depth is known per pixel.
        """
        red, green, blue = ((max(value, 0.0) / 255) ** 2 for value in colour)
        self.rows.append(
            (red, green, blue, celsius, depth, *glow, fine, coarse, paving, mottle,
             slope, row, rise)
        )  # fmt: skip
        return len(self.rows) - 1

    def fill(self, outline: Array, part: int | None, label: int) -> None:
        """Fill a polygon (N, 2) of pixel coordinates."""
        limit = 8 * max(self.height, self.width)
        scaled = np.clip(outline, -limit, limit) * (1 << SUBPIXEL_BITS)
        contour = [np.rint(scaled).astype(np.int32)]
        if part is not None:
            cv2.fillPoly(self.parts, contour, (part,), shift=SUBPIXEL_BITS)
        cv2.fillPoly(self.label, contour, (label,), shift=SUBPIXEL_BITS)

    def darken(self, outline: Array, left: float) -> None:
        """Let only the share `left` (0-1) of the light reach the ground within a polygon."""
        limit = 8 * max(self.height, self.width)
        contour = [np.rint(np.clip(outline, -limit, limit) * (1 << SUBPIXEL_BITS) / 2)]
        level = round(255 * left)
        cv2.fillPoly(self.shadow, [contour[0].astype(np.int32)], (level,), shift=SUBPIXEL_BITS)

    def stamp(
        self, box: tuple[float, float, float, float], sprite: npt.NDArray[np.uint8], first: int
    ) -> None:
        """Paint a sprite's levels 1, 2, ... as parts `first`, `first` + 1, ... into a pixel box.

        `box` is left, top, right, bottom; level 0 is transparent. What is painted is unlabelled.
        """
        left, top, right, bottom = box
        columns = np.arange(max(0, round(left)), min(self.width, round(right)))
        rows = np.arange(max(0, round(top)), min(self.height, round(bottom)))
        if not columns.size or not rows.size:
            return
        height, width = sprite.shape
        pick_rows = ((rows - top) * height / (bottom - top)).astype(np.intp)
        pick_columns = ((columns - left) * width / (right - left)).astype(np.intp)
        levels = sprite[np.ix_(pick_rows.clip(0, height - 1), pick_columns.clip(0, width - 1))]
        window = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        painted = levels > 0
        self.parts[window][painted] = (levels[painted].astype(np.int64) + (first - 1)).astype(
            np.uint16
        )
        self.label[window][painted] = 0

    def table(self) -> Array:
        """All parts, (parts, COLUMNS) float32."""
        return np.array(self.rows, np.float32)


@dataclass(frozen=True)
class Climate:
    """Light and temperatures of a scene; temperatures are what the thermal camera would read."""

    light: str
    """day, dusk or night."""
    air: float
    sun: float
    """0 (overcast, night) to 1 (direct sun): how much sunlit surfaces heat up and cast shadows."""
    sun_side: float
    """-1 (sun at the left) to 1 (right)."""
    sky: float
    road: float
    verge: float
    wall: float
    leaves: float


@dataclass(frozen=True)
class Stage:
    """What every drawing function needs: where to draw, through which camera, in which weather."""

    canvas: Canvas
    camera: Camera
    climate: Climate
    rng: np.random.Generator
    ego: float
    """Lateral position of the camera on the road, metres right of its middle."""
    heading: float
    """Sideways drift of the road per metre of depth."""
    bend: float
    """Sideways drift per square metre of depth."""
    half_road: float
    sidewalk: float
    """Width of the strip between road and verge, metres."""

    def lateral(self, offset: float, depth: float) -> float:
        """World x of a place `offset` metres right of the road's middle at `depth`."""
        return offset - self.ego + self.heading * depth + self.bend * depth * depth

    def along(self, depth: float) -> float:
        """Angle of the road's direction at `depth`, measured from the camera's x axis."""
        return math.pi / 2 - math.atan(self.heading + 2 * self.bend * depth)

    def draw(self, shapes: Sequence[Shape], x: float, z: float, yaw: float = 0.0) -> None:
        """Fill shapes of an object that stands at (x, 0, z), turned by `yaw` about the vertical."""
        if not shapes:
            return
        counts = [len(shape.outline) for shape in shapes]
        local = np.zeros((sum(counts), 3), np.float32)
        start = 0
        for shape, count in zip(shapes, counts, strict=True):
            local[start : start + count, : shape.outline.shape[1]] = shape.outline
            start += count
        pixels = self.camera.project(place(local, x, z, yaw))
        start = 0
        for shape, count in zip(shapes, counts, strict=True):
            self.canvas.fill(pixels[start : start + count], shape.part, shape.label)
            start += count

    def cast(self, x: float, z: float, half: float, height: float) -> None:
        """The shadow of something about 2 `half` wide and `height` high that stands at (x, z)."""
        climate = self.climate
        if climate.sun > 0.3:
            reach = min(height * 1.4, 6.0)
            tip, far = x - climate.sun_side * reach, z - 0.35 * reach
            corners = [(x - half, z), (x + half, z + 0.1), (tip + half, far), (tip - half, far)]
            self._darken_ground(np.array(corners, np.float32), 1 - 0.65 * climate.sun)
        contact = ellipse(x, z, half * 1.2, half * 0.7, 12)
        self._darken_ground(contact, 0.35 if climate.sun > 0.3 else 0.55)

    def _darken_ground(self, plan: Array, left: float) -> None:
        """`plan` (N, 2): x and z on the ground."""
        world = np.stack([plan[:, 0], np.zeros(len(plan), np.float32), plan[:, 1]], axis=1)
        self.canvas.darken(self.camera.project(world.astype(np.float32)), left)

    def pixels(self, metres: float, depth: float) -> float:
        """Size in pixels of `metres` seen at `depth`."""
        return self.camera.focal * metres / max(depth, NEAR)

    def near_ambient(self, heat: float = 0.0, spread: float = 0.6) -> float:
        """A temperature around the air's, `heat` Kelvin more in full sun."""
        gain = heat * self.climate.sun * self.rng.uniform(0.5, 1.0)
        return float(self.climate.air + self.rng.normal(0, spread) + gain)

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return bool(self.rng.random() < probability)

    def uniform(self, low: float, high: float) -> float:
        """One draw between two numbers."""
        return float(self.rng.uniform(low, high))


def place(local: Array, x: float, z: float, yaw: float) -> Array:
    """Object coordinates (N, 3: along, up, across) to the world (N, 3)."""
    cosine, sine = math.cos(yaw), math.sin(yaw)
    world = np.empty_like(local)
    world[:, 0] = x + local[:, 0] * cosine - local[:, 2] * sine
    world[:, 1] = local[:, 1]
    world[:, 2] = z + local[:, 0] * sine + local[:, 2] * cosine
    return world


def points(*pairs: tuple[float, float]) -> Array:
    """An outline (N, 2) from its corners."""
    return np.array(pairs, np.float32)


def box(left: float, bottom: float, right: float, top: float) -> Array:
    """An upright rectangle (4, 2)."""
    return points((left, bottom), (right, bottom), (right, top), (left, top))


def ellipse(x: float, y: float, half_width: float, half_height: float, count: int = 14) -> Array:
    """An ellipse (count, 2)."""
    circle = _circle(count)
    return np.array((x, y), np.float32) + circle * np.array((half_width, half_height), np.float32)


def ring(x: float, y: float, outer: float, inner: float, count: int = 20) -> Array:
    """A ring as one outline (2 count + 2, 2): around outside, a step inwards, and back."""
    circle = np.concatenate([_circle(count), _circle(count)[:1]])
    centre = np.array((x, y), np.float32)
    return np.concatenate([centre + circle * outer, centre + circle[::-1] * inner])


def limb(start: tuple[float, float], end: tuple[float, float], first: float, last: float) -> Array:
    """A tapered bar with blunt ends (8, 2) from `start` to `end`, half as wide as given."""
    along_x, along_y = end[0] - start[0], end[1] - start[1]
    length = math.hypot(along_x, along_y) or 1e-6
    ux, uy = along_x / length, along_y / length
    outline = []
    for (x, y), half, sign in ((start, first, -1.0), (end, last, 1.0)):
        for side, reach in ((-1.0, 0.2), (-0.5, 0.9), (0.5, 0.9), (1.0, 0.2)):
            across = side * half * -sign
            ahead = reach * half * sign
            outline.append((x + ux * ahead - uy * across, y + uy * ahead + ux * across))
    return np.array(outline, np.float32)


@lru_cache(maxsize=8)
def _circle(count: int) -> Array:
    angles = np.arange(count) * (2 * math.pi / count)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


@lru_cache(maxsize=1)
def noise_tiles() -> tuple[Array, Array, Array]:
    """Periodic (TILE, TILE) textures of zero mean and unit deviation: grain, clouds, leaves."""
    rng = np.random.default_rng(20170924)
    white = rng.standard_normal((3, TILE, TILE)).astype(np.float32)
    grain = _unit(_wrapped_blur(white[0], 0.7))
    clouds = _unit(sum_octaves(white[1], (3.0, 9.0, 27.0, 60.0), (0.5, 1.0, 1.4, 1.4)))
    leaves = _unit(sum_octaves(white[2], (1.2, 3.0, 7.0), (1.0, 1.2, 0.8)))
    return grain, clouds, leaves


def sum_octaves(white: Array, sigmas: Sequence[float], weights: Sequence[float]) -> Array:
    """White noise (TILE, TILE) blurred at several scales, each of unit deviation, and added."""
    total = np.zeros_like(white)
    for sigma, weight in zip(sigmas, weights, strict=True):
        total += weight * _unit(_wrapped_blur(white, sigma))
    return total


@lru_cache(maxsize=1)
def paving_tile() -> Array:
    """A periodic (TILE, TILE) bond of 16 x 16 stones with dark joints, about -1 to 1."""
    rng = np.random.default_rng(480640)
    stones, side = 16, TILE // 16
    tones = rng.normal(0, 0.35, (stones, stones)).astype(np.float32)
    tile = np.repeat(np.repeat(tones, side, 0), side, 1)
    tile[::side, :] = tile[1::side, :] = -1.6
    for course in range(stones):
        rows = np.s_[course * side : (course + 1) * side]
        tile[rows, ::side] = tile[rows, 1::side] = -1.6
        tile[rows] = np.roll(tile[rows], (course % 2) * side // 2, axis=1)
    return _wrapped_blur(tile.astype(np.float32), 0.8)


@lru_cache(maxsize=1)
def foliage() -> tuple[npt.NDArray[np.uint8], ...]:
    """Tree crowns (256, 256): 0 see-through, 1 dark, 2 middle, 3 bright leaves."""
    rng = np.random.default_rng(9)
    crowns = []
    for index in range(10):
        solid = np.full((256, 256), -1.6, np.float32)
        for _ in range(14):
            radius = rng.uniform(30, 66)
            angle, reach = rng.uniform(0, 2 * math.pi), rng.uniform(0, 1) ** 0.5 * (124 - radius)
            centre = (128 + reach * math.cos(angle), 128 + reach * math.sin(angle))
            cv2.circle(solid, (round(centre[0]), round(centre[1])), round(radius), (1.0,), -1)
        solid = cv2.GaussianBlur(solid, (0, 0), 7)
        white = rng.standard_normal((2, TILE, TILE)).astype(np.float32)
        edge = _unit(sum_octaves(white[0], (2.0, 6.0), (1.0, 1.0)))[:256, :256]
        tone = _unit(sum_octaves(white[1], (2.0, 5.0, 14.0), (0.8, 1.0, 1.0)))[:256, :256]
        density = 0.45 if index % 3 else 0.75
        present = solid + density * edge > 0
        lit = tone + (128 - np.arange(256, dtype=np.float32)[:, None]) / 150
        levels = 1 + (lit > -0.4).astype(np.uint8) + (lit > 0.7).astype(np.uint8)
        crowns.append(np.where(present, levels, 0).astype(np.uint8))
    return tuple(crowns)


def crop(tile: Array, height: int, width: int, row: int, column: int) -> Array:
    """A (height, width) window of a periodic tile."""
    rows = (np.arange(height) + row) % tile.shape[0]
    columns = (np.arange(width) + column) % tile.shape[1]
    return np.take(np.take(tile, rows, axis=0), columns, axis=1)


def _wrapped_blur(image: Array, sigma: float) -> Array:
    border = min(TILE, int(4 * sigma) + 2)
    padded = cv2.copyMakeBorder(image, border, border, border, border, cv2.BORDER_WRAP)
    blurred = cv2.GaussianBlur(padded, (0, 0), sigma)
    return np.ascontiguousarray(blurred[border:-border, border:-border])


def _unit(image: Array) -> Array:
    return ((image - image.mean()) / (image.std() + 1e-6)).astype(np.float32)
