"""`sartm data convert --from`: label maps drawn from what people's tools export."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from sartm.classes import Classes, is_rest
from sartm.data.layouts import open_layout
from sartm.data.names import UNLABELLED
from sartm.data.sets import Layout, Pair, tell_apart
from sartm.datatools.annotations import Annotations, Picture, read_coco, read_yolo, refusing, scaled
from sartm.datatools.init import look_at_folder
from sartm.datatools.splitting import split_blocks
from sartm.datatools.survey import over_all
from sartm.datatools.tool_exports import read_cvat, read_label_studio, read_labelme
from sartm.datatools.writing import (
    Plan,
    copy_or_write,
    place_pairs,
    read_stored,
    refuse_clashes,
    toml_files,
    write_description,
)
from sartm.errors import InputError
from sartm.io.labels import write_label
from sartm.outputs import finished_folder

Tool = Literal["coco", "yolo", "labelme", "cvat", "label-studio"]

READERS = {
    "coco": read_coco, "yolo": read_yolo, "labelme": read_labelme, "cvat": read_cvat,
    "label-studio": read_label_studio,
}  # fmt: skip


@dataclass(frozen=True)
class Import:
    """What `import_annotations` wrote."""

    out: str
    pairs: int
    splits: dict[str, int]
    classes: tuple[str, ...]
    without: tuple[str, ...]
    """Pairs that the annotations do not mention; they are the split `unlabelled`."""
    unmatched: tuple[str, ...]
    """Annotated images that belong to no pair."""
    left_out: dict[str, int]
    """Kinds of shapes that are no areas -> how many."""
    overlapping: int
    """Pixels under several areas of different classes; the upper or later one has them."""


def import_annotations(source: str | Path, tool: Tool, annotations: Path, out: Path) -> Import:
    """Write a data set with label maps drawn from the annotations of a tool.

    `source` is a data set or a plain folder of pairs; annotated images are told by path or name, of
    RGB or of thermal. Class 0 is what no area covers: the file's own class of that meaning
    (background, unlabeled, ...), else one put before the others. Of areas that overlap the upper
    one counts (CVAT's z-order), else the later one.

    Raises:
        InputError: the annotations are not of this kind or damaged, none belongs to a pair, sizes
            have another shape, or `out` is not empty.
    """
    layout = _open_images(source)
    layout = replace(layout, splits=tell_apart(layout.splits))
    found = READERS[tool](annotations)
    _drop_boxed(found, annotations)
    pairs = list(dict.fromkeys(pair for some in layout.splits.values() for pair in some))
    matched, unmatched = _match(pairs, found, layout.root)
    if not matched:
        known = ", ".join(list(found.pictures)[:3]) or "none"
        raise InputError(
            f"{annotations}: none of {len(found.pictures)} annotated images ({known}) belongs to a "
            f"pair of {source}, such as {pairs[0].name}; names must be the same"
        )
    classes = _classes_of(found)
    splits = _label_splits(layout, pairs, matched)
    described = replace(layout, classes=classes, splits=splits, subsets=layout.subsets)
    bare = [replace(pair, label=None, instances=None) for pair in pairs]
    layout = replace(layout, splits={"all": tuple(bare)})
    places = place_pairs(layout, layout.splits, "dataset.toml")
    with finished_folder(out) as root:
        files, copied = toml_files(places, layout, thermal_copied=True)
        files["label"] = "labels/{name}.png"
        plan = Plan(root, files, classes, copied)
        refuse_clashes(plan, places)

        def write(index: int) -> int:
            place = places[index]
            images = read_stored(place)
            for kind, image in (("rgb", images.rgb), ("thermal", images.thermal)):
                if image is not None and kind in files:
                    original = getattr(place.pair, kind) if kind in copied else None
                    copy_or_write(original, plan.path(kind, place), image)
            picture = matched.get(place.pair.name)
            if picture is None:
                return 0
            shown = images.rgb if images.rgb is not None else images.thermal
            assert shown is not None
            with refusing(annotations, tool):
                label, doubled = draw_label(picture, (shown.shape[0], shown.shape[1]), classes)
            write_label(plan.path("label", place), label)
            return doubled

        doubled = sum(over_all(range(len(places)), write, f"labels of {layout.name}"))
        named = {place.pair.name: place.pair for place in places}
        kept = {split: tuple(named[pair.name] for pair in some) for split, some in splits.items()}
        write_description(described, kept, plan)
    return Import(
        str(out),
        len(pairs),
        {split: len(some) for split, some in splits.items()},
        classes.names,
        tuple(pair.name for pair in pairs if pair.name not in matched),
        tuple(unmatched),
        dict(found.left_out),
        doubled,
    )


def _open_images(source: str | Path) -> Layout:
    """A data set whose labels do not matter, or what a plain folder would become."""
    try:
        return open_layout(source, labels=False)
    except InputError:
        if not Path(source).is_dir() or (Path(source) / "dataset.toml").is_file():
            raise
    return look_at_folder(Path(source)).layout


def _drop_boxed(found: Annotations, annotations: Path) -> None:
    """Take images of boxes alone for not annotated: what a box holds would be background."""
    boxed = [file for file, one in found.pictures.items() if one.boxes and not one.regions]
    if boxed and not any(one.regions for one in found.pictures.values()):
        raise InputError(
            f"{annotations}: boxes only, such as those of {boxed[0]}; a box is no area, label maps "
            f"need outlines or masks"
        )
    for file in boxed:
        del found.pictures[file]


def _match(
    pairs: Sequence[Pair], found: Annotations, root: Path
) -> tuple[dict[str, Picture], list[str]]:
    """Pair -> its annotations, by path and else by name, which must be one pair's only."""
    keys: dict[str, set[str]] = {}
    for pair in pairs:
        files = [file for file in (pair.rgb, pair.thermal, pair.four_channel) if file is not None]
        own = {pair.name, PurePosixPath(pair.name).name}
        for file in files:
            own.add(file.stem)
            if file.is_relative_to(root):
                own.add(file.relative_to(root).with_suffix("").as_posix())
        for key in own:
            keys.setdefault(key, set()).add(pair.name)
    matched: dict[str, Picture] = {}
    unmatched = []
    for path, picture in found.pictures.items():
        parts = PurePosixPath(path).parts
        ends = ("/".join(parts[start:]) for start in range(len(parts)))
        name, *others = sorted(next((keys[end] for end in ends if end in keys), ())) or ("",)
        if others:
            raise InputError(
                f"annotated image {path} may be of pair {name} or {others[0]}; name its folder "
                f"too, as in {name}.png, or annotate each split in a file called by it"
            )
        if not name:
            unmatched.append(path)
        elif name in matched and matched[name].regions and picture.regions:
            raise InputError(f"pair {name!r} is annotated twice, once as {path}; keep one of them")
        elif name not in matched or picture.regions:
            matched[name] = picture
    return matched, unmatched


def _classes_of(found: Annotations) -> Classes:
    """The file's classes, with that of what no area covers first."""
    names = found.names
    rest = next((name for name in names if is_rest(name)), "background")
    return Classes((rest, *(name for name in names if name != rest)))


def _label_splits(
    layout: Layout, pairs: Sequence[Pair], matched: Mapping[str, Picture]
) -> dict[str, tuple[Pair, ...]]:
    """The splits of annotated pairs, and the others in one of their own."""
    splits = {
        split: tuple(pair for pair in some if pair.name in matched)
        for split, some in layout.splits.items()
        if split != UNLABELLED
    }
    splits = {split: some for split, some in splits.items() if some}
    if len(splits) < min(2, len(layout.splits), len(matched)):  # all of val may be unlabelled
        named = {pair.name: pair for pair in pairs if pair.name in matched}
        ids = {name: {one.name for one in picture.regions} for name, picture in matched.items()}
        order = {name: place for place, name in enumerate(sorted(set().union(*ids.values())))}
        numbers = {name: frozenset(order[one] for one in some) for name, some in ids.items()}
        parts = split_blocks(named, numbers)
        splits = {split: tuple(named[one] for one in some) for split, some in parts.items()}
    rest = tuple(pair for pair in pairs if pair.name not in matched)
    return splits | ({UNLABELLED: rest} if rest else {})


def draw_label(
    picture: Picture, size: tuple[int, int], classes: Classes
) -> tuple[npt.NDArray[Any], int]:
    """(H, W) ids of an image's areas, and how many pixels lie under several classes.

    Coordinates of another size, such as of half-size thermal, are stretched; InputError where its
    shape differs.
    """
    drawn_on = picture.size or size
    if abs(drawn_on[1] * size[0] / (drawn_on[0] * size[1]) - 1) > 0.03:
        raise InputError(
            f"annotations are for {drawn_on[0]}x{drawn_on[1]} pixels, the image has "
            f"{size[0]}x{size[1]}, another shape; annotate the RGB image"
        )
    scale = size[1] / drawn_on[1], size[0] / drawn_on[0]
    regions = scaled(picture.regions, size) if picture.size is None else picture.regions
    kind = np.uint8 if len(classes) <= 255 else np.uint16
    label: npt.NDArray[Any] = np.zeros(size, kind)
    doubled = np.zeros(size, bool)
    for region in sorted(regions, key=lambda one: one.order):
        inside = region.draw(size, scale)
        id_ = classes.names.index(region.name)
        doubled |= inside & (label != 0) & (label != id_)
        label[inside] = id_
    return label, int(doubled.sum())
