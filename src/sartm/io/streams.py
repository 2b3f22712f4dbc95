"""What JPEG and PNG say before they are decoded: their size, their scans, whether they end."""

import re
from dataclasses import dataclass

from sartm.errors import InputError

MAX_SCANS = 100
"""Scans that are decoded: encoders make 10, and each costs the time of a whole picture."""

# In the compressed pixels 0xFF is followed by 0 or a restart marker, so this finds what comes next.
_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])", re.DOTALL)
_NO_FRAMES = {0xC4, 0xC8, 0xCC}


@dataclass
class Jpeg:
    """The frame and the length of a stream; zeros for what was not found."""

    height: int = 0
    width: int = 0
    bands: int = 0
    bits: int = 0
    scans: int = 0
    ends: bool = False
    """Whether an end marker follows the pixels; decoders fill what is missing with grey."""


def describe_jpeg(data: bytes) -> Jpeg:
    """Walk over the markers of the first picture in `data`, those of its thumbnails left out."""
    found, place = Jpeg(), 2
    while marker := _MARKER.search(data, place):
        kind, place = marker[1][0], marker.end()
        if kind == 0xD9:
            found.ends = found.scans > 0
            break
        if kind == 0xDA:
            found.scans += 1
        if 0xC0 <= kind <= 0xCF and kind not in _NO_FRAMES:
            found.bits = int.from_bytes(data[place + 2 : place + 3])
            found.height = int.from_bytes(data[place + 3 : place + 5])
            found.width = int.from_bytes(data[place + 5 : place + 7])
            found.bands = int.from_bytes(data[place + 7 : place + 8])
        place += int.from_bytes(data[place : place + 2])
    return found


def check_stream(data: bytes, kind: str, name: str) -> None:
    """Refuse what is cut off: decoders fill it with grey. And a JPEG of endless scans."""
    jpeg = describe_jpeg(data) if kind == "jpeg" else Jpeg(ends=True)
    if not jpeg.ends or (kind == "png" and not _ends(data)):
        raise InputError(f"{name}: the file is cut off ({len(data)} bytes); copy it again")
    if jpeg.scans > MAX_SCANS:
        raise InputError(
            f"{name}: a JPEG of {jpeg.scans} scans, where {MAX_SCANS} are plenty; save it again"
        )


def _ends(png: bytes) -> bool:
    """Whether every chunk up to IEND fits into the file; decoders make room for what one claims."""
    place = 8
    while place + 12 <= len(png):
        length, kind = int.from_bytes(png[place : place + 4], "big"), png[place + 4 : place + 8]
        place += 12 + length
        if kind == b"IEND":
            return place <= len(png)
    return False
