"""Training: build, loop, validate, keep the best. Everything that happens in a step is on a page.

Randomness comes from (seed, epoch, pair), never from a worker or rank; with atomic checkpoints a
run that is killed and resumed ends as an undisturbed one, bit for bit on a CPU.
"""

import logging
import math
import signal
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor, nn

from sartm.config import to_dict
from sartm.data.pairs import PairDataset
from sartm.errors import InputError
from sartm.evaluation.metrics import ConfusionMatrix, means, percent
from sartm.evaluation.report.pictures import PairPictures
from sartm.evaluation.scoring import score_pairs
from sartm.inference.predictor import Predictor
from sartm.language import TextTable, text_similarity
from sartm.model.checkpoint import save
from sartm.model.facts import ModelFacts
from sartm.progress import Meter
from sartm.training.augmentation import Batch
from sartm.training.batches import (
    Splits,
    StepBatches,
    fingerprint,
    hash_images,
    join_images,
    make_batches,
    make_loader,
    measure,
    open_splits,
    pairs_of_step,
    resolve_config,
)
from sartm.training.failures import explain_failure, peak_memory
from sartm.training.journal import Journal, draw_validation
from sartm.training.losses import Criterion, language_ramp
from sartm.training.optimizer import learning_rate
from sartm.training.recipes import OptimConfig, TrainConfig
from sartm.training.runs import (
    Checkpoint,
    latest_checkpoint,
    trim_metrics,
    write_checkpoint,
    writing,
)
from sartm.training.start import (
    Parts,
    build_parts,
    claim_folder,
    make_accelerator,
    open_start,
    precision_of,
    require_same_pairs,
    restore,
)
from sartm.training.teaching import Teacher, load_teacher

log = logging.getLogger("sartm")


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
    accelerator = make_accelerator(settled, device)
    if accelerator.is_main_process:
        claim_folder(out, config, resume)
    set_seed(config.seed)
    splits = open_splits(config)
    statistics = measure(splits.train, config)
    config = resolve_config(config, splits.train, statistics)
    source, config = open_start(config, splits, accelerator.is_main_process)
    table = text_similarity(config.model.classes, config.text_encoder or None)
    if table is None and config.loss.language > 0:
        log.warning("no table holds these class names and no --text-encoder: CMKD is off")
    parts = build_parts(config, table, statistics, accelerator, source)
    taught_by = None
    if config.teacher and teacher is None:
        teacher, taught_by = load_teacher(config.teacher, config.model, accelerator.device)
    if found is not None:
        require_same_pairs(found, splits, out)
        if found.state.get("taught", False) and teacher is None:
            raise InputError(
                f"{out} was begun with a teacher given in Python; resume it there, with the same "
                f"teacher"
            )
        restore(parts, found, out)
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
        parts: Parts,
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
        memory = peak_memory(self.accelerator.device) / 2**20
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
            message = explain_failure(error, step, self.config)
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
            precision=precision_of(self.accelerator),
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
                "precision": precision_of(self.accelerator),
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
