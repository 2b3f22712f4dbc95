"""The whole loss of a batch: its terms, their weights, and the memory of prototypes."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sartm.model.sartm import Output, resize_logits
from sartm.spaces import LabelSpace
from sartm.training.losses import (
    PRESENT,
    Reduce,
    class_sums,
    cmkd,
    cross_entropy,
    imitation,
    lovasz,
    name_relations,
    pixel_weights,
)
from sartm.training.settings import LossConfig

OUT = -1e4
"""Logit of a class that cannot be; finite, since logits are interpolated."""


def _pick(maps: Tensor, every: int) -> Tensor:
    """Every `every`-th row and column of (..., H, W), from the middle of the first ones."""
    return maps[..., every // 2 :: every, every // 2 :: every]


def _at_pixels(small: Tensor, label: Tensor, every: int) -> tuple[Tensor, Tensor]:
    """(B, K, h/4, w/4) logits at the pixels that count, and the labels of these."""
    full = resize_logits(small, (label.shape[1], label.shape[2]))
    return _pick(full, every), _pick(label, every)


class SpaceMask(nn.Module):
    """Logits as the label space of each pair's data set has them.

    Classes that the set does not know are out, and count as its rest where it has one: what one
    set calls unlabeled may be the road of another.
    """

    absent: Tensor
    merged: Tensor

    def __init__(self, spaces: Sequence[LabelSpace], classes: int, merges: bool = True) -> None:
        super().__init__()
        absent = torch.ones(len(spaces), classes, dtype=torch.bool)
        merged = torch.zeros_like(absent)
        self.rest: int | None = None
        for row, space in enumerate(spaces):
            absent[row, [place for place in space.picks if place is not None]] = False
            rest = space.classes.rest
            if rest is not None:
                self.rest = space.picks[rest]
                merged[row, [self.rest, *(space.others if merges else ())]] = True
        self.register_buffer("absent", absent, persistent=False)
        self.register_buffer("merged", merged, persistent=False)

    def forward(self, logits: Tensor, space: Tensor) -> Tensor:
        """(B, K, h, w) logits and the (B,) spaces to score them in; float32, same out."""
        logits = logits.float()
        known = logits.masked_fill(self.absent[space][..., None, None], OUT)
        if self.rest is None:
            return known
        merged = self.merged[space]
        of_rest = logits.masked_fill(~merged[..., None, None], OUT).logsumexp(1, keepdim=True)
        at_rest = torch.arange(logits.shape[1], device=logits.device) == self.rest
        takes = merged.any(1, keepdim=True) & at_rest
        return torch.where(takes[..., None, None], of_rest, known)


class Criterion(nn.Module):
    """The loss with its memory: m_c, a running mean of every class's prototype.

    m_c <- 0.9 m_c + 0.1 p_c for the classes seen, once per optimizer step;
    g_c = m_c / (1 - 0.9^k_c) after k_c updates
    """

    memory: Tensor
    seen: Tensor
    named: Tensor
    relations: Tensor

    def __init__(
        self,
        config: LossConfig,
        width: int,
        named: Tensor,
        cosines: Tensor | None,
        class_shares: Tensor | None = None,
        reduce: Reduce = lambda tensor: tensor,
        ignore: int = 255,
        spaces: Sequence[LabelSpace] = (),
        merges: bool = True,
    ) -> None:
        """Set up the loss of K classes.

        Args:
            config: weights and options.
            width: D.
            named: (K,) bool, the classes whose names take part in language.
            cosines: (K, K) of the names (rows of the others unused); None turns CMKD off.
            class_shares: (K,) share of each class in the training pixels, for class weights.
            reduce: sum over ranks, with gradient.
            ignore: label id that counts for nothing.
            spaces: what each of several data sets knows of the K classes; empty: there is one set.
            merges: whether the rest of a set takes in what the set does not know.
        """
        super().__init__()
        self.ignore = ignore
        classes = len(named)
        self.config, self.reduce = config, reduce
        self.register_buffer("memory", torch.zeros(classes, width))
        self.register_buffer("seen", torch.zeros(classes, dtype=torch.int64))
        self.register_buffer("named", named, persistent=False)
        relations = torch.zeros(classes, classes)
        self.language = cosines is not None and config.language > 0
        if cosines is not None:
            chosen = cosines[named][:, named].float()
            if config.target == "random":
                vectors = torch.randn(len(chosen), 384, generator=torch.Generator().manual_seed(0))
                chosen = F.normalize(vectors, dim=1) @ F.normalize(vectors, dim=1).T
            where = named.nonzero()[:, 0]
            relations[where[:, None], where[None]] = name_relations(chosen, config.centre)
        self.register_buffer("relations", relations, persistent=False)
        weights = class_weights(config.class_weights, class_shares)
        self.register_buffer("weights", weights, persistent=False)
        self.spaces = SpaceMask(spaces, classes, merges) if spaces else None
        self.pending: tuple[Tensor, Tensor] | None = None

    def corrected_memory(self) -> Tensor:
        """(K, D) bias-corrected g; rows never seen are 0."""
        correction = 1 - 0.9 ** self.seen.clamp(min=1)[:, None].float()
        return self.memory / correction

    def forward(
        self,
        output: Output,
        label: Tensor,
        has_rgb: Tensor | None = None,
        has_thermal: Tensor | None = None,
        share: Tensor | float = 1.0,
        language: float = 1.0,
        taught: Tensor | None = None,
        space: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Every term of the loss, and `total`.

        Args:
            output: of the model.
            label: (B, H', W') ids, `ignore` left out; H', W' before padding to multiples of 32.
            has_rgb: (B,) bool, for per-modality CMKD.
            has_thermal: (B,) bool likewise.
            share: this batch's `pixels` over their mean in the step: the mean of cross-entropies
                times it is that over all pixels of the step.
            language: factor on the weights of prototypes and CMKD, see `language_ramp`.
            taught: (B, K, h', w') class shares of a teacher, for both heads; None: no teacher.
            space: (B,) position of each pair's data set among `spaces`.
        """
        config, size = self.config, (label.shape[1], label.shape[2])
        terms: dict[str, Tensor] = {}
        total = output.logits.new_zeros((), dtype=torch.float32)
        heads = (("", 1.0, output.logits), ("auxiliary", config.auxiliary, output.auxiliary))
        for head, weight, small in heads:
            if small is None:
                continue
            own = small
            if self.spaces is not None and space is not None:
                own = self.spaces(small, space)
            logits, seen = _at_pixels(own, label, config.every)
            head_loss = terms[head or "ce"] = share * cross_entropy(
                logits, seen, self.reduce, self._weights(), config.ohem, self.ignore
            )
            if config.lovasz > 0:
                name = f"{head}_lovasz".strip("_")
                terms[name] = lovasz(logits, seen, self.reduce, self.ignore)
                head_loss = head_loss + config.lovasz * terms[name]
            if taught is not None and config.distil > 0:
                name = f"{head}_distil".strip("_")
                # the logits' padding below and to the right is not the teacher's
                height, width = (-(-side // 4) for side in size)
                terms[name] = imitation(small[..., :height, :width], taught, self.reduce)
                head_loss = head_loss + config.distil * terms[name]
            total = total + weight * head_loss
        below, right = -size[0] % 32, -size[1] % 32
        padded = F.pad(label, (0, right, 0, below), value=self.ignore)
        prototypes, present = self._prototypes(output.fused, padded, remember=True)
        if config.memory:
            terms["prototype"] = self._prototype_term(prototypes, present)
            total = total + language * config.prototype * terms["prototype"]
        if self.language:
            terms["cmkd"] = self._language_term(prototypes, present, batch_centre=False)
            if config.per_modality:
                for features, has in ((output.rgb, has_rgb), (output.thermal, has_thermal)):
                    rows = padded if has is None else padded.where(has.view(-1, 1, 1), self.ignore)
                    means, there = self._prototypes(features, rows, remember=False)
                    terms["cmkd"] = terms["cmkd"] + self._language_term(
                        means, there, batch_centre=True
                    )
            total = total + language * config.language * terms["cmkd"]
        return {"total": total} | terms

    def pixels(self, label: Tensor) -> Tensor:
        """What the labelled pixels (B, H, W) of all ranks weigh in cross-entropy."""
        seen = _pick(label, self.config.every)
        return self.reduce(pixel_weights(seen, self._weights(), self.ignore).sum())

    def _weights(self) -> Tensor | None:
        return self.weights if isinstance(self.weights, Tensor) else None

    def _prototypes(self, features: Tensor, label: Tensor, remember: bool) -> tuple[Tensor, Tensor]:
        """(K, D) global masked means and which (K,) of them are present and named."""
        sums, cells = class_sums(features, label, len(self.named), self.ignore)
        sums, cells = self.reduce(sums), self.reduce(cells)
        if remember:
            kept = (sums.detach(), cells.detach())
            before = self.pending
            self.pending = kept if before is None else (before[0] + kept[0], before[1] + kept[1])
        return sums / cells.clamp(min=1e-6)[:, None], (cells >= PRESENT) & self.named

    def _prototype_term(self, prototypes: Tensor, present: Tensor) -> Tensor:
        known = present & (self.seen > 0)
        if not known.any():
            return prototypes.sum() * 0.0
        remembered = self.corrected_memory()[known]
        return (1 - F.cosine_similarity(prototypes[known], remembered, dim=1)).mean()

    def _language_term(self, prototypes: Tensor, present: Tensor, batch_centre: bool) -> Tensor:
        config = self.config
        chosen = prototypes[present]
        centre = torch.zeros_like(prototypes[0])
        if config.centre and present.any():
            known = (self.seen > 0) & self.named
            from_memory = bool(known.any()) and config.memory and not batch_centre
            source = self.corrected_memory()[known] if from_memory else chosen.detach()
            centre = source.mean(0)
        names = self.relations[present][:, present]
        return cmkd(chosen, names, centre, config.tau, config.diagonal)

    @torch.no_grad()
    def remember(self, skipped: bool = False) -> None:
        """Update the memory with all batches since the last call: once per optimizer step.

        `skipped`: the step was none, and its batches are forgotten.
        """
        pending, self.pending = self.pending, None
        if pending is None or skipped:
            return
        sums, cells = pending
        present = (cells >= PRESENT) & self.named
        prototypes = sums / cells.clamp(min=1e-6)[:, None]
        updated = 0.9 * self.memory + 0.1 * prototypes
        self.memory.copy_(torch.where(present[:, None], updated, self.memory))
        self.seen += present


def language_ramp(epoch: float, start: float) -> float:
    """Factor on prototypes and CMKD: 0 until epoch `start`, then linearly to 1 at 2 `start`."""
    return 1.0 if start == 0 else min(1.0, max(0.0, epoch / start - 1))


def class_weights(kind: str, shares: Tensor | None) -> Tensor | None:
    """(K,) weights whose mean over pixels is 1, from class shares; None for `none`."""
    if kind == "none" or shares is None:
        return None
    bounded = shares.clamp(min=1e-5)
    weights = bounded.rsqrt() if kind == "sqrt" else 1 / torch.log(1.02 + bounded)
    return weights / (weights * shares).sum().clamp(min=1e-5)
