"""What a folder holds: links, hidden and written folders, globs; and what cannot be read."""

import os
import pickle
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sartm.data.finding import search_pairs
from sartm.data.listing import list_files
from sartm.data.matching import pair_folder
from sartm.errors import InputError


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def names_in(rgb: str | Path, out: Path | None = None) -> list[str]:
    return [pair.name for pair in search_pairs(rgb, None, out=out).pairs]


def test_links_to_folders_are_followed_but_not_in_circles(tmp_path):
    touch(tmp_path / "far/x.png", tmp_path / "top/a.png", tmp_path / "top/sub/b.png")
    top = tmp_path / "top"
    (top / "first").symlink_to(tmp_path / "far")
    (top / "second").symlink_to(tmp_path / "far")  # both count: the other side may have both
    (top / "sub/back").symlink_to(top)
    (top / "sub/here").symlink_to(".")
    (tmp_path / "far/round").symlink_to(top)
    assert names_in(top) == ["a", "first/x", "second/x", "sub/b"]
    assert names_in(f"{top}/**/*.png") == ["a", "first/x", "second/x", "sub/b"]


def test_a_link_to_nowhere_is_not_passed_over(tmp_path):
    touch(tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to(tmp_path / "gone.png")
    (tmp_path / "c.png").symlink_to(tmp_path / "c.png")
    assert names_in(tmp_path) == ["a", "b", "c"]  # reading them says what is wrong


def test_hidden_folders_are_left_out(tmp_path):
    touch(tmp_path / "a.png", tmp_path / ".ipynb_checkpoints/a-checkpoint.png")
    touch(tmp_path / "sub/.cache/deep/b.png", tmp_path / ".c.png")
    assert names_in(tmp_path) == names_in(f"{tmp_path}/**/*.png") == ["a"]
    assert names_in(tmp_path / ".ipynb_checkpoints") == ["a-checkpoint"]  # named as such


def test_a_file_that_is_none_is_left_out(tmp_path):
    touch(tmp_path / "a.png")
    os.mkfifo(tmp_path / "b.png")
    (tmp_path / "c.png").symlink_to(tmp_path / "b.png")
    (tmp_path / "d.png").mkdir()
    assert names_in(tmp_path) == ["a"]


@pytest.mark.parametrize(
    ("marks", "start"),
    [
        (("record.jsonl",), '{"sartm": "predict"'),
        (("summary.json",), '{\n "model": "mini"'),
        (("report.json", "report.html"), "{"),
        (("metrics.jsonl", "config.json"), "{"),
    ],
)
def test_folders_of_outputs_are_not_entered(tmp_path, marks, start):
    touch(tmp_path / "a.png", tmp_path / "old/labels/a.png", tmp_path / "old/b.png")
    for mark in marks:
        (tmp_path / "old" / mark).write_text(start)
    assert names_in(tmp_path) == names_in(f"{tmp_path}/**/*.png") == ["a"]
    assert names_in(tmp_path / "old/labels") == ["a"]  # named as such


def test_other_folders_with_such_files_are(tmp_path):
    touch(tmp_path / "set/rgb/a.png", tmp_path / "set/dataset.toml", tmp_path / "b/c.png")
    for folder in ("set", "b"):
        (tmp_path / folder / "record.jsonl").write_text("{}")
        (tmp_path / folder / "summary.json").write_text('{"pairs": 3}')
    (tmp_path / "set/summary.json").write_text('{"model": ""}')
    assert names_in(tmp_path) == ["b/c", "set/rgb/a"]


def test_the_folder_that_is_written_is_not_entered(tmp_path):
    touch(tmp_path / "a.png", tmp_path / "out/labels/a.png", tmp_path / "sub/out/b.png")
    assert names_in(tmp_path, tmp_path / "out") == ["a", "sub/out/b"]
    assert names_in(tmp_path / "sub/..", tmp_path / "sub/../out") == ["a", "sub/out/b"]
    touch(tmp_path / "labels/a.png", tmp_path / "overlays/a.png")
    assert names_in(tmp_path, tmp_path) == ["a", "out/labels/a", "sub/out/b"]
    touch(tmp_path / "film-labels/1.png", tmp_path / "other-labels/2.png")
    (tmp_path / "film.json").write_text('{\n "model": "mini"')
    assert names_in(f"{tmp_path}/*-labels/*", tmp_path) == ["other-labels/2"]


def test_what_exists_is_taken_before_it_is_read_as_a_glob(tmp_path):
    folder = tmp_path / "run [2024]"
    touch(folder / "a.png", folder / "b [1].png", folder / "sub/c.png", tmp_path / "run 2/d.png")
    assert names_in(f"{folder}/*.png") == ["a", "b [1]"]
    assert names_in(folder) == ["a", "b [1]", "sub/c"]
    assert names_in(folder / "b [1].png") == ["b [1]"]
    escaped = f"{tmp_path}/run [[]2024]"
    assert names_in(f"{escaped}/*.png") == ["a", "b [1]"]
    assert names_in(escaped) == ["a", "b [1]", "sub/c"]
    assert names_in(f"{escaped}/b [[]1].png") == ["b [1]"]
    assert names_in(f"{tmp_path}/run [2-4]/*") == ["run 2/d"]
    assert len(search_pairs(f"{escaped}/b [[]1].png", folder / "a.png").pairs) == 1


def test_globs_mean_what_they_do_elsewhere(tmp_path):
    touch(*(tmp_path / name for name in ("x1.png", "x2.jpg", "a/x3.png", "a/b/x4.png", "c/x5.png")))
    for pattern, expected in (
        ("*", ["x1", "x2"]),
        ("x?.png", ["x1"]),
        ("*/*", ["a/x3", "c/x5"]),
        ("**/*.png", ["a/b/x4", "a/x3", "c/x5", "x1"]),
        ("**", ["a/b/x4", "a/x3", "c/x5", "x1", "x2"]),
        ("[ab]/**/x*", ["a/b/x4", "a/x3"]),
        ("a/**/b/*", ["b/x4"]),
    ):
        assert names_in(f"{tmp_path}/{pattern}") == expected, pattern
    with pytest.raises(InputError, match="upwards"):
        names_in(f"{tmp_path}/*/../c/*.png")


def test_a_glob_does_not_search_where_it_cannot_lead(tmp_path):
    touch(tmp_path / "a/b/c/d.png", tmp_path / "x/y.png")
    entered = []

    def enters(folder: Path) -> bool:
        entered.append(folder.name)
        return folder.name == "a"

    list_files(tmp_path, enters=enters)
    assert sorted(entered) == ["a", "b", "x"]


@pytest.mark.parametrize("name", ["n" * 300, "a\0b", "none", "file/x"])
def test_a_name_that_cannot_be_is_said(tmp_path, name):
    touch(tmp_path / "file")
    with pytest.raises(InputError, match="no such file or folder"):
        search_pairs(f"{tmp_path}/{name}", None)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may search; pytest's are of one user alone."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def as_nobody(function: Callable[[], Any]) -> Any:
    """What a function gives in a process without the rights of an administrator."""
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        if os.getuid() == 0:
            os.setuid(65534)
        os.write(writer, pickle.dumps(function()))
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        answer = file.read()
    os.waitpid(child, 0)
    return pickle.loads(answer)


def test_folders_that_may_not_be_read_are_named(open_folder, caplog):
    touch(open_folder / "a.png", open_folder / "sub/b.png", open_folder / "c/d.png")
    (open_folder / "link").symlink_to(open_folder / "sub/deeper")
    (open_folder / "sub").chmod(0)
    found = as_nobody(lambda: search_pairs(open_folder, None))
    assert [pair.name for pair in found.pairs] == ["a", "c/d"]
    assert list(found.unreadable) == [str(open_folder / "sub"), str(open_folder / "link")]
    assert all("Permission denied" in reason for reason in found.unreadable.values())
    (open_folder / "a.png").unlink()
    (open_folder / "c/d.png").unlink()

    def refusal() -> str:
        with pytest.raises(InputError) as error:
            search_pairs(open_folder, None)
        with pytest.raises(InputError, match="may not be read"):
            search_pairs(open_folder / "sub/b.png", None)
        return str(error.value)

    assert "sub cannot be read: Permission denied" in as_nobody(refusal)
    (open_folder / "sub").chmod(0o755)


def test_leftovers_of_two_sequences_or_splits_are_no_pair(tmp_path):
    kinds = {"rgb": "1/001 1/003 2/002", "thermal": "1/001 2/002 2/003", "labels": "1/001 3/002"}
    for kind, names in kinds.items():
        touch(*(tmp_path / "a" / kind / f"seq{name}.png" for name in names.split()))
    pairs = pair_folder(tmp_path / "a").pairs
    assert [pair.name for pair in pairs] == ["seq1/001", "seq2/002"]
    assert [pair.label is None for pair in pairs] == [False, True]
    for split, rgb, thermal in (("train", "13", "1"), ("test", "5", "53")):
        touch(*(tmp_path / "b" / split / "rgb" / f"{name}.png" for name in rgb))
        touch(*(tmp_path / "b" / split / "thermal" / f"{name}.png" for name in thermal))
    assert [pair.name for pair in pair_folder(tmp_path / "b").pairs] == ["1", "5"]


def test_partners_in_folders_of_each_camera_are_pairs(tmp_path):
    touch(tmp_path / "rgb/Kamera1/1.png", tmp_path / "thermal/Kamera2/1.png")
    assert len(pair_folder(tmp_path).pairs) == 1
