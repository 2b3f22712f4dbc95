"""What is no file where one is asked for is refused at once, and --json spares what it must."""

import json
import os
import shutil
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY, build

from sartm.cli.main import main
from sartm.model.checkpoint import save
from sartm.model.facts import ModelFacts
from sartm.scenes.dataset import SceneOptions, write_dataset

IMAGES = ["--rgb", "data/rgb", "--thermal", "data/thermal"]
DATA = ["--data", "data", "--split", "train"]
SCORE = ["score", *DATA, "--predictions", "data/labels"]


@contextmanager
def at_once() -> Iterator[None]:
    """Fails where somebody waits for a pipe."""

    def complain(number: int, frame: object) -> None:
        raise AssertionError("it waits")

    before = signal.signal(signal.SIGALRM, complain)
    signal.alarm(60)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set and two models."""
    folder = tmp_path_factory.mktemp("original")
    options = SceneOptions(size=(64, 96))
    write_dataset(folder / "data", 2, options=options, validation=0.5, rgb_format="png")
    save(build(TINY), folder / "model", ModelFacts("small"))
    save(build(TINY), folder / "adapters", ModelFacts("small", encoder="x.pt"))
    return folder


@pytest.fixture
def place(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder with a copy of them."""
    shutil.copytree(original, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def put_in_place(kind: str, path: Path) -> None:
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        here = Path.cwd()
        os.chdir(path.parent)  # the name of a socket may have a hundred letters
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
        os.chdir(here)


ROLES = {
    "image": ("data/rgb/{name}.png", ["predict", "--rgb", "{file}", "--model", "model"]),
    "radiometric": (
        "x.jpg", ["predict", "--thermal", "x.jpg", "--radiometric", "--model", "model"],
    ),
    "label": ("data/labels/{name}.png", SCORE),
    "checked image": ("data/rgb/{name}.png", ["data", "check", "data"]),
    "list": ("data/train.txt", SCORE),
    "data set": ("data/dataset.toml", ["data", "check", "data/dataset.toml"]),
    "class names": ("x.txt", ["predict", *IMAGES, "--model", "model", "--classes", "x.txt"]),
    "encoder": ("x.pt", ["predict", *IMAGES, "--model", "adapters", "--encoder", "x.pt"]),
    "model": ("x.pth", ["predict", *IMAGES, "--model", "x.pth"]),
    "weights": ("model/model.safetensors", ["predict", *IMAGES, "--model", "model"]),
    "config": ("model/config.json", ["predict", *IMAGES, "--model", "model"]),
    "export": ("x.onnx", ["predict", *IMAGES, "--model", "x.onnx"]),
    "calibration": ("x.json", ["predict", *IMAGES, "--model", "model", "--align", "x.json"]),
    "recipe": ("x.json", ["train", "x.json", "--out", "run"]),
    "run": ("run/config.json", ["train", "mini", "--data", "data", "--out", "run", "--resume"]),
    "record": ("out/record.jsonl", ["predict", *IMAGES, "--model", "model"]),
}  # fmt: skip


@pytest.mark.parametrize("kind", ["pipe", "socket", "device"])
@pytest.mark.parametrize("role", ROLES)
def test_pipes_sockets_and_devices_are_refused_at_once(kind, role, place, capsys):
    pattern, command = ROLES[role]
    name = Path("data/train.txt").read_text().strip()
    path = Path(pattern.format(name=name))
    path.parent.mkdir(exist_ok=True)
    put_in_place(kind, path)
    capsys.readouterr()
    with at_once():
        status = main([part.format(file=path) for part in command])
    said = "".join(capsys.readouterr())
    assert status in (2, 3), said
    assert "Traceback" not in said
    named = path.stem if role == "label" else path.name  # its pair is named
    assert named in said or role in ("config", "run"), said
    if role not in ("config", "run", "recipe", "label", "checked image"):
        assert any(word in said for word in ("a pipe", "a socket", "a device")), said


@pytest.mark.parametrize(
    ("target", "command"),
    [
        ("data/dataset.toml", ["data", "check", "data"]),
        ("data/rgb", ["data", "check", "data"]),
        ("x/../data/train.txt", ["data", "stats", "data"]),
        ("model/config.json", ["evaluate", *DATA, "--model", "model"]),
        ("link.json", ["evaluate", *DATA, "--model", "model"]),
        ("model/model.safetensors", ["predict", *IMAGES, "--model", "model"]),
        ("shift.json", ["predict", *IMAGES, "--model", "model", "--align", "shift.json"]),
        ("out/summary.json", ["predict", *IMAGES, "--model", "model", "--out", "out"]),
        ("out/labels/a.json", ["predict", *IMAGES, "--model", "model", "--out", "out"]),
        ("film.json", ["video", *IMAGES, "--model", "model", "--out", "film.webm"]),
        ("r/report.json", [*SCORE, "--out", "r"]),
        ("new/config.json", ["export", "--format", "onnx", "--model", "model", "--out", "new"]),
        ("run/config.json", ["train", "mini", "--data", "data", "--out", "run"]),
        ("set/alignment.json", ["data", "align", "data", "--out", "set"]),
    ],
)
def test_a_file_of_json_is_none_that_the_run_reads_or_writes(target, command, place, capsys):
    Path("x").mkdir()
    Path("link.json").symlink_to("model/config.json")
    Path("shift.json").write_text(json.dumps({"homography": np.eye(3).tolist()}))
    before = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    capsys.readouterr()
    assert main([*command, "--json", target]) == 2
    said = capsys.readouterr().err
    assert f"--json {target} is" in said
    assert "choose another file" in said
    after = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    assert after == before


def test_json_goes_where_it_may(place, capsys):
    stats = ["data", "stats", "data", "--json"]
    for target in ("a.json", "a.json", "data/a.json", "data/a.json", "new/a.json", "/dev/null"):
        assert main([*stats, target]) == 0
    assert Path("/dev/null").is_char_device()
    assert not list(place.rglob(".sartm*"))
    read, write = os.pipe()
    assert main([*stats, f"/dev/fd/{write}"]) == 0
    os.close(write)
    with os.fdopen(read) as pipe:
        assert json.load(pipe) == json.loads(Path("a.json").read_text())
    Path("link.json").symlink_to("a.json")
    assert main([*stats, "link.json"]) == 0
    assert Path("link.json").is_symlink()


def test_weights_are_not_converted_onto_themselves(place, capsys):
    before = Path("model/model.safetensors").read_bytes()
    for source in ("model", "model/model.safetensors", "../" + place.name + "/model"):
        assert main(["weights", "convert", source, "--out", "model", "--half"]) == 2
        assert "is an input of this run" in capsys.readouterr().err
    assert Path("model/model.safetensors").read_bytes() == before
