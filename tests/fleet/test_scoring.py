"""Scores on a manifest are those of the same pairs as a data set, however they were counted."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import pytest
from conftest import TINY, build
from draw_training import draw_dataset

import sartm
from fleet.conftest import describe_set, draw_pairs
from sartm.classes import MFNET, Classes
from sartm.cli.main import main
from sartm.data.manifest import Manifest
from sartm.fleet.evaluating import evaluate_manifest
from sartm.model.checkpoint import save
from sartm.model.facts import ModelFacts


@pytest.fixture
def drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data set of ten pairs, its manifest `pairs.jsonl` and label maps in `out`."""
    monkeypatch.chdir(tmp_path)
    draw_dataset(tmp_path / "set", 10)
    assert main(["data", "manifest", "set", "--split", "val", "--out", "pairs.jsonl"]) == 0
    return tmp_path


def report(folder: str) -> dict[str, object]:
    found = json.loads((Path(folder) / "report.json").read_text())
    for name in ("data", "command", "split", "model", "modalities", "views", "modality"):
        found.pop(name, None)
    return found


def test_evaluate_gives_the_same_report_as_of_the_data_set(drawn, tiny, capsys):
    both = ["--model", tiny, "--workers", "1"]
    assert main(["evaluate", "--data", "set", "--out", "whole", *both]) == 0
    assert main(["evaluate", "--manifest", "pairs.jsonl", "--out", "rows", *both]) == 0
    assert report("rows") == report("whole")
    assert report("rows")["intervals"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("abcdefghi", "class 0 is 'a' in the model but 'unlabeled' in the data set (9 and 9"),
        ([f"class {id_}" for id_ in range(9)], "does not name its 9 classes; if they are"),
    ],
)
def test_a_model_of_as_many_other_classes_is_refused_by_their_names(names, message, drawn, capsys):
    other = Classes(tuple(names))
    save(build(replace(TINY, classes=other)), drawn / "other", ModelFacts("other"))
    rows = ["evaluate", "--manifest", "pairs.jsonl", "--data", "set", "--model", "other"]
    assert main([*rows, "--out", "report"]) == 2
    assert message in capsys.readouterr().err
    assert not Path("report").exists()


def test_words_that_are_not_the_classes_of_the_labels_are_refused(drawn, tiny, capsys):
    rows = ["evaluate", "--manifest", "pairs.jsonl", "--data", "set", "--model", tiny]
    assert main([*rows, "--classes", "person, car", "--out", "report"]) == 2
    said = capsys.readouterr().err
    assert "'person, car' are not the classes of set" in said
    assert "--data without --manifest" in said
    assert not Path("report").exists()
    labeller = sartm.PairLabeller(sartm.load(tiny, classes=Classes(("unlabeled", "person"))))
    with pytest.raises(sartm.InputError, match="class 1 is 'person' in the model but 'car' in"):
        evaluate_manifest(labeller, Manifest("pairs.jsonl"), MFNET)


def test_a_labeller_that_is_at_work_is_scored_by_what_it_may_see_now(drawn, tiny):
    used, fresh = sartm.PairLabeller(tiny), sartm.PairLabeller(tiny)
    used.workshop()
    scored = [
        evaluate_manifest(labeller, Manifest("pairs.jsonl"), MFNET, modality="rgb")[0].confusion
        for labeller in (used, fresh)
    ]
    assert scored[0] == scored[1]
    assert used.options.modality == "both"


def test_score_gives_the_same_report_and_a_missing_map_costs_its_pair(drawn, tiny, capsys):
    predict = ["predict", "--manifest", "pairs.jsonl", "--out", "out", "--model", tiny]
    assert main([*predict, "--no-overlay"]) == 0
    assert main(["score", "--predictions", "out", "--data", "set", "--out", "whole"]) == 0
    rows = ["score", "--predictions", "out", "--manifest", "pairs.jsonl", "--data", "mfnet"]
    assert main([*rows, "--out", "rows"]) == 0
    assert report("rows") == report("whole")
    (drawn / "out/labels/004.png").unlink()
    capsys.readouterr()
    assert main([*rows, "--out", "rows"]) == 3
    assert "004.png: no such file" in capsys.readouterr().err
    assert report("rows")["pairs"] == 9


def test_beyond_what_memory_holds_the_matrices_are_summed(drawn, tiny, monkeypatch):
    predict = ["predict", "--manifest", "pairs.jsonl", "--out", "out", "--model", tiny]
    assert main([*predict, "--no-overlay"]) == 0
    rows = ["score", "--predictions", "out", "--manifest", "pairs.jsonl", "--data", "mfnet"]
    assert main([*rows, "--out", "each"]) == 0
    monkeypatch.setattr("sartm.fleet.counting.LARGEST_COUNTS", 1000)
    assert main([*rows, "--out", "sum"]) == 0
    assert report("sum") | {"intervals": 0} == report("each") | {"intervals": 0}
    assert "intervals" not in report("sum")


def test_stats_counts_what_the_data_set_holds(drawn, capsys):
    assert main(["data", "stats", "set", "--json", "-"]) == 0
    whole = json.loads(capsys.readouterr().out)["groups"]
    (ours,) = [group for group in whole if group["split"] == "val"]
    rows = ["data", "stats", "--manifest", "pairs.jsonl", "--classes", "mfnet", "--json", "-"]
    assert main(rows) == 0
    (found,) = json.loads(capsys.readouterr().out)["groups"]
    assert found | {"split": "val"} == ours


def test_what_a_data_set_says_of_its_files_counts_for_its_manifest_too(
    tmp_path, tiny, monkeypatch, capsys
):
    """Thermal of half the size, inverted and with holes; labels whose grey values are colours."""
    monkeypatch.chdir(tmp_path)
    draw_pairs(tmp_path / "set", 3)
    greys = [[28 * id_] * 3 for id_ in range(9)]  # 28 is class 1
    describe_set(tmp_path / "set", MFNET.names, f"palette = {greys}\nlabel_colours = true\n")
    for file in (tmp_path / "set/label").rglob("*.png"):
        cv2.imwrite(str(file), 28 * cv2.imread(str(file), cv2.IMREAD_UNCHANGED))
    assert main(["data", "manifest", "set", "--out", "pairs.jsonl"]) == 0
    both = ["--model", tiny, "--workers", "1"]
    assert main(["evaluate", "--data", "set", "--out", "whole", *both]) == 0
    rows = ["--manifest", "pairs.jsonl", "--data", "set"]
    assert main(["evaluate", *rows, "--out", "rows", *both]) == 0
    assert report("rows") == report("whole")
    assert main(["predict", "set", "--out", "maps", "--model", tiny, "--no-overlay"]) == 0
    maps = ["score", "--predictions", "maps"]
    assert main([*maps, "--data", "set", "--out", "whole"]) == 0
    assert main([*maps, *rows, "--out", "rows"]) == 0
    assert report("rows") == report("whole")
    groups = []
    for words in (["set"], ["--manifest", "pairs.jsonl", "--classes", "set"]):
        capsys.readouterr()
        assert main(["data", "stats", *words, "--json", "-"]) == 0
        groups.append(json.loads(capsys.readouterr().out)["groups"])
    assert groups[0] == [group | {"split": "val"} for group in groups[1]]


def test_what_is_missing_is_asked_for(drawn, tiny, capsys):
    score = ["score", "--predictions", "out", "--manifest", "pairs.jsonl"]
    for command, message in (
        (score, "a manifest does not say what ids of labels mean"),
        (["score", "--predictions", "out"], "give --data or --manifest"),
        (["evaluate", "--model", tiny], "give --data or --manifest"),
        (["evaluate", "--data", "set", "--engine", "ray"], "--engine is of --manifest"),
        (["data", "stats"], "give a data set, or --manifest"),
        (["predict", "--rgb", "set/rgb", "--shard", "1/2"], "--shard, --sink and --engine are of"),
    ):
        assert main(command) == 2
        assert message in capsys.readouterr().err


@pytest.mark.slow
def test_a_ray_cluster_sums_the_same_matrices(drawn, tiny, cluster):
    rows = ["evaluate", "--manifest", "pairs.jsonl", "--model", tiny]
    assert main([*rows, "--out", "local", "--workers", "1"]) == 0
    assert main([*rows, "--out", "ray", "--engine", "ray", "--address", cluster.address]) == 0
    ours, theirs = report("ray"), report("local")
    reliability = [found.pop("reliability") for found in (ours, theirs)]
    assert ours == theirs
    assert reliability[0]["all"]["error"] == pytest.approx(reliability[1]["all"]["error"])
