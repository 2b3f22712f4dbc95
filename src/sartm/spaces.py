"""Label spaces: the classes that a data set or a user knows, among those of a model.

Classes of several tables are one where they have one name, or one word in their prompts. What a
table calls unlabeled or background is the rest: everything that it has no class for.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sartm.classes import LARGEST_ID, Classes, Colour, default_palette
from sartm.errors import InputError
from sartm.vocabulary import find_word, near_words, plain, usual_word


def word_of(classes: Classes, index: int) -> str:
    """What a class is known by beside its name: its usual word; "" where that is nothing."""
    return usual_word(classes.prompts[index])


@dataclass(frozen=True)
class LabelSpace:
    """Some classes of a model, in an order and by names of their own."""

    classes: Classes
    """The table of label maps in this space."""
    picks: tuple[int | None, ...]
    """The model's class that each of them is; None: a rest that the model has no class for."""
    others: tuple[int, ...]
    """The model's classes that count as the rest here, beside the one that stands for it."""

    def is_all(self, known: int) -> bool:
        """Whether nothing of `known` classes is left out, added or moved."""
        return self.picks == tuple(range(known))


def place_classes(known: Classes, wanted: Classes) -> tuple[int | None, ...]:
    """The id in `known` of every class of `wanted`; None where it is not there.

    By its name, else by its word; no two of them are one.
    """
    ids = [index for index in range(len(known)) if index != known.rest]
    names = {plain(known.names[index]): index for index in reversed(ids)}
    words = {word_of(known, index): index for index in reversed(ids)}
    found: list[int | None] = [None] * len(wanted)
    if wanted.rest is not None:
        found[wanted.rest] = known.rest
    for table, keys in (
        (names, [plain(name) for name in wanted.names]),
        (words, [word_of(wanted, index) for index in range(len(wanted))]),
    ):
        for index, key in enumerate(keys):
            place = table.get(key) if key else None
            if found[index] is None and index != wanted.rest and place not in found:
                found[index] = place
    return tuple(found)


def text_of(classes: Classes, index: int) -> str:
    """What a text encoder reads of a class: its prompt, else its name; "" of the rest."""
    if index == classes.rest:
        return ""
    return classes.prompts[index] or classes.names[index].replace("_", " ")


MOST_WORDS = 256
"""That may be named at a time."""


def classes_of_words(text: str) -> Classes:
    """The table of words with commas between them; a rest, "unlabeled", comes first if none does.

    Raises InputError where there is none, one twice, or more than `MOST_WORDS`.
    """
    names = tuple(" ".join(part.split()) for part in text.split(","))
    names = tuple(name for name in names if name)
    if not names or len(names) > MOST_WORDS:
        raise InputError(
            f"{len(names)} classes are named; give 1 to {MOST_WORDS} words with commas between them"
        )
    long = [name for name in names if len(name) > 100]
    if long:
        raise InputError(f"{long[0][:20]!r}... is no word: it has {len(long[0])} letters")
    if len(names) > 1 and Classes(names).rest is not None:
        return Classes(names)
    return Classes(("unlabeled", *names))


def unknown_words(known: Classes, wanted: Classes) -> tuple[str, ...]:
    """The words of the classes of `wanted` that `known` does not have, in order."""
    places = place_classes(known, wanted)
    return tuple(
        text_of(wanted, index)
        for index, place in enumerate(places)
        if place is None and index != wanted.rest
    )


def describe_untaught(known: Classes, wanted: Classes) -> str:
    """What to expect of the words of `wanted` that no training has shown; "" where there is none.

    The words that were taught beside them count as the rest, and mostly win.
    """
    new = unknown_words(known, wanted)
    if not new:
        return ""
    taught = (text_of(known, index) for index in range(len(known)) if index != known.rest)
    return (
        f"no training has shown the model {', '.join(map(repr, new[:5]))}: little or nothing may "
        f"be found; it was taught {', '.join(taught)}"
    )


def choose_space(
    known: Classes, wanted: Classes, merges: bool = True, guests: int = 0
) -> LabelSpace:
    """The classes of `wanted` among those of a model that knows `known`.

    Args:
        known: all of the model's classes.
        wanted: a table; where it has a rest, what it has no class for is counted there.
        merges: whether it is; otherwise the rest is the model's rest alone.
        guests: classes that the model takes on without knowing them; they come after its own.

    Raises:
        InputError: a class that the model does not have.
    """
    places = list(place_classes(known, wanted))
    rest, after = wanted.rest, len(known)
    if guests:
        for index, place in enumerate(places):
            if place is None and index != rest:
                places[index], after = after, after + 1
    missing = [
        name
        for index, (name, place) in enumerate(zip(wanted.names, places, strict=True))
        if place is None and index != rest
    ]
    if missing:
        every = [word for pair in zip(known.names, known.prompts, strict=True) for word in pair]
        near = near_words(missing[0], filter(None, every))
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        words = "; the model mini-words knows it by its word" if find_word(missing[0]) else ""
        raise InputError(
            f"the model has no class {', '.join(map(repr, missing[:5]))}; {hint}it knows "
            f"{', '.join(known.names)}{words}"
        )
    others: tuple[int, ...] = ()
    if rest is not None and merges:
        others = tuple(index for index in range(len(known)) if index not in places)
    return LabelSpace(wanted, tuple(places), others)


def join_classes(tables: Sequence[Classes]) -> Classes:
    """One table with every class of several, the rest first; the only one as it is.

    Names, colours and words are those of the table that has a class first.

    Raises InputError for more classes than a label map can tell apart.
    """
    joined = tables[0]
    if len(tables) == 1:
        return joined
    with_rest = [table for table in tables if table.rest is not None]
    if with_rest and joined.rest != 0:
        first = with_rest[0]
        order = [index for index in range(len(joined)) if index != joined.rest]
        rest = first.rest or 0
        joined = Classes(
            (first.names[rest], *(joined.names[index] for index in order)),
            (first.palette[rest], *(joined.palette[index] for index in order)),
            ("", *(joined.prompts[index] for index in order)),
            _free_ignore(joined.ignore, len(order) + 1),
        )
    for table in tables[1:]:
        joined = _with_classes(joined, table)
    return joined


def _with_classes(joined: Classes, table: Classes) -> Classes:
    places = place_classes(joined, table)
    new = [index for index, place in enumerate(places) if place is None]
    names = (*joined.names, *(table.names[index] for index in new))
    if len(names) > LARGEST_ID:
        raise InputError(f"the data sets have {len(names)} classes; label maps hold {LARGEST_ID}")
    palette: list[Colour] = list(joined.palette)
    free = (colour for colour in default_palette(2 * len(names) + 1) if colour not in palette)
    for index in new:
        colour = table.palette[index]
        palette.append(next(free) if colour in palette else colour)
    prompts = (*joined.prompts, *(table.prompts[index] for index in new))
    return Classes(names, tuple(palette), prompts, _free_ignore(joined.ignore, len(names)))


def _free_ignore(ignore: int, classes: int) -> int:
    """An ignore id that is no class: the one there was, if it can stay."""
    return ignore if ignore >= classes else LARGEST_ID
