"""Does thermal pay: one model with both cameras, and with either alone, on the same pairs.

Differences are paired: every draw of the bootstrap takes the same pairs with and without a camera,
so that what makes a pair hard for both cancels out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sartm.classes import Classes
from sartm.config import Modality
from sartm.data.sets import Pair
from sartm.evaluation.metrics import Counts, Fractions, draw_pairs, iou, percent, protocol_means
from sartm.evaluation.protocols import PROTOCOLS, choose_protocols, name_mean

SINGLE: tuple[Modality, Modality] = ("rgb", "thermal")
DRAWS = 1000


@dataclass(frozen=True)
class Gain:
    """What a camera adds to the other one, in points of IoU; None where it is not defined."""

    points: float | None
    low: float | None
    high: float | None
    """Ends of the 95 % interval; None for a single pair."""

    @property
    def sign(self) -> int:
        """1 or -1 where the interval tells a gain or a loss from 0, else 0."""
        if self.low is None or self.high is None:
            return 0
        return int(self.low > 0) - int(self.high < 0)


@dataclass(frozen=True)
class Row:
    """A class, or the headline's mean: IoU in percent by what the model saw."""

    name: str
    both: float | None
    rgb: float | None
    thermal: float | None
    thermal_adds: Gain
    """To RGB alone."""
    rgb_adds: Gain
    """To thermal alone."""


@dataclass(frozen=True)
class Comparison:
    """The table both / RGB / thermal, its first row the headline, and the sentence that says it."""

    rows: tuple[Row, ...]
    sentence: str
    pairs: int


def are_pairs(pairs: Sequence[Pair]) -> bool:
    """Whether each has both cameras, so that leaving out one can be compared."""
    return bool(pairs) and all(
        pair.four_channel is not None or (pair.rgb is not None and pair.thermal is not None)
        for pair in pairs
    )


def compare_modalities(
    counts: Mapping[Modality, Counts], classes: Classes, protocol: str | None = None
) -> Comparison:
    """Compare (N, K, K) counts of the same N pairs with both cameras, RGB only and thermal only.

    `protocol` as in `metrics.choose_protocols`: its first mean is the headline. Where counts were
    summed over pairs (N is 1) there are no intervals.
    """
    headline = choose_protocols(classes, protocol)[0]
    scores = {name: _scores(found.sum(axis=0)[None], headline)[0] for name, found in counts.items()}
    pairs = len(counts["both"])
    drawn = {name: np.empty((0, len(classes) + 1)) for name in counts}
    if pairs > 1:
        drawn = {
            name: np.concatenate([_scores(total, headline) for total in draw_pairs(found, DRAWS)])
            for name, found in counts.items()
        }
    names = (name_mean(headline, classes.names), *classes.names)
    rows = []
    for place, name in enumerate(names):
        values = {seen: percent(float(found[place])) for seen, found in scores.items()}
        gains = [
            _gain(scores["both"][place] - scores[other][place],
                  drawn["both"][:, place] - drawn[other][:, place])
            for other in SINGLE
        ]  # fmt: skip
        rows.append(Row(name, values["both"], values["rgb"], values["thermal"], *gains))
    classes_of_it = rows[1 + PROTOCOLS[headline].first :]
    return Comparison(tuple(rows), _sentence(rows[0], classes_of_it, pairs), pairs)


def _scores(counts: NDArray[Any], protocol: str) -> Fractions:
    """(S, 1 + K) of (S, K, K): the headline, then every class that occurs in the truth."""
    scores = np.where(counts.sum(axis=-1) > 0, iou(counts), np.nan)
    return np.column_stack([protocol_means(counts, PROTOCOLS[protocol])[0], scores])


def _gain(points: Any, drawn: Fractions) -> Gain:
    drawn = drawn[np.isfinite(drawn)]
    if not drawn.size:
        return Gain(percent(float(points)), None, None)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Gain(percent(float(points)), percent(float(low)), percent(float(high)))


def signed(points: float) -> str:
    """A difference with its sign; what rounds to nothing has a plus."""
    return f"{round(points, 1) + 0:+.1f}"


def _sentence(head: Row, classes: list[Row], pairs: int) -> str:
    """What the headline says of thermal, and of which of its classes it is surely true."""
    gain = head.thermal_adds
    if head.both is None or head.rgb is None or gain.points is None:
        return "Whether thermal pays cannot be told: no class of the headline occurs."
    found = f"{head.name} is {head.both:.1f} % with it and {head.rgb:.1f} % from RGB alone"
    interval = ""
    if gain.low is not None and gain.high is not None:
        interval = f", 95 % interval {signed(gain.low)} to {signed(gain.high)}"
    measured = f"{found} ({signed(gain.points)}{interval})"
    if gain.sign:
        said = f"Thermal {'pays' if gain.sign > 0 else 'costs'}: {measured}"
    else:
        number = f"{pairs} pairs" if pairs > 1 else "these counts"
        said = f"Whether thermal pays, {number} cannot tell: {measured}"
    parts = []
    if len(classes) > 1:  # of one the headline has said it
        for sign, verb in ((1, "helps"), (-1, "harms")):
            known = [
                f"{row.name} ({signed(row.thermal_adds.points or 0)})"
                for row in classes
                if row.thermal_adds.sign == sign
            ]
            parts += [f"it {verb} {', '.join(known)}"] if known else []
    return f"{said}{'; ' if parts else ''}{', and '.join(parts)}."
