"""What a run shows of itself: its page, its progress, TensorBoard."""

import re

import cv2
import numpy as np
import pytest
from draw_training import SIZE, draw_scene

from sartm.classes import MFNET
from sartm.colours import display_palette
from sartm.training.loop import Limits, train
from sartm.training.runs import latest_checkpoint
from training.runs import lines, losses, short


@pytest.mark.slow
def test_a_run_shows_curves_classes_and_pictures(undisturbed):
    report = undisturbed / "report"
    page = (report / "report.html").read_text()
    for term in ("total", "ce", "auxiliary", "prototype", "cmkd", "lr", "validation: present"):
        assert f"<strong>{term}" in page
    last = [line for line in lines(undisturbed) if "val" in line][-1]
    best = latest_checkpoint(undisturbed).state["best"]
    assert f"best mIoU % (mfnet-9, present), step {best['step']}" in page  # equal: once
    assert f'<th scope="row">car</th><td class="n">{last["iou"]["car"]:.2f}</td>' in page
    assert [path.name for path in sorted(report.glob("val-*"))] == [
        "val-00000009.jpg", "val-00000018.jpg",
    ]  # fmt: skip
    sheet = cv2.imread(str(report / "val-00000018.jpg"))
    assert sheet.shape == (3 * 180, 5 * 240, 3)  # three pairs; RGB, thermal, truth, labels, errors
    scene = draw_scene(0)
    truth = np.array(display_palette(MFNET))[scene["label"]].astype(np.uint8)
    shown = cv2.resize(sheet[:180, 480:720, ::-1], SIZE[::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(shown.astype(int) - truth).mean() < 12


def test_progress_tells_epoch_terms_rate_speed_memory_and_time(six, tmp_path, capfd):
    train(short(six), tmp_path / "run", limits=Limits(steps=2), device="cpu")
    said = capfd.readouterr().err
    pattern = (
        r"train: 2/2 steps, .*s left  epoch 1/6  loss [\d.]+ \(ce \S+ auxiliary \S+ prototype \S+ "
        r"cmkd \S+\)  lr \S+  [\d.]+ pairs/s  [1-9]\d* MiB"
    )
    assert re.search(pattern, said), said


@pytest.mark.slow
def test_tensorboard_gets_the_same_numbers_and_what_was_cut_off_is_gone(six, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    out, config = tmp_path / "run", short(six, tensorboard=True)
    train(config, out, limits=Limits(steps=3), device="cpu")
    (out / "checkpoints" / "step-00000003" / "state.json").unlink()
    train(config, out, limits=Limits(steps=9), resume=True, device="cpu")
    found = EventAccumulator(str(out / "tensorboard")).Reload()
    curve = [(event.step, event.value) for event in found.Scalars("total")]
    assert [step for step, _ in curve] == list(range(1, 10))
    assert [value for _, value in curve] == pytest.approx(losses(out), rel=1e-6)
    assert found.Images("validation")
