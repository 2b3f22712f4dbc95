"""Clicks as two graphs for `sartm export --clicks`: a pair to its maps, maps and a prompt to masks.

What `inference.clicks` does around the networks is in the graphs, in operators that ONNX has, so
that whoever runs them needs no code of their own. All sizes are fixed but N, the number of points.
Prompts of SAM 2's sizes are here, those on windows in `model.look_graph`.

Shapes: H and W the images' sides, h and w those of the logits, N points.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sartm.config import Modality
from sartm.model.clicks import ClickDecoder
from sartm.model.encoder import Levels
from sartm.model.looking import click_maps
from sartm.model.prompts import NO_POINT, PromptDecoder, choose_stable, prompt_levels
from sartm.model.sartm import SARTM

Size = tuple[int, int]
"""Height and width."""

MAPS = ("features", "pixels_1", "pixels_2", "pixels_4", "pixels_8")
"""Of a pair, for a decoder that looks at windows."""


class EncoderGraph(nn.Module):
    """A pair to the maps that every click on it is answered on."""

    def __init__(
        self,
        model: SARTM,
        decoder: ClickDecoder | PromptDecoder,
        modality: Modality,
        size: Size,
        seen: Size,
    ) -> None:
        """Set up the graph.

        Args:
            model: whose maps they are, `merged`.
            decoder: for clicks.
            modality: what images come in.
            size: of the images.
            seen: the size that they are looked at in.
        """
        super().__init__()
        self.model, self.decoder, self.modality = model, decoder, modality
        self.names = MAPS if isinstance(decoder, ClickDecoder) else Levels._fields
        self.resize = _Resize(size, seen) if size != seen else nn.Identity()

    def forward(self, *images: Tensor) -> tuple[Tensor, ...]:
        """Images as `modality` says, rgb (1, H, W, 3) uint8 first, then thermal (1, H, W); what
        comes out is called `names`."""
        rgb = thermal = None
        if self.modality != "thermal":
            rgb = self.resize(images[0].permute(0, 3, 1, 2).float() / 255)
        if self.modality != "rgb":
            thermal = self.resize(images[-1][:, None])
        if isinstance(self.decoder, ClickDecoder):
            maps = click_maps(self.model, self.decoder, rgb, thermal)
            return maps.features, *maps.pixels
        return tuple(prompt_levels(self.model, rgb, thermal))


class _Resize(nn.Module):
    """Bilinear with antialiasing, which this opset has not, as two products."""

    down: Tensor
    across: Tensor

    def __init__(self, size: Size, wanted: Size) -> None:
        super().__init__()
        for name, side, new in zip(("down", "across"), size, wanted, strict=True):
            pixels = torch.eye(side)[None, None]
            shares = F.interpolate(pixels, (new, side), mode="bilinear", antialias=True)
            self.register_buffer(name, shares[0, 0])

    def forward(self, images: Tensor) -> Tensor:
        return self.down @ images @ self.across.T


class PromptGraph(nn.Module):
    """Prompts on one of SAM 2's sizes."""

    scale: Tensor

    def __init__(self, decoder: PromptDecoder, size: Size, canvas: int) -> None:
        """`size` is of the images, `canvas` the side of the square that they became."""
        super().__init__()
        self.decoder, self.size = decoder, size
        self.register_buffer("scale", torch.tensor([canvas / size[1], canvas / size[0]]))

    def forward(
        self,
        ffp: Tensor,
        ifp: Tensor,
        sfm: Tensor,
        points: Tensor,
        labels: Tensor,
        mask_input: Tensor,
        has_mask: Tensor,
    ) -> tuple[Tensor, ...]:
        """As `LookGraph.forward`, and the logit of there being an object at all (1,)."""
        encoder = self.decoder.sam_prompt_encoder
        dense = torch.where(has_mask, encoder.masks(mask_input[None, None]), encoder.dense())
        levels = Levels(ffp, ifp, sfm)
        four = self.decoder.answer(levels, (points * self.scale)[None], labels[None], dense)
        one = choose_stable(four)
        logits = torch.cat([one.logits, four.logits[:, 1:]], 1)[0]
        scores = torch.cat([one.scores, four.scores[:, 1:]], 1)[0]
        scores = keep_asked(scores, is_ambiguous(labels, has_mask))
        return draw_mask(logits, scores, self.size), logits, scores, four.present


def draw_mask(logits: Tensor, scores: Tensor, size: Size) -> Tensor:
    """(H, W) bool of logits (4, h, w): the one of the highest score."""
    best = logits.index_select(0, scores.argmax(0, keepdim=True))
    if tuple(map(int, logits.shape[1:])) != size:
        best = F.interpolate(best[None], size, mode="bilinear")[0]
    return best[0] > 0


def is_ambiguous(labels: Tensor, has_mask: Tensor) -> Tensor:
    """(1,): one click and nothing else, as `Prompt.is_ambiguous`."""
    return ((labels != NO_POINT).sum(0, keepdim=True) == 1) & ~has_mask


def keep_asked(scores: Tensor, several: Tensor) -> Tensor:
    """(4,) with -1 for masks that are not asked for."""
    others = torch.tensor([False, True, True, True])
    return torch.where(others == several, scores, -1.0)
