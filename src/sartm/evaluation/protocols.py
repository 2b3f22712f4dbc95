"""Protocols: which classes and pixels a published mean takes in. docs/protocols.md in code."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sartm.classes import FMB, MFNET, PST900, Classes
from sartm.errors import InputError

Absent = Literal["null", "0"]


@dataclass(frozen=True)
class Protocol:
    """Which classes and pixels a published mean takes in; one row of docs/protocols.md."""

    name: str
    size: int | None
    """Classes the data set must have; None fits any."""
    first: int
    """The mean runs over class `first` to the last."""
    truth_zero: Literal["counts", "not in the mean", "ignored"]
    """Pixels whose ground truth is 0. `not in the mean`: class 0 has no IoU in the mean, but what
    is predicted there is still a false positive of another class. `ignored`: they do not count."""
    absent: Absent
    """IoU of a class that is neither in the truth nor predicted; null leaves it out."""
    predicted: Absent = "0"
    """IoU of a class that is not in the truth but predicted somewhere."""

    def row(self) -> tuple[str, str, str, str, str]:
        """The five cells of the table in docs/protocols.md."""
        classes = f"{self.first}-{'(K-1)' if self.size is None else self.size - 1}"
        zero = {
            "counts": "counts",
            "not in the mean": "counts only as the source of false positives",
            "ignored": "ignored",
        }[self.truth_zero]
        words = {"null": "left out", "0": "0"}
        return self.name, classes, zero, words[self.absent], words[self.predicted]


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol("mfnet-9", 9, 0, "counts", "null"),
        Protocol("mfnet-8", 9, 1, "not in the mean", "null"),
        Protocol("pst900-5", 5, 0, "counts", "null"),
        Protocol("fmb-15-strict", 15, 0, "counts", "0"),
        Protocol("fmb-14-strict", 15, 1, "ignored", "0"),
        Protocol("fmb-15-nan", 15, 0, "counts", "null"),
        Protocol("fmb-14-nan", 15, 1, "ignored", "null"),
        Protocol("foreground", None, 1, "not in the mean", "null"),
        Protocol("all", None, 0, "counts", "null"),
        Protocol("present", None, 0, "counts", "null", predicted="null"),
    )
}
"""Every mean SARTM prints. `present`, over the classes that occur in the truth, is always beside
the others: unlike them it cannot jump by a class because of one predicted pixel."""

BENCHMARKS = {
    "mfnet": (MFNET, ("mfnet-9", "mfnet-8")),
    "pst900": (PST900, ("pst900-5",)),
    "fmb": (FMB, ("fmb-15-strict", "fmb-14-strict", "fmb-15-nan", "fmb-14-nan")),
}
"""Class table and means of each benchmark; the first mean is the one to put in a headline."""

FEW = 6
"""Classes up to which the first, where it is what is left of the others, would hide these in a
mean: the headline is then `foreground`."""


def default_protocols(classes: Classes) -> tuple[str, ...]:
    """The means to print for a class table: its benchmark's, else `all`; and `present`.

    Of few classes the first of which has no words (`background`), `foreground` stands before them.
    """
    for table, protocols in BENCHMARKS.values():
        if table.names == classes.names:
            return (*protocols, "present")
    if len(classes) <= FEW and not classes.prompts[0]:
        return ("foreground", "all", "present")
    return ("all", "present")


def name_mean(protocol: str, names: Sequence[str]) -> str:
    """What a mean over classes of these names is, for people: `crack IoU` where it is that."""
    first = PROTOCOLS[protocol].first
    return f"{names[first]} IoU" if len(names) - first == 1 else f"{protocol} mIoU"


def choose_protocols(classes: Classes, which: str | None = None) -> tuple[str, ...]:
    """Names of the means for `which`: a protocol, a benchmark, or None for the table's default.

    Raises InputError for an unknown name or one that needs another number of classes.
    """
    if which is None:
        return default_protocols(classes)
    if which in BENCHMARKS:
        names: tuple[str, ...] = (*BENCHMARKS[which][1], "present")
    elif which in PROTOCOLS:
        names = tuple(dict.fromkeys((which, "present")))
    else:
        raise InputError(
            f"unknown protocol {which!r}; choose one of {', '.join([*BENCHMARKS, *PROTOCOLS])}"
        )
    for name in names:
        require_size(PROTOCOLS[name], len(classes))
    return names


def require_size(protocol: Protocol, classes: int) -> None:
    """Refuse a data set of another number of classes than a protocol is of."""
    if protocol.size not in (None, classes):
        raise InputError(
            f"protocol {protocol.name} needs {protocol.size} classes, the data set has {classes}; "
            f"leave --protocol out to get the means that fit"
        )
