"""What is there of a data set from which files are missing, and what is missing."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from sartm.data.dataset_file import (
    FilePatterns,
    check_patterns,
    drop_absent_labels,
    listed_names,
    read_dataset_file,
    toml_layout,
    toml_pair,
    toml_split,
    toml_table,
)
from sartm.data.layouts import ARRANGEMENTS, Arrangement, open_layout, pairs_in, plain_layout
from sartm.data.listing import index_images
from sartm.data.lists import read_list
from sartm.data.names import SPLIT_FOLDERS, SPLIT_NAMES
from sartm.data.sets import Layout, Pair
from sartm.errors import InputError

Kind = Literal["missing", "label"]
"""A file, or the label of a pair whose images are there: it is to be made."""
Gap = tuple[Kind, str]


def open_what_is_there(path: Path) -> tuple[Layout, list[Gap]]:
    """The layout without the pairs of which a file is missing, and what is missing."""
    try:
        return open_layout(path), []
    except InputError:
        toml = path if path.suffix.lower() == ".toml" else path / "dataset.toml"
        layout, gaps = _toml_with_gaps(toml) if toml.is_file() else _plain_with_gaps(path)
        if layout is None:
            raise
        return layout, gaps


def _toml_with_gaps(path: Path) -> tuple[Layout | None, list[Gap]]:
    toml = read_dataset_file(path)
    check_patterns(path, toml)
    if toml.files.shards:  # of which files cannot be missing: the index says why it is refused
        return None, []
    images = FilePatterns(rgb=toml.files.images, table=toml.files.table)
    table = toml_table(path, toml)
    splits: dict[str, tuple[Pair, ...]] = {}
    gaps: list[Gap] = []
    for split, value in toml.splits.items():
        listed = value.endswith(".txt")
        if listed:
            names = listed_names(path, toml, split)
        else:
            found = toml_split(path, dataclasses.replace(toml, files=images), split, False)
            names = [pair.name for pair in found]
        folder = split if listed or "*" in value or "?" in value else value
        whole = []
        for pair in drop_absent_labels(
            tuple(toml_pair(path, toml, name, folder, table) for name in names), split
        ):
            places = (pair.rgb, pair.thermal, pair.four_channel, pair.label)
            lost = [place for place in places if place is not None and not place.is_file()]
            kind: Kind = "label" if lost == [pair.label] else "missing"
            gaps += [(kind, f"{place} ({split})") for place in lost]
            whole += [] if lost else [pair]
        if whole:
            splits[split] = tuple(whole)
    return toml_layout(path, toml, splits) if splits and gaps else None, gaps


def _plain_with_gaps(root: Path) -> tuple[Layout | None, list[Gap]]:
    for arrangement in ARRANGEMENTS if root.is_dir() else ():
        splits: dict[str, tuple[Pair, ...]] = {}
        gaps: list[Gap] = []
        for split, folder, source in _named_splits(root, arrangement):
            parts = (arrangement.rgb, arrangement.thermal, arrangement.label)
            indices = {
                part.format(split=folder): set(index_images(root / part.format(split=folder)))
                for part in parts
                if part
            }
            if source:
                names = read_list(source, root, arrangement.rgb)
            else:
                names = sorted(set().union(*indices.values()))
            gaps += [
                ("missing", f"{root / part / name}.* ({split})")
                for name in names
                for part, index in indices.items()
                if name not in index
            ]
            whole = [name for name in names if all(name in index for index in indices.values())]
            if whole:
                splits[split] = pairs_in(root, arrangement, folder, whole, str(source))
        if splits and gaps:
            return plain_layout(root, arrangement, splits), gaps
    return None, []


def _named_splits(root: Path, arrangement: Arrangement) -> Iterable[tuple[str, str, Path | None]]:
    """Split, its folder, and the list that names its pairs."""
    if "{split}" in arrangement.rgb:
        for folder, split in SPLIT_FOLDERS.items():
            if all((root / part).is_dir() for part in arrangement.folders(folder)):
                yield split, folder, None
    elif all((root / part).is_dir() for part in arrangement.folders("")):
        for split in SPLIT_NAMES:
            if (root / f"{split}.txt").is_file():
                yield split, "", root / f"{split}.txt"
