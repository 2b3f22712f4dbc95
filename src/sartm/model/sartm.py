"""SARTM: two images in, class logits out. The wiring of encoder, fusion and heads.

    rgb (B,3,H,W), thermal (B,1,H,W) in [0,1]
      -> standardise, thermal to 3 channels, pad with 0 to multiples of 32
      -> one SAM 2 encoder, RGB rows first, LoRA per modality    -> three maps per modality
      -> a missing modality takes the maps of the other one      -> FRM, FFM per level
      -> SAM 2 mask decoder, one mask token per class            -> logits (B,K,H/4,W/4)
      -> auxiliary head on the three fused maps                  -> logits (B,K,H/4,W/4)

Source: SARTM, arXiv:2505.01950, as its paper describes it; where the released code differs see
docs/decisions.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sartm.classes import Classes
from sartm.config import RGB_MEAN, RGB_STD, ModelConfig
from sartm.errors import InputError
from sartm.model.clicks import ClickDecoder
from sartm.model.decoder import MaskDecoder, PromptCodes
from sartm.model.encoder import ImageEncoder, Levels
from sartm.model.fusion import Fusion
from sartm.model.hiera import ENCODERS, Trunk
from sartm.model.lite import LITES, AdaptedConv, Conv, LiteTrunk
from sartm.model.lora import AdaptedQKV
from sartm.model.words import WordHead, Words, vectors_for
from sartm.spaces import LabelSpace, choose_space, unknown_words

if TYPE_CHECKING:
    from sartm.model.facts import ModelFacts


@dataclass
class Output:
    """What one forward pass gives; maps cover the input padded to multiples of 32."""

    logits: Tensor
    """(B, K, h/4, w/4) of the decoder."""
    auxiliary: Tensor | None
    """(B, K, h/4, w/4) of the auxiliary head, None when it was not asked for."""
    fused: Tensor
    """(B, D, h/16, w/16), the fused SFM: what prototypes are made of."""
    rgb: Tensor
    """(B, D, h/16, w/16), RGB's own SFM (thermal's where RGB is missing)."""
    thermal: Tensor
    """(B, D, h/16, w/16), thermal's own SFM (RGB's where thermal is missing)."""


_FLAT = 0.01
"""Standard deviation that counts as none: two and a half of 255 levels are noise."""


class AuxiliaryHead(nn.Module):
    """The three fused maps added at stride 4 and read by one convolution."""

    def __init__(self, classes: int | None, width: int) -> None:
        """Set up the head of K classes; None: they are given as words."""
        super().__init__()
        self.lift_ffp = nn.Conv2d(width // 8, width, 1)
        self.lift_ifp = nn.Conv2d(width // 4, width, 1)
        self.predict = (
            WordHead(width) if classes is None else nn.Conv2d(width, classes, 3, padding=1)
        )

    def forward(self, levels: Levels, words: Words | None = None) -> Tensor:
        """(B, K, H/4, W/4) class logits."""
        x = F.interpolate(levels.sfm, scale_factor=2.0, mode="bilinear")
        x = x + self.lift_ifp(levels.ifp)
        x = F.interpolate(x, scale_factor=2.0, mode="bilinear") + self.lift_ffp(levels.ffp)
        logits: Tensor = self.predict(x) if words is None else self.predict(x, words)
        return logits


class SARTM(nn.Module):
    """The model; build it from a `ModelConfig`, its weights start at random."""

    rgb_mean: Tensor
    rgb_std: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.facts: ModelFacts | None = None  # where the weights come from; set by load
        self.encoder_source = ""  # id of the SAM 2 weights in the encoder, if any
        self.space: LabelSpace | None = None  # of predictions; None: all classes as they are
        self.known: Classes | None = None  # all classes, where others were chosen
        textual = config.classes_from == "text"
        classes = None if textual else len(config.classes)
        trunk = (
            LiteTrunk(config.lora, LITES[config.size])
            if config.size in LITES
            else Trunk(ENCODERS[config.size], config.lora)
        )
        self.image_encoder = ImageEncoder(trunk, config.width)
        self.no_mem_embed = nn.Parameter(torch.zeros(1, 1, config.width))
        self.sam_prompt_encoder = PromptCodes(config.width)
        self.sam_mask_decoder = MaskDecoder(classes, config.width, config.decoder)
        self.fusion = Fusion(config.width, config.fusion)
        self.auxiliary_head = AuxiliaryHead(classes, config.width)
        self.words = (
            Words(len(config.classes), config.classes.rest, config.width, config.words)
            if textual
            else None
        )
        self.clicks = ClickDecoder(config.width) if config.clicks else None
        for name, values in (("rgb_mean", RGB_MEAN), ("rgb_std", RGB_STD)):
            # on the CPU by name: in no file, so a model built on the meta device has them too
            constant = torch.tensor(values, device="cpu").view(1, 3, 1, 1)
            self.register_buffer(name, constant, persistent=False)
        self._start()
        if config.frozen_encoder:
            self._freeze()
        if config.fusion.kind != "frm_ffm":  # never called: must not be waited for by DDP
            self.fusion.requires_grad_(False)

    def _start(self) -> None:
        """Xavier weights for the trunk, which is trained from scratch where nothing is loaded.

        The usual normal of 0.02 is made for widths of 96 and more; at `mini`'s 16 the blocks would
        start as near-identities and learn late.
        """
        trunk = self.image_encoder.trunk
        nn.init.trunc_normal_(self.no_mem_embed, std=0.02)
        if isinstance(trunk, LiteTrunk):
            return
        for code in (trunk.pos_embed, trunk.pos_embed_window):
            nn.init.trunc_normal_(code, std=0.02)
        for module in trunk.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def _freeze(self) -> None:
        """Leave adapters, fusion and heads to learn; SAM 2, or ImageNet's trunk, stays."""
        encoder = self.image_encoder
        known = encoder.trunk if isinstance(encoder.trunk, LiteTrunk) else encoder
        for module in (known, self.sam_prompt_encoder):
            module.requires_grad_(False)
        self.no_mem_embed.requires_grad_(False)
        for name, parameter in self.image_encoder.named_parameters():
            if ".lora_" in name:
                parameter.requires_grad_(True)

    def _standardise(self, rgb: Tensor | None, thermal: Tensor | None) -> Tensor:
        """Both modalities as one normalised, padded batch of 3-channel images, RGB rows first."""
        images = []
        if rgb is not None:
            images.append((rgb - self.rgb_mean) / self.rgb_std)
        if thermal is not None:
            rule = self.config.thermal
            grey = (thermal - rule.mean) / rule.std
            apart = self.config.thermal_view == "contrast"
            images.append(_views(thermal, grey) if apart else grey.expand(-1, 3, -1, -1))
        batch = torch.cat(images) if len(images) > 1 else images[0]
        below, right = -batch.shape[2] % 32, -batch.shape[3] % 32
        padded = F.pad(batch, (0, right, 0, below)) if below or right else batch
        return padded.to(self.no_mem_embed.dtype).contiguous(memory_format=torch.channels_last)

    def encode(self, rgb: Tensor | None, thermal: Tensor | None) -> tuple[Levels, Levels]:
        """The maps of both modalities; where one is None both are those of the other one."""
        if rgb is None and thermal is None:
            raise ValueError("SARTM needs at least one of rgb and thermal")
        apart = isinstance(self.image_encoder.trunk, LiteTrunk)
        if apart and rgb is not None and thermal is not None:  # nothing to join and to cut again
            return self.encode(rgb, None)[0], self.encode(None, thermal)[1]
        rows = 0 if rgb is None else rgb.shape[0]  # a traced batch size stays one
        decoder = self.sam_mask_decoder
        images = self._standardise(rgb, thermal)
        levels = self.image_encoder(images, rows, decoder.conv_s0, decoder.conv_s1)
        if self.config.no_mem_embed == "fusion":
            levels = self.without_memory(levels)
        if rgb is None or thermal is None:
            return levels, levels
        return Levels(*(x[:rows] for x in levels)), Levels(*(x[rows:] for x in levels))

    def without_memory(self, levels: Levels) -> Levels:
        """What SAM 2's decoder expects where there is no frame before this one."""
        return levels._replace(sfm=levels.sfm + self.no_mem_embed.view(1, -1, 1, 1))

    def decode(self, levels: Levels) -> Tensor:
        """(B, K, h/4, w/4) logits of the mask decoder."""
        if self.config.no_mem_embed == "decoder":
            levels = self.without_memory(levels)
        dense, code, *words = self._decoding(levels)
        logits: Tensor = self.sam_mask_decoder(levels, dense, code, *words)
        return logits

    def _decoding(self, levels: Levels) -> tuple[Any, ...]:
        """What the mask decoder takes beside the maps."""
        prompts, words = self.sam_prompt_encoder, self.words
        dense = prompts.dense()
        code = prompts.pe_layer(*levels.sfm.shape[2:], dense.dtype)
        return (dense, code) + (() if words is None else (words.tokens(), len(words.guests)))

    def embed(self, levels: Levels) -> Tensor:
        """(B, D/8, h/4, w/4): what the mask decoder's class filters read."""
        if self.config.no_mem_embed == "decoder":
            levels = self.without_memory(levels)
        dense, code, *words = self._decoding(levels)
        decoder = self.sam_mask_decoder
        tokens = decoder.tokens(*words[:1])
        _, image = decoder.attend(tokens, levels.sfm + dense, code, *words[1:])
        drawn: Tensor = decoder.upscale(image, levels)
        return drawn

    def forward(
        self,
        rgb: Tensor | None,
        thermal: Tensor | None,
        has_rgb: Tensor | None = None,
        has_thermal: Tensor | None = None,
        auxiliary: bool = True,
    ) -> Output:
        """Class logits of aligned pairs.

        Args:
            rgb: (B, 3, H, W) in [0, 1], or None when no pair has it: its encoder pass is skipped.
            thermal: (B, 1, H, W) in [0, 1] by the config's thermal rule, or None.
            has_rgb: (B,) bool, False where this pair's RGB is missing (its pixels are not used).
            has_thermal: (B,) bool likewise.
            auxiliary: also run the auxiliary head.
        """
        rgb_levels, thermal_levels = self.encode(rgb, thermal)
        if has_rgb is not None:
            rgb_levels = _fill(rgb_levels, thermal_levels, has_rgb)
        if has_thermal is not None:
            thermal_levels = _fill(thermal_levels, rgb_levels, has_thermal)
        return self._read(rgb_levels, thermal_levels, auxiliary)

    def _read(self, rgb_levels: Levels, thermal_levels: Levels, auxiliary: bool) -> Output:
        """What the heads say about the maps of both modalities."""
        fused = self.fuse(rgb_levels, thermal_levels)
        if self.config.decode == "fused":
            logits = self.decode(fused)
        else:
            logits = (self.decode(rgb_levels) + self.decode(thermal_levels)) / 2
        extra = self._auxiliary(fused) if auxiliary else None
        return Output(logits, extra, fused.sfm, rgb_levels.sfm, thermal_levels.sfm)

    def _auxiliary(self, fused: Levels) -> Tensor:
        logits: Tensor = self.auxiliary_head(fused, self.words)
        return logits

    def fuse(self, rgb: Levels, thermal: Levels) -> Levels:
        """The maps of both modalities as `config.fusion.kind` says."""
        kind = self.config.fusion.kind
        if kind == "frm_ffm":
            fused: Levels = self.fusion(rgb, thermal)
            return fused
        if kind == "mean":
            return Levels(*((x + y) / 2 for x, y in zip(rgb, thermal, strict=True)))
        return rgb if kind == "rgb" else thermal

    def predict_logits(self, rgb: Tensor | None, thermal: Tensor | None) -> Tensor:
        """Logits that make the label map, as `config.output` and `config.scale` say.

        Args:
            rgb: (B, 3, H, W) in [0, 1], or None.
            thermal: (B, 1, H, W) in [0, 1] by the config's thermal rule, or None.

        Returns:
            (B, K, h/4, w/4), h and w being H and W padded to multiples of 32; K the classes of
            `config`, which `choose` may have made others than those of the heads.
        """
        return self._at_scale(rgb, thermal, self._predict)

    def predict_apart(self, rgb: Tensor, thermal: Tensor) -> Tensor:
        """`predict_logits`, and beside it what either camera alone would say.

        The encoder's maps are those of both cameras, and of each alone the auxiliary head reads
        them: two fusions and two convolutions more.

        Returns:
            (B, 3 K, h/4, w/4): the logits, those of RGB alone, those of thermal alone.
        """
        return self._at_scale(rgb, thermal, self._predict_apart)

    def _at_scale(
        self,
        rgb: Tensor | None,
        thermal: Tensor | None,
        predict: Callable[[Tensor | None, Tensor | None], Tensor],
    ) -> Tensor:
        """Shrink, predict and enlarge, as `config.scale` says."""
        if self.config.scale == 1:
            return predict(rgb, thermal)
        image = rgb if rgb is not None else thermal
        assert image is not None
        logits = predict(*self.shrink(rgb, thermal))
        return F.interpolate(logits, [_padded(x) // 4 for x in image.shape[2:]], mode="bilinear")

    def shrink(
        self, rgb: Tensor | None, thermal: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None]:
        """Padded images at the size the network works at; as they are where that is their own."""
        image = rgb if rgb is not None else thermal
        if self.config.scale == 1 or image is None:
            return rgb, thermal
        # in whole numbers, which a traced graph keeps as arithmetic on the input's size
        padded = [_padded(side) for side in image.shape[2:]]
        share = round(1000 * self.config.scale)
        size = [(side * share + 16_000) // 32_000 * 32 for side in padded]
        below, right = padded[0] - image.shape[2], padded[1] - image.shape[3]
        means: tuple[Tensor | float, ...] = (self.rgb_mean, self.config.thermal.mean)
        small = [
            None if x is None else _shrink(x, mean, (right, below), size)
            for x, mean in zip((rgb, thermal), means, strict=True)
        ]
        return small[0], small[1]

    def _predict(self, rgb: Tensor | None, thermal: Tensor | None) -> Tensor:
        """Logits at stride 4 of what the network sees."""
        wanted = self.config.output
        if wanted == "auxiliary":  # nothing of the mask decoder is computed
            return self._in_space(self._auxiliary(self.fuse(*self.encode(rgb, thermal))))
        output: Output = self(rgb, thermal, auxiliary=wanted == "blend")
        return self._in_space(_mix(output))

    def _predict_apart(self, rgb: Tensor | None, thermal: Tensor | None) -> Tensor:
        levels = self.encode(rgb, thermal)
        wanted = self.config.output
        if wanted == "auxiliary":
            logits = self._auxiliary(self.fuse(*levels))
        else:
            logits = _mix(self._read(*levels, auxiliary=wanted == "blend"))
        alone = (self._auxiliary(self.fuse(each, each)) for each in levels)
        return torch.cat([self._in_space(said) for said in (logits, *alone)], dim=1)

    def choose(self, classes: Classes, text_encoder: str = "") -> "SARTM":
        """This model for other classes among those it knows: all weights are shared.

        What it knows beside them counts as the rest of `classes`, where these have one. A model of
        words knows every word of the vocabulary.

        Args:
            classes: in the order of the label maps to come.
            text_encoder: for words that are not in the vocabulary, where the model is one of words;
                the same that made the vectors of its own.

        Raises:
            InputError: a class it does not know, with the nearest ones; another encoder.
        """
        known, words = self.known or self.config.classes, self.words
        if text_encoder and words is None:
            raise InputError(
                "the classes of this model have weights of their own, which no text encoder can "
                "give another one; leave --text-encoder out"
            )
        new = () if words is None else unknown_words(known, classes)
        space = choose_space(known, classes, self.config.rest == "words", guests=len(new))
        chosen = copy.copy(self)
        if words is not None:
            guests = words.vectors[:0]
            if new:
                vectors = vectors_for(self.config.words, new, text_encoder)
                guests = torch.from_numpy(vectors).to(words.vectors)
            chosen._modules = {**self._modules, "words": words.with_guests(guests)}
        chosen.config = replace(self.config, classes=classes)
        chosen.known, chosen.space = known, None if space.is_all(len(known)) else space
        return chosen

    def _in_space(self, logits: Tensor) -> Tensor:
        """(B, K, h, w) logits of all classes to those of the chosen ones."""
        space = self.space
        if space is None:
            return logits
        rest = space.classes.rest
        parts = []
        for index, place in enumerate(space.picks):
            places = [] if place is None else [place]
            if index == rest:
                places += space.others
            if not places:  # there is no rest: never the largest
                parts.append(torch.full_like(logits[:, :1], -1e4))
            elif len(places) == 1:
                parts.append(logits[:, places[0] : places[0] + 1])
            else:
                some = torch.cat([logits[:, k : k + 1] for k in places], 1)
                parts.append(some.float().logsumexp(1, keepdim=True).to(logits.dtype))
        return torch.cat(parts, 1)

    def merged(self, dtype: torch.dtype | None = None) -> "SARTM":
        """A copy for inference: adapters folded in, no gradients.

        Tensors that do not change are shared with this model; `dtype` converts the weights, not
        what images are standardised by and positions are coded by.
        """
        shared: dict[int, object] = {}
        code = self.sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix
        exact = {id(tensor) for tensor in (self.rgb_mean, self.rgb_std, code)}
        for tensor in (*self.parameters(), *self.buffers()):
            kind = tensor.dtype if dtype is None or id(tensor) in exact else dtype
            moved = tensor.detach().to(kind)
            is_parameter = isinstance(tensor, nn.Parameter)
            shared[id(tensor)] = nn.Parameter(moved, requires_grad=False) if is_parameter else moved
        for module in self.modules():
            if isinstance(module, AdaptedQKV | AdaptedConv | Conv):
                folded = module.merged()
                shared[id(module)] = folded.to(dtype) if dtype else folded
        return copy.deepcopy(self, shared).eval()


def _views(thermal: Tensor, grey: Tensor) -> Tensor:
    """(B, 1, h, w) in [0, 1] and standardised, to (B, 3, h, w): grey, contrast near, contrast far.

    Contrast is the distance to the local mean in local standard deviations. Both are measured on
    cells of 8 x 8 pixels, over 5 and 17 cells a side, cut at the border, and are smooth between.
    """
    x = thermal.float()
    cells = [F.avg_pool2d(y, 8, ceil_mode=True, count_include_pad=False) for y in (x, x.square())]
    views = [grey]
    for side in (5, 17):
        mean, square = (
            F.avg_pool2d(
                F.avg_pool2d(y, (side, 1), 1, (side // 2, 0), count_include_pad=False),
                (1, side), 1, (0, side // 2), count_include_pad=False,
            )
            for y in cells
        )  # fmt: skip
        spread = ((square - mean.square()).clamp(min=0) + _FLAT**2).sqrt()
        size = x.shape[2:]
        mean, spread = (F.interpolate(y, size, mode="bilinear") for y in (mean, spread))
        views.append(((x - mean) / spread).clamp(-4, 4).to(grey.dtype))
    return torch.cat(views, 1)


def _padded(side: int) -> int:
    return side + -side % 32


def _mix(output: Output) -> Tensor:
    return output.logits if output.auxiliary is None else (output.logits + output.auxiliary) / 2


def _fill(levels: Levels, other: Levels, present: Tensor) -> Levels:
    """Take the other modality's maps in the rows where this one is not present."""
    keep = present.view(-1, 1, 1, 1)
    return Levels(*(torch.where(keep, x, y) for x, y in zip(levels, other, strict=True)))


def _shrink(
    image: Tensor, mean: Tensor | float, padding: tuple[int, int], size: list[int]
) -> Tensor:
    """(B, C, H, W) continued to the right and below by its mean, which is 0 once it is
    standardised, then at `size`."""
    right, below = padding
    continued = F.pad(image - mean, (0, right, 0, below)) + mean if right or below else image
    return F.interpolate(continued, size, mode="bilinear")


def resize_logits(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, K, h/4, w/4) logits of a padded input to (B, K, H, W) of the input itself."""
    full = F.interpolate(logits, scale_factor=4.0, mode="bilinear", align_corners=False)
    return full[..., : size[0], : size[1]]
