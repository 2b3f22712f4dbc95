"""Models as files: `sartm weights` fetches and converts them, `export` writes them for others."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sartm.cli import options
from sartm.cli.options import print_json, read_classes, read_size
from sartm.cli.printing import complain, print_table, say
from sartm.config import Modality
from sartm.errors import InputError
from sartm.outputs import check_json

if TYPE_CHECKING:
    from sartm.model.sartm import SARTM

app = typer.Typer(help="List, fetch and convert weights.", no_args_is_help=True)


@app.command("list")
def list_known(json_file: options.Json = "") -> int:
    """What can be loaded by name: bundled models and SAM 2's encoders."""
    from sartm.model.hub import list_weights

    check_json(json_file)
    rows = list_weights()
    print_json(json_file, [asdict(row) for row in rows])
    if json_file != "-":
        titles = ("name", "size", "parameters", "licence", "trained on", "commercial use", "here")
        lines = []
        for row in rows:
            here = "yes" if row.here else "no"
            terms = (row.licence, row.data, row.commercial)
            lines.append((row.name, row.size, f"{row.parameters:,}", *terms, here))
        print_table(titles, lines)
    return 0


@app.command()
def get(
    name: Annotated[str, typer.Argument(help="A name of `weights list`, or org/name.")],
    revision: Annotated[str, typer.Option(help="Branch, tag or commit.")] = "",
    verify: Annotated[bool, typer.Option(help="Also check files that are cached.")] = False,
) -> int:
    """Fetch weights into the hub's cache: resumed when cut off, checked by SHA-256."""
    from sartm.model.hub import get_weights

    say(str(get_weights(name, revision=revision or None, verify=verify)))
    return 0


@app.command("convert")
def convert_model(
    source: Annotated[str, typer.Argument(help="Anything --model takes.")],
    out: Annotated[Path, typer.Option(help="Folder of the converted model.")],
    encoder: options.Encoder = "",
    classes: options.ClassNames = "",
    canvas: options.Canvas = None,
    full: Annotated[bool, typer.Option("--full", help="Put the encoder into adapters.")] = False,
    half: Annotated[bool, typer.Option("--half", help="Write float16.")] = False,
) -> int:
    """Write any weights as a model folder; only adapters need more than it, unless --full."""
    import torch

    from sartm.model.loading import convert_weights

    model = convert_weights(
        source,
        out,
        classes=read_classes(classes),
        canvas=canvas,
        encoder=encoder or None,
        full=full,
        dtype=torch.float16 if half else torch.float32,
    )
    say(f"{out}: {model.config.size}, {len(model.config.classes)} classes")
    return 0


@app.command("calibrate")
def calibrate_model(
    model: Annotated[str, typer.Argument(help="A model folder or bundled name; changed in place.")],
    data: Annotated[list[str], typer.Option("--data", help="Labelled; may be given again.")],
    split: options.Split = "val",
    device: options.Device = "auto",
    json_file: options.Json = "",
) -> int:
    """Make confidence come true on labelled pairs that the model was not trained on."""
    from sartm.data.pairs import PairDataset
    from sartm.evaluation.calibration import calibrate
    from sartm.inference.predictor import Predictor
    from sartm.model.checkpoint import save_calibration
    from sartm.model.loading import find_folder, load

    folder = find_folder(model)
    datasets = [PairDataset.open(each, split) for each in data]
    calibration, fitted = calibrate(Predictor(load(folder), device=device), datasets)
    if not fitted:
        raise InputError(f"split {split!r} has no pair to calibrate on; choose another --split")
    trained_on = max(found.trained_on for found in fitted.values())
    if trained_on:
        complain(
            f"the model was trained on {trained_on} of these pairs, where it is right more often "
            f"than elsewhere: its confidence will be too high on other pairs"
        )
    save_calibration(folder, calibration, [f"{each.name} ({split})" for each in datasets])
    print_json(json_file, {name: asdict(found) for name, found in fitted.items()})
    if json_file != "-":
        lines = []
        for name, found in fitted.items():
            errors = (f"{100 * error:.1f}" for error in (found.before, found.after))
            lines.append((name, *errors))
        print_table(("cameras", "error on objects before, %", "after, %"), lines)
        say("after: each half of the pairs by a fit to the other half")
        say(f"model: {folder}")
    return 0


def export(
    format: Annotated[Literal["onnx", "openvino"], typer.Option("--format", help="Kind of file.")],
    out: Annotated[Path, typer.Option(help="Folder for the file, config.json and README.md.")],
    model: options.Model = "mini",
    encoder: options.Encoder = "",
    classes: options.ClassNames = "",
    text_encoder: options.TextEncoder = "",
    canvas: options.Canvas = None,
    modality: Annotated[Modality, typer.Option(help="Inputs of the graph.")] = "both",
    int8: Annotated[bool, typer.Option("--int8", help="8-bit, measured on --data.")] = False,
    data: Annotated[str, typer.Option("--data", help="Your pairs, for comparison and int8.")] = "",
    pairs: Annotated[int, typer.Option(min=1, help="Pairs int8 is measured on.")] = 64,
    size: Annotated[str, typer.Option(help="Fix the graph to HEIGHTxWIDTH; any if left out.")] = "",
    clicks: Annotated[
        bool,
        typer.Option("--clicks", help="Encoder and decoder for clicks instead: docs/clicks.md."),
    ] = False,
    json_file: options.Json = "",
) -> int:
    """Write a model as ONNX or OpenVINO, once it is shown to compute what PyTorch computes."""
    from sartm.export import export_model, open_samples
    from sartm.model.loading import load
    from sartm.model.sartm import SARTM

    check_json(json_file, [model, encoder, classes, data], out)
    sides = read_size(size, "--size") if size else None
    if clicks:
        _check_clicks(format, sides, int8)
    loaded = load(
        model,
        encoder=encoder or None,
        classes=read_classes(classes),
        canvas=None if clicks else canvas,
        text_encoder=text_encoder,
    )
    if not isinstance(loaded, SARTM):
        raise InputError(f"{model} is an export already; give the model it was made from")
    if clicks:
        assert sides is not None
        return _export_clicks(loaded, out, modality, sides, canvas, data, json_file)
    result = export_model(
        loaded,
        out,
        format=format,
        modality=modality,
        size=sides,
        int8=int8,
        samples=open_samples(data, 8, ("val", "test")) if data else (),
        calibration=open_samples(data, pairs, ("train",)) if data and int8 else (),
    )
    found = result.comparison
    print_json(json_file, {"file": str(result.file)} | asdict(found) | asdict(result.settings))
    if json_file != "-":
        kind = "real" if found.real else "drawn"
        say(f"against PyTorch on {found.images} {kind} images: logits differ by up to "
              f"{found.difference:.2g}, same class on {100 * found.agreement:.3f} %")  # fmt: skip
        say(f"model: {result.file}")
    return 0


def _check_clicks(format: str, size: tuple[int, int] | None, int8: bool) -> None:
    if format != "onnx" or int8:
        raise InputError("clicks are exported as ONNX in fp32: --format onnx, without --int8")
    if size is None:
        raise InputError(
            "an export for clicks is for images of one size; give it: --size HEIGHTxWIDTH"
        )


def _export_clicks(
    model: "SARTM",
    out: Path,
    modality: Modality,
    size: tuple[int, int],
    canvas: int | None,
    data: str,
    json_file: str,
) -> int:
    from sartm.click_export import export_clicks
    from sartm.export import open_samples

    result = export_clicks(
        model,
        out,
        size=size,
        modality=modality,
        canvas=canvas or 1024,
        samples=open_samples(data, 4, ("val", "test")) if data else (),
    )
    found = result.comparison
    files = {"encoder": str(result.encoder), "decoder": str(result.decoder)}
    print_json(json_file, files | asdict(found) | asdict(result.settings))
    if json_file != "-":
        kind = "real" if found.real else "drawn"
        say(f"against PyTorch on {found.images} {kind} images: logits differ by up to "
              f"{found.difference:.2g}, same mask on {100 * found.agreement:.3f} %")  # fmt: skip
        say(f"encoder: {result.encoder}")
        say(f"decoder: {result.decoder}")
    return 0
