"""FLIR's thermal films, SEQ and CSQ: one file of records after another, each with its picture."""

import math
import mmap
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

from sartm.data.pairs import RawImages
from sartm.errors import InputError, unreadable
from sartm.files import require_plain
from sartm.inference.frames import Frame, Stream
from sartm.inference.pictures import Role
from sartm.io.cameras import Camera, prepare_thermal
from sartm.io.flir import find_records, read_moment, read_records
from sartm.io.holes import find_holes

SUFFIXES = frozenset({".seq", ".csq"})
_RATE = Fraction(30)
"""Frames per second where the pictures do not say when they were taken."""


def open_sequence(
    path: Path, role: Role, camera: Camera, max_pixels: int, begin: float | None
) -> Stream:
    """Open a SEQ or CSQ; counts, or Celsius where `camera.radiometric`.

    Raises InputError where it cannot be read, or is to be something else than thermal.
    """
    if role != "thermal":
        raise InputError(f"{path}: a FLIR sequence is thermal; give it as --thermal")
    try:
        require_plain(path)
        with path.open("rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:  # ValueError: it is empty
        raise unreadable(path, error) from None
    places = find_records(data)
    if not places:
        data.close()
        raise InputError(f"{path}: not a FLIR sequence, or damaged; copy it again")
    ends = [*places[1:], len(data)]
    moments = [read_moment(data[start:end]) for start, end in
               ((places[0], ends[0]), (places[-1], ends[-1]))]  # fmt: skip
    rate, known = _RATE, moments[0] is not None
    if moments[0] is not None and moments[1] is not None and moments[1] > moments[0]:
        seconds = moments[1] - moments[0]
        rate = Fraction((len(places) - 1) / seconds).limit_denominator(1001)
    rate = min(max(rate, Fraction(1, 1000)), Fraction(1000))
    stream = Stream(str(path), iter(()), rate, len(places))
    stream.begin = (moments[0] if begin is None else begin) if known else None
    stream.frames = _frames(data, list(zip(places, ends, strict=True)), stream, camera, max_pixels)
    return stream


def _frames(
    data: Any, places: list[tuple[int, int]], stream: Stream, camera: Camera, max_pixels: int
) -> Iterator[Frame]:
    last = -math.inf
    with data:
        for index, (start, end) in enumerate(places):
            part = bytes(data[start:end])
            moment = read_moment(part) if stream.begin is not None else None
            if moment is None or stream.begin is None:
                seconds = float(index / stream.rate)
            else:
                seconds = moment - stream.begin
            last = max(seconds, last + 1e-6)

            def load(part: bytes = part, index: int = index) -> RawImages:
                name = f"{stream.name}, frame {index}"
                raw = read_records(part, name, camera.radiometric, max_pixels)
                thermal, unseen = prepare_thermal(raw, camera), find_holes(raw, camera.holes)
                return RawImages(None, thermal, unseen, black_hot=camera.black_hot)

            yield Frame(index, last, load)
