"""`sartm data`: begin, check, describe, convert, align and draw data sets."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sartm.cli import options
from sartm.cli.options import print_json, read_size
from sartm.cli.printing import complain, complain_of_each, print_table, say
from sartm.errors import InputError
from sartm.outputs import check_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sartm.data.names import Role
    from sartm.datatools.check import Check, Finding
    from sartm.datatools.stats import GroupStats

app = typer.Typer(
    help="Begin, check, describe, convert, draw and align data sets.", no_args_is_help=True
)

DataSet = Annotated[str, typer.Argument(help="Folder in a known layout, or a dataset.toml.")]
Target = Literal["dataset.toml", "four-channel", "flat", "flat-jpeg", "coco", "yolo"]
Tool = Literal["coco", "yolo", "labelme", "cvat", "label-studio"]


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="Folder that holds the pairs.")],
    classes: Annotated[str, typer.Option(help='Names in the order of ids: "road, person".')] = "",
    rgb: Annotated[str, typer.Option(help="Its folder of RGB, where names do not say.")] = "",
    thermal: Annotated[str, typer.Option(help="Likewise of thermal.")] = "",
    label: Annotated[str, typer.Option(help="Likewise of labels.")] = "",
    overwrite: Annotated[bool, typer.Option(help="Replace dataset.toml and lists.")] = False,
    json_file: options.Json = "",
) -> int:
    """Make a data set of your own folder: find pairs and labels, write dataset.toml and splits."""
    from sartm.datatools.init import init_dataset

    names = tuple(name.strip() for name in classes.split(",") if name.strip())
    sides: dict[Role, str] = {"rgb": rgb, "thermal": thermal, "label": label}
    told = {role: place for role, place in sides.items() if place}
    start = init_dataset(folder, names, overwrite, told)
    written = sorted(start.files)
    print_json(
        json_file,
        {"written": written, "found": list(start.said), "undecided": list(start.questions)},
    )
    if json_file != "-":
        for text in start.said:
            say(text)
        for text in start.questions:
            say(f"undecided: {text}")
        say(f"written: {', '.join(written) or 'nothing'}; next: sartm data check {folder}")
    return 0


@app.command()
def check(
    datasets: Annotated[
        list[str], typer.Argument(help="Folder or dataset.toml; several to train on together.")
    ],
    out: Annotated[Path | None, typer.Option(help="Folder for a contact sheet.")] = None,
    json_file: options.Json = "",
) -> int:
    """Find what is wrong with data sets; exit status 3 if one cannot be used as it is."""
    from sartm.config import to_dict
    from sartm.datatools.check import check_datasets
    from sartm.datatools.words import compare_words

    check_json(json_file, datasets, out)
    words = compare_words(datasets) if len(datasets) > 1 else ()
    sheets = [out / str(place + 1) if out and words else out for place in range(len(datasets))]
    results, between = check_datasets(datasets, sheets)
    for result in results if json_file != "-" else ():
        _print_check(result)
    found = [result.to_dict() for result in results]
    several = {
        "sets": found,
        "classes": [to_dict(row) for row in words],
        "findings": [to_dict(finding) for finding in between],
    }
    print_json(json_file, several if words else found[0])
    if words and json_file != "-":
        titles = ("class", *(result.name for result in results))
        rows = [(row.name, *(name or "-" for name in row.names)) for row in words]
        print_table(titles, rows, "classes of a model trained on all of them")
        shared = [row.name for row in words if row.word and sum(map(bool, row.names)) > 1]
        say(f"shared words: {', '.join(shared) or 'none'}")
        _print_findings(between)
    for dataset, result in zip(datasets, results, strict=True):
        if not result.usable:
            faults = sum(max(len(f.items), 1) for f in result.findings if f.severity == "error")
            remedy = "correct them or take the pairs out"
            complain(f"{dataset}: errors: {faults}; {remedy}")
    leaks = [finding for finding in between if finding.severity == "error"]
    if leaks:
        complain("what one set trains on another one validates or tests on; take it out of one")
    return 3 if leaks or not all(result.usable for result in results) else 0


def _print_check(result: "Check") -> None:
    rows = []
    for count in result.splits:
        copies = f" + {count.mirrored} mirrored" if count.mirrored else ""
        pairs = f"{count.pairs - count.mirrored}{copies}"
        rows.append((count.split, pairs, str(count.official or "-")))
    print_table(("split", "pairs", "official"), rows, f"{result.name} ({result.layout})")
    say(f"sizes: {_listed(result.sizes)}; thermal: {_listed(result.thermal_types)}")
    if result.offset:
        say(f"thermal to RGB: {result.offset.describe()}")
    for note in result.notes:
        say(note)
    _print_findings(result.findings)
    if not result.findings:
        say("nothing wrong was found")
    if result.contact_sheet:
        say(f"contact sheet: {result.contact_sheet}")


def _print_findings(findings: "Sequence[Finding]") -> None:
    for finding in findings:
        say(f"{finding.severity}: {finding.message}")
        for item in finding.items[:5]:
            say(f"  {item}")
        if len(finding.items) > 5:
            say(f"  and {len(finding.items) - 5} more; --json FILE lists all")


def _listed(counts: dict[str, int]) -> str:
    """The four most frequent; a folder of crops has as many sizes as pictures."""
    common = sorted(counts.items(), key=lambda item: -item[1])
    shown = [f"{key} ({count})" for key, count in common[:4]]
    if len(common) > 4:
        shown.append(f"and {len(common) - 4} more")
    return ", ".join(shown) or "none"


@app.command()
def stats(
    dataset: Annotated[
        str, typer.Argument(help="Folder in a known layout, or a dataset.toml.")
    ] = "",
    manifest: options.Manifest = "",
    classes: Annotated[
        str, typer.Option(help="Of a manifest's labels: mfnet, ..., or a data set.")
    ] = "",
    out: Annotated[Path | None, typer.Option(help="Folder for a chart.")] = None,
    json_file: options.Json = "",
) -> int:
    """Count class shares per split and subset, and the range of thermal values."""
    from sartm.config import to_dict
    from sartm.data.manifest import Manifest
    from sartm.datatools.stats import stats_dataset, stats_manifest

    if bool(dataset) == bool(manifest):
        raise InputError("give a data set, or --manifest with --classes")
    check_json(json_file, [dataset, manifest], out)
    if manifest:
        layout = options.read_layout(classes)
        table = layout.classes if layout else options.require_classes(classes, "--classes")
        result = stats_manifest(Manifest(manifest), table, out, layout)
    else:
        result = stats_dataset(dataset, out)
    print_json(json_file, to_dict(result))
    if json_file != "-":
        for whole in (group for group in result.groups if not group.subset):
            _print_stats([group for group in result.groups if group.split == whole.split])
        if out:
            say(f"chart: {out / 'classes.svg'}")
    complain_of_each(result.failures)
    return 3 if result.failures else 0


def _print_stats(groups: "list[GroupStats]") -> None:
    """One split: the whole first, then its subsets."""
    titles = (f"{group.subset or group.split} %" for group in groups)
    lines = []
    for rows in zip(*(group.classes for group in groups), strict=True):
        shares = (f"{row.share:.3g}" for row in rows)
        lines.append((f"{rows[0].id} {rows[0].name}", *shares, str(rows[0].pairs)))
    title = f"{groups[0].split}, share of pixels"
    print_table(("class", *titles, "pairs with it"), lines, title)
    for group in groups:
        heat = "no thermal images"
        if group.thermal:
            low, mean, high = group.thermal
            heat = f"thermal {low:g} to {high:g}, mean {mean:.1f}"
        say(f"{group.title}: {group.pairs} pairs, {group.labelled} labelled; {heat}")


@app.command()
def manifest(
    folder: Annotated[Path, typer.Argument(help="Data set, or a folder of both cameras' images.")],
    out: Annotated[Path, typer.Option(help="New file: .parquet, .csv or .jsonl.")] = Path(
        "pairs.parquet"
    ),
    split: Annotated[str, typer.Option(help="Only this one of a data set.")] = "",
) -> int:
    """Write the pairs of a folder as a table, for --manifest of predict, evaluate and score."""
    from sartm.datatools.listing import list_pairs

    found = list_pairs(folder, out, split)
    for file in found.unpaired:
        complain(f"{file}: no partner")
    labelled = f", {found.labelled} with labels" if found.labelled else ""
    options_ = "".join(f" {option}" for option in found.told)
    say(f"{found.pairs} pairs{labelled} in {out}; next: sartm predict --manifest {out}{options_}")
    if found.told:
        complain(
            f"a manifest does not hold what {folder} says of thermal: give predict{options_}, "
            f"evaluate --data {folder} and data stats --classes {folder} beside it"
        )
    return 3 if found.unpaired else 0


@app.command()
def merge(
    out: Annotated[str, typer.Argument(help="Folder or address that all shards wrote to.")],
    manifest: options.Manifest = "",
    json_file: options.Json = "",
) -> int:
    """Join what the shards of a manifest made; exit status 3 if some of it is missing."""
    options.import_network()
    from sartm.config import to_dict
    from sartm.data.manifest import Manifest
    from sartm.fleet.merging import merge_shards

    check_json(json_file, [manifest], Path(out))
    merged = merge_shards(out, Manifest(manifest) if manifest else None)
    print_json(json_file, to_dict(merged))
    if json_file != "-":
        say(f"{merged.pairs} label maps in {out}")
    for count, what, names in (
        (merged.failed, "failed", [f"{name}: {why}" for name, why in merged.failures.items()]),
        (merged.missed, "missing", merged.missing),
    ):
        if count:
            more = f"; and {count - 5} more" if count > 5 else ""
            complain(f"{count} {what}: {'; '.join(names[:5])}{more}; run their shards again")
    return 3 if merged.failed or merged.missed else 0


@app.command()
def shard(
    dataset: DataSet,
    out: Annotated[Path, typer.Option(help="New folder.")],
    json_file: options.Json = "",
) -> int:
    """Write a data set as tar shards to train from: few large files, for many machines."""
    from sartm.config import to_dict
    from sartm.datatools.sharding import shard_dataset

    check_json(json_file, [dataset], out)
    result = shard_dataset(dataset, out)
    print_json(json_file, to_dict(result))
    if json_file != "-":
        size = f"{result.shards} shards, {result.bytes / 2**20:.0f} MiB"
        say(f"{_listed(result.splits)} in {out}: {size}; next: sartm train RECIPE --data {out}")
    return 0


@app.command()
def convert(
    dataset: DataSet,
    out: Annotated[Path, typer.Option(help="New folder.")],
    to: Annotated[Target, typer.Option(help="Layout to write.")] = "dataset.toml",
    tool: Annotated[
        Tool | None, typer.Option("--from", help="Draw labels from what a tool exported.")
    ] = None,
    annotations: Annotated[
        Path | None, typer.Option(help="That export: a file or folder; else in the data set.")
    ] = None,
    min_area: Annotated[int, typer.Option(min=1, help="Pixels of an object, coco and yolo.")] = 1,
    lossy: Annotated[bool, typer.Option(help="Also where something is lost; says what.")] = False,
    json_file: options.Json = "",
) -> int:
    """Write a data set in another layout: every pixel the same, or a refusal."""
    from sartm.config import to_dict
    from sartm.datatools.convert import convert_dataset

    check_json(json_file, [dataset, annotations or dataset], out)
    if tool is not None:
        if to != "dataset.toml":
            raise InputError("--from writes a dataset.toml; convert that to another layout then")
        return _import(dataset, tool, annotations or Path(dataset), out, json_file)
    if to == "coco" or to == "yolo":
        return _export(dataset, to, out, min_area, json_file)
    result = convert_dataset(dataset, to, out, lossy)
    print_json(json_file, to_dict(result))
    if json_file != "-":
        say(f"{result.pairs} pairs in {out}: {_listed(result.splits)}")
        for lost in result.lost:
            say(f"lost: {lost}")
    return 0


def _import(dataset: str, tool: Tool, annotations: Path, out: Path, json_file: str) -> int:
    from sartm.config import to_dict
    from sartm.datatools.importing import import_annotations

    result = import_annotations(dataset, tool, annotations, out)
    print_json(json_file, to_dict(result))
    if json_file != "-":
        say(f"{result.pairs} pairs in {out}: {_listed(result.splits)}")
        say(f"classes: {', '.join(f'{id_} {name}' for id_, name in enumerate(result.classes))}")
        if result.overlapping:
            say(f"{result.overlapping} pixels lie under two classes; the upper one has them")
        for kind, count in result.left_out.items():
            say(f"left out, no areas: {count} {kind}")
        for what, names in (
            ("pairs without annotation", result.without),
            ("annotated images of no pair", result.unmatched),
        ):
            if names:
                more = f" and {len(names) - 5} more" if len(names) > 5 else ""
                say(f"{what}: {len(names)}: {', '.join(names[:5])}{more}")
    return 0


def _export(
    dataset: str, to: Literal["coco", "yolo"], out: Path, min_area: int, json_file: str
) -> int:
    from sartm.config import to_dict
    from sartm.datatools.instances import export_dataset

    result = export_dataset(dataset, to, out, min_area)
    print_json(json_file, to_dict(result))
    if json_file != "-":
        say(f"{result.pairs} pairs, {result.instances} objects in {out}: {_listed(result.splits)}")
        for lost in result.lost:
            say(f"lost: {lost}")
    return 0


@app.command()
def align(
    dataset: DataSet,
    out: Annotated[Path, typer.Option(help="New folder.")],
    per_pair: Annotated[bool, typer.Option(help="Cameras move: each pair by itself.")] = False,
    calibration: Annotated[
        Path | None, typer.Option(help="JSON: homography, point pairs, or cameras.")
    ] = None,
    json_file: options.Json = "",
) -> int:
    """Move the thermal images onto the RGB images; pictures show before and after."""
    from sartm.config import to_dict
    from sartm.datatools.align import align_dataset

    check_json(json_file, [dataset, calibration], out)
    result = align_dataset(dataset, out, per_pair=per_pair, calibration=calibration)
    print_json(json_file, to_dict(result))
    if json_file != "-":
        known = [pair.quality for pair in result.pairs.values() if pair.quality is not None]
        quality = f", quality {min(known):.2f} or better" if known else ""
        say(f"{len(result.pairs)} pairs aligned ({result.method}{quality}) in {out}")
        say(f"before and after: {out / 'comparison'}")
    complain_of_each({name: f"left out: {reason}" for name, reason in result.refused.items()})
    return 3 if result.refused else 0


@app.command()
def synth(
    out: Annotated[Path, typer.Argument(help="New folder.")],
    pairs: Annotated[int, typer.Option(min=1)] = 100,
    size: Annotated[str, typer.Option(help="HEIGHTxWIDTH in pixels.")] = "480x640",
    seed: Annotated[int, typer.Option(min=0)] = 0,
    condition: Annotated[
        str, typer.Option(help="day, dusk, night, fog, smoke, glare or random.")
    ] = "random",
    misregistration: Annotated[float, typer.Option(min=0, help="Largest shift, pixels.")] = 0.0,
    celsius: Annotated[
        bool, typer.Option("--celsius", help="Thermal in degrees; exact ones in celsius/.")
    ] = False,
    classes: Annotated[
        Literal["mfnet", "full"], typer.Option(help="Labels: MFNet's, or road, building, ... too.")
    ] = "mfnet",
) -> int:
    """Draw a labelled data set of street scenes."""
    from sartm.scenes.dataset import SceneOptions, write_dataset

    scenes = SceneOptions(
        condition=condition,
        size=read_size(size, "--size"),
        misregistration=misregistration,
        thermal="celsius" if celsius else "display",
        classes=classes,
    )
    write_dataset(out, pairs, seed, scenes)
    say(f"{pairs} pairs in {out}; sartm data check {out} describes them")
    return 0
