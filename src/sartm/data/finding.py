"""Loose images on disk to pairs: files, folders and globs, matched by name or by an expression."""

import glob
import logging
import re
import stat
from collections import Counter
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from pathlib import Path

from sartm.data.layouts import open_layout
from sartm.data.listing import Listing, list_files
from sartm.data.matching import pair_folder
from sartm.data.names import strip_name, suggest_expression
from sartm.data.sets import Layout, Pair, tell_apart
from sartm.errors import InputError
from sartm.io.header import SUFFIXES

log = logging.getLogger("sartm")


@dataclass(frozen=True)
class Found:
    """What `search_pairs` found, and what it could not use."""

    pairs: list[Pair]
    """Sorted by name."""
    unpaired: list[Path] = field(default_factory=list)
    """Files without a partner."""
    unreadable: dict[str, str] = field(default_factory=dict)
    """Folder -> why it cannot be read."""
    layout: Layout | None = None
    """The data set that they are of, which says how thermal is to be read; None: loose images."""


def find_sides(folder: Path) -> tuple[Path | None, Path | None]:
    """A folder as `search_pairs` takes it: of both, of RGB, or, by all its names, of thermal."""
    if (folder / "dataset.toml").is_file():
        return folder, None
    found = pair_folder(folder)
    only = found.alone and not found.pairs and all(pair.rgb is None for pair in found.alone)
    return (None, folder) if only else (folder, None)


def search_pairs(
    rgb: str | Path | None,
    thermal: str | Path | None,
    pair_regex: str | None = None,
    allow_single: bool = False,
    out: Path | None = None,
) -> Found:
    """Pair loose images for prediction: each side a file, a folder (recursive), a glob or None.

    Folders and globs are paired by the path below them without suffix, or by group 1 of
    `pair_regex` searched in that path; what is left over without such words as _rgb and _ir
    (`names`). A folder of both, given once or twice, is paired as its dataset.toml says, all splits
    of it, or as `pair_folder` does where there is none. Two single files are a pair whatever they
    are called. What exists under a name is taken before the name is read as a glob. Folders are
    searched as `list_files` says; `out` is where outputs will go.

    Returns:
        The pairs, sorted by name (RGB's, else thermal's), and the files left without a partner,
        which with `allow_single` become pairs of one image instead.

    Raises:
        InputError: nothing found, nothing fits together, or two inputs share an output name.
    """
    if rgb is None and thermal is None:
        raise InputError("no input; give --rgb, --thermal or both")
    if pair_regex is None and (mixed := _mixed_folder(rgb, thermal, allow_single, out)):
        return mixed
    unreadable: dict[str, str] = {}
    visible = _list_images(rgb, "RGB", out, unreadable)
    infrared = _list_images(thermal, "thermal", out, unreadable)
    if rgb is None or thermal is None:
        lone = [Pair(name, file) for name, file in visible.items()]
        lone += [Pair(name, None, file) for name, file in infrared.items()]
        return Found(sorted(lone, key=lambda pair: pair.name), [], unreadable)
    single = all(_kind_of(_split_glob(Path(side))[0]) == "file" for side in (rgb, thermal))
    if single and pair_regex is None:
        ((name, first),), (second,) = visible.items(), infrared.values()
        return Found([Pair(name, first, second)])
    pairs, unpaired = _match_by_key(visible, infrared, pair_regex, allow_single)
    return Found(pairs, unpaired, unreadable)


def _match_by_key(
    visible: dict[str, Path], infrared: dict[str, Path], pair_regex: str | None, allow_single: bool
) -> tuple[list[Pair], list[Path]]:
    left, lone_left = _find_keys(visible, pair_regex, "RGB")
    right, lone_right = _find_keys(infrared, pair_regex, "thermal")
    if pair_regex is None:
        left, right = _strip_lone(left, right)
    pairs = [
        Pair(left[key], visible[left[key]], infrared[right[key]]) for key in left.keys() & right
    ]
    lone_left += [left[key] for key in left.keys() - right.keys()]
    lone_right += [right[key] for key in right.keys() - left.keys()]
    expression, count = suggest_expression(visible, infrared)
    would = f"predict --pair {expression!r} would pair {count}" if count > len(pairs) else ""
    if not pairs and not allow_single:
        raise InputError(
            f"no RGB image has a thermal partner of the same name, e.g. {min(visible)!r} and "
            f"{min(infrared)!r}; give partners one name; predict also pairs them by --pair REGEX "
            f"(its group 1 must match{'; ' if would else ''}{would}) and takes each alone with "
            f"--allow-single"
        )
    if would and pair_regex is None:
        log.warning("%d pairs by name; %s", len(pairs), would)
    unpaired = [visible[name] for name in lone_left] + [infrared[name] for name in lone_right]
    if allow_single:
        pairs += [Pair(name, visible[name]) for name in lone_left]
        pairs += [Pair(name, None, infrared[name]) for name in lone_right]
        unpaired = []
    names = [pair.name for pair in pairs]
    if len(set(names)) < len(names):
        double = next(name for name in sorted(names) if names.count(name) > 1)
        raise InputError(
            f"two inputs would be written as {double!r}; rename one of them or run them apart"
        )
    return sorted(pairs, key=lambda pair: pair.name), sorted(unpaired)


def _strip_lone(left: dict[str, str], right: dict[str, str]) -> tuple[dict[str, str], ...]:
    """The keys of both sides; those without a partner lose the words that tell their modality."""
    sides: list[dict[str, str]] = []
    for own, other, role in ((left, right, "rgb"), (right, left, "thermal")):
        lone = [key for key in own if key not in other]
        short = {key: strip_name(key, "rgb" if role == "rgb" else "thermal") for key in lone}
        often = Counter(short.values())
        taken = {key for key in own if key not in short}
        keep = {key for key, word in short.items() if often[word] > 1 or word in taken}
        sides.append({(key if key in keep else short.get(key, key)): own[key] for key in own})
    return tuple(sides)


def _mixed_folder(
    rgb: str | Path | None, thermal: str | Path | None, allow_single: bool, out: Path | None
) -> Found | None:
    """The pairs of a folder that holds both modalities; None for other inputs."""
    if rgb is None or not _is_same(rgb, thermal) or _kind_of(Path(rgb)) != "folder":
        return None
    if (Path(rgb) / "dataset.toml").is_file():
        layout = open_layout(rgb, labels=False)
        return Found(_images_of(layout), layout=layout)
    found = pair_folder(Path(rgb), out)
    if not found.pairs:
        return None
    log.debug("%s: %s", rgb, found.describe())
    if not allow_single:
        return Found(found.pairs, found.unpaired, found.unreadable)
    lone = [
        replace(pair, name=file.relative_to(rgb).with_suffix("").as_posix())
        for pair in found.alone
        if (file := pair.rgb or pair.thermal) is not None
    ]
    taken = {file for pair in lone for file in (pair.rgb, pair.thermal)}
    rest = [file for file in found.unpaired if file not in taken]
    return Found([*found.pairs, *lone], rest, found.unreadable)


def _images_of(layout: Layout) -> list[Pair]:
    """The pairs of all splits without their labels, each once."""
    bare = {
        split: tuple(replace(pair, label=None, instances=None) for pair in pairs)
        for split, pairs in layout.splits.items()
    }
    pairs = {pair for some in tell_apart(bare).values() for pair in some}
    return sorted(pairs, key=lambda pair: pair.name)


def _is_same(rgb: str | Path, thermal: str | Path | None) -> bool:
    """Whether there is one source only, named once or twice."""
    return thermal is None or Path(thermal).absolute() == Path(rgb).absolute()


def _find_keys(
    files: dict[str, Path], pair_regex: str | None, what: str
) -> tuple[dict[str, str], list[str]]:
    """What pairs are matched by -> name; and the names the expression does not fit."""
    if pair_regex is None:
        return {name: name for name in files}, []
    try:
        expression = re.compile(pair_regex)
    except re.error as error:
        raise InputError(f"--pair {pair_regex!r} is not a regular expression: {error}") from None
    if expression.groups < 1:
        raise InputError(f"--pair {pair_regex!r} has no group; put what must match in (brackets)")
    keys: dict[str, str] = {}
    lone = []
    for name in files:
        found = expression.search(name)
        if not found or found[1] is None:
            lone.append(name)
        elif found[1] in keys:
            raise InputError(
                f"--pair {pair_regex!r} gives {found[1]!r} for two {what} images, "
                f"{keys[found[1]]!r} and {name!r}; make group 1 tell them apart"
            )
        else:
            keys[found[1]] = name
    return keys, lone


def _list_images(
    source: str | Path | None, option: str, out: Path | None, unreadable: dict[str, str]
) -> dict[str, Path]:
    """Output name -> file for one side; refuses two files of one name."""
    if source is None:
        return {}
    top, listing = _list_source(Path(source), option, out)
    unreadable |= listing.unreadable
    if not listing.files:
        unread = "".join(f"; {folder} {reason}" for folder, reason in unreadable.items())
        raise InputError(
            f"{option} {source}: no images found; endings that are looked for: "
            f"{' '.join(sorted(SUFFIXES))}{unread}"
        )
    named: dict[str, Path] = {}
    for file in listing.files:
        name = file.relative_to(top).with_suffix("").as_posix()
        if name in named:
            raise InputError(
                f"{option}: {named[name]} and {file} would both be written as {name!r}; "
                f"rename one of them or run them apart"
            )
        named[name] = file
    return named


def _list_source(path: Path, option: str, out: Path | None) -> tuple[Path, Listing]:
    """The folder that names are relative to, and the images in a folder, of a glob, or itself."""
    top, parts = _split_glob(path)
    if not parts:
        kind = _kind_of(top)
        if kind == "file":
            return top.parent, Listing([top])
        if kind == "folder":
            return top, _keep_images(list_files(top, out))
        raise InputError(f"{option} {path}: {kind}; check the path")
    if ".." in parts:
        raise InputError(f"{option} {path}: a glob cannot lead upwards behind its first wildcard")
    deep = parts.index("**") if "**" in parts else len(parts) - 1

    def leads_there(folder: Path) -> bool:
        below = folder.relative_to(top).parts
        fits = all(map(fnmatch, below[:deep], parts[:deep]))
        return fits and (len(below) < len(parts) or "**" in parts)

    listing = _keep_images(list_files(top, out, leads_there))
    listing.files = [file for file in listing.files if _fits(file.relative_to(top).parts, parts)]
    return top, listing


def _keep_images(listing: Listing) -> Listing:
    listing.files = [file for file in listing.files if file.suffix.lower() in SUFFIXES]
    return listing


_KINDS = ("file", "folder")


def _kind_of(path: Path) -> str:
    """`file`, `folder`, or why it is neither."""
    try:
        mode = path.stat().st_mode
    except PermissionError:
        return "may not be read"
    except (OSError, ValueError):  # a name that is too long, or that no file can have
        return "no such file or folder"
    if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
        return "is no file but a pipe, a socket or a device"
    return "folder" if stat.S_ISDIR(mode) else "file"


def _split_glob(pattern: Path) -> tuple[Path, tuple[str, ...]]:
    """The part of a path before its first wildcard, and the parts from there on.

    What exists under its name is no wildcard, nor is a part with all of them escaped.
    """
    fixed = Path(pattern.anchor)
    parts = pattern.parts[1 if pattern.anchor else 0 :]
    for number, part in enumerate(parts):
        if glob.has_magic(part) and _kind_of(fixed / part) not in _KINDS:
            plain = re.sub(r"\[([*?[])\]", r"\1", part)
            if glob.escape(plain) != part:
                return fixed, parts[number:]
            part = plain
        fixed /= part
    return fixed, ()


def _fits(path: tuple[str, ...], pattern: tuple[str, ...]) -> bool:
    """Whether a path fits a glob, in which ** stands for any number of folders."""
    if not pattern or not path:
        return not pattern and not path
    if pattern[0] == "**":
        return len(pattern) == 1 or any(
            _fits(path[skipped:], pattern[1:]) for skipped in range(len(path))
        )
    return fnmatch(path[0], pattern[0]) and _fits(path[1:], pattern[1:])
