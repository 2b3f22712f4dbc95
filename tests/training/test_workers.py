"""Data workers: a run ends as told, whatever room they have and whatever they are at."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from processes import run_command, start_command

from sartm.config import to_dict
from sartm.training.batches import make_batches, make_loader
from sartm.training.loop import Limits, train
from sartm.training.runs import latest_checkpoint
from sartm.training.splits import open_splits
from sartm.training.workers import Stream, usable_workers
from training.runs import lines, losses, short, wait_for_steps

MOUNT = 'mount -t tmpfs -o size=$0 tmpfs /dev/shm || exit 77; exec "$@"'
"""In a namespace of its own: nothing outside sees it."""


@pytest.mark.slow
@pytest.mark.parametrize("room", ["200k", "4k"])
def test_with_little_shared_memory_a_run_is_the_same(undisturbed, six, tmp_path, room):
    """200 KiB hold the workers' semaphores and not two batches; 4 KiB not even these."""
    (tmp_path / "config.json").write_text(json.dumps(to_dict(short(six, workers=2))))
    out = tmp_path / "run"
    train_it = [sys.executable, "-m", "sartm", "train", str(tmp_path / "config.json"), "--out",
                str(out), "--device", "cpu", "--max-steps", "4"]  # fmt: skip
    command = ["unshare", "--mount", "bash", "-c", MOUNT, room, *train_it]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    except FileNotFoundError:
        pytest.skip("no unshare here")
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("mounting needs root")
    assert done.returncode == 0, done.stderr
    assert ("no data workers" in done.stderr) == (room == "4k")
    assert losses(out) == losses(undisturbed)[:4]


def test_batches_come_through_a_pipe_where_no_memory_can_be_shared(six, monkeypatch):
    def refuse(tensor: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("unable to allocate shared memory(shm): No space left on device (28)")

    config = short(six, workers=1)
    splits = open_splits(config)

    def read() -> list[list[torch.Tensor]]:
        batches = make_batches(splits, config, 1, 15)
        return [list(vars(batch).values()) for batch in make_loader(splits, config, batches)]

    shared = read()
    monkeypatch.setattr(torch.Tensor, "share_memory_", refuse)
    piped = read()
    assert len(piped) == len(shared) == 3
    for ours, theirs in zip(piped, shared, strict=True):
        assert all(
            torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(ours, theirs, strict=True)
        )


def test_without_semaphores_there_are_no_workers(monkeypatch, caplog):
    def refuse() -> None:
        raise OSError(28, "No space left on device")

    assert usable_workers(3) == 3
    monkeypatch.setattr(multiprocessing, "Lock", refuse)
    assert usable_workers(0) == 0
    assert not caplog.text
    assert usable_workers(3) == 0
    assert "shm-size" in caplog.text


def children(process: int) -> list[int]:
    text = Path(f"/proc/{process}/task/{process}/children").read_text()
    return [int(word) for word in text.split()]


def is_there(process: int) -> bool:
    """Whether a process is alive, zombies aside."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc")
@pytest.mark.slow
def test_sigterm_ends_a_run_whose_workers_are_stuck(undisturbed, six, tmp_path):
    """Both workers are halted, as in a read that never returns: they hear no signal but SIGKILL."""
    config = short(six, workers=2, optim=replace(short(six).optim, epochs=2000), validate_every=0)
    (tmp_path / "config.json").write_text(json.dumps(to_dict(config)))
    out = tmp_path / "run"
    arguments = ["train", str(tmp_path / "config.json"), "--out", str(out), "--device", "cpu"]
    process = start_command(arguments, silent=False)
    assert process.pid is not None
    wait_for_steps(out, 3)
    workers = children(process.pid)
    assert len(workers) == 2
    for worker in workers:
        os.kill(worker, signal.SIGSTOP)
    steps = -1
    while steps != len(losses(out)):  # what they had read already
        steps = len(losses(out))
        time.sleep(1)
    os.kill(process.pid, signal.SIGTERM)
    process.join(30)
    assert process.exitcode == 130
    assert not [worker for worker in workers if is_there(worker)]
    found = latest_checkpoint(out)
    assert found is not None
    assert found.step == steps
    train(config, out, resume=True, limits=Limits(steps=steps + 1), device="cpu")
    assert [line["step"] for line in lines(out)] == list(range(1, steps + 2))


def test_sigterm_while_a_run_is_prepared_ends_it_at_once(six, tmp_path):
    """Nothing is lost, and nothing is left behind."""

    def stop(event: str, arguments: tuple[object, ...]) -> None:
        if event == "open" and str(arguments[0]).endswith("002.png"):
            os.kill(os.getpid(), signal.SIGTERM)

    out = tmp_path / "run"
    (tmp_path / "config.json").write_text(json.dumps(to_dict(short(six))))

    def run() -> None:
        sys.addaudithook(stop)
        run_command(["train", str(tmp_path / "config.json"), "--out", str(out)])

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    process.join(60)
    assert process.exitcode == 130
    assert not out.exists()


def test_a_stream_that_is_left_ends_its_workers(six):
    """Without the alarm that PyTorch gives when a worker ends."""
    config = short(six, workers=2)
    splits = open_splits(config)
    loader = make_loader(splits, config, make_batches(splits, config, 1, 0))
    before = set(multiprocessing.active_children())
    with Stream(loader, nullcontext) as stream:
        next(stream)
        workers = set(multiprocessing.active_children()) - before
        assert len(workers) == 2
    assert not workers & set(multiprocessing.active_children())
    time.sleep(0.1)
