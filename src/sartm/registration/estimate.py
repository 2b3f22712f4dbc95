"""Where a thermal pixel lies in the RGB image: the homography between two cameras, estimated.

The fields of both images (see edge_fields) are made to agree from coarse to fine:

    agreement of two fields       Re(sum z_rgb * conj(z_thermal)): +1 parallel, -1 at right angles

What is found is judged by signs that do not depend on each other, and refused if one is bad. For
coordinates and for what a homography cannot do, see calibration.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from sartm.errors import InputError
from sartm.registration.calibration import apply_alignment, check_images, describe_size
from sartm.registration.edge_fields import (
    SMALLEST,
    Array,
    FieldPair,
    Floats,
    make_pyramid,
    working_grid,
)
from sartm.registration.search import Found, search_alignment

Model = Literal["similarity", "affine", "homography"]

_FREE: dict[str, int] = {"similarity": 4, "affine": 6, "homography": 8}


@dataclass(frozen=True, eq=False)
class Alignment:
    """What was found out about a pair, or about all pairs of one rig."""

    homography: Floats
    """(3, 3), thermal pixel to RGB pixel, [2, 2] is 1; a mere resize where nothing was found."""
    quality: float
    """0 to 1; rises with the evidence, accepted from 0.5."""
    accepted: bool
    reason: str
    """Why it was refused; empty when accepted."""
    spread: float
    """Mean distance in RGB pixels of the image corners between the estimates of two disjoint
    halves of the image; infinite where nothing was found."""
    method: Model


def _finish(found: Found, to_grid: Floats, place: Floats, model: Model) -> Alignment:
    """From the working grid to the pixels of the two images."""
    homography = np.linalg.inv(to_grid) @ found.homography @ place
    return Alignment(
        homography=homography / homography[2, 2],
        quality=found.quality,
        accepted=not found.reason,
        reason=found.reason,
        spread=found.spread / float(to_grid[0, 0]),
        method=model,
    )


def estimate_alignment(rgb: Array, thermal: Array, *, model: Model = "homography") -> Alignment:
    """Find where the thermal image lies in the RGB image, from one pair.

    Args:
        rgb: uint8 (H, W, 3).
        thermal: (H, W) of any real type; another size is taken to show about the same view.
            Non-finite pixels and a constant fill left by an earlier warp are ignored.
        model: what may differ. A weak prior holds the part beyond a similarity near 0.

    Looks for shifts to 56 pixels per 640 of the longer side, scales 0.9 to 1.1 and turns to 4
    degrees, relative to both images showing the same view. Never raises for lack of evidence:
    that is an Alignment not accepted, with the reason. InputError for arrays of the wrong kind.
    """
    return estimate_rig_alignment([(rgb, thermal)], model=model)


def estimate_rig_alignment(
    pairs: Sequence[tuple[Array, Array]], *, model: Model = "homography", most: int = 40
) -> Alignment:
    """One alignment for all (rgb, thermal) pairs of two cameras that never moved on their mount.

    The evidence of all pairs is summed before anything is decided, so scenes that show little and
    near objects that pull one pair aside do not matter. Uses `most` pairs spread over the
    sequence, read one after the other (a sequence that loads on access stays small in memory;
    each pair used keeps about 7 MB). Sizes must not change. Otherwise as `estimate_alignment`.
    """
    if model not in _FREE:
        raise InputError(f"alignment model is {model!r}; choose one of {', '.join(_FREE)}")
    if not pairs:
        raise InputError("no pair to align; give at least one RGB and thermal image")
    chosen = np.unique(np.linspace(0, len(pairs) - 1, min(len(pairs), max(most, 1))).astype(int))
    sizes: set[tuple[tuple[int, ...], tuple[int, ...]]] = set()
    candidates: list[list[FieldPair]] = []
    for index in chosen:
        rgb, thermal = pairs[int(index)]
        check_images(rgb, thermal)
        sizes.add((rgb.shape[:2], thermal.shape))
        if len(sizes) > 1:
            raise InputError(
                f"image sizes change within the rig: {sorted(sizes)}; align folders of one size "
                f"each, or every pair by itself"
            )
        grid, to_grid, places = working_grid(rgb.shape[:2], thermal.shape)
        if min(grid) < SMALLEST:
            nothing = f"an RGB image of {describe_size(rgb)} is too small or too narrow to align"
            return _finish(Found(np.eye(3), 0.0, nothing, np.inf), to_grid, places[0], model)
        rgb_fields = make_pyramid(rgb, grid, to_grid)
        candidates.append(
            [
                FieldPair(rgb_fields, make_pyramid(thermal[..., None], grid, place))
                for place in places
            ]
        )
    found = [
        search_alignment(fields, grid, _FREE[model]) for fields in zip(*candidates, strict=True)
    ]  # one result per guess at the nominal size of the thermal image
    best = max(range(len(found)), key=lambda index: found[index].quality)
    return _finish(found[best], to_grid, places[best], model)


@dataclass(frozen=True, eq=False)
class AlignedThermal:
    """A thermal image on the pixels of its RGB image, and how it came there."""

    image: Array
    """(H, W) of the RGB image, type of the raw values; their median where nothing is seen."""
    valid: npt.NDArray[np.bool_]
    """(H, W) true where the thermal camera sees."""
    homography: Floats
    """(3, 3), thermal pixel to RGB pixel."""
    quality: float | None
    """0 to 1 where the homography was estimated, None where it was given."""
    seen: float
    """Share of the RGB image that the thermal camera sees, 0 to 1."""


def align_thermal(
    rgb: Array,
    thermal: Array,
    homography: Array | None = None,
    name: str = "pair",
    unseen: npt.NDArray[np.bool_] | None = None,
) -> AlignedThermal:
    """Bring raw thermal (h, w) onto the pixels of RGB uint8 (H, W, 3), to be labelled.

    Args:
        homography: (3, 3), thermal pixel to RGB pixel; None: estimated from this pair alone.
        name: which pair it is, for messages.
        unseen: (h, w), pixels of thermal that are no measurements (`Sample.unseen`).

    What the thermal camera does not see gets the median of what it sees: a value from outside the
    scene would shift thermal rules that go by the image's own range.

    Raises:
        InputError: no estimate is good enough, or the homography leads out of the RGB image.
    """
    quality = None
    if homography is None:
        found = estimate_alignment(rgb, thermal)
        if not found.accepted:
            raise InputError(
                f"{name}: thermal could not be aligned: {found.reason} (quality "
                f"{found.quality:.2f} of at least 0.5). sartm data align writes "
                f"calibration.json from many pairs, for sartm predict --align"
            )
        homography, quality = found.homography, found.quality
    check_images(rgb, thermal)
    fill = float(np.median(thermal[np.isfinite(thermal)])) if np.isfinite(thermal).any() else 0.0
    if thermal.dtype.kind in "biu":
        fill = float(int(fill))
    fill = float(thermal.dtype.type(fill))
    moved, valid = apply_alignment(
        thermal, homography, (rgb.shape[0], rgb.shape[1]), fill=fill, unseen=unseen
    )
    if not valid.any():
        raise InputError(
            f"{name}: the alignment puts the thermal image ({describe_size(thermal)}) outside the "
            f"RGB image ({describe_size(rgb)}); was it made for images of other sizes?"
        )
    homography = np.asarray(homography, np.float64)
    return AlignedThermal(moved, valid, homography, quality, float(valid.mean()))
