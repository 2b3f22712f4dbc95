"""dataset.toml: its keys, checked, and the pairs that its patterns, lists, table or shards name."""

import fnmatch
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import cast

from sartm.classes import Classes
from sartm.config import from_dict
from sartm.data.listing import files_below
from sartm.data.lists import read_list
from sartm.data.names import UNLABELLED
from sartm.data.sets import Layout, Pair, ThermalUnit, find_repeated
from sartm.data.shards import read_index
from sartm.data.tables import read_table
from sartm.errors import InputError
from sartm.files import read_toml
from sartm.io.cameras import Camera
from sartm.io.remote import is_remote


@dataclass(frozen=True)
class FilePatterns:
    """The table [files]: paths relative to dataset.toml, with {split} and {name}."""

    rgb: str = ""
    thermal: str = ""
    four_channel: str = ""
    label: str = ""
    instances: str = ""
    """Whole numbers from 1 for each thing of the label, 0 for none; a picture may be missing."""
    table: str = ""
    """Instead of the others: a file of columns (`tables.read_table`)."""
    shards: str = ""
    """Instead of all of these: the index of tar shards (`shards.read_index`), which has the splits;
    a path beside dataset.toml or an address."""

    @property
    def images(self) -> str:
        """The pattern that names are found by; empty with a table."""
        return self.rgb or self.four_channel or self.thermal


@dataclass(frozen=True)
class ThermalTable:
    """The table [thermal]: what the raw values of thermal images are, as in `Layout`."""

    unit: ThermalUnit = "display"
    black_hot: bool = False
    holes: float | None = None
    resize: bool = False


@dataclass(frozen=True)
class DatasetFile:
    """dataset.toml as written; the field names are its keys."""

    name: str
    classes: tuple[str, ...]
    files: FilePatterns
    splits: dict[str, str]
    palette: tuple[tuple[int, int, int], ...] = ()
    label_colours: bool = False
    """Labels show the palette's colours, grey ones too, never ids."""
    ignore: int = 255
    prompts: tuple[str, ...] = ()
    subsets: dict[str, str] = field(default_factory=dict)
    thermal: ThermalTable = ThermalTable()


NEEDED = {
    "name": 'name = "yard"',
    "classes": 'classes = ["rest", "person"], the names of the ids 0, 1, ...',
    "files": '[files] with rgb = "rgb/{name}.png", thermal and label alike',
    "splits": '[splits] with train = "train.txt", a list of names, or train = "*", all of them',
}
"""Keys that a dataset.toml cannot do without, and what they look like."""


def read_dataset_file(path: Path) -> DatasetFile:
    """A dataset.toml as it is written.

    Raises:
        InputError: it is no TOML, or a key is missing, unknown or of another type.
    """
    values = read_toml(path)
    missing = [key for key in NEEDED if key not in values]
    if missing and values.keys() <= {known.name for known in fields(DatasetFile)}:
        raise InputError(f"{path} lacks {missing[0]}; write e.g. {NEEDED[missing[0]]}")
    return from_dict(DatasetFile, values, str(path))  # a key that is misspelt is named first


def open_toml(path: Path, labels: bool) -> Layout:
    """The data set of a dataset.toml, as `layouts.open_layout` says."""
    toml = read_dataset_file(path)
    check_patterns(path, toml)
    if toml.files.shards:
        return toml_layout(path, toml, _sharded_splits(path, toml))
    return toml_layout(
        path, toml, {name: toml_split(path, toml, name, labels) for name in toml.splits}
    )


def _sharded_splits(path: Path, toml: DatasetFile) -> dict[str, tuple[Pair, ...]]:
    place = toml.files.shards
    found = read_index(place if is_remote(place) else str(path.parent / place))
    by_palette = toml.label_colours or (None if toml.palette else False)
    splits = {}
    for split, value in toml.splits.items():
        if not found.get(value):
            raise InputError(f"{path}: {place} has no shards of split {value!r}")
        splits[split] = tuple(
            # members are read as files
            Pair(name, **cast(dict[str, Path], files), coloured_label=by_palette)
            for name, files in found[value].items()
        )
    return splits


def toml_layout(path: Path, toml: DatasetFile, splits: dict[str, tuple[Pair, ...]]) -> Layout:
    """The data set that a dataset.toml describes, with these pairs."""
    return Layout(
        toml.name,
        path.parent,
        classes_of(toml),
        {split: tuple(dict.fromkeys(pairs)) for split, pairs in splits.items()},
        toml.subsets,
        toml.thermal.unit,
        toml.thermal.black_hot,
        toml.thermal.holes,
        resize_thermal=toml.thermal.resize,
        repeated=find_repeated(path.parent, splits),
    )


def classes_of(toml: DatasetFile) -> Classes:
    """The class table; InputError where names, colours and words do not make one."""
    return Classes(toml.classes, toml.palette, toml.prompts, toml.ignore)


def check_patterns(path: Path, toml: DatasetFile) -> None:
    """Refuse [files] that name too much, too little, or no {name}."""
    _check_files(path, toml.files)
    try:
        Camera(holes=toml.thermal.holes)
    except InputError as error:
        raise InputError(f"{path}: thermal.{error}") from None
    if not toml.splits:
        raise InputError(f'{path}: [splits] is empty; write e.g. train = "train.txt"')
    for name, expression in toml.subsets.items():
        try:
            re.compile(expression)
        except re.error as error:
            raise InputError(
                f"{path}: subsets.{name} is not a regular expression: {expression!r} ({error})"
            ) from None


def _check_files(path: Path, files: FilePatterns) -> None:
    if files.shards and (files.table or files.images or files.label):
        raise InputError(f"{path}: [files] has shards and more; keep one of the two")
    if files.table and (files.images or files.label):
        raise InputError(f"{path}: [files] has table and patterns; keep one of the two")
    if files.four_channel and (files.rgb or files.thermal):
        raise InputError(
            f"{path}: [files] has four_channel and rgb or thermal; keep one of the two"
        )
    if not (files.images or files.table or files.shards):
        raise InputError(f"{path}: [files] names no images; give rgb and thermal, or four_channel")
    for key, pattern in (
        ("rgb", files.rgb), ("thermal", files.thermal),
        ("four_channel", files.four_channel), ("label", files.label),
        ("instances", files.instances),
    ):  # fmt: skip
        if pattern and "{name}" not in pattern:
            raise InputError(f"{path}: files.{key} is {pattern!r}, which lacks {{name}}")
        unknown = set(re.findall(r"\{(.*?)\}", pattern)) - {"name", "split"}
        if unknown:
            raise InputError(
                f"{path}: files.{key} is {pattern!r}; only {{name}} and {{split}} are filled in, "
                f"found {{{sorted(unknown)[0]}}}"
            )


def toml_split(path: Path, toml: DatasetFile, split: str, labels: bool) -> tuple[Pair, ...]:
    """The three ways to name a split: a list file, a glob of names, a folder for {split}."""
    root, files, value = path.parent, toml.files, toml.splits[split]
    images, table = files.images, toml_table(path, toml)
    source = f"split {split!r} ({value}) of {path}"
    folder = split
    if value.endswith(".txt"):
        names, source = listed_names(path, toml, split), str(root / value)
    elif "*" in value or "?" in value:
        found = sorted(table or _names_matching(root, images.replace("{split}", split)))
        names = [name for name in found if fnmatch.fnmatchcase(name, value)]
    elif "{split}" not in images:  # every such split would silently be the whole data set
        raise InputError(
            f"{source} is neither a list (.txt) nor a glob, and {images!r} has no {{split}} to put "
            f'it in; write e.g. {split} = "{split}.txt"'
        )
    else:
        folder, names = value, _names_matching(root, images.replace("{split}", value))
    if not names:
        raise InputError(f"{source} is empty: no file fits {images!r} below {root}")
    pairs = tuple(toml_pair(path, toml, name, folder, table) for name in names)
    if labels:
        pairs = drop_absent_labels(pairs, split)
    _require_files(pairs, source, labels)
    return pairs


def toml_table(path: Path, toml: DatasetFile) -> dict[str, dict[str, str]]:
    """The rows of the table of files by name; empty where patterns say it."""
    return read_table(path.parent / toml.files.table) if toml.files.table else {}


def drop_absent_labels(pairs: tuple[Pair, ...], split: str) -> tuple[Pair, ...]:
    """The pairs without labels where none of them is there: a split that is still to be labelled.

    Where some are there, the others are missing; but in `UNLABELLED` each stands for itself.
    """
    there = {pair for pair in pairs if pair.label is not None and pair.label.exists()}
    if there and split != UNLABELLED:
        return pairs
    return tuple(pair if pair in there else replace(pair, label=None) for pair in pairs)


def listed_names(path: Path, toml: DatasetFile, split: str) -> list[str]:
    """Names in the list of a split; the folder of the images, which some lists repeat, dropped."""
    place = path.parent / toml.splits[split]
    if not place.exists():
        raise InputError(f"{place}: no such file; split {split!r} of {path} names it")
    above = toml.files.images.replace("{split}", split).rpartition("/")[0].partition("{name}")[0]
    return read_list(place, path.parent, above)


def toml_pair(
    path: Path, toml: DatasetFile, name: str, folder: str, table: dict[str, dict[str, str]]
) -> Pair:
    """Where the patterns, with `folder` for {split}, or the table put the files of a name."""
    if toml.files.table and name not in table:
        raise InputError(f"{path}: a split lists {name!r}, which is not in {toml.files.table}")
    row = table.get(name, {})

    def place(kind: str) -> Path | None:
        pattern = row.get(kind, "") or getattr(toml.files, kind)
        filled = pattern.replace("{split}", folder).replace("{name}", name)
        return path.parent / filled if pattern else None

    by_palette = toml.label_colours or (None if toml.palette else False)
    rgb, thermal = place("rgb"), place("thermal")
    return Pair(
        name, rgb, thermal, place("label"), place("four_channel"), by_palette, place("instances")
    )


def _names_matching(root: Path, pattern: str) -> list[str]:
    """What {name} stands for in every file that fits the pattern, sorted."""
    before, _, after = pattern.partition("{name}")
    folder, _, start = before.rpartition("/")
    top = root / (folder or ".") if not before.startswith("/") else Path(folder or "/")
    # A second {name}, as in {name}/{name}.png, must be the same text again.
    rest = re.escape(after).replace(re.escape("{name}"), "(?P=name)")
    fits = re.compile(re.escape(start) + r"(?P<name>.+?)" + rest, re.DOTALL)
    below = (file.relative_to(top).as_posix() for file in files_below(top))
    return sorted(match["name"] for file in below if (match := fits.fullmatch(file)))


def _require_files(pairs: Iterable[Pair], source: str, labels: bool) -> None:
    for pair in pairs:
        for file in (pair.rgb, pair.thermal, pair.four_channel, pair.label if labels else None):
            if file and not file.is_file():
                kind = "is no file" if file.exists() else "does not exist"
                remedy = "complete the download or take the name out"
                if file == pair.label:
                    remedy = "label it, or leave it out: sartm data init --overwrite"
                raise InputError(f"{source} has {pair.name!r}, but {file} {kind}; {remedy}")
