"""The authors' computation, as the fixed denominator of speed claims: `released.py` times it.

It stands alone on purpose: built of sartm's own parts it would get faster with them. Names and
shapes are those of the released state dict (rank 16), so the golden vectors check the arithmetic.
What the released code does is done, defects included: the encoder sees both modalities with three
unmerged LoRA pairs, RGB enters the fusion twice, the multi-scale head runs although prediction
does not need it, six hypernetworks draw five classes. What only costs time and changes nothing is
left out: views instead of copies, scaled-dot-product attention everywhere, CLIP once.

Shapes: B pairs, 2B images, RGB first; S the side of the square input; K classes.
"""

import math
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

RANK, WIDTH, IGNORE = 16, 256, 255


class Size(NamedTuple):
    width: int
    heads: int
    blocks: tuple[int, ...]
    windows: tuple[int, ...]
    everywhere: tuple[int, ...]
    background: int


SIZES = {
    "tiny": Size(96, 1, (1, 2, 7, 2), (8, 4, 14, 7), (5, 7, 9), 7),
    "base_plus": Size(112, 2, (2, 3, 16, 3), (8, 4, 14, 7), (12, 16, 20), 14),
}


class Layers(nn.Module):
    """An MLP named `layers.0`, `layers.1`, ..."""

    def __init__(self, *widths: int, activation: type[nn.Module] = nn.ReLU) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in pairwise(widths))
        self.act = activation()

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = self.act(layer(x))
        return self.layers[-1](x)


class LoRAQKV(nn.Module):
    """qkv with three pairs on the first d_in columns of q and three on the last d_in of v."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(inputs, 3 * outputs)
        for pair in ("", "2", "3"):
            for part in ("q", "v"):
                down, up = nn.Linear(inputs, RANK, bias=False), nn.Linear(RANK, inputs, bias=False)
                nn.init.kaiming_uniform_(down.weight, a=math.sqrt(5))
                nn.init.zeros_(up.weight)
                setattr(self, f"linear_a_{part}{pair}", down)
                setattr(self, f"linear_b_{part}{pair}", up)

    def forward(self, x: Tensor) -> Tensor:
        out, inputs = self.qkv(x), x.shape[-1]
        extra = {
            part: sum(
                getattr(self, f"linear_b_{part}{pair}")(getattr(self, f"linear_a_{part}{pair}")(x))
                for pair in ("", "2", "3")
            )
            for part in ("q", "v")
        }
        out[..., :inputs] += extra["q"]
        out[..., -inputs:] += extra["v"]
        return out


def pool(x: Tensor) -> Tensor:
    return F.max_pool2d(x.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)


class Attention(nn.Module):
    def __init__(self, inputs: int, outputs: int, heads: int, pooled: bool) -> None:
        super().__init__()
        self.heads, self.pooled = heads, pooled
        self.qkv, self.proj = LoRAQKV(inputs, outputs), nn.Linear(outputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        batch, height, width, _ = x.shape
        q, k, v = self.qkv(x).view(batch, height * width, 3, self.heads, -1).unbind(2)
        if self.pooled:
            q = pool(q.reshape(batch, height, width, -1))
            height, width = q.shape[1:3]
            q = q.reshape(batch, height * width, self.heads, -1)
        out = F.scaled_dot_product_attention(*(t.transpose(1, 2) for t in (q, k, v)))
        return self.proj(out.transpose(1, 2).reshape(batch, height, width, -1))


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, heads: int, window: int, pooled: bool) -> None:
        super().__init__()
        self.window, self.pooled = window, pooled
        self.norm1 = nn.LayerNorm(inputs, eps=1e-6)
        self.attn = Attention(inputs, outputs, heads, pooled)
        self.norm2 = nn.LayerNorm(outputs, eps=1e-6)
        self.mlp = Layers(outputs, 4 * outputs, outputs, activation=nn.GELU)
        if inputs != outputs:
            self.proj = nn.Linear(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        shortcut, x = x, self.norm1(x)
        if hasattr(self, "proj"):
            shortcut = self.proj(x)
        if self.pooled:
            shortcut = pool(shortcut)
        if self.window:
            batch, height, width, channels = x.shape
            side = self.window
            x = F.pad(x, (0, 0, 0, -width % side, 0, -height % side))
            rows, columns = x.shape[1] // side, x.shape[2] // side
            x = x.view(batch, rows, side, columns, side, channels).transpose(2, 3)
            x = self.attn(x.reshape(-1, side, side, channels))
            side = x.shape[1]
            x = x.view(batch, rows, columns, side, side, -1).transpose(2, 3)
            x = x.reshape(batch, rows * side, columns * side, -1)
            x = x[:, : shortcut.shape[1], : shortcut.shape[2]]
        else:
            x = self.attn(x)
        x = shortcut + x
        return x + self.mlp(self.norm2(x))


class Trunk(nn.Module):
    def __init__(self, size: Size) -> None:
        super().__init__()
        width, heads, window = size.width, size.heads, size.windows[0]
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(3, width, 7, stride=4, padding=3)
        self.pos_embed = nn.Parameter(torch.randn(1, width, size.background, size.background) / 50)
        self.pos_embed_window = nn.Parameter(torch.randn(1, width, window, window) / 50)
        self.blocks, self.ends = nn.ModuleList(), []
        for stage, count in enumerate(size.blocks):
            for index in range(count):
                first = stage > 0 and index == 0
                side = size.windows[stage - first]
                side = 0 if len(self.blocks) in size.everywhere else side
                outputs, heads = (2 * width, 2 * heads) if first else (width, heads)
                self.blocks.append(Block(width, outputs, heads, side, first))
                width = outputs
            self.ends.append(len(self.blocks) - 1)

    def forward(self, images: Tensor) -> list[Tensor]:
        x = self.patch_embed.proj(images)
        code = F.interpolate(self.pos_embed, x.shape[2:], mode="bicubic")
        side = self.pos_embed_window.shape[-1]
        code = code + self.pos_embed_window.tile(1, 1, *(n // side for n in x.shape[2:]))
        x, stages = (x + code).permute(0, 2, 3, 1), []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in self.ends:
                stages.append(x.permute(0, 3, 1, 2))
        return stages


class Neck(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList()
        for channels in (8 * width, 4 * width, 2 * width, width):
            self.convs.append(nn.Module())
            self.convs[-1].conv = nn.Conv2d(channels, WIDTH, 1)

    def forward(self, stages: list[Tensor]) -> list[Tensor]:
        coarse, middle, fine, finest = (
            level.conv(x) for level, x in zip(self.convs, reversed(stages), strict=True)
        )
        return [finest, fine, middle + F.interpolate(coarse, scale_factor=2.0)]


class CrossAttention(nn.Module):
    def __init__(self, inner: int) -> None:
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(WIDTH, inner) for _ in range(3))
        self.out_proj = nn.Linear(inner, WIDTH)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        parts = (self.q_proj(q), self.k_proj(k), self.v_proj(v))
        heads = (t.unflatten(-1, (8, -1)).transpose(1, 2) for t in parts)
        return self.out_proj(F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2))


class TwoWayBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.self_attn = CrossAttention(WIDTH)
        self.cross_attn_token_to_image = CrossAttention(WIDTH // 2)
        self.cross_attn_image_to_token = CrossAttention(WIDTH // 2)
        self.mlp = Layers(WIDTH, 2048, WIDTH)
        self.norm1, self.norm2, self.norm3, self.norm4 = (nn.LayerNorm(WIDTH) for _ in range(4))

    def forward(
        self, tokens: Tensor, image: Tensor, token_code: Tensor, image_code: Tensor, first: bool
    ) -> tuple[Tensor, Tensor]:
        if first:
            tokens = self.self_attn(tokens, tokens, tokens)
        else:
            asked = tokens + token_code
            tokens = tokens + self.self_attn(asked, asked, tokens)
        tokens = self.norm1(tokens)
        keys = image + image_code
        tokens = tokens + self.cross_attn_token_to_image(tokens + token_code, keys, image)
        tokens = self.norm2(tokens)
        tokens = self.norm3(tokens + self.mlp(tokens))
        told = self.cross_attn_image_to_token(image + image_code, tokens + token_code, tokens)
        return tokens, self.norm4(image + told)


class TwoWay(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TwoWayBlock() for _ in range(2))
        self.final_attn_token_to_image = CrossAttention(WIDTH // 2)
        self.norm_final_attn = nn.LayerNorm(WIDTH)

    def forward(self, tokens: Tensor, image: Tensor, code: Tensor) -> tuple[Tensor, Tensor]:
        start = tokens
        for index, layer in enumerate(self.layers):
            tokens, image = layer(tokens, image, start, code, index == 0)
        told = self.final_attn_token_to_image(tokens + start, image + code, image)
        return self.norm_final_attn(tokens + told), image


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of a map."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Decoder(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.transformer = TwoWay()
        self.obj_score_token, self.iou_token = nn.Embedding(1, WIDTH), nn.Embedding(1, WIDTH)
        self.mask_tokens = nn.Embedding(classes + 1, WIDTH)
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(WIDTH, WIDTH // 4, 2, stride=2),
            ChannelNorm(WIDTH // 4, eps=1e-6),
            nn.GELU(),
            nn.ConvTranspose2d(WIDTH // 4, WIDTH // 8, 2, stride=2),
            nn.GELU(),
        )
        self.conv_s0 = nn.Conv2d(WIDTH, WIDTH // 8, 1)
        self.conv_s1 = nn.Conv2d(WIDTH, WIDTH // 4, 1)
        self.output_hypernetworks_mlps = nn.ModuleList(
            Layers(WIDTH, WIDTH, WIDTH, WIDTH // 8) for _ in range(classes + 1)
        )
        self.iou_prediction_head = Layers(WIDTH, WIDTH, WIDTH, classes + 1)
        self.pred_obj_score_head = Layers(WIDTH, WIDTH, WIDTH, 1)

    def forward(self, levels: list[Tensor], dense: Tensor, code: Tensor, point: Tensor) -> Tensor:
        finest, fine, middle = levels
        learned = [self.obj_score_token.weight, self.iou_token.weight, self.mask_tokens.weight]
        tokens = torch.cat([*learned, point, point]).expand(middle.shape[0], -1, -1)
        image = (middle + dense[:, :, None, None]).flatten(2).transpose(1, 2)
        tokens, image = self.transformer(tokens, image, code)
        grow1, norm, act, grow2, _ = self.output_upscaling
        x = image.transpose(1, 2).unflatten(2, middle.shape[2:])
        x = act(grow2(act(norm(grow1(x) + fine))) + finest)
        filters = [net(tokens[:, 2 + i]) for i, net in enumerate(self.output_hypernetworks_mlps)]
        masks = (torch.stack(filters, 1) @ x.flatten(2)).unflatten(2, x.shape[2:])
        self.iou_prediction_head(tokens[:, 1]).sigmoid()
        seen = self.pred_obj_score_head(tokens[:, 0])[..., None, None] > 0
        return torch.where(seen, masks[:, 1:], -1024.0)


class Named(nn.Module):
    """A sequence under the name `mlp`."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.mlp = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(x)


class FRM(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.channel_weights = Named(
            nn.Linear(4 * c, 4 * c), nn.ReLU(), nn.Linear(4 * c, 2 * c), nn.Sigmoid()
        )
        self.spatial_weights = Named(
            nn.Conv2d(2 * c, c, 1), nn.ReLU(), nn.Conv2d(c, 2, 1), nn.Sigmoid()
        )

    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        both = torch.cat([first, second], 1)
        pooled = torch.cat([F.adaptive_avg_pool2d(both, 1), F.adaptive_max_pool2d(both, 1)], 1)
        channel = self.channel_weights(pooled.flatten(1))[..., None, None].chunk(2, 1)
        spatial = self.spatial_weights(both).chunk(2, 1)
        out1 = first + 0.5 * channel[1] * second + 0.5 * spatial[1] * second
        out2 = second + 0.5 * channel[0] * first + 0.5 * spatial[0] * first
        return out1, out2


class LinearAttention(nn.Module):
    def __init__(self, c: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, (c // heads) ** -0.5
        self.kv1, self.kv2 = (nn.Linear(c, 2 * c, bias=False) for _ in range(2))

    def forward(self, u1: Tensor, u2: Tensor) -> tuple[Tensor, Tensor]:
        contexts = []
        for u, project in ((u1, self.kv1), (u2, self.kv2)):
            k, v = project(u).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
            contexts.append((k.transpose(-2, -1) @ v * self.scale).softmax(dim=-2))
        read = [
            (u.unflatten(-1, (self.heads, -1)).transpose(1, 2) @ context).transpose(1, 2).flatten(2)
            for u, context in ((u1, contexts[1]), (u2, contexts[0]))
        ]
        return read[0], read[1]


class CrossPath(nn.Module):
    def __init__(self, c: int, heads: int) -> None:
        super().__init__()
        self.channel_proj1, self.channel_proj2 = (nn.Linear(c, 2 * c) for _ in range(2))
        self.cross_attn = LinearAttention(c, heads)
        self.end_proj1, self.end_proj2 = (nn.Linear(2 * c, c) for _ in range(2))
        self.norm1, self.norm2 = (nn.LayerNorm(c) for _ in range(2))

    def forward(self, x1: Tensor, x2: Tensor) -> tuple[Tensor, Tensor]:
        y1, u1 = F.relu(self.channel_proj1(x1)).chunk(2, -1)
        y2, u2 = F.relu(self.channel_proj2(x2)).chunk(2, -1)
        v1, v2 = self.cross_attn(u1, u2)
        out1 = self.norm1(x1 + self.end_proj1(torch.cat([y1, v1], -1)))
        return out1, self.norm2(x2 + self.end_proj2(torch.cat([y2, v2], -1)))


class ChannelEmbed(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.residual = nn.Conv2d(2 * c, c, 1, bias=False)
        self.channel_embed = nn.Sequential(
            nn.Conv2d(2 * c, c, 1),
            nn.Conv2d(c, c, 3, padding=1, groups=c),
            nn.ReLU(),
            nn.Conv2d(c, c, 1),
            nn.BatchNorm2d(c),
        )
        self.norm = nn.BatchNorm2d(c)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.residual(x) + self.channel_embed(x))


class FFM(nn.Module):
    def __init__(self, c: int, heads: int) -> None:
        super().__init__()
        self.cross, self.channel_emb = CrossPath(c, heads), ChannelEmbed(c)

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        size = x1.shape[2:]
        joined = torch.cat(self.cross(*(x.flatten(2).transpose(1, 2) for x in (x1, x2))), -1)
        return self.channel_emb(joined.transpose(1, 2).unflatten(2, size))


class Result(NamedTuple):
    m_output: Tensor
    """(B, K, S, S), what they evaluate."""
    output: Tensor
    """(B, K, S, S) of the multi-scale head."""
    fused: list[Tensor]
    masks: Tensor
    """(2B, K, S/4, S/4) of the decoder."""
    levels: list[Tensor]


class ReleasedModel(nn.Module):
    """Their model without what its forward pass never calls."""

    def __init__(self, size: str, classes: int = 5) -> None:
        super().__init__()
        self.classes = classes
        self.sam = nn.Module()
        self.sam.image_encoder = nn.Module()
        self.sam.image_encoder.trunk = Trunk(SIZES[size])
        self.sam.image_encoder.neck = Neck(SIZES[size].width)
        self.sam.sam_prompt_encoder = prompts = nn.Module()
        prompts.pe_layer = nn.Module()
        matrix = torch.randn(2, WIDTH // 2)
        prompts.pe_layer.register_buffer("positional_encoding_gaussian_matrix", matrix)
        prompts.not_a_point_embed = nn.Embedding(1, WIDTH)
        prompts.no_mask_embed = nn.Embedding(1, WIDTH)
        self.sam.sam_mask_decoder = decoder = Decoder(classes)
        widths = (WIDTH // 8, WIDTH // 4, WIDTH)
        self.FRMs = nn.ModuleList(FRM(c) for c in widths)
        self.FFMs = nn.ModuleList(FFM(c, h) for c, h in zip(widths, (1, 2, 4), strict=True))
        self.lift0, self.lift1 = (nn.Conv2d(c, WIDTH, 1) for c in widths[:2])
        self.predict = nn.Conv2d(WIDTH, classes, 3, padding=1)
        nn.init.constant_(decoder.pred_obj_score_head.layers[2].bias, 3.0)  # the gate stays open
        self.requires_grad_(False)
        for name, parameter in self.named_parameters():
            fixed = ("iou_prediction_head", "pred_obj_score_head", "prompt_encoder")
            inside = name.startswith("sam.image_encoder.") and "linear_" not in name
            parameter.requires_grad_(not inside and not any(part in name for part in fixed))

    def code(self, side: int, like: Tensor) -> Tensor:
        """(1, side^2, 256)"""
        matrix = self.sam.sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix
        centres = (torch.arange(side, device=like.device) + 0.5) / side
        y, x = torch.meshgrid(centres, centres, indexing="ij")
        phase = 2 * math.pi * ((2 * torch.stack([x, y], -1) - 1) @ matrix)
        return torch.cat([phase.sin(), phase.cos()], -1).flatten(0, 1)[None]

    def head(self, fused: list[Tensor], side: int) -> Tensor:
        finest, fine, middle = fused
        fine, finest = self.lift1(fine), self.lift0(finest)
        x = fine + F.interpolate(middle, fine.shape[2:], mode="bilinear")
        x = finest + F.interpolate(x, finest.shape[2:], mode="bilinear")
        return F.interpolate(self.predict(x), (side, side), mode="bilinear")

    def forward(self, rgb: Tensor, thermal: Tensor) -> Result:
        """Two (B, 3, S, S) standardised images."""
        pairs, side = rgb.shape[0], rgb.shape[-1]
        encoder, decoder = self.sam.image_encoder, self.sam.sam_mask_decoder
        finest, fine, middle = encoder.neck(encoder.trunk(torch.cat([rgb, thermal])))
        levels = [decoder.conv_s0(finest), decoder.conv_s1(fine), middle]
        fused = [
            fuse(*rectify(x[:pairs], x[:pairs]))  # RGB twice: their defect, the same work
            for rectify, fuse, x in zip(self.FRMs, self.FFMs, levels, strict=True)
        ]
        output = self.head(fused, side)
        prompts = self.sam.sam_prompt_encoder
        code = self.code(middle.shape[-1], middle)
        point, dense = prompts.not_a_point_embed.weight, prompts.no_mask_embed.weight
        masks = decoder(levels, dense, code, point)
        full = F.interpolate(masks, (side, side), mode="bilinear")
        m_output = full.view(2, pairs, self.classes, side, side).mean(0)
        return Result(m_output, output, fused, masks, levels)


class ReleasedLoss(nn.Module):
    """Their four terms; text features are drawn, CLIP would be encoded once."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        text = F.normalize(torch.randn(classes, 512), dim=1)
        self.register_buffer("names", (text @ text.T).softmax(1))
        self.register_buffer("memory", torch.zeros(classes, WIDTH))

    def forward(self, result: Result, label: Tensor) -> Tensor:
        """(B, S, S) ids; the scalar they minimise."""
        loss = F.cross_entropy(result.m_output, label, ignore_index=IGNORE)
        loss = loss + F.cross_entropy(result.output, label, ignore_index=IGNORE)
        middle = result.fused[2]
        small = F.interpolate(label[:, None].float(), middle.shape[2:])[:, 0].long()
        pixels, prototypes = middle.permute(0, 2, 3, 1), []
        for index in range(len(self.memory)):
            chosen = pixels[small == index]
            if not len(chosen):
                prototypes.append(middle.new_zeros(WIDTH))
                continue
            read = chosen.reshape(WIDTH, -1)  # a view where a transpose was meant
            prototypes.append(read.mean(1) / len(chosen))
        now = torch.stack(prototypes)
        self.memory.copy_(0.9 * self.memory + 0.1 * now.detach())
        prototype = F.kl_div(now.log_softmax(1), self.memory.softmax(1), reduction="none").mean()
        unit = F.normalize(now, dim=1)
        visual = (unit @ unit.T).log_softmax(1)
        return loss + prototype + F.kl_div(visual, self.names, reduction="none").mean()
