"""The options that several commands share, and what they stand for: a model, a size, a file."""

import gc
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from sartm.config import Modality
from sartm.errors import InputError
from sartm.files import read_text, remove_leftovers_of, write_atomic
from sartm.outputs import lock_beside

if TYPE_CHECKING:
    from sartm.classes import Classes
    from sartm.data.sets import Layout
    from sartm.fleet.labeller import PairLabeller
    from sartm.inference.options import PredictOptions
    from sartm.inference.predictor import Predictor
    from sartm.model.exported import ExportedModel
    from sartm.model.sartm import SARTM
    from sartm.objects.measurement import Measuring


NumberFormat = Literal["auto", "fp32", "bf16", "fp16"]

INPUT, THERMAL, OUTPUT, MODEL, SPEED = "Input", "Thermal", "Output", "Model", "Device and speed"
"""Groups of options in --help."""

Model = Annotated[
    str,
    typer.Option("--model", help="Bundled name, folder, hub id or file.", rich_help_panel=MODEL),
]
Encoder = Annotated[
    str,
    typer.Option(
        help="SAM 2 under a model of adapters: file, folder or hub id.", rich_help_panel=MODEL
    ),
]
ClassNames = Annotated[
    str,
    typer.Option(
        help='"car, person, road"; or mfnet, pst900, fmb, cityscapes, a data set.',
        rich_help_panel=MODEL,
    ),
]
"""Also a .txt with a name on each line. Of released weights the names, else the label space."""
TextEncoder = Annotated[
    str,
    typer.Option(help="For words in --classes that no vocabulary has.", rich_help_panel=MODEL),
]
Canvas = Annotated[
    int | None,
    typer.Option(
        help="Side of the square that released weights pad to; 1280.", rich_help_panel=MODEL
    ),
]
AllowSingle = Annotated[
    bool,
    typer.Option("--allow-single", help="Label what has no partner alone.", rich_help_panel=INPUT),
]
Seen = Annotated[
    Modality, typer.Option("--modality", help="What the model may see.", rich_help_panel=INPUT)
]
Data = Annotated[str, typer.Option("--data", help="Data set: a folder or dataset.toml.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.", rich_help_panel=SPEED)]
Precision = Annotated[
    NumberFormat, typer.Option(help="auto takes bf16 where it is fast.", rich_help_panel=SPEED)
]
BatchSize = Annotated[
    int,
    typer.Option(
        min=1,
        max=1024,
        help="Pairs of one size that the network takes at a time.",
        rich_help_panel=SPEED,
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=256,
        help="Such batches under way; what suits if left out.",
        rich_help_panel=SPEED,
    ),
]
Compile = Annotated[
    bool,
    typer.Option(
        "--compile", help="By torch.compile: a minute for each new size.", rich_help_panel=SPEED
    ),
]
Json = Annotated[
    str,
    typer.Option(
        "--json", help="Also write the result as JSON; - for stdout.", rich_help_panel=OUTPUT
    ),
]
Split = Annotated[str, typer.Option(help="Split of the data set.")]
Protocol = Annotated[str, typer.Option(help="Named mean; the benchmark's own when left out.")]
Opacity = Annotated[
    float, typer.Option(min=0.0, max=1.0, help="Of the class colours.", rich_help_panel=OUTPUT)
]
Legend = Annotated[
    bool,
    typer.Option("--legend", help="Colours and names below the picture.", rich_help_panel=OUTPUT),
]
ResizeThermal = Annotated[
    bool,
    typer.Option("--resize-thermal", help="Thermal shows the same view.", rich_help_panel=THERMAL),
]
Radiometric = Annotated[
    bool,
    typer.Option(
        "--radiometric", help="FLIR radiometric JPEG, as Celsius.", rich_help_panel=THERMAL
    ),
]
BlackHot = Annotated[
    bool, typer.Option("--black-hot", help="In thermal, warm is dark.", rich_help_panel=THERMAL)
]
Holes = Annotated[
    float | None,
    typer.Option(help="Raw thermal value without a measurement: filled.", rich_help_panel=THERMAL),
]
Repair = Annotated[
    bool,
    typer.Option(
        "--repair",
        help="Fill thermal's border bands and dead pixels.",
        rich_help_panel=THERMAL,
    ),
]
ThermalRange = Annotated[
    str,
    typer.Option(
        help="Raw values shown to the model: auto (percentiles of files deeper than its rule), "
        "LOW:HIGH, or model (refuses those).",
        rich_help_panel=THERMAL,
    ),
]
Clahe = Annotated[
    bool,
    typer.Option(
        "--clahe", help="Local contrast of thermal where it is shown.", rich_help_panel=THERMAL
    ),
]
Misaligned = Annotated[
    Literal["warn", "align", "rgb", "thermal", "fail"],
    typer.Option(
        help="Where thermal does not lie on RGB: tell, move it, or leave one out.",
        rich_help_panel=THERMAL,
    ),
]

Objects = Annotated[
    bool,
    typer.Option("--objects", help="A table: CSV, JSON lines, GeoJSON.", rich_help_panel=OUTPUT),
]
MinArea = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Pixels of an object; 20, and 1 of predict --format.",
        rich_help_panel=OUTPUT,
        show_default=False,
    ),
]
Degrees = Annotated[
    str,
    typer.Option(
        help="Of --objects, raw thermal values: celsius, kelvin, tlinear or GAIN:OFFSET.",
        rich_help_panel=THERMAL,
    ),
]
ACCURACY = 2.0
"""As `Measuring.accuracy`; uncooled cameras' data sheets say it."""
Accuracy = Annotated[
    float,
    typer.Option(
        min=0, help="Of the camera, in degrees or per cent of them.", rich_help_panel=THERMAL
    ),
]
Height = Annotated[
    float | None,
    typer.Option(
        help="Metres of the camera above ground, where files do not say it.",
        rich_help_panel=OUTPUT,
    ),
]


def refuse_given(options: Mapping[str, object], why: str) -> None:
    """Refuse options that would be passed over in silence; those that are not given are false."""
    for option, given in options.items():
        if given:
            raise InputError(f"{option} {why}")


def choose_objects(
    wanted: bool,
    min_area: int | None,
    degrees: str,
    accuracy: float,
    radiometric: bool,
    height: float | None = None,
) -> "Measuring | None":
    """What --objects stands for; None where it is not given."""
    from sartm.io.degrees import choose_scale
    from sartm.objects.measurement import Measuring

    if not wanted:
        given = {
            "--min-area": min_area, "--degrees": degrees, "--height": height,
            "--accuracy": accuracy != ACCURACY,
        }  # fmt: skip
        refuse_given(given, "is for the table of objects; add --objects")
        return None
    choose_scale(degrees, radiometric)
    return Measuring(20 if min_area is None else min_area, accuracy, degrees, height)


Manifest = Annotated[
    str,
    typer.Option(
        "--manifest",
        help="Pairs as a table, .parquet, .csv or .jsonl: name, rgb, thermal, label.",
        rich_help_panel=INPUT,
    ),
]
Engine = Annotated[
    Literal["local", "ray"],
    typer.Option(help="Of --manifest: this process, or a Ray cluster.", rich_help_panel=SPEED),
]
Address = Annotated[
    str, typer.Option(help="Of a Ray cluster; this machine if left out.", rich_help_panel=SPEED)
]


def print_json(target: str, content: Any) -> None:
    """What --json says: nothing, to stdout, or into a file."""
    if target == "-":
        print(json.dumps(content, indent=1))
    elif target:
        path, data = Path(target), json.dumps(content, indent=1).encode()
        if path.is_symlink() or (path.exists() and not path.is_file()):  # as /dev/stdout
            path.write_bytes(data)
            return
        with lock_beside(path):
            remove_leftovers_of(path)
            write_atomic(path, data, durable=True)


def command_line() -> str:
    """The command as it was typed, for what it leaves behind."""
    return "sartm " + " ".join(sys.argv[1:])


def import_network() -> None:
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


def make_predictor(
    model: str,
    encoder: str,
    classes: str,
    canvas: int | None,
    device: str,
    precision: NumberFormat,
    batch_size: int,
    workers: int | None,
    compile: bool,
    thermal_range: str = "auto",
    text_encoder: str = "",
    data: "Classes | None" = None,
) -> "Predictor":
    """The model that a command's options name, ready on its device.

    `data`: of the data set it is used on; where it knows them all, they are its label space.
    """
    from sartm.io.thermal import read_range

    read_range(thermal_range)  # a wrong one is refused before a model is loaded
    loaded = load_model(model, encoder, classes, canvas, text_encoder, data)
    from sartm.inference.predictor import Predictor

    return Predictor(
        loaded,
        device=device,
        precision=precision,
        batch_size=batch_size,
        workers=workers,
        compiled=compile,
        thermal_range=thermal_range,
    )


def make_labeller(
    model: str,
    encoder: str,
    classes: str,
    canvas: int | None,
    text_encoder: str,
    device: str,
    precision: NumberFormat,
    batch_size: int,
    workers: int | None,
    compiled: bool,
    thermal_range: str,
    data: "Classes | None" = None,
    options: "PredictOptions | None" = None,
) -> "PairLabeller":
    """As `make_predictor`, to be made ready where it labels."""
    loaded = load_model(model, encoder, classes, canvas, text_encoder, data)
    from sartm.fleet.labeller import PairLabeller
    from sartm.inference.options import PredictOptions

    return PairLabeller(
        loaded, options=options or PredictOptions(overlay=False), device=device,
        precision=precision, batch_size=batch_size, workers=workers, compiled=compiled,
        thermal_range=thermal_range, name=model,
    )  # fmt: skip


def load_model(
    model: str,
    encoder: str,
    classes: str,
    canvas: int | None,
    text_encoder: str = "",
    data: "Classes | None" = None,
) -> "SARTM | ExportedModel":
    """The model that a command's options name, on no device yet; `data` as `make_predictor`."""
    import_network()
    from sartm.model.loading import choose_known, load

    loaded = load(
        model,
        encoder=encoder or None,
        classes=read_classes(classes),
        canvas=canvas,
        text_encoder=text_encoder,
    )
    return loaded if data is None or classes else choose_known(loaded, data)


def read_layout(name: str) -> "Layout | None":
    """The data set that an option names; None where it names words, a table or a file of names."""
    from sartm.classes import TABLES
    from sartm.data.layouts import open_layout

    if name in ("", *TABLES) or Path(name).suffix.lower() == ".txt" or not _exists(name):
        return None
    return open_layout(name)


def _exists(name: str) -> bool:
    """Whether there is a file or folder of that name; many words are longer than any name."""
    try:
        return Path(name).exists()
    except OSError:
        return False


def read_classes(name: str) -> "Classes | None":
    """What --classes names: words, a table, those of a data set, or the lines of a .txt."""
    from sartm.classes import TABLES, Classes
    from sartm.spaces import classes_of_words
    from sartm.vocabulary import find_word

    if not name:
        return None
    if name in TABLES:
        return TABLES[name]
    if (layout := read_layout(name)) is not None:
        return layout.classes
    if not _exists(name):
        if "," in name or find_word(name) is not None:
            return classes_of_words(name)
        raise InputError(
            f"no class table {name!r}; choose one of {', '.join(TABLES)}, or give words with "
            f"commas, a data set, or a .txt with a name on each line"
        )
    lines = read_text(Path(name)).splitlines()
    return Classes(tuple(line.strip() for line in lines if line.strip()))


def require_classes(name: str, option: str) -> "Classes":
    """The class table that labels of a manifest are in, which it does not say itself."""
    found = read_classes(name)
    if found is None:
        raise InputError(
            f"a manifest does not say what ids of labels mean: {option} mfnet, pst900, fmb, "
            f"cityscapes, or a data set that has the same classes"
        )
    return found


def read_size(text: str, option: str) -> tuple[int, int]:
    """HEIGHTxWIDTH as numbers."""
    sides = re.fullmatch(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})", text)
    if not sides:
        raise InputError(f"{option} {text!r} is not HEIGHTxWIDTH; write e.g. 480x640")
    return int(sides[1]), int(sides[2])
