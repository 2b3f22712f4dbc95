"""Pictures of cameras in tests that say when they are of, so that partners can be told by sight."""

from pathlib import Path

import numpy as np

SIZE = (48, 160)
_CELL, _BITS = 16, 20


def draw_moment(seconds: float, warm: bool) -> np.ndarray:
    """(H, W, 3): the time in hundredths of a second, as cells of light and dark."""
    number = round(seconds * 100) % (1 << _BITS)
    bits = np.array([number >> bit & 1 for bit in range(_BITS)], np.uint8).reshape(2, -1)
    picture = np.full((*SIZE, 3), 90, np.uint8)
    picture[:32] = (bits.repeat(_CELL, 0).repeat(_CELL, 1) * 200 + 25)[..., None]
    picture[36:46, 20:60] = 200 if warm else (40, 90, 230)
    return picture


def read_moment(picture: np.ndarray) -> float:
    """Seconds, as `draw_moment` drew them into (H, W, 3)."""
    cells = picture[:32].mean(2).reshape(2, _CELL, -1, _CELL)[:, 4:-4, :, 4:-4].mean((1, 3))
    return float((cells.ravel() > 125) @ (1 << np.arange(_BITS))) / 100


def read_film(path: Path) -> np.ndarray:
    """Of each frame of a labelled film: its time, and when RGB and thermal in it are of."""
    import av

    found = []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            picture = frame.to_ndarray(format="rgb24")
            panels = (picture[: SIZE[0], : SIZE[1]], picture[: SIZE[0], SIZE[1] : 2 * SIZE[1]])
            found.append((frame.time, *map(read_moment, panels)))
    return np.array(found)


def check_partners(film: np.ndarray, tolerance: float) -> None:
    """By what the cameras show, not by what was computed of it."""
    assert np.abs(film[:, 1] - film[:, 2]).max() <= tolerance
    assert np.abs(np.diff(film[:, 0]) - np.diff(film[:, 1])).max() <= tolerance
