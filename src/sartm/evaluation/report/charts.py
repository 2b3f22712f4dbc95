"""Pictures of numbers: bars, robustness curves and the confusion matrix, as the page's SVG."""

import html
from dataclasses import dataclass

import numpy as np

from sartm.evaluation.report.scores import Report
from sartm.evaluation.report.tables import (
    ConditionScores,
    Table,
    clean_text,
    confusion_table,
    group_robustness,
    number,
)


def bars(report: Report) -> str:
    """IoU per class as horizontal bars with their values."""
    step, left, width = 24, 132, 230
    rows = []
    for index, score in enumerate(report.classes):
        y = index * step
        name = score.name if len(score.name) < 19 else f"{score.name[:17]}…"
        rows.append(
            f'<text x="{left - 8}" y="{y + 16}" text-anchor="end">{escape(name)}</text>'
            f'<rect class="track" x="{left}" y="{y + 4}" width="{width}" height="16"/>'
        )
        if score.iou is None:
            rows.append(f'<text class="soft" x="{left + 6}" y="{y + 16}">does not occur</text>')
            continue
        rows.append(
            f'<rect class="bar" x="{left}" y="{y + 4}" width="{score.iou / 100 * width:.1f}" '
            f'height="16"/><text x="{left + width + 8}" y="{y + 16}">{score.iou:.1f}</text>'
        )
    values = ", ".join(f"{score.name} {number(score.iou)}" for score in report.classes)
    label = escape(f"IoU % per class: {values}")
    return (
        f'<figure class="bars" style="margin:0 0 1rem"><svg viewBox="0 0 420 '
        f'{step * len(report.classes)}" role="img" aria-label="{label}">'
        f"{''.join(rows)}</svg><figcaption>IoU % per class</figcaption></figure>\n"
    )


def robustness_chart(report: Report) -> str:
    """All conditions in one chart: mean and worst score of each beside the undamaged pairs'."""
    conditions = [one for one in group_robustness(report) if one.worst is not None]
    clean = next((one.mean for one in conditions if one.name == "clean"), None)
    shown = [one for one in conditions if one.name != "clean" and one.drop is not None]
    shown = [one for one in shown if not one.name.startswith(("all conditions", "worst of all"))]
    if clean is None or len(shown) < 2:
        return ""
    top = _round_up(max(clean, *(max(_values(one)) for one in shown)))
    step, left, width = 22, 150, 170
    bottom = 26 + step * len(shown)

    def across(score: float) -> float:
        return left + score / top * width

    marks = []
    for level in (0.0, top / 2, top):
        x = across(level)
        marks.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="22" y2="{bottom}"/>')
        marks.append(f'<text class="soft" x="{x:.1f}" y="14" text-anchor="middle">{level:g}</text>')
    x = across(clean)
    marks.append(f'<line class="clean" x1="{x:.1f}" x2="{x:.1f}" y1="22" y2="{bottom}"/>')
    for index, one in enumerate(shown):
        y = 36 + index * step
        assert one.worst is not None
        mean = one.worst if one.mean is None else one.mean
        low, high = across(min(_values(one))), across(max(_values(one)))
        marks.append(
            f'<text x="{left - 10}" y="{y + 4}" text-anchor="end">{escape(one.name[:22])}</text>'
            f'<line class="range" x1="{low:.1f}" x2="{high:.1f}" y1="{y}" y2="{y}"/>'
            f'<circle class="bar" cx="{across(mean):.1f}" cy="{y}" r="4"/>'
            f'<line class="end" x1="{low:.1f}" x2="{low:.1f}" y1="{y - 5}" y2="{y + 5}"/>'
            f'<text class="soft" x="{left + width + 14}" y="{y + 4}">'
            f"{mean:.1f} / {one.worst:.1f}</text>"
        )
    spoken = "; ".join(f"{one.name} {number(one.mean)}, worst {number(one.worst)}" for one in shown)
    label = escape(f"mIoU % under bad conditions, undamaged {clean:.1f}: {spoken}")
    return (
        f'<figure class="chart"><svg viewBox="0 0 400 {bottom + 4}" role="img" '
        f'aria-label="{label}">{"".join(marks)}</svg><figcaption>mIoU %: dot the mean over the '
        f"severities, tick the worst (both at the right), line all of them; dashed: undamaged, "
        f"{clean:.1f}</figcaption></figure>\n"
    )


def _values(one: ConditionScores) -> list[float]:
    scores = [one.mean, one.worst, *(score for _, score in one.steps)]
    return [score for score in scores if score is not None]


def _round_up(score: float) -> float:
    """The end of an axis that starts at 0."""
    return next((end for end in (10.0, 20.0, 30.0, 40.0, 60.0, 80.0) if end >= score), 100.0)


def curves(report: Report) -> str:
    """One small chart per condition that was measured at two or more severities, of one scale."""
    conditions = group_robustness(report)
    clean = next((one.mean for one in conditions if one.name == "clean"), None)
    points = {
        one.name: [(severity, score) for severity, score in one.steps if score is not None]
        for one in conditions
    }
    points = {name: values for name, values in points.items() if len(values) > 1}
    if not points:
        return ""
    top = _round_up(max(clean or 0.0, *(score for some in points.values() for _, score in some)))
    charts = [_curve(name, values, clean, top) for name, values in points.items()]
    dashed = "" if clean is None else f"; dashed: undamaged, {clean:.1f}"
    head = f'<p class="soft">mIoU % by severity{dashed}</p>\n'
    return f'{head}<div class="small">{"".join(charts)}</div>\n'


def _curve(name: str, points: list[tuple[float, float]], clean: float | None, end: float) -> str:
    left, right, top, bottom = 34.0, 250.0, 14.0, 104.0
    lowest, highest = points[0][0], points[-1][0]

    def place(severity: float, miou: float) -> tuple[float, float]:
        x = left + 10 + (severity - lowest) / ((highest - lowest) or 1) * (right - left - 24)
        return x, bottom - miou / end * (bottom - top)

    marks = []
    for level in (0.0, end / 2, end):
        y = place(lowest, level)[1]
        marks.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        marks.append(
            f'<text class="soft" x="{left - 5}" y="{y + 4:.1f}" text-anchor="end">{level:g}</text>'
        )
    if clean is not None:
        y = place(lowest, clean)[1]
        marks.append(f'<line class="clean" x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
    places = [place(*point) for point in points]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    marks.append(f'<polyline class="curve" points="{line}"/>')
    for (severity, miou), (x, y) in zip(points, places, strict=True):
        below = y + 16 if y < bottom - 20 else y - 7  # above, it would meet the dashed line
        marks.append(
            f'<circle class="bar" cx="{x:.1f}" cy="{y:.1f}" r="3"/>'
            f'<text x="{x:.1f}" y="{below:.1f}" text-anchor="middle">{miou:.0f}</text>'
            f'<text class="soft" x="{x:.1f}" y="{bottom + 16:.1f}" text-anchor="middle">'
            f"{severity:g}</text>"
        )
    values = ", ".join(f"{miou:.1f} at {severity:g}" for severity, miou in points)
    return (
        f'<figure><svg viewBox="0 0 260 124" role="img" '
        f'aria-label="{escape(f"mIoU % under {name}: {values}")}">{"".join(marks)}</svg>'
        f"<figcaption><strong>{escape(name)}</strong></figcaption></figure>"
    )


def heat_map(report: Report) -> str:
    """The confusion matrix, rows normalised; shade grows with the root, so that 1 % is visible."""
    table = confusion_table(report)
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in table.head)
    body = []
    for index, (name, *cells) in enumerate(table.rows):
        counts = report.confusion[index]
        total = max(1, sum(counts))
        row = "".join(
            f'<td class="{"d" if column == index else "o"}" '
            f'style="--v:{(count / total) ** 0.5:.2f}">{escape(cell)}</td>'
            for column, (cell, count) in enumerate(zip(cells, counts, strict=True))
        )
        body.append(f'<tr><th scope="row">{escape(name)}</th>{row}</tr>\n')
    inner = f"<thead><tr>{head}</tr></thead>\n<tbody>{''.join(body)}</tbody>"
    return scroll(table, f'<table class="heat">{inner}</table>')


def scroll(table: Table, inner: str) -> str:
    """The table in its own scrolling box; the note stays outside, where a phone shows all of it."""
    label = f'role="region" aria-label="{escape(table.title)}" tabindex="0"'
    note = f'<p class="soft">{escape(table.note)}</p>\n' if table.note else ""
    return f'<div class="scroll" {label}>{inner}</div>\n{note}'


def escape(text: str) -> str:
    """Text as HTML shows it, in content and in attributes."""
    return html.escape(clean_text(text), quote=True)


@dataclass(frozen=True)
class Curve:
    """One number over the steps of a run; `values` are (step, value)."""

    name: str
    values: tuple[tuple[int, float], ...]


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
