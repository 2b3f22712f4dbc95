"""Display colours: what classes look like in overlays, films and pictures, by their names.

A data set's own palette stays in its files; many of those cannot be seen on a dark image.
"""

import colorsys
import hashlib
from collections.abc import Iterable
from typing import Any

from sartm.classes import Classes, Colour

COLOURS: dict[str, Colour] = {
    "person": (255, 110, 129),
    "car": (134, 160, 255),
    "bike": (252, 227, 10),
    "curve": (161, 54, 226),
    "car stop": (106, 206, 180),
    "guardrail": (155, 134, 169),
    "color cone": (237, 133, 0),
    "bump": (192, 34, 114),
    "fire extinguisher": (149, 95, 0),
    "backpack": (251, 255, 111),
    "hand drill": (3, 143, 248),
    "road": (115, 6, 242),
    "sidewalk": (186, 229, 181),
    "building": (154, 104, 135),
    "traffic light": (254, 255, 155),
    "traffic sign": (48, 99, 65),
    "vegetation": (62, 147, 91),
    "sky": (76, 228, 255),
    "truck": (105, 124, 196),
    "bus": (109, 174, 193),
    "motorcycle": (165, 112, 3),
    "pole": (23, 189, 151),
    "wall": (215, 217, 116),
    "fence": (173, 82, 159),
    "terrain": (184, 196, 17),
    "rider": (249, 124, 192),
    "train": (108, 64, 165),
}
"""Class -> RGB, 0-255. Found by annealing: the smallest difference between two classes of a
benchmark's table is as large as could be with normal sight, protanopia and deuteranopia, and all
stand out from black and from white; `tests/test_colours.py` measures it."""

SYNONYMS = {
    "pedestrian": "person", "people": "person", "human": "person", "man": "person",
    "survivor": "person", "vehicle": "car", "automobile": "car", "van": "car", "bicycle": "bike",
    "cyclist": "rider", "curb": "curve", "kerb": "curve", "road curb": "curve",
    "parking stop": "car stop", "guard rail": "guardrail", "cone": "color cone",
    "traffic cone": "color cone", "colour cone": "color cone", "speed bump": "bump",
    "extinguisher": "fire extinguisher", "bag": "backpack", "drill": "hand drill",
    "street": "road", "pavement": "sidewalk", "house": "building", "lamp": "traffic light",
    "sign": "traffic sign", "tree": "vegetation", "plant": "vegetation", "bush": "vegetation",
    "grass": "terrain", "ground": "terrain", "lorry": "truck", "motorbike": "motorcycle",
}  # fmt: skip
"""Other word -> the word of `COLOURS` whose colour it has."""

REST: Colour = (0, 0, 0)
"""Of the class that is left over, where it is drawn at all; overlays leave it clear."""
IGNORED: Colour = (255, 255, 255)


def display_palette(classes: Classes) -> tuple[Colour, ...]:
    """A display colour per class: of its name, whatever its id is and whichever data set it is in.

    A name that nobody has foreseen gets one of the colours that are free in this table, by its
    letters.
    """
    words = [_normalise(name) for name in classes.names]
    found: dict[int, Colour] = {}
    if not classes.prompts[0]:
        found[0] = REST
    taken = {REST}
    for place, word in enumerate(words):
        colour = COLOURS.get(word)
        if place not in found and colour is not None and colour not in taken:
            found[place] = colour
            taken.add(colour)
    for place, word in enumerate(words):
        if place not in found:
            found[place] = _choose(word, taken)
            taken.add(found[place])
    return tuple(found[place] for place in range(len(words)))


def describe_classes(classes: Classes) -> list[dict[str, Any]]:
    """A class table for summaries: id, name, the colour in files and that of pictures."""
    rows = zip(classes.names, classes.palette, display_palette(classes), strict=True)
    return [
        {"id": index, "name": name, "colour": list(colour), "display": list(display)}
        for index, (name, colour, display) in enumerate(rows)
    ]


def _normalise(name: str) -> str:
    """The word of `COLOURS` that a class name means, or the name in its plain form."""
    word = " ".join(name.lower().replace("_", " ").replace("-", " ").split())
    for form in (word, word.removesuffix("s")):
        if form in COLOURS or form in SYNONYMS:
            return SYNONYMS.get(form, form)
    return word


def _choose(word: str, taken: Iterable[Colour]) -> Colour:
    """A colour by the letters of a word; past the known ones a hue of its own."""
    digest = hashlib.sha256(word.encode()).digest()
    free = [colour for colour in COLOURS.values() if colour not in taken]
    if free:
        # By rank, so that what is taken elsewhere in the list changes nothing.
        return min(free, key=lambda colour: hashlib.sha256(digest + bytes(colour)).digest())
    hue, saturation, value = (part / 255 for part in digest[:3])
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.4 + 0.6 * saturation, 0.55 + 0.45 * value)
    return round(255 * red), round(255 * green), round(255 * blue)
