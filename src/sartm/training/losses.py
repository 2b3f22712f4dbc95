"""What training minimises: cross-entropy, Lovasz, class prototypes with a memory, and CMKD.

Shapes: B pairs, K classes, D channels, (H, W) the padded input, (h, w) = (H, W) / 16.
All means are global: `reduce` sums a tensor over the ranks, with gradient, before any division;
on one process it is the identity. So every rank has the same loss, that of the whole batch. Where
a step has several batches, cross-entropy is the mean over the pixels of all of them; what is no
sum over pixels (the hardest share, Lovasz, prototypes, CMKD) is taken per batch and averaged.

Source: SARTM, arXiv:2505.01950. The released code's prototypes are no means and its language loss
has no signal; docs/decisions/0004 says what is different here and why.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sartm.errors import InputError
from sartm.model.sartm import Output, resize_logits

Reduce = Callable[[Tensor], Tensor]

FLOOR = 0.1
"""Of CMKD: shortest difference from the centre, as a share of the prototypes' mean length."""

LOVASZ_BINS = 4096
"""Of an error in [0, 1]; the loss is off by less than one part in this many."""

PRESENT = 0.25
"""A class is present in a batch when it covers this many stride-16 cells."""


@dataclass(frozen=True)
class LossConfig:
    """Weights and options of the loss."""

    auxiliary: float = 1.0
    """Weight of the auxiliary head's cross-entropy."""
    prototype: float = 0.1
    """w_p"""
    language: float = 0.5
    """w_c, the weight of CMKD."""
    tau: float = 0.1
    """CMKD's temperature, on both sides."""
    diagonal: bool = False
    """Compare a class with itself too, as the released code does."""
    centre: bool = True
    """Subtract what all classes share, in names and in prototypes."""
    language_start: float = 0.0
    """Epochs before prototypes and CMKD act; they then grow linearly to their weights over as
    many again. For networks from scratch, whose features tell nothing apart at first."""
    per_modality: bool = False
    """CMKD also on each modality's own prototypes."""
    target: Literal["names", "random"] = "names"
    """`random` puts random vectors in the names' place: the control of an ablation."""
    memory: bool = True
    """Keep a running mean per class; without it there is no prototype term."""
    class_weights: Literal["none", "sqrt", "log"] = "none"
    """Weight pixels of a class with share p by 1/sqrt(p) or 1/ln(1.02 + p), mean 1 over pixels."""
    ohem: float = 0.0
    """Above 0: the mean is over this share of the pixels, those with the largest loss."""
    lovasz: float = 0.0
    """Weight of the Lovasz-softmax loss, a surrogate of the IoU of the classes in the batch."""
    distil: float = 1.0
    """Weight of the divergence from a teacher's class shares, where there is a teacher."""
    every: Literal[1, 2, 4] = 1
    """Cross-entropy and Lovasz-softmax count every so manieth row and column of pixels. Logits lie
    at stride 4, so 2 loses little and costs a quarter."""

    def __post_init__(self) -> None:
        if not 0 <= self.ohem <= 1:
            raise InputError(f"loss.ohem is a share of the pixels, 0 to 1, found {self.ohem:g}")
        for name in ("auxiliary", "prototype", "language", "language_start", "lovasz", "distil"):
            if getattr(self, name) < 0:
                raise InputError(f"loss.{name} must not be negative, found {getattr(self, name):g}")


def cross_entropy(
    logits: Tensor,
    label: Tensor,
    reduce: Reduce,
    weights: Tensor | None = None,
    hardest: float = 0.0,
    ignore: int = 255,
) -> Tensor:
    """Mean cross-entropy over the labelled pixels of all ranks, in nats.

    Args:
        logits: (B, K, H, W).
        label: (B, H, W) ids; `ignore` is left out.
        reduce: sum over ranks.
        weights: (K,) pixel weights, or None for equal ones.
        hardest: above 0, only this share of the pixels, those of largest loss on any rank; of
            equal ones at the edge all.
    """
    losses = F.cross_entropy(
        logits.float(), label, weight=weights, ignore_index=ignore, reduction="none"
    )
    amount = pixel_weights(label, weights, ignore)
    if hardest > 0:
        hard = _hardest(losses.detach(), label != ignore, hardest, reduce)
        losses, amount = losses[hard], amount[hard]
    return reduce(losses.sum()) / reduce(amount.sum()).clamp(min=1e-6)


def pixel_weights(label: Tensor, weights: Tensor | None, ignore: int = 255) -> Tensor:
    """(B, H, W) how much each pixel counts in cross-entropy: its class's weight, or 0."""
    counted = label != ignore
    return counted.float() if weights is None else weights[label.where(counted, 0)] * counted


def _hardest(losses: Tensor, counted: Tensor, share: float, reduce: Reduce) -> Tensor:
    """Bool, which of the counted losses (>= 0) are among the largest `share` over all ranks.

    The bits of a float that is not negative grow with it, so two histograms find the exact edge,
    one of the upper 16 bits and one of the lower. They need sums over ranks only, where a sort
    would have to gather every pixel.
    """
    bits = losses.float().view(torch.int32) & 0x7FFFFFFF  # a NaN may have the sign
    pixels = float(reduce(counted.sum().double()))
    high, left = _edge(bits[counted] >> 16, max(1.0, share * pixels // 1), reduce)
    low, _ = _edge(bits[counted & (bits >> 16 == high)] & 0xFFFF, left, reduce)
    return counted & (bits >= (high << 16 | low))


def _edge(values: Tensor, wanted: float, reduce: Reduce) -> tuple[int, float]:
    """The largest 16-bit value that `wanted` reach, and how many of those at it are wanted."""
    counts = reduce(torch.bincount(values, minlength=1 << 16).double())
    reached = counts.flip(0).cumsum(0).flip(0)
    edge = max(0, int((reached >= wanted).sum()) - 1)
    return edge, wanted - float(reached[edge] - counts[edge])


def lovasz(logits: Tensor, label: Tensor, reduce: Reduce, ignore: int = 255) -> Tensor:
    """Lovasz-softmax: for each class in the batch the convex surrogate of 1 - IoU; their mean.

    With errors e of a class (1 - p at its own pixels, p elsewhere) in falling order and J(n) the
    Jaccard loss when the first n pixels are wrong, it is sum_n e_n (J(n) - J(n - 1)). Pixels of
    equal error may be in any order, so errors are counted in `LOVASZ_BINS` instead of sorted:
    counts also add up over ranks.

    Args:
        logits: (B, K, H, W).
        label: (B, H, W) ids; `ignore` is left out.
        reduce: sum over ranks.

    Source: Berman et al., arXiv:1705.08790.
    """
    classes = torch.arange(logits.shape[1], device=label.device)
    shares = logits.float().softmax(1).flatten(2)  # (B, K, H W)
    with torch.no_grad():
        flat = label.flatten(1)[:, None]
        own = flat == classes[:, None]
        steps = _jaccard_steps((own.float() - shares).abs_(), own, flat == ignore, reduce)
        present = reduce(own.sum((0, 2)).double()) > 0
        at_zero = (steps * own).sum()  # an own pixel's error is 1 - share
        signed = torch.where(own, -steps, steps)
    return reduce((shares * signed).sum() + at_zero) / present.sum().clamp(min=1)


def _jaccard_steps(errors: Tensor, own: Tensor, ignored: Tensor, reduce: Reduce) -> Tensor:
    """(B, K, N) steps J(n) - J(n - 1) for errors (B, K, N), where own pixels are True in `own`.

    In a bin that takes a class from intersection I0 and union U0 to I1 and U1, own pixels and
    others come in turn: a step of (1 / U0 + 1 / U1) / 2 for each own pixel, of
    (I0 + I1) / (2 U0 U1) for each other one, which add up to that of the bin.
    """
    last = 2 * LOVASZ_BINS  # of what is ignored
    # falling errors are rising bins; 16 bits, or this would be the largest tensor of all
    bins = errors.mul(-LOVASZ_BINS).add_(LOVASZ_BINS).clamp_(0, LOVASZ_BINS - 1).to(torch.int16)
    bins = bins.mul_(2).add_(own).masked_fill_(ignored, last)
    rows = [torch.bincount(row, minlength=last + 1) for row in bins.flatten(0, 1)]
    counts = torch.stack(rows).view(*bins.shape[:2], -1).sum(0)
    counts = reduce(counts[:, :last].double())
    others, own_pixels = counts.view(len(counts), -1, 2).unbind(2)
    total = own_pixels.sum(1, keepdim=True)
    after = total - own_pixels.cumsum(1), total + others.cumsum(1)  # intersection, union
    before = after[0] + own_pixels, after[1] - others
    unions = [union.clamp(min=1) for union in (before[1], after[1])]
    of_own = (1 / unions[0] + 1 / unions[1]) / 2
    of_other = (before[0] + after[0]) / (2 * unions[0] * unions[1])
    table = torch.stack([of_other, of_own], 2).flatten(1) * (total > 0)
    table = F.pad(table, (0, 1)).float()
    steps = torch.empty_like(errors)
    for k, row in enumerate(table):
        torch.take(row, bins[:, k].long(), out=steps[:, k])
    return steps


def imitation(logits: Tensor, taught: Tensor, reduce: Reduce) -> Tensor:
    """KL(taught || softmax(logits)), its mean over all positions of all ranks, in nats.

    Args:
        logits: (B, K, h/4, w/4).
        taught: (B, K, h', w') class shares of a teacher, resized to the logits'.
        reduce: sum over ranks.

    Source: Hinton et al., arXiv:1503.02531, at temperature 1.
    """
    if taught.shape[2:] != logits.shape[2:]:
        taught = F.interpolate(taught, logits.shape[2:], mode="bilinear")
    apart = F.kl_div(logits.float().log_softmax(1), taught.float(), reduction="none").sum(1)
    return reduce(apart.sum()) / reduce(apart.new_tensor(float(apart.numel())))


def class_sums(
    features: Tensor, label: Tensor, classes: int, ignore: int = 255
) -> tuple[Tensor, Tensor]:
    """Sums of features per class, weighted by the class's share of each stride-16 cell.

    Args:
        features: (B, D, h, w).
        label: (B, 16 h, 16 w) ids; `ignore` counts for no class.
        classes: K.

    Returns:
        sums (K, D) and n (K,) in cells, both float32.
    """
    batch, _, height, width = features.shape
    rows = torch.arange(16 * height, device=label.device) // 16
    columns = torch.arange(16 * width, device=label.device) // 16
    cell = rows[:, None] * width + columns[None]  # (H, W)
    cell = cell + height * width * torch.arange(batch, device=label.device)[:, None, None]
    index = (cell * classes + label)[label != ignore]
    pixels = torch.bincount(index, minlength=batch * height * width * classes)
    shares = pixels.view(-1, classes).float() / 256  # (B h w, K)
    with torch.autocast(features.device.type, enabled=False):
        flat = features.permute(0, 2, 3, 1).flatten(0, 2).float()
        return shares.T @ flat, shares.sum(0)


def name_relations(cosines: Tensor, centre: bool) -> Tensor:
    """(L, L) cosines of class names to the relations CMKD teaches.

    Centred: T = H G H with H = I - 1/L, scaled to unit diagonal. What all names share says
    nothing about which classes are alike.
    """
    if not centre:
        return cosines
    size = len(cosines)
    project = torch.eye(size) - torch.full((size, size), 1 / size)
    centred = project @ cosines @ project
    scale = centred.diagonal().clamp(min=1e-6).rsqrt()
    return centred * scale[:, None] * scale[None]


def cmkd(
    prototypes: Tensor, relations: Tensor, centre: Tensor, tau: float, diagonal: bool
) -> Tensor:
    """Cross-modal knowledge distillation: classes as related as their names are, in nats.

        1/|P| sum_{i in P} KL(softmax_{j != i}(T_ij / tau) || softmax_{j != i}(S_ij / tau))

    S are the cosines of the prototypes minus `centre`. Without the diagonal, because that is 1 on
    both sides and drowns the rest. A difference from the centre counts as no shorter than `FLOOR`
    of the prototypes' length: the gradient of a cosine grows as 1 / length, and classes that a
    young network does not tell apart yet would drown every other loss (docs/decisions/0006).

    Args:
        prototypes: (|P|, D) of the classes present.
        relations: (|P|, |P|) of the same classes' names, a constant.
        centre: (D,), a constant.
        tau: temperature.
        diagonal: let j = i in.

    Returns:
        A scalar; 0 (with gradient 0) when fewer than 3 classes are present.
    """
    if len(prototypes) < 3:
        return prototypes.sum() * 0.0
    apart = prototypes - centre
    shortest = FLOOR * prototypes.detach().norm(dim=1).mean()
    unit = apart / apart.norm(dim=1, keepdim=True).clamp(min=shortest)
    visual, names = unit @ unit.T / tau, relations / tau
    if not diagonal:
        size = len(prototypes)
        others = ~torch.eye(size, dtype=torch.bool, device=prototypes.device)
        visual, names = (x[others].view(size, size - 1) for x in (visual, names))
    return F.kl_div(visual.log_softmax(1), names.softmax(1), reduction="batchmean")


def _pick(label: Tensor, every: int) -> Tensor:
    """Every `every`-th row and column of (B, H, W), from the middle of the first ones."""
    return label[:, every // 2 :: every, every // 2 :: every]


def _at_pixels(small: Tensor, label: Tensor, every: int) -> tuple[Tensor, Tensor]:
    """(B, K, h/4, w/4) logits at the pixels that count, and the labels of these."""
    if every == 1:
        return resize_logits(small, (label.shape[1], label.shape[2])), label
    seen = _pick(label, every)
    full = F.interpolate(small, scale_factor=4 / every, mode="bilinear") if every < 4 else small
    return full[..., : seen.shape[1], : seen.shape[2]], seen


class Criterion(nn.Module):
    """The loss with its memory: m_c, a running mean of every class's prototype.

    m_c <- 0.9 m_c + 0.1 p_c for the classes seen, once per optimizer step;
    g_c = m_c / (1 - 0.9^k_c) after k_c updates
    """

    memory: Tensor
    seen: Tensor
    speaks: Tensor
    relations: Tensor

    def __init__(
        self,
        config: LossConfig,
        width: int,
        speaks: Tensor,
        cosines: Tensor | None,
        class_shares: Tensor | None = None,
        reduce: Reduce = lambda tensor: tensor,
        ignore: int = 255,
    ) -> None:
        """Set up the loss of K classes.

        Args:
            config: weights and options.
            width: D.
            speaks: (K,) bool, the classes whose names take part in language.
            cosines: (K, K) of the names (rows of silent classes unused); None turns CMKD off.
            class_shares: (K,) share of each class in the training pixels, for class weights.
            reduce: sum over ranks, with gradient.
            ignore: label id that counts for nothing.
        """
        super().__init__()
        self.ignore = ignore
        classes = len(speaks)
        self.config, self.reduce = config, reduce
        self.register_buffer("memory", torch.zeros(classes, width))
        self.register_buffer("seen", torch.zeros(classes, dtype=torch.int64))
        self.register_buffer("speaks", speaks, persistent=False)
        relations = torch.zeros(classes, classes)
        self.language = cosines is not None and config.language > 0
        if cosines is not None:
            chosen = cosines[speaks][:, speaks].float()
            if config.target == "random":
                vectors = torch.randn(len(chosen), 384, generator=torch.Generator().manual_seed(0))
                chosen = F.normalize(vectors, dim=1) @ F.normalize(vectors, dim=1).T
            where = speaks.nonzero()[:, 0]
            relations[where[:, None], where[None]] = name_relations(chosen, config.centre)
        self.register_buffer("relations", relations, persistent=False)
        weights = class_weights(config.class_weights, class_shares)
        self.register_buffer("weights", weights, persistent=False)
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
        """
        config, size = self.config, (label.shape[1], label.shape[2])
        terms: dict[str, Tensor] = {}
        total = output.logits.new_zeros((), dtype=torch.float32)
        heads = (("", 1.0, output.logits), ("auxiliary", config.auxiliary, output.auxiliary))
        for head, weight, small in heads:
            if small is None:
                continue
            logits, seen = _at_pixels(small, label, config.every)
            own = terms[head or "ce"] = share * cross_entropy(
                logits, seen, self.reduce, self._weights(), config.ohem, self.ignore
            )
            if config.lovasz > 0:
                name = f"{head}_lovasz".strip("_")
                terms[name] = lovasz(logits, seen, self.reduce, self.ignore)
                own = own + config.lovasz * terms[name]
            if taught is not None and config.distil > 0:
                name = f"{head}_distil".strip("_")
                # the logits' padding below and to the right is not the teacher's
                height, width = (-(-side // 4) for side in size)
                terms[name] = imitation(small[..., :height, :width], taught, self.reduce)
                own = own + config.distil * terms[name]
            total = total + weight * own
        below, right = -size[0] % 32, -size[1] % 32
        padded = F.pad(label, (0, right, 0, below), value=self.ignore)
        prototypes, present = self._prototypes(output.fused, padded, remember=True)
        if config.memory:
            terms["prototype"] = self._prototype_term(prototypes, present)
            total = total + language * config.prototype * terms["prototype"]
        if self.language:
            terms["cmkd"] = self._language_term(prototypes, present, own_centre=False)
            if config.per_modality:
                for features, has in ((output.rgb, has_rgb), (output.thermal, has_thermal)):
                    rows = padded if has is None else padded.where(has.view(-1, 1, 1), self.ignore)
                    own, there = self._prototypes(features, rows, remember=False)
                    terms["cmkd"] = terms["cmkd"] + self._language_term(own, there, own_centre=True)
            total = total + language * config.language * terms["cmkd"]
        return {"total": total} | terms

    def pixels(self, label: Tensor) -> Tensor:
        """What the labelled pixels (B, H, W) of all ranks weigh in cross-entropy."""
        seen = _pick(label, self.config.every)
        return self.reduce(pixel_weights(seen, self._weights(), self.ignore).sum())

    def _weights(self) -> Tensor | None:
        return self.weights if isinstance(self.weights, Tensor) else None

    def _prototypes(self, features: Tensor, label: Tensor, remember: bool) -> tuple[Tensor, Tensor]:
        """(K, D) global masked means and which (K,) of them are present and speak."""
        sums, cells = class_sums(features, label, len(self.speaks), self.ignore)
        sums, cells = self.reduce(sums), self.reduce(cells)
        if remember:
            kept = (sums.detach(), cells.detach())
            before = self.pending
            self.pending = kept if before is None else (before[0] + kept[0], before[1] + kept[1])
        return sums / cells.clamp(min=1e-6)[:, None], (cells >= PRESENT) & self.speaks

    def _prototype_term(self, prototypes: Tensor, present: Tensor) -> Tensor:
        known = present & (self.seen > 0)
        if not known.any():
            return prototypes.sum() * 0.0
        remembered = self.corrected_memory()[known]
        return (1 - F.cosine_similarity(prototypes[known], remembered, dim=1)).mean()

    def _language_term(self, prototypes: Tensor, present: Tensor, own_centre: bool) -> Tensor:
        config = self.config
        chosen = prototypes[present]
        centre = torch.zeros_like(prototypes[0])
        if config.centre and present.any():
            known = (self.seen > 0) & self.speaks
            from_memory = bool(known.any()) and config.memory and not own_centre
            source = self.corrected_memory()[known] if from_memory else chosen.detach()
            centre = source.mean(0)
        names = self.relations[present][:, present]
        return cmkd(chosen, names, centre, config.tau, config.diagonal)

    @torch.no_grad()
    def remember(self) -> None:
        """Update the memory with all batches since the last call: once per optimizer step."""
        if self.pending is None:
            return
        sums, cells = self.pending
        self.pending = None
        present = (cells >= PRESENT) & self.speaks
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
