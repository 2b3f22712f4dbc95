"""Training from tar shards is training from the files, bit for bit, whatever happens to it."""

import json
import os
import random
import signal
from pathlib import Path

import pytest
from draw_training import draw_dataset

from sartm.config import to_dict
from sartm.datatools.sharding import shard_dataset
from sartm.training.loop import train
from training.runs import TRAINS, assert_same_run, launch_two, losses, short, start

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
    moments, kills, out = random.Random(1), 0, tmp_path / "run"
    config = short(sharded, workers=2)
    while kills < KILLS or not (out / "result.json").exists():
        if (out / "result.json").exists():
            assert_same_run(out, undisturbed)
            out = tmp_path / f"run{kills}"
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
        to_dict(config) | {"optim": to_dict(config.optim) | {"epochs": 2, "batch_size": size}}
        for config, size in ((one, 4), (two, 2))
    )
    (tmp_path / "start.py").write_text(TRAINS)
    for name, config in (("one", one), ("two", two)):
        (tmp_path / f"{name}.json").write_text(json.dumps(config))
    from sartm.training.recipes import load_recipe

    train(load_recipe(str(tmp_path / "one.json")), tmp_path / "one", device="cpu")
    done = launch_two(tmp_path / "start.py", tmp_path / "two.json", tmp_path / "two")
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(losses(tmp_path / "one")) == 4
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=1e-4, rel=1e-4)
