"""Clicks are counted as an annotator makes them, and the report says what they were worth."""

import json
from dataclasses import replace

import numpy as np
import pytest
from draw_training import write_dataset
from small_weights import SMALL, small_model

import sartm
from sartm.cli.main import main
from sartm.data.pairs import PairDataset
from sartm.evaluation.clicks import FloodFill, GrabCut, click_through, measure_clicks
from sartm.evaluation.report.clicks import write_click_report
from sartm.inference.clicks import Promptable
from sartm.model.checkpoint import save
from sartm.model.facts import ModelFacts


def test_clicks_go_to_the_largest_error_until_there_is_none():
    truth = np.zeros((40, 60), bool)
    truth[10:30, 10:30] = True
    seen = []

    def clicker(points, labels):
        seen.append((list(points), list(labels)))
        mask = truth.copy()
        if len(points) < 3:
            mask[:, 20:] = False
        return mask

    found = list(click_through(clicker, truth, most=5))
    assert found == [0.5, 0.5, 1, 1, 1]
    assert len(seen) == 3  # nothing is left to click on
    assert seen[0] == ([(19, 19)], [1])
    assert seen[1][1] == [1, 1]
    assert all(20 <= x < 30 for x, _ in seen[1][0][1:])


@pytest.mark.parametrize("method", [FloodFill, GrabCut])
def test_other_methods_find_a_plain_object(method):
    image = np.full((80, 100, 3), 40, np.uint8)
    image[20:60, 30:70] = (200, 120, 60)
    image += np.random.default_rng(0).integers(0, 6, image.shape, np.uint8)
    truth = np.zeros((80, 100), bool)
    truth[20:60, 30:70] = True
    assert list(click_through(method(image), truth, most=2))[-1] > 0.9


def draw_one(index: int) -> dict[str, np.ndarray]:
    """A scene of 64 x 96 with one car."""
    label = np.zeros((64, 96), np.uint8)
    label[20:40, 30 + index : 60] = 1
    rgb = np.where(label[..., None] > 0, (200, 60, 40), (40, 60, 90)).astype(np.uint8)
    return {"rgb": rgb, "thermal": 60 + 120 * label, "label": label}


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    root = tmp_path_factory.mktemp("clicks")
    config = replace(SMALL, clicks=True, frozen_encoder=False)
    save(small_model(config), root / "model", ModelFacts())
    write_dataset(root / "data", [draw_one(index) for index in range(2)], 2)
    text = (root / "data" / "dataset.toml").read_text()
    (root / "data" / "dataset.toml").write_text(text + '[subsets]\nday = "0$"\nnight = "1$"\n')
    return root


def test_every_camera_class_and_subset_is_counted(places, tmp_path):
    prompt = Promptable(places / "model", device="cpu")
    report = measure_clicks(prompt, PairDataset.open(places / "data", "val"), clicks=2, most=2)
    rows = {(row.method, row.part): row for row in report.rows}
    for method in ("both", "rgb", "thermal"):
        for part in ("all", "day", "night", "class car"):
            row = rows[method, part]
            assert len(row.iou) == 2
            for low, value, high in zip(row.low, row.iou, row.high, strict=True):
                assert low <= value + 0.01
                assert value <= high + 0.01
            assert 1 <= row.clicks <= 2
    assert rows["flood fill", "all"].objects == report.objects == 2
    assert {gain.part for gain in report.gains} == {"all", "day", "night"}
    write_click_report(report, tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert "GrabCut" in page
    assert "<polyline" in page
    assert "# Clicks" in (tmp_path / "report.md").read_text()
    assert json.loads((tmp_path / "report.json").read_text())["objects"] == 2


@pytest.mark.slow
def test_the_command_says_what_clicks_are_worth(places, tmp_path, capsys):
    call = ["evaluate", "--model", str(places / "model"), "--data", str(places / "data"),
            "--clicks", "2", "--out", str(tmp_path / "report"), "--device", "cpu",
            "--modality", "rgb", "--limit", "1"]  # fmt: skip
    assert main(call) == 0
    assert "clicks to 80 %" in capsys.readouterr().out
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert {row["method"] for row in report["rows"]} == {"rgb", "flood fill", "GrabCut"}


def test_options_that_clicks_know_nothing_of_are_refused(capsys):
    for more in (["--robustness"], ["--classes", "car"], ["--scales", "1,2"]):
        assert main(["evaluate", "--data", "none", "--clicks", "2", *more]) == 2
        assert f"{more[0]} is of scores of labels" in capsys.readouterr().err


def test_a_split_without_objects_is_refused(places, tmp_path):
    prompt = Promptable(places / "model", device="cpu")
    dataset = PairDataset.open(places / "data", "val")
    dataset = dataset.relabel(sartm.Classes(("unlabeled", "person"), prompts=("", "person")))
    with pytest.raises(sartm.InputError, match="no object of 200 pixels"):
        measure_clicks(prompt, dataset)
