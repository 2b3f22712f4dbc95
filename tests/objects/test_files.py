"""`predict --objects` and `video --objects`: one table in three files, complete after any run."""

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import TINY, build

from sartm.cli.main import main
from sartm.io.labels import read_label
from sartm.model.checkpoint import save
from sartm.model.facts import ModelFacts
from sartm.objects.table import HEAD
from sartm.scenes.dataset import SceneOptions, write_dataset

SIZE = (96, 128)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Path:
    """Three pairs in Celsius and a model."""
    folder = tmp_path_factory.mktemp("drawn")
    write_dataset(folder / "set", 3, 5, SceneOptions(size=SIZE, thermal="celsius"))
    save(build(TINY, seed=2), folder / "tiny", ModelFacts())
    return folder


def predict(drawn: Path, out: Path, *more: str) -> int:
    command = ["predict", "--rgb", f"{drawn}/set/rgb", "--thermal", f"{drawn}/set/thermal"]
    command += ["--out", str(out), "--model", f"{drawn}/tiny", "--device", "cpu", *more]
    return main(command)


def read_tables(stem: Path) -> tuple[list[dict], list[dict], list[dict]]:
    """CSV with its texts as what they stand for, JSON lines, and the properties of GeoJSON."""
    lines = [json.loads(line) for line in Path(f"{stem}.jsonl").read_text().splitlines()]
    with Path(f"{stem}.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    kinds = {name: type(value) for line in lines for name, value in line.items() if value != None}  # noqa: E711
    table = [
        {name: kinds[name](text) if text else None for name, text in row.items()} for row in rows
    ]
    collection = json.loads(Path(f"{stem}.geojson").read_text())
    assert collection["type"] == "FeatureCollection"
    return table, lines, [feature["properties"] for feature in collection["features"]]


def test_three_files_say_the_same_of_every_object(drawn, tmp_path, capsys):
    assert predict(drawn, tmp_path, "--objects", "--degrees", "celsius", "--min-area", "12") == 0
    table, lines, features = read_tables(tmp_path / "objects")
    assert table == lines == features
    assert len(lines) > 3
    assert f"{len(lines)} objects in {tmp_path / 'objects.csv'}" in capsys.readouterr().out
    assert list(lines[0]) == list(HEAD)
    summary = json.loads((tmp_path / "summary.json").read_text())
    for name, entry in summary["pairs"].items():
        own = [line for line in lines if line["pair"] == name]
        assert sum(entry["objects"].values()) == len(own)
        assert [line["id"] for line in own] == list(range(1, len(own) + 1))
        label = read_label(tmp_path / f"labels/{name}.png")
        celsius = cv2.imread(f"{drawn}/set/thermal/{name}.tiff", cv2.IMREAD_UNCHANGED)
        for line in own:
            box = (slice(line["top"], line["top"] + line["height"]),
                   slice(line["left"], line["left"] + line["width"]))  # fmt: skip
            inside = label[box] == TINY.classes.names.index(line["class"])
            assert inside.sum() >= line["area"] >= 12
            assert celsius[line["hottest_y"], line["hottest_x"]] == pytest.approx(
                line["celsius_max"], abs=0.006
            )
            assert line["celsius_error"] >= 2
            assert 0 < line["lowest_confidence"] <= line["confidence"] <= 1


def test_without_a_unit_there_are_objects_but_no_degrees(drawn, tmp_path):
    assert predict(drawn, tmp_path, "--objects") == 0
    _, lines, _ = read_tables(tmp_path / "objects")
    assert lines
    assert {line["celsius_mean"] for line in lines} == {None}


def test_counts_become_degrees_by_gain_and_offset(drawn, tmp_path):
    """Hundredths of a Kelvin, as FLIR's TLinear output, against the floats they came from."""
    (tmp_path / "in").mkdir()
    name = next((drawn / "set/rgb").iterdir()).stem
    celsius = cv2.imread(f"{drawn}/set/thermal/{name}.tiff", cv2.IMREAD_UNCHANGED)
    counts = np.rint((celsius + 273.15) * 100).astype(np.uint16)
    cv2.imwrite(str(tmp_path / "in/t.png"), counts)
    rgb = f"{drawn}/set/rgb/{name}.jpg"
    found = {}
    for how, thermal in (
        ("celsius", f"{drawn}/set/thermal/{name}.tiff"), ("tlinear", f"{tmp_path}/in/t.png"),
        ("0.01:-273.15", f"{tmp_path}/in/t.png"),
    ):  # fmt: skip
        out = tmp_path / how.replace(":", "")
        command = ["predict", rgb, thermal, "--objects", "--degrees", how, "--out", str(out)]
        command += ["--model", f"{drawn}/tiny", "--device", "cpu", "--precision", "fp32"]
        command += ["--thermal-range"]
        assert main([*command, "0:40" if how == "celsius" else "27315:31315"]) == 0
        found[how] = read_tables(out / "objects")[1]
    assert found["tlinear"] == found["0.01:-273.15"]
    for one, other in zip(found["celsius"], found["tlinear"], strict=True):
        assert one["area"] == pytest.approx(other["area"], abs=20)
        assert one["celsius_median"] == pytest.approx(other["celsius_median"], abs=0.5)


def test_black_hot_degrees_are_those_of_the_file(drawn, tmp_path):
    assert predict(
        drawn, tmp_path, "--objects", "--degrees", "celsius", "--black-hot", "--min-area", "5"
    ) in (0, 3)
    _, lines, _ = read_tables(tmp_path / "objects")
    for line in lines:
        celsius = cv2.imread(f"{drawn}/set/thermal/{line['pair']}.tiff", cv2.IMREAD_UNCHANGED)
        assert celsius[line["hottest_y"], line["hottest_x"]] == pytest.approx(
            line["celsius_max"], abs=0.006
        )


@pytest.mark.slow
def test_a_second_run_lists_the_objects_of_pairs_that_were_labelled_without(
    drawn, tmp_path, capsys
):
    assert predict(drawn, tmp_path) == 0
    assert not (tmp_path / "objects.csv").exists()
    assert predict(drawn, tmp_path, "--objects") == 0
    first = (tmp_path / "objects.csv").read_bytes()
    (tmp_path / "objects.csv").unlink()
    capsys.readouterr()
    assert predict(drawn, tmp_path, "--objects") == 0
    assert "nothing to do" in capsys.readouterr().out
    assert (tmp_path / "objects.csv").read_bytes() == first
    # Measured otherwise: listed anew, the label maps stay what they were.
    labels = {path.name: path.read_bytes() for path in (tmp_path / "labels").iterdir()}
    assert predict(drawn, tmp_path, "--objects", "--min-area", "300") == 0
    assert len((tmp_path / "objects.csv").read_bytes()) < len(first)
    assert labels == {path.name: path.read_bytes() for path in (tmp_path / "labels").iterdir()}


def test_what_is_labelled_again_without_objects_is_in_no_table(drawn, tmp_path):
    assert predict(drawn, tmp_path, "--objects") == 0
    assert predict(drawn, tmp_path, "--overwrite") == 0
    assert (tmp_path / "objects.csv").read_text().count("\n") == 1  # the titles
    assert not list((tmp_path / "objects").iterdir())


def test_a_list_that_was_damaged_is_named(drawn, tmp_path, capsys):
    assert predict(drawn, tmp_path, "--objects") == 0
    (first, *_) = (tmp_path / "objects").iterdir()
    first.write_text('{"half": ')
    assert predict(drawn, tmp_path, "--objects") == 2
    assert first.name in "".join(capsys.readouterr().err.split())
    first.unlink()
    assert predict(drawn, tmp_path, "--objects") == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--degrees", "celsius"), "--objects"),
        (("--objects", "--degrees", "warm"), "GAIN:OFFSET"),
        (("--objects", "--degrees", "0:1"), "GAIN:OFFSET"),
        (("--objects", "--degrees", "tlinear", "--radiometric"), "leave one"),
    ],
)
def test_degrees_without_sense_are_refused_before_anything_is_written(
    drawn, tmp_path, options, message, capsys
):
    assert predict(drawn, tmp_path / "out", *options) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()


def test_a_film_lists_the_objects_of_every_frame_with_its_time(drawn, tmp_path):
    pytest.importorskip("av", reason="the extra `video` is not installed")
    command = ["video", "--rgb", f"{drawn}/set/rgb", "--thermal", f"{drawn}/set/thermal"]
    command += ["--model", f"{drawn}/tiny", "--device", "cpu", "--fps", "10", "--labels"]
    command += ["--out", f"{tmp_path}/a.webm", "--objects", "--degrees", "celsius"]
    assert main(command) == 0
    table, lines, features = read_tables(tmp_path / "a-objects")
    assert table == lines == features
    names = sorted({line["pair"] for line in lines})
    stems = sorted(path.stem for path in (drawn / "set/rgb").iterdir())
    for line in lines:
        assert line["seconds"] == pytest.approx(stems.index(line["pair"]) / 10)
        label = read_label(tmp_path / f"a-labels/{line['pair']}.png")
        here = label[line["top"] : line["top"] + line["height"]]
        assert (here == TINY.classes.names.index(line["class"])).sum() >= line["area"]
    assert set(names) <= set(stems)
    summary = json.loads((tmp_path / "a.json").read_text())
    assert sum(summary["objects"].values()) == len(lines)
    assert main(command) == 2  # it is there
    assert main([*[word for word in command if word != "--objects"][:-2], "--overwrite"]) == 0
    assert not (tmp_path / "a-objects.csv").exists()  # not of this film
