"""A data set written again: in another layout without loss, or with its thermal images aligned."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from sartm.data.layouts import open_layout
from sartm.data.names import UNLABELLED
from sartm.data.pairs import read_pair
from sartm.data.sets import Layout, Pair, ThermalUnit
from sartm.datatools.survey import over_all
from sartm.datatools.writing import (
    Place,
    Plan,
    Target,
    copy_instances,
    copy_or_write,
    describe_deep_rgb,
    has_deep_rgb,
    place_pairs,
    refuse_clashes,
    thermal_range,
    toml_files,
    write_description,
    write_image,
)
from sartm.errors import InputError
from sartm.io.cameras import Camera
from sartm.io.holes import fill_holes, find_holes, mark_holes
from sartm.io.labels import write_label
from sartm.io.thermal import scale_thermal
from sartm.outputs import finished_folder

Array = npt.NDArray[Any]

_PLAIN_SPLITS = ("train", "val", "test", "trainval", "test_day", "test_night")
"""What the lists of the benchmarks' own layouts are called."""
_PATTERNS: dict[Target, dict[str, str]] = {
    "four-channel": {"four_channel": "images/{name}.png", "label": "labels/{name}.png"},
    "flat": {
        "rgb": "RGB/{name}.png", "thermal": "Thermal/{name}.png", "label": "Label/{name}.png",
    },
    "flat-jpeg": {
        "rgb": "rgb/{name}.jpg", "thermal": "ther/{name}.jpg", "label": "labels/{name}.png",
    },
    "dataset.toml": {
        "rgb": "rgb/{name}.png", "thermal": "thermal/{name}.png", "label": "labels/{name}.png",
    },
}  # fmt: skip


@dataclass(frozen=True)
class Conversion:
    """What `convert_dataset` wrote."""

    out: str
    layout: Target
    pairs: int
    splits: dict[str, int]
    lost: tuple[str, ...]
    """What the new data set does not have any more; no pixel of an image, unless `lossy`."""


def convert_dataset(
    source: str | Path, to: Target, out: str | Path, lossy: bool = False
) -> Conversion:
    """Write a data set in another layout: every pixel the same, or nothing at all.

    `four-channel` is MFNet as distributed (images/, labels/, lists), `flat` RGB/, Thermal/, Label/
    and lists, `flat-jpeg` rgb/, ther/, labels/ with JPEG images, `dataset.toml` any data set. Where
    a plain layout does not tell the classes, subsets or thermal unit, a dataset.toml is put beside
    it. Each pair is read back and compared; the folder appears under its name once it is complete.

    Raises:
        InputError: `out` is not empty, a pair cannot be read, or something would be lost (JPEG,
            16 to 8 bits, floats, a split that the layout cannot name) and `lossy` is not given.
    """
    if to not in get_args(Target):
        raise InputError(f"no layout {to!r} to convert to; choose {', '.join(get_args(Target))}")
    layout = open_layout(source)
    splits, lost = _splits_for(layout, to, lossy)
    places = place_pairs(layout, splits, to)
    _require_parts(layout, splits, to)
    with finished_folder(Path(out)) as root:
        plan, changed = _plan(layout, places, to, root, lossy)
        refuse_clashes(plan, places)
        over_all(places, lambda place: _write_pair(place, plan), f"convert {layout.name}")
        described = _describe_thermal(layout, plan, to)
        write_description(described, splits, plan, plain=to != "dataset.toml")
    counts = {split: len(pairs) for split, pairs in splits.items()}
    return Conversion(str(out), to, len(places), counts, (*lost, *changed))


def _splits_for(
    layout: Layout, to: Target, lossy: bool
) -> tuple[dict[str, tuple[Pair, ...]], list[str]]:
    """The splits that the target can name, and what is lost."""
    if to == "dataset.toml":
        return layout.splits, []
    kept = {split: pairs for split, pairs in layout.splits.items() if split in _PLAIN_SPLITS}
    gone = [split for split in layout.splits if split not in kept]
    if not gone:
        return kept, []
    if not kept or not lossy:
        raise InputError(
            f"layout {to} cannot name the split {gone[0]!r} (it knows {', '.join(_PLAIN_SPLITS)}); "
            f"convert to dataset.toml" + ("" if not kept else ", or leave it out with --lossy")
        )
    return kept, [f"split {split} ({len(layout.splits[split])} pairs)" for split in gone]


def _require_parts(layout: Layout, splits: dict[str, tuple[Pair, ...]], to: Target) -> None:
    """Plain layouts have three images per pair; a dataset.toml has the same ones for every pair,
    but for labels, which whole splits may lack and single pairs of `UNLABELLED`."""
    images = {kind for pairs in splits.values() for pair in pairs for kind in _kinds(pair)}
    for split, pairs in splits.items():
        labelled = split != UNLABELLED and any(pair.label for pair in pairs)
        alike = images - ({"label"} if not labelled else set())
        needed = alike if to == "dataset.toml" else {"RGB", "thermal", "label"}
        for pair in pairs:
            for what in sorted(needed - _kinds(pair)):
                why = f"which layout {to} needs; convert to dataset.toml"
                if to == "dataset.toml":
                    why = (
                        "which others have, and a dataset.toml names the same images for every "
                        "pair; take it off the lists, or keep it in tar shards, sartm data shard"
                    )
                raise InputError(f"{layout.root}: pair {pair.name!r} has no {what} image, {why}")


def _kinds(pair: Pair) -> set[str]:
    """The images that a pair has."""
    has = {
        "RGB": pair.rgb or pair.four_channel,
        "thermal": pair.thermal or pair.four_channel,
        "label": pair.label,
    }
    return {kind for kind, file in has.items() if file is not None}


def _plan(
    layout: Layout, places: Sequence[Place], to: Target, root: Path, lossy: bool
) -> tuple[Plan, list[str]]:
    if to == "dataset.toml":
        files, copied = toml_files(places, layout, thermal_copied=True)
        resize = layout.resize_thermal
        lost = describe_deep_rgb(places) if lossy and "rgb" not in copied else []
        return Plan(root, files, layout.classes, copied, lossy=lossy, resize=resize), lost
    bits = 16 if to == "flat" else 8
    if to == "flat-jpeg" and not lossy:
        raise InputError(
            "JPEG changes the pixels of RGB and thermal images; convert to flat, or give --lossy"
        )
    lost = ["exact pixels of RGB and thermal images (JPEG)"] if to == "flat-jpeg" else []
    if any(place.pair.numbered for place in places):
        lost.append("which things are one (instances), which dataset.toml keeps")
    if to == "flat-jpeg" and layout.holes is not None:
        lost.append("which thermal pixels are no measurements; they are filled")
    levels = None
    if lossy:
        ranges = over_all(places, thermal_range, f"survey {layout.name}")
        if any(kind not in ("uint8", "uint16")[: bits // 8] for kind, _, _ in ranges):
            levels = min(low for _, low, _ in ranges), max(high for _, _, high in ranges)
            kinds = " and ".join(sorted({kind for kind, _, _ in ranges}))
            lost.append(
                f"exact thermal values ({kinds}): {levels[0]:g} to {levels[1]:g} became 0 to "
                f"{2**bits - 1}"
            )
        lost += describe_deep_rgb(places)
    scaled = levels is not None and layout.holes is not None and to != "flat-jpeg"
    return Plan(
        root, _PATTERNS[to], layout.classes, levels=levels, thermal_bits=bits,
        mark=0.0 if scaled else None, lossy=lossy, resize=layout.resize_thermal,
    ), lost  # fmt: skip


def _describe_thermal(layout: Layout, plan: Plan, to: Target) -> Layout:
    """What dataset.toml says of thermal images that are not what they were."""
    if plan.levels is not None:
        unit: ThermalUnit = "display" if plan.thermal_bits == 8 else "counts"
        return replace(layout, thermal_unit=unit, holes=plan.mark)
    if to == "flat-jpeg":  # of degrees, JPEG would be read as radiometric
        unit = "display" if layout.thermal_unit == "celsius" else layout.thermal_unit
        return replace(layout, thermal_unit=unit, holes=None)
    return layout


def _write_pair(place: Place, plan: Plan) -> None:
    """Write a pair, read it back and compare."""
    pair = place.pair
    stored = place.camera.as_stored()
    sample = read_pair(pair, plan.classes, camera=stored, resize_thermal=plan.resize)
    if not plan.lossy and "rgb" not in plan.copied and has_deep_rgb(pair):
        raise InputError(
            f"{pair.rgb or pair.four_channel}: 16 bits per channel would become 8; "
            f"dataset.toml keeps them where all RGB images have one ending; else give --lossy"
        )
    thermal = None if sample.thermal is None else _fit_numbers(sample.thermal, plan, place)
    # what others have a pair may lack, such as a label
    lacks = {
        kind
        for kind, image in (("rgb", sample.rgb), ("thermal", thermal), ("label", sample.label))
        if image is None
    }
    to = {kind: plan.path(kind, place) for kind in plan.files if kind not in lacks}
    written = Pair(
        pair.name, to.get("rgb"), to.get("thermal"), to.get("label"), to.get("four_channel")
    )
    if written.four_channel and sample.rgb is not None and thermal is not None:
        write_image(written.four_channel, np.dstack([sample.rgb, thermal]))
    if written.rgb and sample.rgb is not None:
        copy_or_write(pair.rgb if "rgb" in plan.copied else None, written.rgb, sample.rgb)
    if written.thermal and thermal is not None:
        original = pair.thermal if "thermal" in plan.copied else None
        copy_or_write(original, written.thermal, thermal)
    if written.label and sample.label is not None:
        write_label(written.label, sample.label)
    copy_instances(place, plan)
    camera = stored if "thermal" in plan.copied else Camera()
    again = read_pair(written, plan.classes, camera=camera, resize_thermal=plan.resize)
    jpeg = ".jpg" in plan.files.get("rgb", "") and "rgb" not in plan.copied
    same = [(sample.label, again.label)]
    if not jpeg:
        same += [(sample.rgb, again.rgb), (thermal, again.thermal)]
    for before, after in same:
        if not _equal(before, after):
            raise InputError(
                f"pair {pair.name!r} reads back with other pixels than were written; "
                f"is the disk full or faulty?"
            )


def _equal(before: Array | None, after: Array | None) -> bool:
    if before is None or after is None:
        return before is after
    return before.dtype == after.dtype and np.array_equal(before, after)


def _fit_numbers(thermal: Array, plan: Plan, place: Place) -> Array:
    """Raw thermal values in a type that the target holds."""
    pair, holes = place.pair, place.camera.holes
    jpeg = ".jpg" in plan.files.get("thermal", "") and "thermal" not in plan.copied
    unseen = find_holes(thermal, holes)
    if holes is not None and (jpeg or plan.levels is not None):
        thermal = fill_holes(thermal, holes)
    if plan.levels is not None:
        top = 2**plan.thermal_bits - 1
        scaled: Array = np.rint(top * scale_thermal(thermal, plan.levels).astype(np.float64))
        scaled = scaled.astype(np.uint8 if plan.thermal_bits == 8 else np.uint16)
        if plan.mark is None:
            return scaled
        return mark_holes(scaled, np.zeros(scaled.shape, bool) if unseen is None else unseen,
                          plan.mark)  # fmt: skip
    if plan.files.get("thermal", "").endswith(".tiff") or "thermal" in plan.copied:
        return thermal
    if thermal.dtype.kind == "f" or thermal.dtype.itemsize * 8 > plan.thermal_bits:
        raise InputError(
            f"{pair.thermal or pair.four_channel}: {thermal.dtype} thermal values do not fit "
            f"{plan.thermal_bits} bits; convert to dataset.toml, or scale them with --lossy"
        )
    return thermal
