"""What is wrong with a data set and what is in it, found before a model is trained on it."""

import dataclasses
import hashlib
import math
import os
import re
import tomllib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from html import escape
from io import BytesIO
from pathlib import Path
from typing import Any, Literal, TypeVar

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from sartm.classes import Classes
from sartm.config import from_dict
from sartm.data import layouts
from sartm.data.layouts import Layout, Pair, open_layout
from sartm.errors import InputError
from sartm.files import write_atomic
from sartm.io.decode import read_four_channel, read_rgb, read_thermal
from sartm.io.labels import read_label
from sartm.io.thermal import scale_thermal
from sartm.progress import Meter
from sartm.registration.estimate import estimate_offset

Array = npt.NDArray[Any]
Item = TypeVar("Item")
Result = TypeVar("Result")
Severity = Literal["error", "warning"]

OFFICIAL = {
    "mfnet": {"train": 784, "val": 392, "trainval": 1176, "test": 393},
    "pst900": {"train": 597, "test": 288},
    "fmb": {"train": 1220, "test": 280},
    "msrs": {"train": 1083, "test": 361},
}
"""Pairs per split as the benchmarks are distributed; PST900's paper prints other figures."""

_MIRRORED = "_flip"
_SATURATED, _EMPTY = 0.25, 0.5
"""Share of pixels at the largest value of the number type, and at 0, from which it is said. Real
street scenes reach 0.001 and 0.04."""
_WRAPPED_SHARE = 0.2
"""Of the 8-bit thermal images; a single one may show something burning beside something cold."""
_FEWEST_OFFSETS = 5
_LARGEST_OFFSET = 3 / 640
"""Shift between the cameras, as a share of the longer side, that fusion does not forgive."""

_MEANING: dict[str, tuple[Severity, str, str]] = {
    "missing": ("error", "missing files", "complete the download or take the names out"),
    "unreadable": ("error", "files that cannot be read", "copy or export them again"),
    "size": (
        "error", "pairs whose RGB, thermal and label differ in size",
        "register them with sartm data align, or use the images that belong together",
    ),
    "ids": (
        "error", "labels with ids that the class table does not have",
        "correct the labels or the classes",
    ),
    "leak": (
        "error", "images in two splits",
        "a score on one of the splits means nothing; keep each image in one",
    ),
    "duplicate": ("warning", "images that are there more than once", "keep one of each"),
    "constant": (
        "warning", "thermal images with one value everywhere",
        "was the camera off or covered? take them out",
    ),
    "saturated": (
        "warning", "thermal images that are clipped over much of their area",
        "export them again with a wider range",
    ),
    "narrow": (
        "warning", "16-bit thermal images that hold 8 bits only",
        "were they converted before? take the camera's own files",
    ),
    "wrapped": (
        "warning", "8-bit thermal images that jump between 0 and 255",
        "the upper byte of 16-bit counts was cut off; export them again, scaled",
    ),
    "coarse": (
        "warning", "8-bit thermal images of 16 levels or fewer",
        "the lower byte of 16-bit counts was cut off; export them again, scaled",
    ),
}  # fmt: skip
"""Kind of finding -> severity, what it is, what to do."""


@dataclass(frozen=True)
class Finding:
    """One kind of fault and everything that has it."""

    severity: Severity
    """`error`: these items cannot be used, or falsify a score; `warning`: look at them."""
    kind: str
    message: str
    items: tuple[str, ...] = ()
    """One text per file, pair or group of pairs."""


@dataclass(frozen=True)
class SplitCount:
    """How many pairs a split has, and how many its benchmark has officially."""

    split: str
    pairs: int
    mirrored: int
    """Of them copies flipped left to right, named *_flip, which are no data of their own."""
    official: int | None


@dataclass(frozen=True)
class Offset:
    """Median shift (RGB pixels) that brings the thermal image onto the RGB image."""

    dx: float
    dy: float
    spread: float
    """Median distance of a pair's own shift from the median."""
    pairs: int


@dataclass(frozen=True)
class Check:
    """What `check_dataset` found."""

    name: str
    layout: str
    """Which arrangement of folders was recognised."""
    root: str
    classes: tuple[str, ...]
    splits: tuple[SplitCount, ...]
    sizes: dict[str, int]
    """Height x width -> pairs."""
    thermal_types: dict[str, int]
    """Number type of the thermal images -> images."""
    offset: Offset | None
    """None where too few pairs show it."""
    findings: tuple[Finding, ...]
    contact_sheet: str | None = None

    @property
    def usable(self) -> bool:
        """Whether no finding is an error."""
        return all(finding.severity != "error" for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return dataclasses.asdict(self) | {"usable": self.usable}


@dataclass(frozen=True)
class ClassShare:
    """How much of a group of pairs one class covers."""

    id: int
    name: str
    pixels: int
    share: float
    """Percent of the labelled pixels that are not ignored; 0 where there are none."""
    pairs: int
    """Pairs that contain the class."""


@dataclass(frozen=True)
class GroupStats:
    """A split, or a subset of one."""

    split: str
    subset: str
    """Empty for the whole split."""
    pairs: int
    labelled: int
    """Pairs with a label."""
    pixels: int
    """Labelled pixels that are not ignored."""
    ignored: int
    classes: tuple[ClassShare, ...]
    thermal: tuple[float, float, float] | None
    """Smallest value, mean over all pixels, largest value; raw, as the files hold them."""

    @property
    def title(self) -> str:
        """Split, or split/subset."""
        return f"{self.split}/{self.subset}" if self.subset else self.split


@dataclass(frozen=True)
class Stats:
    """What `stats_dataset` counted."""

    name: str
    root: str
    groups: tuple[GroupStats, ...]
    failures: dict[str, str]
    """Pairs that are left out of every count, and why."""


@dataclass(frozen=True)
class _Heat:
    """Facts of one thermal image."""

    kind: str
    low: float
    high: float
    mean: float
    pixels: int
    oddities: tuple[str, ...]
    """Kinds of `_MEANING`."""


@dataclass(frozen=True)
class _Facts:
    """All that is kept of a pair once its pixels are gone."""

    pair: Pair
    problems: tuple[tuple[str, str], ...]
    """Kind of `_MEANING` and message."""
    size: tuple[int, int] | None
    rgb_hash: str
    thermal_hash: str
    ids: dict[int, int] | None
    """Label id -> pixels; None without a label."""
    heat: _Heat | None
    offset: tuple[float, float] | None


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


def check_dataset(path: str | Path, out: str | Path | None = None, offsets: int = 32) -> Check:
    """Read every file of a data set and say what is wrong with it.

    Args:
        path: folder in a known layout, or a dataset.toml.
        out: folder to write `contact-sheet.jpg` into: RGB, thermal and label of a few pairs.
        offsets: pairs, spread evenly, whose registration is estimated; 0 for none.

    Raises:
        InputError: the layout is not recognised, or `out` cannot be written.
    """
    layout, gaps = _open_what_is_there(Path(path))
    splits = _splits_of_pairs(layout)
    pairs = list(splits)
    count = min(offsets, len(pairs))
    sample = {pairs[index * len(pairs) // count] for index in range(count)}
    facts = over_all(
        pairs, lambda pair: _inspect(pair, layout.classes, pair in sample), f"check {layout.name}"
    )
    counts = tuple(_count(layout, split) for split in layout.splits)
    offset = _median_offset(facts)
    found = _by_kind([("missing", gap) for gap in gaps])
    found += _by_kind([problem for one in facts for problem in one.problems])
    found += _repeated(facts, splits) + _oddities(facts)
    found += _wrong_counts(counts) + _shifted(offset, facts)
    sheet = None
    if out is not None:
        sheet = Path(out) / "contact-sheet.jpg"
        _draw_contact_sheet(layout, facts, splits, sheet)
    return Check(
        layout.name,
        layout.kind,
        str(layout.root),
        layout.classes.names,
        counts,
        _tally(f"{one.size[0]}x{one.size[1]}" for one in facts if one.size),
        _tally(one.heat.kind for one in facts if one.heat),
        offset,
        tuple(sorted(found, key=lambda finding: finding.severity)),
        str(sheet) if sheet else None,
    )


def stats_dataset(path: str | Path, out: str | Path | None = None) -> Stats:
    """Count what a data set holds: class shares per split and subset, range of thermal values.

    Pairs with unreadable files, mismatched sizes or unknown ids are left out and named.

    Args:
        path: folder in a known layout, or a dataset.toml.
        out: folder to write the chart `classes.svg` into.

    Raises:
        InputError: the layout is not recognised, or `out` cannot be written.
    """
    layout = open_layout(path)
    pairs = list(_splits_of_pairs(layout))
    facts = over_all(pairs, lambda pair: _inspect(pair, layout.classes), f"count {layout.name}")
    good = {one.pair: one for one in facts if not one.problems}
    groups = []
    for split, members in layout.splits.items():
        kept = [good[pair] for pair in members if pair in good]
        groups.append(_group(split, "", kept, layout.classes))
        for subset, rule in layout.subsets.items():
            some = [one for one in kept if re.search(rule, one.pair.name)]
            if some:
                groups.append(_group(split, subset, some, layout.classes))
    failures = {one.pair.name: one.problems[0][1] for one in facts if one.problems}
    stats = Stats(layout.name, str(layout.root), tuple(groups), failures)
    if out is not None:
        _write(Path(out) / "classes.svg", _class_chart(stats, layout.classes).encode())
    return stats


def _splits_of_pairs(layout: Layout) -> dict[Pair, list[str]]:
    """Each pair once, in order, with the splits that hold it (twice where listed twice)."""
    splits: dict[Pair, list[str]] = {}
    for split, pairs in layout.splits.items():
        for pair in pairs:
            splits.setdefault(pair, []).append(split)
    return splits


@dataclass(frozen=True)
class _Read:
    """The images of a pair that could be read, each by itself, and why the others could not."""

    rgb: Array | None
    thermal: Array | None
    label: Array | None
    messages: tuple[str, ...]


def _read(pair: Pair, classes: Classes) -> _Read:
    messages: list[str] = []

    def attempt(read: Callable[[], Result]) -> Result | None:
        try:
            return read()
        except InputError as error:
            messages.append(str(error))
            return None

    rgb = thermal = None
    four, visible, infrared, ids = pair.four_channel, pair.rgb, pair.thermal, pair.label
    if four:
        rgb, thermal = attempt(lambda: read_four_channel(four)) or (None, None)
    if visible:
        rgb = attempt(lambda: read_rgb(visible))
    if infrared:
        thermal = attempt(lambda: read_thermal(infrared))
    colours = classes.palette if pair.coloured_label else ()
    label = attempt(lambda: read_label(ids, classes.ignore, colours)) if ids else None
    return _Read(rgb, thermal, label, tuple(messages))


def _inspect(pair: Pair, classes: Classes, with_offset: bool = False) -> _Facts:
    read = _read(pair, classes)
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
    offset = None
    if with_offset and rgb is not None and thermal is not None:
        offset = estimate_offset(rgb, thermal)
    return _Facts(
        pair,
        tuple(problems),
        next(iter(sizes.values()), None),
        _hash(rgb),
        _hash(thermal),
        counts,
        None if thermal is None else _describe_heat(thermal),
        offset,
    )


def _size(image: Array) -> tuple[int, int]:
    return int(image.shape[0]), int(image.shape[1])


def _hash(image: Array | None) -> str:
    """Equal for equal pixels of one type and size, whatever the file format; "" without image."""
    if image is None:
        return ""
    digest = hashlib.sha256(f"{image.dtype.name} {image.shape};".encode())
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()


def _count_ids(label: Array) -> dict[int, int]:
    counts = np.bincount(label.ravel())
    return {int(id_): int(counts[id_]) for id_ in np.flatnonzero(counts)}


def _describe_heat(thermal: Array) -> _Heat:
    """Range, mean and what is odd about raw thermal values (H, W)."""
    kind, pixels = thermal.dtype, thermal.size
    if kind.kind == "f":
        low, high = float(thermal.min()), float(thermal.max())
        mean = float(thermal.mean(dtype=np.float64))
        odd = ("constant",) if low == high else ()
        return _Heat(kind.name, low, high, mean, pixels, odd)
    counts = np.bincount(thermal.ravel(), minlength=256)
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
    return _Heat(kind.name, low, high, mean, pixels, tuple(oddities))


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


def _by_kind(problems: Iterable[tuple[str, str]]) -> list[Finding]:
    groups: dict[str, list[str]] = defaultdict(list)
    for kind, message in problems:
        groups[kind].append(message)
    return [_finding(kind, items) for kind, items in groups.items()]


def _finding(kind: str, items: Sequence[str]) -> Finding:
    severity, what, remedy = _MEANING[kind]
    return Finding(severity, kind, f"{what}: {len(items)}; {remedy}", tuple(items))


def _oddities(facts: Sequence[_Facts]) -> list[Finding]:
    odd = [(kind, one.pair.name) for one in facts if one.heat for kind in one.heat.oddities]
    wrapped = sum(kind == "wrapped" for kind, _ in odd)
    images = sum(one.heat is not None and one.heat.kind == "uint8" for one in facts)
    if wrapped < _WRAPPED_SHARE * images:
        odd = [(kind, name) for kind, name in odd if kind != "wrapped"]
    return _by_kind(odd)


def _repeated(facts: Sequence[_Facts], splits: dict[Pair, list[str]]) -> list[Finding]:
    """Equal images under several names or in several splits; those between splits are errors."""
    found: list[tuple[str, str]] = []
    told: set[frozenset[Pair]] = set()
    constant = {one.thermal_hash for one in facts if one.heat and "constant" in one.heat.oddities}
    keys: tuple[tuple[str, Callable[[_Facts], str]], ...] = (
        ("pair", lambda one: f"{one.rgb_hash} {one.thermal_hash}".strip()),
        ("RGB", lambda one: one.rgb_hash),
        ("thermal", lambda one: "" if one.thermal_hash in constant else one.thermal_hash),
    )
    for what, key in keys:
        groups: dict[str, list[Pair]] = defaultdict(list)
        for one in facts:
            if key(one):
                groups[key(one)].append(one.pair)
        for pairs in groups.values():
            places = [(pair.name, split) for pair in pairs for split in splits[pair]]
            if frozenset(pairs) in told or len(places) == 1:
                continue
            told.add(frozenset(pairs))
            listed = ", ".join(f"{name} ({split})" for name, split in places)
            if _leaks({split for _, split in places}):
                found.append(("leak", f"same {what}: {listed}"))
            elif len(pairs) > 1 or len({split for _, split in places}) < len(places):
                found.append(("duplicate", f"same {what}: {listed}"))
    return _by_kind(found)


def _leaks(splits: set[str]) -> bool:
    """Whether two of the splits are meant to have nothing in common."""
    roles = [role for role in map(_roles, splits) if role]
    return any(not first & second for first in roles for second in roles)


def _roles(split: str) -> frozenset[str]:
    """`trainval` contains train and val, `test_day` is a part of test; other names say nothing."""
    if split == "trainval":
        return frozenset({"train", "val"})
    first = split.split("_")[0]
    return frozenset({first} & {"train", "val", "test"})


def _count(layout: Layout, split: str) -> SplitCount:
    names = {pair.name for pair in layout.splits[split]}
    mirrored = sum(
        name.endswith(_MIRRORED) and name.removesuffix(_MIRRORED) in names for name in names
    )
    official = OFFICIAL.get(layout.name, {}).get(split)
    return SplitCount(split, len(layout.splits[split]), mirrored, official)


def _wrong_counts(counts: Iterable[SplitCount]) -> list[Finding]:
    found = []
    for count in counts:
        own = count.pairs - count.mirrored
        if count.official is not None and own != count.official:
            message = (
                f"split {count.split} has {own} pairs, officially {count.official}: scores on it "
                f"cannot be compared with published ones"
            )
            found.append(Finding("warning", "count", message))
    return found


def _median_offset(facts: Sequence[_Facts]) -> Offset | None:
    shifts = np.array([one.offset for one in facts if one.offset is not None])
    seen = shifts[np.isfinite(shifts).all(axis=1)] if shifts.size else shifts
    if len(seen) < _FEWEST_OFFSETS:
        return None
    middle = np.median(seen, axis=0)
    spread = float(np.median(np.linalg.norm(seen - middle, axis=1)))
    return Offset(float(middle[0]), float(middle[1]), spread, len(seen))


def _shifted(offset: Offset | None, facts: Sequence[_Facts]) -> list[Finding]:
    longest = max((max(one.size) for one in facts if one.size), default=0)
    if offset is None or math.hypot(offset.dx, offset.dy) <= _LARGEST_OFFSET * longest:
        return []
    message = (
        f"the thermal images must move by ({offset.dx:+.1f}, {offset.dy:+.1f}) px (right, down) to "
        f"lie on the RGB images (median of {offset.pairs} pairs): sartm data align"
    )
    return [Finding("warning", "offset", message)]


def _tally(words: Iterable[str]) -> dict[str, int]:
    return dict(Counter(words).most_common())


def _open_what_is_there(path: Path) -> tuple[Layout, list[str]]:
    """The layout without the pairs of which a file is missing, and what is missing."""
    try:
        return open_layout(path), []
    except InputError:
        toml = path if path.suffix.lower() == ".toml" else path / "dataset.toml"
        layout, gaps = _toml_with_gaps(toml) if toml.is_file() else _plain_with_gaps(path)
        if layout is None:
            raise
        return layout, gaps


def _toml_with_gaps(path: Path) -> tuple[Layout | None, list[str]]:
    try:
        values = tomllib.loads(layouts._read_text(path))
    except tomllib.TOMLDecodeError:
        return None, []
    toml = from_dict(layouts._Toml, values, str(path))
    layouts._check_patterns(path, toml)
    files, root = toml.files, path.parent
    images = layouts._Files(rgb=files.rgb or files.four_channel or files.thermal)
    splits: dict[str, tuple[Pair, ...]] = {}
    gaps = []
    for split, value in toml.splits.items():
        listed = value.endswith(".txt")
        if listed:
            names = layouts._read_list(root / value, root)
        else:
            found = layouts._toml_split(path, dataclasses.replace(toml, files=images), split, False)
            names = [pair.name for pair in found]
        folder = split if listed or "*" in value or "?" in value else value
        whole = []
        for name in names:
            places = {
                key: root / pattern.replace("{split}", folder).replace("{name}", name)
                for key, pattern in dataclasses.asdict(files).items()
                if pattern
            }
            lost = [str(place) for place in places.values() if not place.is_file()]
            gaps += [f"{place} ({split})" for place in lost]
            whole += [] if lost else [Pair(name, **places)]
        if whole:
            splits[split] = tuple(whole)
    classes = Classes(toml.classes, toml.palette, toml.prompts, toml.ignore)
    layout = Layout(toml.name, root, classes, splits, toml.subsets)
    return layout if splits and gaps else None, gaps


def _plain_with_gaps(root: Path) -> tuple[Layout | None, list[str]]:
    for arrangement in layouts._ARRANGEMENTS if root.is_dir() else ():
        splits: dict[str, tuple[Pair, ...]] = {}
        gaps = []
        for split, folder, source in _named_splits(root, arrangement):
            parts = (arrangement.rgb, arrangement.thermal, arrangement.label)
            indices = {
                part.format(split=folder): set(layouts._index(root / part.format(split=folder)))
                for part in parts
                if part
            }
            if source:
                listed = layouts._read_list(source, root)
                names = [name.removeprefix(f"{arrangement.rgb}/") for name in listed]
            else:
                names = sorted(set().union(*indices.values()))
            gaps += [
                f"{root / part / name}.* ({split})"
                for name in names
                for part, index in indices.items()
                if name not in index
            ]
            whole = [name for name in names if all(name in index for index in indices.values())]
            if whole:
                splits[split] = layouts._pairs(root, arrangement, folder, whole, str(source))
        if splits and gaps:
            return layouts._plain_layout(root, arrangement, splits), gaps
    return None, []


def _named_splits(
    root: Path, arrangement: layouts._Arrangement
) -> Iterable[tuple[str, str, Path | None]]:
    """Split, its folder, and the list that names its pairs."""
    if "{split}" in arrangement.rgb:
        for folder, split in layouts._SPLIT_FOLDERS.items():
            if all((root / part).is_dir() for part in arrangement.folders(folder)):
                yield split, folder, None
    elif all((root / part).is_dir() for part in arrangement.folders("")):
        for split in layouts._SPLITS:
            if (root / f"{split}.txt").is_file():
                yield split, "", root / f"{split}.txt"


def _group(split: str, subset: str, facts: Sequence[_Facts], classes: Classes) -> GroupStats:
    pixels: Counter[int] = Counter()
    pairs: Counter[int] = Counter()
    for one in facts:
        pixels.update(one.ids or {})
        pairs.update((one.ids or {}).keys())
    ignored = pixels.pop(classes.ignore, 0)
    total = sum(pixels.values())
    shares = tuple(
        ClassShare(id_, name, pixels[id_], 100 * pixels[id_] / max(total, 1), pairs[id_])
        for id_, name in enumerate(classes.names)
    )
    heats = [one.heat for one in facts if one.heat]
    thermal = None
    if heats:
        mean = sum(heat.mean * heat.pixels for heat in heats) / sum(heat.pixels for heat in heats)
        thermal = (min(heat.low for heat in heats), mean, max(heat.high for heat in heats))
    labelled = sum(one.ids is not None for one in facts)
    return GroupStats(split, subset, len(facts), labelled, total, ignored, shares, thermal)


def _class_chart(stats: Stats, classes: Classes) -> str:
    """Bars per class and split on a logarithmic scale: rare classes are what one looks for."""
    groups = [group for group in stats.groups if not group.subset and group.pixels]
    left, width, right, line, gap = 240, 380, 190, 16, 10
    decades = (0.001, 0.01, 0.1, 1, 10, 100)

    def across(share: float) -> float:
        return width * max(0.0, min(1.0, (math.log10(max(share, 1e-9)) + 3) / 5))

    rows, y = [], 56
    for id_, name in enumerate(classes.names):
        rows.append(f'<text x="8" y="{y + 12}">{id_} {escape(name[:22])}</text>')
        colour = "#{:02x}{:02x}{:02x}".format(*classes.palette[id_])
        for group in groups:
            found = group.classes[id_]
            rows.append(
                f'<text class="soft" x="{left - 8}" y="{y + 12}" text-anchor="end">'
                f"{escape(group.split[:12])}</text>"
                f'<rect x="{left}" y="{y + 2}" width="{across(found.share):.1f}" '
                f'height="{line - 4}" fill="{colour}" stroke="#888" stroke-width=".5"/>'
                f'<text class="soft" x="{left + across(found.share) + 6:.1f}" y="{y + 12}">'
                f"{_percent(found.share)} in {found.pairs} of {group.labelled}</text>"
            )
            y += line
        y += gap
    scale = "".join(
        f'<line x1="{left + across(tick)}" x2="{left + across(tick)}" y1="44" y2="{y}" '
        f'stroke="#ddd"/><text class="soft" x="{left + across(tick)}" y="40" '
        f'text-anchor="middle">{tick:g} %</text>'
        for tick in decades
    )
    title = escape(f"{stats.name}: share of pixels (logarithmic) and pairs with the class")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + width + right} {y + 8}" '
        f'role="img"><title>{title}</title><style>text{{font:12px system-ui,sans-serif;fill:#222}}'
        f".soft{{fill:#666;font-size:11px}}</style>"
        f'<rect width="100%" height="100%" fill="#fff"/>'
        f'<text x="8" y="18" font-weight="600">{title}</text>{scale}{"".join(rows)}</svg>\n'
    )


def _percent(share: float) -> str:
    return "0 %" if share == 0 else f"{share:.3g} %"


_TILE, _NAME_LINE, _MARGIN = 300, 20, 8
"""Pixels of the contact sheet: width of an image, height of a line of text, space between."""
_SHEET_PAIRS = 12


def _draw_contact_sheet(
    layout: Layout, facts: Sequence[_Facts], splits: dict[Pair, list[str]], path: Path
) -> None:
    """RGB, thermal (stretched from its 1st to 99th percentile) and label of pairs in all splits."""
    count = min(_SHEET_PAIRS, len(facts))
    chosen = [facts[index * len(facts) // count] for index in range(count)]
    font = ImageFont.load_default(13)
    rows = [_sheet_row(one, splits[one.pair], layout.classes, font) for one in chosen]
    legend = _legend(layout.classes, font, 2 * rows[0].width + _MARGIN)
    lines = [rows[index : index + 2] for index in range(0, len(rows), 2)]
    heights = [max(row.height for row in line) for line in lines]
    sheet = Image.new("RGB", (legend.width, sum(heights) + legend.height), "white")
    y = 0
    for line, height in zip(lines, heights, strict=True):
        for column, row in enumerate(line):
            sheet.paste(row, (column * (row.width + _MARGIN), y))
        y += height
    sheet.paste(legend, (0, y))
    buffer = BytesIO()
    sheet.save(buffer, "JPEG", quality=88)
    _write(path, buffer.getvalue())


def _sheet_row(one: _Facts, splits: Sequence[str], classes: Classes, font: Any) -> Image.Image:
    pair = one.pair
    height, width = one.size or (3, 4)
    tile = (_TILE, max(1, min(round(_TILE * height / width), 2 * _TILE)))
    row = Image.new("RGB", (3 * _TILE, tile[1] + _NAME_LINE + _MARGIN), "white")
    draw = ImageDraw.Draw(row)
    text = f"{pair.name}   {', '.join(splits)}   {height}x{width}"
    draw.text((2, 2), text, "black", font)
    for column, image in enumerate(_pictures(pair, classes)):
        x = column * _TILE
        if image is None:
            draw.rectangle((x, _NAME_LINE, x + _TILE - 2, _NAME_LINE + tile[1]), "#eee")
            said = ("no RGB", "no thermal", "no label")[column]
            draw.text((x + 8, _NAME_LINE + 8), said, "#a00", font)
        else:
            how = cv2.INTER_NEAREST if column == 2 else cv2.INTER_AREA
            small = cv2.resize(image, (tile[0] - 2, tile[1]), interpolation=how)
            row.paste(Image.fromarray(small), (x, _NAME_LINE))
    return row


def _pictures(pair: Pair, classes: Classes) -> tuple[Array | None, Array | None, Array | None]:
    """RGB, thermal and label as uint8 (H, W, 3); None for what is not there or not readable."""

    read = _read(pair, classes)
    thermal, label = read.thermal, read.label
    shown = None
    if thermal is not None:
        low, high = np.percentile(thermal[::2, ::2], (1, 99))
        grey = (255 * scale_thermal(thermal, (float(low), float(high)))).astype(np.uint8)
        shown = np.dstack([grey] * 3)
    if label is not None:
        table = np.full((65536, 3), 255, np.uint8)  # unknown ids and ignore: white
        table[: len(classes)] = classes.palette
        label = table[label]
    return read.rgb, shown, label


def _legend(classes: Classes, font: Any, width: int) -> Image.Image:
    column = 180
    per_line = max(width // column, 1)
    height = math.ceil(len(classes) / per_line) * _NAME_LINE + 2 * _MARGIN
    legend = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(legend)
    for id_, (name, colour) in enumerate(zip(classes.names, classes.palette, strict=True)):
        x, y = id_ % per_line * column + 2, id_ // per_line * _NAME_LINE + _MARGIN
        draw.rectangle((x, y + 2, x + 14, y + 14), colour, "#888")
        draw.text((x + 20, y), f"{id_} {name[:20]}", "black", font)
    return legend


def _write(path: Path, data: bytes) -> None:
    try:
        write_atomic(path, data)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}; choose another --out") from None


__all__ = [
    "OFFICIAL",
    "Check",
    "ClassShare",
    "Finding",
    "GroupStats",
    "Offset",
    "SplitCount",
    "Stats",
    "check_dataset",
    "over_all",
    "stats_dataset",
]
