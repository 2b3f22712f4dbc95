"""Training learns, is the same twice, and is the same on two processes."""

import json
import math
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY
from draw_training import SIZE, draw_dataset, draw_scene, write_dataset

from sartm.classes import MFNET
from sartm.config import FusionConfig, to_dict
from sartm.data.pairs import PairDataset
from sartm.evaluation.metrics import ConfusionMatrix, means
from sartm.evaluation.scoring import score_pairs
from sartm.inference.predictor import Predictor
from sartm.model.loading import load
from sartm.scenes import dataset as synthetic
from sartm.training.loop import Limits, train
from sartm.training.runs import latest_checkpoint
from sartm.training.settings import AugmentationConfig, LossConfig, OptimConfig, TrainConfig
from training.runs import assert_same_run, in_two, launch_two, lines, losses, short


@pytest.mark.slow
def test_it_learns_two_scenes_and_not_if_the_labels_are_exchanged(tmp_path):
    """Fewer than 300 steps and 60 s: `present` mIoU above 90, and below 60 on exchanged labels."""
    drawn = [synthetic.draw_scene(seed, synthetic.SceneOptions("day", SIZE)) for seed in (191, 239)]
    scenes = [{kind: getattr(s, kind) for kind in ("rgb", "thermal", "label")} for s in drawn]
    data = write_dataset(tmp_path / "data", scenes, 2)
    config = TrainConfig(
        recipe="test",
        model=replace(TINY, frozen_encoder=False, fusion=FusionConfig(crop=SIZE)),
        optim=OptimConfig(lr=5e-3, epochs=270, warmup_epochs=10, batch_size=2, clip=1.0),
        loss=LossConfig(),
        augmentation=AugmentationConfig.none(SIZE),
        data=str(data),
        workers=0,
        precision="fp32",
        validate_every=270,
    )
    before, threads = time.process_time(), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        best = train(config, tmp_path / "run", device="cpu")["best"]
    finally:
        torch.set_num_threads(threads)
    assert time.process_time() - before < 60
    assert best["means"]["present"]["counted"] >= 5
    assert best["present"] > 90
    labels = [scenes[1]["label"], scenes[0]["label"]]
    swapped = [scene | {"label": label} for scene, label in zip(scenes, labels, strict=True)]
    exchanged = write_dataset(tmp_path / "exchanged", swapped, 2)
    predictor = Predictor(load(tmp_path / "run" / "best"), device="cpu", precision="fp32")

    def score(data: Path) -> float:
        matrix = ConfusionMatrix(len(MFNET))
        for _, _, counts, _ in score_pairs(predictor, PairDataset.open(data, "val")):
            matrix.counts += counts
        return float(means(matrix, MFNET)["present"]["miou"] or 0)

    assert score(data) == pytest.approx(best["present"], abs=0.01)
    assert score(exchanged) < 60


@pytest.mark.slow
def test_validation_counts_pixels_over_the_whole_split_and_not_per_image(tmp_path):
    """Against the definition, written the slow way; the pairs have unlike numbers of pixels."""
    scenes = [draw_scene(index) for index in range(3)]
    for index, scene in enumerate(scenes):
        scene["label"][: 40 * index] = MFNET.ignore
    data = write_dataset(tmp_path / "data", scenes, 3)
    config = short(data, optim=replace(short(data).optim, lr=1e-2, ema=0.0))
    best = train(config, tmp_path / "run", limits=Limits(steps=6), device="cpu")["best"]
    predictor = Predictor(load(tmp_path / "run" / "best"), device="cpu", precision="fp32")
    maps = [(predictor(scene["rgb"], scene["thermal"]).labels, scene["label"]) for scene in scenes]

    def miou(chosen: list[tuple[np.ndarray, np.ndarray]]) -> float:
        found = []
        for k in range(len(MFNET)):
            counted = [(p[t != MFNET.ignore], t[t != MFNET.ignore]) for p, t in chosen]
            both = sum(int(((p == k) & (t == k)).sum()) for p, t in counted)
            either = sum(int(((p == k) | (t == k)).sum()) for p, t in counted)
            if any((t == k).any() for _, t in counted):
                found.append(both / either)
        return 100 * sum(found) / len(found)

    assert best["present"] == pytest.approx(miou(maps), abs=1e-3)
    assert abs(best["present"] - np.mean([miou([pair]) for pair in maps])) > 0.05


@pytest.mark.slow
def test_two_runs_of_one_seed_are_the_same_and_another_seed_is_not(undisturbed, six, tmp_path):
    train(short(six), tmp_path / "again", device="cpu")
    assert_same_run(tmp_path / "again", undisturbed)
    train(short(six, seed=1), tmp_path / "other", limits=Limits(steps=2), device="cpu")
    assert losses(tmp_path / "other") != losses(undisturbed)[:2]


@pytest.mark.slow
def test_workers_and_activation_checkpointing_change_no_loss(undisturbed, six, tmp_path):
    train(short(six, workers=2), tmp_path / "workers", limits=Limits(steps=4), device="cpu")
    assert losses(tmp_path / "workers") == losses(undisturbed)[:4]
    config = short(six, activation_checkpointing=True)
    train(config, tmp_path / "checkpointing", limits=Limits(steps=4), device="cpu")
    assert losses(tmp_path / "checkpointing") == pytest.approx(losses(undisturbed)[:4], abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("accumulate", [1, 2])
def test_two_processes_give_the_curve_of_one_with_the_double_batch(tmp_path, accumulate):
    data = draw_dataset(tmp_path / "data", 8, 3)
    options = {"ohem": 0.5, "lovasz": 0.3} if accumulate == 1 else {}
    config = short(data, loss=LossConfig(per_modality=True, class_weights="sqrt", **options))
    optim = replace(config.optim, epochs=4, batch_size=2, accumulate=accumulate)
    config = replace(config, optim=optim)
    one = replace(config, optim=replace(optim, batch_size=4))
    train(one, tmp_path / "one", device="cpu")
    in_two(lambda: train(config, tmp_path / "two", device="cpu"))
    assert len(losses(tmp_path / "two")) == len(losses(tmp_path / "one")) == 8 // accumulate
    for term in ("total", "ce", "auxiliary", "prototype", "cmkd", "norm"):
        ours, expected = losses(tmp_path / "two", term), losses(tmp_path / "one", term)
        assert ours == pytest.approx(expected, abs=1e-4, rel=1e-4), term
    scores = [[line["val"]["present"]["miou"] for line in lines(tmp_path / run) if "val" in line]
              for run in ("one", "two")]  # fmt: skip
    assert scores[0] == pytest.approx(scores[1], abs=0.1)


@pytest.mark.slow
def test_two_processes_of_which_one_is_told_to_stop_stop_together(tmp_path):
    """A teacher is called in every step, which is where one of them is told."""
    data = draw_dataset(tmp_path / "data", 8, 3)
    (tmp_path / "config.json").write_text(json.dumps(to_dict(short(data))))
    script = tmp_path / "start.py"
    script.write_text(
        "import os, signal, sys, torch\n"
        "from pathlib import Path\n"
        "from sartm.training.loop import train\n"
        "from sartm.training.recipes import load_recipe\n"
        "torch.set_num_threads(1)\n"
        "config, calls = load_recipe(sys.argv[1]), []\n"
        "def teacher(batch):\n"
        "    calls.append(1)\n"
        "    if len(calls) == 2 and os.environ['RANK'] == '1':\n"
        "        signal.raise_signal(signal.SIGTERM)\n"
        "    classes = len(config.model.classes)\n"
        "    return torch.full((len(batch), classes, 8, 16), 1 / classes)\n"
        "result = train(config, Path(sys.argv[2]), device='cpu', teacher=teacher)\n"
        "sys.exit(0 if result['step'] == 2 and not result['finished'] else 1)\n"
    )
    done = launch_two(script, tmp_path / "config.json", tmp_path / "run")
    assert done.returncode == 0, done.stderr[-3000:]
    found = latest_checkpoint(tmp_path / "run")
    assert found is not None
    assert found.step == 2


@pytest.mark.slow
@pytest.mark.parametrize("ohem", [0.0, 0.4])
def test_accumulated_batches_have_the_means_of_one_batch_of_their_size(tmp_path, ohem):
    """Labelled pixels differ from batch to batch; cross-entropy must not care how they are cut."""
    scenes = [draw_scene(index) for index in range(8)]
    for index, scene in enumerate(scenes):
        scene["label"][: 11 * index] = 255
    data = write_dataset(tmp_path / "data", scenes, 1)
    loss = LossConfig(class_weights="sqrt", language=0.0, memory=False, ohem=ohem)
    curves = []
    for batch, accumulate in ((4, 1), (2, 2), (1, 4)):
        optim = replace(short(data).optim, batch_size=batch, accumulate=accumulate, epochs=2)
        config = short(data, loss=loss, optim=optim, validate_every=0)
        train(config, tmp_path / f"{accumulate}", device="cpu")
        curves.append([losses(tmp_path / f"{accumulate}", t) for t in ("ce", "auxiliary", "norm")])
    if ohem == 0:
        for curve in curves[1:]:
            for ours, expected in zip(curve, curves[0], strict=True):
                assert ours == pytest.approx(expected, rel=1e-4)
    else:  # the hardest are chosen batch by batch, so that fewer of them are the hardest of all
        assert curves[1][0][0] <= curves[0][0][0] + 1e-6
        assert curves[1][0][0] == pytest.approx(curves[0][0][0], rel=0.3)


@pytest.mark.slow
def test_language_waits_for_its_start(six, undisturbed, tmp_path):
    config = short(six, loss=LossConfig(language_start=1.0))
    train(config, tmp_path / "run", limits=Limits(steps=5), device="cpu")
    for line, factor in zip(lines(tmp_path / "run"), (0, 0, 0, 0, 1 / 3), strict=False):
        rest = line["ce"] + line["auxiliary"]
        extra = 0.1 * line["prototype"] + 0.5 * line["cmkd"]
        assert line["total"] == pytest.approx(rest + factor * extra, rel=1e-5)
    assert losses(tmp_path / "run") != losses(undisturbed)[:5]


@pytest.mark.slow
def test_training_without_validation_keeps_the_last_step(six, tmp_path):
    result = train(
        short(six, validate_every=0), tmp_path / "run", limits=Limits(steps=3), device="cpu"
    )
    assert result["step"] == 3
    assert not any("val" in line for line in lines(tmp_path / "run"))
    kept = latest_checkpoint(tmp_path / "run")
    assert kept is not None
    best = load(tmp_path / "run" / "best").state_dict()
    for name, tensor in best.items():
        assert torch.equal(tensor, kept.tensors[f"average/module.{name}"]), name


@pytest.mark.slow
def test_a_second_run_in_one_process_may_have_another_precision(six, tmp_path):
    for precision in ("bf16", "fp32"):
        out = tmp_path / precision
        optim = replace(short(six).optim, ema=0.0)
        config = short(six, precision=precision, optim=optim)
        train(config, out, limits=Limits(steps=2), device="cpu")
        assert all(math.isfinite(value) for value in losses(out))
        assert latest_checkpoint(out).state["precision"] == precision
    assert losses(tmp_path / "bf16") != losses(tmp_path / "fp32")
    assert losses(tmp_path / "bf16") == pytest.approx(losses(tmp_path / "fp32"), rel=0.1)
