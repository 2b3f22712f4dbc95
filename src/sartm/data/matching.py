"""Pairs and labels of one folder that holds all of them, told apart by the words in their names."""

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from sartm.data.listing import list_files
from sartm.data.names import ASIDE, Reading, Role, read_name, suggest_expression
from sartm.data.sets import Pair
from sartm.files import read_json
from sartm.io.header import SUFFIXES


@dataclass(frozen=True)
class FolderPairs:
    """What `pair_folder` made of a folder."""

    pairs: list[Pair]
    """In order of their names, which are what their files have in common; with labels."""
    splits: dict[str, str] = field(default_factory=dict)
    """Pair -> split, where folders say so."""
    alone: list[Pair] = field(default_factory=list)
    """Images without a partner, with their labels; one of no named modality counts as RGB."""
    unpaired: list[Path] = field(default_factory=list)
    """Images, and labels that belong to none of the pairs."""
    notes: list[str] = field(default_factory=list)
    """What was left out because there is more than one of it."""
    unreadable: dict[str, str] = field(default_factory=dict)

    def describe(self) -> str:
        """One line: how many pairs, how their names differ, what is left over."""
        if not self.pairs:
            return "no pairs of RGB and thermal images"
        first = self.pairs[0]
        files = " + ".join(str(file.name) for file in (first.rgb, first.thermal) if file)
        labels = sum(pair.label is not None for pair in self.pairs)
        lone = f", {len(self.unpaired)} files without a partner" if self.unpaired else ""
        return f"{len(self.pairs)} pairs, such as {files}; {labels} labels{lone}"


def pair_folder(
    folder: Path, out: Path | None = None, told: Mapping[Role, str] | None = None
) -> FolderPairs:
    """Pair what lies in one folder, by the words in its names and those of its sub-folders.

    Where only one modality is named (x.jpg, x_T.jpg), images of no modality are the other one.
    Names alone decide: nothing is opened.

    Args:
        folder: to look into.
        out: where outputs will go, which is passed over.
        told: sub-folders that hold images of a role, whatever their names say; those may then
            differ in more than words (`suggest_expression`).
    """
    listing, told = list_files(folder, out), told or {}
    sides: dict[Role | None, dict[Path, Reading]] = {}
    for file in listing.files:
        place = PurePosixPath(file.relative_to(folder).as_posix())
        if file.suffix.lower() not in SUFFIXES or ASIDE.intersection(place.parts[:-1]):
            continue
        reading = _read(place, told)
        if reading is not None:
            sides.setdefault(reading.role, {})[file] = reading
    unknown = sides.pop(None, {})
    named = [role for role in ("rgb", "thermal") if role in sides]
    if len(named) == 1:
        sides["thermal" if named == ["rgb"] else "rgb"] = unknown
        unknown = {}
    notes: list[str] = []
    chosen = {role: _choose_kind(some, notes) for role, some in sides.items() if role}
    visible, infrared = chosen.get("rgb", {}), chosen.get("thermal", {})
    matched = _match_listed(folder, visible, infrared)
    for match in (_match_readings, _match_counted):
        left = {file: one for file, one in visible.items() if file not in matched}
        taken = set(matched.values())
        matched |= match(left, {file: one for file, one in infrared.items() if file not in taken})
    if told and not matched:
        matched = _match_suggested(visible, infrared)
    heat = {matched[file]: infrared[matched[file]] for file in matched}
    marks = chosen.get("label", {})
    labels = _match_readings({file: visible[file] for file in matched}, marks)
    labels |= {
        file: found
        for warm, found in _match_readings(heat, marks).items()
        for file in matched
        if matched[file] == warm and file not in labels
    }
    if told and not labels:
        labels = _match_suggested({file: visible[file] for file in matched}, marks)
    pairs, splits = [], {}
    names = [_name_pair(visible[file], infrared[matched[file]], folder) for file in matched]
    often = Counter(names)
    for file, short in zip(matched, names, strict=True):
        split = visible[file].split or infrared[matched[file]].split
        name = f"{split}/{short}" if often[short] > 1 and split else short
        pairs.append(Pair(name, file, matched[file], labels.get(file)))
        if split:
            splits[name] = split
    used = {*matched, *matched.values(), *labels.values()}
    rest = [file for some in (*chosen.values(), unknown) for file in some if file not in used]
    alone = _take_alone({file: one for file, one in (unknown | visible | infrared).items()
                         if file not in used}, marks, splits)  # fmt: skip
    return FolderPairs(
        sorted(pairs, key=lambda pair: pair.name),
        splits,
        sorted(alone, key=lambda pair: pair.name),
        sorted(rest),
        notes,
        listing.unreadable,
    )


def _read(place: PurePosixPath, told: Mapping[Role, str]) -> Reading | None:
    """What a path says, or the folder it is in was said to hold; None for what another one holds
    instead."""
    for role, folder in told.items():
        if place.is_relative_to(folder):
            return replace(read_name(place.relative_to(folder)), role=role, place=())
    reading = read_name(place)
    both = {"rgb", "thermal"} <= told.keys()
    return None if reading.role in told or (both and reading.role is None) else reading


def _take_alone(
    files: dict[Path, Reading], marks: dict[Path, Reading], splits: dict[str, str]
) -> list[Pair]:
    """Pairs of one image each."""
    labels = _match_readings(files, marks)
    pairs = []
    for file, one in files.items():
        name, label = one.plain or one.whole, labels.get(file)
        sole = one.role == "thermal"
        pairs.append(Pair(name, None if sole else file, file if sole else None, label))
        if one.split:
            splits.setdefault(name, one.split)
    return pairs


def _name_pair(rgb: Reading, thermal: Reading, folder: Path) -> str:
    """What the two paths have in common."""
    for key in _KEYS:
        if key(rgb) == key(thermal):
            return key(rgb)[1] or folder.resolve().name
    return rgb.core


_KEYS: tuple[Callable[[Reading], tuple[str, str]], ...] = (
    lambda one: (one.split, one.whole),
    lambda one: (one.split, one.core),
    lambda one: (one.split, one.plain),
    lambda one: ("", one.plain),
    lambda one: (one.split, one.plain.rpartition("/")[2]),
)
"""What partners share, the most trustworthy first."""


def _match_readings(first: dict[Path, Reading], second: dict[Path, Reading]) -> dict[Path, Path]:
    """Files of two sides that share a name; a name that two files of a side have pairs nothing."""
    matched: dict[Path, Path] = {}
    folders = [{_folder(one) for one in side.values()} for side in (first, second)]
    by_sequence = bool(folders[0] & folders[1] - {""})
    for key in _KEYS:
        taken = set(matched.values())
        sides = []
        for side, used in ((first, set(matched)), (second, taken)):
            keys = {file: key(one) for file, one in side.items() if file not in used}
            often = Counter(keys.values())
            sides.append({word: file for file, word in keys.items() if often[word] == 1})
        found = {sides[0][word]: sides[1][word] for word in sides[0].keys() & sides[1]}
        matched |= {
            file: other
            for file, other in found.items()
            if not _lie_apart(first[file], second[other], by_sequence)
        }
    return matched


def _folder(one: Reading) -> str:
    return one.plain.rpartition("/")[0]


def _lie_apart(one: Reading, other: Reading, by_sequence: bool) -> bool:
    """Whether two of one name are of two splits, or of two folders where these are sequences: they
    count anew there, so that what is left over of one is not the partner of another's."""
    splits, folders = {one.split, other.split} - {""}, {_folder(one), _folder(other)} - {""}
    return len(splits) > 1 or (by_sequence and len(folders) > 1)


def _match_counted(visible: dict[Path, Reading], infrared: dict[Path, Reading]) -> dict[Path, Path]:
    """FLIR's hand-held cameras count on: IR_0001.jpg, then its visible picture DC_0002.jpg."""
    sides = []
    for side, prefix, step in ((visible, "DC", 0), (infrared, "IR", 1)):
        counted: dict[tuple[str, str, int], Path] = {}
        for file, one in side.items():
            if number := re.fullmatch(rf"{prefix}_(\d{{1,18}})", file.stem, re.I):
                above = one.plain.rpartition("/")[0]
                counted[one.split, above, int(number[1]) + step] = file
        sides.append(counted)
    return {sides[0][key]: sides[1][key] for key in sides[0].keys() & sides[1]}


def _match_suggested(first: dict[Path, Reading], second: dict[Path, Reading]) -> dict[Path, Path]:
    """Files of two sides by the expression that pairs most of their names."""
    names = [{one.whole: file for file, one in side.items()} for side in (first, second)]
    expression, _ = suggest_expression(*names)
    keys = [
        {found[1]: file for name, file in side.items() if (found := re.search(expression, name))}
        for side in names
    ] if expression else [{}, {}]  # fmt: skip
    return {keys[0][key]: keys[1][key] for key in keys[0].keys() & keys[1]}


PARTNERS = "rgb_to_thermal_vid_map.json"
"""FLIR's ADAS set, version 2: RGB file -> thermal file, whose names have nothing in common."""


def _match_listed(
    folder: Path, visible: dict[Path, Reading], infrared: dict[Path, Reading]
) -> dict[Path, Path]:
    """The pairs that a list in the folder names; InputError where it cannot be read."""
    if not (folder / PARTNERS).is_file():
        return {}
    warm = {file.name: file for file in infrared}
    listed = read_json(folder / PARTNERS)
    named = ((file, listed.get(file.name)) for file in visible)
    return {file: warm[other] for file, other in named if isinstance(other, str) and other in warm}


def _choose_kind(files: dict[Path, Reading], notes: list[str]) -> dict[Path, Reading]:
    """One file of each name; of several kinds (thermal_8_bit, thermal_16_bit) the most frequent."""
    kinds = Counter(one.place for one in files.values())
    if len(kinds) < 2:
        return files

    def rank(place: tuple[str, ...]) -> tuple[bool, int, int, tuple[str, ...]]:
        rare = any("color" in word.lower() or "colour" in word.lower() for word in place)
        return rare, -kinds[place], sum(map(len, place)), place

    order = {place: number for number, place in enumerate(sorted(kinds, key=rank))}
    taken: dict[tuple[str, str], Path] = {}
    for file, one in files.items():
        known = taken.setdefault((one.split, one.core), file)
        if order[one.place] < order[files[known].place]:
            taken[one.split, one.core] = file
    kept = {file: files[file] for file in taken.values()}
    for place in order:
        left = [file for file, one in files.items() if one.place == place and file not in kept]
        if left:
            other = " ".join(next(iter(order)))
            kind = " ".join(place)
            notes.append(f"which to take: {len(left)} images {kind} are left out for {other}")
    return kept
