"""What a film run leaves: a whole film with its summary and label maps, or nothing."""

import json
import os
import random
import resource
import signal
import subprocess
import time
from pathlib import Path

import cv2
import pytest
from conftest import TINY, build
from processes import start_command, wait
from test_video import read_video, rgb_frame, thermal_frame, write_video

from sartm.cli.main import main
from sartm.errors import InputError
from sartm.inference.predictor import Predictor
from sartm.inference.video import VideoOptions, predict_video
from sartm.model.checkpoint import save
from sartm.model.facts import ModelFacts
from sartm.outputs import lock_beside, lock_folder

LABELLED = VideoOptions(labels=True)


@pytest.fixture(scope="module")
def predictor():
    return Predictor(build(TINY), device="cpu", precision="fp32")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The current folder, with a film of six frames in both."""
    monkeypatch.chdir(tmp_path)
    write_video(Path("rgb.mkv"), [rgb_frame(i) for i in range(6)])
    write_video(Path("thermal.mkv"), [thermal_frame(i) for i in range(6)])
    return tmp_path


def label(predictor, out, options=LABELLED, rgb="rgb.mkv", **how):
    return predict_video(
        predictor, rgb, "thermal.mkv", Path(out), model="m", options=options, **how
    )


def results(folder: Path = Path()) -> dict[str, object]:
    """Names, label maps, frames and summaries, but for how long it took."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.suffix == ".webm":
            found[name] = [frame.tobytes() for frame in read_video(path)[1]]
        elif path.suffix == ".json":
            found[name] = json.loads(path.read_text()) | {"seconds_per_frame": None}
        elif path.is_file() and path.suffix != ".mkv":
            found[name] = path.read_bytes()
    return found


def test_a_film_whose_run_was_killed_before_its_end_is_made_again(place, predictor):
    """It gets its name last: without it, what is there already is of a killed run."""
    label(predictor, "a.webm")
    whole = results()
    assert len(whole) == 8
    for missing in (["a.webm"], ["a.webm", "a-labels/000003.png"]):
        for name in missing:
            Path(name).unlink()
        label(predictor, "a.webm")
        assert results() == whole


def test_old_label_maps_are_not_left_beside_a_new_film(place, predictor):
    label(predictor, "a.webm")
    short = VideoOptions(labels=True, limit=2)
    label(predictor, "a.webm", short, overwrite=True)
    assert len(list(Path("a-labels").iterdir())) == 2
    label(predictor, "a.webm", VideoOptions(limit=2), overwrite=True)
    assert not Path("a-labels").exists()
    assert sorted(results()) == ["a.json", "a.webm"]


@pytest.mark.parametrize("out", ["a.webm", "a"])
def test_label_maps_of_others_are_kept(place, predictor, out):
    folder = Path("a-labels" if out == "a.webm" else "a/labels")
    folder.mkdir(parents=True)
    (folder / "mine.png").touch()
    with pytest.raises(InputError, match="labels holds other label maps"):
        label(predictor, out)
    (folder.parent / "record.jsonl").touch()  # as predict writes
    with pytest.raises(InputError, match="labels holds other label maps"):
        label(predictor, out, overwrite=True)
    assert [path.name for path in folder.iterdir()] == ["mine.png"]
    label(predictor, out, VideoOptions())


def test_an_input_is_not_written_over(place, predictor):
    label(predictor, "a.webm")
    whole = Path("a.webm").read_bytes()
    with pytest.raises(InputError, match=r"a\.webm would be written over, but is an input"):
        label(predictor, "a.webm", rgb="a.webm", overwrite=True)
    assert Path("a.webm").read_bytes() == whole
    for source in ("a-labels", "a-labels/*.png", "a-labels/../a-labels/000001.png"):
        with pytest.raises(InputError, match=r"an input|is replaced"):
            predict_video(predictor, None, source, Path("a.mp4"), model="m", options=LABELLED)
    assert len(list(Path("a-labels").iterdir())) == 6


def test_a_second_run_is_refused(place, predictor):
    with lock_beside(Path("a-labels")):
        for name in ("a.webm", "a.mp4"):  # they share a summary
            with pytest.raises(InputError, match="in use by process"):
                label(predictor, name)
        label(predictor, "b.webm")
    with lock_folder(Path("a")), pytest.raises(InputError, match="a is in use by process"):
        label(predictor, "a")
    assert not list(place.rglob(".*"))


@pytest.mark.parametrize("suffix", [".webm", ".mp4"])
@pytest.mark.parametrize("size", [0, 1, 100, 500, 1000, 2000, 4000, 6000, 10000])
@pytest.mark.slow
def test_on_a_full_disk_there_is_a_message_and_nothing_half_written(place, capsys, suffix, size):
    save(build(TINY), place / "model", ModelFacts("m"))
    before = {path: path.stat().st_size for path in place.rglob("*")}
    command = ["video", "--rgb", "rgb.mkv", "--thermal", "thermal.mkv", "--model", "model"]
    command += ["--device", "cpu", "--labels", "--out", f"a{suffix}"]
    capsys.readouterr()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        status = main(command)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    said = capsys.readouterr().err
    assert "Traceback" not in said
    if status != 0:
        assert status == 2
        assert "cannot write" in said
    film = place / f"a{suffix}"
    left = {path for path in place.rglob("*") if path not in before}
    if film.exists():
        assert len(read_video(film)[0]) > 0
    else:
        assert left == set()
    assert not [path for path in left if path.name.startswith(".")]
    assert size > 1000 or status == 2
    assert main([*command, "--overwrite"]) == 0
    assert len(read_video(film)[0]) == len(list((place / "a-labels").iterdir())) == 6


@pytest.mark.slow
def test_killed_at_any_moment_a_rerun_is_as_undisturbed(place):
    save(build(TINY), place / "model", ModelFacts("m"))
    write_video(Path("rgb.mkv"), [rgb_frame(i) for i in range(40)])
    write_video(Path("thermal.mkv"), [thermal_frame(i) for i in range(40)])
    command = ["video", "--rgb", "rgb.mkv", "--thermal", "thermal.mkv", "--model", "model"]
    command += ["--device", "cpu", "--labels"]
    assert main([*command, "--out", "whole/a.webm"]) == 0
    draw, killed, longest = random.Random(0), 0, 0.5
    while killed < 8:
        old = {path.name for path in Path("out").glob(".*")}
        process = start_command([*command, "--out", "out/a.webm"])
        while process.is_alive() and not {p.name for p in Path("out").glob(".*.tmp")} - old:
            time.sleep(0.001)
        time.sleep(float(draw.random()) * longest)
        process.kill()
        if (status := wait(process)) == -signal.SIGKILL:
            killed += 1
        else:  # it was over
            assert status == 0
            longest *= 0.8
            Path("out/a.webm").unlink()
    assert main([*command, "--out", "out/a.webm"]) == 0
    assert results(Path("out")) == results(Path("whole"))
    assert not list(place.rglob(".*"))


@pytest.mark.parametrize("sides", [("rgb",), ("rgb", "thermal")])
def test_frames_that_cannot_be_found_are_missing_aloud(place, sides, capsys):
    """In a folder whose path is too long: an administrator cannot read it either."""
    save(build(TINY), place / "model", ModelFacts("m"))
    command = ["video", "--model", "model", "--device", "cpu", "--out", "a.webm"]
    for side in sides:
        Path(side).mkdir()
        image = rgb_frame(0) if side == "rgb" else thermal_frame(0)
        cv2.imwrite(f"{side}/0.png", image)
        command += [f"--{side}", side]
    handle = os.open("rgb", os.O_RDONLY)
    for _ in range(20):
        os.mkdir("d" * 250, dir_fd=handle)
        below = os.open("d" * 250, os.O_RDONLY, dir_fd=handle)
        os.close(handle)
        handle = below
    os.close(handle)
    assert main(command) == 3
    assert "cannot be read: File name too long" in capsys.readouterr().err
    subprocess.run(["rm", "-r", "d" * 250], cwd="rgb", check=True)
