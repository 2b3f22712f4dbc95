"""Names that files bring along, on the terminal and in reports: shown, never obeyed."""

import json
import os
import pty
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import TINY, build

from sartm.classes import Classes
from sartm.cli.main import main
from sartm.model.checkpoint import save
from sartm.model.facts import ModelFacts
from sartm.model.hub import list_weights

TITLE = "\x1b]0;owned\x07"
"""Calls the window of a terminal so."""
FORGED = "sartm: all is well"
NAME = os.fsdecode(b"a" + TITLE.encode() + b"\n" + FORGED.encode() + b"\r\xff\xc2\x9b2J D")
MODEL = NAME.encode(errors="replace").decode()
"""In UTF-8: safetensors opens no others."""
CLASS = "<img src=x onerror=alert(1)> [x](javascript:x) `|"
"""Control characters are refused in the names of classes."""
WORDS = f"{CLASS}{TITLE}\n# [x](javascript:x)\u202e\x9b2J"
CLASSES = Classes(("road", CLASS, "person"))


@pytest.fixture
def place(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: a data set and a model that are called so."""
    shutil.copytree(original, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `place` is a copy of."""
    top = tmp_path_factory.mktemp("original")
    draw = np.random.default_rng(0)
    row, column = np.mgrid[:64, :96]
    for index, name in enumerate((NAME, f"{NAME}2", "plain")):
        soft = (40 + row + column + 10 * index).astype(np.uint8)
        for kind, image in (
            ("rgb", draw.integers(0, 255, (64, 96, 3), np.uint8)),
            ("thermal", soft), ("labels", (row // 22).astype(np.uint8)),
        ):  # fmt: skip
            file = top / "data" / kind / f"{name}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(cv2.imencode(".png", image)[1].tobytes())
    names = ", ".join(json.dumps(name) for name in CLASSES.names)
    (top / "data/dataset.toml").write_text(
        f"name = {json.dumps(WORDS)}\nclasses = [{names}]\n[files]\n"
        'rgb = "rgb/{name}.png"\nthermal = "thermal/{name}.png"\nlabel = "labels/{name}.png"\n'
        f'[splits]\ntrain = "pl*"\nval = "[!p]*"\n[subsets]\n{json.dumps(WORDS)} = "D"\n'
    )
    save(build(replace(TINY, classes=CLASSES)), top / MODEL, ModelFacts(WORDS, licence=WORDS))
    return top


IMAGES = ["--rgb", "data/rgb", "--thermal", "data/thermal"]
SMALL = ["model.size=test", "model.width=32", "model.decoder.mlp_dim=64", "init=", "pictures=2",
         "augmentation.crop=[64,96]", "model.fusion.crop=[64,96]", "loss.language=0"]  # fmt: skip
COMMANDS = {
    "predict": ["predict", *IMAGES, "--model", MODEL, "--out", f"{NAME}-maps"],
    "video": ["video", *IMAGES, "--model", MODEL, "--out", f"{NAME}-film"],
    "evaluate": ["evaluate", "--data", "data", "--model", MODEL, "--out", "report"],
    "score": ["score", "--data", "data", "--predictions", "data/labels", "--out", "report"],
    "check": ["data", "check", "data", "--out", NAME],
    "stats": ["data", "stats", "data", "--out", "chart"],
    "convert": ["data", "convert", "data", "--to", "flat", "--out", f"{NAME}-set"],
    "align": ["data", "align", "data", "--per-pair", "--out", f"{NAME}-set"],
    "export": ["export", "--model", MODEL, "--format", "onnx", "--out", f"{NAME}-export"],
    "weights": ["weights", "convert", MODEL, "--out", f"{NAME}-copy"],
    "bench": ["bench", "--model", MODEL, "--size", "64x96", "--rounds", "1"],
    "demo": ["demo", "--model", MODEL],
    "train": ["train", "mini", "--data", "data", "--out", f"{NAME}-run", "--max-steps", "1",
              "--batch-size", "1", "--workers", "0", "--device", "cpu",
              *(word for setting in SMALL for word in ("--set", setting))],
    "no such model": ["predict", *IMAGES, "--model", f"no-{MODEL}"],
    "no such split": ["score", "--data", "data", "--predictions", "x", "--split", NAME],
    "no such option": ["predict", f"--{NAME}"],
    "no such choice": ["predict", "--modality", NAME],
}  # fmt: skip


def spoil() -> None:
    """A file without a partner, one that is cut off, and a label that is a picture."""
    Path("data/rgb", f"lone{NAME}.png").write_bytes(b"")
    image = Path("data/thermal", f"{NAME}2.png")
    image.write_bytes(image.read_bytes()[:-30])
    Path("data/labels", f"{NAME}2.png").write_bytes(Path("data/rgb/plain.png").read_bytes())


def require_plain_text(said: str) -> None:
    bad = re.findall(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", said)
    assert not bad, ascii(said)


@pytest.mark.parametrize(
    ("command", "spoilt"),
    [
        *(pytest.param(name, False, marks=[pytest.mark.slow] * (name in ("export", "bench")))
          for name in COMMANDS),
        *((name, True) for name in ("predict", "video", "evaluate", "score", "check", "stats",
                                    "convert", "align", "train")),
    ],
)  # fmt: skip
def test_what_commands_say_steers_no_terminal(command, spoilt, place, capfdbinary):
    if spoilt:
        spoil()
    capfdbinary.readouterr()
    status = main(COMMANDS[command])
    out, err = (stream.decode("utf-8") for stream in capfdbinary.readouterr())
    assert status in (0, 2, 3), err
    require_plain_text(out + err)
    assert f"\n{FORGED}" not in f"\n{out}\n{err}"
    assert "Traceback" not in err
    if not spoilt and command not in ("demo", "check", "convert", "align"):
        assert (status == 0) == (" " not in command), err
    if command == "score" and not spoilt:
        assert "img src=x" in out  # it is shown all the same
    for page in (*place.rglob("*.md"), *place.rglob("*.html")):
        text = page.read_text("utf-8")
        require_plain_text(text)
        assert "<img src=x" not in text, page
        if page.suffix == ".md":
            assert not re.search(r"(?<!\\)\[x\\?\]\(javascript", text), page
            assert "\n# [" not in text


def test_a_bar_on_a_terminal_shows_names_too(place):
    """Rich steers the terminal itself; names do not."""
    said = on_terminal(COMMANDS["check"])
    assert b"check" in said
    assert b"\\x1b]0;owned" in said
    assert TITLE.encode() not in said
    assert b"\n" + FORGED.encode() not in said


@pytest.mark.parametrize("columns", ["20", "40", "80"])
@pytest.mark.slow
def test_names_of_weights_can_be_copied_from_any_terminal(columns):
    said = on_terminal(["weights", "list"], COLUMNS=columns).decode()
    names = [row.name for row in list_weights()]
    assert len(names) > 5
    lines = said.splitlines()
    for name in names:
        assert any(name in line.split() for line in lines), name


def on_terminal(command: list[str], **environment: str) -> bytes:
    """What a command that succeeds writes to a terminal."""
    ours, theirs = pty.openpty()
    code = f"from sartm.cli.main import main; main({command!r})"
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=theirs,
        stderr=theirs,
        env=os.environ | environment,
    )
    os.close(theirs)
    said = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # nobody writes any more
            break
        if not part:
            break
        said += part
    assert process.wait() == 0
    os.close(ours)
    return said
