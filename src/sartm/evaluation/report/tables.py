"""The tables and sentences of a report, which Markdown and the page share."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sartm.evaluation.modalities import Comparison as ModalityComparison
from sartm.evaluation.modalities import Gain, signed
from sartm.evaluation.protocols import PROTOCOLS, name_mean
from sartm.evaluation.report.published import Comparison, Published
from sartm.evaluation.report.scores import Cell, Report, SubsetScores

NONE = "\N{EN DASH}"
"""What tables show for a value that is not defined."""


@dataclass(frozen=True)
class Table:
    """A titled table; the first column names the row."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def title_of(report: Report) -> str:
    """What the report is about, as its heading."""
    return f"Evaluation: {report.model} on {report.data} ({report.split})"


def distinct_means(report: Report | SubsetScores) -> list[tuple[str, Mapping[str, Any]]]:
    """Every mean under its name; those that are equal once, under all of their names."""
    names: dict[tuple[Any, ...], list[str]] = {}
    for name, mean in report.means.items():
        names.setdefault(tuple(mean.values()), []).append(name)
    found: list[tuple[str, Mapping[str, Any]]] = []
    for alike in names.values():
        of = name_mean(alike[0], [score.name for score in report.classes])
        found.append((of.replace(alike[0], ", ".join(alike)), report.means[alike[0]]))
    return found


def means_table(report: Report) -> Table:
    """Every mean with its interval and what counts in it; equal ones once."""
    rows: dict[tuple[Any, ...], list[str]] = {}
    for name, mean in report.means.items():
        low_high = report.intervals.get(name)
        interval = NONE if low_high is None else f"{low_high[0]:.2f} to {low_high[1]:.2f}"
        counted = f"{mean['counted']} of {len(report.classes)}"
        cells = (number(mean["miou"]), interval, number(mean["macc"]), counted)
        if tuple(mean.values()) in rows:
            rows[tuple(mean.values())][0] += f", {name}"
        else:
            rows[tuple(mean.values())] = [name, *cells, _describe_protocol(name)]
    return Table(
        "Means",
        ("protocol", "mIoU %", "95 % interval", "mAcc %", "classes counted", "what counts"),
        tuple(map(tuple, rows.values())),
        "The interval is a bootstrap over the pairs of the split; it knows nothing of training "
        "seeds, and frames of one drive are more alike than it assumes.",
    )


_MOST_SHOWN = 100
"""Classes whose confusion is shown: a page of thousands squared opens nowhere."""


def modalities_table(found: ModalityComparison | None) -> Table | None:
    """Both cameras and either alone, headline first, then the classes; None if not measured."""
    if found is None:
        return None
    rows = [
        (row.name, number(row.both), number(row.rgb), number(row.thermal),
         describe_gain(row.thermal_adds), describe_gain(row.rgb_adds))
        for row in found.rows
        if row.name != found.rows[0].name.removesuffix(" IoU")  # the headline is this class
    ]  # fmt: skip
    return Table(
        "Does thermal pay?",
        ("IoU %", "both", "RGB only", "thermal only", "thermal adds", "RGB adds"),
        tuple(rows),
        "Points that a camera adds to the other one, with a paired 95 % interval (bootstrap over "
        "the pairs). One model, which was trained to do without either: one trained for RGB alone "
        "may be better than its RGB only.",
    )


def describe_gain(gain: Gain) -> str:
    """Points and their interval, as +3.2 (+1.0 to +5.1)."""
    if gain.points is None:
        return NONE
    if gain.low is None or gain.high is None:
        return signed(gain.points)
    return f"{signed(gain.points)} ({signed(gain.low)} to {signed(gain.high)})"


def class_table(report: Report) -> Table:
    """IoU, accuracy and F1 per class, and IoU per subset."""
    subsets = report.subsets
    rows = []
    for index, score in enumerate(report.classes):
        parts = [number(subset.classes[index].iou) for subset in subsets.values()]
        scores = (number(score.iou), number(score.acc), number(score.f1))
        rows.append((score.name, str(score.id), *scores, *parts, f"{score.pixels:,}"))
    extra = tuple(f"IoU {name} %" for name in subsets)
    head = ("class", "id", "IoU %", "accuracy %", "F1 %", *extra, "truth pixels")
    return Table(
        "Classes",
        head,
        tuple(rows),
        f"{NONE}: undefined. Accuracy needs truth pixels, IoU and F1 truth or predicted ones.",
    )


def subset_table(report: Report) -> Table | None:
    """The means of every subset; None without subsets."""
    if not report.subsets:
        return None
    rows = []
    # means that are equal in every part are one column
    parts = [report.means, *(part.means for part in report.subsets.values())]
    alike: dict[tuple[Any, ...], str] = {}
    for name in report.means:
        alike.setdefault(tuple(means[name]["miou"] for means in parts), name)
    names = list(alike.values())
    everything = SubsetScores(report.pairs, report.means, report.pixel_accuracy, report.classes)
    for name, part in {**report.subsets, "all pairs": everything}.items():
        scores = [number(part.means[name]["miou"]) for name in names]
        rows.append((name, str(part.pairs), *scores, number(part.pixel_accuracy)))
    head = ("subset", "pairs", *(f"{name} mIoU %" for name in names), "pixel accuracy %")
    return Table("Subsets", head, tuple(rows))


@dataclass(frozen=True)
class ConditionScores:
    """What the rows of a report say about one bad condition; mean IoU in percent."""

    name: str
    steps: tuple[tuple[float, float | None], ...]
    """Severity and score, mildest first; empty where there is only one strength."""
    mean: float | None
    worst: float | None
    drop: float | None
    """Points that the mean lies below the undamaged pairs; None where that is not known."""

    @property
    def scores(self) -> list[float]:
        """Every score that was measured."""
        scores = [self.mean, self.worst, *(score for _, score in self.steps)]
        return [score for score in scores if score is not None]


def group_robustness(report: Report) -> list[ConditionScores]:
    """The rows of a report by condition, in their order."""
    groups: dict[str, list[dict[str, Cell]]] = {}
    for row in report.robustness:
        groups.setdefault(str(row["condition"]), []).append(row)
    found = []
    for name, rows in groups.items():
        steps = [
            (float(severity), _score(row, "miou"))
            for row in rows
            if isinstance(severity := row.get("severity"), int | float)
        ]
        rest = {str(row.get("severity")): row for row in rows}
        middle = rest.get("mean", rest.get("None", {}))
        worst = rest.get("worst", rest.get("None", {}))
        found.append(
            ConditionScores(
                name,
                tuple(sorted(steps, key=lambda step: step[0])),
                _score(middle, "miou"),
                _score(worst, "miou"),
                _score(middle or worst, "drop"),
            )
        )
    return found


def _score(row: Mapping[str, Cell], key: str) -> float | None:
    value = row.get(key)
    return float(value) if isinstance(value, int | float) else None


def robustness_table(report: Report) -> Table | None:
    """A row per bad condition, a column per severity; None where they were not measured."""
    conditions = group_robustness(report)
    if not conditions:
        return None
    most = max(len(found.steps) for found in conditions)
    sure = {
        str(row["condition"]): row
        for row in report.robustness
        if "error" in row and row.get("severity") in (None, "mean")
    }
    if not most:
        simple = tuple((found.name, number(found.mean)) for found in conditions)
        return Table("Robustness", ("condition", "mIoU %"), simple)
    rows = []
    for found in conditions:
        steps = [severity for severity, _ in found.steps]
        plain = steps == list(range(1, len(steps) + 1))
        name = found.name if plain else f"{found.name} ({', '.join(f'{step:g}' for step in steps)})"
        scores = [number(score) for _, score in found.steps] + [""] * (most - len(steps))
        ends = [number(found.mean), number(found.worst), number(found.drop)]
        if sure:
            ends.append(number(_score(sure.get(found.name, {}), "error")))
        rows.append((name, *ends, *scores))
    protocols = {str(row["protocol"]) for row in report.robustness if row.get("protocol")}
    of = f" ({', '.join(sorted(protocols))})" if protocols else ""
    return Table(
        "Robustness",
        (
            "condition",
            "mean",
            "worst",
            "lost",
            *["calibration error"] * bool(sure),
            *(str(step) for step in range(1, most + 1)),
        ),
        tuple(rows),
        f"mIoU %{of} by severity, mildest first; in brackets the severities where they are "
        f"quantities of their own. Lost: points that the mean lies below the undamaged pairs. "
        f"{'Calibration error: of objects, in %. ' * bool(sure)}report.json has every number.",
    )


def reliability_table(report: Report) -> Table | None:
    """How far the confidence came true; None where it was not looked at."""
    if not report.reliability:
        return None
    rows = [
        (
            "all pixels" if group == "all" else "pixels of objects",
            *(number(part[key]) for key in ("confidence", "right", "error")),
            f"{part['pixels']:,}",
        )
        for group, part in report.reliability.items()
    ]
    return Table(
        "Confidence",
        ("pixels", "mean confidence %", "right %", "calibration error %", "number"),
        tuple(rows),
        "Calibration error: mean distance of confidence and share right over 15 equal bins of "
        "confidence. Of objects: the truth or the label is not background.",
    )


def risk_table(report: Report) -> Table | None:
    """What is wrong among the surest pixels; None where it was not looked at."""
    if not report.reliability:
        return None
    groups = report.reliability
    coverages = [row["coverage"] for row in next(iter(groups.values()))["risk"]]
    rows = [
        ("all pixels" if group == "all" else "pixels of objects",
         *(number(row["wrong"]) for row in part["risk"]))
        for group, part in groups.items()
    ]  # fmt: skip
    return Table(
        "Risk against coverage",
        ("wrong % among the surest", *(f"{coverage:g} %" for coverage in coverages)),
        tuple(rows),
    )


def confusion_table(report: Report) -> Table:
    """The confusion matrix in percent of each row, of the classes with the most pixels."""
    pixels = [score.pixels for score in report.classes]
    largest = sorted(range(len(pixels)), key=lambda index: -pixels[index])[:_MOST_SHOWN]
    shown = sorted(largest)
    rows = []
    for index in shown:
        counts = report.confusion[index]
        total = sum(counts)
        cells = (_share(counts[other], total) for other in shown)
        rows.append((report.classes[index].name, *cells))
    note = f"Percent of the truth pixels of the row's class; {NONE}: it has no truth pixels."
    if len(pixels) > len(shown):
        note += f" The {len(shown)} classes with the most pixels; report.json has all."
    names = (report.classes[index].name for index in shown)
    return Table("Confusion", ("truth \\ predicted", *names), tuple(rows), note)


def published_tables(report: Report, comparison: Comparison | None) -> Iterator[Table]:
    """Per protocol the published figures and this report, the best first."""
    if comparison is None:
        return
    head = ("system", "year", "mIoU %", "modality", "status", "source", "note")
    for protocol, published in comparison.rows.items():
        rows = [(row.miou, _published_row(row)) for row in published]
        ours = report.means[protocol]["miou"]
        if ours is not None:
            note = "" if comparison.same_images else "other images: not comparable"
            cells = ("this report", NONE, number(ours), report.modality, NONE, "measured", note)
            # Ranked only where a rank means something, else on top.
            rows.append((ours if comparison.same_images else 100.0, cells))
        rows.sort(key=lambda row: -row[0])
        note = (
            "As printed by the source; R: the system's own repository or abstract, "
            "T: another author's table."
        )
        yield Table(f"Published figures, {protocol}", head, tuple(cells for _, cells in rows), note)


def _published_row(row: Published) -> tuple[str, ...]:
    system = row.system if row.backbone is None else f"{row.system} ({row.backbone})"
    notes = [f"chosen on {row.selected_on}"] if row.selected_on else []
    notes += [row.note] if row.note else []
    year = NONE if row.year is None else str(row.year)
    rest = (row.modality, row.status, row.source, "; ".join(notes))
    return system, year, number(row.miou), *rest


def comparison_notes(comparison: Comparison | None) -> list[str]:
    """What to know before comparing, as sentences; none where nothing is compared."""
    if comparison is None or not comparison.rows:
        return []
    left_out = (
        f"{comparison.left_out} further published figures for this data set are left out: "
        f"their mean is another one, or it is not known which."
    )
    return [*comparison.cautions, *([left_out] if comparison.left_out else [])]


def list_facts(report: Report) -> list[tuple[str, str]]:
    """What was scored, as term and value."""
    facts = [
        ("model", report.model),
        ("data", report.data),
        ("split", report.split),
        ("pairs", str(report.pairs)),
        ("modality", report.modality),
        ("label size", report.label_size),
        ("pixel accuracy", f"{number(report.pixel_accuracy)} %"),
    ]
    return [*facts, ("views", _describe_views(report.views))] if report.views else facts


def _describe_views(views: Mapping[str, Any]) -> str:
    """How the model saw each pair, in words."""
    words = ["the whole image"]
    if views["window"]:
        height, width = views["window"]
        words = [f"windows of {height}x{width}, a new one every {views['stride']} pixels"]
    if views["scales"] != [1.0]:
        words.append(f"scales {', '.join(f'{scale:g}' for scale in views['scales'])}")
    if views["flip"]:
        words.append("with mirror images")
    return "; ".join(words)


def list_warnings(report: Report) -> list[str]:
    """What makes the numbers better than they are."""
    found = []
    if report.contaminated:
        found.append(
            f"{len(report.contaminated)} of the {report.pairs} scored pairs were in the model's "
            f"training set: these numbers do not measure how it does on new images."
        )
    if report.selected_on is not None and report.selected_on == report.split:
        found.append(
            f"The checkpoint was chosen on this split ({report.split}): the numbers are optimistic."
        )
    return found


def describe_selection(report: Report) -> str:
    """How the checkpoint was chosen, as a sentence."""
    if report.selected_on is None:
        return "How the checkpoint was chosen is not recorded."
    return f"The checkpoint was chosen on split {report.selected_on}."


def _describe_protocol(name: str) -> str:
    _, classes, zero, absent, predicted = PROTOCOLS[name].row()
    if name == "present":
        return "classes with truth pixels only"
    return (
        f"classes {classes}; ground truth 0 {zero}; a class that does not occur: {absent}; "
        f"one that is only predicted: {predicted}"
    )


def describe_versions(versions: Mapping[str, str]) -> str:
    """The versions behind the numbers, as a list in words."""
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def number(value: float | int | None) -> str:
    """Two decimals; a dash for None."""
    return NONE if value is None else f"{value:.2f}"


def _share(count: int, total: int) -> str:
    if not total:
        return NONE
    share = 100 * count / total
    return "<0.1" if 0 < share < 0.05 else f"{share:.1f}" if share else "0"


def numeric_columns(table: Table) -> list[bool]:
    """Which columns hold numbers, to be set flush right."""
    pattern = re.compile(rf"[-<{NONE}]?[\d.,]*(?: to -?[\d.]+| of \d+)?")
    return [
        bool(table.rows) and all(pattern.fullmatch(cell) for cell in column) and any(column)
        for column in zip(*table.rows, strict=True)
    ] or [False] * len(table.head)
