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

import torch
import torch.nn.functional as F
from torch import Tensor

Reduce = Callable[[Tensor], Tensor]

FLOOR = 0.1
"""Of CMKD: shortest difference from the centre, as a share of the prototypes' mean length."""

LOVASZ_BINS = 4096
"""Of an error in [0, 1]; the loss is off by less than one part in this many."""

PRESENT = 0.25
"""A class is present in a batch when it covers this many stride-16 cells."""


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
    pixels = int(reduce(counted.sum()))
    high, left = _edge(bits[counted] >> 16, max(1.0, share * pixels // 1), reduce)
    low, _ = _edge(bits[counted & (bits >> 16 == high)] & 0xFFFF, left, reduce)
    return counted & (bits >= (high << 16 | low))


def _edge(values: Tensor, wanted: float, reduce: Reduce) -> tuple[int, float]:
    """The largest 16-bit value that `wanted` reach, and how many of those at it are wanted."""
    counts = reduce(torch.bincount(values, minlength=1 << 16))
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
        present = reduce(own.sum((0, 2))) > 0
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
    counts = reduce(counts[:, :last])  # whole numbers: exact, and Apple's MPS has no float64
    others, own_pixels = counts.view(len(counts), -1, 2).unbind(2)
    total = own_pixels.sum(1, keepdim=True)
    after = total - own_pixels.cumsum(1), total + others.cumsum(1)  # intersection, union
    before = after[0] + own_pixels, after[1] - others
    unions = [union.clamp(min=1) for union in (before[1], after[1])]
    of_own = (1 / unions[0] + 1 / unions[1]) / 2
    of_other = (before[0] + after[0]) / (2 * unions[0]) / unions[1]
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
        A float32 scalar, computed outside autocast: bf16 cosines are 5 % off in the loss. 0 (with
        gradient 0) when fewer than 3 classes are present.
    """
    prototypes = prototypes.float()
    if len(prototypes) < 3:
        return prototypes.sum() * 0.0
    apart = prototypes - centre
    shortest = FLOOR * prototypes.detach().norm(dim=1).mean()
    unit = apart / apart.norm(dim=1, keepdim=True).clamp(min=shortest)
    with torch.autocast(unit.device.type, enabled=False):
        visual, names = unit @ unit.T / tau, relations / tau
    if not diagonal:
        size = len(prototypes)
        others = ~torch.eye(size, dtype=torch.bool, device=prototypes.device)
        visual, names = (x[others].view(size, size - 1) for x in (visual, names))
    return F.kl_div(visual.log_softmax(1), names.softmax(1), reduction="batchmean")
