"""`predict --align`: thermal comes onto RGB before the model; what cannot be aligned is said."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import TINY, build
from draw_rig import SIZE, draw_pair, shift_and_scale

from sartm.cli.main import main
from sartm.inference.predictor import Predictor
from sartm.io.labels import read_label
from sartm.model.checkpoint import save
from sartm.model.facts import ModelFacts
from sartm.model.sartm import SARTM
from sartm.registration.calibration import apply_alignment, write_calibration

AWAY = np.linalg.inv(shift_and_scale(12, -7))


@pytest.fixture(scope="module")
def network() -> SARTM:
    return build(TINY)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, network: SARTM) -> str:
    folder = tmp_path_factory.mktemp("models") / "small"
    save(network, folder, ModelFacts(name="small"))
    return str(folder)


def write_moved(root: Path, name: str, seed: int, crop: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A pair of which the thermal image is off by (-12, 7) pixels, and `crop` rows short."""
    rgb, counts = draw_pair(seed)
    thermal = cv2.normalize(counts, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
    moved = cv2.warpPerspective(thermal, AWAY, SIZE[::-1], borderMode=cv2.BORDER_REPLICATE)
    moved = moved[: SIZE[0] - crop]
    for kind, image in (("rgb", rgb[..., ::-1]), ("thermal", moved)):
        (root / kind).mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(root / kind / f"{name}.png"), image)
    return rgb, moved


def predict(root: Path, model: str, *more: str) -> list[str]:
    rgb, thermal = str(root / "rgb"), str(root / "thermal")
    words = ["predict", "--rgb", rgb, "--thermal", thermal, "--out", str(root / "out")]
    return [*words, "--model", model, "--precision", "fp32", "--device", "cpu", *more]


def test_a_calibration_moves_thermal_before_the_model_sees_it(
    tmp_path: Path, model: str, network: SARTM, capsys: pytest.CaptureFixture[str]
) -> None:
    rgb, thermal = write_moved(tmp_path, "a", 4, crop=40)
    rig = tmp_path / "rig.json"
    write_calibration(rig, shift_and_scale(12, -7))
    assert main(predict(tmp_path, model)) == 2  # the sizes differ
    assert "--align auto" in capsys.readouterr().err
    assert main(predict(tmp_path, model, "--align", str(rig))) == 0
    labels = read_label(tmp_path / "out/labels/a.png")
    assert labels.shape == SIZE
    fill = int(np.median(thermal))
    there, valid = apply_alignment(thermal, shift_and_scale(12, -7), SIZE, fill=fill)
    run = Predictor(network, device="cpu", precision="fp32")
    np.testing.assert_array_equal(labels, run(rgb, there).labels)
    assert (labels != run(rgb, cv2.resize(thermal, SIZE[::-1])).labels).any()
    entry = json.loads((tmp_path / "out/summary.json").read_text())["pairs"]["a"]["alignment"]
    np.testing.assert_allclose(entry["homography"], shift_and_scale(12, -7))
    assert entry["quality"] is None
    assert entry["seen"] == pytest.approx(valid.mean(), abs=1e-3)


def test_another_calibration_is_another_setting(
    tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_moved(tmp_path, "a", 4)
    rig = tmp_path / "rig.json"
    write_calibration(rig, shift_and_scale(12, -7))
    assert main(predict(tmp_path, model, "--align", str(rig))) == 0
    assert main(predict(tmp_path, model, "--align", str(rig))) == 0
    assert "nothing to do, 1 label map is there" in capsys.readouterr().out
    write_calibration(rig, shift_and_scale(11, -7))
    assert main(predict(tmp_path, model, "--align", str(rig))) == 2
    assert "--overwrite" in capsys.readouterr().err


@pytest.mark.slow
def test_auto_aligns_each_pair_and_a_refused_one_costs_that_pair_only(
    tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_moved(tmp_path, "a", 4)
    write_moved(tmp_path, "b", 5)
    noise = np.random.default_rng(0).integers(0, 255, SIZE, np.uint8)
    cv2.imwrite(str(tmp_path / "thermal/b.png"), noise)
    assert main(predict(tmp_path, model, "--align", "auto")) == 3
    said = capsys.readouterr().err
    assert "b: thermal could not be aligned" in said
    assert "predict --align" in said
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert set(summary["pairs"]) == {"a"}
    assert set(summary["failures"]) == {"b"}
    entry = summary["pairs"]["a"]["alignment"]
    assert entry["quality"] > 0.5
    found = np.array(entry["homography"])
    corners = np.array([[[0.0, 0.0], [319, 0], [319, 239], [0, 239]]])
    ends = [cv2.perspectiveTransform(corners, h) for h in (found, shift_and_scale(12, -7))]
    assert np.abs(ends[0] - ends[1]).max() < 2
    assert not (tmp_path / "out/labels/b.png").exists()


@pytest.mark.parametrize(
    ("more", "word"),
    [
        (["--align", "none.json"], "none.json"),
        (["--align", "auto", "--resize-thermal"], "--resize-thermal"),
        (["--align", "auto", "--thermal", ""], "both --rgb and --thermal"),
        (["--align", "auto", "--rgb", "film.mp4"], "--align is for images"),
        (["--beside", "--rgb", "film.mp4"], "--beside is for images"),
        (["--height", "60"], "--height is for the table of objects"),
        (["--min-area", "60"], "--min-area is for the table of objects; add --objects"),
        (["--align", "auto"], "could not be aligned"),  # the only pair there is
    ],
)
def test_an_alignment_that_cannot_be_used_exits_2(
    tmp_path: Path, model: str, more: list[str], word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_moved(tmp_path, "a", 4)
    cv2.imwrite(str(tmp_path / "thermal/a.png"), np.full(SIZE, 9, np.uint8))
    (tmp_path / "film.mp4").write_bytes(b"x")
    more = [str(tmp_path / word) if word == "film.mp4" else word for word in more]
    assert main(predict(tmp_path, model, *more)) == 2
    assert word in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("labels/*.png"))
