"""Frames of a source, and their partners of another: by time or by position, one at a time."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import zip_longest
from typing import Any, Literal

from sartm.data.pairs import RawImages
from sartm.inference.clocks import Clock

Match = Literal["auto", "time", "index"]

DATED = 946_684_800.0
"""Unix time of the year 2000; a clock that says less counts from a start and knows no date."""
_KEPT = 100  # times that are listed; more are only counted


@dataclass(frozen=True)
class Frame:
    """One moment of one source; nothing is converted before `load` is called."""

    index: int
    """Position in the source, from 0; damaged frames have none."""
    time: float
    """Seconds since the source began."""
    load: Callable[[], RawImages]
    name: str = ""
    """Of a file in a folder, without suffix."""


@dataclass
class Stream:
    """A source being read, once, from its beginning; closing `frames` closes it."""

    name: str
    frames: Iterator[Frame]
    rate: Fraction
    """Frames per second, on average."""
    count: int = 0
    """Frames expected; 0 where unknown."""
    damaged: int = 0
    """Packets that could not be decoded so far."""
    pictures: bool = False
    """Whether it is a folder of pictures, which may be frames of a film or not."""
    live: bool = False
    """Whether it goes on by itself and has no end."""
    clock: Clock | None = None
    """Of live sources and bags: whose times its frames have."""
    failed: str = ""
    """Why a live source ended; "" while it has not."""
    passed: int = 0
    """Frames of a live source that were not asked for in time."""
    losses: list[tuple[float, float]] = field(default_factory=list)
    """When a live source was lost and for how many seconds, the first hundred."""
    lost: int = 0
    """How often."""
    begin: float | None = None
    """Unix time of its second 0, where that is known; below `DATED` in a simulation's time."""
    shift: float | None = None
    """Seconds that are added to the stamps of a bag, where these are no dates."""
    unreadable: dict[str, str] = field(default_factory=dict)
    """Of a folder of frames: the folders below it that cannot be read, and why."""

    def lose(self, moment: float, seconds: float) -> None:
        """Note that nothing came for a while."""
        self.lost += 1
        if len(self.losses) < _KEPT:
            self.losses.append((round(moment, 3), round(seconds, 3)))

    def describe(self) -> dict[str, Any]:
        """What there is to say about its times; empty of a file."""
        found = {} if self.clock is None else self.clock.describe()
        if self.live:
            found |= {"passed": self.passed, "losses": self.losses, "lost": self.lost}
            found |= {"failed": self.failed} if self.failed else {}
        return found


@dataclass
class Unpaired:
    """Frames without a partner so far."""

    counts: dict[str, int] = field(default_factory=lambda: {"rgb": 0, "thermal": 0})
    times: dict[str, list[float]] = field(default_factory=lambda: {"rgb": [], "thermal": []})
    """Seconds, the first hundred of each."""
    files: list[str] = field(default_factory=list)
    """Of folders: the first hundred files."""

    def add(self, side: str, moment: float) -> None:
        """Count one frame of `side`."""
        self.counts[side] += 1
        if len(self.times[side]) < _KEPT:
            self.times[side].append(round(moment, 3))

    def __bool__(self) -> bool:
        return any(self.counts.values())


def pair_frames(
    rgb: Stream,
    thermal: Stream,
    unpaired: Unpaired,
    *,
    match: Match = "auto",
    tolerance: float | None = None,
    offset: float = 0.0,
) -> Iterator[tuple[Frame, Frame | None]]:
    """Every RGB frame with its thermal partner or None, in time order, in constant memory.

    Args:
        rgb: the frames that lead.
        thermal: the others; one may be the partner of several RGB frames.
        unpaired: counts the frames of either side without a partner.
        match: `time` (also `auto`): nearest in time; `index`: n-th with n-th.
        tolerance: largest difference in seconds; half the longer frame interval if None.
        offset: seconds to add to thermal times, as where its recording began later.
    """
    if match == "index":
        for first, second in zip_longest(rgb.frames, thermal.frames):
            if first is None:
                unpaired.add("thermal", second.time)
                continue
            if second is None:
                unpaired.add("rgb", first.time)
            yield first, second
        return
    if tolerance is None:
        tolerance = 0.51 * float(max(1 / rgb.rate, 1 / thermal.rate))
    window = _Window(thermal.frames, offset, tolerance, unpaired)
    for frame in rgb.frames:
        partner = window.nearest(frame.time)
        if partner is None:
            unpaired.add("rgb", frame.time)
        yield frame, partner
    if not thermal.live:
        window.finish()


class _Window:
    """The last thermal frame before a moment and the first after it."""

    def __init__(
        self, frames: Iterator[Frame], offset: float, tolerance: float, unpaired: Unpaired
    ) -> None:
        self.frames, self.offset, self.tolerance = frames, offset, tolerance
        self.unpaired = unpaired
        self.before: Frame | None = None
        self.after = next(frames, None)
        self.last = -math.inf
        self.waiting: list[float] = [] if self.after is None else [self.after.time + offset]

    def nearest(self, moment: float) -> Frame | None:
        """The thermal frame nearest to `moment`, within the tolerance; moments only grow."""
        while self.after is not None and self.after.time + self.offset <= moment:
            self.before, self.after = self.after, next(self.frames, None)
            if self.after is not None:
                self._wait_for_partner(self.after.time + self.offset)
        self.last = moment
        self._settle()
        near = [frame for frame in (self.before, self.after) if frame is not None]
        best = min(near, key=lambda frame: abs(frame.time + self.offset - moment), default=None)
        if best is None or abs(best.time + self.offset - moment) > self.tolerance:
            return None
        return best

    def _wait_for_partner(self, moment: float) -> None:
        if moment - self.last > self.tolerance:
            self.waiting.append(moment)

    def _settle(self) -> None:
        """Thermal frames that RGB has reached have a partner now, or never will."""
        later = []
        for moment in self.waiting:
            if moment > self.last + self.tolerance:
                later.append(moment)
            elif moment < self.last - self.tolerance:
                self.unpaired.add("thermal", moment)
        self.waiting = later

    def finish(self) -> None:
        """RGB has ended: what is still to come has no partner."""
        for moment in self.waiting:
            self.unpaired.add("thermal", moment)
        for frame in self.frames:
            moment = frame.time + self.offset
            if abs(moment - self.last) > self.tolerance:
                self.unpaired.add("thermal", moment)
