"""Validation of a run: scores of the split, and the best model kept in best/ with its facts."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch

from sartm.config import to_dict
from sartm.data.pairs import PairDataset
from sartm.evaluation.metrics import ConfusionMatrix, means, percent
from sartm.evaluation.modalities import SINGLE, are_pairs, compare_modalities
from sartm.evaluation.protocols import name_mean
from sartm.evaluation.report.pictures import PairPictures, draw_sample
from sartm.evaluation.report.run import read_metrics
from sartm.evaluation.scoring import count_pairs, score_pairs
from sartm.inference.predictor import Predictor
from sartm.model.checkpoint import save
from sartm.model.facts import ModelFacts, inherit_licence
from sartm.model.hub import WEIGHTS
from sartm.model.sartm import SARTM
from sartm.model.tensors import read_safetensors
from sartm.training.failures import explained_failures
from sartm.training.journal import Journal
from sartm.training.processes import agree, precision_of
from sartm.training.splits import hash_images, join_images
from sartm.training.start import Setup


class Validator:
    """Scores the validation split and keeps the best model; `best` is what was kept last, and
    `settled` what a run that is resumed goes on from."""

    def __init__(self, setup: Setup, journal: Journal, best: dict[str, Any] | None) -> None:
        self.setup, self.journal = setup, journal
        self.best: dict[str, Any] = best or {"present": -1.0, "step": 0}
        self.best.setdefault("headline", ["present mIoU", self.best["present"]])
        self.settled = self.best
        self.headline: float | None = None
        """Of the last validation, in percent."""
        self._images: dict[str, str] | None = None

    def validate(
        self, step: int, seconds: float, stopped: Callable[[], bool], due: bool = True
    ) -> bool:
        """Score the split of every data set after `step`; a new best is written as a model.

        One that is not `due` by the plan stands until the first that is.
        Returns whether it was done: being told to stop breaks it off, without a trace.
        """
        model = self.setup.parts.validated()
        if not self._sets():
            self.keep(model, step, {})
            return True
        found = self._score(model, step - 1, stopped)
        if found is None:
            return False
        scores, each, pictures = found
        self.headline = next(iter(scores.values()))["miou"]
        self.journal.write({"step": step, "val": scores, "iou": each}, seconds)
        self.select_best(model, step, scores)
        if due:
            self.settled = self.best
        self.journal.show(step, pictures)
        return True

    def score_start(self, seconds: float, stopped: Callable[[], bool]) -> bool:
        """Score the model before its first step, to be told beside the best one; see `start`."""
        if self._sets():
            found = self._score(self.setup.parts.validated(), 0, stopped)
            if found is None:
                return False
            self.journal.write({"step": 0, "start": found[0]}, seconds)
        return True

    def start(self) -> dict[str, Any] | None:
        """`headline` and `present` of the model before its first step, where it was scored."""
        scores = [line["start"] for line in read_metrics(self.setup.out) if "start" in line]
        return self._summary(scores[-1]) if scores else None

    def _sets(self) -> list[PairDataset]:
        return [part.val for part in self.setup.splits.sets if part.val is not None]

    def _score(
        self, model: SARTM, step: int, stopped: Callable[[], bool]
    ) -> tuple[dict[str, Any], dict[str, float | None], list[PairPictures]] | None:
        """Means by protocol, IoU by class and pictures of every set; None where it was stopped."""
        sets = self._sets()
        scores: dict[str, Any] = {}
        each: dict[str, float | None] = {}
        pictures: list[PairPictures] = []
        for val in sets:
            with explained_failures(step, self.setup.config):
                found = self._count(model, val, stopped)
            if found is None:
                return None
            matrix, drawn = found
            of = f"{val.name}: " if len(sets) > 1 else ""
            rows = means(matrix, val.classes)
            scores |= {f"{of}{name}": row for name, row in rows.items()}
            ious = zip(val.classes.names, matrix.iou(), strict=True)
            each |= {f"{of}{name}": percent(iou) for name, iou in ious}
            pictures += drawn
        if len(sets) > 1:
            scores = {
                "present": _mean_of([scores[f"{val.name}: present"] for val in sets])
            } | scores
        return scores, each, pictures

    def _summary(self, scores: dict[str, Any]) -> dict[str, Any]:
        headline, mean = next(iter(scores.items()))
        name = name_mean(headline, self.setup.config.model.classes.names)
        return {"present": scores["present"]["miou"] or 0.0, "headline": [name, mean["miou"]]}

    def select_best(self, model: SARTM, step: int, scores: dict[str, Any]) -> None:
        """Keep `model`, of `step`, where its mean over the present classes is the highest yet."""
        summary = self._summary(scores)
        if summary["present"] > self.best["present"]:
            self.best = summary | {"step": step, "means": scores}
            self.keep(model, step, self.best)

    def compare(self, model: SARTM, step: int, seconds: float) -> dict[str, Any] | None:
        """What each camera adds in the best model, as `modalities` of `train`'s result.

        None where there is nothing to compare, or several data sets: `evaluate` does it for each.
        It is measured once, and written down at `step`.
        """
        sets, out = self.setup.splits.sets, self.setup.out
        val = sets[0].val if len(sets) == 1 else None
        if val is None or not self.best["step"] or not are_pairs(val.pairs):
            return None
        known = [line["modalities"] for line in read_metrics(out) if "modalities" in line]
        if known:
            found: dict[str, Any] = known[-1]
            return found
        model = copy.deepcopy(model)
        # of adapters the file lacks the frozen encoder, which this model has
        model.load_state_dict(read_safetensors(out / "best" / WEIGHTS), strict=False)
        counts = count_pairs(self._predictor(model), val, ("both", *SINGLE))
        found = to_dict(compare_modalities(counts, val.classes))
        self.journal.write({"step": step, "modalities": found}, seconds)
        return found

    def _predictor(self, model: SARTM) -> Predictor:
        accelerator = self.setup.accelerator
        return Predictor(
            model,
            device=str(accelerator.device),
            precision=precision_of(accelerator),
            workers=1,  # the loader's processes have the cores too
            thermal_range="model",
        )

    def keep(self, model: SARTM, step: int, results: dict[str, Any]) -> None:
        """Write `model` as it is to best/, with what it was trained on and by which command."""
        setup = self.setup
        if not setup.accelerator.is_main_process:
            return
        if self._images is None:
            self._images = hash_images(setup.splits.seen())
        names = [dataset.name for dataset in setup.splits.seen()]
        inherited: dict[str, str] = {}
        data: tuple[str, ...] = ()
        for before in (setup.parts.model.facts, *setup.taught_by):
            if before is not None:
                inherited = join_images(inherited, before.training_images)
                data = (*data, *before.data)
        before = setup.parts.model.facts
        text = None if before is None else before.text  # language may be taken up again later
        if setup.table is not None and setup.config.loss.language > 0:
            text = to_dict(setup.table)
        facts = ModelFacts(
            name=setup.out.name,
            licence=inherit_licence(setup.parts.model.facts, setup.taught_by, names),
            data=(*data, *names),
            selected_on=setup.splits.selected_on(),
            command=setup.command,
            seed=setup.config.seed,
            steps=step,
            results=results,
            training_images=join_images(inherited, self._images),
            text=text,
            recipe=to_dict(setup.shareable_config()),
        )
        save(model, setup.out / "best", facts)

    def _count(
        self, model: SARTM, val: PairDataset, stopped: Callable[[], bool]
    ) -> tuple[ConfusionMatrix, list[PairPictures]] | None:
        """Counts of the whole split over all ranks, and pictures of its fixed pairs on this one."""
        accelerator, config = self.setup.accelerator, self.setup.config
        several = len(self.setup.splits.sets) > 1
        predictor = self._predictor(model.choose(val.classes) if several else model)
        matrix = ConfusionMatrix(len(val.classes))
        rank, ranks = accelerator.process_index, accelerator.num_processes
        places = range(rank, len(val), ranks)
        shown = {len(places) * i // config.pictures for i in range(config.pictures)}
        pictures = []
        for place, scored in enumerate(score_pairs(predictor, val, places)):
            if stopped():
                break
            matrix.counts += scored.counts
            if place in shown and accelerator.is_main_process:
                rule = config.model.thermal
                pictures.append(draw_sample(scored.sample, scored.labels, val.classes, rule))
        if agree(accelerator, stopped())[0]:
            return None
        if ranks > 1:
            all_counts = torch.from_numpy(matrix.counts).to(accelerator.device)
            matrix.counts = accelerator.reduce(all_counts).cpu().numpy()
        return matrix, pictures


def _mean_of(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What several data sets come to, each as much as another."""

    def mean(key: str) -> float | None:
        values = [row[key] for row in rows if row[key] is not None]
        return sum(values) / len(values) if values else None

    counted = sum(row["counted"] for row in rows)
    return {"miou": mean("miou"), "macc": mean("macc"), "counted": counted}
