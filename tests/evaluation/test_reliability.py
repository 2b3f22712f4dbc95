"""A confidence that comes true: how it is judged, how it is fitted, and that labels stay."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY, build
from draw_layouts import flat
from draw_layouts import save as save_image

import sartm
from sartm.classes import MFNET, Classes
from sartm.cli.main import main
from sartm.config import Calibration, Scaling
from sartm.data.pairs import PairDataset, pixel_hash
from sartm.data.sets import Pair
from sartm.errors import InputError
from sartm.evaluation.calibration import calibrate, fit_calibration
from sartm.evaluation.reliability import Reliability
from sartm.inference.confidence import confidence_of
from sartm.inference.predictor import Predictor
from sartm.inference.tiles import Tiling
from sartm.model.checkpoint import save
from sartm.model.facts import ModelFacts

Array = np.ndarray
TWO = Classes(("cold", "warm"))


def counted(confidence: Array, labels: Array, truth: Array, classes: Classes) -> Reliability:
    found = Reliability()
    found.add(confidence, labels, truth, classes)
    return found


# --- How a confidence is judged ------------------------------------------------------------------


def test_errors_are_those_of_the_definition() -> None:
    random = np.random.default_rng(0)
    sure = random.uniform(0.2, 1, (80, 90)).astype(np.float16)
    labels, truth = random.integers(0, 9, (2, 80, 90)).astype(np.uint8)
    labels[random.random((80, 90)) < 0.6] = truth[random.random((80, 90)) < 0.6][0]
    truth[:7] = 255
    found = counted(sure, labels, truth, MFNET)
    objects = (labels != 0) | (truth != 0)
    for group, chosen in (("all", truth != 255), ("objects", objects & (truth != 255))):
        c, right = sure[chosen].astype(float), (labels == truth)[chosen]
        expected = 0.0
        for low in np.arange(15) / 15:
            inside = (c >= low) & (c < low + 1 / 15 + 1e-12 * (low > 0.9))
            if inside.any():
                expected += inside.mean() * abs(c[inside].mean() - right[inside].mean())
        assert found.error(group) == pytest.approx(expected, abs=1e-9)
        part = found.describe()[group]
        assert part["pixels"] == chosen.sum()
        assert part["confidence"] == pytest.approx(100 * c.mean(), abs=1e-3)
        assert part["risk"][0]["wrong"] == pytest.approx(100 * (1 - right.mean()), abs=1e-3)


def test_risk_is_what_is_wrong_among_the_surest() -> None:
    sure = np.linspace(0.3, 0.999, 1000).reshape(20, 50)
    truth = np.ones((20, 50), np.uint8)
    labels = truth.copy()
    labels.ravel()[:300] = 2  # wrong where it is least sure
    found = counted(sure, labels, truth, MFNET)
    assert found.risks("all", (1.0, 0.8, 0.7, 0.5)) == pytest.approx([0.3, 0.125, 0, 0], abs=0.01)


def test_without_a_leftover_class_every_pixel_is_an_objects() -> None:
    nothing = np.zeros((4, 4), np.uint8)
    sure = np.full((4, 4), 0.9)
    assert "objects" not in counted(sure, nothing, nothing, MFNET).describe()
    both = counted(sure, nothing, nothing, TWO).describe()
    assert both["objects"] == both["all"]


# --- How it is fitted ----------------------------------------------------------------------------


class Overconfident(Predictor):
    """Says twice the log-odds that the truth is drawn by."""

    def batch_logits(self, pairs):  # type: ignore[no-untyped-def]
        found = []
        for rgb, _ in pairs:
            odds = torch.from_numpy(rgb[::4, ::4, 0].astype(np.float32)) / 16 - 8
            found.append(torch.stack([-odds / 2, odds / 2]))
        return found


def drawn_pairs(root: Path, pairs: int) -> PairDataset:
    """RGB that holds the log-odds of `warm`, one per pair; labels drawn by half of them."""
    random = np.random.default_rng(0)
    found = []
    for index in range(pairs):
        level = np.full((64, 96), 255 * index // (pairs - 1), np.uint8)
        chance = 1 / (1 + np.exp(-(level / 16.0 - 8) / 2))
        label = (random.random(chance.shape) < chance).astype(np.uint8)
        files = [root / kind / f"{index}.png" for kind in ("rgb", "label")]
        save_image(files[0], np.stack([level] * 3, -1))
        save_image(files[1], label)
        found.append(Pair(f"{index}", files[0], None, files[1]))
    return PairDataset(found, TWO, name="drawn", split="val")


def test_a_fit_finds_the_temperature_that_the_truth_was_drawn_with(tmp_path: Path) -> None:
    network = build(TINY)
    network.config = sartm.ModelConfig(classes=TWO)
    predictor = Overconfident(network, device="cpu")
    found = fit_calibration(predictor, [drawn_pairs(tmp_path, 12)], "rgb")
    assert found is not None
    assert found.calibration.objects.temperature == pytest.approx(2, abs=0.15)
    assert found.calibration.objects.bias == pytest.approx(0, abs=0.15)
    assert found.after < found.before


def test_what_no_pair_has_stays_as_it_was(tmp_path: Path) -> None:
    network = build(TINY)
    network.config = sartm.ModelConfig(classes=TWO)
    predictor = Overconfident(network, device="cpu")
    calibration, fitted = calibrate(predictor, [drawn_pairs(tmp_path, 2)])
    assert set(fitted) == {"rgb"}
    assert calibration.both == calibration.thermal == Calibration()


def test_confidence_is_of_the_formula_and_plain_without_a_fit() -> None:
    logits = torch.randn(9, 12, 16, generator=torch.Generator().manual_seed(0)) * 3
    plain, labels = logits.softmax(0).max(0)
    torch.testing.assert_close(confidence_of(logits, rest=0), plain, atol=1e-6, rtol=0)
    calibration = Calibration(Scaling(2.0, 0.5), Scaling(1.5, -0.25))
    odds = (plain / (1 - plain)).log()
    expected = torch.where(labels > 0, odds / 2 + 0.5, odds / 1.5 - 0.25).sigmoid()
    found = confidence_of(logits, calibration, rest=0)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    everywhere = confidence_of(logits, calibration, rest=None)
    torch.testing.assert_close(everywhere, (odds / 2 + 0.5).sigmoid(), atol=1e-4, rtol=0)


def test_neither_confidence_nor_its_report_depends_on_where_background_stands() -> None:
    calibration = Calibration(Scaling(2.0, 0.5), Scaling(1.5, -0.25))
    logits = torch.randn(3, 12, 16, generator=torch.Generator().manual_seed(0)) * 3
    moved = logits[[1, 0, 2]]
    assert torch.equal(confidence_of(moved, calibration, 1), confidence_of(logits, calibration, 0))
    first, second = (
        Classes(("background", "car", "person")),
        Classes(("car", "background", "person")),
    )
    labels, truth = np.random.default_rng(0).integers(0, 3, (2, 40, 50))
    swap = np.array([1, 0, 2])
    sure = np.full(labels.shape, 0.7, np.float32)
    whole = counted(sure, labels, truth, first)
    np.testing.assert_array_equal(
        counted(sure, swap[labels], swap[truth], second).counts, whole.counts
    )
    assert whole.counts[1, 0].sum() == ((labels > 0) | (truth > 0)).sum()


def test_an_image_in_tiles_has_the_same_confidence() -> None:
    calibration = Calibration(Scaling(3.0), Scaling(2.0))
    model = build(TINY)
    known = sartm.ModelConfig().calibration
    both = type(known)(both=calibration, rgb=known.rgb, thermal=known.thermal)
    model.config = type(model.config)(**{**vars(model.config), "calibration": both})
    random = np.random.default_rng(0)
    rgb = random.integers(0, 256, (64, 96, 3), np.uint8)
    whole = Predictor(model, device="cpu", precision="fp32")(rgb, rgb[..., 0])
    tiling = Tiling(above=1, side=96, overlap=32)
    tiled = Predictor(model, device="cpu", precision="fp32", tiling=tiling)(rgb, rgb[..., 0])
    assert tiled.logits is None
    assert tiled.summary()["confidence"] == pytest.approx(whole.summary()["confidence"], abs=0.01)
    assert whole.summary()["confidence"] < 0.9


# --- The command, the file, the report -----------------------------------------------------------


@pytest.fixture
def data(tmp_path: Path) -> Path:
    flat("rgb", "thermal", "labels")(tmp_path / "mfnet")
    return tmp_path / "mfnet"


def test_the_command_changes_confidences_and_neither_weights_nor_labels(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "model"
    save(build(TINY), folder, ModelFacts(name="small"))
    weights = (folder / "model.safetensors").read_bytes()
    dataset = PairDataset.open(data, "test")
    before = Predictor(sartm.load(folder), device="cpu").predict(dataset[0])
    words = ["weights", "calibrate", str(folder), "--data", str(data), "--split", "test"]
    assert main(words) == 0
    assert "thermal" in capsys.readouterr().out
    assert (folder / "model.safetensors").read_bytes() == weights
    content = json.loads((folder / "config.json").read_text())
    assert content["facts"]["calibrated_on"] == ["mfnet (test)"]
    assert content["model"]["calibration"]["both"]["objects"]["temperature"] != 1
    card = (folder / "README.md").read_text()
    assert "calibrated on mfnet (test)" in card
    assert "trained on" not in capsys.readouterr().err
    model = sartm.load(folder)
    after = Predictor(model, device="cpu").predict(dataset[0])
    np.testing.assert_array_equal(after.labels, before.labels)
    assert np.abs(after.confidence - before.confidence).max() > 0.05
    once = (folder / "config.json").read_bytes()
    assert main(words) == 0  # fitted to logits, not to what was fitted before
    assert (folder / "config.json").read_bytes() == once


def test_what_was_written_into_a_card_stays_and_pairs_of_the_training_are_noticed(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = PairDataset.open(data, "test")
    seen = {pairs.pairs[0].name: pixel_hash(pairs[0].rgb, pairs[0].thermal)}
    save(build(TINY), tmp_path / "model", ModelFacts(name="own", training_images=seen))
    card = tmp_path / "model" / "README.md"
    card.write_text(card.read_text() + "\n## Failures\n\nCones at night.\n")
    before = card.read_text()
    words = ["weights", "calibrate", str(tmp_path / "model"), "--data", str(data)]
    assert main([*words, "--split", "test"]) == 0
    assert "was trained on 1 of these pairs" in capsys.readouterr().err
    assert card.read_text() == before.replace(
        "is not calibrated", "is calibrated on mfnet (test), and holds for its like"
    )
    card.unlink()
    assert main([*words, "--split", "test"]) == 0
    assert "calibrated on mfnet (test)" in card.read_text()


def test_a_model_of_several_sets_is_calibrated_in_the_classes_of_each(data: Path) -> None:
    more = Classes((*MFNET.names, "sky"), prompts=(*MFNET.prompts, "sky"))
    model = build(replace(TINY, classes=more))
    pairs = PairDataset.open(data, "test")
    pooled, own = (
        fit_calibration(Predictor(each, device="cpu"), [pairs], "both")
        for each in (model, model.choose(MFNET))
    )
    assert pooled is not None
    assert pooled == own
    other = PairDataset(pairs.pairs, TWO, name="two", split="val")
    with pytest.raises(InputError, match="train new heads"):
        fit_calibration(Predictor(build(TINY), device="cpu"), [other], "both")


def test_an_export_or_foreign_weights_cannot_be_calibrated(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model.onnx").write_bytes(b"x")
    for source in (tmp_path / "model.onnx", tmp_path):
        assert main(["weights", "calibrate", str(source), "--data", str(data)]) == 2
        assert "sartm weights convert" in capsys.readouterr().err


def test_reports_show_how_far_confidence_comes_true(data: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "model", tmp_path / "out"
    save(build(TINY), folder, ModelFacts(name="small"))
    words = ["evaluate", "--model", folder, "--data", data, "--split", "test", "--out", out]
    words += ["--conditions", "thermal-missing", "--precision", "fp32"]
    assert main([str(word) for word in words]) == 0
    report = json.loads((out / "report.json").read_text())
    assert set(report["reliability"]) == {"all", "objects"}
    clean = next(row for row in report["robustness"] if row["condition"] == "clean")
    assert clean["error"] == pytest.approx(report["reliability"]["objects"]["error"], abs=1e-3)
    for name in ("report.md", "report.html"):
        page = (out / name).read_text()
        assert "Risk against coverage" in page
        assert "calibration error" in page
