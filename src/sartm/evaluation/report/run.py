"""The page of a run: learning curves, class scores and pictures of its last validation."""

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sartm.config import from_dict
from sartm.evaluation.modalities import Comparison
from sartm.evaluation.report.charts import Curve, draw_curve
from sartm.evaluation.report.pictures import KINDS
from sartm.evaluation.report.rendering import render
from sartm.evaluation.report.scores import versions
from sartm.evaluation.report.tables import Table, describe_versions, modalities_table, number
from sartm.files import write_atomic

POINTS = 120
"""Of a learning curve; longer runs are averaged down to as many."""

HIDDEN = {"step", "epoch", "seconds", "val", "iou"}
"""Keys of metrics.jsonl that are no curve."""


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl; a half-written one is left out."""
    path = run / "metrics.jsonl"
    found = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def learning_curves(lines: Sequence[Mapping[str, Any]]) -> list[Curve]:
    """Every number of a training step, and the mean IoU of every validation, over the steps."""
    series: dict[str, list[tuple[int, float]]] = {}
    for line in lines:
        for name, scores in line.get("val", {}).items():
            if scores["miou"] is not None:
                series.setdefault(f"validation: {name}, mIoU %", []).append(
                    (line["step"], scores["miou"])
                )
        for name, value in line.items():
            if name not in HIDDEN and isinstance(value, int | float):
                series.setdefault(name, []).append((line["step"], float(value)))
    return [Curve(name, _thin(values)) for name, values in series.items()]


def _thin(values: Sequence[tuple[int, float]]) -> tuple[tuple[int, float], ...]:
    """At most POINTS of them, each the mean of its neighbours at the last one's step."""
    if len(values) <= POINTS:
        return tuple(values)
    parts = np.array_split(np.asarray(values), POINTS)
    return tuple((int(part[-1, 0]), float(part[:, 1].mean())) for part in parts)


def write_run_page(run: Path, title: str, settings: Mapping[str, Any]) -> Path:
    """Write report/report.html of a run from its metrics.jsonl and newest sheet.

    Args:
        run: the run's folder.
        title: what the page is about.
        settings: the configuration, shown at the end.
    """
    lines = read_metrics(run)
    validations = [line for line in lines if "val" in line]
    compared = [line["modalities"] for line in lines if "modalities" in line]
    found = from_dict(Comparison, compared[-1], "metrics.jsonl") if compared else None
    sheets = sorted((run / "report").glob("val-*.jpg"))
    page = render(
        "run.html",
        {
            "title": title,
            "values": _headlines(lines, validations),
            "curves": [draw_curve(curve) for curve in learning_curves(lines)],
            "classes": class_scores(validations) if validations else None,
            "comparison": found,
            "modalities": modalities_table(found),
            "sheet": _newest(sheets[-1]) if sheets else None,
            "settings": json.dumps(settings, indent=1),
            "versions": describe_versions(versions()),
        },
    )
    target = run / "report" / "report.html"
    write_atomic(target, page.encode())
    return target


def class_scores(validations: Sequence[Mapping[str, Any]]) -> Table:
    """IoU of each class at the best validation, at the last, and the most it ever had."""
    best, last = _best(validations), validations[-1]
    rows = []
    for name in last.get("iou", {}):
        scores = [line.get("iou", {}).get(name) for line in (best, last, *validations)]
        most = max((score for score in scores if score is not None), default=None)
        rows.append((name, *map(number, (*scores[:2], most))))
    head = ("class", f"best, step {best['step']}", f"last, step {last['step']}", "its highest")
    return Table("IoU % per class on validation", head, tuple(rows), "IoU % on validation.")


def _headlines(
    lines: Sequence[Mapping[str, Any]], validations: Sequence[Mapping[str, Any]]
) -> list[tuple[str, str]]:
    """What the page begins with, as term and value."""
    values = [("steps", str(max((line["step"] for line in lines), default=0)))]
    if lines:
        values.append(("minutes", f"{lines[-1]['seconds'] / 60:.1f}"))
    starts = [line["start"] for line in lines if "start" in line]
    if starts:
        values.append(
            ("present mIoU % of what it starts from", number(starts[-1]["present"]["miou"]))
        )
    if validations:
        best = _best(validations)
        alike: dict[float | None, list[str]] = {}
        for name, mean in best["val"].items():
            alike.setdefault(mean["miou"], []).append(name)
        values += [
            (f"best mIoU % ({', '.join(names)}), step {best['step']}", number(score))
            for score, names in alike.items()
        ]
    return values


def _best(validations: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    return max(validations, key=lambda line: line["val"]["present"]["miou"] or 0.0)


def _newest(sheet: Path) -> dict[str, str]:
    return {
        "step": str(int(sheet.stem.split("-")[1])),
        "columns": ", ".join(KINDS.values()),
        "source": f"data:image/jpeg;base64,{base64.b64encode(sheet.read_bytes()).decode()}",
    }
