"""Where and when a picture was taken, as its file says: EXIF and XMP of cameras, tags of GeoTIFF.

Files are anybody's: what is missing or makes no sense is no place, never an error.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image, ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from sartm.files import require_plain
from sartm.io import tiff
from sartm.io.sources import File, Source, as_file

GEO_TAGS = (33550, 33922, 34264, 34735, 34736, 34737)
"""Scale, tie points, transformation, and the three tables of keys of a GeoTIFF."""
_SCALE, _TIES, _MATRIX, _KEYS = GEO_TAGS[:4]
_MODEL, _RASTER, _GEOGRAPHIC, _PROJECTED = 1024, 1025, 2048, 3072
_USER_DEFINED = 32767
_PLUGINS: tuple[tuple[bytes, type[ImageFile.ImageFile]], ...] = (
    (b"\xff\xd8\xff", JpegImageFile), (b"\x89PNG", PngImageFile), (b"RIFF", WebPImageFile),
    (b"II*\0", TiffImageFile), (b"MM\0*", TiffImageFile), (b"II+\0", TiffImageFile),
    (b"MM\0+", TiffImageFile),
)  # fmt: skip
_DIAGONAL = math.hypot(36, 24)
"""Millimetres of the film that equivalent focal lengths are for."""
_UNITS = {2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}
"""Millimetres of EXIF's units of the focal plane."""


@dataclass(frozen=True)
class Grid:
    """A picture whose pixels have coordinates: a GeoTIFF."""

    transform: tuple[float, float, float, float, float, float]
    """x = a column + b row + c, y = d column + e row + f; the first pixel's centre is at 0, 0."""
    epsg: int | None
    """Of the coordinate system; None where it is none of that list."""
    tags: tuple[tuple[int, int, int, Any], ...]
    """Code, data type, count and value, to write them again."""


@dataclass(frozen=True)
class Shot:
    """Where a camera was; what its file does not say is None."""

    latitude: float
    longitude: float
    altitude: float | None = None
    """Metres above the sea."""
    height: float | None = None
    """Metres above ground."""
    heading: float | None = None
    """Degrees from north to east, of the upper side of the picture where it looks down."""
    pitch: float | None = None
    """Degrees: 0 to the horizon, -90 straight down."""
    roll: float = 0.0
    focal: float | None = None
    """Pixels."""


@dataclass(frozen=True)
class Place:
    """What a file says of where and when."""

    grid: Grid | None = None
    shot: Shot | None = None
    taken: str | None = None
    """ISO 8601, with the offset to UTC where it is known."""
    size: tuple[int, int] = (0, 0)
    """Height and width of the file."""
    upright: bool = True
    """Whether it is stored as it is shown."""

    def describe(self) -> dict[str, Any]:
        """For a summary; empty where nothing is known."""
        found: dict[str, Any] = {} if self.taken is None else {"taken": self.taken}
        if self.shot is not None:
            known = {name: value for name, value in vars(self.shot).items() if value is not None}
            found["camera"] = {name: round(value, 8) for name, value in known.items()}
        if self.grid is not None:
            found["grid"] = {"transform": list(self.grid.transform), "epsg": self.grid.epsg}
        return found


def find_place(sources: Iterable[Source | None], moved: bool) -> tuple[Place, str]:
    """Where a pair was taken, and what is odd about it: RGB's word counts, else thermal's.

    Args:
        sources: RGB and thermal, or the one file of both; None is passed over.
        moved: thermal was brought onto RGB, so that its own pixels are no longer the picture's.
    """
    places = [read_place(source) for source in sources if source is not None]
    grids = {(place.grid.transform, place.grid.epsg) for place in places if place.grid is not None}
    odd = "RGB and thermal have other coordinates, those of RGB count" if len(grids) > 1 else ""
    taken = next((place.taken for place in places if place.taken), None)
    for index, place in enumerate(places):
        if place.grid is not None or place.shot is not None:
            found = replace(place, taken=taken)
            return (replace(found, size=(0, 0)) if index and moved else found), odd
    return Place(taken=taken), odd


def read_place(source: Source) -> Place:
    """What the header of an image says; an empty place where it says nothing that can be read."""
    place, plugin = Place(), None
    try:
        path = as_file(source)
        if isinstance(path, Path):
            require_plain(path)
        with path.open("rb") as file:
            start = file.read(4)
            plugin = next((kind for magic, kind in _PLUGINS if start.startswith(magic)), None)
            file.seek(0)
            if plugin is not None:
                image = plugin(file)
                xmp = str(image.info.get("xmp", b"")[: 2**20], "latin-1")
                # That of PNG would decode all pixels first, whatever their number.
                place = _read_exif(Image.Image.getexif(image), image, xmp)
    except Exception:  # decoders fail in many ways; reading the pixels will say what is wrong
        place = Place()
    if plugin is TiffImageFile:
        grid, size = _read_grid(path)
        place = Place(grid, place.shot, place.taken, size or place.size, place.upright)
    return place


def _read_exif(exif: Image.Exif, image: Image.Image, xmp: str) -> Place:
    camera, gps = exif.get_ifd(0x8769), exif.get_ifd(0x8825)
    taken = _read_time(camera, gps)
    size, upright = (image.height, image.width), exif.get(0x0112, 1) in (0, 1)
    latitude = _read_angle(gps.get(2), gps.get(1), "NS", 90)
    longitude = _read_angle(gps.get(4), gps.get(3), "EW", 180)
    if latitude is None or longitude is None:
        return Place(None, None, taken, size, upright)
    altitude, roll = _number(gps.get(6)), _xmp(xmp, "GimbalRollDegree")
    if altitude is not None and gps.get(5) in (1, b"\1"):
        altitude = -altitude
    heading = _first(_xmp(xmp, "GimbalYawDegree"), _number(gps.get(17)))
    shot = Shot(
        latitude, longitude, altitude,
        height=_positive(_first(_xmp(xmp, "RelativeAltitude"), _xmp(xmp, "AboveGroundAltitude"))),
        heading=None if heading is None else heading % 360,
        pitch=_xmp(xmp, "GimbalPitchDegree"), roll=roll or 0.0,
        focal=_read_focal(camera, size),
    )  # fmt: skip
    return Place(None, shot, taken, size, upright)


def _read_time(camera: Mapping[int, Any], gps: Mapping[int, Any]) -> str | None:
    local = re.fullmatch(r"(\d{4}):(\d\d):(\d\d) (\d\d:\d\d:\d\d)", str(camera.get(0x9003, "")))
    offset = re.fullmatch(r"[+-]\d\d:\d\d|Z", str(camera.get(0x9011, "")))
    part = re.fullmatch(r"\d{1,6}", str(camera.get(0x9291, "")).strip())
    if local:
        text = f"{local[1]}-{local[2]}-{local[3]}T{local[4]}"
        return text + (f".{part[0]}" if part else "") + (offset[0] if offset else "")
    day = re.fullmatch(r"(\d{4}):(\d\d):(\d\d)", str(gps.get(29, "")))
    clock = [_number(value) for value in _listed(gps.get(7))]
    if day and len(clock) == 3 and all(value is not None and value < 61 for value in clock):
        hour, minute, second = (int(value or 0) for value in clock)
        return f"{day[1]}-{day[2]}-{day[3]}T{hour:02}:{minute:02}:{second:02}Z"
    return None


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, tuple | list) else []


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _positive(number: float | None) -> float | None:
    return number if number is not None and number > 0 else None


def _first(*numbers: float | None) -> float | None:
    return next((number for number in numbers if number is not None), None)


def _read_angle(value: Any, side: Any, sides: str, most: float) -> float | None:
    """Degrees, minutes and seconds to one side of zero: the second of `sides` is below."""
    parts, letter = [_number(part) for part in _listed(value)], str(side).strip("\0 ").upper()
    if len(parts) != 3 or None in parts or letter not in tuple(sides):
        return None
    degrees, minutes, seconds = (part or 0.0 for part in parts)
    angle = degrees + minutes / 60 + seconds / 3600
    return (-angle if letter == sides[1] else angle) if abs(angle) <= most else None


def _xmp(xmp: str, name: str) -> float | None:
    """A number of a camera maker's, as attribute or element: `drone-dji:RelativeAltitude`."""
    found = re.search(rf"[\w-]+:{name}(?:=\"|>)\s*([+-]?\d[\d.]*)", xmp)
    return _number(found[1]) if found else None


def _read_focal(camera: Mapping[int, Any], size: tuple[int, int]) -> float | None:
    """Pixels, from the pitch of the sensor's, or from the equivalent for 35 mm film."""
    length, equivalent = (
        _positive(_number(camera.get(0x920A))),
        _positive(_number(camera.get(0xA405))),
    )
    pitch, unit = _positive(_number(camera.get(0xA20E))), _UNITS.get(camera.get(0xA210, 2))
    if length and pitch and unit:
        stored = _positive(_number(camera.get(0xA002))) or size[1]
        return length * pitch / unit * size[1] / stored
    if equivalent:
        return equivalent / _DIAGONAL * math.hypot(*size)
    return None


def _read_grid(path: File) -> tuple[Grid | None, tuple[int, int] | None]:
    """The grid of a TIFF and its height and width."""
    try:
        with path.open("rb") as file:
            tags = tiff.read_tags(file, str(path), (*GEO_TAGS, 256, 257, 274))
    except Exception:  # as above
        return None, None
    values = {code: value for code, _, _, value in tags}
    size, transform = (values[257], values[256]), _read_transform(values)
    if transform is None or values.get(274, 1) != 1:
        return None, size
    keys = _read_keys(values.get(_KEYS))
    if keys.get(_RASTER, 1) == 1:  # coordinates are of the corner of a pixel: ours of its centre
        a, b, c, d, e, f = transform
        transform = (a, b, c + (a + b) / 2, d, e, f + (d + e) / 2)
    epsg = keys.get(_PROJECTED if keys.get(_MODEL) == 1 else _GEOGRAPHIC)
    kept = tuple(tag for tag in tags if tag[0] in GEO_TAGS)
    return Grid(transform, None if epsg in (None, 0, _USER_DEFINED) else epsg, kept), size


def _read_transform(
    values: Mapping[int, Any],
) -> tuple[float, float, float, float, float, float] | None:
    matrix, scale, ties = (values.get(code) for code in (_MATRIX, _SCALE, _TIES))
    if matrix and len(_listed(matrix)) == 16:
        a, b, _, c, d, e, _, f = matrix[:8]
    elif scale and ties and len(_listed(scale)) >= 2 and len(_listed(ties)) >= 6:
        column, row, _, x, y, _ = ties[:6]
        a, b, c = scale[0], 0.0, x - column * scale[0]
        d, e, f = 0.0, -scale[1], y + row * scale[1]
    else:
        return None
    found = tuple(map(float, (a, b, c, d, e, f)))
    usable = all(map(math.isfinite, found)) and a * e - b * d != 0
    return (found[0], found[1], found[2], found[3], found[4], found[5]) if usable else None


def _read_keys(directory: Any) -> dict[int, int]:
    """Keys whose value is a short number, the only ones that matter here."""
    numbers = _listed(directory)
    entries = [numbers[place : place + 4] for place in range(4, len(numbers) - 3, 4)]
    return {key: value for key, where, count, value in entries if where == 0 and count == 1}
