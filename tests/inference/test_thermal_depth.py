"""16 bits and degrees at prediction: taken by both bundled models, with a word on the range."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import TINY, build
from draw_flir import counts_of, field, write_flir

import sartm
from sartm.cli.main import main
from sartm.data.pairs import Sample
from sartm.errors import InputError
from sartm.inference.predictor import Predictor
from sartm.inference.tiles import Tiling
from sartm.io.labels import read_label
from sartm.model.checkpoint import save
from sartm.model.facts import ModelFacts
from sartm.model.hub import bundled_models

SIZE = (64, 96)


def draw_pair() -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(4)
    rgb = cv2.resize(draw.integers(0, 256, (8, 12, 3), np.uint8), SIZE[::-1])
    return rgb, cv2.resize(draw.integers(0, 256, (8, 12), np.uint8), SIZE[::-1])


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One scene as its camera may have stored it, and a model whose rule is 8 bits."""
    monkeypatch.chdir(tmp_path)
    rgb, grey = draw_pair()
    cv2.imwrite("rgb.png", rgb)
    cv2.imwrite("grey.png", grey)
    cv2.imwrite("counts.png", grey.astype(np.uint16) * 10 + 29000)
    cv2.imwrite("black.png", 65535 - (grey.astype(np.uint16) * 10 + 29000))
    np.save("degrees.npy", grey.astype(np.float32) / 5 - 10)
    save(build(TINY), tmp_path / "model", ModelFacts("tiny"))
    return tmp_path


def predict(thermal: str, out: str, *options: str) -> int:
    return main(["predict", "rgb.png", thermal, "--model", "model", "--device", "cpu",
                 "--precision", "fp32", "--out", out, *options])  # fmt: skip


def summary(out: str) -> dict:
    return json.loads(Path(out, "summary.json").read_text())


def test_counts_and_degrees_are_labelled_and_their_range_is_told_once(place, caplog):
    for name in ("a", "b"):
        for kind, file in (("rgb", "rgb.png"), ("thermal", "counts.png")):
            Path("both", kind).mkdir(parents=True, exist_ok=True)
            Path("both", kind, f"{name}.png").write_bytes(Path(file).read_bytes())
    with caplog.at_level("INFO", "sartm"):
        assert (
            main(["predict", "both", "--model", "model", "--device", "cpu", "--out", "many"]) == 0
        )
    told = [line for line in caplog.messages if "--thermal-range" in line]
    assert len(told) == 1
    assert "percentiles 1 and 99.9" in told[0]
    used = [entry["thermal_range"] for entry in summary("many")["pairs"].values()]
    assert used[0] == used[1]
    assert 29000 <= used[0]["low"] < 29200 < 31400 < used[0]["high"] <= 31550
    assert (used[0]["unit"], used[0]["by"]) == ("counts", "image")
    assert predict("degrees.npy", "degrees") == 0
    used = summary("degrees")["pairs"]["rgb"]["thermal_range"]
    assert -10 <= used["low"] < -6 < 40 < used["high"] <= 41
    assert (used["unit"], used["by"]) == ("values", "image")


@pytest.mark.slow
def test_the_same_scene_in_the_same_range_has_the_same_labels(place):
    ways = [
        ("grey.png", []), ("grey.png", ["--thermal-range", "model"]),
        ("grey.png", ["--thermal-range", "0:255"]),
        ("counts.png", ["--thermal-range", "29000:31550"]),
        ("black.png", ["--black-hot", "--thermal-range", "33985:36535"]),
        ("degrees.npy", ["--thermal-range", "-10:41"]),
    ]  # fmt: skip
    maps = []
    for number, (thermal, options) in enumerate(ways):
        assert predict(thermal, f"out{number}", *options) == 0
        maps.append(read_label(f"out{number}/labels/rgb.png"))
        assert (maps[-1] == maps[0]).mean() > 0.999, (thermal, options)
    assert predict("counts.png", "other", "--thermal-range", "20000:60000") == 0
    assert (read_label("other/labels/rgb.png") == maps[0]).mean() < 0.99
    used = summary("out4")["pairs"]["rgb"]["thermal_range"]
    assert used == {"low": 33985, "high": 36535, "unit": "counts", "by": "option"}
    assert summary("out0")["pairs"]["rgb"]["thermal_range"]["by"] == "rule"


def test_model_refuses_and_says_what_helps(place, capsys):
    assert predict("counts.png", "out", "--thermal-range", "model") == 2
    said = capsys.readouterr().err
    assert "the model's thermal rule is uint8" in said
    assert "--thermal-range auto" in said
    assert not Path("out/labels/rgb.png").exists()
    assert predict("counts.png", "out", "--thermal-range", "40") == 2
    assert "LOW:HIGH" in capsys.readouterr().err


def test_another_range_is_another_label_map(place, capsys):
    assert predict("counts.png", "out") == 0
    capsys.readouterr()
    assert predict("counts.png", "out", "--thermal-range", "29000:31550") == 2
    assert "was made with thermal_range auto (now 29000:31550)" in capsys.readouterr().err
    assert predict("counts.png", "out") == 0
    assert "nothing to do, 1 label map is there" in capsys.readouterr().out


def test_a_large_image_is_scaled_as_a_whole(place):
    rgb, grey = draw_pair()
    counts = grey.astype(np.uint16) * 10 + 29000
    tiled = Predictor(build(TINY), device="cpu", precision="fp32",
                      tiling=Tiling(above=0, side=64, overlap=32))  # fmt: skip
    whole = Predictor(build(TINY), device="cpu", precision="fp32")
    assert tiled(rgb, counts).levels == whole(rgb, counts).levels
    assert tiled(None, counts).image.std() > 30  # an overlay's ground that shows something


def test_python_takes_the_same_ranges(place):
    rgb, grey = draw_pair()
    counts = grey.astype(np.uint16) * 10 + 29000
    model = build(TINY)
    assert Predictor(model, device="cpu")(rgb, counts).levels[0] > 29000
    for given in ("29000:31550", (29000, 31550)):
        predictor = Predictor(model, device="cpu", precision="fp32", thermal_range=given)
        assert predictor(rgb, counts).levels == (29000, 31550)
    with pytest.raises(InputError, match="uint8"):
        Predictor(model, device="cpu", thermal_range="model")(rgb, counts)
    # what is not looked at is not refused
    only = Predictor(model, device="cpu", thermal_range="model")
    assert only.predict(Sample("x", rgb, counts), "rgb").levels is None


def test_evaluation_keeps_the_rule_unless_told(place, capsys):
    Path("data").mkdir()
    for kind in ("rgb", "thermal", "labels"):
        Path("data", kind).mkdir()
    for kind, file in (("rgb", "rgb.png"), ("thermal", "counts.png")):
        Path("data", kind, "a.png").write_bytes(Path(file).read_bytes())
    label = np.zeros(SIZE, np.uint8)
    label[:20] = 2
    cv2.imwrite("data/labels/a.png", label)
    Path("data/names.txt").write_text("a\n")
    Path("data/dataset.toml").write_text(
        f"name = 'own'\nclasses = {list(TINY.classes.names)}\n[files]\nrgb = 'rgb/{{name}}.png'\n"
        "thermal = 'thermal/{name}.png'\nlabel = 'labels/{name}.png'\n"
        "[splits]\nval = 'names.txt'\n[thermal]\nunit = 'counts'\n"
    )
    command = ["evaluate", "--data", "data", "--model", "model", "--device", "cpu"]
    assert main(command) == 2
    assert "--thermal-range" in capsys.readouterr().err
    assert main([*command, "--thermal-range", "auto"]) == 0
    with pytest.raises(InputError, match="uint8"):
        sartm.evaluate(sartm.load("model"), sartm.PairDataset.open("data", "val"), device="cpu")


@pytest.mark.parametrize("name", bundled_models())
def test_the_bundled_models_take_what_readme_promises(name, place, tmp_path):
    """8 and 16 bits, degrees, and a radiometric JPEG, each to labels of the size of RGB."""
    write_flir(tmp_path / "flir.jpg", counts_of(field()))
    cv2.imwrite("small.png", np.zeros((48, 64, 3), np.uint8))
    base = ["--model", name, "--device", "cpu"]
    for thermal in ("grey.png", "counts.png", "degrees.npy"):
        assert main(["predict", "rgb.png", thermal, "--out", f"out-{thermal}", *base]) == 0
        assert read_label(f"out-{thermal}/labels/rgb.png").shape == SIZE
    flir = ["predict", "small.png", "flir.jpg", "--radiometric", "--out", "out-flir", *base]
    assert main(flir) == 0
    used = summary("out-flir")["pairs"]["small"]["thermal_range"]
    assert used["unit"] == "celsius"
    assert 5 < used["low"] < used["high"] < 45
