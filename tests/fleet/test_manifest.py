"""Manifests: the three formats say the same, and what is wrong in one is found before any work."""

import json
import sys
from pathlib import Path

import pytest
from draw_training import draw_dataset

from fleet.conftest import describe_set, draw_pairs, maps_in
from sartm.cli.main import main
from sartm.data.manifest import Manifest, Row, Shard, read_shard, survey, write_manifest
from sartm.datatools.sharding import shard_dataset
from sartm.errors import InputError

ROWS = [
    Row(f"d/{index:03d}", f"rgb/{index}.png", f"s3://bucket/{index}.png") for index in range(11)
]


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_every_format_gives_back_its_rows_in_order_and_in_shards(ending, tmp_path):
    if ending == "parquet":
        pytest.importorskip("pyarrow", reason="Parquet needs the extra fleet")
    target = tmp_path / f"pairs.{ending}"
    write_manifest(ROWS, target)
    manifest = Manifest(str(target))
    found = list(manifest)
    assert [row.name for row in found] == [row.name for row in ROWS]
    assert found[3].rgb == str(tmp_path / "rgb/3.png")  # below the manifest's folder
    assert found[3].thermal == "s3://bucket/3.png"
    assert found[3].label == ""
    assert len(manifest) == 11
    parts = [list(manifest.rows(Shard(number, 4))) for number in (1, 2, 3, 4)]
    assert [len(part) for part in parts] == [2, 3, 3, 3]
    assert [row for part in parts for row in part] == found
    few = [list(manifest.rows(Shard(number, 40))) for number in range(1, 41)]  # most are empty
    assert [row for part in few for row in part] == found
    assert survey(manifest, Shard()) == 11


def test_parquet_of_many_row_groups_is_cut_where_the_rows_are(tmp_path):
    pytest.importorskip("pyarrow", reason="Parquet needs the extra fleet")
    rows = [Row(f"{index:05d}", f"{index}.png") for index in range(9000)]  # three row groups
    write_manifest(rows, tmp_path / "p.parquet")
    manifest = Manifest(str(tmp_path / "p.parquet"))
    names = [row.name for number in (1, 2) for row in manifest.rows(Shard(number, 2))]
    assert names == [row.name for row in rows]
    assert next(manifest.rows(Shard(2, 2))).name == "04500"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("name,rgb,thermal\n../a,x.png,y.png\n", "cannot name an output"),
        ("name,rgb,thermal\n/etc/a,x.png,y.png\n", "cannot name an output"),
        ("name,rgb,thermal\na,x.png,\na,y.png,\n", "would be one output"),
        (f"name,rgb,thermal\n{'n' * 300},x.png,y.png\n", "cannot name an output"),
        ("name,rgb,thermal\na,,\n", "row 1: neither rgb nor thermal"),
        ("id,visible\na,x.png\n", "columns id, visible; a manifest has name"),
        ("name,rgb\n", "no rows"),
        ('name,rgb\na,"x\n', "neither rgb|no CSV|nothing|cannot"),
    ],
)
def test_a_wrong_row_is_named_before_anything_is_written(lines, message, tmp_path, tiny, capsys):
    (tmp_path / "m.csv").write_text(lines)
    out = tmp_path / "out"
    code = main(["predict", "--manifest", str(tmp_path / "m.csv"), "--out", str(out),
                 "--model", tiny])  # fmt: skip
    if "no CSV" in message:  # an open quote swallows the rest: the pair fails, nothing else
        assert code in (2, 3)
        return
    assert code == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_half_a_character_is_refused_in_words(tmp_path):
    (tmp_path / "m.jsonl").write_text('{"name": "\\ud800", "rgb": "a.png"}\n')
    with pytest.raises(InputError, match="row 1: name is no text"):
        list(Manifest(str(tmp_path / "m.jsonl")))
    with pytest.raises(InputError, match="UTF-8"):
        write_manifest([Row("a\udcff", "a.png")], tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize("text", ["0/4", "5/4", "1/0", "a/b", "1", "-1/2"])
def test_a_shard_that_is_none_is_refused(text):
    with pytest.raises(InputError, match="--shard"):
        read_shard(text)


def test_data_manifest_lists_a_folder_and_moves_with_it(tmp_path, tiny, capsys):
    draw_pairs(tmp_path / "in", 3)
    for name in ("label",):
        (tmp_path / "in" / name).rename(tmp_path / name)  # RGB and thermal alone, loose
    assert (
        main(["data", "manifest", str(tmp_path / "in"), "--out", str(tmp_path / "in/p.jsonl")]) == 0
    )
    lines = [json.loads(line) for line in (tmp_path / "in/p.jsonl").read_text().splitlines()]
    assert [line["rgb"] for line in lines] == ["rgb/0000.png", "rgb/0001.png", "rgb/sub/0002.png"]
    (tmp_path / "in").rename(tmp_path / "moved")
    out = str(tmp_path / "out")
    assert main(["predict", "--manifest", str(tmp_path / "moved/p.jsonl"), "--out", out,
                 "--model", tiny]) == 0  # fmt: skip


def test_what_a_manifest_cannot_hold_of_a_data_set_is_said_as_options(
    tmp_path, tiny, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    draw_pairs(tmp_path / "set", 3)
    describe_set(tmp_path / "set", ("a", "b"))
    (tmp_path / "set/label").rename(tmp_path / "label")
    (tmp_path / "set/dataset.toml").write_text(
        (tmp_path / "set/dataset.toml").read_text().replace('label = "label/{name}.png"\n', "")
    )
    assert main(["data", "manifest", "set", "--out", "p.csv"]) == 0
    said = capsys.readouterr()
    command = said.out.split("next: sartm ")[1].split()
    assert command == [
        "predict", "--manifest", "p.csv", "--black-hot", "--holes", "0", "--resize-thermal",
    ]  # fmt: skip
    assert "evaluate --data set" in said.err
    more = ["--model", tiny, "--no-overlay", "--device", "cpu", "--precision", "fp32"]
    assert main([*command, "--out", "rows", *more]) == 0
    assert main(["predict", "set", "--out", "whole", *more]) == 0
    assert maps_in(tmp_path / "rows") == maps_in(tmp_path / "whole")


def test_a_manifest_of_tar_shards_is_refused(tmp_path, capsys):
    shard_dataset(draw_dataset(tmp_path / "plain", 2), tmp_path / "shards")
    assert main(["data", "manifest", str(tmp_path / "shards"), "--out", "p.csv"]) == 2
    assert "part of a tar shard; take the shards apart first" in capsys.readouterr().err


def test_without_pyarrow_parquet_is_refused_and_text_works(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match="pip install 'sartm\\[fleet\\]'"):
        write_manifest(ROWS, tmp_path / "p.parquet")
    assert write_manifest(ROWS, tmp_path / "p.csv") == 11


def test_a_manifest_that_is_not_there_is_told(capsys, tmp_path: Path):
    assert main(["predict", "--manifest", str(tmp_path / "no.csv"), "--out", "x"]) == 2
    assert "no such file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--pair", "(.*)"], "--pair pairs files; a manifest says itself what is a pair: leave"),
        (["--allow-single"], "--allow-single pairs files; a manifest says itself what is a pair"),
        (["--min-area", "9"], "--format and --min-area out"),
    ],
)
def test_what_a_manifest_has_no_use_for_is_refused(options, message, place, tiny, capsys):
    words = ["predict", "--manifest", "in/pairs.csv", "--out", "out", "--model", tiny]
    assert main([*words, *options]) == 2
    assert message in capsys.readouterr().err
    assert not Path("out").exists()
