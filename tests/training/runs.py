"""Short runs for tests: how they are set, what they wrote, and runs in their own process."""

import json
import multiprocessing
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from conftest import TINY
from safetensors.torch import load_file

from sartm.config import FusionConfig
from sartm.training.loop import train
from sartm.training.runs import latest_checkpoint
from sartm.training.settings import AugmentationConfig, LossConfig, OptimConfig, TrainConfig


def short(data: Path, **changes: Any) -> TrainConfig:
    """18 steps of 2 pairs in 6 epochs with everything drawn at random and an average of weights."""
    config = TrainConfig(
        recipe="test",
        model=replace(TINY, frozen_encoder=False, fusion=FusionConfig()),
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


def in_two(work: Callable[[], Any]) -> None:
    """Do `work` in two processes that know each other as those of torchrun do.

    They are forked: torchrun imports everything twice again, see `launch_two`.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}

    def run(rank: int) -> None:
        os.environ.update(common, RANK=str(rank), LOCAL_RANK=str(rank), GLOO_SOCKET_IFNAME="lo")
        torch.set_num_threads(1)
        work()

    fork = multiprocessing.get_context("fork").Process
    processes = [fork(target=run, args=(rank,)) for rank in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
        process.kill()
    assert [process.exitcode for process in processes] == [0, 0]


def launch_two(script: Path, config: Path, out: Path) -> subprocess.CompletedProcess[str]:
    """Run a script by torchrun, in two processes, as users do."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    command += ["--rdzv_backend", "c10d", "--rdzv_endpoint", "127.0.0.1:0", "--local_addr"]
    command += ["127.0.0.1", str(script), str(config), str(out)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
