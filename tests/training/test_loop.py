"""Training learns, is the same twice, and survives what happens to long runs."""

import itertools
import json
import logging
import math
import multiprocessing
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import TINY, build
from draw_training import SIZE, draw_dataset, draw_scene, write_dataset
from golden import listing, needed
from safetensors.torch import load_file
from small_weights import meta_weights, small_released

from sartm.classes import MFNET, Classes, default_palette
from sartm.cli.main import main
from sartm.config import FusionConfig, ThermalRule, from_dict, to_dict
from sartm.data.pairs import PairDataset
from sartm.errors import InputError
from sartm.evaluation.metrics import ConfusionMatrix, means
from sartm.evaluation.scoring import score_pairs
from sartm.inference.predictor import Predictor
from sartm.io.labels import read_label
from sartm.model.checkpoint import save
from sartm.model.facts import ModelFacts
from sartm.model.loading import load
from sartm.model.lora import AdaptedQKV
from sartm.model.released import Released
from sartm.model.sartm import SARTM
from sartm.scenes import dataset as synthetic
from sartm.training.augmentation import Batch
from sartm.training.batches import StepBatches, measure, open_splits
from sartm.training.criterion import Criterion
from sartm.training.loop import Limits, train
from sartm.training.optimizer import learning_rate, make_average, make_optimizer
from sartm.training.runs import Checkpoint, latest_checkpoint, write_checkpoint
from sartm.training.settings import AugmentationConfig, LossConfig, OptimConfig, TrainConfig
from sartm.training.start import start_from
from sartm.training.teaching import load_teacher


def short(data: Path, **changes: Any) -> TrainConfig:
    """18 steps of 2 pairs in 6 epochs with everything drawn at random and an average of weights."""
    config = TrainConfig(
        recipe="test",
        model=replace(TINY, frozen_encoder=False, fusion=FusionConfig(crop=(32, 64))),
        optim=OptimConfig(lr=1e-3, epochs=6, warmup_epochs=1, batch_size=2, clip=1.0, ema=0.9),
        loss=LossConfig(),
        augmentation=AugmentationConfig(crop=(32, 64)),
        data=str(data),
        workers=0,
        precision="fp32",
        validate_every=3,
        checkpoint_every=2,
    )
    return replace(config, **changes)


@pytest.fixture(scope="module")
def six(tmp_path_factory) -> Path:
    """Six scenes, three of them again as val."""
    return draw_dataset(tmp_path_factory.mktemp("six"), 6, 3)


@pytest.fixture(scope="module")
def undisturbed(six, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    assert train(short(six), out, device="cpu")["finished"]
    return out


def lines(run: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without the times."""
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert all(line.pop("seconds") >= 0 for line in found)
    return found


def metrics(run: Path) -> list[dict[str, Any]]:
    """Lines of metrics.jsonl that are of steps."""
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if "total" in line]


def losses(run: Path, term: str = "total") -> list[float]:
    return [line[term] for line in lines(run) if term in line]


def assert_same_run(a: Path, b: Path) -> None:
    """Bit for bit: weights, optimizer, memory, average, random state, metrics, best model."""
    ours, theirs = latest_checkpoint(a), latest_checkpoint(b)
    assert ours is not None
    assert theirs is not None
    assert ours.step == theirs.step
    assert ours.state["best"] == theirs.state["best"]
    assert ours.tensors.keys() == theirs.tensors.keys()
    for name, tensor in ours.tensors.items():
        assert torch.equal(tensor, theirs.tensors[name]), name
    assert lines(a) == lines(b)
    best, other = (load_file(run / "best" / "model.safetensors") for run in (a, b))
    assert all(torch.equal(tensor, other[name]) for name, tensor in best.items())


# It learns


@pytest.mark.slow
def test_it_learns_two_scenes_and_not_if_the_labels_are_exchanged(tmp_path):
    """Fewer than 300 steps and 60 s: `present` mIoU above 90, and below 60 on exchanged labels."""
    drawn = [synthetic.draw_scene(seed, synthetic.SceneOptions("day", SIZE)) for seed in (191, 239)]
    scenes = [{kind: getattr(s, kind) for kind in ("rgb", "thermal", "label")} for s in drawn]
    data = write_dataset(tmp_path / "data", scenes)
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
    exchanged = write_dataset(tmp_path / "exchanged", swapped)
    predictor = Predictor(load(tmp_path / "run" / "best"), device="cpu", precision="fp32")

    def score(data: Path) -> float:
        matrix = ConfusionMatrix(len(MFNET))
        for _, _, counts in score_pairs(predictor, PairDataset.open(data, "val")):
            matrix.counts += counts
        return float(means(matrix, MFNET)["present"]["miou"] or 0)

    assert score(data) == pytest.approx(best["present"], abs=0.01)
    assert score(exchanged) < 60


def test_validation_counts_pixels_over_the_whole_split_and_not_per_image(tmp_path):
    """Against the definition, written the slow way; the pairs have unlike numbers of pixels."""
    scenes = [draw_scene(index) for index in range(3)]
    for index, scene in enumerate(scenes):
        scene["label"][: 40 * index] = MFNET.ignore
    data = write_dataset(tmp_path / "data", scenes)
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
    assert abs(best["present"] - np.mean([miou([pair]) for pair in maps])) > 0.3


# It is the same twice


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


def test_a_run_with_a_limit_is_continued_to_the_same_end(undisturbed, six, tmp_path):
    out = tmp_path / "run"
    first = train(short(six), out, limits=Limits(steps=7), device="cpu")
    assert (first["step"], first["finished"]) == (7, False)
    second = train(short(six), out, limits=Limits(seconds=0), resume=True, device="cpu")
    assert (second["step"], second["finished"]) == (8, False)
    assert train(short(six), out, resume=True, device="cpu")["finished"]
    ours, theirs = latest_checkpoint(out), latest_checkpoint(undisturbed)
    assert ours is not None
    assert theirs is not None
    assert all(torch.equal(t, theirs.tensors[name]) for name, t in ours.tensors.items())
    assert losses(out) == losses(undisturbed)
    again = train(short(six), out, resume=True, device="cpu")  # nothing is left to do
    assert again["finished"]
    assert losses(out) == losses(undisturbed)


# It survives


def child(config: TrainConfig, out: Path, resume: bool, group: bool) -> None:
    torch.set_num_threads(1)
    if group:
        os.setpgid(0, 0)
    result = train(config, out, resume=resume, device="cpu")
    (out / "result.json").write_text(json.dumps(result))


def start(config: TrainConfig, out: Path, resume: bool = False, group: bool = False) -> Any:
    """`train` in a process of its own, forked: nothing is imported again."""
    arguments = (config, out, resume, group)
    process = multiprocessing.get_context("fork").Process(target=child, args=arguments)
    process.start()
    return process


def wait_for_steps(run: Path, count: int) -> None:
    deadline = time.monotonic() + 60
    metrics = run / "metrics.jsonl"
    while not metrics.exists() or metrics.read_text().count("\n") < count:
        assert time.monotonic() < deadline, "the run does not get on"
        time.sleep(0.01)


@pytest.mark.slow
def test_killed_at_20_random_moments_and_resumed_it_ends_bit_for_bit_the_same(
    undisturbed, six, tmp_path
):
    """Each kill comes at a random moment of a session; runs that end are compared, others begin."""
    moments, kills, run = random.Random(0), 0, 0
    whole = latest_checkpoint(undisturbed)
    assert whole is not None
    out = tmp_path / "0"
    while kills < 20 or not (out / "result.json").exists():
        process = start(short(six), out, resume=(out / "config.json").exists())
        process.join(moments.uniform(0.02, 0.35 * whole.state["seconds"]) if kills < 20 else 120)
        if process.is_alive():
            process.kill()
            kills += 1
        process.join()
        if process.exitcode == 0:
            assert_same_run(out, undisturbed)
            assert len(list((out / "checkpoints").glob("step-*"))) == 2
            if kills < 20:
                run += 1
                out = tmp_path / str(run)
        else:
            assert process.exitcode == -signal.SIGKILL


TOUCHES = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree"}
"""Audit events of Python before it touches the disk."""
MOMENTS = 30
"""More of them than there are while a checkpoint is written."""


def checkpoint_of(step: int) -> Checkpoint:
    return Checkpoint(step, {"x": torch.full((1000,), float(step))}, {"best": step})


def write_until(run: Path, moment: int) -> None:
    """Write a checkpoint in a process of its own, killed before the `moment`-th touch."""
    touches = itertools.count()

    def watch(event: str, _: tuple[Any, ...]) -> None:
        if event in TOUCHES and next(touches) == moment:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    write_checkpoint(run, checkpoint_of(4), keep=1)


@pytest.mark.parametrize("moment", range(MOMENTS))
def test_a_checkpoint_is_whole_or_absent_wherever_writing_it_ends(tmp_path, moment):
    write_checkpoint(tmp_path, checkpoint_of(2), keep=1)
    fork = multiprocessing.get_context("fork").Process
    process = fork(target=write_until, args=(tmp_path, moment))
    process.start()
    process.join()
    whole = process.exitcode == 0
    assert whole or process.exitcode == -signal.SIGKILL
    assert whole or moment < MOMENTS - 1
    assert not whole or moment > 10
    found = latest_checkpoint(tmp_path)
    assert found is not None
    assert found.tensors["x"][0] == found.step == found.state["best"]
    assert found.step == 4 or not whole
    write_checkpoint(tmp_path, checkpoint_of(6), keep=1)
    # what is left over is in nobody's way
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000006"]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
def test_sigterm_saves_and_ends_and_the_run_continues_to_the_same_end(
    undisturbed, six, tmp_path, workers
):
    """Sent to the whole process group, data workers included, as schedulers do."""
    out, config = tmp_path / "run", short(six, workers=workers)
    process = start(config, out, group=True)
    wait_for_steps(out, 5)
    os.killpg(process.pid, signal.SIGTERM)
    process.join(60)
    assert process.exitcode == 0
    result = json.loads((out / "result.json").read_text())
    assert result["interrupted"]
    assert not result["finished"]
    found = latest_checkpoint(out)
    assert found is not None
    assert found.step == result["step"] == len(losses(out))
    assert train(config, out, resume=True, device="cpu")["finished"]
    assert_same_run(out, undisturbed)


def run_command(arguments: list[str]) -> None:
    torch.set_num_threads(1)
    os._exit(main(arguments))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_that_is_interrupted_saves_and_exits_130(undisturbed, six, tmp_path, number):
    out = tmp_path / "run"
    (tmp_path / "config.json").write_text(json.dumps(to_dict(short(six))))
    arguments = ["train", str(tmp_path / "config.json"), "--out", str(out), "--device", "cpu"]
    process = multiprocessing.get_context("fork").Process(target=run_command, args=(arguments,))
    process.start()
    wait_for_steps(out, 3)
    os.kill(process.pid, number)
    process.join(60)
    assert process.exitcode == 130
    found = latest_checkpoint(out)
    assert found is not None
    assert 3 <= found.step < 18
    assert (out / "report" / "report.html").exists()
    assert main([*arguments, "--resume"]) == 0
    assert_same_run(out, undisturbed)


def copy_validation(data: Path) -> None:
    """Give the validation pairs of a data set files of their own, `val-0.png` and so on."""
    names = (data / "val.txt").read_text().split()
    for kind in ("rgb", "thermal", "label"):
        for index, name in enumerate(names):
            shutil.copy(data / kind / f"{name}.png", data / kind / f"val-{index}.png")
    (data / "val.txt").write_text("".join(f"val-{index}\n" for index in range(len(names))))


def train_until_opened(config: TrainConfig, out: Path, file: Path) -> None:
    """In a process of its own, told to stop in the moment in which it first opens `file`."""
    opened: list[str] = []

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and str(arguments[0]) == str(file) and not opened:
            opened.append(event)
            os.kill(os.getpid(), signal.SIGTERM)

    sys.addaudithook(watch)
    child(config, out, resume=False, group=False)


def test_a_validation_that_is_broken_off_is_made_up_for_by_resume(undisturbed, six, tmp_path):
    """Told to stop while the validation of step 9 reads its pairs."""
    out, data = tmp_path / "run", shutil.copytree(six, tmp_path / "data")
    copy_validation(data)
    arguments = (short(data), out, data / "thermal" / "val-1.png")
    process = multiprocessing.get_context("fork").Process(target=train_until_opened, args=arguments)
    process.start()
    process.join(60)
    result = json.loads((out / "result.json").read_text())
    assert (result["step"], result["interrupted"], result["best"]["step"]) == (9, True, 0)
    assert not any("val" in line for line in lines(out))
    assert train(short(data), out, resume=True, device="cpu")["finished"]
    assert_same_run(out, undisturbed)


@pytest.fixture
def begun(six, undisturbed, tmp_path) -> Path:
    """A run that stopped after 8 of its steps, with checkpoints of steps 6 and 8."""
    kept, out = undisturbed.parent / "begun", tmp_path / "run"
    if not kept.exists():
        train(short(six), kept, limits=Limits(steps=8), device="cpu")
    return shutil.copytree(kept, out)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "no state", "half a name"])
def test_a_damaged_checkpoint_is_passed_over_with_a_warning(begun, damage, caplog):
    newest = sorted((begun / "checkpoints").glob("step-*"))[-1]
    weights = newest / "training.safetensors"
    data = bytearray(weights.read_bytes())
    if damage == "truncated":
        weights.write_bytes(data[: len(data) // 2])
    elif damage == "flipped":
        data[-1] ^= 1
        weights.write_bytes(data)
    elif damage == "no state":
        (newest / "state.json").unlink()
    else:
        newest.rename(newest.with_name(f".{newest.name}.tmp"))
    with caplog.at_level(logging.WARNING, "sartm"):
        found = latest_checkpoint(begun)
    assert found is not None
    assert found.step == 6
    assert ("damaged" in caplog.text) == (damage != "half a name")


def test_from_the_checkpoint_before_a_damaged_one_it_ends_the_same(begun, undisturbed, six):
    (begun / "checkpoints" / "step-00000008" / "training.safetensors").write_bytes(b"")
    train(short(six), begun, resume=True, device="cpu")
    ours, theirs = latest_checkpoint(begun), latest_checkpoint(undisturbed)
    assert ours is not None
    assert theirs is not None
    assert all(torch.equal(t, theirs.tensors[name]) for name, t in ours.tensors.items())
    assert losses(begun) == losses(undisturbed)


def test_a_run_without_any_whole_checkpoint_starts_anew(begun, undisturbed, six):
    for folder in (begun / "checkpoints").glob("step-*"):
        (folder / "state.json").write_text("[]")
    train(short(six), begun, limits=Limits(steps=2), resume=True, device="cpu")
    assert losses(begun) == losses(undisturbed)[:2]


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file of this process may grow beyond `size` bytes, as if the disk were full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_what_cannot_be_saved_is_said_and_the_last_good_one_is_kept(undisturbed, six, tmp_path):
    out, config = tmp_path / "run", short(six)
    train(config, out, limits=Limits(steps=2), device="cpu")
    whole = out / "checkpoints" / "step-00000002" / "training.safetensors"
    message = r"cannot write checkpoint .*step-00000004.*File too large.*--resume"
    with largest_file(whole.stat().st_size // 2), pytest.raises(InputError, match=message):
        train(config, out, resume=True, device="cpu")
    assert [p.name for p in (out / "checkpoints").iterdir()] == ["step-00000002"]
    train(config, out, resume=True, limits=Limits(steps=4), device="cpu")
    assert losses(out) == losses(undisturbed)[:4]


@pytest.mark.slow
@pytest.mark.parametrize("room", [1.0, 6.0, 9.5, 13.0, 16.5])
def test_on_a_disk_that_fills_up_it_says_so_and_goes_on_when_there_is_room(
    undisturbed, six, tmp_path, room
):
    """A real file system of `room` MiB. A checkpoint takes 7, the best model 1.8."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={int(1024 * room)}k", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        out = disk / "run"
        message = r"(cannot write .*No space left on device)"
        with pytest.raises(InputError, match=message) as caught:
            train(short(six), out, device="cpu")
        assert "room" in str(caught.value)
        found = latest_checkpoint(out)
        assert (found is not None) == (room > 8)
        wider = ["mount", "-o", "remount,size=64m", str(disk)]
        subprocess.run(wider, check=True, capture_output=True)
        train(short(six), out, resume=True, device="cpu")
        assert_same_run(out, undisturbed)
    finally:
        subprocess.run(["umount", str(disk)], check=True, capture_output=True)


def test_a_loss_that_is_no_number_names_the_batch(six, tmp_path):
    config = short(six, optim=replace(short(six).optim, lr=1e38, warmup_epochs=0, clip=0.0))
    second = list(StepBatches(6, config.optim, 1, config.seed, 0))[1]
    names = ", ".join(f"{index:03d}" for _, index in second)
    with pytest.raises(InputError, match=rf"loss is (nan|inf) at step 2, .* {names}\..*optim\.lr"):
        train(config, tmp_path / "run", device="cpu")
    assert len(losses(tmp_path / "run")) == 1


def test_a_gradient_that_is_no_number_names_the_batch_too(six, tmp_path):
    """The loss is a number still, the square of its gradient is none."""
    config = short(six, loss=LossConfig(auxiliary=1e30))
    first = next(iter(StepBatches(6, config.optim, 1, config.seed, 0)))
    text = ", ".join(f"{index:03d}" for _, index in first)
    with pytest.raises(InputError, match=rf"gradient is (nan|inf) at step 1, .* {text}\."):
        train(config, tmp_path / "run", device="cpu")


def test_a_worker_that_dies_is_said_with_what_to_do(six, tmp_path, capfd):
    """The data worker of a real run is killed, as the kernel does where memory runs out."""
    config = short(six, workers=1, optim=replace(short(six).optim, epochs=2000), validate_every=0)
    (tmp_path / "config.json").write_text(json.dumps(to_dict(config)))
    out = tmp_path / "run"
    arguments = ["train", str(tmp_path / "config.json"), "--out", str(out), "--device", "cpu"]
    process = multiprocessing.get_context("fork").Process(target=run_command, args=(arguments,))
    process.start()
    wait_for_steps(out, 3)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    for child in children:
        os.kill(int(child), signal.SIGKILL)
    process.join(60)
    assert process.exitcode == 2
    said = " ".join(capfd.readouterr().err.split())
    assert re.search(r"data worker died .*--resume.*workers=0", said)


@pytest.mark.parametrize(("file", "workers"), [("002.png", 0), ("002.png", 1), ("val-0.png", 0)])
def test_a_file_that_goes_bad_is_named_without_a_traceback(tmp_path, file, workers):
    """It does while the run is under way: at its start all files were read."""
    data, out = draw_dataset(tmp_path / "data", 4, 1), tmp_path / "run"
    copy_validation(data)
    bad = data / "rgb" / file
    config = short(data, workers=workers, optim=replace(short(data).optim, epochs=200))

    def spoil() -> None:
        wait_for_steps(out, 1)
        bad.write_bytes(bad.read_bytes()[:200])

    spoiling = threading.Thread(target=spoil)
    spoiling.start()
    with pytest.raises(InputError, match=rf"{file}.*at step \d+") as caught:
        train(config, out, device="cpu")
    spoiling.join()
    assert "Traceback" not in str(caught.value)


def test_an_occupied_folder_and_a_resume_of_nothing_are_refused(undisturbed, six, tmp_path):
    with pytest.raises(InputError, match=r"already holds a run.*--resume"):
        train(short(six), undisturbed, device="cpu")
    with pytest.raises(InputError, match="nothing to resume"):
        train(short(six), tmp_path / "none", resume=True, device="cpu")
    assert not (tmp_path / "none").exists()


def test_a_checkpoint_of_another_model_is_refused(begun, six):
    wider = replace(short(six), model=replace(short(six).model, width=64))
    with pytest.raises(InputError, match="another configuration"):
        train(wider, begun, resume=True, device="cpu")


def test_resume_refuses_what_changed_and_names_it(begun, six):
    optim = replace(short(six).optim, lr=0.5, batch_size=3)
    config = short(six, optim=optim, seed=7)
    found = r"optim\.lr was 0\.001, now 0\.5; optim\.batch_size was 2, now 3; seed was 0, now 7"
    with pytest.raises(InputError, match=rf"another configuration: {found}\. .*--out"):
        train(config, begun, resume=True, device="cpu")
    with pytest.raises(InputError, match=r"and 1 more\."):
        train(replace(config, val_share=0.2), begun, resume=True, device="cpu")


def test_resume_takes_what_changes_no_weight(begun, undisturbed, six, tmp_path):
    moved = shutil.copytree(six, tmp_path / "moved")
    config = short(moved, keep=5, checkpoint_every=3, pictures=1)
    train(config, begun, resume=True, device="cpu")
    assert losses(begun) == losses(undisturbed)
    steps = sorted(int(p.name[5:]) for p in (begun / "checkpoints").iterdir())
    assert steps == [6, 8, 9, 12, 15, 18][-5:]


def test_resume_refuses_another_training_split(begun, six, tmp_path):
    data = shutil.copytree(six, tmp_path / "data")
    (data / "train.txt").write_text("000\n001\n002\n003\n004\n")
    with pytest.raises(InputError, match=r"lists other pairs \(5 now\)"):
        train(short(data), begun, resume=True, device="cpu")


def test_out_of_gpu_memory_says_which_knobs_to_turn(six, tmp_path):
    """PyTorch's own error, from a teacher: there need be no GPU to fill."""

    def teacher(batch: Batch) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    with pytest.raises(InputError, match=r"out of GPU memory at step 1, batch size 2") as caught:
        train(short(six), tmp_path / "run", device="cpu", teacher=teacher)
    for knob in ("activation_checkpointing=true", "optim.batch_size", "accumulate", "crop", "bf16"):
        assert knob in str(caught.value)


def test_out_of_memory_on_a_cpu_says_so_too(six, tmp_path):
    def teacher(batch: Batch) -> torch.Tensor:
        return torch.empty(1 << 50)

    with pytest.raises(InputError, match=r"out of memory at step 1"):
        train(short(six), tmp_path / "run", device="cpu", teacher=teacher)


def test_another_error_of_a_step_keeps_its_traceback(six, tmp_path):
    def teacher(batch: Batch) -> torch.Tensor:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug") as caught:
        train(short(six), tmp_path / "run", device="cpu", teacher=teacher)
    assert any(entry.name == "teacher" for entry in caught.traceback)


def test_a_device_that_is_not_there_is_refused(six, tmp_path):
    with pytest.raises(InputError, match=r"--device cpu"):
        train(short(six), tmp_path / "run", device="cuda:99")


# Two processes


def launch_two(script: Path, config: Path, out: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    command += ["--rdzv_backend", "c10d", "--rdzv_endpoint", "127.0.0.1:0", "--local_addr"]
    command += ["127.0.0.1", str(script), str(config), str(out)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


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
    script = tmp_path / "start.py"
    script.write_text(
        "import json, sys, torch\n"
        "from pathlib import Path\n"
        "from sartm.training.recipes import load_recipe\n"
        "from sartm.training.loop import train\n"
        "torch.set_num_threads(1)\n"
        "train(load_recipe(sys.argv[1]), Path(sys.argv[2]), device='cpu')\n"
    )
    (tmp_path / "config.json").write_text(json.dumps(to_dict(config)))
    done = launch_two(script, tmp_path / "config.json", tmp_path / "two")
    assert done.returncode == 0, done.stderr[-3000:]
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


# What a person sees


def test_a_run_shows_curves_classes_and_pictures(undisturbed):
    report = undisturbed / "report"
    page = (report / "report.html").read_text()
    for term in ("total", "ce", "auxiliary", "prototype", "cmkd", "lr", "validation: present"):
        assert f"<strong>{term}" in page
    last = [line for line in lines(undisturbed) if "val" in line][-1]
    best = latest_checkpoint(undisturbed).state["best"]
    assert f"best mIoU % (present), step {best['step']}" in page
    assert f'<th scope="row">car</th><td class="n">{last["iou"]["car"]:.2f}</td>' in page
    assert [path.name for path in sorted(report.glob("val-*"))] == [
        "val-00000009.jpg", "val-00000018.jpg",
    ]  # fmt: skip
    sheet = cv2.imread(str(report / "val-00000018.jpg"))
    assert sheet.shape == (3 * 180, 5 * 240, 3)  # three pairs; RGB, thermal, truth, labels, errors
    scene = draw_scene(0)
    truth = np.array(default_palette(len(MFNET)))[scene["label"]].astype(np.uint8)
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


def test_language_waits_for_its_start(six, undisturbed, tmp_path):
    config = short(six, loss=LossConfig(language_start=1.0))
    train(config, tmp_path / "run", limits=Limits(steps=5), device="cpu")
    for line, factor in zip(lines(tmp_path / "run"), (0, 0, 0, 0, 1 / 3), strict=False):
        rest = line["ce"] + line["auxiliary"]
        extra = 0.1 * line["prototype"] + 0.5 * line["cmkd"]
        assert line["total"] == pytest.approx(rest + factor * extra, rel=1e-5)
    assert losses(tmp_path / "run") != losses(undisturbed)[:5]


# Its parts


@needed
def test_the_learning_rate_is_the_released_one():
    golden = listing("golden_modules.json")["warmup_poly_lr"]
    config = OptimConfig(lr=golden["lr"], epochs=500, warmup_epochs=10, power=golden["power"])
    for step, rate in golden["lr_at_step"].items():
        assert learning_rate(int(step), 74, config) == pytest.approx(rate, rel=1e-5)


def test_the_learning_rate_rises_from_a_tenth_and_then_only_falls():
    config = OptimConfig(lr=2.0, epochs=10, warmup_epochs=2)
    rates = [learning_rate(step, 5, config) for step in range(50)]
    assert rates[0] == pytest.approx(0.2)
    assert rates[5] == pytest.approx(1.1)
    assert rates[10] == pytest.approx(2.0)
    assert rates[49] == pytest.approx(2.0 * (1 - 39 / 45) ** 0.9)  # 0 an epoch after the last
    assert sorted(rates[:11]) == rates[:11]
    assert sorted(rates[10:], reverse=True) == rates[10:]
    assert learning_rate(0, 5, replace(config, warmup_epochs=0)) == pytest.approx(2.0)


def test_batches_of_a_step_are_the_same_pairs_for_any_number_of_ranks():
    def steps(batch: int, accumulate: int, ranks: int, start: int = 0) -> list[list[Any]]:
        config = OptimConfig(epochs=3, batch_size=batch, accumulate=accumulate)
        batches = list(StepBatches(17, config, ranks, 5, start))
        assert len(batches) == len(StepBatches(17, config, ranks, 5, start))
        many = accumulate * ranks
        return [list(chain(*batches[i : i + many])) for i in range(0, len(batches), many)]

    whole = steps(4, 1, 1)
    assert len(whole) == 3 * 4
    assert whole == steps(2, 2, 1) == steps(2, 1, 2) == steps(1, 2, 2)
    assert steps(4, 1, 1, start=5) == whole[5:]
    for epoch in range(3):
        seen = list(chain(*whole[4 * epoch : 4 * epoch + 4]))
        assert {e for e, _ in seen} == {epoch}
        assert len({index for _, index in seen}) == 16
    assert len({str(step) for step in whole}) == 12
    other = StepBatches(17, OptimConfig(epochs=3, batch_size=4), 1, 6, 0)
    assert [set(step) for step in whole] != [set(step) for step in other]
    few = list(StepBatches(3, OptimConfig(epochs=2, batch_size=4), 1, 0, 0))
    assert [len(batch) for batch in few] == [4, 4]


def decayed_names(model: SARTM) -> set[str]:
    """Of what learns, the parameters that weight decay pulls to 0."""
    groups = make_optimizer(model, OptimConfig(weight_decay=0.3)).param_groups
    assert {group["weight_decay"] for group in groups} == {0.3, 0.0}
    names = {id(p): name for name, p in model.named_parameters() if p.requires_grad}
    assert sorted(id(p) for group in groups for p in group["params"]) == sorted(names)
    return {names[id(p)] for group in groups if group["weight_decay"] for p in group["params"]}


def test_weight_decay_is_for_weights_and_adapters_not_for_biases_and_norms(tiny_model):
    decayed = decayed_names(tiny_model)
    assert {
        "auxiliary_head.predict.weight",
        "fusion.fuse.0.cross.enter_rgb.weight",
        "image_encoder.trunk.blocks.0.attn.qkv.lora_down",
        "image_encoder.trunk.blocks.0.attn.qkv.lora_up_q",
        "sam_mask_decoder.mask_tokens.weight",
        "sam_mask_decoder.output_hypernetworks_mlps.weight0",
        "sam_mask_decoder.transformer.layers.0.self_attn.q_proj.weight",
    } <= decayed
    assert [name for name in decayed if name.endswith(".bias")] == []
    norms = [
        f"{path}.weight"
        for path, module in tiny_model.named_modules()
        if isinstance(module, torch.nn.LayerNorm)
    ]
    assert "fusion.fuse.0.cross.norm_rgb.weight" in norms
    assert "fusion.fuse.0.norm.weight" in norms
    assert [name for name in norms if name in decayed] == []


@pytest.mark.xfail(strict=True, reason="decay goes by dimensions; stacked biases have three")
def test_weight_decay_is_not_for_the_stacked_biases_of_the_hypernetworks(tiny_model):
    stacked = "sam_mask_decoder.output_hypernetworks_mlps.bias"
    assert [name for name in decayed_names(tiny_model) if name.startswith(stacked)] == []


def test_the_average_follows_the_weights_slowly(tiny_model):
    assert make_average(tiny_model, 0.0) is None
    average = make_average(tiny_model, 0.99)
    assert average is not None
    name = "auxiliary_head.predict.bias"
    expected = tiny_model.get_parameter(name).detach().clone()
    for count in range(1, 6):
        with torch.no_grad():
            tiny_model.get_parameter(name).fill_(float(count))
        average.update_parameters(tiny_model)
        keep = min(0.99, (1 + count) / (10 + count))
        expected = keep * expected + (1 - keep) * count
    torch.testing.assert_close(average.module.get_parameter(name).detach(), expected)


def test_thermal_and_class_statistics_are_those_of_the_training_pixels(six):
    dataset = PairDataset.open(six, "train")
    found = measure(dataset, short(six))
    thermal = np.stack([sample.thermal for sample in dataset]) / 255
    labels = np.stack([sample.label for sample in dataset])
    assert found.thermal_mean == pytest.approx(thermal.mean(), abs=1e-5)
    assert found.thermal_std == pytest.approx(thermal.std(), abs=1e-5)
    assert not found.wide
    shares = np.bincount(labels.ravel(), minlength=len(MFNET)) / labels.size
    np.testing.assert_allclose(found.class_shares, shares, atol=1e-6)


def test_16_bit_thermal_gets_the_percentile_rule(tmp_path):
    data = draw_dataset(tmp_path / "data", 2, 1)
    for path in (data / "thermal").iterdir():
        raw = cv2.imread(str(path), cv2.IMREAD_UNCHANGED).astype(np.uint16) * 40 + 5000
        cv2.imwrite(str(path), raw)
    config = short(data, optim=OptimConfig(epochs=1, batch_size=2))
    train(config, tmp_path / "run", device="cpu")
    rule = load(tmp_path / "run" / "best").config.thermal
    assert (rule.rule, rule.low, rule.high) == ("percentile", 1.0, 99.0)
    assert 0.2 < rule.mean < 0.8
    assert 0.1 < rule.std < 0.5


@pytest.mark.parametrize(("pairs", "held"), [(2, 1), (5, 1), (20, 2), (40, 4), (250, 25)])
def test_without_a_val_split_a_tenth_of_train_is_held_out(tmp_path, pairs, held):
    """Only the lists matter: every pair is a copy of one scene's entry."""
    data = draw_dataset(tmp_path / "data", 1, val=0)
    for kind in ("rgb", "thermal", "label"):
        for index in range(1, pairs):
            (data / kind / f"{index:03d}.png").hardlink_to(data / kind / "000.png")
    (data / "train.txt").write_text("".join(f"{index:03d}\n" for index in range(pairs)))
    splits = open_splits(short(data))
    assert splits.val is not None
    own, val = ({pair.name for pair in part.pairs} for part in (splits.train, splits.val))
    assert len(val) == held
    assert len(own) == pairs - held
    assert not own & val


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


def test_a_model_is_started_from_and_heads_of_other_classes_are_new(tiny_model):
    same = SARTM(tiny_model.config)
    start_from(same, tiny_model)
    assert all(torch.equal(t, same.state_dict()[n]) for n, t in tiny_model.state_dict().items())
    classes = replace(MFNET, names=("road", *MFNET.names[1:]))
    other = SARTM(replace(tiny_model.config, classes=classes))
    fresh = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    start_from(other, tiny_model)
    for name, tensor in other.state_dict().items():
        head = any(p in name for p in ("mask_tokens", "hypernetworks", "auxiliary_head.predict"))
        source = fresh if head else tiny_model.state_dict()
        assert torch.equal(tensor, source[name]), name
    wider = SARTM(replace(tiny_model.config, width=64))
    with pytest.raises(InputError, match="cannot start from this model"):
        start_from(wider, tiny_model)


def test_heads_of_another_number_are_refused_though_their_shapes_are_the_same(tiny_model):
    other = SARTM(replace(tiny_model.config, decoder=replace(TINY.decoder, heads=8)))
    with pytest.raises(InputError, match=r"4 heads.*--set model\.decoder\.heads=4"):
        start_from(other, tiny_model)


def test_training_goes_on_from_released_weights(six, tmp_path):
    file, lr = tmp_path / "released.pth", 1e-3
    torch.save({"model_state_dict": small_released(len(MFNET))}, file)
    model = replace(
        TINY, decoder=replace(TINY.decoder, heads=8), fusion=FusionConfig(crop=(32, 64))
    )
    optim = replace(short(six).optim, lr=lr, warmup_epochs=0, ema=0.0)
    train(
        short(six, init=str(file), model=model, optim=optim),
        tmp_path / "run",
        limits=Limits(steps=2),
        device="cpu",
    )
    before, after = load(file, classes=MFNET, canvas=128), load(tmp_path / "run" / "best")
    assert isinstance(before, Released)
    assert not isinstance(after, Released)
    assert after.config.classes.names == MFNET.names
    assert (after.config.thermal.mean, after.config.thermal.std) == (0, 1)  # as it was trained
    file.unlink()  # the encoder is in the model
    theirs, ours = before.state_dict(), load(tmp_path / "run" / "best").state_dict()
    for name, module in before.named_modules():
        if isinstance(module, AdaptedQKV):  # adapters are folded into an encoder that is frozen
            theirs[f"{name}.weight"] = module.merged().weight[0]
    learned = 0
    for name, value in theirs.items():
        if ".lora_" in name or name not in ours:
            continue
        if "mask_tokens" in name or "output_hypernetworks" in name:
            value = value[1:]  # token 0 means no class
        if name.startswith(("image_encoder.", "sam_prompt_encoder.")) or "running_" in name:
            assert torch.equal(ours[name], value), name
        else:  # two steps of AdamW from there
            assert (ours[name] - value).abs().max() < 3 * lr, name
            learned += int(not torch.equal(ours[name], value))
    assert learned > 50
    scene = draw_scene(0)
    labels = Predictor(after, device="cpu")(scene["rgb"], scene["thermal"]).labels
    assert labels.shape == SIZE


def test_trained_adapters_on_their_encoder_give_the_label_maps_of_the_run(six, tmp_path):
    file = tmp_path / "sam2.pt"
    torch.save({"model": meta_weights()}, file)
    model = replace(TINY, fusion=FusionConfig(crop=(32, 64)))
    run = tmp_path / "run"
    train(short(six, model=model, encoder=str(file)), run, limits=Limits(steps=9), device="cpu")
    stored = load_file(run / "best" / "model.safetensors")
    assert any(".lora_up" in name and value.any() for name, value in stored.items())
    assert not [n for n in stored if n.startswith("image_encoder.") and ".lora_" not in n]
    best, whole = load(run / "best"), latest_checkpoint(run)
    assert whole is not None
    average = "average/module."  # what was kept, with every weight of its encoder
    averaged = {n.removeprefix(average): t for n, t in whole.tensors.items() if average in n}
    in_training = SARTM(best.config)
    in_training.load_state_dict(averaged)
    trained, loaded = (
        Predictor(each.eval(), device="cpu", precision="fp32") for each in (in_training, best)
    )
    expected = {}
    for index in range(3):
        scene = draw_scene(index)
        expected[index] = trained(scene["rgb"], scene["thermal"]).labels
        assert np.array_equal(loaded(scene["rgb"], scene["thermal"]).labels, expected[index])
        assert np.array_equal(loaded(scene["rgb"], None).labels, trained(scene["rgb"], None).labels)
    assert len(np.unique(expected[0])) > 1
    moved = file.rename(tmp_path / "moved.pt")
    inputs = ["--rgb", str(six / "rgb"), "--thermal", str(six / "thermal"), "--device", "cpu"]
    words = ["predict", *inputs, "--model", str(run / "best"), "--precision", "fp32"]
    assert main([*words, "--out", str(tmp_path / "lost")]) == 2
    assert main([*words, "--out", str(tmp_path / "out"), "--encoder", str(moved)]) == 0
    for index, labels in expected.items():
        found = read_label(tmp_path / "out" / "labels" / f"{index:03d}.png", MFNET.ignore)
        assert np.array_equal(found, labels)


def apart(root: Path, pairs: int, first: int = 100) -> Path:
    """Scenes of their own, without labels."""
    scenes = [draw_scene(first + index) for index in range(pairs)]
    for scene in scenes:
        del scene["label"]
    return write_dataset(root, scenes, 0)


@pytest.fixture(scope="module")
def taught(six, undisturbed, tmp_path_factory) -> Path:
    """A run with a teacher, unlabelled pairs and hidden modalities."""
    root = tmp_path_factory.mktemp("taught")
    data = str(apart(root / "more", 5))
    config = short(six, teacher=str(undisturbed / "best"), unlabelled=(data,))
    assert train(config, root / "run", device="cpu")["finished"]
    return root / "run"


def test_a_student_that_listens_comes_nearer_to_its_teacher(taught, tmp_path):
    """The same pairs in the same order: what the teacher says counts next to nothing, or a lot."""
    config = from_dict(TrainConfig, json.loads((taught / "config.json").read_text()), "config")
    curves = {}
    for weight in (0.001, 30.0):
        run = tmp_path / str(weight)
        train(replace(config, loss=replace(config.loss, distil=weight)), run, device="cpu")
        curves[weight] = losses(run, "distil")
        assert len(curves[weight]) == 36  # half of each batch is unlabelled: twice the steps
        assert len(losses(run, "auxiliary_distil")) == 36
    assert np.mean(curves[30.0][-6:]) < 0.5 * np.mean(curves[0.001][-6:]), curves


def test_a_model_says_what_it_was_taught_by_and_what_it_has_seen(taught, six):
    facts = load(taught / "best").facts
    assert facts is not None
    assert facts.data[-2:] == ("drawn", "drawn")
    assert facts.recipe["teacher"] == "best"
    assert facts.recipe["unlabelled"] == ["drawn"]
    assert len(facts.training_images) == 6 + 5


def test_a_run_with_a_teacher_resumes_bit_for_bit(taught, six, tmp_path):
    config = from_dict(TrainConfig, json.loads((taught / "config.json").read_text()), "config")
    train(config, tmp_path / "run", limits=Limits(steps=18), device="cpu")
    train(config, tmp_path / "run", resume=True, device="cpu")
    assert_same_run(tmp_path / "run", taught)


def test_unlabelled_pairs_end_every_batch_and_all_have_their_turn():
    config = OptimConfig(epochs=4, batch_size=4)
    batches = list(StepBatches(6, config, 1, 0, 0, unlabelled=5, share=0.5))
    assert len(batches) == 4 * 3
    assert all([i < 6 for _, i in batch] == [True, True, False, False] for batch in batches)
    others = [key for batch in batches for key in batch[2:]]
    assert [epoch for epoch, _ in others] == [place // 5 for place in range(24)]
    assert {i for _, i in others[:5]} == {i for _, i in others[5:10]} == set(range(6, 11))
    assert list(StepBatches(6, config, 1, 0, 7, unlabelled=5, share=0.5)) == batches[7:]
    with pytest.raises(InputError, match=r"batch of 1 cannot be 0\.5 unlabelled"):
        StepBatches(6, replace(config, batch_size=1), 1, 0, 0, unlabelled=5, share=0.5)


def test_a_teacher_sees_a_modality_that_was_dropped(six, tmp_path):
    given: list[Batch] = []

    def teacher(batch: Batch) -> torch.Tensor:
        given.append(batch)
        return torch.full((len(batch), len(MFNET), 8, 16), 1 / len(MFNET))

    always = AugmentationConfig(crop=(32, 64), drop_rgb=1, drop_thermal=0)
    config = short(six, augmentation=always)
    train(config, tmp_path / "run", limits=Limits(steps=2), device="cpu", teacher=teacher)
    for batch in given:
        assert not batch.has_rgb.any()
        assert batch.given_rgb.all()
        assert batch.rgb.std() > 0.05
    assert "distil" in metrics(tmp_path / "run")[0]


def test_a_larger_working_size_of_the_teacher_is_kept(six, tmp_path):
    """The teacher is asked at its own scale: it gives what it would give on larger crops."""
    torch.manual_seed(0)
    model = SARTM(replace(TINY, scale=1.0, output="blend"))
    save(model, tmp_path / "teacher", ModelFacts())
    student = replace(model.config, scale=0.5)
    teacher, facts = load_teacher(str(tmp_path / "teacher"), student, torch.device("cpu"))
    assert facts is not None
    rgb, thermal = torch.rand(2, 3, 32, 48), torch.rand(2, 1, 32, 48)
    yes, mixed = torch.tensor([True, True]), torch.tensor([True, False])
    batch = Batch(rgb, thermal, torch.zeros(2, 32, 48), yes, ~yes, mixed, yes)
    got = teacher(batch)
    assert got.shape == (2, len(MFNET), 16, 24)
    large = [F.interpolate(x, (64, 96), mode="bilinear") for x in (rgb, thermal)]
    model.eval()
    with torch.no_grad():
        expected = [
            model.predict_logits(large[0][:1], large[1][:1]),
            model.predict_logits(None, large[1][1:]),
        ]
    torch.testing.assert_close(got, torch.cat(expected).softmax(1))


def test_a_model_is_its_own_teacher_without_loss_whatever_the_crop(tmp_path):
    """Crops that are no multiple of 32 are padded; what was taught lies where it belongs."""
    torch.manual_seed(0)
    model = build(TINY).eval()
    save(model, tmp_path / "teacher", ModelFacts())
    teacher, _ = load_teacher(str(tmp_path / "teacher"), model.config, torch.device("cpu"))
    rgb, thermal, yes = torch.rand(1, 3, 44, 72), torch.rand(1, 1, 44, 72), torch.tensor([True])
    label = torch.zeros(1, 44, 72, dtype=torch.long)
    taught = teacher(Batch(rgb, thermal, label, yes, yes, yes, yes))
    spoken = torch.ones(len(MFNET), dtype=torch.bool)
    criterion = Criterion(LossConfig(language=0), TINY.width, spoken, None)
    with torch.no_grad():
        terms = criterion(model(rgb, thermal), label, taught=taught)
    assert float(terms["distil"]) < 1e-6


def test_a_start_that_has_seen_the_validation_pairs_is_named(six, undisturbed, tmp_path, caplog):
    config = short(six, init=str(undisturbed / "best"), encoder="unread.pt")
    with caplog.at_level(logging.WARNING, "sartm"):
        train(config, tmp_path / "run", limits=Limits(steps=1), device="cpu")
    assert "was trained on 3 of the 3 validation pairs" in caplog.text
    assert "unread.pt is not read" in caplog.text


def test_a_licence_is_passed_on_with_the_data_that_came_after(six, tmp_path):
    licence = "Drawn; free."
    save(build(short(six).model), tmp_path / "start", ModelFacts(name="start", licence=licence))
    config = short(six, init=str(tmp_path / "start"))
    train(config, tmp_path / "run", limits=Limits(steps=1), device="cpu")
    facts = load(tmp_path / "run" / "best").facts
    assert facts is not None
    assert licence in facts.licence
    assert "drawn" in facts.licence


def test_what_a_teacher_cannot_teach_is_refused(six, tmp_path):
    more = apart(tmp_path / "more", 2)
    with pytest.raises(InputError, match="need a --teacher"):
        train(short(six, unlabelled=(str(more),)), tmp_path / "a", device="cpu")
    other = replace(TINY, classes=Classes(("road", "rider")))
    save(SARTM(other), tmp_path / "other", ModelFacts())
    with pytest.raises(InputError, match="tells road, rider apart"):
        train(short(six, teacher=str(tmp_path / "other")), tmp_path / "b", device="cpu")
    ranged = replace(TINY, thermal=ThermalRule("range", 0, 50))
    save(SARTM(ranged), tmp_path / "ranged", ModelFacts())
    with pytest.raises(InputError, match="reads thermal by"):
        train(short(six, teacher=str(tmp_path / "ranged")), tmp_path / "c", device="cpu")


def test_unlabelled_pairs_must_not_be_those_of_validation(six, tmp_path):
    model = tmp_path / "teacher"
    save(SARTM(TINY), model, ModelFacts())
    leaking = apart(tmp_path / "leaking", 4, first=1)  # other scenes under val's names ...
    train(
        short(six, teacher=str(model), unlabelled=(str(leaking),)),
        tmp_path / "fine", limits=Limits(steps=1), device="cpu",
    )  # fmt: skip
    shutil.copy(six / "thermal" / "002.png", leaking / "thermal" / "002.png")  # ... but for one
    with pytest.raises(InputError, match=r"1 unlabelled pairs .* such as '002'"):
        train(
            short(six, teacher=str(model), unlabelled=(str(leaking),)),
            tmp_path / "not", device="cpu",
        )  # fmt: skip
