"""One evaluation as a file for programs, one for the forge and one self-contained page to look at.

report.json, report.md and report.html hold the same Report. Everything that comes from outside
(names of classes, pairs, models, the command) is text here: escaped, never markup.
"""

import base64
import dataclasses
import html
import json
import os
import platform
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata, resources
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

import cv2
import numpy as np
from numpy.typing import NDArray

from sartm.config import from_dict
from sartm.data.classes import Classes, Colour
from sartm.errors import InputError
from sartm.metrics import PROTOCOLS, ConfusionMatrix, Counts, bootstrap, means, percent

Image = NDArray[np.uint8]
Cell = str | float | int | None
Means = dict[str, dict[str, float | int | None]]

NONE = "\N{EN DASH}"
"""What tables show for a value that is not defined."""

PICTURE_WIDTH = 320
"""Pixels; a page with eight pairs then stays below about 1 MB."""


@dataclass(frozen=True)
class ClassScore:
    """One class of the table: percent, None where undefined; `pixels` of ground truth."""

    id: int
    name: str
    iou: float | None
    acc: float | None
    f1: float | None
    pixels: int


@dataclass(frozen=True)
class SubsetScores:
    """The scores of a named part of the split, such as the night pairs."""

    pairs: int
    means: Means
    pixel_accuracy: float | None
    classes: tuple[ClassScore, ...]


@dataclass(frozen=True)
class Report:
    """What report.json holds; scores in percent, None where undefined."""

    split: str
    pairs: int
    modality: str
    label_size: str
    """Height x width the labels were scored at, as in 480x640; all sizes if they differ."""
    means: Means
    """Per protocol `miou`, `macc` and `counted`; the first is the headline."""
    pixel_accuracy: float | None
    classes: tuple[ClassScore, ...]
    subsets: dict[str, SubsetScores]
    confusion: tuple[tuple[int, ...], ...]
    """Pixels; rows are the ground truth, columns the prediction."""
    contaminated: tuple[str, ...]
    """Scored pairs whose images the model was trained on."""
    selected_on: str | None
    """Split the checkpoint was chosen on; None where that is not recorded."""
    model: str
    data: str
    command: str
    versions: dict[str, str]
    intervals: dict[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
    """95 % bootstrap interval of each mean IoU over the pairs; absent for fewer than 2 pairs."""
    robustness: tuple[dict[str, Cell], ...] = ()
    """Rows of `condition`, `severity`, `miou` and whatever else was measured."""


class PairPictures(TypedDict):
    """One pair to show: (H, W, 3) RGB or (H, W) grey images in 8 bits, None where missing."""

    name: str
    group: Literal["best", "worst"]
    caption: str
    rgb: Image | None
    thermal: Image | None
    truth: Image
    prediction: Image
    error: Image
    alt: NotRequired[dict[str, str]]
    """What to read out instead of an image, per key above."""


@dataclass(frozen=True)
class Published:
    """A figure of another system as its source prints it; not measured by us."""

    system: str
    year: int | None
    backbone: str | None
    data: str
    modality: str
    protocol: str | None
    """The mean of ours it can stand beside; None where the averaging is unknown."""
    miou: float
    source: str
    status: Literal["R", "T", "R/T"]
    """R: the system's own repository or abstract. T: another author's table."""
    selected_on: str | None = None
    note: str | None = None
    classes: dict[str, float] | None = None


@dataclass(frozen=True)
class TestSet:
    """The split that a benchmark's published figures are about."""

    name: str
    split: str
    pairs: int


@dataclass(frozen=True)
class Literature:
    """assets/published.json."""

    about: tuple[str, ...]
    sets: dict[str, TestSet]
    rows: tuple[Published, ...]


@dataclass(frozen=True)
class Comparison:
    """The published figures that a report may stand beside, and what to know before comparing."""

    rows: dict[str, tuple[Published, ...]]
    """Per protocol of the report, the best first."""
    same_images: bool
    """Whether the report is for the split, whole, that the figures are about."""
    left_out: int
    """Figures of the same data set under another or an unknown mean."""
    cautions: tuple[str, ...]


def build_report(
    counts: Counts,
    classes: Classes,
    *,
    split: str,
    modality: str,
    label_sizes: Iterable[tuple[int, int]],
    model: str,
    data: str,
    command: str,
    which: str | None = None,
    subsets: Mapping[str, Sequence[int]] | None = None,
    contaminated: Sequence[str] = (),
    selected_on: str | None = None,
    robustness: Sequence[Mapping[str, Cell]] = (),
    samples: int = 1000,
) -> Report:
    """Score per-pair counts.

    Args:
        counts: (N, K, K), a confusion matrix per pair; the split's is their sum.
        label_sizes: (height, width) of the labels, one or more.
        which: protocol or benchmark as in `metrics.choose_protocols`; None: the table's default.
        subsets: name -> positions in `counts`.
        samples: draws of the bootstrap; 0 leaves the intervals out.

    Raises InputError where there is no pair or the protocol does not fit the classes.
    """
    if not len(counts):
        raise InputError(
            f"split {split!r} of {data} has no labelled pair to score; choose another with --split"
        )
    total = _scores(counts, classes, which)
    intervals = {}
    if samples and len(counts) > 1:
        for name in total.means:
            low, high = bootstrap(counts, name, samples)
            if np.isfinite(low):
                intervals[name] = (round(low, 4), round(high, 4))
    return Report(
        split=split,
        pairs=len(counts),
        modality=modality,
        label_size=_describe_sizes(label_sizes),
        means=total.means,
        pixel_accuracy=total.pixel_accuracy,
        classes=total.classes,
        subsets={
            name: _scores(counts[np.asarray(positions, np.intp)], classes, which)
            for name, positions in (subsets or {}).items()
        },
        confusion=tuple(tuple(map(int, row)) for row in counts.sum(axis=0)),
        contaminated=tuple(contaminated),
        selected_on=selected_on,
        model=model,
        data=data,
        command=command,
        versions=versions(),
        intervals=intervals,
        robustness=tuple({key: _plain(row[key]) for key in row} for row in robustness),
    )


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on; asks the installation, imports nothing."""
    found = {"python": platform.python_version()}
    for package in ("sartm", "torch", "numpy", "opencv-python-headless", "pillow"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def draw_pair(
    name: str,
    group: Literal["best", "worst"],
    truth: NDArray[np.integer],
    prediction: NDArray[np.integer],
    classes: Classes,
    rgb: Image | None = None,
    thermal: Image | None = None,
) -> PairPictures:
    """Colour two label maps (H, W) by the class table and mark where they differ.

    In the error map wrong pixels are bright, right ones a dark grey image, ignored ones mid grey:
    brightness alone tells them apart.
    """
    ignored = truth == classes.ignore
    wrong = (truth != prediction) & ~ignored
    photo = rgb if rgb is not None else thermal
    grey = np.full(truth.shape, 90, np.uint8) if photo is None else _grey(photo)
    if grey.shape != truth.shape:
        grey = np.asarray(cv2.resize(grey, truth.shape[::-1]), np.uint8)
    error = np.repeat((grey // 3)[..., None], 3, axis=2)
    error[ignored], error[wrong] = (128, 128, 128), (255, 176, 0)
    matrix = ConfusionMatrix(len(classes))
    matrix.update(prediction, truth, classes.ignore)
    score = means(matrix, classes, "present")["present"]["miou"]
    share = float(wrong.sum() / max(1, (~ignored).sum()))
    return {
        "name": name,
        "group": group,
        "caption": f"mean IoU of the classes present {_number(score)} %, "
        f"{_number(100 * share)} % of the pixels wrong",
        "rgb": rgb,
        "thermal": thermal,
        "truth": _colour(truth, classes),
        "prediction": _colour(prediction, classes),
        "error": error,
        "alt": {
            "truth": f"ground truth of {name}: {_shares(truth, classes)}",
            "prediction": f"prediction for {name}: {_shares(prediction, classes)}",
            "error": f"error map of {name}: {_number(100 * share)} % of the pixels are wrong",
        },
    }


def load_published() -> Literature:
    """The peers' figures that ship with the package, each with its source and protocol."""
    text = resources.files("sartm").joinpath("assets/published.json").read_text("utf-8")
    return from_dict(Literature, json.loads(text), "published.json")


def compare(report: Report, published: Literature) -> Comparison:
    """Published figures under the protocols of `report`; the rest is counted, never shown."""
    rows = {}
    for protocol in report.means:
        same = [row for row in published.rows if row.protocol == protocol]
        if same:
            rows[protocol] = tuple(sorted(same, key=lambda row: -row.miou))
    shown = [row for same in rows.values() for row in same]
    data = {row.data for row in shown}
    total = sum(row.data in data for row in published.rows)
    cautions = [
        f"The published figures are for the {test.pairs} pairs of the {test.name} {test.split} "
        f"split, this report is for {report.pairs} pairs of split {report.split}: other images, "
        f"so not comparable."
        for test in (published.sets[name] for name in sorted(data))
        if (report.split, report.pairs) != (test.split, test.pairs)
    ]
    same_images = not cautions
    if shown:
        chosen = sum(row.selected_on == "test" for row in shown)
        cautions.append(
            f"{chosen} of the {len(shown)} published figures are known to come from a checkpoint "
            f"chosen on the test split; for the others it is not known how it was chosen."
        )
    return Comparison(rows, same_images, total - len(shown), tuple(cautions))


def to_json(report: Report) -> str:
    """report.json; None becomes null, and what was not measured is left out."""
    values = dataclasses.asdict(report)
    for optional in ("intervals", "robustness"):
        if not values[optional]:
            del values[optional]
    text = json.dumps(values, indent=2, allow_nan=False)
    # One line per row of numbers: a 15x15 matrix is otherwise 255 lines of one number each.
    # No string holds a line break in JSON, so nothing but lists of numbers can match.
    rows = re.compile(r"\[\n\s+([-\d.]+(?:,\n\s+[-\d.]+)*)\n\s+\]")
    return rows.sub(lambda found: "[" + " ".join(found[1].split()) + "]", text) + "\n"


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
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            _write(out / name, text)
    except OSError as error:
        raise InputError(
            f"cannot write the report to {out}: {error.strerror}; choose another folder with --out"
        ) from None


# --- Tables: the same rows for Markdown and for the page -----------------------------------------


@dataclass(frozen=True)
class Table:
    """A titled table; the first column names the row."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def _means_table(report: Report) -> Table:
    rows = []
    for name, mean in report.means.items():
        low_high = report.intervals.get(name)
        interval = NONE if low_high is None else f"{low_high[0]:.2f} to {low_high[1]:.2f}"
        counted = f"{mean['counted']} of {len(report.classes)}"
        cells = (_number(mean["miou"]), interval, _number(mean["macc"]), counted)
        rows.append((name, *cells, _describe_protocol(name)))
    return Table(
        "Means",
        ("protocol", "mIoU %", "95 % interval", "mAcc %", "classes counted", "what counts"),
        tuple(rows),
        "The interval is a bootstrap over the pairs of the split; it knows nothing of training "
        "seeds, and frames of one drive are more alike than it assumes.",
    )


def _class_table(report: Report) -> Table:
    subsets = report.subsets
    rows = []
    for index, score in enumerate(report.classes):
        parts = [_number(subset.classes[index].iou) for subset in subsets.values()]
        scores = (_number(score.iou), _number(score.acc), _number(score.f1))
        rows.append((score.name, str(score.id), *scores, *parts, f"{score.pixels:,}"))
    extra = tuple(f"IoU {name} %" for name in subsets)
    head = ("class", "id", "IoU %", "accuracy %", "F1 %", *extra, "truth pixels")
    return Table(
        "Classes",
        head,
        tuple(rows),
        f"{NONE}: undefined. Accuracy needs truth pixels, IoU and F1 truth or predicted ones.",
    )


def _subset_table(report: Report) -> Table | None:
    if not report.subsets:
        return None
    rows = []
    everything = SubsetScores(report.pairs, report.means, report.pixel_accuracy, report.classes)
    for name, part in {**report.subsets, "all pairs": everything}.items():
        scores = [_number(mean["miou"]) for mean in part.means.values()]
        rows.append((name, str(part.pairs), *scores, _number(part.pixel_accuracy)))
    head = ("subset", "pairs", *(f"{name} mIoU %" for name in report.means), "pixel accuracy %")
    return Table("Subsets", head, tuple(rows))


def _robustness_table(report: Report) -> Table | None:
    if not report.robustness:
        return None
    keys = list(dict.fromkeys(key for row in report.robustness for key in row))
    units = {"miou": "mIoU %", "macc": "mAcc %"}
    rows = [tuple(_cell(row.get(key), key in units) for key in keys) for row in report.robustness]
    return Table("Robustness", tuple(units.get(key, key) for key in keys), tuple(rows))


def _confusion_table(report: Report) -> Table:
    names = [score.name for score in report.classes]
    rows = []
    for name, counts in zip(names, report.confusion, strict=True):
        total = sum(counts)
        rows.append((name, *(_share(count, total) for count in counts)))
    return Table(
        "Confusion",
        ("truth \\ predicted", *names),
        tuple(rows),
        f"Percent of the truth pixels of the row's class; {NONE}: it has no truth pixels.",
    )


def _published_tables(report: Report, comparison: Comparison) -> Iterator[Table]:
    head = ("system", "year", "mIoU %", "modality", "status", "source", "note")
    for protocol, published in comparison.rows.items():
        rows = [(row.miou, _published_row(row)) for row in published]
        ours = report.means[protocol]["miou"]
        if ours is not None:
            note = "" if comparison.same_images else "other images: not comparable"
            own = ("this report", NONE, _number(ours), report.modality, NONE, "measured", note)
            # Ranked only where a rank means something, else on top.
            rows.append((ours if comparison.same_images else 100.0, own))
        rows.sort(key=lambda row: -row[0])
        note = (
            "As printed by the source; R: the system's own repository or abstract, "
            "T: another author's table."
        )
        cells = tuple(cells for _, cells in rows)
        yield Table(f"Published figures, {protocol}", head, cells, note)


def _published_row(row: Published) -> tuple[str, ...]:
    system = row.system if row.backbone is None else f"{row.system} ({row.backbone})"
    notes = [f"chosen on {row.selected_on}"] if row.selected_on else []
    notes += [row.note] if row.note else []
    year = NONE if row.year is None else str(row.year)
    rest = (row.modality, row.status, row.source, "; ".join(notes))
    return system, year, _number(row.miou), *rest


def _facts(report: Report) -> list[tuple[str, str]]:
    """What was scored, as term and value."""
    return [
        ("model", report.model),
        ("data", report.data),
        ("split", report.split),
        ("pairs", str(report.pairs)),
        ("modality", report.modality),
        ("label size", report.label_size),
        ("pixel accuracy", f"{_number(report.pixel_accuracy)} %"),
    ]


def _warnings(report: Report) -> list[str]:
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


def _selection(report: Report) -> str:
    if report.selected_on is None:
        return "How the checkpoint was chosen is not recorded."
    return f"The checkpoint was chosen on split {report.selected_on}."


# --- Markdown ------------------------------------------------------------------------------------


def to_markdown(report: Report, comparison: Comparison | None = None) -> str:
    """report.md: the tables, readable as text and on a forge."""
    name, mean = next(iter(report.means.items()))
    blocks = [
        f"# Evaluation: {_md(report.model)} on {_md(report.data)} ({_md(report.split)})",
        f"**mIoU {_number(mean['miou'])} %** ({name}) over {report.pairs} pairs",
        *(f"> **Warning.** {_md(warning)}" for warning in _warnings(report)),
    ]
    if report.contaminated:
        some = ", ".join(_md(pair) for pair in report.contaminated[:20])
        rest = len(report.contaminated) - 20
        blocks.append(f"Training pairs: {some}{f' and {rest} more' if rest > 0 else ''}")
    blocks.append("\n".join(f"* {term}: {_md(value)}" for term, value in _facts(report)))
    blocks.append(_md(_selection(report)))
    tables = [_means_table(report), _class_table(report), _subset_table(report)]
    tables += [_robustness_table(report), _confusion_table(report)]
    blocks += [_markdown_table(table) for table in tables if table is not None]
    if comparison is not None and comparison.rows:
        blocks += [_markdown_table(table) for table in _published_tables(report, comparison)]
        blocks += [f"* {_md(text)}" for text in _comparison_notes(comparison)]
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", report.command)), default=0))
    blocks.append(f"## Command\n\n{fence}sh\n{_clean(report.command)}\n{fence}")
    blocks.append(_md(_describe_versions(report)))
    return "\n\n".join(blocks) + "\n"


def _markdown_table(table: Table) -> str:
    align = ["---", *("---:" if column else "---" for column in _numeric(table)[1:])]
    lines = [table.head, align, *table.rows]
    body = "\n".join("| " + " | ".join(map(_md, line)) + " |" for line in lines)
    return f"## {_md(table.title)}\n\n{body}" + (f"\n\n{_md(table.note)}" if table.note else "")


def _md(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    text = html.escape(_clean(text), quote=False)
    text = re.sub(r"([\\|*\[\]`~])", r"\\\1", text)
    text = re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", text)  # inside a word `_` is no markup
    return re.sub(r"\s*\n\s*", " ", text)


# --- The page ------------------------------------------------------------------------------------

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
svg .soft{fill:var(--soft)}svg .grid{stroke:var(--line)}
svg .bar{fill:var(--bar)}svg .track{fill:var(--box);stroke:var(--line)}
svg .curve{fill:none;stroke:var(--bar);stroke-width:2}svg .clean{stroke:var(--soft);
stroke-dasharray:4 3}
.bars{max-width:36rem}.small{display:grid;gap:1rem;
grid-template-columns:repeat(auto-fill,minmax(min(15rem,100%),1fr));margin:1rem 0}
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
.bars{max-width:24rem}h2,h3{break-after:avoid}tr,figure,.banner{break-inside:avoid}
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
        f"<title>{_e(title)}</title><style>{STYLE}</style></head>\n<body>\n",
        f"<header><h1>{_e(title)}</h1>{_banners(report)}{_cards(report)}</header>\n<main>\n",
        _section("Means", _html_table(_means_table(report))),
        _section("Classes", _bars(report) + _html_table(_class_table(report), palette)),
    ]
    subsets = _subset_table(report)
    if subsets is not None:
        parts.append(_section("Subsets", _html_table(subsets)))
    robustness = _robustness_table(report)
    if robustness is not None:
        parts.append(_section("Robustness", _curves(report) + _html_table(robustness)))
    parts.append(_section("Confusion", _heat_map(report)))
    for group in ("best", "worst"):
        chosen = [picture for picture in pictures if picture["group"] == group]
        if chosen:
            body = _legend(report, palette) + "".join(map(_pair, chosen))
            parts.append(_section(f"{group.capitalize()} pairs", body))
    if comparison is not None and comparison.rows:
        parts.append(_comparison_section(report, comparison))
    parts.append(
        "</main>\n<footer>"
        + _section("How it was made", f"<pre>{_e(report.command)}</pre>{_details(report)}")
        + "</footer>\n</body></html>\n"
    )
    return "".join(parts)


def _section(title: str, body: str) -> str:
    return f"<section><h2>{_e(title)}</h2>\n{body}</section>\n"


def _banners(report: Report) -> str:
    banners = [
        f'<p class="banner" role="note"><strong>Warning.</strong> {_e(warning)}</p>\n'
        for warning in _warnings(report)
    ]
    if report.contaminated:
        names = ", ".join(map(_e, report.contaminated))
        which = f"<details><summary>Which pairs</summary><p>{names}</p></details>\n"
        banners.insert(1, which)  # below the warning about them, which comes first
    return "".join(banners)


def _cards(report: Report) -> str:
    values = [(f"mIoU % ({name})", _number(mean["miou"])) for name, mean in report.means.items()]
    values += [("pixel accuracy %", _number(report.pixel_accuracy)), ("pairs", str(report.pairs))]
    items = "".join(f"<li><b>{_e(value)}</b> {_e(term)}</li>" for term, value in values)
    return f'<ul class="cards">{items}</ul>'


def _details(report: Report) -> str:
    facts = [*_facts(report), ("checkpoint", _selection(report))]
    terms = "".join(f"<dt>{_e(term)}</dt><dd>{_e(value)}</dd>" for term, value in facts)
    return f'<dl>{terms}</dl><p class="soft">{_e(_describe_versions(report))}</p>'


def _html_table(table: Table, palette: Sequence[Colour] = ()) -> str:
    """A table in a box that scrolls by itself; `palette` puts a swatch before each row's name."""
    styles = [
        ' class="n"' if number else f' class="{wide}"' if wide else ""
        for number, wide in zip(_numeric(table), _widths(table), strict=True)
    ]
    head = "".join(
        f'<th scope="col"{style}>{_e(cell).replace(" %", "&nbsp;%")}</th>'
        for style, cell in zip(styles, table.head, strict=True)
    )
    body = []
    for index, (name, *cells) in enumerate(table.rows):
        swatch = _swatch(palette[index]) if index < len(palette) else ""
        row = "".join(
            f"<td{style}>{_e(cell)}</td>" for style, cell in zip(styles[1:], cells, strict=True)
        )
        own = ' class="own"' if name == "this report" else ""
        body.append(f'<tr{own}><th scope="row">{swatch}{_e(name)}</th>{row}</tr>\n')
    inner = f"<thead><tr>{head}</tr></thead>\n<tbody>{''.join(body)}</tbody>"
    return _scroll(table, f"<table>{inner}</table>")


def _heat_map(report: Report) -> str:
    """The confusion matrix, rows normalised; shade grows with the root, so that 1 % is visible."""
    table = _confusion_table(report)
    head = "".join(f'<th scope="col">{_e(cell)}</th>' for cell in table.head)
    body = []
    for index, (name, *cells) in enumerate(table.rows):
        counts = report.confusion[index]
        total = max(1, sum(counts))
        row = "".join(
            f'<td class="{"d" if column == index else "o"}" '
            f'style="--v:{(count / total) ** 0.5:.2f}">{_e(cell)}</td>'
            for column, (cell, count) in enumerate(zip(cells, counts, strict=True))
        )
        body.append(f'<tr><th scope="row">{_e(name)}</th>{row}</tr>\n')
    inner = f"<thead><tr>{head}</tr></thead>\n<tbody>{''.join(body)}</tbody>"
    return _scroll(table, f'<table class="heat">{inner}</table>')


def _scroll(table: Table, inner: str) -> str:
    """The table in its own scrolling box; the note stays outside, where a phone shows all of it."""
    label = f'role="region" aria-label="{_e(table.title)}" tabindex="0"'
    note = f'<p class="soft">{_e(table.note)}</p>\n' if table.note else ""
    return f'<div class="scroll" {label}>{inner}</div>\n{note}'


def _bars(report: Report) -> str:
    """IoU per class as horizontal bars with their values."""
    step, left, width = 24, 132, 230
    rows = []
    for index, score in enumerate(report.classes):
        y = index * step
        name = score.name if len(score.name) < 19 else f"{score.name[:17]}…"
        rows.append(
            f'<text x="{left - 8}" y="{y + 16}" text-anchor="end">{_e(name)}</text>'
            f'<rect class="track" x="{left}" y="{y + 4}" width="{width}" height="16"/>'
        )
        if score.iou is None:
            rows.append(f'<text class="soft" x="{left + 6}" y="{y + 16}">does not occur</text>')
            continue
        rows.append(
            f'<rect class="bar" x="{left}" y="{y + 4}" width="{score.iou / 100 * width:.1f}" '
            f'height="16"/><text x="{left + width + 8}" y="{y + 16}">{score.iou:.1f}</text>'
        )
    values = ", ".join(f"{score.name} {_number(score.iou)}" for score in report.classes)
    return (
        f'<figure class="bars" style="margin:0 0 1rem"><svg viewBox="0 0 420 '
        f'{step * len(report.classes)}" role="img" aria-label="{_e(f"IoU % per class: {values}")}">'
        f"{''.join(rows)}</svg><figcaption>IoU % per class</figcaption></figure>\n"
    )


def _curves(report: Report) -> str:
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
        f'aria-label="{_e(f"mIoU % under {name}: {values}")}">{"".join(marks)}</svg>'
        f"<figcaption><strong>{_e(name)}</strong>, mIoU % by severity{dashed}</figcaption></figure>"
    )


def _legend(report: Report, palette: Sequence[Colour]) -> str:
    items = "".join(
        f"<li>{_swatch(colour)}{_e(score.name)}</li>"
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
        source = _data_uri(image, flat=key in ("truth", "prediction"))
        shown.append(
            f'<div><img src="{source}" alt="{_e(alt)}" loading="lazy">'
            f'<span class="soft">{names[key]}</span></div>'
        )
    caption = f"<strong>{_e(picture['name'])}</strong> {_e(picture['caption'])}"
    return (
        f'<figure class="pair"><figcaption>{caption}</figcaption>'
        f"<div>{''.join(shown)}</div></figure>\n"
    )


def _comparison_section(report: Report, comparison: Comparison) -> str:
    tables = [
        f"<h3>{_e(table.title)}</h3>{_html_table(table)}"
        for table in _published_tables(report, comparison)
    ]
    notes = "".join(f'<p class="banner">{_e(text)}</p>' for text in _comparison_notes(comparison))
    return _section("Beside published figures", notes + "".join(tables))


def _comparison_notes(comparison: Comparison) -> list[str]:
    left_out = (
        f"{comparison.left_out} further published figures for this data set are left out: "
        f"their mean is another one, or it is not known which."
    )
    return [*comparison.cautions, *([left_out] if comparison.left_out else [])]


def _data_uri(image: Image, flat: bool) -> str:
    """The image at most PICTURE_WIDTH wide, inline. Flat label colours stay exact: PNG, not JPEG.

    Source: RFC 2397.
    """
    height, width = image.shape[:2]
    if width > PICTURE_WIDTH:
        size = (PICTURE_WIDTH, max(1, round(height * PICTURE_WIDTH / width)))
        method = cv2.INTER_NEAREST if flat else cv2.INTER_AREA
        image = np.asarray(cv2.resize(image, size, interpolation=method), np.uint8)
    ordered = image[..., ::-1] if image.ndim == 3 else image
    kind, options = ("png", []) if flat else ("jpeg", [cv2.IMWRITE_JPEG_QUALITY, 80])
    _, encoded = cv2.imencode(f".{kind}", np.ascontiguousarray(ordered), options)
    return f"data:image/{kind};base64,{base64.b64encode(encoded.tobytes()).decode()}"


# --- Words and numbers ---------------------------------------------------------------------------


def _clean(text: str) -> str:
    """Text without control or direction characters and without what UTF-8 cannot hold."""
    text = str(text).encode("utf-8", "replace").decode("utf-8")
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", "\ufffd", text)


def _e(text: str) -> str:
    """Text as HTML shows it, in content and in attributes."""
    return html.escape(_clean(text), quote=True)


def _number(value: float | int | None) -> str:
    return NONE if value is None else f"{value:.2f}"


def _cell(value: Cell, percent: bool) -> str:
    if value is None:
        return NONE
    decimals = isinstance(value, float) if not percent else not isinstance(value, str)
    return f"{value:.2f}" if decimals else str(value)


def _plain(value: Any) -> Cell:
    """A table cell that JSON can hold: no numpy type, None for what is not finite."""
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, float):
        return round(value, 4) if np.isfinite(value) else None
    return value if value is None or isinstance(value, int) else str(value)


def _share(count: int, total: int) -> str:
    if not total:
        return NONE
    share = 100 * count / total
    return "<0.1" if 0 < share < 0.05 else f"{share:.1f}" if share else "0"


def _numeric(table: Table) -> list[bool]:
    """Which columns hold numbers, to be set flush right."""
    pattern = re.compile(rf"[-<{NONE}]?[\d.,]*(?: to -?[\d.]+| of \d+)?")
    return [
        bool(table.rows) and all(pattern.fullmatch(cell) for cell in column) and any(column)
        for column in zip(*table.rows, strict=True)
    ] or [False] * len(table.head)


def _widths(table: Table) -> list[str]:
    """The style class of each column by its longest cell, so that sentences get room."""
    columns = list(zip(*table.rows, strict=True)) or [()] * len(table.head)
    longest = [max(map(len, column), default=0) for column in columns]
    return ["wide" if length > 60 else "mid" if length > 30 else "" for length in longest]


def _describe_protocol(name: str) -> str:
    _, classes, zero, absent, predicted = PROTOCOLS[name].row()
    if name == "present":
        return "classes with truth pixels only"
    return (
        f"classes {classes}; ground truth 0 {zero}; a class that does not occur: {absent}; "
        f"one that is only predicted: {predicted}"
    )


def _describe_versions(report: Report) -> str:
    return "Versions: " + ", ".join(
        f"{name} {version}" for name, version in report.versions.items()
    )


def _describe_sizes(sizes: Iterable[tuple[int, int]]) -> str:
    distinct = sorted(set(sizes))
    words = [f"{height}x{width}" for height, width in distinct]
    if len(words) > 3:
        return f"{len(words)} sizes, {words[0]} to {words[-1]}"
    return ", ".join(words)


def _shares(ids: NDArray[np.integer], classes: Classes) -> str:
    """The classes of a label map by area, largest first."""
    found, counts = np.unique(ids[ids != classes.ignore], return_counts=True)
    order = np.argsort(-counts, kind="stable")
    total = max(1, int(counts.sum()))
    return ", ".join(f"{classes.names[found[i]]} {100 * counts[i] / total:.1f} %" for i in order)


def _colour(ids: NDArray[np.integer], classes: Classes) -> Image:
    """(H, W) ids as (H, W, 3) RGB; ignored pixels mid grey."""
    picture = np.full((*ids.shape, 3), 128, np.uint8)
    known = ids != classes.ignore
    picture[known] = np.array(classes.palette, np.uint8)[ids[known]]
    return picture


def _grey(photo: Image) -> Image:
    return photo if photo.ndim == 2 else np.asarray(cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY))


def _scores(counts: Counts, classes: Classes, which: str | None) -> SubsetScores:
    matrix = ConfusionMatrix(len(classes), counts.sum(axis=0))
    columns: Any = zip(
        classes.names, matrix.iou(), matrix.accuracy(), matrix.f1(), matrix.pixels(), strict=True
    )
    return SubsetScores(
        pairs=len(counts),
        means=means(matrix, classes, which),
        pixel_accuracy=percent(matrix.pixel_accuracy()),
        classes=tuple(
            ClassScore(i, name, percent(iou), percent(acc), percent(f1), int(pixels))
            for i, (name, iou, acc, f1, pixels) in enumerate(columns)
        ),
    )


def _write(path: Path, text: str) -> None:
    """Write to a temporary name beside `path`, then rename: no half-written report is ever seen."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        Path(temporary).chmod(0o644)  # mkstemp gives 0600, which a web server cannot read
        os.replace(temporary, path)  # noqa: PTH105 - named in the house rules
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
