"""Training from tar shards is training from the files, bit for bit, whatever happens to it."""

import os
import random
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from draw_training import draw_dataset

from sartm.datatools.sharding import shard_dataset
from sartm.training.loop import train
from training.runs import assert_same_run, in_two, losses, short, start

KILLS = int(os.environ.get("SARTM_KILLS", "2"))


@pytest.fixture(scope="module")
def sharded(six: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data set `six` in shards of about two pairs."""
    out = tmp_path_factory.mktemp("sharded") / "set"
    assert shard_dataset(six, out, most=100_000).shards == 3
    return out


@pytest.mark.slow
def test_killed_at_random_moments_with_two_workers_it_ends_as_on_files(
    undisturbed, sharded, tmp_path
):
    moments, kills, runs, out = random.Random(1), 0, 0, tmp_path / "run"
    config = short(sharded, workers=2)
    while kills < KILLS or not (out / "result.json").exists():
        if (out / "result.json").exists():
            assert_same_run(out, undisturbed)
            runs += 1  # one that ended before it was killed
            out = tmp_path / f"run{runs}"
        process = start(config, out, resume=(out / "config.json").exists())
        process.join(moments.uniform(0.5, 5.0) if kills < KILLS else 300)
        if process.is_alive():
            process.kill()
            kills += 1
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL)
    assert_same_run(out, undisturbed)


@pytest.mark.slow
def test_two_processes_on_shards_give_the_curve_of_one_on_files(tmp_path):
    data = draw_dataset(tmp_path / "data", 8, 3)
    shard_dataset(data, tmp_path / "shards", most=100_000)
    one = short(data)
    two = short(tmp_path / "shards", workers=1)
    one, two = (
        replace(config, optim=replace(config.optim, epochs=2, batch_size=size))
        for config, size in ((one, 4), (two, 2))
    )
    train(one, tmp_path / "one", device="cpu")
    in_two(lambda: train(two, tmp_path / "two", device="cpu"))
    assert len(losses(tmp_path / "one")) == 4
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=1e-4, rel=1e-4)
