"""Training: build, loop, validate, keep the best. Everything that happens in a step is on a page.

Randomness comes from (seed, epoch, pair), never from a worker or rank; with atomic checkpoints a
run that is killed and resumed ends as an undisturbed one, bit for bit on a CPU.
"""

import json
import logging
import math
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import set_seed
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce
from torch.optim.swa_utils import AveragedModel

from sartm.config import to_dict
from sartm.data.pairs import PairDataset
from sartm.errors import InputError
from sartm.evaluation.metrics import ConfusionMatrix, means, percent
from sartm.evaluation.report.pictures import PairPictures
from sartm.evaluation.scoring import score_pairs, was_seen
from sartm.inference.predictor import Precision, Predictor, choose_device, fast_precision
from sartm.language import TextTable, takes_part, text_similarity
from sartm.model.checkpoint import ModelFacts, load_for_training, save
from sartm.model.sartm import SARTM
from sartm.progress import Meter
from sartm.training.augmentation import Batch
from sartm.training.batches import (
    Splits,
    StepBatches,
    TrainingStatistics,
    fingerprint,
    hash_images,
    join_images,
    make_batches,
    make_loader,
    measure,
    open_splits,
    pairs_of_step,
    settle,
)
from sartm.training.journal import Journal, draw_validation
from sartm.training.losses import Criterion, language_ramp
from sartm.training.recipes import OptimConfig, TrainConfig, find_changes, load_recipe
from sartm.training.runs import (
    Checkpoint,
    latest_checkpoint,
    trim_metrics,
    write_checkpoint,
    write_durably,
    writing,
)
from sartm.training.teaching import Teacher, load_teacher

log = logging.getLogger("sartm")


def learning_rate(step: int, steps_per_epoch: int, config: OptimConfig) -> float:
    """Rate before optimizer step `step`: linear from 0.1 lr over the warm-up, then polynomial.

    As the released recipe: the decay reaches 0 one epoch after the last (released-code, section 4).
    """
    warm_up = config.warmup_epochs * steps_per_epoch
    if step < warm_up:
        return config.lr * (0.1 + 0.9 * step / warm_up)
    end = (config.epochs + 1) * steps_per_epoch
    left: float = (1 - (step - warm_up) / (end - warm_up)) ** config.power
    return config.lr * left


def make_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """AdamW over what learns; no weight decay on one-dimensional tensors."""
    learning = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    groups = []
    for encoder in (False, True) if config.encoder != 1 else (False,):
        some = [p for name, p in learning if encoder is (config.encoder != 1 and _is_slow(name))]
        factor = config.encoder if encoder else 1.0
        for decay, params in (
            (config.weight_decay, [p for p in some if p.ndim > 1]),
            (0.0, [p for p in some if p.ndim <= 1]),
        ):
            groups.append({"params": params, "weight_decay": decay, "factor": factor})
    return torch.optim.AdamW(groups, lr=config.lr, fused=True)  # one pass over the weights


def _is_slow(name: str) -> bool:
    """Whether a parameter is one that `OptimConfig.encoder` is about."""
    return name.startswith("image_encoder.trunk.") and ".lora_" not in name


def make_average(model: SARTM, decay: float) -> AveragedModel | None:
    """The running mean of the weights; young runs average over a tenth of their steps."""
    if decay == 0:
        return None

    def update(averaged: Any, current: Any, count: Any) -> None:
        keep = min(decay, (1 + int(count)) / (10 + int(count)))
        torch._foreach_lerp_(list(averaged), list(current), 1 - keep)

    average = AveragedModel(model, multi_avg_fn=update)
    average.n_averaged += 1  # starts as a copy, which is then averaged into
    return average


@dataclass
class _Parts:
    """All state of a run that a checkpoint must hold."""

    model: SARTM
    optimizer: torch.optim.AdamW
    criterion: Criterion
    average: AveragedModel | None

    def tensors(self) -> dict[str, Tensor]:
        named = {f"model/{k}": v for k, v in self.model.state_dict().items()}
        named |= {f"criterion/{k}": v for k, v in self.criterion.state_dict().items()}
        if self.average is not None:
            named |= {f"average/{k}": v for k, v in self.average.state_dict().items()}
        names = {id(p): name for name, p in self.model.named_parameters()}
        for parameter, state in self.optimizer.state.items():
            for key, value in state.items():
                named[f"optimizer/{key}/{names[id(parameter)]}"] = torch.as_tensor(value)
        return named

    def load(self, tensors: dict[str, Tensor]) -> None:
        def under(prefix: str) -> dict[str, Tensor]:
            return {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}

        self.model.load_state_dict(under("model/"))
        self.criterion.load_state_dict(under("criterion/"))
        if self.average is not None:
            self.average.load_state_dict(under("average/"))
        parameters = dict(self.model.named_parameters())
        for key, value in under("optimizer/").items():
            kind, name = key.split("/", 1)
            self.optimizer.state[parameters[name]][kind] = value

    def validated(self) -> SARTM:
        """The model that is validated and kept."""
        if self.average is None:
            return self.model
        assert isinstance(self.average.module, SARTM)
        return self.average.module


class _Stop:
    """Notes SIGTERM and Ctrl-C, so that the step under way ends and is saved."""

    def __init__(self) -> None:
        self.asked = False
        self.before: dict[int, Any] = {}

    def __enter__(self) -> "_Stop":
        for number in (signal.SIGTERM, signal.SIGINT):
            try:
                self.before[number] = signal.signal(number, self._note)
            except ValueError:  # not the main thread: the caller handles signals
                break
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _note(self, *_: object) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True


def train_step(
    model: nn.Module,
    criterion: Criterion,
    batches: Iterator[Batch],
    optimizer: torch.optim.Optimizer,
    accelerator: Accelerator,
    config: OptimConfig,
    language: float = 1.0,
    teacher: Teacher | None = None,
) -> dict[str, float]:
    """One optimizer step over `config.accumulate` batches; returns the mean of every loss term.

    `language` is the factor on prototypes and CMKD, see `losses.language_ramp`.
    """
    sums: dict[str, float] = {}
    chosen = [next(batches) for _ in range(config.accumulate)]
    shares = _pixel_shares(criterion, chosen, accelerator.device)
    for index, (given, share) in enumerate(zip(chosen, shares, strict=True)):
        batch = given.to(accelerator.device)
        more = index < config.accumulate - 1
        with accelerator.no_sync(model) if more else nullcontext():
            with accelerator.autocast():
                taught = None if teacher is None else teacher(batch)
                output = model(batch.rgb, batch.thermal, batch.has_rgb, batch.has_thermal)
                terms = criterion(
                    output, batch.label, batch.has_rgb, batch.has_thermal, share, language, taught
                )
            accelerator.backward(terms["total"] / config.accumulate)
        values = torch.stack([value.detach().float() for value in terms.values()]).tolist()
        for name, value in zip(terms, values, strict=True):  # fetched at once: a GPU waits once
            sums[name] = sums.get(name, 0.0) + value
    clip = config.clip or math.inf
    norm = accelerator.clip_grad_norm_(model.parameters(), clip)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    criterion.remember()
    return {name: value / config.accumulate for name, value in sums.items()} | {"norm": float(norm)}


def _pixel_shares(
    criterion: Criterion, batches: list[Batch], device: torch.device
) -> list[Tensor | float]:
    """Labelled pixels of each batch over their mean, so that a step has one mean over pixels."""
    if len(batches) == 1:
        return [1.0]
    pixels = torch.stack([criterion.pixels(batch.label.to(device)) for batch in batches])
    return list((pixels / pixels.mean().clamp(min=1e-6)).unbind())


@dataclass(frozen=True)
class Limits:
    """Where a run stops early, to be continued with `resume`."""

    steps: int | None = None
    """Optimizer steps in all."""
    seconds: float | None = None
    """Of this session."""


def train(
    config: TrainConfig,
    out: Path,
    *,
    resume: bool = False,
    limits: Limits = Limits(),
    device: str = "auto",
    command: str = "",
    teacher: Teacher | None = None,
) -> dict[str, Any]:
    """Train a model and keep the one that is best on the validation split.

    Args:
        config: the whole run.
        out: the run's folder: config.json, metrics.jsonl, checkpoints/, best/ (a model).
        resume: continue from the newest checkpoint in `out`.
        limits: stop early; the last state is saved.
        device: "auto", "cpu", "cuda" or "mps".
        command: what the user typed, for the model card.
        teacher: of another kind than `config.teacher` can be, which then is its name.

    Returns:
        {"step", "best": {"present", "step", ...}, "seconds", "finished", "interrupted"}.

    Raises:
        InputError: a folder that already holds a run, one to resume that has other settings or
            other training pairs, no usable data, a loss that is not finite, a file that cannot be
            written, a data worker that died, too little memory.
    """
    with _Stop() as stop:
        return _train(config, out, resume, limits, device, command, teacher, stop)


def _train(
    config: TrainConfig,
    out: Path,
    resume: bool,
    limits: Limits,
    device: str,
    command: str,
    teacher: Teacher | None,
    stop: _Stop,
) -> dict[str, Any]:
    found = latest_checkpoint(out) if resume else None
    # what `auto` measured once holds for the whole run, or a resumed one would differ
    settled = config.precision if found is None else found.state.get("precision", config.precision)
    accelerator = _accelerator(settled, device)
    if accelerator.is_main_process:
        _claim(out, config, resume)
    set_seed(config.seed)
    splits = open_splits(config)
    statistics = measure(splits.train, config)
    config = settle(config, splits.train, statistics)
    source, config = _open_start(config, splits, accelerator.is_main_process)
    table = text_similarity(config.model.classes, config.text_encoder or None)
    if table is None and config.loss.language > 0:
        log.warning("no table holds these class names and no --text-encoder: CMKD is off")
    parts = _build(config, table, statistics, accelerator, source)
    taught_by = None
    if config.teacher and teacher is None:
        teacher, taught_by = load_teacher(config.teacher, config.model, accelerator.device)
    if found is not None:
        _require_same_pairs(found, splits, out)
        if found.state.get("taught", False) and teacher is None:
            raise InputError(
                f"{out} was begun with a teacher given in Python; resume it there, with the same "
                f"teacher"
            )
        _restore(parts, found, out)
    step = found.step if found else 0
    batches = make_batches(splits, config, accelerator.num_processes, step)
    end = min(batches.steps, limits.steps or batches.steps)
    run = _Run(config, out, accelerator, parts, splits, table, batches, command, teacher, taught_by)
    if found is not None:
        run.best, run.seconds = found.state["best"], found.state["seconds"]
        run.pending = bool(found.state.get("pending"))
    if accelerator.is_main_process:
        with writing(f"metrics.jsonl of {out}"):
            trim_metrics(out / "metrics.jsonl", step)
    step = run.loop(step, end, limits.seconds, stop)
    return {
        "step": step,
        "best": run.best,
        "seconds": run.seconds,
        "finished": step >= batches.steps,
        "interrupted": stop.asked,
    }


class _Run:
    """The loop and what it writes."""

    def __init__(
        self,
        config: TrainConfig,
        out: Path,
        accelerator: Accelerator,
        parts: _Parts,
        splits: Splits,
        table: TextTable | None,
        batches: StepBatches,
        command: str,
        teacher: Teacher | None,
        taught_by: ModelFacts | None,
    ) -> None:
        self.config, self.out, self.accelerator, self.parts = config, out, accelerator, parts
        self.splits, self.table, self.batches, self.command = splits, table, batches, command
        self.teacher, self.taught_by = teacher, taught_by
        self.best: dict[str, Any] = {"present": -1.0, "step": 0}
        self.seconds = 0.0
        self.images: dict[str, str] | None = None
        self.saved = -1  # step of the last checkpoint
        self.pending = False  # whether the validation of this step was broken off
        title = f"Training {config.recipe} on {splits.train.name}"
        settings = to_dict(self._shareable_config())
        self.journal = Journal(out, title, settings, accelerator.is_main_process)

    def loop(self, step: int, end: int, seconds: float | None, stop: _Stop) -> int:
        """Steps from `step` to `end`; returns the number done."""
        config, optim = self.config, self.config.optim
        model, optimizer = self.accelerator.prepare(self.parts.model, self.parts.optimizer)
        if config.tensorboard:
            self.journal.open_board(step)
        loader = self.accelerator.prepare_data_loader(
            make_loader(self.splits, config, self.batches), device_placement=False
        )
        begun = time.monotonic()
        before = self.seconds
        asked = self.pending and not self._validate(step, stop)
        model.train()
        per_epoch = self.batches.steps_per_epoch
        with Meter("train", end, "steps", done=step) as meter:
            stream = iter(loader)
            while step < end and not asked:
                rate = learning_rate(step, per_epoch, optim)
                for group in optimizer.param_groups:
                    group["lr"] = rate * group["factor"]
                with self._explained(step):
                    terms = self._step(model, stream, optimizer, step)
                step += 1
                self.seconds = before + time.monotonic() - begun
                if self.parts.average is not None:
                    self.parts.average.update_parameters(self.parts.model)
                known = {"step": step, "epoch": step / per_epoch, "lr": rate}
                self.journal.write(known | terms, self.seconds)
                pairs = meter.rate() * self.batches.per_step * self.batches.batch_size
                meter.advance(note=self._describe(step, rate, terms, pairs))
                late = seconds is not None and time.monotonic() - begun > seconds
                asked, over = self._agree(stop.asked, late)
                every = config.validate_every * per_epoch
                if (every and step % every == 0) or step == end or over:
                    self.pending = asked or not self._validate(step, stop)
                    asked = asked or self.pending
                    model.train()
                if step % config.checkpoint_every == 0 or step == end or over or asked:
                    self._save(step)
                if over:
                    break
        self.journal.close()
        self.accelerator.free_memory()
        return step

    def _agree(self, *flags: bool) -> tuple[bool, ...]:
        """Each flag, True where it is on any rank: ranks that part ways wait for each other."""
        if self.accelerator.num_processes == 1:
            return flags
        own = torch.tensor(flags, dtype=torch.float32, device=self.accelerator.device)
        return tuple(bool(flag) for flag in self.accelerator.reduce(own))

    def _describe(self, step: int, rate: float, terms: dict[str, float], pairs: float) -> str:
        """What stands beside the progress bar."""
        parts = " ".join(
            f"{name} {value:.3g}" for name, value in terms.items() if name not in ("total", "norm")
        )
        epoch = min(step // self.batches.steps_per_epoch + 1, self.config.optim.epochs)
        memory = _peak_memory(self.accelerator.device) / 2**20
        return (
            f"epoch {epoch}/{self.config.optim.epochs}  loss {terms['total']:.3f} ({parts})  "
            f"lr {rate:.1e}  {pairs:.1f} pairs/s  {memory:.0f} MiB"
            + (f"  best {self.best['present']:.1f}" if self.best["step"] else "")
        )

    @contextmanager
    def _explained(self, step: int) -> Iterator[None]:
        """What usually ends a step becomes a message that says what to do."""
        try:
            yield
        except InputError as error:  # of a data worker, which puts its traceback in front
            message = str(error).split("sartm.errors.InputError: ")[-1].strip()
            raise InputError(f"{message} (at step {step + 1})") from None
        except RuntimeError as error:
            message = _explain(error, step, self.config)
            # lets go of the batches, and of the loader: it would report its dead worker once more
            traceback.clear_frames(error.__traceback__)
            raise InputError(message) from None

    def _step(
        self, model: nn.Module, stream: Iterator[Batch], optimizer: Any, step: int
    ) -> dict[str, float]:
        """A step; a loss or gradient that is no number is an InputError."""
        config, per_epoch = self.config, self.batches.steps_per_epoch
        ramp = language_ramp(step / per_epoch, config.loss.language_start)
        criterion = self.parts.criterion
        terms = train_step(
            model, criterion, stream, optimizer, self.accelerator, config.optim, ramp,
            self.teacher,
        )  # fmt: skip
        # with fp16 a gradient that overflows is expected now and then: the scaler skips the step
        scaled = self.accelerator.scaler is not None
        wrong = [n for n in ("total", "norm") if not math.isfinite(terms[n])]
        if wrong and not (scaled and wrong == ["norm"]):
            what = "loss" if "total" in wrong else "norm of the gradient"
            ranks = self.accelerator.num_processes
            names = pairs_of_step(self.splits, config, ranks, step)
            raise InputError(
                f"the {what} is {terms[wrong[0]]} at step {step + 1}, in the batch of "
                f"{', '.join(names)}. Look at these files (sartm data check), or lower "
                f"--set optim.lr; the last checkpoint is kept"
            )
        return terms

    def _validate(self, step: int, stop: _Stop) -> bool:
        """Score the validation split; a new best is written as a model.

        Returns whether it was done: being told to stop breaks it off, without a trace.
        """
        if self.splits.val is None:
            self._keep(step, {})
            return True
        with self._explained(step - 1):
            found = self._count(self.splits.val, stop)
        if found is None:
            return False
        matrix, pictures = found
        scores = means(matrix, self.splits.val.classes)
        present = scores["present"]["miou"] or 0.0
        names = self.splits.val.classes.names
        each = {name: percent(iou) for name, iou in zip(names, matrix.iou(), strict=True)}
        self.journal.write({"step": step, "val": scores, "iou": each}, self.seconds)
        if present > self.best["present"]:
            self.best = {"present": present, "step": step, "means": scores}
            self._keep(step, self.best)
        self.journal.show(step, pictures)
        return True

    def _count(
        self, val: PairDataset, stop: _Stop
    ) -> tuple[ConfusionMatrix, list[PairPictures]] | None:
        """Counts of the whole split over all ranks, and pictures of its fixed pairs on this one."""
        predictor = Predictor(
            self.parts.validated(),
            device=str(self.accelerator.device),
            precision=_precision_of(self.accelerator),
            workers=1,  # the loader's processes have the cores too
        )
        matrix = ConfusionMatrix(len(val.classes))
        rank, ranks = self.accelerator.process_index, self.accelerator.num_processes
        own = range(rank, len(val), ranks)
        shown = {len(own) * i // self.config.pictures for i in range(self.config.pictures)}
        pictures = []
        for place, (sample, labels, counts) in enumerate(score_pairs(predictor, val, own)):
            if stop.asked:
                break
            matrix.counts += counts
            if place in shown and self.accelerator.is_main_process:
                rule = self.config.model.thermal
                pictures.append(draw_validation(sample, labels, val.classes, rule))
        if self._agree(stop.asked)[0]:
            return None
        if ranks > 1:
            all_counts = torch.from_numpy(matrix.counts).to(self.accelerator.device)
            matrix.counts = self.accelerator.reduce(all_counts).cpu().numpy()
        return matrix, pictures

    def _keep(self, step: int, results: dict[str, Any]) -> None:
        if not self.accelerator.is_main_process:
            return
        if self.images is None:
            self.images = hash_images(self.splits)
        names = [dataset.name for dataset in self.splits.seen()]
        inherited: dict[str, str] = {}
        data: tuple[str, ...] = ()
        for before in (self.parts.model.facts, self.taught_by):
            if before is not None:
                inherited = join_images(inherited, before.training_images)
                data = (*data, *before.data)
        facts = ModelFacts(
            name=self.out.name,
            licence=_inherit_licence(self.parts.model.facts, names),
            data=(*data, *names),
            selected_on=self.splits.selected_on,
            command=self.command,
            seed=self.config.seed,
            steps=step,
            results=results,
            training_images=join_images(inherited, self.images),
            text=to_dict(self.table) if self.table and self.config.loss.language > 0 else None,
            recipe=to_dict(self._shareable_config()),
        )
        save(self.parts.validated(), self.out / "best", facts)

    def _shareable_config(self) -> TrainConfig:
        """The configuration for a model's file, which must not tell where things lie here."""
        config = self.config
        return replace(
            config,
            data=self.splits.train.name,
            unlabelled=tuple(dataset.name for dataset in self.splits.unlabelled),
            teacher=Path(config.teacher).name,
            init=Path(config.init).name,
            encoder=self.parts.model.encoder_source,
        )

    def _save(self, step: int) -> None:
        if step == self.saved:
            return
        self.saved = step
        if self.accelerator.is_main_process:
            tensors = self.parts.tensors() | {"rng": torch.get_rng_state()}
            state = {
                "best": self.best,
                "seconds": self.seconds,
                "precision": _precision_of(self.accelerator),
                "pending": self.pending,
                "taught": self.teacher is not None,
                "pairs": fingerprint(self.splits),
            }
            write_checkpoint(self.out, Checkpoint(step, tensors, state), self.config.keep)
        self.accelerator.wait_for_everyone()


def _inherit_licence(start: ModelFacts | None, names: Sequence[str]) -> str:
    """Of what was started from, and of the data since; "" leaves it to the card."""
    if start is None or not start.licence:
        return ""
    return (
        f"Started from {start.name}: {start.licence} Then trained on {', '.join(names)}, whose "
        f"terms apply too."
    )


def _warn_of_seen(val: PairDataset | None, facts: ModelFacts, start: str) -> None:
    """Say so where the validation pairs are not new to the model that is started from."""
    if val is None or not facts.training_images:
        return
    count = sum(was_seen(val[index], val.classes, facts) for index in range(len(val)))
    if count:
        log.warning(
            "%s was trained on %d of the %d validation pairs: their scores flatter it, and so does "
            "the choice of the best step; start from another model, as --init mini-synthetic",
            start,
            count,
            len(val),
        )


def _accelerator(precision: str, device: str) -> Accelerator:
    """accelerate on the wanted device; `auto` takes bf16 where the hardware is fast at it."""
    chosen = choose_device(device)
    if chosen.type == "cuda" and chosen.index is not None:
        torch.cuda.set_device(chosen)
    if precision == "auto":
        precision = fast_precision(chosen.type)
    # its state outlives a run; a second one in this process may want another precision
    AcceleratorState._reset_state(reset_partial_state=not torch.distributed.is_initialized())
    return Accelerator(
        cpu=chosen.type == "cpu",
        mixed_precision={"fp32": "no"}.get(precision, precision),
        step_scheduler_with_optimizer=False,
    )


def _precision_of(accelerator: Accelerator) -> Precision:
    names: dict[str, Precision] = {"no": "fp32", "bf16": "bf16", "fp16": "fp16"}
    return names[accelerator.mixed_precision]


def _explain(error: RuntimeError, step: int, config: TrainConfig) -> str:
    """What ended a step, and what to do; other errors are bugs and are raised again."""
    text = str(error)
    if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in text:
        where = "GPU memory" if isinstance(error, torch.OutOfMemoryError) else "memory"
        return (
            f"out of {where} at step {step + 1}, batch size {config.optim.batch_size}: continue "
            f"with --resume --set activation_checkpointing=true, or begin anew with a lower "
            f"--set optim.batch_size (and higher optim.accumulate), a smaller --set "
            f"augmentation.crop=[H,W] or --set precision=bf16"
        )
    if "DataLoader worker" in text:
        return (
            f"a data worker died at step {step + 1} (killed, or out of memory). Continue from "
            f"the last checkpoint with --resume, with --set workers=0 if it happens again"
        )
    raise error


def _peak_memory(device: torch.device) -> int:
    """Bytes: the most this process had, on a GPU that of its tensors there; 0 where unknown."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def _require_same_pairs(found: Checkpoint, splits: Splits, out: Path) -> None:
    train, now = splits.train, fingerprint(splits)
    if found.state.get("pairs", now) != now:
        raise InputError(
            f"the training split of {train.name} lists other pairs ({len(train)} now) than when "
            f"{out} was begun, or the unlabelled pairs are others. Give the split as it was, or "
            f"start a new run with --init {out}/best"
        )


def _restore(parts: _Parts, found: Checkpoint, out: Path) -> None:
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


def _claim(out: Path, config: TrainConfig, resume: bool) -> None:
    """Make the run's folder, or check that the one to resume is this run's."""
    written = out / "config.json"
    if resume:
        if not written.exists():
            raise InputError(f"nothing to resume in {out}: it has no config.json")
        changes = find_changes(load_recipe(str(out)), config)
        if changes:
            more = f" and {len(changes) - 3} more" if len(changes) > 3 else ""
            raise InputError(
                f"{out} was begun with another configuration: {'; '.join(changes[:3])}{more}. "
                f"Resume without changing it, or start a new run with --out"
            )
        return
    if written.exists():
        raise InputError(
            f"{out} already holds a run. Continue it with --resume, or choose another folder "
            f"with --out"
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_durably(written, json.dumps(to_dict(config), indent=1).encode())
    except OSError as error:
        raise InputError(
            f"cannot write the run to {out}: {error.strerror}; choose another --out"
        ) from None


def _open_start(
    config: TrainConfig, splits: Splits, says: bool
) -> tuple[SARTM | None, TrainConfig]:
    """The model that `init` names, and the configuration with what it decides."""
    if not config.init:
        return None, config
    source = load_for_training(config.init, classes=config.model.classes)
    if says and config.encoder:
        log.warning(
            "starting from %s, with its encoder: %s is not read; for that one: --set init=",
            config.init,
            config.encoder,
        )
    if says and source.facts is not None:
        _warn_of_seen(splits.val, source.facts, config.init)
    return source, _take_over(config, source)


def _take_over(config: TrainConfig, source: SARTM) -> TrainConfig:
    """What a model that is started from decides beside its weights.

    Released ones bring batch norms with fixed statistics, and know thermal as it is in [0, 1].
    """
    model, released = config.model, source.config.fusion.norm == "batch"
    model = replace(model, fusion=replace(model.fusion, norm=source.config.fusion.norm))
    if released and config.thermal == "auto":
        before = source.config.thermal
        model = replace(model, thermal=replace(model.thermal, mean=before.mean, std=before.std))
    return replace(config, model=model)


def _build(
    config: TrainConfig,
    table: TextTable | None,
    statistics: TrainingStatistics,
    accelerator: Accelerator,
    source: SARTM | None,
) -> _Parts:
    """Model, loss, optimizer and average at step 0, on the run's device."""
    model = SARTM(config.model)
    if source is not None:
        start_from(model, source)
    elif config.encoder:
        from sartm.model.sources import load_encoder

        load_encoder(model, config.encoder)
    model.image_encoder.trunk.checkpointing = config.activation_checkpointing
    model.to(accelerator.device)
    classes = config.model.classes
    cosines = None if table is None else torch.from_numpy(table.matrix(classes))
    criterion = Criterion(
        config.loss,
        config.model.width,
        torch.from_numpy(takes_part(classes)),
        cosines,
        statistics.class_shares,
        reduce=_sum_over_ranks if accelerator.num_processes > 1 else lambda tensor: tensor,
        ignore=classes.ignore,
    ).to(accelerator.device)
    average = make_average(model, config.optim.ema)
    return _Parts(model, make_optimizer(model, config.optim), criterion, average)


def start_from(model: SARTM, source: SARTM) -> None:
    """Copy every weight of `source` that fits; heads for other classes start anew, and are named.

    Raises InputError where the encoder or decoder is of another size or number of heads.
    """
    heads = source.config.decoder.heads
    if heads != model.config.decoder.heads:  # the shapes are the same, the arithmetic is not
        raise InputError(
            f"cannot start from this model: its decoder has {heads} heads, here "
            f"{model.config.decoder.heads}; use --set model.decoder.heads={heads}"
        )
    ours, theirs = model.state_dict(), source.state_dict()
    same_classes = model.config.classes.names == source.config.classes.names
    new = []
    for name, tensor in ours.items():
        per_class = name.startswith(("sam_mask_decoder.mask_tokens", "auxiliary_head.predict"))
        per_class = per_class or "output_hypernetworks" in name
        fits = name in theirs and theirs[name].shape == tensor.shape
        if fits and (same_classes or not per_class):
            tensor.copy_(theirs[name])
        elif per_class or ".lora_" in name:
            new.append(name)
        else:
            found = tuple(theirs[name].shape) if name in theirs else "nothing"
            raise InputError(
                f"cannot start from this model: {name} is {found} there and {tuple(tensor.shape)} "
                f"here ({source.config.size} and {model.config.size}). Choose --set model.size and "
                f"model.width as the model has them"
            )
    model.facts, model.encoder_source = source.facts, source.encoder_source
    log.info(
        "started from a model: %d tensors taken, %d new %s", len(ours) - len(new), len(new), new
    )


def _sum_over_ranks(tensor: Tensor) -> Tensor:
    """Sum with gradient, so that a loss of global means has the global gradient."""
    summed: Tensor = all_reduce(tensor)
    return summed
