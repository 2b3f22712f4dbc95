"""The other half of SAM 2: points, boxes and masks as prompts, and the masks that answer them.

Built and loaded only when somebody asks for it (`sartm.Promptable`): semantic labels need none of
it. Parameter names and arithmetic after Meta's SAM 2 (Apache-2.0), arXiv:2408.00714.

Shapes: P prompts on one image, N points each, D the decoder width, h and w the sides of the
stride-16 map.
"""

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sartm.config import DecoderConfig
from sartm.errors import InputError
from sartm.model.decoder import LayerNorm2d, MaskDecoder, PromptCodes
from sartm.model.encoder import Levels
from sartm.model.filling import fill
from sartm.model.hiera import MLP
from sartm.model.released import join_hypernetworks
from sartm.model.sartm import SARTM
from sartm.model.sources import Weights, read_weights

log = logging.getLogger("sartm")

ADDS, TAKES_AWAY, NO_POINT, TOP_LEFT, BOTTOM_RIGHT = 1, 0, -1, 2, 3
"""Labels of points; a box is its two corners."""
MASKS = 4
"""Mask tokens: the first answers a clear prompt, the other three an ambiguous one."""
_DELTA, _STABLE = 0.05, 0.98
"""Of the released predictor: a single mask whose area depends more than this on a small change of
the threshold gives way to the best of the three."""


class Answer(NamedTuple):
    """Masks for P prompts, M each."""

    logits: Tensor
    """(P, M, 4 h, 4 w); above 0 is inside."""
    scores: Tensor
    """(P, M): the IoU that the model expects of each."""
    present: Tensor
    """(P,) logit of there being an object at all."""


class PromptEncoder(PromptCodes):
    """Points, corners of boxes and masks as codes."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.point_embeddings = nn.ModuleList(nn.Embedding(1, width) for _ in range(4))
        self.not_a_point_embed = nn.Embedding(1, width)
        self.mask_downscaling = nn.Sequential(
            nn.Conv2d(1, 4, 2, stride=2),
            LayerNorm2d(4, eps=1e-6),
            nn.GELU(),
            nn.Conv2d(4, 16, 2, stride=2),
            LayerNorm2d(16, eps=1e-6),
            nn.GELU(),
            nn.Conv2d(16, width, 1),
        )

    def sparse(self, places: Tensor, labels: Tensor) -> Tensor:
        """(P, N, D) codes of points in the unit square (P, N, 2) with labels (P, N)."""
        matrix = self.pe_layer.positional_encoding_gaussian_matrix
        phase = 2 * math.pi * ((2 * places - 1) @ matrix)
        code = torch.cat([phase.sin(), phase.cos()], dim=-1)
        codes = [kind.get_parameter("weight") for kind in self.point_embeddings]
        kinds = torch.cat([self.not_a_point_embed.weight, *codes])
        known = (labels >= 0)[..., None].to(code.dtype)
        return code * known + kinds[labels + 1]

    def masks(self, logits: Tensor) -> Tensor:
        """(P, D, h, w) codes of mask logits (P, 1, 4 h, 4 w)."""
        coded: Tensor = self.mask_downscaling(logits)
        return coded


class PromptMaskDecoder(MaskDecoder):
    """SAM 2's own mask tokens, with its heads for IoU and for there being an object.

    The maps come reduced already, by the convolutions of the decoder they were made for.
    """

    def __init__(self, width: int, config: DecoderConfig) -> None:
        super().__init__(MASKS, width, config)
        del self.conv_s0, self.conv_s1
        self.iou_prediction_head = MLP((width, width, width, MASKS), nn.ReLU())
        self.pred_obj_score_head = MLP((width, width, width, 1), nn.ReLU())

    def answer(self, levels: Levels, sparse: Tensor, dense: Tensor, code: Tensor) -> Answer:
        """All four masks of each prompt.

        Args:
            levels: maps of one image.
            sparse: (P, N, D) codes of points.
            dense: (P or 1, D, h or 1, w or 1) codes of masks.
            code: (1, h w, D) of positions.
        """
        prompts = sparse.shape[0]
        tokens = torch.cat([self.tokens().expand(prompts, -1, -1), sparse], dim=1)
        image = (levels.sfm + dense).expand(prompts, -1, -1, -1).flatten(2).transpose(1, 2)
        tokens, image = self.transformer(tokens, image, code)
        logits = self.draw(tokens[:, 2 : 2 + MASKS], image, levels)
        scores = self.iou_prediction_head(tokens[:, 1]).sigmoid()
        return Answer(logits, scores, self.pred_obj_score_head(tokens[:, 0])[:, 0])


class PromptDecoder(nn.Module):
    """From an image's maps and prompts to masks."""

    def __init__(self, width: int, config: DecoderConfig) -> None:
        super().__init__()
        self.sam_prompt_encoder = PromptEncoder(width)
        self.sam_mask_decoder = PromptMaskDecoder(width, config)

    def forward(
        self,
        levels: Levels,
        points: Tensor,
        labels: Tensor,
        masks: Tensor | None = None,
        multimask: bool = False,
    ) -> Answer:
        """Masks of P prompts on one image.

        Args:
            levels: its maps, as `prompt_levels` gives them.
            points: (P, N, 2) x and y in pixels of the network's input, N from 0.
            labels: (P, N) integers: 1 adds, 0 takes away, -1 no point, 2 and 3 a box's corners.
            masks: (P, 1, 4 h, 4 w) logits of masks to start from.
            multimask: the three masks of an ambiguous prompt; else one, by the rule of stability.
        """
        encoder = self.sam_prompt_encoder
        dense = encoder.dense() if masks is None else encoder.masks(masks.to(levels.sfm.dtype))
        answer = self.answer(levels, points, labels, dense)
        if multimask:
            return Answer(answer.logits[:, 1:], answer.scores[:, 1:], answer.present)
        return choose_stable(answer)

    def answer(self, levels: Levels, points: Tensor, labels: Tensor, dense: Tensor) -> Answer:
        """All four masks, given the codes `dense` (P or 1, D, h or 1, w or 1) of those before."""
        height, width = levels.sfm.shape[2:]
        encoder, dtype = self.sam_prompt_encoder, levels.sfm.dtype
        places = (points.float() + 0.5) / points.new_tensor([16 * width, 16 * height])
        # as released: a place that is none at the end, and one where there is no other
        empty = 1 if points.shape[1] else 2
        places = torch.nn.functional.pad(places, (0, 0, 0, empty))
        labels = torch.nn.functional.pad(labels.long(), (0, empty), value=NO_POINT)
        sparse = encoder.sparse(places, labels).to(dtype)
        code = encoder.pe_layer(height, width, dtype)
        return self.sam_mask_decoder.answer(levels, sparse, dense, code)


def choose_stable(answer: Answer) -> Answer:
    """One of the four masks of each prompt: the first, or, where its area hangs on the threshold,
    that of the other three of which the most is expected."""
    logits, scores = answer.logits, answer.scores
    first = logits[:, 0].flatten(1)
    inner, outer = ((first > delta).sum(1).float() for delta in (_DELTA, -_DELTA))
    stable = torch.where(outer > 0, inner / outer.clamp(min=1), torch.ones_like(inner)) >= _STABLE
    best = torch.where(stable, 0, 1 + scores[:, 1:].argmax(1))
    rows = torch.arange(len(best), device=best.device)
    return Answer(logits[rows, best][:, None], scores[rows, best][:, None], answer.present)


def prompt_levels(model: SARTM, rgb: Tensor | None, thermal: Tensor | None) -> Levels:
    """The maps that prompts are answered on: the fused ones, or those of the only image.

    Args:
        model: of one of SAM 2's sizes.
        rgb: (1, 3, H, W) in [0, 1], or None.
        thermal: (1, 1, H, W) in [0, 1] by the model's thermal rule, or None.
    """
    levels, of_thermal = model.encode(rgb, thermal)
    if rgb is not None and thermal is not None:
        levels = model.fuse(levels, of_thermal)
    return model.without_memory(levels) if model.config.no_mem_embed == "decoder" else levels


def load_prompts(model: SARTM, source: str | Path = "") -> PromptDecoder:
    """The prompt half that belongs to a model's encoder.

    Args:
        model: on one of SAM 2's sizes.
        source: SAM 2 weights, of Meta or the hub; by default those its encoder came from.

    Raises:
        InputError: the model names none, or the file is no SAM 2 of its size or not complete.
    """
    named = str(source) or model.encoder_source
    if not named:
        raise InputError(
            "this model does not say which SAM 2 weights its encoder came from, and clicks need "
            "the rest of them; name the file: Promptable(model, prompts=FILE)"
        )
    weights = read_weights(named)
    if weights.kind not in ("SAM 2", "SAM 2.1") or weights.size != model.config.size:
        raise InputError(
            f"{weights.where} is {weights.kind} {weights.size}, but the model is on SAM 2 "
            f"{model.config.size}; give the SAM 2 weights that it was trained on"
        )
    decoder = PromptDecoder(model.config.width, model.config.decoder)
    fill(decoder, prompt_state(weights, decoder.state_dict()), weights.where)
    log.info("%s: %d weights for prompts loaded", weights.where, len(decoder.state_dict()))
    return decoder.eval()


def prompt_state(weights: Weights, wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Of a SAM 2 file what `PromptDecoder` takes, under its names; what is missing is missing."""
    tensors = join_hypernetworks(weights.tensors, weights.where)
    stacked = tensors.pop("sam_prompt_encoder.point_embeddings.weight", None)
    if stacked is not None:  # the hub keeps the four in one
        for index, row in enumerate(stacked):
            tensors[f"sam_prompt_encoder.point_embeddings.{index}.weight"] = row[None]
    return {key: value for key, value in tensors.items() if key in wanted}
