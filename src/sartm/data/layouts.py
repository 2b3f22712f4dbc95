"""From a folder to its pairs: dataset.toml, or one of the layouts in which the benchmarks come."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sartm.classes import FMB, MFNET, PST900
from sartm.data.dataset_file import ThermalTable, open_toml
from sartm.data.listing import index_images
from sartm.data.lists import read_list
from sartm.data.names import SPLIT_FOLDERS, SPLIT_NAMES
from sartm.data.sets import Layout, Pair, find_repeated
from sartm.errors import InputError
from sartm.files import require_plain
from sartm.io.decode import image_size

AS_GREY = ThermalTable()


@dataclass(frozen=True)
class Arrangement:
    """Folder names of a known layout; `{split}` stands for the folder of a split."""

    kind: str
    rgb: str
    thermal: str
    """Empty: RGB and thermal are in one file, the one in `rgb`."""
    label: str
    data: Literal["mfnet", "pst900", "fmb", "msrs", ""] = ""
    """The data set that alone is arranged like this; empty: names and image sizes tell."""
    thermal_as: ThermalTable = AS_GREY
    """What its raw thermal values are."""

    def folders(self, split: str) -> tuple[str, ...]:
        parts = (self.rgb, self.thermal, self.label)
        return tuple(part.format(split=split) for part in parts if part)


# The more special an arrangement, the earlier: the first whose folders exist is taken.
ARRANGEMENTS = (
    Arrangement("msrs", "{split}/vi", "{split}/ir", "{split}/Segmentation_labels"),
    Arrangement("fmb", "{split}/Visible", "{split}/Infrared", "{split}/Label", "fmb"),
    Arrangement("fmb-color", "{split}/Visible", "{split}/Infrared", "{split}/color", "fmb"),
    Arrangement("pst900", "{split}/rgb", "{split}/thermal", "{split}/labels", "pst900"),
    Arrangement(
        "pst900-raw",
        "{split}/rgb",
        "{split}/thermal_raw",
        "{split}/labels",
        "pst900",
        ThermalTable("counts", holes=0.0),
    ),
    Arrangement("rgbx-numpy", "rgbx_np/{split}", "", "annotations/{split}"),
    Arrangement("images-thermal-labels", "images/{split}", "thermal/{split}", "labels/{split}"),
    Arrangement("four-channel-annotations", "images/{split}", "", "annotations/{split}"),
    Arrangement("four-channel", "images", "", "labels"),
    Arrangement("fmb-flat", "Visible", "Infrared", "Label", "fmb"),
    Arrangement("fmb-flat-color", "Visible", "Infrared", "color", "fmb"),
    Arrangement("flat", "RGB", "Thermal", "Label"),
    Arrangement("flat", "RGB", "Modal", "Label"),
    Arrangement("flat", "RGB", "THE", "Label"),
    Arrangement("flat", "RGB", "Thermal", "labels"),
    Arrangement("flat", "RGB", "T", "Label"),
    Arrangement("flat-ther", "rgb", "ther", "labels"),
    Arrangement("flat-lower", "rgb", "thermal", "labels"),
)
# The letter survives in the flipped copies some tools add: 00001D_flip.
DAY_NIGHT = {"day": r"D(_flip)?$", "night": r"N(_flip)?$"}
_DAY_NIGHT_NAME = re.compile(r"(^|[/_])\d{5}[DN](_flip)?$")
SIZES = {(720, 1280): "pst900", (600, 800): "fmb"}
_CLASSES = {"mfnet": MFNET, "msrs": MFNET, "pst900": PST900, "fmb": FMB}


def open_layout(path: str | Path, *, labels: bool = True) -> Layout:
    """Recognise a data set: a dataset.toml, a folder that holds one, or a benchmark's folder.

    Every pair of every split is checked to exist; nothing is decoded. Without `labels` those of a
    dataset.toml may be missing still: a pair then says where its label belongs.

    Raises:
        InputError: not recognised, a key or pattern of dataset.toml is wrong, a split is empty or
            lists a pair that does not exist, or a name leaves the data set's folder.
    """
    path = Path(path)
    if path.exists():
        require_plain(path)
    if path.is_file():
        if path.suffix.lower() != ".toml":
            raise InputError(f"{path}: a data set is a folder or a dataset.toml, found a file")
        return open_toml(path, labels)
    if not path.is_dir():
        raise InputError(f"{path}: no such folder or dataset.toml; check the path of the data set")
    if (path / "dataset.toml").is_file():
        return open_toml(path / "dataset.toml", labels)
    for arrangement in ARRANGEMENTS:
        splits = _splits_of(path, arrangement)
        if splits:
            return plain_layout(path, arrangement, splits)
    raise InputError(_unrecognised(path))


def plain_layout(
    root: Path, arrangement: Arrangement, splits: dict[str, tuple[Pair, ...]]
) -> Layout:
    """The data set of a folder without a dataset.toml, in one of the known arrangements."""
    some = [pair for pairs in splits.values() for pair in pairs]
    data = arrangement.data or _recognise_data(root, arrangement, some)
    day_night = data in ("mfnet", "msrs")
    thermal = arrangement.thermal_as
    return Layout(
        data,
        root,
        _CLASSES[data],
        {split: tuple(dict.fromkeys(pairs)) for split, pairs in splits.items()},
        DAY_NIGHT if day_night else {},
        thermal.unit,
        thermal.black_hot,
        thermal.holes,
        arrangement.kind,
        repeated=find_repeated(root, splits),
    )


def is_street_name(name: str) -> bool:
    """Whether a pair is called as MFNet's and MSRS's are, by number and day or night."""
    return bool(_DAY_NIGHT_NAME.search(name))


def _recognise_data(root: Path, arrangement: Arrangement, pairs: list[Pair]) -> str:
    """Which benchmark fills an arrangement that several use: by the names, else by the size."""
    if all(is_street_name(pair.name) for pair in pairs):
        return "msrs" if arrangement.kind == "msrs" else "mfnet"
    first = pairs[0].four_channel or pairs[0].rgb
    size = image_size(first) if first else (0, 0)
    if size in SIZES:
        return SIZES[size]
    raise InputError(
        f"{root}: folders {', '.join(arrangement.folders('train'))} are understood, but neither "
        f"names ({pairs[0].name}) nor size ({size[0]}x{size[1]}) are those of MFNet, MSRS, PST900 "
        f"or FMB: put a dataset.toml with the class names beside them"
    )


def _splits_of(root: Path, arrangement: Arrangement) -> dict[str, tuple[Pair, ...]]:
    """Splits by folders or by lists, whichever the arrangement has; empty if it does not fit."""
    if "{split}" not in arrangement.rgb:
        return _listed_splits(root, arrangement)
    splits = {}
    for folder, split in SPLIT_FOLDERS.items():
        if all((root / part).is_dir() for part in arrangement.folders(folder)):
            images = root / arrangement.rgb.format(split=folder)
            names = sorted(index_images(images))
            if not names:
                raise InputError(f"split {split!r} is empty: no images in {images}")
            splits[split] = pairs_in(root, arrangement, folder, names, str(images))
    return splits


def _listed_splits(root: Path, arrangement: Arrangement) -> dict[str, tuple[Pair, ...]]:
    if not all((root / part).is_dir() for part in arrangement.folders("")):
        return {}
    splits = {}
    for split in SPLIT_NAMES:
        source = root / f"{split}.txt"
        if source.is_file():
            names = read_list(source, root, arrangement.rgb)
            if not names:
                raise InputError(f"split {split!r} is empty: {source} lists no names")
            splits[split] = pairs_in(root, arrangement, "", names, str(source))
    return splits


def pairs_in(
    root: Path, arrangement: Arrangement, folder: str, names: Iterable[str], source: str
) -> tuple[Pair, ...]:
    """The pairs of these names in the folders of an arrangement."""
    rgb = index_images(root / arrangement.rgb.format(split=folder))
    label = index_images(root / arrangement.label.format(split=folder))
    one_file = not arrangement.thermal
    thermal = {} if one_file else index_images(root / arrangement.thermal.format(split=folder))
    coloured = arrangement.label.endswith("color")
    pairs = []
    for name in names:
        wanted = [("RGB", rgb), ("label", label)] + ([] if one_file else [("thermal", thermal)])
        for what, index in wanted:
            if name not in index:
                raise InputError(
                    f"{source} has {name!r}, but there is no {what} image of that name in {root}; "
                    f"complete the download or take the name out"
                )
        if one_file:
            pairs.append(Pair(name, label=label[name], four_channel=rgb[name]))
        else:
            pairs.append(Pair(name, rgb[name], thermal[name], label[name], None, coloured))
    return tuple(pairs)


def _unrecognised(root: Path) -> str:
    here = sorted(entry.name + "/" * entry.is_dir() for entry in root.iterdir())
    found = ", ".join(here[:8]) + (f" and {len(here) - 8} more" if len(here) > 8 else "")
    kinds = sorted({"+".join(kind.folders("train")[:2]) for kind in ARRANGEMENTS})
    return (
        f"{root}: no known layout; found {found or 'nothing'}. For your own pairs sartm data init "
        f"{root} writes a dataset.toml; benchmarks have folders such as {', '.join(kinds[:3])} "
        f"(docs/datasets.md)"
    )
