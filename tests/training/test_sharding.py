"""A model that is cut over two processes learns what one process learns, and leaves whole files."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import TINY
from draw_training import draw_dataset

from sartm.config import FusionConfig
from sartm.errors import InputError
from sartm.model.loading import load
from sartm.model.sartm import SARTM
from sartm.training.loop import Limits, train
from sartm.training.processes import make_accelerator
from sartm.training.runs import latest_checkpoint
from sartm.training.settings import TrainConfig
from sartm.training.sharding import shard
from training.runs import assert_same_run, in_two, losses, short


def train_cut(config: TrainConfig, out: Path) -> None:
    """In each of two processes: `two`; `begun`, of 2 steps; `resumed`, which goes on from it."""
    train(config, out / "two", device="cpu")
    train(config, out / "resumed", limits=Limits(steps=2), device="cpu")
    accelerator = make_accelerator("fp32", "cpu")
    if accelerator.is_main_process:
        shutil.copytree(out / "resumed", out / "begun")
    accelerator.wait_for_everyone()
    train(config, out / "resumed", resume=True, device="cpu")
    model = SARTM(config.model)
    count = sum(parameter.numel() for parameter in model.parameters())
    shard(model, accelerator)
    here = sum(parameter.to_local().numel() for parameter in model.parameters())
    (out / f"share{accelerator.process_index}").write_text(str(here / count))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainConfig]:
    """`one` of one process; `two` of two that share a model; `resumed`, as that after 2 steps."""
    out = tmp_path_factory.mktemp("sharding")
    data = draw_dataset(out / "data", 8, 3)
    config = short(
        data, model=replace(TINY, fusion=FusionConfig()), checkpoint_every=200, validate_every=1
    )
    optim = replace(config.optim, epochs=2)
    train(replace(config, optim=replace(optim, batch_size=4)), out / "one", device="cpu")
    config = replace(config, optim=optim, shard=True, activation_checkpointing=True)
    in_two(lambda: train_cut(config, out))
    return out, config


@pytest.mark.slow
def test_two_processes_that_share_a_model_give_the_curve_of_one(runs):
    out, _ = runs
    for term in ("total", "ce", "prototype", "norm"):
        ours, expected = losses(out / "two", term), losses(out / "one", term)
        assert len(ours) == 4
        assert ours == pytest.approx(expected, abs=1e-4, rel=1e-4), term
    ours, expected = latest_checkpoint(out / "two"), latest_checkpoint(out / "one")
    assert ours.tensors.keys() == expected.tensors.keys()
    for name, tensor in expected.tensors.items():  # weights, AdamW's means, the average
        assert torch.allclose(ours.tensors[name], tensor, rtol=1e-3, atol=1e-4), name
    assert all(float((out / f"share{rank}").read_text()) < 0.6 for rank in (0, 1))


@pytest.mark.slow
def test_cut_runs_are_resumed_bit_for_bit_and_on_other_numbers_of_processes(runs, tmp_path):
    out, config = runs
    assert_same_run(out / "resumed", out / "two")
    shutil.copytree(out / "begun", tmp_path / "alone")
    alone = replace(config, shard=False)
    assert train(alone, tmp_path / "alone", resume=True, device="cpu")["finished"]


@pytest.mark.slow
def test_the_model_of_a_cut_run_is_one_like_any_other(runs):
    out, _ = runs
    ours, expected = (load(out / name / "best").eval() for name in ("two", "one"))
    images = torch.rand(1, 3, 64, 64), torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        maps = [model.predict_logits(*images) for model in (ours, expected)]
    assert torch.allclose(*maps, atol=1e-3)


def test_one_process_has_nobody_to_share_with(six, tmp_path):
    with pytest.raises(InputError, match="this is one alone: start them with `torchrun"):
        train(short(six, shard=True), tmp_path / "run", limits=Limits(steps=1), device="cpu")
    assert not (tmp_path / "run").exists() or not list((tmp_path / "run").glob("*.json"))
