"""The data of a training run: what its splits measure, and the order of its batches.

Everything here follows from the data set, the configuration and the seed; no model is needed.
"""

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from sartm.classes import Classes
from sartm.config import ThermalRule
from sartm.data.coverage import describe_poor_labels
from sartm.data.pairs import PairDataset, describe_mixed_types
from sartm.errors import InputError
from sartm.io.thermal import apply_thermal_rule
from sartm.spaces import LabelSpace
from sartm.training.augmentation import TrainingItem, TrainingSet
from sartm.training.budget import is_open, suggested_steps
from sartm.training.mixture import Mixture
from sartm.training.settings import OptimConfig, TrainConfig
from sartm.training.splits import Splits
from sartm.training.workers import leave_group, pack, usable_workers

log = logging.getLogger("sartm")


@dataclass(frozen=True)
class TrainingStatistics:
    """What one pass over the training split measures."""

    thermal_mean: float
    thermal_std: float
    wide: bool
    """Whether raw thermal has more than 8 bits."""
    class_shares: Tensor
    """(K,) share of each class in the labelled pixels."""
    size: tuple[int, int]
    """Median height and width of the images."""


def measure_all(splits: Splits, config: TrainConfig) -> TrainingStatistics:
    """Statistics of what batches hold: those of the data sets, weighted as they are drawn."""
    found = [measure(part.train, config) for part in splits.sets]
    if len(found) == 1:
        return found[0]
    if any(part.wide for part in found) and not all(part.wide for part in found):
        deep = replace(config, model=replace(config.model, thermal=_percentile(config)))
        found = [
            part if part.wide else measure(each.train, deep)
            for part, each in zip(found, splits.sets, strict=True)
        ]
    weights = np.asarray(config.data_weights or [1.0] * len(found))
    weights = weights / weights.sum()
    mean = float(sum(w * part.thermal_mean for w, part in zip(weights, found, strict=True)))
    square = float(
        sum(
            w * (part.thermal_std**2 + part.thermal_mean**2)
            for w, part in zip(weights, found, strict=True)
        )
    )
    shares = torch.zeros(len(splits.classes()))
    for weight, part, space in zip(weights, found, splits.spaces(), strict=True):
        shares[list(_ids(space))] += float(weight) * part.class_shares
    deviation = max(math.sqrt(max(square - mean**2, 0)), 1e-3)
    height, width = (max(part.size[axis] for part in found) for axis in (0, 1))
    wide = any(part.wide for part in found)
    return TrainingStatistics(mean, deviation, wide, shares, (height, width))


def _percentile(config: TrainConfig) -> ThermalRule:
    return replace(config.model.thermal, rule="percentile", low=1.0, high=99.0)


def _ids(space: LabelSpace) -> list[int]:
    """The id in training of each class of a data set that is trained on: it has all of them."""
    return [place for place in space.picks if place is not None]


def training_ids(space: LabelSpace, joined: Classes) -> Tensor:
    """int64, the id in training of each id that a label of a data set may hold."""
    own = space.classes
    ids = torch.full((max(len(own), own.ignore + 1),), joined.ignore)
    ids[: len(own)] = torch.tensor(_ids(space))
    return ids


def measure(dataset: PairDataset, config: TrainConfig, most: int = 256) -> TrainingStatistics:
    """Statistics over at most `most` evenly spaced pairs of the training split."""
    counts = np.zeros(65536, np.int64)
    sums = np.zeros(3)  # of values, of squares, their number
    rule, wide = config.model.thermal, False
    kinds: list[tuple[str, str]] = []
    sizes: list[tuple[int, int]] = []
    for index in range(0, len(dataset), max(1, math.ceil(len(dataset) / most))):
        sample = dataset[index]
        sizes.append(sample.size)
        if sample.label is not None:
            counts += np.bincount(sample.label.ravel(), minlength=65536)
        if sample.thermal is None:
            continue
        kinds.append((sample.name, sample.thermal.dtype.name))
        if sample.thermal.dtype != np.uint8 and rule.rule == "uint8" and config.thermal == "auto":
            wide, rule = True, _percentile(config)
        values = apply_thermal_rule(sample.thermal, rule, sample.name, sample.unseen)
        values = values if sample.unseen is None else values[~sample.unseen]
        sums += (values.sum(), np.square(values, dtype=np.float64).sum(), values.size)
    mixed = describe_mixed_types(kinds)
    if mixed:
        raise InputError(f"{dataset.name}: {mixed}")
    mean, square = sums[:2] / max(sums[2], 1)
    deviation = max(float(np.sqrt(max(square - mean**2, 0))), 1e-3)
    poor = describe_poor_labels(dict(enumerate(counts.tolist())), dataset.classes)
    if poor and len(dataset) <= most:
        raise InputError(f"{dataset.name}, split {dataset.split!r}: {poor}")
    if poor:
        log.warning("%s, %d pairs of split %s: %s", dataset.name, most, dataset.split, poor)
    labelled = counts[: len(dataset.classes)]
    shares = torch.from_numpy(labelled / max(labelled.sum(), 1)).float()
    height, width = (int(side) for side in np.median(sizes, axis=0))
    return TrainingStatistics(float(mean), deviation, wide, shares, (height, width))


def resolve_config(
    config: TrainConfig, classes: Classes, statistics: TrainingStatistics
) -> TrainConfig:
    """Fill in what follows: the class table, the thermal rule with its statistics and the crop from
    the data; the size that the fusion is made for from the crop."""
    thermal = config.model.thermal
    if config.thermal == "auto":
        if statistics.wide and thermal.rule == "uint8":
            thermal = _percentile(config)
        thermal = replace(
            thermal,
            mean=round(statistics.thermal_mean, 5),
            std=round(statistics.thermal_std, 5),
        )
    augmentation = config.augmentation
    if augmentation.fit_crop:
        sides = zip(augmentation.crop, statistics.size, strict=True)
        height, width = (_fit_side(side, config.model.scale * of) for side, of in sides)
        augmentation = replace(augmentation, crop=(height, width))
    fusion = config.model.fusion
    fusion = replace(fusion, crop=fusion.crop or augmentation.crop)
    model = replace(config.model, classes=classes, thermal=thermal, fusion=fusion)
    return replace(config, model=model, augmentation=augmentation)


def _fit_side(crop: int, image: float) -> int:
    """A side of the crop that is no larger than the image's, in whole strides of 32 pixels."""
    return crop if crop <= image else max(32, min(crop, 32 * round(image / 32)))


class StepBatches:
    """Batches of (epoch, index) from `start` to the end of the run, the same for any start.

    Every epoch is a permutation drawn from (seed, epoch); where a step is larger than the data set,
    as many permutations as fill it, each varied anew. Of several data sets (`sizes`) each has its
    share of an epoch, see `Mixture`. Indices from `pairs` on are unlabelled pairs, the last of
    every batch: they have epochs of their own.
    """

    drop_last = True

    def __init__(
        self,
        pairs: int,
        config: OptimConfig,
        ranks: int,
        seed: int,
        start: int,
        unlabelled: int = 0,
        share: float = 0.5,
        sizes: Sequence[int] = (),
        weights: Sequence[float] = (),
    ) -> None:
        self.pairs, self.unlabelled, self.seed, self.start = pairs, unlabelled, seed, start
        self.batch_size = config.batch_size
        self.others = round(share * self.batch_size) if unlabelled else 0  # of a batch
        if self.others == self.batch_size or (unlabelled and not self.others):
            raise InputError(
                f"a batch of {self.batch_size} cannot be {share:g} unlabelled and hold pairs of "
                f"both kinds; change optim.batch_size or unlabelled_share"
            )
        self.labelled = self.batch_size - self.others
        self.per_step = config.accumulate * ranks  # batches
        self.steps_per_epoch = max(1, pairs // (self.labelled * self.per_step))
        self.steps = config.steps or self.steps_per_epoch * config.epochs
        if is_open(config):
            self.steps = suggested_steps(pairs, self.labelled * self.per_step)
        places = self.steps_per_epoch * self.per_step * self.labelled
        self.mixture = Mixture(sizes, weights, places, seed) if len(sizes) > 1 else None

    def __len__(self) -> int:
        return (self.steps - self.start) * self.per_step

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order, known = [(0, 0)], -1
        for step in range(self.start, self.steps):
            epoch, within = divmod(step, self.steps_per_epoch)
            if epoch != known:
                order, known = self._order(epoch), epoch
            size = self.labelled
            for batch in range(within * self.per_step, (within + 1) * self.per_step):
                keys = order[batch * size : (batch + 1) * size]
                done = (step - within) * self.per_step + batch  # batches of the whole run
                yield keys + [self._other(done * self.others + i) for i in range(self.others)]

    def _order(self, epoch: int) -> list[tuple[int, int]]:
        """The labelled pairs of an epoch, as (epoch, index)."""
        if self.mixture is not None:
            return self.mixture.keys(epoch)
        turns = -(-self.per_step * self.labelled // self.pairs)  # 1 unless a step is larger
        return [
            (turn, int(index))
            for turn in range(epoch * turns, (epoch + 1) * turns)
            for index in np.random.default_rng((self.seed, turn)).permutation(self.pairs)
        ]

    def _other(self, place: int) -> tuple[int, int]:
        """The unlabelled pair at a place of the run."""
        epoch, within = divmod(place, self.unlabelled)
        order = np.random.default_rng((self.seed, epoch, 1)).permutation(self.unlabelled)
        return epoch, self.pairs + int(order[within])


def make_batches(splits: Splits, config: TrainConfig, ranks: int, start: int) -> StepBatches:
    """The order of a run's batches from optimizer step `start` on."""
    others = sum(map(len, splits.unlabelled))
    share = config.unlabelled_share
    sizes = [len(part.train) for part in splits.sets]
    return StepBatches(
        sum(sizes), config.optim, ranks, config.seed, start, others, share,
        sizes, config.data_weights,
    )  # fmt: skip


def pairs_of_step(splits: Splits, config: TrainConfig, ranks: int, step: int) -> list[str]:
    """Names of the pairs of one optimizer step, counted from 0, over all ranks."""
    once = make_batches(splits, config, ranks, step)
    batches = iter(once)
    chosen = [index for _ in range(once.per_step) for _, index in next(batches)]
    several = len(splits.sets) > 1
    names = [
        f"{dataset.name}/{pair.name}" if several else pair.name
        for dataset in splits.seen()
        for pair in dataset.pairs
    ]
    return [names[index] for index in chosen]


class _Joined(Dataset[TrainingItem]):
    """Training sets one after the other."""

    def __init__(self, sets: list[TrainingSet]) -> None:
        self.sets = sets

    def __getitem__(self, key: tuple[int, int]) -> TrainingItem:
        epoch, index = key
        for part in self.sets[:-1]:
            if index < len(part):
                return part[epoch, index]
            index -= len(part)
        return self.sets[-1][epoch, index]


def make_loader(
    splits: Splits, config: TrainConfig, batches: StepBatches
) -> DataLoader[TrainingItem]:
    """Augmented batches (`augmentation.Batch`) in the order of `batches`, read by workers."""
    low, high = (config.model.scale * factor for factor in config.augmentation.scale)
    augmentation = replace(config.augmentation, scale=(low, high))
    rule, seed = config.model.thermal, config.seed
    joined, spaces = splits.classes(), splits.spaces()
    own = [None] if len(spaces) == 1 else [training_ids(space, joined) for space in spaces]
    ids = [*own, *(None for _ in splits.unlabelled)]
    parts = [
        TrainingSet(part, rule, augmentation, seed, place if place < len(own) else 0, ids[place])
        for place, part in enumerate(splits.seen())
    ]
    return DataLoader(
        _Joined(parts),
        batch_sampler=batches,
        collate_fn=pack,
        num_workers=usable_workers(config.workers),
        worker_init_fn=leave_group,
        generator=torch.Generator().manual_seed(config.seed),  # not the model's
    )
