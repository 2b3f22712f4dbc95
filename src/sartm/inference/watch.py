"""Watching two cameras over the frames of a film: a running registration, frames that stand still.

Single pairs are judged by `alarm`. Over frames of one rig more can be said with less doubt: how
thermal lies on RGB does not change from frame to frame, so the agreement of many is mixed; and a
camera that has stopped, or is late, is seen by how the two pictures change.
"""

import math
from collections import deque
from dataclasses import replace
from fractions import Fraction
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from sartm.data.pairs import Sample
from sartm.errors import InputError
from sartm.inference.alarm import WORDS, OnMisaligned, PairCheck, check_pair, handle_misaligned
from sartm.registration.calibration import apply_alignment
from sartm.registration.displacement import (
    NOTHING,
    Agreement,
    Displacement,
    compare_images,
    describe_displacement,
    find_displacement,
    to_homography,
)

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]

_EVERY, _AT_ONCE = 5, 10
"""Frames from one look at the registration to the next, after so many that are all looked at."""
_SHARE = 0.1
"""Of a new look in the running estimate, once there were ten."""
_STILL = 1e-4
"""Mean change from frame to frame, as a share of the values' span, of a picture that repeats."""
_MOVING = 3e-3
"""And of one that does not."""
_REPEATS = 5
"""Frames in a row that tell a camera that stands still from two alike."""
_KEPT, _LAGS = 200, 12
"""Frames of which changes are compared, and how many frames late one camera may be."""


class Watch:
    """Sees the pairs of a film in order; not for several threads."""

    def __init__(self, how: OnMisaligned = "warn", rates: tuple[Fraction, ...] = ()) -> None:
        """Begin.

        Args:
            how: what to do while thermal does not lie on RGB, as `alarm.handle_misaligned`.
            rates: frames per second of the leading source and of the other one.
        """
        self.how = how
        self.pairs = 0
        self.counts: dict[str, int] = {}
        """Frames under each alarm."""
        self.offset: Displacement = NOTHING
        """The running estimate."""
        self._agreement: Agreement | None = None
        self._looks = 0
        self._looked: tuple[str, ...] = ()
        """Alarms of the last frame that was looked at, which hold until the next."""
        self._small: dict[str, Floats] = {}
        self._still = {"rgb": 0, "thermal": 0}
        self._changes: deque[tuple[float, float]] = deque(maxlen=_KEPT)
        self._partner, self._served, self._gaps = -1, 0, [0.0, 0.0]
        self._most = 3 + (math.ceil(rates[0] / rates[1]) if len(rates) == 2 and rates[1] else 1)

    def see(self, sample: Sample, partner: int | None = None, gap: float | None = None) -> Sample:
        """Look at a pair, and give what is to be labelled in its place.

        Args:
            sample: the pair, or one image.
            partner: which frame of the other source it is.
            gap: seconds between the two frames.

        Raises:
            InputError: thermal does not lie on RGB, and `how` is `fail`.
        """
        alarms: set[str] = set()
        self._see_partner(partner, gap, alarms)
        if self.pairs < _AT_ONCE or self.pairs % _EVERY == 0:
            self._look(sample)
        self.pairs += 1
        if sample.rgb is not None and sample.thermal is not None:
            self._see_change(sample, alarms)
            if self.offset.misaligned:
                alarms.add("misaligned")
        for alarm in (*self._looked, *alarms):
            self.counts[alarm] = self.counts.get(alarm, 0) + 1
        return self._handle(sample)

    def _see_partner(self, partner: int | None, gap: float | None, alarms: set[str]) -> None:
        if gap is not None:
            self._gaps = [self._gaps[0] + abs(gap), max(self._gaps[1], abs(gap))]
        if partner is None:
            return
        self._served = self._served + 1 if partner == self._partner else 1
        self._partner = partner
        if self._served > self._most:
            alarms.add("stale")

    def _look(self, sample: Sample) -> None:
        # A single frame's registration is left to the running estimate.
        self._looked = check_pair(sample, registration=False).alarms
        if sample.rgb is None or sample.thermal is None:
            return
        found = compare_images(sample.rgb, sample.thermal)
        if found is None:
            return
        self._looks += 1
        if self._agreement is not None:
            found = self._agreement.mixed(found, max(_SHARE, 1 / self._looks))
        self._agreement = found
        self.offset = find_displacement(found)

    def _see_change(self, sample: Sample, alarms: set[str]) -> None:
        changes = {}
        for name, image in (("rgb", sample.rgb), ("thermal", sample.thermal)):
            assert image is not None
            grey = image[..., 1] if image.ndim == 3 else image
            known = np.nan_to_num(grey.astype(np.float32))
            small = cv2.resize(known, (80, 60), interpolation=cv2.INTER_AREA).astype(np.float32)
            before = self._small.get(name)
            self._small[name] = small
            if before is not None:
                span = max(float(np.ptp(small)), 1e-6)
                changes[name] = float(np.abs(small - before).mean()) / span
        if len(changes) < 2:
            return
        self._changes.append((changes["rgb"], changes["thermal"]))
        for name, other in (("rgb", "thermal"), ("thermal", "rgb")):
            if changes[name] >= _STILL:
                self._still[name] = 0
            elif changes[other] >= _MOVING:
                self._still[name] += 1
            if self._still[name] >= _REPEATS:
                alarms.add(f"{name} frozen")

    def _handle(self, sample: Sample) -> Sample:
        if self.how != "align" or not self.offset.misaligned or sample.rgb is None:
            check = PairCheck(self.offset, None, ())
            both = sample.rgb is not None and sample.thermal is not None
            return handle_misaligned(sample, check, self.how) if both else sample
        if sample.thermal is None:
            return sample
        known = sample.thermal[np.isfinite(sample.thermal)]
        fill = float(sample.thermal.dtype.type(np.median(known))) if known.size else 0.0
        moved, valid = apply_alignment(
            sample.thermal, to_homography(self.offset, sample.size), sample.size, fill=fill,
            unseen=sample.unseen,
        )  # fmt: skip
        return replace(sample, thermal=moved, unseen=~valid)

    def lag(self) -> int:
        """Frames by which thermal comes late (RGB where below 0), by how the pictures change.

        0 where the two go together, or nothing can be told.
        """
        if len(self._changes) < 4 * _LAGS:
            return 0
        rgb, thermal = np.log(np.array(self._changes).T + 1e-5)
        fits = {}
        for lag in range(-_LAGS, _LAGS + 1):
            early, late = (rgb, thermal) if lag >= 0 else (thermal, rgb)
            count = len(rgb) - abs(lag)
            fits[lag] = _correlate(early[:count], late[abs(lag) :])
        best = max(fits, key=lambda lag: fits[lag])
        sure = fits[best] > 0.5 and fits[best] > max(fits[lag] for lag in (-1, 0, 1)) + 0.2
        return best if sure and abs(best) > 1 else 0

    def describe(self) -> dict[str, Any]:
        """For a summary."""
        found: dict[str, Any] = {
            "alarms": self.counts,
            "registration": describe_displacement(self.offset) if self._looks else None,
            "lag": self.lag(),
        }
        if self.pairs and self._partner >= 0:
            mean = self._gaps[0] / self.pairs
            found["partner_seconds"] = {"mean": round(mean, 4), "max": round(self._gaps[1], 4)}
        return found

    def word(self) -> str:
        """One line about the whole film; "" where nothing is amiss."""
        told = [
            f"{count} of {self.pairs} frames: {WORDS[name]}"
            for name, count in self.counts.items()
            if count > 0.05 * self.pairs or name not in ("misaligned", "black-hot")
        ]
        lag = self.lag()
        if lag:
            late, early = ("thermal", "RGB") if lag > 0 else ("RGB", "thermal")
            told.append(
                f"{late} comes about {abs(lag)} frames after {early}; sartm video --offset sets "
                "that right"
            )
        return "; ".join(told)


def _correlate(first: Array, second: Array) -> float:
    first, second = first - first.mean(), second - second.mean()
    product = float(np.linalg.norm(first)) * float(np.linalg.norm(second))
    return float((first * second).sum()) / product if product > 1e-9 else 0.0


def require_fitting(how: OnMisaligned, modality: str) -> None:
    """Refuse to leave out the only camera that is looked at."""
    if how in ("rgb", "thermal") and modality not in ("both", how):
        raise InputError(
            f"--on-misaligned {how} leaves out the other camera, but --modality is {modality}; "
            f"leave one of the two out"
        )
