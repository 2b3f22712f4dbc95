"""Pairs as arrays: reading with every check, and the data set."""

import copy
import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from sartm.classes import Classes
from sartm.data.layouts import Layout, Pair, ThermalUnit, open_layout
from sartm.errors import InputError
from sartm.io.cameras import Camera, prepare_thermal, read_of_camera
from sartm.io.decode import MAX_PIXELS, FourChannel, read_four_channel, read_rgb, read_rgb_alone
from sartm.io.labels import read_label

Array = npt.NDArray[Any]


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

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        image = self.rgb if self.rgb is not None else self.thermal
        if image is None:
            raise InputError(f"pair {self.name!r} has neither RGB nor thermal; give at least one")
        height, width = image.shape[:2]
        return height, width


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
        self.classes = classes
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
            resize_thermal=resize_thermal,
        )

    def replace(self, pairs: Sequence[Pair], split: str | None = None) -> "PairDataset":
        """The same data set with other pairs, and another split's name if given."""
        other = copy.copy(self)
        other.pairs = tuple(pairs)
        other.split = self.split if split is None else split
        return other

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        pair = self.pairs[index]
        # Degrees in a JPEG are those of a radiometric one: its picture holds only grey levels.
        jpeg = pair.thermal is not None and pair.thermal.suffix.lower() in (".jpg", ".jpeg")
        radiometric = jpeg and self.thermal_unit == "celsius"
        camera = Camera(radiometric, self.black_hot, holes=self.holes)
        return read_pair(pair, self.classes, resize_thermal=self.resize_thermal, camera=camera)

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

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
    align: Callable[[Array, Array], Array] | None = None,
) -> Sample:
    """Read and check everything that belongs to a pair.

    `four_channel` says what a 4th channel of an RGB image without thermal partner is, `camera` how
    thermal is read. `align` makes of RGB (H, W, 3) and thermal of any size the thermal image
    (H, W). With `classes` the label is read too, and its ids are checked.

    Raises:
        InputError: an unreadable file, sizes that differ (thermal is fitted to the size of RGB with
            `resize_thermal`), or label ids outside the class table.
    """
    rgb, thermal, note = _read_images(pair, four_channel, camera, max_pixels)
    if align is not None and rgb is not None and thermal is not None:
        thermal = align(rgb, thermal)
    if rgb is not None and thermal is not None and rgb.shape[:2] != thermal.shape:
        if not resize_thermal:
            raise InputError(
                f"pair {pair.name!r}: RGB is {format_size(rgb)} but thermal is "
                f"{format_size(thermal)}. If both show the same field of view pass "
                f"--resize-thermal; if not, register the cameras first: sartm data align, or "
                f"predict with --align auto"
            )
        thermal = fit_thermal(thermal, rgb.shape[:2])
    label = None
    if classes is not None and pair.label is not None:
        colours = classes.palette if pair.coloured_label else ()
        label = read_label(pair.label, classes.ignore, colours, max_pixels)
        image = rgb if rgb is not None else thermal
        if image is not None and label.shape != image.shape[:2]:
            raise InputError(
                f"{pair.label}: the label is {format_size(label)} but its image is "
                f"{format_size(image)}; labels are never resized, use those that belong to the "
                f"images"
            )
        check_ids(label, classes, pair.label)
    return Sample(pair.name, rgb, thermal, label, note)


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


def pixel_hash(sample: Sample) -> str:
    """SHA-256 over the decoded RGB and thermal pixels: equal for the same picture in any file."""
    digest = hashlib.sha256()
    for image in (sample.rgb, sample.thermal):
        if image is None:
            digest.update(b"none;")
        else:
            digest.update(f"{image.dtype.name} {image.shape};".encode())
            digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()


def _read_images(
    pair: Pair, four_channel: FourChannel, camera: Camera, max_pixels: int
) -> tuple[npt.NDArray[np.uint8] | None, Array | None, str]:
    rgb: npt.NDArray[np.uint8] | None
    thermal: Array | None
    if pair.four_channel is not None:
        rgb, thermal = read_four_channel(pair.four_channel, max_pixels)
        return rgb, prepare_thermal(thermal, camera), ""
    if pair.rgb is not None and pair.thermal is None:
        rgb, thermal, note = read_rgb_alone(pair.rgb, four_channel, max_pixels)
        return rgb, None if thermal is None else prepare_thermal(thermal, camera), note
    rgb = None if pair.rgb is None else read_rgb(pair.rgb, max_pixels)
    thermal = None if pair.thermal is None else read_of_camera(pair.thermal, camera, max_pixels)
    return rgb, thermal, ""
