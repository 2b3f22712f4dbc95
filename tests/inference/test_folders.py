"""Folders of label maps: nothing is made twice, passed off as new, lost or written over."""

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import TINY, build
from processes import start_command, wait

from sartm import outputs
from sartm.cli.main import main
from sartm.inference.folders import label_folder
from sartm.inference.options import PredictOptions
from sartm.inference.predictor import Predictor
from sartm.inference.tiles import Tiling
from sartm.model.checkpoint import save
from sartm.model.facts import ModelFacts
from sartm.outputs import lock_folder


def write_pair(root: Path, name: str, seed: int = 0, size: tuple[int, int] = (64, 96)) -> None:
    draw = np.random.default_rng(seed)
    for kind, shape in (("rgb", (*size, 3)), ("thermal", size)):
        file = root / kind / f"{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(cv2.imencode(".png", draw.integers(0, 255, shape, np.uint8))[1])


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("first", "second")):
        save(build(TINY, seed), folder / name, ModelFacts(name))
    return folder


@pytest.fixture
def place(tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with three pairs below `in`."""
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("a", "b", "sub/c")):
        write_pair(tmp_path / "in", name, seed)
    return tmp_path


def command(models: Path, *options: str, model: str = "first") -> list[str]:
    inputs = ["--rgb", "in/rgb", "--thermal", "in/thermal", "--workers", "1"]
    return ["predict", *inputs, "--model", str(models / model), "--device", "cpu", *options]


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    """When each file was written, and what it holds."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def results(out: Path) -> dict[str, object]:
    """All that a run leaves, but for how long it took and the order of lines."""
    content = {name: data for name, (_, data) in snapshot(out).items() if name != "record.jsonl"}
    summary = json.loads(content.pop("summary.json"))
    for entry in summary["pairs"].values():
        assert entry.pop("seconds") > 0
    return content | {"summary": summary}


@pytest.mark.slow
def test_what_changes_no_label_map_is_no_reason_to_refuse(place, models, monkeypatch):
    assert main(command(models)) == 0
    before = snapshot(place / "out")
    monkeypatch.chdir(place / "in")
    ways = [
        ["--rgb", "rgb/", "--thermal", "thermal/", "--out", "../out/"],
        ["--rgb", str(place / "in/rgb"), "--thermal", f"{place}/in/thermal/**/*.png"],
        ["--pair", "(.*)", "--rgb", "rgb", "--thermal", "thermal"],
        ["--allow-single", "--rgb", "rgb", "--thermal", "thermal", "--batch-size", "2"],
        ["--no-overlay", "--rgb", "rgb", "--thermal", "thermal"],
    ]
    for way in ways:
        assert main(command(models, "--out", str(place / "out"), *way)) == 0
    after = snapshot(place / "out")
    assert {name for name in before if before[name] != after[name]} == {"summary.json"}
    assert set(before) == set(after)
    (place / "in/rgb").rename(place / "moved")
    assert (
        main(command(models, "--out", "../out", "--rgb", "../moved", "--thermal", "thermal")) == 0
    )
    assert snapshot(place / "out")["labels/a.png"] == before["labels/a.png"]


def test_another_pair_of_the_folder_does_not_matter(place, models):
    assert main(command(models)) == 0
    before = snapshot(place / "out")
    write_pair(place / "more", "d", 9)
    inputs = ["--rgb", "more/rgb/d.png", "--thermal", "more/thermal/d.png"]
    options = [*inputs, "--modality", "rgb", "--precision", "fp32"]
    assert main(command(models, *options, model="second")) == 0
    after = snapshot(place / "out")
    assert all(after[name] == before[name] for name in before if name.endswith((".png", ".jpg")))
    pairs = json.loads((place / "out/summary.json").read_text())["pairs"]
    assert list(pairs) == ["a", "b", "d", "sub/c"]
    assert "made" not in pairs["d"]
    assert pairs["a"]["made"]["model"] == str(models / "first")
    assert pairs["a"]["made"]["settings"]["modality"] == "both"
    assert main(command(models)) == 0  # nor does the pair that was added


def test_a_data_set_is_labelled_as_its_toml_says(place, models, capsys):
    for seed, name in enumerate(("x", "y")):
        write_pair(place / "set", name, seed)
        (place / "set/thermal" / f"{name}.png").rename(place / "set" / f"{name}-2.png")
        half = cv2.resize(cv2.imread(f"set/{name}-2.png", 0), (48, 32))
        cv2.imwrite(f"set/{name}-2.png", half)
    words = ["predict", "set", "--model", str(models / "first"), "--device", "cpu", "--no-overlay"]
    (place / "set/dataset.toml").write_text(
        'name = "set"\nclasses = ["a", "b"]\n[files]\nrgb = "rgb/{name}.png"\n'
        'thermal = "{name}-2.png"\n[splits]\nall = "*"\n[thermal]\nresize = true\n'
    )
    assert main([*words, "--out", "out"]) == 0
    entry = json.loads((place / "out/summary.json").read_text())["pairs"]["y"]
    assert entry["inputs"]["thermal"] == "set/y-2.png"
    toml = (place / "set/dataset.toml").read_text()
    (place / "set/dataset.toml").write_text(toml.replace("resize = true", ""))
    capsys.readouterr()
    assert main([*words, "--out", "other"]) == 3
    said = capsys.readouterr().err
    assert said.count("--resize-thermal") == 1  # said once of all
    assert "x: RGB is 64x96 but thermal is 32x48" in said
    assert "; the same of 1 more: y" in said


def test_an_option_for_thermal_takes_back_nothing_that_a_toml_says(place, models):
    write_pair(place / "set", "x")
    (place / "set/dataset.toml").write_text(
        'name = "set"\nclasses = ["a", "b"]\n[files]\nrgb = "rgb/{name}.png"\n'
        'thermal = "thermal/{name}.png"\n[splits]\nall = "*"\n'
        "[thermal]\nblack_hot = true\nholes = 0\n"
    )
    words = ["predict", "set", "--model", str(models / "first"), "--device", "cpu", "--repair"]
    assert main([*words, "--out", "out"]) == 0
    camera = json.loads((place / "out/summary.json").read_text())["settings"]["camera"]
    assert (camera["black_hot"], camera["repair"], camera["holes"]) == (True, True, 0)


def test_a_lone_thermal_image_is_taken_for_one_and_a_label_for_none(place, models):
    write_pair(place / "mixed", "a")
    write_pair(place / "mixed", "b", 1)
    (place / "mixed/rgb/b.png").unlink()
    (place / "mixed/masks").mkdir()
    cv2.imwrite("mixed/masks/c.png", np.zeros((64, 96), np.uint8))
    words = ["predict", "mixed", "--model", str(models / "first"), "--device", "cpu"]
    main([*words, "--allow-single", "--out", "out"])
    pairs = json.loads((place / "out/summary.json").read_text())["pairs"]
    assert pairs["thermal/b"]["inputs"] == {"rgb": None, "thermal": "mixed/thermal/b.png"}
    assert not any("c" in name.split("/") for name in pairs)


def test_overlay_options_draw_overlays_again(place, models):
    assert main(command(models)) == 0
    before = snapshot(place / "out")
    assert main(command(models, "--opacity", "0.9")) == 0
    after = snapshot(place / "out")
    for name in ("a", "b", "sub/c"):
        assert after[f"labels/{name}.png"][1] == before[f"labels/{name}.png"][1]
        assert after[f"overlays/{name}.jpg"][1] != before[f"overlays/{name}.jpg"][1]


def test_what_a_run_does_not_ask_for_stays_as_an_earlier_one_made_it(place, models):
    assert main(command(models, "--objects", "--trust", "--no-overlay")) == 0
    first = snapshot(place / "out")
    entry = json.loads(first["summary.json"][1])["pairs"]["a"]
    assert main(command(models)) == 0  # adds the overlays
    second = snapshot(place / "out")
    for name in first:
        if name.startswith(("labels/", "objects/")):
            assert second[name] == first[name]
        elif name.startswith("objects."):
            assert second[name][1] == first[name][1]
    assert first["objects.csv"][1].count(b"\n") > 3
    again = json.loads(second["summary.json"][1])["pairs"]["a"]
    assert again | {"seconds": 0} == entry | {"seconds": 0}
    assert main(command(models, "--no-overlay", "--objects", "--min-area", "40")) == 0
    third = snapshot(place / "out")
    assert third["objects.csv"][1] != first["objects.csv"][1]
    same = [name for name in second if name.startswith(("labels/", "overlays/"))]
    assert len(same) == 6
    assert all(third[name] == second[name] for name in same)
    options = ["--objects", "--trust", "--min-area", "40"]
    assert main(command(models, *options)) == 0  # it is all there
    last = snapshot(place / "out")
    assert {name for name in last if last[name][1] != third[name][1]} == {"summary.json"}
    assert (
        json.loads(last["summary.json"][1])["pairs"]
        == json.loads(third["summary.json"][1])["pairs"]
    )


def test_what_was_made_of_another_label_map_does_not_stay(place, models):
    assert main(command(models, "--objects")) == 0
    assert main(command(models, "--overwrite", "--no-overlay", model="second")) == 0
    left = snapshot(place / "out")
    assert not [name for name in left if name.startswith(("overlays/", "objects/"))]
    assert left["objects.csv"][1].count(b"\n") == 1
    assert "objects" not in json.loads(left["summary.json"][1])["pairs"]["a"]


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What a refused run says; nothing is written, not even a date."""
    before = snapshot(Path())
    capsys.readouterr()
    assert main(arguments) == 2
    assert snapshot(Path()) == before
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return said


@pytest.mark.slow
def test_what_would_be_replaced_is_named_with_what_differs(place, models, capsys):
    assert main(command(models, "--precision", "fp32")) == 0
    say = capsys
    said = refused(command(models, "--precision", "fp32", "--modality", "rgb"), say)
    assert "out/labels/a.png was made with modality both (now rgb), and 2 more" in said
    assert "--overwrite" in said
    said = refused(command(models, "--precision", "fp32", "--black-hot"), say)
    assert "camera.black_hot false (now true)" in said
    said = refused(command(models, "--precision", "fp32", model="second"), say)
    assert f"model {models}/first (now {models}/second)" in said
    write_pair(place / "in", "b", 77)
    said = refused(command(models, "--precision", "fp32"), say)
    assert "out/labels/b.png was made of another image (--rgb and --thermal); " in said
    write_pair(place / "in", "b", 1)
    assert main(command(models, "--precision", "fp32")) == 0
    label = place / "out/labels/a.png"
    whole = label.read_bytes()
    label.write_bytes(whole + b" ")
    assert "a.png was changed after it was written" in refused(
        command(models, "--precision", "fp32"), say
    )
    label.write_bytes(whole)
    (place / "out/labels/d.png").write_bytes(whole)
    assert main(command(models, "--precision", "fp32")) == 0  # no pair of this run
    write_pair(place / "in", "d", 5)
    said = refused(command(models, "--precision", "fp32"), say)
    assert "d.png is there, and no record says what made it" in said
    assert main(command(models, "--precision", "fp32", "--overwrite")) == 0
    assert (place / "out/labels/d.png").read_bytes() != whole


def test_trust_is_added_to_a_label_map_and_replaces_none(place, models, capsys):
    assert main(command(models)) == 0
    before = snapshot(place / "out")
    said = refused(command(models, "--trust", model="second"), capsys)
    assert f"model {models}/first (now {models}/second)" in said
    label = place / "out/labels/b.png"
    label.write_bytes(before["labels/b.png"][1] + b" ")  # as corrected by hand
    assert "b.png was changed after it was written" in refused(command(models, "--trust"), capsys)
    label.write_bytes(before["labels/b.png"][1])
    assert main(command(models, "--trust")) == 0
    pairs = json.loads((place / "out/summary.json").read_text())["pairs"]
    assert all(-1 <= entry["trust"]["mean"] <= 1 for entry in pairs.values())
    assert snapshot(place / "out")["labels/a.png"] == before["labels/a.png"]


def test_trust_that_tiles_have_none_of_is_looked_for_once(place):
    tiling = Tiling(above=1, side=64, overlap=32)
    predictor = Predictor(build(TINY), device="cpu", tiling=tiling)
    options = PredictOptions(trust=True)
    for done, skipped in ((3, 0), (0, 3)):
        outcome = label_folder(
            predictor, "in/rgb", "in/thermal", Path("out"), model="drawn", options=options
        )
        assert (outcome.done, outcome.skipped) == (done, skipped)
    assert json.loads(Path("out/summary.json").read_text())["pairs"]["a"]["trust"] is None


@pytest.mark.slow
def test_an_old_label_map_is_not_passed_off_as_new(place, models, monkeypatch):
    """One broken input, then an interrupt: both leave maps of the new model, or none."""
    assert main(command(models)) == 0
    old = results(place / "out")
    broken = place / "in/rgb/b.png"
    image = broken.read_bytes()
    broken.write_bytes(image[:200])
    again = command(models, "--overwrite", model="second")
    assert main(again) == 3
    assert not (place / "out/labels/b.png").exists()
    assert not (place / "out/overlays/b.jpg").exists()
    assert set(json.loads((place / "out/summary.json").read_text())["pairs"]) == {"a", "sub/c"}
    broken.write_bytes(image)
    batch, calls = Predictor.predict_batch, []

    def interrupted(self, samples, modality="both", trust=False):
        calls.append(samples)
        if len(calls) > 1:
            raise KeyboardInterrupt
        return batch(self, samples, modality, trust)

    assert main(command(models, "--overwrite")) == 0
    assert results(place / "out") == old
    with monkeypatch.context() as patch:
        patch.setattr(Predictor, "predict_batch", interrupted)
        assert main(again) == 130
    assert {path.stem for path in (place / "out/labels").rglob("*.png")} <= {"a"}
    assert set(json.loads((place / "out/summary.json").read_text())["pairs"]) <= {"a"}
    assert main(command(models, model="second")) == 0
    assert main(command(models, "--out", "fresh", model="second")) == 0
    assert results(place / "out") == results(place / "fresh")


@pytest.mark.slow
def test_half_a_line_of_the_record_counts_for_nothing(place, models):
    assert main(command(models)) == 0
    record, whole = place / "out/record.jsonl", results(place / "out")
    lines = record.read_bytes().splitlines(keepends=True)
    for end in (0, 1, 30, len(lines[0]) - 1, len(lines[0]) + 40, sum(map(len, lines)) - 1):
        left = b"".join(lines)[:end]
        record.write_bytes(left)
        kept = max(0, left.count(b"\n") - 1)
        for path in sorted((place / "out/labels").rglob("*.png"))[kept:]:
            path.unlink()  # a map has its line before it has its name
        assert main(command(models)) == 0
        assert results(place / "out") == whole
        assert main(command(models)) == 0
    for content in (
        b"null\n[]\n3\n{}\n",
        b'{"pair": "a"}\n',
        b"\xff\xfe\n" + lines[0] + b'{"pair": 1}\n',
    ):
        record.write_bytes(content)
        assert main(command(models)) == 2
    assert main(command(models, "--overwrite")) == 0
    assert results(place / "out") == whole


def test_inputs_are_not_written_over(place, models, capsys):
    assert main(command(models)) == 0
    pictures = ["--rgb", "out/overlays", "--thermal", ""]
    said = refused(command(models, *pictures, "--overwrite"), capsys)
    assert "out/overlays/a.jpg would be written over, but is an input" in said
    (place / "links").mkdir()
    (place / "links/a.jpg").symlink_to(place / "out/overlays/a.jpg")
    said = refused(command(models, "--rgb", "links", "--thermal", "", "--overwrite"), capsys)
    assert "out/overlays/a.jpg would be written over" in said


def test_nothing_is_written_outside_the_folder_that_was_named(place, models, capsys):
    (place / "out").mkdir()
    (place / "elsewhere").mkdir()
    (place / "out/labels").symlink_to(place / "elsewhere")
    assert "outside out" in refused(command(models), capsys)
    assert list((place / "elsewhere").iterdir()) == []
    (place / "out/labels").unlink()
    (place / "out/labels").mkdir()
    (place / "elsewhere/precious.png").write_text("kept")
    (place / "out/labels/a.png").symlink_to(place / "elsewhere/precious.png")
    assert main(command(models, "--overwrite")) == 0
    assert (place / "elsewhere/precious.png").read_text() == "kept"
    assert not (place / "out/labels/a.png").is_symlink()


def test_its_own_outputs_are_not_labelled(place, models):
    """Run again and again in the folder of the images, `--out` below it or the same."""
    monochrome = ["--rgb", ".", "--thermal", ""]
    (place / "in/thermal").rename(place / "thermal.kept")
    for path in (place / "thermal.kept").rglob("*.png"):
        path.unlink()
    for out in ("out", "other", "."):
        for _ in range(2):
            assert main(command(models, *monochrome, "--out", out)) == 0
        maps = [
            str(path.relative_to(Path(out) / "labels"))
            for path in Path(out, "labels").rglob("*.png")
        ]
        assert sorted(maps) == ["in/rgb/a.png", "in/rgb/b.png", "in/rgb/sub/c.png"]


def test_a_folder_that_cannot_be_read_costs_its_pairs_and_is_said(place, models, capsys):
    """A folder whose path is too long, which an administrator cannot read either."""
    deep = place / "in/rgb"
    handle = os.open(deep, os.O_RDONLY)
    for _ in range(20):  # longer than a path may be
        os.mkdir("d" * 250, dir_fd=handle)
        below = os.open("d" * 250, os.O_RDONLY, dir_fd=handle)
        os.close(handle)
        handle = below
    os.close(handle)
    capsys.readouterr()
    assert main(command(models)) == 3
    said = capsys.readouterr().err
    assert "cannot be read: File name too long" in said
    failures = json.loads((place / "out/summary.json").read_text())["failures"]
    assert len(failures) == 1
    subprocess.run(["rm", "-r", "d" * 250], cwd=deep, check=True)


@pytest.mark.parametrize("length", [232, 251])
def test_a_long_name_is_labelled_as_any_other(place, models, length):
    write_pair(place / "in", "n" * length, 4)
    assert main(command(models)) == 0
    assert (place / "out/labels" / f"{'n' * length}.png").is_file()
    assert (place / "out/overlays" / f"{'n' * length}.jpg").is_file()


def test_a_path_that_gets_too_long_costs_that_pair_only(place, models, capsys):
    out = Path(*["o" * 250] * 15)  # 3765 characters, of 4095
    folders = Path(*["s" * 200] * 2)
    write_pair(place / "in", str(folders / "d"), 4)
    assert main(command(models, "--out", str(out))) == 3
    assert "File name too long" in capsys.readouterr().err
    assert len(list((out / "labels").rglob("*.png"))) == 3
    assert main(command(models, "--out", str(out))) == 3


def test_names_that_differ_by_case_are_refused_where_that_matters(
    place, models, capsys, monkeypatch
):
    write_pair(place / "in", "A", 4)
    assert main(command(models)) == 0
    monkeypatch.setattr("sartm.inference.folders.ignores_case", lambda folder: True)
    said = refused(command(models, "--overwrite"), capsys)
    assert "'A' and 'a' would be one file" in said


@pytest.mark.slow
def test_a_second_run_into_a_folder_is_refused(place, models, capsys):
    with lock_folder(place / "out"):
        said = refused(command(models), capsys)
        assert f"out is in use by process {os.getpid()}" in said
        assert main(command(models, "--out", "other")) == 0
    assert main(command(models)) == 0


def pair_of(name: str) -> set[str]:
    """The files of the pair that a file belongs to."""
    stem = name.split("/", 1)[1].rsplit(".", 1)[0]
    return {f"labels/{stem}.png", f"overlays/{stem}.jpg"}


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """As a disk that is full once a file has `size` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size", [0, 1, 50, 200, 400, 700, 1000, 1500, 2500, 4000, 6000])
@pytest.mark.slow
def test_on_a_full_disk_what_was_finished_is_kept(place, models, capsys, size):
    assert main(command(models, "--out", "fresh")) == 0
    whole = results(place / "fresh")
    biggest = max(len(data) for _, data in snapshot(place / "fresh").values())
    capsys.readouterr()
    with files_up_to(size):
        status = main(command(models))
    said = capsys.readouterr().err
    if size < biggest:
        assert status == 2
        assert "cannot write" in said
        assert "File too large" in said
    assert "Traceback" not in said
    left = snapshot(place / "out") if (place / "out").exists() else {}
    assert not [name for name in left if "tmp" in name or "lock" in name]
    kept = {name: data for name, (_, data) in left.items() if name.endswith((".png", ".jpg"))}
    assert all(whole[name] == data for name, data in kept.items())
    assert main(command(models)) == 0
    assert results(place / "out") == whole
    after = snapshot(place / "out")
    assert all(after[name] == left[name] for name in kept if kept.keys() >= pair_of(name))


@pytest.mark.slow
def test_killed_at_any_moment_a_rerun_is_as_undisturbed(tmp_path, models, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number in range(60):
        write_pair(tmp_path / "in", f"{number:02d}", number, (96, 128))
    arguments = command(models)
    assert main([*arguments, "--out", "undisturbed"]) == 0
    draw = random.Random(0)
    killed = 0
    for number in range(10):
        labels = tmp_path / "out/labels"
        goal = 5 * number + draw.randrange(1, 5)
        process = start_command(arguments)
        while process.is_alive() and len(list(labels.glob("*.png"))) < goal:
            time.sleep(0.001)
        time.sleep(draw.random() * 0.02)
        process.kill()
        killed += wait(process) == -signal.SIGKILL
    assert killed == 10
    made = snapshot(tmp_path / "out")
    assert main(arguments) == 0
    assert results(tmp_path / "out") == results(tmp_path / "undisturbed")
    after = snapshot(tmp_path / "out")
    kept = [name for name in made if name.startswith("labels/") and after[name] == made[name]]
    assert len(kept) >= 45  # they were not made again


@pytest.mark.slow
def test_of_two_runs_into_a_folder_one_labels_all(tmp_path, models, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number in range(20):
        write_pair(tmp_path / "in", str(number), number)
    commands = [
        [sys.executable, "-m", "sartm", *command(models, model=model)]
        for model in ("first", "second")
    ]
    running = [subprocess.Popen(each, stderr=subprocess.PIPE, text=True) for each in commands]
    said = [process.communicate()[1] for process in running]
    states = [process.returncode for process in running]
    assert sorted(states) == [0, 2]
    winner = states.index(0)
    message = said[1 - winner]
    assert f"in use by process {running[winner].pid}" in message or "was made with model" in message
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert len(summary["pairs"]) == 20
    assert summary["model"] == str(models / ("first", "second")[winner])
    assert not any("made" in entry for entry in summary["pairs"].values())


def test_the_python_function_keeps_too(place, models):
    predictor = Predictor(build(TINY), device="cpu")
    for done, skipped in ((3, 0), (0, 3)):
        outcome = label_folder(predictor, "in/rgb", "in/thermal", Path("out"), model="drawn")
        assert (outcome.done, outcome.skipped, outcome.failures) == (done, skipped, {})
    assert outputs.LOCK not in {path.name for path in Path("out").iterdir()}
