"""What a run shows of itself: pictures at every validation, and a page with learning curves."""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from sartm.evaluation.report.charts import escape, scroll
from sartm.evaluation.report.page import STYLE
from sartm.evaluation.report.pictures import Image, PairPictures
from sartm.evaluation.report.scores import versions
from sartm.evaluation.report.tables import NONE, Table, number
from sartm.files import write_atomic

POINTS = 120
"""Of a learning curve; longer runs are averaged down to as many."""
TILE = 240
"""Width in pixels of one image on a sheet of validation pictures."""

HIDDEN = {"step", "epoch", "seconds", "val", "iou"}
"""Keys of metrics.jsonl that are no curve."""


@dataclass(frozen=True)
class Curve:
    """One number over the steps of a run; `values` are (step, value)."""

    name: str
    values: tuple[tuple[int, float], ...]


def draw_sheet(pairs: Sequence[PairPictures]) -> Image:
    """(H, W, 3) RGB: a row per pair with RGB, thermal, truth, prediction and errors."""
    rows = []
    for pair in pairs:
        tiles = (pair["rgb"], pair["thermal"], pair["truth"], pair["prediction"], pair["error"])
        height, width = pair["truth"].shape[:2]
        size = TILE, max(1, round(height * TILE / width))
        row = [_tile(image, size, flat=place in (2, 3)) for place, image in enumerate(tiles)]
        rows.append(np.concatenate(row, axis=1))
    return np.concatenate(rows)


def _tile(image: Image | None, size: tuple[int, int], flat: bool) -> Image:
    if image is None:
        return np.full((size[1], size[0], 3), 128, np.uint8)
    colour = np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else image
    method = cv2.INTER_NEAREST if flat else cv2.INTER_AREA
    return np.asarray(cv2.resize(colour, size, interpolation=method), np.uint8)


def write_sheet(run: Path, step: int, sheet: Image) -> Path:
    """Write a sheet to report/val-STEP.jpg in the run's folder."""
    target = run / "report" / f"val-{step:08d}.jpg"
    options = [cv2.IMWRITE_JPEG_QUALITY, 92]
    _, encoded = cv2.imencode(".jpg", np.ascontiguousarray(sheet[..., ::-1]), options)
    write_atomic(target, encoded.tobytes())
    return target


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


def draw_curve(curve: Curve) -> str:
    """One small chart from its lowest to its highest value, as SVG."""
    left, right, top, bottom = 48.0, 250.0, 14.0, 104.0
    steps = [step for step, _ in curve.values]
    finite = [value for _, value in curve.values if np.isfinite(value)]
    low, high = min(finite, default=0.0), max(finite, default=1.0)
    wide, tall = (max(steps) - min(steps)) or 1, (high - low) or 1.0

    def place(step: int, value: float) -> str:
        x = left + 6 + (step - min(steps)) / wide * (right - left - 12)
        return f"{x:.1f},{bottom - (value - low) / tall * (bottom - top):.1f}"

    line = " ".join(place(step, value) for step, value in curve.values if np.isfinite(value))
    marks = []
    for value in (low, high):
        y = float(place(steps[0], value).split(",")[1])
        marks.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        marks.append(
            f'<text class="soft" x="{left - 5}" y="{y + 4:.1f}" text-anchor="end">'
            f"{value:.3g}</text>"
        )
    marks.append(f'<polyline class="curve" points="{line}"/>')
    if len(curve.values) <= 12:
        marks += [
            f'<circle class="bar" cx="{x}" cy="{y}" r="3"/>'
            for x, y in (point.split(",") for point in line.split())
        ]
    for step, anchor, x in ((steps[0], "start", left), (steps[-1], "end", right)):
        marks.append(
            f'<text class="soft" x="{x}" y="{bottom + 16}" text-anchor="{anchor}">{step}</text>'
        )
    first, last = curve.values[0], curve.values[-1]
    label = f"{curve.name}: {first[1]:.4g} at step {first[0]}, {last[1]:.4g} at step {last[0]}"
    return (
        f'<figure><svg viewBox="0 0 260 124" role="img" aria-label="{escape(label)}">'
        f"{''.join(marks)}</svg><figcaption><strong>{escape(curve.name)}</strong>, last "
        f"{last[1]:.4g}</figcaption></figure>"
    )


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
