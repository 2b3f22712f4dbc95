"""The authors' arithmetic exactly, so that the checkpoints they released load and score the same.

Composed of the default model's parts, which know nothing of it. What differs from `SARTM`: one LoRA
for both modalities that reaches only part of q and v where a block widens; no `no_mem_embed`; two
"not a point" tokens; K of K + 1 mask tokens; a gate that blanks a modality whose object score is
not positive; inputs padded before they are standardised, to a fixed square; the mean of the two
modalities' own logits, which the fusion does not enter.

Source: the code released with arXiv:2505.01950, see docs/decisions.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sartm.classes import Classes
from sartm.config import DecoderConfig, FusionConfig, LoRAConfig, ModelConfig, ThermalRule
from sartm.errors import InputError
from sartm.model.decoder import MaskDecoder
from sartm.model.encoder import Levels
from sartm.model.hiera import MLP
from sartm.model.lora import AdaptedQKV
from sartm.model.sartm import SARTM, Output

CANVAS = 1280
"""Side in pixels of the square that the authors pad every input to."""
GATED = -1024.0
"""Every logit of a modality whose object score is not positive."""


class ReleasedDecoder(MaskDecoder):
    """SAM 2's decoder with its heads: class k is mask token k + 1, token 0 is drawn and dropped."""

    def __init__(self, classes: int, width: int, config: DecoderConfig) -> None:
        super().__init__(classes + 1, width, config)
        self.iou_prediction_head = MLP((width, width, width, classes + 1), nn.ReLU())
        self.pred_obj_score_head = MLP((width, width, width, 1), nn.ReLU())
        self.not_a_point_embed = nn.Embedding(1, width)

    def decode(
        self, levels: Levels, dense: Tensor, image_code: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Class logits (B, K, H/4, W/4), IoU predictions (B, K) and object scores (B, 1)."""
        point = self.not_a_point_embed.weight
        tokens = torch.cat([self.tokens(), point, point])
        tokens, image = self.attend(tokens, levels.sfm + dense, image_code)
        drawn = self.draw(tokens[:, 2 : 2 + len(self.mask_tokens.weight)], image, levels)
        score = self.pred_obj_score_head(tokens[:, 0])
        gated = torch.where(score[..., None, None] > 0, drawn[:, 1:], GATED)
        return gated, self.iou_prediction_head(tokens[:, 1]).sigmoid()[:, 1:], score

    def forward(
        self,
        levels: Levels,
        dense: Tensor,
        image_code: Tensor,
        class_tokens: Tensor | None = None,
        guests: int = 0,
    ) -> Tensor:
        """(B, K, H/4, W/4) class logits, gated; its classes are fixed."""
        return self.decode(levels, dense, image_code)[0]


class Released(SARTM):
    """A released model for prediction; `config.fusion.crop` is its canvas.

    It has no auxiliary head: theirs is noise, drawn anew at every call. For training make a
    default model of it (`to_default_model`).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        height, width = config.fusion.crop or (0, 0)
        if height != width or height % 32 or height <= 0:
            raise InputError(
                f"the canvas of a released model (fusion.crop) must be square and a multiple of "
                f"32, found {height}x{width}; the authors used {CANVAS}x{CANVAS}"
            )
        self.sam_mask_decoder = ReleasedDecoder(len(config.classes), config.width, config.decoder)
        del self.auxiliary_head

    def _standardise(self, rgb: Tensor | None, thermal: Tensor | None) -> Tensor:
        """RGB by ImageNet's mean and deviation, thermal as it is, both padded before that."""
        assert self.config.fusion.crop is not None
        side = self.config.fusion.crop[0]
        images = []
        for image in (rgb, thermal):
            if image is None:
                continue
            height, width = image.shape[2:]
            if max(height, width) > side:
                raise InputError(
                    f"{height}x{width} is larger than the canvas {side}x{side} of this released "
                    f"model; resize, or raise the canvas to a multiple of 32: predict --canvas, or "
                    f"for good sartm weights convert --canvas"
                )
            padded = F.pad(image, (0, side - width, 0, side - height)).expand(-1, 3, -1, -1)
            images.append((padded - self.rgb_mean) / self.rgb_std if image is rgb else padded)
        batch = torch.cat(images).to(self.no_mem_embed.dtype)
        return batch.contiguous(memory_format=torch.channels_last)

    def forward(
        self,
        rgb: Tensor | None,
        thermal: Tensor | None,
        has_rgb: Tensor | None = None,
        has_thermal: Tensor | None = None,
        auxiliary: bool = False,
    ) -> Output:
        """As `SARTM.forward`, but for `auxiliary`: InputError where it is asked for."""
        if auxiliary:
            raise InputError(
                "a released model has no auxiliary head; leave auxiliary out, or make a default "
                "model of it first: sartm.model.released.to_default_model"
            )
        return super().forward(rgb, thermal, has_rgb, has_thermal, auxiliary)

    def predict_logits(self, rgb: Tensor | None, thermal: Tensor | None) -> Tensor:
        """(B, K, canvas/4, canvas/4): the mean of the modalities' logits; fusion takes no part."""
        rgb_levels, thermal_levels = self.encode(rgb, thermal)
        if rgb is None or thermal is None:
            return self._in_space(self.decode(rgb_levels))
        return self._in_space((self.decode(rgb_levels) + self.decode(thermal_levels)) / 2)


IGNORED = (
    "model_clip.",
    "mlp_src.",
    "mlp_feat_s0.",
    "mlp_feat_s1.",
    "linear_fuse.",
    "linear_pred.",
    "sam.maskmem_tpos_enc",
    "sam.no_mem_embed",
    "sam.no_mem_pos_enc",
    "sam.no_obj_ptr",
    "sam.no_obj_embed_spatial",
    "sam.mask_downsample.",
    "sam.memory_attention.",
    "sam.memory_encoder.",
    "sam.obj_ptr_proj.",
    "sam.obj_ptr_tpos_proj.",
    "sam.sam_prompt_encoder.point_embeddings.",
    "sam.sam_prompt_encoder.mask_downscaling.",
)
"""CLIP, SAM 2's memory and prompts, and layers that the released forward pass never calls."""

NAMES = (
    (r"sam\.(image_encoder\..*\.qkv)\.qkv\.(.*)", r"\1.\2"),
    (r"sam\.sam_prompt_encoder\.(not_a_point_embed\..*)", r"sam_mask_decoder.\1"),
    (r"sam\.((?:image_encoder|sam_prompt_encoder|sam_mask_decoder)\..*)", r"\1"),
    (r"FRMs\.(\d+)\.(channel|spatial)_weights\.mlp\.(.*)", r"fusion.rectify.\1.\2_gates.\3"),
    (r"FFMs\.(\d+)\.cross\.channel_proj1\.(.*)", r"fusion.fuse.\1.cross.enter_rgb.\2"),
    (r"FFMs\.(\d+)\.cross\.channel_proj2\.(.*)", r"fusion.fuse.\1.cross.enter_thermal.\2"),
    (r"FFMs\.(\d+)\.cross\.cross_attn\.kv1\.(.*)", r"fusion.fuse.\1.cross.keys_values_rgb.\2"),
    (r"FFMs\.(\d+)\.cross\.cross_attn\.kv2\.(.*)", r"fusion.fuse.\1.cross.keys_values_thermal.\2"),
    (r"FFMs\.(\d+)\.cross\.end_proj1\.(.*)", r"fusion.fuse.\1.cross.leave_rgb.\2"),
    (r"FFMs\.(\d+)\.cross\.end_proj2\.(.*)", r"fusion.fuse.\1.cross.leave_thermal.\2"),
    (r"FFMs\.(\d+)\.cross\.norm1\.(.*)", r"fusion.fuse.\1.cross.norm_rgb.\2"),
    (r"FFMs\.(\d+)\.cross\.norm2\.(.*)", r"fusion.fuse.\1.cross.norm_thermal.\2"),
    (r"FFMs\.(\d+)\.channel_emb\.channel_embed\.(.*)", r"fusion.fuse.\1.mix.\2"),
    (r"FFMs\.(\d+)\.channel_emb\.((?:residual|norm)\..*)", r"fusion.fuse.\1.\2"),
)
"""Their names, as regular expressions that match the whole key, and ours; the first match wins."""

PAIRS = ("", "2", "3")
"""Suffixes of the three LoRA pairs of a block, which together are one of three times the rank."""


def is_released(tensors: Mapping[str, Tensor]) -> bool:
    """Whether a state dict's names are those of the released model."""
    return "sam.sam_mask_decoder.mask_tokens.weight" in tensors and any(
        ".qkv.linear_a_q." in key for key in tensors
    )


def is_ignored(key: str) -> bool:
    """Whether a released weight is left out; a counter is what frozen statistics do without."""
    return key.startswith(IGNORED) or key.endswith(".num_batches_tracked")


def rename(tensors: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """A released state dict under our names, adapters and hypernetworks not yet joined.

    Raises InputError when a key is neither known nor on the list of what is left out.
    """
    renamed, strange = {}, []
    for key, value in tensors.items():
        if is_ignored(key):
            continue
        for pattern, name in NAMES:
            if re.fullmatch(pattern, key):
                renamed[re.sub(pattern, name, key)] = value
                break
        else:
            strange.append(key)
    if strange:
        raise InputError(
            f"{where} has {len(strange)} weights that no released SARTM has: "
            f"{', '.join(strange[:5])}. Nothing was loaded; is it from another version?"
        )
    return renamed


def join_adapters(tensors: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """The three LoRA pairs of every block as the one they add up to, in our shapes.

    Theirs map to the first d_in columns of q and the last d_in of v; where a block widens, the
    other columns get rows of zeros, which is the same arithmetic.
    """
    joined = {key: value for key, value in tensors.items() if ".qkv.linear_" not in key}
    for key in [key for key in joined if key.endswith(".attn.qkv.weight")]:
        block = key.removesuffix("weight")
        parts = {
            part: [take(tensors, f"{block}linear_{part}{pair}.weight", where) for pair in PAIRS]
            for part in ("a_q", "b_q", "a_v", "b_v")
        }
        outputs = len(joined[key]) // 3
        up_q, up_v = (_concatenate(parts[part], 1, where) for part in ("b_q", "b_v"))
        if not all(len(up) in (outputs, outputs // 2) for up in (up_q, up_v)):
            raise InputError(
                f"{where}: adapters of {len(up_q)} and {len(up_v)} rows do not fit {block} of "
                f"{outputs}; nothing was loaded"
            )
        beyond = (0, 0, 0, outputs - len(up_q))  # rows of zeros at the end
        before = (0, 0, outputs - len(up_v), 0)
        joined[f"{block}lora_down"] = _concatenate(parts["a_q"] + parts["a_v"], 0, where)[None]
        joined[f"{block}lora_up_q"] = F.pad(up_q, beyond)[None]
        joined[f"{block}lora_up_v"] = F.pad(up_v, before)[None]
    return joined


def join_hypernetworks(tensors: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """Meta's `output_hypernetworks_mlps.{k}.layers.{i}` as our stacks over k."""
    home = "sam_mask_decoder.output_hypernetworks_mlps."
    joined = {key: value for key, value in tensors.items() if not key.startswith(home)}
    count = len(take(tensors, "sam_mask_decoder.mask_tokens.weight", where))
    for layer in range(3):
        for part in ("weight", "bias"):
            rows = [take(tensors, f"{home}{k}.layers.{layer}.{part}", where) for k in range(count)]
            if part == "bias":
                rows = [row[None] for row in rows]
            joined[f"{home}{part}{layer}"] = _concatenate([row[None] for row in rows], 0, where)
    extra = {key for key in tensors if key.startswith(home)}
    extra -= {f"{home}{k}.layers.{i}.{p}" for k in range(count) for i in range(3) for p in _PARTS}
    if extra:
        raise InputError(
            f"{where} has {count} mask tokens but also {min(extra)}; nothing was loaded, the file "
            f"is not what it seems"
        )
    return joined


_PARTS = ("weight", "bias")


def take(tensors: Mapping[str, Tensor], key: str, where: str) -> Tensor:
    """One tensor of a state dict; InputError if it is not there."""
    if key not in tensors:
        raise InputError(f"{where} lacks {key}; nothing was loaded, the file is not complete")
    return tensors[key]


def _concatenate(parts: Sequence[Tensor], dimension: int, where: str) -> Tensor:
    try:
        return torch.cat(list(parts), dim=dimension)
    except (RuntimeError, IndexError):
        shapes = ", ".join("x".join(map(str, part.shape)) for part in parts)
        raise InputError(
            f"{where} has parts of one layer that do not fit each other ({shapes}); nothing was "
            f"loaded"
        ) from None


def released_state(tensors: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """A released state dict as the complete state dict of `Released`."""
    state = join_hypernetworks(join_adapters(rename(tensors, where), where), where)
    state["no_mem_embed"] = torch.zeros(1, 1, released_width(state, where))  # left out by them
    return state


def released_width(state: Mapping[str, Tensor], where: str) -> int:
    """D, the decoder's width."""
    return take(state, "sam_mask_decoder.mask_tokens.weight", where).shape[-1]


def released_config(
    state: Mapping[str, Tensor], size: str, classes: Classes | None, canvas: int, where: str
) -> ModelConfig:
    """Configuration of a released model from the shapes of its `released_state`.

    Args:
        state: under our names.
        size: of the encoder, as recognised.
        classes: names and colours; "class 0", "class 1", ... when None.
        canvas: side of the square that inputs are padded to.
        where: the file, for messages.
    """
    count = len(take(state, "sam_mask_decoder.mask_tokens.weight", where)) - 1
    down = take(state, "image_encoder.trunk.blocks.0.attn.qkv.lora_down", where)
    mlp = take(state, "sam_mask_decoder.transformer.layers.0.mlp.layers.0.weight", where)
    rank = down.shape[1] // 2
    return ModelConfig(
        classes=name_classes(count, classes, where),
        size=size,  # type: ignore[arg-type]
        width=released_width(state, where),
        thermal=ThermalRule("uint8", mean=0.0, std=1.0),
        lora=LoRAConfig("shared", rank=rank, alpha=float(rank)),
        fusion=FusionConfig(norm="batch", crop=(canvas, canvas)),
        decoder=DecoderConfig(mlp_dim=len(mlp)),
        decode="per_modality",
        output="decoder",
    )


def name_classes(count: int, classes: Classes | None, where: str) -> Classes:
    """`classes` if there are `count`; "class 0", "class 1", ... when None: a .pth has no names."""
    if count < 2:
        raise InputError(f"{where} has {count} classes; a segmenter needs 2 at least")
    if classes is None:
        return Classes(tuple(f"class {index}" for index in range(count)))
    if len(classes) != count:
        raise InputError(
            f"{where} has {count} classes but {len(classes)} names were given; name the classes "
            f"it was trained on, as predict --classes does"
        )
    return classes


def is_unnamed(classes: Classes) -> bool:
    """Whether a class table holds only what `name_classes` makes up."""
    return classes.names == tuple(f"class {index}" for index in range(len(classes)))


@torch.no_grad()
def to_default_model(released: Released) -> SARTM:
    """A default model to train on from a released one.

    LoRA is folded into the encoder, the decoder is kept without its unused token, its gate and its
    point tokens, the fusion is kept with its statistics frozen. New: LoRA per modality, which
    starts at no effect, and the auxiliary head.
    """
    config = replace(released.config, lora=LoRAConfig(), decode="fused", output="blend")
    model = SARTM(config)
    state = model.state_dict()
    old = released.state_dict()
    for name, module in released.named_modules():
        if isinstance(module, AdaptedQKV):
            old[f"{name}.weight"] = module.merged().weight[0]
    for key, value in old.items():
        if ".lora_" in key or key not in state:
            continue
        drop_first = "mask_tokens" in key or "output_hypernetworks_mlps" in key
        state[key] = value[1:] if drop_first else value
    model.load_state_dict(state)
    return model.eval()
