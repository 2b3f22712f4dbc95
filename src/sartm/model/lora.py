"""Low-rank adapters on the q and v of a fused qkv projection, one set per modality.

Shapes: B images, the first `rgb_rows` of them RGB, the others thermal; h, w tokens; r the rank.
The modality is the position in the batch and never state of a module, so activation checkpointing
and several threads on one model stay correct.

Source: LoRA, arXiv:2106.09685; SARTM, arXiv:2505.01950. The released code adapts only part of q
and v where a block widens and shares one set between the modalities: docs/decisions/0002.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sartm.config import LoRAConfig


def project(x: Tensor, weight: Tensor, bias: Tensor | None, rgb_rows: int) -> Tensor:
    """Multiply each modality's rows by its own matrix.

    Args:
        x: (B, ..., i), RGB rows first.
        weight: (S, o, i); S = 1 serves both modalities, S = 2 is [RGB, thermal].
        bias: (o,) for all rows, or None.
        rgb_rows: number of RGB rows in the batch.

    Returns:
        (B, ..., o).
    """
    rows = x.shape[0]
    if len(weight) == 1 or rgb_rows == rows:
        return F.linear(x, weight[0], bias)
    if rgb_rows == 0:
        return F.linear(x, weight[1], bias)
    if 2 * rgb_rows == rows:  # one batched product, no concatenation
        flat, turned = x.reshape(2, -1, x.shape[-1]), weight.transpose(1, 2)
        out = torch.bmm(flat, turned) if bias is None else torch.baddbmm(bias, flat, turned)
        return out.view(*x.shape[:-1], -1)
    rgb = F.linear(x[:rgb_rows], weight[0], bias)
    return torch.cat([rgb, F.linear(x[rgb_rows:], weight[1], bias)])


class AdaptedQKV(nn.Linear):
    """A fused qkv projection (Meta's `qkv.weight`, `qkv.bias`) with adapters beside it.

        q += (alpha / r) * up_q down_q x        v += (alpha / r) * up_v down_v x        k unchanged

    `up` maps to all d_out columns, also where a block widens; it starts at 0, so an untrained
    adapter changes nothing.
    """

    def __init__(self, inputs: int, outputs: int, config: LoRAConfig) -> None:
        super().__init__(inputs, 3 * outputs)
        sets = {"per_modality": 2, "shared": 1, "none": 0}[config.sets]
        self.scale = config.alpha / config.rank
        self.rank = config.rank
        if sets:
            self.lora_down = nn.Parameter(torch.empty(sets, 2 * config.rank, inputs))
            self.lora_up_q = nn.Parameter(torch.zeros(sets, outputs, config.rank))
            self.lora_up_v = nn.Parameter(torch.zeros(sets, outputs, config.rank))
            for down in self.lora_down.data:
                nn.init.kaiming_uniform_(down, a=5**0.5)
        self.adapted = bool(sets)

    def forward(self, x: Tensor, rgb_rows: int) -> tuple[Tensor, Tensor, Tensor]:  # type: ignore[override]
        """(B, ..., d_in) tokens to q, k and v, each (B, ..., d_out)."""
        if not self.adapted:
            q, k, v = F.linear(x, self.weight, self.bias).chunk(3, dim=-1)
            return q, k, v
        low = project(x, self.lora_down, None, rgb_rows) * self.scale  # (B, ..., 2r)
        # three products, not one cut in three: backward keeps q and v once, without what was added
        parts = zip(self.weight.chunk(3), self.bias.chunk(3), strict=True)
        q, k, v = (F.linear(x, weight, bias) for weight, bias in parts)
        q = q + project(low[..., : self.rank], self.lora_up_q, None, rgb_rows)
        v = v + project(low[..., self.rank :], self.lora_up_v, None, rgb_rows)
        return q, k, v

    @torch.no_grad()
    def merged(self) -> "MergedQKV":
        """The same projection with the adapters folded into one matrix per set."""
        weight = self.weight[None]
        if self.adapted:
            down_q, down_v = self.lora_down.split(self.rank, dim=1)
            q = self.lora_up_q @ down_q
            v = self.lora_up_v @ down_v
            weight = weight + self.scale * torch.cat([q, torch.zeros_like(q), v], dim=1)
        return MergedQKV(weight.detach().clone(), self.bias.detach())


class MergedQKV(nn.Module):
    """qkv with the adapters folded in: no arithmetic left but the projection itself."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = nn.Parameter(bias, requires_grad=False)

    def forward(self, x: Tensor, rgb_rows: int) -> tuple[Tensor, Tensor, Tensor]:
        """(B, ..., d_in) tokens to q, k and v, each (B, ..., d_out)."""
        q, k, v = project(x, self.weight, self.bias, rgb_rows).chunk(3, dim=-1)
        return q, k, v
