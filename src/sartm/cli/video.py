"""`video`: label films, frames and live cameras; `predict` hands films on to it."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sartm.cli import options
from sartm.cli.options import INPUT, OUTPUT, make_predictor, print_json
from sartm.cli.printing import complain, say
from sartm.errors import InputError
from sartm.outputs import check_json

if TYPE_CHECKING:
    from sartm.inference.options import VideoOptions
    from sartm.inference.predictor import Predictor

# The same as in inference.pictures and inference.frames, which import OpenCV: --help does without.
Arrangement = Literal["left-right", "right-left", "top-bottom", "bottom-top", "four-channel"]
Match = Literal["auto", "time", "index"]


def video(
    rgb: Annotated[
        str,
        typer.Option(
            help="Video, frames, camera:N, rtsp:// or http://, bag:/topic.", rich_help_panel=INPUT
        ),
    ] = "",
    thermal: Annotated[str, typer.Option(help="Likewise.", rich_help_panel=INPUT)] = "",
    one_file: Annotated[
        Arrangement | None,
        typer.Option(help="RGB and thermal in --rgb.", rich_help_panel=INPUT),
    ] = None,
    every: Annotated[
        int, typer.Option(min=1, help="Only each N-th frame.", rich_help_panel=INPUT)
    ] = 1,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Frames to label.", rich_help_panel=INPUT)
    ] = None,
    match: Annotated[
        Match,
        typer.Option(help="Partners; auto: time, folders by name.", rich_help_panel=INPUT),
    ] = "auto",
    tolerance: Annotated[
        float | None, typer.Option(help="Seconds between partners.", rich_help_panel=INPUT)
    ] = None,
    offset: Annotated[
        float, typer.Option(help="Seconds to add to thermal times.", rich_help_panel=INPUT)
    ] = 0.0,
    fps: Annotated[
        float | None, typer.Option(help="Rate of folders of frames; 25.", rich_help_panel=INPUT)
    ] = None,
    allow_single: options.AllowSingle = False,
    modality: options.Seen = "both",
    resize_thermal: options.ResizeThermal = False,
    thermal_range: options.ThermalRange = "auto",
    radiometric: options.Radiometric = False,
    black_hot: options.BlackHot = False,
    holes: options.Holes = None,
    repair: options.Repair = False,
    degrees: options.Degrees = "",
    accuracy: options.Accuracy = options.ACCURACY,
    clahe: options.Clahe = False,
    on_misaligned: options.Misaligned = "warn",
    out: Annotated[
        Path, typer.Option(help="NAME.webm, NAME.mp4 or a folder.", rich_help_panel=OUTPUT)
    ] = Path("out"),
    smooth: Annotated[
        float | None,
        typer.Option(
            help="Share kept from before, 0 to below 1: 0.5 of films.",
            rich_help_panel=OUTPUT,
            show_default=False,
        ),
    ] = None,
    labels: Annotated[
        bool, typer.Option("--labels", help="Also write label maps.", rich_help_panel=OUTPUT)
    ] = False,
    objects: options.Objects = False,
    min_area: options.MinArea = None,
    sync_report: Annotated[
        str,
        typer.Option(help="The sources' clocks, as JSON; - for stdout.", rich_help_panel=OUTPUT),
    ] = "",
    width: Annotated[
        int, typer.Option(help="Of the result in pixels, at most.", rich_help_panel=OUTPUT)
    ] = 1920,
    opacity: options.Opacity = 0.5,
    legend: options.Legend = False,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace a video that exists.", rich_help_panel=OUTPUT),
    ] = False,
    json_file: options.Json = "",
    model: options.Model = "mini",
    encoder: options.Encoder = "",
    classes: options.ClassNames = "",
    text_encoder: options.TextEncoder = "",
    canvas: options.Canvas = None,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    batch_size: options.BatchSize = 1,
    workers: options.Workers = None,
    compile: options.Compile = False,
) -> int:
    """Label a video, frames or a live camera: the inputs beside the overlay, WebM or MP4."""
    if not rgb and not thermal:
        raise InputError("no input; give --rgb, --thermal or both")
    check_json(json_file, [rgb, thermal, model, encoder, classes], out)
    check_json(sync_report, [rgb, thermal, model, encoder, classes, json_file], out)
    from sartm.inference.options import VideoOptions
    from sartm.io.cameras import Camera

    film = VideoOptions(
        modality=modality, opacity=opacity, every=every, match=match, tolerance=tolerance,
        offset=offset, smooth=smooth, one_file=one_file, rate=fps, limit=limit, labels=labels,
        width=width, resize_thermal=resize_thermal, allow_single=allow_single,
        camera=Camera(radiometric, black_hot, repair, holes), clahe=clahe, legend=legend,
        on_misaligned=on_misaligned,
        objects=options.choose_objects(objects, min_area, degrees, accuracy, radiometric),
    )  # fmt: skip
    predictor = make_predictor(
        model, encoder, classes, canvas, device, precision, batch_size, workers, compile,
        thermal_range, text_encoder,
    )  # fmt: skip
    return label_video(rgb, thermal, out, predictor, model, film, overwrite, json_file, sync_report)


def label_video(
    rgb: str,
    thermal: str,
    out: Path,
    predictor: "Predictor",
    model: str,
    film: "VideoOptions",
    overwrite: bool,
    json_file: str,
    sync_report: str = "",
) -> int:
    """Label a film and say what came of it, whatever command it was given to."""
    from sartm.inference.video import predict_video

    sources = (rgb or None, thermal or None)
    outcome = predict_video(
        predictor, *sources, out, model=model, options=film, overwrite=overwrite
    )
    found = f"{outcome.frames} frames in {outcome.video}"
    if film.objects is not None:
        found += f", {outcome.objects} objects"
    print_json(sync_report, outcome.sync)
    print_outcome(outcome.complaints(), outcome.summary, found, json_file, quiet=sync_report == "-")
    return 3 if outcome.unpaired or outcome.failed or outcome.losses else 0


def print_outcome(
    complaints: Iterable[str], summary: Path, found: str, json_file: str, quiet: bool = False
) -> None:
    """What is wrong with the outputs, the summary as JSON, and what was done."""
    for complaint in filter(None, complaints):
        complain(complaint)
    if json_file:
        print_json(json_file, json.loads(summary.read_text()))
    if json_file != "-" and not quiet:
        say(found)
