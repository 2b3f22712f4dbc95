"""A run that is killed, stopped or damaged goes on to the same end."""

import itertools
import json
import logging
import multiprocessing
import os
import random
import re
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from processes import start_command
from safetensors.torch import load_file

import sartm.training.start
from sartm.cli.main import main
from sartm.config import to_dict
from sartm.errors import InputError
from sartm.files import temporary_beside
from sartm.model.loading import load
from sartm.training.loop import Limits, train
from sartm.training.runs import Checkpoint, latest_checkpoint, write_checkpoint
from sartm.training.settings import LossConfig, TrainConfig
from training.runs import assert_same_run, child, lines, losses, short, start, wait_for_steps


@pytest.mark.slow
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
    kept, expected = load(out / "best"), load(undisturbed / "best")  # no session's end chose it
    assert kept.facts.results == expected.facts.results
    assert all(torch.equal(t, expected.state_dict()[n]) for n, t in kept.state_dict().items())
    again = train(short(six), out, resume=True, device="cpu")  # nothing is left to do
    assert again["finished"]
    assert losses(out) == losses(undisturbed)


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


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_that_is_interrupted_saves_and_exits_130(
    undisturbed, six, tmp_path, number, capfd
):
    out = tmp_path / "run"
    (tmp_path / "config.json").write_text(json.dumps(to_dict(short(six))))
    arguments = ["train", str(tmp_path / "config.json"), "--out", str(out), "--device", "cpu"]
    process = start_command(arguments, silent=False)
    wait_for_steps(out, 3)
    os.kill(process.pid, number)
    process.join(60)
    assert process.exitcode == 130
    said = " ".join(capfd.readouterr().out.split())
    assert re.search(rf"interrupted at step \d+ of 18; to go on: .* --out {out} --resume", said)
    found = latest_checkpoint(out)
    assert found is not None
    assert 3 <= found.step < 18
    assert (out / "report" / "report.html").exists()
    assert main([*arguments, "--resume"]) == 0
    assert_same_run(out, undisturbed)


def train_until_opened(config: TrainConfig, out: Path, file: Path) -> None:
    """In a process of its own, told to stop in the moment in which it first opens `file`."""
    opened: list[str] = []

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and str(arguments[0]) == str(file) and not opened:
            opened.append(event)
            os.kill(os.getpid(), signal.SIGTERM)

    sys.addaudithook(watch)
    child(config, out, resume=False, group=False)


@pytest.mark.slow
def test_a_validation_that_is_broken_off_is_made_up_for_by_resume(undisturbed, six, tmp_path):
    """Told to stop while the validation of step 9 reads its pairs."""
    out = tmp_path / "run"
    arguments = (short(six), out, six / "thermal" / "val-1.png")
    process = multiprocessing.get_context("fork").Process(target=train_until_opened, args=arguments)
    process.start()
    process.join(60)
    result = json.loads((out / "result.json").read_text())
    assert (result["step"], result["interrupted"], result["best"]) == (9, True, None)
    assert not any("val" in line for line in lines(out))
    assert train(short(six), out, resume=True, device="cpu")["finished"]
    assert_same_run(out, undisturbed)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "no state", "half a name"])
@pytest.mark.slow
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


@pytest.mark.slow
def test_from_the_checkpoint_before_a_damaged_one_it_ends_the_same(begun, undisturbed, six):
    (begun / "checkpoints" / "step-00000008" / "training.safetensors").write_bytes(b"")
    train(short(six), begun, resume=True, device="cpu")
    ours, theirs = latest_checkpoint(begun), latest_checkpoint(undisturbed)
    assert ours is not None
    assert theirs is not None
    assert all(torch.equal(t, theirs.tensors[name]) for name, t in ours.tensors.items())
    assert losses(begun) == losses(undisturbed)


def contents(run: Path) -> dict[str, bytes]:
    """Every file of a run."""
    return {str(p.relative_to(run)): p.read_bytes() for p in run.rglob("*") if p.is_file()}


@pytest.mark.parametrize("damage", ["no state", "no checkpoints", "only metrics"])
@pytest.mark.slow
def test_a_run_without_any_whole_checkpoint_is_not_resumed_over_its_results(begun, six, damage):
    for folder in (begun / "checkpoints").glob("step-*"):
        (folder / "state.json").write_text("[]")
    if damage != "no state":
        shutil.rmtree(begun / "checkpoints")
    if damage == "only metrics":
        shutil.rmtree(begun / "best")
    before = contents(begun)
    with pytest.raises(InputError, match=r"no checkpoint that can be read.*another --out"):
        train(short(six), begun, limits=Limits(steps=2), resume=True, device="cpu")
    assert contents(begun) == before


@pytest.mark.slow
def test_fresh_checkpoints_are_kept_whatever_damaged_ones_there_are(begun, undisturbed, six):
    """The newest two are damaged, by names beyond those that the resumed run writes first."""
    folder = begun / "checkpoints"
    for step in (11, 13):
        shutil.copytree(folder / "step-00000008", folder / f"step-{step:08d}")
    for step in (8, 11, 13):
        (folder / f"step-{step:08d}" / "training.safetensors").write_bytes(b"")
    config = short(six, keep=1, checkpoint_every=3)
    train(config, begun, resume=True, limits=Limits(steps=7), device="cpu")
    found = latest_checkpoint(begun)
    assert found is not None
    assert found.step == 7
    train(config, begun, resume=True, device="cpu")
    assert [path.name for path in folder.iterdir()] == ["step-00000018"]
    assert losses(begun) == losses(undisturbed)


@pytest.mark.slow
def test_a_start_that_is_refused_blocks_no_other(six, tmp_path):
    """Refused before the first step, by its data or in it; what is wrong is then put right."""
    out = tmp_path / "run"
    with pytest.raises(InputError):
        train(short(tmp_path / "nothing"), out, device="cpu")
    assert not out.exists()
    hot = replace(short(six).optim, lr=1e38, warmup_epochs=0, clip=0.0)
    with pytest.raises(InputError, match=r"is (nan|inf) at step"):
        train(short(six, optim=hot, loss=LossConfig(auxiliary=1e30)), out, device="cpu")
    assert train(short(six), out, limits=Limits(steps=1), device="cpu")["step"] == 1
    with pytest.raises(InputError, match="already holds a run"):
        train(short(six), out, device="cpu")
    (out / "config.json").unlink()
    with pytest.raises(InputError, match=r"holds best of a run whose config\.json is gone"):
        train(short(six), out, device="cpu")


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.slow
def test_two_processes_do_not_train_in_one_folder(six, tmp_path, resume):
    """With workers, who inherit what the first process has open and outlive it for a while."""
    out = tmp_path / "run"
    config = short(six, workers=1, optim=replace(short(six).optim, epochs=5000), validate_every=0)
    process = start(config, out)
    wait_for_steps(out, 2)
    with pytest.raises(InputError, match=rf"in use by process {process.pid} "):
        train(config, out, resume=resume, device="cpu")
    process.kill()
    process.join()
    limits = Limits(steps=len(losses(out)) + 1)
    train(config, out, resume=True, limits=limits, device="cpu")
    steps = [line["step"] for line in lines(out)]
    assert steps == list(range(1, limits.steps + 1))


@pytest.mark.slow
def test_what_a_killed_run_left_is_cleaned_and_a_hidden_model_comes_back(begun, undisturbed, six):
    """As between the two renames of a system that cannot let names change places."""
    (begun / "best").rename(temporary_beside(begun / "best").with_suffix(".old"))
    for left in (begun / "best", begun / "checkpoints" / "step-00000008"):
        unfinished = temporary_beside(left)
        unfinished.mkdir()
        (unfinished / "model.safetensors").write_bytes(b"half")
    write = temporary_beside(begun / "metrics.jsonl")
    write.write_bytes(b"half")
    assert not (begun / "best").exists()
    train(short(six), begun, resume=True, limits=Limits(steps=8), device="cpu")
    assert not [path for path in begun.rglob(".sartm*")]
    assert load(begun / "best").facts.steps == 8
    train(short(six), begun, resume=True, device="cpu")
    assert losses(begun) == losses(undisturbed)


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


@pytest.mark.slow
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


def with_scaler(make: Callable[..., Accelerator], scale: float) -> Callable[..., Accelerator]:
    """An accelerator on the CPU with the loss scaler that fp16 has on a GPU."""

    def call(*arguments: Any) -> Accelerator:
        accelerator = make(*arguments)
        accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=3)
        return accelerator

    return call


@pytest.mark.slow
def test_the_scaler_is_restored_and_skipped_steps_leave_no_trace(six, tmp_path, monkeypatch):
    """The first scale overflows: steps are skipped until it has been halved often enough."""
    config = short(six, optim=replace(short(six).optim, clip=0.0))
    out, make = tmp_path / "run", sartm.training.start.make_accelerator
    monkeypatch.setattr(sartm.training.start, "make_accelerator", with_scaler(make, 2.0**127))
    train(config, out, limits=Limits(steps=2), device="cpu")
    first, second = (checkpoint_at(out, step) for step in (0, 2))
    assert first.state["scaler"]["scale"] == 2.0**127
    assert second.state["scaler"]["scale"] == 2.0**125
    for name, tensor in first.tensors.items():
        if name != "rng":
            assert torch.equal(tensor, second.tensors[name]), name
    monkeypatch.setattr(sartm.training.start, "make_accelerator", with_scaler(make, 1.0))
    train(config, out, limits=Limits(steps=4), resume=True, device="cpu")
    assert checkpoint_at(out, 4).state["scaler"]["scale"] == 2.0**123


def checkpoint_at(run: Path, step: int) -> Checkpoint:
    """A checkpoint by its step."""
    folder = run / "checkpoints" / f"step-{step:08d}"
    state = json.loads((folder / "state.json").read_text())
    return Checkpoint(step, load_file(folder / "training.safetensors"), state)


def test_another_recipe_is_not_resumed_in_silence(begun, six, capsys):
    words = ["--data", str(six), "--out", str(begun), "--resume", "--device", "cpu"]
    before = contents(begun)
    assert main(["train", "mfnet", *words]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "holds a run of test, which mfnet cannot continue" in said
    assert contents(begun) == before
    assert main(["train", str(begun), *words, "--max-steps", "9"]) == 0
