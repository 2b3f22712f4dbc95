"""Pairs of one scene seen by two cameras, and the movement between them, for several test files."""

import cv2
import numpy as np

SIZE = (240, 320)


def draw_pair(seed: int, size: tuple[int, int] = SIZE) -> tuple[np.ndarray, np.ndarray]:
    """RGB and thermal of one scene of overlapping shapes whose two brightnesses are unrelated.

    RGB: uint8 (H, W, 3), textured. Thermal: uint16 (H, W) counts, blurred and noisy.
    """
    random = np.random.default_rng(seed)
    regions = np.zeros(size, np.int32)
    count = 60
    for region in range(1, count):
        centre = random.uniform(0, 1, 2) * size[::-1]
        around = np.sort(random.uniform(0, 2 * np.pi, random.integers(3, 7)))
        radius = random.uniform(0.04, 0.16) * size[1]
        points = centre + radius * np.stack([np.cos(around), np.sin(around)], axis=1)
        cv2.fillPoly(regions, [np.rint(points).astype(np.int32)], region)
    colours = random.uniform(20, 235, (count, 3))
    texture = cv2.GaussianBlur(random.normal(0, 40, size), (0, 0), 1.0)
    rgb = colours[regions] + texture[..., None] + random.normal(0, 3, (*size, 3))
    grey = colours[regions].mean(axis=2)
    heat = 7000 + 3 * (255 - grey) + random.uniform(0, 900, count)[regions]
    heat = cv2.GaussianBlur(heat, (0, 0), 1.2) + random.normal(0, 15, size)
    return np.clip(rgb, 0, 255).astype(np.uint8), heat.astype(np.uint16)


def shift_and_scale(dx: float, dy: float, scale: float = 1.0) -> np.ndarray:
    x, y = (SIZE[1] - 1) / 2, (SIZE[0] - 1) / 2
    return np.array([[scale, 0, x - scale * x + dx], [0, scale, y - scale * y + dy], [0, 0, 1.0]])
