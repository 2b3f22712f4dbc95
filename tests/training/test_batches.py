"""Batches follow from the seed alone; splits and statistics are those of the data."""

from dataclasses import replace
from itertools import chain
from typing import Any

import cv2
import numpy as np
import pytest
from draw_training import draw_dataset, write_dataset

from sartm.classes import MFNET
from sartm.config import ThermalRule
from sartm.data.pairs import PairDataset
from sartm.errors import InputError
from sartm.model.loading import load
from sartm.training.batches import StepBatches, measure
from sartm.training.loop import Limits, train
from sartm.training.settings import OptimConfig
from sartm.training.splits import open_splits
from training.runs import short


def test_batches_of_a_step_are_the_same_pairs_for_any_number_of_ranks():
    def steps(batch: int, accumulate: int, ranks: int, start: int = 0) -> list[list[Any]]:
        config = OptimConfig(epochs=3, batch_size=batch, accumulate=accumulate)
        batches = list(StepBatches(17, config, ranks, 5, start))
        assert len(batches) == len(StepBatches(17, config, ranks, 5, start))
        many = accumulate * ranks
        return [list(chain(*batches[i : i + many])) for i in range(0, len(batches), many)]

    whole = steps(4, 1, 1)
    assert len(whole) == 3 * 4
    assert whole == steps(2, 2, 1) == steps(2, 1, 2) == steps(1, 2, 2)
    assert steps(4, 1, 1, start=5) == whole[5:]
    for epoch in range(3):
        seen = list(chain(*whole[4 * epoch : 4 * epoch + 4]))
        assert {e for e, _ in seen} == {epoch}
        assert len({index for _, index in seen}) == 16
    assert len({str(step) for step in whole}) == 12
    other = StepBatches(17, OptimConfig(epochs=3, batch_size=4), 1, 6, 0)
    assert [set(step) for step in whole] != [set(step) for step in other]


@pytest.mark.parametrize(
    ("pairs", "batch", "accumulate", "ranks"),
    [(3, 4, 1, 1), (10, 2, 8, 1), (20, 8, 1, 4), (5, 5, 2, 1)],
)
def test_a_step_larger_than_the_data_set_repeats_pairs_but_none_as_it_was(
    pairs: int, batch: int, accumulate: int, ranks: int
):
    config = OptimConfig(epochs=3, batch_size=batch, accumulate=accumulate)
    batches = list(StepBatches(pairs, config, ranks, 0, 0))
    assert [len(each) for each in batches] == [batch] * 3 * accumulate * ranks
    keys = list(chain(*batches))
    assert len(set(keys)) == len(keys)  # (epoch, index): all that augmentation depends on
    whole = batch * accumulate * ranks
    for step in range(3):
        shown = [index for _, index in keys[step * whole : (step + 1) * whole]]
        often = [shown.count(index) for index in range(pairs)]
        assert max(often) - min(often) <= 1
    assert list(StepBatches(pairs, config, ranks, 0, 1)) == batches[accumulate * ranks :]


def test_thermal_and_class_statistics_are_those_of_the_training_pixels(six):
    dataset = PairDataset.open(six, "train")
    found = measure(dataset, short(six))
    thermal = np.stack([sample.thermal for sample in dataset]) / 255
    labels = np.stack([sample.label for sample in dataset])
    assert found.thermal_mean == pytest.approx(thermal.mean(), abs=1e-5)
    assert found.thermal_std == pytest.approx(thermal.std(), abs=1e-5)
    assert not found.wide
    shares = np.bincount(labels.ravel(), minlength=len(MFNET)) / labels.size
    np.testing.assert_allclose(found.class_shares, shares, atol=1e-6)


def test_thermal_of_several_number_types_is_refused(tmp_path):
    data = draw_dataset(tmp_path / "data", 4, 1)
    path = sorted((data / "thermal").iterdir())[1]
    raw = cv2.imread(str(path), cv2.IMREAD_UNCHANGED).astype(np.uint16) * 40 + 5000
    cv2.imwrite(str(path), raw)
    with pytest.raises(InputError, match=rf"uint16 in 1 \(such as '{path.stem}'\), uint8 in"):
        measure(PairDataset.open(data, "train"), short(data))


def test_holes_count_neither_for_the_mean_nor_for_the_levels(tmp_path):
    data = draw_dataset(tmp_path / "data", 2, 1)
    for path in (data / "thermal").iterdir():
        raw = cv2.imread(str(path), cv2.IMREAD_UNCHANGED).astype(np.uint16) * 40 + 5000
        cv2.imwrite(str(path), raw)
    whole = measure(PairDataset.open(data, "train"), short(data))
    for path in (data / "thermal").iterdir():
        raw = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        raw[::2] = 0
        cv2.imwrite(str(path), raw)
    toml = data / "dataset.toml"
    text = toml.read_text()
    toml.write_text(text.replace("[thermal]\n", "[thermal]\nholes = 0\n") if "[thermal]" in text
                    else text + "[thermal]\nholes = 0\n")  # fmt: skip
    holed = measure(PairDataset.open(data, "train"), short(data))
    assert holed.thermal_mean == pytest.approx(whole.thermal_mean, abs=0.03)
    assert holed.thermal_std == pytest.approx(whole.thermal_std, abs=0.03)


def test_16_bit_thermal_gets_the_percentile_rule(tmp_path):
    data = draw_dataset(tmp_path / "data", 2, 1)
    for path in (data / "thermal").iterdir():
        raw = cv2.imread(str(path), cv2.IMREAD_UNCHANGED).astype(np.uint16) * 40 + 5000
        cv2.imwrite(str(path), raw)
    config = short(data, optim=OptimConfig(epochs=1, batch_size=2))
    train(config, tmp_path / "run", device="cpu")
    rule = load(tmp_path / "run" / "best").config.thermal
    assert (rule.rule, rule.low, rule.high) == ("percentile", 1.0, 99.0)
    assert 0.2 < rule.mean < 0.8
    assert 0.1 < rule.std < 0.5


@pytest.mark.parametrize(("pairs", "held"), [(2, 1), (5, 1), (10, 2), (20, 4), (40, 4), (250, 25)])
def test_without_a_val_split_a_tenth_is_held_out_and_of_few_up_to_four(tmp_path, pairs, held):
    """Only the lists matter: every pair is a copy of one scene's entry."""
    data = draw_dataset(tmp_path / "data", 1, val=0)
    for kind in ("rgb", "thermal", "label"):
        for index in range(1, pairs):
            (data / kind / f"{index:03d}.png").hardlink_to(data / kind / "000.png")
    (data / "train.txt").write_text("".join(f"{index:03d}\n" for index in range(pairs)))
    (found,) = open_splits(short(data)).sets
    assert found.val is not None
    own, val = ({pair.name for pair in part.pairs} for part in (found.train, found.val))
    assert len(val) == held
    assert len(own) == pairs - held
    assert not own & val


def test_unlabelled_pairs_end_every_batch_and_all_have_their_turn():
    config = OptimConfig(epochs=4, batch_size=4)
    batches = list(StepBatches(6, config, 1, 0, 0, unlabelled=5, share=0.5))
    assert len(batches) == 4 * 3
    assert all([i < 6 for _, i in batch] == [True, True, False, False] for batch in batches)
    others = [key for batch in batches for key in batch[2:]]
    assert [epoch for epoch, _ in others] == [place // 5 for place in range(24)]
    assert {i for _, i in others[:5]} == {i for _, i in others[5:10]} == set(range(6, 11))
    assert list(StepBatches(6, config, 1, 0, 7, unlabelled=5, share=0.5)) == batches[7:]
    with pytest.raises(InputError, match=r"batch of 1 cannot be 0\.5 unlabelled"):
        StepBatches(6, replace(config, batch_size=1), 1, 0, 0, unlabelled=5, share=0.5)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_number_type_that_the_measured_pairs_have_not_is_noticed_when_it_is_read(
    tmp_path, workers
):
    """Of a large set some pairs are measured before the first step; the others are not."""
    scene = {kind: np.full((32, 32), 3, np.uint8) for kind in ("thermal", "label")}
    scene |= {"rgb": np.zeros((32, 32, 3), np.uint8), "label": np.eye(32, dtype=np.uint8)}
    thermal = {"thermal": scene["thermal"].astype(np.uint16)}
    data = write_dataset(tmp_path, [scene | (thermal if i % 2 == 0 else {}) for i in range(258)], 1)
    config = short(data, validate_every=0, workers=workers)
    optim = replace(config.optim, batch_size=129)
    model = replace(config.model, thermal=ThermalRule("range", 0, 10))
    config = replace(config, optim=optim, model=model, loss=replace(config.loss, every=4))
    with pytest.raises(InputError, match=r"several number types: uint16.*uint8"):
        train(config, tmp_path / "run", limits=Limits(steps=2), device="cpu")
