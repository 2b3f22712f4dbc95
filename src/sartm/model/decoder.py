"""SAM 2's mask decoder with a token per class, and what is left of its prompt encoder.

Shapes: B images, H and W the input in pixels, D the decoder width, K classes. Parameter names and
arithmetic after Meta's SAM 2 (Apache-2.0). Sources: SAM 2, arXiv:2408.00714; SAM, arXiv:2304.02643.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sartm.config import DecoderConfig
from sartm.model.encoder import Levels
from sartm.model.hiera import MLP, Codes, keep_code


class CrossAttention(nn.Module):
    """Attention with separate projections, on an inner width of D / downsample."""

    def __init__(self, width: int, heads: int, downsample: int = 1) -> None:
        super().__init__()
        inner, self.heads = width // downsample, heads
        self.q_proj = nn.Linear(width, inner)
        self.k_proj = nn.Linear(width, inner)
        self.v_proj = nn.Linear(width, inner)
        self.out_proj = nn.Linear(inner, width)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, seen: Tensor | None = None) -> Tensor:
        """(B, queries, D), (B, keys, D), (B, keys, D) to (B, queries, D).

        `seen`: (queries, keys) bool, which keys a query attends to; None: all.
        """
        parts = (self.q_proj(q), self.k_proj(k), self.v_proj(v))
        query, key, value = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in parts)
        attended = F.scaled_dot_product_attention(query, key, value, seen)
        out = attended.transpose(1, 2).flatten(2)
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
        self,
        tokens: Tensor,
        image: Tensor,
        token_code: Tensor,
        image_code: Tensor,
        guests: int = 0,
    ) -> tuple[Tensor, Tensor]:
        """Tokens (B, T, D) and image (B, h w, D), with the codes added to queries and keys.

        The last `guests` tokens see themselves and all others, and are seen by none.
        """
        seen = _seen(tokens.shape[1], guests, tokens.device) if guests else None
        if self.first:  # the tokens are still their own code
            tokens = self.self_attn(tokens, tokens, tokens, seen)
        else:
            query = tokens + token_code
            tokens = tokens + self.self_attn(query, query, tokens, seen)
        tokens = self.norm1(tokens)
        keys = image + image_code
        tokens = tokens + self.cross_attn_token_to_image(tokens + token_code, keys, image)
        tokens = self.norm2(tokens)
        tokens = self.norm3(tokens + self.mlp(tokens))
        hosts, code = tokens, token_code
        if guests:
            hosts, code = tokens[:, :-guests], token_code[:, :-guests]
        image = image + self.cross_attn_image_to_token(keys, hosts + code, hosts)
        return tokens, self.norm4(image)


def _seen(tokens: int, guests: int, device: torch.device) -> Tensor:
    """(T, T) bool, which token attends to which."""
    place = torch.arange(tokens, device=device)
    return (place[None] < tokens - guests) | (place[None] == place[:, None])


class TwoWayTransformer(nn.Module):
    """The mask decoder's transformer."""

    def __init__(self, width: int, config: DecoderConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            TwoWayBlock(width, config, first=index == 0) for index in range(config.depth)
        )
        self.final_attn_token_to_image = CrossAttention(width, config.heads, 2)
        self.norm_final_attn = nn.LayerNorm(width)

    def forward(
        self, tokens: Tensor, image: Tensor, image_code: Tensor, guests: int = 0
    ) -> tuple[Tensor, Tensor]:
        """Tokens (B, T, D) and image (B, h w, D) with its code (1, h w, D), both updated.

        `guests` as in `TwoWayBlock`.
        """
        code = tokens
        for layer in self.layers:
            tokens, image = layer(tokens, image, code, image_code, guests)
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

    def __init__(self, classes: int | None, width: int, config: DecoderConfig) -> None:
        """Set up the decoder of K classes; None: their tokens are given, and share one MLP."""
        super().__init__()
        self.transformer = TwoWayTransformer(width, config)
        self.obj_score_token = nn.Embedding(1, width)
        self.iou_token = nn.Embedding(1, width)
        if classes is not None:
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
        shared = (width, width, width, width // 8)
        self.output_hypernetworks_mlps = (
            MLP(shared, nn.ReLU()) if classes is None else Hypernetworks(classes, width, width // 8)
        )

    def forward(
        self,
        levels: Levels,
        dense: Tensor,
        image_code: Tensor,
        class_tokens: Tensor | None = None,
        guests: int = 0,
    ) -> Tensor:
        """Class logits from feature maps.

        Args:
            levels: maps of B images.
            dense: (1, D, 1, 1) code of "no mask prompt", added to the stride-16 map.
            image_code: (1, h w, D) positional code of the stride-16 map.
            class_tokens: (K, D), where they are not the decoder's own.
            guests: how many of them, the last ones, change nothing for the others.

        Returns:
            (B, K, H/4, W/4).
        """
        tokens, image = self.attend(
            self.tokens(class_tokens), levels.sfm + dense, image_code, guests
        )
        return self.draw(tokens[:, 2:], image, levels)

    def tokens(self, class_tokens: Tensor | None = None) -> Tensor:
        """(2 + K, D): object, iou and class tokens."""
        own = self.mask_tokens.weight if class_tokens is None else class_tokens
        return torch.cat([self.obj_score_token.weight, self.iou_token.weight, own])

    def attend(
        self, tokens: Tensor, sfm: Tensor, image_code: Tensor, guests: int = 0
    ) -> tuple[Tensor, Tensor]:
        """Tokens (T, D) and maps (B, D, h, w) to (B, T, D) and (B, h w, D) after attention."""
        image = sfm.flatten(2).transpose(1, 2)
        attended: tuple[Tensor, Tensor] = self.transformer(
            tokens.expand(sfm.shape[0], -1, -1), image, image_code, guests
        )
        return attended

    def draw(self, class_tokens: Tensor, image: Tensor, levels: Levels) -> Tensor:
        """(B, K, H/4, W/4) from class tokens (B, K, D) and the attended image (B, h w, D)."""
        filters = self.output_hypernetworks_mlps(class_tokens)
        x = self.upscale(image, levels)
        logits: Tensor = filters @ x.flatten(2)
        return logits.view(x.shape[0], -1, *x.shape[2:])

    def upscale(self, image: Tensor, levels: Levels) -> Tensor:
        """(B, D/8, H/4, W/4), what the filters of classes read, from the attended image."""
        first, norm, activation, second, _ = self.output_upscaling
        x = image.transpose(1, 2).unflatten(2, levels.sfm.shape[2:])
        x = activation(norm(first(x) + levels.ifp))
        drawn: Tensor = activation(second(x) + levels.ffp)
        return drawn


class PositionCode(nn.Module):
    """Random-Fourier code of positions in the unit square; Meta's name `pe_layer`."""

    positional_encoding_gaussian_matrix: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        matrix = torch.randn(2, width // 2)
        self.register_buffer("positional_encoding_gaussian_matrix", matrix)
        self.codes: Codes | None = None  # kept per size where there is one

    def forward(self, height: int, width: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """(1, height * width, D) code of ((x + 0.5) / width, (y + 0.5) / height)."""
        kept = None if self.codes is None else self.codes.get((height, width))
        if kept is not None:
            return kept
        matrix = self.positional_encoding_gaussian_matrix
        y = (torch.arange(height, device=matrix.device, dtype=torch.float32) + 0.5) / height
        x = (torch.arange(width, device=matrix.device, dtype=torch.float32) + 0.5) / width
        grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)  # (h, w, 2)
        phase = 2 * math.pi * ((2 * grid - 1) @ matrix.float())
        code = torch.cat([phase.sin(), phase.cos()], dim=-1).flatten(0, 1)[None].to(dtype)
        keep_code(self.codes, (height, width), code)
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
