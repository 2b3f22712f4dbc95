"""SAM 2's image encoder and mask decoder, with Meta's parameter names, for any input size.

Shapes: B images, H and W the input in pixels (multiples of 32), D the decoder width, C a trunk
width. Tokens are (B, h, w, C) from patch embedding to neck, so that every projection is one matrix
product; maps are (B, C, h, w) views of them (channels-last memory).

Sources: SAM 2, arXiv:2408.00714; Hiera, arXiv:2306.00989; SAM, arXiv:2304.02643; parameter names
and arithmetic after Meta's SAM 2 (Apache-2.0).
"""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sartm.config import DecoderConfig, EncoderConfig, LoRAConfig
from sartm.model.lite import LiteTrunk
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

STRIP_BYTES = 16 * 2**20
"""Of the widest activation of a block on a CPU without gradients: it should stay in the cache."""


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
        recorded = torch.onnx.is_in_onnx_export() or torch.compiler.is_compiling()
        if torch.is_grad_enabled() or x.device.type != "cpu" or recorded:
            return self._both(x, rgb_rows)
        return self._forward_by_strips(x, rgb_rows)

    def _attend(self, x: Tensor, rgb_rows: int) -> Tensor:
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

    def _forward_by_strips(self, x: Tensor, rgb_rows: int) -> Tensor:
        """The same a few rows of windows at a time: what a strip needs stays in the cache.

        Windows do not see each other, so only a global block attends to the whole map first.
        """
        if not self.window:
            x = self._attend(x, rgb_rows)
        batch, height, width, _ = x.shape
        shrink = 2 if self.pooled and self.window else 1
        channels = self.norm2.normalized_shape[0]
        out = x.new_empty(batch, height // shrink, width // shrink, channels)
        for top, strip in self._strips(x):
            if self.window:
                strip = self._attend(strip, rgb_rows)
            first = top // shrink
            target = out[:, first : first + strip.shape[1]]
            torch.add(strip, self.mlp(self.norm2(strip)), out=target)
        return out

    def forward_checkpointed(self, x: Tensor, rgb_rows: int) -> Tensor:
        """The same for training: a strip keeps its input only, and is computed again for gradients.

        So the peak on a CPU is that of a strip, not that of the block; a GPU is better off with few
        large operations.
        """
        if x.device.type != "cpu":
            return _recomputed(self._both, x, rgb_rows)
        if not self.window:
            x = _recomputed(self._attend, x, rgb_rows)
        part = self._finish if not self.window else self._both
        return torch.cat([_recomputed(part, strip, rgb_rows) for _, strip in self._strips(x)], 1)

    def _both(self, x: Tensor, rgb_rows: int) -> Tensor:
        return self._finish(self._attend(x, rgb_rows), rgb_rows)

    def _finish(self, x: Tensor, rgb_rows: int) -> Tensor:
        """The second half of the block; `rgb_rows` makes no difference to it."""
        out: Tensor = x + self.mlp(self.norm2(x))
        return out

    def _strips(self, x: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Whole rows of windows of (B, h, w, C), each with its first row."""
        batch, height, width, _ = x.shape
        side = self.window or 1
        hidden = self.mlp.layers[0].get_parameter("bias").numel()
        bytes_per_row = batch * width * hidden * x.element_size()
        rows = max(1, STRIP_BYTES // (bytes_per_row * side)) * side
        for top in range(0, height, rows):
            yield top, x[:, top : top + rows]


def _recomputed(part: Callable[[Tensor, int], Tensor], x: Tensor, rgb_rows: int) -> Tensor:
    """Keep nothing between input and output; no part of a block draws random numbers."""
    result = checkpoint(part, x, rgb_rows, use_reentrant=False, preserve_rng_state=False)
    assert isinstance(result, Tensor)
    return result


class Trunk(nn.Module):
    """Hiera: four stages of windowed attention with a few global blocks."""

    def __init__(self, config: EncoderConfig, lora: LoRAConfig) -> None:
        super().__init__()
        width, heads = config.embed_dim, config.heads
        self.checkpointing = False
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
        self.codes: dict[tuple[int, int], Tensor] | None = None

    def position_code(self, height: int, width: int) -> Tensor:
        """(1, height, width, C): the coarse embedding resized, plus the window one repeated."""
        if self.codes is not None and (height, width) in self.codes:
            return self.codes[height, width]
        coarse = F.interpolate(self.pos_embed, (height, width), mode="bicubic")
        side = self.pos_embed_window.shape[-1]
        rows, columns = (height + side - 1) // side, (width + side - 1) // side
        window = self.pos_embed_window.tile(1, 1, rows, columns)
        code = (coarse + window[:, :, :height, :width]).permute(0, 2, 3, 1).contiguous()
        if self.codes is not None:
            self.codes[height, width] = code
        return code

    def forward(self, images: Tensor, rgb_rows: int) -> list[Tensor]:
        """(B, 3, H, W) to the tokens at strides 4, 8, 16, 32."""
        x = self.patch_embed(images)
        x = x + self.position_code(x.shape[1], x.shape[2])
        stages = []
        for index, block in enumerate(self.blocks):
            if self.checkpointing and torch.is_grad_enabled():
                assert isinstance(block, Block)
                x = block.forward_checkpointed(x, rgb_rows)
            else:
                x = block(x, rgb_rows)
            if index in self.last_of_stage:
                stages.append(x)
        return stages


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


class CrossAttention(nn.Module):
    """Attention with separate projections, on an inner width of D / downsample."""

    def __init__(self, width: int, heads: int, downsample: int = 1) -> None:
        super().__init__()
        inner, self.heads = width // downsample, heads
        self.q_proj = nn.Linear(width, inner)
        self.k_proj = nn.Linear(width, inner)
        self.v_proj = nn.Linear(width, inner)
        self.out_proj = nn.Linear(inner, width)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(B, queries, D), (B, keys, D), (B, keys, D) to (B, queries, D)."""
        parts = (self.q_proj(q), self.k_proj(k), self.v_proj(v))
        heads = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in parts)
        out = F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
        projected: Tensor = self.out_proj(out)
        return projected


class TwoWayBlock(nn.Module):
    """Tokens attend to themselves and the image, then the image to the tokens (post-norm)."""

    def __init__(self, width: int, config: DecoderConfig, first: bool) -> None:
        super().__init__()
        self.first = first
        self.self_attn = CrossAttention(width, config.heads)
        self.norm1 = nn.LayerNorm(width)
        self.cross_attn_token_to_image = CrossAttention(width, config.heads, 2)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = MLP((width, config.mlp_dim, width), nn.ReLU())
        self.norm3 = nn.LayerNorm(width)
        self.norm4 = nn.LayerNorm(width)
        self.cross_attn_image_to_token = CrossAttention(width, config.heads, 2)

    def forward(
        self, tokens: Tensor, image: Tensor, token_code: Tensor, image_code: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Tokens (B, T, D) and image (B, h w, D), with the codes added to queries and keys."""
        if self.first:  # the tokens are still their own code
            tokens = self.self_attn(tokens, tokens, tokens)
        else:
            query = tokens + token_code
            tokens = tokens + self.self_attn(query, query, tokens)
        tokens = self.norm1(tokens)
        keys = image + image_code
        tokens = tokens + self.cross_attn_token_to_image(tokens + token_code, keys, image)
        tokens = self.norm2(tokens)
        tokens = self.norm3(tokens + self.mlp(tokens))
        image = image + self.cross_attn_image_to_token(keys, tokens + token_code, tokens)
        return tokens, self.norm4(image)


class TwoWayTransformer(nn.Module):
    """The mask decoder's transformer."""

    def __init__(self, width: int, config: DecoderConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            TwoWayBlock(width, config, first=index == 0) for index in range(config.depth)
        )
        self.final_attn_token_to_image = CrossAttention(width, config.heads, 2)
        self.norm_final_attn = nn.LayerNorm(width)

    def forward(self, tokens: Tensor, image: Tensor, image_code: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (B, T, D) and image (B, h w, D) with its code (1, h w, D), both updated."""
        code = tokens
        for layer in self.layers:
            tokens, image = layer(tokens, image, code, image_code)
        update = self.final_attn_token_to_image(tokens + code, image + image_code, image)
        return self.norm_final_attn(tokens + update), image


class LayerNorm2d(nn.LayerNorm):
    """LayerNorm over the channels of a (B, C, h, w) map."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w), same out."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Hypernetworks(nn.Module):
    """K three-layer MLPs, one per class, as three batched products.

    Meta keeps them as `output_hypernetworks_mlps.{k}.layers.{i}`; here `weight{i}` is their stack.
    """

    def __init__(self, classes: int, width: int, outputs: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(width)  # as nn.Linear starts

        def start(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(*shape).uniform_(-bound, bound))

        self.weight0, self.bias0 = start(classes, width, width), start(classes, 1, width)
        self.weight1, self.bias1 = start(classes, width, width), start(classes, 1, width)
        self.weight2, self.bias2 = start(classes, outputs, width), start(classes, 1, outputs)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, K, D) class tokens to (B, K, outputs) class filters."""
        x = tokens.transpose(0, 1)  # (K, B, D)
        x = torch.baddbmm(self.bias0, x, self.weight0.transpose(1, 2)).relu()
        x = torch.baddbmm(self.bias1, x, self.weight1.transpose(1, 2)).relu()
        return torch.baddbmm(self.bias2, x, self.weight2.transpose(1, 2)).transpose(0, 1)


class MaskDecoder(nn.Module):
    """SAM 2's mask decoder with one mask token per class: class logits at stride 4."""

    def __init__(self, classes: int, width: int, config: DecoderConfig) -> None:
        super().__init__()
        self.transformer = TwoWayTransformer(width, config)
        self.obj_score_token = nn.Embedding(1, width)
        self.iou_token = nn.Embedding(1, width)
        self.mask_tokens = nn.Embedding(classes, width)
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(width, width // 4, 2, stride=2),
            LayerNorm2d(width // 4, eps=1e-6),
            nn.GELU(),
            nn.ConvTranspose2d(width // 4, width // 8, 2, stride=2),
            nn.GELU(),
        )
        self.conv_s0 = nn.Conv2d(width, width // 8, 1)
        self.conv_s1 = nn.Conv2d(width, width // 4, 1)
        self.output_hypernetworks_mlps = Hypernetworks(classes, width, width // 8)

    def forward(self, levels: Levels, dense: Tensor, image_code: Tensor) -> Tensor:
        """Class logits from feature maps.

        Args:
            levels: maps of B images.
            dense: (1, D, 1, 1) code of "no mask prompt", added to the stride-16 map.
            image_code: (1, h w, D) positional code of the stride-16 map.

        Returns:
            (B, K, H/4, W/4).
        """
        tokens, image = self.attend(self.tokens(), levels.sfm + dense, image_code)
        return self.draw(tokens[:, 2:], image, levels)

    def tokens(self) -> Tensor:
        """(2 + K, D): object, iou and class tokens."""
        return torch.cat(
            [self.obj_score_token.weight, self.iou_token.weight, self.mask_tokens.weight]
        )

    def attend(self, tokens: Tensor, sfm: Tensor, image_code: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (T, D) and maps (B, D, h, w) to (B, T, D) and (B, h w, D) after attention."""
        image = sfm.flatten(2).transpose(1, 2)
        attended: tuple[Tensor, Tensor] = self.transformer(
            tokens.expand(sfm.shape[0], -1, -1), image, image_code
        )
        return attended

    def draw(self, class_tokens: Tensor, image: Tensor, levels: Levels) -> Tensor:
        """(B, K, H/4, W/4) from class tokens (B, K, D) and the attended image (B, h w, D)."""
        filters = self.output_hypernetworks_mlps(class_tokens)
        first, norm, activation, second, _ = self.output_upscaling
        x = image.transpose(1, 2).unflatten(2, levels.sfm.shape[2:])
        x = activation(norm(first(x) + levels.ifp))
        x = activation(second(x) + levels.ffp)
        logits: Tensor = filters @ x.flatten(2)
        return logits.view(x.shape[0], -1, *x.shape[2:])


class PositionCode(nn.Module):
    """Random-Fourier code of positions in the unit square; Meta's name `pe_layer`."""

    positional_encoding_gaussian_matrix: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        matrix = torch.randn(2, width // 2)
        self.register_buffer("positional_encoding_gaussian_matrix", matrix)
        self.codes: dict[tuple[int, int], Tensor] | None = None

    def forward(self, height: int, width: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """(1, height * width, D) code of ((x + 0.5) / width, (y + 0.5) / height)."""
        if self.codes is not None and (height, width) in self.codes:
            return self.codes[height, width]
        matrix = self.positional_encoding_gaussian_matrix
        y = (torch.arange(height, device=matrix.device, dtype=torch.float32) + 0.5) / height
        x = (torch.arange(width, device=matrix.device, dtype=torch.float32) + 0.5) / width
        grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)  # (h, w, 2)
        phase = 2 * math.pi * ((2 * grid - 1) @ matrix.float())
        code = torch.cat([phase.sin(), phase.cos()], dim=-1).flatten(0, 1)[None].to(dtype)
        if self.codes is not None:
            self.codes[height, width] = code
        return code


class PromptCodes(nn.Module):
    """What is left of SAM 2's prompt encoder without prompts."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.pe_layer = PositionCode(width)
        self.no_mask_embed = nn.Embedding(1, width)

    def dense(self) -> Tensor:
        """(1, D, 1, 1) code of "no mask prompt"."""
        code: Tensor = self.no_mask_embed.weight
        return code[:, :, None, None]
