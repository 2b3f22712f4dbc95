"""The loss is the one in the formulas: global means, true class means, absent classes left out."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import golden
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from sartm.errors import InputError
from sartm.model.sartm import Output
from sartm.training.criterion import Criterion, class_weights, language_ramp
from sartm.training.losses import class_sums, cmkd, cross_entropy, lovasz, name_relations
from sartm.training.settings import LossConfig

close = torch.testing.assert_close
K, D = 6, 12


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def alone(tensor: Tensor) -> Tensor:
    return tensor


def draw(label: Tensor, spread: float = 0.1) -> Output:
    """Maps for a label of (B, H, W): features that are a class's own vector plus noise."""
    batch, height, width = label.shape
    own = torch.randn(K, D)
    cells = label[:, 8::16, 8::16].clamp(max=K - 1)

    def features() -> Tensor:
        noise = spread * torch.randn(batch, D, height // 16, width // 16)
        return (own[cells].permute(0, 3, 1, 2) + noise).requires_grad_()

    logits = [torch.randn(batch, K, height // 4, width // 4).requires_grad_() for _ in range(2)]
    return Output(logits[0], logits[1], features(), features(), features())


def blocks(rows: list[list[int]], cell: int = 16) -> Tensor:
    """(1, H, W) label of square cells."""
    return torch.tensor(rows).repeat_interleave(cell, 0).repeat_interleave(cell, 1)[None]


LABEL = blocks([[1, 1, 2, 2], [3, 3, 255, 0]])  # 4 and 5 are absent
NAMED = torch.tensor([False, True, True, True, True, True])
COSINES = F.normalize(torch.randn(K, 8, generator=torch.Generator().manual_seed(3)), dim=1)
COSINES = COSINES @ COSINES.T


def criterion(config: LossConfig = LossConfig(), named: Tensor = NAMED) -> Criterion:
    return Criterion(config, D, named, COSINES)


# Cross-entropy


def test_cross_entropy_is_torch_s_mean_over_the_labelled_pixels():
    logits, label = torch.randn(2, K, 8, 9), torch.randint(0, K, (2, 8, 9))
    label[0, :5] = 255
    close(cross_entropy(logits, label, alone), F.cross_entropy(logits, label, ignore_index=255))
    weights = torch.rand(K) + 0.1
    ours = cross_entropy(logits, label, alone, weights)
    close(ours, F.cross_entropy(logits, label, weights, ignore_index=255))
    label[label == 255] = 17
    close(
        cross_entropy(logits, label, alone, weights, ignore=17),
        F.cross_entropy(logits, label, weights, ignore_index=17),
    )


def test_without_a_labelled_pixel_the_loss_is_0_and_has_a_gradient():
    logits = torch.randn(1, K, 4, 4, requires_grad=True)
    loss = cross_entropy(logits, torch.full((1, 4, 4), 255), alone)
    loss.backward()
    assert loss == 0
    assert not logits.grad.any()


def test_the_mean_is_over_the_pixels_of_all_ranks():
    """Two ranks with different numbers of labelled pixels, as one process with both batches."""
    logits, label = torch.randn(2, K, 8, 8), torch.randint(0, K, (2, 8, 8))
    label[1, 2:] = 255
    whole = cross_entropy(logits, label, alone)
    parts = [cross_entropy(logits[i : i + 1], label[i : i + 1], alone) for i in (0, 1)]
    assert (sum(parts) / 2 - whole).abs() > 1e-3
    sums = [F.cross_entropy(logits[1:], label[1:], ignore_index=255, reduction="sum"), Tensor([16])]
    reduced = iter(sums)
    ours = cross_entropy(logits[:1], label[:1], lambda own: own + next(reduced).squeeze())
    close(ours, whole)


def test_hard_pixels_are_the_share_with_the_largest_loss():
    logits, label = torch.randn(1, K, 10, 10), torch.randint(0, K, (1, 10, 10))
    label[0, 0] = 255
    losses = F.cross_entropy(logits, label, ignore_index=255, reduction="none").flatten()
    ours = cross_entropy(logits, label, alone, hardest=0.3)
    close(ours, losses.sort(descending=True).values[:27].mean())
    close(cross_entropy(logits, label, alone, hardest=1.0), cross_entropy(logits, label, alone))


def on_two_ranks(loss: Callable[[int, Callable[[Tensor], Tensor]], Tensor]) -> list[Tensor]:
    """`loss(rank, reduce)` of two ranks that wait for each other in every sum."""
    meet, own = threading.Barrier(2, timeout=30), [torch.zeros(()), torch.zeros(())]

    def run(rank: int) -> Tensor:
        def reduce(tensor: Tensor) -> Tensor:
            own[rank] = tensor.detach()
            meet.wait()
            total = tensor + own[1 - rank]
            meet.wait()
            return total

        return loss(rank, reduce)

    with ThreadPoolExecutor(2) as pool:
        return [done.result() for done in [pool.submit(run, rank) for rank in (0, 1)]]


def one_hard_rank() -> tuple[Tensor, Tensor]:
    """Logits and labels of two rows, of which the second is right nearly everywhere."""
    logits, label = torch.randn(2, K, 12, 10), torch.randint(0, K, (2, 12, 10))
    logits[1] += 6 * F.one_hot(label[1], K).permute(2, 0, 1)
    label[0, :2] = 255
    return logits.requires_grad_(), label


@pytest.mark.parametrize("weighted", [False, True])
def test_hard_pixels_are_those_of_all_ranks(weighted):
    logits, label = one_hard_rank()
    weights = torch.rand(K) + 0.5 if weighted else None
    whole = cross_entropy(logits, label, alone, weights, hardest=0.25)
    (expected,) = torch.autograd.grad(whole, logits)
    losses = F.cross_entropy(logits, label, weights, ignore_index=255, reduction="none")
    kept = losses.flatten().topk(int(0.25 * 220))
    amount = torch.ones(K) if weights is None else weights
    close(whole, kept.values.sum() / amount[label.flatten()[kept.indices]].sum())

    def part(rank: int, reduce: Callable[[Tensor], Tensor]) -> Tensor:
        rows = slice(rank, rank + 1)
        return cross_entropy(logits[rows], label[rows], reduce, weights, hardest=0.25)

    parts = on_two_ranks(part)
    for value in parts:
        close(value, whole)
    close(torch.autograd.grad(parts[0], logits)[0] + torch.autograd.grad(parts[1], logits)[0],
          expected)  # fmt: skip


def test_hard_pixels_of_equal_loss_are_all_in_and_a_batch_without_labels_is_0():
    logits, label = torch.zeros(1, K, 4, 4), torch.zeros(1, 4, 4, dtype=torch.int64)
    close(cross_entropy(logits, label, alone, hardest=0.1), torch.tensor(K).float().log())
    logits.requires_grad_()
    nothing = cross_entropy(logits, torch.full_like(label, 255), alone, hardest=0.1)
    nothing.backward()
    assert nothing == 0
    assert not logits.grad.any()


def slow_lovasz(logits: Tensor, label: Tensor, ignore: int) -> Tensor:
    """Class by class in float64, pixels sorted by error, J(n) counted for every n."""
    keep = label.flatten() != ignore
    truth, shares = label.flatten()[keep], logits.double().softmax(1)
    losses = []
    for k in truth.unique():
        own = truth == k
        share = shares[:, int(k)].flatten()[keep]
        error, order = torch.where(own, 1 - share, share).sort(descending=True)
        before, total = 0.0, torch.zeros((), dtype=torch.float64)
        missed = added = 0
        for e, is_own in zip(error, own[order], strict=True):
            missed, added = missed + int(is_own), added + int(not is_own)
            jaccard = 1 - (int(own.sum()) - missed) / (int(own.sum()) + added)
            total = total + e * (jaccard - before)
            before = jaccard
        losses.append(total)
    return torch.stack(losses).mean()


@pytest.mark.parametrize("ignore", [255, 17])
def test_lovasz_is_its_definition_for_the_classes_present(ignore):
    logits, label = torch.randn(2, K, 12, 10), torch.randint(0, K - 2, (2, 12, 10))
    logits[0] += 3 * F.one_hot(label[0], K).permute(2, 0, 1)
    label[1, :4] = ignore
    logits.requires_grad_()
    ours, slow = lovasz(logits, label, alone, ignore), slow_lovasz(logits, label, ignore)
    close(ours, slow.float(), atol=1 / 4096, rtol=0)
    own, theirs = (torch.autograd.grad(loss, logits)[0] for loss in (ours, slow))
    assert (own - theirs).norm() < 0.02 * theirs.norm()
    assert not own[1, :, :4].any()


def test_lovasz_of_all_ranks_is_that_of_the_whole_batch():
    logits, label = one_hard_rank()
    whole = lovasz(logits, label, alone)
    (expected,) = torch.autograd.grad(whole, logits)

    def part(rank: int, reduce: Callable[[Tensor], Tensor]) -> Tensor:
        return lovasz(logits[rank : rank + 1], label[rank : rank + 1], reduce)

    parts = on_two_ranks(part)
    for value in parts:
        close(value, whole)
    close(torch.autograd.grad(parts[0], logits)[0] + torch.autograd.grad(parts[1], logits)[0],
          expected, atol=1e-6, rtol=1e-5)  # fmt: skip


def test_lovasz_falls_to_0_as_predictions_get_right_and_is_0_without_labels():
    label = torch.randint(0, K, (1, 8, 8))
    right = F.one_hot(label, K).permute(0, 3, 1, 2).float()
    values = [float(lovasz(scale * right, label, alone)) for scale in (0.0, 2.0, 5.0, 30.0)]
    assert sorted(values, reverse=True) == values
    assert values[-1] < 1e-3
    assert lovasz(right, torch.full_like(label, 255), alone) == 0


@pytest.mark.parametrize("first", [1, 24, 32, 47])
def test_lovasz_of_pixels_that_err_alike_is_their_error(first):
    """Of two classes at one half each every error is 1/2, in whatever order it is counted."""
    label = torch.ones(1, 6, 8, dtype=torch.long)
    label.view(-1)[:first] = 0
    close(lovasz(torch.zeros(1, 2, 6, 8), label, alone), torch.tensor(0.5), atol=1e-6, rtol=0)


def test_a_teacher_s_shares_are_learned_by_the_divergence_from_them():
    """KL(teacher || model) at stride 4, not the other way round; padding does not count."""
    label = LABEL[:, :18, :42]
    output = draw(LABEL)
    taught = torch.randn(1, K, 5, 11).softmax(1)

    def divergence(logits: Tensor) -> Tensor:
        own = logits[..., :5, :11].log_softmax(1)
        return (taught * (taught.log() - own)).sum(1).mean()

    terms = criterion(LossConfig(distil=0.7, auxiliary=0.4))(output, label, taught=taught)
    close(terms["distil"], divergence(output.logits))
    assert output.auxiliary is not None
    close(terms["auxiliary_distil"], divergence(output.auxiliary))
    plain = criterion(LossConfig(distil=0.0, auxiliary=0.4))(output, label, taught=taught)
    added = 0.7 * (terms["distil"] + 0.4 * terms["auxiliary_distil"])
    close(terms["total"], plain["total"] + added)
    larger = F.interpolate(taught, (10, 22), mode="bilinear")
    terms = criterion(LossConfig())(output, label, taught=larger)
    taught = F.interpolate(larger, (5, 11), mode="bilinear")
    close(terms["distil"], divergence(output.logits))


def test_lovasz_is_added_for_both_heads_by_its_weight():
    output = draw(LABEL)
    plain = criterion()(output, LABEL)
    terms = criterion(LossConfig(lovasz=0.5, auxiliary=0.4))(output, LABEL)
    assert "lovasz" not in plain
    expected = plain["ce"] + 0.5 * terms["lovasz"]
    expected = expected + 0.4 * (plain["auxiliary"] + 0.5 * terms["auxiliary_lovasz"])
    expected = expected + 0.1 * plain["prototype"] + 0.5 * plain["cmkd"]
    close(terms["total"], expected)
    full = F.interpolate(output.logits, scale_factor=4.0, mode="bilinear")
    close(terms["lovasz"], lovasz(full, LABEL, alone))


@pytest.mark.parametrize("every", [2, 4])
def test_counting_every_so_manieth_pixel_is_the_loss_with_all_others_unlabelled(every):
    """Logits are those at the very pixels that count: half a pixel beside moves all outlines."""
    sparse = torch.full_like(LABEL, 255)
    chosen = (..., slice(every // 2, None, every), slice(every // 2, None, every))
    sparse[chosen] = LABEL[chosen]
    output = draw(LABEL)
    counted = criterion(LossConfig(lovasz=0.5, every=every))
    terms = counted(output, LABEL)
    whole = criterion(LossConfig(lovasz=0.5))
    expected = whole(output, sparse)
    for name in ("ce", "auxiliary", "lovasz", "auxiliary_lovasz"):
        close(terms[name], expected[name])
    close(terms["cmkd"], whole(output, LABEL)["cmkd"])  # prototypes are of all pixels
    assert counted.pixels(LABEL) == (sparse != 255).sum()


def test_cross_entropies_weigh_what_their_batch_is_of_the_step():
    output = draw(LABEL)
    plain = criterion(LossConfig(lovasz=0.5))(output, LABEL)
    half = criterion(LossConfig(lovasz=0.5))(output, LABEL, share=0.5)
    for name in ("ce", "auxiliary"):
        close(half[name], 0.5 * plain[name])
    close(half["lovasz"], plain["lovasz"])
    close(plain["total"] - half["total"], 0.5 * (plain["ce"] + plain["auxiliary"]))


def test_class_weights_are_the_inverse_root_and_the_inverse_logarithm():
    shares = torch.tensor([0.9, 0.09, 0.01])
    for kind, expected in (("sqrt", shares**-0.5), ("log", 1 / torch.log(1.02 + shares))):
        weights = class_weights(kind, shares)
        assert weights is not None
        close(weights / weights[0], expected / expected[0])


@pytest.mark.parametrize("kind", ["sqrt", "log"])
def test_class_weights_have_mean_1_over_the_pixels_and_favour_the_rare(kind):
    shares = torch.tensor([0.9, 0.07, 0.03, 0.0])
    weights = class_weights(kind, shares)
    assert weights.isfinite().all()
    close((weights * shares).sum(), torch.tensor(1.0))
    assert (weights.diff() > 0).all()
    assert class_weights("none", shares) is None


def test_weights_of_classes_reach_both_cross_entropies():
    shares = torch.tensor([0.5, 0.1, 0.1, 0.1, 0.1, 0.1])
    loss = Criterion(LossConfig(class_weights="sqrt"), D, NAMED, None, shares)
    output = draw(LABEL)
    terms = loss(output, LABEL)
    weights = class_weights("sqrt", shares)
    for name, logits in (("ce", output.logits), ("auxiliary", output.auxiliary)):
        full = F.interpolate(logits, scale_factor=4.0, mode="bilinear")
        close(terms[name], F.cross_entropy(full, LABEL, weights, ignore_index=255))


def test_padding_never_counts():
    """A label smaller than the padded maps: the same with whatever the maps hold beyond it."""
    label = LABEL[:, :24, :40]
    everything = torch.ones(K, dtype=torch.bool)
    output, loss = draw(LABEL), criterion(named=everything)
    first = loss(output, label)
    changed = [m.detach().clone() for m in vars(output).values()]
    for map_ in changed[:2]:
        map_[:, :, 24 // 4 + 1 :] = 50.0
        map_[..., 40 // 4 + 1 :] = 50.0
    for map_ in changed[2:]:
        map_[..., 3:] = 50.0  # cells from 48; the one from 32 to 48 is half inside
    for name, value in criterion(named=everything)(Output(*changed), label).items():
        close(value, first[name], msg=name)


# Prototypes


def slow_prototypes(features: Tensor, label: Tensor, ignore: int) -> tuple[Tensor, Tensor]:
    """Pixel by pixel: the feature of the cell a pixel lies in, averaged over a class's pixels."""
    sums, pixels = torch.zeros(K, features.shape[1], dtype=torch.float64), torch.zeros(K)
    for b, y, x in np.ndindex(*label.shape):
        k = int(label[b, y, x])
        if k != ignore:
            sums[k] += features[b, :, y // 16, x // 16].double()
            pixels[k] += 1
    return (sums / pixels.clamp(min=1)[:, None]).float(), pixels


@pytest.mark.parametrize("ignore", [255, 9])
def test_prototypes_are_masked_means(ignore):
    features, label = torch.randn(2, D, 2, 3), torch.randint(0, K - 1, (2, 32, 48))
    label[0, :20, :30] = ignore
    sums, cells = class_sums(features, label, K, ignore)
    means, pixels = slow_prototypes(features, label, ignore)
    close(cells, pixels / 256)
    close(sums / cells.clamp(min=1e-6)[:, None], means, atol=1e-5, rtol=1e-5)
    assert cells[K - 1] == 0
    assert not sums[K - 1].any()


def test_a_class_of_one_feature_has_that_feature_as_prototype_and_channels_stay_apart():
    features = torch.arange(D).float().view(1, D, 1, 1).expand(2, D, 4, 4)
    sums, cells = class_sums(features, torch.ones(2, 64, 64, dtype=torch.int64), K)
    close(sums[1] / cells[1], torch.arange(D).float())


def test_prototypes_are_float32_under_autocast_and_have_a_gradient():
    features = torch.randn(1, D, 2, 4, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        sums, _ = class_sums(features, LABEL, K)
    close(sums, class_sums(features, LABEL, K)[0], atol=0, rtol=0)
    sums.sum().backward()
    close(features.grad[0, 0], torch.tensor([[1.0, 1, 1, 1], [1, 1, 0, 1]]))


@golden.needed
def test_masked_means_are_those_of_the_golden_vectors():
    """The released prototypes differ on purpose: scrambled by a view and divided twice (D3, D4).

    Their labels are of nearest cells; ours are shares of pixels, the same for labels of cells.
    """
    arrays = np.load(golden.FOLDER / "golden_modules.npz")
    features = torch.from_numpy(arrays["proto/feat"])
    small = torch.from_numpy(arrays["proto/labels"])[:, ::8, ::8].long()
    label = small.repeat_interleave(16, 1).repeat_interleave(16, 2)
    sums, cells = class_sums(features, label, 5)
    close(cells, torch.tensor([32.0, 24, 44, 20, 0]))
    ours = sums / cells.clamp(min=1e-6)[:, None]
    close(ours, torch.from_numpy(arrays["proto/masked_mean"]), atol=1e-5, rtol=1e-5)
    assert (ours - torch.from_numpy(arrays["proto/released_prototypes"])).abs().max() > 0.1


@golden.needed
def test_released_language_terms_follow_from_masked_means_of_the_golden_vectors():
    """tau 1, diagonal, no centring is the released target, here over the classes present only:

    theirs lets the absent class 4 in as zeros, so rows are compared after leaving it out.
    """
    arrays = np.load(golden.FOLDER / "golden_modules.npz")
    text = torch.from_numpy(arrays["proto/text_sim"])[:4, :4]
    visual = torch.from_numpy(arrays["proto/masked_mean_visual_sim"])[:4, :4]
    means = torch.from_numpy(arrays["proto/masked_mean"])[:4]
    close(F.normalize(means, dim=1) @ F.normalize(means, dim=1).T, visual, atol=1e-5, rtol=1e-5)
    p, q = text.softmax(1), visual.softmax(1)
    ours = cmkd(means, text, torch.zeros(256), tau=1.0, diagonal=True)
    close(ours, (p * (p.log() - q.log())).sum(1).mean(), atol=1e-6, rtol=1e-4)


# CMKD


def slow_cmkd(p: Tensor, t: Tensor, centre: Tensor, tau: float, diagonal: bool) -> Tensor:
    rows = []
    for i in range(len(p)):
        others = [j for j in range(len(p)) if diagonal or j != i]
        s = torch.stack([F.cosine_similarity(p[i] - centre, p[j] - centre, 0) for j in others])
        target = (t[i, others] / tau).exp() / (t[i, others] / tau).exp().sum()
        given = (s / tau).exp() / (s / tau).exp().sum()
        rows.append((target * (target / given).log()).sum())
    return sum(rows) / len(p)


@pytest.mark.parametrize("diagonal", [False, True])
@pytest.mark.parametrize("tau", [0.1, 1.0])
@pytest.mark.parametrize("count", [3, 5])
def test_cmkd_is_its_formula(diagonal, tau, count):
    p, centre = torch.randn(count, D), torch.randn(D)
    t = name_relations(COSINES[:count, :count], centre=True)
    ours = cmkd(p, t, centre, tau, diagonal)
    close(ours, slow_cmkd(p, t, centre, tau, diagonal), atol=1e-5, rtol=1e-4)
    assert ours > 0


@pytest.mark.parametrize("count", [0, 1, 2])
def test_cmkd_of_fewer_than_three_classes_is_0_with_a_gradient(count):
    p = torch.randn(count, D, requires_grad=True)
    loss = cmkd(p, torch.eye(count), torch.zeros(D), 0.1, False)
    loss.backward()
    assert loss == 0
    assert not p.grad.any()


def test_classes_related_as_their_names_cost_nothing_and_collapse_costs_more():
    vectors = F.normalize(torch.randn(5, D), dim=1)
    vectors = vectors - vectors.mean(0)
    t = F.normalize(vectors, dim=1) @ F.normalize(vectors, dim=1).T
    zero = torch.zeros(D)
    assert cmkd(vectors, t, zero, 0.1, False) < 1e-5
    shuffled = cmkd(vectors[[1, 2, 3, 4, 0]], t, zero, 0.1, False)
    same = torch.randn(D).expand(5, D) + 1e-4 * torch.randn(5, D)
    collapsed = cmkd(same, t, zero, 0.1, False)
    assert collapsed > 0.05
    assert shuffled > 0.05
    exactly = cmkd(torch.ones(5, D, requires_grad=True), t, torch.ones(D), 0.1, False)
    assert exactly.isfinite()


def test_gradient_descent_on_cmkd_brings_the_relations_of_the_names_about():
    t = name_relations(COSINES, centre=True)
    p = torch.randn(K, D, requires_grad=True)
    optimizer = torch.optim.Adam([p], lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        loss = cmkd(p, t, torch.zeros(D), 0.1, False)
        loss.backward()
        optimizer.step()
    assert loss < 1e-3


def test_names_are_centred_and_scaled_to_unit_diagonal():
    vectors = F.normalize(torch.randn(7, 20) + 3, dim=1)  # all alike, as CLIP's are
    centred = F.normalize(vectors - vectors.mean(0), dim=1)
    cosines = vectors @ vectors.T
    assert cosines.min() > 0.7
    close(name_relations(cosines, centre=True), centred @ centred.T, atol=1e-4, rtol=1e-4)
    close(name_relations(cosines, centre=False), cosines)


# The whole


def test_every_term_is_what_the_formulas_say_over_two_steps():
    """Step 1: empty memory, centre of the batch. Step 2: memory of step 1, other classes."""
    loss, config = criterion(), LossConfig()
    t = torch.zeros(K, K)
    t[1:, 1:] = name_relations(COSINES[1:, 1:], centre=True)
    first, second = LABEL, blocks([[1, 4, 4, 2], [0, 0, 5, 255]])
    output = draw(first)
    terms = loss(output, first)
    p, _ = slow_prototypes(output.fused, first, 255)
    there = [1, 2, 3]  # 0 is present and does not speak
    language = slow_cmkd(p[there], t[there][:, there], p[there].mean(0), config.tau, False)
    close(terms["cmkd"], language, atol=1e-5, rtol=1e-4)
    assert terms["prototype"] == 0
    ce = sum(
        F.cross_entropy(
            F.interpolate(x, scale_factor=4.0, mode="bilinear"), first, ignore_index=255
        )
        for x in (output.logits, output.auxiliary)
    )
    close(terms["total"], ce + 0.5 * language, atol=1e-5, rtol=1e-5)

    loss.remember()
    close(loss.corrected_memory()[there], p[there], atol=1e-5, rtol=1e-5)  # bias corrected
    close(loss.memory[there], 0.1 * p[there], atol=1e-6, rtol=1e-5)
    output = draw(second)
    terms = loss(output, second)
    q, _ = slow_prototypes(output.fused, second, 255)
    there = [1, 2, 4, 5]
    centre = p[[1, 2, 3]].mean(0)  # of all in the memory
    language = slow_cmkd(q[there], t[there][:, there], centre, config.tau, False)
    close(terms["cmkd"], language, atol=1e-5, rtol=1e-4)
    known = torch.stack([1 - F.cosine_similarity(q[k], p[k], 0) for k in (1, 2)]).mean()
    close(terms["prototype"], known, atol=1e-5, rtol=1e-4)
    ce = terms["ce"] + terms["auxiliary"]
    close(terms["total"], ce + 0.1 * known + 0.5 * language, atol=1e-5, rtol=1e-5)

    loss.remember()
    assert loss.seen.tolist() == [0, 2, 2, 1, 1, 1]
    mean = (0.9 * 0.1 * p[1] + 0.1 * q[1]) / (1 - 0.81)
    close(loss.corrected_memory()[1], mean, atol=1e-5, rtol=1e-5)
    close(loss.corrected_memory()[3], p[3], atol=1e-5, rtol=1e-5)  # not seen: as it was
    assert not loss.memory[0].any()


def test_a_class_below_a_quarter_of_a_cell_is_absent():
    label = LABEL.clone()
    label[0, :8, :8] = 5  # 64 pixels, exactly a quarter
    label[0, 0, 63], label[0, 1, 63] = 4, 4
    loss = criterion()
    loss(draw(label), label)
    loss.remember()
    assert loss.seen.tolist() == [0, 1, 1, 1, 0, 1]


def test_absent_classes_change_nothing():
    """Neither the words of an absent class nor its place in the table reach the loss."""
    terms = {}
    for words in (0, 1):
        cosines = COSINES.clone()
        if words:
            cosines[4:, :4], cosines[:4, 4:] = 0.9, 0.9
        loss = Criterion(LossConfig(centre=False), D, NAMED, cosines)
        torch.manual_seed(1)
        terms[words] = loss(draw(LABEL), LABEL)
        loss.remember()
        assert not loss.memory[[0, 4, 5]].any()
    assert terms[0] == terms[1]
    assert terms[0]["cmkd"] > 0


def test_no_gradient_reaches_the_names_or_the_memory():
    loss = criterion()
    loss(draw(LABEL), LABEL)
    loss.remember()
    output = draw(LABEL)
    terms = loss(output, LABEL)
    terms["total"].backward()
    for map_ in (output.logits, output.auxiliary, output.fused):
        assert map_.grad.any()
    assert not any(buffer.requires_grad for buffer in loss.buffers())
    assert loss.relations.grad is None
    assert not list(loss.parameters())
    t = name_relations(COSINES[:4, :4], centre=True)
    p = torch.randn(4, D, requires_grad=True)
    cmkd(p, t, torch.zeros(D), 0.1, False).backward()
    assert p.grad.any()


def test_accumulated_batches_are_remembered_as_one():
    both, apart = criterion(), criterion()
    label = torch.cat([LABEL, blocks([[1, 4, 4, 2], [0, 0, 5, 255]])])
    output = draw(label)
    both(output, label)
    both.remember()
    for row in (0, 1):
        one = Output(*(map_[row : row + 1] for map_ in vars(output).values()))
        apart(one, label[row : row + 1])
    assert not apart.seen.any()
    apart.remember()
    apart.remember()  # nothing new: nothing happens
    close(apart.memory, both.memory)
    assert torch.equal(apart.seen, both.seen)


def test_the_memory_is_part_of_the_state():
    loss, other = criterion(), criterion()
    loss(draw(LABEL), LABEL)
    loss.remember()
    other.load_state_dict(loss.state_dict())
    torch.manual_seed(5)
    output = draw(LABEL)
    assert loss(output, LABEL) == other(output, LABEL)


def test_prototypes_and_language_come_in_after_their_start():
    assert [language_ramp(epoch, 4.0) for epoch in (0, 4, 5, 6, 8, 20)] == [0, 0, 0.25, 0.5, 1, 1]
    assert language_ramp(0, 0.0) == 1
    output = draw(LABEL)
    loss = criterion()
    loss(output, LABEL)
    loss.remember()
    terms = loss(draw(LABEL), LABEL, language=0.25)  # other features than those remembered
    rest = terms["ce"] + terms["auxiliary"]
    close(terms["total"], rest + 0.25 * (0.1 * terms["prototype"] + 0.5 * terms["cmkd"]))
    assert terms["cmkd"] > 0
    assert terms["prototype"] > 0.1


@pytest.mark.parametrize(
    "wrong", [{"ohem": 1.5}, {"lovasz": -1.0}, {"language_start": -2.0}, {"language": -0.1}]
)
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(InputError, match=f"LossConfig.{next(iter(wrong))} is"):
        LossConfig(**wrong)


def test_options_switch_terms_off():
    output = draw(LABEL)
    assert "cmkd" not in Criterion(LossConfig(), D, NAMED, None)(output, LABEL)
    assert "cmkd" not in criterion(LossConfig(language=0.0))(output, LABEL)
    assert "prototype" not in criterion(LossConfig(memory=False))(output, LABEL)
    without = replace(output, auxiliary=None)
    assert "auxiliary" not in criterion()(without, LABEL)
    control = criterion(LossConfig(target="random"))(output, LABEL)["cmkd"]
    assert control != criterion()(output, LABEL)["cmkd"]
    assert control == criterion(LossConfig(target="random"))(output, LABEL)["cmkd"]


def test_per_modality_distillation_takes_each_modality_s_own_prototypes_where_it_is_present():
    label = torch.cat([LABEL, LABEL.flip(1)])
    output = draw(label)
    has_rgb, has_thermal = torch.tensor([True, False]), torch.tensor([True, True])
    plain = criterion()(output, label)["cmkd"]
    ours = criterion(LossConfig(per_modality=True))(output, label, has_rgb, has_thermal)["cmkd"]
    t, there = name_relations(COSINES[1:, 1:], centre=True), [1, 2, 3]
    expected = plain
    for features, has in ((output.rgb, has_rgb), (output.thermal, has_thermal)):
        p, _ = slow_prototypes(features[has], label[has], 255)
        p = p[there]
        expected = expected + slow_cmkd(p, t[:3, :3], p.mean(0), LossConfig().tau, False)
    close(ours, expected, atol=1e-5, rtol=1e-4)


def test_cmkd_does_not_drown_the_rest_where_classes_are_not_told_apart() -> None:
    draw = torch.Generator().manual_seed(0)
    centre = torch.randn(16, generator=draw)
    relations = torch.eye(4)
    sizes = {}
    for apart in (1.0, 1e-4):
        shift = torch.randn(4, 16, generator=draw)
        prototypes = (centre + apart * shift).requires_grad_()
        (gradient,) = torch.autograd.grad(
            cmkd(prototypes, relations, centre, tau=0.1, diagonal=False), prototypes
        )
        assert gradient.abs().sum() > 0
        sizes[apart] = float(gradient.norm())
    assert sizes[1e-4] < 100 * sizes[1.0]


def test_a_difference_from_the_centre_counts_as_no_shorter_than_a_tenth_of_a_prototype():
    centre = torch.zeros(D)
    centre[0] = 1.0
    apart = torch.zeros(3, D)
    apart[0, 1], apart[1, 2], apart[2, 1] = 0.05, -0.05, 0.5
    apart[1, 1] = 0.02
    prototypes = centre + apart
    floor = 0.1 * prototypes.norm(dim=1).mean()
    unit = apart / apart.norm(dim=1, keepdim=True).clamp(min=floor)
    relations = torch.eye(3)
    cosines = (unit @ unit.T)[~torch.eye(3, dtype=torch.bool)].view(3, 2)
    even = torch.full((3, 2), 0.5)
    expected = (even * (even.log() - cosines.log_softmax(1))).sum(1).mean()
    close(cmkd(prototypes, relations, centre, 1.0, False), expected)


@pytest.mark.parametrize("tau", [0.1, 1.0])
def test_cmkd_is_the_same_under_autocast(tau):
    """As training calls it in bf16: value and gradient of float32, to the last bit."""
    draw_ = torch.Generator().manual_seed(3)
    p, relations = torch.randn(6, 32, generator=draw_) + 2, torch.rand(6, 6, generator=draw_)
    found = []
    for enabled in (False, True):
        leaf = p.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            value = cmkd(leaf, relations, leaf.detach().mean(0), tau, False)
        value.backward()
        found.append((value.detach(), leaf.grad))
    assert found[1][0].dtype == torch.float32
    assert found[0][0] > 0
    for a, b in zip(*found, strict=True):
        assert torch.equal(a, b)


def test_the_temperature_that_costs_nothing_is_the_default():
    assert LossConfig().tau == 1.0


class NoDoubles(TorchDispatchMode):
    """As on Apple's MPS, where a tensor of float64 is an error."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for part in result if isinstance(result, tuple | list) else (result,):
            if isinstance(part, Tensor) and part.dtype == torch.float64:
                raise TypeError("float64 is not supported")
        return result


def test_no_loss_needs_float64():
    output = draw(LABEL)
    output.logits.requires_grad_()
    loss = criterion(LossConfig(ohem=0.4, lovasz=1.0, per_modality=True, class_weights="none"))
    with NoDoubles():
        total = loss(output, LABEL)["total"]
        total.backward()
        loss.remember()
    assert torch.isfinite(total)


def test_what_a_skipped_step_has_seen_is_forgotten():
    loss = criterion()
    loss(draw(LABEL), LABEL)
    loss.remember(skipped=True)
    assert not loss.seen.any()
    assert not loss.memory.any()
    loss.remember()
    assert not loss.seen.any()
    loss(draw(LABEL), LABEL)
    loss.remember()
    assert loss.seen.any()
