"""Display colours: told apart by everybody, on black and on white; one word, one colour."""

from itertools import combinations

import numpy as np
import pytest

from sartm.classes import CITYSCAPES, FMB, MFNET, PST900, Classes
from sartm.colours import COLOURS, SYNONYMS, describe_classes, display_palette

# Machado, Oliveira and Fernandes 2009, severity 1, on linear RGB.
SIGHTS = {
    "normal": np.eye(3),
    "protanopia": np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
                            [-0.003882, -0.048116, 1.051998]]),
    "deuteranopia": np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
                              [-0.011820, 0.042940, 0.968881]]),
}  # fmt: skip
TO_XYZ = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750],
                   [0.0193339, 0.1191920, 0.9503041]])  # fmt: skip


def lab(colour, sight):
    """CIE L*a*b* (white: D65) of an sRGB colour as somebody with that sight has it."""
    value = np.asarray(colour) / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    seen = np.clip(SIGHTS[sight] @ linear, 0, 1)
    ratio = TO_XYZ @ seen / TO_XYZ.sum(1)
    x, y, z = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def difference(first, second, sight):
    """CIE76: 2.3 is just noticeable side by side."""
    return float(np.linalg.norm(lab(first, sight) - lab(second, sight)))


def test_the_measure_itself():
    assert lab((255, 255, 255), "normal") == pytest.approx([100, 0, 0], abs=0.01)
    assert lab((255, 0, 0), "normal") == pytest.approx([53.24, 80.09, 67.20], abs=0.05)
    assert difference((255, 0, 0), (0, 128, 0), "normal") > 120
    assert difference((170, 90, 0), (110, 120, 0), "deuteranopia") < 15  # red and green are one


@pytest.mark.parametrize("sight", SIGHTS)
@pytest.mark.parametrize(
    ("classes", "least"), [(MFNET, 20.0), (PST900, 35.0), (FMB, 16.0), (CITYSCAPES, 11.0)]
)
def test_classes_of_one_table_are_told_apart_by_everybody(classes: Classes, least, sight):
    palette = display_palette(classes)
    closest = min(
        combinations(range(len(classes)), 2),
        key=lambda pair: difference(palette[pair[0]], palette[pair[1]], sight),
    )
    found = difference(palette[closest[0]], palette[closest[1]], sight)
    assert found >= least, f"{found:.1f}: {[classes.names[index] for index in closest]}"


@pytest.mark.parametrize("sight", SIGHTS)
def test_every_colour_is_seen_on_black_and_on_white(sight):
    for word, colour in COLOURS.items():
        assert difference(colour, (0, 0, 0), sight) > 35, word
        assert difference(colour, (255, 255, 255), sight) > 20, word
        half = tuple(value // 2 for value in colour)  # as an overlay on a night image mixes it
        assert difference(half, (0, 0, 0), sight) > 15, word


def test_what_was_invisible_before():
    person = MFNET.names.index("person")
    assert lab(MFNET.palette[person], "normal")[0] < 27
    assert lab(display_palette(MFNET)[person], "normal")[0] > 60


def test_a_word_has_one_colour_in_every_table_and_its_synonyms_share_it():
    colour = {}
    for classes in (MFNET, FMB, CITYSCAPES):
        for name, shown in zip(classes.names, display_palette(classes), strict=True):
            assert colour.setdefault(name, shown) == shown, name
    assert display_palette(PST900)[4] == colour["person"]  # survivor
    assert colour["bike"] == colour["bicycle"]
    own = Classes(("background", "Traffic-Cone", "pedestrians", "crack", "forklift"))
    palette = display_palette(own)
    assert palette[1:3] == (colour["color_cone"], colour["person"])
    assert len(set(palette)) == len(own)
    other = Classes(("forklift", "valve", "crack", "car"))
    assert display_palette(other)[0] == palette[4]
    assert display_palette(other)[2] == palette[3]
    assert set(SYNONYMS.values()) <= set(COLOURS)


def test_large_tables_and_doubled_words_get_colours_of_their_own():
    many = Classes(tuple(f"thing {index}" for index in range(60)))
    assert len(set(display_palette(many))) > 55
    both = Classes(("background", "bike", "bicycle", "vehicle", "car"))
    assert len(set(display_palette(both))) == 5


def test_the_table_of_summaries_has_both_colours():
    rows = describe_classes(MFNET)
    assert rows[2] == {"id": 2, "name": "person", "colour": [64, 64, 0],
                       "display": list(COLOURS["person"])}  # fmt: skip
