"""What stands before the first step: the run's folder, its data, its model, new or restored."""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor

from sartm.config import ModelConfig, from_dict, to_dict
from sartm.data.pairs import PairDataset
from sartm.errors import InputError
from sartm.files import write_atomic
from sartm.language import TextTable, named_classes, text_similarity
from sartm.model.facts import ModelFacts, describe_terms
from sartm.model.filling import load_encoder
from sartm.model.loading import load_for_training
from sartm.model.sartm import SARTM
from sartm.spaces import LabelSpace, place_classes
from sartm.training.batches import (
    StepBatches,
    TrainingStatistics,
    make_batches,
    measure_all,
    resolve_config,
)
from sartm.training.checks import (
    check_folder,
    check_splits,
    find_seen,
    require_one_crop,
    require_same_pairs,
)
from sartm.training.criterion import Criterion
from sartm.training.optimizer import make_average, make_optimizer
from sartm.training.parts import Parts
from sartm.training.processes import make_accelerator, sum_over_ranks
from sartm.training.recipes import load_recipe
from sartm.training.recompute import recompute_activations
from sartm.training.runs import Checkpoint, writing
from sartm.training.settings import TrainConfig
from sartm.training.sharding import require_shardable, shard
from sartm.training.splits import Splits, open_splits
from sartm.training.teaching import Teacher, load_teachers
from sartm.training.wording import resolve_words

log = logging.getLogger("sartm")


@dataclass(frozen=True)
class Setup:
    """Everything a run works with, fixed before its first step."""

    config: TrainConfig
    out: Path
    accelerator: Accelerator
    parts: Parts
    splits: Splits
    table: TextTable | None
    batches: StepBatches
    command: str
    """What the user typed, for the model card."""
    teacher: Teacher | None
    taught_by: list[ModelFacts]
    """Of teachers that were loaded from models."""
    starts_ready: bool
    """Whether it starts from a model of the same classes, which may be better than what follows."""

    def shareable_config(self) -> TrainConfig:
        """The configuration for a model's file, which must not tell where things lie here."""
        config = self.config
        return replace(
            config,
            data=self.splits.sets[0].train.name,
            pooled=tuple(part.train.name for part in self.splits.sets[1:]),
            unlabelled=tuple(dataset.name for dataset in self.splits.unlabelled),
            teacher=tuple(Path(source).name for source in config.teacher),
            init=Path(config.init).name,
            encoder=self.parts.model.encoder_source,
        )


def prepare_run(
    config: TrainConfig,
    out: Path,
    checkpoint: Checkpoint | None,
    *,
    resume: bool,
    device: str,
    command: str,
    teacher: Teacher | None,
) -> Setup:
    """Check the folder, open the data, resolve the configuration, build or restore the model."""
    # what `auto` measured once holds for the whole run, or a resumed one would differ
    state = {} if checkpoint is None else checkpoint.state
    accelerator = make_accelerator(state.get("precision", config.precision), device)
    if config.shard:
        require_shardable(accelerator)
    if accelerator.is_main_process:
        check_folder(out, config, load_recipe, resume, restored=checkpoint is not None)
    else:
        log.setLevel(logging.ERROR)  # what the first process says need not be said by each
    set_seed(config.seed)
    splits = open_splits(config)
    check_splits(splits, begins=checkpoint is None)
    statistics = measure_all(splits, config)
    if not resume:
        require_one_crop(config)
    config = resolve_config(config, splits.classes(), statistics)
    source, config = open_start(config, splits, new=checkpoint is None)
    table = _relate_classes(config, checkpoint, source)
    config, vectors = resolve_words(config, checkpoint, source)
    parts = build_parts(
        config, splits.spaces(), vectors, table, statistics, accelerator, source,
        new=checkpoint is None,
    )  # fmt: skip
    taught_by: list[ModelFacts] = []
    if config.teacher and teacher is None:
        teacher, taught_by = load_teachers(config.teacher, config.model, accelerator.device)
    if checkpoint is not None:
        require_same_pairs(checkpoint, splits, out)
        if state.get("taught", False) and teacher is None:
            raise InputError(
                f"{out} was begun with a teacher given in Python; resume it there, with the same "
                f"teacher"
            )
        restore(parts, checkpoint, out)
        if accelerator.scaler is not None and "scaler" in state:
            accelerator.scaler.load_state_dict(state["scaler"])
    step = 0 if checkpoint is None else checkpoint.step
    batches = make_batches(splits, config, accelerator.num_processes, step)
    return Setup(
        config, out, accelerator, parts, splits, table, batches, command, teacher, taught_by,
        starts_ready=source is not None and _has_same_classes(source, config.model),
    )  # fmt: skip


def _relate_classes(
    config: TrainConfig, checkpoint: Checkpoint | None, source: SARTM | None
) -> TextTable | None:
    """How alike the words are: of a run that goes on as it began, else by what knows them all."""
    if checkpoint is not None:
        stored = checkpoint.state.get("text")
        return from_dict(TextTable, stored, "the checkpoint's text table") if stored else None
    known = []
    if source is not None and source.facts is not None and source.facts.text:
        stored, where = source.facts.text, "the text table of the model to start from"
        known.append(from_dict(TextTable, stored, where))
    table = text_similarity(config.model.classes, config.text_encoder or None, known)
    if table is None and config.loss.language > 0:
        log.warning(
            "the vocabulary lacks a word of these classes and there is no --text-encoder: CMKD is "
            "off"
        )
    return table


def _warn_of_seen(val: PairDataset | None, facts: ModelFacts, start: str) -> None:
    """Say so where the validation pairs are not new to the model that is started from."""
    if val is None or not facts.training_images:
        return
    count = len(find_seen(val, facts))
    if count:
        log.warning(
            "%s was trained on %d of the %d validation pairs: their scores flatter it, and so does "
            "the choice of the best step; start from another model, as --init mini-synthetic",
            start,
            count,
            len(val),
        )


def restore(parts: Parts, found: Checkpoint, out: Path) -> None:
    """Put a run back to where a checkpoint left it."""
    try:
        parts.load(found.tensors)
        torch.set_rng_state(found.tensors["rng"])
    except (RuntimeError, KeyError) as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise InputError(
            f"the checkpoint at step {found.step} of {out} is of another configuration ({reason}). "
            f"Resume without changing the model, the loss or the optimizer"
        ) from None


def write_config(out: Path, config: TrainConfig) -> None:
    """Make a folder that of a run: from now on it can be resumed, and not begun again."""
    with writing(f"config.json of {out}", begins=True):
        data = json.dumps(to_dict(config), indent=1).encode()
        write_atomic(out / "config.json", data, durable=True)


def open_start(config: TrainConfig, splits: Splits, new: bool) -> tuple[SARTM | None, TrainConfig]:
    """The model that `init` names, and the configuration with what it decides.

    `new`: nothing is restored over it, so that it is worth words.
    """
    if not config.init:
        return None, config
    source = load_for_training(config.init, classes=config.model.classes)
    if new and config.encoder:
        log.warning(
            "starting from %s, with its encoder: %s is not read; for that one: --set init=",
            config.init,
            config.encoder,
        )
    if new and source.facts is not None:
        for part in splits.sets:
            _warn_of_seen(part.val, source.facts, config.init)
    return source, _take_over(config, source)


def _take_over(config: TrainConfig, source: SARTM) -> TrainConfig:
    """What a model that is started from decides beside its weights.

    A trunk has learned one view of thermal. Released ones bring batch norms with fixed statistics,
    and know thermal as it is in [0, 1]. A frozen encoder stays the file's, so that what was added
    to its map goes on being added there.
    """
    model, released = config.model, source.config.fusion.norm == "batch"
    model = replace(model, thermal_view=source.config.thermal_view)
    if model.frozen_encoder:
        model = replace(model, no_mem_embed=source.config.no_mem_embed)
    model = replace(model, fusion=replace(model.fusion, norm=source.config.fusion.norm))
    if released and config.thermal == "auto":
        before = source.config.thermal
        model = replace(model, thermal=replace(model.thermal, mean=before.mean, std=before.std))
    return replace(config, model=model)


def build_parts(
    config: TrainConfig,
    spaces: Sequence[LabelSpace],
    vectors: Tensor | None,
    table: TextTable | None,
    statistics: TrainingStatistics,
    accelerator: Accelerator,
    source: SARTM | None,
    new: bool = True,
) -> Parts:
    """Model, loss, optimizer and average at step 0, on the run's device."""
    model = SARTM(config.model)
    if source is not None:
        several = len(spaces) > 1
        fresh = start_from(model, source, by_word=several)
        if new:
            _say_what_is_kept(config, source, fresh, several)
    elif config.encoder:
        load_encoder(model, config.encoder)
    if model.words is not None and vectors is not None:
        model.words.vectors.copy_(vectors)
    if config.activation_checkpointing:
        recompute_activations(model)
    if not config.shard:
        model.to(accelerator.device)
    classes = config.model.classes
    cosines = None if table is None else torch.from_numpy(table.matrix(classes))
    criterion = Criterion(
        config.loss,
        config.model.width,
        torch.from_numpy(named_classes(classes)),
        cosines,
        statistics.class_shares,
        reduce=sum_over_ranks if accelerator.num_processes > 1 else lambda tensor: tensor,
        ignore=classes.ignore,
        spaces=spaces if len(spaces) > 1 else (),
        merges=config.model.rest == "words",
    ).to(accelerator.device)
    average = make_average(model, config.optim.ema)
    if config.shard:  # block by block: no device has to hold all of it
        for network in (model,) if average is None else (model, average.module):
            shard(network, accelerator)
    return Parts(model, make_optimizer(model, config.optim), criterion, average)


_OF_CLASSES = (
    "sam_mask_decoder.mask_tokens", "sam_mask_decoder.output_hypernetworks",
    "auxiliary_head.predict", "words.",
)  # fmt: skip
_OF_WORDS = ("words.vectors", "words.token_offset", "words.filter_offset")
"""Beginnings of the names of what belongs to the classes of a fixed model, to the words of one of
words."""


def _say_what_is_kept(
    config: TrainConfig, source: SARTM, fresh: Sequence[str], by_word: bool
) -> None:
    """What of a model is started from, and what its licence means for that."""
    count, name = len(config.model.classes), Path(config.init).name
    heads = [part for part in fresh if not _is_adapter(part)]
    kept = "everything kept"
    if heads:
        kept = f"backbone kept, heads for {count} classes new"
        kept += ", but those of the classes it knows" * by_word
    if len(heads) < len(fresh):
        kept += ", adapters new"
    if source.clicks is not None:
        kept += ", its decoder for clicks left out (sartm train clicks makes another)"
    log.info("starting from %s: %s%s", name, kept, describe_terms(source.facts))


def start_from(model: SARTM, source: SARTM, by_word: bool = False) -> list[str]:
    """Copy every weight of `source` that fits; heads for other classes start anew, and adapters of
    another rank.

    Returns the names of what starts anew; `by_word`, heads of classes that both have do not. Raises
    InputError where the encoder or decoder is of another size or number of heads, or where adapters
    of the same rank would count for more or less.
    """
    heads = source.config.decoder.heads
    if heads != model.config.decoder.heads:  # the shapes are the same, the arithmetic is not
        raise InputError(
            f"cannot start from this model: its decoder has {heads} heads, here "
            f"{model.config.decoder.heads}; use --set model.decoder.heads={heads}"
        )
    lora, before = model.config.lora, source.config.lora
    if (lora.sets, lora.rank) == (before.sets, before.rank) and lora.alpha != before.alpha:
        raise InputError(
            f"cannot start from this model: its adapters have alpha {before.alpha:g}, here "
            f"{lora.alpha:g}; use --set model.lora.alpha={before.alpha:g}"
        )
    ours, theirs = model.state_dict(), source.state_dict()
    same_kind = model.config.classes_from == source.config.classes_from
    textual = same_kind and model.words is not None
    same_classes = _has_same_classes(source, model.config)
    own = _OF_WORDS if textual else _OF_CLASSES
    new = []
    for name, tensor in ours.items():
        per_class = name.startswith(own)
        fits = name in theirs and theirs[name].shape == tensor.shape
        if fits and (same_classes or not per_class):
            tensor.copy_(theirs[name])
        elif per_class and (by_word or textual) and same_kind and name in theirs:
            _copy_known(tensor, theirs[name], model, source)
        elif per_class or _is_adapter(name) or name.startswith("words.rest_"):
            new.append(name)
        else:
            found = tuple(theirs[name].shape) if name in theirs else "nothing"
            raise InputError(
                f"cannot start from this model: {name} is {found} there and {tuple(tensor.shape)} "
                f"here ({source.config.size} and {model.config.size}). Choose --set model.size and "
                f"model.width as the model has them"
            )
    may_go = (*_OF_CLASSES, "clicks.")
    lost = [n for n in theirs if n not in ours and not (_is_adapter(n) or n.startswith(may_go))]
    if lost:
        raise InputError(
            f"cannot start from this model: {len(lost)} of its tensors, such as {lost[0]}, have no "
            f"place here. Choose --set model.decoder.depth and the like as the model has them"
        )
    if (source.config.no_mem_embed, model.config.no_mem_embed) == ("fusion", "decoder"):
        # an older model, whose maps had it before the fusion: as a bias of the neck it is the same
        bias = ours["image_encoder.neck.convs.1.conv.bias"]
        bias += ours["no_mem_embed"].flatten()
        ours["no_mem_embed"].zero_()
    model.facts, model.encoder_source = source.facts, source.encoder_source
    return new


def _is_adapter(name: str) -> bool:
    return ".lora_" in name


def _has_same_classes(source: SARTM, config: ModelConfig) -> bool:
    """Whether all of its heads can be taken over."""
    same_kind = source.config.classes_from == config.classes_from
    return same_kind and source.config.classes.names == config.classes.names


def _copy_known(target: Tensor, values: Tensor, ours: SARTM, theirs: SARTM) -> None:
    """Copy the rows of the classes that both models have, where rows are alike.

    A model of words has a row for every class but the rest.
    """
    if target.shape[1:] != values.shape[1:]:
        return
    rows, others = _rows(ours), _rows(theirs)
    for index, place in enumerate(place_classes(theirs.config.classes, ours.config.classes)):
        if place is not None and index in rows and place in others:
            target[rows.index(index)].copy_(values[others.index(place)])


def _rows(model: SARTM) -> list[int]:
    """The class of each row of what a model has per class."""
    rest = model.config.classes.rest if model.words is not None else None
    return [index for index in range(len(model.config.classes)) if index != rest]
