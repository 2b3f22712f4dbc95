"""What a run has to satisfy before it begins or goes on: its folder, its settings, its pairs."""

from collections.abc import Callable
from pathlib import Path

from sartm.data.pairs import PairDataset
from sartm.data.sets import Pair
from sartm.errors import InputError
from sartm.evaluation.metrics import require_countable
from sartm.evaluation.scoring import was_seen
from sartm.model.facts import ModelFacts
from sartm.training.recipes import find_changes
from sartm.training.runs import Checkpoint, require_new, require_nothing_to_lose
from sartm.training.settings import TrainConfig
from sartm.training.splits import Splits, fingerprint, hash_images


def check_folder(
    out: Path, config: object, read: Callable[[Path], object], resume: bool, restored: bool
) -> None:
    """Check that a run may begin in a folder, or that the run to resume, of which `read` gives the
    configuration, is this one."""
    if not resume:
        require_new(out)
        return
    if not (out / "config.json").exists():
        raise InputError(f"nothing to resume in {out}: it has no config.json")
    changes = find_changes(read(out), config)
    if changes:
        more = f" and {len(changes) - 3} more" if len(changes) > 3 else ""
        raise InputError(
            f"{out} was begun with another configuration: {'; '.join(changes[:3])}{more}. "
            f"Resume without changing it, or start a new run with --out"
        )
    if not restored:
        require_nothing_to_lose(out)


def require_one_crop(config: TrainConfig) -> None:
    """Refuse a crop of the model's own: the fusion is made for the size that it is trained at.

    A run that an older sartm began with two of them is resumed as it was.
    """
    model, crop = config.model.fusion.crop, config.augmentation.crop
    if model not in (None, crop):
        raise InputError(
            f"model.fusion.crop is {list(model)} but augmentation.crop is {list(crop)}: the second "
            f"decides the first. Use --set augmentation.crop=[H,W] --set model.fusion.crop=null"
        )


def check_splits(splits: Splits, begins: bool) -> None:
    """Refuse data sets that cannot be scored, or that are not apart from each other."""
    for part in splits.sets:
        if part.val is not None:
            require_countable(len(part.val.classes))
    if begins:
        require_apart(splits)


def require_apart(splits: Splits) -> None:
    """Refuse data sets of which one is trained on what it, or another one, validates on.

    Within a set the files tell, at no cost; between sets, which have files of their own, the
    pixels do.
    """
    for part in splits.sets:
        if part.val is None:
            continue
        trained = {_images(pair) for pair in part.train.pairs}
        twice = [pair.name for pair in part.val.pairs if _images(pair) in trained]
        if twice:
            raise InputError(
                f"{len(twice)} validation pairs of {part.train.name} are training pairs of it too, "
                f"such as {twice[0]!r}, and scores on them would flatter; take them off one of the "
                f"lists, sartm data check names all"
            )
        others = [other.train for other in splits.sets if other is not part]
        facts = ModelFacts(training_images=hash_images(others))
        found = find_seen(part.val, facts) if others else []
        if found:
            raise InputError(
                f"{len(found)} validation pairs of {part.train.name} are training pairs of another "
                f"of the data sets, such as {found[0]!r}; take them off one of the lists"
            )


def _images(pair: Pair) -> tuple[Path | None, ...]:
    return pair.rgb, pair.thermal, pair.four_channel


def find_seen(val: PairDataset, facts: ModelFacts) -> list[str]:
    """Names of the pairs that a model with these facts was trained on."""
    samples = (val[index] for index in range(len(val)))
    return [sample.name for sample in samples if was_seen(sample, val.classes, facts)]


def require_same_pairs(found: Checkpoint, splits: Splits, out: Path) -> None:
    """Refuse to resume where the training pairs are other ones."""
    now = fingerprint(splits)
    if found.state.get("pairs", now) != now:
        raise InputError(
            f"the training split of {splits.title()} lists other pairs ({splits.labelled()} now) "
            f"than when {out} was begun, or the unlabelled pairs are others. Give the split as it "
            f"was, or start a new run with --init {out}/best"
        )
