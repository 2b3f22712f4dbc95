"""Commands and Python of README and quickstart run; names, options and links of all pages exist."""

import importlib.util
import json
import re
import shlex
import shutil
from pathlib import Path
from types import ModuleType

import cv2
import pytest

from sartm.cli.main import main
from sartm.scenes.dataset import SceneOptions, draw_scene, write_dataset

ROOT = Path(__file__).resolve().parents[1]
SHORT = ["--max-steps", "1", "--set", "workers=0", "--set", "optim.batch_size=1",
         "--set", "augmentation.crop=[64,96]"]  # fmt: skip


def blocks(page: str, language: str) -> list[str]:
    text = (ROOT / page).read_text()
    return re.findall(rf"^ *```{language}\n(.*?)^ *```", text, re.M | re.S)


def commands(page: str) -> list[list[str]]:
    lines = [line for block in blocks(page, "sh") for line in block.splitlines()]
    found = [shlex.split(line, comments=True) for line in lines]
    return [words[1:] for words in found if words and words[0] == "sartm"]


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the pages assume: two images, and folders of pairs, one with labels."""
    monkeypatch.chdir(tmp_path)
    scene = draw_scene(7, SceneOptions(size=(96, 128)))
    for name in ("night", "scene_rgb"):
        cv2.imwrite(f"{name}.jpg", scene.rgb[..., ::-1])
    for name in ("night_thermal", "scene_thermal"):
        cv2.imwrite(f"{name}.png", scene.thermal)
    for folder in ("yard", "new"):
        write_dataset(tmp_path / folder, 4, options=SceneOptions(size=(96, 128)), validation=0.5)
        for file in (tmp_path / folder).glob("*.t*"):  # dataset.toml and lists
            file.unlink()
    shutil.rmtree(tmp_path / "new" / "labels")
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", ["README.md", "docs/quickstart.md", "docs/own-data.md", "docs/camera-to-table.md"]
)
def test_every_command_runs(desk: Path, page: str) -> None:
    todo = commands(page)
    assert len(todo) >= 3
    for words in todo:
        if words[0] == "train" and "--max-steps" not in words:
            words = [*words, *SHORT]
        assert main(words) == 0, words


@pytest.mark.parametrize("page", ["README.md", "docs/quickstart.md", "docs/camera-to-table.md"])
def test_the_python_runs(desk: Path, page: str) -> None:
    write_dataset(desk / "scenes", 2, options=SceneOptions(size=(96, 128)), validation=0.5)
    (code,) = blocks(page, "python")
    space: dict[str, object] = {}
    exec(code, space)
    prediction = space["prediction"]
    assert prediction.labels.shape == (96, 128)  # type: ignore[attr-defined]


def script(name: str) -> ModuleType:
    """A file of scripts/ as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def signatures(page: str) -> list[str]:
    return re.findall(r"^## .*|^\* `[^`]+`", page, re.M)


def test_the_page_of_python_names_has_every_public_name_as_it_is() -> None:
    """If this fails: python scripts/make_api.py."""
    wanted = script("make_api").write_page()
    assert signatures((ROOT / "docs/api.md").read_text()) == signatures(wanted)
    purposes = re.findall(r"^\* `[^`]+`: (.*)", wanted, re.M)
    assert len(purposes) > 150
    assert all(len(purpose) > 10 for purpose in purposes)


@pytest.mark.slow
def test_the_notebook_runs_and_is_stored_with_what_it_shows() -> None:
    path = ROOT / "docs/notebook/what-thermal-adds.ipynb"
    stored = json.loads(path.read_text())
    assert path.stat().st_size < 300_000
    fresh = script("run_notebook").run(stored)
    kinds = [
        [[output["output_type"], *output.get("data", {})] for output in cell.get("outputs", ())]
        for notebook in (stored, fresh)
        for cell in notebook["cells"]
    ]
    half = len(kinds) // 2
    assert kinds[:half] == kinds[half:]
    assert sum(map(bool, kinds[:half])) >= 5


def test_options_in_every_page_exist(capsys: pytest.CaptureFixture[str]) -> None:
    known: dict[tuple[str, ...], set[str]] = {}
    count = 0
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        text = page.read_text().replace("\\\n", " ")
        for found in re.findall(r"^ *(?:`?)(sartm [^`\n|]*)", text, re.M):
            words = found.split("#")[0].split()[1:]
            if not words or words[0].startswith(("-", "=")) or not words[0].isalpha():
                continue
            command = tuple(words[: 2 if words[0] in ("data", "weights") else 1])
            if command not in known:
                assert main([*command, "--help"]) == 0, (page.name, found)
                shown = capsys.readouterr().out
                known[command] = set(re.findall(r"--[a-z][a-z-]*", shown))
            options = {word.split("=")[0] for word in words if re.match("--[a-z]", word)}
            assert options <= known[command], (page.name, found)
            count += 1
    assert count > 30


def test_the_map_for_newcomers_names_files_that_exist() -> None:
    text = (ROOT / "docs/architecture.md").read_text()
    places = set(re.findall(r"(?<![\w-])((?:\w+/)+(?:\w+\.\w+)?|(?:\w+/)*\w+\.py)", text))
    assert len(places) > 30
    homes = (ROOT, ROOT / "src/sartm", ROOT / "docs")
    assert [place for place in places if not any((home / place).exists() for home in homes)] == []
