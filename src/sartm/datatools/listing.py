"""`sartm data manifest`: the pairs of a folder as a table that other machines can read."""

from dataclasses import dataclass
from pathlib import Path

from sartm.data.finding import find_sides, search_pairs
from sartm.data.layouts import open_layout
from sartm.data.manifest import rows_of, write_manifest
from sartm.data.sets import Pair, tell_apart
from sartm.errors import InputError


@dataclass(frozen=True)
class Listed:
    """What `list_pairs` wrote."""

    pairs: int
    labelled: int
    unpaired: tuple[Path, ...]
    """Files without a partner, which are left out."""


def list_pairs(folder: Path, out: Path, split: str = "") -> Listed:
    """Write the pairs of a data set, or of a folder of loose images, as a manifest.

    Places are relative where the manifest lies above or beside them, so that both can move together
    and into a bucket; else they are absolute.

    Raises:
        InputError: no pairs, no such split, or `out` cannot be written.
    """
    pairs, unpaired = _find(folder, split)
    rows = list(rows_of(pairs, out.absolute().parent))
    write_manifest(rows, out)
    return Listed(len(rows), sum(bool(row.label) for row in rows), tuple(unpaired))


def _find(folder: Path, split: str) -> tuple[list[Pair], list[Path]]:
    try:
        layout = open_layout(folder)
    except InputError:
        if split or not folder.is_dir() or (folder / "dataset.toml").exists():
            raise
        found = search_pairs(*find_sides(folder))
        return found.pairs, found.unpaired
    if split and split not in layout.splits:
        raise InputError(f"{folder} has no split {split!r}; it has {', '.join(layout.splits)}")
    chosen = [split] if split else list(layout.splits)
    some = tell_apart({name: layout.splits[name] for name in chosen})
    return list(dict.fromkeys(pair for pairs in some.values() for pair in pairs)), []
