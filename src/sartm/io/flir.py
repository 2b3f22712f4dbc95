"""FLIR's files: radiometric JPEG and the records in it, raw counts and what makes degrees of them.

The format as publicly known: a file `FFF` of records, among them the raw thermal image (PNG, TIFF,
JPEG-LS or plain counts) and the camera's calibration.
"""

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt

from sartm.errors import InputError, unreadable
from sartm.files import require_plain
from sartm.io.decode import image_size, read_thermal
from sartm.io.header import MAX_PIXELS, check_limits
from sartm.io.sources import Source, Upload, as_file

Array = npt.NDArray[Any]

KELVIN = 273.15
"""0 degrees Celsius."""

# Record types of a FLIR file and the size of their headers, in bytes.
_RAW_IMAGE, _CAMERA_INFO = 0x01, 0x20
_FILE_HEADER, _ENTRY, _RAW_HEADER = 64, 32, 32
_MOMENT = 900
"""Where a camera's record says when: seconds, and thousandths in the lower half of what follows."""
_MAGIC = b"FFF\0"
_JPEG, _FRAME_LS = b"\xff\xd8", b"\xff\xf7"
_LARGEST_FILE = 256 * 2**20
_NO_REMEDY = "export it as 16-bit or radiometric TIFF with the camera's software"


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

    APP1 segments `FLIR` hold a file `FFF`. Emissivity, reflected temperature, distance and air are
    those stored in it; a window in front of the camera is not corrected for.

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
    return read_records(data, str(file), True, max_pixels)


def read_records(data: bytes, name: str, celsius: bool, max_pixels: int = MAX_PIXELS) -> Array:
    """Of a file `FFF` the degrees (H, W) float32, or the raw counts uint16.

    Raises InputError, which names the file, where its records are damaged or make no sense.
    """
    try:
        records = _records(data)
        counts = _raw_image(records[_RAW_IMAGE], name, max_pixels)
        radiometry = _radiometry(records[_CAMERA_INFO]) if celsius else None
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
    except KeyError as error:
        what = "raw thermal image" if error.args[0] == _RAW_IMAGE else "calibration"
        raise InputError(f"{name}: its FLIR data hold no {what}; {_NO_REMEDY}") from None
    except (struct.error, ValueError, OverflowError, ZeroDivisionError):
        raise InputError(f"{name}: its FLIR data are damaged or cut off; copy it again") from None
    if radiometry is None:
        return counts
    try:
        return to_celsius(counts, radiometry)
    except (OverflowError, ZeroDivisionError):
        raise InputError(f"{name}: its calibration makes no sense; {_NO_REMEDY}") from None


def read_moment(data: bytes) -> float | None:
    """When the picture of a file `FFF` was taken, in Unix time; None where it does not say so."""
    try:
        record = _records(data)[_CAMERA_INFO]
        seconds, thousandths = struct.unpack_from(f"{_order(record)}II", record, _MOMENT)
    except (InputError, KeyError, struct.error):
        return None
    known = 10**8 < seconds < 2**32 - 1 and (thousandths & 0xFFFF) < 1000
    return seconds + (thousandths & 0xFFFF) / 1000 if known else None


def find_records(data: Any) -> list[int]:
    """Where each file `FFF` of a sequence (SEQ, CSQ) begins, in bytes or a memory map."""
    found, place = [], data.find(_MAGIC)
    while place >= 0:
        if _begins_file(data[place : place + _FILE_HEADER]):
            found.append(place)
        place = data.find(_MAGIC, place + 4)
    return found


def _begins_file(head: bytes) -> bool:
    """Whether the four letters are a file's, not of a picture by chance."""
    if len(head) < _FILE_HEADER:
        return False
    order = ">" if 100 <= struct.unpack_from(">I", head, 0x14)[0] < 1000 else "<"
    version, first, count = struct.unpack_from(f"{order}III", head, 0x14)
    return bool(100 <= version < 1000 and _FILE_HEADER <= first < 2**20 and 0 < count <= 1000)


def is_radiometric(data: bytes) -> bool:
    """Whether a file's bytes are a JPEG with FLIR's raw data, readable or not."""
    return bool(_flir_data(data))


def jpeg_segments(data: bytes) -> Iterator[tuple[int, bytes]]:
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
    for marker, body in jpeg_segments(data):
        if marker == 0xE1 and body[:6] == b"FLIR\0\x01" and len(body) > 8:
            parts.setdefault(body[6], body[8:])
    joined = b"".join(parts[number] for number in sorted(parts))
    return joined if joined[:4] == b"FFF\0" else b""


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
    if body.startswith(_JPEG):
        return _jpeg_ls(body, height, width)
    plain = np.frombuffer(body, f"{order}u2", count=width * height)
    return plain.reshape(height, width).astype(np.uint16)


def _jpeg_ls(body: bytes, height: int, width: int) -> npt.NDArray[np.uint16]:
    """Counts as CSQ files hold them. The size is compared first: the codec takes what it says."""
    frame = body.find(_FRAME_LS, 0, 1024)
    if frame < 0 or struct.unpack_from(">HH", body, frame + 5) != (height, width):
        raise InputError(f"its raw thermal image is not {height}x{width} as stated; {_NO_REMEDY}")
    try:
        counts = np.asarray(imagecodecs.jpegls_decode(body))
    except imagecodecs.JpeglsError:
        raise InputError("its raw thermal image is damaged; copy it again") from None
    if counts.shape != (height, width) or counts.dtype != np.uint16:
        raise InputError(f"its raw thermal image is {counts.dtype}, not 16-bit; {_NO_REMEDY}")
    return counts


def _smoother_order(counts: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint16]:
    """PNG prescribes big-endian, yet most FLIR cameras put little-endian counts into it.

    In the wrong order the low byte of neighbours leads and the picture is noise; so the order with
    the smaller steps is right. Without any step the usual one is taken.
    """
    swapped = counts.byteswap()

    def steps(image: Array) -> float:
        return float(np.abs(np.diff(image.astype(np.float64), axis=1)).sum())

    return counts if steps(counts) < steps(swapped) else swapped
