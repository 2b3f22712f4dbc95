"""Every command of README and quickstart runs, and so does their Python."""

import re
import shlex
from pathlib import Path

import cv2
import pytest

from sartm.cli import main
from sartm.data.synthetic import SceneOptions, draw_scene, write_dataset

ROOT = Path(__file__).resolve().parents[1]
SHORT = ["--max-steps", "1", "--set", "workers=0", "--set", "optim.batch_size=1",
         "--set", "augmentation.crop=[64,96]"]  # fmt: skip


def blocks(page: str, language: str) -> list[str]:
    text = (ROOT / page).read_text()
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.M | re.S)


def commands(page: str) -> list[list[str]]:
    lines = [line for block in blocks(page, "sh") for line in block.splitlines()]
    found = [shlex.split(line, comments=True) for line in lines]
    return [words[1:] for words in found if words and words[0] == "sartm"]


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the pages assume: two images, and a labelled data set."""
    monkeypatch.chdir(tmp_path)
    scene = draw_scene(7, SceneOptions(size=(96, 128)))
    for name in ("night", "scene_rgb"):
        cv2.imwrite(f"{name}.jpg", scene.rgb[..., ::-1])
    for name in ("night_thermal", "scene_thermal"):
        cv2.imwrite(f"{name}.png", scene.thermal)
    write_dataset(tmp_path / "yard", 4, options=SceneOptions(size=(96, 128)), validation=0.5)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("page", ["README.md", "docs/quickstart.md"])
def test_every_command_runs(desk: Path, page: str) -> None:
    todo = commands(page)
    assert len(todo) >= 3
    for words in todo:
        if words[0] == "train" and "--max-steps" not in words:
            words = [*words, *SHORT]
        assert main(words) == 0, words


@pytest.mark.parametrize("page", ["README.md", "docs/quickstart.md"])
def test_the_python_runs(desk: Path, page: str) -> None:
    write_dataset(desk / "scenes", 2, options=SceneOptions(size=(96, 128)), validation=0.5)
    (code,) = blocks(page, "python")
    space: dict[str, object] = {}
    exec(code, space)
    prediction = space["prediction"]
    assert prediction.labels.shape == (96, 128)  # type: ignore[attr-defined]


def test_links_between_pages_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
