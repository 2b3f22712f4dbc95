"""What the labels of a folder mean, read from their pixels: class ids, grey values or colours."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from sartm.classes import MFNET, Classes, Colour
from sartm.data.layouts import is_street_name
from sartm.data.pairs import read_images
from sartm.data.sets import Pair
from sartm.datatools.survey import over_all
from sartm.errors import InputError
from sartm.io.labels import read_label

_MOST_COLOURS = 64
"""More are no legend: shades along smoothed edges, or a photograph."""
_GREY_SPREAD = 64
"""Grey values that reach this high although they are few stand for colours, such as 0 and 255."""
_IGNORE = 255
WITHOUT_LABELS = ("background", "object")


@dataclass(frozen=True)
class Legend:
    """How labels are to be read."""

    classes: Classes
    colours: bool = False
    """They show the palette's colours."""
    ids: dict[str, frozenset[int]] = field(default_factory=dict)
    """Pair -> classes in its label."""
    found: str = ""
    """What was found, in words."""
    questions: tuple[str, ...] = ()
    """What their pixels do not tell."""
    unread: dict[str, str] = field(default_factory=dict)
    """Pair whose label cannot be used -> why."""


@dataclass(frozen=True)
class _Seen:
    """One label: its values, or its colours, or why it cannot be read."""

    values: frozenset[int] | None = None
    colours: Counter[Colour] | None = None
    problem: str = ""


def read_legend(pairs: Sequence[Pair], names: tuple[str, ...], data: str) -> Legend:
    """Read the labels of all pairs that have one; `names` of classes are those that were given.

    Raises InputError where the labels hold more classes than `names`.
    """
    labelled = [pair for pair in pairs if pair.label is not None]
    if not labelled:
        return Legend(Classes(names or WITHOUT_LABELS))
    seen = dict(
        zip(
            (pair.name for pair in labelled),
            over_all(labelled, _look_at, f"labels of {data}", "labels"),
            strict=True,
        )
    )
    unread = {name: one.problem for name, one in seen.items() if one.problem}
    good = {name: one for name, one in seen.items() if not one.problem}
    if not good:
        return Legend(Classes(names or WITHOUT_LABELS), unread=unread)
    if any(one.colours is not None for one in good.values()):
        return _by_colour(good, names, unread)
    values = frozenset[int]().union(*(one.values or () for one in good.values()))
    return _by_value(good, values, names, unread)


def _look_at(pair: Pair) -> _Seen:
    assert pair.label is not None
    try:
        return _Seen(frozenset(np.unique(read_label(pair.label, coloured=False)).tolist()))
    except InputError as error:
        if "colour picture" not in str(error):
            return _Seen(problem=str(error))
    try:
        image = read_images(pair.label, None).rgb
    except InputError as error:
        return _Seen(problem=str(error))
    assert image is not None
    found, counts = np.unique(image.reshape(-1, 3), axis=0, return_counts=True)
    if len(found) > _MOST_COLOURS:
        return _Seen(problem=f"{pair.label} has {len(found)} colours: no label map, or smoothed")
    colours = [(int(red), int(green), int(blue)) for red, green, blue in found]
    return _Seen(colours=Counter(dict(zip(colours, counts.tolist(), strict=True))))


def _by_colour(seen: dict[str, _Seen], names: tuple[str, ...], unread: dict[str, str]) -> Legend:
    """Classes by colour: black first, then the most frequent."""
    total: Counter[Colour] = Counter()
    for one in seen.values():
        total += one.colours or Counter(dict.fromkeys(_greys(one.values), 1))
    order = sorted(total, key=lambda colour: (colour != (0, 0, 0), -total[colour], colour))
    if len(order) > _MOST_COLOURS:
        unread = unread | dict.fromkeys(seen, f"{len(order)} colours in all labels")
        return Legend(Classes(names or WITHOUT_LABELS), unread=unread)
    place = {colour: id_ for id_, colour in enumerate(order)}
    ids = {
        name: frozenset(place[colour] for colour in one.colours or _greys(one.values))
        for name, one in seen.items()
    }
    return _name(len(order), names, tuple(order), ids, unread)


def _greys(values: frozenset[int] | None) -> list[Colour]:
    return [(value, value, value) for value in sorted(values or ())]


def _by_value(
    seen: dict[str, _Seen],
    values: frozenset[int],
    names: tuple[str, ...],
    unread: dict[str, str],
) -> Legend:
    """Ids as they are; a few grey values far apart are a legend of their own."""
    ids = sorted(values - {_IGNORE})
    only_ends = len(ids) <= 1 and values >= {_IGNORE}
    if max(values) <= 255 and (only_ends or (len(ids) <= 16 and max(ids, default=0) >= max(
        _GREY_SPREAD, 4 * len(ids)
    ))):  # fmt: skip
        order = tuple(_greys(values))
        place = {colour[0]: id_ for id_, colour in enumerate(order)}
        held = {
            name: frozenset(place[value] for value in one.values or ())
            for name, one in seen.items()
        }
        return _name(len(order), names, order, held, unread)
    held = {name: (one.values or frozenset()) - {_IGNORE} for name, one in seen.items()}
    count = max(ids, default=0) + 1
    if count > 256:
        why = f"ids reach {count - 1}: are they of single objects (instances)?"
        return Legend(Classes(names or WITHOUT_LABELS), unread=unread | dict.fromkeys(seen, why))
    if not names and count <= len(MFNET) and all(map(is_street_name, seen)):
        found = f"ids 0-{count - 1}, named as MFNet's"
        legend = Legend(MFNET, ids=held, unread=unread, found=found)
    else:
        legend = _name(count, names, (), held, unread)
    return replace(legend, questions=(*legend.questions, *_ask_of_white(seen)))


def _ask_of_white(seen: dict[str, _Seen]) -> list[str]:
    """What is open where labels of ids lie beside such as have nothing but black and white."""
    white = [name for name, one in seen.items() if _IGNORE in (held := one.values or ())
             and set(held) <= {0, _IGNORE}]  # fmt: skip
    if not white:
        return []
    return [
        f"whether 255 is a class: {len(white)} labels, such as that of {white[0]}, hold only 0 and "
        f"255, as masks of one thing do, the others ids; 255 is taken for pixels to ignore. If it "
        f"is a class, write its id in its place there"
    ]


def _name(
    count: int,
    names: tuple[str, ...],
    palette: tuple[Colour, ...],
    ids: dict[str, frozenset[int]],
    unread: dict[str, str],
) -> Legend:
    """The class table with the names that were given, or numbers for names."""
    grey = all(len(set(colour)) == 1 for colour in palette)
    what = "ids" if not palette else "grey values" if grey else "colours"
    if names and len(names) < count:
        raise InputError(
            f"data init --classes names {len(names)} classes, but the labels hold {count} "
            f"{what}; name all of them, in the order of {list(palette) if palette else 'their ids'}"
        )
    questions: tuple[str, ...] = ()
    if not names:
        names = ("background", *(f"class {id_}" for id_ in range(1, max(count, 2))))
        questions = (f"what the {count} classes are called: data init --classes, or put names in",)
    shown = ", ".join(str(one[0] if grey else one) for one in palette) or f"0-{count - 1}"
    if palette:
        palette += Classes(names).palette[len(palette) :]
    return Legend(Classes(names, palette), bool(palette), ids, f"{what} {shown}", questions, unread)
