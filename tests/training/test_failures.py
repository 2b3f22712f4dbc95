"""What ends a run is said with what to do: disks, files, memory, numbers that are none."""

import json
import os
import re
import resource
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from draw_training import draw_dataset
from processes import start_command

from sartm.config import to_dict
from sartm.errors import InputError
from sartm.training.augmentation import Batch
from sartm.training.batches import StepBatches
from sartm.training.failures import explained_failures
from sartm.training.loop import Limits, train
from sartm.training.runs import latest_checkpoint
from sartm.training.settings import LossConfig
from training.runs import assert_same_run, losses, short, wait_for_steps


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file of this process may grow beyond `size` bytes, as if the disk were full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.slow
def test_what_cannot_be_saved_is_said_and_the_last_good_one_is_kept(undisturbed, six, tmp_path):
    out, config = tmp_path / "run", short(six)
    train(config, out, limits=Limits(steps=2), device="cpu")
    whole = out / "checkpoints" / "step-00000002" / "training.safetensors"
    message = r"cannot write checkpoint .*step-00000004.*File too large.*--resume"
    with largest_file(whole.stat().st_size // 2), pytest.raises(InputError, match=message):
        train(config, out, resume=True, device="cpu")
    kept = sorted(p.name for p in (out / "checkpoints").iterdir())
    assert kept == ["step-00000000", "step-00000002"]
    train(config, out, resume=True, limits=Limits(steps=4), device="cpu")
    assert losses(out) == losses(undisturbed)[:4]


@pytest.mark.slow
@pytest.mark.parametrize("room", [1.0, 6.0, 9.5, 13.0, 16.5])
def test_on_a_disk_that_fills_up_it_says_so_and_goes_on_when_there_is_room(
    undisturbed, six, tmp_path, room
):
    """A real file system of `room` MiB. A checkpoint takes 7, that of step 0 2.8."""
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
        assert (latest_checkpoint(out) is not None) == (room > 4)
        begun = (out / "config.json").exists()
        assert begun == ("--resume" in str(caught.value)) == (room > 4)
        wider = ["mount", "-o", "remount,size=64m", str(disk)]
        subprocess.run(wider, check=True, capture_output=True)
        train(short(six), out, resume=begun, device="cpu")
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


@pytest.mark.parametrize("error", [ConnectionResetError(104, "reset by peer"), EOFError()])
def test_a_batch_that_is_cut_off_is_a_worker_that_died(six, error):
    """A worker is killed while it hands a batch over: nothing speaks of workers then."""
    with (
        pytest.raises(InputError, match=r"data worker died at step 4"),
        explained_failures(3, short(six, workers=1)),
    ):
        raise error
    with pytest.raises(type(error)), explained_failures(3, short(six, workers=0)):
        raise error


def test_a_worker_that_dies_is_said_with_what_to_do(six, tmp_path, capfd):
    """The data worker of a real run is killed, as the kernel does where memory runs out."""
    config = short(six, workers=1, optim=replace(short(six).optim, epochs=2000), validate_every=0)
    (tmp_path / "config.json").write_text(json.dumps(to_dict(config)))
    out = tmp_path / "run"
    arguments = ["train", str(tmp_path / "config.json"), "--out", str(out), "--device", "cpu"]
    process = start_command(arguments, silent=False)
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
