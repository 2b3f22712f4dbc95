"""How far thermal is off RGB, from all pairs of a rig together: one shift, its spread, or nothing.

A single pair often shows a shift by chance. The evidence of all pairs is summed before a shift is
named, and each pair's own shift tells how far they agree with it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sartm.registration.calibration import check_images
from sartm.registration.edge_fields import (
    COARSE,
    LEVELS,
    SMALLEST,
    WIDTH,
    Array,
    FieldPair,
    Floats,
    gradient_field,
    prepare,
    stretch,
    working_grid,
)
from sartm.registration.search import REACH, correlate, mirrored, peak_strength, subpixel_peak

ENOUGH_PAIRS = 5
"""Fewer say nothing about a rig."""
_SHOWN = 1.15
"""Strength from which a pair's own peak counts as a shift."""
_TOGETHER = 2.0
"""Strength of the summed evidence from which the cameras share a place. Real rigs of 5 to 60 pairs
reach 5 to 10, and 2.4 or more where thermal is 10 % smaller and turned by 4 degrees; 60 pairs whose
cameras do not hold still 1.5, and the pairs of one rig exchanged among each other 1.9."""
_SPREAD = WIDTH / 80
"""Largest median distance, in working pixels, of pairs that agree. Real rigs have 1 to 2, those
that are scaled or turned as above 8 to 18, chance 40 and more."""


@dataclass(frozen=True, eq=False)
class ShiftEvidence:
    """How well one pair agrees with itself under every small shift."""

    surface: Floats
    """(1, 1, 2 * REACH + 1, 2 * REACH + 1) agreement, of the coarsest level."""
    chance: tuple[Floats, ...]
    """The same for the thermal image mirrored, which has no true place."""
    pixel: float
    """RGB pixels per working pixel."""

    @property
    def offset(self) -> tuple[float, float]:
        """Shift (dx, dy) in RGB pixels that brings this thermal image onto its RGB image.

        Right to about a pixel per 640; (nan, nan) where nothing stands out.
        """
        strength, dx, dy = _peak(self.surface, self.chance)
        if strength < _SHOWN:
            return float("nan"), float("nan")
        return dx * self.pixel, dy * self.pixel


@dataclass(frozen=True)
class Offset:
    """The shift (RGB pixels) that brings the thermal images of a set onto their RGB images."""

    dx: float
    dy: float
    spread: float | None
    """Median distance of the pairs' own shifts from it; None where no pair shows one."""
    pairs: int
    """Pairs that were compared."""
    strength: float
    """How far it stands above chance; 1 is not at all."""
    related: bool
    """Whether the pairs have any place in common; else `align` finds none either."""
    agreed: bool
    """Whether they agree on the shift, so that it can be relied on."""

    def describe(self) -> str:
        """One line: the shift and its spread, or that there is none."""
        if self.agreed:
            spread = "" if self.spread is None else f", spread {self.spread:.1f} px"
            return f"({self.dx:+.1f}, {self.dy:+.1f}) px right and down{spread}, {self.pairs} pairs"
        if not self.related:
            return f"unknown: {self.pairs} pairs have no shift in common"
        return (
            f"unknown: {self.pairs} pairs lie alike but shift differently (spread "
            f"{self.spread or 0:.0f} px); scaled, turned, or partners exchanged"
        )


def measure_shift(rgb: Array, thermal: Array) -> ShiftEvidence | None:
    """The evidence of one pair, quick; None for an image too small or too narrow.

    Shift only, at a quarter of the working resolution. Shapes and errors as in
    `estimate.estimate_alignment`.
    """
    check_images(rgb, thermal)
    grid, to_grid, places = working_grid(rgb.shape[:2], thermal.shape)
    if min(grid) < SMALLEST:
        return None
    level = LEVELS[0]
    small = (grid[0] // level.step, grid[1] // level.step)
    shrink = stretch(1 / level.step, 1 / level.step)
    fields = []
    for image, place in ((rgb, to_grid), (thermal[..., None], places[0])):
        values, valid = prepare(image, small, shrink @ place, margin=2)
        fields.append({COARSE: gradient_field(values, valid, level)})
    pair = FieldPair(*fields)
    still = np.array([1.0]), np.array([0.0])
    chance = tuple(correlate([mirror], *still) for mirror in mirrored(pair))
    return ShiftEvidence(correlate([pair], *still), chance, 1 / float(to_grid[0, 0]))


def find_offset(evidence: Sequence[ShiftEvidence]) -> Offset | None:
    """What the pairs of one rig say together; None of fewer than `ENOUGH_PAIRS`."""
    if len(evidence) < ENOUGH_PAIRS:
        return None
    surface = np.mean([one.surface for one in evidence], axis=0)
    chance = [np.mean(some, axis=0) for some in zip(*(one.chance for one in evidence), strict=True)]
    strength, dx, dy = _peak(surface, chance)
    own = np.array([one.offset for one in evidence]) / np.array([[one.pixel] for one in evidence])
    own = own[np.isfinite(own).all(axis=1)]
    spread = float(np.median(np.linalg.norm(own - (dx, dy), axis=1))) if len(own) else None
    related = strength >= _TOGETHER
    pixel = float(np.median([one.pixel for one in evidence]))
    return Offset(
        dx * pixel,
        dy * pixel,
        None if spread is None else spread * pixel,
        len(evidence),
        strength,
        related,
        related and (spread is None or spread <= _SPREAD),
    )


def _peak(surface: Floats, chance: Sequence[Floats]) -> tuple[float, float, float]:
    """Strength of the best shift, and the shift itself in working pixels."""
    x, y = subpixel_peak(surface[0, 0])
    step = LEVELS[0].step
    return peak_strength(surface, chance), -step * (x - REACH), -step * (y - REACH)
