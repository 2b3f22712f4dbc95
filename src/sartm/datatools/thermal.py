"""The thermal images of somebody's folder: what their values mean, their size beside RGB."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sartm.data.pairs import read_images
from sartm.data.sets import Pair, ThermalUnit
from sartm.datatools.survey import spread_over
from sartm.errors import InputError
from sartm.io.cameras import Camera
from sartm.io.decode import image_size

_LOOKED_AT = 8
"""Thermal images that are opened to see what their values are."""


@dataclass(frozen=True)
class Thermal:
    """What the thermal images of a folder are, for `[thermal]` of its dataset.toml."""

    unit: ThermalUnit = "display"
    resize: bool = False
    """Thermal is smaller or larger than RGB, of the same view."""
    said: tuple[str, ...] = ()
    """What was found and decided."""
    questions: tuple[str, ...] = ()
    """What could not be decided."""


def look_at_thermal(pairs: Sequence[Pair]) -> Thermal:
    """What the values of thermal images are, and whether they have the size of RGB.

    A few images spread over all pairs are opened; one that cannot be read is a question.
    """
    some = [pair.thermal for pair in spread_over(pairs, _LOOKED_AT) if pair.thermal]
    said, questions = [], []
    radiometric = all(_is_radiometric(file) for file in some)
    unit: ThermalUnit = "celsius" if radiometric else "display"
    kinds: Counter[str] = Counter()
    sizes: dict[Path, tuple[int, int]] = {}
    warmest = 0.0
    for file in some:
        try:
            thermal = read_images(None, file, camera=Camera(radiometric)).thermal
        except InputError as error:
            questions.append(f"how thermal is to be read: {error}")
            break
        assert thermal is not None
        sizes[file] = (thermal.shape[0], thermal.shape[1])
        kinds[thermal.dtype.name] += 1
        warmest = max(warmest, float(thermal.max()))
    if radiometric:
        said.append("thermal: radiometric JPEG, read as degrees Celsius")
    elif "uint16" in kinds:
        unit = "counts"
        said.append("thermal: 16 bits, taken as counts of the camera")
    elif kinds and "uint8" not in kinds:
        unit = "celsius" if warmest < 1000 else "counts"
        said.append(f"thermal: floating-point values up to {warmest:g}, taken as {unit}")
    elif kinds:
        said.append("thermal: 8 bits, taken as a picture for display")
    resize, told, asked = _compare_sizes(pairs, sizes)
    return Thermal(unit, resize, (*said, *told), (*questions, *asked))


def _is_radiometric(file: Path) -> bool:
    if file.suffix.lower() not in (".jpg", ".jpeg"):
        return False
    try:
        read_images(None, file, camera=Camera(radiometric=True))
    except InputError:
        return False
    return True


def _compare_sizes(
    pairs: Sequence[Pair], sizes: dict[Path, tuple[int, int]]
) -> tuple[bool, list[str], list[str]]:
    """Whether thermal is to be resized; what was found; what is open."""
    for pair in pairs:
        if pair.thermal not in sizes or pair.rgb is None:
            continue
        (high, wide), (height, width) = image_size(pair.rgb), sizes[pair.thermal]
        if (high, wide) == (height, width):
            continue
        found = f"thermal is {height}x{width}, RGB {high}x{wide}"
        if abs(width * high / (height * wide) - 1) < 0.03:
            return True, [f"{found}: taken for the same view, and resized when it is read"], []
        return False, [], [
            f"how thermal lies on RGB: {found}, another shape; sartm data align registers them"
        ]  # fmt: skip
    return False, [], []
