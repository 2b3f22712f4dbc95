"""What clicks were found to be worth: report.json, report.md and a page with the curves."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from sartm.evaluation.report.rendering import render
from sartm.evaluation.report.tables import NONE, Table, describe_versions
from sartm.evaluation.report.texts import markdown_origin, markdown_table, write_texts
from sartm.terminal import as_markdown


@dataclass(frozen=True)
class ClickRow:
    """One way of clicking on some of the objects; IoU in percent."""

    method: str
    """both, rgb, thermal, or another method on both."""
    part: str
    """all, a subset, or `class` and its name."""
    objects: int
    iou: tuple[float, ...]
    """After the first click, the second, ..."""
    low: tuple[float, ...]
    high: tuple[float, ...]
    """Ends of the 95 % intervals over pairs."""
    clicks: float
    """To a mask of 80 %, on average; objects that were given up count as many as were tried."""
    good: float
    """Percent of the objects that came to it."""


@dataclass(frozen=True)
class ClickGain:
    """What both cameras add to the better one of them after so many clicks, in points."""

    part: str
    better: str
    """rgb or thermal."""
    click: int
    points: float
    low: float
    high: float


@dataclass(frozen=True)
class ClickReport:
    """What report.json holds of `evaluate --clicks`."""

    split: str
    data: str
    model: str
    pairs: int
    objects: int
    smallest: int
    """Pixels of the objects that count."""
    rows: tuple[ClickRow, ...]
    gains: tuple[ClickGain, ...]
    encode_ms: float
    """Median of a pair, here."""
    click_ms: float | None
    """Median of a click after the first, here."""
    command: str
    versions: dict[str, str]


def curve_table(report: ClickReport, parts: Sequence[str]) -> Table:
    """IoU after each click with its interval, per method and part."""
    rows = []
    for row in report.rows:
        if row.part in parts:
            values = (
                f"{value:.1f} ({low:.1f} to {high:.1f})"
                for value, low, high in zip(row.iou, row.low, row.high, strict=True)
            )
            name = row.method if row.part == "all" else f"{row.method}, {row.part}"
            rows.append((name, str(row.objects), *values, f"{row.clicks:.1f}", f"{row.good:.0f}"))
    clicks = [f"IoU % at {number}" for number in range(1, _clicks(report) + 1)]
    head = ("seen", "objects", *clicks, "clicks to 80 %", "reach 80 %, %")
    note = f"Objects of {report.smallest} pixels and more; 95 % intervals over pairs."
    return Table("Clicks", head, tuple(rows), note)


def class_rows(report: ClickReport) -> Table:
    """The same per class, with what was seen of both."""
    first = report.rows[0].method
    rows = [
        (
            row.part.removeprefix("class "),
            str(row.objects),
            *(f"{value:.1f}" for value in row.iou),
            f"{row.clicks:.1f}",
        )
        for row in report.rows
        if row.method == first and row.part.startswith("class ")
    ]
    clicks = [f"IoU % at {number}" for number in range(1, _clicks(report) + 1)]
    return Table("Classes", ("class", "objects", *clicks, "clicks to 80 %"), tuple(rows))


def gain_table(report: ClickReport) -> Table | None:
    """What both cameras add."""
    if not report.gains:
        return None
    rows = tuple(
        (
            f"{gain.part}, click {gain.click}",
            f"{gain.points:+.1f}",
            f"{gain.low:+.1f} to {gain.high:+.1f}",
            gain.better,
        )
        for gain in report.gains
    )
    head = ("objects", "points", "95 % interval", "than")
    return Table("Both cameras against the better one", head, rows)


def parts_of(report: ClickReport) -> list[str]:
    """All objects, and the subsets."""
    return list(dict.fromkeys(row.part for row in report.rows if not row.part.startswith("class ")))


def _clicks(report: ClickReport) -> int:
    return max(len(row.iou) for row in report.rows)


def draw_curves(report: ClickReport) -> Markup:
    """IoU over clicks, a line for each way of clicking on all objects."""
    lines, top, bottom, left, right = [], 16.0, 216.0, 40.0, 400.0
    last = max(_clicks(report) - 1, 1)
    for index, row in enumerate(row for row in report.rows if row.part == "all"):
        points = [
            (left + number / last * (right - left), bottom - value / 100 * (bottom - top))
            for number, value in enumerate(row.iou)
        ]
        lines.append({"name": row.method, "points": points, "kind": index, "end": row.iou[-1]})
    levels = [(bottom - level / 100 * (bottom - top), f"{level}") for level in range(0, 101, 20)]
    ticks = [(left + n / last * (right - left), str(n + 1)) for n in range(_clicks(report))]
    spoken = "; ".join(f"{line['name']}: {line['end']:.1f} % at the last" for line in lines)
    return render(
        "click_curves.html",
        {"lines": lines, "levels": levels, "ticks": ticks, "left": left, "right": right,
         "bottom": bottom, "label": f"IoU % over clicks. {spoken}"},
    )  # fmt: skip


def write_click_report(report: ClickReport, out: Path) -> None:
    """Write report.json, report.md and report.html; InputError where `out` cannot be written."""
    title = f"Clicks: {report.model or 'a model'} on {report.data} ({report.split})"
    tables = [curve_table(report, parts_of(report)), gain_table(report), class_rows(report)]
    present = [table for table in tables if table is not None]
    speed = f"encoded in {report.encode_ms:g} ms"
    if report.click_ms is not None:
        speed += f", a further click in {report.click_ms:g} ms (medians on this machine)"
    facts = f"{report.objects} objects of {report.pairs} pairs; {speed}."
    page = render(
        "clicks.html",
        {"title": title, "facts": facts, "curves": draw_curves(report), "tables": present,
         "command": report.command or NONE, "versions": describe_versions(report.versions)},
    )  # fmt: skip
    blocks = [f"# {as_markdown(title)}", as_markdown(facts), *map(markdown_table, present)]
    blocks += markdown_origin(report.command, report.versions)
    values = json.dumps(dataclasses.asdict(report), indent=1, allow_nan=False)
    texts = {"report.json": values, "report.md": "\n\n".join(blocks)}
    write_texts(out, {name: f"{text}\n" for name, text in texts.items()} | {"report.html": page})
