"""A known homography: warping keeps what was measured, and a bad file is refused by name."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from draw_rig import SIZE, draw_pair, shift_and_scale

from sartm.errors import InputError
from sartm.registration.calibration import (
    apply_alignment,
    read_calibration,
    write_calibration,
    write_comparison,
)


@pytest.mark.parametrize(
    "kind", ["bool", "uint8", "int8", "uint16", ">u2", "int32", "float16", "float32", "float64"]
)
@pytest.mark.parametrize("interpolation", ["linear", "nearest"])
def test_warping_keeps_type_and_values(kind: str, interpolation: str) -> None:
    thermal = np.arange(12).reshape(3, 4) % 2 if kind == "bool" else np.arange(12).reshape(3, 4)
    thermal = thermal.astype(kind)
    move = np.array([[1.0, 0, 2], [0, 1, 1], [0, 0, 1]])
    warped, valid = apply_alignment(
        thermal,
        move,
        (6, 5),
        interpolation=interpolation,
        fill=1,  # type: ignore[arg-type]
    )
    assert warped.dtype == thermal.dtype
    assert warped.shape == valid.shape == (6, 5)
    assert np.array_equal(warped[1:4, 2:5], thermal[:, :3])
    assert valid.sum() == 9
    assert (warped[~valid] == 1).all()


def test_large_counts_survive_and_unknown_pixels_do_not_become_values() -> None:
    counts = np.full((8, 8), 2_000_000_011, np.int64)
    warped, _ = apply_alignment(counts, np.eye(3), (8, 8))
    assert np.array_equal(warped, counts)
    celsius = np.full((8, 8), 20.0, np.float32)
    celsius[3, 4] = np.nan
    warped, valid = apply_alignment(celsius, np.eye(3), (8, 8), fill=-99)
    assert not valid[3, 4]
    assert warped[3, 4] == -99
    assert (warped[valid] == 20).all()


def test_nothing_is_seen_beyond_the_vanishing_line() -> None:
    tilt = np.array([[1.0, 0, 0], [0, 1, 0], [0.02, 0, 1]])
    _, valid = apply_alignment(np.ones((50, 50), np.uint8), tilt, (60, 120))
    assert valid[0, :25].all()
    assert not valid[:, 26:].any()


def test_fill_must_fit_the_type() -> None:
    with pytest.raises(InputError, match="uint8"):
        apply_alignment(np.ones((4, 4), np.uint8), np.eye(3), (4, 4), fill=-1)
    with pytest.raises(InputError, match="uint16"):
        apply_alignment(np.ones((4, 4), np.uint16), np.eye(3), (4, 4), fill=float("nan"))


@pytest.mark.parametrize("size", [(0, 5), (5, -1), (5, 40_000)])
def test_a_size_that_cannot_be_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(InputError, match="32766"):
        apply_alignment(np.ones((4, 4), np.uint8), np.eye(3), size)


def save(folder: Path, content: object) -> Path:
    path = folder / "calibration.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


SQUARE = [[0, 0], [100, 0], [100, 80], [0, 80]]


def test_a_written_homography_reads_back(tmp_path: Path) -> None:
    homography = np.array([[1.1, 0.01, -5], [0.02, 0.9, 7], [1e-5, -2e-5, 1]])
    write_calibration(tmp_path / "rig.json", 2 * homography)
    assert read_calibration(tmp_path / "rig.json") == pytest.approx(homography)
    assert [path.name for path in tmp_path.iterdir()] == ["rig.json"]


def test_points_give_the_homography_that_joins_them(tmp_path: Path) -> None:
    points = [[2 * x + 10, 2 * y - 4] for x, y in SQUARE]
    found = read_calibration(save(tmp_path, {"points_thermal": SQUARE, "points_rgb": points}))
    assert found == pytest.approx(np.array([[2, 0, 10], [0, 2, -4], [0, 0, 1.0]]), abs=1e-6)


def test_cameras_give_the_homography_of_far_things(tmp_path: Path) -> None:
    rgb = [[800.0, 0, 320], [0, 800, 240], [0, 0, 1]]
    thermal = [[400.0, 0, 160], [0, 400, 120], [0, 0, 1]]
    sine, cosine = 0.01, (1 - 0.01**2) ** 0.5
    turn = [[cosine, 0, sine], [0, 1, 0], [-sine, 0, cosine]]
    content = {"K_rgb": rgb, "K_thermal": thermal, "R": turn}
    found = read_calibration(save(tmp_path, content))
    x, y, w = found @ [160, 120, 1]  # the thermal camera's axis, turned by asin(0.01)
    assert (x / w, y / w) == pytest.approx((320 + 800 * sine / cosine, 240))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not valid JSON"),
        ("[" * 100_000, "levels"),
        ("[1]", "JSON object"),
        ({}, "keys none"),
        ({"homography": np.eye(3).tolist(), "note": 1}, "'note'"),
        ({"homograhpy": np.eye(3).tolist()}, "'homograhpy'"),
        ({"homography": [[1, 0], [0, 1]]}, "rows of 3"),
        ({"homography": [[1, 0, 0], [0, 1, 0]]}, "3 rows"),
        ({"homography": [[1, 0, 0], [0, True, 0], [0, 0, 1]]}, "finite numbers"),
        ({"homography": [[1, 0, 0], [0, float("nan"), 0], [0, 0, 1]]}, "NaN is not finite"),
        ({"homography": [[1, 0, 0], [0, 10**400, 0], [0, 0, 1]]}, "finite numbers"),
        ({"homography": [[1, 0, 0], [2, 0, 0], [0, 0, 1]]}, "singular"),
        ({"homography": np.zeros((3, 3)).tolist()}, "singular"),
        ({"points_thermal": SQUARE[:3], "points_rgb": SQUARE[:3]}, "4 or more"),
        ({"points_thermal": SQUARE, "points_rgb": [*SQUARE, [5, 5]]}, "4 thermal and 5 RGB"),
        ({"points_thermal": [[i, i] for i in range(5)], "points_rgb": [*SQUARE, [5, 5]]}, "point"),
        (
            {"points_thermal": [*SQUARE, [50, 40]], "points_rgb": [*SQUARE, [90, 10]]},
            "check its coordinates",
        ),
        (
            {"K_rgb": np.eye(3).tolist(), "K_thermal": np.eye(3).tolist(), "R": [[2, 0, 0]] * 3},
            "no rotation",
        ),
        (
            {"K_rgb": [[1, 0, 0], [5, 1, 0], [0, 0, 1]], "K_thermal": [], "R": []},
            "K_rgb must be",
        ),
    ],
)
def test_a_bad_calibration_is_refused(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_calibration(save(tmp_path, content))


def test_a_missing_or_huge_calibration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read: no such file"):
        read_calibration(tmp_path / "none.json")
    with pytest.raises(InputError, match="more than 1 MiB"):
        read_calibration(save(tmp_path, " " * 2_000_000))


def test_the_comparison_shows_before_above_after(tmp_path: Path) -> None:
    rgb, thermal = draw_pair(6)
    aligned, _ = apply_alignment(thermal, shift_and_scale(9, 0), SIZE)
    path = tmp_path / "before-after.png"
    write_comparison(rgb, thermal, aligned, path)
    picture = cv2.imread(str(path))[..., ::-1]
    assert picture.shape[1] == 2 * SIZE[1]
    above, below = picture[: SIZE[0]], picture[-SIZE[0] :]
    assert np.array_equal(above[:32, :32], rgb[:32, :32])  # the first field of the chessboard
    assert np.array_equal(below[:32, :32], rgb[:32, :32])
    assert not np.array_equal(above, below)
    assert [found.name for found in tmp_path.iterdir()] == [path.name]


def test_a_comparison_that_cannot_be_written_says_why(tmp_path: Path) -> None:
    rgb, thermal = draw_pair(6)
    with pytest.raises(InputError, match=r"\.png or \.jpg"):
        write_comparison(rgb, thermal, thermal, tmp_path / "picture.gif")
    blocked = tmp_path / "file"
    blocked.touch()
    with pytest.raises(InputError, match="cannot write"):
        write_comparison(rgb, thermal, thermal, blocked / "picture.png")
    with pytest.raises(InputError, match="warp it first"):
        write_comparison(rgb, thermal, thermal[:100], tmp_path / "picture.png")
