"""Tar shards hold a data set as it is: for every command, for WebDataset, and against forgeries."""

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from draw_training import draw_dataset

from sartm.cli.main import main
from sartm.data.layouts import open_layout
from sartm.data.pairs import PairDataset
from sartm.datatools.sharding import shard_dataset
from sartm.errors import InputError


@pytest.fixture
def sets(tmp_path: Path) -> tuple[Path, Path]:
    """A data set of 20 pairs, and its shards of a few pairs each."""
    draw_dataset(tmp_path / "plain", 20, 6)
    done = shard_dataset(tmp_path / "plain", tmp_path / "shards", most=200_000)
    assert done.splits == {"train": 20, "val": 6}
    assert done.shards > 3
    return tmp_path / "plain", tmp_path / "shards"


def test_every_pair_is_as_it_was(sets):
    plain, shards = sets
    for split in ("train", "val"):
        ours, theirs = (PairDataset.open(path, split) for path in (shards, plain))
        assert ours.classes == theirs.classes
        for mine, other in zip(ours, theirs, strict=True):
            assert mine.name == other.name
            for kind in ("rgb", "thermal", "label"):
                assert np.array_equal(getattr(mine, kind), getattr(other, kind))


def test_a_split_may_be_called_what_no_file_can_be(tmp_path):
    """Names of splits are free in dataset.toml; shards are called by what of them is safe."""
    draw_dataset(tmp_path / "plain", 3, 0)
    toml = tmp_path / "plain/dataset.toml"
    lines = '"night time" = "train.txt"\n"../../night" = "00*"\n'
    toml.write_text(toml.read_text().replace('train = "train.txt"\n', lines))
    shard_dataset(tmp_path / "plain", tmp_path / "shards")
    found = open_layout(tmp_path / "shards").splits
    assert {split: len(pairs) for split, pairs in found.items()} == {
        "night time": 3, "../../night": 3,
    }  # fmt: skip
    assert PairDataset.open(tmp_path / "shards", "night time")[2].rgb is not None
    assert {file.suffix for file in (tmp_path / "shards").iterdir()} == {".tar", ".jsonl", ".toml"}


@pytest.mark.parametrize(
    ("name", "pattern", "message"),
    [
        ("12:30:00", "{name}.png", "'12:30:00000' cannot be named so in shards"),
        ("001.image_of_rgb", "{name}", r"of_rgb000: shards hold files that end in"),
    ],
)
def test_names_that_could_not_be_read_back_are_refused(name, pattern, message, tmp_path):
    draw_dataset(tmp_path / "plain", 2, 0)
    toml = tmp_path / "plain/dataset.toml"
    toml.write_text(toml.read_text().replace("rgb/{name}.png", f"rgb/{pattern}"))
    for kind in ("rgb", "thermal", "label"):
        for index in ("000", "001"):
            file = tmp_path / f"plain/{kind}/{index}.png"
            new = (pattern if kind == "rgb" else "{name}.png").replace("{name}", name + index)
            file.rename(file.with_name(new))
    (tmp_path / "plain/train.txt").write_text(f"{name}000\n{name}001\n")
    with pytest.raises(InputError, match=message):
        shard_dataset(tmp_path / "plain", tmp_path / "shards")
    assert not (tmp_path / "shards").exists()


def test_what_is_wrong_with_an_index_is_what_check_says(sets, capsys):
    index = sets[1] / "index.jsonl"
    index.write_text("".join(line for line in index.open() if '"split": "val"' not in line))
    assert main(["data", "check", str(sets[1])]) == 2
    assert "index.jsonl has no shards of split 'val'" in capsys.readouterr().err


def test_any_reader_of_tar_finds_the_files(sets):
    plain, shards = sets
    found = {}
    for path in sorted(shards.glob("train-*.tar")):
        with tarfile.open(path) as tar:
            found |= {member.name: tar.extractfile(member).read() for member in tar}
    assert found["003.rgb.png"] == (plain / "rgb/003.png").read_bytes()
    assert sorted(found) == sorted(
        f"{index:03d}.{kind}.png" for index in range(20) for kind in ("rgb", "thermal", "label")
    )


@pytest.mark.slow
def test_check_stats_and_convert_take_them(sets, tmp_path, capsys):
    plain, shards = sets
    figures = []
    for path in sets:
        capsys.readouterr()
        assert main(["data", "check", str(path)]) == 3  # val is part of train, under other names
        assert "same pair: 004 (train), val-4 (val)" in capsys.readouterr().out
        assert main(["data", "stats", str(path), "--json", "-"]) == 0
        figures.append(json.loads(capsys.readouterr().out)["groups"])
    assert figures[0] == figures[1]
    assert main(["data", "convert", str(shards), "--out", str(tmp_path / "again")]) == 0
    again = PairDataset.open(tmp_path / "again", "train")
    for mine, other in zip(again, PairDataset.open(plain, "train"), strict=True):
        assert np.array_equal(mine.rgb, other.rgb)
        assert np.array_equal(mine.label, other.label)
    assert main(["app", "--annotate", str(shards)]) == 2
    assert "cannot be corrected; take them apart" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"train-000000.tar"', '"../../../etc/passwd"'),
        ('"000"', '"../../escape"'),
        ('".png", 512', '".png", -1'),
        ('".png", 512', '".png", "x"'),
        ('".png", 512', '"/../x", 512'),
        ('"rgb"', '"hostile"'),
    ],
)
def test_a_forged_index_is_refused(sets, old, new):
    index = sets[1] / "index.jsonl"
    text = index.read_text()
    assert old in text
    index.write_text(text.replace(old, new))
    with pytest.raises(InputError, match=r"index\.jsonl, line 1: "):
        open_layout(sets[1])


def test_a_shard_that_is_cut_off_or_gone_is_named(sets):
    shards = sets[1]
    first = shards / "train-000000.tar"
    first.write_bytes(first.read_bytes()[:3000])
    with pytest.raises(InputError, match=r"train-000000\.tar/000\.rgb\.png: the archive is short"):
        PairDataset.open(shards, "train")[0]
    first.unlink()
    with pytest.raises(InputError, match=r"train-000000\.tar"):
        PairDataset.open(shards, "train")[0]


def test_webdataset_reads_them(sets):
    webdataset = pytest.importorskip("webdataset", reason="WebDataset is not installed")
    names = sorted(str(path) for path in sets[1].glob("train-*.tar"))
    samples = list(webdataset.WebDataset(names, shardshuffle=False, empty_check=False))
    assert [sample["__key__"] for sample in samples] == [f"{i:03d}" for i in range(20)]
    assert {"rgb.png", "thermal.png", "label.png"} <= set(samples[0])
