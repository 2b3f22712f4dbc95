"""Segment anything on a pair: an image is encoded once, then every click is a mask.

Pixels are (x, y) of the images as given, the first one's centre being (0, 0).
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from sartm.config import Modality
from sartm.data.pairs import Sample
from sartm.errors import InputError
from sartm.inference.devices import Precision
from sartm.inference.predictor import Images, Predictor
from sartm.inference.samples import Source, as_sample
from sartm.io.thermal import ThermalRange
from sartm.model.clicks import ClickDecoder, ClickMaps
from sartm.model.encoder import Levels
from sartm.model.exported import ExportedModel
from sartm.model.loading import load
from sartm.model.looking import OUTSIDE, click_maps, look
from sartm.model.prompts import (
    ADDS,
    BOTTOM_RIGHT,
    NO_POINT,
    TAKES_AWAY,
    TOP_LEFT,
    PromptDecoder,
    load_prompts,
    prompt_levels,
)
from sartm.model.released import Released
from sartm.model.sartm import SARTM

Array = npt.NDArray[Any]
Point = tuple[float, float]
"""x and y in pixels."""
Box = tuple[float, float, float, float]
"""x and y of the upper left corner, then of the lower right one."""

SAM2 = ("tiny", "small", "base_plus", "large", "test")
"""Sizes whose prompt half SAM 2's own files hold."""
MOST_POINTS = 256
"""Of one mask: more are no clicks of a person, and each costs time."""
LARGEST = 1024
"""Pixels of the longer side that windows are drawn from; larger pairs are shrunk."""
_SURE = 8.0
"""Logit that a mask given as true and false stands for."""


@dataclass(frozen=True)
class Scene:
    """An encoded pair, to be clicked on; only for the `Promptable` that made it."""

    size: tuple[int, int]
    """Height and width of the images."""
    modality: Modality
    """What was given of the pair."""
    maps: tuple[Tensor, ...]

    @property
    def nbytes(self) -> int:
        """Memory that it holds, in bytes."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.maps)


@dataclass(frozen=True)
class Mask:
    """What a prompt stands for."""

    mask: npt.NDArray[np.bool_]
    """(H, W) of the images."""
    score: float
    """The IoU with what was meant, as the model expects it: 0 to 1."""
    logits: npt.NDArray[np.float32]
    """(h, w) at the decoder's own resolution: the `mask_input` of the next click."""


@dataclass(frozen=True)
class Prompt:
    """One mask's clicks, checked."""

    points: npt.NDArray[np.float32]
    """(N, 2); the corners of a box are its last two."""
    labels: npt.NDArray[np.int64]
    """(N,) 1, 0 or -1; 2 and 3 for a box."""
    mask: npt.NDArray[np.float32] | None = None
    """(h, w) logits."""

    @property
    def is_ambiguous(self) -> bool:
        """Whether it is one click and nothing else, as somebody begins."""
        return int((self.labels != NO_POINT).sum()) == 1 and self.mask is None


class Promptable:
    """A model that answers clicks, boxes and masks; safe to use from several threads."""

    def __init__(
        self,
        model: SARTM | Predictor | str | Path = "mini",
        *,
        prompts: str | Path = "",
        canvas: int = 1024,
        device: str = "auto",
        precision: Precision = "auto",
        thermal_range: ThermalRange | str = "auto",
    ) -> None:
        """Make a model ready for clicks.

        Args:
            model: as `load` gives it or anything that `load` takes; a predictor shares its network.
            prompts: SAM 2 weights with the prompt half of one of its sizes; by default those that
                the model's encoder came from.
            canvas: side in pixels of the square that images become before one of SAM 2's sizes; it
                was trained at 1024, smaller ones are faster.
            device: as of `Predictor`, like `precision` and `thermal_range`.

        Raises:
            InputError: a model that cannot answer clicks, and what to do; no such weights.
        """
        if isinstance(model, str | Path):
            model = require_weights(load(model), str(model))
        if not isinstance(model, Predictor):
            model = Predictor(
                model, device=device, precision=precision, thermal_range=thermal_range
            )
        self.predictor = model
        self.network = require_weights(model.model, "this model")
        if canvas < 32 or canvas % 32:
            raise InputError(f"canvas is {canvas}; give a multiple of 32, 1024 as SAM 2 has it")
        self.canvas = canvas
        self.decoder: ClickDecoder | PromptDecoder
        if self.network.clicks is not None:  # in float32, whatever the network computes in
            self.decoder = copy.deepcopy(self.network.clicks).float().eval()
        elif self.network.config.size in SAM2:
            self.decoder = load_prompts(self.network, prompts).to(model.device)
        else:
            raise InputError(
                "this model has no weights for clicks; sartm train clicks --init MODEL --data D "
                "adds them, and changes no label"
            )

    def encode(self, rgb: Source, thermal: Source) -> Scene:
        """Encode one aligned pair.

        Args:
            rgb: file, PIL image or (H, W, 3) uint8 array; None where missing.
            thermal: file, PIL image or (H, W) array of raw values; None where missing.

        Raises:
            InputError: as `Predictor.__call__`.
        """
        return self.encode_sample(as_sample(rgb, thermal))

    def encode_sample(self, sample: Sample, modality: Modality = "both") -> Scene:
        """Encode a sample as read from a data set, with both or only one of its modalities."""
        return self.encode_inputs(self.predictor.inputs(sample, modality))

    @torch.inference_mode()
    def encode_inputs(self, images: Images) -> Scene:
        """Encode what `Predictor.inputs` gives."""
        size = next(image.shape[:2] for image in images if image is not None)
        given: Modality = "thermal" if images[0] is None else "rgb" if images[1] is None else "both"
        seen = self.size_seen(size)
        rgb, thermal = (
            x if x is None or x.shape[2:] == seen else F.interpolate(
                x, seen, mode="bilinear", antialias=True
            )
            for x in self.predictor.tensors([images])
        )  # fmt: skip
        if isinstance(self.decoder, ClickDecoder):
            maps = click_maps(self.network, self.decoder, rgb, thermal)
            return Scene(size, given, (maps.features, *maps.pixels))
        levels = prompt_levels(self.network, rgb, thermal)
        return Scene(size, given, tuple(level.float() for level in levels))

    def size_seen(self, size: tuple[int, int]) -> tuple[int, int]:
        """The (height, width) that images of a size are encoded in: their own or the largest that
        is not too much, or SAM 2's square."""
        if not isinstance(self.decoder, ClickDecoder):
            return self.canvas, self.canvas
        factor = min(1.0, LARGEST / max(size))
        return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))

    def mask(
        self,
        scene: Scene,
        points: Sequence[Point] = (),
        labels: Sequence[int] | None = None,
        box: Box | None = None,
        mask_input: Array | None = None,
        multimask: bool | None = None,
    ) -> Mask:
        """The mask that a prompt stands for, the best of `masks`."""
        return self.masks(scene, points, labels, box, mask_input, multimask)[0]

    @torch.inference_mode()
    def masks(
        self,
        scene: Scene,
        points: Sequence[Point] = (),
        labels: Sequence[int] | None = None,
        box: Box | None = None,
        mask_input: Array | None = None,
        multimask: bool | None = None,
    ) -> list[Mask]:
        """What a prompt may stand for, the likeliest first.

        Args:
            scene: as `encode` gives it.
            points: x and y of every click so far, in pixels of the images.
            labels: of each point: 1 adds, 0 takes away, -1 does not count; all add where None.
            box: x0, y0, x1, y1 around the object; what lies outside the images is cut off.
            mask_input: `Mask.logits` of the mask that the last click was to improve, or any (H, W)
                mask of true and false.
            multimask: three masks, a part, a whole and what it belongs to, or one; None: three for
                a single click, which may mean any of them.

        Raises:
            InputError: no point and no box, one outside of the images, labels that do not fit.
        """
        prompt = check_prompt(scene.size, points, labels, box, mask_input)
        several = prompt.is_ambiguous if multimask is None else multimask
        logits, scores = self._answer(scene, prompt, several)
        order = scores.argsort(descending=True).tolist()
        return [self._finish(scene, logits[index], float(scores[index])) for index in order]

    def _answer(self, scene: Scene, prompt: Prompt, several: bool) -> tuple[Tensor, Tensor]:
        """(M, h, w) logits and (M,) scores."""
        if isinstance(self.decoder, ClickDecoder):
            return self._look(self.decoder, scene, prompt, several)
        levels = Levels(*scene.maps)
        height, width = scene.size
        scale = np.array([self.canvas / width, self.canvas / height], np.float32)
        device = levels.sfm.device
        points = torch.from_numpy(prompt.points * scale)[None].to(device)
        labels = torch.from_numpy(prompt.labels)[None].to(device)
        mask = None
        if prompt.mask is not None:
            mask = torch.from_numpy(prompt.mask)[None, None].to(device)
            size = [4 * side for side in levels.sfm.shape[2:]]
            if list(mask.shape[2:]) != size:
                mask = F.interpolate(mask, size, mode="bilinear", antialias=True)
        answer = self.decoder(levels, points, labels, mask, several)
        return answer.logits[0], answer.scores[0]

    def _look(
        self, decoder: ClickDecoder, scene: Scene, prompt: Prompt, several: bool
    ) -> tuple[Tensor, Tensor]:
        features, *pixels = scene.maps
        maps, seen = ClickMaps(features, tuple(pixels)), self.size_seen(scene.size)
        scale = np.array([seen[1] / scene.size[1], seen[0] / scene.size[0]])
        points = (prompt.points + 0.5) * scale
        box: Box | None = None
        corners = prompt.labels >= TOP_LEFT
        if corners.any():
            x0, y0, x1, y1 = points[corners].reshape(-1).tolist()
            box = x0, y0, x1, y1
        before = None
        if prompt.mask is not None:
            mask = torch.from_numpy(prompt.mask)[None, None].to(features.device)
            if mask.shape[2:] != seen:
                mask = F.interpolate(mask, seen, mode="bilinear", antialias=True)
            below, right = (p - s for p, s in zip(pixels[0].shape[2:], seen, strict=True))
            before = F.pad(mask, (0, right, 0, below), value=OUTSIDE)[0, 0]
        logits, scores = look(
            decoder, maps, seen, points[~corners], prompt.labels[~corners], box, before, several
        )
        return logits[:, : seen[0], : seen[1]], scores

    def _finish(self, scene: Scene, logits: Tensor, score: float) -> Mask:
        full = logits
        if full.shape != scene.size:
            full = F.interpolate(logits[None, None], scene.size, mode="bilinear")[0, 0]
        return Mask((full > 0).cpu().numpy(), score, logits.cpu().numpy())


def require_weights(model: SARTM | ExportedModel, name: str) -> SARTM:
    """A model that may answer clicks; InputError for exports and released ones."""
    if isinstance(model, ExportedModel):
        raise InputError(
            f"{name} is an export for labels; clicks need the model that it was made from"
        )
    if isinstance(model, Released):
        raise InputError(
            f"{name} is a released SARTM, whose prompt half was thrown away; take a model of "
            f"SARTM's own, such as mini"
        )
    return model


def check_prompt(
    size: tuple[int, int],
    points: Sequence[Point] = (),
    labels: Sequence[int] | None = None,
    box: Box | None = None,
    mask_input: Array | None = None,
) -> Prompt:
    """A prompt on images of a size, held to what can be meant.

    Raises InputError as `Promptable.masks`.
    """
    places = _read_numbers(points, 2, "points").reshape(-1, 2)
    if len(places) > MOST_POINTS:
        raise InputError(f"{len(places)} points for one mask; give up to {MOST_POINTS}")
    kinds = [ADDS] * len(places) if labels is None else list(labels)
    if len(kinds) != len(places):
        raise InputError(f"{len(kinds)} labels for {len(places)} points; give one for each")
    strange = [kind for kind in kinds if kind not in (ADDS, TAKES_AWAY, NO_POINT)]
    if strange:
        raise InputError(
            f"label {strange[0]!r} of a point; 1 adds, 0 takes away, -1 does not count"
        )
    height, width = size
    for (x, y), kind in zip(places.tolist(), kinds, strict=True):
        if kind != NO_POINT and not (-0.5 <= x <= width - 0.5 and -0.5 <= y <= height - 0.5):
            raise InputError(
                f"point ({x:g}, {y:g}) lies outside of the image, whose pixels are (0, 0) to "
                f"({width - 1}, {height - 1})"
            )
    if box is not None:
        places = np.concatenate([places, _check_box(box, size)])
        kinds += [TOP_LEFT, BOTTOM_RIGHT]
    if not any(kind in (ADDS, TOP_LEFT) for kind in kinds) and mask_input is None:
        raise InputError("nothing to find: give a point with label 1, a box or a mask")
    mask = None if mask_input is None else _read_mask(mask_input)
    return Prompt(places.astype(np.float32), np.array(kinds, np.int64), mask)


def _read_numbers(values: object, across: int, what: str) -> npt.NDArray[np.float64]:
    try:
        array = np.asarray(values, np.float64)
    except (TypeError, ValueError, OverflowError):
        array = np.full(1, np.nan)
    fits = array.size == 0 or (array.shape[-1] == across and array.ndim <= 2)
    if not fits or not np.isfinite(array).all():
        raise InputError(f"{what} must be finite numbers, {across} each, in pixels")
    return array


def _check_box(box: object, size: tuple[int, int]) -> npt.NDArray[np.float64]:
    """The corners (2, 2) of a box, cut to the image."""
    values = _read_numbers(box, 4, "a box").reshape(-1)
    if len(values) != 4:
        raise InputError("a box is four numbers: x0, y0, x1, y1")
    corners = values.reshape(2, 2).clip(-0.5, np.array([size[1], size[0]]) - 0.5)
    if not (corners[1] > corners[0]).all():
        x0, y0, x1, y1 = values.tolist()
        raise InputError(
            f"box {x0:g}, {y0:g}, {x1:g}, {y1:g} holds nothing of an image of {size[1]} by "
            f"{size[0]} pixels; x0, y0 is the upper left corner, x1, y1 the lower right one"
        )
    return corners


def _read_mask(mask: Array) -> npt.NDArray[np.float32]:
    """(h, w) logits from logits, or from a mask of true and false."""
    array = np.asarray(mask)
    if array.ndim != 2 or not array.size or array.dtype.kind not in "bf":
        raise InputError(
            f"mask_input is {array.dtype} {array.shape}; give the logits of a mask, (h, w) float, "
            f"or a mask of true and false"
        )
    if array.dtype.kind == "b":
        return np.where(array, np.float32(_SURE), np.float32(-_SURE))
    if not np.isfinite(array).all():
        raise InputError("mask_input holds NaN or infinite values; give logits of a mask")
    return array.astype(np.float32)
