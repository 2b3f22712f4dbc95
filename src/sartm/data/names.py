"""What the names of files and folders say: which modality an image is of, its split, its partner.

The one place for the words people use; `layouts` (benchmarks), `finding` (loose images) and
`datatools.init` (own folders) go by it.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

Role = Literal["rgb", "thermal", "label"]

SPLIT_NAMES = ("train", "val", "test", "trainval", "test_day", "test_night")
UNLABELLED = "unlabelled"
"""Split of the pairs that are to be labelled still; some may have been since."""
# Folder -> split: the other words in use.
SPLIT_FOLDERS = {
    "train": "train", "training": "train", "val": "val", "validation": "val", "test": "test",
}  # fmt: skip
_WORDS: dict[Role, frozenset[str]] = {
    "rgb": frozenset({
        "rgb", "visible", "vis", "vi", "v", "w", "wide", "color", "colour", "co", "dc", "eo",
        "optical", "photo",
    }),
    "thermal": frozenset({
        "thermal", "thermals", "ther", "therm", "the", "th", "t", "infrared", "ir", "irs", "lwir",
        "tir", "mwir", "modal", "previewdata",
    }),
    "label": frozenset({
        "label", "labels", "labelids", "labelmap", "mask", "masks", "gt", "groundtruth",
        "annotation", "annotations", "anno", "seg", "segmentation", "semantic",
    }),
}  # fmt: skip
_FOLDERS: dict[Role, frozenset[str]] = {
    "rgb": frozenset({"visible images", "color"}),
    "thermal": frozenset({"flir", "heat"}),
    "label": frozenset({"ground truth"}),
}
"""What says it of a folder only."""
_PLAIN = frozenset({
    "images", "image", "imgs", "img", "pictures", "jpegimages", "frames", "photos",
})  # fmt: skip
"""Folders of images of one modality, beside others that say which theirs is."""
ASIDE = frozenset({"instances", "celsius"})
"""Folders beside the images of a pair with what is neither: things numbered, exact temperatures."""
_SHORT = 2
"""Words this short count only between separators; single letters only first or last in a name."""


@dataclass(frozen=True)
class Reading:
    """What the path of a file says, relative to the folder that was named."""

    role: Role | None
    split: str
    """train, val, ... where a folder says so; else empty."""
    whole: str
    """The path without suffix, split, and folders that tell the modality: partners may share it."""
    core: str
    """`whole` without the words that tell the modality: else they share this."""
    plain: str
    """`core` without folders such as images/."""
    place: tuple[str, ...]
    """Words of folders and name beside the role's own, which tell two kinds of one role apart."""


def read_name(path: PurePosixPath) -> Reading:
    """Read the path of an image."""
    role: Role | None = None
    split, kept, plain, place = "", [], [], []
    for folder in path.parts[:-1]:
        words = [word.lower() for word in re.findall(r"[A-Za-z]+|\d+", folder)]
        told = _role_of_folder(words)
        part = next((SPLIT_FOLDERS[word] for word in words if word in SPLIT_FOLDERS), "")
        split = split or part
        if told:
            role = told if role != "label" else role
            place.append(folder)
        elif folder.lower() not in SPLIT_FOLDERS:
            kept.append(folder)
            if folder.lower() not in _PLAIN:
                plain.append(folder)
    stem = path.stem
    named, rest = _read_stem(stem, role)
    if named:
        place.append(re.sub(r"[0-9]+", "", stem.replace(rest, "*") if rest else stem))
    core = [rest] if rest else []
    return Reading(
        role or named,
        split,
        "/".join((*kept, stem)),
        "/".join((*kept, *core)),
        "/".join((*plain, *core)),
        tuple(place),
    )


def is_text(value: object) -> bool:
    """Whether a value is text that UTF-8 can hold: no half of a pair of code units, which JSON can
    name and file systems can have."""
    return isinstance(value, str) and not re.search("[\ud800-\udfff]", value)


def is_plain_name(name: str) -> bool:
    """Whether a name stays below the folder it is used in, and every file system takes it."""
    if not is_text(name):
        return False
    parts = PurePosixPath(name).parts
    plain = not re.search(r"[\x00-\x1f\\:]", name) and "/".join(parts) == name
    short = all(len(part.encode()) <= 240 for part in parts)  # an ending is to be added
    return bool(name) and plain and short and ".." not in parts and not name.startswith("/")


def strip_name(name: str, role: Role) -> str:
    """A path without suffix, known to be of this modality, without the words that say so."""
    path = PurePosixPath(name)
    return "/".join((*path.parts[:-1], _read_stem(path.name, role)[1]))


def _role_of_folder(words: list[str]) -> Role | None:
    joined = " ".join(words)
    for role in ("label", "thermal", "rgb"):
        names: frozenset[str] = _WORDS[role] | _FOLDERS[role]
        long = {word for word in names if len(word) > _SHORT}
        if joined in names or long & set(words):
            return role
    return None


def _read_stem(stem: str, known: Role | None) -> tuple[Role | None, str]:
    """The role that a file's name tells (if `known`, no other), and the name without its words."""
    words = [(match[0].lower(), *match.span()) for match in re.finditer(r"[A-Za-z]+|\d+", stem)]
    found: dict[Role, list[tuple[str, int, int]]] = {}
    for word, start, end in words:
        for role, names in _WORDS.items():
            if word in names and _stands_free(stem, start, end):
                found.setdefault(role, []).append((word, start, end))
    if not found:
        return None, stem
    weight = {role: max(len(word) for word, _, _ in some) for role, some in found.items()}
    role = known if known in found else max(weight, key=lambda one: (one == "label", weight[one]))
    others = [size for one, size in weight.items() if one != role]
    if known is not None and role != known:
        return None, stem
    if role != "label" and weight[role] in others:
        return None, stem
    gone = [
        place for one, some in found.items() for place in some if one == role or role == "label"
    ]
    return role, _cut(stem, [(start, end) for _, start, end in gone])


def _stands_free(stem: str, start: int, end: int) -> bool:
    """Whether a word may tell a role where it stands."""
    word, last = stem[start:end].lower(), end == len(stem)
    if word == "the":  # which also begins sentences
        return last
    if end - start > _SHORT or (word == "ir" and last):
        return True
    apart = (start == 0 or not stem[start - 1].isalnum()) and (last or not stem[end].isalnum())
    return apart and (end - start == _SHORT or start == 0 or last)


def _cut(stem: str, places: Iterable[tuple[int, int]]) -> str:
    """The text without some words, and without the separators that they leave over."""
    for start, end in sorted(places, reverse=True):
        before, after = stem[:start], stem[end:]
        if before and not before[-1].isalnum() and (not after or not after[0].isalnum()):
            before = before[:-1]
        elif not before:
            after = after.lstrip("_-. ")
        stem = before + after
    return stem.strip("_-. ") if stem else stem


_EXPRESSIONS = (
    r"([^/]+)$", r"(.+)[_. -][^_. /-]+$", r"(?:^|/)[^_. /-]+[_. -]([^/]+)$", r"(\d+)\D*$",
    r"^\D*(\d+)", r"(\d+)[^/]*$", r"([^/_. -]+)[^/]*$",
)  # fmt: skip
"""Group 1: the name without folders; without its last part; without its first; a number in it."""


def suggest_expression(left: Iterable[str], right: Iterable[str]) -> tuple[str, int]:
    """The regular expression whose group 1 pairs most names of two sides, and how many.

    One that gives two names of a side the same key is none; ("", 0) where nothing pairs.
    """
    sides = list(left), list(right)
    best, most = "", 0
    for expression in _EXPRESSIONS:
        keys = [_keys(side, re.compile(expression).search) for side in sides]
        if keys[0] is None or keys[1] is None:
            continue
        count = len(keys[0] & keys[1])
        if count > most:
            best, most = expression, count
    return best, most


def _keys(names: list[str], search: Callable[[str], re.Match[str] | None]) -> set[str] | None:
    """Group 1 of every name that fits; None where two names share one."""
    found = [match[1] for name in names if (match := search(name))]
    return set(found) if len(set(found)) == len(found) else None


def natural_order(name: str) -> list[tuple[int, str]]:
    """Sort key that counts: frame2 before frame10."""
    return [
        (int(part), "") if part.isdigit() else (-1, part)
        for part in re.split(r"([0-9]{1,18})", name)
    ]
