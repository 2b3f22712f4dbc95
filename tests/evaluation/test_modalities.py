"""Whether thermal pays: the same pairs with both cameras and with either, and what is said."""

import json

import numpy as np
import pytest
from conftest import TINY, build
from draw_training import draw_dataset

from sartm.classes import MFNET, Classes
from sartm.cli.main import main
from sartm.evaluation.modalities import compare_modalities
from sartm.evaluation.protocols import default_protocols
from sartm.model.checkpoint import save
from sartm.model.facts import ModelFacts

ROAD = Classes(("background", "crack"))


def cracks(hits: list[int], wrong: int = 0) -> np.ndarray:
    """Counts of pairs with 100 pixels of crack, of which `hits` were found, beside `wrong` more."""
    return np.array([[[900 - wrong, wrong], [100 - hit, hit]] for hit in hits])


def a_split(seed: int, mean: float, pairs: int = 40) -> np.ndarray:
    random = np.random.default_rng(seed)
    return cracks([int(hit) for hit in random.normal(mean, 8, pairs).clip(0, 100)])


def test_scores_and_differences_are_those_of_the_sums():
    both, rgb, thermal = cracks([80, 60]), cracks([50, 50]), cracks([10, 30])
    found = compare_modalities({"both": both, "rgb": rgb, "thermal": thermal}, ROAD)
    crack = found.rows[0]
    assert [row.name for row in found.rows] == ["crack IoU", "background", "crack"]
    assert (crack.both, crack.rgb, crack.thermal) == (70, 50, 20)
    assert (crack.thermal_adds.points, crack.rgb_adds.points) == (20, 50)
    # of two pairs there are three draws: the first twice, both, the second twice
    assert (crack.thermal_adds.low, crack.thermal_adds.high) == (10, 30)
    assert found.sentence == (
        "Thermal pays: crack IoU is 70.0 % with it and 50.0 % from RGB alone "
        "(+20.0, 95 % interval +10.0 to +30.0)."
    )


@pytest.mark.parametrize(
    ("rgb", "said"),
    [(50, "Thermal pays"), (80, "Thermal costs"), (65, "Whether thermal pays, 40 pairs cannot")],
)
def test_the_sentence_says_no_more_than_the_interval(rgb, said):
    found = compare_modalities(
        {"both": a_split(0, 65), "rgb": a_split(1, rgb), "thermal": a_split(2, 20)}, ROAD
    )
    assert found.sentence.startswith(said)


def test_the_interval_is_paired():
    """With thermal every pair gains the same: however unlike the pairs, there is no doubt."""
    hits = np.random.default_rng(0).integers(10, 85, 30).tolist()
    better = cracks([hit + 5 for hit in hits])
    counts = {"both": better, "rgb": cracks(hits), "thermal": cracks([0] * 30)}
    gain = compare_modalities(counts, ROAD).rows[0].thermal_adds
    assert (gain.points, gain.low, gain.high) == (5, 5, 5)


def test_of_several_classes_those_are_named_for_which_it_is_sure():
    classes = Classes(("background", "person", "car"))
    counts = {}
    for name, person, car in (("both", 80, 60), ("rgb", 30, 60), ("thermal", 70, 20)):
        rows = [[800, 0, 0], [100 - person, person, 0], [100 - car, 0, car]]
        counts[name] = np.array([rows] * 9)
    found = compare_modalities(counts, classes)
    assert found.rows[0].name == "foreground mIoU"
    assert found.sentence.endswith("; it helps person (+50.0).")


def test_a_single_pair_has_no_interval_and_a_missing_class_no_score():
    counts = {name: cracks([50]) for name in ("both", "rgb", "thermal")}
    found = compare_modalities(counts, ROAD)
    row = found.rows[0]
    assert "(+0.0)" in found.sentence
    assert (row.thermal_adds.points, row.thermal_adds.low) == (0, None)
    empty = {name: np.array([[[900, 10], [0, 0]]] * 3) for name in counts}
    found = compare_modalities(empty, ROAD)
    assert found.rows[2].both is None
    assert json.dumps(found.sentence)


def test_the_headline_is_the_foreground_of_few_classes_and_a_benchmark_s_own():
    assert default_protocols(ROAD) == ("foreground", "all", "present")
    assert default_protocols(Classes(("road", "crack"))) == ("all", "present")
    assert default_protocols(Classes(("background", *"abcdef"))) == ("all", "present")
    assert default_protocols(MFNET)[0] == "mfnet-9"


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("model") / "small"
    save(build(TINY), folder, ModelFacts(name="small"))
    return str(folder)


def test_every_evaluation_of_pairs_has_it_and_one_of_a_camera_has_not(tmp_path, model, capsys):
    data = str(draw_dataset(tmp_path / "data", 3))
    words = ["evaluate", "--data", data, "--model", model, "--device", "cpu"]
    scores = {}
    for modality in ("both", "rgb", "thermal"):
        out = tmp_path / modality
        assert main([*words, "--modality", modality, "--out", str(out)]) == 0
        scores[modality] = json.loads((out / "report.json").read_text())
    said = capsys.readouterr().out
    assert said.count("thermal adds") == 1
    rows = scores["both"].pop("modalities")["rows"]
    assert "modalities" not in scores["rgb"]
    for seen, report in scores.items():
        assert rows[0][seen] == pytest.approx(report["means"]["mfnet-9"]["miou"], abs=1e-3)
        assert rows[2][seen] == pytest.approx(report["classes"][1]["iou"], abs=1e-3)
    for name in ("report.md", "report.html"):
        page = (tmp_path / "both" / name).read_text()
        assert "Does thermal pay?" in page
        assert "hermal pays" in page or "hermal costs" in page
        assert "Does thermal pay?" not in (tmp_path / "rgb" / name).read_text()


def test_equal_means_are_shown_once(tmp_path, capsys):
    """Every class occurs, so that `all` and `present` are one number."""
    data = draw_dataset(tmp_path / "data", 2)
    toml = data / "dataset.toml"
    names = ["background", "car", "person", "bike", "curve", "stop"]
    lines = [line for line in toml.read_text().splitlines() if "prompts" not in line]
    lines[1] = f"classes = {json.dumps(names)}"
    toml.write_text("\n".join(lines) + "\n")
    maps = tmp_path / "maps"
    maps.mkdir()
    for file in (data / "label").iterdir():
        (maps / file.name).write_bytes(file.read_bytes())
    out = tmp_path / "out"
    words = ["score", "--predictions", str(maps), "--data", str(data), "--out", str(out)]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "foreground mIoU 100.00 % over 5 classes" in said
    assert "all, present mIoU 100.00 % over 6 classes" in said
    assert set(json.loads((out / "report.json").read_text())["means"]) == {
        "foreground", "all", "present",
    }  # fmt: skip
    page = (out / "report.md").read_text()
    assert "**foreground mIoU 100.00 %** over 2 pairs" in page
    assert "| all, present | 100.00 |" in page
