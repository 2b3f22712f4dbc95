"""SAM 2's image encoder around a trunk: its neck, and the three maps everything after it reads.

Shapes: B images, H and W the input in pixels (multiples of 32), D the decoder width; parameter
names and arithmetic after Meta's SAM 2 (Apache-2.0), arXiv:2408.00714.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from sartm.model.hiera import Trunk
from sartm.model.lite import LiteTrunk


class Lateral(nn.Module):
    """A 1x1 convolution on tokens; Meta's name `conv`."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 1)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, h, w, C) to (B, h, w, D)."""
        return F.linear(tokens, self.conv.weight.flatten(1), self.conv.bias)


def compose(lateral: nn.Module, reduce: nn.Conv2d, tokens: Tensor) -> Tensor:
    """Apply a `Lateral` and then `reduce`, both 1x1 convolutions, as the one matrix they make."""
    inner, outer = lateral.get_submodule("conv"), reduce.weight.flatten(1)
    bias = F.linear(inner.get_parameter("bias"), outer, reduce.bias)
    return F.linear(tokens, outer @ inner.get_parameter("weight").flatten(1), bias)


class Levels(NamedTuple):
    """One modality's or the fused feature maps, finest first."""

    ffp: Tensor
    """(B, D/8, H/4, W/4)"""
    ifp: Tensor
    """(B, D/4, H/8, W/8)"""
    sfm: Tensor
    """(B, D, H/16, W/16)"""


class Neck(nn.Module):
    """Feature pyramid: strides 4 and 8 alone, 16 with the map of stride 32 added."""

    def __init__(self, trunk: Sequence[int], width: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(Lateral(channels, width) for channels in reversed(trunk))

    def forward(self, stages: list[Tensor], conv_s0: nn.Conv2d, conv_s1: nn.Conv2d) -> Levels:
        """The trunk's tokens to maps; conv_s0 and conv_s1 are the decoder's reductions."""
        stride32, stride16, stride8, stride4 = self.convs
        coarse = F.interpolate(stride32(stages[3]).permute(0, 3, 1, 2), scale_factor=2.0)
        sfm = stride16(stages[2]).permute(0, 3, 1, 2) + coarse
        # nothing non-linear lies between the lateral and the reduction, so they fold
        ifp = compose(stride8, conv_s1, stages[1]).permute(0, 3, 1, 2)
        ffp = compose(stride4, conv_s0, stages[0]).permute(0, 3, 1, 2)
        return Levels(ffp, ifp, sfm)


class ImageEncoder(nn.Module):
    """A trunk and its neck."""

    def __init__(self, trunk: Trunk | LiteTrunk, width: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.neck = Neck(trunk.widths, width)

    def forward(
        self, images: Tensor, rgb_rows: int, conv_s0: nn.Conv2d, conv_s1: nn.Conv2d
    ) -> Levels:
        """(B, 3, H, W) normalised images, RGB rows first, to their three maps."""
        levels: Levels = self.neck(self.trunk(images, rgb_rows), conv_s0, conv_s1)
        return levels
