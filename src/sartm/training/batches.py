"""The data of a training run: its splits, what they measure, and the order of its batches.

Everything here follows from the data set, the configuration and the seed; no model is needed.
"""

import hashlib
import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from sartm.data.coverage import describe_poor_labels
from sartm.data.layouts import open_layout
from sartm.data.pairs import PairDataset, describe_mixed_types, pixel_hash
from sartm.errors import InputError
from sartm.io.thermal import apply_thermal_rule
from sartm.training.augmentation import TrainingItem, TrainingSet
from sartm.training.budget import is_open, suggested_steps
from sartm.training.settings import OptimConfig, TrainConfig
from sartm.training.workers import leave_group, pack, usable_workers

log = logging.getLogger("sartm")


@dataclass(frozen=True)
class Splits:
    """The pairs of a run."""

    train: PairDataset
    val: PairDataset | None
    """None where nothing is validated."""
    selected_on: str
    """What the model that is kept was chosen by, for its card."""
    unlabelled: tuple[PairDataset, ...] = ()
    """What only a teacher speaks about."""

    def seen(self) -> list[PairDataset]:
        """All that is trained on, in the order of their indices."""
        return [self.train, *self.unlabelled]


def open_splits(config: TrainConfig) -> Splits:
    """The training and validation pairs; a test split is never touched.

    Raises InputError where there is no data, pairs without a label, too few to hold some out, or
    unlabelled ones without a teacher or that the validation split has too.
    """
    splits = _open_labelled(config)
    if not config.unlabelled:
        return splits
    return replace(splits, unlabelled=_open_unlabelled(config, splits))


def _open_unlabelled(config: TrainConfig, splits: Splits) -> tuple[PairDataset, ...]:
    if not config.teacher:
        raise InputError("unlabelled pairs need a --teacher that says what is on them")
    sets = []
    for source in config.unlabelled:
        found = PairDataset.of(open_layout(source, labels=False), "train")
        found = found.replace(pairs=[replace(pair, label=None) for pair in found.pairs])
        found.classes = splits.train.classes
        both = [] if splits.val is None else _common(found, splits.val)
        if both:
            raise InputError(
                f"{len(both)} unlabelled pairs of {source} are of the validation split too, such "
                f"as {both[0]!r}; take them off the list, or validation will not tell how good the "
                f"model is on pairs it has not seen"
            )
        sets.append(found)
    return tuple(sets)


def _common(some: PairDataset, others: PairDataset) -> list[str]:
    """Names that two data sets share with an image of the same pixels, RGB or thermal."""
    places = {pair.name: index for index, pair in enumerate(others.pairs)}
    found = []
    for index, pair in enumerate(some.pairs):
        if pair.name not in places:
            continue
        ours, theirs = some[index], others[places[pair.name]]
        images = ((ours.rgb, theirs.rgb), (ours.thermal, theirs.thermal))
        if any(x is not None and y is not None and np.array_equal(x, y) for x, y in images):
            found.append(pair.name)
    return found


def _open_labelled(config: TrainConfig) -> Splits:
    if not config.data:
        raise InputError("no training data: name a folder or dataset.toml with --data")
    layout = open_layout(config.data)
    train = PairDataset.of(layout, "train")
    unlabelled = [pair.name for pair in train.pairs if pair.label is None]
    if unlabelled:
        raise InputError(
            f"{len(unlabelled)} pairs of split 'train' have no label, such as {unlabelled[0]!r}; "
            f"label them or take them off the list"
        )
    if config.validate_every == 0:
        return Splits(train, None, "nothing: the last step was kept")
    if "val" in layout.splits:
        return Splits(train, PairDataset.of(layout, "val"), "val")
    # a pair or two choose no model: of few pairs up to 4 are held out, but no more than a fifth
    held = max(1, round(len(train) * config.val_share), min(4, len(train) // 5))
    if held >= len(train):
        raise InputError(
            f"{train.name} has no val split and {len(train)} training pairs are too few to hold "
            f"some out; add a val split, or set --set validate_every=0"
        )
    # up to ten runs of neighbours, spread evenly, so that frames of one scene stay together
    runs = min(held, 10)
    sizes = [len(part) for part in np.array_split(np.arange(held), runs)]
    blocks = np.array_split(np.arange(len(train)), runs)
    chosen = {int(i) for block, size in zip(blocks, sizes, strict=True) for i in block[:size]}
    kept = [pair for index, pair in enumerate(train.pairs) if index not in chosen]
    val = [pair for index, pair in enumerate(train.pairs) if index in chosen]
    log.info(
        "no val split: %d of the %d training pairs are held out for validation, as %s; add a val "
        "split to choose them",
        len(val),
        len(train),
        val[0].name,
    )
    return Splits(
        train.replace(pairs=kept), train.replace(pairs=val, split="val"), "pairs held out of train"
    )


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
            wide, rule = True, replace(rule, rule="percentile", low=1.0, high=99.0)
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
    config: TrainConfig, train: PairDataset, statistics: TrainingStatistics
) -> TrainConfig:
    """Fill in what follows: the class table, the thermal rule with its statistics and the crop from
    the data; the size that the fusion is made for from the crop."""
    thermal = config.model.thermal
    if config.thermal == "auto":
        if statistics.wide and thermal.rule == "uint8":
            thermal = replace(thermal, rule="percentile", low=1.0, high=99.0)
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
    model = replace(config.model, classes=train.classes, thermal=thermal, fusion=fusion)
    return replace(config, model=model, augmentation=augmentation)


def _fit_side(crop: int, image: float) -> int:
    """A side of the crop that is no larger than the image's, in whole strides of 32 pixels."""
    return crop if crop <= image else max(32, min(crop, 32 * round(image / 32)))


class StepBatches:
    """Batches of (epoch, index) from `start` to the end of the run, the same for any start.

    Every epoch is a permutation drawn from (seed, epoch); a data set smaller than one step is
    repeated to fill it. Indices from `pairs` on are unlabelled pairs, the last of every batch: they
    have epochs of their own.
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

    def __len__(self) -> int:
        return (self.steps - self.start) * self.per_step

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for step in range(self.start, self.steps):
            epoch, within = divmod(step, self.steps_per_epoch)
            order = np.random.default_rng((self.seed, epoch)).permutation(self.pairs)
            size = self.labelled
            for batch in range(within * self.per_step, (within + 1) * self.per_step):
                picked = order.take(range(batch * size, (batch + 1) * size), mode="wrap")
                keys = [(epoch, int(index)) for index in picked]
                done = (step - within) * self.per_step + batch  # batches of the whole run
                yield keys + [self._other(done * self.others + i) for i in range(self.others)]

    def _other(self, place: int) -> tuple[int, int]:
        """The unlabelled pair at a place of the run."""
        epoch, within = divmod(place, self.unlabelled)
        order = np.random.default_rng((self.seed, epoch, 1)).permutation(self.unlabelled)
        return epoch, self.pairs + int(order[within])


def make_batches(splits: Splits, config: TrainConfig, ranks: int, start: int) -> StepBatches:
    """The order of a run's batches from optimizer step `start` on."""
    others = sum(map(len, splits.unlabelled))
    share = config.unlabelled_share
    return StepBatches(len(splits.train), config.optim, ranks, config.seed, start, others, share)


def pairs_of_step(splits: Splits, config: TrainConfig, ranks: int, step: int) -> list[str]:
    """Names of the pairs of one optimizer step, counted from 0, over all ranks."""
    once = make_batches(splits, config, ranks, step)
    batches = iter(once)
    chosen = [index for _ in range(once.per_step) for _, index in next(batches)]
    pairs = [pair for dataset in splits.seen() for pair in dataset.pairs]
    return [pairs[index].name for index in chosen]


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
    return DataLoader(
        _Joined([TrainingSet(part, rule, augmentation, seed) for part in splits.seen()]),
        batch_sampler=batches,
        collate_fn=pack,
        num_workers=usable_workers(config.workers),
        worker_init_fn=leave_group,
        generator=torch.Generator().manual_seed(config.seed),  # not the model's
    )


def fingerprint(splits: Splits) -> str:
    """Of the names and their order: what the order of training follows from."""
    names = [pair.name for dataset in splits.seen() for pair in dataset.pairs]
    return hashlib.sha256("\n".join(names).encode()).hexdigest()


def hash_images(splits: Splits) -> dict[str, str]:
    """Pixel hash by name of every pair that is trained on: reads all of them."""
    images: dict[str, str] = {}
    for pairs in splits.seen():
        samples = (pairs[index] for index in range(len(pairs)))
        now = {sample.name: pixel_hash(sample.rgb, sample.thermal) for sample in samples}
        images = join_images(images, now)
    return images


def join_images(before: dict[str, str], now: dict[str, str]) -> dict[str, str]:
    """Hashes by name of both; another image under a name that is taken keeps its hash too."""
    taken = {name for name in before if name in now and before[name] != now[name]}
    renamed = {
        f"{name}#{before[name][:8]}" if name in taken else name: before[name] for name in before
    }
    return renamed | now
