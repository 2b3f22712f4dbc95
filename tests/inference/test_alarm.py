"""What silently breaks a rig is told: per pair, per film, in the summary and in one line."""

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from conftest import TINY, build
from draw_rig import SIZE, draw_pair, shift_and_scale

from sartm.cli.main import main
from sartm.data.pairs import Sample
from sartm.errors import InputError
from sartm.inference.alarm import WORDS, check_pair, handle_misaligned, word_alarms
from sartm.inference.watch import Watch
from sartm.model.checkpoint import save
from sartm.model.facts import ModelFacts

OFF = shift_and_scale(9, -5)


def a_pair(seed: int = 0, moved: np.ndarray | None = None) -> Sample:
    """Drawn shapes; thermal of 8 bits, moved on its mount."""
    rgb, counts = draw_pair(seed)
    thermal = (255 * (counts - counts.min()) / np.ptp(counts)).astype(np.uint8)
    if moved is not None:
        thermal = cv2.warpPerspective(
            thermal, moved, SIZE[::-1], borderMode=cv2.BORDER_REFLECT_101
        )  # fmt: skip
    return Sample(f"pair{seed}", rgb, thermal)


def a_night() -> Sample:
    """A dark street: a cold sky, warm things that are lit."""
    random = np.random.default_rng(0)
    heat = np.full(SIZE, 70.0)
    heat[:80] = 20
    grey = np.full(SIZE, 25.0)
    for _ in range(12):
        x, y = random.integers(10, 300), random.integers(90, 220)
        cv2.rectangle(heat, (int(x), int(y)), (int(x) + 8, int(y) + 16), 220, -1)
        cv2.rectangle(grey, (int(x), int(y)), (int(x) + 8, int(y) + 16), 120, -1)
    heat += random.normal(0, 2, SIZE)
    rgb = np.stack([grey, 0.8 * grey, 0.6 * grey], -1) + random.normal(0, 2, (*SIZE, 3))
    return Sample("night", rgb.clip(0, 255).astype(np.uint8), heat.clip(0, 255).astype(np.uint8))


# --- One pair ------------------------------------------------------------------------------------


def test_a_good_pair_raises_nothing() -> None:
    for sample in (a_pair(), a_night()):
        found = check_pair(sample)
        assert "misaligned" not in found.alarms
        assert "colourless" not in found.alarms
        assert not [alarm for alarm in found.alarms if "flat" in alarm]
    assert check_pair(a_night()).alarms == ()


def test_each_fault_of_a_pair_is_named() -> None:
    good = a_night()
    assert good.rgb is not None
    assert good.thermal is not None
    black, grey = np.zeros_like(good.rgb), np.stack([good.thermal] * 3, -1)
    faults = {
        "rgb flat": replace(good, rgb=black),
        "thermal flat": replace(good, thermal=np.full_like(good.thermal, 77)),
        "black-hot": replace(good, thermal=255 - good.thermal),
        "colourless": replace(good, rgb=grey, thermal=good.rgb[..., 1]),
        "misaligned": a_pair(0, OFF),
    }
    for alarm, sample in faults.items():
        assert alarm in check_pair(sample).alarms, alarm
        assert alarm in WORDS


def test_thermal_in_counts_and_degrees_is_judged_like_grey_levels() -> None:
    good = a_night()
    assert good.thermal is not None
    for heat in (good.thermal.astype(np.uint16) * 20 + 20000, good.thermal / np.float32(10) + 5):
        assert check_pair(replace(good, thermal=heat)).alarms == ()
        flat = np.full_like(heat, heat[0, 0])
        assert "thermal flat" in check_pair(replace(good, thermal=flat)).alarms


@pytest.mark.parametrize("missing", ["rgb", "thermal"])
def test_one_camera_alone_is_looked_at_as_far_as_it_goes(missing: str) -> None:
    found = check_pair(replace(a_night(), **{missing: None}))
    assert found.offset is None
    assert found.alarms == ()


def test_pixels_that_are_no_measurement_do_not_count() -> None:
    sample = a_pair(0)
    unseen = np.zeros(SIZE, bool)
    unseen[:, :60] = True
    thermal = np.where(unseen, 255, sample.thermal).astype(np.uint8)
    found = check_pair(replace(sample, thermal=thermal, unseen=unseen))
    assert "misaligned" not in found.alarms


def test_what_is_done_with_a_misaligned_pair() -> None:
    good, off = a_pair(0), a_pair(0, OFF)
    check = check_pair(off)
    assert handle_misaligned(off, check, "warn") is off
    assert handle_misaligned(off, check, "rgb").thermal is None
    assert handle_misaligned(off, check, "thermal").rgb is None
    moved = handle_misaligned(off, check, "align")
    assert "aligned" in moved.note
    assert not check_pair(moved).alarms.count("misaligned")
    with pytest.raises(InputError, match="on-misaligned"):
        handle_misaligned(off, check, "fail")
    for how in ("align", "rgb", "thermal", "fail"):
        assert handle_misaligned(good, check_pair(good), how) is good  # type: ignore[arg-type]


def test_a_few_doubtful_pairs_among_many_are_not_told() -> None:
    assert word_alarms({"misaligned": 2}, 100) == ""
    assert "12 of 100" in word_alarms({"misaligned": 12, "rgb flat": 1}, 100)
    assert "1 of 100" in word_alarms({"rgb flat": 1}, 100)
    assert "1 of 1" in word_alarms({"misaligned": 1}, 1)


# --- A film --------------------------------------------------------------------------------------


def play(watch: Watch, samples: list[Sample], **partner: Any) -> None:
    for index, sample in enumerate(samples):
        watch.see(sample, index, 0.0, **partner)


def moving(frames: int, moved: np.ndarray | None = None) -> list[Sample]:
    """Frames of one long drawn scene that the rig drives through."""
    rgb, counts = draw_pair(4, (SIZE[0], SIZE[1] + 4 * frames))
    thermal = (255 * (counts - counts.min()) / np.ptp(counts)).astype(np.uint8)
    if moved is not None:
        size = thermal.shape[::-1]
        thermal = cv2.warpPerspective(thermal, moved, size, borderMode=cv2.BORDER_REFLECT_101)
    cuts = [slice(4 * i, 4 * i + SIZE[1]) for i in range(frames)]
    return [
        Sample(f"{i}", np.ascontiguousarray(rgb[:, cut]), np.ascontiguousarray(thermal[:, cut]))
        for i, cut in enumerate(cuts)
    ]


def test_a_good_film_raises_nothing_about_its_rig() -> None:
    watch = Watch()
    play(watch, moving(30))
    assert not {"misaligned", "rgb frozen", "thermal frozen", "stale"} & set(watch.counts)
    assert watch.lag() == 0


@pytest.mark.slow
def test_a_frozen_camera_is_told_from_a_scene_that_stands_still() -> None:
    samples = moving(20)
    for side in ("rgb", "thermal"):
        watch = Watch()
        held = getattr(samples[3], side)
        play(watch, [replace(sample, **{side: held}) for sample in samples])
        assert watch.counts[f"{side} frozen"] >= 10
    watch = Watch()
    play(watch, [samples[0]] * 20)
    assert not [alarm for alarm in watch.counts if "frozen" in alarm]


def test_a_rig_that_is_off_is_found_and_put_right_from_frame_to_frame() -> None:
    samples = moving(12, OFF)
    watch = Watch("align")
    seen = [watch.see(sample) for sample in samples]
    assert (watch.offset.dx, watch.offset.dy) == pytest.approx((-9, 5), abs=1)
    assert watch.describe()["registration"]["offset"] == pytest.approx([-9, 5], abs=1)
    assert "misaligned" not in check_pair(seen[-1]).alarms
    assert "12 of 12 frames" in watch.word()
    with pytest.raises(InputError, match="on-misaligned"):
        Watch("fail").see(samples[0])
    assert Watch("rgb").see(samples[0]).thermal is None


def test_one_frame_that_serves_for_too_long_is_stale() -> None:
    sample = a_pair(0)
    watch = Watch(rates=(Fraction(30), Fraction(10)))
    for index in range(12):
        watch.see(sample, index // 3, 0.01)
    assert "stale" not in watch.counts
    for _ in range(12):
        watch.see(sample, 4, 0.03)
    assert watch.counts["stale"] > 4
    assert watch.describe()["partner_seconds"]["max"] == pytest.approx(0.03)


@pytest.mark.parametrize("late", [4, -3])
def test_a_camera_that_comes_late_is_seen_by_when_its_picture_changes(late: int) -> None:
    random = np.random.default_rng(0)
    speed = random.choice([0, 0, 1, 6], 140)  # stands, creeps, drives
    place = 40 + np.cumsum(speed) % 60
    rgb, counts = draw_pair(4, (SIZE[0], SIZE[1] + 120))
    thermal = (255 * (counts - counts.min()) / np.ptp(counts)).astype(np.uint8)
    watch = Watch()
    for index in range(20, 120):
        one, other = place[index], place[index - late]
        watch.see(Sample("", rgb[:, one : one + SIZE[1]], thermal[:, other : other + SIZE[1]]))
    assert watch.lag() == late
    assert "--offset" in watch.word()


# --- The commands --------------------------------------------------------------------------------


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Two good pairs and one that is off; a tiny model."""
    save(build(TINY), tmp_path / "model", ModelFacts(name="small"))
    for name, moved in (("a", None), ("b", None), ("off", OFF)):
        sample = a_pair(0, moved)
        for kind, image in (("rgb", sample.rgb), ("thermal", sample.thermal)):
            path = tmp_path / kind / f"{name}.png"
            path.parent.mkdir(exist_ok=True)
            cv2.imwrite(str(path), image if kind == "thermal" else image[..., ::-1])
    return tmp_path


def predict(folders: Path, out: str, *more: str) -> tuple[int, dict[str, Any]]:
    words = ["predict", "--rgb", f"{folders}/rgb", "--thermal", f"{folders}/thermal"]
    words += ["--model", f"{folders}/model", "--out", f"{folders}/{out}", "--device", "cpu"]
    status = main([*words, *more])
    return status, json.loads((folders / out / "summary.json").read_text())


def test_predict_tells_which_pairs_are_off(
    folders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, summary = predict(folders, "out")
    assert status == 0
    assert "misaligned" in summary["pairs"]["off"]["alarms"]
    assert "misaligned" not in summary["pairs"]["a"]["alarms"]
    assert summary["pairs"]["off"]["registration"]["offset"] == pytest.approx([-9, 5], abs=1)
    assert summary["alarms"]["misaligned"] == 1
    assert "1 of 3: thermal does not lie on RGB" in capsys.readouterr().err
    again, summary = predict(folders, "out")  # nothing is left to do, and nothing is told
    assert again == 0
    assert "misaligned" in summary["pairs"]["off"]["alarms"]


def test_predict_can_leave_a_camera_out_or_fail(folders: Path) -> None:
    status, summary = predict(folders, "rgb", "--on-misaligned", "rgb")
    assert status == 0
    assert summary["pairs"]["off"]["inputs"]["thermal"] is None
    assert summary["pairs"]["a"]["inputs"]["thermal"] is not None
    status, summary = predict(folders, "fail", "--on-misaligned", "fail")
    assert status == 3
    assert set(summary["failures"]) == {"off"}
    assert set(summary["pairs"]) == {"a", "b"}


def test_a_camera_cannot_be_left_out_that_is_the_only_one(folders: Path) -> None:
    words = ["video", "--rgb", f"{folders}/rgb", "--thermal", f"{folders}/thermal"]
    words += ["--out", f"{folders}/film", "--on-misaligned", "rgb", "--modality", "thermal"]
    assert main(words) == 2
