"""`predict`: label pairs that nobody has labelled: files, folders, manifests."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sartm.cli import options
from sartm.cli.options import (
    INPUT,
    OUTPUT,
    THERMAL,
    import_network,
    make_labeller,
    make_predictor,
    print_json,
    refuse_given,
)
from sartm.cli.printing import complain, complain_of_each, say
from sartm.cli.video import label_video, print_outcome
from sartm.errors import InputError
from sartm.io.remote import is_remote, local_path
from sartm.outputs import check_json

if TYPE_CHECKING:
    from sartm.classes import Classes
    from sartm.fleet.labeller import PairLabeller
    from sartm.fleet.labelling import Way
    from sartm.inference.folders import Outcome
    from sartm.inference.options import Homography

# The same as in io.decode, which imports OpenCV: --help does without.
FourChannel = Literal["auto", "yes", "no"]
Instances = Literal["coco", "yolo"]
Sink = Literal["files", "tar", "parquet"]


def predict(
    files: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RGB THERMAL",
            help="The same as --rgb and --thermal; a folder alone may hold both.",
            show_default=False,
        ),
    ] = None,
    rgb: Annotated[
        str, typer.Option(help="File, folder, glob or video.", rich_help_panel=INPUT)
    ] = "",
    thermal: Annotated[str, typer.Option(help="Likewise.", rich_help_panel=INPUT)] = "",
    pair: Annotated[
        str,
        typer.Option(help="Regex on the name; group 1 pairs the files.", rich_help_panel=INPUT),
    ] = "",
    manifest: options.Manifest = "",
    shard: Annotated[
        str, typer.Option(help="I/N: part I of N of the manifest.", rich_help_panel=INPUT)
    ] = "1/1",
    allow_single: options.AllowSingle = False,
    four_channel: Annotated[
        FourChannel, typer.Option(help="Is a 4th channel thermal?", rich_help_panel=INPUT)
    ] = "auto",
    modality: options.Seen = "both",
    align: Annotated[
        str,
        typer.Option(
            help="Thermal onto RGB first: a calibration (JSON), or auto.", rich_help_panel=THERMAL
        ),
    ] = "",
    resize_thermal: options.ResizeThermal = False,
    thermal_range: options.ThermalRange = "auto",
    radiometric: options.Radiometric = False,
    black_hot: options.BlackHot = False,
    holes: options.Holes = None,
    repair: options.Repair = False,
    clahe: options.Clahe = False,
    on_misaligned: options.Misaligned = "warn",
    out: Annotated[
        str, typer.Option(help="Folder for label maps and overlays.", rich_help_panel=OUTPUT)
    ] = "out",
    sink: Annotated[
        Sink,
        typer.Option(help="Of --manifest: files, or shards of thousands.", rich_help_panel=OUTPUT),
    ] = "files",
    overlay: Annotated[
        bool, typer.Option(help="Also write overlays.", rich_help_panel=OUTPUT)
    ] = True,
    opacity: options.Opacity = 0.5,
    legend: options.Legend = False,
    beside: Annotated[
        bool,
        typer.Option(
            "--beside", help="RGB, thermal and overlay in one picture.", rich_help_panel=OUTPUT
        ),
    ] = False,
    instances: Annotated[
        Instances | None,
        typer.Option("--format", help="Objects too: parts of a class.", rich_help_panel=OUTPUT),
    ] = None,
    objects: options.Objects = False,
    min_area: options.MinArea = None,
    degrees: options.Degrees = "",
    accuracy: options.Accuracy = options.ACCURACY,
    height: options.Height = None,
    trust: Annotated[
        bool,
        typer.Option(
            "--trust", help="Which camera labels rest on, in the summary.", rich_help_panel=OUTPUT
        ),
    ] = False,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Label again what is there.", rich_help_panel=OUTPUT),
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
    engine: options.Engine = "local",
    address: options.Address = "",
) -> int:
    """Label pairs: files, folders, globs or videos; either modality may be left out."""
    rgb, thermal = _find_sources(files or [], rgb, thermal)
    listing = objects or instances is not None or min_area is not None
    _require_input(rgb or thermal, manifest, listing, (shard, sink, engine), out)
    if manifest:
        chosen = {"--pair": pair, "--allow-single": allow_single}
        refuse_given(chosen, "pairs files; a manifest says itself what is a pair: leave it out")
    from sartm.data.finding import search_pairs
    from sartm.inference.streams import is_video
    from sartm.io.cameras import Camera

    folder = local_path(out)
    check_json(json_file, [rgb, thermal, model, encoder, classes, align, manifest], folder)
    camera = Camera(radiometric, black_hot, repair, holes)
    area = None if instances is not None and not objects else min_area  # then it is --format's
    listed = options.choose_objects(objects, area, degrees, accuracy, radiometric, height)
    open_model = partial(
        make_predictor, model, encoder, classes, canvas,
        device, precision, batch_size, workers, compile, thermal_range, text_encoder,
    )  # fmt: skip
    if is_video(rgb) or is_video(thermal):
        pictured = {
            "--align": align, "--format": instances, "--beside": beside, "--trust": trust,
            "--no-overlay": not overlay, "--pair": pair, "--height": height,
            "--four-channel": four_channel != "auto",
        }  # fmt: skip
        refuse_given(pictured, "is for images; take the video's frames as two folders")
        from sartm.inference.options import VideoOptions

        film = VideoOptions(
            modality=modality, opacity=opacity, resize_thermal=resize_thermal,
            allow_single=allow_single, camera=camera, clahe=clahe, legend=legend,
            on_misaligned=on_misaligned, objects=listed,
        )  # fmt: skip
        return label_video(rgb, thermal, folder, open_model(), model, film, overwrite, json_file)
    sources = (rgb or None, thermal or None)
    if not manifest:  # fails before the model is loaded
        search_pairs(*sources, pair or None, allow_single, folder)
    import_network()
    from sartm.inference.folders import label_folder
    from sartm.inference.options import PredictOptions

    how = PredictOptions(
        modality=modality, overlay=overlay, opacity=opacity, legend=legend, beside=beside,
        resize_thermal=resize_thermal,
        four_channel=four_channel, pair_regex=pair or None, allow_single=allow_single,
        camera=camera, clahe=clahe, align=_alignment(align), on_misaligned=on_misaligned,
        trust=trust, objects=listed,
    )  # fmt: skip
    if manifest:
        from sartm.data.manifest import read_shard
        from sartm.fleet.labelling import Way

        way = Way(read_shard(shard), sink, engine, address, workers, overwrite)
        labeller = make_labeller(
            model, encoder, classes, canvas, text_encoder, device, precision, batch_size,
            workers if engine == "local" else 1, compile, thermal_range, options=how,
        )  # fmt: skip
        return _label_manifest(labeller, manifest, out, way, json_file)
    predictor = open_model()
    outcome = label_folder(
        predictor, *sources, folder, model=model, options=how, overwrite=overwrite
    )
    found = _describe_outcome(outcome, folder / "labels")
    if overlay and outcome.done:
        found += f", pictures in {folder / 'overlays'}"
    if objects:
        found += f", {outcome.objects} objects in {folder / 'objects.csv'}"
    if instances is not None:
        found += _write_instances(folder, predictor.classes, instances, min_area or 1)
    complain_of_each(outcome.failures)
    print_outcome([outcome.alarms], folder / "summary.json", found, json_file)
    return 3 if outcome.failures else 0


def _label_manifest(
    labeller: "PairLabeller", place: str, out: str, way: "Way", json_file: str
) -> int:
    """--manifest: what is missing of it, or of one shard of it."""
    from sartm.data.manifest import Manifest
    from sartm.fleet.labelling import label_manifest

    manifest = Manifest(place)
    outcome = label_manifest(labeller, manifest, out, way)
    complain_of_each(outcome.failures)
    if outcome.alarms:
        complain(outcome.alarms)
    shown = {"done": outcome.done, "kept": outcome.skipped, "failures": outcome.failures}
    print_json(json_file, shown | {"out": out})
    if json_file != "-":
        say(_describe_outcome(outcome, f"{out}/labels"))
    return 3 if outcome.failures else 0


def _require_input(
    images: str,
    manifest: str,
    objects: bool,
    fleet: tuple[str, str, str],
    out: str,
) -> None:
    """Refuse nothing to label, two ways to say it, and options of the other one."""
    if manifest:
        if images or objects:
            raise InputError(
                "--manifest takes the place of --rgb and --thermal, and makes label maps and "
                "overlays; leave these, --objects, --format and --min-area out"
            )
        return
    if fleet != ("1/1", "files", "local"):
        raise InputError("--shard, --sink and --engine are of --manifest: sartm data manifest DIR")
    if is_remote(out):
        raise InputError(f"--out {out} is for --manifest; name a folder")
    if not images:
        raise InputError(
            "no input; give two files (sartm predict RGB THERMAL), or --rgb, --thermal or both"
        )


def _write_instances(out: Path, classes: "Classes", to: Instances, min_area: int) -> str:
    """--format: what this model labelled in a folder, as objects; says so."""
    from sartm.datatools.instances import export_predictions
    from sartm.files import read_json

    summary = read_json(out / "summary.json")
    own = summary["settings"]["fingerprint"]  # ids of another model's maps mean other classes
    files = {
        name: one["inputs"]["rgb"] or one["inputs"]["thermal"]
        for name, one in summary["pairs"].items()
        if one.get("made", {}).get("fingerprint", own) == own
    }
    images = [(name, f"{name}{Path(file).suffix}") for name, file in files.items()]
    target, count = export_predictions(out, images, classes, to, min_area)
    return f", {count} objects in {target}"


def _find_sources(files: list[str], rgb: str, thermal: str) -> tuple[str, str]:
    """RGB and thermal of either way to name them; "" for what is left out."""
    if not files:
        return rgb, thermal
    if rgb or thermal:
        raise InputError(
            f"{files[0]!r} is given beside --rgb or --thermal; give files in one way, RGB first"
        )
    if len(files) > 2:
        raise InputError(
            f"{len(files)} files are given, but predict takes RGB and thermal; for many pairs give "
            f"two folders, or quote globs: predict 'rgb/*.jpg' 'thermal/*.png'"
        )
    if len(files) == 2:
        return files[0], files[1]
    from sartm.data.finding import find_sides

    first, second = find_sides(Path(files[0]))
    return str(first or ""), str(second or "")


def _describe_outcome(outcome: "Outcome", folder: Path | str) -> str:
    """What a run over pairs did, in a line."""

    def count(number: int) -> str:
        return f"{number} label map{'s' * (number != 1)}"

    if not outcome.done and outcome.skipped and not outcome.failures:
        there = "is" if outcome.skipped == 1 else "are"
        return f"nothing to do, {count(outcome.skipped)} {there} there: {folder}"
    kept = f", {outcome.skipped} were there already" if outcome.skipped else ""
    return f"{count(outcome.done)} in {folder}{kept}"


def _alignment(value: str) -> "Homography | Literal['auto'] | None":
    """--align: nothing, auto, or the homography of a file."""
    from sartm.registration.calibration import read_calibration

    if not value:
        return None
    if value == "auto":
        return "auto"
    return tuple(map(tuple, read_calibration(Path(value)).tolist()))
