"""Everybody else's weights: SAM 2 files of Meta and the hub, EfficientNet-Lite0, the authors' .pth.

What a file holds is told from its names and shapes, never from the file's name.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from sartm.errors import InputError
from sartm.model.hiera import ENCODERS
from sartm.model.hub import SUFFIXES, find_weights, get_weights
from sartm.model.lite import from_efficientnet, recognise_lite
from sartm.model.released import is_released, take
from sartm.model.tensors import read_tensors

Kind = Literal["SAM 2", "SAM 2.1", "EfficientNet", "released"]

TRUNK = "image_encoder.trunk."
PATCHES = "image_encoder.trunk.patch_embed.proj.weight"
"""A name that every SAM 2 file of Meta's has; it tells the width."""
STEM = "_conv_stem.weight"
"""One that every EfficientNet of PyTorch's ports has."""
HUB_PATCHES = "vision_encoder.backbone.patch_embed.projection.weight"


@dataclass(frozen=True)
class Weights:
    """What one file holds, recognised but not yet checked against a model."""

    kind: Kind
    size: str
    """A `ModelConfig.size`."""
    tensors: dict[str, Tensor]
    """Under Meta's names, or the authors' for `released`, or ours for EfficientNet."""
    where: str
    """The file, for messages."""


def read_weights(source: str | Path) -> Weights:
    """The weights in a file, a folder, or a repository of the hub (fetched if not cached).

    Raises:
        InputError: nothing is there, it cannot be read without running code, or it is neither a
            SAM 2 nor a released SARTM.
    """
    path = Path(source)
    if not path.exists() and path.suffix not in SUFFIXES:
        path = get_weights(str(source))
    if path.is_dir():
        path = find_weights(path)
    return recognise(read_tensors(path), str(path))


def recognise(tensors: Mapping[str, Tensor], where: str) -> Weights:
    """Whose weights these are and of which size, by names and shapes."""
    if is_released(tensors):
        inner = {key.removeprefix("sam."): value for key, value in tensors.items()}
        return Weights("released", recognise_size(inner, where), dict(tensors), where)
    if STEM in tensors:
        gates = [key for key in tensors if "._se_" in key]
        if gates:
            raise InputError(
                f"{where} is an EfficientNet with squeeze-and-excitation ({gates[0]}): of that "
                f"family Lite0 and Lite2 can be trunks. Nothing was loaded"
            )
        turned = {
            f"{TRUNK}{key}": value for key, value in from_efficientnet(tensors, where).items()
        }
        return Weights("EfficientNet", recognise_lite(tensors, where), turned, where)
    if HUB_PATCHES in tensors:
        tensors = from_hub_names(tensors, where)
    if PATCHES not in tensors:
        raise InputError(
            f"{where} holds {len(tensors)} tensors ({', '.join(list(tensors)[:3])}, ...): neither "
            f"SAM 2 of Meta or the hub nor EfficientNet-Lite nor a released SARTM"
        )
    newer = "no_obj_embed_spatial" in tensors
    size = recognise_size(tensors, where)
    return Weights("SAM 2.1" if newer else "SAM 2", size, dict(tensors), where)


def recognise_size(tensors: Mapping[str, Tensor], where: str) -> str:
    """Which of `ENCODERS` has this width and this many blocks."""
    width = take(tensors, PATCHES, where).shape[0]
    found = (re.match(r"image_encoder\.trunk\.blocks\.(\d+)\.", key) for key in tensors)
    blocks = len({match[1] for match in found if match})
    for name, config in ENCODERS.items():
        if (config.embed_dim, sum(config.stages)) == (width, blocks):
            return name
    raise InputError(
        f"{where} has an encoder of width {width} with {blocks} blocks, which is none of "
        f"{', '.join(ENCODERS)}; it is not complete or not SAM 2's"
    )


# Names

HUB_TRUNK, HUB_TWO_WAY = r"vision_encoder\.backbone\.", r"mask_decoder\.transformer\."
TWO_WAY = "sam_mask_decoder.transformer."
HUB_HEADS = r"(output_hypernetworks_mlps\.\d+|iou_prediction_head|pred_obj_score_head)"
DOWNSCALING = "sam_prompt_encoder.mask_downscaling."
HUB_NAMES = (
    (rf"{HUB_TRUNK}(pos_embed|pos_embed_window)", rf"{TRUNK}\1"),
    (rf"{HUB_TRUNK}patch_embed\.projection\.(.*)", rf"{TRUNK}patch_embed.proj.\1"),
    (rf"{HUB_TRUNK}blocks\.(\d+)\.layer_norm([12])\.(.*)", rf"{TRUNK}blocks.\1.norm\2.\3"),
    (rf"{HUB_TRUNK}blocks\.(\d+)\.((?:attn\.qkv|attn\.proj|proj)\..*)", rf"{TRUNK}blocks.\1.\2"),
    (rf"{HUB_TRUNK}blocks\.(\d+)\.mlp\.proj_in\.(.*)", rf"{TRUNK}blocks.\1.mlp.layers.0.\2"),
    (rf"{HUB_TRUNK}blocks\.(\d+)\.mlp\.proj_out\.(.*)", rf"{TRUNK}blocks.\1.mlp.layers.1.\2"),
    (r"vision_encoder\.neck\.convs\.(\d+)\.(.*)", r"image_encoder.neck.convs.\1.conv.\2"),
    (r"no_memory_embedding", r"no_mem_embed"),
    (
        r"(?:prompt_encoder\.shared_embedding|shared_image_embedding)\.positional_embedding",
        r"sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix",
    ),
    (r"prompt_encoder\.(no_mask_embed\..*)", r"sam_prompt_encoder.\1"),
    (rf"{HUB_TWO_WAY}layers\.(\d+)\.layer_norm([1-4])\.(.*)", rf"{TWO_WAY}layers.\1.norm\2.\3"),
    (rf"{HUB_TWO_WAY}layers\.(\d+)\.mlp\.proj_in\.(.*)", rf"{TWO_WAY}layers.\1.mlp.layers.0.\2"),
    (rf"{HUB_TWO_WAY}layers\.(\d+)\.mlp\.proj_out\.(.*)", rf"{TWO_WAY}layers.\1.mlp.layers.1.\2"),
    (rf"{HUB_TWO_WAY}(.*_(?:attn|image|token))\.o_proj\.(.*)", rf"{TWO_WAY}\1.out_proj.\2"),
    (rf"{HUB_TWO_WAY}(.*_(?:attn|image|token)\.[qkv]_proj\..*)", rf"{TWO_WAY}\1"),
    (rf"{HUB_TWO_WAY}layer_norm_final_attn\.(.*)", rf"{TWO_WAY}norm_final_attn.\1"),
    (r"mask_decoder\.upscale_conv1\.(.*)", r"sam_mask_decoder.output_upscaling.0.\1"),
    (r"mask_decoder\.upscale_layer_norm\.(.*)", r"sam_mask_decoder.output_upscaling.1.\1"),
    (r"mask_decoder\.upscale_conv2\.(.*)", r"sam_mask_decoder.output_upscaling.3.\1"),
    (r"mask_decoder\.((?:iou_token|obj_score_token|conv_s0|conv_s1)\..*)", r"sam_mask_decoder.\1"),
    (r"mask_decoder\.(mask_tokens\..*)", r"sam_mask_decoder.\1"),
    (rf"mask_decoder\.{HUB_HEADS}\.proj_in\.(.*)", r"sam_mask_decoder.\1.layers.0.\2"),
    (rf"mask_decoder\.{HUB_HEADS}\.layers\.0\.(.*)", r"sam_mask_decoder.\1.layers.1.\2"),
    (rf"mask_decoder\.{HUB_HEADS}\.proj_out\.(.*)", r"sam_mask_decoder.\1.layers.2.\2"),
    (r"prompt_encoder\.point_embed\.(.*)", r"sam_prompt_encoder.point_embeddings.\1"),
    (r"prompt_encoder\.(not_a_point_embed\..*)", r"sam_prompt_encoder.\1"),
    (r"prompt_encoder\.mask_embed\.conv1\.(.*)", rf"{DOWNSCALING}0.\1"),
    (r"prompt_encoder\.mask_embed\.layer_norm1\.(.*)", rf"{DOWNSCALING}1.\1"),
    (r"prompt_encoder\.mask_embed\.conv2\.(.*)", rf"{DOWNSCALING}3.\1"),
    (r"prompt_encoder\.mask_embed\.layer_norm2\.(.*)", rf"{DOWNSCALING}4.\1"),
    (r"prompt_encoder\.mask_embed\.conv3\.(.*)", rf"{DOWNSCALING}6.\1"),
    (r"occlusion_spatial_embedding_parameter", r"no_obj_embed_spatial"),
    (r"memory_temporal_positional_encoding", r"maskmem_tpos_enc"),
    (r"no_memory_positional_encoding", r"no_mem_pos_enc"),
    (r"no_object_pointer", r"no_obj_ptr"),
    (r"object_pointer_proj\.(.*)", r"obj_ptr_proj.\1"),
    (r"temporal_positional_encoding_projection_layer\.(.*)", r"obj_ptr_tpos_proj.\1"),
    (r"((?:memory_attention|memory_encoder|mask_downsample)\..*)", r"\1"),
)
"""The hub's names, as regular expressions that match the whole key, and Meta's; first match."""

IGNORED = (
    "maskmem_tpos_enc",
    "no_mem_pos_enc",
    "no_obj_ptr",
    "no_obj_embed_spatial",
    "mask_downsample.",
    "memory_attention.",
    "memory_encoder.",
    "obj_ptr_proj.",
    "obj_ptr_tpos_proj.",
    "sam_prompt_encoder.point_embeddings.",
    "sam_prompt_encoder.not_a_point_embed.",
    "sam_prompt_encoder.mask_downscaling.",
    "sam_mask_decoder.mask_tokens.",
    "sam_mask_decoder.output_hypernetworks_mlps.",
    "sam_mask_decoder.iou_prediction_head.",
    "sam_mask_decoder.pred_obj_score_head.",
)
"""Of SAM 2 and not of the default model: memory, prompts, heads, tokens that mean no class."""


def from_hub_names(tensors: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """A state dict with the hub's names under Meta's; InputError on a name that is not known."""
    renamed: dict[str, Tensor] = {}
    strange = []
    for key, value in tensors.items():
        for pattern, name in HUB_NAMES:
            if re.fullmatch(pattern, key):
                target = re.sub(pattern, name, key)
                break
        else:
            strange.append(key)
            continue
        if target in renamed and not torch.equal(renamed[target], value):
            raise InputError(f"{where} gives {target} twice, with different values; it is damaged")
        renamed[target] = value
    if strange:
        raise InputError(
            f"{where} has {len(strange)} weights that SAM 2 on the hub does not have: "
            f"{', '.join(strange[:5])}. Nothing was loaded"
        )
    return renamed


def is_sam2(key: str) -> bool:
    """Whether a key of our model is filled from SAM 2: trunk, neck, codes, and what stays the same
    in the decoder whatever the classes are."""
    if key.startswith("sam_mask_decoder."):
        return not key.startswith(IGNORED)
    return is_encoder(key) or key.startswith(("sam_prompt_encoder.", "no_mem_embed"))


def is_trunk(key: str) -> bool:
    """Whether a state-dict key belongs to the trunk itself, not to an adapter."""
    return key.startswith(TRUNK) and ".lora_" not in key


def is_encoder(key: str) -> bool:
    """Whether a state-dict key belongs to SAM 2's trunk or neck itself, not to an adapter."""
    return key.startswith("image_encoder.") and ".lora_" not in key
