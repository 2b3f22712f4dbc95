"""`sartm data align`: the thermal images of a data set moved onto its RGB images."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, overload

import numpy.typing as npt

from sartm.config import to_dict
from sartm.data.layouts import open_layout
from sartm.data.pairs import read_label_of
from sartm.datatools.survey import COMPARED, over_all, spread_over
from sartm.datatools.writing import (
    Place,
    Plan,
    copy_instances,
    copy_or_write,
    place_pairs,
    read_stored,
    refuse_clashes,
    toml_files,
    write_description,
    write_image,
)
from sartm.errors import InputError
from sartm.files import write_atomic
from sartm.io.holes import UsedValues, fill_holes, find_holes, mark_holes
from sartm.io.labels import write_label
from sartm.outputs import finished_folder
from sartm.progress import Meter
from sartm.registration.calibration import (
    apply_alignment,
    read_calibration,
    write_calibration,
    write_comparison,
)
from sartm.registration.estimate import estimate_alignment, estimate_rig_alignment
from sartm.registration.offset import Offset, find_offset, measure_shift

Array = npt.NDArray[Any]

_COMPARISONS = 8


@dataclass(frozen=True)
class AlignedPair:
    """How the thermal image of one pair was moved."""

    homography: list[list[float]]
    """3 x 3, thermal pixel to RGB pixel."""
    quality: float | None
    """0 to 1; None with a calibration, which is taken as it is."""
    seen: float
    """Percent of the RGB image that the thermal camera sees; the rest are holes."""


@dataclass(frozen=True)
class AlignedSet:
    """What `align_dataset` wrote."""

    out: str
    method: Literal["rig", "per-pair", "calibration"]
    pairs: dict[str, AlignedPair]
    refused: dict[str, str]
    """Pairs that are left out, since nothing reliable was found, and why."""
    comparisons: tuple[str, ...]
    """Pictures of before (above) and after (below)."""


def align_dataset(
    source: str | Path,
    out: str | Path,
    *,
    per_pair: bool = False,
    calibration: str | Path | None = None,
) -> AlignedSet:
    """Write a data set with its thermal images on the pixels of the RGB images.

    One homography for all pairs, of the calibration file or found from the pairs; or one of each
    pair's own, and pairs for which none is reliable are left out and named. RGB files and labels
    stay as they are; the result is a dataset.toml layout, with `comparison/` pictures,
    `alignment.json`, and `calibration.json` where one homography holds for all. What thermal does
    not see holds the value that dataset.toml names as `holes`.

    Raises:
        InputError: `out` is not empty, a pair lacks RGB or thermal or cannot be read, nothing
            reliable is found, or `per_pair` and `calibration` are both given.
    """
    if per_pair and calibration:
        raise InputError("--per-pair and --calibration exclude each other; give one of them")
    layout = open_layout(source)
    places = place_pairs(layout, layout.splits, "dataset.toml")
    for place in places:
        if not place.pair.four_channel and not (place.pair.rgb and place.pair.thermal):
            raise InputError(f"pair {place.pair.name!r} lacks RGB or thermal; nothing to align")
    found = None if per_pair else _one_homography(places, calibration, layout.name)
    shown = set(spread_over(places, _COMPARISONS))
    with finished_folder(Path(out)) as root:
        files, copied = toml_files(places, layout, thermal_copied=False)
        plan = Plan(root, files, layout.classes, copied, mark=_free_value(places, layout.name))
        refuse_clashes(plan, places)
        results = over_all(
            places,
            lambda place: _align_pair(place, plan, found, place in shown),
            f"align {layout.name}",
        )
        named = {_title(place, files): one for place, one in zip(places, results, strict=True)}
        refused = {name: one for name, one in named.items() if isinstance(one, str)}
        aligned = {name: one for name, one in named.items() if isinstance(one, AlignedPair)}
        if not aligned:
            name, reason = next(iter(refused.items()))
            raise InputError(f"no pair could be aligned ({name}: {reason}); give --calibration")
        kept = {
            place.pair
            for place, one in zip(places, results, strict=True)
            if isinstance(one, AlignedPair)
        }
        splits = {
            split: tuple(pair for pair in pairs if pair in kept)
            for split, pairs in layout.splits.items()
        }
        described = replace(layout, holes=plan.mark)
        write_description(described, {split: some for split, some in splits.items() if some}, plan)
        if found is not None:
            write_calibration(root / "calibration.json", found[0])
        pictures = tuple(
            str(Path(out) / file.relative_to(root))
            for file in sorted((root / "comparison").rglob("*.jpg"))
        )
        method: Literal["rig", "per-pair", "calibration"] = (
            "per-pair" if per_pair else "calibration" if calibration else "rig"
        )
        result = AlignedSet(str(out), method, aligned, refused, pictures)
        write_atomic(root / "alignment.json", json.dumps(to_dict(result), indent=1).encode())
    return result


class _Images(Sequence[tuple[Array, Array]]):
    """RGB and thermal of pairs, read when asked for, and counted."""

    def __init__(self, places: Sequence[Place], meter: Meter) -> None:
        self.places, self.meter = places, meter

    def __len__(self) -> int:
        return len(self.places)

    @overload
    def __getitem__(self, index: int) -> tuple[Array, Array]: ...
    @overload
    def __getitem__(self, index: slice) -> "_Images": ...
    def __getitem__(self, index: int | slice) -> "tuple[Array, Array] | _Images":
        if isinstance(index, slice):
            return _Images(self.places[index], self.meter)
        self.meter.advance()
        return _read_both(self.places[index])


def _read_both(place: Place) -> tuple[Array, Array]:
    images = read_stored(place)
    if images.rgb is None or images.thermal is None:
        raise InputError(f"pair {place.pair.name!r} lacks RGB or thermal; nothing to align")
    return images.rgb, images.thermal


def _free_value(places: Sequence[Place], name: str) -> float:
    """A value for what is not seen that no thermal image of the set holds."""
    used = UsedValues()

    def take_in(place: Place) -> None:
        thermal = read_stored(place).thermal
        if thermal is not None:
            used.add(thermal, find_holes(thermal, place.camera.holes))

    over_all(places, take_in, f"survey {name}")
    return used.free()


def _one_homography(
    places: Sequence[Place], calibration: str | Path | None, name: str
) -> tuple[Array, float | None]:
    if calibration is not None:
        return read_calibration(Path(calibration)), None
    some = spread_over(places, COMPARED)
    offset = _look_for_offset(some, name)
    if offset is not None and not offset.related:
        raise InputError(
            f"no alignment of the cameras was found: how thermal lies on RGB is "
            f"{offset.describe()}; give --calibration FILE, or try --per-pair if the cameras move"
        )
    with Meter(f"align {name}: edges", len(some)) as meter:
        found = estimate_rig_alignment(_Images(some, meter), most=len(some))
    if not found.accepted:
        raise InputError(
            f"no alignment of the cameras was found: {found.reason} (quality {found.quality:.2f}); "
            f"give --calibration FILE, or try --per-pair if the cameras move"
        )
    return found.homography, found.quality


def _look_for_offset(places: Sequence[Place], name: str) -> Offset | None:
    """What the pairs say about the cameras within seconds; `sartm data check` shows the same."""
    evidence = over_all(places, lambda place: measure_shift(*_read_both(place)), f"compare {name}")
    return find_offset([one for one in evidence if one is not None])


def _align_pair(
    place: Place, plan: Plan, given: tuple[Array, float | None] | None, shown: bool
) -> AlignedPair | str:
    """Write a pair with its thermal image moved; or why it is left out."""
    pair = place.pair
    rgb, thermal = _read_both(place)
    if given is None:
        found = estimate_alignment(rgb, thermal)
        if not found.accepted:
            return found.reason
        given = found.homography, found.quality
    homography, quality = given
    size = (rgb.shape[0], rgb.shape[1])
    holes, filled = find_holes(thermal, place.camera.holes), thermal
    if place.camera.holes is not None:
        filled = fill_holes(thermal, place.camera.holes)
    moved, valid = apply_alignment(filled, homography, size, unseen=holes)
    copy_or_write(pair.rgb if "rgb" in plan.copied else None, plan.path("rgb", place), rgb)
    assert plan.mark is not None
    write_image(plan.path("thermal", place), mark_holes(moved, ~valid, plan.mark))
    if pair.label and "label" in plan.files:
        label = read_label_of(pair, plan.classes)
        if label.shape != size:
            raise InputError(
                f"{pair.label}: the label is {label.shape[0]}x{label.shape[1]} but its RGB image "
                f"{size[0]}x{size[1]}; labels belong to the RGB image"
            )
        write_label(plan.path("label", place), label)
        copy_instances(place, plan)
    if shown:
        picture = plan.root / "comparison" / f"{_title(place, plan.files)}.jpg"
        picture.parent.mkdir(parents=True, exist_ok=True)
        write_comparison(rgb, thermal, moved, picture)
    return AlignedPair(homography.tolist(), quality, round(100 * float(valid.mean()), 2))


def _title(place: Place, files: dict[str, str]) -> str:
    """Names a pair uniquely."""
    apart = "{split}" in files["rgb"]
    return f"{place.folder}/{place.pair.name}" if apart else place.pair.name
