"""Learning clicks: a decoder beside the heads for classes, whose every weight stays as it is.

A run's folder is like that of any training: config.json, metrics.jsonl, checkpoints/, best/. What
a step does is in `training.clicking`. Everything drawn comes from (seed, step), so that a run that
is killed and resumed ends as an undisturbed one.
"""

import copy
import json
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from sartm.config import Positive, Range, check_ranges, from_dict, to_dict
from sartm.data.layouts import open_layout
from sartm.data.pairs import PairDataset
from sartm.data.targets import find_targets
from sartm.errors import InputError
from sartm.evaluation.clicks import ModelClicker, click_through
from sartm.files import read_json, write_atomic
from sartm.inference.clicks import Promptable
from sartm.inference.devices import choose_device
from sartm.inference.products import fingerprint as model_fingerprint
from sartm.model.checkpoint import save
from sartm.model.clicks import ClickDecoder, ClickMaps
from sartm.model.facts import ModelFacts, inherit_licence
from sartm.model.loading import load_for_training
from sartm.model.looking import draw_pixels, frozen_maps
from sartm.model.sartm import SARTM
from sartm.progress import Meter
from sartm.training.checks import check_folder, require_apart, require_same_pairs
from sartm.training.clicking import ClickSettings, mean_terms, prepare_lesson, teach
from sartm.training.journal import Journal
from sartm.training.mixture import Mixture
from sartm.training.optimizer import make_average
from sartm.training.processes import hold_run
from sartm.training.runs import (
    Checkpoint,
    latest_checkpoint,
    set_aside_damaged,
    trim_metrics,
    write_checkpoint,
    writing,
)
from sartm.training.splits import Splits, fingerprint, hash_images, join_images, open_labelled

log = logging.getLogger("sartm")

RECIPE = "clicks"
VALIDATED = 90
"""Objects of the validation split that a run looks at each time."""
SMALLEST = 200
"""Pixels that each of them has at least."""
CLICKS = 3


@dataclass(frozen=True)
class ClickConfig:
    """A run that learns clicks, complete."""

    recipe: str = RECIPE
    init: str = "mini"
    """Model whose maps are clicked on."""
    data: tuple[str, ...] = ()
    data_weights: tuple[Positive, ...] = ()
    """How much of the steps is of each; empty: as much of each."""
    seed: Annotated[int, Range(0, 2**32 - 1)] = 0
    clicks: ClickSettings = field(default_factory=ClickSettings)

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.recipe != RECIPE:
            raise InputError(f"this is a run of {self.recipe!r}, not one that learns clicks")
        if not self.init:
            raise InputError(
                "init is empty, but clicks are learned on a model; name one with --init MODEL"
            )
        if self.data_weights and len(self.data_weights) != len(self.data):
            raise InputError(
                f"{len(self.data_weights)} data_weights for {len(self.data)} data sets; give one "
                f"for each, as --data A:1 --data B:0.5 does"
            )


def read_click_run(out: Path) -> ClickConfig:
    """The configuration of a run that learns clicks; InputError where there is none."""
    return from_dict(ClickConfig, read_json(out / "config.json"), str(out / "config.json"))


def train_clicks(
    config: ClickConfig,
    out: Path,
    *,
    resume: bool = False,
    max_steps: int | None = None,
    max_seconds: float | None = None,
    device: str = "auto",
    command: str = "",
) -> dict[str, Any]:
    """Teach a model to answer clicks and keep the decoder that is best on the validation splits.

    Args:
        config: the whole run.
        out: the run's folder; `best/` in it is the model, its labels being those of `config.init`.
        resume: continue from the newest checkpoint in `out`.
        max_steps: stop after so many in all, to be continued.
        max_seconds: of this session; it stops there, to be continued.
        device: "auto", "cpu", "cuda" or "mps".
        command: what the user typed, for the model card.

    Returns:
        {"step", "steps", "best": {"step", "iou": after each click, in percent} or None, "seconds",
        "finished", "interrupted"}.

    Raises:
        InputError: no data, or none with objects; pairs without a label, or that are both trained
            and validated on; a folder that holds a run, or one to resume that holds none or one of
            other settings, other pairs or another model; a file that cannot be written.
    """
    with hold_run(out):
        checkpoint = latest_checkpoint(out) if resume else None
        check_folder(out, config, read_click_run, resume, restored=checkpoint is not None)
        if not config.data:
            raise InputError("no data set; name one or more with --data")
        run = _Run(config, out, checkpoint, device, command)
        if checkpoint is None:
            with writing(f"config.json of {out}", begins=True):
                text = json.dumps(to_dict(config), indent=1)
                write_atomic(out / "config.json", text.encode(), durable=True)
        return run.loop(max_steps, max_seconds)


class _Run:
    """The loop and what it writes."""

    def __init__(
        self, config: ClickConfig, out: Path, before: Checkpoint | None, device: str, command: str
    ) -> None:
        self.config, self.out, self.command = config, out, command
        self.device = choose_device(device)
        self.splits = Splits(tuple(open_labelled(open_layout(name)) for name in config.data))
        if before is None:
            require_apart(self.splits)
        else:
            require_same_pairs(before, self.splits, out)
        self.sets = self.splits.seen()
        self.val = [part.val for part in self.splits.sets if part.val is not None]
        self.model = load_for_training(config.init).eval().requires_grad_(False)
        self.begun_from = model_fingerprint(self.model)
        if before is not None and before.state.get("init", self.begun_from) != self.begun_from:
            raise InputError(
                f"{config.init} is another model than when {out} was begun, and its clicks belong "
                f"to the one before. Put that one back, or start a new run with --out"
            )
        self.network = self.model.merged().to(self.device)
        self.network.clicks = None
        torch.manual_seed(config.seed)
        self.decoder = ClickDecoder(self.model.config.width).to(self.device)
        if self.model.clicks is not None:
            self.decoder.load_state_dict(self.model.clicks.state_dict())
        sizes = [len(part) for part in self.sets]
        self.epoch = sum(sizes)
        self.order = Mixture(sizes, config.data_weights, self.epoch, config.seed)
        settings = config.clicks
        decay = [p for p in self.decoder.parameters() if p.ndim > 1]
        free = [p for p in self.decoder.parameters() if p.ndim <= 1]
        groups: list[dict[str, Any]] = [{"params": decay}, {"params": free, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(
            groups,
            lr=settings.lr,
            weight_decay=settings.weight_decay,
        )
        self.average = make_average(self.decoder, settings.ema)
        self.step, self.seconds = 0, 0.0
        self.best: dict[str, Any] = {"step": 0, "score": -1.0}
        self._images: dict[str, str] | None = None
        if before is not None:
            self._restore(before)
        self.journal = Journal(
            out, f"Learning clicks on {self.splits.title()}", to_dict(config), True
        )
        trim_metrics(out / "metrics.jsonl", self.step)
        set_aside_damaged(out, self.step)

    def _restore(self, before: Checkpoint) -> None:
        """Go on from a checkpoint."""
        self.step = before.step
        self.seconds, self.best = before.state["seconds"], before.state["best"]
        for name, module in (("decoder", self.decoder), ("average", self.average)):
            if module is None:
                continue
            start = f"{name}."
            module.load_state_dict({
                key.removeprefix(start): value for key, value in before.tensors.items()
                if key.startswith(start)
            })  # fmt: skip
        state = self.optimizer.state_dict()
        for key, value in before.tensors.items():
            if key.startswith("optimizer."):
                _, index, name = key.split(".")
                state["state"].setdefault(int(index), {})[name] = value
        self.optimizer.load_state_dict(state)

    def _save(self) -> None:
        tensors = {f"decoder.{key}": value for key, value in self.decoder.state_dict().items()}
        if self.average is not None:
            tensors |= {f"average.{key}": value for key, value in self.average.state_dict().items()}
        for index, kept in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": value for name, value in kept.items()}
        state = {"seconds": self.seconds, "best": self.best,
                 "pairs": fingerprint(self.splits), "init": self.begun_from}  # fmt: skip
        write_checkpoint(self.out, Checkpoint(self.step, tensors, state), keep=2)

    def loop(self, most: int | None, limit: float | None) -> dict[str, Any]:
        """All steps that are left, or up to a limit."""
        settings = self.config.clicks
        end = settings.steps if most is None else min(settings.steps, most)
        begun, before, interrupted = time.monotonic(), self.seconds, False
        if self.step == 0:
            self._save()
        try:
            with Meter("clicks", end, "steps", done=self.step) as meter:
                while self.step < end and (limit is None or time.monotonic() - begun < limit):
                    terms = self._take_step()
                    self.step += 1
                    self.seconds = before + time.monotonic() - begun
                    self.journal.write({"step": self.step, **terms}, self.seconds)
                    meter.advance(note=f"loss {terms['total']:.3f}  IoU {100 * terms['iou']:.0f} %")
                    if self.step % settings.validate_every == 0 or self.step == settings.steps:
                        self._validate()
                    if self.step % settings.checkpoint_every == 0 or self.step == settings.steps:
                        self._save()
            if self.step < settings.steps:
                self._save()
                if not self.best["step"]:  # something to look at; where it stops leaves no trace
                    self._write(self._with_clicks(), [])
        except KeyboardInterrupt:
            interrupted = True
            log.warning("interrupted; the checkpoint before is kept")
        self.journal.close()
        return {
            "step": self.step,
            "steps": settings.steps,
            "best": self.best if self.best["step"] else None,
            "seconds": self.seconds,
            "finished": self.step >= settings.steps,
            "interrupted": interrupted,
        }

    def _take_step(self) -> dict[str, float]:
        settings = self.config.clicks
        rate = learning_rate(self.step, settings)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        found, place = [], 0
        for place in range(settings.images):
            found += self._look_at(self.step * settings.images + place)
        if not found:
            raise InputError(
                "no objects in the pairs of a step: clicks are learned from labelled objects, as "
                "`sartm data check` counts them"
            )
        terms = mean_terms(found)
        loss = float(terms["total"].detach())
        if not math.isfinite(loss):
            raise InputError(
                f"the loss is {loss} at step {self.step + 1}; lower --set clicks.lr, the last "
                f"checkpoint is kept"
            )
        self.optimizer.zero_grad(set_to_none=True)
        terms["total"].backward()
        torch.nn.utils.clip_grad_norm_(self.decoder.parameters(), 1.0)
        self.optimizer.step()
        if self.average is not None:
            self.average.update_parameters(self.decoder)
        return {name: float(value.detach()) for name, value in terms.items()} | {"lr": rate}

    def _look_at(self, number: int) -> list[dict[str, Tensor]]:
        """The losses of the pair that stands at a place of the run; the next one's if it has no
        objects."""
        settings = self.config.clicks
        for attempt in range(20):
            place = number + attempt * 7919  # far from what comes soon
            _, index = self.order.keys(place // self.epoch)[place % self.epoch]
            part, index = self._find(index)
            draw = np.random.default_rng((self.config.seed, number, attempt))
            rule = self.model.config.thermal
            instances = part.instances(index)
            lesson = prepare_lesson(part[index], part.classes, rule, settings, draw, instances)
            if lesson is None:
                continue
            rgb, thermal = (
                None if x is None else x.to(self.device) for x in (lesson.rgb, lesson.thermal)
            )
            with torch.no_grad():
                levels, drawn = frozen_maps(self.network, rgb, thermal)
                pixels = draw_pixels(self.network, rgb, thermal)
            maps = ClickMaps(self.decoder.features(levels, drawn), pixels)
            return teach(self.decoder, maps, lesson, settings, draw)
        return []

    def _find(self, index: int) -> tuple[PairDataset, int]:
        """The data set of a pair, and its place in it, from its place among all."""
        for part in self.sets[:-1]:
            if index < len(part):
                return part, index
            index -= len(part)
        return self.sets[-1], index

    def _validate(self) -> None:
        """Click through objects of the validation splits; a new best is written as a model."""
        model = self._with_clicks()
        ious = validate_clicks(model, self.val, VALIDATED, str(self.device))
        if not ious:
            if self.val:
                log.warning(
                    "no object of %d pixels or more to validate on: the last step is kept", SMALLEST
                )
            self._keep(model, [])
            return
        means = (100 * np.mean(ious, 0)).tolist()
        named = {f"IoU after click {number}, %": value for number, value in enumerate(means, 1)}
        self.journal.write({"step": self.step} | named, self.seconds)
        log.info("step %d: IoU %s", self.step, " ".join(f"{value:.1f}" for value in means))
        if float(np.mean(means)) > self.best["score"]:
            self._keep(model, means)

    def _keep(self, model: SARTM, means: list[float]) -> None:
        self.best = {
            "step": self.step, "score": float(np.mean(means)) if means else 0.0, "iou": means
        }  # fmt: skip
        self._write(model, means)

    def _write(self, model: SARTM, means: list[float]) -> None:
        """Write the model, its card saying what its clicks have learned from."""
        facts = model.facts or ModelFacts()
        names = [part.name for part in self.sets]
        clicks = {"iou": means, "step": self.step, "seed": self.config.seed, "data": names,
                  "command": self.command}  # fmt: skip
        if self._images is None:
            self._images = hash_images(self.sets)
        new = [name for name in names if name not in facts.data]
        facts = replace(
            facts,
            data=(*facts.data, *new),
            licence=inherit_licence(facts, [], new) if new else facts.licence,
            training_images=join_images(facts.training_images, self._images),
            results=facts.results | {"clicks": clicks},
        )
        save(model, self.out / "best", facts, full=True)

    def _with_clicks(self) -> SARTM:
        """The model with the decoder that is validated."""
        average = self.average
        return with_clicks(self.model, self.decoder if average is None else average.module)


def with_clicks(model: SARTM, decoder: torch.nn.Module) -> SARTM:
    """The same model, its weights shared, with a decoder for clicks."""
    other = copy.copy(model)
    clicks = ClickDecoder(model.config.width)
    clicks.load_state_dict(decoder.state_dict())
    other._modules = dict(model._modules)
    other.clicks = clicks.eval()
    other.config = replace(model.config, clicks=True)
    return other


def learning_rate(step: int, settings: ClickSettings) -> float:
    """Linear over the first 50 steps, then a cosine to 0."""
    warm = min(1.0, (step + 1) / 50)
    return settings.lr * warm * 0.5 * (1 + math.cos(math.pi * step / settings.steps))


def validate_clicks(
    model: SARTM, sets: Sequence[PairDataset], most: int, device: str
) -> list[list[float]]:
    """IoU after each of some clicks of objects, evenly from the pairs of all sets."""
    prompt = Promptable(model, device=device, precision="fp32", thermal_range="model")
    pairs = [(part, index) for part in sets for index in range(len(part))]
    each = 3
    chosen = pairs[:: max(1, len(pairs) * each // most)]
    ious = []
    for part, index in chosen:
        sample = part[index]
        assert sample.label is not None
        objects = find_targets(sample.label, part.classes, SMALLEST)
        if not objects:
            continue
        scene = prompt.encode_sample(sample)
        ignored = sample.label == part.classes.ignore
        for number in range(0, len(objects), max(1, len(objects) // each)):
            clicker = ModelClicker(prompt, scene)
            ious.append(list(click_through(clicker, objects[number].mask, ignored, CLICKS)))
    return ious
