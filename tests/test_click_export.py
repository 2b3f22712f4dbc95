"""An encoder and a decoder as ONNX answer clicks as the library does, by themselves."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import CLICKED, TINY, build
from safetensors.torch import save_file
from small_weights import prompt_weights, small_model

from sartm.cli.main import main
from sartm.click_export import export_clicks
from sartm.errors import InputError
from sartm.export import draw_images
from sartm.inference.clicks import Promptable
from sartm.model.checkpoint import save
from sartm.model.clicks import FEATURES, PIXELS, ClickDecoder, ClickMaps, halve
from sartm.model.facts import ModelFacts
from sartm.model.loading import load
from sartm.model.look_graph import LookGraph
from sartm.model.looking import window_around

onnx = pytest.importorskip("onnx", reason="the extra `export` is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="the extra `export` is not installed")

ROOT = Path(__file__).resolve().parents[1]
SIZE, CANVAS = (60, 90), 96
MODELS = {
    "windows": ("clicked", "both", SIZE),
    "windows, thermal alone, shrunk": ("clicked", "thermal", (40, 1100)),
    "SAM 2": ("sam2", "both", SIZE),
    "SAM 2, rgb alone": ("sam2", "rgb", SIZE),
}


def exported_model(kind, folder):
    """One that looks at windows, or one of SAM 2's sizes with its own prompt half."""
    if kind == "clicked":
        return build(CLICKED, seed=2).eval()
    save_file(prompt_weights(), folder / "sam2.safetensors")
    model = small_model()
    model.encoder_source = str(folder / "sam2.safetensors")
    return model


class Exported:
    """Both files, run as another tool would."""

    def __init__(self, folder, rgb, thermal):
        self.encoder, self.decoder = (
            onnxruntime.InferenceSession(folder / f"{name}.onnx", quiet())
            for name in ("encoder", "decoder")
        )
        images = {"rgb": rgb, "thermal": thermal}
        given = {value.name: images[value.name][None] for value in self.encoder.get_inputs()}
        names = [value.name for value in self.encoder.get_outputs()]
        self.maps = dict(zip(names, self.encoder.run(None, given), strict=True))
        self.size = next(x.shape for x in self.decoder.get_inputs() if x.name == "mask_input")

    def ask(self, points, labels, before=None):
        found = self.decoder.run(
            None,
            self.maps
            | {
                "points": np.array(points, np.float32),
                "labels": np.array(labels, np.int32),
                "mask_input": np.zeros(self.size, np.float32) if before is None else before,
                "has_mask": np.array([before is not None]),
            },
        )
        names = [value.name for value in self.decoder.get_outputs()]
        return dict(zip(names, found, strict=True))


def quiet():
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    return options


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("clicks")


@pytest.fixture(scope="module")
def folders(home):
    """Exports by name, each made when it is asked for first."""
    made = {}

    def export(name):
        if name not in made:
            kind, modality, size = MODELS[name]
            made[name] = folder = home / str(len(made))
            model = exported_model(kind, home)
            if name == "windows":  # as people do
                save(model, home / "model", ModelFacts())
                command = ["export", "--clicks", "--format", "onnx", "--size", "60x90"]
                command += ["--model", str(home / "model"), "--out", str(folder)]
                assert main(command) == 0
            else:
                export_clicks(model, folder, size=size, modality=modality, canvas=CANVAS)
        return made[name]

    return export


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_the_files_answer_every_kind_of_prompt_as_the_library_does(name, folders, home):
    kind, modality, (height, width) = MODELS[name]
    ((rgb, thermal),) = draw_images("both", (height, width))
    rgb, thermal = rgb[::-1].copy(), np.rint(255 * thermal[:, ::-1]).astype(np.uint8)
    prompt = Promptable(
        exported_model(kind, home), canvas=CANVAS, device="cpu", precision="fp32",
        thermal_range="model",
    )  # fmt: skip
    given = (rgb if modality != "thermal" else None, thermal if modality != "rgb" else None)
    scene = prompt.encode(*given)
    exported = Exported(folders(name), rgb, thermal.astype(np.float32) / 255)
    one, two, three = (width / 3, height / 2), (width - 4, 5), (8.5, height - 9)
    box = (width / 5, 6, width / 2, height - 7)
    corners = [box[:2], box[2:]]
    start = prompt.mask(scene, [one]).logits
    many = [(1.5 * k, k) for k in range(height // 2)]
    cases = {
        "a point": ([one], [1], [one], [1], None, None),
        "several points": ([one, two, three], [1, 0, 1], [one, two, three], [1, 0, 1], None, None),
        "one that does not count": ([one, two], [1, -1], [one, two], [1, -1], None, None),
        "many points": (many, [1] * len(many), many, [1] * len(many), None, None),
        "a box": (corners, [2, 3], [], [], box, None),
        "box and points": ([*corners, one, two], [2, 3, 1, 0], [one, two], [1, 0], box, None),
        "point and mask": ([one], [1], [one], [1], None, start),
        "points and mask": ([one, two], [1, 0], [one, two], [1, 0], None, start),
        "a mask": ([(0, 0)], [-1], [], [], None, start),
    }
    for case, (points, labels, clicked, kinds, boxed, before) in cases.items():
        found = exported.ask(points, labels, before)
        expected = prompt.masks(scene, clicked, kinds, boxed, before)
        asked = np.flatnonzero(found["scores"] >= 0)
        assert asked.tolist() == ([1, 2, 3] if len(expected) == 3 else [0]), case
        assert (found["mask"] == expected[0].mask).mean() > 0.999, case
        order = asked[np.argsort(-found["scores"][asked])]
        for index, answer in zip(order, expected, strict=True):
            assert float(found["scores"][index]) == pytest.approx(answer.score, abs=1e-4), case
            np.testing.assert_allclose(found["logits"][index], answer.logits, atol=1e-3)
    assert ("present" in found) == (kind == "sam2")


def test_windows_are_found_as_the_library_finds_them():
    """Masks of many parts, and one whose ends are far apart along it."""
    size, padded = (60, 90), (64, 96)
    maps = ClickMaps(torch.zeros(1, FEATURES, 16, 24), halve(torch.zeros(1, PIXELS, *padded)))
    graph = LookGraph(ClickDecoder(32), size, size, maps)
    draw = np.random.default_rng(0)
    snake = np.zeros(padded, bool)
    snake[2:58:4, 3:87] = True
    for turn, row in enumerate(range(2, 54, 4)):
        snake[row : row + 5, 86 if turn % 2 else 3] = True
    slant = np.eye(*padded, dtype=bool)
    masks = [snake, slant, np.zeros(padded, bool), np.ones(padded, bool)]
    masks += [cv2.resize(draw.random((12, 18)), padded[::-1]) > level for level in (0.5, 0.7, 0.9)]
    for mask in masks:
        for box in (None, (10.0, 20.0, 31.5, 33.0)):
            for count in (1, 2, 5):
                points = draw.random((count, 2)).astype(np.float32) * [90, 60]
                points[0] = (4, 2) if mask[2, 3] else points[0]
                labels = draw.choice([1, 0, -1], count)
                wanted = window_around(size, mask[:60, :90], points, labels, box)
                found = graph.window_around(
                    torch.from_numpy(np.where(mask, 1.0, -1.0).astype(np.float32)),
                    torch.from_numpy(points.astype(np.float32)),
                    torch.from_numpy(labels.astype(np.int32)),
                    torch.tensor(box or (0.0,) * 4),
                    torch.tensor([box is not None]),
                )
                np.testing.assert_allclose(found.numpy(), wanted, atol=1e-3)


@pytest.mark.slow
def test_the_folder_says_what_it_is_and_is_no_model_for_labels(folders, tmp_path):
    folder = folders("windows")
    assert {path.name for path in folder.iterdir()} == {
        "encoder.onnx", "decoder.onnx", "config.json", "README.md",
    }  # fmt: skip
    written = json.loads((folder / "config.json").read_text())
    assert written["clicks"]["size"] == list(SIZE)
    for name in ("encoder", "decoder"):
        session = onnxruntime.InferenceSession(folder / f"{name}.onnx", quiet())
        about = json.loads(session.get_modelmeta().custom_metadata_map["sartm"])
        assert about == written
        assert str(ROOT).encode() not in (folder / f"{name}.onnx").read_bytes()
    # onnxruntime-web does not open what PyTorch's exporter makes of `tile`: an If whose branches
    # have other shapes
    assert "If" not in {node.op_type for node in onnx.load(folder / "encoder.onnx").graph.node}
    card = (folder / "README.md").read_text()
    for word in ("(60, 90) bool", "`mask_input`", "against PyTorch", "8-bit values / 255"):
        assert word in card
    for path in (folder, folder / "decoder.onnx"):
        with pytest.raises(InputError, match="export for clicks"):
            load(path)


def test_what_cannot_be_exported_for_clicks_is_refused_in_words(tmp_path, capsys):
    save(build(TINY), tmp_path / "model", ModelFacts())
    command = ["export", "--clicks", "--model", str(tmp_path / "model")]
    command += ["--out", str(tmp_path / "out"), "--format"]
    for options, says in (
        (["openvino", "--size", "60x90"], "--format onnx"),
        (["onnx", "--size", "60x90", "--int8"], "without --int8"),
        (["onnx"], "--size HEIGHTxWIDTH"),
        (["onnx", "--size", "20x90"], "32 to 8192"),
        (["onnx", "--size", "60x90"], "clicks need the rest"),
    ):
        assert main([*command, *options]) == 2
        assert says in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_example_clicks_without_torch_or_sartm(folders, tmp_path):
    ((rgb, thermal),) = draw_images("both", SIZE)
    thermal = np.rint(255 * thermal).astype(np.uint8)
    for kind, image in (("rgb", rgb[..., ::-1]), ("thermal", thermal)):
        cv2.imwrite(str(tmp_path / f"{kind}.png"), image)
    arguments = ["example", str(folders("windows")), str(tmp_path / "rgb.png")]
    arguments += [str(tmp_path / "thermal.png"), str(tmp_path / "mask.png"), "20,30", "70,10,0"]
    examples = str(ROOT / "examples")
    code = (
        "import runpy, sys\n"
        f"sys.argv = {arguments!r}\n"
        f"sys.path.insert(0, {examples!r})\n"
        f"runpy.run_path({examples + '/click_without_torch.py'!r}, run_name='__main__')\n"
        "assert not {'torch', 'sartm'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("expected IoU") == 2
    prompt = Promptable(
        build(CLICKED, seed=2), device="cpu", precision="fp32", thermal_range="model"
    )
    scene = prompt.encode(rgb, thermal)
    first = prompt.mask(scene, [(20, 30)])
    second = prompt.mask(scene, [(20, 30), (70, 10)], [1, 0], mask_input=first.logits)
    mask = cv2.imread(str(tmp_path / "mask.png"), cv2.IMREAD_UNCHANGED)
    assert ((mask > 0) == second.mask).mean() > 0.999

    # A second box is another wish, not more of the first.
    arguments[-2:] = ["5,5,40,30", "30,20,80,55"]
    run = [sys.executable, str(ROOT / "examples" / "click_without_torch.py"), *arguments[1:-2]]
    subprocess.run([*run, *arguments[-2:]], capture_output=True, check=True)
    first = prompt.mask(scene, box=(5, 5, 40, 30))
    second = prompt.mask(scene, box=(30, 20, 80, 55), mask_input=first.logits)
    mask = cv2.imread(str(tmp_path / "mask.png"), cv2.IMREAD_UNCHANGED)
    assert ((mask > 0) == second.mask).mean() > 0.999
    for click, says in (
        ("90,5", "outside"), ("nan,5", "outside"), ("5,5,100,30", "outside"),
        ("40,5,5,30", "upper left"), ("5,5,2", "no click"),
    ):  # fmt: skip
        done = subprocess.run([*run, click], capture_output=True, text=True)
        assert done.returncode == 1
        assert says in done.stderr
