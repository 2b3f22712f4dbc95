"""Small models and weights for the tests of model files: size `test`, as others write them.

Values are a function of the name and shape, so that files made on one machine fit the next one.
"""

import re
import zlib

import numpy as np
import torch
from golden import released_name
from torch import Tensor

from sartm.classes import Classes
from sartm.config import DecoderConfig, FusionConfig, ModelConfig
from sartm.model.prompts import PromptDecoder
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


def prompt_weights(config: ModelConfig = SMALL) -> dict[str, Tensor]:
    """All of SAM 2 that answers prompts, under Meta's names."""
    tensors = meta_weights(config)
    state = PromptDecoder(config.width, config.decoder).state_dict()
    for key, value in state.items():
        home, _, stack = key.rpartition("output_hypernetworks_mlps.")
        if not home:
            tensors[key] = values(key, tuple(value.shape), 0.3)
            continue
        part, layer = stack[:-1], stack[-1]  # weight0 holds that of all four
        for index, row in enumerate(value):
            name = f"{home}output_hypernetworks_mlps.{index}.layers.{layer}.{part}"
            shape = tuple(row.shape) if part == "weight" else (row.shape[-1],)
            tensors[name] = values(name, shape, 0.3)
    return tensors


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


def small_released(classes: int = 5, rank: int = 2) -> dict[str, Tensor]:
    """A released model of size `test`: a state dict with the authors' names."""
    tensors = {}
    for key, value in meta_weights().items():
        tensors[released_name(key)] = value
    home = "sam.sam_mask_decoder."
    rows = classes + 1
    tensors[f"{home}mask_tokens.weight"] = values("tokens", (rows, 32))
    del tensors["sam.sam_mask_decoder.iou_prediction_head.layers.0.weight"]
    heads = {f"output_hypernetworks_mlps.{k}": 4 for k in range(rows)}
    heads |= {"iou_prediction_head": rows, "pred_obj_score_head": 1}
    for head, outputs in heads.items():
        for layer, width in enumerate((32, 32, outputs)):
            key = f"{home}{head}.layers.{layer}"
            tensors[f"{key}.weight"] = values(key, (width, 32))
            tensors[f"{key}.bias"] = values(f"{key}.bias", (width,))
    tensors[f"{home}pred_obj_score_head.layers.2.bias"] = torch.full((1,), 4.0)
    for key in [key for key in tensors if key.endswith("qkv.qkv.weight")]:
        block = key.removesuffix("qkv.weight")
        inputs = tensors[key].shape[1]
        for which in "qv":
            for suffix in ("", "2", "3"):
                a, b = (f"{block}linear_{kind}_{which}{suffix}.weight" for kind in "ab")
                tensors[a], tensors[b] = values(a, (rank, inputs)), values(b, (inputs, rank))
    return tensors | fusion_weights() | {"model_clip.logit_scale": torch.tensor(4.6)}


def fusion_weights() -> dict[str, Tensor]:
    tensors = {}

    def linear(key, outputs, *inputs, bias=True):
        tensors[f"{key}.weight"] = values(key, (outputs, *inputs))
        if bias:
            tensors[f"{key}.bias"] = values(f"{key}.bias", (outputs,))

    def norm(key, channels, batch):
        linear(key, channels)
        if batch:
            tensors[f"{key}.running_mean"] = values(f"{key}.mean", (channels,))
            tensors[f"{key}.running_var"] = values(f"{key}.var", (channels,)).abs() + 0.5
            tensors[f"{key}.num_batches_tracked"] = torch.tensor(9)

    for level, c in enumerate((4, 8, 32)):
        frm, ffm = f"FRMs.{level}", f"FFMs.{level}"
        linear(f"{frm}.channel_weights.mlp.0", 4 * c, 4 * c)
        linear(f"{frm}.channel_weights.mlp.2", 2 * c, 4 * c)
        linear(f"{frm}.spatial_weights.mlp.0", c, 2 * c, 1, 1)
        linear(f"{frm}.spatial_weights.mlp.2", 2, c, 1, 1)
        for one in "12":
            linear(f"{ffm}.cross.channel_proj{one}", 2 * c, c)
            linear(f"{ffm}.cross.cross_attn.kv{one}", 2 * c, c, bias=False)
            linear(f"{ffm}.cross.end_proj{one}", c, 2 * c)
            norm(f"{ffm}.cross.norm{one}", c, batch=False)
        linear(f"{ffm}.channel_emb.residual", c, 2 * c, 1, 1, bias=False)
        linear(f"{ffm}.channel_emb.channel_embed.0", c, 2 * c, 1, 1)
        linear(f"{ffm}.channel_emb.channel_embed.1", c, 1, 3, 3)
        linear(f"{ffm}.channel_emb.channel_embed.3", c, c, 1, 1)
        norm(f"{ffm}.channel_emb.channel_embed.4", c, batch=True)
        norm(f"{ffm}.channel_emb.norm", c, batch=True)
    return tensors


def pair(height: int = 64, width: int = 96) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(7)
    rgb = torch.rand(1, 3, height, width, generator=generator)
    return rgb, torch.rand(1, 1, height, width, generator=generator)


def count_parameters(model: SARTM) -> dict[str, tuple[int, int]]:
    """Parameters per group, as (all, learning)."""
    groups = {"encoder": (0, 0), "lora": (0, 0), "decoder": (0, 0), "fusion": (0, 0)}
    groups |= {"auxiliary": (0, 0), "codes": (0, 0), "total": (0, 0)}
    homes = {
        "image_encoder": "encoder",
        "sam_mask_decoder": "decoder",
        "fusion": "fusion",
        "auxiliary_head": "auxiliary",
        "words": "decoder",
    }
    for name, parameter in model.named_parameters():
        home = "lora" if ".lora_" in name else homes.get(name.split(".")[0], "codes")
        for group in (home, "total"):
            total, learning = groups[group]
            size = parameter.numel()
            groups[group] = (total + size, learning + size * parameter.requires_grad)
    return groups
