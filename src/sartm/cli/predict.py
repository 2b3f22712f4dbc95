"""Label what nobody has labelled: `predict` for pairs, `video` for moving ones."""

import json
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sartm.cli import options
from sartm.cli.options import import_network, make_predictor, print_json
from sartm.cli.printing import complain, say
from sartm.config import Modality
from sartm.errors import InputError

if TYPE_CHECKING:
    from sartm.inference.folders import Homography
    from sartm.inference.predictor import Predictor
    from sartm.inference.video import VideoOptions

# The same as in io.decode and inference.frames, which import OpenCV: --help does without.
FourChannel = Literal["auto", "yes", "no"]
Arrangement = Literal["left-right", "right-left", "top-bottom", "bottom-top", "four-channel"]
Match = Literal["auto", "time", "index"]


def predict(
    rgb: Annotated[str, typer.Option(help="RGB: file, folder, glob or video.")] = "",
    thermal: Annotated[str, typer.Option(help="Thermal: file, folder, glob or video.")] = "",
    out: Annotated[Path, typer.Option(help="Folder for label maps and overlays.")] = Path("out"),
    model: options.Model = "mini",
    encoder: options.Encoder = "",
    classes: options.ClassNames = "",
    canvas: options.Canvas = None,
    modality: Modality = "both",
    overlay: Annotated[bool, typer.Option(help="Also write overlays.")] = True,
    opacity: options.Opacity = 0.5,
    pair: Annotated[str, typer.Option(help="Regex on the name; group 1 pairs the files.")] = "",
    allow_single: Annotated[bool, typer.Option(help="Label unpaired files alone.")] = False,
    resize_thermal: options.ResizeThermal = False,
    four_channel: Annotated[FourChannel, typer.Option(help="Is a 4th channel thermal?")] = "auto",
    radiometric: options.Radiometric = False,
    black_hot: options.BlackHot = False,
    holes: options.Holes = None,
    repair: options.Repair = False,
    clahe: options.Clahe = False,
    align: Annotated[
        str, typer.Option(help="Thermal onto RGB first: a calibration (JSON), or auto.")
    ] = "",
    on_misaligned: options.Misaligned = "warn",
    overwrite: Annotated[bool, typer.Option(help="Label again what is there.")] = False,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    batch_size: options.BatchSize = 1,
    workers: options.Workers = None,
    compile: options.Compile = False,
    json_file: options.Json = "",
) -> int:
    """Label pairs: files, folders, globs or videos; either modality may be left out."""
    if not rgb and not thermal:
        raise InputError("no input; give --rgb, --thermal or both")
    from sartm.data.finding import search_pairs
    from sartm.inference.streams import is_video
    from sartm.io.cameras import Camera

    camera = Camera(radiometric, black_hot, repair, holes)
    open_model = partial(
        make_predictor, model, encoder, classes, canvas,
        device, precision, batch_size, workers, compile,
    )  # fmt: skip
    if is_video(rgb) or is_video(thermal):
        if align:
            raise InputError("--align is for images; take the video's frames as two folders")
        from sartm.inference.video import VideoOptions

        film = VideoOptions(
            modality=modality, opacity=opacity, resize_thermal=resize_thermal,
            allow_single=allow_single, camera=camera, clahe=clahe, on_misaligned=on_misaligned,
        )  # fmt: skip
        return _label_video(rgb, thermal, out, open_model(), model, film, overwrite, json_file)
    # Fails before the model is loaded.
    search_pairs(rgb or None, thermal or None, pair or None, allow_single, out)
    import_network()
    from sartm.inference.folders import PredictOptions, label_folder

    how = PredictOptions(
        modality=modality, overlay=overlay, opacity=opacity, resize_thermal=resize_thermal,
        four_channel=four_channel, pair_regex=pair or None, allow_single=allow_single,
        camera=camera, clahe=clahe, align=_alignment(align), on_misaligned=on_misaligned,
    )  # fmt: skip
    sources = (rgb or None, thermal or None)
    outcome = label_folder(
        open_model(), *sources, out, model=model, options=how, overwrite=overwrite
    )
    complaints = [f"{name}: {message}" for name, message in outcome.failures.items()]
    complaints += [outcome.alarms] * bool(outcome.alarms)
    kept = f", {outcome.skipped} were there already" if outcome.skipped else ""
    found = f"{outcome.done} label maps in {out / 'labels'}{kept}"
    _print_outcome(complaints, out / "summary.json", found, json_file)
    return 3 if outcome.failures else 0


def _alignment(value: str) -> "Homography | Literal['auto'] | None":
    """--align: nothing, auto, or the homography of a file."""
    from sartm.registration.calibration import read_calibration

    if not value:
        return None
    if value == "auto":
        return "auto"
    return tuple(map(tuple, read_calibration(Path(value)).tolist()))


def video(
    rgb: Annotated[str, typer.Option(help="Video, folder or glob of frames, or camera:N.")] = "",
    thermal: Annotated[str, typer.Option(help="Likewise.")] = "",
    out: Annotated[Path, typer.Option(help="NAME.webm, NAME.mp4 or a folder.")] = Path("out"),
    model: options.Model = "mini",
    encoder: options.Encoder = "",
    classes: options.ClassNames = "",
    canvas: options.Canvas = None,
    modality: Modality = "both",
    one_file: Annotated[Arrangement | None, typer.Option(help="RGB and thermal in --rgb.")] = None,
    every: Annotated[int, typer.Option(min=1, help="Only each N-th frame.")] = 1,
    limit: Annotated[int | None, typer.Option(min=1, help="Frames to label.")] = None,
    match: Annotated[Match, typer.Option(help="Partners; auto: time, folders by name.")] = "auto",
    tolerance: Annotated[float | None, typer.Option(help="Seconds between partners.")] = None,
    offset: Annotated[float, typer.Option(help="Seconds to add to thermal times.")] = 0.0,
    fps: Annotated[float | None, typer.Option(help="Rate of folders of frames; 25.")] = None,
    smooth: Annotated[float, typer.Option(help="Share kept from before, 0 to below 1.")] = 0.0,
    labels: Annotated[bool, typer.Option(help="Also write label maps.")] = False,
    width: Annotated[int, typer.Option(help="Of the result in pixels, at most.")] = 1920,
    opacity: options.Opacity = 0.5,
    allow_single: Annotated[bool, typer.Option(help="Label unpaired frames alone.")] = False,
    resize_thermal: options.ResizeThermal = False,
    radiometric: options.Radiometric = False,
    black_hot: options.BlackHot = False,
    holes: options.Holes = None,
    repair: options.Repair = False,
    clahe: options.Clahe = False,
    on_misaligned: options.Misaligned = "warn",
    overwrite: Annotated[bool, typer.Option(help="Replace a video that exists.")] = False,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    batch_size: options.BatchSize = 1,
    workers: options.Workers = None,
    compile: options.Compile = False,
    json_file: options.Json = "",
) -> int:
    """Label a video, frames or a live camera: the inputs beside the overlay, WebM or MP4."""
    if not rgb and not thermal:
        raise InputError("no input; give --rgb, --thermal or both")
    from sartm.inference.video import VideoOptions
    from sartm.io.cameras import Camera

    film = VideoOptions(
        modality=modality, opacity=opacity, every=every, match=match, tolerance=tolerance,
        offset=offset, smooth=smooth, one_file=one_file, rate=fps, limit=limit, labels=labels,
        width=width, resize_thermal=resize_thermal, allow_single=allow_single,
        camera=Camera(radiometric, black_hot, repair, holes), clahe=clahe,
        on_misaligned=on_misaligned,
    )  # fmt: skip
    predictor = make_predictor(
        model, encoder, classes, canvas, device, precision, batch_size, workers, compile
    )
    return _label_video(rgb, thermal, out, predictor, model, film, overwrite, json_file)


def _label_video(
    rgb: str,
    thermal: str,
    out: Path,
    predictor: "Predictor",
    model: str,
    film: "VideoOptions",
    overwrite: bool,
    json_file: str,
) -> int:
    from sartm.inference.video import predict_video

    sources = (rgb or None, thermal or None)
    outcome = predict_video(
        predictor, *sources, out, model=model, options=film, overwrite=overwrite
    )
    found = f"{outcome.frames} frames in {outcome.video}"
    _print_outcome(outcome.complaints(), outcome.summary, found, json_file)
    return 3 if outcome.unpaired or outcome.failed else 0


def _print_outcome(complaints: Iterable[str], summary: Path, found: str, json_file: str) -> None:
    for complaint in complaints:
        complain(complaint)
    if json_file:
        print_json(json_file, json.loads(summary.read_text()))
    if json_file != "-":
        say(found)
