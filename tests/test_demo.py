"""`sartm demo`: what it shows is what the model makes of the drawn scenes."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import TINY, build

from sartm.classes import MFNET, PST900
from sartm.cli.main import main
from sartm.demo import FIRST_SEED
from sartm.inference.predictor import Predictor
from sartm.model.checkpoint import save
from sartm.model.facts import ModelFacts
from sartm.model.loading import load
from sartm.scenes.dataset import SceneOptions, draw_scene


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of the demo, and demo.json of `--json`."""
    out = tmp_path_factory.mktemp("demo") / "out"
    assert main(["demo", "--out", str(out), "--json", str(out.parent / "demo.json")]) == 0
    return out


@pytest.mark.slow
def test_the_table_is_what_the_bundled_model_reaches_on_the_scenes(shown: Path) -> None:
    table = json.loads((shown.parent / "demo.json").read_text())["present"]
    assert list(table) == ["day", "night", "glare", "fog", "all"]
    predictor = Predictor(load("mini"))
    scenes = [draw_scene(FIRST_SEED + 100 + n, SceneOptions(condition="night")) for n in range(5)]
    truth = np.stack([scene.label for scene in scenes])
    known = truth != MFNET.ignore
    for modality in ("rgb", "thermal", "both"):
        labels = np.stack([
            predictor(
                scene.rgb if modality != "thermal" else None,
                scene.thermal if modality != "rgb" else None,
            ).labels
            for scene in scenes
        ])  # fmt: skip
        ious = [
            ((labels == k) & (truth == k)).sum() / (((labels == k) | (truth == k)) & known).sum()
            for k in np.unique(truth[known])
        ]
        assert table["night"][modality] == pytest.approx(100 * np.mean(ious), abs=1e-3)
    assert table["all"]["both"] > max(table["all"]["rgb"], table["all"]["thermal"])


@pytest.mark.slow
def test_report_and_pictures_are_of_the_same_scenes(shown: Path) -> None:
    table = json.loads((shown.parent / "demo.json").read_text())["present"]
    report = json.loads((shown / "report.json").read_text())
    subsets = report["subsets"]
    assert report["pairs"] == 4 * 5
    assert report["means"]["present"]["miou"] == table["all"]["both"]
    for condition in ("day", "night", "glare", "fog"):
        assert subsets[condition]["means"]["present"]["miou"] == table[condition]["both"]
        for number in range(1, 6):
            picture = cv2.imread(str(shown / "pairs" / f"{condition}-{number}.jpg"))
            assert picture.shape == (240, 5 * 320, 3)
    assert cv2.imread(str(shown / "scenes.jpg")).shape == (28 + 4 * 240, 5 * 320, 3)
    page = (shown / "report.html").read_text()
    assert "thermal only, night" in page
    assert page.count("data:image/") >= 4


def test_a_model_of_other_classes_is_refused_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(build(replace(TINY, classes=PST900)), tmp_path / "model", ModelFacts(name="tunnel"))
    arguments = ["demo", "--model", str(tmp_path / "model"), "--out", str(tmp_path / "out")]
    assert main(arguments) == 2
    assert "5 and 9 classes" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
