"""What users rely on in a score: exact counts, the named mean they asked for, honest intervals."""

import math
import re
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from sartm.classes import CITYSCAPES, FMB, MFNET, PST900, Classes
from sartm.errors import InputError
from sartm.evaluation.metrics import (
    ConfusionMatrix,
    best_and_worst,
    bootstrap,
    means,
    pair_scores,
    protocol_means,
)
from sartm.evaluation.protocols import PROTOCOLS, choose_protocols, default_protocols

IGNORE = 255


def maps(seed, classes, pairs=3, absent=(), only_predicted=(), shape=(17, 23)):
    """Random (pairs, H, W) predictions and labels; a tenth is ignored, some classes are missing."""
    random = np.random.default_rng(seed)
    predictions, labels = random.integers(0, classes, (2, pairs, *shape)).astype(np.uint8)
    agree = random.random(labels.shape) < 0.5
    predictions[agree] = labels[agree]
    keep = next(k for k in range(classes) if k not in {*absent, *only_predicted})
    for k in absent:
        predictions[predictions == k] = labels[labels == k] = keep
    for k in only_predicted:
        labels[labels == k] = keep
        predictions[0, 0, :5] = k
    labels[random.random(labels.shape) < 0.1] = IGNORE
    if only_predicted:
        labels[0, 0, :5] = keep
    return predictions, labels


def counted(predictions, labels, classes):
    matrix = ConfusionMatrix(classes)
    for prediction, label in zip(predictions, labels, strict=True):
        matrix.update(prediction, label, IGNORE)
    return matrix


def slow_scores(predictions, labels, k):
    """IoU, accuracy, F1 and truth pixels of one class, pixel by pixel, as defined."""
    both = truth = predicted = 0
    for p, t in zip(predictions.ravel().tolist(), labels.ravel().tolist(), strict=True):
        if t == IGNORE:
            continue
        both += p == k and t == k
        truth += t == k
        predicted += p == k
    union = truth + predicted - both
    return (
        both / union if union else math.nan,
        both / truth if truth else math.nan,
        2 * both / (truth + predicted) if truth + predicted else math.nan,
        truth,
    )


def test_scores_of_every_class_match_their_definition():
    predictions, labels = maps(0, classes=6, absent=(4,), only_predicted=(5,))
    matrix = counted(predictions, labels, 6)
    scores = zip(matrix.iou(), matrix.accuracy(), matrix.f1(), matrix.pixels(), strict=True)
    for k, found in enumerate(scores):
        np.testing.assert_allclose(found, slow_scores(predictions, labels, k), equal_nan=True)
    seen = labels != IGNORE
    assert matrix.pixel_accuracy() == (predictions == labels)[seen].mean()


def test_rows_are_truth_and_columns_are_prediction():
    matrix = ConfusionMatrix(3)
    matrix.update(np.array([[2, 2]]), np.array([[1, 0]]))
    assert matrix.counts.tolist() == [[0, 0, 1], [0, 0, 1], [0, 0, 0]]


@pytest.mark.slow  # importing torchmetrics takes seconds
@pytest.mark.parametrize("seed", [1, 2])
def test_scores_agree_with_torchmetrics(seed):
    classification = pytest.importorskip("torchmetrics.functional.classification")
    torch = pytest.importorskip("torch")
    predictions, labels = maps(seed, classes=9, absent=(7,))
    matrix = counted(predictions, labels, 9)
    tensors = torch.tensor(predictions).long(), torch.tensor(labels).long()
    options = {"num_classes": 9, "average": "none", "ignore_index": IGNORE}
    present = matrix.pixels() > 0  # torchmetrics calls an absent class 0, here it is undefined
    for ours, theirs in (
        (matrix.iou(), classification.multiclass_jaccard_index(*tensors, **options)),
        (matrix.accuracy(), classification.multiclass_recall(*tensors, **options)),
        (matrix.f1(), classification.multiclass_f1_score(*tensors, **options)),
    ):
        np.testing.assert_allclose(ours[present], theirs.numpy()[present], rtol=1e-6)
        assert np.isnan(ours[~present]).all()


def slow_mean(predictions, labels, protocol):
    """mIoU, mAcc and number of classes, read straight from the row of the table."""
    labels = labels.copy()
    if protocol.truth_zero == "ignored":
        labels[labels == 0] = IGNORE
    seen = labels != IGNORE
    ious, recalls = [], []
    for k in range(protocol.first, protocol.size or 9):
        truth, predicted = (labels == k) & seen, (predictions == k) & seen
        if truth.any():
            ious.append((truth & predicted).sum() / (truth | predicted).sum())
            recalls.append((truth & predicted).sum() / truth.sum())
            continue
        rule = protocol.predicted if predicted.any() else protocol.absent
        if rule == "0":
            ious.append(0.0)
        if protocol.absent == "0":
            recalls.append(0.0)
    return np.mean(ious), np.mean(recalls), len(ious)


@pytest.mark.parametrize(
    ("name", "case"),
    list(product(PROTOCOLS, [{}, {"absent": (3,)}, {"only_predicted": (4,)}, {"absent": (0,)}])),
    ids=str,
)
def test_every_protocol_is_the_mean_its_row_describes(name, case):
    protocol = PROTOCOLS[name]
    classes = protocol.size or 9
    predictions, labels = maps(3, classes, **case)
    counts = counted(predictions, labels, classes).counts
    found = protocol_means(counts, protocol)
    np.testing.assert_allclose(found, slow_mean(predictions, labels, protocol))


def test_protocols_differ_where_a_class_is_absent_or_only_predicted():
    # FMB without bicycle, all else right; then one road pixel is called bicycle.
    label = np.repeat(np.delete(np.arange(15), 13), 100).reshape(14, 100).astype(np.uint8)
    matrix = ConfusionMatrix(15)
    matrix.update(label, label)
    perfect = {name: score["miou"] for name, score in means(matrix, FMB).items()}
    assert perfect == {
        "fmb-15-strict": round(1400 / 15, 4),
        "fmb-14-strict": round(1300 / 14, 4),
        "fmb-15-nan": 100.0,
        "fmb-14-nan": 100.0,
        "present": 100.0,
    }
    prediction = label.copy()
    prediction[1, 0] = 13
    matrix = ConfusionMatrix(15)
    matrix.update(prediction, label)
    jumped = {name: score["miou"] for name, score in means(matrix, FMB).items()}
    assert max(jumped["fmb-15-nan"], jumped["fmb-14-nan"]) < 94
    assert jumped["present"] > 99.9


def test_unlabeled_truth_still_makes_false_positives_in_the_mean_without_it():
    prediction, label = np.array([[1, 1]]), np.array([[1, 0]])
    matrix = ConfusionMatrix(9)
    matrix.update(prediction, label)
    assert means(matrix, MFNET, "mfnet-8")["mfnet-8"]["miou"] == 50.0


def test_background_truth_is_gone_from_the_means_over_14_classes_only():
    prediction, label = np.array([[1, 1, 0]]), np.array([[1, 0, 1]])
    matrix = ConfusionMatrix(15)
    matrix.update(prediction, label)
    found = means(matrix, FMB)
    assert found["fmb-14-nan"]["miou"] == 50.0  # one road pixel found, one missed
    assert found["fmb-15-nan"]["miou"] == round(100 / 3 / 2, 4)  # and one invented; background: 0


def test_iou_counts_pixels_over_the_whole_split_not_per_image():
    matrix = ConfusionMatrix(2)
    matrix.update(np.array([[1] * 9 + [0]]), np.array([[1] * 9 + [0]]))  # alone: IoU 1
    matrix.update(np.array([[0, 1, 0, 0]]), np.array([[1, 0, 0, 0]]))  # alone: IoU 0
    assert matrix.iou()[1] == 9 / 11


def test_counts_stay_exact_beyond_what_float32_can_hold():
    matrix = ConfusionMatrix(2, np.array([[2**24, 0], [0, 2**40]], np.int64))
    matrix.update(np.array([[0, 1]]), np.array([[0, 1]]))
    assert matrix.counts.tolist() == [[2**24 + 1, 0], [0, 2**40 + 1]]


def test_parts_merge_to_the_whole():
    predictions, labels = maps(4, classes=5, pairs=4)
    whole, first = counted(predictions, labels, 5), counted(predictions[:1], labels[:1], 5)
    first.merge(counted(predictions[1:], labels[1:], 5))
    assert np.array_equal(first.counts, whole.counts)
    with pytest.raises(InputError, match="6 classes to 5"):
        first.merge(ConfusionMatrix(6))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int64])
def test_the_type_of_the_ids_makes_no_difference(dtype):
    predictions, labels = maps(5, classes=9)
    matrix = counted(predictions.astype(dtype), labels.astype(dtype), 9)
    assert np.array_equal(matrix.counts, counted(predictions, labels, 9).counts)


@pytest.mark.parametrize(
    ("prediction", "label", "message"),
    [
        (np.zeros((4, 6), int), np.zeros((4, 5), int), "4x6.*4x5"),
        (np.full((2, 2), 9), np.zeros((2, 2), int), "prediction holds id 9, outside 0-8"),
        (np.full((2, 2), 255), np.zeros((2, 2), int), "prediction holds id 255"),
        (np.zeros((2, 2), int), np.full((2, 2), 9), "label holds id 9"),
        (np.zeros((2, 2), int), np.full((2, 2), -1), "label holds id -1"),
        (np.zeros((2, 2), int), np.full((2, 2), 100_000), "label holds id 100000"),
        (np.zeros((2, 2)), np.zeros((2, 2), int), "prediction holds float64"),
    ],
)
def test_maps_that_do_not_fit_are_refused_and_nothing_is_counted(prediction, label, message):
    matrix = ConfusionMatrix(9)
    with pytest.raises(InputError, match=message):
        matrix.update(prediction, label)
    assert not matrix.counts.any()


def test_an_ignored_pair_leaves_every_score_undefined():
    matrix = ConfusionMatrix(9)
    matrix.update(np.zeros((3, 3), np.uint8), np.full((3, 3), IGNORE, np.uint8))
    assert math.isnan(matrix.pixel_accuracy())
    assert means(matrix, MFNET, "mfnet-9") == {
        "mfnet-9": {"miou": None, "macc": None, "counted": 0},
        "present": {"miou": None, "macc": None, "counted": 0},
    }


def test_default_means_follow_the_class_table():
    own = Classes(("rest", "cat"))
    assert default_protocols(MFNET) == ("mfnet-9", "mfnet-8", "present")
    assert default_protocols(PST900) == ("pst900-5", "present")
    assert len(default_protocols(FMB)) == 5
    assert default_protocols(CITYSCAPES) == default_protocols(own) == ("all", "present")
    assert choose_protocols(PST900, "present") == ("present",)
    assert choose_protocols(FMB, "fmb-14-nan") == ("fmb-14-nan", "present")


@pytest.mark.parametrize(("which", "message"), [("mfnet-7", "mfnet-9"), ("fmb", "needs 15")])
def test_a_protocol_that_does_not_exist_or_fit_is_refused(which, message):
    with pytest.raises(InputError, match=message):
        choose_protocols(MFNET, which)


def test_interval_holds_the_mean_and_is_the_same_for_the_same_seed():
    counts = np.random.default_rng(6).integers(0, 500, (40, 9, 9)) + 900 * np.eye(9, dtype=int)
    mean = 100 * float(protocol_means(counts.sum(axis=0), PROTOCOLS["mfnet-9"])[0])
    low, high = bootstrap(counts, "mfnet-9", samples=300, seed=1)
    assert low < mean < high
    assert bootstrap(counts, "mfnet-9", samples=300, seed=1) == (low, high)
    assert bootstrap(counts, "mfnet-9", samples=300, seed=2) != (low, high)
    few = bootstrap(counts[:5], "mfnet-9", samples=300)
    assert few[1] - few[0] > high - low


def test_interval_matches_drawing_pairs_one_by_one():
    right = np.linspace(0, 300, 12, dtype=int)  # pairs from bad to good: a wide interval
    counts = np.random.default_rng(7).integers(0, 50, (12, 5, 5))
    counts += right[:, None, None] * np.eye(5, dtype=int)
    random, drawn = np.random.default_rng(8), []
    for _ in range(2000):
        total = counts[random.integers(0, 12, 12)].sum(axis=0)
        drawn.append(100 * float(protocol_means(total, PROTOCOLS["pst900-5"])[0]))
    expected = np.percentile(drawn, [2.5, 97.5])
    np.testing.assert_allclose(bootstrap(counts, "pst900-5", samples=2000), expected, atol=0.6)
    assert expected[1] - expected[0] > 10


def test_interval_of_a_difference_is_paired():
    counts = np.random.default_rng(9).integers(0, 500, (30, 5, 5))
    assert bootstrap(counts, "all", samples=50, baseline=counts) == (0.0, 0.0)
    better = counts + 100 * np.eye(5, dtype=int)
    assert bootstrap(better, "all", samples=200, baseline=counts)[0] > 0
    with pytest.raises(InputError, match="same pairs"):
        bootstrap(counts, "all", baseline=counts[:3])


def test_interval_of_nothing_is_undefined():
    for counts in (np.zeros((0, 5, 5), np.int64), np.zeros((3, 5, 5), np.int64)):
        assert all(map(math.isnan, bootstrap(counts, "all", samples=10)))


def test_best_and_worst_pairs_are_the_extremes_and_skip_pairs_with_one_class():
    def pair(right):
        return [[10, 10 - right], [0, right]]

    counts = np.array([pair(5), pair(9), pair(1), pair(7), [[50, 0], [0, 0]]])
    assert best_and_worst(counts, 2) == ([1, 3], [2, 0])
    assert pair_scores(counts)[4] == 100
    assert best_and_worst(counts[4:], 2) == ([0], [])


def test_the_documented_table_is_the_one_in_the_code():
    page = (Path(__file__).resolve().parents[2] / "docs" / "protocols.md").read_text("utf-8")
    table = re.search(r"\| name \|.*?\n\n", page, re.S)
    assert table is not None
    rows = [f"| {' | '.join(protocol.row())} |" for protocol in PROTOCOLS.values()]
    assert table[0].strip().splitlines()[2:] == rows
