"""A model made ready to run: one pair, or several, to label maps at their own sizes."""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sartm.classes import Classes
from sartm.config import Calibration, Modality
from sartm.data.pairs import Sample, format_size
from sartm.errors import InputError
from sartm.inference.ahead import read_ahead, split_chunks
from sartm.inference.confidence import confidence_of
from sartm.inference.devices import Precision, choose_device, fast_precision
from sartm.inference.overlays import ROWS, draw_grey
from sartm.inference.prediction import Prediction
from sartm.inference.samples import Source, as_sample, check_sample
from sartm.inference.schedule import prepare_network
from sartm.inference.stopping import check_stop
from sartm.inference.tiles import STRIDE, Tiling, resize_strips, tile_logits
from sartm.inference.trust import weigh_cameras
from sartm.io.thermal import ThermalRange, choose_levels, format_range, read_range, scale_thermal
from sartm.model.exported import ExportedModel
from sartm.model.released import Released
from sartm.model.sartm import SARTM
from sartm.spaces import describe_untaught

Array = npt.NDArray[Any]
Images = tuple[Array | None, npt.NDArray[np.float32] | None]
"""(H, W, 3) uint8 and (H, W) in [0, 1] by the thermal rule; None what there is not."""
Network = Callable[[Tensor | None, Tensor | None], Tensor]
"""Images (B, C, H, W) in [0, 1] to logits (B, K, h/4, w/4)."""
Area = tuple[slice, slice]
"""Rows and columns."""

SMALL = 10_000_000
"""Parameters up to which several pairs are labelled at a time on a CPU, each by one core."""


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
        thermal_range: ThermalRange | str = "auto",
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
            thermal_range: the raw thermal values that become black and white: `auto` leaves it to
                the model's rule, and takes percentiles of each image that is deeper than the rule
                allows; `model` refuses those; (low, high) or "LOW:HIGH" are values of the files.

        Raises:
            InputError: a device, precision or compiler that is not there, or no such range.
        """
        if batch_size < 1 or (workers is not None and workers < 1):
            raise InputError(f"batch size {batch_size} and {workers} workers; give 1 or more")
        self.batch_size, self.workers, self.tiling = batch_size, workers, tiling
        text = thermal_range if isinstance(thermal_range, str) else format_range(thermal_range)
        self.thermal_range = read_range(text)
        self._streams, self._large = 1, Lock()
        self.model: SARTM | ExportedModel
        self.config, self.classes = model.config, model.config.classes
        self.facts = model.facts
        self.precision: str
        self._requested = precision
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
        network = prepare_network(model, self.device, kinds[chosen], strips=not compiled)
        self.model = network
        self.network = _compile(network) if compiled else network.predict_logits
        """`SARTM.predict_logits`, compiled or not."""

    def choose(self, classes: Classes) -> "Predictor":
        """This predictor for other classes that its model knows (`SARTM.choose`), sharing all else.

        Raises InputError for a class it does not know, or an export, whose classes are constants.
        """
        if isinstance(self.model, ExportedModel):
            raise InputError(
                f"{self.model.path} is an export, whose classes are fixed; export the model again: "
                f"sartm export --classes"
            )
        chosen = copy.copy(self)
        chosen.model = network = self.model.choose(classes)
        chosen.config, chosen.classes = network.config, classes
        chosen.network = network.predict_logits
        return chosen

    @property
    def untaught(self) -> str:
        """What to expect of chosen words that no training has shown; "" where there is none."""
        if isinstance(self.model, ExportedModel) or self.model.known is None:
            return ""
        return describe_untaught(self.model.known, self.classes)

    def __call__(self, rgb: Source, thermal: Source, trust: bool = False) -> Prediction:
        """Label one aligned pair.

        Args:
            rgb: file, PIL image or (H, W, 3) uint8 array; None where missing.
            thermal: file, PIL image or (H, W) array of raw values; None where missing.
            trust: also tell which camera the labels rest on, `Prediction.trust`.

        Raises:
            InputError: neither is given, a file cannot be read, an array is none of pixels or
                holds NaN, or the sizes differ.
        """
        return self.predict(as_sample(rgb, thermal), trust=trust)

    def predict(
        self, sample: Sample, modality: Modality = "both", trust: bool = False
    ) -> Prediction:
        """Label a sample as read from a data set, with both or only one of its modalities."""
        return self.predict_batch([sample], modality, trust)[0]

    def predict_batch(
        self, samples: Sequence[Sample], modality: Modality = "both", trust: bool = False
    ) -> list[Prediction]:
        """Label samples; those of one size and the same modalities pass the network together.

        Args:
            samples: pairs of any sizes; large ones are labelled in tiles, one after another.
            modality: what the model may see.
            trust: also tell which camera labels rest on, of whole images that have both.

        Raises:
            InputError: one of them has no such modality, holds NaN or what are no pixels, or does
                not fit the thermal rule.
        """
        samples = [self.fix_levels(check_sample(sample), modality) for sample in samples]
        tiled = [self._needs_tiles(sample) for sample in samples]
        whole = [sample for sample, large in zip(samples, tiled, strict=True) if not large]
        images = [self.inputs(sample, modality) for sample in whole]
        found = self._batch(images, self._apart()) if trust else self.batch_logits(images)
        ready = iter(zip(images, found, strict=True))
        predictions = []
        for sample, large in zip(samples, tiled, strict=True):
            if large:
                with self._large:  # each needs much memory, and has all the streams by itself
                    predictions.append(self._predict_tiles(sample, modality))
                continue
            (image, display), logits = next(ready)
            calibration = self.calibration(image, display)
            logits, weighed = self._weigh(logits)
            labels = label_map(logits, sample.size, len(self.classes))
            if image is None:
                assert display is not None
                image = draw_grey((display * 255).astype(np.uint8))
            predictions.append(
                Prediction(
                    labels,
                    self.classes,
                    logits,
                    image,
                    levels=sample.levels,
                    calibration=calibration,
                    weighed=weighed,
                    cell=self.cell,
                )
            )
        return predictions

    def _apart(self) -> Network:
        """`SARTM.predict_apart` of pairs, and what one image alone gives."""
        model = self.model
        if not isinstance(model, SARTM) or isinstance(model, Released):
            raise InputError(
                "which camera to trust is known of models in SARTM's own folders, not of exports "
                "and of the authors' released weights; leave --trust out"
            )

        def predict(rgb: Tensor | None, thermal: Tensor | None) -> Tensor:
            if rgb is None or thermal is None:
                return model.predict_logits(rgb, thermal)
            return model.predict_apart(rgb, thermal)

        return predict

    def _weigh(self, found: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits, and which camera they rest on where those of either one lie beside them."""
        classes = len(self.classes)
        if len(found) == classes:
            return found, None
        logits = found[:classes]
        return logits, weigh_cameras(logits, found[classes:], self.config.calibration)

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
            self.model.prepare(self._requested, streams)
        torch.set_num_threads(max(1, cores // streams))  # what new threads take over
        self._streams = streams
        try:
            yield streams
        finally:
            self._streams = 1
            torch.set_num_threads(cores)
            if isinstance(self.model, ExportedModel):
                self.model.prepare(self._requested)

    def _weights(self) -> int:
        if isinstance(self.model, ExportedModel):
            return self.model.size() // 4
        return sum(parameter.numel() for parameter in self.model.parameters())

    def _needs_tiles(self, sample: Sample) -> bool:
        fixed = isinstance(self.model, ExportedModel) and self.model.export.size is not None
        return self.tiling.applies(sample.size) and not fixed

    def _predict_tiles(self, sample: Sample, modality: Modality) -> Prediction:
        """Label a large image: beyond it and its label map, memory does not grow with its area."""
        rgb, thermal = _select_modality(sample, modality)
        levels = sample.levels or (0.0, 1.0)

        def cut(area: Area) -> Images:
            seen = None if rgb is None else rgb[area]
            return seen, None if thermal is None else scale_thermal(thermal[area], levels)

        size, coarse, calibration = sample.size, [], self.calibration(rgb, thermal)

        def finished() -> Iterator[Tensor]:
            for row in tile_logits(partial(self._logits_ahead, cut), size, self.tiling):
                for rows in row.split(ROWS // STRIDE, dim=1):  # what is made of them is as large
                    sure = confidence_of(rows, calibration, self.classes.rest)
                    coarse.append(sure.half().numpy())
                    yield rows

        labels = _largest(finished(), size, len(self.classes))
        if rgb is None:
            assert thermal is not None
            grey = np.empty(size, np.uint8)
            for top in range(0, size[0], ROWS):
                rows = slice(top, top + ROWS)
                grey[rows] = scale_thermal(thermal[rows], levels) * 255
            rgb = np.asarray(np.broadcast_to(grey[..., None], (*size, 3)))
        sure = np.concatenate(coarse)
        return Prediction(labels, self.classes, None, rgb, sure, sample.levels, cell=self.cell)

    def _logits_ahead(
        self, cut: Callable[[Area], Images], areas: Iterable[Area]
    ) -> Iterator[Tensor]:
        """`logits` of parts of one image, in order, with as many under way as there are streams."""

        def work(tiles: list[Area]) -> list[Tensor]:
            return self.batch_logits([cut(area) for area in tiles])

        chunks = split_chunks(areas, self.batch_size)
        if self._streams == 1:
            for chunk in chunks:
                yield from work(chunk)
            return
        for _, done in read_ahead(chunks, work, self._streams):
            yield from done()

    @property
    def cell(self) -> float:
        """`Prediction.cell`."""
        return STRIDE / self.config.scale

    def calibration(self, rgb: Array | None, thermal: Array | None) -> Calibration:
        """What sets the confidence right of a model that sees these images."""
        known = self.config.calibration
        return known.thermal if rgb is None else known.rgb if thermal is None else known.both

    def inputs(self, sample: Sample, modality: Modality = "both") -> Images:
        """What `logits` takes: (H, W, 3) uint8 and (H, W) in [0, 1] by the thermal range, or None.

        Raises InputError as `predict_batch`.
        """
        sample = self.fix_levels(check_sample(sample), modality)
        rgb, thermal = _select_modality(sample, modality)
        if thermal is None:
            return rgb, None
        assert sample.levels is not None
        return rgb, scale_thermal(thermal, sample.levels)

    def fix_levels(
        self, sample: Sample, modality: Modality = "both", how: ThermalRange | None = None
    ) -> Sample:
        """A sample with the raw values that become 0 and 1, as far as thermal is looked at.

        `how` takes the place of the predictor's own range. A sample that has them keeps them.

        Raises:
            InputError: the range is `model`, whose rule does not take such values.
        """
        if sample.thermal is None or modality == "rgb" or sample.levels is not None:
            return sample
        levels = choose_levels(
            sample.thermal,
            self.config.thermal,
            self.thermal_range if how is None else how,
            sample.name,
            sample.unseen,
            sample.black_hot,
        )
        return replace(sample, levels=levels)

    def logits(self, rgb: Array | None, thermal: Array | None) -> Tensor:
        """(K, h/4, w/4) float32 on the CPU from (H, W, 3) uint8 and (H, W) float32 in [0, 1]."""
        return self.batch_logits([(rgb, thermal)])[0]

    def batch_logits(self, pairs: Sequence[Images]) -> list[Tensor]:
        """`logits` of every pair; those of one size and the same modalities in one pass."""
        return self._batch(pairs, None)

    @torch.inference_mode()
    def _batch(self, pairs: Sequence[Images], network: Network | None) -> list[Tensor]:
        alike: dict[Any, list[int]] = {}
        for index, images in enumerate(pairs):
            kind = tuple(None if image is None else image.shape for image in images)
            alike.setdefault(kind, []).append(index)
        found: dict[int, Tensor] = {}
        for indices in alike.values():
            check_stop()
            batch = [pairs[index] for index in indices]
            if isinstance(self.model, ExportedModel):
                logits = torch.from_numpy(self.model.batch_logits(batch))
            else:
                try:
                    logits = (network or self.network)(*self.tensors(batch)).float().cpu()
                except torch.OutOfMemoryError:
                    raise self._out_of_memory(batch) from None
            found.update(zip(indices, logits, strict=True))
        return [found[index] for index in range(len(pairs))]

    def tensors(self, pairs: Sequence[Images]) -> tuple[Tensor | None, Tensor | None]:
        """RGB (B, 3, H, W) and thermal (B, 1, H, W) in [0, 1], of one size, on the device."""
        rgb, thermal = (self._stack(images) for images in zip(*pairs, strict=True))
        x = None if rgb is None else rgb.permute(0, 3, 1, 2).float() / 255
        return x, None if thermal is None else thermal[:, None]

    def _out_of_memory(self, batch: Sequence[Images]) -> InputError:
        image = next(image for image in batch[0] if image is not None)
        return InputError(
            f"out of memory on {self.device} with {len(batch)} pairs of {format_size(image)}; "
            f"lower the batch size and the workers (as predict --batch-size 1 --workers 1), or "
            f"take a smaller model"
        )

    def _stack(self, images: Sequence[Array | None]) -> Tensor | None:
        """On the device; None where there are none."""
        stack = [torch.from_numpy(np.require(image, None, ("C", "W"))) for image in images
                 if image is not None]  # fmt: skip
        if not stack:
            return None
        return (stack[0][None] if len(stack) == 1 else torch.stack(stack)).to(self.device)


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


def _select_modality(sample: Sample, modality: Modality) -> tuple[Array | None, Array | None]:
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
