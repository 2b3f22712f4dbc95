"""Activation checkpointing changes no gradient, of either trunk and in strips too."""

import copy
from dataclasses import replace

import pytest
import torch
from conftest import TINY, build

from sartm.config import EncoderConfig, LoRAConfig
from sartm.inference.schedule import split_rows
from sartm.model.hiera import Trunk
from sartm.model.sartm import Output
from sartm.training.recompute import recompute_activations, recompute_block

close = torch.testing.assert_close
ALL = torch.ones(2, dtype=torch.bool)


def loss_of(output: Output) -> torch.Tensor:
    assert output.auxiliary is not None
    return output.logits.square().mean() + output.auxiliary.square().mean() + output.fused.mean()


@pytest.mark.parametrize("size", ["test", "lite"])
@pytest.mark.parametrize("mix", ["both", "per sample"])
def test_activation_checkpointing_changes_no_gradient(pair, mix, size):
    flags = (None, None) if mix == "both" else (torch.tensor([1, 0]).bool(), ALL)
    gradients = []
    for checkpointing in (False, True):
        model = build(replace(TINY, size=size, frozen_encoder=False))
        if checkpointing:
            recompute_activations(model)
        loss_of(model(*pair, *flags)).backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    for name, gradient in gradients[0].items():
        close(gradients[1][name], gradient, atol=1e-5, rtol=1e-5, msg=lambda m, n=name: f"{n}: {m}")
        if ".lora_" in name:  # a test of nothing if one modality's adapters had no gradient
            assert gradient[0].any(), name
            assert gradient[1].any(), name


def test_gradients_of_two_passes_under_checkpointing_do_not_mix(tiny_model, pair):
    """Two forward passes before one backward: a modality kept in a module would have moved on."""
    rgb, thermal = pair
    gradients = []
    for checkpointing in (False, True):
        model = copy.deepcopy(tiny_model)
        if checkpointing:
            recompute_activations(model)
        (loss_of(model(rgb, None)) + loss_of(model(None, thermal))).backward()
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    for name, gradient in gradients[0].items():
        close(gradients[1][name], gradient, atol=1e-5, rtol=1e-5)


def test_blocks_in_several_strips_have_the_gradients_of_whole_ones():
    """An MLP so wide that the first windowed and the global block take two strips."""
    config = EncoderConfig(16, 1, (2, 1, 1, 1), (8, 4, 4, 4), (1,), (7, 7), mlp_ratio=64)
    torch.manual_seed(0)
    trunk = Trunk(config, LoRAConfig())
    for parameter in trunk.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    images, gradients = torch.randn(2, 3, 160, 224), []
    for run in (None, recompute_block):
        trunk.run_block = run
        trunk.zero_grad()
        sum(tokens.square().mean() for tokens in trunk(images, 1)).backward()
        gradients.append({name: p.grad.clone() for name, p in trunk.named_parameters()})
    tokens = torch.empty(2, 40, 56, 16)
    assert [len(list(split_rows(block, tokens))) for block in trunk.blocks[:2]] == [2, 2]
    for name, gradient in gradients[0].items():
        close(gradients[1][name], gradient, atol=1e-5, rtol=1e-4)
