"""What exports share: images as a graph takes them, and ONNX files that say what they are.

The older, tracing exporter is used on purpose: it records sizes as arithmetic on the input's shape,
so one graph serves every image size and batch, and scripted branches and loops; the newer one fixes
the branches on padding.
"""

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy.typing as npt
import torch
from torch import Tensor, nn

from sartm.config import Modality, ThermalRule, to_dict
from sartm.errors import InputError
from sartm.model.exported import INPUTS, KEY, ClickFile, ExportFile

Array = npt.NDArray[Any]
Images = tuple[Array | None, Array | None]
"""(H, W, 3) uint8 and (H, W) float32 in [0, 1], or None where the export does not take it."""

OPSET = 17


def blank_images(modality: Modality, size: tuple[int, int]) -> dict[str, Tensor]:
    """Inputs of a graph that takes a pair as it comes from files, by name."""
    examples = {
        "rgb": torch.zeros((1, *size, 3), dtype=torch.uint8),
        "thermal": torch.zeros((1, *size)),
    }
    return {name: examples[name] for name in INPUTS[modality]}


def resize_images(images: Images, size: tuple[int, int] | None) -> Images:
    """Both at the size the graph is fixed to."""
    if size is None:
        return images
    rgb, thermal = (
        None if x is None else cv2.resize(x, size[::-1], interpolation=cv2.INTER_LINEAR)
        for x in images
    )
    return rgb, thermal


def require_modality(images: Sequence[Images], modality: Modality) -> None:
    """InputError unless every pair has what an export takes."""
    for rgb, thermal in images:
        present = tuple(n for n, x in (("rgb", rgb), ("thermal", thermal)) if x is not None)
        if present != INPUTS[modality]:
            raise InputError(
                f"the export takes {' and '.join(INPUTS[modality])}, but a pair of the data has "
                f"only {' and '.join(present)}; choose another --data or --modality"
            )


def write_graph(
    graph: nn.Module,
    inputs: Mapping[str, Tensor],
    outputs: Sequence[str],
    file: Path,
    content: ExportFile | ClickFile,
    axes: Mapping[str, Mapping[int, str]],
) -> None:
    """Write an ONNX file that says what it is.

    Args:
        graph: in eval mode, scripted or to be traced.
        inputs: that it is traced on, by name.
        outputs: their names.
        file: to write.
        content: what it says of itself.
        axes: the sides of inputs and outputs that are not fixed.
    """
    try:
        import onnx
    except ModuleNotFoundError:
        raise lacks("onnx") from None
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # of branches on sizes, which the inputs choose
        torch.onnx.export(
            graph,
            tuple(inputs.values()),
            str(file),
            dynamo=False,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_axes=axes,
        )
    written = onnx.load(str(file))
    onnx.helper.set_model_props(written, {KEY: json.dumps(to_dict(content))})
    onnx.save(written, str(file))


def describe_rule(rule: ThermalRule) -> str:
    """How raw values become [0, 1]."""
    if rule.rule == "uint8":
        return "8-bit values / 255"
    kind = "values" if rule.rule == "range" else "percentiles of each image"
    return f"{kind} {rule.low:g} to {rule.high:g} become 0 to 1, clipped"


def lacks(package: str) -> InputError:
    """A package that is not there, and where it is had from."""
    return InputError(
        f"export needs {package}, which is not installed: pip install 'sartm[export]'"
    )
