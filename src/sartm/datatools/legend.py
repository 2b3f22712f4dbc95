"""What the labels of a folder mean, read from their pixels: class ids, grey values or colours."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from sartm.classes import MFNET, Classes, Colour, default_palette
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
_WHITE = 255
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
class Known:
    """What is said of the classes before any label is read."""

    names: tuple[str, ...] = ()
    closed: bool = True
    """There are no classes but these `names`, if any; else more are called by their numbers."""
    palette: tuple[Colour, ...] = ()
    """Where labels show colours: those of before, which keep their ids."""
    coloured: bool = False
    """Labels show colours, grey ones too."""
    ignore: int = 255


@dataclass(frozen=True)
class _Seen:
    """One label: its values, or its colours, or why it cannot be read."""

    values: frozenset[int] | None = None
    colours: Counter[Colour] | None = None
    problem: str = ""


def read_legend(pairs: Sequence[Pair], known: Known, data: str) -> Legend:
    """Read the labels of all pairs that have one.

    Raises InputError where the labels hold more classes than there are names.
    """
    unnamed = Classes(known.names or WITHOUT_LABELS)
    labelled = [pair for pair in pairs if pair.label is not None]
    if not labelled:
        return Legend(unnamed)
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
        return Legend(unnamed, unread=unread)
    if known.coloured or any(one.colours is not None for one in good.values()):
        return _by_colour(good, known, unread)
    values = frozenset[int]().union(*(one.values or () for one in good.values()))
    return _by_value(good, values, known, unread)


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


def _by_colour(seen: dict[str, _Seen], known: Known, unread: dict[str, str]) -> Legend:
    """Classes by colour: those that have an id, then black, then the most frequent."""
    total: Counter[Colour] = Counter()
    for one in seen.values():
        total += one.colours or Counter(dict.fromkeys(_greys(one.values), 1))
    order = sorted(total, key=lambda colour: (colour != (0, 0, 0), -total[colour], colour))
    order = _keep_ids(order, known)
    if len(order) > _MOST_COLOURS:
        unread = unread | dict.fromkeys(seen, f"{len(order)} colours in all labels")
        return Legend(Classes(known.names or WITHOUT_LABELS), unread=unread)
    return _by_palette(order, seen, known, unread)


def _keep_ids(found: list[Colour], known: Known) -> list[Colour]:
    """The colours in the order of their ids: known ones keep theirs, new ones follow.

    An id is free where no label shows its colour, and that is the usual one, put in for want of
    another, or the classes were named anew.
    """
    usual = default_palette(len(known.palette))
    new = [colour for colour in found if colour not in known.palette]
    order = []
    for id_, colour in enumerate(known.palette):
        free = colour not in found and (known.closed or colour == usual[id_])
        order.append(new.pop(0) if free and new else colour)
    order += new
    if known.closed and len(order) > len(known.names):  # such as of a label that was corrected
        order = [colour for colour in order if colour in found]
    return order


def _by_palette(
    order: Sequence[Colour], seen: dict[str, _Seen], known: Known, unread: dict[str, str]
) -> Legend:
    """Classes by the colours of which each is the id of its place."""
    place = {colour: id_ for id_, colour in enumerate(order)}
    held = {
        name: frozenset(place[colour] for colour in one.colours or _greys(one.values))
        for name, one in seen.items()
    }
    return _name(len(order), known, tuple(order), held, unread)


def _greys(values: frozenset[int] | None) -> list[Colour]:
    return [(value, value, value) for value in sorted(values or ())]


def _by_value(
    seen: dict[str, _Seen],
    values: frozenset[int],
    known: Known,
    unread: dict[str, str],
) -> Legend:
    """Ids as they are; a few grey values far apart are a legend of their own."""
    ids = sorted(values - {known.ignore})
    only_ends = len(ids) <= 1 and values >= {_WHITE}
    if max(values) <= 255 and (only_ends or (len(ids) <= 16 and max(ids, default=0) >= max(
        _GREY_SPREAD, 4 * len(ids)
    ))):  # fmt: skip
        return _by_palette(_greys(values), seen, known, unread)
    held = {name: (one.values or frozenset()) - {known.ignore} for name, one in seen.items()}
    count = max(ids, default=0) + 1
    if count > 256:
        why = f"ids reach {count - 1}: are they of single objects (instances)?"
        unread = unread | dict.fromkeys(seen, why)
        return Legend(Classes(known.names or WITHOUT_LABELS), unread=unread)
    if not known.names and count <= len(MFNET) and all(map(is_street_name, seen)):
        found = f"ids 0-{count - 1}, named as MFNet's"
        legend = Legend(MFNET, ids=held, unread=unread, found=found)
    else:
        legend = _name(count, known, (), held, unread)
    return replace(legend, questions=(*legend.questions, *_ask_of_white(seen)))


def _ask_of_white(seen: dict[str, _Seen]) -> list[str]:
    """What is open where labels of ids lie beside such as have nothing but black and white."""
    white = [name for name, one in seen.items() if _WHITE in (held := one.values or ())
             and set(held) <= {0, _WHITE}]  # fmt: skip
    if not white:
        return []
    return [
        f"whether 255 is a class: {len(white)} labels, such as that of {white[0]}, hold only 0 and "
        f"255, as masks of one thing do, the others ids; 255 is taken for pixels to ignore. If it "
        f"is a class, write its id in its place there"
    ]


def _name(
    count: int,
    known: Known,
    palette: tuple[Colour, ...],
    ids: dict[str, frozenset[int]],
    unread: dict[str, str],
) -> Legend:
    """The class table with the names that are known, and numbers for names."""
    names = known.names
    grey = all(len(set(colour)) == 1 for colour in palette)
    what = "ids" if not palette else "grey values" if grey else "colours"
    if names and known.closed and len(names) < count:
        raise InputError(
            f"data init --classes names {len(names)} classes, but the labels hold {count} "
            f"{what}; name all of them, in the order of {list(palette) if palette else 'their ids'}"
        )
    questions: tuple[str, ...] = ()
    if names and len(names) < count:
        new = tuple(f"class {id_}" for id_ in range(len(names), count))
        names += new
        questions = (f"what {', '.join(new)} are called: data init --classes, or put names in",)
    if not names:
        names = ("background", *(f"class {id_}" for id_ in range(1, max(count, 2))))
        questions = (f"what the {count} classes are called: data init --classes, or put names in",)
    shown = ", ".join(str(one[0] if grey else one) for one in palette) or f"0-{count - 1}"
    if palette:
        palette += Classes(names).palette[len(palette) :]
    return Legend(Classes(names, palette), bool(palette), ids, f"{what} {shown}", questions, unread)
