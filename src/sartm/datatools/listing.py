"""`sartm data manifest`: the pairs of a folder as a table that other machines can read."""

from dataclasses import dataclass
from pathlib import Path

from sartm.data.finding import Found, find_sides, search_pairs
from sartm.data.layouts import open_layout
from sartm.data.manifest import rows_of, write_manifest
from sartm.data.sets import Layout, Pair, tell_apart
from sartm.errors import InputError


@dataclass(frozen=True)
class Listed:
    """What `list_pairs` wrote."""

    pairs: int
    labelled: int
    unpaired: tuple[Path, ...]
    """Files without a partner, which are left out."""
    told: tuple[str, ...] = ()
    """What the data set says of thermal and a manifest does not, as options of `predict`."""


def list_pairs(folder: Path, out: Path, split: str = "") -> Listed:
    """Write the pairs of a data set, or of a folder of loose images, as a manifest.

    Places are relative where the manifest lies above or beside them, so that both can move together
    and into a bucket; else they are absolute.

    Raises:
        InputError: no pairs, no such split, or `out` cannot be written.
    """
    found = _find(folder, split)
    rows = list(rows_of(found.pairs, out.absolute().parent))
    write_manifest(rows, out)
    labelled = sum(bool(row.label) for row in rows)
    told = () if found.layout is None else _options_of(found.layout, found.pairs)
    return Listed(len(rows), labelled, tuple(found.unpaired), told)


def _options_of(layout: Layout, pairs: list[Pair]) -> tuple[str, ...]:
    """The options of `predict` that say what a data set does of its thermal images."""
    cameras = {layout.camera_of(pair) for pair in pairs}
    options = {
        "--radiometric": any(camera.radiometric for camera in cameras),
        "--black-hot": layout.black_hot,
        f"--holes {str(layout.holes).removesuffix('.0')}": layout.holes is not None,
        "--resize-thermal": layout.resize_thermal,
    }
    return tuple(option for option, said in options.items() if said)


def _find(folder: Path, split: str) -> Found:
    try:
        layout = open_layout(folder)
    except InputError:
        if split or not folder.is_dir() or (folder / "dataset.toml").exists():
            raise
        return search_pairs(*find_sides(folder))
    if split and split not in layout.splits:
        raise InputError(f"{folder} has no split {split!r}; it has {', '.join(layout.splits)}")
    chosen = [split] if split else list(layout.splits)
    some = tell_apart({name: layout.splits[name] for name in chosen})
    pairs = list(dict.fromkeys(pair for pairs in some.values() for pair in pairs))
    return Found(pairs, layout=layout)
