"""The pairs of a run: what is trained on, what is validated on, and that the two are apart."""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from sartm.classes import Classes
from sartm.data.layouts import open_layout
from sartm.data.pairs import PairDataset, pixel_hash
from sartm.data.sets import Layout
from sartm.errors import InputError
from sartm.spaces import LabelSpace, choose_space, join_classes
from sartm.training.settings import TrainConfig

log = logging.getLogger("sartm")


@dataclass(frozen=True)
class LabelledSet:
    """One data set of a run."""

    train: PairDataset
    val: PairDataset | None
    """None where nothing is validated."""
    selected_on: str
    """What the model that is kept was chosen by, for its card."""


@dataclass(frozen=True)
class Splits:
    """The pairs of a run."""

    sets: tuple[LabelledSet, ...]
    unlabelled: tuple[PairDataset, ...] = ()
    """What only a teacher speaks about."""

    def seen(self) -> list[PairDataset]:
        """All that is trained on, in the order of their indices."""
        return [*(part.train for part in self.sets), *self.unlabelled]

    def labelled(self) -> int:
        """Pairs with a label that are trained on."""
        return sum(len(part.train) for part in self.sets)

    def classes(self) -> Classes:
        """Every class of the data sets."""
        return join_classes([part.train.classes for part in self.sets])

    def spaces(self) -> list[LabelSpace]:
        """What each data set knows of `classes`."""
        joined = self.classes()
        return [choose_space(joined, part.train.classes) for part in self.sets]

    def title(self) -> str:
        """The data sets by name."""
        return ", ".join(part.train.name for part in self.sets)

    def validated(self) -> int:
        """Pairs that are validated on."""
        return sum(0 if part.val is None else len(part.val) for part in self.sets)

    def selected_on(self) -> str:
        """What the model that is kept was chosen by."""
        found = list(dict.fromkeys(part.selected_on for part in self.sets))
        if len(found) == 1:
            return found[0]
        return "; ".join(f"{part.train.name}: {part.selected_on}" for part in self.sets)


def open_splits(config: TrainConfig) -> Splits:
    """The training and validation pairs; a test split is never touched.

    Raises InputError where there is no data, pairs without a label, too few to hold some out, or
    unlabelled ones without a teacher or that the validation split has too.
    """
    if not config.data:
        raise InputError("no training data: name a folder or dataset.toml with --data")
    layouts = [open_layout(source) for source in (config.data, *config.pooled)]
    for index, layout in enumerate(layouts):
        twice = [other.name for other in layouts[:index] if other.root == layout.root]
        twice += [other.name for other in layouts[:index] if other.name == layout.name]
        if twice:
            raise InputError(
                f"two of the data sets are called {layout.name!r} or are one; give each once, and "
                f"each a name of its own in its dataset.toml"
            )
    validates = config.validate_every != 0
    parts = [open_labelled(layout, validates) for layout in layouts]
    splits = Splits(tuple(
        _hold_out(part.train, config) if validates and part.val is None else part for part in parts
    ))  # fmt: skip
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
        found.classes = splits.classes()
        vals = [part.val for part in splits.sets if part.val is not None]
        both = [name for val in vals for name in _common(found, val)]
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


def open_labelled(layout: Layout, validates: bool = True) -> LabelledSet:
    """The train split and the val split as they are listed; without the second one where there is
    none or nothing is validated.

    Raises InputError where a pair has no label.
    """
    train = _require_labels(PairDataset.of(layout, "train"))
    if not validates or "val" not in layout.splits:
        return LabelledSet(train, None, "nothing: the last step was kept")
    return LabelledSet(train, _require_labels(PairDataset.of(layout, "val")), "val")


def _require_labels(part: PairDataset) -> PairDataset:
    unlabelled = [pair.name for pair in part.pairs if pair.label is None]
    if unlabelled:
        raise InputError(
            f"{len(unlabelled)} pairs of split {part.split!r} have no label, such as "
            f"{unlabelled[0]!r}; label them or take them off the list"
        )
    return part


def _hold_out(train: PairDataset, config: TrainConfig) -> LabelledSet:
    """Some of the training pairs as val."""
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
    return LabelledSet(
        train.replace(pairs=kept), train.replace(pairs=val, split="val"), "pairs held out of train"
    )


def fingerprint(splits: Splits) -> str:
    """Of the names and their order: what the order of training follows from."""
    names = [pair.name for dataset in splits.seen() for pair in dataset.pairs]
    return hashlib.sha256("\n".join(names).encode()).hexdigest()


def hash_images(sets: Sequence[PairDataset]) -> dict[str, str]:
    """Pixel hash by name of every pair: reads all of them."""
    images: dict[str, str] = {}
    for pairs in sets:
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
