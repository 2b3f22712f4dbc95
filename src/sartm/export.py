"""Models that leave PyTorch: ONNX and OpenVINO files, written only if they compute the same."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from sartm import __version__
from sartm.config import Modality, to_dict
from sartm.data.layouts import open_layout
from sartm.data.pairs import PairDataset, Sample
from sartm.errors import InputError
from sartm.files import replacing_folder
from sartm.graphs import (
    OPSET,
    Images,
    blank_images,
    describe_rule,
    lacks,
    require_modality,
    resize_images,
    write_graph,
)
from sartm.inference.predictor import Predictor
from sartm.model.card import table, title
from sartm.model.checkpoint import require_replaceable
from sartm.model.exported import FILES, INPUTS, KEY, ExportFile, ExportSettings, Format, open_export
from sartm.model.facts import FORMAT, ModelFacts
from sartm.model.sartm import SARTM
from sartm.outputs import lock_target
from sartm.terminal import as_markdown

Array = npt.NDArray[Any]

LARGEST_DIFFERENCE = 1e-3
"""Of any fp32 logit to PyTorch's, as a share of the largest one (at least 1)."""
LEAST_AGREEMENT = {"fp32": 0.999, "int8": 0.97}
"""Share of all stride-4 positions whose largest class must be PyTorch's."""
TRACED_AT = (90, 70)
"""Pixels: no multiple of 32, and smaller than the windows, so that every padding is recorded."""
EXACT = (".*sam_mask_decoder.*", ".*fusion.*", ".*neck.*", ".*patch_embed.*", ".*attn.*")
"""Names of what int8 leaves in fp32: little arithmetic that 8 bits hurt (benchmarks/results.md)."""
PARTS = {*FILES.values(), "model.bin", "config.json", "README.md"}


@dataclass(frozen=True)
class Comparison:
    """How an exported file differs from PyTorch in fp32 on the same images."""

    images: int
    real: bool
    """The user's images, not drawn ones."""
    difference: float
    """Largest of any logit."""
    largest: float
    """Largest absolute logit of PyTorch."""
    agreement: float
    """Share of positions with the same class."""


@dataclass(frozen=True)
class Exported:
    """What `export_model` wrote."""

    file: Path
    settings: ExportSettings
    comparison: Comparison


class _Graph(nn.Module):
    """The graph of an export: arrays as they come from files in, class logits out."""

    def __init__(self, model: SARTM, modality: Modality) -> None:
        super().__init__()
        self.model, self.modality = model, modality

    def forward(self, *images: Tensor) -> Tensor:
        """Images as `modality` says, rgb (B, H, W, 3) uint8 first, then thermal (B, H, W)."""
        rgb = thermal = None
        if self.modality != "thermal":
            rgb = images[0].permute(0, 3, 1, 2).float() / 255
        if self.modality != "rgb":
            thermal = images[-1][:, None]
        return self.model.predict_logits(rgb, thermal)


def export_model(
    model: SARTM,
    out: str | Path,
    *,
    format: Format = "onnx",
    modality: Modality = "both",
    size: tuple[int, int] | None = None,
    int8: bool = False,
    samples: Sequence[Sample] = (),
    calibration: Sequence[Sample] = (),
    agreement: float | None = None,
) -> Exported:
    """Write model.onnx, or model.xml and model.bin, with config.json and README.md.

    Nothing is written unless the file computes what PyTorch computes: on `samples`, or on drawn
    images, and without a fixed size on a drawn image of an odd size too. In fp32 no logit may
    differ by more than `LARGEST_DIFFERENCE`, and the classes must agree as `LEAST_AGREEMENT` says.

    Args:
        model: as built or loaded, not `merged()`.
        out: folder; one that holds an export is replaced.
        format: `onnx` (ONNX Runtime and others) or `openvino`.
        modality: the inputs the graph takes.
        size: height and width in pixels to fix the graph to; None: any size, any batch, but in
            int8 that of the first pair of `calibration`.
        int8: 8-bit weights and activations in the encoder's MLPs, or all of a `lite` trunk
            (OpenVINO only).
        samples: real pairs to compare on.
        calibration: real pairs the ranges of int8 are measured on; needed for it.
        agreement: least share of equal classes, instead of `LEAST_AGREEMENT`'s.

    Raises:
        InputError: options that do not fit each other, a pair without the modality, a package
            that is missing, a difference that is too large, or a folder that cannot be written.
    """
    _check_options(format, int8, size, calibration)
    if int8 and size is None:  # the analysis takes minutes where sizes are arithmetic
        size = calibration[0].size
    target = Path(out)
    require_replaceable(target, PARTS)
    precision: Literal["fp32", "int8"] = "int8" if int8 else "fp32"
    settings = ExportSettings(format, modality, precision, size, OPSET)
    content = ExportFile(FORMAT, __version__, settings, model.config, model.facts or ModelFacts())
    reference = Predictor(model, device="cpu", precision="fp32", thermal_range="model")
    real = [resize_images(reference.inputs(sample, modality), size) for sample in samples]
    ranges = [resize_images(reference.inputs(sample, modality), size) for sample in calibration]
    require_modality([*real, *ranges], modality)
    try:
        with lock_target(target), replacing_folder(target) as new:
            require_replaceable(target, PARTS)
            file = new / FILES[format]
            _write_onnx(model, new / FILES["onnx"], content)
            if format == "openvino":
                _write_openvino(new / FILES["onnx"], file, content, ranges)
                (new / FILES["onnx"]).unlink()
            comparison = compare(reference, file, real or draw_images(modality, size), bool(real))
            require_same(comparison, settings, agreement)
            description = json.dumps(to_dict(content), indent=1) + "\n"
            (new / "config.json").write_text(description, "utf-8")
            (new / "README.md").write_text(write_card(content, comparison), "utf-8")
    except OSError as error:
        raise InputError(
            f"cannot write the export {target}: {error}. Choose a folder that is writable and has "
            f"room; what was there is kept"
        ) from None
    return Exported(target / file.name, settings, comparison)


def open_samples(data: str | Path, pairs: int, wanted: Sequence[str]) -> list[Sample]:
    """Up to `pairs` samples, evenly from the first split of `wanted` that a data set has."""
    layout = open_layout(data)
    split = next((name for name in wanted if name in layout.splits), next(iter(layout.splits)))
    return list(PairDataset.of(layout, split, pairs))


def compare(
    reference: Predictor, file: Path, images: Sequence[Images], real: bool = False
) -> Comparison:
    """Run an exported file and PyTorch on the same images."""
    exported = open_export(file)
    exported.prepare("fp32")
    differences, largest, equal, positions = [0.0], 0.0, 0, 0
    for rgb, thermal in images:
        ours = reference.logits(rgb, thermal).numpy()
        theirs = exported.logits(rgb, thermal)
        if ours.shape != theirs.shape:
            raise InputError(f"the export gives {theirs.shape} for {ours.shape}; nothing written")
        difference = float(np.abs(ours - theirs).max())
        differences.append(difference if np.isfinite(theirs).all() else float("inf"))
        largest = max(largest, float(np.abs(ours).max()))
        equal += int((ours.argmax(0) == theirs.argmax(0)).sum())
        positions += ours[0].size
    return Comparison(len(images), real, max(differences), largest, equal / max(positions, 1))


def draw_images(modality: Modality, size: tuple[int, int] | None = None) -> list[Images]:
    """Soft shapes in both modalities, where no real images were given: one size, or two."""
    draw = np.random.default_rng(0)
    images: list[Images] = []
    for height, width in [size] if size else [(96, 128), (100, 132)]:
        coarse = draw.random((max(height // 16, 2), max(width // 16, 2), 4), np.float32)
        soft = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).clip(0, 1)
        rgb = (255 * soft[..., :3]).astype(np.uint8)
        thermal = np.ascontiguousarray(soft[..., 3])
        images.append(
            (rgb if modality != "thermal" else None, thermal if modality != "rgb" else None)
        )
    return images


def _check_options(
    format: Format, int8: bool, size: tuple[int, int] | None, calibration: Sequence[Sample]
) -> None:
    if format not in FILES:
        raise InputError(f"format is {format!r}; choose onnx or openvino")
    if int8 and format != "openvino":
        raise InputError("int8 needs --format openvino; ONNX files are written in fp32")
    if int8 and not calibration:
        raise InputError("int8 measures its ranges on your own pairs; name a data set with --data")
    if size is not None and not all(32 <= side <= 8192 for side in size):
        raise InputError(f"size is {size[0]}x{size[1]}; each side needs 32 to 8192 pixels")


def require_same(found: Comparison, settings: ExportSettings, least: float | None) -> None:
    """Raise InputError where a file differs by more than its precision explains."""
    needed = LEAST_AGREEMENT[settings.precision] if least is None else least
    allowed = LARGEST_DIFFERENCE * max(1.0, found.largest)
    same = settings.precision == "int8" or found.difference <= allowed
    if same and found.agreement >= needed:
        return
    remedy = "export without --int8, or give more pairs" if settings.precision == "int8" else (
        "use PyTorch, and report this with the versions installed"
    )  # fmt: skip
    raise InputError(
        f"the {settings.format} file does not compute what PyTorch does: logits differ by up to "
        f"{found.difference:.2g} (largest {found.largest:.2g}), labels or masks agree on "
        f"{100 * found.agreement:.2f} % (needed {100 * needed:g} %). Nothing was written; {remedy}"
    )


def _write_onnx(model: SARTM, file: Path, content: ExportFile) -> None:
    settings = content.export
    names = INPUTS[settings.modality]
    axes = {name: {0: "batch", 1: "height", 2: "width"} for name in names}
    axes["logits"] = {0: "batch", 2: "quarter_height", 3: "quarter_width"}
    graph = _Graph(model.merged(), settings.modality).eval()
    inputs = blank_images(settings.modality, settings.size or TRACED_AT)
    write_graph(graph, inputs, ["logits"], file, content, {} if settings.size else axes)


def _write_openvino(
    source: Path, file: Path, content: ExportFile, ranges: Sequence[Images]
) -> None:
    try:
        import openvino
    except ModuleNotFoundError:
        raise lacks("openvino") from None
    graph = openvino.Core().read_model(source)
    if content.export.size is not None:
        _fold(graph)
    if content.export.precision == "int8":
        graph = _quantize(graph, ranges)
    graph.set_rt_info(json.dumps(to_dict(content)), [KEY])
    openvino.save_model(graph, file, compress_to_fp16=False)


def _fold(graph: Any) -> None:
    """Compute once what depends on the size alone: a third of the nodes is left.

    The common transformations then take out branches that no longer depend on anything, which NNCF
    cannot run; OpenVINO has no public name for them.
    """
    from openvino._offline_transformations import apply_moc_transformations
    from openvino.passes import ConstantFolding, Manager

    passes = Manager()
    passes.register_pass(ConstantFolding())
    passes.run_passes(graph)
    apply_moc_transformations(graph, cf=True)


def _quantize(graph: Any, ranges: Sequence[Images]) -> Any:
    try:
        import nncf
    except ModuleNotFoundError:
        raise lacks("nncf") from None
    items = [
        {name: x[None] for name, x in zip(("rgb", "thermal"), pair, strict=True) if x is not None}
        for pair in ranges
    ]
    return nncf.quantize(
        graph,
        nncf.Dataset(items),
        subset_size=len(items),
        preset=nncf.QuantizationPreset.MIXED,
        model_type=nncf.ModelType.TRANSFORMER,  # leaves norms as they are
        ignored_scope=nncf.IgnoredScope(patterns=list(EXACT), validate=False),
    )


def write_card(content: ExportFile, comparison: Comparison) -> str:
    """README.md of an export folder."""
    settings, config = content.export, content.model
    fixed = settings.size
    shape = f"1, {fixed[0]}, {fixed[1]}" if fixed else "batch, height, width"
    inputs = {
        "rgb": f"({shape}, 3) uint8, RGB order",
        "thermal": f"({shape}) float32 in [0, 1] by the thermal rule",
    }
    rows = {"file": f"{FILES[settings.format]}, {settings.precision}, opset {settings.opset}"}
    rows |= {f"input `{name}`": inputs[name] for name in INPUTS[settings.modality]}
    rows |= {
        "output `logits`": f"({'1' if fixed else 'batch'}, {len(config.classes)}, h/4, w/4) "
        f"float32; h and w are height and width, padded to multiples of 32",
        "sizes": "fixed" if fixed else "any height, width and batch (dynamic axes)",
        "thermal rule": describe_rule(config.thermal),
        "against PyTorch": f"{comparison.images} {'real' if comparison.real else 'drawn'} images: "
        f"largest logit difference {comparison.difference:.2g} (logits reach "
        f"{comparison.largest:.2g}), same class on {100 * comparison.agreement:.3f} %",
    }
    lines = [
        f"# {title(content.facts)}, exported to {settings.format}",
        "",
        "RGB-thermal semantic segmentation. Standardisation and padding are inside the graph.",
        "",
        *table(rows, content),
        "",
        "To get a label map: resize the logits four times bilinearly, cut to height and width, and",
        "take the largest. `config.json` holds classes, palette, thermal rule and origin; the same",
        f"JSON is in the file itself under `{KEY}`.",
        "",
        "| id | class | colour |",
        "| ---: | --- | --- |",
    ]
    classes = zip(config.classes.names, config.classes.palette, strict=True)
    for index, (name, colour) in enumerate(classes):
        lines.append(f"| {index} | {as_markdown(name)} | {', '.join(map(str, colour))} |")
    lines += [
        "",
        "## Licence",
        "",
        as_markdown(content.facts.licence) or "As the model it was made from.",
        "",
    ]
    return "\n".join(lines)
