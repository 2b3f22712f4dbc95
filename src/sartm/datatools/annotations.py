"""Annotations as people's tools export them: COCO and YOLO here, the others in `tool_exports`.

What is read was made elsewhere and may be broken or hostile: sizes are bounded, nothing is run, and
whatever is not as the format says is an InputError with the file's name.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import yaml

from sartm.data.listing import files_below
from sartm.data.names import SPLIT_FOLDERS
from sartm.datatools.shapes import Region, decode_coco, read_points
from sartm.errors import InputError
from sartm.files import read_json, read_text
from sartm.io.header import MAX_PIXELS, check_limits

LARGEST = 512 * 2**20
"""Bytes of one annotation file."""
_MOST_NAMES = 4096


@dataclass
class Picture:
    """The annotations of one image."""

    size: tuple[int, int] | None
    """(height, width) that coordinates refer to; None: they are shares of both."""
    regions: list[Region] = field(default_factory=list)
    boxes: int = 0
    """Things that have a box and no area."""


@dataclass
class Annotations:
    """What a file or folder of annotations holds."""

    names: list[str] = field(default_factory=list)
    """Classes, in the order of the file's ids."""
    pictures: dict[str, Picture] = field(default_factory=dict)
    """Path of the image as the tool has it, without suffix; below the split that its file says."""
    left_out: Counter[str] = field(default_factory=Counter)
    """Kinds of shapes that are no areas."""
    folder: str = ""
    """Of the file which is being read, below what was named."""
    split: str = ""
    """That the file which is being read says by its name; its images are told apart by it."""

    def name(self, name: Any) -> str:
        """A class name, noted at its first use."""
        text = str(name).strip()
        if text not in self.names:
            if not text or len(self.names) >= _MOST_NAMES:
                raise ValueError("a class without a name, or too many of them")
            self.names.append(text)
        return text

    def picture(self, file: Any, size: tuple[int, int] | None) -> Picture:
        """That image's annotations, to add to."""
        if not isinstance(file, str) or not file:
            raise ValueError("an image without a file name")
        parts = PurePosixPath(file.replace("\\", "/")).parts
        path = PurePosixPath(self.split, *(one for one in parts if one not in ("/", "//", "..")))
        if size is not None:
            check_limits(path.name, *size, MAX_PIXELS)
        return self.pictures.setdefault(str(path.with_suffix("")), Picture(size))


@contextmanager
def refusing(path: Path, kind: str) -> Iterator[None]:
    """Whatever is not as the format says becomes an InputError that names the file."""
    try:
        yield
    except InputError:
        raise
    except KeyError as error:
        raise InputError(f"{path} is no {kind} file: it lacks {error.args[0]!r}") from None
    except (TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
        raise InputError(f"{path} is no {kind} file: {str(error)[:200]}") from None


def whole(value: Any) -> int:
    """A side of an image, as a number."""
    if isinstance(value, bool) or int(value) != float(value) or not 0 < int(value) < 2**31:
        raise ValueError(f"{value!r} is no size of an image")
    return int(value)


def files_of(place: Path, suffix: str) -> list[Path]:
    """The annotation files that a path names: itself, or those below a folder."""
    if place.is_file():
        return [place]
    if not place.is_dir():
        raise InputError(f"{place}: no such file or folder of annotations")
    found = [file for file in files_below(place) if file.suffix.lower() == suffix]
    if not found:
        raise InputError(f"{place}: no {suffix} files of annotations in it")
    return found


def read_each(
    place: Path, kind: str, suffix: str, read: Callable[[Path, Annotations], None]
) -> Annotations:
    """`read` every file of a path into one."""
    found = Annotations()
    for file in files_of(place, suffix):
        below = file.relative_to(place) if place.is_dir() else Path(file.name)
        found.folder, found.split = below.parent.as_posix(), _split_of(below)
        with refusing(file, kind):
            read(file, found)
    return found


def _split_of(path: Path) -> str:
    """The split that a path says, as in train/a.json and instances_val2017.json; "" for none."""
    words = re.findall("[a-z]+", path.as_posix().lower())
    return next((SPLIT_FOLDERS[word] for word in words if word in SPLIT_FOLDERS), "")


def read_coco(place: Path) -> Annotations:
    """COCO: images, categories, and annotations of polygons or run lengths."""
    return read_each(place, "COCO", ".json", _read_coco_file)


def _read_coco_file(path: Path, found: Annotations) -> None:
    content = read_json(path, LARGEST)
    categories = sorted(content["categories"], key=lambda one: int(one["id"]))
    names = {int(one["id"]): found.name(one["name"]) for one in categories}
    pictures = {
        one["id"]: found.picture(one["file_name"], (whole(one["height"]), whole(one["width"])))
        for one in content["images"]
    }
    for order, one in enumerate(content["annotations"]):
        try:
            image, category = one["image_id"], int(one["category_id"])
            if image not in pictures:
                raise ValueError(f"image_id {image!r} is not in images")
            if category not in names:
                raise ValueError(f"category_id {category} is not in categories")
            shape = one.get("segmentation")
            _read_coco_shape(shape, names[category], order, pictures[image], found)
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"annotation {one.get('id', order)}: {error}") from None


def _read_coco_shape(
    shape: Any, name: str, order: int, picture: Picture, found: Annotations
) -> None:
    if isinstance(shape, dict) and shape:
        assert picture.size is not None
        mask = partial(decode_coco, shape, picture.size)
        picture.regions.append(Region(name, mask=mask, order=order))
        return
    areas = [points for points in shape or () if len(points) >= 6]
    thin = len(shape or ()) - len(areas)
    if thin:
        found.left_out["polygons of fewer than three corners"] += thin
    elif not areas:
        found.left_out["boxes"] += 1
    picture.boxes += not areas
    picture.regions += [Region(name, (read_points(points),), order=order) for points in areas]


def read_yolo(place: Path) -> Annotations:
    """YOLO: a text per image, a polygon a line in shares of the sides; names in data.yaml."""
    found = Annotations()
    root = place if place.is_dir() else place.parent
    found.names = _yolo_names(root)
    named = ("classes.txt", "train.txt", "val.txt", "test.txt", "README.txt")
    for file in files_of(root, ".txt"):
        if file.name in named:
            continue
        with refusing(file, "YOLO segmentation"):
            key = re.sub(r"(^|/)labels/", r"\1", file.relative_to(root).as_posix())
            picture = found.picture(key, None)
            for line in read_text(file).splitlines():
                _read_yolo_line(line.split(), picture, found)
    return found


def _read_yolo_line(words: list[str], picture: Picture, found: Annotations) -> None:
    if not words:
        return
    index = int(words[0])
    if len(words) == 5:
        found.left_out["boxes"] += 1
        picture.boxes += 1
    elif not 0 <= index < len(found.names):
        raise ValueError(f"class {index}, but {len(found.names)} names are given")
    else:
        points = read_points([float(word) for word in words[1:]])
        picture.regions.append(Region(found.names[index], (points,)))


def _yolo_names(root: Path) -> list[str]:
    """Class names: lines of classes.txt, or `names:` of data.yaml, a list or numbered from 0."""
    if (root / "classes.txt").is_file():
        lines = read_text(root / "classes.txt").splitlines()
        return [line.strip() for line in lines if line.strip()]
    for file in sorted([*root.glob("*.yaml"), *root.glob("*.yml")]):
        with refusing(file, "YOLO"):
            content = _read_yaml(read_text(file))
            names = content.get("names") if isinstance(content, dict) else None
            if isinstance(names, dict):
                by_id = {int(number): name for number, name in names.items()}
                if sorted(by_id) != list(range(len(by_id))):
                    raise ValueError("names are not numbered from 0")
                names = [by_id[number] for number in range(len(by_id))]
            if names:
                if not isinstance(names, list) or not all(isinstance(one, str) for one in names):
                    raise ValueError("names are no list of names")
                return names
    raise InputError(
        f"{root}: no names of classes; put data.yaml (names: [...]) or classes.txt beside labels"
    )


def _read_yaml(text: str) -> Any:
    """What YAML says, with every scalar as the text it is: a class may be called `no` or 1."""
    try:
        return yaml.load(text, Loader=yaml.BaseLoader)
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"it is no YAML: {error}") from None


def scaled(regions: Iterable[Region], size: tuple[int, int]) -> list[Region]:
    """Regions whose coordinates are shares, in pixels."""
    factor = np.array([size[1], size[0]], np.float64)
    return [
        Region(one.name, tuple(points * factor for points in one.polygons), one.mask, one.order)
        for one in regions
    ]
