"""Training: everything that happens in a step, and its schedule, is on this page.

Randomness comes from (seed, epoch, pair), never from a worker or rank; with atomic checkpoints a
run that is killed and resumed ends as an undisturbed one, bit for bit on a CPU.
"""

import logging
import math
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from sartm.config import to_dict
from sartm.progress import Meter
from sartm.training.augmentation import Batch
from sartm.training.batches import make_loader
from sartm.training.budget import LOOKED_BACK, MEASURED, Pace, Schedule, is_open
from sartm.training.criterion import Criterion, language_ramp
from sartm.training.failures import (
    explained_deaths,
    explained_failures,
    peak_memory,
    require_finite,
)
from sartm.training.journal import Journal
from sartm.training.processes import agree, hold_run, loss_scale, mean_over_ranks, precision_of
from sartm.training.runs import (
    Checkpoint,
    latest_checkpoint,
    set_aside_damaged,
    trim_metrics,
    write_checkpoint,
    writing,
)
from sartm.training.settings import OptimConfig, TrainConfig
from sartm.training.sharding import whole
from sartm.training.splits import fingerprint
from sartm.training.start import Setup, prepare_run, write_config
from sartm.training.stopping import Stopped, StopSignal
from sartm.training.teaching import Teacher
from sartm.training.validation import Validator
from sartm.training.workers import Stream

log = logging.getLogger("sartm")


@dataclass(frozen=True)
class Limits:
    """Where a run stops early, to be continued with `resume`."""

    steps: int | None = None
    """Optimizer steps in all."""
    seconds: float | None = None
    """Of this session; a run whose length is open is planned to end in it."""


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
        {"step", "steps" of the whole run, "best": {"present", "step", ...}, "start": {"present",
        ...}, "gain" in points over the last third, "seconds", "finished", "interrupted",
        "modalities"}; `best` is None where nothing was validated, `start` where the model that it
        starts from has other classes, `modalities` (`evaluation.modalities`) where not both were
        given.

    Raises:
        InputError: a folder that already holds a run, or in which another process trains; one to
            resume that has other settings, other training pairs or no checkpoint to go on from; no
            usable data, a loss that is not finite, a file that cannot be written, a data worker
            that died, too little memory.
    """
    pace = Pace(time.monotonic(), limits.seconds)
    with StopSignal() as stop, hold_run(out):
        with stop.breaks_off():
            checkpoint = latest_checkpoint(out) if resume else None
            setup = prepare_run(
                config, out, checkpoint,
                resume=resume, device=device, command=command, teacher=teacher,
            )  # fmt: skip
        run = _Run(setup, checkpoint)
        if checkpoint is None:
            run.begin(config)
        return run.loop(limits.steps, pace, stop)


class _Run:
    """The loop and what it writes."""

    def __init__(self, setup: Setup, checkpoint: Checkpoint | None) -> None:
        state = {} if checkpoint is None else checkpoint.state
        self.setup = setup
        self.step = 0 if checkpoint is None else checkpoint.step
        self.seconds: float = state.get("seconds", 0.0)
        self.pending = bool(state.get("pending"))  # whether a validation was broken off
        self.saved = -1  # step of the last checkpoint
        splits, batches = setup.splits, setup.batches
        self.schedule = Schedule(
            setup.config, batches.steps_per_epoch, batches.labelled * batches.per_step,
            batches.steps, splits.validated(),
        )  # fmt: skip
        self.schedule.restore(state.get("plan", {}))
        title = f"Training {setup.config.recipe} on {splits.title()}"
        settings = to_dict(setup.shareable_config())
        main = setup.accelerator.is_main_process
        self.journal = Journal(setup.out, title, settings, main)
        self.validator = Validator(setup, self.journal, state.get("best"))
        if main:
            with writing(f"metrics.jsonl of {setup.out}"):
                # what was written before the first step is done again
                trim_metrics(setup.out / "metrics.jsonl", self.step or -1)
                set_aside_damaged(setup.out, self.step)

    def begin(self, config: TrainConfig) -> None:
        """Save step 0 and then the configuration: a run that is there can always be resumed."""
        main, out = self.setup.accelerator.is_main_process, self.setup.out
        if main:
            (out / "config.json").unlink(missing_ok=True)  # of a run that never took a step
        self._save()
        if main:
            write_config(out, config)

    def loop(self, most: int | None, pace: Pace, stop: StopSignal) -> dict[str, Any]:
        """All steps that are left, or up to `most` or the time limit; the result of `train`."""
        setup, config, schedule = self.setup, self.setup.config, self.schedule
        accelerator, parts, batches = setup.accelerator, setup.parts, setup.batches
        model = parts.model if config.shard else accelerator.prepare(parts.model)
        optimizer = accelerator.prepare(parts.optimizer)
        if config.tensorboard:
            self.journal.open_board(self.step)
        loader = accelerator.prepare_data_loader(
            make_loader(setup.splits, config, batches), device_placement=False
        )
        before, over = self.seconds, False
        fits = pace.limit is not None and is_open(config.optim) and not schedule.plan.fitted
        fits = fits and self.step <= MEASURED
        stopped = not self._score_what_is_due(pace, stop)
        if self.step < self._end(most):
            log.info("%s", self._describe_plan(fits))
        model.train()
        # of several processes one that breaks off alone would leave the others waiting for it
        waiting = stop.breaks_off if accelerator.num_processes == 1 else nullcontext
        with (
            explained_deaths(lambda: self.step, config),
            Meter("train", self._end(most), "steps", done=self.step) as meter,
            Stream(loader, waiting) as stream,
        ):
            pace.begin()
            while self.step < self._end(most) and not (stopped or over):
                rate = schedule.rate(self.step)
                for group in optimizer.param_groups:
                    group["lr"] = rate * group["factor"]
                try:
                    terms = self._take_step(model, optimizer, stream)
                except Stopped:
                    self._save()
                    break
                self.step += 1
                pace.add_step()
                self.seconds = before + pace.passed()
                known = {"step": self.step, "epoch": self.step / batches.steps_per_epoch}
                self.journal.write(known | {"lr": rate} | terms, self.seconds)
                pairs = meter.rate() * batches.per_step * batches.batch_size
                meter.advance(note=self._describe(rate, terms, pairs))
                stopped, over, measured = agree(
                    accelerator, stop.received, pace.left() < 0, fits and pace.is_measured()
                )
                self._lengthen(pace, fits)
                last = self.step >= self._end(most) or over
                marks = not schedule.plan.fitted or self.step >= schedule.plan.next
                stopped = self._score_step(last, stopped, pace, stop)
                model.train()
                last = last or self.step >= self._end(most)
                planned = measured and marks and not (last or stopped)
                if planned:
                    self._fit(pace)
                meter.expect(self._end(most))
                if planned or last or stopped or self.step % config.checkpoint_every == 0:
                    self._save()
        modalities = None
        if self.step >= schedule.plan.steps and not agree(accelerator, stop.received)[0]:
            modalities = self._compare(stop)
        self.journal.close()
        accelerator.free_memory()
        return {
            "step": self.step,
            "steps": schedule.plan.steps,
            "best": self.validator.best if self.validator.best["step"] else None,
            "start": self.validator.start(),
            "gain": schedule.gain(),
            "seconds": self.seconds,
            "finished": self.step >= schedule.plan.steps,
            "interrupted": stop.received,
            "modalities": modalities,
        }

    def _compare(self, stop: StopSignal) -> dict[str, Any] | None:
        """What each camera adds, by the first process; None also where that was broken off."""
        found, accelerator = None, self.setup.accelerator
        model = self.setup.parts.validated()
        if accelerator.is_main_process:
            try:
                with stop.breaks_off():
                    found = self.validator.compare(model, self.step, self.seconds)
            except Stopped:
                pass
        accelerator.wait_for_everyone()
        return found

    def _describe_plan(self, fits: bool) -> str:
        """How long the run is, and why."""
        plan, batches, splits = self.schedule.plan, self.setup.batches, self.setup.splits
        pairs, size = splits.labelled(), batches.labelled * batches.per_step
        steps = f"{plan.steps} steps of {size}"
        if fits:
            return f"{pairs} training pairs: up to {steps}, as many as the time allows"
        if self.step:
            return f"{pairs} training pairs: on from step {self.step} of {steps}"
        seen = plan.steps * size / pairs
        return f"{pairs} training pairs: {steps}, each is seen about {seen:.0f} times"

    def _end(self, most: int | None) -> int:
        """The last step of this session, as it is planned now."""
        steps = self.schedule.plan.steps
        return steps if most is None else min(steps, most)

    def _fit(self, pace: Pace) -> None:
        """Plan the rest of the run by the time that is left, the same on every rank."""
        each, passed = pace.each(), pace.passed()
        found = mean_over_ranks(self.setup.accelerator, pace.left(), each, pace.validation, passed)
        first = not self.schedule.plan.fitted
        self.schedule.fit(self.step, *found)
        pace.begin()
        if first:
            log.info(
                "%.2f s a step: planned to end at step %d, in %.1f minutes",
                each,
                self.schedule.plan.steps,
                found[0] / 60,
            )

    def _lengthen(self, pace: Pace, fits: bool) -> None:
        """Plan again where the steps that were timed had been slow by chance."""
        if fits and pace.steps:
            short = self.schedule.is_short(self.step, pace.left(), pace.each())
            if agree(self.setup.accelerator, short)[0]:
                self._fit(pace)

    def _take_step(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, stream: Iterator[Batch]
    ) -> dict[str, float]:
        setup, config = self.setup, self.setup.config
        epoch = self.step / setup.batches.steps_per_epoch
        language = language_ramp(epoch, config.loss.language_start)
        scale, average = loss_scale(setup.accelerator), setup.parts.average
        with explained_failures(self.step, config):
            terms = train_step(
                model, setup.parts.criterion, stream, optimizer, setup.accelerator, config.optim,
                language, setup.teacher,
            )  # fmt: skip
            require_finite(
                terms, self.step, setup.accelerator.scaler is not None, setup.splits, config,
                setup.accelerator.num_processes,
            )  # fmt: skip
        if average is not None and loss_scale(setup.accelerator) >= scale:  # no skipped step
            average.update_parameters(setup.parts.model)
        return terms

    def _score_what_is_due(self, pace: Pace, stop: StopSignal) -> bool:
        """The start, or what was broken off before; whether nothing is left to be scored."""
        if self.pending:
            return self._validate(pace, stop)
        if self.step or not self.setup.starts_ready:
            return True
        pace.begin()
        done = self.validator.score_start(self.seconds, lambda: stop.received)
        pace.add_validation()
        return done

    def _score_step(self, last: bool, stopped: bool, pace: Pace, stop: StopSignal) -> bool:
        """Validate where the plan says so, or where a session would end with nothing to look at;
        whether the run was told to stop."""
        if self._is_due():
            self.pending = stopped or not self._validate(pace, stop)
            return self.pending
        if last and not (stopped or self.validator.settled["step"]):
            self._validate(pace, stop)
        return stopped

    def _is_due(self) -> bool:
        """Whether a validation follows that the plan has; where a session ends is chance, which
        must leave no trace."""
        return self.schedule.is_due(self.step) or self.step >= self.schedule.plan.steps

    def _validate(self, pace: Pace, stop: StopSignal) -> bool:
        """Whether it was done, and not broken off; its score may bring the end of the run near."""
        due = self._is_due()
        done = self.validator.validate(self.step, self.seconds, lambda: stop.received, due)
        if done:
            pace.add_validation()
            if due and self.schedule.take_down(self.step, self.validator.headline):
                log.info(
                    "no gain for %d validations: the rate falls now, and the run ends at step %d",
                    LOOKED_BACK,
                    self.schedule.plan.steps,
                )
        return done

    def _describe(self, rate: float, terms: dict[str, float], pairs: float) -> str:
        """What stands beside the progress bar."""
        parts = " ".join(
            f"{name} {value:.3g}" for name, value in terms.items() if name not in ("total", "norm")
        )
        best: dict[str, Any] = self.validator.best
        per_epoch = self.setup.batches.steps_per_epoch
        epochs = -(-self.schedule.plan.steps // per_epoch)
        epoch = min(self.step // per_epoch + 1, epochs)
        memory = peak_memory(self.setup.accelerator.device) / 2**20
        return (
            f"epoch {epoch}/{epochs}  loss {terms['total']:.3f} ({parts})  "
            f"lr {rate:.1e}  {pairs:.1f} pairs/s  {memory:.0f} MiB"
            + (f"  best {best['headline'][1] or 0:.1f}" if best["step"] else "")
        )

    def _save(self) -> None:
        if self.step == self.saved:
            return
        self.saved = self.step
        setup = self.setup
        main = setup.accelerator.is_main_process
        tensors = setup.parts.tensors(keep=main)
        if main:
            tensors |= {"rng": torch.get_rng_state()}
            state = {
                "best": self.validator.settled,
                "seconds": self.seconds,
                "precision": precision_of(setup.accelerator),
                "pending": self.pending,
                "taught": setup.teacher is not None,
                "pairs": fingerprint(setup.splits),
                "plan": self.schedule.state(),
                "text": None if setup.table is None else to_dict(setup.table),
                "words": setup.config.model.words.encoder,
            }
            if setup.accelerator.scaler is not None:
                state["scaler"] = setup.accelerator.scaler.state_dict()
            checkpoint = Checkpoint(self.step, tensors, state)
            write_checkpoint(setup.out, checkpoint, setup.config.keep)
        setup.accelerator.wait_for_everyone()


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

    `language` is the factor on prototypes and CMKD, see `criterion.language_ramp`.
    """
    sums: dict[str, float] = {}
    chosen = [next(batches) for _ in range(config.accumulate)]
    shares = _pixel_shares(criterion, chosen, accelerator.device)
    for index, (read, share) in enumerate(zip(chosen, shares, strict=True)):
        batch = read.to(accelerator.device)
        more = index < config.accumulate - 1
        with accelerator.no_sync(model) if more else nullcontext():
            with accelerator.autocast():
                taught = None if teacher is None else teacher(batch)
                output = model(batch.rgb, batch.thermal, batch.has_rgb, batch.has_thermal)
                terms = criterion(
                    output, batch.label, batch.has_rgb, batch.has_thermal, share, language, taught,
                    batch.space,
                )  # fmt: skip
            accelerator.backward(terms["total"] / config.accumulate)
        values = torch.stack([value.detach().float() for value in terms.values()]).tolist()
        for name, value in zip(terms, values, strict=True):  # fetched at once: a GPU waits once
            sums[name] = sums.get(name, 0.0) + value
    clip = config.clip or math.inf
    norm = whole(accelerator.clip_grad_norm_(model.parameters(), clip))
    scale = loss_scale(accelerator)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    criterion.remember(skipped=loss_scale(accelerator) < scale)
    return {name: value / config.accumulate for name, value in sums.items()} | {"norm": float(norm)}


def _pixel_shares(
    criterion: Criterion, batches: list[Batch], device: torch.device
) -> list[Tensor | float]:
    """Labelled pixels of each batch over their mean, so that a step has one mean over pixels."""
    if len(batches) == 1:
        return [1.0]
    pixels = torch.stack([criterion.pixels(batch.label.to(device)) for batch in batches])
    return list((pixels / pixels.mean().clamp(min=1e-6)).unbind())
