"""Measure how right models are: `evaluate`, `score`, `demo`."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sartm.cli import options
from sartm.cli.options import command_line, make_labeller, make_predictor, print_json, read_size
from sartm.cli.printing import complain, complain_of_each, print_comparison, print_table, say
from sartm.colours import display_palette
from sartm.config import Modality
from sartm.errors import InputError
from sartm.outputs import check_json, shared_folder

if TYPE_CHECKING:
    from sartm.classes import Classes
    from sartm.evaluation.report.scores import Report
    from sartm.evaluation.views import Views
    from sartm.fleet.labeller import PairLabeller
    from sartm.fleet.ray_engine import Cluster

ReportFolder = Annotated[Path, typer.Option(help="Folder for the report.")]


def evaluate(
    data: options.Data = "",
    manifest: options.Manifest = "",
    model: options.Model = "mini",
    encoder: options.Encoder = "",
    classes: options.ClassNames = "",
    text_encoder: options.TextEncoder = "",
    canvas: options.Canvas = None,
    split: options.Split = "val",
    protocol: options.Protocol = "",
    modality: Modality = "both",
    out: ReportFolder = Path("report"),
    limit: Annotated[int | None, typer.Option(min=1, help="This many pairs, evenly.")] = None,
    window: Annotated[str, typer.Option(help="Sliding window HxW instead of the whole.")] = "",
    stride: Annotated[int | None, typer.Option(help="Of the window, in pixels.")] = None,
    scales: Annotated[str, typer.Option(help="Sizes to average over, as in 0.75,1,1.25.")] = "1",
    flip: Annotated[bool, typer.Option("--flip", help="Average with the mirror image.")] = False,
    robustness: Annotated[bool, typer.Option("--robustness", help="Bad conditions too.")] = False,
    conditions: Annotated[str, typer.Option(help="Only these of them: a,b,c")] = "",
    compare: Annotated[bool, typer.Option(help="Show published figures beside it.")] = False,
    clicks: Annotated[
        int, typer.Option(min=0, max=20, help="Score masks after 1 ... N simulated clicks instead.")
    ] = 0,
    seed: Annotated[int, typer.Option(help="Of what is random in the conditions.")] = 0,
    thermal_range: options.ThermalRange = "model",
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    batch_size: options.BatchSize = 1,
    workers: options.Workers = None,
    compile: options.Compile = False,
    engine: options.Engine = "local",
    address: options.Address = "",
    json_file: options.Json = "",
) -> int:
    """Score a model on a split: report.json, report.md, report.html."""
    from sartm.data.pairs import PairDataset
    from sartm.evaluation.conditions import choose_conditions
    from sartm.evaluation.report.files import write_report
    from sartm.evaluation.report.published import compare as compare_published
    from sartm.evaluation.report.published import load_published
    from sartm.evaluation.robustness import measure_robustness
    from sartm.evaluation.scoring import evaluate_with_pictures

    if seed < 0:
        raise InputError(f"--seed is {seed}; give 0 or more")
    check_json(json_file, [data, model, encoder, classes, manifest], out)
    if clicks:
        if manifest:
            raise InputError("--clicks needs a data set, not --manifest: give --data")
        options.refuse_given(
            {
                "--classes": classes, "--text-encoder": text_encoder, "--canvas": canvas,
                "--protocol": protocol, "--window": window, "--stride": stride,
                "--scales": scales != "1", "--flip": flip, "--robustness": robustness,
                "--conditions": conditions, "--compare": compare, "--batch-size": batch_size > 1,
                "--workers": workers, "--compile": compile, "--engine": engine != "local",
            },
            "is of scores of labels, not of --clicks; leave it out",
        )  # fmt: skip
        return _evaluate_clicks(
            data, model, encoder, split, modality, out, limit, clicks, thermal_range, device,
            precision, json_file,
        )  # fmt: skip
    views = _views(window, stride, scales, flip)
    names = [name.strip() for name in conditions.split(",") if name.strip()]
    wanted = choose_conditions(names, modality) if robustness or names else []
    if manifest:
        if wanted or limit or compare or not _is_plain(views):
            raise InputError(
                "--manifest is scored whole, without --limit, views, conditions and --compare"
            )
        labeller = partial(
            make_labeller, model, encoder, classes, canvas, text_encoder, device, precision,
            batch_size, workers if engine == "local" else 1, compile, thermal_range,
        )  # fmt: skip
        return _evaluate_manifest(
            labeller, manifest, data, classes, modality, protocol, out,
            (engine, address, workers), json_file,
        )  # fmt: skip
    _require_data(data, engine)
    dataset = PairDataset.open(data, split, limit)
    predictor = make_predictor(
        model, encoder, classes, canvas, device, precision, batch_size, workers, compile,
        thermal_range, text_encoder, dataset.classes,
    )  # fmt: skip
    _check_classes(predictor.classes, dataset.classes, model, data)
    if classes and predictor.classes.names != dataset.classes.names:
        dataset = dataset.relabel(predictor.classes)
    rows = []
    with shared_folder(out):
        if wanted:
            rows = measure_robustness(
                predictor, dataset, out, conditions=wanted, modality=modality,
                protocol=protocol or None, views=views, seed=seed,
            )  # fmt: skip
        report, pictures = evaluate_with_pictures(
            predictor, dataset, modality=modality, protocol=protocol or None, views=views,
            robustness=rows, model=model, command=command_line(),
        )  # fmt: skip
        poor = _describe_poor_labels(report, dataset.classes)
        comparison = compare_published(report, load_published()) if compare else None
        write_report(report, out, pictures, comparison, display_palette(dataset.classes))
    _print_report(report, out, json_file)
    if poor:
        complain(poor)
    return 0


def _evaluate_clicks(
    data: str,
    model: str,
    encoder: str,
    split: str,
    modality: Modality,
    out: Path,
    limit: int | None,
    clicks: int,
    thermal_range: str,
    device: str,
    precision: options.NumberFormat,
    json_file: str,
) -> int:
    """`evaluate --clicks`."""
    from dataclasses import asdict

    from sartm.data.pairs import PairDataset
    from sartm.evaluation.clicks import measure_clicks
    from sartm.evaluation.report.clicks import curve_table, parts_of, write_click_report
    from sartm.inference.clicks import Promptable, require_weights
    from sartm.model.loading import load

    dataset = PairDataset.open(data, split, limit)
    loaded = require_weights(load(model, encoder=encoder or None), model)
    prompt = Promptable(loaded, device=device, precision=precision, thermal_range=thermal_range)
    with shared_folder(out):
        report = measure_clicks(
            prompt, dataset, clicks=clicks, modality=modality, model=model, command=command_line()
        )
        write_click_report(report, out)
    print_json(json_file, asdict(report))
    if json_file != "-":
        table = curve_table(report, parts_of(report))
        print_table(table.head, table.rows, whole=True)
        say(f"report: {out / 'report.html'}")
    return 0


def _check_classes(known: "Classes", wanted: "Classes", model: str, data: str) -> None:
    """Refuse classes without names where nothing says that they are the data set's."""
    from sartm.model.released import is_unnamed

    if is_unnamed(known) and known.names != wanted.names:
        raise InputError(
            f"{model} does not name its {len(known)} classes; if they are this data set's, add "
            f"--classes {data} (or pst900, mfnet, fmb)"
        )


def _require_data(data: str, engine: str) -> None:
    if not data:
        raise InputError("nothing to score on; give --data or --manifest")
    if engine != "local":
        raise InputError("--engine is of --manifest: sartm data manifest DATA --split val")


def _is_plain(views: "Views") -> bool:
    return views == type(views)()


def _evaluate_manifest(
    make: "Callable[..., PairLabeller]",
    place: str,
    data: str,
    table: str,
    modality: Modality,
    protocol: str,
    out: Path,
    engine: tuple[str, str, int | None],
    json_file: str,
) -> int:
    """--manifest: a report on the sum of what is counted of its pairs."""
    from sartm.data.manifest import Manifest
    from sartm.fleet.evaluating import evaluate_manifest

    layout = options.read_layout(data)
    known = options.read_classes(data or table) if layout is None else layout.classes
    asked = options.read_classes(table)
    if asked and known and asked.names != known.names:
        raise InputError(
            f"--classes {table!r} are not the classes of {data}, in which a manifest is scored: "
            f"leave --classes out, or score the data set itself, --data without --manifest"
        )
    labeller = make(known)
    classes = known or labeller.classes()
    _check_classes(labeller.classes(), classes, labeller.name, data)
    with shared_folder(out):
        report, failures = evaluate_manifest(
            labeller, Manifest(place), classes, _connect(*engine), modality=modality,
            layout=layout, protocol=protocol or None, command=command_line(),
        )  # fmt: skip
    return _finish(report, failures, classes, out, json_file)


def _connect(engine: str, address: str, workers: int | None) -> "Cluster | None":
    from sartm.fleet.ray_engine import connect

    return None if engine == "local" else connect(address, workers, False)


def _finish(
    report: "Report", failures: dict[str, str], classes: "Classes", out: Path, json_file: str
) -> int:
    """Write a report on a manifest, print it and what is not in it."""
    from sartm.evaluation.report.files import write_report

    poor = _describe_poor_labels(report, classes)
    with shared_folder(out):
        write_report(report, out, palette=display_palette(classes))
    _print_report(report, out, json_file)
    if poor:
        complain(poor)
    complain_of_each(failures)
    return 3 if failures else 0


def _views(window: str, stride: int | None, scales: str, flip: bool) -> "Views":
    from sartm.evaluation.views import Views

    size = read_size(window, "--window") if window else None
    try:
        factors = tuple(float(part) for part in scales.split(","))
    except ValueError:
        raise InputError(
            f"--scales is {scales!r}; write numbers with commas, such as 0.75,1,1.25"
        ) from None
    return Views(size, stride, factors, flip)


def score(
    predictions: Annotated[str, typer.Option(help="Folder of label maps, <name>.png per pair.")],
    data: options.Data = "",
    manifest: options.Manifest = "",
    split: options.Split = "val",
    protocol: options.Protocol = "",
    out: ReportFolder = Path("report"),
    workers: options.Workers = None,
    engine: options.Engine = "local",
    address: options.Address = "",
    json_file: options.Json = "",
) -> int:
    """Score label maps made by anyone, by any model."""
    from sartm.data.pairs import PairDataset
    from sartm.evaluation.report.files import write_report
    from sartm.evaluation.scoring import score as run_score

    check_json(json_file, [data, predictions, manifest], out)
    if manifest:
        return _score_manifest(
            predictions, manifest, data, protocol, out, (engine, address, workers), json_file
        )
    _require_data(data, engine)
    dataset = PairDataset.open(data, split)
    with shared_folder(out):
        report = run_score(
            Path(predictions), dataset, protocol=protocol or None, command=command_line()
        )
        poor = _describe_poor_labels(report, dataset.classes)
        write_report(report, out, palette=display_palette(dataset.classes))
    _print_report(report, out, json_file)
    if poor:
        complain(poor)
    return 0


def _score_manifest(
    predictions: str,
    place: str,
    table: str,
    protocol: str,
    out: Path,
    engine: tuple[str, str, int | None],
    json_file: str,
) -> int:
    from sartm.data.manifest import Manifest
    from sartm.fleet.counting import score_manifest
    from sartm.fleet.store import Store

    layout = options.read_layout(table)
    classes = layout.classes if layout else options.require_classes(table, "--data")
    manifest = Manifest(place)
    first = next(iter(manifest), None)
    if first is not None and Store(predictions).size(f"labels/{first.name}.png") is not None:
        predictions = f"{predictions.rstrip('/')}/labels"
    report, failures = score_manifest(
        predictions, manifest, classes, _connect(*engine), layout=layout,
        protocol=protocol or None, command=command_line(),
    )  # fmt: skip
    return _finish(report, failures, classes, out, json_file)


def _describe_poor_labels(report: "Report", classes: "Classes") -> str:
    """What makes the scores worthless, if anything; refused where there are none."""
    from sartm.data.coverage import describe_poor_labels

    pixels = {row.id: row.pixels for row in report.classes}
    if not any(pixels.values()):
        raise InputError(
            f"split {report.split}: {describe_poor_labels({classes.ignore: 1}, classes)}"
        )
    poor = describe_poor_labels(pixels, classes)
    return f"split {report.split}: {poor}" if poor else ""


def _print_report(report: "Report", out: Path, json_file: str) -> None:
    from sartm.evaluation.report.files import to_json
    from sartm.evaluation.report.tables import distinct_means

    if json_file:
        print_json(json_file, json.loads(to_json(report)))
    if json_file == "-":
        return

    def cell(value: float | str | None) -> str:
        return f"{value:.2f}" if isinstance(value, int | float) else "-"

    print_table(
        ("class", "IoU %", "acc %", "F1 %", "pixels"),
        ((row.name, cell(row.iou), cell(row.acc), cell(row.f1), f"{row.pixels:,}")
         for row in report.classes),
    )  # fmt: skip
    for name, mean in distinct_means(report):
        over = "" if mean["counted"] == 1 else f" over {mean['counted']} classes"
        say(f"{name} {cell(mean['miou'])} %{over}")
    print_comparison(report.modalities)
    for name in report.subsets:
        present = report.subsets[name].means["present"]
        say(f"{name}: present mIoU {cell(present['miou'])}")
    for measured in report.robustness:
        if not isinstance(measured["severity"], int | float):
            words = f"{measured['condition']} {measured['severity'] or ''}".strip()
            say(f"{words}: {measured['protocol']} mIoU {cell(measured['miou'])}")
    if report.contaminated:
        say(f"contaminated: {len(report.contaminated)} of these pairs were trained on")
    say(f"report: {out / 'report.html'}")


def demo(
    out: Annotated[Path, typer.Option(help="Folder for pictures and the report.")] = Path(
        "out/demo"
    ),
    model: options.Model = "mini",
    device: options.Device = "auto",
    json_file: options.Json = "",
) -> int:
    """Draw scenes by day, night, glare and fog, label them, and write a report with pictures."""
    from sartm.demo import run_demo

    check_json(json_file, [model], out)
    result = run_demo(out, model=model, device=device)
    files = {"pictures": str(result.picture), "report": str(result.report)}
    print_json(json_file, {"present": result.scores} | files)
    if json_file == "-":
        return 0
    rows = []
    for part, row in result.scores.items():
        values = (row["rgb"], row["thermal"], row["both"])
        rows.append((part, *("-" if value is None else f"{value:.1f}" for value in values)))
    print_table(("mIoU % of classes present", "RGB only", "thermal only", "both"), rows)
    say(f"pictures: {result.picture}")
    say(f"report: {result.report}")
    return 0
