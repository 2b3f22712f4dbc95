"""Charts as SVG: bars per class, robustness, learning curves, class shares; templates draw them."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from sartm.classes import Classes
from sartm.evaluation.report.rendering import render
from sartm.evaluation.report.scores import Report
from sartm.evaluation.report.tables import group_robustness, number

_TOP, _BOTTOM = 14.0, 104.0
"""Of the lines in a small chart, in pixels of its 260 x 124."""


@dataclass(frozen=True)
class Curve:
    """One number over the steps of a run; `values` are (step, value)."""

    name: str
    values: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Shares:
    """How much of a group of pairs each class covers."""

    name: str
    labelled: int
    """Pairs with a label."""
    classes: tuple[tuple[float, int], ...]
    """Per class the percent of the pixels, and how many pairs hold it."""


def bars(report: Report) -> Markup:
    """IoU per class as horizontal bars with their values."""
    values = ", ".join(f"{score.name} {number(score.iou)}" for score in report.classes)
    label = f"IoU % per class: {values}"
    return render("bars.html", {"classes": report.classes, "label": label})


def robustness_chart(report: Report) -> Markup:
    """All conditions in one chart: mean and worst score of each beside the undamaged pairs'."""
    conditions = [found for found in group_robustness(report) if found.worst is not None]
    clean = next((found.mean for found in conditions if found.name == "clean"), None)
    summaries = ("all conditions", "worst of all")
    shown = [
        found
        for found in conditions
        if found.name != "clean" and found.drop is not None and not found.name.startswith(summaries)
    ]
    if clean is None or len(shown) < 2:
        return Markup()
    top = _round_up(max(clean, *(max(found.scores) for found in shown)))
    spoken = (f"{found.name} {number(found.mean)}, worst {number(found.worst)}" for found in shown)
    return render(
        "robustness.html",
        {
            "conditions": shown,
            "clean": clean,
            "levels": (0.0, top / 2, top),
            "across": _scale((0.0, top), 150.0, 320.0),
            "label": f"mIoU % under bad conditions, undamaged {clean:.1f}: {'; '.join(spoken)}",
        },
    )


def _scale(values: Sequence[float], first: float, last: float) -> Callable[[float], float]:
    """From numbers, the ends of which are those of `values`, to pixels from `first` to `last`."""
    low, high = min(values), max(values)
    return lambda value: first + (value - low) / ((high - low) or 1) * (last - first)


def _round_up(score: float) -> float:
    """The end of an axis that starts at 0."""
    return next((end for end in (10.0, 20.0, 30.0, 40.0, 60.0, 80.0) if end >= score), 100.0)


def severity_charts(report: Report) -> Markup:
    """One small chart per condition that was measured at two or more severities, of one scale."""
    conditions = group_robustness(report)
    clean = next((found.mean for found in conditions if found.name == "clean"), None)
    measured = {
        found.name: [(severity, score) for severity, score in found.steps if score is not None]
        for found in conditions
    }
    measured = {name: points for name, points in measured.items() if len(points) > 1}
    if not measured:
        return Markup()
    scores = [score for points in measured.values() for _, score in points]
    end = _round_up(max(clean or 0.0, *scores))
    charts = [_severity_chart(name, points, clean, end) for name, points in measured.items()]
    return render("severities.html", {"charts": charts, "clean": clean})


def _severity_chart(
    name: str, points: Sequence[tuple[float, float]], clean: float | None, end: float
) -> Markup:
    x, y = (
        _scale([severity for severity, _ in points], 44.0, 236.0),
        _scale((0, end), _BOTTOM, _TOP),
    )
    values = ", ".join(f"{miou:.1f} at {severity:g}" for severity, miou in points)
    return render(
        "curve.html",
        {
            "name": name,
            "label": f"mIoU % under {name}: {values}",
            "caption": "",
            "left": 34.0,
            "levels": [(y(level), f"{level:g}") for level in (0.0, end / 2, end)],
            "clean": None if clean is None else y(clean),
            "line": [(x(severity), y(miou)) for severity, miou in points],
            "dots": [(x(severity), y(miou), f"{miou:.0f}") for severity, miou in points],
            "ticks": [(x(severity), "middle", f"{severity:g}") for severity, _ in points],
        },
    )


def reliability_charts(report: Report) -> list[Markup]:
    """For all pixels and those of objects how often labels of a confidence are right."""
    charts = []
    x, y = _scale((0.0, 100.0), 44.0, 240.0), _scale((0.0, 100.0), _BOTTOM, _TOP)
    for group, part in report.reliability.items():
        points = [(row["confidence"], row["right"]) for row in part["bins"]]
        name = "all pixels" if group == "all" else "pixels of objects"
        spoken = ", ".join(f"{right:.0f} at {sure:.0f}" for sure, right in points)
        charts.append(
            render(
                "curve.html",
                {
                    "name": name,
                    "label": f"right % by confidence %, {name}: {spoken}",
                    "caption": ", right % by confidence %; dashed: as it should be",
                    "left": 34.0,
                    "levels": [(y(level), f"{level:g}") for level in (0.0, 50.0, 100.0)],
                    "clean": None,
                    "diagonal": ((x(0.0), y(0.0)), (x(100.0), y(100.0))),
                    "line": [(x(sure), y(right)) for sure, right in points],
                    "dots": [(x(sure), y(right), "") for sure, right in points],
                    "ticks": [(x(sure), "middle", f"{sure:g}") for sure in (0.0, 50.0, 100.0)],
                },
            )
        )
    return charts


def draw_curve(curve: Curve) -> Markup:
    """One small chart of a run from its lowest to its highest value."""
    finite = [(step, value) for step, value in curve.values if np.isfinite(value)]
    values = [value for _, value in finite] or [0.0, 1.0]
    low, high = min(values), max(values)
    x, y = _scale([step for step, _ in curve.values], 54.0, 244.0), _scale(values, _BOTTOM, _TOP)
    line = [(x(step), y(value)) for step, value in finite]
    (first, begin), (last, end) = curve.values[0], curve.values[-1]
    return render(
        "curve.html",
        {
            "name": curve.name,
            "label": f"{curve.name}: {begin:.4g} at step {first}, {end:.4g} at step {last}",
            "caption": f", last {end:.4g}",
            "left": 48.0,
            "levels": [(y(value), f"{value:.3g}") for value in (low, high)],
            "clean": None,
            "line": line,
            "dots": [(*point, "") for point in line] if len(curve.values) <= 12 else (),
            "ticks": [(48.0, "start", str(first)), (250.0, "end", str(last))],
        },
    )


def class_shares(name: str, classes: Classes, groups: Sequence[Shares]) -> str:
    """A file of SVG: bars of the classes of data set `name` in every group, such as its splits."""

    def across(share: float) -> float:
        return 380 * max(0.0, min(1.0, (math.log10(max(share, 1e-9)) + 3) / 5))

    title = f"{name}: share of pixels (logarithmic) and pairs with the class"
    return render(
        "class_shares.svg",
        {"title": title, "classes": classes, "groups": groups, "across": across},
    )
