"""Pictures of numbers: bars, robustness curves and the confusion matrix, as the page's SVG."""

import html

from sartm.report.scores import Report
from sartm.report.tables import Table, clean, confusion_table, number


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


def curves(report: Report) -> str:
    """One small chart per condition that was measured at two or more severities."""
    points: dict[str, list[tuple[float, float]]] = {}
    clean = None
    for row in report.robustness:
        condition, severity, miou = (row.get(key) for key in ("condition", "severity", "miou"))
        if not isinstance(miou, int | float):
            continue
        if str(condition) == "clean":
            clean = float(miou)
        elif isinstance(severity, int | float):
            points.setdefault(str(condition), []).append((float(severity), float(miou)))
    charts = [
        _curve(name, sorted(values), clean) for name, values in points.items() if len(values) > 1
    ]
    return f'<div class="small">{"".join(charts)}</div>\n' if charts else ""


def _curve(name: str, points: list[tuple[float, float]], clean: float | None) -> str:
    left, right, top, bottom = 34.0, 250.0, 14.0, 104.0
    lowest, highest = points[0][0], points[-1][0]

    def place(severity: float, miou: float) -> tuple[float, float]:
        x = left + 10 + (severity - lowest) / ((highest - lowest) or 1) * (right - left - 24)
        return x, bottom - miou / 100 * (bottom - top)

    marks = []
    for level in (0, 50, 100):
        y = place(lowest, level)[1]
        marks.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        marks.append(
            f'<text class="soft" x="{left - 5}" y="{y + 4:.1f}" text-anchor="end">{level}</text>'
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
    dashed = "" if clean is None else f"; dashed: clean, {clean:.1f}"
    return (
        f'<figure><svg viewBox="0 0 260 124" role="img" '
        f'aria-label="{escape(f"mIoU % under {name}: {values}")}">{"".join(marks)}</svg>'
        f"<figcaption><strong>{escape(name)}</strong>, mIoU % by severity{dashed}</figcaption>"
        "</figure>"
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
    return html.escape(clean(text), quote=True)
