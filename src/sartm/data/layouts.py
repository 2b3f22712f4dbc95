"""From a folder to its pairs: dataset.toml, and the layouts in which the benchmarks circulate.

Long on purpose: a newcomer who adds a layout finds its table, its lists and its pairs in one file.
"""

import fnmatch
import logging
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, cast

from sartm.classes import FMB, MFNET, PST900, Classes
from sartm.config import from_dict
from sartm.data.listing import list_files
from sartm.data.lists import read_list
from sartm.data.names import SPLIT_FOLDERS, SPLIT_NAMES, UNLABELLED
from sartm.data.shards import read_index
from sartm.data.tables import read_table
from sartm.errors import InputError
from sartm.files import read_toml, require_plain
from sartm.io.cameras import Camera
from sartm.io.decode import image_size
from sartm.io.header import SUFFIXES
from sartm.io.remote import is_remote

log = logging.getLogger("sartm")

ThermalUnit = Literal["display", "counts", "celsius"]


@dataclass(frozen=True, slots=True)
class Pair:
    """Where one RGB-thermal pair lies; what is None does not exist."""

    name: str
    """Path below the image folder without suffix; names outputs."""
    rgb: Path | None = None
    thermal: Path | None = None
    label: Path | None = None
    four_channel: Path | None = None
    """RGB + thermal in one file; then `rgb` and `thermal` are None."""
    coloured_label: bool | None = False
    """The label shows the palette's colours instead of ids; None: where it is a colour picture."""
    instances: Path | None = None
    """A number for each thing of the label, where somebody has told them apart."""

    @property
    def numbered(self) -> bool:
        """Whether there is such a file, which single pairs may lack."""
        return self.instances is not None and (
            not isinstance(self.instances, Path) or self.instances.is_file()  # else of a shard
        )


@dataclass(frozen=True)
class Layout:
    """A data set on disk: what its pairs are called, where they lie and what their ids mean."""

    name: str
    root: Path
    classes: Classes
    splits: dict[str, tuple[Pair, ...]]
    subsets: dict[str, str] = field(default_factory=dict)
    """Subset name -> regular expression searched in a pair's name, e.g. day -> "D$"."""
    thermal_unit: ThermalUnit = "display"
    """What raw thermal values are: display (8-bit grey), counts or celsius."""
    black_hot: bool = False
    """Hot is dark; such images are inverted when they are read."""
    holes: float | None = None
    """Raw thermal value of pixels without a measurement, which are filled; None: there are none."""
    kind: str = "dataset.toml"
    """Which arrangement of folders was recognised."""
    resize_thermal: bool = False
    """Thermal shows the view of RGB in another size, and is resized when it is read."""
    repeated: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Split -> names that its list has again; each counts once."""

    def camera_of(self, pair: Pair) -> Camera:
        """How the thermal image of a pair is read, by every command."""
        return camera_of(pair, self.thermal_unit, self.black_hot, self.holes)


def camera_of(pair: Pair, unit: ThermalUnit, black_hot: bool, holes: float | None) -> Camera:
    """How a thermal image is read that has what [thermal] of a dataset.toml says."""
    # Degrees in a JPEG are those of a radiometric one: its picture holds only grey levels.
    jpeg = pair.thermal is not None and pair.thermal.suffix.lower() in (".jpg", ".jpeg")
    return Camera(jpeg and unit == "celsius", black_hot, holes=holes)


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
class _Thermal:
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
    thermal: _Thermal = _Thermal()


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
    thermal_as: _Thermal = _Thermal()
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
        _Thermal("counts", holes=0.0),
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
        return _open_toml(path, labels)
    if not path.is_dir():
        raise InputError(f"{path}: no such folder or dataset.toml; check the path of the data set")
    if (path / "dataset.toml").is_file():
        return _open_toml(path / "dataset.toml", labels)
    for arrangement in ARRANGEMENTS:
        splits = _splits_of(path, arrangement)
        if splits:
            return plain_layout(path, arrangement, splits)
    raise InputError(_unrecognised(path))


def _open_toml(path: Path, labels: bool) -> Layout:
    toml = from_dict(DatasetFile, read_toml(path), str(path))
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
        Classes(toml.classes, toml.palette, toml.prompts, toml.ignore),
        {split: tuple(dict.fromkeys(pairs)) for split, pairs in splits.items()},
        toml.subsets,
        toml.thermal.unit,
        toml.thermal.black_hot,
        toml.thermal.holes,
        resize_thermal=toml.thermal.resize,
        repeated=_find_repeated(path.parent, splits),
    )


def _find_repeated(root: Path, splits: dict[str, tuple[Pair, ...]]) -> dict[str, tuple[str, ...]]:
    found = {}
    for split, pairs in splits.items():
        again = [pair.name for pair, count in Counter(pairs).items() if count > 1]
        if again:
            found[split] = tuple(again)
            log.warning("%s: split %r lists %d names again, such as %r; each counts once",
                        root, split, len(again), again[0])  # fmt: skip
    return found


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
        repeated=_find_repeated(root, splits),
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


def index_images(folder: Path) -> dict[str, Path]:
    """Path below the folder without suffix -> image file."""
    return {
        file.relative_to(folder).with_suffix("").as_posix(): file
        for file in files_below(folder)
        if file.suffix.lower() in SUFFIXES
    }


def files_below(folder: Path) -> list[Path]:
    """Every file, sorted, as `list_files` finds them; InputError where a folder cannot be read."""
    if not folder.is_dir():
        return []
    found = list_files(folder)
    for place, reason in found.unreadable.items():
        raise InputError(f"{place} {reason}; what it holds would be missing, put it right first")
    return found.files


def _require_files(pairs: Iterable[Pair], source: str, labels: bool) -> None:
    for pair in pairs:
        for file in (pair.rgb, pair.thermal, pair.four_channel, pair.label if labels else None):
            if file and not file.is_file():
                kind = "is no file" if file.exists() else "does not exist"
                remedy = "complete the download or take the name out"
                if file == pair.label:
                    remedy = "label it, or leave it out: sartm data init --overwrite"
                raise InputError(f"{source} has {pair.name!r}, but {file} {kind}; {remedy}")


def _unrecognised(root: Path) -> str:
    here = sorted(entry.name + "/" * entry.is_dir() for entry in root.iterdir())
    found = ", ".join(here[:8]) + (f" and {len(here) - 8} more" if len(here) > 8 else "")
    kinds = sorted({"+".join(kind.folders("train")[:2]) for kind in ARRANGEMENTS})
    return (
        f"{root}: no known layout; found {found or 'nothing'}. For your own pairs sartm data init "
        f"{root} writes a dataset.toml; benchmarks have folders such as {', '.join(kinds[:3])} "
        f"(docs/datasets.md)"
    )
