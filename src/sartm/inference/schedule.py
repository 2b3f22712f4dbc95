"""How a network runs where it predicts: position codes kept, and on a CPU a few rows at a time."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from sartm.model.decoder import PositionCode
from sartm.model.hiera import Block, Trunk
from sartm.model.sartm import SARTM

STRIP_BYTES = 16 * 2**20
"""Of the widest activation of a block: it should stay in the cache of a CPU."""


def prepare_network(
    model: SARTM, device: torch.device, dtype: torch.dtype | None = None, strips: bool = True
) -> SARTM:
    """A copy on `device` that predicts fast, as `SARTM.merged` makes it; thread-safe.

    Args:
        model: stays as it is.
        device: where it will run.
        dtype: of the weights; as they are when None.
        strips: run blocks in strips on a CPU; not for a compiler, which schedules by itself.
    """
    network = model.merged(dtype).to(device)
    for module in network.modules():
        if isinstance(module, Trunk | PositionCode):
            module.codes = {}
    trunk = network.image_encoder.trunk
    strips = strips and device.type == "cpu" and isinstance(trunk, Trunk)
    trunk.run_block = run_in_strips if strips else None
    return network


def run_in_strips(block: nn.Module, x: Tensor, rgb_rows: int) -> Tensor:
    """What the block computes, a few rows of windows at a time: a strip stays in the cache.

    Windows do not see each other, so only a global block attends to the whole map first.
    """
    assert isinstance(block, Block)
    if not block.window:
        x = block.attend(x, rgb_rows)
    batch, height, width, _ = x.shape
    shrink = 2 if block.pooled and block.window else 1
    channels = block.norm2.normalized_shape[0]
    out = x.new_empty(batch, height // shrink, width // shrink, channels)
    for top, strip in split_rows(block, x):
        if block.window:
            strip = block.attend(strip, rgb_rows)
        first = top // shrink
        block.refine(strip, out[:, first : first + strip.shape[1]])
    return out


def split_rows(block: Block, x: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Whole rows of a block's windows of (B, h, w, C), each strip with its first row."""
    batch, height, width, _ = x.shape
    side = block.window or 1
    hidden = block.mlp.layers[0].get_parameter("bias").numel()
    bytes_per_row = batch * width * hidden * x.element_size()
    rows = max(1, STRIP_BYTES // (bytes_per_row * side)) * side
    for top in range(0, height, rows):
        yield top, x[:, top : top + rows]
