"""How well thermal images find their RGB image: known warps, wrong pairs, noise.

    python benchmarks/registration.py --data DIR [--names D$] [--pairs 40] [--seed 0]

A known warp (shift to 20 pixels, scale to 5 %) is put on each thermal image. The error is the mean
distance over the four image corners between the estimate for the warped image, followed through
the warp, and the estimate for the image as it came: no ground truth of the data set is needed.
The last line is one JSON object.
"""

import argparse
import json
import re
import time
from pathlib import Path

import cv2
import numpy as np

from sartm.registration.estimate import Alignment, estimate_alignment, estimate_offset

SHIFT, SCALE = 20.0, 0.05


def read_pairs(root: Path, pattern: str) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Names, RGB and thermal of a folder with rgb/ and thermal/, in the order of the names."""
    pairs = []
    for path in sorted((root / "rgb").iterdir()):
        other = root / "thermal" / path.name
        if re.search(pattern, path.stem) and other.exists():
            rgb, thermal = cv2.imread(str(path)), cv2.imread(str(other), cv2.IMREAD_GRAYSCALE)
            pairs.append((path.stem, np.ascontiguousarray(rgb[..., ::-1]), thermal))
    return pairs


def draw_warp(random: np.random.Generator, size: tuple[int, ...]) -> np.ndarray:
    """Scale about the centre, then a shift in any direction, in pixels of the thermal image."""
    angle, length = random.uniform(0, 2 * np.pi), random.uniform(0, SHIFT)
    scale = random.uniform(1 - SCALE, 1 + SCALE)
    y, x = (size[0] - 1) / 2, (size[1] - 1) / 2
    dx = (1 - scale) * x + length * np.cos(angle)
    dy = (1 - scale) * y + length * np.sin(angle)
    return np.array([[scale, 0, dx], [0, scale, dy], [0, 0, 1]])


def corner_error(first: np.ndarray, second: np.ndarray, size: tuple[int, ...]) -> float:
    right, bottom = size[1] - 1, size[0] - 1
    corners = np.array([[[0, 0], [right, 0], [right, bottom], [0, bottom]]], np.float64)
    ends = [cv2.perspectiveTransform(corners, homography) for homography in (first, second)]
    return float(np.linalg.norm(ends[0] - ends[1], axis=2).mean())


def false_thermals(
    random: np.random.Generator, index: int, pairs: list[tuple[str, np.ndarray, np.ndarray]]
) -> list[tuple[str, np.ndarray]]:
    """Thermal images that do not belong to the RGB image at `index`."""
    size = pairs[index][2].shape
    noise = random.integers(0, 256, size, dtype=np.uint8)
    blotches = cv2.GaussianBlur(random.normal(0, 1, size), (0, 0), random.uniform(1, 8))
    far = (index + random.integers(len(pairs) // 5, len(pairs) - len(pairs) // 5)) % len(pairs)
    return [
        ("noise", noise),
        ("smooth noise", cv2.normalize(blotches, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)),
        ("constant", np.full(size, random.integers(0, 256), np.uint8)),
        ("other scene", pairs[far][2]),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with rgb/ and thermal/")
    parser.add_argument("--names", default="D$", help="regular expression on the file names")
    parser.add_argument("--pairs", type=int, default=0, help="how many, spread evenly; 0: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", default="homography")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    random = np.random.default_rng(arguments.seed)
    pairs = read_pairs(arguments.data, arguments.names)
    if len(pairs) < 5:
        parser.error(f"found {len(pairs)} pairs in {arguments.data}; at least 5 are needed")
    count = min(arguments.pairs or len(pairs), len(pairs))
    errors, refused, spreads, seconds, quick = [], [], [], [], []
    wrong: dict[str, list[Alignment]] = {}
    for index in np.linspace(0, len(pairs) - 1, count).astype(int):
        name, rgb, thermal = pairs[index]
        warp = draw_warp(random, thermal.shape)
        moved = cv2.warpPerspective(thermal, warp, thermal.shape[::-1])
        original = estimate_alignment(rgb, thermal, model=arguments.model)
        start = time.perf_counter()
        found = estimate_alignment(rgb, moved, model=arguments.model)
        seconds.append(time.perf_counter() - start)
        start = time.perf_counter()
        estimate_offset(rgb, thermal)
        quick.append(time.perf_counter() - start)
        errors.append(corner_error(found.homography @ warp, original.homography, thermal.shape))
        refused.append(not (found.accepted and original.accepted))
        spreads.append(found.spread)
        if refused[-1] or errors[-1] > 2:
            print(
                f"{name}: {errors[-1]:.1f} px, quality {original.quality:.2f} and "
                f"{found.quality:.2f}; {original.reason or found.reason or 'accepted'}"
            )
        for kind, false in false_thermals(random, int(index), pairs):
            wrong.setdefault(kind, []).append(estimate_alignment(rgb, false, model=arguments.model))
    error, out = np.array(errors), np.array(refused)
    figures = {
        "pairs": count,
        "within_2px": float((error <= 2).mean()),
        "accepted_within_2px": float((~out & (error <= 2)).mean()),
        "refused": float(out.mean()),
        "accepted_beyond_4px": float((~out & (error > 4)).mean()),
        "median_px": float(np.median(error)),
        "seconds": float(np.median(seconds)),
        "offset_seconds": float(np.median(quick)),
    } | {
        f"refused_{kind.replace(' ', '_')}": float(np.mean([not one.accepted for one in found]))
        for kind, found in wrong.items()
    }
    print()
    for key, value in figures.items():
        print(f"{key:24} {value:8.3f}")
    print(json.dumps({key: round(value, 4) for key, value in figures.items()}))


if __name__ == "__main__":
    main()
