"""`sartm data init`: from somebody's own folder to a data set, and what could not be decided."""

import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sartm.classes import Classes
from sartm.data.dataset_file import DatasetFile, classes_of, read_dataset_file
from sartm.data.layouts import DAY_NIGHT, SIZES, is_street_name, open_layout
from sartm.data.lists import is_listable, read_list
from sartm.data.matching import FolderPairs, pair_folder
from sartm.data.names import SPLIT_NAMES, UNLABELLED, Role, natural_order
from sartm.data.pairs import read_images
from sartm.data.sets import Layout, Pair
from sartm.data.tables import format_table
from sartm.datatools.legend import Known, Legend, read_legend
from sartm.datatools.splitting import split_blocks
from sartm.datatools.survey import spread_over
from sartm.datatools.thermal import Thermal, look_at_thermal
from sartm.datatools.writing import format_toml
from sartm.errors import InputError
from sartm.files import read_text, write_atomic
from sartm.io.decode import image_size

TOML, TABLE = "dataset.toml", "pairs.tsv"
_KINDS = ("rgb", "thermal", "label", "four_channel")


@dataclass(frozen=True)
class Start:
    """What `look_at_folder` made of a folder."""

    layout: Layout
    files: dict[str, str]
    """File name -> text that makes the folder a data set; empty where it is one already."""
    said: tuple[str, ...]
    """What was found and decided."""
    questions: tuple[str, ...]
    """What could not be decided."""


def init_dataset(
    folder: str | Path,
    classes: tuple[str, ...] = (),
    overwrite: bool = False,
    told: Mapping[Role, str] | None = None,
) -> Start:
    """Write dataset.toml and the lists of its splits into a folder of pairs.

    Written anew, such as after more pairs were labelled, it keeps what images do not say: the
    classes with their colours and words, ignore, [thermal] and [subsets].

    Args:
        folder: of the pairs.
        classes: their names in the order of ids.
        overwrite: what was written before.
        told: sub-folders of RGB images, thermal ones and labels, where names do not say it.

    Raises:
        InputError: no pairs are found, a file to be written is there already, or a list cannot hold
            a name; then nothing is written.
    """
    root = Path(folder)
    for role, place in (told or {}).items():
        inside = not Path(place).is_absolute() and ".." not in Path(place).parts
        if not (inside and (root / place).is_dir()):
            raise InputError(f"--{role} {place}: no folder of that name in {root}")
    if (root / TOML).is_file() and not overwrite:
        raise InputError(
            f"{root / TOML} is there already: sartm data check {root} reads it; --overwrite writes "
            f"it and its lists anew"
        )
    start = look_at_folder(root, classes, overwrite, told)
    present = [name for name in start.files if (root / name).exists()]
    if present and not overwrite:
        raise InputError(
            f"{root} has {', '.join(present)} already, of other pairs; rename it, or give "
            f"--overwrite"
        )
    if start.files:
        names = [pair.name for some in start.layout.splits.values() for pair in some]
        if odd := [name for name in names if not is_listable(name)]:
            raise InputError(
                f"{root} has {len(odd)} names that a list cannot hold, such as {odd[0]!r}: they "
                f"end as images do once more, or look like columns; rename them"
            )
        for name in sorted(start.files, key=lambda name: name == TOML):  # complete once it is there
            write_atomic(root / name, start.files[name].encode())
        open_layout(root)
    return start


def look_at_folder(
    root: Path,
    classes: tuple[str, ...] = (),
    anew: bool = False,
    told: Mapping[Role, str] | None = None,
) -> Start:
    """The data set that a folder of pairs is, with or without labels; nothing is written.

    Lists of splits that are there are kept unless `anew`, which keeps only what a dataset.toml
    says that images do not; `told` as `pair_folder` takes it.
    """
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; name one that holds the pairs")
    known = None if classes or anew or told else _benchmark(root)
    if known is not None:
        sizes = ", ".join(f"{split} {len(pairs)}" for split, pairs in known.splits.items())
        what = f"{known.name} as it circulates ({known.kind}): {sizes}; it needs no {TOML}"
        return Start(known, {}, (what,), ())
    found = pair_folder(root, told=told)
    pairs, four = _pairs_of(root, found)
    kept = _read_before(root / TOML) if anew else None
    legend = read_legend(pairs, _known(root, classes, kept), root.resolve().name)
    usable = [
        dataclasses.replace(
            pair,
            label=None if pair.name in legend.unread else pair.label,
            coloured_label=legend.colours,
        )
        for pair in pairs
    ]
    if kept is not None:
        unit = kept.thermal.unit
        heat = Thermal(unit, kept.thermal.resize, (f"thermal: {unit}, as {TOML} says",))
    else:
        heat = Thermal() if four else look_at_thermal(usable)
    splits, how = _splits(root, usable, found, legend, anew)
    layout = Layout(
        root.resolve().name,
        root,
        legend.classes,
        splits,
        dict(DAY_NIGHT) if all(is_street_name(pair.name) for pair in pairs) else {},
        heat.unit,
        kind="dataset.toml",
        resize_thermal=heat.resize,
    )
    if kept is not None:
        layout = _keep(layout, kept, legend.colours)
    files, named = _describe_files(root, layout, found, legend)
    files = {name: text for name, text in files.items()
             if name in (TOML, TABLE) or anew or not (root / name).is_file()}  # fmt: skip
    said = (_describe_pairs(found, usable, four), *heat.said, _describe_labels(usable, legend),
            named, how)  # fmt: skip
    return Start(layout, files, said, (*_questions(found, legend, usable), *heat.questions))


def _read_before(path: Path) -> DatasetFile | None:
    """The dataset.toml that is there; None where there is none or it says nothing of use."""
    with suppress(InputError):
        if path.is_file():
            toml = read_dataset_file(path)
            classes_of(toml)
            return toml
    return None


def _known(root: Path, names: tuple[str, ...], kept: DatasetFile | None) -> Known:
    """What names that were given, a dataset.toml before or a file of names say of the classes."""
    if kept is None:
        return Known(names or _names_beside(root))
    before = classes_of(kept)
    coloured = kept.palette or kept.label_colours
    return Known(
        names or before.names,
        closed=bool(names),
        palette=before.palette if coloured else (),
        coloured=kept.label_colours,
        ignore=kept.ignore,
    )


def _keep(layout: Layout, kept: DatasetFile, colours: bool) -> Layout:
    """The data set with what a dataset.toml before says that images do not; `colours`: labels show
    those of the palette."""
    before, names = classes_of(kept), layout.classes.names
    prompts = dict(zip(before.names, before.prompts, strict=True))
    same = names[: len(before)] == before.names
    palette = layout.classes.palette
    if same and not colours:
        palette = before.palette + palette[len(before) :]
    classes = Classes(
        names,
        palette,
        tuple(prompts.get(name, word) for name, word in
              zip(names, layout.classes.prompts, strict=True)),
        kept.ignore,
    )  # fmt: skip
    return dataclasses.replace(
        layout,
        name=kept.name,
        classes=classes,
        subsets=kept.subsets,
        black_hot=kept.thermal.black_hot,
        holes=kept.thermal.holes,
    )


def _benchmark(root: Path) -> Layout | None:
    """A benchmark in a layout of its own; None for folders that only have the same names."""
    if (root / TOML).is_file():
        return None
    try:
        layout = open_layout(root)
        first = next(iter(layout.splits.values()))[0]
        image = first.four_channel or first.rgb
        size = image_size(image) if image else (0, 0)
    except InputError:
        return None
    wanted = {data: size for size, data in SIZES.items()}.get(layout.name)
    return layout if wanted in (None, size) else None


def _pairs_of(root: Path, found: FolderPairs) -> tuple[list[Pair], bool]:
    """The pairs, and whether RGB and thermal are in one file."""
    if found.pairs:
        return found.pairs, False
    alone = [pair for pair in found.alone if pair.rgb]
    some = spread_over(alone, 3)
    deep = [pair for pair in some if _has_four(pair)]
    if some and len(deep) == len(some):
        return [dataclasses.replace(pair, rgb=None, four_channel=pair.rgb) for pair in alone], True
    loose = found.unpaired
    names = ", ".join(str(file.relative_to(root)) for file in loose[:4]) or "none"
    raise InputError(
        f"{root}: no pairs of RGB and thermal were found among {len(loose)} images ({names}). "
        f"Partners share a name and lie in folders such as rgb/ and thermal/, or end in _rgb and "
        f"_ir; or images have four channels. Say which folders hold them (data init --rgb NAME "
        f"--thermal NAME), or write {TABLE} and {TOML} yourself (docs/own-data.md)"
    )


def _has_four(pair: Pair) -> bool:
    return read_images(pair.rgb, None, four_channel="auto").thermal is not None


def _names_beside(root: Path) -> tuple[str, ...]:
    """Class names that lie in the folder, one a line."""
    for name in ("classes.txt", "labels.txt", "obj.names"):
        if (root / name).is_file():
            lines = [line.strip() for line in read_text(root / name).splitlines()]
            names = tuple(dict.fromkeys(line for line in lines if line))
            return names if len(names) > 1 else ()
    return ()


def _splits(
    root: Path, pairs: Sequence[Pair], found: FolderPairs, legend: Legend, anew: bool
) -> tuple[dict[str, tuple[Pair, ...]], str]:
    """Lists that are there, else folders, else blocks; unlabelled pairs beside labelled ones."""
    named = {pair.name: pair for pair in pairs}
    lists = {} if anew else _lists(root, named)
    if lists:
        return lists, f"splits: the lists that are there, {_counts(lists)}"
    labelled = [pair.name for pair in pairs if pair.label]
    rest = [pair for pair in pairs if labelled and not pair.label]
    kept = list(labelled or named)
    if all(name in found.splits for name in kept):
        parts: dict[str, list[str]] = {}
        for name in sorted(kept, key=natural_order):
            parts.setdefault(found.splits[name], []).append(name)
        how = "by the folders"
    else:
        parts, how = split_blocks(kept, legend.ids), "blocks of neighbours"
    splits = {split: tuple(named[name] for name in names) for split, names in parts.items()}
    if rest:
        splits[UNLABELLED] = tuple(rest)
    return splits, f"splits, {how}: {_counts(splits)}"


def _lists(root: Path, named: dict[str, Pair]) -> dict[str, tuple[Pair, ...]]:
    """Lists of splits that are there and name nothing but pairs that are."""
    splits = {}
    for split in SPLIT_NAMES:
        if (root / f"{split}.txt").is_file():
            names = [name.rpartition("/")[2] if name not in named else name
                     for name in read_list(root / f"{split}.txt", root)]  # fmt: skip
            if names and all(name in named for name in names):
                splits[split] = tuple(named[name] for name in names)
    return splits


def _counts(splits: dict[str, tuple[Pair, ...]]) -> str:
    return ", ".join(f"{split} {len(pairs)}" for split, pairs in splits.items())


def _describe_files(
    root: Path, layout: Layout, found: FolderPairs, legend: Legend
) -> tuple[dict[str, str], str]:
    """dataset.toml, with patterns where they say it and else a table, and lists; and which."""
    pairs = [(split, pair) for split, some in layout.splits.items() for pair in some]
    places = [
        {kind: file.relative_to(root).as_posix()
         for kind in _KINDS if (file := getattr(pair, kind)) is not None}
        for _, pair in pairs
    ]  # fmt: skip
    names = [pair.name for _, pair in pairs]
    patterns = _patterns(names, places)
    if not patterns and all(found.splits.get(pair.name) == split for split, pair in pairs):
        short = [pair.name.removeprefix(f"{split}/") for split, pair in pairs]
        cut = [
            {kind: _by_split(place, split) for kind, place in row.items()}
            for row, (split, _) in zip(places, pairs, strict=True)
        ]
        patterns = _patterns(short, cut)
        names = short if patterns else names
    files = {}
    if not patterns:
        rows = dict(zip(names, places, strict=True))  # once, however many lists hold it
        titles = [kind for kind in _KINDS if any(kind in row for row in rows.values())]
        if "label" not in titles:
            titles.append("label")
            rows = {name: row | {"label": f"labels/{name}.png"} for name, row in rows.items()}
        files[TABLE] = format_table(rows.items(), titles)
        patterns = {"table": TABLE}
    lists: dict[str, list[str]] = {}
    for name, (split, _) in zip(names, pairs, strict=True):
        lists.setdefault(split, []).append(name)
    files |= {f"{split}.txt": "".join(f"{one}\n" for one in some) for split, some in lists.items()}
    files[TOML] = format_toml(layout, layout.splits, patterns, legend.colours)
    return files, f"files: {', '.join(f'{kind} {pattern}' for kind, pattern in patterns.items())}"


def _patterns(names: Sequence[str], places: Sequence[dict[str, str]]) -> dict[str, str]:
    """What gives the file of each kind from its pair's name; empty where nothing does."""
    patterns = {}
    for kind in _KINDS:
        known = [(name, row[kind]) for name, row in zip(names, places, strict=True) if kind in row]
        if not known:
            continue
        name, first = known[0]
        start = first.rfind(name)
        pattern = f"{first[:start]}{{name}}{first[start + len(name) :]}"
        if start < 0 or any(pattern.replace("{name}", name) != place for name, place in known):
            return {}
        patterns[kind] = pattern
    apart = "{split}/" if any("{split}" in pattern for pattern in patterns.values()) else ""
    return {"label": f"{apart}labels/{{name}}.png"} | patterns


def _by_split(place: str, split: str) -> str:
    """A path with {split} for the folder called so."""
    return "/".join("{split}" if part == split else part for part in place.split("/"))


def _describe_pairs(found: FolderPairs, pairs: Sequence[Pair], four: bool) -> str:
    if four:
        first = pairs[0].four_channel
        return f"{len(pairs)} four-channel images, such as {first.name if first else ''}"
    return found.describe()


def _describe_labels(pairs: Sequence[Pair], legend: Legend) -> str:
    labelled = sum(pair.label is not None for pair in pairs)
    if not labelled:
        return (
            "labels: none; sartm app --annotate FOLDER makes them, labels/NAME.png is where they go"
        )
    return f"labels: {labelled} of {len(pairs)}, {legend.found}"


def _questions(found: FolderPairs, legend: Legend, pairs: Sequence[Pair]) -> list[str]:
    """What is left open, one text each."""
    asked = list(legend.questions)
    if legend.unread:
        name, why = next(iter(legend.unread.items()))
        asked.append(f"what {len(legend.unread)} labels mean, such as that of {name}: {why}")
    if not any(pair.label for pair in pairs):
        asked.append(
            "which classes there are: name them in dataset.toml, or by data init --classes"
        )
    asked += found.notes
    if found.unpaired and found.pairs:
        shown = ", ".join(file.name for file in found.unpaired[:3])
        asked.append(f"where {len(found.unpaired)} files without a partner belong, such as {shown}")
    asked += [f"{folder} {reason}" for folder, reason in found.unreadable.items()]
    return asked
