"""Which pairs a data set has: none twice, none lost in silence."""

import shutil
from pathlib import Path

import draw_layouts
import pytest
from unreadable import unreadable_folder

from sartm.cli.main import main
from sartm.data.layouts import open_layout
from sartm.errors import InputError
from sartm.files import temporary_beside
from sartm.outputs import require_distinct
from sartm.scenes.dataset import SceneOptions, write_dataset


@pytest.fixture
def drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data set of four pairs, two of them for validation, in the current folder."""
    monkeypatch.chdir(tmp_path)
    options = SceneOptions(size=(64, 64))
    return write_dataset("data", 4, options=options, validation=0.5, rgb_format="png").parent


def test_a_name_that_is_listed_again_counts_once_and_is_named(drawn, caplog):
    listed = Path("data/train.txt")
    first, second = listed.read_text().split()
    score = ["score", "--data", "data", "--split", "train", "--predictions", "data/labels"]
    assert main([*score, "--out", "once"]) == 0
    listed.write_text(f"{first}\n{second}\n{first}.png\n\n{first}\nrgb/{second}.png\n")
    assert main([*score, "--out", "again"]) == 0
    said = f"data: split 'train' lists 2 names again, such as '{first}'; each counts once"
    assert said in caplog.text
    assert [pair.name for pair in open_layout("data").splits["train"]] == [first, second]
    assert '"pairs": 2' in Path("again/report.json").read_text()


def test_benchmarks_lists_count_once_too(tmp_path, caplog):
    draw_layouts.mfnet_original(tmp_path)
    (tmp_path / "train.txt").write_text("00001D\n00002N\n00001D.png\n")
    assert [pair.name for pair in open_layout(tmp_path).splits["train"]] == ["00001D", "00002N"]
    assert "'00001D'" in caplog.text


def by_folder(root: Path) -> None:
    """The splits by a glob of names instead of lists."""
    text = (root / "dataset.toml").read_text()
    text = text.replace('"train.txt"', '"*"').replace('"val.txt"', '"*"')
    (root / "dataset.toml").write_text(text)


@pytest.mark.parametrize("command", ["check", "stats", "score", "convert"])
def test_a_folder_that_cannot_be_read_is_named_and_no_pair_lost_in_silence(drawn, capsys, command):
    by_folder(drawn)
    commands = {
        "check": ["data", "check", "data"],
        "stats": ["data", "stats", "data"],
        "score": ["score", "--data", "data", "--predictions", "data/labels"],
        "convert": ["data", "convert", "data", "--to", "flat", "--out", "out"],
    }
    capsys.readouterr()
    with unreadable_folder(drawn / "rgb"):
        assert main(commands[command]) == 2
    said = capsys.readouterr().err
    assert "cannot be read: File name too long; what it holds would be missing" in said
    assert not Path("out").exists()


def test_label_maps_in_a_folder_that_cannot_be_read_are_not_called_missing(drawn, capsys):
    shutil.copytree("data/labels", "maps")
    score = ["score", "--data", "data", "--predictions", "maps"]
    with unreadable_folder(Path("maps")):
        assert main(score) == 2
    assert "cannot be read: File name too long" in capsys.readouterr().err
    assert main(score) == 0


def test_links_are_followed_and_hidden_folders_left_out(drawn):
    by_folder(drawn)
    names = [pair.name for pair in open_layout("data").splits["train"]]
    for kind in ("rgb", "thermal", "labels"):
        Path(f"elsewhere/{kind}").mkdir(parents=True)
        for path in Path("data", kind).iterdir():
            (Path("elsewhere", kind) / path.name).write_bytes(path.read_bytes())
        Path("data", kind, "more").symlink_to(Path("elsewhere", kind).absolute())
        Path("data", kind, "round").symlink_to(".")
        shutil.copytree(Path("elsewhere", kind), Path("data", kind, ".ipynb_checkpoints"))
    found = [pair.name for pair in open_layout("data").splits["train"]]
    assert found == sorted([*names, *(f"more/{name}" for name in names)])


def test_names_that_differ_by_case_are_refused_where_they_would_be_one_file(tmp_path):
    new = temporary_beside(tmp_path / "out")
    require_distinct(new, ["rgb/A.png", "rgb/a.png"])
    new.mkdir()
    require_distinct(new, ["rgb/A.png", "rgb/a.png"])
    new.with_name(new.name.upper()).mkdir()  # as where it is the same folder
    require_distinct(new, ["rgb/A.png", "rgb/b.png"])
    with pytest.raises(InputError, match=r"'rgb/A\.png' and 'rgb/a\.png' would be one file"):
        require_distinct(new, ["rgb/A.png", "rgb/a.png"])
