"""How much a model loses when a camera fails, shifts, or sees badly: the table, and its record."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sartm.classes import Classes
from sartm.config import Modality, to_dict
from sartm.data.pairs import PairDataset, Sample
from sartm.errors import InputError
from sartm.evaluation.conditions import Condition, choose_conditions, degrade
from sartm.evaluation.metrics import Counts, percent, protocol_means
from sartm.evaluation.protocols import PROTOCOLS, choose_protocols
from sartm.evaluation.reliability import Reliability
from sartm.evaluation.report.scores import Cell
from sartm.evaluation.scoring import score_pairs
from sartm.evaluation.views import Views
from sartm.files import require_plain
from sartm.inference.predictor import Predictor
from sartm.inference.products import fingerprint
from sartm.io.sources import Member
from sartm.progress import Meter

Key = tuple[str, float | None]


class Measured(NamedTuple):
    """One condition at one severity."""

    counts: Counts
    error: float | None
    """Calibration error on objects, a fraction; None where no confidence was there to judge."""


FORMAT = 3
"""Raised when a condition or `_identity` changes, so that counts of before are not mixed with those
after."""


def measure_robustness(
    predictor: Predictor,
    dataset: PairDataset,
    out: Path,
    *,
    conditions: Sequence[Condition] | None = None,
    modality: Modality = "both",
    protocol: str | None = None,
    views: Views = Views(),
    seed: int = 0,
) -> list[dict[str, Cell]]:
    """Score a split as it is and under every condition and severity.

    What is finished is kept in `out`/robustness.jsonl, pixel counts in a line each; the next call
    with the same model, pairs and settings goes on from there. Lines of others are passed over.

    Args:
        predictor: the model, ready to run.
        dataset: the split, labelled.
        out: folder for robustness.jsonl.
        conditions: from `choose_conditions`; None: all that fit `modality`.
        modality: what the model may see.
        protocol: a name of docs/protocols.md; None takes the benchmark's own first.
        views: crops and sizes.
        seed: of what is random in the conditions.

    Returns:
        Rows for a report: `condition`, `severity` (a number, None, or "mean" and "worst" over the
        severities), `protocol`, `miou`, `macc`, `drop` below "clean", and, of single views,
        `error`, the confidence's calibration error on objects; in percent. The last two rows are
        the mean over the conditions and the worst of all.

    Raises:
        InputError: as `scoring.score_pairs`, or where `out` cannot be written.
    """
    chosen = choose_conditions(modality=modality) if conditions is None else list(conditions)
    headline = choose_protocols(dataset.classes, protocol)[0]
    record = _Record(out / "robustness.jsonl", _identity(predictor, dataset, modality, views, seed))
    done = record.read(dataset.classes)
    steps: list[tuple[Key, Callable[[Sample], Sample] | None]] = [(("clean", None), None)]
    steps += [
        ((condition.name, severity), _changed(condition, strength, seed))
        for condition in chosen
        for severity, strength in zip(condition.severities(), condition.strengths, strict=True)
    ]
    todo = [step for step in steps if step[0] not in done]
    total, before = len(steps) * len(dataset), (len(steps) - len(todo)) * len(dataset)
    with Meter("robustness", total, done=before) as meter:
        for key, change in todo:
            size = len(dataset.classes)
            counts: Counts = np.zeros((size, size), np.int64)
            reliability = Reliability()
            scored = score_pairs(
                predictor, dataset, modality=modality, views=views, change=change, judge=True
            )
            for each in scored:
                counts += each.counts
                if each.reliability is not None:
                    reliability.merge(each.reliability)
                meter.advance(note=_title(key))
            error = reliability.error("objects")
            done[key] = Measured(counts, error if np.isfinite(error) else None)
            record.append(key, done[key])
    return _table(done, chosen, headline)


def _changed(condition: Condition, strength: float, seed: int) -> Callable[[Sample], Sample]:
    return lambda sample: degrade(sample, condition, strength, seed)


def _title(key: Key) -> str:
    return key[0] if key[1] is None else f"{key[0]} {key[1]:g}"


# --- The table -----------------------------------------------------------------------------------


def _table(
    done: Mapping[Key, Measured], conditions: Sequence[Condition], protocol: str
) -> list[dict[str, Cell]]:
    clean = _scores(done["clean", None], protocol)
    rows = [_row("clean", None, protocol, clean, clean)]
    means, worsts = [], []
    for condition in conditions:
        scores = []
        for severity in condition.severities():
            scores.append(_scores(done[condition.name, severity], protocol))
            rows.append(_row(condition.name, severity, protocol, scores[-1], clean))
        means.append(np.mean(scores, axis=0))
        worsts.append(min(scores, key=lambda score: score[0]))
        if len(scores) > 1:
            rows.append(_row(condition.name, "mean", protocol, means[-1], clean))
            rows.append(_row(condition.name, "worst", protocol, worsts[-1], clean))
    if len(conditions) > 1:
        worst = int(np.argmin([score[0] for score in worsts]))
        rows.append(_row("all conditions", "mean", protocol, np.mean(means, axis=0), clean))
        name = f"worst of all: {conditions[worst].name}"
        rows.append(_row(name, "worst", protocol, worsts[worst], clean))
    return rows


def _scores(measured: Measured, protocol: str) -> npt.NDArray[np.float64]:
    """Mean IoU, mean accuracy and calibration error, fractions; NaN where there is none."""
    miou, macc, _ = protocol_means(measured.counts, PROTOCOLS[protocol])
    return np.array([miou, macc, np.nan if measured.error is None else measured.error], float)


def _row(
    condition: str,
    severity: float | str | None,
    protocol: str,
    score: npt.NDArray[np.float64],
    clean: npt.NDArray[np.float64],
) -> dict[str, Cell]:
    row: dict[str, Cell] = {
        "condition": condition,
        "severity": severity,
        "protocol": protocol,
        "miou": percent(float(score[0])),
        "macc": percent(float(score[1])),
        "drop": percent(float(clean[0] - score[0])),
    }
    if np.isfinite(score[2]):
        row["error"] = percent(float(score[2]))
    return row


# --- What is kept between runs -------------------------------------------------------------------


def _identity(
    predictor: Predictor, dataset: PairDataset, modality: Modality, views: Views, seed: int
) -> str:
    """A hash of all that the counts depend on: model, files, settings."""
    files = [
        (status.st_size, status.st_mtime_ns)
        for pair in dataset.pairs
        for path in (pair.rgb, pair.thermal, pair.four_channel, pair.label)
        if path is not None
        for status in [(Path(path.archive) if isinstance(path, Member) else path).stat()]
    ]
    settings = {
        "format": FORMAT,
        "model": fingerprint(predictor.model),
        "precision": predictor.precision,
        "thermal_range": predictor.thermal_range,
        "tiling": to_dict(predictor.tiling),
        "data": [
            dataset.name,
            dataset.split,
            dataset.thermal_unit,
            dataset.black_hot,
            dataset.holes,
            dataset.resize_thermal,
        ],
        "classes": [to_dict(classes) for classes in (dataset.classes, dataset.written)],
        "pairs": [(pair.name, pair.coloured_label) for pair in dataset.pairs],
        "files": files,
        "modality": modality,
        "views": to_dict(views),
        "seed": seed,
    }
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


class _Record:
    """robustness.jsonl: a line per condition and severity, appended when it is finished."""

    def __init__(self, path: Path, identity: str) -> None:
        self.path, self.identity = path, identity

    def read(self, classes: Classes) -> dict[Key, Measured]:
        """Counts of finished lines of this identity; lines cut off by a crash do not count."""
        try:
            require_plain(self.path)
            lines = self.path.read_text("utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise InputError(
                f"cannot read {self.path}: {error.strerror}; choose another --out"
            ) from None
        done: dict[Key, Measured] = {}
        for line in lines:
            try:
                values = json.loads(line)
                if values["identity"] != self.identity:
                    continue
                counts = np.array(values["counts"], np.int64)
                if counts.shape == (len(classes), len(classes)) and counts.min() >= 0:
                    off = values["error"]
                    measured = Measured(counts, None if off is None else float(off))
                    done[values["condition"], values["severity"]] = measured
            except (ValueError, KeyError, TypeError, OverflowError):
                continue
        return done

    def append(self, key: Key, measured: Measured) -> None:
        """Add a finished line, on disk when this returns."""
        line = {"identity": self.identity, "condition": key[0], "severity": key[1]}
        text = (
            json.dumps(line | {"counts": measured.counts.tolist(), "error": measured.error}) + "\n"
        )
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a+b") as file:
                if file.tell():
                    file.seek(-1, os.SEEK_END)
                    text = text if file.read(1) == b"\n" else "\n" + text
                file.write(text.encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise InputError(
                f"cannot write {self.path}: {error.strerror}; choose another --out, what is "
                f"finished is kept"
            ) from None
