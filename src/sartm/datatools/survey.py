"""One pass over the pairs of a data set: what each holds, and what is wrong with it."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from sartm.data.pairs import RawImages, match_sizes, pixel_hash, read_images
from sartm.data.sets import Layout, Pair
from sartm.errors import InputError
from sartm.files import write_atomic
from sartm.io.holes import mark_holes
from sartm.io.labels import read_label
from sartm.outputs import shared_folder
from sartm.progress import Meter
from sartm.registration.offset import ShiftEvidence, measure_shift

Array = npt.NDArray[Any]
Item = TypeVar("Item")
Result = TypeVar("Result")

COMPARED = 32
"""Pairs from which `check` and `align` tell how the cameras lie."""

_SATURATED, _EMPTY = 0.25, 0.5
"""Share of pixels at the largest value of the number type, and at 0, from which it is said. Real
street scenes reach 0.001 and 0.04."""

WRAPPED_SHARE = 0.2
"""Of the 8-bit thermal images; a single one may show something burning beside something cold."""


@dataclass(frozen=True)
class Heat:
    """Facts of one thermal image."""

    kind: str
    low: float
    high: float
    mean: float
    pixels: int
    oddities: tuple[str, ...]
    """Kinds of `MEANING`."""


@dataclass(frozen=True)
class Facts:
    """All that is kept of a pair once its pixels are gone."""

    pair: Pair
    problems: tuple[tuple[str, str], ...]
    """Kind of `MEANING` and message."""
    size: tuple[int, int] | None
    rgb_hash: str
    thermal_hash: str
    ids: dict[int, int] | None
    """Label id -> pixels; None without a label."""
    heat: Heat | None
    shift: ShiftEvidence | None
    """How thermal lies on RGB, where that was asked for and can be seen."""


def over_all(
    items: Sequence[Item], work: Callable[[Item], Result], description: str, unit: str = "pairs"
) -> list[Result]:
    """`work` of every item on all cores, in order, with progress; the first error ends it.

    Threads, since decoding, hashing and encoding release the interpreter's lock.
    """
    results = []
    allowed = getattr(os, "sched_getaffinity", None)  # not every system has it
    threads = len(allowed(0)) if allowed else os.cpu_count() or 1
    with (
        ThreadPoolExecutor(threads, "sartm") as pool,
        Meter(description, len(items), unit) as meter,
    ):
        try:
            for result in pool.map(work, items):
                results.append(result)
                meter.advance()
        except BaseException:  # else leaving the pool would finish everything first
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return results


def spread_over(items: Sequence[Item], most: int) -> list[Item]:
    """At most so many of them, evenly over the sequence."""
    count = min(most, len(items))
    return [items[index * len(items) // count] for index in range(count)]


def splits_of_pairs(layout: Layout) -> dict[Pair, list[str]]:
    """Each pair once, in order, with the splits that hold it (twice where listed twice)."""
    splits: dict[Pair, list[str]] = {}
    for split, pairs in layout.splits.items():
        again = layout.repeated.get(split, ())
        for pair in pairs:
            splits.setdefault(pair, []).extend([split] * (1 + (pair.name in again)))
    return splits


@dataclass(frozen=True)
class Parts:
    """The images of a pair that could be read, each by itself, and why the others could not."""

    rgb: Array | None
    thermal: Array | None
    """In the unit of the data set, not inverted where black-hot, holes filled."""
    unseen: npt.NDArray[np.bool_] | None
    """(H, W) true where thermal was a hole."""
    label: Array | None
    messages: tuple[str, ...]


def read_parts(pair: Pair, layout: Layout) -> Parts:
    """What can be read of a pair, and messages for what cannot."""
    messages: list[str] = []

    def attempt(read: Callable[[], Result]) -> Result | None:
        try:
            return read()
        except InputError as error:
            messages.append(str(error))
            return None

    classes, ids = layout.classes, pair.label
    camera = replace(layout.camera_of(pair), black_hot=False)
    nothing = RawImages(None, None)
    both = attempt(lambda: read_images(None, None, pair.four_channel, camera=camera)) or nothing
    visible = attempt(lambda: read_images(pair.rgb, None)) or nothing
    infrared = attempt(lambda: read_images(None, pair.thermal, camera=camera)) or nothing
    warm = infrared if pair.thermal else both
    if layout.resize_thermal and pair.thermal:
        images = replace(warm, rgb=visible.rgb)
        warm = attempt(lambda: match_sizes(images, pair.name, True, "")) or warm
    how, colours = pair.coloured_label, classes.palette
    label = attempt(lambda: read_label(ids, classes.ignore, colours, coloured=how)) if ids else None
    rgb = visible.rgb if pair.rgb else both.rgb
    return Parts(rgb, warm.thermal, warm.unseen, label, tuple(messages))


def inspect_pair(pair: Pair, layout: Layout, with_shift: bool = False) -> Facts:
    """Read a pair and keep the facts; `with_shift` measures how far thermal is off RGB."""
    read, classes = read_parts(pair, layout), layout.classes
    rgb, thermal, label = read.rgb, read.thermal, read.label
    problems = [("unreadable", message) for message in read.messages]
    named = (("RGB", rgb), ("thermal", thermal), ("label", label))
    sizes = {what: _size(image) for what, image in named if image is not None}
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{what} {height}x{width}" for what, (height, width) in sizes.items())
        problems.append(("size", f"{pair.name}: {listed}"))
    counts = None if label is None else _count_ids(label)
    unknown = [id_ for id_ in counts or () if id_ >= len(classes) and id_ != classes.ignore]
    if counts and unknown:
        found = ", ".join(f"{id_} ({counts[id_]} pixels)" for id_ in unknown[:5])
        more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
        problems.append(("ids", f"{pair.label}: {found}{more}; known are 0-{len(classes) - 1}"))
    shift = None
    if with_shift and rgb is not None and thermal is not None:
        marked = thermal
        if read.unseen is not None and layout.holes is not None:  # which the estimate leaves out
            marked = mark_holes(thermal, read.unseen, layout.holes)
        shift = measure_shift(rgb, marked)
    return Facts(
        pair,
        tuple(problems),
        next(iter(sizes.values()), None),
        "" if rgb is None else pixel_hash(rgb),
        "" if thermal is None else pixel_hash(thermal),
        counts,
        None if thermal is None else _describe_heat(thermal, read.unseen),
        shift,
    )


def _size(image: Array) -> tuple[int, int]:
    return int(image.shape[0]), int(image.shape[1])


def _count_ids(label: Array) -> dict[int, int]:
    counts = np.bincount(label.ravel())
    return {int(id_): int(counts[id_]) for id_ in np.flatnonzero(counts)}


def _describe_heat(thermal: Array, unseen: npt.NDArray[np.bool_] | None) -> Heat:
    """Range, mean and what is odd about the measured of raw thermal values (H, W)."""
    measured = thermal.ravel() if unseen is None else thermal[~unseen]
    kind, pixels = thermal.dtype, measured.size
    if kind.kind == "f":
        low, high = float(measured.min()), float(measured.max())
        mean = float(measured.mean(dtype=np.float64))
        odd = ("constant",) if low == high else ()
        return Heat(kind.name, low, high, mean, pixels, odd)
    counts = np.bincount(measured, minlength=256)
    present = np.flatnonzero(counts)
    low, high = int(present[0]), int(present[-1])
    mean = float(counts @ np.arange(counts.size)) / pixels
    oddities = []
    top = int(np.iinfo(kind).max)
    if low == high:
        oddities.append("constant")
    elif counts[0] >= _EMPTY * pixels or (high == top and counts[top] >= _SATURATED * pixels):
        oddities.append("saturated")
    elif kind == np.uint8 and present.size <= 16:
        oddities.append("coarse")
    elif kind == np.uint8 and _wraps_around(thermal):
        oddities.append("wrapped")
    if kind == np.uint16 and (high <= 255 or not (present % 257).any()):
        oddities.append("narrow")
    return Heat(kind.name, low, high, mean, pixels, tuple(oddities))


def _wraps_around(thermal: Array) -> bool:
    """Whether large steps between neighbours are nearly all from one end of 0-255 to the other.

    Lenses blur, so a scene that reaches both ends passes through the middle; counts of which the
    upper byte was dropped do not.
    """
    large = farthest = 0
    for step in (
        cv2.absdiff(thermal[:, 1:], thermal[:, :-1]),
        cv2.absdiff(thermal[1:], thermal[:-1]),
    ):
        large += int(np.count_nonzero(step >= 128))
        farthest += int(np.count_nonzero(step >= 224))
    return large > 0.002 * thermal.size and farthest > 0.6 * large


def write_output(path: Path, data: bytes) -> None:
    """Write a file into --out, whole or not at all."""
    try:
        with shared_folder(path.parent):
            write_atomic(path, data)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}; choose another --out") from None
