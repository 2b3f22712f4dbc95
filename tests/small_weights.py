"""Small models and weights for the tests of model files: SAM 2 of size `test` as others write it.

Values are a function of the name and shape, so that files made on one machine fit the next one.
"""

import re
import zlib

import numpy as np
import torch
from torch import Tensor

from sartm.config import DecoderConfig, FusionConfig, ModelConfig
from sartm.data.classes import Classes
from sartm.model.sartm import SARTM
from sartm.model.sources import is_sam2

SMALL = ModelConfig(
    classes=Classes(("ground", "car", "person")),
    size="test",
    width=32,
    decoder=DecoderConfig(heads=4, mlp_dim=64),
    fusion=FusionConfig(crop=(64, 96)),
)

EXTRAS = {
    "maskmem_tpos_enc": (7, 1, 1, 8),
    "no_mem_pos_enc": (1, 1, 32),
    "memory_attention.layers.0.norm1.weight": (32,),
    "sam_prompt_encoder.point_embeddings.0.weight": (1, 32),
    "sam_prompt_encoder.not_a_point_embed.weight": (1, 32),
    "sam_mask_decoder.mask_tokens.weight": (4, 32),
    "sam_mask_decoder.output_hypernetworks_mlps.0.layers.0.weight": (32, 32),
    "sam_mask_decoder.iou_prediction_head.layers.0.weight": (32, 32),
    "obj_ptr_proj.layers.0.weight": (32, 32),
}
"""What SAM 2 has beside what we build (some of it)."""
NEWER = {"no_obj_embed_spatial": (1, 8), "obj_ptr_tpos_proj.weight": (8, 32)}
"""In 2.1 only."""


def values(key: str, shape: tuple[int, ...], scale: float = 0.2) -> Tensor:
    random = np.random.RandomState(zlib.crc32(key.encode()))
    return torch.from_numpy(scale * random.standard_normal(shape).astype(np.float32))


def small_model(config: ModelConfig = SMALL, seed: int = 0) -> SARTM:
    torch.manual_seed(seed)
    model = SARTM(config)
    for name, parameter in model.named_parameters():  # adapters that do something
        if ".lora_up" in name:
            torch.nn.init.normal_(parameter.data, std=0.1)
    return model.eval()


def meta_weights(config: ModelConfig = SMALL, version: str = "2.1") -> dict[str, Tensor]:
    """SAM 2 under Meta's names."""
    state = SARTM(config).state_dict()
    shapes = {key: tuple(value.shape) for key, value in state.items() if is_sam2(key)}
    shapes |= EXTRAS | (NEWER if version == "2.1" else {})
    return {key: values(key, shape) for key, shape in shapes.items()}


RENAMES = (
    (r"^image_encoder\.neck\.convs\.(\d)\.conv\.", r"vision_encoder.neck.convs.\1."),
    (r"^image_encoder\.trunk\.", "vision_encoder.backbone."),
    (r"patch_embed\.proj\.", "patch_embed.projection."),
    (r"^no_mem_embed$", "no_memory_embedding"),
    (r"^no_mem_pos_enc$", "no_memory_positional_encoding"),
    (r"^maskmem_tpos_enc$", "memory_temporal_positional_encoding"),
    (r"^no_obj_embed_spatial$", "occlusion_spatial_embedding_parameter"),
    (r"^obj_ptr_tpos_proj\.", "temporal_positional_encoding_projection_layer."),
    (r"^obj_ptr_proj\.layers\.0", "object_pointer_proj.proj_in"),
    (r"^sam_(prompt_encoder|mask_decoder)\.", r"\1."),
    (r"\.pe_layer\.positional_encoding_gaussian_matrix", ".shared_embedding.positional_embedding"),
    (r"point_embeddings\.0\.", "point_embed."),
    (r"\.output_upscaling\.0\.", ".upscale_conv1."),
    (r"\.output_upscaling\.1\.", ".upscale_layer_norm."),
    (r"\.output_upscaling\.3\.", ".upscale_conv2."),
    (r"(blocks\.\d+|transformer\.layers\.\d)\.mlp\.layers\.0", r"\1.mlp.proj_in"),
    (r"(blocks\.\d+|transformer\.layers\.\d)\.mlp\.layers\.1", r"\1.mlp.proj_out"),
    (r"(mlps\.\d|head)\.layers\.0", r"\1.proj_in"),
    (r"\.norm", ".layer_norm"),
    (r"\.out_proj\.", ".o_proj."),
)


def hub_weights(meta: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same weights under the names of the hub (transformers' Sam2Model and Sam2VideoModel)."""
    renamed = {}
    for key, value in meta.items():
        for pattern, name in RENAMES:
            key = re.sub(pattern, name, key)
        renamed[key] = value.clone()
    shared = renamed["prompt_encoder.shared_embedding.positional_embedding"]
    renamed["shared_image_embedding.positional_embedding"] = shared.clone()
    return renamed


def pair(height: int = 64, width: int = 96) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(7)
    rgb = torch.rand(1, 3, height, width, generator=generator)
    return rgb, torch.rand(1, 1, height, width, generator=generator)
