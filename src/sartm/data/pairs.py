"""Pairs as arrays: reading with every check, and the data set."""

import copy
import hashlib
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from sartm.classes import Classes
from sartm.data.layouts import open_layout
from sartm.data.sets import Layout, Pair, ThermalUnit, camera_of
from sartm.errors import InputError
from sartm.io.cameras import Camera, prepare_thermal, read_raw
from sartm.io.decode import FourChannel, read_four_channel, read_rgb, read_rgb_alone
from sartm.io.header import MAX_PIXELS
from sartm.io.holes import find_holes
from sartm.io.labels import read_label
from sartm.io.sources import Source
from sartm.io.thermal import Levels
from sartm.registration.estimate import AlignedThermal
from sartm.spaces import choose_space, unknown_words

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]

REGISTER = (
    "Bring thermal onto the pixels of RGB first: sartm data align, which estimates how they lie or "
    "takes --calibration FILE"
)
RESIZE_OR_REGISTER = (
    "If both show the same field of view, predict and video take --resize-thermal; if not, "
    "register the cameras first: sartm data align"
)


@dataclass(frozen=True)
class Sample:
    """One pair as read: raw values, all present arrays of one height and width."""

    name: str
    rgb: npt.NDArray[np.uint8] | None
    """(H, W, 3), RGB order."""
    thermal: Array | None
    """(H, W) uint8, uint16 or float32; a model's thermal rule makes [0, 1] of it."""
    label: Array | None = None
    """(H, W) uint8 or uint16 class ids."""
    note: str = ""
    """What the user should know about how it was read."""
    unseen: Mask | None = None
    """(H, W) true where `thermal` is no measurement but stands in for one; None: nowhere."""
    black_hot: bool = False
    """Whether `thermal` is the inverse of what the file holds."""
    levels: Levels | None = None
    """What becomes 0 and 1 of `thermal` at prediction; None: what the predictor makes of it."""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        image = self.rgb if self.rgb is not None else self.thermal
        if image is None:
            raise InputError(f"pair {self.name!r} has neither RGB nor thermal; give at least one")
        height, width = image.shape[:2]
        return height, width


@dataclass(frozen=True)
class RawImages:
    """The images of one pair, before they are compared with each other or with a label."""

    rgb: npt.NDArray[np.uint8] | None
    """(H, W, 3)."""
    thermal: Array | None
    """(H, W) of any size, as `Sample.thermal`."""
    unseen: Mask | None = None
    """(H, W) as `thermal`, as `Sample.unseen`."""
    note: str = ""
    """As `Sample.note`."""
    black_hot: bool = False
    """As `Sample.black_hot`."""

    def as_sample(self, name: str, label: Array | None = None) -> Sample:
        """Of images that lie on one grid."""
        return Sample(name, self.rgb, self.thermal, label, self.note, self.unseen, self.black_hot)


class PairDataset:
    """Samples by position; holds the pairs of one split and what their ids mean."""

    def __init__(
        self,
        pairs: Sequence[Pair],
        classes: Classes,
        *,
        name: str = "",
        split: str = "",
        subsets: dict[str, str] | None = None,
        thermal_unit: ThermalUnit = "display",
        black_hot: bool = False,
        holes: float | None = None,
        resize_thermal: bool = False,
    ) -> None:
        self.pairs = tuple(pairs)
        self.classes = self.written = classes
        self.ids: Array | None = None  # of `classes`, for each id of `written`
        self.name = name
        self.split = split
        self.subsets = dict(subsets or {})
        self.thermal_unit = thermal_unit
        self.black_hot = black_hot
        self.holes = holes
        self.resize_thermal = resize_thermal

    @classmethod
    def open(
        cls,
        path: str | Path,
        split: str = "train",
        limit: int | None = None,
        resize_thermal: bool = False,
    ) -> "PairDataset":
        """Open a split of a dataset.toml or of a benchmark's folder (`layouts.open_layout`).

        `limit` takes that many pairs, spread evenly over the split, so that day and night stay.
        """
        return cls.of(open_layout(path), split, limit, resize_thermal)

    @classmethod
    def of(
        cls,
        layout: Layout,
        split: str = "train",
        limit: int | None = None,
        resize_thermal: bool = False,
    ) -> "PairDataset":
        """A split of an open layout."""
        if split not in layout.splits:
            raise InputError(
                f"data set {layout.name} ({layout.root}) has no split {split!r}; "
                f"it has {', '.join(layout.splits)}"
            )
        pairs = layout.splits[split]
        if limit is not None:
            if limit < 1:
                raise InputError(f"limit is {limit}; at least one pair is needed")
            count = min(limit, len(pairs))
            pairs = tuple(pairs[index * len(pairs) // count] for index in range(count))
        return cls(
            pairs,
            layout.classes,
            name=layout.name,
            split=split,
            subsets=layout.subsets,
            thermal_unit=layout.thermal_unit,
            black_hot=layout.black_hot,
            holes=layout.holes,
            resize_thermal=resize_thermal or layout.resize_thermal,
        )

    def replace(self, pairs: Sequence[Pair], split: str | None = None) -> "PairDataset":
        """The same data set with other pairs, and another split's name if given."""
        other = copy.copy(self)
        other.pairs = tuple(pairs)
        other.split = self.split if split is None else split
        return other

    def relabel(self, classes: Classes) -> "PairDataset":
        """The same pairs with labels in other classes, all of which this set must have.

        Its other classes count as the rest of `classes`, or as `ignore` where there is none.

        Raises InputError for a class that this set has no labels of.
        """
        missing = unknown_words(self.written, classes)
        if missing:
            raise InputError(
                f"data set {self.name} has no labels of {', '.join(map(repr, missing))}; "
                f"it has {', '.join(self.written.names)}"
            )
        space = choose_space(self.written, classes)
        left = classes.ignore if classes.rest is None else classes.rest
        kind = np.uint8 if classes.ignore <= 255 else np.uint16
        ids = np.full(max(len(self.written), self.written.ignore + 1), left, kind)
        ids[self.written.ignore] = classes.ignore
        for index, place in enumerate(space.picks):
            if place is not None:
                ids[place] = index
        other = copy.copy(self)
        other.classes, other.ids = classes, ids
        return other

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        pair = self.pairs[index]
        camera = self.camera_of(pair)
        sample = read_pair(pair, self.written, resize_thermal=self.resize_thermal, camera=camera)
        if self.ids is None or sample.label is None:
            return sample
        return replace(sample, label=self.ids[sample.label])

    def instances(self, index: int) -> Array | None:
        """(H, W) a number for each thing of a pair's label, 0 for none; None where nobody knows."""
        pair = self.pairs[index]
        return read_label(pair.instances, 0, ()) if pair.instances and pair.numbered else None

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    def camera_of(self, pair: Pair) -> Camera:
        """How the thermal image of a pair is read (`Layout.camera_of`)."""
        return camera_of(pair, self.thermal_unit, self.black_hot, self.holes)

    def subset_of(self, name: str) -> list[str]:
        """The subsets (day, night, ...) a pair of that name belongs to."""
        return [subset for subset, rule in self.subsets.items() if re.search(rule, name)]


def read_pair(
    pair: Pair,
    classes: Classes | None = None,
    *,
    resize_thermal: bool = False,
    four_channel: FourChannel = "no",
    camera: Camera = Camera(),
    max_pixels: int = MAX_PIXELS,
    align: Callable[[RawImages], AlignedThermal] | None = None,
    remedy: str = REGISTER,
) -> Sample:
    """Read and check everything that belongs to a pair.

    `four_channel` says what a 4th channel of an RGB image without thermal partner is, `camera` how
    thermal is read (`Layout.camera_of`). `align` brings thermal of any size onto the pixels of
    RGB; `remedy` is what to do where sizes differ. With `classes` the label is read too, and its
    ids are checked.

    Raises:
        InputError: an unreadable file, sizes that differ (thermal is fitted to the size of RGB with
            `resize_thermal`), or label ids outside the class table.
    """
    sample = read_sources(
        pair.name, pair.rgb, pair.thermal, pair.four_channel,
        resize_thermal=resize_thermal, four_channel=four_channel, camera=camera,
        max_pixels=max_pixels, align=align, remedy=remedy,
    )  # fmt: skip
    if classes is None or pair.label is None:
        return sample
    label = read_label_of(pair, classes, max_pixels)
    image = sample.rgb if sample.rgb is not None else sample.thermal
    if image is not None and label.shape != image.shape[:2]:
        raise InputError(
            f"{pair.label}: the label is {format_size(label)} but its image is "
            f"{format_size(image)}; labels are never resized, use those that belong to the images"
        )
    return replace(sample, label=label)


def read_sources(
    name: str,
    rgb: Source | None,
    thermal: Source | None,
    both: Source | None = None,
    *,
    resize_thermal: bool = False,
    four_channel: FourChannel = "no",
    camera: Camera = Camera(),
    max_pixels: int = MAX_PIXELS,
    align: Callable[[RawImages], AlignedThermal] | None = None,
    remedy: str = REGISTER,
) -> Sample:
    """As `read_pair`, of files or bytes and without a label; `both` as `read_images` takes it."""
    images = read_images(
        rgb, thermal, both, four_channel=four_channel, camera=camera, max_pixels=max_pixels
    )
    if align is not None and images.rgb is not None and images.thermal is not None:
        aligned = align(images)
        images = replace(images, thermal=aligned.image, unseen=~aligned.valid)
    return match_sizes(images, f"pair {name!r}", resize_thermal, remedy).as_sample(name)


def read_images(
    rgb: Source | None,
    thermal: Source | None,
    both: Source | None = None,
    *,
    four_channel: FourChannel = "no",
    camera: Camera = Camera(),
    max_pixels: int = MAX_PIXELS,
) -> RawImages:
    """Read the images of a pair, files or uploads, whose sizes may differ still.

    `both` is RGB and thermal in one file, instead of the other two. Else as `read_pair`. With
    `camera.as_stored()` thermal is what the file holds, holes and all, such as to write it again.

    Raises InputError for a file that cannot be read.
    """
    colour: npt.NDArray[np.uint8] | None = None
    raw: Array | None = None
    note = ""
    if both is not None:
        colour, raw = read_four_channel(both, max_pixels)
    elif rgb is not None and thermal is None:
        colour, raw, note = read_rgb_alone(rgb, four_channel, max_pixels)
    else:
        colour = None if rgb is None else read_rgb(rgb, max_pixels)
        raw = None if thermal is None else read_raw(thermal, camera, max_pixels)
    if raw is None:
        return RawImages(colour, None, None, note)
    thermal_image, unseen = prepare_thermal(raw, camera), find_holes(raw, camera.holes)
    return RawImages(colour, thermal_image, unseen, note, camera.black_hot)


def read_label_of(pair: Pair, classes: Classes, max_pixels: int = MAX_PIXELS) -> Array:
    """The label (H, W) of a pair that has one, its ids checked."""
    assert pair.label is not None
    label = read_label(pair.label, classes.ignore, classes.palette, max_pixels, pair.coloured_label)
    check_ids(label, classes, pair.label)
    return label


def match_sizes(images: RawImages, name: str, resize_thermal: bool, remedy: str) -> RawImages:
    """The images with thermal of the size of RGB, resized where that is asked for.

    Raises InputError, with `remedy` as last sentence, where the sizes differ otherwise; and where
    one image is turned by a quarter against the other, since resizing would squeeze it.
    """
    rgb, thermal = images.rgb, images.thermal
    if rgb is None or thermal is None or rgb.shape[:2] == thermal.shape:
        return images
    sizes = f"{name}: RGB is {format_size(rgb)} but thermal is {format_size(thermal)}"
    if _is_turned(rgb, thermal):
        raise InputError(
            f"{sizes}: one is turned by a quarter (RGB is read upright, as its EXIF data say). "
            f"Turn the thermal image by a quarter too and write it again; then pass the pair again"
        )
    if not resize_thermal:
        raise InputError(f"{sizes}. {remedy}")
    size, unseen = rgb.shape[:2], images.unseen
    if unseen is not None:
        unseen = fit_thermal(unseen.astype(np.float32), size) > 0
    return replace(images, thermal=fit_thermal(thermal, size), unseen=unseen)


def _is_turned(first: Array, second: Array) -> bool:
    """Whether one is clearly upright and the other clearly lying."""
    upright, other = (math.log(image.shape[0] / image.shape[1]) for image in (first, second))
    return upright * other < 0 and min(abs(upright), abs(other)) > math.log(1.15)


def check_ids(label: Array, classes: Classes, where: str | Path) -> None:
    """Refuse a label (H, W) with ids that the class table does not have."""
    if not label.size or label.max() < len(classes):
        return
    ids, counts = np.unique(label, return_counts=True)
    for value, count in zip(ids, counts, strict=True):
        if value >= len(classes) and value != classes.ignore:
            raise InputError(
                f"{where}: {count} pixels have id {value}, but the class table has ids "
                f"0-{len(classes) - 1} and {classes.ignore} (ignore); correct the label or the "
                f"classes of the data set"
            )


def format_size(image: Array) -> str:
    """Height x width of an image, for messages."""
    return f"{image.shape[0]}x{image.shape[1]}"


def fit_thermal(thermal: Array, size: tuple[int, int]) -> Array:
    """Resize raw thermal (H, W) to `size` (height, width): averaged down, interpolated up."""
    smaller = size[0] * size[1] < thermal.size
    how = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(thermal, (size[1], size[0]), interpolation=how))


def describe_mixed_types(types: Iterable[tuple[str, str]]) -> str:
    """What is wrong with the thermal images of one set, by (name, number type); "" if nothing.

    The same value means something else in 8 and in 16 bits, and so does a rule's range.
    """
    names: dict[str, list[str]] = {}
    for name, kind in types:
        names.setdefault(kind, []).append(name)
    if len(names) < 2:
        return ""
    found = ", ".join(
        f"{kind} in {len(names[kind])} (such as {names[kind][0]!r})" for kind in sorted(names)
    )
    return f"thermal images are of several number types: {found}; write all of them in one"


def pixel_hash(*images: Array | None) -> str:
    """SHA-256 over decoded pixels, as a pair's RGB and thermal: equal for the same picture, type
    and size in any file."""
    digest = hashlib.sha256()
    for image in images:
        if image is None:
            digest.update(b"none;")
        else:
            digest.update(f"{image.dtype.name} {image.shape};".encode())
            digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()
