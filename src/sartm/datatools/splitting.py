"""Which pairs to hold back for validation: blocks of neighbouring frames, never single ones.

A frame between two training frames looks like both: a score on it is a memory test.
"""

from collections.abc import Iterable, Sequence

from sartm.data.names import natural_order

_SHARE = 0.2
_MOST_BLOCKS = 4
_SHORTEST = 5
"""Frames; where fewer are held back there is one block."""
_FOLDERS = 5
"""Sub-folders from which whole ones are held back: each is taken for a sequence."""


def split_blocks(names: Iterable[str], ids: dict[str, frozenset[int]]) -> dict[str, list[str]]:
    """`train` and, of two pairs or more, `val` with about a fifth of them, in natural order.

    Of several places for the blocks the one is taken that leaves most classes in both splits;
    `ids` are those that occur in the label of a pair.
    """
    order = sorted(names, key=natural_order)
    if len(order) < 2:
        return {"train": order}
    groups: dict[str, list[str]] = {}
    for name in order:
        groups.setdefault(name.rpartition("/")[0], []).append(name)
    choices = _whole_groups(groups, len(order)) if len(groups) >= _FOLDERS else _blocks(order)
    held = max(choices, key=lambda some: _shared(order, some, ids))
    return {
        "train": [name for name in order if name not in held],
        "val": [name for name in order if name in held],
    }


def _blocks(order: Sequence[str]) -> list[set[str]]:
    """Ways to hold back blocks at equal distances, the one that ends with the last frame first."""
    count = max(1, round(_SHARE * len(order)))
    blocks = max(1, min(_MOST_BLOCKS, count // _SHORTEST))
    choices = []
    for place in (4, 2, 0, 3, 1):
        held: set[str] = set()
        for block in range(blocks):
            start, end = (len(order) * (block + one) // blocks for one in (0, 1))
            length = count * (block + 1) // blocks - count * block // blocks
            first = start + (end - start - length) * place // 4
            held |= set(order[first : first + length])
        choices.append(held)
    return choices


def _whole_groups(groups: dict[str, list[str]], pairs: int) -> list[set[str]]:
    """Ways to hold back every fifth sequence, and those until a fifth of the pairs is held back."""
    names = list(groups)
    choices = []
    for start in range(min(5, len(names))):
        held: set[str] = set()
        for group in names[start::5] + names[start + 1 :: 5]:
            if len(held) < _SHARE * pairs and len(held) + len(groups[group]) < pairs:
                held |= set(groups[group])
        choices.append(held)
    return choices


def _shared(order: Sequence[str], held: set[str], ids: dict[str, frozenset[int]]) -> int:
    """Classes that occur on both sides."""
    sides: tuple[set[int], set[int]] = (set(), set())
    for name in order:
        sides[name in held].update(ids.get(name, ()))
    return len(sides[0] & sides[1])
