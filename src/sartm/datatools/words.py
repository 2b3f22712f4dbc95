"""Which classes several data sets share, before one model is trained on all of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sartm.data.layouts import open_layout
from sartm.spaces import choose_space, join_classes


@dataclass(frozen=True)
class SharedClass:
    """One class of the model that would be trained."""

    name: str
    word: str
    """What the text encoder would read; "" of the rest."""
    names: tuple[str | None, ...]
    """What each data set calls it; None where it has no such class."""


def compare_words(paths: Sequence[str | Path]) -> tuple[SharedClass, ...]:
    """Every class of the data sets at `paths`, with what each of them calls it.

    Raises InputError where a data set is not recognised, or their tables do not go together.
    """
    tables = [open_layout(path).classes for path in paths]
    joined = join_classes(tables)
    columns = []
    for table in tables:
        own: list[str | None] = [None] * len(joined)
        for name, place in zip(table.names, choose_space(joined, table).picks, strict=True):
            if place is not None:
                own[place] = name
        columns.append(own)
    rows = zip(joined.names, joined.prompts, *columns, strict=True)
    return tuple(SharedClass(name, word, tuple(own)) for name, word, *own in rows)
