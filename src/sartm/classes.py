"""What each label id means: names, colours and words for the text encoder, per benchmark."""

import unicodedata
from collections import Counter
from dataclasses import dataclass
from itertools import zip_longest

from sartm.errors import InputError

Colour = tuple[int, int, int]

LARGEST_ID = 65535
"""Of a label map of 16 bits."""


def default_palette(count: int) -> tuple[Colour, ...]:
    """`count` distinguishable RGB colours (0-255), black first: the bit-reversal of PASCAL VOC."""
    colours = []
    for index in range(count):
        red = green = blue = 0
        for bit in range(8):
            red |= (index >> (3 * bit) & 1) << (7 - bit)
            green |= (index >> (3 * bit + 1) & 1) << (7 - bit)
            blue |= (index >> (3 * bit + 2) & 1) << (7 - bit)
        colours.append((red, green, blue))
    return tuple(colours)


@dataclass(frozen=True)
class Classes:
    """The class table of a data set or model: the position in `names` is the label id."""

    names: tuple[str, ...]
    palette: tuple[Colour, ...] = ()
    """RGB, 0-255, one per class; drawn from `default_palette` when left out."""
    prompts: tuple[str, ...] = ()
    """Words for the text encoder, one per class; "" takes no part in language."""
    ignore: int = 255
    """Label id that is never counted and never learned."""

    def __post_init__(self) -> None:
        self._require_names()
        if not self.palette:
            object.__setattr__(self, "palette", default_palette(len(self.names)))
        if not self.prompts:
            words = tuple("" if is_rest(name) else name.replace("_", " ") for name in self.names)
            object.__setattr__(self, "prompts", words)
        for field in ("palette", "prompts"):
            found = len(getattr(self, field))
            if found != len(self.names):
                raise InputError(
                    f"{field} has {found} entries for {len(self.names)} classes; give one per class"
                )
        self._require_values()

    def _require_names(self) -> None:
        if len(self.names) < 2:
            raise InputError(f"a class table needs at least 2 classes, found {list(self.names)}")
        if len(self.names) > LARGEST_ID:
            raise InputError(f"{len(self.names)} classes; label maps hold ids up to {LARGEST_ID}")
        double = sorted(name for name, count in Counter(self.names).items() if count > 1)
        if double:
            raise InputError(f"class names must differ, found {double[:5]} more than once")
        for text in (*self.names, *self.prompts):  # they are shown on terminals and pages
            if not text.isprintable() and any(
                unicodedata.category(letter) in ("Cc", "Cs") for letter in text
            ):
                raise InputError(f"class name {text!r} holds control characters; take them out")

    def _require_values(self) -> None:
        for name, colour in zip(self.names, self.palette, strict=True):
            if len(colour) != 3 or not all(0 <= value <= 255 for value in colour):
                raise InputError(
                    f"the colour of class {name!r} is {list(colour)}; give three numbers, 0 to 255"
                )
        if not 0 <= self.ignore <= LARGEST_ID:
            raise InputError(f"ignore is {self.ignore}; label ids lie in 0 to {LARGEST_ID}")
        if self.ignore < len(self.names):
            raise InputError(
                f"ignore is {self.ignore}, which is also class {self.names[self.ignore]!r}; "
                f"choose an id outside 0-{len(self.names) - 1}"
            )

    def __len__(self) -> int:
        return len(self.names)

    @property
    def rest(self) -> int | None:
        """Id of the leftover of the other classes; None where every class is something."""
        for index, (name, prompt) in enumerate(zip(self.names, self.prompts, strict=True)):
            if not prompt and is_rest(name):
                return index
        return None if self.prompts[0] else 0

    def require_same(self, data: "Classes") -> None:
        """Raise unless both tables mean the same by every id (self: the model, `data`: the set)."""
        for index, (ours, theirs) in enumerate(zip_longest(self.names, data.names)):
            if ours != theirs:
                raise InputError(
                    f"class {index} is {ours!r} in the model but {theirs!r} in the data set "
                    f"({len(self)} and {len(data)} classes). Use the data set the model was "
                    f"trained for, or train new heads: sartm train RECIPE --init MODEL --data D"
                )


def is_rest(name: str) -> bool:
    """Whether a class is the leftover of the others, which no words describe."""
    return name.lower() in {"unlabeled", "unlabelled", "background", "void", "other"}


MFNET = Classes(
    names=(
        "unlabeled", "car", "person", "bike", "curve", "car_stop", "guardrail", "color_cone",
        "bump",
    ),
    palette=(
        (0, 0, 0), (64, 0, 128), (64, 64, 0), (0, 128, 192), (0, 0, 192),
        (128, 128, 0), (64, 64, 128), (192, 128, 128), (192, 64, 0),
    ),
    prompts=(
        "", "car", "person", "bicycle", "road curb", "car stop", "guardrail", "traffic cone",
        "speed bump",
    ),
)  # fmt: skip
"""MFNet (Ha et al., IROS 2017), ids and colours as published."""

PST900 = Classes(
    names=("background", "fire_extinguisher", "backpack", "hand_drill", "survivor"),
    palette=((0, 0, 0), (0, 0, 255), (0, 255, 0), (255, 0, 0), (255, 255, 255)),
)
"""PST900 (arXiv:1909.10980), the official ids; some tables swap ids 1 and 3."""

FMB = Classes(
    names=(
        "background", "road", "sidewalk", "building", "traffic_light", "traffic_sign",
        "vegetation", "sky", "person", "car", "truck", "bus", "motorcycle", "bicycle", "pole",
    ),
    palette=(
        (0, 0, 0), (179, 228, 228), (181, 57, 133), (67, 162, 177), (200, 178, 50),
        (132, 45, 199), (66, 172, 84), (179, 73, 79), (76, 99, 166), (66, 121, 253),
        (137, 165, 91), (155, 97, 152), (105, 153, 140), (222, 215, 158), (135, 113, 90),
    ),
)  # fmt: skip
"""FMB (SegMiF, ICCV 2023), ids and RGB colours as published."""

CITYSCAPES = Classes(
    names=(
        "road", "sidewalk", "building", "wall", "fence", "pole", "traffic_light", "traffic_sign",
        "vegetation", "terrain", "sky", "person", "rider", "car", "truck", "bus", "train",
        "motorcycle", "bicycle",
    ),
    palette=(
        (128, 64, 128), (244, 35, 232), (70, 70, 70), (102, 102, 156), (190, 153, 153),
        (153, 153, 153), (250, 170, 30), (220, 220, 0), (107, 142, 35), (152, 251, 152),
        (70, 130, 180), (220, 20, 60), (255, 0, 0), (0, 0, 142), (0, 0, 70), (0, 60, 100),
        (0, 80, 100), (0, 0, 230), (119, 11, 32),
    ),
)  # fmt: skip
"""The 19 training classes of Cityscapes, for own street data."""

TABLES = {"mfnet": MFNET, "pst900": PST900, "fmb": FMB, "cityscapes": CITYSCAPES}
