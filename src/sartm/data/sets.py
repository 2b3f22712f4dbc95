"""What a data set is: where its pairs lie, in which splits, and what their ids mean."""

import logging
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from sartm.classes import Classes
from sartm.io.cameras import Camera

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


def outline(layout: Layout) -> Layout:
    """The data set with one pair that stands for all: how its files are read, small enough to
    travel."""
    split, pairs = next(iter(layout.splits.items()))
    return replace(layout, splits={split: pairs[:1]}, repeated={})


def tell_apart(splits: dict[str, tuple[Pair, ...]]) -> dict[str, tuple[Pair, ...]]:
    """The splits, with names that several pairs have told apart by the first split of each."""
    first: dict[Pair, str] = {}
    for split, pairs in splits.items():
        for pair in pairs:
            first.setdefault(pair, split)
    often = Counter(pair.name for pair in first)
    apart = {
        pair: replace(pair, name=f"{split}/{pair.name}") if often[pair.name] > 1 else pair
        for pair, split in first.items()
    }
    return {split: tuple(apart[pair] for pair in pairs) for split, pairs in splits.items()}


def find_repeated(root: Path, splits: dict[str, tuple[Pair, ...]]) -> dict[str, tuple[str, ...]]:
    """Split -> names that it has more than once, which are logged."""
    found = {}
    for split, pairs in splits.items():
        again = [pair.name for pair, count in Counter(pairs).items() if count > 1]
        if again:
            found[split] = tuple(again)
            log.warning("%s: split %r lists %d names again, such as %r; each counts once",
                        root, split, len(again), again[0])  # fmt: skip
    return found
