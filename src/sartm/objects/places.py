"""Where pixels lie on the earth: by a grid of coordinates, or by the camera and flat ground.

    grid     the coordinates of a GeoTIFF, turned into WGS84
    ground   a ray through the pixel meets flat ground, `height` metres below the camera:
             right, down and forward of the camera from heading, pitch and roll; then metres east
             and north of it on the ellipsoid
    camera   only where the camera was

Pixels are (x, y), the first one's centre at 0, 0; places are (longitude, latitude) in degrees.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from sartm.io.places import Grid, Place, Shot
from sartm.objects.measurement import Row
from sartm.objects.parts import Parts

Points = npt.NDArray[np.float64]

_AXIS, _FLATTENING = 6_378_137.0, 1 / 298.257223563
"""Of WGS84, metres."""
_LEAST_DIP = math.sin(math.radians(5))
"""Rays flatter than this meet the ground too far away to be believed."""
_WGS84 = 4326


@dataclass(frozen=True)
class Located:
    """How the pixels of one picture are placed."""

    how: str
    """grid, ground or camera; "" where nothing is known."""
    note: str = ""
    """Why it is not known better, for people."""
    place: Callable[[Points], Points] | None = None
    """Pixels (N, 2) to places (N, 2), NaN for what lies beyond; None but for grid and ground."""
    camera: tuple[float, float] | None = None
    """Longitude and latitude."""


def locate(place: Place, size: tuple[int, int], height: float | None = None) -> Located:
    """How the pixels of a picture of (height, width) `size` are placed.

    `height` in metres above ground stands in where the file does not say it.
    """
    if place.grid is not None and place.size == size:
        return _by_grid(place.grid)
    if place.shot is None:
        return Located("")
    shot = place.shot if place.shot.height is not None else replace(place.shot, height=height)
    camera = (shot.longitude, shot.latitude)
    needed = {"height above ground (--height)": shot.height, "focal length": shot.focal,
              "heading": shot.heading}  # fmt: skip
    missing = [name for name, value in needed.items() if value is None]
    if missing:
        note = f"only the camera's position is known: the file says no {', no '.join(missing)}"
        return Located("camera", note, None, camera)
    if place.size != size or not place.upright:
        note = "only the camera's position is known: the picture was turned or resized"
        return Located("camera", note, None, camera)
    note = "" if shot.pitch is not None else "the camera is taken to look straight down"
    return Located("ground", note, lambda points: project(points, shot, size), camera)


def _by_grid(grid: Grid) -> Located:
    if grid.epsg is None:
        return Located("", "its coordinate system has no EPSG number: no place in WGS84")
    try:
        turn = _to_wgs84(grid.epsg)
    except ModuleNotFoundError:
        return Located("", f"EPSG:{grid.epsg} to WGS84 needs pyproj: pip install 'sartm[geo]'")
    except ValueError:
        return Located("", f"EPSG:{grid.epsg} is not known to pyproj: no place in WGS84")
    a, b, c, d, e, f = grid.transform

    def place(points: Points) -> Points:
        x, y = points.T
        found = turn(np.stack([a * x + b * y + c, d * x + e * y + f], axis=1))
        on_earth = (np.abs(found) <= (360, 90)).all(1, keepdims=True)
        return np.where(on_earth, found, np.nan)

    return Located("grid", "", place)


@lru_cache(8)
def _to_wgs84(epsg: int) -> Callable[[Points], Points]:
    """Coordinates (N, 2) of a system, x first, to longitude and latitude."""
    if epsg == _WGS84:
        return lambda points: points
    import pyproj  # an extra, which only coordinates in other systems need

    try:
        transformer = pyproj.Transformer.from_crs(epsg, _WGS84, always_xy=True)
    except pyproj.exceptions.ProjError as error:
        raise ValueError(str(error)) from None

    def turn(points: Points) -> Points:
        found = np.stack(transformer.transform(points[:, 0], points[:, 1]), axis=1)
        return np.where(np.isfinite(found), found, np.nan)

    return turn


def project(points: Points, shot: Shot, size: tuple[int, int]) -> Points:
    """Where the rays through pixels meet the ground."""
    assert shot.height is not None
    assert shot.focal is not None
    assert shot.heading is not None
    heading, roll = math.radians(shot.heading), math.radians(shot.roll)
    pitch = math.radians(-90.0 if shot.pitch is None else shot.pitch)
    # East, north and up.
    forward = np.array([math.cos(pitch) * math.sin(heading), math.cos(pitch) * math.cos(heading),
                        math.sin(pitch)])  # fmt: skip
    level = np.array([math.cos(heading), -math.sin(heading), 0.0])
    below = np.cross(forward, level)
    right = math.cos(roll) * level + math.sin(roll) * below
    down = math.cos(roll) * below - math.sin(roll) * level
    offset = (points - ((size[1] - 1) / 2, (size[0] - 1) / 2)) / shot.focal
    rays = forward + offset[:, :1] * right + offset[:, 1:] * down
    dip = -rays[:, 2] / np.linalg.norm(rays, axis=1)
    with np.errstate(divide="ignore"):
        metres = rays[:, :2] * (shot.height / -rays[:, 2])[:, None]
    metres[dip < _LEAST_DIP] = np.nan
    latitude = math.radians(shot.latitude)
    square = _FLATTENING * (2 - _FLATTENING)
    bend = 1 - square * math.sin(latitude) ** 2
    north = _AXIS * (1 - square) / bend**1.5
    east = _AXIS / math.sqrt(bend) * max(math.cos(latitude), 1e-9)
    here = np.array([shot.longitude, shot.latitude])
    return np.asarray(here + np.degrees(metres / (east, north)))


def place_rows(rows: list[Row], parts: Parts, located: Located, taken: str | None) -> None:
    """Add places, outlines as GeoJSON's geometry and the time to the rows of `parts`."""
    for row in rows:
        row["taken"] = taken
        if located.how == "camera" and located.camera is not None:
            row["located"] = "camera"
            row["longitude"], row["latitude"] = (round(value, 8) for value in located.camera)
            row["geometry"] = {"type": "Point", "coordinates": [row["longitude"], row["latitude"]]}
    if located.place is None or not rows:
        return
    centres = located.place(parts.centres)
    for row, centre, geometry in zip(rows, centres, _outlines(parts, located.place), strict=True):
        if np.isfinite(centre).all():
            row["located"] = located.how
            row["longitude"], row["latitude"] = (round(float(value), 8) for value in centre)
            row["geometry"] = geometry


def _outlines(parts: Parts, place: Callable[[Points], Points]) -> list[dict[str, Any] | None]:
    """A polygon with its holes for each part, right to half a pixel."""
    rings: list[Points] = []
    owners: list[tuple[int, bool]] = []
    for number in range(1, len(parts) + 1):
        corner = parts.boxes[number - 1, :2]
        # Twice as large, an outline runs a quarter of a pixel within the edge.
        mask = np.pad(parts.mask(number), 1).astype(np.uint8).repeat(2, 0).repeat(2, 1)
        found, tree = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
        for ring, (_, _, _, parent) in zip(found, tree[0], strict=True):
            if len(ring) > 2:
                rings.append((ring[:, 0] + 0.5) / 2 - 1.5 + corner)
                owners.append((number, parent >= 0))
    lengths = [len(ring) for ring in rings]
    placed = np.split(place(np.concatenate(rings)).round(8), np.cumsum(lengths)[:-1])
    polygons: list[list[list[list[float]]]] = [[] for _ in range(len(parts))]
    for (number, is_hole), ring in sorted(zip(owners, placed, strict=True), key=lambda one: one[0]):
        polygons[number - 1].append(_close(ring, clockwise=is_hole))
    return [
        {"type": "Polygon", "coordinates": rings}
        if rings and all(math.isfinite(value) for point in rings[0] for value in point) else None
        for rings in polygons
    ]  # fmt: skip


def _close(ring: Points, clockwise: bool) -> list[list[float]]:
    """A ring as GeoJSON wants it: its end is its start, the outer one runs against the clock."""
    x, y = ring.T - ring[0][:, None]
    turns_right = float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) < 0
    points = ring[::-1] if turns_right != clockwise else ring
    return [*points.tolist(), points[0].tolist()]
