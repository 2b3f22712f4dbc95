"""Clicks that leave PyTorch: an encoder and a decoder as ONNX files, for labelling tools and pages.

`inference.clicks` is what they have to agree with; the graphs are in `model.click_graphs`.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from sartm import __version__
from sartm.config import Modality, to_dict
from sartm.data.pairs import Sample
from sartm.errors import InputError
from sartm.export import Comparison, draw_images, require_same
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
from sartm.inference.clicks import Box, Point, Promptable
from sartm.model.card import table, title
from sartm.model.checkpoint import require_replaceable
from sartm.model.click_graphs import EncoderGraph, PromptGraph
from sartm.model.clicks import ClickDecoder, ClickMaps
from sartm.model.exported import CLICK_FILES, INPUTS, ClickFile, ClickSettings, ExportSettings
from sartm.model.facts import FORMAT, ModelFacts
from sartm.model.look_graph import LookGraph, script
from sartm.model.prompts import BOTTOM_RIGHT, TOP_LEFT
from sartm.model.sartm import SARTM
from sartm.outputs import lock_target
from sartm.terminal import as_markdown

Array = npt.NDArray[Any]

PARTS = {*CLICK_FILES, "config.json", "README.md"}
COUNTED = 0.9
"""Share of the prompts whose logits must be PyTorch's, the nearest ones: where a logit is within
rounding of 0 a pixel more may move a window, and all logits of that prompt with it."""


@dataclass(frozen=True)
class Asked:
    """A prompt, as `Promptable.mask` takes it."""

    points: tuple[Point, ...] = ()
    labels: tuple[int, ...] = ()
    box: Box | None = None
    again: bool = False
    """With the mask of the prompt before."""


@dataclass(frozen=True)
class ExportedClicks:
    """What `export_clicks` wrote."""

    encoder: Path
    decoder: Path
    settings: ClickSettings
    comparison: Comparison


def export_clicks(
    model: SARTM,
    out: str | Path,
    *,
    size: tuple[int, int],
    modality: Modality = "both",
    canvas: int = 1024,
    samples: Sequence[Sample] = (),
) -> ExportedClicks:
    """Write encoder.onnx, decoder.onnx, config.json and README.md.

    Nothing is written unless both together give the masks that PyTorch gives for points, boxes and
    masks on `samples`, or on drawn images.

    Args:
        model: one that answers clicks, not `merged()`.
        out: folder; one that holds such an export is replaced.
        size: height and width in pixels of the images to click on.
        modality: the images that the encoder takes.
        canvas: as of `Promptable`, for SAM 2's sizes.
        samples: real pairs to compare on.

    Raises:
        InputError: a model that answers no clicks, a size that cannot be, a package that is
            missing, a difference that is too large, or a folder that cannot be written.
    """
    if not all(32 <= side <= 8192 for side in size):
        raise InputError(f"size is {size[0]}x{size[1]}; each side needs 32 to 8192 pixels")
    prompt = Promptable(model, canvas=canvas, device="cpu", precision="fp32", thermal_range="model")
    target = Path(out)
    require_replaceable(target, PARTS)
    settings = ClickSettings(modality, size, prompt.size_seen(size), OPSET)
    content = ClickFile(FORMAT, __version__, settings, model.config, model.facts or ModelFacts())
    reference = prompt.predictor
    images = [resize_images(reference.inputs(sample, modality), size) for sample in samples]
    require_modality(images, modality)
    try:
        with lock_target(target), replacing_folder(target) as new:
            require_replaceable(target, PARTS)
            files = [new / name for name in CLICK_FILES]
            _write_graphs(model, prompt, files, content)
            comparison = compare_clicks(
                prompt, files, images or _draw(modality, size), bool(images)
            )
            require_same(comparison, ExportSettings("onnx", modality), None)
            description = json.dumps(to_dict(content), indent=1) + "\n"
            (new / "config.json").write_text(description, "utf-8")
            (new / "README.md").write_text(write_card(content, prompt, comparison), "utf-8")
    except OSError as error:
        raise InputError(
            f"cannot write the export {target}: {error}. Choose a folder that is writable and has "
            f"room; what was there is kept"
        ) from None
    encoder, decoder = (target / name for name in CLICK_FILES)
    return ExportedClicks(encoder, decoder, settings, comparison)


def _write_graphs(
    model: SARTM, prompt: Promptable, files: Sequence[Path], content: ClickFile
) -> None:
    settings, decoder = content.clicks, prompt.decoder
    merged = model.merged()
    encoder = EncoderGraph(merged, decoder, settings.modality, settings.size, settings.seen).eval()
    images = blank_images(settings.modality, settings.size)
    write_graph(encoder, images, encoder.names, files[0], content, {})
    with torch.no_grad():
        maps = encoder(*images.values())
    graph: nn.Module
    outputs = ["mask", "logits", "scores"]
    if isinstance(decoder, ClickDecoder):
        kept = ClickMaps(maps[0], maps[1:])
        graph = script(LookGraph(decoder, settings.size, settings.seen, kept).eval())
        side = settings.seen
    else:
        graph = PromptGraph(decoder, settings.size, prompt.canvas).eval()
        outputs.append("present")
        side = (prompt.canvas // 4, prompt.canvas // 4)
    inputs: dict[str, Tensor] = dict(zip(encoder.names, maps, strict=True))
    inputs |= {
        "points": torch.ones(2, 2),
        "labels": torch.ones(2, dtype=torch.int32),
        "mask_input": torch.zeros(side),
        "has_mask": torch.zeros(1, dtype=torch.bool),
    }
    axes = {name: {0: "points"} for name in ("points", "labels")}
    write_graph(graph, inputs, outputs, files[1], content, axes)


def _draw(modality: Modality, size: tuple[int, int]) -> list[Images]:
    """Drawn images, and their mirrors."""
    images = draw_images(modality, size)
    for pair in images[:]:
        rgb, thermal = (None if x is None else np.ascontiguousarray(x[:, ::-1]) for x in pair)
        images.append((rgb, thermal))
    return images


def list_prompts(size: tuple[int, int]) -> list[Asked]:
    """Prompts of every kind on images of a size."""
    height, width = size
    x, y = (width - 1) / 2, (height - 1) / 2
    points = ((x, y), (x / 4, y / 3), (1.5 * x, 1.2 * y))
    box = (0.3 * x, 0.4 * y, 1.3 * x, 1.5 * y)
    return [
        Asked(points[:1], (1,)),
        Asked(points[:2], (1, 0), again=True),
        Asked(points, (1, 0, 1), again=True),
        Asked(points, (1, 1, 1)),
        Asked(box=box),
        Asked(points[:2], (1, 0), box),
        Asked(points[:2], (1, 0), box, again=True),
        Asked(again=True),
        Asked(points[:2], (1, -1)),
        Asked(points[1:2], (1,)),
    ]


def compare_clicks(
    prompt: Promptable, files: Sequence[Path], images: Sequence[Images], real: bool = False
) -> Comparison:
    """Run both files and PyTorch on the same images and `list_prompts`.

    Differences are of logits and scores, agreement is of the best mask's pixels.
    """
    encoder, decoder = (_open(file) for file in files)
    differences, largest, agreement = [], 0.0, []
    for pair in images:
        scene = prompt.encode_inputs(pair)
        given = {
            name: x[None] for name, x in zip(INPUTS["both"], pair, strict=True) if x is not None
        }
        maps = dict(zip(_names(encoder), encoder.run(None, given), strict=True))
        before: Array | None = None
        for asked in list_prompts(scene.size):
            start = before if asked.again else None
            ours = prompt.masks(scene, asked.points, asked.labels, asked.box, start)
            given = maps | _as_inputs(asked, start, ours[0].logits.shape)
            mask, logits, scores, *_ = decoder.run(None, given)
            order = np.argsort(-scores)[: int((scores >= 0).sum())]
            if len(order) != len(ours) or mask.shape != ours[0].mask.shape:
                raise InputError(f"the export answers {len(order)} masks of {mask.shape}")
            off = [
                max(float(np.abs(logits[k] - one.logits).max()), abs(float(scores[k]) - one.score))
                for k, one in zip(order, ours, strict=True)
            ]
            differences.append(max(off) if np.isfinite(logits).all() else float("inf"))
            largest = max(largest, *(float(np.abs(one.logits).max()) for one in ours))
            agreement.append(float((mask == ours[0].mask).mean()))
            before = ours[0].logits
    counted = sorted(differences)[: max(1, int(COUNTED * len(differences)))]
    return Comparison(len(images), real, counted[-1], largest, float(np.mean(agreement)))


def _as_inputs(asked: Asked, before: Array | None, size: tuple[int, ...]) -> dict[str, Array]:
    """A prompt as the decoder takes it."""
    points, labels = list(asked.points), list(asked.labels)
    if asked.box is not None:
        points += [asked.box[:2], asked.box[2:]]
        labels += [TOP_LEFT, BOTTOM_RIGHT]
    if not points:  # a mask alone
        points, labels = [(0.0, 0.0)], [-1]
    return {
        "points": np.array(points, np.float32),
        "labels": np.array(labels, np.int32),
        "mask_input": np.zeros(size, np.float32) if before is None else before,
        "has_mask": np.array([before is not None]),
    }


def _open(file: Path) -> Any:
    try:
        import onnxruntime
    except ModuleNotFoundError:
        raise lacks("onnxruntime") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4  # equal weights in branches are warned of
    return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])


def _names(session: Any) -> list[str]:
    return [value.name for value in session.get_outputs()]


def write_card(content: ClickFile, prompt: Promptable, comparison: Comparison) -> str:
    """README.md of the folder."""
    settings = content.clicks
    height, width = settings.size
    looks = isinstance(prompt.decoder, ClickDecoder)
    logits = "x".join(map(str, settings.seen if looks else (prompt.canvas // 4,) * 2))
    images = {
        "rgb": f"(1, {height}, {width}, 3) uint8, RGB order",
        "thermal": f"(1, {height}, {width}) float32 in [0, 1] by the thermal rule",
    }
    rows = {"files": f"encoder.onnx, decoder.onnx, fp32, opset {settings.opset}"}
    rows |= {f"encoder takes `{name}`": images[name] for name in INPUTS[settings.modality]}
    rows |= {
        "encoder gives": "maps, which the decoder takes under the same names",
        "decoder takes `points`": "(N, 2) float32, x and y in pixels of the images, the first "
        "pixel's centre being (0, 0); N from 1; inside of the images, for nothing is checked",
        "`labels`": "(N,) int32: 1 adds, 0 takes away, -1 does not count, 2 and 3 the upper left "
        "and lower right corner of a box, of which there is one at most",
        "`mask_input`": f"({logits.replace('x', ', ')}) float32: the logits that the last answer "
        f"is to be improved from; zeros where there are none",
        "`has_mask`": "(1,) bool: whether there is a `mask_input`",
        "decoder gives `mask`": f"({height}, {width}) bool: the one of the highest score",
        "`logits`": f"(4, {logits.replace('x', ', ')}) float32, above 0 inside: the next "
        f"`mask_input` is `logits[argmax(scores)]`",
        "`scores`": "(4,) float32, expected IoU: the first answers a clear prompt, the other three "
        "a single click, which may mean any of them; -1 where it is not asked for",
    }
    if not looks:
        rows["`present`"] = "(1,) float32: above 0 there is an object"
    rows |= {
        "thermal rule": describe_rule(content.model.thermal),
        "against PyTorch": f"{comparison.images} {'real' if comparison.real else 'drawn'} images, "
        f"{len(list_prompts(settings.size))} prompts each: largest difference "
        f"{comparison.difference:.2g} (logits reach {comparison.largest:.2g}; of the nearest "
        f"{100 * COUNTED:g} % of the prompts), same pixels {100 * comparison.agreement:.3f} %",
    }
    lines = [
        f"# {title(content.facts)}, exported for clicks",
        "",
        "Points, boxes and masks on an RGB-thermal pair to the object that is meant. A pair is",
        "encoded once, every prompt is a run of the decoder. Nothing else has to be computed;",
        "`examples/click_without_torch.py` of SARTM shows it.",
        "",
        *table(rows, content),
        "",
        "`config.json` holds thermal rule, classes and origin; the same JSON is in both files",
        "under `sartm`.",
        "",
        "## Licence",
        "",
        as_markdown(content.facts.licence) or "As the model it was made from.",
        "",
    ]
    return "\n".join(lines)
