"""The folder named on the command line: its pairs to correct, and where their labels are saved."""

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from sartm.classes import Classes
from sartm.data.layouts import open_layout
from sartm.data.matching import pair_folder
from sartm.data.sets import Layout, Pair
from sartm.errors import InputError
from sartm.io.cameras import Camera
from sartm.io.labels import write_label
from sartm.io.sources import Member

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Annotation:
    """Pairs in the order they are stepped through."""

    name: str
    classes: Classes
    pairs: tuple[Pair, ...]
    """`label` is what is there before anybody corrects it; it may be missing."""
    targets: tuple[Path, ...]
    """PNG that a pair's label is saved to, one per pair."""
    cameras: tuple[Camera, ...]
    """How the thermal image of each pair is read."""
    resize_thermal: bool = False
    """Thermal shows the view of RGB in another size."""
    said: str = ""
    """What was paired, and where labels go."""


def open_annotation(folder: Path, out: Path | None, classes: Classes) -> Annotation:
    """Find the pairs of a folder and the file each label goes to.

    Args:
        folder: a data set, with or without labels; or a folder of pairs (`pair_folder`); or one of
            images alone.
        out: folder for <name>.png; without it a data set's own label files, else FOLDER/labels.
        classes: used where the folder is no data set, which would have its own.

    Raises:
        InputError: no pairs are found, two would be saved to one file, or a label would replace an
            image or another pair's label, or lie outside the folder that was named, or
            among labels that are colours.
    """
    if not folder.is_dir():
        raise InputError(f"--annotate {folder}: no such folder; name one with images")
    layout, found_there = _layout(folder), ""
    if layout is not None:
        pairs: Iterable[Pair] = [pair for split in layout.splits.values() for pair in split]
        classes = layout.classes
    else:
        pairs, found_there = _unlabelled_pairs(folder)
    if layout is not None and any(isinstance(pair.rgb, Member) for pair in pairs):
        raise InputError(
            f"--annotate {folder}: labels in tar shards cannot be corrected; take them apart "
            f"first: sartm data convert {folder} --out FOLDER"
        )
    unique = {(pair.rgb, pair.thermal, pair.four_channel): pair for pair in pairs}
    found = tuple(unique.values())
    cameras = tuple(Camera() if layout is None else layout.camera_of(pair) for pair in found)
    targets = tuple(_target(pair, folder, out) for pair in found)
    if len(set(targets)) < len(targets):
        double = next(path for path in targets if targets.count(path) > 1)
        raise InputError(f"two pairs would be saved as {double}; rename one or annotate them apart")
    _check_targets(found, targets, out or folder)
    coloured = {pair.label.parent.resolve() for pair in found if pair.label and pair.coloured_label}
    if coloured & {target.parent.resolve() for target in targets}:
        raise InputError(
            f"--annotate {folder}: its labels are colours or grey values, and what is saved among "
            f"them would be class ids. Make ids of all (sartm data convert {folder} --out FOLDER) "
            f"and annotate those, or name another folder with --annotations"
        )
    if layout is not None:
        found_there = f"{len(found)} pairs of data set {layout.name}"
    places = sorted({str(target.parent) for target in targets})
    more = f" and {len(places) - 1} more folders" if len(places) > 1 else ""
    return Annotation(
        folder.resolve().name,
        classes,
        found,
        targets,
        cameras,
        layout is not None and layout.resize_thermal,
        f"{folder}: {found_there}; labels go to {places[0]}{more}; classes: "
        f"{', '.join(classes.names)}",
    )


def _check_targets(pairs: Sequence[Pair], targets: Sequence[Path], folder: Path) -> None:
    """Refuse to save over what is read, or elsewhere than in the folder."""
    images = {
        path.resolve(): path
        for pair in pairs
        for path in (pair.rgb, pair.thermal, pair.four_channel)
        if path is not None
    }
    labels = {pair.label.resolve(): index for index, pair in enumerate(pairs) if pair.label}
    named = [folder.resolve(), Path(os.path.normpath(folder.absolute()))]
    for index, target in enumerate(targets):
        resolved = target.resolve()
        if resolved in images:
            raise InputError(
                f"the label of {pairs[index].name} would replace the image {target}; name another "
                f"folder with --annotations"
            )
        if labels.get(resolved, index) != index:
            raise InputError(
                f"the label of {pairs[index].name} would replace that of another pair, {target}; "
                f"name another folder with --annotations"
            )
        # By its name: a link to a folder elsewhere is the choice of whoever made it.
        where = Path(os.path.normpath(target.absolute()))
        if not any(where.is_relative_to(folder) for folder in named):
            raise InputError(
                f"the label of {pairs[index].name} would be saved as {target}, outside {folder}; "
                f"name a folder with --annotations"
            )


def _layout(folder: Path) -> Layout | None:
    """The data set in a folder; None where it holds images without labels and class names."""
    if (folder / "dataset.toml").is_file():
        return open_layout(folder, labels=False)
    try:
        return open_layout(folder)
    except InputError:
        return None


def _unlabelled_pairs(folder: Path) -> tuple[list[Pair], str]:
    """The pairs of a plain folder, images without a partner too, and what was paired."""
    found = pair_folder(folder)
    pairs = [*found.pairs, *found.alone]
    if not pairs:
        raise InputError(f"--annotate {folder}: no images found")
    return pairs, found.describe()


def _target(pair: Pair, folder: Path, out: Path | None) -> Path:
    label = pair.label
    if out is None and label and label.suffix.lower() == ".png" and not pair.coloured_label:
        return label
    return (out or folder / "labels") / f"{pair.name}.png"


def label_file(annotation: Annotation, index: int) -> Path | None:
    """The label of a pair as saved last, else as the data set has it, else None."""
    pair, target = annotation.pairs[index], annotation.targets[index]
    return next((path for path in (target, pair.label) if path and path.is_file()), None)


def is_coloured(annotation: Annotation, index: int, path: Path) -> bool | None:
    """Whether a label file of a pair holds colours, None if it may; what is saved holds ids."""
    pair = annotation.pairs[index]
    if path == annotation.targets[index]:  # as it was, or as it was saved: ids in one channel
        return None if pair.coloured_label is None else False
    return pair.coloured_label


def tagged_label(annotation: Annotation, index: int) -> tuple[Path | None, str]:
    """The label of a pair (`label_file`) and the entity tag of its bytes; None and "" if none."""
    path = label_file(annotation, index)
    if path is None:
        return None, ""
    return path, f'"{hashlib.sha256(path.read_bytes()).hexdigest()[:32]}"'


def save_label(annotation: Annotation, index: int, labels: Array) -> str:
    """Write (H, W) checked class ids; the entity tag of the file. Atomic.

    Raises:
        InputError: it cannot be written.
    """
    target = annotation.targets[index]
    try:
        write_label(target, labels)
    except OSError as error:
        raise InputError(
            f"cannot write {target.name}: {error.strerror}; check the folder of the labels"
        ) from None
    return tagged_label(annotation, index)[1]
