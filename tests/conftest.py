"""What several test files share: a small model, drawn inputs, where real data may lie."""

import gc
import os
from dataclasses import replace
from pathlib import Path

import pytest

# Plain `pytest` too: a forked process waits for ever for threads that it did not inherit.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from sartm.config import DecoderConfig, FusionConfig, ModelConfig
from sartm.model.sartm import SARTM

pytest_plugins = ["page"]  # the fixtures of the page, with one browser for all of its tests

# A forked process would wait for ever for threads of garbage that it inherits, such as pictures of
# films: it has none of them.
os.register_at_fork(after_in_child=gc.freeze)

SHARED = Path(__file__).resolve().parents[2] / "shared"

TINY = ModelConfig(
    size="test",
    width=32,
    decoder=DecoderConfig(heads=4, mlp_dim=64),
    fusion=FusionConfig(crop=(64, 96)),
)

CLICKED = replace(TINY, clicks=True)
"""With a decoder for clicks."""


def build(config: ModelConfig, seed: int = 0) -> SARTM:
    """A model whose adapters have an effect, as after some training, and weights of normal size."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = SARTM(config)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if ".lora_up" in name or "pos_embed" in name or name == "no_mem_embed":
                    parameter.normal_(std=0.2)
                elif ".trunk." in name and ".lora_" not in name and parameter.ndim == 2:
                    torch.nn.init.xavier_normal_(parameter)
    return model


@pytest.fixture
def tiny_model() -> SARTM:
    """About 0.2 M parameters, MFNet's classes, encoder frozen; in training mode."""
    return build(TINY)


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    """Two aligned pairs of 64x96 in [0, 1]."""
    draw = torch.Generator().manual_seed(1)
    return torch.rand(2, 3, 64, 96, generator=draw), torch.rand(2, 1, 64, 96, generator=draw)
