"""What a drawn scene is labelled with: MFNet's classes, or these and everything around them."""

from typing import Literal

from sartm.classes import MFNET, Classes, default_palette

Vocabulary = Literal["mfnet", "full"]

Thing = Literal[
    "sky", "road", "pavement", "lane_marking", "crosswalk", "manhole", "grass", "ground",
    "building", "tree", "bush", "street_lamp", "pole", "traffic_sign", "sign", "utility_cabinet",
    "litter_bin", "billboard", "vending_machine",
]  # fmt: skip
"""What MFNet leaves unlabelled. Windows and ledges belong to their building."""

THINGS: tuple[Thing, ...] = Thing.__args__  # type: ignore[attr-defined]

_COLOURS = {
    "sky": (70, 130, 180), "road": (128, 64, 128), "pavement": (244, 35, 232),
    "grass": (152, 251, 152), "ground": (145, 120, 90), "building": (70, 70, 70),
    "tree": (107, 142, 35), "bush": (60, 110, 40), "pole": (153, 153, 153),
    "traffic_sign": (220, 220, 0),
}  # fmt: skip
_OTHERS = iter([c for c in default_palette(80) if c not in (*MFNET.palette, *_COLOURS.values())])

FULL = Classes(
    (*MFNET.names, *THINGS),
    (*MFNET.palette, *(_COLOURS.get(name) or next(_OTHERS) for name in THINGS)),
    (*MFNET.prompts, *(name.replace("_", " ") for name in THINGS)),
)
"""MFNet's ids, then those of `THINGS`."""

TABLES: dict[Vocabulary, Classes] = {"mfnet": MFNET, "full": FULL}
