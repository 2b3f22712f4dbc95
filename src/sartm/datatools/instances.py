"""Label maps as instances: COCO and YOLO, each connected part of a class an object of its own."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import yaml

from sartm.classes import Classes, is_rest
from sartm.data.layouts import open_layout
from sartm.data.names import UNLABELLED
from sartm.data.pairs import read_label_of
from sartm.data.sets import Pair
from sartm.datatools.shapes import trace
from sartm.datatools.survey import over_all
from sartm.datatools.writing import (
    Place,
    copy_or_write,
    describe_deep_rgb,
    place_pairs,
    read_stored,
    toml_files,
)
from sartm.errors import InputError
from sartm.files import write_atomic
from sartm.io.labels import read_label
from sartm.io.run_lengths import encode_masks
from sartm.objects.parts import Parts, find_parts
from sartm.outputs import finished_folder

Array = npt.NDArray[Any]
Export = Literal["coco", "yolo"]


@dataclass(frozen=True)
class Labelled:
    """One image and its label map."""

    name: str
    """Path without suffix, of the text that YOLO has per image."""
    file: str
    """Of the image, as COCO names it."""
    read: Callable[[], Array]
    """Makes the label map (H, W)."""


@dataclass(frozen=True)
class Exported:
    """What was written."""

    out: str
    layout: Export
    pairs: int
    splits: dict[str, int]
    instances: int
    lost: tuple[str, ...]


def export_dataset(source: str | Path, to: Export, out: str | Path, min_area: int = 1) -> Exported:
    """Write a data set as COCO (run lengths, exact) or YOLO segmentation (polygons, exact too).

    RGB lies in images/, thermal under the same names in thermal/. Parts of fewer than `min_area`
    pixels are left out, as are pixels of no class and of the class that stands for the rest.

    A pair of several splits is in the first of them only: two annotations of one image are none.

    Raises InputError where a pair has no label or cannot be read, or `out` is not empty.
    """
    layout = open_layout(source)
    classes = layout.classes
    splits = {
        split: tuple(pair for pair in pairs if pair.label) if split == UNLABELLED else pairs
        for split, pairs in layout.splits.items()
        if any(pair.label for pair in pairs)
    }
    if not splits:
        raise InputError(f"{source}: no pair has a label; there is nothing to export")
    splits, lost = _once(splits)
    places = place_pairs(layout, splits, "dataset.toml")
    files, copied = toml_files(places, layout, thermal_copied=True)
    by_pair = {place.pair: place for place in places}
    instances = ignored = 0
    with finished_folder(Path(out)) as root:
        for split, pairs in splits.items():
            apart = f"{split}/" if to == "yolo" or any(place.folder for place in places) else ""
            some = [_labelled(pair, apart, files, classes) for pair in pairs]
            over_all(
                [by_pair[pair] for pair in pairs],
                partial(_copy_images, apart=apart, root=root, files=files, copied=copied),
                f"images of {split}",
            )
            target = root / (f"annotations/{split}.json" if to == "coco" else "labels")
            parts, left = write_instances(some, classes, target, to, min_area)
            instances, ignored = instances + parts, ignored + left
        if to == "yolo":
            folders = {split: f"images/{split}" for split in splits}
            write_atomic(root / "data.yaml", _yolo_yaml(classes, folders).encode())
    if "rgb" in files and "rgb" not in copied:
        lost += describe_deep_rgb(places)
    if ignored:
        lost.append(f"{ignored} pixels of no class, or of parts below --min-area {min_area}")
    counts = {split: len(pairs) for split, pairs in splits.items()}
    return Exported(str(out), to, len(places), counts, instances, tuple(lost))


def _once(
    splits: dict[str, tuple[Pair, ...]],
) -> tuple[dict[str, tuple[Pair, ...]], list[str]]:
    """The splits with each pair in its first only, and what is lost by that."""
    seen: set[Pair] = set()
    kept, lost = {}, []
    for split, pairs in splits.items():
        new = tuple(pair for pair in pairs if pair not in seen)
        seen.update(new)
        if new:
            kept[split] = new
        if len(new) < len(pairs):
            lost.append(f"that {len(pairs) - len(new)} pairs are of split {split} too")
    return kept, lost


def _labelled(pair: Pair, apart: str, files: dict[str, str], classes: Classes) -> Labelled:
    if pair.label is None:
        raise InputError(f"pair {pair.name!r} has no label; label it, or take it out of its split")
    suffix = Path(files.get("rgb", files.get("thermal", ".png"))).suffix
    name = f"{apart}{pair.name}"
    return Labelled(name, f"{name}{suffix}", partial(read_label_of, pair, classes))


def _copy_images(
    place: Place,
    apart: str,
    root: Path,
    files: dict[str, str],
    copied: frozenset[str],
) -> None:
    images, names = read_stored(place), {"rgb": "images", "thermal": "thermal"}
    for kind, image in (("rgb", images.rgb), ("thermal", images.thermal)):
        if image is not None and kind in files:
            path = root / names[kind] / f"{apart}{place.pair.name}{Path(files[kind]).suffix}"
            copy_or_write(getattr(place.pair, kind) if kind in copied else None, path, image)


def write_instances(
    labels: Sequence[Labelled], classes: Classes, target: Path, to: Export, min_area: int
) -> tuple[int, int]:
    """Write the parts of label maps: one COCO file, or a folder of YOLO's texts.

    Returns how many parts, and how many pixels are in none although their class is no rest.
    """
    wanted = [id_ for id_, name in enumerate(classes.names) if not is_rest(name)]
    rest = [id_ for id_ in range(len(classes)) if id_ not in wanted]
    if not wanted:
        raise InputError("every class stands for the rest; there are no objects to write")

    def take(one: Labelled) -> tuple[tuple[int, ...], list[Any], int]:
        label = one.read()
        parts = find_parts(label, wanted, min_area)
        left = label.size - int(parts.areas.sum()) - int(np.isin(label, rest).sum())
        described = _coco_parts(parts) if to == "coco" else _yolo_lines(parts, wanted)
        return label.shape, described, left

    found = over_all(labels, take, f"parts for {to}")
    if to == "yolo":
        for one, (_, lines, _) in zip(labels, found, strict=True):
            text = "".join(f"{line}\n" for some in lines for line in some)
            write_atomic(target / f"{one.name}.txt", text.encode())
    else:
        sizes = [(one.file, shape) for one, (shape, _, _) in zip(labels, found, strict=True)]
        content = _coco(sizes, [parts for _, parts, _ in found], classes)
        write_atomic(target, json.dumps(content).encode())
    return sum(len(parts) for _, parts, _ in found), sum(left for _, _, left in found)


def _coco_parts(parts: Parts) -> list[dict[str, Any]]:
    size, codes = list(parts.where.shape), encode_masks(parts.where)
    return [
        {
            "category_id": id_,
            "segmentation": {"size": size, "counts": codes[number]},
            "area": area,
            "bbox": box,
            "iscrowd": 0,
        }
        for number, (id_, area, box) in enumerate(
            zip(parts.ids.tolist(), parts.areas.tolist(), parts.boxes.tolist(), strict=True), 1
        )
    ]


def _coco(
    sizes: Sequence[tuple[str, tuple[int, ...]]],
    parts: Sequence[list[dict[str, Any]]],
    classes: Classes,
) -> dict[str, Any]:
    """Categories have the ids of the classes, so that they come back as they were."""
    annotations = [
        {"id": 0, "image_id": image} | part for image, some in enumerate(parts, 1) for part in some
    ]
    for number, one in enumerate(annotations, 1):
        one["id"] = number
    return {
        "images": [
            {"id": number, "file_name": file, "height": shape[0], "width": shape[1]}
            for number, (file, shape) in enumerate(sizes, 1)
        ],
        "categories": [{"id": id_, "name": name} for id_, name in enumerate(classes.names)],
        "annotations": annotations,
    }


def _yolo_lines(parts: Parts, wanted: Sequence[int]) -> list[list[str]]:
    """The lines of each part: one per outline."""
    height, width = parts.where.shape
    found = []
    for number in range(1, len(parts) + 1):
        corner, id_ = parts.boxes[number - 1, :2], wanted.index(int(parts.ids[number - 1]))
        lines = []
        for outline in trace(np.pad(parts.mask(number), 1)):
            points = (outline - 1 + corner) / (width, height)
            lines.append(" ".join([str(id_), *(f"{value:.7g}" for value in points.ravel())]))
        found.append(lines)
    return found


def _yolo_yaml(classes: Classes, folders: dict[str, str]) -> str:
    """data.yaml: where the images of a split are, and the names."""
    names = [name for name in classes.names if not is_rest(name)]
    content = {"path": "."} | folders | {"names": dict(enumerate(names))}
    return str(yaml.safe_dump(content, allow_unicode=True, sort_keys=False))


def export_predictions(
    out: Path, images: Iterable[tuple[str, str]], classes: Classes, to: Export, min_area: int
) -> tuple[Path, int]:
    """Write label maps of `predict`, of (name, image file), as instances; where, how many."""
    labels = [
        Labelled(name, file, partial(read_label, out / "labels" / f"{name}.png"))
        for name, file in images
    ]
    target = out / ("annotations.json" if to == "coco" else "yolo")
    parts, _ = write_instances(
        labels, classes, target / "labels" if to == "yolo" else target, to, min_area
    )
    if to == "yolo":
        write_atomic(target / "data.yaml", _yolo_yaml(classes, {}).encode())
    return target, parts
