"""The folder named on the command line: its pairs to correct, and where their labels are saved."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sartm.classes import Classes
from sartm.data.finding import find_pairs
from sartm.data.layouts import Layout, Pair, open_layout
from sartm.data.pairs import Sample, check_ids, read_pair
from sartm.errors import InputError
from sartm.io.cameras import Camera
from sartm.io.decode import Upload
from sartm.io.labels import read_label, write_label

Array = npt.NDArray[Any]

RGB_FOLDERS = ("rgb", "RGB", "visible", "Visible", "vi", "images")
THERMAL_FOLDERS = ("thermal", "Thermal", "infrared", "Infrared", "ir", "ther")


@dataclass(frozen=True)
class Annotation:
    """Pairs in the order they are stepped through."""

    name: str
    classes: Classes
    pairs: tuple[Pair, ...]
    """`label` is what is there before anybody corrects it; it may be missing."""
    targets: tuple[Path, ...]
    """PNG that a pair's label is saved to, one per pair."""
    camera: Camera
    """How thermal is read."""


def open_annotation(folder: Path, out: Path | None, classes: Classes) -> Annotation:
    """Find the pairs of a folder and the file each label goes to.

    Args:
        folder: a data set, with or without labels; or a folder with the sub-folders rgb and thermal
            (or names that benchmarks use); or one of images alone.
        out: folder for <name>.png; without it a data set's own label files, else FOLDER/labels.
        classes: used where the folder is no data set, which would have its own.

    Raises:
        InputError: no pairs are found, or two would be saved to one file.
    """
    if not folder.is_dir():
        raise InputError(f"--annotate {folder}: no such folder; name one with images")
    layout = _layout(folder)
    if layout is not None:
        pairs: Iterable[Pair] = (pair for split in layout.splits.values() for pair in split)
        classes, camera = layout.classes, Camera(black_hot=layout.black_hot, holes=layout.holes)
    else:
        pairs, camera = _unlabelled_pairs(folder), Camera()
    unique = {(pair.rgb, pair.thermal, pair.four_channel): pair for pair in pairs}
    found = tuple(unique.values())
    targets = tuple(_target(pair, folder, out) for pair in found)
    if len(set(targets)) < len(targets):
        double = next(path for path in targets if targets.count(path) > 1)
        raise InputError(f"two pairs would be saved as {double}; rename one or annotate them apart")
    return Annotation(folder.resolve().name, classes, found, targets, camera)


def _layout(folder: Path) -> Layout | None:
    """The data set in a folder; None where it holds images without labels and class names."""
    if (folder / "dataset.toml").is_file():
        return open_layout(folder, labels=False)
    try:
        return open_layout(folder)
    except InputError:
        return None


def _unlabelled_pairs(folder: Path) -> list[Pair]:
    rgb = _first_folder(folder, RGB_FOLDERS)
    thermal = _first_folder(folder, THERMAL_FOLDERS)
    if rgb is None and thermal is None:
        rgb = folder
    found, _ = find_pairs(rgb, thermal, allow_single=True)
    return found


def _first_folder(folder: Path, names: tuple[str, ...]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_dir()), None)


def _target(pair: Pair, folder: Path, out: Path | None) -> Path:
    label = pair.label
    if out is None and label and label.suffix.lower() == ".png" and not pair.coloured_label:
        return label
    return (out or folder / "labels") / f"{pair.name}.png"


def read_images(annotation: Annotation, index: int, max_pixels: int) -> Sample:
    """RGB and thermal of a pair, white-hot; InputError as `read_pair`."""
    pair = replace(annotation.pairs[index], label=None)
    return read_pair(pair, four_channel="auto", camera=annotation.camera, max_pixels=max_pixels)


def label_file(annotation: Annotation, index: int) -> Path | None:
    """The label of a pair as saved last, else as the data set has it, else None."""
    pair, target = annotation.pairs[index], annotation.targets[index]
    return next((path for path in (target, pair.label) if path and path.is_file()), None)


def read_saved(annotation: Annotation, index: int, max_pixels: int) -> Array | None:
    """(H, W) ids of `label_file`; None where there is none."""
    pair, classes = annotation.pairs[index], annotation.classes
    path = label_file(annotation, index)
    if path is None:
        return None
    coloured = pair.coloured_label and path != annotation.targets[index]
    colours = classes.palette if coloured else ()
    labels = read_label(path, classes.ignore, colours, max_pixels)
    check_ids(labels, classes, path.name)
    return labels


def save_label(annotation: Annotation, index: int, upload: Upload, max_pixels: int) -> None:
    """Check a label of the pair's size and with its class table's ids, and write it. Atomic.

    Raises:
        InputError: no readable label, another size, unknown ids, or it cannot be written.
    """
    labels = read_label(upload, annotation.classes.ignore, max_pixels=max_pixels)
    size = read_images(annotation, index, max_pixels).size
    if labels.shape != size:
        raise InputError(
            f"the label is {labels.shape[0]}x{labels.shape[1]} but the pair is "
            f"{size[0]}x{size[1]}; send one of its size"
        )
    check_ids(labels, annotation.classes, upload.name)
    target = annotation.targets[index]
    try:
        write_label(target, np.ascontiguousarray(labels))
    except OSError as error:
        raise InputError(
            f"cannot write {target.name}: {error.strerror}; check the folder of the labels"
        ) from None
