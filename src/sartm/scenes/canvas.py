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

from sartm.scenes.things import FULL, Thing, Vocabulary

Array = npt.NDArray[np.float32]
Colour = tuple[float, float, float]

NEAR = 0.6
"""Points closer than this many metres are drawn at this distance."""
TILE = 512
"""Side of the periodic noise tiles in pixels."""
SUBPIXEL_BITS = 4

# Columns of the part table.
RED, TEMPERATURE, DEPTH, GLOW, FINE, COARSE, PAVING, MOTTLE = 0, 3, 4, 5, 8, 9, 10, 11


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
        pixels = np.empty((len(points), 2), np.float32)
        pixels[:, 0] = self.width / 2 + across * cosine - down * sine
        pixels[:, 1] = self.horizon + across * sine + down * cosine
        return pixels

    def project_point(self, x: float, y: float, z: float) -> tuple[float, float]:
        """The column and row of one world point."""
        across, down = self.focal * x / z, self.focal * (self.above - y) / z
        cosine, sine = math.cos(self.roll), math.sin(self.roll)
        column = self.width / 2 + across * cosine - down * sine
        return column, self.horizon + across * sine + down * cosine

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
    """The map of parts and the part table while a scene is being drawn.

    Parts are numbered in the order in which they are registered; whoever draws an object registers
    its parts first, so that of two objects the nearer one has the higher numbers.
    """

    height: int
    width: int
    parts: npt.NDArray[np.uint16] = field(init=False)
    covers: npt.NDArray[np.uint16] = field(init=False)
    """Parts that are seen through and only give a label."""
    shadow: npt.NDArray[np.uint8] = field(init=False)
    """Light that reaches the ground, 255 all of it; at half the resolution."""
    rows: list[tuple[float, ...]] = field(init=False)
    labels: list[int] = field(init=False)
    """Id of MFNet of each part."""
    things: list[int] = field(init=False)
    """Id of `things.FULL` of each part that is unlabeled in MFNet."""
    thing: int = field(init=False)
    """Of the parts that are registered now."""
    instances: list[int] = field(init=False)
    """Number of the thing that each part belongs to; 0: ground, or what goes on."""
    instance: int = field(init=False)
    """Of the parts that are registered now."""

    def __post_init__(self) -> None:
        self.parts = np.zeros((self.height, self.width), np.uint16)
        self.covers = np.zeros((self.height, self.width), np.uint16)
        self.shadow = np.full(((self.height + 1) // 2, (self.width + 1) // 2), 255, np.uint8)
        self.rows, self.labels, self.things, self.thing = [], [], [], 0
        self.instances, self.instance = [], 0

    def begin(self, thing: Thing) -> None:
        """Say what the parts that are registered from now on belong to."""
        self.thing = FULL.names.index(thing)

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
    ) -> int:
        """Register a surface and return its id.

        `glow` is emitted linear light (1 saturates at the exposure of a sunny day). `fine`,
        `coarse` and `paving` are relative amplitudes of three textures, `mottle` the thermal
        texture in Kelvin. `depth` 0 marks the ground, whose depth is known per pixel.
        """
        red, green, blue = colour
        red, green, blue = red * red / 65025, green * green / 65025, blue * blue / 65025
        self.rows.append((red, green, blue, celsius, depth, *glow, fine, coarse, paving, mottle))
        self.labels.append(0)
        self.things.append(self.thing)
        self.instances.append(self.instance)
        return len(self.rows) - 1

    def fill(self, outline: Array, part: int | None, label: int) -> None:
        """Fill a polygon (N, 2) of pixel coordinates; see `fill_all`."""
        self.fill_all([self.subpixels(outline)], part, label)

    def fill_all(
        self, contours: Sequence[npt.NDArray[np.int32]], part: int | None, label: int
    ) -> None:
        """Fill polygons that do not overlap, each (N, 2) as `subpixels` gives them.

        The part gets the label; part None leaves the picture and labels what has been drawn there.
        """
        if part is None:
            part, target = self.part((0.0, 0.0, 0.0), 0.0, 1.0), self.covers
        else:
            target = self.parts
        self.labels[part] = label
        cv2.fillPoly(target, contours, (part,), shift=SUBPIXEL_BITS)

    def subpixels(self, points: Array) -> npt.NDArray[np.int32]:
        """Pixel coordinates in OpenCV's fixed-point form, kept where it does not overflow."""
        limit = 8 * max(self.height, self.width)
        scaled = np.minimum(np.maximum(points, -limit), limit) * (1 << SUBPIXEL_BITS)
        return np.asarray(np.rint(scaled), np.int32)

    def darken(self, outline: Array, left: float) -> None:
        """Let only the share `left` (0-1) of the light reach the ground within a polygon."""
        contour = self.subpixels(floats(outline / 2))
        cv2.fillPoly(self.shadow, [contour], (round(255 * left),), shift=SUBPIXEL_BITS)

    def stamp(
        self, box: tuple[float, float, float, float], sprite: npt.NDArray[np.uint8], first: int
    ) -> None:
        """Paint a sprite's levels 1, 2, ... as parts `first`, `first` + 1, ... into a pixel box.

        `box` is left, top, right, bottom; level 0 is transparent. What is painted is unlabelled.
        """
        left, top, right, bottom = (round(side) for side in box)
        first_column, last_column = max(0, left), min(self.width, right)
        first_row, last_row = max(0, top), min(self.height, bottom)
        if first_column >= last_column or first_row >= last_row:
            return
        height, width = sprite.shape
        # The part of the sprite that is in the picture, whole pixels of it.
        across, down = width / (right - left), height / (bottom - top)
        seen = sprite[
            int((first_row - top) * down) : math.ceil((last_row - top) * down),
            int((first_column - left) * across) : math.ceil((last_column - left) * across),
        ]
        shape = (last_column - first_column, last_row - first_row)
        levels = cv2.resize(seen, shape, interpolation=cv2.INTER_NEAREST)
        window = self.parts[first_row:last_row, first_column:last_column]
        parts = levels.astype(np.uint16)
        parts += np.uint16(first - 1)
        np.copyto(window, parts, where=levels > 0)

    def table(self) -> Array:
        """All parts, (parts, 12) float32."""
        return np.array(self.rows, np.float32)

    def label_map(self, vocabulary: Vocabulary = "mfnet") -> npt.NDArray[np.uint8]:
        """The class of each pixel, (height, width): of a cover, unless something is before it."""
        ids = np.array(self.labels, np.uint8)
        if vocabulary == "full":
            ids = np.where(ids == 0, np.array(self.things, np.uint8), ids)
        return ids.take(np.maximum(self.parts, self.covers))

    def instance_map(self) -> npt.NDArray[np.uint16]:
        """The number of the thing at each pixel, (height, width); 0 where it has none."""
        numbers = np.array(self.instances, np.uint16)
        return numbers.take(np.maximum(self.parts, self.covers))


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
        ends = np.cumsum([len(shape.outline) for shape in shapes]).tolist()
        local = np.zeros((ends[-1], 3), np.float32)
        start = 0
        for shape, end in zip(shapes, ends, strict=True):
            local[start:end, : shape.outline.shape[1]] = shape.outline
            start = end
        pixels = self.canvas.subpixels(self.camera.project(place(local, x, z, yaw)))
        start = 0
        for shape, end in zip(shapes, ends, strict=True):
            self.canvas.fill_all([pixels[start:end]], shape.part, shape.label)
            start = end

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
        return low + (high - low) * float(self.rng.random())


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
    """Textures of zero mean and unit deviation: grain, clouds, leaves.

    Their period is TILE; they are (2.5 TILE, 2.5 TILE), so that most windows need no copy.
    """
    rng = np.random.default_rng(20170924)
    white = rng.standard_normal((3, TILE, TILE)).astype(np.float32)
    grain = _unit(_wrapped_blur(white[0], 0.7))
    clouds = _unit(sum_octaves(white[1], (3.0, 9.0, 27.0, 60.0), (0.5, 1.0, 1.4, 1.4)))
    leaves = _unit(sum_octaves(white[2], (1.2, 3.0, 7.0), (1.0, 1.2, 0.8)))
    return _repeat(grain), _repeat(clouds), _repeat(leaves)


def sum_octaves(white: Array, sigmas: Sequence[float], weights: Sequence[float]) -> Array:
    """White noise (TILE, TILE) blurred at several scales, each of unit deviation, and added."""
    total = np.zeros_like(white)
    for sigma, weight in zip(sigmas, weights, strict=True):
        total += weight * _unit(_wrapped_blur(white, sigma))
    return total


@lru_cache(maxsize=1)
def paving_tile() -> Array:
    """A bond of 16 x 16 stones with dark joints, about -1 to 1, repeated as `noise_tiles`."""
    rng = np.random.default_rng(480640)
    stones, side = 16, TILE // 16
    tones = rng.normal(0, 0.35, (stones, stones)).astype(np.float32)
    tile = np.repeat(np.repeat(tones, side, 0), side, 1)
    tile[::side, :] = tile[1::side, :] = -1.6
    for course in range(stones):
        rows = np.s_[course * side : (course + 1) * side]
        tile[rows, ::side] = tile[rows, 1::side] = -1.6
        tile[rows] = np.roll(tile[rows], (course % 2) * side // 2, axis=1)
    return _repeat(_wrapped_blur(tile.astype(np.float32), 0.8))


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
        solid = floats(cv2.GaussianBlur(solid, (0, 0), 7))
        white = rng.standard_normal((2, TILE, TILE)).astype(np.float32)
        edge = _unit(sum_octaves(white[0], (2.0, 6.0), (1.0, 1.0)))[:256, :256]
        tone = _unit(sum_octaves(white[1], (2.0, 5.0, 14.0), (0.8, 1.0, 1.0)))[:256, :256]
        density = 0.45 if index % 3 else 0.75
        present = solid + density * edge > 0
        lit = tone + (128 - np.arange(256, dtype=np.float32)[:, None]) / 150
        levels = 1 + (lit > -0.4).astype(np.uint8) + (lit > 0.7).astype(np.uint8)
        crowns.append(np.where(present, levels, 0).astype(np.uint8))
    return tuple(crowns)


def floats(values: npt.ArrayLike) -> Array:
    """Values as float32, copied only if need be; OpenCV's results have no static type."""
    return np.asarray(values, np.float32)


def crop(tile: Array, height: int, width: int, row: int, column: int) -> Array:
    """A (height, width) window of a texture with period TILE; not to be written to."""
    row, column = row % TILE, column % TILE
    if row + height <= tile.shape[0] and column + width <= tile.shape[1]:
        return tile[row : row + height, column : column + width]
    rows, columns = (np.arange(height) + row) % TILE, (np.arange(width) + column) % TILE
    return tile[:TILE, :TILE].take(rows, axis=0).take(columns, axis=1)


def _wrapped_blur(image: Array, sigma: float) -> Array:
    border = min(TILE, int(4 * sigma) + 2)
    padded = cv2.copyMakeBorder(image, border, border, border, border, cv2.BORDER_WRAP)
    blurred = cv2.GaussianBlur(padded, (0, 0), sigma)
    return np.ascontiguousarray(blurred[border:-border, border:-border])


def _repeat(tile: Array) -> Array:
    more = 3 * TILE // 2
    return np.asarray(np.pad(tile, ((0, more), (0, more)), mode="wrap"))


def _unit(image: Array) -> Array:
    return floats((image - image.mean()) / (image.std() + 1e-6))
