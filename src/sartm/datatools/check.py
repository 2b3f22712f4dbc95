"""What is wrong with a data set and what is in it, found before a model is trained on it."""

import dataclasses
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sartm.data.coverage import describe_poor_labels
from sartm.data.gaps import Gap, open_what_is_there
from sartm.data.names import UNLABELLED
from sartm.data.pairs import describe_mixed_types
from sartm.data.sets import Layout, Pair
from sartm.datatools.init import look_at_folder
from sartm.datatools.sheet import draw_contact_sheet
from sartm.datatools.survey import (
    COMPARED,
    WRAPPED_SHARE,
    Facts,
    inspect_pair,
    over_all,
    splits_of_pairs,
    spread_over,
)
from sartm.errors import InputError
from sartm.registration.offset import Offset, find_offset

Severity = Literal["error", "warning"]

OFFICIAL = {
    "mfnet": {"train": 784, "val": 392, "trainval": 1176, "test": 393},
    "pst900": {"train": 597, "test": 288},
    "fmb": {"train": 1220, "test": 280},
    "msrs": {"train": 1083, "test": 361},
}
"""Pairs per split as the benchmarks are distributed; PST900's paper prints other figures."""

_MIRRORED = "_flip"
_LARGEST_OFFSET = 3 / 640
"""Shift between the cameras, as a share of the longer side, that fusion does not forgive."""

MEANING: dict[str, tuple[Severity, str, str]] = {
    "missing": ("error", "missing files", "complete the download or take the names out"),
    "label": (
        "error", "labels that are missing in splits that have some",
        "label the pairs, or leave them out: sartm data init --overwrite",
    ),
    "unreadable": ("error", "files that cannot be read", "copy or export them again"),
    "size": (
        "error", "pairs whose RGB, thermal and label differ in size",
        "register them with sartm data align, or use the images that belong together",
    ),
    "ids": (
        "error", "labels with ids that the class table does not have",
        "correct the labels or the classes",
    ),
    "blank": (
        "warning", "labels without a pixel of any class", "label them or take the pairs out",
    ),
    "unlabelled": (
        "warning", "splits without any label file",
        "sartm app --annotate labels them; training and scores need labels",
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
    """None where too few pairs can be compared."""
    findings: tuple[Finding, ...]
    contact_sheet: str | None = None
    notes: tuple[str, ...] = ()
    """How a folder without a dataset.toml was understood."""

    @property
    def usable(self) -> bool:
        """Whether no finding is an error."""
        return all(finding.severity != "error" for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return dataclasses.asdict(self) | {"usable": self.usable}


def check_dataset(path: str | Path, out: str | Path | None = None) -> Check:
    """Read every file of a data set and say what is wrong with it.

    Args:
        path: folder in a known layout, a dataset.toml, or a plain folder of pairs.
        out: folder to write `contact-sheet.jpg` into: RGB, thermal and label of a few pairs.

    Raises:
        InputError: the layout is not recognised, or `out` cannot be written.
    """
    return _check(path, out)[0]


def check_datasets(
    paths: Sequence[str | Path], outs: Sequence[str | Path | None]
) -> tuple[list[Check], list[Finding]]:
    """`check_dataset` of several that one model is to be trained on; images that they share.

    Raises InputError as `check_dataset` does.
    """
    found = [_check(path, out) for path, out in zip(paths, outs, strict=True)]
    every = [(number, one) for number, (_, facts, _) in enumerate(found) for one in facts]
    problems: list[tuple[str, str]] = []
    for what, members in _equal([one for _, one in every]):
        sets = {every[member][0] for member in members}
        places = [
            (*every[member], split)
            for member in members
            for split in found[every[member][0]][2][every[member][1].pair]
        ]
        if len(sets) > 1:
            listed = ", ".join(
                f"{one.pair.name} ({found[number][0].root}, {split})"
                for number, one, split in places
            )
            leaks = _leaks({split for *_, split in places})
            problems.append(("leak" if leaks else "duplicate", f"same {what}: {listed}"))
    return [check for check, *_ in found], _by_kind(problems)


def _check(
    path: str | Path, out: str | Path | None
) -> tuple[Check, Sequence[Facts], dict[Pair, list[str]]]:
    layout, gaps, notes = _open(Path(path))
    splits = splits_of_pairs(layout)
    pairs = list(splits)
    sample = set(spread_over(pairs, COMPARED))
    facts = over_all(
        pairs,
        lambda pair: inspect_pair(pair, layout, pair in sample),
        f"check {layout.name}",
    )
    counts = tuple(_count(layout, split) for split in layout.splits)
    offset = find_offset([one.shift for one in facts if one.shift])
    found = _by_kind(gaps)
    found += _by_kind([problem for one in facts for problem in one.problems])
    mixed = describe_mixed_types((one.pair.name, one.heat.kind) for one in facts if one.heat)
    found += [Finding("error", "types", mixed)] if mixed else []
    found += _poor_labels(layout, facts) + _unlabelled(layout)
    found += _repeated(facts, splits) + _oddities(facts)
    found += _wrong_counts(counts) + _shifted(offset, facts)
    sheet = None
    if out is not None:
        sheet = Path(out) / "contact-sheet.jpg"
        draw_contact_sheet(layout, facts, splits, sheet)
    check = Check(
        layout.name,
        layout.kind,
        str(layout.root),
        layout.classes.names,
        counts,
        dict(Counter(f"{one.size[0]}x{one.size[1]}" for one in facts if one.size).most_common()),
        dict(Counter(one.heat.kind for one in facts if one.heat).most_common()),
        offset,
        tuple(sorted(found, key=lambda finding: finding.severity)),
        str(sheet) if sheet else None,
        notes,
    )
    return check, facts, splits


def _open(path: Path) -> tuple[Layout, list[Gap], tuple[str, ...]]:
    """What is there of a data set; of a plain folder, what `sartm data init` would make of it."""
    try:
        return *open_what_is_there(path), ()
    except InputError:
        if not path.is_dir() or (path / "dataset.toml").is_file():
            raise
    start = look_at_folder(path)
    doubts = (f"undecided: {question}" for question in start.questions)
    notes = (f"no dataset.toml: sartm data init {path} writes it", *start.said, *doubts)
    return dataclasses.replace(start.layout, kind="plain folder"), [], notes


def _unlabelled(layout: Layout) -> list[Finding]:
    """Splits that are still to be labelled, and pairs that have been since."""
    bare = [
        f"{split} ({len(pairs)} pairs)"
        for split, pairs in layout.splits.items()
        if not any(pair.label for pair in pairs)
    ]
    found = [_finding("unlabelled", bare)] if bare else []
    done = [pair.name for pair in layout.splits.get(UNLABELLED, ()) if pair.label]
    if done:
        remedy = f"sartm data init {layout.root} --overwrite puts them into train and val"
        message = f"pairs of split {UNLABELLED} that have labels: {len(done)}; {remedy}"
        found.append(Finding("warning", "labelled", message, tuple(done)))
    return found


def _poor_labels(layout: Layout, facts: Sequence[Facts]) -> list[Finding]:
    """Splits whose labels teach nothing (or, beside the train split, score nothing)."""
    ids = {one.pair: one.ids for one in facts if one.ids}
    found = []
    for split, pairs in layout.splits.items():
        pixels = sum((Counter(ids.get(pair)) for pair in pairs), Counter[int]())
        if message := describe_poor_labels(pixels, layout.classes):
            found.append(Finding("error", "labels", f"split {split}: {message}"))
    blank = [
        one.pair.name for one in facts
        if one.ids and set(one.ids) <= {layout.classes.ignore}
    ]  # fmt: skip
    return [*found, _finding("blank", blank)] if blank else found


def _by_kind(problems: Iterable[tuple[str, str]]) -> list[Finding]:
    groups: dict[str, list[str]] = defaultdict(list)
    for kind, message in problems:
        groups[kind].append(message)
    return [_finding(kind, items) for kind, items in groups.items()]


def _finding(kind: str, items: Sequence[str]) -> Finding:
    severity, what, remedy = MEANING[kind]
    return Finding(severity, kind, f"{what}: {len(items)}; {remedy}", tuple(items))


def _oddities(facts: Sequence[Facts]) -> list[Finding]:
    odd = [(kind, one.pair.name) for one in facts if one.heat for kind in one.heat.oddities]
    wrapped = sum(kind == "wrapped" for kind, _ in odd)
    images = sum(one.heat is not None and one.heat.kind == "uint8" for one in facts)
    if wrapped < WRAPPED_SHARE * images:
        odd = [(kind, name) for kind, name in odd if kind != "wrapped"]
    return _by_kind(odd)


def _repeated(facts: Sequence[Facts], splits: dict[Pair, list[str]]) -> list[Finding]:
    """Equal images under several names or in several splits; those between splits are errors."""
    found: list[tuple[str, str]] = []
    for what, members in _equal(facts):
        pairs = [facts[member].pair for member in members]
        places = [(pair.name, split) for pair in pairs for split in splits[pair]]
        listed = ", ".join(f"{name} ({split})" for name, split in places)
        if _leaks({split for _, split in places}):
            found.append(("leak", f"same {what}: {listed}"))
        elif len(pairs) > 1 or len({split for _, split in places}) < len(places):
            found.append(("duplicate", f"same {what}: {listed}"))
    return _by_kind(found)


def _equal(facts: Sequence[Facts]) -> Iterator[tuple[str, list[int]]]:
    """What is equal, and in which of `facts`; one alone, which may stand in several splits, too."""
    told: set[frozenset[int]] = set()
    constant = {one.thermal_hash for one in facts if one.heat and "constant" in one.heat.oddities}
    keys: tuple[tuple[str, Callable[[Facts], str]], ...] = (
        ("pair", lambda one: f"{one.rgb_hash} {one.thermal_hash}".strip()),
        ("RGB", lambda one: one.rgb_hash),
        ("thermal", lambda one: "" if one.thermal_hash in constant else one.thermal_hash),
    )
    for what, key in keys:
        groups: dict[str, list[int]] = defaultdict(list)
        for number, one in enumerate(facts):
            if key(one):
                groups[key(one)].append(number)
        for members in groups.values():
            if frozenset(members) not in told:
                told.add(frozenset(members))
                yield what, members


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


def _shifted(offset: Offset | None, facts: Sequence[Facts]) -> list[Finding]:
    longest = max((max(one.size) for one in facts if one.size), default=0)
    if offset is None or not offset.agreed:
        return []
    if math.hypot(offset.dx, offset.dy) <= _LARGEST_OFFSET * longest:
        return []
    message = (
        f"the thermal images must move by ({offset.dx:+.1f}, {offset.dy:+.1f}) px (right, down) to "
        f"lie on the RGB images, as {offset.pairs} pairs agree: sartm data align"
    )
    return [Finding("warning", "offset", message)]
