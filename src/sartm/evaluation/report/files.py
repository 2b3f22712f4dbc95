"""A report as files: report.json for programs, report.md for a forge, report.html to look at."""

import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path

from sartm.classes import Colour
from sartm.evaluation.report.page import to_html
from sartm.evaluation.report.pictures import PairPictures
from sartm.evaluation.report.published import Comparison
from sartm.evaluation.report.scores import Report
from sartm.evaluation.report.tables import (
    class_table,
    comparison_notes,
    confusion_table,
    describe_selection,
    distinct_means,
    list_facts,
    list_warnings,
    means_table,
    modalities_table,
    number,
    published_tables,
    reliability_table,
    risk_table,
    robustness_table,
    subset_table,
    title_of,
)
from sartm.evaluation.report.texts import markdown_origin, markdown_table, write_texts
from sartm.terminal import as_markdown


def write_report(
    report: Report,
    out: Path,
    pictures: Sequence[PairPictures] = (),
    comparison: Comparison | None = None,
    palette: Sequence[Colour] = (),
) -> None:
    """Write report.json, report.md and report.html into the folder `out`, each whole or not at all.

    Raises InputError where `out` cannot be written.
    """
    texts = {
        "report.json": to_json(report),
        "report.md": to_markdown(report, comparison),
        "report.html": to_html(report, pictures, comparison, palette),
    }
    write_texts(out, texts)


def to_json(report: Report) -> str:
    """report.json; None becomes null, and what was not measured is left out."""
    values = dataclasses.asdict(report)
    for optional in ("intervals", "views", "robustness", "modalities", "reliability"):
        if not values[optional]:
            del values[optional]
    text = json.dumps(values, indent=2, allow_nan=False)
    # One line per row of numbers: a 15x15 matrix is otherwise 255 lines of one number each.
    # No string holds a line break in JSON, so nothing but lists of numbers can match.
    rows = re.compile(r"\[\n\s+([-\d.]+(?:,\n\s+[-\d.]+)*)\n\s+\]")
    return rows.sub(lambda found: "[" + " ".join(found[1].split()) + "]", text) + "\n"


def to_markdown(report: Report, comparison: Comparison | None = None) -> str:
    """report.md: the tables, readable as text and on a forge."""
    name, mean = next(iter(distinct_means(report)))
    blocks = [
        f"# {as_markdown(title_of(report))}",
        f"**{as_markdown(name)} {number(mean['miou'])} %** over {report.pairs} pairs",
        *(f"> **Warning.** {as_markdown(warning)}" for warning in list_warnings(report)),
    ]
    if report.contaminated:
        some = ", ".join(as_markdown(pair) for pair in report.contaminated[:20])
        rest = len(report.contaminated) - 20
        blocks.append(f"Training pairs: {some}{f' and {rest} more' if rest > 0 else ''}")
    blocks.append(
        "\n".join(f"* {term}: {as_markdown(value)}" for term, value in list_facts(report))
    )
    blocks.append(as_markdown(describe_selection(report)))
    if report.modalities is not None:
        blocks.append(as_markdown(report.modalities.sentence))
    tables = [means_table(report), modalities_table(report.modalities)]
    tables += [class_table(report), subset_table(report)]
    tables += [reliability_table(report), risk_table(report)]
    tables += [robustness_table(report), confusion_table(report)]
    blocks += [markdown_table(table) for table in tables if table is not None]
    blocks += [markdown_table(table) for table in published_tables(report, comparison)]
    blocks += [f"* {as_markdown(text)}" for text in comparison_notes(comparison)]
    blocks += markdown_origin(report.command, report.versions)
    return "\n\n".join(blocks) + "\n"
