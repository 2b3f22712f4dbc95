"""Exported models as a model: an .onnx file by ONNX Runtime, an .xml with its .bin by OpenVINO.

The file itself says what it is: beside the graph it carries the JSON that config.json holds too.
Inputs `rgb` (B, H, W, 3) uint8 and `thermal` (B, H, W) float32 in [0, 1] by the thermal rule, of
which a file has both or one; output `logits` (B, K, h/4, w/4) float32 of the padded input.
Threads are as many as torch's, one setting for every runtime; the caller says how many share them.
"""

import hashlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from sartm.config import Modality, ModelConfig, from_dict
from sartm.errors import InputError
from sartm.files import parse_json, require_plain
from sartm.model.facts import FORMAT, ModelFacts, as_trained

Array = npt.NDArray[Any]
Format = Literal["onnx", "openvino"]
Run = Callable[[dict[str, Array]], Array]
Shapes = tuple[tuple[str, tuple[int, ...]], ...]
"""Inputs and their sizes."""

FILES: dict[Format, str] = {"onnx": "model.onnx", "openvino": "model.xml"}
"""What an export folder holds; OpenVINO's weights lie in model.bin beside it."""
CLICK_FILES = ("encoder.onnx", "decoder.onnx")
"""What a folder to click on holds; this package writes it for other tools."""
KEY = "sartm"
"""Name of the JSON in ONNX's metadata and in OpenVINO's rt_info."""
INPUTS: dict[Modality, tuple[str, ...]] = {
    "both": ("rgb", "thermal"),
    "rgb": ("rgb",),
    "thermal": ("thermal",),
}


@dataclass(frozen=True)
class ExportSettings:
    """What was chosen when the file was made."""

    format: Format
    modality: Modality = "both"
    """The inputs the graph has."""
    precision: Literal["fp32", "int8"] = "fp32"
    size: tuple[int, int] | None = None
    """Height and width the graph is fixed to, with a batch of 1; None: any, and any batch."""
    opset: int = 17
    """Of the ONNX graph, from which the OpenVINO one is made too."""


@dataclass(frozen=True)
class ExportFile:
    """config.json of an export; the same JSON is inside the file."""

    format: int
    sartm: str
    """Version that wrote it."""
    export: ExportSettings
    model: ModelConfig
    """Classes, palette and thermal rule among it."""
    facts: ModelFacts


@dataclass(frozen=True)
class ClickSettings:
    """What was chosen when a model was exported to click on."""

    modality: Modality
    """The inputs of the encoder."""
    size: tuple[int, int]
    """Height and width of the images."""
    seen: tuple[int, int]
    """The size that they are encoded in."""
    opset: int


@dataclass(frozen=True)
class ClickFile:
    """config.json of an export to click on; the same JSON is inside both files."""

    format: int
    sartm: str
    """Version that wrote it."""
    clicks: ClickSettings
    model: ModelConfig
    """Thermal rule among it."""
    facts: ModelFacts


@dataclass(frozen=True)
class _Graph:
    """A file that was opened, before it is believed."""

    description: str
    inputs: dict[str, int]
    """Number of dimensions of each."""
    classes: int | None
    """Channels of the output; None where the file leaves them open."""
    start: Callable[[str, int], Run]
    """Makes it ready to run, in a precision, for so many callers at a time."""


class ExportedModel:
    """What `Predictor` needs of a model, computed without PyTorch; runs on the CPU.

    Safe to call from several threads.
    """

    def __init__(self, path: Path) -> None:
        """Open a file; InputError unless it is whole and made by `sartm export`."""
        self.path = path
        self._graph = _open_onnx(path) if path.suffix == ".onnx" else _open_openvino(path)
        content = _describe(self._graph.description, path)
        self.config, self.facts, self.export = content.model, content.facts, content.export
        _require_inputs(self._graph, content, path)
        self._run: Run | None = None
        self._ready: dict[tuple[str, int], Run] = {}

    def prepare(self, precision: str, streams: int = 1) -> str:
        """Choose how it runs.

        Args:
            precision: number format of the arithmetic, `auto`, `fp32` or (OpenVINO) `bf16`.
            streams: callers that share the cores, each with its part of them; 1: each call has
                all.

        Returns the number format in words. InputError where the runtime has no such format.
        """
        known = ("auto", "fp32") if self.export.format == "onnx" else ("auto", "fp32", "bf16")
        if precision not in known:
            raise InputError(
                f"{self.path} runs in {' or '.join(known)}, not in {precision}; leave --precision "
                f"out"
            )
        if (precision, streams) not in self._ready:
            self._ready[precision, streams] = self._graph.start(precision, streams)
        self._run = self._ready[precision, streams]
        return f"{self.export.format} {self.export.precision} {precision}"

    def logits(self, rgb: Array | None, thermal: Array | None) -> npt.NDArray[np.float32]:
        """Class logits of one pair.

        Args:
            rgb: (H, W, 3) uint8, or None.
            thermal: (H, W) in [0, 1] by the thermal rule, or None.

        Returns:
            (K, h/4, w/4), h and w being H and W padded to multiples of 32.

        Raises:
            InputError: other modalities or another size than the file was made for.
        """
        return np.asarray(self.batch_logits([(rgb, thermal)])[0])

    def batch_logits(
        self, pairs: Sequence[tuple[Array | None, Array | None]]
    ) -> npt.NDArray[np.float32]:
        """`logits` (B, K, h/4, w/4) of pairs of one size; one by one where the graph is fixed."""
        inputs = [self._inputs(rgb, thermal) for rgb, thermal in pairs]
        if self.export.size is None:
            inputs = [{name: np.concatenate([each[name] for each in inputs]) for name in inputs[0]}]
        return np.concatenate([np.asarray(self.run(each), np.float32) for each in inputs])

    def run(self, inputs: dict[str, Array]) -> Array:
        """Logits (B, K, h/4, w/4) of a batch: rgb (B, H, W, 3), thermal (B, H, W), as above."""
        if self._run is None:
            self.prepare("auto")
        assert self._run is not None
        try:
            return self._run(inputs)
        except (RuntimeError, ValueError) as error:
            raise _unreadable(self.path, error) from None

    def size(self) -> int:
        """Bytes of the graph and its weights."""
        return sum(path.stat().st_size for path in self._files())

    def fingerprint(self) -> str:
        """SHA-256 over the files: the same model or not."""
        digest = hashlib.sha256()
        for path in self._files():
            digest.update(path.read_bytes())
        return digest.hexdigest()

    def _files(self) -> list[Path]:
        both = (self.path, self.path.with_suffix(".bin"))
        return [path for path in both if path.is_file()]

    def _inputs(self, rgb: Array | None, thermal: Array | None) -> dict[str, Array]:
        images = {"rgb": rgb, "thermal": thermal}
        present = {name: image for name, image in images.items() if image is not None}
        wanted = INPUTS[self.export.modality]
        if tuple(present) != wanted:
            raise InputError(
                f"{self.path} takes {' and '.join(wanted)}, found {' and '.join(present)}; give "
                f"what it takes (predict --modality), or export again: sartm export --modality M"
            )
        if rgb is not None and (rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8):
            raise InputError(f"rgb must be (H, W, 3) uint8, found {rgb.shape} {rgb.dtype}")
        if thermal is not None and thermal.ndim != 2:
            raise InputError(f"thermal must be (H, W), found {thermal.shape}; give one channel")
        sizes = {image.shape[:2] for image in present.values()}
        if len(sizes) > 1:
            raise InputError(f"rgb and thermal differ in size, found {sorted(sizes)}; resize one")
        size = self.export.size
        if size is not None and sizes != {size}:
            found = "x".join(map(str, sizes.pop()))
            raise InputError(
                f"{self.path} is fixed to {size[0]}x{size[1]}, found {found}; resize the images, "
                f"or export without --size"
            )
        kinds = {"rgb": np.uint8, "thermal": np.float32}
        return {k: np.ascontiguousarray(v[None], kinds[k]) for k, v in present.items()}


def find_export(path: Path) -> Path | None:
    """The model file that a path names: itself, or the one in an export folder; else None."""
    if path.suffix in {".onnx", ".xml"}:
        return path
    found = [path / name for name in (*FILES.values(), *CLICK_FILES) if (path / name).is_file()]
    return found[0] if found else None


def open_export(path: Path) -> ExportedModel:
    """The exported model in a file; see `ExportedModel`."""
    for part in (path, path.with_suffix(".bin")):
        if part.exists():
            require_plain(part)
    if not path.is_file():
        raise InputError(f"{path}: no such file; give one that `sartm export` wrote")
    return ExportedModel(path)


def _open_onnx(path: Path) -> _Graph:
    try:
        import onnxruntime
    except ModuleNotFoundError:
        raise _lacks("onnxruntime") from None

    def open_session(streams: int) -> Any:
        options = onnxruntime.SessionOptions()
        # one setting for every runtime
        options.intra_op_num_threads = max(1, torch.get_num_threads() // streams)
        options.log_severity_level = 4  # errors arrive as exceptions
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    try:
        session = open_session(1)
    except Exception as error:  # its exceptions have no common parent
        raise _unreadable(path, error) from None

    def start(_: str, streams: int) -> Run:
        chosen = session if streams == 1 else open_session(streams)

        def run(inputs: dict[str, Array]) -> Array:
            try:
                return np.asarray(chosen.run(["logits"], inputs)[0])
            except Exception as error:
                raise RuntimeError(error) from None

        return run

    outputs = {value.name: value.shape for value in session.get_outputs()}
    return _Graph(
        session.get_modelmeta().custom_metadata_map.get(KEY, ""),
        {value.name: len(value.shape) for value in session.get_inputs()},
        _channels(outputs.get("logits")),
        start,
    )


def _channels(shape: Any) -> int | None:
    if shape is None or len(shape) != 4:
        return 0
    return shape[1] if isinstance(shape[1], int) else None


def _open_openvino(path: Path) -> _Graph:
    try:
        import openvino
    except ModuleNotFoundError:
        raise _lacks("openvino") from None
    core = openvino.Core()
    try:
        graph = core.read_model(path)
        inputs = {port.any_name: port.partial_shape.rank.get_length() for port in graph.inputs}
        shape = graph.output("logits").partial_shape
        classes = shape[1].get_length() if shape[1].is_static else None
        description = graph.get_rt_info([KEY]).value if graph.has_rt_info([KEY]) else ""
    except Exception as error:  # a damaged file fails in many ways
        raise _unreadable(path, error) from None
    return _Graph(str(description), inputs, classes, partial(_start_openvino, core, graph))


def _start_openvino(core: Any, graph: Any, precision: str, streams: int) -> Run:
    """A graph compiled for a size runs faster: the first size gets one, all others share one."""
    settings: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY" if streams == 1 else "THROUGHPUT",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "NUM_STREAMS": streams,
    }
    if precision != "auto":
        settings["INFERENCE_PRECISION_HINT"] = {"fp32": "f32", "bf16": "bf16"}[precision]
    compiled: dict[Shapes | None, Any] = {}
    lock, thread = threading.Lock(), threading.local()

    def compile_for(shapes: Shapes) -> Shapes | None:
        """What `compiled` has for this size: a graph of its own, or the one for every size."""
        with lock:
            if shapes in compiled:
                return shapes
            if compiled:
                if None not in compiled:
                    compiled[None] = core.compile_model(graph, "CPU", settings)
                return None
            chosen = graph.clone()
            try:
                chosen.reshape(dict(shapes))
                compiled[shapes] = core.compile_model(chosen, "CPU", settings)
            except RuntimeError:  # some graphs compile for every size but not for one
                compiled[shapes] = core.compile_model(graph, "CPU", settings)
            return shapes

    def run(inputs: dict[str, Array]) -> Array:
        key = compile_for(tuple((name, x.shape) for name, x in inputs.items()))
        requests = thread.__dict__.setdefault("requests", {})  # a request holds one call's memory
        if key not in requests:
            requests[key] = compiled[key].create_infer_request()
        return np.array(requests[key].infer(inputs)[0])  # a copy: the next call writes there again

    return run


def _describe(description: str, path: Path) -> ExportFile:
    if not description:
        raise InputError(
            f"{path} was not made by `sartm export`: it says nothing about classes and thermal "
            f"rule. Export the model again"
        )
    try:
        values = parse_json(description)
    except (ValueError, RecursionError):
        values = None
    if isinstance(values, dict) and "clicks" in values:
        raise InputError(
            f"{path} is an export for clicks (--clicks), which other tools run; for labels export "
            f"without it, and click on the model that it was made from"
        )
    version = values.get("format") if isinstance(values, dict) else None
    if type(version) is not int:
        raise InputError(f"{path}: what it says about itself is damaged; export the model again")
    if version > FORMAT:
        raise InputError(f"{path} has format {version}, this sartm reads up to {FORMAT}; upgrade")
    if version < 2 and "model" in values:
        values["model"] = as_trained(values["model"])
    return from_dict(ExportFile, values, str(path))


def _require_inputs(graph: _Graph, content: ExportFile, path: Path) -> None:
    wanted = {name: {"rgb": 4, "thermal": 3}[name] for name in INPUTS[content.export.modality]}
    classes = len(content.model.classes)
    if graph.inputs != wanted or graph.classes not in (classes, None):
        raise InputError(
            f"{path}: its graph (inputs {', '.join(graph.inputs)}, {graph.classes} classes) is not "
            f"what it says about itself ({', '.join(wanted)}, {classes}); export the model again"
        )


def _lacks(package: str) -> InputError:
    return InputError(
        f"exported models need {package}, which is not installed: pip install 'sartm[export]'"
    )


def _unreadable(path: Path, error: Exception) -> InputError:
    reason = " ".join(str(error).split())[:160]
    return InputError(
        f"{path}: damaged, cut off or no model that can be run ({reason}); export it again"
    )
