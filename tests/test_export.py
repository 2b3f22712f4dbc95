"""Exported models compute what PyTorch computes, are taken as models, and refuse what is wrong."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import TINY, build

import sartm
from sartm.cli.main import main
from sartm.config import Calibration, Calibrations, Scaling, ThermalRule
from sartm.data.pairs import Sample
from sartm.errors import InputError
from sartm.export import Comparison, draw_images, export_model, require_same
from sartm.inference.predictor import Predictor
from sartm.inference.products import fingerprint
from sartm.model.checkpoint import save
from sartm.model.exported import ExportSettings, open_export
from sartm.model.facts import ModelFacts
from sartm.model.loading import load, load_for_training
from sartm.training.recipes import mini

pytest.importorskip("onnx", reason="the extra `export` is not installed")
pytest.importorskip("onnxruntime", reason="the extra `export` is not installed")
pytest.importorskip("openvino", reason="the extra `export` is not installed")
pytest.importorskip("nncf", reason="the extra `export` is not installed")

RUNTIMES = ["onnx", pytest.param("openvino", marks=pytest.mark.slow)]
ROOT = Path(__file__).resolve().parents[1]
RULE = ThermalRule("range", 1000.0, 3000.0)
SURE = Calibrations(both=Calibration(Scaling(2.0, -0.5), Scaling(1.5, -1.0)))


def draw_sample(height, width, seed=0, name="drawn"):
    """A pair with raw thermal counts."""
    ((rgb, thermal),) = draw_images("both", (height, width))
    noise = np.random.default_rng(seed).normal(0, 0.05, thermal.shape)
    raw = (1000 + 2000 * (thermal + noise).clip(0, 1)).astype(np.uint16)
    return Sample(name, np.roll(rgb, 7 * seed, axis=1), raw)


@pytest.fixture(scope="module")
def model():
    """The architecture of `mini`, with a thermal rule and view that are not the defaults."""
    config = replace(
        mini().model, thermal=RULE, thermal_view="contrast", calibration=SURE
    )  # fmt: skip
    made = build(config).eval()
    made.facts = ModelFacts(name="drawn", training_images={"one": "ab" * 32})
    return made


@pytest.fixture(scope="module")
def onnx_folder(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("onnx") / "both"
    export_model(model, folder)
    return folder


@pytest.mark.slow
def test_an_export_is_as_sure_as_the_model(model, onnx_folder):
    exported = load(onnx_folder)
    assert exported.config.calibration == SURE
    sample = draw_sample(64, 96)
    ours, theirs = (
        Predictor(each, device="cpu", precision="fp32").predict(sample)
        for each in (model, exported)
    )
    np.testing.assert_allclose(ours.confidence, theirs.confidence, atol=2e-3)
    plain = ours.logits.softmax(0).amax(0)
    assert abs(float(plain.mean()) - float(ours.confidence.mean())) > 0.02


@pytest.fixture(scope="module")
def openvino_folder(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("openvino") / "both"
    export_model(model, folder, format="openvino")
    return folder


@pytest.fixture(scope="module")
def thermal_folder(tmp_path_factory):
    """A small model that sees thermal alone, at one size."""
    folder = tmp_path_factory.mktemp("onnx") / "thermal"
    export_model(build(TINY).eval(), folder, modality="thermal", size=(70, 100))
    return folder


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("size", [(64, 96), (101, 170)], ids=str)
@pytest.mark.slow
def test_an_export_labels_a_pair_of_any_size_as_the_model_does(runtime, size, model, request):
    folder = request.getfixturevalue(f"{runtime}_folder")
    sample = draw_sample(*size)
    expected = Predictor(model, precision="fp32").predict(sample)
    found = Predictor(load(folder), precision="fp32").predict(sample)
    assert found.labels.shape == size
    assert (found.labels == expected.labels).mean() > 0.999
    torch.testing.assert_close(found.logits, expected.logits, rtol=0, atol=1e-4)


def test_a_batch_is_labelled_as_its_pairs_are(onnx_folder):
    exported = load(onnx_folder)
    images = [draw_images("both", (64, 96))[0], draw_images("both", (64, 96))[0]]
    images[1] = (images[1][0][:, ::-1], images[1][1][:, ::-1])
    batch = exported.run(
        {"rgb": np.stack([x for x, _ in images]), "thermal": np.stack([y for _, y in images])}
    )
    for found, (rgb, thermal) in zip(batch, images, strict=True):
        np.testing.assert_allclose(found, exported.logits(rgb, thermal), atol=1e-5)


@pytest.fixture
def three_threads():
    """As on a machine of three cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("three_threads")
@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.slow
def test_pairs_side_by_side_are_labelled_as_one_after_another(runtime, request):
    """Sizes alternate, so that calls on different graphs overlap too."""
    model = load(request.getfixturevalue(f"{runtime}_folder"))
    predictor = Predictor(model, precision="fp32")
    samples = [draw_sample(64 + 32 * (index % 2), 96, index) for index in range(12)]
    alone = [predictor.predict(sample).labels for sample in samples]
    with predictor.side_by_side() as workers, ThreadPoolExecutor(workers) as pool:
        assert workers == 3
        together = [prediction.labels for prediction in pool.map(predictor.predict, samples)]
    assert any(len(np.unique(labels)) > 1 for labels in alone)
    for ours, theirs in zip(together, alone, strict=True):
        assert (ours == theirs).mean() > 0.999
    assert np.array_equal(predictor.predict(samples[0]).labels, alone[0])


@pytest.mark.slow
def test_the_file_says_itself_what_it_is(onnx_folder, openvino_folder, model):
    assert {path.name for path in onnx_folder.iterdir()} == {
        "model.onnx", "config.json", "README.md",
    }  # fmt: skip
    assert {path.name for path in openvino_folder.iterdir()} == {
        "model.xml", "model.bin", "config.json", "README.md",
    }  # fmt: skip
    for file in (onnx_folder / "model.onnx", openvino_folder / "model.xml"):
        exported = sartm.load(file)
        assert exported.config == model.config
        assert exported.facts == model.facts
        assert str(ROOT).encode() not in file.read_bytes()
    written = json.loads((onnx_folder / "config.json").read_text())
    assert written["model"]["thermal"]["low"] == 1000
    assert written["export"] == {
        "format": "onnx", "modality": "both", "precision": "fp32", "size": None, "opset": 17,
    }  # fmt: skip
    card = (onnx_folder / "README.md").read_text()
    for word in ("opset 17", "any height, width and batch", "1000 to 3000", "| 2 | person |"):
        assert word in card


@pytest.mark.slow
def test_a_thermal_export_of_one_size_takes_nothing_else(thermal_folder):
    predictor = Predictor(load(thermal_folder / "model.onnx"))
    sample = replace(draw_sample(70, 100), rgb=None)
    sample = replace(sample, thermal=(sample.thermal // 16).astype(np.uint8))
    expected = Predictor(build(TINY), precision="fp32").predict(sample)
    assert (predictor.predict(sample).labels == expected.labels).mean() > 0.999
    with pytest.raises(InputError, match="fixed to 70x100, found 64x64"):
        predictor.predict(replace(sample, thermal=sample.thermal[:64, :64]))
    rgb = np.zeros((70, 100, 3), np.uint8)
    with pytest.raises(InputError, match="takes thermal, found rgb and thermal"):
        predictor.predict(replace(sample, rgb=rgb))


def test_a_missing_modality_and_wrong_shapes_are_explained(onnx_folder):
    exported = load(onnx_folder)
    rgb, thermal = draw_images("both", (64, 96))[0]
    with pytest.raises(InputError, match=r"takes rgb and thermal, found rgb; .*--modality"):
        exported.logits(rgb, None)
    with pytest.raises(InputError, match="uint8"):
        exported.logits(rgb.astype(np.float32), thermal)
    with pytest.raises(InputError, match="one channel"):
        exported.logits(rgb, thermal[..., None])
    with pytest.raises(InputError, match="differ in size"):
        exported.logits(rgb, thermal[:32])
    with pytest.raises(InputError, match="bf16"):
        Predictor(exported, precision="bf16")
    with pytest.raises(InputError, match="CPU"):
        Predictor(exported, device="cuda")


@pytest.mark.parametrize("name", ["model.onnx", "model.xml"])
@pytest.mark.slow
def test_a_damaged_file_is_refused(name, onnx_folder, openvino_folder, tmp_path):
    home = onnx_folder if name.endswith("onnx") else openvino_folder
    whole = (home / name).read_bytes()
    for content in (b"", b"not a model", whole[: len(whole) // 2]):
        (tmp_path / name).write_bytes(content)
        (tmp_path / "model.bin").write_bytes(b"short")
        with pytest.raises(InputError, match=r"model\.(onnx|xml)"):
            load(tmp_path / name)
    with pytest.raises(InputError, match="no such file"):
        load(tmp_path / f"other{name}")


@pytest.mark.slow
def test_a_file_that_lies_about_itself_is_refused(onnx_folder, tmp_path):
    import onnx

    graph = onnx.load(onnx_folder / "model.onnx")
    values = json.loads(graph.metadata_props[0].value)
    values["export"]["modality"] = "rgb"
    lies = {
        "is not what it says": json.dumps(values),
        "format": json.dumps(values | {"format": 10**6}),
        "damaged": "[" * 10_000,
        "was not made by": "",
        "unknown config key": json.dumps(values | {"extra": 1}),
    }
    for message, text in lies.items():
        graph.metadata_props[0].value = text
        onnx.save(graph, tmp_path / "model.onnx")
        with pytest.raises(InputError, match=message):
            load(tmp_path / "model.onnx")


def test_a_difference_is_no_success():
    settings = ExportSettings("onnx")
    good = Comparison(1, True, 1e-5, 5.0, 1.0)
    require_same(good, settings, None)
    for bad in ({"difference": 0.1}, {"agreement": 0.99}, {"difference": float("inf")}):
        with pytest.raises(InputError, match="Nothing was written"):
            require_same(replace(good, **bad), settings, None)


@pytest.mark.slow
def test_an_export_that_differs_is_not_written(tmp_path):
    with pytest.raises(InputError, match="does not compute what PyTorch does"):
        export_model(build(TINY).eval(), tmp_path / "out", agreement=1.001)  # more than all
    assert not list(tmp_path.iterdir())


def test_options_that_do_not_fit_are_refused_before_work(tmp_path):
    model = build(TINY).eval()
    with pytest.raises(InputError, match="--format openvino"):
        export_model(model, tmp_path / "a", int8=True, calibration=[draw_sample(64, 64)])
    with pytest.raises(InputError, match="--data"):
        export_model(model, tmp_path / "a", format="openvino", int8=True)
    with pytest.raises(InputError, match="32 to 8192"):
        export_model(model, tmp_path / "a", size=(0, 64))
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "mine.txt").write_text("kept")
    with pytest.raises(InputError, match=r"mine\.txt"):
        export_model(model, tmp_path / "a")
    single = Sample("single", None, np.zeros((64, 64), np.uint8))
    with pytest.raises(InputError, match="has only thermal"):
        export_model(model, tmp_path / "b", samples=[single])


@pytest.mark.slow
@pytest.mark.skipif(
    "SARTM_TEST_INT8" not in os.environ,
    reason="NNCF's analysis of the graph takes a minute or more; set SARTM_TEST_INT8=1 to run it",
)
def test_an_int8_export_is_calibrated_on_pairs_of_any_size_and_takes_that_of_the_first(tmp_path):
    model = build(replace(TINY, thermal=RULE)).eval()
    pairs = [draw_sample(64, 96, seed) for seed in range(3)] + [draw_sample(96, 64, 4)]
    result = export_model(
        model,
        tmp_path / "int8",
        format="openvino",
        int8=True,
        samples=pairs[:2],
        calibration=pairs,
        agreement=0.5,  # random weights decide by hairs
    )
    assert result.settings.precision == "int8"
    assert result.settings.size == (64, 96)
    graph = (tmp_path / "int8" / "model.xml").read_text()
    assert "FakeQuantize" in graph
    opened = open_export(result.file)
    assert opened.logits(*draw_images("both", (64, 96))[0]).shape == (9, 16, 24)
    with pytest.raises(InputError, match="64x96"):
        opened.logits(*draw_images("both", (100, 132))[0])


def test_an_export_is_no_start_of_training(onnx_folder):
    with pytest.raises(InputError, match="weights cannot be taken out"):
        load_for_training(onnx_folder)


@pytest.mark.slow
def test_exports_of_other_weights_have_other_fingerprints(onnx_folder, thermal_folder):
    first, second = load(onnx_folder), load(thermal_folder)
    assert fingerprint(first) == fingerprint(load(onnx_folder)) != fingerprint(second)


def write_pair(folder, sample):
    for kind, pixels in (("rgb", sample.rgb[..., ::-1]), ("thermal", sample.thermal)):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        (folder / kind / "one.png").write_bytes(cv2.imencode(".png", pixels)[1].tobytes())


@pytest.mark.slow
def test_the_commands_export_and_predict_with_the_export(tmp_path, capsys):
    save(build(replace(TINY, thermal=RULE)), tmp_path / "model", ModelFacts())
    write_pair(tmp_path, draw_sample(64, 96))
    out = tmp_path / "exported"
    command = ["export", "--model", str(tmp_path / "model"), "--format", "onnx", "--out", str(out)]
    assert main([*command, "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["agreement"] >= 0.999
    pair = ["--rgb", str(tmp_path / "rgb"), "--thermal", str(tmp_path / "thermal")]
    pair += ["--precision", "fp32"]
    maps = []
    for model in (out / "model.onnx", tmp_path / "model"):
        to = tmp_path / f"labels-{model.name}"
        assert main(["predict", *pair, "--model", str(model), "--out", str(to)]) == 0
        maps.append(cv2.imread(str(to / "labels" / "one.png"), cv2.IMREAD_UNCHANGED))
    assert (maps[0] == maps[1]).mean() > 0.999
    capsys.readouterr()
    assert main([*command[:2], str(out), *command[3:]]) == 2
    assert "is an export already" in capsys.readouterr().err
    alone = ["predict", *pair[:2], "--model", str(out), "--out", str(tmp_path / "alone")]
    assert main(alone) == 2
    assert "--modality" in capsys.readouterr().err


def test_the_example_labels_a_pair_without_torch_or_sartm(onnx_folder, model, tmp_path):
    sample = draw_sample(100, 132)
    write_pair(tmp_path, sample)
    arguments = ["example", str(onnx_folder / "model.onnx")]
    arguments += [str(tmp_path / kind / "one.png") for kind in ("rgb", "thermal")]
    arguments.append(str(tmp_path / "labels.png"))
    code = (
        "import runpy, sys\n"
        f"sys.argv = {arguments!r}\n"
        f"runpy.run_path({str(ROOT / 'examples' / 'run_without_torch.py')!r}, "
        "run_name='__main__')\n"
        "assert not {'torch', 'sartm'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    labels = cv2.imread(str(tmp_path / "labels.png"), cv2.IMREAD_UNCHANGED)
    expected = Predictor(model, precision="fp32").predict(sample)
    assert (labels == expected.labels).mean() > 0.999
    assert "%" in done.stdout
