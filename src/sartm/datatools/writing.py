"""A data set written in a layout: where each pair goes, its images, lists and dataset.toml."""

import json
import re
import shutil
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy.typing as npt

from sartm.classes import Classes
from sartm.data.layouts import open_layout
from sartm.data.pairs import RawImages, read_images
from sartm.data.sets import Layout, Pair
from sartm.datatools.survey import over_all
from sartm.errors import InputError
from sartm.files import write_atomic
from sartm.io.cameras import Camera
from sartm.io.decode import has_deep_channels
from sartm.io.holes import find_holes
from sartm.io.labels import read_label
from sartm.io.sources import as_file, read_bytes
from sartm.outputs import require_distinct

Array = npt.NDArray[Any]

Target = Literal["four-channel", "flat", "flat-jpeg", "dataset.toml"]


_INTEGER_FORMATS = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".pgm"})


_JPEG = [
    cv2.IMWRITE_JPEG_QUALITY, 95,
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
]  # fmt: skip


@dataclass(frozen=True)
class Place:
    """A pair, the folder that {split} stands for, and how the source is read."""

    pair: Pair
    folder: str
    camera: Camera


@dataclass(frozen=True)
class Plan:
    """Where and how every image is written."""

    root: Path
    files: dict[str, str]
    """Patterns as in dataset.toml."""
    classes: Classes
    copied: frozenset[str] = frozenset()
    """`rgb`, `thermal`: the file is taken as it is."""
    levels: tuple[float, float] | None = None
    """Raw thermal values that become the ends of the 8 or 16 bits of the target; None: kept."""
    thermal_bits: int = 16
    mark: float | None = None
    """Value of pixels without a measurement, where it differs from the source's."""
    lossy: bool = False
    resize: bool = False
    """Thermal is read at the size of RGB."""

    def path(self, kind: str, place: Place) -> Path:
        """The file of an image."""
        filled = self.files[kind].replace("{split}", place.folder)
        return self.root / filled.replace("{name}", place.pair.name)


def place_pairs(layout: Layout, splits: dict[str, tuple[Pair, ...]], to: Target) -> list[Place]:
    """Every pair once; two of one name are told apart by their split where the target can."""
    first: dict[Pair, str] = {}
    for split, pairs in splits.items():
        for pair in pairs:
            first.setdefault(pair, split)
    names: dict[str, list[Pair]] = defaultdict(list)
    for pair in first:
        names[pair.name].append(pair)
    double = [pairs for pairs in names.values() if len(pairs) > 1]
    if not double:
        return [Place(pair, "", layout.camera_of(pair)) for pair in first]
    held = {(split, pair) for split, pairs in splits.items() for pair in pairs}
    if to != "dataset.toml" or len(held) > len(first):
        name = double[0][0].name
        raise InputError(
            f"{layout.root}: {len(double[0])} different pairs are called {name!r} in splits "
            f"{' and '.join(first[pair] for pair in double[0])}; "
            + ("rename one" if to == "dataset.toml" else "convert to dataset.toml, or rename one")
        )
    for split in splits:
        if file_name(split) != split:
            raise InputError(f"split {split!r} of {layout.root} cannot name a folder; rename it")
    return [Place(pair, split, layout.camera_of(pair)) for pair, split in first.items()]


def refuse_clashes(plan: Plan, places: Sequence[Place]) -> None:
    """Refuse pairs that would be one file where small and capital letters are the same."""
    kind = next(iter(plan.files))
    files = (plan.path(kind, place).relative_to(plan.root) for place in places)
    require_distinct(plan.root, map(str, files))


def toml_files(
    places: Sequence[Place], layout: Layout, thermal_copied: bool
) -> tuple[dict[str, str], frozenset[str]]:
    """Patterns of a dataset.toml, and which images are taken as the files they are.

    A pattern has one ending for all pairs: where the sources differ, or lie in one file with
    something else, pixels are written as PNG, or as TIFF where thermal values are floats.
    """
    pairs = [place.pair for place in places]
    rgb, thermal = ({getattr(pair, kind) for pair in pairs} for kind in ("rgb", "thermal"))
    four = any(pair.four_channel for pair in pairs)
    files, copied = {}, set()
    for kind, sources, copy in (("rgb", rgb, True), ("thermal", thermal, thermal_copied)):
        if sources == {None} and not four:
            continue
        suffix = ".png"
        endings = {source.suffix.lower() if source else "" for source in sources}
        if copy and len(endings) == 1 and "" not in endings:
            suffix = endings.pop()
            copied.add(kind)
        elif kind == "thermal" and any_float(places, layout):
            suffix = ".tiff"
        files[kind] = f"{kind}/{{name}}{suffix}"
    if any(pair.label for pair in pairs):
        files["label"] = "labels/{name}.png"
    if any(pair.numbered for pair in pairs):
        files["instances"] = "instances/{name}.png"
    if any(place.folder for place in places):
        files = {kind: pattern.replace("{name}", "{split}/{name}") for kind, pattern in
                 files.items()}  # fmt: skip
    return files, frozenset(copied)


def has_deep_rgb(pair: Pair) -> bool:
    """Whether the RGB image has 16 bits per channel, of which the reader keeps 8."""
    path = pair.rgb or pair.four_channel
    return path is not None and has_deep_channels(path)


def describe_deep_rgb(places: Iterable[Place]) -> list[str]:
    """What is lost where RGB is written anew."""
    deep = sum(has_deep_rgb(place.pair) for place in places)
    return [f"16 bits of {deep} RGB images, now 8"] if deep else []


def read_stored(place: Place) -> RawImages:
    """The images of a pair, whose sizes may differ, with thermal as the file holds it."""
    pair = place.pair
    camera = place.camera.as_stored()
    return read_images(pair.rgb, pair.thermal, pair.four_channel, camera=camera)


def copy_or_write(original: Path | None, path: Path, image: Array) -> None:
    """The very file where nothing of it changes, else the image written anew."""
    if original is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(original, Path):
            shutil.copyfile(original, path)
        else:  # of a tar shard
            path.write_bytes(read_bytes(as_file(original)))
    else:
        write_image(path, image)


def copy_instances(place: Place, plan: Plan) -> None:
    """The numbers of the things of a pair's label, where the pair has them and the target may."""
    pair = place.pair
    if "instances" in plan.files and pair.instances and pair.numbered:
        copy_or_write(None, plan.path("instances", place), read_label(pair.instances, 0, ()))


def write_image(path: Path, image: Array) -> None:
    """RGB(A), grey or float values; a new file of a folder that is not in use yet."""
    if image.ndim == 3:
        order = cv2.COLOR_RGBA2BGRA if image.shape[2] == 4 else cv2.COLOR_RGB2BGR
        image = cv2.cvtColor(image, order)
    suffix = path.suffix.lower()
    done, data = cv2.imencode(suffix, image, _JPEG if suffix == ".jpg" else [])
    if not done:
        raise InputError(f"{path.name}: cannot encode {image.shape} {image.dtype} as {suffix}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.tobytes())


def write_description(
    layout: Layout, splits: dict[str, tuple[Pair, ...]], plan: Plan, plain: bool = False
) -> None:
    """Write the lists and, where needed, dataset.toml; then read them back."""
    for split, pairs in splits.items():
        text = "".join(f"{pair.name}\n" for pair in pairs)
        write_atomic(plan.root / f"{file_name(split)}.txt", text.encode())
    if not (plain and _same_meaning(plan.root, layout)):
        write_atomic(plan.root / "dataset.toml", format_toml(layout, splits, plan.files).encode())
    found = open_layout(plan.root)
    for split, pairs in splits.items():
        if [pair.name for pair in found.splits[split]] != [pair.name for pair in pairs]:
            raise InputError(
                f"split {split!r} of {layout.root} has names that a list cannot hold; rename them"
            )


def _same_meaning(root: Path, layout: Layout) -> bool:
    """Whether the folders alone, without a dataset.toml, are understood like the source."""
    try:
        found = open_layout(root)
    except InputError:
        return False
    parts = ("name", "classes", "subsets", "thermal_unit", "black_hot", "holes")
    return all(getattr(found, part) == getattr(layout, part) for part in parts)


def file_name(split: str) -> str:
    """A split's name without what would leave the folder."""
    return "".join(sign if sign.isalnum() or sign in "-_." else "_" for sign in split).lstrip(".")


def format_toml(
    layout: Layout,
    splits: Iterable[str],
    files: dict[str, str],
    label_colours: bool = False,
) -> str:
    """The dataset.toml of a layout with these patterns and lists; what is usual is left out.

    Of shards the index has the splits instead of lists.
    """
    classes = layout.classes
    splits = list(splits)
    names = [file_name(split) for split in splits]
    if len(set(names)) < len(names) or "" in names:
        raise InputError(f"splits {', '.join(map(repr, splits))} do not give lists of their own")
    usual = Classes(classes.names)
    palette = [list(colour) for colour in classes.palette]
    lines = [
        f"name = {_quoted(layout.name)}",
        f"classes = [{', '.join(map(_quoted, classes.names))}]",
        *([f"palette = {palette}"] if classes.palette != usual.palette or label_colours else []),
        *(["label_colours = true"] if label_colours else []),
        *([f"ignore = {classes.ignore}"] if classes.ignore != usual.ignore else []),
        *([f"prompts = [{', '.join(map(_quoted, classes.prompts))}]"]
          if classes.prompts != usual.prompts else []),
        "[files]",
        *(f"{kind} = {_quoted(pattern)}" for kind, pattern in files.items()),
        "[splits]",
        *(f"{_key(split)} = {_quoted(split if 'shards' in files else f'{name}.txt')}"
          for split, name in zip(splits, names, strict=True)),
        *(["[subsets]"] if layout.subsets else []),
        *(f"{_key(subset)} = {_quoted(rule)}" for subset, rule in layout.subsets.items()),
        "[thermal]",
        f"unit = {_quoted(layout.thermal_unit)}",
        *(["black_hot = true"] if layout.black_hot else []),
        *(["resize = true"] if layout.resize_thermal else []),
        *([] if layout.holes is None else [f"holes = {float(layout.holes)!r}"]),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _key(text: str) -> str:
    return text if re.fullmatch("[A-Za-z0-9_-]+", text) else _quoted(text)


def _quoted(text: str) -> str:
    """A TOML basic string: JSON's, but for the one control character that JSON leaves as it is."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007F")


def any_float(places: Sequence[Place], layout: Layout) -> bool:
    """Whether thermal of any pair is read as floating-point numbers."""
    if any(place.camera.radiometric for place in places):
        return True
    unsure = [
        place
        for place in places
        for file in (place.pair.thermal or place.pair.four_channel,)
        if file is not None and file.suffix.lower() not in _INTEGER_FORMATS
    ]
    if not unsure:
        return False
    ranges = over_all(unsure, thermal_range, f"survey {layout.name}")
    return any(kind.startswith("float") for kind, _, _ in ranges)


def thermal_range(place: Place) -> tuple[str, float, float]:
    """Number type, smallest and largest value of what was measured."""
    thermal = read_stored(place).thermal
    if thermal is None:
        raise InputError(f"pair {place.pair.name!r} has no thermal image")
    holes = find_holes(thermal, place.camera.holes)
    measured = thermal if holes is None else thermal[~holes]
    return thermal.dtype.name, float(measured.min()), float(measured.max())
