"""A data set written again: in another layout without loss, or with its thermal images aligned."""

import json
import os
import shutil
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, overload

import cv2
import numpy as np
import numpy.typing as npt

from sartm.classes import Classes
from sartm.config import to_dict
from sartm.data.layouts import Layout, Pair, open_layout
from sartm.data.pairs import check_ids, read_pair
from sartm.datatools.check import over_all
from sartm.errors import InputError
from sartm.files import write_atomic
from sartm.io.decode import read_four_channel, read_rgb, read_thermal
from sartm.io.labels import read_label, write_label
from sartm.io.thermal import scale_thermal
from sartm.registration.calibration import (
    apply_alignment,
    read_calibration,
    write_calibration,
    write_comparison,
)
from sartm.registration.estimate import estimate_alignment, estimate_rig_alignment

Array = npt.NDArray[Any]
Target = Literal["four-channel", "flat", "flat-jpeg", "dataset.toml"]

_PLAIN_SPLITS = ("train", "val", "test", "trainval", "test_day", "test_night")
"""What the lists of the benchmarks' own layouts are called."""
_PATTERNS: dict[Target, dict[str, str]] = {
    "four-channel": {"four_channel": "images/{name}.png", "label": "labels/{name}.png"},
    "flat": {
        "rgb": "RGB/{name}.png", "thermal": "Thermal/{name}.png", "label": "Label/{name}.png",
    },
    "flat-jpeg": {
        "rgb": "rgb/{name}.jpg", "thermal": "ther/{name}.jpg", "label": "labels/{name}.png",
    },
    "dataset.toml": {
        "rgb": "rgb/{name}.png", "thermal": "thermal/{name}.png", "label": "labels/{name}.png",
    },
}  # fmt: skip
_INTEGER_FORMATS = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".pgm"})
_COMPARISONS = 8
_JPEG = [
    cv2.IMWRITE_JPEG_QUALITY, 95,
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
]  # fmt: skip


@dataclass(frozen=True)
class Conversion:
    """What `convert_dataset` wrote."""

    out: str
    layout: Target
    pairs: int
    splits: dict[str, int]
    lost: tuple[str, ...]
    """What the new data set does not have any more; empty without `lossy`."""


@dataclass(frozen=True)
class AlignedPair:
    """How the thermal image of one pair was moved."""

    homography: list[list[float]]
    """3 x 3, thermal pixel to RGB pixel."""
    quality: float | None
    """0 to 1; None with a calibration, which is taken as it is."""
    seen: float
    """Percent of the RGB image that the thermal camera sees; the rest is 0."""


@dataclass(frozen=True)
class AlignedSet:
    """What `align_dataset` wrote."""

    out: str
    method: Literal["rig", "per-pair", "calibration"]
    pairs: dict[str, AlignedPair]
    refused: dict[str, str]
    """Pairs that are left out, since nothing reliable was found, and why."""
    comparisons: tuple[str, ...]
    """Pictures of before (above) and after (below)."""


@dataclass(frozen=True)
class _Place:
    """A pair and the folder that {split} stands for."""

    pair: Pair
    folder: str


@dataclass(frozen=True)
class _Plan:
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
    lossy: bool = False

    def path(self, kind: str, place: _Place) -> Path:
        """The file of an image."""
        filled = self.files[kind].replace("{split}", place.folder)
        return self.root / filled.replace("{name}", place.pair.name)


def convert_dataset(
    source: str | Path, to: Target, out: str | Path, lossy: bool = False
) -> Conversion:
    """Write a data set in another layout: every pixel the same, or nothing at all.

    `four-channel` is MFNet as distributed (images/, labels/, lists), `flat` RGB/, Thermal/, Label/
    and lists, `flat-jpeg` rgb/, ther/, labels/ with JPEG images, `dataset.toml` any data set. Where
    a plain layout does not tell the classes, subsets or thermal unit, a dataset.toml is put beside
    it. Each pair is read back and compared; the folder appears under its name once it is complete.

    Raises:
        InputError: `out` is not empty, a pair cannot be read, or something would be lost (JPEG,
            16 to 8 bits, floats, a split that the layout cannot name) and `lossy` is not given.
    """
    if to not in get_args(Target):
        raise InputError(f"no layout {to!r} to convert to; choose {', '.join(get_args(Target))}")
    layout = open_layout(source)
    splits, lost = _splits_for(layout, to, lossy)
    places = _places(layout, splits, to)
    _require_parts(layout, [place.pair for place in places], to)
    with _finished_folder(Path(out)) as root:
        plan, changed = _plan(layout, places, to, root, lossy)
        over_all(places, lambda place: _write_pair(place, plan), f"convert {layout.name}")
        _describe(layout, splits, plan, plain=to != "dataset.toml")
    counts = {split: len(pairs) for split, pairs in splits.items()}
    return Conversion(str(out), to, len(places), counts, (*lost, *changed))


def align_dataset(
    source: str | Path,
    out: str | Path,
    *,
    per_pair: bool = False,
    calibration: str | Path | None = None,
) -> AlignedSet:
    """Write a data set with its thermal images on the pixels of the RGB images.

    One homography for all pairs, of the calibration file or found from the pairs; or one of each
    pair's own, and pairs for which none is reliable are left out and named. RGB files and labels
    stay as they are; the result is a dataset.toml layout, with `comparison/` pictures,
    `alignment.json`, and `calibration.json` where one homography holds for all.

    Raises:
        InputError: `out` is not empty, a pair lacks RGB or thermal or cannot be read, nothing
            reliable is found, or `per_pair` and `calibration` are both given.
    """
    if per_pair and calibration:
        raise InputError("--per-pair and --calibration exclude each other; give one of them")
    layout = open_layout(source)
    places = _places(layout, layout.splits, "dataset.toml")
    for place in places:
        if not place.pair.four_channel and not (place.pair.rgb and place.pair.thermal):
            raise InputError(f"pair {place.pair.name!r} lacks RGB or thermal; nothing to align")
    found = None if per_pair else _one_homography(places, calibration)
    shown = _spread(places, _COMPARISONS)
    with _finished_folder(Path(out)) as root:
        files, copied = _toml_files(places, layout, thermal_copied=False)
        plan = _Plan(root, files, layout.classes, copied)
        results = over_all(
            places,
            lambda place: _align_pair(place, plan, found, place in shown),
            f"align {layout.name}",
        )
        named = {_title(place, files): one for place, one in zip(places, results, strict=True)}
        refused = {name: one for name, one in named.items() if isinstance(one, str)}
        aligned = {name: one for name, one in named.items() if isinstance(one, AlignedPair)}
        if not aligned:
            name, reason = next(iter(refused.items()))
            raise InputError(f"no pair could be aligned ({name}: {reason}); give --calibration")
        kept = {
            place.pair
            for place, one in zip(places, results, strict=True)
            if isinstance(one, AlignedPair)
        }
        splits = {
            split: tuple(pair for pair in pairs if pair in kept)
            for split, pairs in layout.splits.items()
        }
        _describe(layout, {split: pairs for split, pairs in splits.items() if pairs}, plan)
        if found is not None:
            write_calibration(root / "calibration.json", found[0])
        pictures = tuple(
            str(Path(out) / file.relative_to(root))
            for file in sorted((root / "comparison").rglob("*.jpg"))
        )
        method: Literal["rig", "per-pair", "calibration"] = (
            "per-pair" if per_pair else "calibration" if calibration else "rig"
        )
        result = AlignedSet(str(out), method, aligned, refused, pictures)
        write_atomic(root / "alignment.json", json.dumps(to_dict(result), indent=1).encode())
    return result


def _splits_for(
    layout: Layout, to: Target, lossy: bool
) -> tuple[dict[str, tuple[Pair, ...]], list[str]]:
    """The splits that the target can name, and what is lost."""
    if to == "dataset.toml":
        return layout.splits, []
    kept = {split: pairs for split, pairs in layout.splits.items() if split in _PLAIN_SPLITS}
    gone = [split for split in layout.splits if split not in kept]
    if not gone:
        return kept, []
    if not kept or not lossy:
        raise InputError(
            f"layout {to} cannot name the split {gone[0]!r} (it knows {', '.join(_PLAIN_SPLITS)}); "
            f"convert to dataset.toml" + ("" if not kept else ", or leave it out with --lossy")
        )
    return kept, [f"split {split} ({len(layout.splits[split])} pairs)" for split in gone]


def _places(layout: Layout, splits: dict[str, tuple[Pair, ...]], to: Target) -> list[_Place]:
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
        return [_Place(pair, "") for pair in first]
    held = {(split, pair) for split, pairs in splits.items() for pair in pairs}
    if to != "dataset.toml" or len(held) > len(first):
        name = double[0][0].name
        raise InputError(
            f"{layout.root}: {len(double[0])} different pairs are called {name!r} in splits "
            f"{' and '.join(first[pair] for pair in double[0])}; "
            + ("rename one" if to == "dataset.toml" else "convert to dataset.toml, or rename one")
        )
    for split in splits:
        if _file_name(split) != split:
            raise InputError(f"split {split!r} of {layout.root} cannot name a folder; rename it")
    return [_Place(pair, split) for pair, split in first.items()]


def _require_parts(layout: Layout, pairs: Sequence[Pair], to: Target) -> None:
    """Plain layouts have three images per pair; a dataset.toml the same ones for every pair."""
    for pair in pairs:
        has = {
            "RGB": pair.rgb or pair.four_channel,
            "thermal": pair.thermal or pair.four_channel,
            "label": pair.label,
        }
        for what, file in has.items():
            if file is None and to != "dataset.toml":
                raise InputError(
                    f"{layout.root}: pair {pair.name!r} has no {what} image, which layout {to} "
                    f"needs; convert to dataset.toml"
                )


def _plan(
    layout: Layout, places: Sequence[_Place], to: Target, root: Path, lossy: bool
) -> tuple[_Plan, list[str]]:
    if to == "dataset.toml":
        files, copied = _toml_files(places, layout, thermal_copied=True)
        return _Plan(root, files, layout.classes, copied, lossy=lossy), []
    bits = 16 if to == "flat" else 8
    if to == "flat-jpeg" and not lossy:
        raise InputError(
            "JPEG changes the pixels of RGB and thermal images; convert to flat, or give --lossy"
        )
    lost = ["exact pixels of RGB and thermal images (JPEG)"] if to == "flat-jpeg" else []
    levels = None
    if lossy:
        ranges = over_all(places, _thermal_range, f"survey {layout.name}")
        if any(kind not in ("uint8", "uint16")[: bits // 8] for kind, _, _ in ranges):
            levels = min(low for _, low, _ in ranges), max(high for _, _, high in ranges)
            kinds = " and ".join(sorted({kind for kind, _, _ in ranges}))
            lost.append(
                f"exact thermal values ({kinds}): {levels[0]:g} to {levels[1]:g} became 0 to "
                f"{2**bits - 1}"
            )
        deep = sum(_has_deep_rgb(place.pair) for place in places)
        lost += [f"16 bits of {deep} RGB images, now 8"] if deep else []
    return _Plan(
        root, _PATTERNS[to], layout.classes, levels=levels, thermal_bits=bits, lossy=lossy
    ), lost


def _toml_files(
    places: Sequence[_Place], layout: Layout, thermal_copied: bool
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
        elif kind == "thermal" and _any_float(places, layout):
            suffix = ".tiff"
        files[kind] = f"{kind}/{{name}}{suffix}"
    if any(pair.label for pair in pairs):
        files["label"] = "labels/{name}.png"
    if any(place.folder for place in places):
        files = {kind: pattern.replace("{name}", "{split}/{name}") for kind, pattern in
                 files.items()}  # fmt: skip
    return files, frozenset(copied)


def _any_float(places: Sequence[_Place], layout: Layout) -> bool:
    asked = [
        place
        for place in places
        for file in (place.pair.thermal or place.pair.four_channel,)
        if file is not None and file.suffix.lower() not in _INTEGER_FORMATS
    ]
    if not asked:
        return False
    ranges = over_all(asked, _thermal_range, f"survey {layout.name}")
    return any(kind.startswith("float") for kind, _, _ in ranges)


def _thermal_range(place: _Place) -> tuple[str, float, float]:
    """Number type, smallest and largest value."""
    thermal = _read_thermal_of(place.pair)
    return thermal.dtype.name, float(thermal.min()), float(thermal.max())


def _read_thermal_of(pair: Pair) -> Array:
    if pair.four_channel:
        return read_four_channel(pair.four_channel)[1]
    if pair.thermal is None:
        raise InputError(f"pair {pair.name!r} has no thermal image")
    return read_thermal(pair.thermal)


def _read_both(pair: Pair) -> tuple[npt.NDArray[np.uint8], Array]:
    """RGB and thermal, whose sizes may differ."""
    if pair.four_channel:
        return read_four_channel(pair.four_channel)
    if pair.rgb is None:
        raise InputError(f"pair {pair.name!r} has no RGB image")
    return read_rgb(pair.rgb), _read_thermal_of(pair)


def _has_deep_rgb(pair: Pair) -> bool:
    """Whether the RGB image has 16 bits per channel, of which the reader keeps 8."""
    path = pair.rgb or pair.four_channel
    if path is None:
        return False
    with path.open("rb") as file:
        start = file.read(32)
    if start.startswith(b"\x89PNG"):
        return len(start) > 24 and start[24] == 16
    if start.startswith(b"\xff\xd8") or start.startswith(b"BM") or start[8:12] == b"WEBP":
        return False
    if start.startswith(b"\x93NUMPY"):
        return bool(np.load(path, mmap_mode="r", allow_pickle=False).dtype == np.uint16)
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    return image is not None and image.dtype == np.uint16


def _write_pair(place: _Place, plan: _Plan) -> None:
    """Write a pair, read it back and compare."""
    pair = place.pair
    sample = read_pair(pair, plan.classes)
    if not plan.lossy and "rgb" not in plan.copied and _has_deep_rgb(pair):
        raise InputError(
            f"{pair.rgb or pair.four_channel}: 16 bits per channel would become 8; "
            f"convert to dataset.toml, or give --lossy"
        )
    thermal = None if sample.thermal is None else _fit_numbers(sample.thermal, plan, pair)
    to = {kind: plan.path(kind, place) for kind in plan.files}
    written = Pair(
        pair.name, to.get("rgb"), to.get("thermal"), to.get("label"), to.get("four_channel")
    )
    if written.four_channel and sample.rgb is not None and thermal is not None:
        _write_image(written.four_channel, np.dstack([sample.rgb, thermal]))
    if written.rgb and sample.rgb is not None:
        _copy_or_write(pair.rgb if "rgb" in plan.copied else None, written.rgb, sample.rgb)
    if written.thermal and thermal is not None:
        original = pair.thermal if "thermal" in plan.copied else None
        _copy_or_write(original, written.thermal, thermal)
    if written.label and sample.label is not None:
        write_label(written.label, sample.label)
    again = read_pair(written, plan.classes)
    jpeg = ".jpg" in plan.files.get("rgb", "") and "rgb" not in plan.copied
    same = [(sample.label, again.label)]
    if not jpeg:
        same += [(sample.rgb, again.rgb), (thermal, again.thermal)]
    for before, after in same:
        if not _equal(before, after):
            raise InputError(
                f"pair {pair.name!r} reads back with other pixels than were written; "
                f"is the disk full or faulty?"
            )


def _equal(before: Array | None, after: Array | None) -> bool:
    if before is None or after is None:
        return before is after
    return before.dtype == after.dtype and np.array_equal(before, after)


def _fit_numbers(thermal: Array, plan: _Plan, pair: Pair) -> Array:
    """Raw thermal values in a type that the target holds."""
    if plan.levels is not None:
        top = 2**plan.thermal_bits - 1
        scaled: Array = np.rint(top * scale_thermal(thermal, plan.levels).astype(np.float64))
        return scaled.astype(np.uint8 if plan.thermal_bits == 8 else np.uint16)
    if plan.files.get("thermal", "").endswith(".tiff") or "thermal" in plan.copied:
        return thermal
    if thermal.dtype.kind == "f" or thermal.dtype.itemsize * 8 > plan.thermal_bits:
        raise InputError(
            f"{pair.thermal or pair.four_channel}: {thermal.dtype} thermal values do not fit "
            f"{plan.thermal_bits} bits; convert to dataset.toml, or scale them with --lossy"
        )
    return thermal


def _copy_or_write(original: Path | None, path: Path, image: Array) -> None:
    if original is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(original, path)
    else:
        _write_image(path, image)


def _write_image(path: Path, image: Array) -> None:
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


def _describe(
    layout: Layout, splits: dict[str, tuple[Pair, ...]], plan: _Plan, plain: bool = False
) -> None:
    """Write the lists and, where needed, dataset.toml; then read them back."""
    for split, pairs in splits.items():
        text = "".join(f"{pair.name}\n" for pair in pairs)
        write_atomic(plan.root / f"{_file_name(split)}.txt", text.encode())
    if not (plain and _same_meaning(plan.root, layout)):
        write_atomic(plan.root / "dataset.toml", _toml(layout, splits, plan.files).encode())
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


def _file_name(split: str) -> str:
    """A split's name without what would leave the folder."""
    return "".join(sign if sign.isalnum() or sign in "-_." else "_" for sign in split).lstrip(".")


def _toml(layout: Layout, splits: dict[str, tuple[Pair, ...]], files: dict[str, str]) -> str:
    classes = layout.classes
    names = [_file_name(split) for split in splits]
    if len(set(names)) < len(names) or "" in names:
        raise InputError(f"splits {', '.join(map(repr, splits))} do not give lists of their own")
    palette = [list(colour) for colour in classes.palette]
    lines = [
        f"name = {_quoted(layout.name)}",
        f"classes = [{', '.join(map(_quoted, classes.names))}]",
        f"palette = {palette}",
        f"ignore = {classes.ignore}",
        f"prompts = [{', '.join(map(_quoted, classes.prompts))}]",
        "[files]",
        *(f"{kind} = {_quoted(pattern)}" for kind, pattern in files.items()),
        "[splits]",
        *(f"{_quoted(split)} = {_quoted(f'{name}.txt')}"
          for split, name in zip(splits, names, strict=True)),
        "[subsets]",
        *(f"{_quoted(subset)} = {_quoted(rule)}" for subset, rule in layout.subsets.items()),
        "[thermal]",
        f"unit = {_quoted(layout.thermal_unit)}",
        f"black_hot = {str(layout.black_hot).lower()}",
        *([] if layout.holes is None else [f"holes = {layout.holes:g}"]),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """A TOML basic string: JSON's, but for the one control character that JSON leaves as it is."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007F")


class _Images(Sequence[tuple[Array, Array]]):
    """RGB and thermal of pairs, read when asked for."""

    def __init__(self, places: Sequence[_Place]) -> None:
        self.places = places

    def __len__(self) -> int:
        return len(self.places)

    @overload
    def __getitem__(self, index: int) -> tuple[Array, Array]: ...
    @overload
    def __getitem__(self, index: slice) -> "_Images": ...
    def __getitem__(self, index: int | slice) -> "tuple[Array, Array] | _Images":
        if isinstance(index, slice):
            return _Images(self.places[index])
        return _read_both(self.places[index].pair)


def _one_homography(
    places: Sequence[_Place], calibration: str | Path | None
) -> tuple[Array, float | None]:
    if calibration is not None:
        return read_calibration(Path(calibration)), None
    found = estimate_rig_alignment(_Images(places))
    if not found.accepted:
        raise InputError(
            f"no alignment of the cameras was found: {found.reason} (quality {found.quality:.2f}); "
            f"give --calibration FILE, or try --per-pair if the cameras move"
        )
    return found.homography, found.quality


def _align_pair(
    place: _Place, plan: _Plan, given: tuple[Array, float | None] | None, shown: bool
) -> AlignedPair | str:
    """Write a pair with its thermal image moved; or why it is left out."""
    pair = place.pair
    rgb, thermal = _read_both(pair)
    if given is None:
        found = estimate_alignment(rgb, thermal)
        if not found.accepted:
            return found.reason
        given = found.homography, found.quality
    homography, quality = given
    size = (rgb.shape[0], rgb.shape[1])
    moved, valid = apply_alignment(thermal, homography, size)
    _copy_or_write(pair.rgb if "rgb" in plan.copied else None, plan.path("rgb", place), rgb)
    _write_image(plan.path("thermal", place), moved)
    if pair.label and "label" in plan.files:
        colours = plan.classes.palette if pair.coloured_label else ()
        label = read_label(pair.label, plan.classes.ignore, colours)
        if label.shape != size:
            raise InputError(
                f"{pair.label}: the label is {label.shape[0]}x{label.shape[1]} but its RGB image "
                f"{size[0]}x{size[1]}; labels belong to the RGB image"
            )
        check_ids(label, plan.classes, pair.label)
        write_label(plan.path("label", place), label)
    if shown:
        picture = plan.root / "comparison" / f"{_title(place, plan.files)}.jpg"
        picture.parent.mkdir(parents=True, exist_ok=True)
        write_comparison(rgb, thermal, moved, picture)
    return AlignedPair(homography.tolist(), quality, round(100 * float(valid.mean()), 2))


def _title(place: _Place, files: dict[str, str]) -> str:
    """Names a pair uniquely."""
    apart = "{split}" in files["rgb"]
    return f"{place.folder}/{place.pair.name}" if apart else place.pair.name


def _spread(places: Sequence[_Place], most: int) -> set[_Place]:
    count = min(most, len(places))
    return {places[index * len(places) // count] for index in range(count)}


@contextmanager
def _finished_folder(out: Path) -> Iterator[Path]:
    """A folder to fill that takes the name `out` at the end, or vanishes."""
    out = out.resolve()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} exists already and is not an empty folder; choose another --out")
    root = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        root.mkdir(parents=True)
        yield root
        if out.exists():
            out.rmdir()
        root.rename(out)
    except OSError as error:
        raise InputError(f"cannot write {out}: {error.strerror or error}") from None
    finally:
        shutil.rmtree(root, ignore_errors=True)


__all__ = [
    "AlignedPair",
    "AlignedSet",
    "Conversion",
    "Target",
    "align_dataset",
    "convert_dataset",
]
