"""COCO's run-length code, so that label maps go to browsers and annotation tools exactly."""

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def encode_masks(labels: Array) -> dict[int, str]:
    """One compressed mask per id that occurs in (H, W) ids: the `counts` of COCO's RLE.

    Runs go down the columns and start with one of zeros; from the fourth on, the difference to the
    run two before is written, in digits of five bits, lowest first, as characters from `0` on.

    Source: the COCO mask format (cocodataset.org, "RLE" of the mask API).
    """
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
