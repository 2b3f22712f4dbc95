"""Draw the page's thumbnails of its example scenes: RGB and thermal, split by a slanted line.

    python scripts/make_thumbnails.py [--check]

With --check nothing is written; exit status 1 says that a file is not what the scene draws.
"""

import sys
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from sartm.app.examples import EXAMPLES, draw_example

STATIC = Path(__file__).resolve().parents[1] / "src" / "sartm" / "app" / "static"
SIZE = (264, 352)
"""Height and width in pixels: twice what a card shows."""
TOLERANCE = 6.0
"""Mean difference in levels of 255 that lossy compression and other versions of it make."""


def draw_thumbnail(name: str) -> npt.NDArray[np.uint8]:
    """(H, W, 3) BGR: RGB on the left, thermal on the right."""
    scene = draw_example(name)
    height, width = SIZE
    rgb = cv2.resize(scene.rgb, (width, height), interpolation=cv2.INTER_AREA)
    thermal = cv2.resize(scene.thermal, (width, height), interpolation=cv2.INTER_AREA)
    mask = np.zeros(SIZE, np.uint8)
    corners = [(0.58 * width, 0), (width, 0), (width, height), (0.42 * width, height)]
    cv2.fillPoly(mask, [np.array(corners).round().astype(np.int32)], 255, cv2.LINE_AA)
    share = mask[..., None] / 255
    mixed = rgb[..., ::-1] * (1 - share) + thermal[..., None] * share
    return np.rint(mixed).astype(np.uint8)


def main() -> int:
    """Write or check every thumbnail."""
    differ = []
    for name in EXAMPLES:
        path, drawn = STATIC / f"example-{name}.webp", draw_thumbnail(name)
        if "--check" not in sys.argv[1:]:
            cv2.imwrite(str(path), drawn, [cv2.IMWRITE_WEBP_QUALITY, 82])
            print(path, path.stat().st_size)
            continue
        found = cv2.imread(str(path)) if path.is_file() else None
        same = found is not None and found.shape == drawn.shape
        if not same or np.abs(found.astype(int) - drawn).mean() > TOLERANCE:
            differ.append(name)
    if differ:
        print(
            "not what their scenes draw:", ", ".join(differ), "(python scripts/make_thumbnails.py)"
        )
    return bool(differ)


if __name__ == "__main__":
    sys.exit(main())
