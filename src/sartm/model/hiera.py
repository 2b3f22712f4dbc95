"""SAM 2's trunk Hiera, with Meta's parameter names, for any input size.

Shapes: B images, H and W the input in pixels (multiples of 32), C a trunk width. Tokens are
(B, h, w, C) from patch embedding to neck, so that every projection is one matrix product; maps are
(B, C, h, w) views of them (channels-last memory).

Sources: SAM 2, arXiv:2408.00714; Hiera, arXiv:2306.00989; parameter names and arithmetic after
Meta's SAM 2 (Apache-2.0).
"""

from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sartm.config import EncoderConfig, LoRAConfig
from sartm.model.lora import AdaptedQKV

ENCODERS = {
    "test": EncoderConfig(16, 1, (1, 1, 2, 1), (8, 4, 4, 4), (3,), (7, 7)),
    "mini": EncoderConfig(16, 1, (1, 2, 4, 2), (8, 4, 6, 3), (4, 6, 8), (7, 7)),
    "tiny": EncoderConfig(96, 1, (1, 2, 7, 2), (8, 4, 14, 7), (5, 7, 9), (7, 7)),
    "small": EncoderConfig(96, 1, (1, 2, 11, 2), (8, 4, 14, 7), (7, 10, 13), (7, 7)),
    "base_plus": EncoderConfig(112, 2, (2, 3, 16, 3), (8, 4, 14, 7), (12, 16, 20), (14, 14)),
    "large": EncoderConfig(144, 2, (2, 6, 36, 4), (8, 4, 16, 8), (23, 33, 43), (7, 7)),
}
"""tiny to large as Meta published them; `mini` and `test` are ours, trained from scratch."""

Codes = dict[tuple[int, int], Tensor]
"""Position codes by (height, width), in the order they were made."""
_SIZES = 8
"""Sizes whose codes are kept: a service sees any number of them."""


def keep_code(codes: Codes | None, size: tuple[int, int], code: Tensor) -> None:
    """Keep a code, where there is a place for codes, and let the oldest go.

    A hit moves nothing: a compiler would take another order of the sizes for another network.
    """
    if codes is None:
        return
    codes[size] = code
    for old in list(codes)[:-_SIZES]:
        codes.pop(old, None)


RunBlock = Callable[[nn.Module, Tensor, int], Tensor]
"""Calls a block of a trunk with its input and `rgb_rows`, in whatever parts suit the machine."""


class MLP(nn.Module):
    """Linear layers with an activation between them; Meta's names `layers.0`, `layers.1`, ..."""

    def __init__(self, widths: tuple[int, ...], activation: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in pairwise(widths))
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """(..., widths[0]) to (..., widths[-1])."""
        for index, layer in enumerate(self.layers):
            x = layer(x) if index == 0 else layer(self.activation(x))
        return x


class PatchEmbed(nn.Module):
    """7x7 convolution of stride 4."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, 7, stride=4, padding=3)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) to tokens (B, H/4, W/4, C)."""
        tokens: Tensor = self.proj(images)
        return tokens.permute(0, 2, 3, 1)


def pool(tokens: Tensor) -> Tensor:
    """2x2 maximum of (B, h, w, C) tokens: (B, h/2, w/2, C)."""
    return F.max_pool2d(tokens.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)


def to_windows(tokens: Tensor, side: int) -> Tensor:
    """(B, h, w, C) to (B * windows, side, side, C), zero-padded right and bottom, batch-major."""
    batch, height, width, channels = tokens.shape
    below, right = -height % side, -width % side
    if below or right:
        tokens = F.pad(tokens, (0, 0, 0, right, 0, below))
    rows, columns = (height + below) // side, (width + right) // side
    grid = tokens.view(batch, rows, side, columns, side, channels).transpose(2, 3)
    return grid.reshape(-1, side, side, channels)


def from_windows(windows: Tensor, batch: int, height: int, width: int) -> Tensor:
    """Undo `to_windows`: (B * windows, side, side, C) to (B, height, width, C)."""
    side, channels = windows.shape[1], windows.shape[-1]
    rows, columns = (height + side - 1) // side, (width + side - 1) // side  # ONNX traces this
    grid = windows.view(batch, rows, columns, side, side, channels).transpose(2, 3)
    tokens = grid.reshape(batch, rows * side, columns * side, channels)
    return tokens[:, :height, :width]


class Attention(nn.Module):
    """Multi-head self-attention over each (h, w) map of its batch; queries may be pooled 2x2."""

    def __init__(
        self, inputs: int, outputs: int, heads: int, pooled: bool, lora: LoRAConfig
    ) -> None:
        super().__init__()
        self.heads, self.pooled = heads, pooled
        self.qkv = AdaptedQKV(inputs, outputs, lora)
        self.proj = nn.Linear(outputs, outputs)

    def forward(self, x: Tensor, rgb_rows: int) -> Tensor:
        """(B, h, w, d_in) to (B, h, w, d_out), or to half the height and width when pooled."""
        q, k, v = self.qkv(x, rgb_rows)
        if self.pooled:
            q = pool(q)
        batch, height, width, channels = q.shape
        parts = (t.reshape(batch, -1, self.heads, channels // self.heads) for t in (q, k, v))
        q, k, v = (t.transpose(1, 2) for t in parts)  # (B, heads, tokens, channels / heads)
        out = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        projected: Tensor = self.proj(out.reshape(batch, height, width, channels))
        return projected


class Block(nn.Module):
    """A pre-norm transformer block; where a stage begins it widens and pools."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        heads: int,
        window: int,
        pooled: bool,
        mlp_ratio: int,
        lora: LoRAConfig,
    ) -> None:
        super().__init__()
        self.window, self.pooled = window, pooled
        self.norm1 = nn.LayerNorm(inputs, eps=1e-6)
        self.attn = Attention(inputs, outputs, heads, pooled, lora)
        self.norm2 = nn.LayerNorm(outputs, eps=1e-6)
        self.mlp = MLP((outputs, mlp_ratio * outputs, outputs), nn.GELU())
        if inputs != outputs:
            self.proj = nn.Linear(inputs, outputs)
        self.widens = inputs != outputs

    def forward(self, x: Tensor, rgb_rows: int) -> Tensor:
        """(B, h, w, d_in) to (B, h, w, d_out), or to half the height and width when pooled."""
        return self.refine(self.attend(x, rgb_rows))

    def attend(self, x: Tensor, rgb_rows: int) -> Tensor:
        """The first half of the block: attention and what it is added to."""
        batch = x.shape[0]
        normed = self.norm1(x)
        if self.widens:
            x = self.proj(normed)
        if self.pooled:
            x = pool(x)
        if self.window:
            windows = to_windows(normed, self.window)
            rgb_windows = rgb_rows * (windows.shape[0] // batch)
            attended = self.attn(windows, rgb_windows)
            attended = from_windows(attended, batch, x.shape[1], x.shape[2])
        else:
            attended = self.attn(normed, rgb_rows)
        both: Tensor = x + attended
        return both

    def refine(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """The second half: each token by itself; written to `out` where there is one."""
        return torch.add(x, self.mlp(self.norm2(x)), out=out)


class Trunk(nn.Module):
    """Hiera: four stages of windowed attention with a few global blocks."""

    def __init__(self, config: EncoderConfig, lora: LoRAConfig) -> None:
        super().__init__()
        width, heads = config.embed_dim, config.heads
        self.run_block: RunBlock | None = None  # None: a block is simply called
        self.widths = tuple(config.embed_dim * 2**stage for stage in range(4))
        self.patch_embed = PatchEmbed(width)
        self.pos_embed = nn.Parameter(torch.empty(1, width, *config.background))
        self.pos_embed_window = nn.Parameter(
            torch.empty(1, width, config.windows[0], config.windows[0])
        )
        self.blocks = nn.ModuleList()
        self.last_of_stage: list[int] = []
        for stage, depth in enumerate(config.stages):
            for index in range(depth):
                first = stage > 0 and index == 0
                # the first block of a stage pools within the windows of the stage before
                window = config.windows[stage - 1 if first else stage]
                window = 0 if len(self.blocks) in config.global_blocks else window
                outputs = 2 * width if first else width
                heads = 2 * heads if first else heads
                block = Block(width, outputs, heads, window, first, config.mlp_ratio, lora)
                self.blocks.append(block)
                width = outputs
            self.last_of_stage.append(len(self.blocks) - 1)
        self.codes: Codes | None = None  # kept per size where there is one

    def position_code(self, height: int, width: int) -> Tensor:
        """(1, height, width, C): the coarse embedding resized, plus the window one repeated."""
        kept = None if self.codes is None else self.codes.get((height, width))
        if kept is not None:
            return kept
        coarse = F.interpolate(self.pos_embed, (height, width), mode="bicubic")
        side = self.pos_embed_window.shape[-1]
        rows, columns = (height + side - 1) // side, (width + side - 1) // side
        window = self.pos_embed_window.repeat(1, 1, rows, columns)
        code = (coarse + window[:, :, :height, :width]).permute(0, 2, 3, 1).contiguous()
        keep_code(self.codes, (height, width), code)
        return code

    def forward(self, images: Tensor, rgb_rows: int) -> list[Tensor]:
        """(B, 3, H, W) to the tokens at strides 4, 8, 16, 32."""
        x = self.patch_embed(images)
        x = x + self.position_code(x.shape[1], x.shape[2])
        stages = []
        for index, block in enumerate(self.blocks):
            run = self.run_block
            x = block(x, rgb_rows) if run is None else run(block, x, rgb_rows)
            if index in self.last_of_stage:
                stages.append(x)
        return stages
