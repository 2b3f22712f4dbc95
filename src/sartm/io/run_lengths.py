"""COCO's run-length code of masks, by which they go to browsers and annotation tools exactly.

Runs go down the columns and start with one of zeros. Compressed: from the fourth on, the difference
to the run two before is written, in digits of five bits, lowest first, as characters from `0` on
(cocodataset.org, "RLE" of the mask API).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]


def encode_masks(labels: Array) -> dict[int, str]:
    """The compressed `counts` of a mask for each id that occurs in (H, W) ids."""
    column = labels.T.ravel()  # column by column
    if not column.size:
        return {}
    starts = np.concatenate([[0], np.flatnonzero(column[1:] != column[:-1]) + 1])
    ends = np.append(starts[1:], column.size)
    ids = column[starts]
    order = np.argsort(ids, kind="stable")
    found, first = np.unique(ids[order], return_index=True)
    groups = np.split(order, first[1:])
    return {
        int(index): _digits(_runs(starts[group], ends[group], column.size))
        for index, group in zip(found, groups, strict=True)
    }


def encode_mask(mask: Mask) -> str:
    """The compressed `counts` of one mask (H, W) that is not without pixels."""
    column = mask.T.ravel()
    edges = np.flatnonzero(column[1:] != column[:-1]) + 1
    runs = np.diff(np.concatenate([[0], edges, [column.size]])).astype(np.int64)
    return _digits(np.concatenate([[0], runs]) if column[0] else runs)


def decode_mask(counts: str, size: tuple[int, int]) -> Mask:
    """(H, W) of compressed `counts`; ValueError if they are none, or of a mask of another size."""
    runs = _numbers(counts.encode("ascii") if counts.isascii() else b"")
    for first in (1, 2):  # the first of either kind is itself, the others are differences
        runs[first::2] = np.cumsum(runs[first::2])
    return decode_runs(runs, size[0] * size[1]).reshape(size[::-1]).T


def decode_runs(runs: Sequence[int] | npt.NDArray[np.int64], total: int) -> Mask:
    """Run lengths, the first of zeros, to that many booleans; ValueError if they do not add up."""
    runs = np.asarray(runs, np.int64)
    if runs.ndim != 1 or (runs < 0).any() or (runs > total).any() or int(runs.sum()) != total:
        raise ValueError(f"run lengths do not add up to {total} pixels")
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs)


def _numbers(text: bytes) -> npt.NDArray[np.int64]:
    """What the digits of a code stand for; negative ones where it is none."""
    digits = np.frombuffer(text, np.uint8).astype(np.int64) - 48
    ends = np.flatnonzero((digits & 32) == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if not len(ends) or ends[-1] != len(digits) - 1 or (digits < 0).any() or (digits > 63).any():
        return np.full(1, -1)
    if lengths.max() > 7:  # of five bits each: more pixels than there can be
        return np.full(1, -1)
    places = np.arange(len(digits)) - np.repeat(starts, lengths)
    values = np.add.reduceat((digits & 31) << (5 * places), starts)
    return values - np.where(digits[ends] & 16, 1 << (5 * lengths), 0)


def _runs(starts: Array, ends: Array, size: int) -> npt.NDArray[np.int64]:
    """Lengths of the runs outside and inside by turns, outside first."""
    edges = np.stack([starts, ends], 1).ravel()
    if edges[-1] < size:
        edges = np.append(edges, size)
    return np.diff(edges, prepend=0).astype(np.int64)


def _digits(runs: npt.NDArray[np.int64]) -> str:
    rest = runs.copy()
    rest[3:] -= runs[1:-2]
    open_ = np.ones(len(rest), bool)
    digits, written = [], []
    while open_.any():
        digit = rest & 31
        rest = rest >> 5
        # The highest bit of the last digit is the sign.
        more = open_ & np.where(digit & 16, rest != -1, rest != 0)
        digits.append(digit + 32 * more + 48)
        written.append(open_)
        open_ = more
    characters: Array = np.stack(digits, 1)[np.stack(written, 1)]
    return bytes(characters.astype(np.uint8)).decode("ascii")
