"""Cross-modal fusion: let RGB and thermal features repair each other (FRM), then join (FFM).

Shapes: B pairs, C channels and (h, w) of one feature level; n = h w tokens. RGB comes first in
every pair of arguments and results.

Source: CMX, arXiv:2203.04838, section III; SARTM, arXiv:2505.01950, applies it at three levels.
Two changes, docs/decisions/0003: norms over channels instead of batches, and a context that does
not depend on the size of the image.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sartm.config import FusionConfig
from sartm.model.decoder import LayerNorm2d
from sartm.model.encoder import Levels


class FeatureRectification(nn.Module):
    """Add to each modality what the other one is confident about.

        out_m = x_m + (channel_gate_n + spatial_gate_n) / 2 * x_n        n: the other modality

    Gates lie in (0, 1) and see both modalities, so an RGB image blinded by headlights can close
    its own gate and keep the glare out of the thermal features.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channel_gates = nn.Sequential(
            nn.Linear(4 * channels, 4 * channels),
            nn.ReLU(),
            nn.Linear(4 * channels, 2 * channels),
            nn.Sigmoid(),
        )
        self.spatial_gates = nn.Sequential(
            nn.Conv2d(2 * channels, channels, 1), nn.ReLU(), nn.Conv2d(channels, 2, 1), nn.Sigmoid()
        )

    def gates(self, rgb: Tensor, thermal: Tensor) -> tuple[Tensor, Tensor]:
        """Channel gates (B, 2C, 1, 1) and spatial gates (B, 2, h, w), RGB's half first."""
        both = torch.cat([rgb, thermal], dim=1)
        pooled = torch.cat([both.mean((2, 3)), both.amax((2, 3))], dim=1)  # (B, 4C)
        return self.channel_gates(pooled)[..., None, None], self.spatial_gates(both)

    def forward(self, rgb: Tensor, thermal: Tensor) -> tuple[Tensor, Tensor]:
        """Two (B, C, h, w) maps to the two rectified ones."""
        channel, spatial = self.gates(rgb, thermal)
        channel_rgb, channel_thermal = channel.chunk(2, dim=1)
        spatial_rgb, spatial_thermal = spatial.chunk(2, dim=1)
        from_rgb = (channel_rgb + spatial_rgb) * 0.5 * rgb
        from_thermal = (channel_thermal + spatial_thermal) * 0.5 * thermal
        return rgb + from_thermal, thermal + from_rgb


def context(keys_values: Tensor, heads: int, tokens_at_training: int | None) -> Tensor:
    """Softmax over keys of k^T v / sqrt(C / heads) * n0 / n, in float32.

    k^T v is a sum over positions; the factor n0 / n keeps the softmax as sharp on a large image
    as it was on the training crop of n0 tokens, and is 1 there.

    Args:
        keys_values: (B, n, 2C), keys first.
        heads: attention heads.
        tokens_at_training: n0; n when None.

    Returns:
        (B, heads, C / heads, C / heads), columns of the key dimension sum to 1.
    """
    batch, tokens, double = keys_values.shape
    size = double // 2 // heads
    keys, values = keys_values.view(batch, tokens, 2, heads, size).permute(2, 0, 3, 1, 4)
    with torch.autocast(keys.device.type, enabled=False):
        scale = size**-0.5
        if tokens_at_training is not None:
            scale = scale * tokens_at_training / tokens
        product = keys.float().transpose(-2, -1) @ values.float()
        weights: Tensor = (product * scale).softmax(dim=-2)
    return weights


class CrossPath(nn.Module):
    """Exchange between the token sequences of both modalities by linear cross attention.

    [y_i; u_i] = relu(W_i x_i);  u_1 is read through the context of u_2 and the reverse;
    x_i <- norm(x_i + V_i [y_i; v_i]).
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.enter_rgb = nn.Linear(channels, 2 * channels)
        self.enter_thermal = nn.Linear(channels, 2 * channels)
        self.keys_values_rgb = nn.Linear(channels, 2 * channels, bias=False)
        self.keys_values_thermal = nn.Linear(channels, 2 * channels, bias=False)
        self.leave_rgb = nn.Linear(2 * channels, channels)
        self.leave_thermal = nn.Linear(2 * channels, channels)
        self.norm_rgb = nn.LayerNorm(channels)
        self.norm_thermal = nn.LayerNorm(channels)

    def read(self, queries: Tensor, context: Tensor) -> Tensor:
        """(B, n, C) queries times a (B, heads, C/heads, C/heads) context: (B, n, C)."""
        split = queries.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        read: Tensor = split @ context.to(split.dtype)
        return read.transpose(1, 2).flatten(2)

    def forward(
        self, rgb: Tensor, thermal: Tensor, tokens_at_training: int | None
    ) -> tuple[Tensor, Tensor]:
        """Two (B, n, C) sequences to two of the same shape."""
        kept_rgb, asked_rgb = F.relu(self.enter_rgb(rgb)).chunk(2, dim=-1)
        kept_thermal, asked_thermal = F.relu(self.enter_thermal(thermal)).chunk(2, dim=-1)
        context_rgb = context(self.keys_values_rgb(asked_rgb), self.heads, tokens_at_training)
        context_thermal = context(
            self.keys_values_thermal(asked_thermal), self.heads, tokens_at_training
        )
        told_rgb = self.read(asked_rgb, context_thermal)
        told_thermal = self.read(asked_thermal, context_rgb)
        leave_rgb = self.leave_rgb(torch.cat([kept_rgb, told_rgb], dim=-1))
        leave_thermal = self.leave_thermal(torch.cat([kept_thermal, told_thermal], dim=-1))
        return self.norm_rgb(rgb + leave_rgb), self.norm_thermal(thermal + leave_thermal)


class FrozenBatchNorm2d(nn.Module):
    """Batch norm by the statistics of released weights, in training too; weight and bias learn."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w), same out."""
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias)


class FeatureFusion(nn.Module):
    """Two rectified maps to one: cross attention, then a residual depth-wise mix."""

    def __init__(self, channels: int, heads: int, norm: str) -> None:
        super().__init__()
        self.cross = CrossPath(channels, heads)
        self.residual = nn.Conv2d(2 * channels, channels, 1, bias=False)
        self.mix = nn.Sequential(
            nn.Conv2d(2 * channels, channels, 1),
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 1),
            LayerNorm2d(channels) if norm == "layer" else FrozenBatchNorm2d(channels),
        )
        self.norm = LayerNorm2d(channels) if norm == "layer" else FrozenBatchNorm2d(channels)

    def forward(self, rgb: Tensor, thermal: Tensor, tokens_at_training: int | None) -> Tensor:
        """Two (B, C, h, w) maps to one."""
        height, width = rgb.shape[2:]
        tokens = [x.permute(0, 2, 3, 1).flatten(1, 2) for x in (rgb, thermal)]
        both = torch.cat(self.cross(*tokens, tokens_at_training), dim=-1)
        map_ = both.unflatten(1, (height, width)).permute(0, 3, 1, 2)
        fused: Tensor = self.norm(self.residual(map_) + self.mix(map_))
        if torch.onnx.is_in_onnx_export():
            # all of it; the tracer takes what comes out of a norm for as large as its example
            fused = fused[:, :, :height, :width]
        return fused


class Fusion(nn.Module):
    """FRM and FFM at each of the three levels."""

    def __init__(self, width: int, config: FusionConfig) -> None:
        super().__init__()
        channels, heads = (width // 8, width // 4, width), (1, 2, 4)
        self.crop = config.crop
        self.rectify = nn.ModuleList(FeatureRectification(c) for c in channels)
        self.fuse = nn.ModuleList(
            FeatureFusion(c, h, config.norm) for c, h in zip(channels, heads, strict=True)
        )

    def forward(self, rgb: Levels, thermal: Levels) -> Levels:
        """The maps of both modalities to the fused ones."""
        fused = []
        for stride, rectify, fuse, x, y in zip(
            (4, 8, 16), self.rectify, self.fuse, rgb, thermal, strict=True
        ):
            crop = self.crop
            at_training = None if crop is None else (crop[0] // stride) * (crop[1] // stride)
            fused.append(fuse(*rectify(x, y), at_training))
        return Levels(*fused)
