"""Two clocks: when a camera says a frame was taken, on the clock of the computer that receives it.

A frame arrives after it was taken, by a delay that is never below some least one:

    arrival = taken + offset + drift (taken - first) + delay,   delay >= 0

The line below all arrivals is offset and drift: the least of each few seconds, then least squares.
"""

from collections import deque
from typing import Any

import numpy as np

_BLOCK, _BLOCKS = 2.0, 120
"""Seconds of which the least delay is kept, and how many of them."""
_FIT = 5
"""Blocks that a drift is read from."""
_JUMP = 2.0
"""Seconds by which a clock may be off before it is taken to have been set anew."""


class Clock:
    """The clock of one source, seen frame by frame in constant memory."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        """Whose: driver, stream, header, or arrival, which is ours."""
        self.frames = 0
        self.first = self.last = 0.0
        self.longest = 0.0
        """Seconds between two frames at most."""
        self._least: deque[tuple[float, float]] = deque(maxlen=_BLOCKS)
        self._delays: deque[float] = deque(maxlen=512)

    def see(self, taken: float, arrival: float) -> float:
        """The time of a frame on our clock, from that on the camera's and when it came."""
        delay = arrival - taken
        if self._least and abs(delay - self._on_line(taken)) > _JUMP:
            self._least.clear()
        if not self._least or taken - self._least[-1][0] >= _BLOCK:
            self._least.append((taken, delay))
        elif delay < self._least[-1][1]:
            self._least[-1] = (self._least[-1][0], delay)
        base = self._on_line(taken)
        self._delays.append(delay - base)
        return self._count(min(taken + base, arrival))

    def arrive(self, arrival: float) -> float:
        """The same of a frame that says no time of its own."""
        return self._count(arrival)

    def _count(self, moment: float) -> float:
        if self.frames:
            self.longest = max(self.longest, moment - self.last)
        else:
            self.first = moment
        self.frames, self.last = self.frames + 1, moment
        return moment

    def _line(self) -> tuple[float, float]:
        """Drift, and the least delay at the first kept block."""
        times, delays = np.array(self._least).T
        if len(times) < _FIT:
            return 0.0, float(delays.min())
        slope, _ = np.polyfit(times - times[0], delays, 1)
        # Below all of them, as no frame comes before it is taken.
        return float(slope), float((delays - slope * (times - times[0])).min())

    def _on_line(self, taken: float) -> float:
        slope, base = self._line()
        return base + slope * (taken - self._least[0][0])

    def drift(self) -> float | None:
        """Seconds that the camera's clock loses per second; None before it can be told."""
        return self._line()[0] if len(self._least) >= _FIT else None

    def describe(self) -> dict[str, Any]:
        """For a report."""
        seconds = self.last - self.first
        drift = self.drift()
        found: dict[str, Any] = {
            "clock": self.kind,
            "frames": self.frames,
            "rate": round((self.frames - 1) / seconds, 3) if seconds > 0 else None,
            "longest_gap": round(self.longest, 3),
        }
        if self._delays:
            found["jitter"] = round(float(np.std(self._delays)), 4)
            found["drift_ppm"] = None if drift is None else round(drift * 1e6, 1)
        return found
