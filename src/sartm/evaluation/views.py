"""Views: a pair seen in windows, sizes and mirrored, and the label map of their mean.

Windows here are those of published protocols: any stride, probabilities averaged. The tiles of
`inference.tiles` bound memory instead, and blend logits on the grid of the whole image.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt

from sartm.config import Modality
from sartm.data.pairs import Sample
from sartm.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from sartm.inference.predictor import Predictor

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Views:
    """Which crops and sizes of a pair a model sees; the default is the whole image, once.

    The class probabilities of several views are averaged at the original size: unlike logits they
    are bounded, so no view outvotes the others.
    """

    window: tuple[int, int] | None = None
    """(height, width) of a sliding window in pixels; None: the whole image."""
    stride: int | None = None
    """Pixels from one window to the next, both ways; None: two thirds of the shorter side."""
    scales: tuple[float, ...] = (1.0,)
    """Sizes relative to the original's."""
    flip: bool = False
    """Each view mirrored left to right as well."""

    def __post_init__(self) -> None:
        if self.window is not None and min(self.window) < 32:
            found = f"{self.window[0]}x{self.window[1]}"
            raise InputError(f"the window is {found} pixels; each side needs at least 32")
        if self.stride is not None:
            if self.window is None:
                raise InputError(f"stride {self.stride} without a window; give --window HxW too")
            if not 1 <= self.stride <= min(self.window):
                raise InputError(
                    f"stride is {self.stride}; windows of {self.window[0]}x{self.window[1]} cover "
                    f"every pixel with 1 to {min(self.window)}"
                )
        if not self.scales or not all(0.1 <= scale <= 4 for scale in self.scales):
            raise InputError(f"scales are {list(self.scales)}; give one or more from 0.1 to 4")

    def step(self) -> int | None:
        """The stride in use, the default filled in; None without a window."""
        if self.window is None:
            return None
        return self.stride or max(1, 2 * min(self.window) // 3)


def label_sample(
    predictor: "Predictor", sample: Sample, modality: Modality = "both", views: Views = Views()
) -> Array:
    """(H, W) class ids of a sample, from the mean class probabilities where views are several."""
    if views == Views():
        return predictor.predict(sample, modality).labels
    import torch
    import torch.nn.functional as F

    images = predictor.inputs(sample, modality)
    height, width = sample.size
    classes = len(predictor.classes)
    total = torch.zeros((classes, height, width))
    for scale in views.scales:
        size = max(1, round(scale * height)), max(1, round(scale * width))
        scaled = [None if image is None else _resize(image, size) for image in images]
        for step in (1, -1) if views.flip else (1,):
            turned = [None if image is None else image[:, ::step] for image in scaled]
            mean = _mean_of_windows(predictor, turned, size, views)
            mean = mean if step == 1 else mean.flip(-1)
            if size != sample.size:
                mean = F.interpolate(mean[None], sample.size, mode="bilinear")[0]
            total += mean
    labels = total.max(0).indices.numpy()
    return np.asarray(labels.astype(np.uint8 if classes <= 256 else np.uint16))


def _mean_of_windows(
    predictor: "Predictor", images: Sequence[Array | None], size: tuple[int, int], views: Views
) -> "Tensor":
    """(K, h, w) class probabilities of an image of `size`, averaged where windows overlap."""
    import torch

    from sartm.model.sartm import resize_logits

    height, width = (min(pair) for pair in zip(views.window or size, size, strict=True))
    stride = views.step() or 1  # of a whole image there is one window
    total = torch.zeros((len(predictor.classes), *size))
    seen = torch.zeros(size)
    for top in _starts(size[0], height, stride):
        for left in _starts(size[1], width, stride):
            area = slice(top, top + height), slice(left, left + width)
            rgb, thermal = (None if image is None else image[area] for image in images)
            logits = resize_logits(predictor.logits(rgb, thermal)[None], (height, width))
            total[(slice(None), *area)] += logits[0].softmax(0)
            seen[area] += 1
    return total / seen


def _starts(size: int, window: int, stride: int) -> list[int]:
    """First pixels of windows that cover `size`; the last one ends at the border."""
    return [*range(0, size - window, stride), size - window]


def _resize(image: Array, size: tuple[int, int]) -> Array:
    if image.shape[:2] == size:
        return image
    how = cv2.INTER_AREA if size[0] < image.shape[0] else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, size[::-1], interpolation=how))
