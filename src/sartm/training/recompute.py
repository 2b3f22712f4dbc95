"""Activation checkpointing: a block keeps its input only, and is computed again for gradients."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.utils.checkpoint import checkpoint

from sartm.inference.schedule import split_rows
from sartm.model.hiera import Block
from sartm.model.sartm import SARTM


def recompute_activations(model: SARTM) -> None:
    """Let the trunk of a model trade time for memory in every step from now on."""
    model.image_encoder.trunk.run_block = recompute_block


def recompute_block(block: nn.Module, x: Tensor, rgb_rows: int) -> Tensor:
    """On a CPU the peak is that of a strip of SAM 2's block; a GPU is better off with few large
    operations."""
    if not torch.is_grad_enabled():
        result: Tensor = block(x, rgb_rows)
        return result
    apart = isinstance(block, FSDPModule)  # it is put together to be called, not for its halves
    if apart or not isinstance(block, Block) or x.device.type != "cpu":
        return _forget(block, x, rgb_rows)
    if block.window:
        strips = [_forget(block, strip, rgb_rows) for _, strip in split_rows(block, x)]
    else:
        x = _forget(block.attend, x, rgb_rows)
        strips = [_forget(block.refine, strip) for _, strip in split_rows(block, x)]
    return torch.cat(strips, 1)


def _forget(part: Callable[..., Tensor], *inputs: Tensor | int) -> Tensor:
    """Keep nothing between input and output; no part of a block draws random numbers."""
    result = checkpoint(part, *inputs, use_reentrant=False, preserve_rng_state=False)
    assert isinstance(result, Tensor)
    return result
