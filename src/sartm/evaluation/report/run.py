"""What a run shows of itself: pictures at every validation, and a page with learning curves."""

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sartm.evaluation.report.charts import Curve, draw_curve, escape, scroll
from sartm.evaluation.report.page import STYLE
from sartm.evaluation.report.scores import versions
from sartm.evaluation.report.tables import NONE, Table, number
from sartm.io.decode import write_atomic

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
    curves = learning_curves(lines)
    scores = [line for line in lines if "val" in line]
    parts = [
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "style-src 'unsafe-inline'; img-src data:\">",
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n<body>\n",
        f"<header><h1>{escape(title)}</h1>{_cards(lines, scores)}</header>\n<main>\n",
        _section("Learning curves", f'<div class="small">{"".join(map(draw_curve, curves))}</div>'),
    ]
    if scores:
        parts.append(_section("Classes", _table(class_scores(scores))))
    sheets = sorted((run / "report").glob("val-*.jpg"))
    if sheets:
        parts.append(_section("Validation pairs", _pictures(sheets[-1])))
    text = json.dumps(settings, indent=1)
    about = ", ".join(f"{name} {version}" for name, version in versions().items())
    parts.append(_section("Settings", f'<pre>{escape(text)}</pre><p class="soft">{about}</p>'))
    parts.append("</main>\n</body></html>\n")
    target = run / "report" / "report.html"
    write_atomic(target, "".join(parts).encode())
    return target


def class_scores(scores: Sequence[Mapping[str, Any]]) -> Table:
    """IoU of each class at the best validation, at the last, and the most it ever had."""
    best = max(scores, key=lambda line: line["val"]["present"]["miou"] or 0.0)
    last = scores[-1]
    rows = []
    for name in last.get("iou", {}):
        ever = [line["iou"][name] for line in scores if line.get("iou", {}).get(name) is not None]
        most = number(max(ever)) if ever else NONE
        rows.append((name, *(number(line.get("iou", {}).get(name)) for line in (best, last)), most))
    head = ("class", f"best, step {best['step']}", f"last, step {last['step']}", "its highest")
    return Table("IoU % per class on validation", head, tuple(rows), "IoU % on validation.")


def _cards(lines: Sequence[Mapping[str, Any]], scores: Sequence[Mapping[str, Any]]) -> str:
    values = [("steps", str(max((line["step"] for line in lines), default=0)))]
    if lines:
        values.append(("minutes", f"{lines[-1]['seconds'] / 60:.1f}"))
    if scores:
        best = max(scores, key=lambda line: line["val"]["present"]["miou"] or 0.0)
        values += [
            (f"best mIoU % ({name}), step {best['step']}", number(mean["miou"]))
            for name, mean in best["val"].items()
        ]
    items = "".join(f"<li><b>{escape(value)}</b> {escape(term)}</li>" for term, value in values)
    return f'<ul class="cards">{items}</ul>'


def _pictures(sheet: Path) -> str:
    step = int(sheet.stem.split("-")[1])
    source = f"data:image/jpeg;base64,{base64.b64encode(sheet.read_bytes()).decode()}"
    words = "RGB, thermal, ground truth, prediction, errors (bright)"
    return (
        f'<figure class="pair"><figcaption>Step {step}, left to right: {words}</figcaption>'
        f'<div style="display:block"><img src="{source}" alt="{words} of validation pairs"></div>'
        "</figure>\n"
    )


def _section(title: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2>\n{body}</section>\n"


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in table.head)
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th>'
        + "".join(f'<td class="n">{escape(cell)}</td>' for cell in cells)
        + "</tr>\n"
        for name, *cells in table.rows
    )
    return scroll(table, f"<table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table>")
