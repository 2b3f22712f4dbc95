"""What thermal cameras do to their pictures: radiometric JPEG, borders, dead pixels, display."""

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from sartm.errors import InputError, unreadable
from sartm.files import require_plain
from sartm.io.decode import (
    MAX_PIXELS,
    Source,
    Upload,
    as_file,
    check_limits,
    image_size,
    read_thermal,
)
from sartm.io.holes import fill_holes

Array = npt.NDArray[Any]

KELVIN = 273.15
"""0 degrees Celsius."""

# Record types of a FLIR file and the size of their headers, in bytes.
_RAW_IMAGE, _CAMERA_INFO = 0x01, 0x20
_FILE_HEADER, _ENTRY, _RAW_HEADER = 64, 32, 32
_LARGEST_FILE = 256 * 2**20
_NO_REMEDY = "export it as 16-bit or radiometric TIFF with the camera's software"


@dataclass(frozen=True)
class Camera:
    """How thermal files of a camera are read beyond decoding them; the defaults change nothing."""

    radiometric: bool = False
    """Thermal files are FLIR radiometric JPEG: degrees Celsius instead of the picture."""
    black_hot: bool = False
    """Warm is dark: the values are inverted."""
    repair: bool = False
    """Constant border bands and single dead pixels are filled from their surroundings."""
    holes: float | None = None
    """Raw value of pixels without a measurement, which are filled; None: there are none."""

    def __post_init__(self) -> None:
        if self.holes is not None and not math.isfinite(self.holes):
            raise InputError(
                f"holes is {self.holes}, but thermal files with NaN or infinity are refused; write "
                f"a number that does not occur in their place, such as -9999, and name that"
            )

    def as_stored(self) -> "Camera":
        """Reads the values as the file holds them: holes stay, and nothing is inverted."""
        return Camera(self.radiometric)


@dataclass(frozen=True)
class Radiometry:
    """What turns the counts of a FLIR camera into temperatures; stored in each of its files."""

    r1: float
    r2: float
    b: float
    """Kelvin."""
    f: float
    o: float
    """Planck constants of the calibration: counts = r1 / (r2 (exp(b / T) - f)) - o."""
    emissivity: float = 1.0
    reflected: float = 293.15
    """Apparent temperature of what the object reflects, Kelvin."""
    distance: float = 0.0
    """To the object in metres."""
    air: float = 293.15
    """Kelvin."""
    humidity: float = 0.5
    """Relative, 0-1."""
    alpha: tuple[float, float] = (0.006569, 0.01262)
    beta: tuple[float, float] = (-0.002276, -0.00667)
    mix: float = 1.9
    """Constants of the air's transmission; the usual ones for 7.5-13 um."""

    def counts_of(self, kelvin: float) -> float:
        """Counts that a black body of that temperature gives."""
        return self.r1 / (self.r2 * (math.exp(self.b / kelvin) - self.f)) - self.o

    def transmission(self) -> float:
        """Share of radiation that passes the air between object and camera, 0-1."""
        celsius = self.air - KELVIN
        # Water vapour from the relative humidity, a cubic in the exponent.
        vapour = self.humidity * math.exp(
            1.5587 + 6.939e-2 * celsius - 2.7816e-4 * celsius**2 + 6.8455e-7 * celsius**3
        )
        paths = [
            math.exp(-math.sqrt(self.distance) * (alpha + beta * math.sqrt(vapour)))
            for alpha, beta in zip(self.alpha, self.beta, strict=True)
        ]
        return min(1.0, self.mix * paths[0] + (1 - self.mix) * paths[1])


def to_celsius(counts: Array, radiometry: Radiometry) -> npt.NDArray[np.float32]:
    """Raw counts (H, W) of a FLIR camera to the objects' temperature, float32 (H, W) Celsius.

    Of what the camera receives, the object emits emissivity * tau; the rest is its surroundings
    reflected in it, (1 - emissivity) * tau, and the air, 1 - tau. Counts too low for any
    temperature get the lowest one that occurs.
    """
    tau, emissivity = radiometry.transmission(), radiometry.emissivity
    surroundings = (1 - emissivity) * tau * radiometry.counts_of(radiometry.reflected)
    surroundings += (1 - tau) * radiometry.counts_of(radiometry.air)
    signal = (counts.astype(np.float64) - surroundings) / (emissivity * tau) + radiometry.o
    valid = signal > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        kelvin = radiometry.b / np.log(radiometry.r1 / (radiometry.r2 * signal) + radiometry.f)
    valid &= np.isfinite(kelvin) & (kelvin > 0)
    if not valid.any():
        raise InputError(f"no count of the thermal image is a temperature; {_NO_REMEDY}")
    kelvin[~valid] = kelvin[valid].min()
    return np.asarray((kelvin - KELVIN).astype(np.float32))


def read_radiometric(path: Source, max_pixels: int = MAX_PIXELS) -> npt.NDArray[np.float32]:
    """Read a FLIR radiometric JPEG as float32 (H, W) degrees Celsius.

    The format as publicly known: APP1 segments `FLIR` hold a file `FFF` of records, among them the
    raw thermal image (PNG, TIFF or plain counts) and the camera's calibration. Emissivity,
    reflected temperature, distance and air are those stored in the file; a window in front of the
    camera is not corrected for.

    Raises:
        InputError: no such file, no FLIR data, damaged records, or more than `max_pixels`.
    """
    file = as_file(path)
    try:
        if isinstance(file, Path):
            require_plain(file)
        too_large = isinstance(file, Path) and file.stat().st_size > _LARGEST_FILE
        data = b"" if too_large else _flir_data(file.read_bytes())
    except OSError as error:
        raise unreadable(file, error) from None
    if not data:
        raise InputError(
            f"{file}: not a FLIR radiometric JPEG, its raw data are missing (edited or sent by a "
            f"messenger?); use the camera's original, or take the picture's grey levels (predict "
            f"without --radiometric; unit = 'display' in dataset.toml)"
        )
    try:
        records = _records(data)
        radiometry = _radiometry(records[_CAMERA_INFO])
        counts = _raw_image(records[_RAW_IMAGE], str(file), max_pixels)
    except InputError as error:
        raise InputError(f"{file}: {error}") from None
    except KeyError as error:
        what = "raw thermal image" if error.args[0] == _RAW_IMAGE else "calibration"
        raise InputError(f"{file}: its FLIR data hold no {what}; {_NO_REMEDY}") from None
    except (struct.error, ValueError, OverflowError, ZeroDivisionError):
        raise InputError(f"{file}: its FLIR data are damaged or cut off; copy it again") from None
    try:
        return to_celsius(counts, radiometry)
    except (OverflowError, ZeroDivisionError):
        raise InputError(f"{file}: its calibration makes no sense; {_NO_REMEDY}") from None


def is_radiometric(data: bytes) -> bool:
    """Whether a file's bytes are a JPEG with FLIR's raw data, readable or not."""
    return bool(_flir_data(data))


def read_raw(path: Source, camera: Camera, max_pixels: int = MAX_PIXELS) -> Array:
    """`read_thermal`, or Celsius of a radiometric JPEG; `prepare_thermal` does the rest."""
    _refuse_dji(path)
    read = read_radiometric if camera.radiometric else read_thermal
    return read(path, max_pixels)


def prepare_thermal(raw: Array, camera: Camera) -> Array:
    """Raw thermal (H, W) as decoded: filled, repaired and white-hot where the camera says so."""
    if camera.holes is not None:
        raw = fill_holes(raw, camera.holes)
    if camera.repair:
        raw = repair_thermal(raw)
    return invert_thermal(raw) if camera.black_hot else raw


def invert_thermal(raw: Array) -> Array:
    """Black-hot to white-hot: the largest value of the number type minus raw; floats are negated.

    A rule `range` on 16-bit counts or floats then counts from the other end.
    """
    if raw.dtype.kind == "u":
        return np.asarray(np.iinfo(raw.dtype).max - raw)
    return np.asarray(-raw)


def border_bands(raw: Array) -> tuple[int, int, int, int]:
    """Rows and columns of one single value along the edges of (H, W): top, bottom, left, right.

    A band wider than an eighth of its side is part of the scene (a sky clipped to black, say), and
    so is one that hardly differs from what is beside it: both count as 0.
    """
    low, high = np.percentile(raw, (1, 99))
    step = 0.05 * float(high - low)
    top, bottom, left, right = 0, 0, 0, 0
    for _ in range(2):  # rows that vary only where they cross the bands on the left and right
        inner = raw[:, left : raw.shape[1] - right]
        top, bottom = _band(inner, step), _band(inner[::-1], step)
        inner = raw[top : raw.shape[0] - bottom].T
        left, right = _band(inner, step), _band(inner[::-1], step)
    return top, bottom, left, right


def _band(image: Array, step: float) -> int:
    """Constant rows at the top of (H, W) that differ from the next row by more than `step`."""
    most = image.shape[0] // 8
    flat = np.ptp(image[: most + 1], axis=1) == 0
    count = int(flat.argmin())
    if flat.all() or count == 0:
        return 0
    beside = np.abs(image[count].astype(np.float64) - float(image[count - 1, 0]))
    return count if beside.mean() > step else 0


def dead_pixels(raw: Array) -> npt.NDArray[np.bool_]:
    """(H, W) true where one pixel alone stands out of all its eight neighbours.

    By more than a twentieth of the image's range and eight times its usual grain. None where more
    than one in 200 would be dead: that is texture. Two dead neighbours hide each other.
    """
    if min(raw.shape) < 3:
        return np.zeros(raw.shape, bool)
    image = raw.astype(np.float32)
    ring = np.ones((3, 3), np.uint8)
    ring[1, 1] = 0
    grain = float(np.median(np.abs(image - cv2.medianBlur(image, 3))))
    low, high = np.percentile(image, (1, 99))
    margin = max(8 * grain, 0.05 * float(high - low), 1e-6)
    # What lies outside never decides: the borders of both filters are neutral.
    found = (image > cv2.dilate(image, ring) + margin) | (image < cv2.erode(image, ring) - margin)
    dead = np.asarray(found, bool)
    return dead if dead.mean() <= 1 / 200 else np.zeros_like(dead)


def repair_thermal(raw: Array) -> Array:
    """Fill border bands and dead pixels of raw thermal (H, W); the number type stays.

    Bands take the nearest row or column, dead pixels the median of their 3x3 surroundings.
    """
    top, bottom, left, right = border_bands(raw)
    height, width = raw.shape
    inner = np.ascontiguousarray(raw[top : height - bottom, left : width - right])
    dead = dead_pixels(inner)
    if dead.any():
        around = cv2.medianBlur(cv2.copyMakeBorder(inner, 1, 1, 1, 1, cv2.BORDER_REFLECT_101), 3)
        inner = np.where(dead, around[1:-1, 1:-1], inner)
    if not (top or bottom or left or right):
        return inner
    return np.asarray(cv2.copyMakeBorder(inner, top, bottom, left, right, cv2.BORDER_REPLICATE))


def enhance_display(grey: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Local contrast (CLAHE) of an 8-bit grey picture (H, W), to look at; models never see it."""
    return np.asarray(cv2.createCLAHE(clipLimit=3.0, tileGridSize=(8, 8)).apply(grey), np.uint8)


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Marker and body of what stands in a JPEG before its compressed picture."""
    place = 2
    while data[:2] == b"\xff\xd8" and place + 4 <= len(data) and data[place] == 0xFF:
        marker, length = data[place + 1], int.from_bytes(data[place + 2 : place + 4], "big")
        if marker == 0xDA or length < 2:
            return
        yield marker, data[place + 4 : place + 2 + length]
        place += 2 + length


def _flir_data(data: bytes) -> bytes:
    """The `FFF` file spread over a JPEG's APP1 segments; empty if there is none."""
    parts: dict[int, bytes] = {}
    for marker, body in _segments(data):
        if marker == 0xE1 and body[:6] == b"FLIR\0\x01" and len(body) > 8:
            parts.setdefault(body[6], body[8:])
    joined = b"".join(parts[number] for number in sorted(parts))
    return joined if joined[:4] == b"FFF\0" else b""


def is_dji(data: bytes) -> bool:
    """Whether a file's bytes are a DJI R-JPEG: a picture with the maker's own raw data behind it.

    They lie in APP3, by segments of 64 KiB, where other cameras have nothing; EXIF names the maker.
    """
    made, raw = False, 0
    for marker, body in _segments(data):
        made = made or (marker == 0xE1 and body[:4] == b"Exif" and b"DJI\0" in body[:4096])
        raw += len(body) if marker == 0xE3 else 0
    return made and raw > 4096


def _refuse_dji(path: Source) -> None:
    """Its picture is in colours or grey levels of the moment, which say nothing about degrees."""
    file = as_file(path)
    try:
        with file.open("rb") as stream:
            start = stream.read(2)
            data = start + stream.read(2**22) if start == b"\xff\xd8" else b""
    except (OSError, ValueError):  # reading it will say why
        return
    if is_dji(data):
        raise InputError(
            f"{file}: a DJI R-JPEG, whose temperatures only the maker's tool reads: DJI Thermal "
            f"SDK, dji_irp -a measure --measurefmt float32 -s IMAGE.JPG -o IMAGE.raw; then save "
            f"the floats as NumPy file and pass --degrees celsius (docs/camera-to-table.md). For "
            f"its grey picture alone save it again as PNG"
        )


def _records(data: bytes) -> dict[int, bytes]:
    """First record of each type."""
    # The version tells the byte order: it is around 100 in the right one.
    order = ">" if 100 <= struct.unpack_from(">I", data, 0x14)[0] < 1000 else "<"
    first, count = struct.unpack_from(f"{order}II", data, 0x18)
    if first < _FILE_HEADER or count > 1000:
        raise InputError(f"its FLIR data have an odd directory ({count} records); {_NO_REMEDY}")
    records: dict[int, bytes] = {}
    for number in range(count):
        entry = first + number * _ENTRY
        (kind,) = struct.unpack_from(f"{order}H", data, entry)
        offset, length = struct.unpack_from(f"{order}II", data, entry + 12)
        if kind and length:
            if offset + length > len(data):
                raise InputError("its FLIR data are cut off; copy it again from the camera")
            records.setdefault(kind, data[offset : offset + length])
    return records


def _order(record: bytes) -> str:
    """Byte order of a record, which begins with the number 2."""
    return "<" if record[:2] == b"\x02\0" else ">"


def _radiometry(record: bytes) -> Radiometry:
    order = _order(record)

    def number(offset: int, kind: str = "f") -> float:
        return float(struct.unpack_from(order + kind, record, offset)[0])

    humidity = number(0x3C)
    found = Radiometry(
        r1=number(0x58),
        b=number(0x5C),
        f=number(0x60),
        o=number(0x308, "i"),
        r2=number(0x30C),
        emissivity=number(0x20),
        distance=number(0x24),
        reflected=number(0x28),
        air=number(0x2C),
        humidity=humidity / 100 if humidity > 2 else humidity,  # some cameras store percent
        alpha=(number(0x70), number(0x74)),
        beta=(number(0x78), number(0x7C)),
        mix=number(0x80),
    )
    values = (found.r1, found.b, found.f, found.r2, found.distance, found.humidity, *found.alpha)
    plausible = (
        all(math.isfinite(value) and value >= 0 for value in values)
        and all(math.isfinite(value) for value in (*found.beta, found.mix))
        and min(found.r1, found.r2, found.b) > 0
        and 0 < found.emissivity <= 1
        and all(150 < kelvin < 1500 for kelvin in (found.reflected, found.air))
    )
    if not plausible:
        raise InputError(
            f"its calibration makes no sense (emissivity {found.emissivity:g}, reflected "
            f"{found.reflected:g} K, R1 {found.r1:g}, B {found.b:g}); {_NO_REMEDY}"
        )
    return found


def _raw_image(record: bytes, name: str, max_pixels: int) -> npt.NDArray[np.uint16]:
    order = _order(record)
    width, height = struct.unpack_from(f"{order}HH", record, 2)
    body = record[_RAW_HEADER:]
    if body.startswith((b"\x89PNG", b"II*\0", b"MM\0*")):
        image = Upload("the raw thermal image", body)
        if image_size(image, max_pixels) != (height, width):  # one of the two is damaged
            raise InputError(
                f"its raw thermal image is not {height}x{width} as stated; {_NO_REMEDY}"
            )
        counts = read_thermal(image, max_pixels)
        if counts.dtype != np.uint16:
            raise InputError(f"its raw thermal image is {counts.dtype}, not 16-bit; {_NO_REMEDY}")
        return _smoother_order(counts) if body[:4] == b"\x89PNG" else counts
    check_limits("its raw thermal image", height, width, max_pixels)
    plain = np.frombuffer(body, f"{order}u2", count=width * height)
    return plain.reshape(height, width).astype(np.uint16)


def _smoother_order(counts: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint16]:
    """PNG prescribes big-endian, yet most FLIR cameras put little-endian counts into it.

    In the wrong order the low byte of neighbours leads and the picture is noise; so the order with
    the smaller steps is right. Without any step the usual one is taken.
    """
    swapped = counts.byteswap()

    def steps(image: Array) -> float:
        return float(np.abs(np.diff(image.astype(np.float64), axis=1)).sum())

    return counts if steps(counts) < steps(swapped) else swapped
