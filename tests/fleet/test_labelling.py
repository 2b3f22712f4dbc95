"""Manifests to label maps: the same as of folders, once each, whoever is killed in between."""

import io
import json
import tarfile
import time
from itertools import chain
from pathlib import Path

import pytest
from processes import start_command, wait

import sartm
from fleet.conftest import draw_pairs, maps_in
from sartm.cli.main import main
from sartm.data.manifest import write_manifest


def command(tiny: str, *options: str, out: str = "out") -> list[str]:
    return ["predict", "--manifest", "in/pairs.csv", "--model", tiny, "--out", out, *options]


def reference(tiny: str) -> dict[str, bytes]:
    """What `predict` on the folders makes of the same pairs."""
    inputs = ["--rgb", "in/rgb", "--thermal", "in/thermal", "--out", "whole", "--model", tiny]
    assert main(["predict", *inputs]) == 0
    return maps_in(Path("whole"))


def pairs_recorded(out: Path) -> list[str]:
    lines = [json.loads(line) for file in out.glob("record*.jsonl") for line in file.open()]
    return [line["pair"] for line in lines if "pair" in line]


@pytest.mark.slow
def test_maps_and_summary_are_those_of_the_same_pairs_in_folders(place, tiny, capsys):
    whole = reference(tiny)
    assert main(command(tiny)) == 0
    assert maps_in(place / "out") == whole
    ours, theirs = (json.loads((place / f / "summary.json").read_text()) for f in ("out", "whole"))
    assert ours["settings"] == theirs["settings"]
    for name, entry in theirs["pairs"].items():
        mine = ours["pairs"][name]
        assert {**mine, "seconds": 0, "inputs": 0} == {**entry, "seconds": 0, "inputs": 0}
        assert Path(mine["inputs"]["rgb"]).samefile(entry["inputs"]["rgb"])
    overlays = [path.read_bytes() for path in sorted((place / "out/overlays").rglob("*.jpg"))]
    assert overlays == [
        path.read_bytes() for path in sorted((place / "whole/overlays").rglob("*.jpg"))
    ]
    # a run over the folders takes them for its own, and the other way round
    inputs = ["--rgb", "in/rgb", "--thermal", "in/thermal", "--out", "out", "--model", tiny]
    assert main(["predict", *inputs]) == 0
    assert "nothing to do, 7 label maps are there" in capsys.readouterr().out


def test_a_rerun_makes_what_is_missing_and_appends_to_the_record(place, tiny, capsys):
    assert main(command(tiny)) == 0
    before, whole = (place / "out/record.jsonl").read_bytes(), maps_in(place / "out")
    times = {path: path.stat().st_mtime_ns for path in (place / "out/labels").rglob("*.png")}
    gone = place / "out/labels/0003.png"
    gone.unlink()
    assert main(command(tiny)) == 0
    assert "1 label map in out/labels, 6 were there already" in capsys.readouterr().out
    assert (place / "out/record.jsonl").read_bytes().startswith(before)
    assert maps_in(place / "out") == whole
    assert all(path.stat().st_mtime_ns == then for path, then in times.items() if path != gone)


@pytest.mark.slow
def test_what_would_be_replaced_is_named_and_kept(place, tiny, capsys):
    assert main(command(tiny)) == 0
    whole = maps_in(place / "out")
    assert main(command(tiny, "--modality", "rgb")) == 2
    assert "was made with modality both (now rgb), and 6 more" in capsys.readouterr().err
    (place / "out/labels/0001.png").write_bytes(b"my own")
    assert main(command(tiny)) == 2
    assert "0001.png was changed after it was written" in capsys.readouterr().err
    assert maps_in(place / "out") == whole | {"0001": b"my own"}
    assert main(command(tiny, "--overwrite")) == 0
    assert maps_in(place / "out") == whole
    text = (place / "in/pairs.csv").read_text()
    (place / "in/pairs.csv").write_text(text.replace("thermal/0001", "thermal/0003"))
    assert main(command(tiny)) == 2
    assert "was made of images that lie elsewhere" in capsys.readouterr().err


def test_a_map_of_somebody_else_is_no_output_of_ours(place, tiny, capsys):
    (place / "out/labels").mkdir(parents=True)
    (place / "out/labels/0001.png").write_bytes(b"theirs")
    assert main(command(tiny)) == 2
    assert "no record says what made it" in capsys.readouterr().err
    assert (place / "out/labels/0001.png").read_bytes() == b"theirs"


def test_a_bad_pair_costs_itself_and_is_tried_again(place, tiny, capsys):
    good = (place / "in/rgb/0001.png").read_bytes()
    (place / "in/rgb/0001.png").write_bytes(good[:200])
    (place / "in/thermal/0004.png").rename(place / "kept")
    assert main(command(tiny, "--json", "found.json")) == 3
    found = json.loads((place / "found.json").read_text())
    assert found["done"] == 5
    assert sorted(found["failures"]) == ["0001", "0004"]
    assert "0004.png: no such file" in capsys.readouterr().err
    assert sorted(maps_in(place / "out")) == ["0000", "0003", "0006", "sub/0002", "sub/0005"]
    (place / "in/rgb/0001.png").write_bytes(good)
    (place / "kept").rename(place / "in/thermal/0004.png")
    assert main(command(tiny)) == 0
    assert maps_in(place / "out") == reference(tiny)


@pytest.mark.parametrize("sink", ["tar", "parquet"])
@pytest.mark.slow
def test_shards_of_label_maps_hold_the_same_maps(sink, place, tiny, monkeypatch, capsys):
    if sink == "parquet":
        parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra fleet")
    monkeypatch.setattr("sartm.fleet.sink.PART_PAIRS", 3)
    whole = reference(tiny)
    assert main(command(tiny, "--sink", sink, "--no-overlay")) == 0
    parts = sorted((place / "out/labels").iterdir())
    assert [part.name for part in parts] == [f"part-{i:06d}.{sink}" for i in range(3)]
    maps = {}
    for part in parts:
        if sink == "tar":
            with tarfile.open(part) as tar:
                maps |= {m.name[:-4]: tar.extractfile(m).read() for m in tar.getmembers()}
        else:
            table = parquet.read_table(part)
            assert table["overlay"].null_count == len(table)
            maps |= dict(zip(*(table[k].to_pylist() for k in ("name", "label")), strict=True))
    assert maps == whole
    assert not (place / "out/overlays").exists()
    capsys.readouterr()
    assert main(command(tiny, "--sink", sink, "--no-overlay")) == 0
    assert "nothing to do, 7 label maps" in capsys.readouterr().out
    parts[1].unlink()  # a lost shard is made again, under a new name
    assert main(command(tiny, "--sink", sink, "--no-overlay")) == 0
    names = [part.name for part in sorted((place / "out/labels").iterdir())]
    assert names == [f"part-{i:06d}.{sink}" for i in (0, 2, 3)]


def pairs_in_parts(out: Path) -> dict[str, list[str]]:
    """Names in the shards of label maps, by shard."""
    found = {}
    for part in sorted((out / "labels").glob("*.tar")):
        with tarfile.open(part) as tar:
            found[part.name] = [name[:-4] for name in tar.getnames() if name.endswith(".png")]
    return found


@pytest.fixture
def parts(place, tiny, monkeypatch) -> dict[str, list[str]]:
    """Three shards of label maps of the seven pairs, in out/labels."""
    monkeypatch.setattr("sartm.fleet.sink.PART_PAIRS", 3)
    assert main(command(tiny, "--sink", "tar", "--no-overlay")) == 0
    return pairs_in_parts(place / "out")


ANEW = ("--sink", "tar", "--no-overlay", "--modality", "rgb", "--overwrite")


def test_shards_that_are_overwritten_hold_each_pair_once(parts, place, tiny, capsys):
    assert main(command(tiny, *ANEW)) == 0
    found = pairs_in_parts(place / "out")
    assert list(found) == [f"part-{number:06d}.tar" for number in (3, 4, 5)]
    assert list(found.values()) == list(parts.values())
    assert "replaced" not in json.loads((place / "out/summary.json").read_text())
    capsys.readouterr()
    assert main(command(tiny, *ANEW[:-1])) == 0
    assert "nothing to do, 7 label maps" in capsys.readouterr().out
    assert main(command(tiny, "--overwrite")) == 0  # as files of their own
    assert pairs_in_parts(place / "out") == {}
    assert len(maps_in(place / "out")) == 7


def test_shards_that_are_overwritten_stay_until_all_is_made(parts, place, tiny, monkeypatch):
    answer = sartm.PairLabeller.answer

    def killed(labeller, rows):
        for number, found in enumerate(answer(labeller, rows)):
            if number == 5:
                raise KeyboardInterrupt
            yield found

    with monkeypatch.context() as patch:
        patch.setattr("sartm.PairLabeller.answer", killed)
        assert main(command(tiny, *ANEW)) == 130
    assert pairs_in_parts(place / "out").items() > parts.items()
    assert main(command(tiny, *ANEW)) == 0
    found = pairs_in_parts(place / "out")
    assert not set(found) & set(parts)
    assert sorted(chain(*found.values())) == sorted(chain(*parts.values()))


def test_a_shard_with_the_only_map_of_a_pair_stays_and_is_named(
    parts, place, tiny, monkeypatch, caplog
):
    (place / "in/rgb/0001.png").write_bytes(b"no image")
    assert main(command(tiny, *ANEW)) == 3
    found = pairs_in_parts(place / "out")
    assert "0001" in parts["part-000000.tar"]
    assert list(found) == [f"part-{number:06d}.tar" for number in (0, 3, 4)]
    assert json.loads((place / "out/summary.json").read_text())["replaced"] == [
        "labels/part-000000.tar"
    ]
    assert "lie still in 1 of the shards in out, such as labels/part-000000.tar" in caplog.text

    def refuse(*_):
        raise PermissionError("not permitted")

    monkeypatch.setattr("sartm.fleet.store.Store.remove", refuse)
    assert main(command(tiny, *ANEW)) == 3
    assert "cannot remove labels/part-000003.tar" in caplog.text
    assert json.loads((place / "out/summary.json").read_text())["replaced"] == [
        f"labels/part-{number:06d}.tar" for number in (0, 3, 4)
    ]


def test_a_part_of_the_rows_is_overwritten_by_itself(place, tiny, capsys):
    sink = ("--sink", "tar", "--no-overlay")
    for number in (1, 2):
        assert main(command(tiny, *sink, "--shard", f"{number}/2")) == 0
    assert main(["data", "merge", "out"]) == 0
    before = pairs_in_parts(place / "out")
    assert main(command(tiny, *ANEW, "--shard", "1/2")) == 0
    found = pairs_in_parts(place / "out")
    assert list(found) == ["part-0001-of-0002-000002.tar", "part-0002-of-0002-000000.tar"]
    assert list(found.values()) == list(before.values())
    capsys.readouterr()  # what was made last is what counts
    assert main(command(tiny, *ANEW[:-1], "--shard", "1/2")) == 0
    assert "nothing to do, 3 label maps" in capsys.readouterr().out
    assert main(["data", "merge", "out", "--manifest", "in/pairs.csv"]) == 0


def test_one_name_in_two_parts_of_the_rows_is_refused(place, tiny, capsys):
    sink = ("--sink", "tar", "--no-overlay")
    for number in (1, 2):
        assert main(command(tiny, *sink, "--shard", f"{number}/2")) == 0
    file = place / "in/pairs.csv"
    lines = file.read_text().splitlines()
    assert lines[1].startswith("0000,")
    file.write_text("\n".join([*lines[:-1], lines[-1].replace("0006,", "0000,", 1), ""]))
    capsys.readouterr()
    commands = [command(tiny, *sink, "--shard", f"{n}/2", out="other") for n in (1, 2)]
    for words in (*commands, ["data", "merge", "out", "--manifest", "in/pairs.csv"]):
        assert main(words) == 2
        assert "'0000' and '0000' would be one output" in capsys.readouterr().err
    assert pairs_in_parts(place / "other") == {}
    assert len(list((place / "out").glob("record-*"))) == 2  # nothing was merged


@pytest.mark.slow
def test_shards_of_a_batch_system_together_are_the_whole(place, tiny, capsys):
    whole = reference(tiny)
    running = [start_command(command(tiny, "--shard", f"{i}/3")) for i in (1, 2)]
    assert [wait(process) for process in running] == [0, 0]
    assert main(["data", "merge", "out", "--manifest", "in/pairs.csv"]) == 3  # one is not run yet
    assert "3 missing: " in capsys.readouterr().err
    assert main(command(tiny, "--shard", "3/3")) == 0
    assert main(["data", "merge", "out", "--manifest", "in/pairs.csv"]) == 0
    assert maps_in(place / "out") == whole
    assert sorted(pairs_recorded(place / "out")) == sorted(whole)
    assert [path.name for path in (place / "out").glob("record*")] == ["record.jsonl"]
    assert sorted(json.loads((place / "out/summary.json").read_text())["pairs"]) == sorted(whole)
    capsys.readouterr()
    for options in ((), ("--shard", "2/5")):  # any other division goes on from there
        assert main(command(tiny, *options)) == 0
        assert "nothing to do" in capsys.readouterr().out
    (place / "out/labels/0000.png").unlink()
    assert main(["data", "merge", "out"]) == 3
    assert "1 missing: 0000" in capsys.readouterr().err


def test_two_runs_do_not_write_the_same_shard(place, tiny, capsys):
    from sartm.outputs import lock_beside, lock_folder

    with lock_folder(place / "out"):
        assert main(command(tiny)) == 2
        assert main(command(tiny, "--shard", "1/2")) == 0  # a part of its own
    (place / "out").mkdir(exist_ok=True)
    with lock_beside(place / "out/record-0002-of-0002.jsonl"):
        assert main(command(tiny, "--shard", "2/2")) == 2
        assert main(["data", "merge", "out"]) in (0, 3)  # it has no record yet
    assert "in use by" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("sink", ["files", "tar"])
def test_a_killed_run_is_gone_on_with(sink, place, tiny, monkeypatch):
    write_manifest(draw_pairs(place / "in", 30), place / "in/pairs.csv")
    monkeypatch.setattr("sartm.fleet.sink.PART_PAIRS", 4)
    kills, deadline = 0, time.monotonic() + 120
    while time.monotonic() < deadline:
        process = start_command(command(tiny, "--sink", sink, "--workers", "1"))
        seen = (place / "out/record.jsonl").stat().st_size if (place / "out").exists() else 0
        while process.is_alive() and kills < 3:
            file = place / "out/record.jsonl"
            if file.exists() and file.stat().st_size > seen + 2000:
                process.kill()
                kills += 1
                break
            time.sleep(0.01)
        if wait(process) == 0:
            break
    assert kills == 3
    whole = reference(tiny)
    maps = maps_in(place / "out")
    if sink == "tar":
        for part in (place / "out/labels").glob("*.tar"):
            with tarfile.open(fileobj=io.BytesIO(part.read_bytes())) as tar:
                maps |= {m.name[:-4]: tar.extractfile(m).read() for m in tar if m.name[-1] == "g"
                         and m.name.endswith(".png")}  # fmt: skip
    assert maps == whole
    again = len(pairs_recorded(place / "out")) - 30
    assert again <= 3  # of a kill between a line and its map


@pytest.mark.slow
def test_a_run_that_is_told_to_stop_keeps_all_that_it_made(place, tiny, monkeypatch):
    write_manifest(draw_pairs(place / "in", 200), place / "in/pairs.csv")
    monkeypatch.setattr("sartm.fleet.sink.PART_PAIRS", 20)
    process = start_command(command(tiny, "--sink", "tar", "--no-overlay"))
    deadline = time.monotonic() + 60
    while not (place / "out/record.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.02)  # until the first part is full
    time.sleep(0.2)
    process.terminate()
    assert wait(process) == 130
    count = 0
    for part in (place / "out/labels").iterdir():
        with tarfile.open(part) as tar:
            count += len(tar.getnames())
    assert 20 < count < 200
    assert count % 20  # the last part was not full
    names = pairs_recorded(place / "out")
    assert len(names) == len(set(names)) == count


def test_names_in_a_hostile_manifest_write_nothing_elsewhere(place, tiny, capsys):
    (place / "elsewhere").mkdir()
    (place / "out").mkdir()
    (place / "out/labels").mkdir()
    (place / "out/labels/sub").symlink_to(place / "elsewhere")
    assert main(command(tiny)) == 2
    assert "outside out" in capsys.readouterr().err
    assert not list((place / "elsewhere").iterdir())
