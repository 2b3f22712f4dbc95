"""Runs that several test files of training start from; each is trained once."""

import shutil
from pathlib import Path

import pytest
from draw_training import draw_dataset

from sartm.training.loop import Limits, train
from training.runs import short


@pytest.fixture(scope="session")
def six(tmp_path_factory) -> Path:
    """Six scenes, three of them again as val."""
    return draw_dataset(tmp_path_factory.mktemp("six"), 6, 3)


@pytest.fixture(scope="session")
def undisturbed(six, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    assert train(short(six), out, device="cpu")["finished"]
    return out


@pytest.fixture
def begun(six, undisturbed, tmp_path) -> Path:
    """A run that stopped after 8 of its steps, with checkpoints of steps 6 and 8."""
    kept, out = undisturbed.parent / "begun", tmp_path / "run"
    if not kept.exists():
        train(short(six), kept, limits=Limits(steps=8), device="cpu")
    return shutil.copytree(kept, out)
