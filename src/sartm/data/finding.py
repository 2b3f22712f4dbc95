"""Loose images on disk to pairs: files, folders and globs, matched by name or by an expression."""

import glob
import re
from pathlib import Path

from sartm.data.layouts import Pair
from sartm.errors import InputError
from sartm.io.decode import SUFFIXES


def find_pairs(
    rgb: str | Path | None,
    thermal: str | Path | None,
    pair_regex: str | None = None,
    allow_single: bool = False,
) -> tuple[list[Pair], list[Path]]:
    """Pair loose images for prediction: each side a file, a folder (recursive), a glob or None.

    Folders and globs are paired by the path below them without suffix, or by group 1 of
    `pair_regex` searched in that path. Two single files are a pair whatever they are called.

    Returns:
        The pairs, sorted by name (RGB's, else thermal's), and the files left without a partner,
        which with `allow_single` become pairs of one image instead.

    Raises:
        InputError: nothing found, nothing fits together, or two inputs share an output name.
    """
    visible, infrared = _list_images(rgb, "--rgb"), _list_images(thermal, "--thermal")
    if rgb is None and thermal is None:
        raise InputError("no input; give --rgb, --thermal or both")
    if rgb is None or thermal is None:
        lone = [Pair(name, file) for name, file in visible.items()]
        lone += [Pair(name, None, file) for name, file in infrared.items()]
        return sorted(lone, key=lambda pair: pair.name), []
    if Path(rgb).is_file() and Path(thermal).is_file() and pair_regex is None:
        ((name, first),), (second,) = visible.items(), infrared.values()
        return [Pair(name, first, second)], []
    return _match_by_key(visible, infrared, pair_regex, allow_single)


def _match_by_key(
    visible: dict[str, Path], infrared: dict[str, Path], pair_regex: str | None, allow_single: bool
) -> tuple[list[Pair], list[Path]]:
    left, lone_left = _find_keys(visible, pair_regex, "RGB")
    right, lone_right = _find_keys(infrared, pair_regex, "thermal")
    pairs = [
        Pair(left[key], visible[left[key]], infrared[right[key]]) for key in left.keys() & right
    ]
    lone_left += [left[key] for key in left.keys() - right.keys()]
    lone_right += [right[key] for key in right.keys() - left.keys()]
    if not pairs and not allow_single:
        raise InputError(
            f"no RGB image has a thermal partner of the same name, e.g. {min(visible)!r} and "
            f"{min(infrared)!r}; pair them with --pair REGEX (its group 1 must match), or use each "
            f"alone with --allow-single"
        )
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


def _list_images(source: str | Path | None, option: str) -> dict[str, Path]:
    """Output name -> file for one side; refuses two files of one name."""
    if source is None:
        return {}
    path, pattern = Path(source), str(source)
    if path.is_dir():
        top, files = path, [file for file in path.rglob("*") if _is_image(file)]
    elif path.is_file():
        top, files = path.parent, [path]
    elif glob.has_magic(pattern):
        top = _fixed_part(path)
        files = [file for file in top.glob(str(path.relative_to(top))) if _is_image(file)]
    else:
        raise InputError(f"{option} {source}: no such file or folder; check the path")
    if not files:
        raise InputError(
            f"{option} {source}: no images found; endings that are looked for: "
            f"{' '.join(sorted(SUFFIXES))}"
        )
    named: dict[str, Path] = {}
    for file in sorted(files):
        name = file.relative_to(top).with_suffix("").as_posix()
        if name in named:
            raise InputError(
                f"{option}: {named[name]} and {file} would both be written as {name!r}; "
                f"rename one of them or run them apart"
            )
        named[name] = file
    return named


def _fixed_part(pattern: Path) -> Path:
    """The folders of a glob before its first wildcard."""
    fixed = Path(pattern.anchor)
    for part in pattern.parts[1 if pattern.anchor else 0 : -1]:
        if glob.has_magic(part):
            break
        fixed /= part
    return fixed


def _is_image(file: Path) -> bool:
    hidden = file.name.startswith(".")
    return not hidden and file.suffix.lower() in SUFFIXES and file.is_file()
