"""report.html: one self-contained page for phone, desk and paper."""

import re
from collections.abc import Sequence

from sartm.classes import Colour
from sartm.evaluation.report.charts import bars, curves, escape, heat_map, robustness_chart, scroll
from sartm.evaluation.report.pictures import Image, PairPictures, data_uri
from sartm.evaluation.report.published import Comparison
from sartm.evaluation.report.scores import Report
from sartm.evaluation.report.tables import (
    Table,
    class_table,
    comparison_notes,
    describe_selection,
    describe_versions,
    list_facts,
    list_warnings,
    means_table,
    number,
    numeric_columns,
    published_tables,
    robustness_table,
    subset_table,
)

STYLE = """
:root{color-scheme:light dark;--back:#fff;--box:#f5f6f8;--text:#16191d;--soft:#5a626c;
--line:#d5d9df;--bar:#2f6fd0;--heat:96 165 250;--warn:#fff3d6;--edge:#a85f00}
@media(prefers-color-scheme:dark){:root{--back:#14171a;--box:#1d2125;--text:#e9ebee;--soft:#a3abb5;
--line:#3a4047;--bar:#6ea8fe;--heat:37 88 190;--warn:#3a2d0d;--edge:#f0b24a}}
*{box-sizing:border-box}
body{margin:0 auto;padding:1rem;max-width:72rem;background:var(--back);color:var(--text);
font:16px/1.5 system-ui,sans-serif;overflow-wrap:anywhere}
h1{font-size:1.5rem;line-height:1.25;margin:.5rem 0}h2{font-size:1.2rem;margin:2.2rem 0 .6rem}
h3{font-size:1rem;margin:1.2rem 0 .4rem}
p{margin:.5rem 0}.soft,figcaption{color:var(--soft);font-size:.875rem}
.cards{display:flex;flex-wrap:wrap;gap:.75rem;margin:1rem 0;padding:0;list-style:none}
.cards li{background:var(--box);border:1px solid var(--line);border-radius:.5rem;
padding:.6rem .9rem;flex:1 1 8rem}
.cards b{display:block;font-size:1.6rem;line-height:1.2;font-variant-numeric:tabular-nums}
.banner{background:var(--warn);border-left:.4rem solid var(--edge);padding:.6rem .9rem;
margin:.8rem 0}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.1rem 1rem;margin:1rem 0}
dt{color:var(--soft)}dd{margin:0}
.scroll{overflow-x:auto;border:1px solid var(--line);border-radius:.5rem;max-width:100%;
width:fit-content}
.scroll:focus-visible{outline:2px solid var(--bar)}
table{border-collapse:collapse;font-size:.875rem;font-variant-numeric:tabular-nums;
overflow-wrap:normal}
th,td{padding:.3rem .6rem;text-align:left;border-bottom:1px solid var(--line);vertical-align:top}
thead th{background:var(--box);vertical-align:bottom;font-weight:600}
.n{text-align:right}td.n{white-space:nowrap}th[scope=row]{font-weight:600;white-space:nowrap}
.mid{min-width:11rem}.wide{min-width:22rem}
tr.own>*{background:var(--box);font-weight:700}
.heat td{background:rgb(var(--heat)/var(--v,0));text-align:right;min-width:2.6rem;
border-right:1px solid var(--line)}
.heat td.d{font-weight:700;outline:2px solid var(--text);outline-offset:-2px}
.heat thead th+th{writing-mode:vertical-rl;transform:rotate(180deg);text-align:left;
vertical-align:middle;padding:.6rem .3rem;border:0;margin:0 auto;white-space:nowrap}
.sw{display:inline-block;width:.8em;height:.8em;border:1px solid var(--soft);margin-right:.4em;
border-radius:.15em;print-color-adjust:exact;-webkit-print-color-adjust:exact}
.legend{display:flex;flex-wrap:wrap;gap:.2rem 1rem;padding:0;list-style:none;font-size:.875rem}
svg{display:block;width:100%;height:auto}svg text{fill:var(--text);font:12px system-ui,sans-serif}
svg .soft{fill:var(--soft);font-size:11px}svg .grid{stroke:var(--line)}
svg .bar{fill:var(--bar)}svg .track{fill:var(--box);stroke:var(--line)}
svg .range{stroke:var(--bar);stroke-width:2;opacity:.5}svg .end{stroke:var(--bar);stroke-width:2}
svg .curve{fill:none;stroke:var(--bar);stroke-width:2}svg .clean{stroke:var(--soft);
stroke-dasharray:4 3}
.bars{max-width:36rem}.chart{max-width:36rem;margin:0 0 1rem}.nb{white-space:nowrap}
.small{display:grid;gap:1rem;
grid-template-columns:repeat(auto-fill,minmax(min(15rem,46%),1fr));margin:1rem 0}
.small figure{margin:0;border:1px solid var(--line);border-radius:.5rem;padding:.5rem}
.pair{margin:1rem 0;padding:0}
.pair>div{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(9.5rem,46%),1fr));
gap:.4rem}
.pair img{display:block;width:100%;height:auto;border-radius:.25rem;background:var(--box)}
.pair .none{display:grid;place-items:center;min-height:5rem;border:1px dashed var(--line)}
pre{overflow-x:auto;background:var(--box);border:1px solid var(--line);border-radius:.5rem;
padding:.6rem .9rem;font-size:.85rem;white-space:pre-wrap}
@media print{:root{--back:#fff;--box:#f5f6f8;--text:#000;--soft:#444;--line:#bbb;--bar:#2f6fd0;
--heat:96 165 250;--warn:#fff3d6;--edge:#a85f00}body{max-width:none;padding:0;font-size:10pt}
.scroll{overflow:visible;border:0}table{font-size:8pt}th,td{padding:.15rem .3rem}
th[scope=row],td.n{white-space:normal}.heat td,.mid,.wide{min-width:0}
.bars,.chart{max-width:24rem}.small{grid-template-columns:repeat(4,1fr)}
.pair>div{grid-template-columns:repeat(5,1fr)}h2,h3{break-after:avoid}tr,figure,.banner{break-inside:avoid}
*{print-color-adjust:exact;-webkit-print-color-adjust:exact}}
"""


def to_html(
    report: Report,
    pictures: Sequence[PairPictures] = (),
    comparison: Comparison | None = None,
    palette: Sequence[Colour] = (),
) -> str:
    """report.html: one file without scripts or outside resources, for phone, desk and paper.

    `palette`: RGB per class, 0-255, for the legend of the label maps.
    """
    title = f"Evaluation: {report.model} on {report.data} ({report.split})"
    parts = [
        "<!doctype html>\n",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        # Even if something slipped through the escaping, nothing could run or be fetched.
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "style-src 'unsafe-inline'; img-src data:\">",
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n<body>\n",
        f"<header><h1>{escape(title)}</h1>{_banners(report)}{_cards(report)}</header>\n<main>\n",
        _section("Means", _html_table(means_table(report))),
        _section("Classes", bars(report) + _html_table(class_table(report), palette)),
    ]
    subsets = subset_table(report)
    if subsets is not None:
        parts.append(_section("Subsets", _html_table(subsets)))
    robustness = robustness_table(report)
    if robustness is not None:
        charts = robustness_chart(report) + curves(report)
        parts.append(_section("Robustness", charts + _html_table(robustness)))
    parts.append(_section("Confusion", heat_map(report)))
    for group in ("best", "worst"):
        chosen = [picture for picture in pictures if picture["group"] == group]
        if chosen:
            body = _legend(report, palette) + "".join(map(_pair, chosen))
            parts.append(_section(f"{group.capitalize()} pairs", body))
    if comparison is not None and comparison.rows:
        parts.append(_comparison_section(report, comparison))
    parts.append(
        "</main>\n<footer>"
        + _section("How it was made", f"<pre>{escape(report.command)}</pre>{_details(report)}")
        + "</footer>\n</body></html>\n"
    )
    return "".join(parts)


def _section(title: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2>\n{body}</section>\n"


def _banners(report: Report) -> str:
    banners = [
        f'<p class="banner" role="note"><strong>Warning.</strong> {escape(warning)}</p>\n'
        for warning in list_warnings(report)
    ]
    if report.contaminated:
        names = ", ".join(map(escape, report.contaminated))
        which = f"<details><summary>Which pairs</summary><p>{names}</p></details>\n"
        banners.insert(1, which)  # below the warning about them, which comes first
    return "".join(banners)


def _cards(report: Report) -> str:
    values = [(f"mIoU % ({name})", number(mean["miou"])) for name, mean in report.means.items()]
    values += [("pixel accuracy %", number(report.pixel_accuracy)), ("pairs", str(report.pairs))]
    items = "".join(f"<li><b>{escape(value)}</b> {_unbroken(term)}</li>" for term, value in values)
    return f'<ul class="cards">{items}</ul>'


def _unbroken(text: str) -> str:
    """Escaped, with names such as mfnet-9 kept on one line."""
    return re.sub(r"\S*-\S*", r'<span class="nb">\g<0></span>', escape(text))


def _details(report: Report) -> str:
    facts = [*list_facts(report), ("checkpoint", describe_selection(report))]
    terms = "".join(f"<dt>{escape(term)}</dt><dd>{escape(value)}</dd>" for term, value in facts)
    return f'<dl>{terms}</dl><p class="soft">{escape(describe_versions(report))}</p>'


def _html_table(table: Table, palette: Sequence[Colour] = ()) -> str:
    """A table in a box that scrolls by itself; `palette` puts a swatch before each row's name."""
    styles = [
        ' class="n"' if number else f' class="{wide}"' if wide else ""
        for number, wide in zip(numeric_columns(table), _widths(table), strict=True)
    ]
    head = "".join(
        f'<th scope="col"{style}>{_unbroken(cell).replace(" %", "&nbsp;%")}</th>'
        for style, cell in zip(styles, table.head, strict=True)
    )
    body = []
    for index, (name, *cells) in enumerate(table.rows):
        swatch = _swatch(palette[index]) if index < len(palette) else ""
        row = "".join(
            f"<td{style}>{escape(cell)}</td>" for style, cell in zip(styles[1:], cells, strict=True)
        )
        own = ' class="own"' if name == "this report" else ""
        body.append(f'<tr{own}><th scope="row">{swatch}{escape(name)}</th>{row}</tr>\n')
    inner = f"<thead><tr>{head}</tr></thead>\n<tbody>{''.join(body)}</tbody>"
    return scroll(table, f"<table>{inner}</table>")


def _widths(table: Table) -> list[str]:
    """The style class of each column by its longest cell, so that sentences get room."""
    columns = list(zip(*table.rows, strict=True)) or [()] * len(table.head)
    longest = [max(map(len, column), default=0) for column in columns]
    return ["wide" if length > 60 else "mid" if length > 30 else "" for length in longest]


def _legend(report: Report, palette: Sequence[Colour]) -> str:
    items = "".join(
        f"<li>{_swatch(colour)}{escape(score.name)}</li>"
        for score, colour in zip(report.classes, palette, strict=False)
    )
    return f'<ul class="legend">{items}</ul>\n' if items else ""


def _swatch(colour: Colour) -> str:
    red, green, blue = map(int, colour)
    return f'<span class="sw" style="background:rgb({red} {green} {blue})"></span>'


def _pair(picture: PairPictures) -> str:
    names = {
        "rgb": "RGB",
        "thermal": "thermal",
        "truth": "ground truth",
        "prediction": "prediction",
        "error": "errors (bright)",
    }
    images: dict[str, Image | None] = {
        "rgb": picture["rgb"],
        "thermal": picture["thermal"],
        "truth": picture["truth"],
        "prediction": picture["prediction"],
        "error": picture["error"],
    }
    shown = []
    for key, image in images.items():
        if image is None:
            shown.append(f'<div><div class="none">no {names[key]}</div></div>')
            continue
        alt = picture.get("alt", {}).get(key, f"{names[key]} of {picture['name']}")
        source = data_uri(image, flat=key in ("truth", "prediction"))
        shown.append(
            f'<div><img src="{source}" alt="{escape(alt)}" loading="lazy">'
            f'<span class="soft">{names[key]}</span></div>'
        )
    caption = f"<strong>{escape(picture['name'])}</strong> {escape(picture['caption'])}"
    return (
        f'<figure class="pair"><figcaption>{caption}</figcaption>'
        f"<div>{''.join(shown)}</div></figure>\n"
    )


def _comparison_section(report: Report, comparison: Comparison) -> str:
    tables = [
        f"<h3>{escape(table.title)}</h3>{_html_table(table)}"
        for table in published_tables(report, comparison)
    ]
    notes = "".join(
        f'<p class="banner">{escape(text)}</p>' for text in comparison_notes(comparison)
    )
    return _section("Beside published figures", notes + "".join(tables))
