"""One thermal range for a film: it follows the frames' own slowly, so that nothing flickers."""

import logging
import math
from dataclasses import replace

import numpy as np

from sartm.config import ThermalRule
from sartm.data.pairs import Sample
from sartm.errors import InputError
from sartm.io.thermal import (
    Levels,
    ThermalRange,
    UsedRange,
    choose_levels,
    describe_levels,
    explain_auto,
)

log = logging.getLogger("sartm")

SECONDS = 8.0
"""In which the range goes two thirds of the way to another one."""
LARGEST_STEP = 0.02
"""Share of the range by which one frame moves it at most, however far apart frames are."""
PATIENCE = 1.0
"""Seconds after which another picture is no shutter and no glare, but another scene."""
_FLAT = 0.05


class SlowLevels:
    """The raw values that become 0 and 1 in each frame of a film, asked for in the order of time.

    For files that a model's rule takes, and for a fixed range, they are those of `choose_levels`.
    Else the first frame's percentiles begin, and later ones pull a little. A frame that has nothing
    in common with the range, or is flat as a closed shutter, does not pull; where such frames last,
    the range begins anew, once.
    """

    def __init__(self, rule: ThermalRule, how: ThermalRange, radiometric: bool = False) -> None:
        self.rule, self.how, self.radiometric = rule, how, radiometric
        self.used: dict[str, UsedRange] = {}
        """Of the `first` and of the `last` frame."""
        self._levels: Levels | None = None
        self._moment = 0.0
        self._strange_since: float | None = None

    def fix(self, sample: Sample, moment: float) -> Sample:
        """A frame with thermal, at `moment` in seconds, with its levels.

        Raises:
            InputError: as `choose_levels`; thermal holds values that are no numbers.
        """
        raw = sample.thermal
        assert raw is not None
        levels = choose_levels(
            raw, self.rule, self.how, f"frame {sample.name}", sample.unseen, sample.black_hot
        )
        if not all(map(math.isfinite, levels)):  # else all later frames would follow it
            raise InputError(
                f"frame {sample.name}: thermal holds NaN or infinite values; write numbers in "
                f"their place"
            )
        used = describe_levels(levels, raw, self.rule, self.how, sample.black_hot, self.radiometric)
        if used.by == "image":
            levels = self._adapt(moment, levels)
            used = describe_levels(
                levels, raw, self.rule, self.how, sample.black_hot, self.radiometric
            )
            used = replace(used, by="film")
            if not self.used:
                log.info("%s", explain_auto(used))
        self.used.setdefault("first", used)
        self.used["last"] = used
        return replace(sample, levels=levels)

    def _adapt(self, moment: float, found: Levels) -> Levels:
        if self._levels is None or self._is_other_scene(moment, found):
            self._levels = found
        elif self._strange_since is None:
            self._levels = self._follow(moment - self._moment, found)
        self._moment = moment
        return self._levels

    def _is_other_scene(self, moment: float, found: Levels) -> bool:
        """Whether frames have been strange for long enough to begin anew."""
        assert self._levels is not None
        low, high = self._levels
        apart = found[0] >= high or found[1] <= low
        flat = found[1] - found[0] < _FLAT * (high - low)
        if not (apart or flat):
            self._strange_since = None
            return False
        if self._strange_since is None:
            self._strange_since = moment
        if moment - self._strange_since < PATIENCE:
            return False
        self._strange_since = None
        return True

    def _follow(self, seconds: float, found: Levels) -> Levels:
        """A step from the present range to that of a frame."""
        assert self._levels is not None
        low, high = self._levels
        share = 1 - math.exp(-max(seconds, 0.0) / SECONDS)
        most = LARGEST_STEP * (high - low)
        steps = [
            float(np.clip(share * (new - old), -most, most))
            for new, old in zip(found, (low, high), strict=True)
        ]
        return low + steps[0], high + steps[1]
