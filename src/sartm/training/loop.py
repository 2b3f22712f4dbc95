"""Training: everything that happens in a step, and its schedule, is on this page.

Randomness comes from (seed, epoch, pair), never from a worker or rank; with atomic checkpoints a
run that is killed and resumed ends as an undisturbed one, bit for bit on a CPU.
"""

import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from sartm.config import to_dict
from sartm.progress import Meter
from sartm.training.augmentation import Batch
from sartm.training.batches import fingerprint, make_loader
from sartm.training.criterion import Criterion, language_ramp
from sartm.training.failures import explained_failures, peak_memory, require_finite
from sartm.training.journal import Journal
from sartm.training.optimizer import learning_rate
from sartm.training.processes import agree, hold_run, loss_scale, precision_of
from sartm.training.runs import (
    Checkpoint,
    latest_checkpoint,
    set_aside_damaged,
    trim_metrics,
    write_checkpoint,
    writing,
)
from sartm.training.settings import OptimConfig, TrainConfig
from sartm.training.start import Setup, prepare_run, write_config
from sartm.training.teaching import Teacher
from sartm.training.validation import Validator
from sartm.training.workers import Stream


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
        {"step", "best": {"present", "step", ...}, "seconds", "finished", "interrupted"}; `best` is
        None where nothing was validated.

    Raises:
        InputError: a folder that already holds a run, or in which another process trains; one to
            resume that has other settings, other training pairs or no checkpoint to go on from; no
            usable data, a loss that is not finite, a file that cannot be written, a data worker
            that died, too little memory.
    """
    with _StopSignal() as stop, hold_run(out):
        with stop.breaks_off():
            checkpoint = latest_checkpoint(out) if resume else None
            setup = prepare_run(
                config, out, checkpoint,
                resume=resume, device=device, command=command, teacher=teacher,
            )  # fmt: skip
        run = _Run(setup, checkpoint)
        if checkpoint is None:
            run.begin(config)
        return run.loop(limits, stop)


class _Stopped(KeyboardInterrupt):
    """Told to stop where nothing is under way that could be lost."""


class _StopSignal:
    """Notes SIGTERM and Ctrl-C, so that the step under way ends and is saved."""

    def __init__(self) -> None:
        self.received = self.idle = False
        self.before: dict[int, Any] = {}

    def __enter__(self) -> "_StopSignal":
        for number in (signal.SIGTERM, signal.SIGINT):
            try:
                self.before[number] = signal.signal(number, self._note)
            except ValueError:  # not the main thread: the caller handles signals
                break
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    @contextmanager
    def breaks_off(self) -> Iterator[None]:
        """What stands under it is broken off by the signal, or not begun after it."""
        self.idle = True
        try:
            if self.received:
                raise _Stopped
            yield
        finally:
            self.idle = False

    def _note(self, *_: object) -> None:
        if self.received:
            raise KeyboardInterrupt
        self.received = True
        if self.idle:
            raise _Stopped


class _Run:
    """The loop and what it writes."""

    def __init__(self, setup: Setup, checkpoint: Checkpoint | None) -> None:
        state = {} if checkpoint is None else checkpoint.state
        self.setup = setup
        self.step = 0 if checkpoint is None else checkpoint.step
        self.seconds: float = state.get("seconds", 0.0)
        self.pending = bool(state.get("pending"))  # whether a validation was broken off
        self.saved = -1  # step of the last checkpoint
        title = f"Training {setup.config.recipe} on {setup.splits.title()}"
        settings = to_dict(setup.shareable_config())
        main = setup.accelerator.is_main_process
        self.journal = Journal(setup.out, title, settings, main)
        self.validator = Validator(setup, self.journal, state.get("best"))
        if main:
            with writing(f"metrics.jsonl of {setup.out}"):
                trim_metrics(setup.out / "metrics.jsonl", self.step)
                set_aside_damaged(setup.out, self.step)

    def begin(self, config: TrainConfig) -> None:
        """Save step 0 and then the configuration: a run that is there can always be resumed."""
        main, out = self.setup.accelerator.is_main_process, self.setup.out
        if main:
            (out / "config.json").unlink(missing_ok=True)  # of a run that never took a step
        self._save()
        if main:
            write_config(out, config)

    def loop(self, limits: Limits, stop: _StopSignal) -> dict[str, Any]:
        """All steps that are left, or up to a limit; the result of `train`."""
        setup, config, optim = self.setup, self.setup.config, self.setup.config.optim
        accelerator, parts, batches = setup.accelerator, setup.parts, setup.batches
        model, optimizer = accelerator.prepare(parts.model, parts.optimizer)
        if config.tensorboard:
            self.journal.open_board(self.step)
        loader = accelerator.prepare_data_loader(
            make_loader(setup.splits, config, batches), device_placement=False
        )
        per_epoch, begun, before = batches.steps_per_epoch, time.monotonic(), self.seconds
        end = min(batches.steps, limits.steps or batches.steps)
        stopped = self.pending and not self._validate(stop)
        model.train()
        # of several processes one that breaks off alone would leave the others waiting for it
        waiting = stop.breaks_off if accelerator.num_processes == 1 else nullcontext
        with (
            Meter("train", end, "steps", done=self.step) as meter,
            Stream(loader, waiting) as stream,
        ):
            while self.step < end and not stopped:
                rate = learning_rate(self.step, per_epoch, optim)
                for group in optimizer.param_groups:
                    group["lr"] = rate * group["factor"]
                try:
                    terms = self._take_step(model, optimizer, stream)
                except _Stopped:
                    self._save()
                    break
                self.step += 1
                self.seconds = before + time.monotonic() - begun
                known = {"step": self.step, "epoch": self.step / per_epoch, "lr": rate}
                self.journal.write(known | terms, self.seconds)
                pairs = meter.rate() * batches.per_step * batches.batch_size
                meter.advance(note=self._describe(rate, terms, pairs))
                late = limits.seconds is not None and time.monotonic() - begun > limits.seconds
                stopped, over = agree(accelerator, stop.received, late)
                every = config.validate_every * per_epoch
                if (every and self.step % every == 0) or self.step == end or over:
                    self.pending = stopped or not self._validate(stop)
                    stopped = stopped or self.pending
                    model.train()
                if self.step % config.checkpoint_every == 0 or self.step == end or over or stopped:
                    self._save()
                if over:
                    break
        self.journal.close()
        accelerator.free_memory()
        return {
            "step": self.step,
            "best": self.validator.best if self.validator.best["step"] else None,
            "seconds": self.seconds,
            "finished": self.step >= batches.steps,
            "interrupted": stop.received,
        }

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

    def _validate(self, stop: _StopSignal) -> bool:
        return self.validator.validate(self.step, self.seconds, lambda: stop.received)

    def _describe(self, rate: float, terms: dict[str, float], pairs: float) -> str:
        """What stands beside the progress bar."""
        parts = " ".join(
            f"{name} {value:.3g}" for name, value in terms.items() if name not in ("total", "norm")
        )
        epochs, best = self.setup.config.optim.epochs, self.validator.best
        epoch = min(self.step // self.setup.batches.steps_per_epoch + 1, epochs)
        memory = peak_memory(self.setup.accelerator.device) / 2**20
        return (
            f"epoch {epoch}/{epochs}  loss {terms['total']:.3f} ({parts})  "
            f"lr {rate:.1e}  {pairs:.1f} pairs/s  {memory:.0f} MiB"
            + (f"  best {best['present']:.1f}" if best["step"] else "")
        )

    def _save(self) -> None:
        if self.step == self.saved:
            return
        self.saved = self.step
        setup = self.setup
        if setup.accelerator.is_main_process:
            tensors = setup.parts.tensors() | {"rng": torch.get_rng_state()}
            state = {
                "best": self.validator.best,
                "seconds": self.seconds,
                "precision": precision_of(setup.accelerator),
                "pending": self.pending,
                "taught": setup.teacher is not None,
                "pairs": fingerprint(setup.splits),
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
    norm = accelerator.clip_grad_norm_(model.parameters(), clip)
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
