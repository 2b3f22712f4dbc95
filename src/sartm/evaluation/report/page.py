"""report.html: one self-contained page for phone, desk and paper."""

from collections.abc import Sequence

from sartm.classes import Colour
from sartm.evaluation.report.charts import (
    bars,
    reliability_charts,
    robustness_chart,
    severity_charts,
)
from sartm.evaluation.report.pictures import KINDS, PairPictures, data_uri
from sartm.evaluation.report.published import Comparison
from sartm.evaluation.report.rendering import render, unbroken
from sartm.evaluation.report.scores import Report
from sartm.evaluation.report.tables import (
    class_table,
    comparison_notes,
    confusion_table,
    describe_selection,
    describe_versions,
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


def to_html(
    report: Report,
    pictures: Sequence[PairPictures] = (),
    comparison: Comparison | None = None,
    palette: Sequence[Colour] = (),
) -> str:
    """report.html: one file without scripts or outside resources.

    `palette`: RGB per class, 0-255, for the legend of the label maps.
    """
    values = [(f"{name} %", number(mean["miou"])) for name, mean in distinct_means(report)]
    values += [("pixel accuracy %", number(report.pixel_accuracy)), ("pairs", str(report.pairs))]
    return render(
        "report.html",
        {
            "title": title_of(report),
            "report": report,
            "warnings": list_warnings(report),
            "values": [(unbroken(term), value) for term, value in values],
            "means": means_table(report),
            "comparison": report.modalities,
            "modalities": modalities_table(report.modalities),
            "bars": bars(report),
            "classes": class_table(report),
            "palette": palette,
            "subsets": subset_table(report),
            "reliability": [
                table for table in (reliability_table(report), risk_table(report)) if table
            ],
            "reliability_charts": reliability_charts(report),
            "conditions": robustness_chart(report) + severity_charts(report),
            "robustness": robustness_table(report),
            "confusion": confusion_table(report),
            "pictures": pictures,
            "kinds": KINDS,
            "data_uri": data_uri,
            "published": list(published_tables(report, comparison)),
            "notes": comparison_notes(comparison),
            "facts": [*list_facts(report), ("checkpoint", describe_selection(report))],
            "versions": f"Versions: {describe_versions(report.versions)}",
        },
    )
