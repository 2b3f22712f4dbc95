"""transformers' SAM 2 with random weights: what encoder, decoder and prompts are held against."""

import math

import pytest
import torch
from torch import nn

from sartm.config import DecoderConfig, EncoderConfig


def randomise(module: nn.Module) -> None:
    """Weights that let every part matter, norms and codes included, and do not blow rounding up."""
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if tensor.ndim <= 1:
                tensor.normal_(1.0 if name.endswith("weight") else 0.0, 0.2)
            elif tensor.ndim == 2 and ("embed" in name or "token" in name):
                tensor.normal_()
            else:
                tensor.normal_(std=0.5 * math.prod(tensor.shape[1:]) ** -0.5)


def oracle(
    config: EncoderConfig,
    width: int,
    decoder: DecoderConfig,
    side: int = 1024,
    masks: int = 4,
    stability: bool = True,
) -> nn.Module:
    """Sam2Model for squares of `side`; `stability`: of a single mask, as it is released."""
    sam2 = pytest.importorskip("transformers.models.sam2")
    torch.manual_seed(0)
    widths = [config.embed_dim * 2**stage for stage in range(4)]
    trunk = sam2.Sam2HieraDetConfig(
        hidden_size=config.embed_dim,
        num_attention_heads=config.heads,
        image_size=[side, side],
        window_positional_embedding_background_size=list(config.background),
        blocks_per_stage=list(config.stages),
        embed_dim_per_stage=widths,
        num_attention_heads_per_stage=[config.heads * 2**stage for stage in range(4)],
        window_size_per_stage=list(config.windows),
        global_attention_blocks=list(config.global_blocks),
        mlp_ratio=float(config.mlp_ratio),
    )
    vision = sam2.Sam2VisionConfig(
        backbone_config=trunk,
        backbone_channel_list=widths[::-1],
        fpn_hidden_size=width,
        backbone_feature_sizes=[[side // stride] * 2 for stride in (4, 8, 16)],
    )
    whole = sam2.Sam2Config(
        vision_config=vision,
        prompt_encoder_config=sam2.Sam2PromptEncoderConfig(hidden_size=width, image_size=side),
        mask_decoder_config=sam2.Sam2MaskDecoderConfig(
            hidden_size=width,
            mlp_dim=decoder.mlp_dim,
            num_attention_heads=decoder.heads,
            num_multimask_outputs=masks - 1,
            iou_head_hidden_dim=width,
            dynamic_multimask_via_stability=stability,
        ),
    )
    whole._attn_implementation = "sdpa"
    model = sam2.Sam2Model(whole).eval()
    randomise(model)
    with torch.no_grad():
        model.mask_decoder.iou_prediction_head.proj_out.bias.normal_(0, 2)
        shared = model.shared_image_embedding.positional_embedding  # one code in two places
        model.prompt_encoder.shared_embedding.positional_embedding.copy_(shared)
    return model
