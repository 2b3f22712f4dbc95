"""Prediction: one pair to a label map at its own size, folders of pairs to files."""

import hashlib
import json
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from threading import Lock, Semaphore
from typing import Any, Literal, TypeVar

import cv2
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from sartm.classes import Classes
from sartm.config import Modality, to_dict
from sartm.data.layouts import Pair
from sartm.data.pairs import Sample, find_pairs, read_ahead, read_pair
from sartm.errors import InputError
from sartm.inference.tiles import STRIDE, Tiling, resize_strips, tile_logits
from sartm.io.cameras import Camera, enhance_display
from sartm.io.decode import (
    FourChannel,
    apply_thermal_rule,
    scale_thermal,
    thermal_levels,
    write_atomic,
    write_label,
)
from sartm.model.exported import ExportedModel
from sartm.model.sartm import SARTM
from sartm.progress import Meter
from sartm.registration.estimate import align_thermal

Array = npt.NDArray[Any]
Source = str | Path | Image.Image | Array | None
Precision = Literal["auto", "fp32", "bf16", "fp16"]
Images = tuple[Array | None, npt.NDArray[np.float32] | None]
"""(H, W, 3) uint8 and (H, W) in [0, 1] by the thermal rule; None what there is not."""
Area = tuple[slice, slice]
"""Rows and columns."""
Item = TypeVar("Item")
Result = TypeVar("Result")

log = logging.getLogger("sartm")

SMALL = 10_000_000
"""Parameters up to which several pairs are labelled at a time on a CPU, each by one core."""
ROWS = 256
"""Rows of pixels that are drawn or counted at a time."""
READERS = 8
"""Files of a batch that are read at a time."""


@dataclass(frozen=True)
class Prediction:
    """A label map with what is needed to look at it and judge it."""

    labels: Array
    """(H, W) class ids, uint8 (uint16 beyond 256 classes)."""
    classes: Classes
    logits: Tensor | None = field(repr=False)
    """(K, h/4, w/4) on the CPU, of the padded input; None when it was labelled in tiles."""
    image: Array = field(repr=False)
    """(H, W, 3) uint8, what overlays are drawn on: RGB, or thermal in grey."""
    coarse: npt.NDArray[np.float16] | None = field(default=None, repr=False)
    """(H/4, W/4) confidence of an image that was labelled in tiles."""

    @cached_property
    def confidence(self) -> npt.NDArray[np.float16]:
        """(H, W) largest soft-max probability; not calibrated. Of tiles: resized from stride 4."""
        height, width = self.labels.shape
        out = np.empty((height, width), np.float16)
        if self.logits is None:
            assert self.coarse is not None
            rows = [torch.from_numpy(self.coarse)[None].float()]
            for top, strip in resize_strips(rows, (height, width)):
                out[top : top + strip.shape[1]] = strip[0].numpy()
            return out
        for top, strip in resize_strips([self.logits], (height, width)):
            out[top : top + strip.shape[1]] = _confidence(strip).numpy()
        return out

    def _at_stride_4(self) -> npt.NDArray[Any]:
        """(ceil(H / 4), ceil(W / 4)) confidence, without the padding."""
        if self.coarse is not None:
            return self.coarse
        assert self.logits is not None
        height, width = (-(-side // 4) for side in self.labels.shape)
        return np.asarray(_confidence(self.logits[:, :height, :width]).numpy())

    def overlay(
        self, opacity: float = 0.5, out: npt.NDArray[np.uint8] | None = None
    ) -> npt.NDArray[np.uint8]:
        """(H, W, 3) the image with the class colours over it; class 0 stays clear.

        It is drawn into `out`, which may be the image itself, or into a new array.
        """
        palette = np.array(self.classes.palette, np.uint8)
        mixed = np.empty((*self.labels.shape, 3), np.uint8) if out is None else out
        for top in range(0, len(mixed), ROWS):
            rows = slice(top, top + ROWS)
            labels, image = self.labels[rows], np.ascontiguousarray(self.image[rows])
            colours = np.take(palette, labels, axis=0)  # a third of the time of palette[labels]
            drawn = cv2.addWeighted(image, 1 - opacity, colours, opacity, 0)
            if not self.classes.prompts[0]:
                drawn = cv2.copyTo(image, (labels == 0).astype(np.uint8), drawn)
            mixed[rows] = drawn
        return mixed

    def summary(self) -> dict[str, Any]:
        """Size, share of every class that occurs, and the mean confidence (at stride 4)."""
        counts = np.zeros(len(self.classes), np.int64)
        for top in range(0, len(self.labels), ROWS):
            rows = self.labels[top : top + ROWS].ravel()
            counts += np.bincount(rows, minlength=len(self.classes))
        shares = {
            name: round(int(count) / self.labels.size, 6)
            for name, count in zip(self.classes.names, counts, strict=True)
            if count
        }
        confidence = float(self._at_stride_4().mean(dtype=np.float64))
        return {
            "size": list(self.labels.shape),
            "shares": shares,
            "confidence": round(confidence, 4),
        }


def fast_precision(device: str) -> Literal["fp32", "bf16"]:
    """bf16 where a small matrix product is clearly faster in it, else fp32."""
    if device.startswith("cuda"):
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if device != "cpu" or torch.backends.cpu.get_cpu_capability() == "AVX2":
        return "fp32"  # AVX2 has no bf16: the measurement would take longer than a small image
    a = torch.full((192, 192), 0.1)
    best = {torch.float32: math.inf, torch.bfloat16: math.inf}
    for _ in range(8):  # the least of several: a busy machine must not decide
        for kind in best:
            x = a.to(kind)
            begun = time.perf_counter()
            x @ x
            best[kind] = min(best[kind], time.perf_counter() - begun)
    return "bf16" if best[torch.bfloat16] < 0.67 * best[torch.float32] else "fp32"


def choose_device(device: str) -> torch.device:
    """`auto` is CUDA, then Apple's MPS, then the CPU."""
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"device {device!r} cannot be used: {reason}. Try --device cpu") from None
    return chosen


class Predictor:
    """A model made ready to run: adapters folded in, fast precision chosen, codes cached.

    An exported model runs in its own runtime, on the CPU. Safe to call from several threads.
    """

    def __init__(
        self,
        model: SARTM | ExportedModel,
        *,
        device: str = "auto",
        precision: Precision = "auto",
        batch_size: int = 1,
        workers: int | None = None,
        compiled: bool = False,
        tiling: Tiling = Tiling(),
    ) -> None:
        """Make a model ready.

        Args:
            model: as `load` gives it; it stays as it is.
            device: "auto", "cpu", "cuda", "cuda:1" or "mps".
            precision: number format of the network; "auto" takes bf16 where it is fast.
            batch_size: pairs of one size that the network takes at a time, in folders, data sets
                and videos.
            workers: such batches under way at a time; None: what suits, see `side_by_side`.
            compiled: by `torch.compile`: about a minute for every new size and batch, which only a
                long run wins back.
            tiling: when an image is labelled in tiles, and in which.

        Raises:
            InputError: a device, precision or compiler that is not there.
        """
        if batch_size < 1 or (workers is not None and workers < 1):
            raise InputError(f"batch size {batch_size} and {workers} workers; give 1 or more")
        self.batch_size, self.workers, self.tiling = batch_size, workers, tiling
        self._streams, self._large = 1, Lock()
        self.model: SARTM | ExportedModel
        self.config, self.classes = model.config, model.config.classes
        self.facts = model.facts
        self.precision: str
        self._asked = precision
        if isinstance(model, ExportedModel):
            if device not in ("auto", "cpu"):
                raise InputError(f"{model.path} runs on the CPU, not on {device}; --device cpu")
            if compiled:
                raise InputError(f"{model.path} is an export; leave --compile out")
            self.device, self.model = torch.device("cpu"), model
            self.precision = model.prepare(precision)
            return
        self.device = choose_device(device)
        chosen = fast_precision(self.device.type) if precision == "auto" else precision
        self.precision = chosen
        kinds = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
        merged = model.merged(kinds[chosen]).to(self.device)
        self.model = merged
        self.network = _compile(merged) if compiled else merged.predict_logits
        """`SARTM.predict_logits`, compiled or not."""

    def __call__(self, rgb: Source, thermal: Source) -> Prediction:
        """Label one aligned pair.

        Args:
            rgb: file, PIL image or (H, W, 3) uint8 array; None where missing.
            thermal: file, PIL image or (H, W) array of raw values; None where missing.

        Raises:
            InputError: neither is given, a file cannot be read, or the sizes differ.
        """
        return self.predict(_as_sample(rgb, thermal))

    def predict(self, sample: Sample, modality: Modality = "both") -> Prediction:
        """Label a sample as read from a data set, with both or only one of its modalities."""
        return self.predict_batch([sample], modality)[0]

    def predict_batch(
        self, samples: Sequence[Sample], modality: Modality = "both"
    ) -> list[Prediction]:
        """Label samples; those of one size and the same modalities pass the network together.

        Args:
            samples: pairs of any sizes; large ones are labelled in tiles, one after another.
            modality: what the model may see.

        Raises:
            InputError: one of them has no such modality, or does not fit the thermal rule.
        """
        tiled = [self._in_tiles(sample) for sample in samples]
        whole = [sample for sample, large in zip(samples, tiled, strict=True) if not large]
        images = [self.inputs(sample, modality) for sample in whole]
        ready = iter(zip(images, self.batch_logits(images), strict=True))
        predictions = []
        for sample, large in zip(samples, tiled, strict=True):
            if large:
                with self._large:  # each needs much memory, and has all the streams by itself
                    predictions.append(self._predict_tiles(sample, modality))
                continue
            (image, display), logits = next(ready)
            labels = label_map(logits, sample.size, len(self.classes))
            if image is None:
                assert display is not None
                image = np.repeat((display * 255).astype(np.uint8)[..., None], 3, axis=2)
            predictions.append(Prediction(labels, self.classes, logits, image))
        return predictions

    @contextmanager
    def side_by_side(self, streams: int | None = None) -> Iterator[int]:
        """How many pairs to label at a time, in new threads, while this is open.

        A small network on a CPU runs one pair per core: its operations are too short to share. A
        large one and a GPU take one pair at a time, and share it. Not for two threads at a time.

        Args:
            streams: so many, whatever the network; None: the predictor's workers, or what suits.
        """
        cores = torch.get_num_threads()
        streams = streams or self.workers
        if streams is None:
            streams = cores if self.device.type == "cpu" and self._weights() <= SMALL else 1
        if streams == 1:
            yield 1
            return
        if isinstance(self.model, ExportedModel):
            self.model.prepare(self._asked, streams)
        torch.set_num_threads(max(1, cores // streams))  # what new threads take over
        self._streams = streams
        try:
            yield streams
        finally:
            self._streams = 1
            torch.set_num_threads(cores)
            if isinstance(self.model, ExportedModel):
                self.model.prepare(self._asked)

    def _weights(self) -> int:
        if isinstance(self.model, ExportedModel):
            return self.model.size() // 4
        return sum(parameter.numel() for parameter in self.model.parameters())

    def _in_tiles(self, sample: Sample) -> bool:
        fixed = isinstance(self.model, ExportedModel) and self.model.export.size is not None
        return self.tiling.applies(sample.size) and not fixed

    def _predict_tiles(self, sample: Sample, modality: Modality) -> Prediction:
        """Label a large image: beyond it and its label map, memory does not grow with its area."""
        rgb, thermal = _choose(sample, modality)
        levels = (0.0, 1.0)
        if thermal is not None:
            levels = thermal_levels(thermal, self.config.thermal, sample.name)

        def cut(area: Area) -> Images:
            seen = None if rgb is None else rgb[area]
            return seen, None if thermal is None else scale_thermal(thermal[area], levels)

        size, coarse = sample.size, []

        def finished() -> Iterator[Tensor]:
            for row in tile_logits(partial(self._logits_ahead, cut), size, self.tiling):
                for rows in row.split(ROWS // STRIDE, dim=1):  # what is made of them is as large
                    coarse.append(_confidence(rows).half().numpy())
                    yield rows

        labels = _largest(finished(), size, len(self.classes))
        if rgb is None:
            assert thermal is not None
            grey = np.empty(size, np.uint8)
            for top in range(0, size[0], ROWS):
                rows = slice(top, top + ROWS)
                grey[rows] = scale_thermal(thermal[rows], levels) * 255
            rgb = np.asarray(np.broadcast_to(grey[..., None], (*size, 3)))
        return Prediction(labels, self.classes, None, rgb, np.concatenate(coarse))

    def _logits_ahead(
        self, cut: Callable[[Area], Images], areas: Iterable[Area]
    ) -> Iterator[Tensor]:
        """`logits` of parts of one image, in order, with as many under way as there are streams."""

        def work(tiles: list[Area]) -> list[Tensor]:
            return self.batch_logits([cut(area) for area in tiles])

        chunks = _chunks(areas, self.batch_size)
        if self._streams == 1:
            for chunk in chunks:
                yield from work(chunk)
            return
        for _, done in read_ahead(chunks, work, self._streams):
            yield from done()

    def inputs(self, sample: Sample, modality: Modality = "both") -> Images:
        """What `logits` takes: (H, W, 3) uint8 and (H, W) in [0, 1] by the thermal rule, or None.

        Raises InputError where the modality that is asked for does not exist.
        """
        rgb, thermal = _choose(sample, modality)
        display = None
        if thermal is not None:
            display = apply_thermal_rule(thermal, self.config.thermal, sample.name)
        return rgb, display

    def logits(self, rgb: Array | None, thermal: Array | None) -> Tensor:
        """(K, h/4, w/4) float32 on the CPU from (H, W, 3) uint8 and (H, W) float32 in [0, 1]."""
        return self.batch_logits([(rgb, thermal)])[0]

    @torch.inference_mode()
    def batch_logits(self, pairs: Sequence[Images]) -> list[Tensor]:
        """`logits` of every pair; those of one size and the same modalities in one pass."""
        alike: dict[Any, list[int]] = {}
        for index, images in enumerate(pairs):
            kind = tuple(None if image is None else image.shape for image in images)
            alike.setdefault(kind, []).append(index)
        found: dict[int, Tensor] = {}
        for indices in alike.values():
            found.update(zip(indices, self._pass([pairs[index] for index in indices]), strict=True))
        return [found[index] for index in range(len(pairs))]

    def _pass(self, pairs: Sequence[Images]) -> Tensor:
        """(B, K, h/4, w/4) of pairs of one kind."""
        if isinstance(self.model, ExportedModel):
            return torch.from_numpy(self.model.batch_logits(pairs))
        rgb, thermal = (self._stack(images) for images in zip(*pairs, strict=True))
        x = None if rgb is None else rgb.permute(0, 3, 1, 2).float() / 255
        y = None if thermal is None else thermal[:, None]
        try:
            return self.network(x, y).float().cpu()
        except torch.OutOfMemoryError:
            height, width = next(image.shape[:2] for image in pairs[0] if image is not None)
            raise InputError(
                f"out of memory on {self.device} with {len(pairs)} pairs of {height}x{width}; "
                f"lower --batch-size or --workers, or take a smaller model"
            ) from None

    def _stack(self, images: Sequence[Array | None]) -> Tensor | None:
        """On the device; None where there are none."""
        there = [torch.from_numpy(np.ascontiguousarray(image)) for image in images
                 if image is not None]  # fmt: skip
        if not there:
            return None
        return (there[0][None] if len(there) == 1 else torch.stack(there)).to(self.device)


def _compile(model: SARTM) -> Callable[[Tensor | None, Tensor | None], Tensor]:
    """`predict_logits`, compiled when a size comes for the first time."""
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except (InvalidCxxCompiler, RuntimeError):
        raise InputError(
            "--compile needs a C++ compiler, and none was found; install g++ (or name one in the "
            "environment variable CXX), or leave --compile out"
        ) from None
    # With sizes left open, the compiler of torch 2.11 to 2.13 fails on this network.
    compiled: Callable[[Tensor | None, Tensor | None], Tensor] = torch.compile(
        model.predict_logits, dynamic=False
    )
    return compiled


def _chunks(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """`items` in lists of `size`, the last one shorter."""
    each = iter(items)
    while chunk := list(islice(each, size)):
        yield chunk


def _choose(sample: Sample, modality: Modality) -> tuple[Array | None, Array | None]:
    """RGB and raw thermal of a sample that a modality asks for."""
    rgb = sample.rgb if modality != "thermal" else None
    thermal = sample.thermal if modality != "rgb" else None
    if rgb is None and thermal is None:
        missing = "RGB" if modality == "rgb" else "thermal"
        raise InputError(f"pair {sample.name!r} has no {missing} image; choose --modality both")
    return rgb, thermal


def label_map(logits: Tensor, size: tuple[int, int], classes: int) -> Array:
    """(K, h/4, w/4) logits to (H, W) class ids: resized bilinearly, then the largest."""
    return _largest([logits], size, classes)


def _largest(rows: Iterable[Tensor], size: tuple[int, int], classes: int) -> Array:
    out = np.empty(size, np.uint8 if classes <= 256 else np.uint16)
    for top, strip in resize_strips(rows, size):
        # `max` over the outer dimension takes a tenth of the time of `argmax`.
        out[top : top + strip.shape[1]] = strip.max(0).indices.numpy()
    return out


def _confidence(logits: Tensor) -> Tensor:
    """Largest soft-max probability of (K, ...) logits."""
    return 1 / (logits - logits.amax(0)).exp().sum(0)


def _as_sample(rgb: Source, thermal: Source) -> Sample:
    if isinstance(rgb, str | Path) or isinstance(thermal, str | Path):
        read = read_pair(
            Pair(
                "pair",
                Path(rgb) if isinstance(rgb, str | Path) else None,
                Path(thermal) if isinstance(thermal, str | Path) else None,
            )
        )
        colour = read.rgb if isinstance(rgb, str | Path) else _as_array(rgb)
        heat = read.thermal if isinstance(thermal, str | Path) else _as_array(thermal)
    else:
        colour, heat = _as_array(rgb), _as_array(thermal)
    if colour is None and heat is None:
        raise InputError("no input: give rgb, thermal or both")
    if colour is not None and (
        colour.ndim != 3 or colour.shape[2] != 3 or colour.dtype != np.uint8
    ):
        raise InputError(
            f"rgb must be (H, W, 3) uint8, found {colour.shape} {colour.dtype}; convert it first"
        )
    if heat is not None and heat.ndim != 2:
        raise InputError(f"thermal must be (H, W) raw values, found {heat.shape}; give one channel")
    if colour is not None and heat is not None and colour.shape[:2] != heat.shape:
        raise InputError(
            f"rgb is {colour.shape[0]}x{colour.shape[1]} but thermal is "
            f"{heat.shape[0]}x{heat.shape[1]}; register the two (sartm data align) or resize"
        )
    return Sample("pair", colour, heat)


def _as_array(source: Image.Image | Array | str | Path | None) -> Array | None:
    return None if source is None else np.asarray(source)


Homography = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class PredictOptions:
    """What `predict_folder` does beside labelling; part of what makes two runs the same."""

    modality: Modality = "both"
    overlay: bool = True
    opacity: float = 0.5
    resize_thermal: bool = False
    four_channel: FourChannel = "auto"
    pair_regex: str | None = None
    allow_single: bool = False
    camera: Camera = field(default_factory=Camera)
    """How thermal files are read."""
    clahe: bool = False
    """Local contrast of the thermal picture under an overlay; labels are the same."""
    align: Homography | Literal["auto"] | None = None
    """Thermal pixel to RGB pixel, as rows; `auto` estimates one per pair, or fails the pair."""


@dataclass(frozen=True)
class Outcome:
    """What a folder run did; summary.json holds the same."""

    done: int
    skipped: int
    failures: dict[str, str]
    """Message per input that could not be labelled, unpaired files included."""


def fingerprint(model: SARTM | ExportedModel) -> str:
    """SHA-256 over configuration and weights: the same model or not."""
    if isinstance(model, ExportedModel):
        return model.fingerprint()
    digest = hashlib.sha256(json.dumps(to_dict(model.config), sort_keys=True).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().contiguous().cpu().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def predict_folder(
    predictor: Predictor,
    rgb: str | Path | None,
    thermal: str | Path | None,
    out: Path,
    *,
    model: str,
    options: PredictOptions = PredictOptions(),
    overwrite: bool = False,
) -> Outcome:
    """Label files, folders or globs of pairs into `out`; a bad pair costs that pair only.

    Writes labels/<name>.png, overlays/<name>.jpg and summary.json. What exists with the same model
    and settings is kept and skipped.

    Args:
        predictor: the model.
        rgb: file, folder or glob, or None.
        thermal: likewise.
        out: folder to write to.
        model: name of the model, for summary.json.
        options: settings.
        overwrite: label again what is there.

    Raises:
        InputError: no input, two inputs with one name, outputs of another model or settings
            without `overwrite`, or a folder that cannot be written.
    """
    if options.align is not None and (rgb is None or thermal is None):
        raise InputError("--align moves thermal onto RGB; give both --rgb and --thermal")
    if options.align is not None and options.resize_thermal:
        raise InputError("--align and --resize-thermal exclude each other; leave one out")
    pairs, unpaired = find_pairs(rgb, thermal, options.pair_regex, options.allow_single)
    settings = to_dict(options) | {
        "rgb": None if rgb is None else str(rgb),
        "thermal": None if thermal is None else str(thermal),
        "precision": predictor.precision,
        "fingerprint": fingerprint(predictor.model),
    }
    record = _Record(out, model, settings, overwrite, predictor.classes)
    for path in unpaired:
        record.failures[str(path)] = "no partner: the other folder has no file of this name"
    todo = [pair for pair in pairs if not record.has(pair.name, options.overlay)]
    skipped = len(pairs) - len(todo)

    def read(pair: Pair) -> Sample:
        return read_pair(
            pair,
            resize_thermal=options.resize_thermal,
            four_channel=options.four_channel,
            camera=options.camera,
            align=None if options.align is None else partial(record.align, pair, options.align),
        )

    with (
        record,
        Meter("predict", len(todo)) as meter,
        ThreadPoolExecutor(1) as writer,
    ):
        label = partial(predictor.predict_batch, modality=options.modality)
        writing: Future[None] | None = None
        for pair, labelled in label_ahead(predictor, todo, read, label):
            try:
                sample, prediction, seconds = labelled()
            except InputError as error:
                if len(pairs) == 1:  # the one input there is: the caller's to put right
                    raise
                record.failures[pair.name] = str(error)
                meter.advance()
                continue
            if writing is not None:
                writing.result()
            writing = writer.submit(record.write, pair, sample, prediction, options, seconds)
            meter.advance()
        if writing is not None:
            writing.result()
    return Outcome(len(record.pairs), skipped, record.failures)


Labelled = tuple[Sample, Result, float]
"""A sample, what was made of it, and the seconds that took."""


def label_ahead(
    predictor: Predictor,
    items: Iterable[Item],
    read: Callable[[Item], Sample],
    label: Callable[[list[Sample]], Sequence[Result]],
) -> Iterator[tuple[Item, Callable[[], Labelled[Result]]]]:
    """Each item, in order, with a call that gives what was made of it, or raises.

    The predictor's workers read and label batches in threads, ahead of what is asked for. An item
    that cannot be read or labelled costs only itself.

    Args:
        predictor: says how many at a time.
        items: what `read` takes.
        read: gives a sample, or raises InputError.
        label: one result per sample, or InputError; then each is labelled again by itself.
    """
    size = predictor.batch_size
    with predictor.side_by_side() as streams:
        turns, threads = Semaphore(streams), max(2, streams)

        def work(chunk: list[Item]) -> list[Future[Labelled[Result]]]:
            answers: list[Future[Labelled[Result]]] = [Future() for _ in chunk]
            readable = []
            reading = [readers.submit(read, item) for item in chunk]
            for answer, future in zip(answers, reading, strict=True):
                try:
                    readable.append((future.result(), answer))
                except InputError as error:
                    answer.set_exception(error)
            with turns:
                _answer(readable, label)
            return answers

        with ThreadPoolExecutor(max(threads, min(size, READERS))) as readers:
            for chunk, finished in read_ahead(_chunks(items, size), work, threads):
                for item, answer in zip(chunk, finished(), strict=True):
                    yield item, answer.result


def _answer(
    readable: Sequence[tuple[Sample, Future[Labelled[Result]]]],
    label: Callable[[list[Sample]], Sequence[Result]],
) -> None:
    """Label samples together, or one by one where together they cannot be."""
    if not readable:
        return
    begun = time.perf_counter()
    try:
        results = label([sample for sample, _ in readable])
    except InputError as error:
        if len(readable) == 1:
            readable[0][1].set_exception(error)
        else:
            for each in readable:
                _answer([each], label)
        return
    seconds = (time.perf_counter() - begun) / len(readable)
    for (sample, answer), result in zip(readable, results, strict=True):
        answer.set_result((sample, result, seconds))


class _Record:
    """The output folder of one `predict_folder` and its summary.json."""

    def __init__(
        self, out: Path, model: str, settings: dict[str, Any], overwrite: bool, classes: Classes
    ) -> None:
        self.out, self.classes = out, classes
        self.head = {"model": model, "settings": settings}
        self.pairs: dict[str, Any] = {}
        self.failures: dict[str, str] = {}
        self.kept: dict[str, Any] = {}
        self.aligned: dict[str, dict[str, Any]] = {}
        self.resumes = False
        self.spoken = time.monotonic()
        summary = out / "summary.json"
        try:
            before = json.loads(summary.read_text())
        except (OSError, ValueError):
            before = None
        finished = isinstance(before, dict) and bool(before.get("pairs"))
        occupied = finished or any((out / "labels").glob("**/*.png"))
        if occupied and not overwrite:
            if not isinstance(before, dict) or before.get("settings") != settings:
                raise InputError(
                    f"{out} holds label maps of another model or of other settings; choose "
                    f"another folder with --out, or pass --overwrite"
                )
            self.resumes, self.kept = True, before.get("pairs", {})
        try:
            (out / "labels").mkdir(parents=True, exist_ok=True)
            self._write_summary()
        except OSError as error:
            raise InputError(
                f"cannot write to {out}: {error.strerror}; choose another --out"
            ) from None

    def has(self, name: str, overlay: bool) -> bool:
        """Whether a pair's outputs are there from an earlier, equal run."""
        label = (self.out / "labels" / f"{name}.png").exists()
        return self.resumes and label and (not overlay or self._overlay(name).exists())

    def _overlay(self, name: str) -> Path:
        return self.out / "overlays" / f"{name}.jpg"

    def align(
        self, pair: Pair, how: Homography | Literal["auto"], rgb: Array, thermal: Array
    ) -> Array:
        """Thermal on the pixels of RGB; how it came there is kept for the pair's entry."""
        given = None if how == "auto" else np.array(how, np.float64)
        found = align_thermal(rgb, thermal, given, f"pair {pair.name!r}")
        self.aligned[pair.name] = {
            "homography": found.homography.tolist(),
            "quality": None if found.quality is None else round(found.quality, 4),
            "seen": round(found.seen, 4),
        }
        return found.image

    def write(
        self,
        pair: Pair,
        sample: Sample,
        prediction: Prediction,
        options: PredictOptions,
        seconds: float,
    ) -> None:
        """Write the files of one pair."""
        target = self.out / "labels" / f"{pair.name}.png"
        try:
            if options.overlay:
                path = self._overlay(pair.name)
                path.parent.mkdir(parents=True, exist_ok=True)
                if options.clahe and (sample.rgb is None or options.modality == "thermal"):
                    grey = enhance_display(np.ascontiguousarray(prediction.image[..., 0]))
                    prediction = replace(prediction, image=np.repeat(grey[..., None], 3, axis=2))
                image = prediction.image
                last = prediction.coarse is not None and image.flags.writeable
                drawn = prediction.overlay(options.opacity, image if last else None)
                for top in range(0, len(drawn), ROWS):  # of all in place OpenCV makes a copy
                    rows = drawn[top : top + ROWS]
                    cv2.cvtColor(rows, cv2.COLOR_RGB2BGR, dst=rows)
                _, data = cv2.imencode(".jpg", drawn, [cv2.IMWRITE_JPEG_QUALITY, 90])
                write_atomic(path, data.tobytes())
            target.parent.mkdir(parents=True, exist_ok=True)
            write_label(target, prediction.labels)
        except OSError as error:
            raise InputError(
                f"cannot write {target}: {error.strerror}; what was finished is kept"
            ) from None
        one = pair.four_channel or pair.rgb  # a fourth channel of RGB is thermal from one file
        used = {
            "rgb": one if sample.rgb is not None else None,
            "thermal": (pair.thermal or one) if sample.thermal is not None else None,
        }
        entry = {
            "inputs": {key: None if path is None else str(path) for key, path in used.items()},
            "seconds": round(seconds, 4),
            **prediction.summary(),
        }
        if pair.name in self.aligned:
            entry["alignment"] = self.aligned.pop(pair.name)
        if sample.note:
            log.warning("%s: %s", pair.name, sample.note)
            entry["note"] = sample.note
        self.pairs[pair.name] = entry
        if time.monotonic() - self.spoken > 5:
            self._write_summary()

    def _write_summary(self) -> None:
        self.spoken = time.monotonic()
        content = self.head | {"pairs": self.kept | self.pairs, "failures": self.failures}
        write_atomic(self.out / "summary.json", json.dumps(content, indent=1).encode())

    def __enter__(self) -> "_Record":
        return self

    def __exit__(self, *error: object) -> None:
        self._write_summary()
