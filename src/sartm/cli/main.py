"""The `sartm` command: parse, call one library function, print. Imports torch only when needed."""

import gc
import json
import logging
import os
import re
import sys
import warnings
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.table import Table

from sartm.errors import InputError

if TYPE_CHECKING:
    from sartm.classes import Classes
    from sartm.datatools.check import GroupStats
    from sartm.evaluation.report.scores import Report
    from sartm.evaluation.scoring import Views
    from sartm.inference.folders import Homography
    from sartm.inference.predictor import Predictor
    from sartm.inference.video import VideoOptions

app = typer.Typer(
    name="sartm",
    help="RGB-thermal semantic segmentation: label, train, evaluate.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
data = typer.Typer(help="Check, describe, convert, draw and align data sets.", no_args_is_help=True)
app.add_typer(data, name="data")
weights = typer.Typer(help="List, fetch and convert weights.", no_args_is_help=True)
app.add_typer(weights, name="weights")


class Modality(StrEnum):
    """What a model may see."""

    both = "both"
    rgb = "rgb"
    thermal = "thermal"


class Precision(StrEnum):
    """Number format of the network."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"


class YesNo(StrEnum):
    """Whether a fourth channel is thermal."""

    auto = "auto"
    yes = "yes"
    no = "no"


class OneFile(StrEnum):
    """Where RGB (first) and thermal lie in one video."""

    left_right = "left-right"
    right_left = "right-left"
    top_bottom = "top-bottom"
    bottom_top = "bottom-top"
    four_channel = "four-channel"


class Match(StrEnum):
    """How frames find their partners."""

    auto = "auto"
    by_time = "time"
    by_index = "index"


Model = Annotated[str, typer.Option("--model", help="Bundled name, folder, hub id or file.")]
Encoder = Annotated[
    str, typer.Option(help="SAM 2 under a model of adapters: file, folder or hub id.")
]
ClassNames = Annotated[
    str, typer.Option(help="Of released weights: mfnet, pst900, fmb, cityscapes, a data set, .txt.")
]
Canvas = Annotated[
    int | None, typer.Option(help="Side of the square that released weights pad to; 1280.")
]
Data = Annotated[str, typer.Option("--data", help="Data set: a folder or dataset.toml.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")]
PrecisionOption = Annotated[Precision, typer.Option(help="auto takes bf16 where it is fast.")]
BatchSize = Annotated[
    int, typer.Option(min=1, max=1024, help="Pairs of one size that the network takes at a time.")
]
Workers = Annotated[
    int | None, typer.Option(min=1, max=256, help="Such batches under way; what suits if left out.")
]
Compile = Annotated[
    bool, typer.Option("--compile", help="By torch.compile: a minute for each new size.")
]
Json = Annotated[str, typer.Option("--json", help="Also write the result as JSON; - for stdout.")]
Split = Annotated[str, typer.Option(help="Split of the data set.")]
Protocol = Annotated[str, typer.Option(help="Named mean; the benchmark's own when left out.")]
Opacity = Annotated[float, typer.Option(min=0.0, max=1.0, help="Of the class colours.")]
ResizeThermal = Annotated[bool, typer.Option(help="Thermal shows the same view.")]
Radiometric = Annotated[bool, typer.Option(help="Thermal: FLIR radiometric JPEG, as Celsius.")]
BlackHot = Annotated[bool, typer.Option(help="In thermal, warm is dark.")]
Holes = Annotated[
    float | None, typer.Option(help="Raw thermal value without a measurement: filled.")
]
Repair = Annotated[bool, typer.Option(help="Fill thermal's border bands and dead pixels.")]
Clahe = Annotated[bool, typer.Option(help="Local contrast of thermal where it is shown.")]


# Of whichever click typer brings: newer ones have a copy of their own.
UsageError: type[Exception] = typer.BadParameter.__mro__[1]


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit status: 0, 2 for user errors, 3 for failed items, 130."""
    # Damaged files are described by our own messages; the decoders' would double them.
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
    logging.basicConfig(
        level=logging.INFO,
        format="%(message)s",
        handlers=[RichHandler(console=Console(stderr=True), show_path=False, show_time=False)],
    )
    logging.getLogger("sartm").setLevel(logging.INFO)
    for noisy in ("httpx", "httpx2", "huggingface_hub", "accelerate"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    logging.getLogger("huggingface_hub").propagate = False  # it prints its warnings itself
    try:
        status = app(argv, standalone_mode=False)
    except InputError as error:
        print(f"sartm: {error}", file=sys.stderr)
        return 2
    except typer.Abort:
        return 130
    except UsageError as error:
        cast(typer.BadParameter, error).show()
        return 2
    except KeyboardInterrupt:
        print("sartm: interrupted; what was finished is kept", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 0
    return status if isinstance(status, int) else 0


def run() -> None:
    """Console script."""
    status = main()
    gc.freeze()  # the process ends: nothing is left to be looked through
    sys.exit(status)


def _print_json(target: str, content: Any) -> None:
    if target == "-":
        print(json.dumps(content, indent=1))
    elif target:
        from sartm.files import write_atomic

        try:
            write_atomic(Path(target), json.dumps(content, indent=1).encode())
        except OSError as error:
            raise InputError(
                f"cannot write {target}: {error.strerror}; choose another --json"
            ) from None


def _import_network() -> None:
    """Import what computes, without the garbage collector.

    It would go over a million new objects, none of them garbage: a fifth of the time, and as much
    again at exit.
    """
    if "torch" in sys.modules:
        return
    gc.disable()
    try:
        import sartm.inference.predictor  # noqa: F401
    finally:
        gc.freeze()
        gc.enable()


def _predictor(
    model: str,
    encoder: str,
    classes: str,
    canvas: int | None,
    device: str,
    precision: Precision,
    batch_size: int,
    workers: int | None,
    compile: bool,
) -> "Predictor":
    _import_network()
    from sartm.inference.predictor import Predictor
    from sartm.model.loading import load

    loaded = load(model, encoder=encoder or None, classes=_class_table(classes), canvas=canvas)
    return Predictor(
        loaded,
        device=device,
        precision=precision.value,
        batch_size=batch_size,
        workers=workers,
        compiled=compile,
    )


def _class_table(name: str) -> "Classes | None":
    """What --classes names: a table, those of a data set, or the lines of a .txt."""
    from sartm.classes import TABLES, Classes
    from sartm.data.layouts import open_layout

    if not name:
        return None
    if name in TABLES:
        return TABLES[name]
    if not Path(name).exists():
        raise InputError(
            f"no class table {name!r}; choose one of {', '.join(TABLES)}, or give a data set or a "
            f".txt with a name on each line"
        )
    if Path(name).suffix.lower() != ".txt":
        return open_layout(name).classes
    try:
        lines = Path(name).read_text("utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read the names of classes in {name}: {error}") from None
    return Classes(tuple(line.strip() for line in lines if line.strip()))


@app.command()
def predict(
    rgb: Annotated[str, typer.Option(help="RGB: file, folder, glob or video.")] = "",
    thermal: Annotated[str, typer.Option(help="Thermal: file, folder, glob or video.")] = "",
    out: Annotated[Path, typer.Option(help="Folder for label maps and overlays.")] = Path("out"),
    model: Model = "mini",
    encoder: Encoder = "",
    classes: ClassNames = "",
    canvas: Canvas = None,
    modality: Modality = Modality.both,
    overlay: Annotated[bool, typer.Option(help="Also write overlays.")] = True,
    opacity: Opacity = 0.5,
    pair: Annotated[str, typer.Option(help="Regex on the name; group 1 pairs the files.")] = "",
    allow_single: Annotated[bool, typer.Option(help="Label unpaired files alone.")] = False,
    resize_thermal: ResizeThermal = False,
    four_channel: Annotated[YesNo, typer.Option(help="Is a 4th channel thermal?")] = YesNo.auto,
    radiometric: Radiometric = False,
    black_hot: BlackHot = False,
    holes: Holes = None,
    repair: Repair = False,
    clahe: Clahe = False,
    align: Annotated[
        str, typer.Option(help="Thermal onto RGB first: a calibration (JSON), or auto.")
    ] = "",
    overwrite: Annotated[bool, typer.Option(help="Label again what is there.")] = False,
    device: Device = "auto",
    precision: PrecisionOption = Precision.auto,
    batch_size: BatchSize = 1,
    workers: Workers = None,
    compile: Compile = False,
    json_file: Json = "",
) -> int:
    """Label pairs: files, folders, globs or videos; either modality may be left out."""
    if not rgb and not thermal:
        raise InputError("no input; give --rgb, --thermal or both")
    from sartm.data.finding import find_pairs
    from sartm.inference.streams import is_video
    from sartm.io.cameras import Camera

    camera = Camera(radiometric, black_hot, repair, holes)
    engine = partial(
        _predictor, model, encoder, classes, canvas, device, precision, batch_size, workers, compile
    )
    if is_video(rgb) or is_video(thermal):
        if align:
            raise InputError("--align is for images; take the video's frames as two folders")
        from sartm.inference.video import VideoOptions

        film = VideoOptions(
            modality=modality.value,
            opacity=opacity,
            resize_thermal=resize_thermal,
            allow_single=allow_single,
            camera=camera,
            clahe=clahe,
        )
        return _label_video(rgb, thermal, out, engine(), model, film, overwrite, json_file)
    find_pairs(rgb or None, thermal or None, pair or None, allow_single)  # fails before the model
    _import_network()
    from sartm.inference.folders import PredictOptions, label_folder

    options = PredictOptions(
        modality=modality.value,
        overlay=overlay,
        opacity=opacity,
        resize_thermal=resize_thermal,
        four_channel=four_channel.value,
        pair_regex=pair or None,
        allow_single=allow_single,
        camera=camera,
        clahe=clahe,
        align=_alignment(align),
    )
    outcome = label_folder(
        engine(),
        rgb or None,
        thermal or None,
        out,
        model=model,
        options=options,
        overwrite=overwrite,
    )
    for name, message in outcome.failures.items():
        print(f"sartm: {name}: {message}", file=sys.stderr)
    if json_file:
        _print_json(json_file, json.loads((out / "summary.json").read_text()))
    if json_file != "-":
        kept = f", {outcome.skipped} were there already" if outcome.skipped else ""
        print(f"{outcome.done} label maps in {out / 'labels'}{kept}")
    return 3 if outcome.failures else 0


def _alignment(value: str) -> "Homography | Literal['auto'] | None":
    """--align: nothing, auto, or the homography of a file."""
    from sartm.registration.calibration import read_calibration

    if not value:
        return None
    if value == "auto":
        return "auto"
    return tuple(map(tuple, read_calibration(Path(value)).tolist()))


@app.command()
def video(
    rgb: Annotated[str, typer.Option(help="Video, folder or glob of frames, or camera:N.")] = "",
    thermal: Annotated[str, typer.Option(help="Likewise.")] = "",
    out: Annotated[Path, typer.Option(help="NAME.webm, NAME.mp4 or a folder.")] = Path("out"),
    model: Model = "mini",
    encoder: Encoder = "",
    classes: ClassNames = "",
    canvas: Canvas = None,
    modality: Modality = Modality.both,
    one_file: Annotated[OneFile | None, typer.Option(help="RGB and thermal in --rgb.")] = None,
    every: Annotated[int, typer.Option(min=1, help="Only each N-th frame.")] = 1,
    limit: Annotated[int | None, typer.Option(min=1, help="Frames to label.")] = None,
    match: Annotated[Match, typer.Option(help="Partners; auto: time, folders by name.")] = (
        Match.auto
    ),
    tolerance: Annotated[float | None, typer.Option(help="Seconds between partners.")] = None,
    offset: Annotated[float, typer.Option(help="Seconds to add to thermal times.")] = 0.0,
    fps: Annotated[float | None, typer.Option(help="Rate of folders of frames; 25.")] = None,
    smooth: Annotated[float, typer.Option(help="Share kept from before, 0 to below 1.")] = 0.0,
    labels: Annotated[bool, typer.Option(help="Also write label maps.")] = False,
    width: Annotated[int, typer.Option(help="Of the result in pixels, at most.")] = 1920,
    opacity: Opacity = 0.5,
    allow_single: Annotated[bool, typer.Option(help="Label unpaired frames alone.")] = False,
    resize_thermal: ResizeThermal = False,
    radiometric: Radiometric = False,
    black_hot: BlackHot = False,
    holes: Holes = None,
    repair: Repair = False,
    clahe: Clahe = False,
    overwrite: Annotated[bool, typer.Option(help="Replace a video that exists.")] = False,
    device: Device = "auto",
    precision: PrecisionOption = Precision.auto,
    batch_size: BatchSize = 1,
    workers: Workers = None,
    compile: Compile = False,
    json_file: Json = "",
) -> int:
    """Label a video, frames or a live camera: the inputs beside the overlay, WebM or MP4."""
    if not rgb and not thermal:
        raise InputError("no input; give --rgb, --thermal or both")
    from sartm.inference.video import VideoOptions
    from sartm.io.cameras import Camera

    options = VideoOptions(
        modality=modality.value,
        opacity=opacity,
        every=every,
        match=match.value,
        tolerance=tolerance,
        offset=offset,
        smooth=smooth,
        one_file=None if one_file is None else one_file.value,
        rate=fps,
        limit=limit,
        labels=labels,
        width=width,
        resize_thermal=resize_thermal,
        allow_single=allow_single,
        camera=Camera(radiometric, black_hot, repair, holes),
        clahe=clahe,
    )
    predictor = _predictor(
        model, encoder, classes, canvas, device, precision, batch_size, workers, compile
    )
    return _label_video(rgb, thermal, out, predictor, model, options, overwrite, json_file)


def _label_video(
    rgb: str,
    thermal: str,
    out: Path,
    predictor: "Predictor",
    model: str,
    options: "VideoOptions",
    overwrite: bool,
    json_file: str,
) -> int:
    from sartm.inference.video import predict_video

    outcome = predict_video(
        predictor,
        rgb or None,
        thermal or None,
        out,
        model=model,
        options=options,
        overwrite=overwrite,
    )
    for line in outcome.complaints():
        print(f"sartm: {line}", file=sys.stderr)
    if json_file:
        _print_json(json_file, json.loads(outcome.summary.read_text()))
    if json_file != "-":
        print(f"{outcome.frames} frames in {outcome.video}")
    return 3 if outcome.unpaired or outcome.failed else 0


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="mini, mfnet, pst900, fmb or a run's config.json")],
    data: Annotated[str, typer.Option("--data", help="Data set: a folder or dataset.toml.")] = "",
    out: Annotated[Path, typer.Option(help="Folder of the run.")] = Path("runs/latest"),
    init: Annotated[str, typer.Option(help="Model to start from.")] = "",
    teacher: Annotated[str, typer.Option(help="Larger model to learn from as well.")] = "",
    unlabelled: Annotated[
        list[str] | None, typer.Option(help="Pairs that the teacher labels: a dataset.toml.")
    ] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="a.b=value")] = None,
    text_encoder: Annotated[str, typer.Option(help="For class names no table holds.")] = "",
    seed: Annotated[int | None, typer.Option()] = None,
    resume: Annotated[bool, typer.Option(help="Continue the run in --out.")] = False,
    max_steps: Annotated[int | None, typer.Option(min=1)] = None,
    max_time: Annotated[float | None, typer.Option(help="Minutes of this session.")] = None,
    device: Device = "auto",
    precision: Annotated[Precision | None, typer.Option(help="The recipe's if left out.")] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Pairs the network takes at a time; the recipe's.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=0, max=256, help="Readers of batches; 0: none; the recipe's.")
    ] = None,
    json_file: Json = "",
) -> int:
    """Train on a labelled data set; the best on its validation split is kept in OUT/best."""
    from dataclasses import replace

    from sartm.config import override
    from sartm.training.loop import Limits
    from sartm.training.loop import train as run_training
    from sartm.training.recipes import load_recipe

    if resume and (out / "config.json").exists():
        config = load_recipe(str(out))
    else:
        config = load_recipe(recipe)
    given = {
        "data": data, "init": init, "teacher": teacher, "unlabelled": tuple(unlabelled or ()),
        "text_encoder": text_encoder, "seed": seed, "workers": workers,
        "precision": precision and precision.value,
    }  # fmt: skip
    changed = {key: value for key, value in given.items() if value not in ("", (), None)}
    optim = config.optim if batch_size is None else replace(config.optim, batch_size=batch_size)
    config = override(replace(config, **changed, optim=optim), settings or [])  # type: ignore[arg-type]
    seconds = None if max_time is None else 60 * max_time
    result = run_training(
        config,
        out,
        resume=resume,
        limits=Limits(max_steps, seconds),
        device=device,
        command="sartm " + " ".join(sys.argv[1:]),
    )
    _print_json(json_file, result)
    if json_file != "-":
        best = result["best"]
        found = f"{best['present']:.2f} at step {best['step']}"
        print(f"{result['step']} steps; best `present` mIoU on validation: {found}")
        print(f"model: {out / 'best'}, curves: {out / 'report' / 'report.html'}")
    return 130 if result["interrupted"] else 0


@app.command()
def evaluate(
    data: Data,
    model: Model = "mini",
    encoder: Encoder = "",
    classes: ClassNames = "",
    canvas: Canvas = None,
    split: Split = "val",
    protocol: Protocol = "",
    modality: Modality = Modality.both,
    out: Annotated[Path, typer.Option(help="Folder for the report.")] = Path("report"),
    limit: Annotated[int | None, typer.Option(min=1, help="This many pairs, evenly.")] = None,
    window: Annotated[str, typer.Option(help="Sliding window HxW instead of the whole.")] = "",
    stride: Annotated[int | None, typer.Option(help="Of the window, in pixels.")] = None,
    scales: Annotated[str, typer.Option(help="Sizes to average over, as in 0.75,1,1.25.")] = "1",
    flip: Annotated[bool, typer.Option("--flip", help="Average with the mirror image.")] = False,
    robustness: Annotated[bool, typer.Option("--robustness", help="Bad conditions too.")] = False,
    conditions: Annotated[str, typer.Option(help="Only these of them: a,b,c")] = "",
    compare: Annotated[bool, typer.Option(help="Show published figures beside it.")] = False,
    seed: Annotated[int, typer.Option(help="Of what is random in the conditions.")] = 0,
    device: Device = "auto",
    precision: PrecisionOption = Precision.auto,
    batch_size: BatchSize = 1,
    workers: Workers = None,
    compile: Compile = False,
    json_file: Json = "",
) -> int:
    """Score a model on a split: report.json, report.md, report.html."""
    from sartm.data.pairs import PairDataset
    from sartm.evaluation.report.files import write_report
    from sartm.evaluation.report.published import compare as compare_published
    from sartm.evaluation.report.published import load_published
    from sartm.evaluation.robustness import choose_conditions, measure_robustness
    from sartm.evaluation.scoring import evaluate_with_pictures
    from sartm.model.released import is_unnamed

    views = _views(window, stride, scales, flip)
    names = [name.strip() for name in conditions.split(",") if name.strip()]
    wanted = choose_conditions(names, modality.value) if robustness or names else []
    dataset = PairDataset.open(data, split, limit)
    predictor = _predictor(
        model, encoder, classes, canvas, device, precision, batch_size, workers, compile
    )
    if is_unnamed(predictor.classes) and predictor.classes.names != dataset.classes.names:
        raise InputError(
            f"{model} does not name its {len(predictor.classes)} classes; if they are this data "
            f"set's, add --classes {data} (or pst900, mfnet, fmb)"
        )
    rows = []
    if wanted:
        rows = measure_robustness(
            predictor,
            dataset,
            out,
            conditions=wanted,
            modality=modality.value,
            protocol=protocol or None,
            views=views,
            seed=seed,
        )
    report, pictures = evaluate_with_pictures(
        predictor,
        dataset,
        modality=modality.value,
        protocol=protocol or None,
        views=views,
        robustness=rows,
        model=model,
        command="sartm " + " ".join(sys.argv[1:]),
    )
    comparison = compare_published(report, load_published()) if compare else None
    write_report(report, out, pictures, comparison, dataset.classes.palette)
    _print_report(report, out, json_file)
    return 0


def _views(window: str, stride: int | None, scales: str, flip: bool) -> "Views":
    from sartm.evaluation.scoring import Views

    size = re.fullmatch(r"(\d{1,5})x(\d{1,5})", window)
    if window and not size:
        raise InputError(f"--window is {window!r}; write HEIGHTxWIDTH, such as 480x640")
    try:
        factors = tuple(float(part) for part in scales.split(","))
    except ValueError:
        raise InputError(
            f"--scales is {scales!r}; write numbers with commas, such as 0.75,1,1.25"
        ) from None
    return Views((int(size[1]), int(size[2])) if size else None, stride, factors, flip)


@app.command()
def score(
    predictions: Annotated[Path, typer.Option(help="Folder of label maps, <name>.png per pair.")],
    data: Data,
    split: Split = "val",
    protocol: Protocol = "",
    out: Annotated[Path, typer.Option(help="Folder for the report.")] = Path("report"),
    json_file: Json = "",
) -> int:
    """Score label maps made by anyone, by any model."""
    from sartm.data.pairs import PairDataset
    from sartm.evaluation.report.files import write_report
    from sartm.evaluation.scoring import score as run_score

    dataset = PairDataset.open(data, split)
    report = run_score(
        predictions,
        dataset,
        protocol=protocol or None,
        command="sartm " + " ".join(sys.argv[1:]),
    )
    write_report(report, out, palette=dataset.classes.palette)
    _print_report(report, out, json_file)
    return 0


def _print_report(report: "Report", out: Path, json_file: str) -> None:
    from sartm.evaluation.report.files import to_json

    if json_file:
        _print_json(json_file, json.loads(to_json(report)))
    if json_file == "-":
        return

    def cell(value: float | str | None) -> str:
        return f"{value:.2f}" if isinstance(value, int | float) else "-"

    table = Table("class", "IoU %", "acc %", "F1 %", "pixels")
    for row in report.classes:
        table.add_row(row.name, cell(row.iou), cell(row.acc), cell(row.f1), f"{row.pixels:,}")
    console = Console()
    console.print(table)
    for name, mean in report.means.items():
        console.print(f"{name}: mIoU {cell(mean['miou'])} over {mean['counted']} classes")
    for name in report.subsets:
        present = report.subsets[name].means["present"]
        console.print(f"{name}: present mIoU {cell(present['miou'])}")
    for measured in report.robustness:
        if not isinstance(measured["severity"], int | float):
            words = f"{measured['condition']} {measured['severity'] or ''}".strip()
            console.print(f"{words}: {measured['protocol']} mIoU {cell(measured['miou'])}")
    if report.contaminated:
        console.print(f"contaminated: {len(report.contaminated)} of these pairs were trained on")
    console.print(f"report: {out / 'report.html'}")


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for pictures and the report.")] = Path(
        "out/demo"
    ),
    model: Model = "mini",
    device: Device = "auto",
    json_file: Json = "",
) -> int:
    """Draw scenes by day, night, glare and fog, label them, and write a report with pictures."""
    from sartm.demo import run_demo

    result = run_demo(out, model=model, device=device)
    files = {"pictures": str(result.picture), "report": str(result.report)}
    _print_json(json_file, {"present": result.scores} | files)
    if json_file == "-":
        return 0
    table = Table("mIoU % of classes present", "RGB only", "thermal only", "both")
    for part, row in result.scores.items():
        values = (row["rgb"], row["thermal"], row["both"])
        table.add_row(part, *("-" if value is None else f"{value:.1f}" for value in values))
    Console().print(table)
    print(f"pictures: {result.picture}\nreport: {result.report}")
    return 0


@app.command("app")
def serve_app(
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0: every one.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535)] = 7860,
    models: Annotated[
        list[str] | None, typer.Option("--model", help="Repeatable; all bundled ones if left out.")
    ] = None,
    token: Annotated[
        str, typer.Option(envvar="SARTM_TOKEN", help="Requests must bring it (bearer token).")
    ] = "",
    annotate: Annotated[
        Path | None, typer.Option(help="Folder of pairs to correct labels for.")
    ] = None,
    annotations: Annotated[
        Path | None, typer.Option(help="Folder for those labels, if not the data set's own.")
    ] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="Repeatable: a name behind which a proxy serves it.")
    ] = None,
    max_upload: Annotated[float, typer.Option(min=0.001, help="MiB of one request.")] = 32,
    max_pixels: Annotated[float, typer.Option(min=0.001, help="Million pixels of an image.")] = 16,
    max_waiting: Annotated[int, typer.Option(min=0, help="Further requests get 429.")] = 32,
    max_seconds: Annotated[float, typer.Option(min=0.1, help="Of one request.")] = 60,
    device: Device = "auto",
    precision: PrecisionOption = Precision.auto,
) -> int:
    """Serve the web page, the REST API and annotation in one process."""
    try:
        from sartm.app.server import LOOPBACK, Limits, create_app, load_predictors, serve
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("sartm"):
            raise
        raise InputError(
            f"the page needs {error.name}, which is not installed: pip install 'sartm[app]'"
        ) from None
    from sartm.app.annotation import open_annotation

    limits = Limits(round(max_upload * 2**20), round(max_pixels * 1e6), max_waiting, max_seconds)
    predictors = load_predictors(models or [], device=device, precision=precision.value)
    classes = next(iter(predictors.values())).classes
    folder = open_annotation(annotate, annotations, classes) if annotate else None
    local = host in {"127.0.0.1", "localhost", "::1"}
    hosts = (*LOOPBACK, *(allow_host or ())) if local or allow_host else ()
    if not local and not token:
        print(f"sartm: everybody who reaches {host} may use this; --token T", file=sys.stderr)
    service = create_app(predictors, limits=limits, token=token, hosts=hosts, annotation=folder)
    serve(service, host, port)
    return 0


class ExportFormat(StrEnum):
    """Kinds of files that a model is exported to."""

    onnx = "onnx"
    openvino = "openvino"


class Runtime(StrEnum):
    """What computes the network."""

    torch = "torch"
    onnx = "onnx"
    openvino = "openvino"


@app.command()
def export(
    format: Annotated[ExportFormat, typer.Option("--format", help="Kind of file.")],
    out: Annotated[Path, typer.Option(help="Folder for the file, config.json and README.md.")],
    model: Model = "mini",
    encoder: Encoder = "",
    classes: ClassNames = "",
    canvas: Canvas = None,
    modality: Annotated[Modality, typer.Option(help="Inputs of the graph.")] = Modality.both,
    int8: Annotated[bool, typer.Option("--int8", help="8-bit, measured on --data.")] = False,
    data: Annotated[str, typer.Option("--data", help="Your pairs, for comparison and int8.")] = "",
    pairs: Annotated[int, typer.Option(min=1, help="Pairs int8 is measured on.")] = 64,
    size: Annotated[str, typer.Option(help="Fix the graph to HEIGHTxWIDTH; any if left out.")] = "",
    json_file: Json = "",
) -> int:
    """Write a model as ONNX or OpenVINO, once it is shown to compute what PyTorch computes."""
    from dataclasses import asdict

    from sartm.export import export_model, open_samples
    from sartm.model.loading import load
    from sartm.model.sartm import SARTM

    sides = _sides(size, "--size") if size else None
    loaded = load(model, encoder=encoder or None, classes=_class_table(classes), canvas=canvas)
    if not isinstance(loaded, SARTM):
        raise InputError(f"{model} is an export already; give the model it was made from")
    result = export_model(
        loaded,
        out,
        format=format.value,
        modality=modality.value,
        size=sides,
        int8=int8,
        samples=open_samples(data, 8, ("val", "test")) if data else (),
        calibration=open_samples(data, pairs, ("train",)) if data and int8 else (),
    )
    found = result.comparison
    _print_json(json_file, {"file": str(result.file)} | asdict(found) | asdict(result.settings))
    if json_file != "-":
        kind = "real" if found.real else "drawn"
        print(f"against PyTorch on {found.images} {kind} images: logits differ by up to "
              f"{found.difference:.2g}, same class on {100 * found.agreement:.3f} %")  # fmt: skip
        print(f"model: {result.file}")
    return 0


@app.command()
def bench(
    model: Model = "mini",
    runtime: Annotated[Runtime, typer.Option(help="What computes.")] = Runtime.torch,
    size: Annotated[str, typer.Option(help="HEIGHTxWIDTH in pixels.")] = "480x640",
    batch_size: BatchSize = 1,
    workers: Annotated[
        int, typer.Option(min=1, max=256, help="Batches under way at a time, sharing the cores.")
    ] = 1,
    modality: Modality = Modality.both,
    compile: Compile = False,
    compare: Annotated[
        str, typer.Option(help="A second setting, in turns: runtime=onnx,precision=fp32")
    ] = "",
    rounds: Annotated[int, typer.Option(min=1, help="Timed runs of each.")] = 10,
    device: Device = "auto",
    precision: PrecisionOption = Precision.auto,
    json_file: Json = "",
) -> int:
    """Measure speed and memory; the last line is one JSON object."""
    from sartm.benchmark import Setting, change_setting
    from sartm.benchmark import bench as run_bench

    height, width = _sides(size, "--size")
    setting = Setting(
        model=model, runtime=runtime.value, height=height, width=width, batch_size=batch_size,
        precision=precision.value, modality=modality.value, workers=workers, compile=compile,
    )  # fmt: skip
    changed = change_setting(setting, compare) if compare else None
    result = run_bench(setting, changed, rounds=rounds, device=device)
    if json_file != "-":
        _print_speeds(result)
    if json_file not in ("", "-"):
        _print_json(json_file, result)
    print(json.dumps(result))
    return 0


def _print_speeds(result: dict[str, Any]) -> None:
    """A table without columns that no setting fills, the operators, and the comparison."""
    titles = ("setting", "ms", "pairs/s", "peak MiB", "GFLOP", "GFLOP/s", "of GEMM", "of peak")
    lines = []
    for row in result["rows"]:
        name = f"{row['model']} {row['runtime']} {row['precision'].removeprefix(row['runtime'])}"
        name = " ".join(f"{name} {row['height']}x{row['width']} x{row['batch_size']}".split())
        name += ", compiled" * row["compile"]
        name += f", {row['workers']} workers" * (row["workers"] > 1)
        keys = ("median_ms", "pairs_per_second", "peak_mib", "gflop", "gflops")
        shares = (row.get(key) for key in ("share", "mfu"))
        values = [name, *(str(row.get(key, "-")) for key in keys)]
        values += ["-" if share is None else f"{100 * share:.0f} %" for share in shares]
        lines.append(values)
    table = Table()
    filled = [k for k in range(len(titles)) if any(values[k] != "-" for values in lines)]
    for k in filled:
        table.add_column(titles[k], no_wrap=k > 0)
    for values in lines:
        table.add_row(*(values[k] for k in filled))
    Console().print(table)
    for row in result["rows"]:
        if "operators" in row:
            parts = (f"{each['name']} {100 * each['share']:.0f} %" for each in row["operators"])
            print(f"operators: {', '.join(parts)}")
    if "compare" in result:
        found = result["compare"]
        same = "other sizes" if found["agreement"] is None else f"{100 * found['agreement']:.3f} %"
        print(f"the second is {found['median_ratio']:.2f} times as fast; same class on {same}")


def _sides(text: str, option: str) -> tuple[int, int]:
    """HEIGHTxWIDTH as numbers."""
    sides = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    if not sides:
        raise InputError(f"{option} {text!r} is not HEIGHTxWIDTH; write e.g. 480x640")
    return int(sides[1]), int(sides[2])


DataSet = Annotated[str, typer.Argument(help="Folder in a known layout, or a dataset.toml.")]


class Target(StrEnum):
    """Layouts that a data set can be written in."""

    four_channel = "four-channel"
    flat = "flat"
    flat_jpeg = "flat-jpeg"
    toml = "dataset.toml"


class ThermalValues(StrEnum):
    """What drawn thermal images hold."""

    display = "display"
    celsius = "celsius"


@data.command()
def check(
    dataset: DataSet,
    out: Annotated[Path | None, typer.Option(help="Folder for a contact sheet.")] = None,
    json_file: Json = "",
) -> int:
    """Find what is wrong with a data set; exit status 3 if it cannot be used as it is."""
    from sartm.datatools.check import check_dataset

    result = check_dataset(dataset, out)
    _print_json(json_file, result.to_dict())
    if json_file != "-":
        table = Table("split", "pairs", "official", title=f"{result.name} ({result.layout})")
        for count in result.splits:
            copies = f" + {count.mirrored} mirrored" if count.mirrored else ""
            own = f"{count.pairs - count.mirrored}{copies}"
            table.add_row(count.split, own, str(count.official or "-"))
        Console().print(table)
        print(f"sizes: {_listed(result.sizes)}; thermal: {_listed(result.thermal_types)}")
        if result.offset:
            shift = f"({result.offset.dx:+.1f}, {result.offset.dy:+.1f}) px right and down"
            print(f"thermal to RGB: {shift}, median of {result.offset.pairs} pairs")
        for finding in result.findings:
            print(f"{finding.severity}: {finding.message}")
            for item in finding.items[:5]:
                print(f"  {item}")
            if len(finding.items) > 5:
                print(f"  and {len(finding.items) - 5} more; --json FILE lists all")
        if not result.findings:
            print("nothing wrong was found")
        if result.contact_sheet:
            print(f"contact sheet: {result.contact_sheet}")
    if not result.usable:
        faults = sum(max(len(f.items), 1) for f in result.findings if f.severity == "error")
        remedy = "correct them or take the pairs out"
        print(f"sartm: {dataset}: errors: {faults}; {remedy}", file=sys.stderr)
    return 0 if result.usable else 3


def _listed(counts: dict[str, int]) -> str:
    """The four most frequent; a folder of crops has as many sizes as pictures."""
    common = sorted(counts.items(), key=lambda item: -item[1])
    shown = [f"{key} ({count})" for key, count in common[:4]]
    if len(common) > 4:
        shown.append(f"and {len(common) - 4} more")
    return ", ".join(shown) or "none"


@data.command()
def stats(
    dataset: DataSet,
    out: Annotated[Path | None, typer.Option(help="Folder for a chart.")] = None,
    json_file: Json = "",
) -> int:
    """Count class shares per split and subset, and the range of thermal values."""
    from sartm.config import to_dict
    from sartm.datatools.check import stats_dataset

    result = stats_dataset(dataset, out)
    _print_json(json_file, to_dict(result))
    if json_file != "-":
        for whole in (group for group in result.groups if not group.subset):
            _print_stats([group for group in result.groups if group.split == whole.split])
        if out:
            print(f"chart: {out / 'classes.svg'}")
    for name, message in result.failures.items():
        print(f"sartm: {name}: {message}", file=sys.stderr)
    return 3 if result.failures else 0


def _print_stats(groups: "list[GroupStats]") -> None:
    """One split: the whole first, then its subsets."""
    titles = (f"{group.subset or group.split} %" for group in groups)
    table = Table("class", *titles, "pairs with it", title=f"{groups[0].split}, share of pixels")
    for rows in zip(*(group.classes for group in groups), strict=True):
        shares = (f"{row.share:.3g}" for row in rows)
        table.add_row(f"{rows[0].id} {rows[0].name}", *shares, str(rows[0].pairs))
    console = Console()
    console.print(table)
    for group in groups:
        heat = "no thermal images"
        if group.thermal:
            low, mean, high = group.thermal
            heat = f"thermal {low:g} to {high:g}, mean {mean:.1f}"
        console.print(f"{group.title}: {group.pairs} pairs, {group.labelled} labelled; {heat}")


@data.command()
def convert(
    dataset: DataSet,
    to: Annotated[Target, typer.Option(help="Layout to write.")],
    out: Annotated[Path, typer.Option(help="New folder.")],
    lossy: Annotated[bool, typer.Option(help="Also where something is lost; says what.")] = False,
    json_file: Json = "",
) -> int:
    """Write a data set in another layout: every pixel the same, or a refusal."""
    from sartm.config import to_dict
    from sartm.datatools.convert import convert_dataset

    result = convert_dataset(dataset, to.value, out, lossy)
    _print_json(json_file, to_dict(result))
    if json_file != "-":
        print(f"{result.pairs} pairs in {out}: {_listed(result.splits)}")
        for lost in result.lost:
            print(f"lost: {lost}")
    return 0


@data.command()
def align(
    dataset: DataSet,
    out: Annotated[Path, typer.Option(help="New folder.")],
    per_pair: Annotated[bool, typer.Option(help="Cameras move: each pair by itself.")] = False,
    calibration: Annotated[
        Path | None, typer.Option(help="JSON: homography, point pairs, or cameras.")
    ] = None,
    json_file: Json = "",
) -> int:
    """Move the thermal images onto the RGB images; pictures show before and after."""
    from sartm.config import to_dict
    from sartm.datatools.convert import align_dataset

    result = align_dataset(dataset, out, per_pair=per_pair, calibration=calibration)
    _print_json(json_file, to_dict(result))
    if json_file != "-":
        known = [pair.quality for pair in result.pairs.values() if pair.quality is not None]
        quality = f", quality {min(known):.2f} or better" if known else ""
        print(f"{len(result.pairs)} pairs aligned ({result.method}{quality}) in {out}")
        print(f"before and after: {out / 'comparison'}")
    for name, reason in result.refused.items():
        print(f"sartm: {name}: left out: {reason}", file=sys.stderr)
    return 3 if result.refused else 0


@data.command()
def synth(
    out: Annotated[Path, typer.Argument(help="New folder.")],
    pairs: Annotated[int, typer.Option(min=1)] = 100,
    size: Annotated[str, typer.Option(help="HEIGHTxWIDTH in pixels.")] = "480x640",
    seed: Annotated[int, typer.Option(min=0)] = 0,
    condition: Annotated[
        str, typer.Option(help="day, dusk, night, fog, smoke, glare or random.")
    ] = "random",
    misregistration: Annotated[float, typer.Option(min=0, help="Largest shift, pixels.")] = 0.0,
    thermal: Annotated[ThermalValues, typer.Option(help="8-bit grey or degrees.")] = (
        ThermalValues.display
    ),
) -> int:
    """Draw a labelled data set of street scenes."""
    from sartm.scenes.dataset import SceneOptions, write_dataset

    sides = re.fullmatch(r"(\d{1,5})x(\d{1,5})", size)
    if not sides:
        raise InputError(f"--size {size!r} is not HEIGHTxWIDTH; write e.g. 480x640")
    options = SceneOptions(
        condition=condition,
        size=(int(sides[1]), int(sides[2])),
        misregistration=misregistration,
        thermal=thermal.value,
    )
    write_dataset(out, pairs, seed, options)
    print(f"{pairs} pairs in {out}; sartm data check {out} describes them")
    return 0


@weights.command("list")
def list_known(json_file: Json = "") -> int:
    """What can be loaded by name: bundled models and SAM 2's encoders."""
    from dataclasses import asdict

    from sartm.model.hub import list_weights

    rows = list_weights()
    _print_json(json_file, [asdict(row) for row in rows])
    if json_file != "-":
        table = Table("name", "kind", "size", "parameters", "licence", "here")
        for row in rows:
            here = "yes" if row.here else "no"
            table.add_row(row.name, row.kind, row.size, f"{row.parameters:,}", row.licence, here)
        Console().print(table)
    return 0


@weights.command()
def get(
    name: Annotated[str, typer.Argument(help="A name of `weights list`, or org/name.")],
    revision: Annotated[str, typer.Option(help="Branch, tag or commit.")] = "",
    verify: Annotated[bool, typer.Option(help="Also check files that are cached.")] = False,
) -> int:
    """Fetch weights into the hub's cache: resumed when cut off, checked by SHA-256."""
    from sartm.model.hub import get_weights

    print(get_weights(name, revision=revision or None, verify=verify))
    return 0


@weights.command("convert")
def convert_model(
    source: Annotated[str, typer.Argument(help="Anything --model takes.")],
    out: Annotated[Path, typer.Option(help="Folder of the converted model.")],
    encoder: Encoder = "",
    classes: ClassNames = "",
    canvas: Canvas = None,
    full: Annotated[bool, typer.Option("--full", help="Put the encoder into adapters.")] = False,
    half: Annotated[bool, typer.Option("--half", help="Write float16.")] = False,
) -> int:
    """Write any weights as a model folder; only adapters need more than it, unless --full."""
    import torch

    from sartm.model.loading import convert_weights

    model = convert_weights(
        source,
        out,
        classes=_class_table(classes),
        canvas=canvas,
        encoder=encoder or None,
        full=full,
        dtype=torch.float16 if half else torch.float32,
    )
    print(f"{out}: {model.config.size}, {len(model.config.classes)} classes")
    return 0


if __name__ == "__main__":
    run()
