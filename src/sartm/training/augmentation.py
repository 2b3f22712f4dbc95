"""Samples to training tensors: joint geometry, photometry per modality, modality dropout.

Everything drawn comes from (seed, epoch, sample index), so that workers and ranks change nothing.
Geometry is one warp from the original pixels straight to the crop; what is costly comes after it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from sartm.config import RGB_MEAN, ThermalRule
from sartm.data.pairs import PairDataset, Sample, describe_mixed_types
from sartm.errors import InputError
from sartm.io.thermal import scale_thermal, thermal_levels
from sartm.training.photometry import vary_rgb, vary_thermal
from sartm.training.settings import AugmentationConfig

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]

_PADDING = np.array(RGB_MEAN, np.float32)[:, None, None]


@dataclass(frozen=True)
class TrainingItem:
    """One augmented sample of crop size (h, w); a modality that there is none of holds its mean."""

    rgb: Tensor
    """(3, h, w) float32 in [0, 1]; outside the image RGB_MEAN."""
    thermal: Tensor
    """(1, h, w) float32 in [0, 1]; outside the image the rule's mean."""
    label: Tensor
    """(h, w) int64; outside the image, and without a label everywhere, the ignore id."""
    has_rgb: bool
    has_thermal: bool
    """What the model may use of `rgb` and `thermal`."""
    given_rgb: bool
    given_thermal: bool
    """What there is: a modality that was dropped is given all the same, for a teacher to see."""
    space: int = 0
    """Position of its data set among those that are trained on together."""


@dataclass(frozen=True)
class Batch:
    """Training items side by side; see TrainingItem for values."""

    rgb: Tensor
    """(B, 3, h, w)"""
    thermal: Tensor
    """(B, 1, h, w)"""
    label: Tensor
    """(B, h, w)"""
    has_rgb: Tensor
    """(B,) bool"""
    has_thermal: Tensor
    """(B,) bool"""
    given_rgb: Tensor
    """(B,) bool"""
    given_thermal: Tensor
    """(B,) bool"""
    space: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    """(B,) int64; empty where there is one data set."""

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch on another device."""
        return Batch(*(tensor.to(device) for tensor in vars(self).values()))

    def __len__(self) -> int:
        return len(self.label)


class TrainingSet(Dataset[TrainingItem]):
    """Augmented samples by (epoch, index): the same key and seed give the same tensors anywhere."""

    def __init__(
        self,
        dataset: PairDataset,
        thermal: ThermalRule,
        options: AugmentationConfig,
        seed: int = 0,
        space: int = 0,
        ids: Tensor | None = None,
    ) -> None:
        """The samples of one data set.

        Args:
            dataset: raw samples.
            thermal: how thermal becomes [0, 1].
            options: what may happen to them.
            seed: of the run.
            space: position of the data set among those that are trained on together.
            ids: int64, the id in training of each id that a label of this set may hold; None: its
                own.
        """
        self.dataset, self.thermal, self.options, self.seed = dataset, thermal, options, seed
        self.space, self.ids = space, ids
        self._levels: dict[int, tuple[float, float]] = {}
        self._first: tuple[str, str] | None = None  # name and number type of a thermal image

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: tuple[int, int]) -> TrainingItem:
        epoch, index = key
        rng = np.random.default_rng((self.seed, epoch, index))
        item = self._draw(index, rng)
        if self.options.mix > 0 and rng.random() < self.options.mix:
            other = self._draw(int(rng.integers(len(self))), rng)
            item = paste(item, other, rng, self.dataset.classes.ignore)
        if self.ids is None:
            return item
        return replace(item, label=self.ids[item.label], space=self.space)

    def _draw(self, index: int, rng: np.random.Generator) -> TrainingItem:
        sample = self.dataset[index]
        levels = self._levels.get(index, (0.0, 1.0))
        if sample.thermal is not None and index not in self._levels:
            name = f"pair {sample.name!r}"
            self._require_one_type(sample.name, sample.thermal.dtype.name)
            levels = thermal_levels(sample.thermal, self.thermal, name, sample.unseen)
            self._levels[index] = levels
        ignore = self.dataset.classes.ignore
        return augment(sample, levels, self.thermal.mean, self.options, rng, ignore)

    def _require_one_type(self, name: str, kind: str) -> None:
        """`measure` reads a sample of a large set; what it did not see is noticed here."""
        self._first = self._first or (name, kind)
        mixed = describe_mixed_types([self._first, (name, kind)])
        if mixed:
            raise InputError(f"{self.dataset.name}: {mixed}")


def paste(
    item: TrainingItem, other: TrainingItem, rng: np.random.Generator, ignore: int = 255
) -> TrainingItem:
    """One item with about half of the classes of another over it, all but that one's commonest.

    Where the two have not the same modalities, `item` itself: what is pasted would be visible to
    one camera only. What was dropped of `item` stays dropped. Source: ClassMix, arXiv:2007.07936,
    with true labels.
    """
    if (item.given_rgb, item.given_thermal) != (other.given_rgb, other.given_thermal):
        return item
    classes, counts = np.unique(other.label.numpy(), return_counts=True)
    known = classes != ignore
    if known.sum() < 2:
        return item
    things = np.delete(classes[known], counts[known].argmax())
    chosen = things[rng.permutation(len(things))[: -(-len(things) // 2)]]
    where = torch.from_numpy(np.isin(other.label.numpy(), chosen))
    return replace(
        item,
        rgb=torch.where(where, other.rgb, item.rgb),
        thermal=torch.where(where, other.thermal, item.thermal),
        label=torch.where(where, other.label, item.label),
    )


def collate(items: Sequence[TrainingItem]) -> Batch:
    """Stack items of one size; the `collate_fn` of a DataLoader."""
    return Batch(
        torch.stack([item.rgb for item in items]),
        torch.stack([item.thermal for item in items]),
        torch.stack([item.label for item in items]),
        torch.tensor([item.has_rgb for item in items]),
        torch.tensor([item.has_thermal for item in items]),
        torch.tensor([item.given_rgb for item in items]),
        torch.tensor([item.given_thermal for item in items]),
        torch.tensor([item.space for item in items]),
    )


def augment(
    sample: Sample,
    levels: tuple[float, float],
    thermal_mean: float,
    options: AugmentationConfig,
    rng: np.random.Generator,
    ignore: int = 255,
) -> TrainingItem:
    """Draw one training item from a sample.

    Args:
        sample: raw arrays of one size; RGB, thermal or label may be None.
        levels: the raw thermal values that become 0 and 1 (`io.thermal.thermal_levels`).
        thermal_mean: what stands for thermal where there is none, in [0, 1].
        options: what may happen.
        rng: the only source of randomness.
        ignore: label id of padding.
    """
    has_rgb, has_thermal = _draw_presence(sample, options, rng)
    matrix = _draw_geometry(sample.size, sample.label, options, rng, ignore)
    inside = _inside(sample.size, matrix, options.crop)
    rgb = np.empty((3, *options.crop), np.float32)
    rgb[:] = _PADDING
    thermal = np.full(options.crop, thermal_mean, np.float32)
    if sample.rgb is not None:
        crop = vary_rgb(_warp(sample.rgb, matrix, options.crop), options, rng)
        np.copyto(rgb, crop.transpose(2, 0, 1), where=inside)
    if sample.thermal is not None:
        # Alone, thermal is what the label describes, so only a pair can be out of register.
        shake = options.misregister > 0 and has_rgb
        shifted = _misregister(options, rng) @ _square(matrix) if shake else matrix
        crop = scale_thermal(_warp(sample.thermal, shifted[:2], options.crop), levels)
        np.copyto(thermal, vary_thermal(crop, options, rng), where=inside)
    label = np.full(options.crop, ignore, np.int64)
    if sample.label is not None:
        label = _warp_label(sample.label, matrix, options.crop, ignore)
    return TrainingItem(
        torch.from_numpy(rgb),
        torch.from_numpy(thermal[None]),
        torch.from_numpy(label),
        has_rgb,
        has_thermal,
        sample.rgb is not None,
        sample.thermal is not None,
    )


def _draw_presence(
    sample: Sample, options: AugmentationConfig, rng: np.random.Generator
) -> tuple[bool, bool]:
    draw = rng.random()
    if sample.rgb is None or sample.thermal is None:
        return sample.rgb is not None, sample.thermal is not None
    no_rgb = draw < options.drop_rgb
    return not no_rgb, no_rgb or draw >= options.drop_rgb + options.drop_thermal


def _draw_geometry(
    size: tuple[int, int],
    label: Array | None,
    options: AugmentationConfig,
    rng: np.random.Generator,
    ignore: int,
) -> Array:
    """The (2, 3) matrix from pixel centres of the sample to those of the crop."""
    factor = math.exp(rng.uniform(math.log(options.scale[0]), math.log(options.scale[1])))
    anchor = None
    if label is not None and rng.random() < options.rare_crop:
        anchor = _draw_pixel(label, rng, ignore)
    shift = []
    for axis in (0, 1):
        spare = factor * size[axis] - options.crop[axis]  # negative: room for padding
        low, high = min(spare, 0.0), max(spare, 0.0)
        if anchor is not None:
            place = factor * (anchor[axis] + 0.5)
            low = max(low, min(high, place - options.crop[axis] + 1))
            high = min(high, max(low, place - 1))
        shift.append(float(round(rng.uniform(low, high))))
    matrix = np.array([[factor, 0, -shift[1]], [0, factor, -shift[0]]])
    height, width = options.crop
    if rng.random() < options.flip:
        matrix[0] = -matrix[0] + (0, 0, width)
    if options.rotate > 0:
        angle = rng.uniform(-options.rotate, options.rotate)
        matrix = cv2.getRotationMatrix2D((width / 2, height / 2), angle, 1) @ _square(matrix)
    # So far (0, 0) is the corner of the first pixel; OpenCV puts (0, 0) into its centre.
    matrix[:, 2] += matrix[:, :2] @ (0.5, 0.5) - 0.5
    return matrix


def _draw_pixel(label: Array, rng: np.random.Generator, ignore: int) -> tuple[int, int] | None:
    """A pixel (y, x) of a class drawn evenly among those of the label but the commonest."""
    counts = cv2.calcHist([label], [0], None, [65536 if label.dtype != np.uint8 else 256],
                          [0, 65536 if label.dtype != np.uint8 else 256]).ravel()  # fmt: skip
    if ignore < len(counts):
        counts[ignore] = 0
    counts[counts.argmax()] = 0
    present = np.flatnonzero(counts)
    if not present.size:
        return None
    places = np.flatnonzero(label == rng.choice(present))
    y, x = divmod(int(rng.choice(places)), label.shape[1])
    return y, x


def _misregister(options: AugmentationConfig, rng: np.random.Generator) -> Array:
    """A (3, 3) near-identity that moves no pixel of the crop further than `misregister`."""
    height, width = options.crop
    reach = options.misregister / 2  # half for the shift, half for turning and stretching
    angle, stretch = rng.uniform(-1, 1, 2) * reach / math.hypot(height, width) * math.sqrt(2)
    turn = np.array([[1 + stretch, -angle], [angle, 1 + stretch]])
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    shift = rng.uniform(-reach, reach, 2) / math.sqrt(2)
    result = np.eye(3)
    result[:2, :2], result[:2, 2] = turn, centre - turn @ centre + shift
    return result


def _square(matrix: Array) -> Array:
    return np.vstack([matrix, (0, 0, 1)])


def _warp(image: Array, matrix: Array, crop: tuple[int, int]) -> Array:
    """Bilinear; beyond the border the edge goes on, so that no pixel mixes with the filling."""
    height, width = crop
    how, border = cv2.INTER_LINEAR, cv2.BORDER_REPLICATE
    return np.asarray(cv2.warpAffine(image, matrix, (width, height), None, how, border))


def _warp_label(label: Array, matrix: Array, crop: tuple[int, int], ignore: int) -> Array:
    height, width = crop
    how, border = cv2.INTER_NEAREST, cv2.BORDER_CONSTANT
    if ignore > np.iinfo(label.dtype).max:
        label = label.astype(np.uint16)
    warped = cv2.warpAffine(label, matrix, (width, height), None, how, border, (ignore,))
    return np.asarray(warped.astype(np.int64))


def _inside(size: tuple[int, int], matrix: Array, crop: tuple[int, int]) -> Array | bool:
    """(h, w) bool, false where the crop lies beyond the image; plainly True if it nowhere does."""
    height, width = size
    back = cv2.invertAffineTransform(matrix)
    corners = np.array([[x, y, 1.0] for x in (0, crop[1] - 1) for y in (0, crop[0] - 1)])
    x, y = back @ corners.T
    if x.min() >= -0.5 and y.min() >= -0.5 and x.max() <= width - 0.5 and y.max() <= height - 0.5:
        return True
    how, border = cv2.INTER_NEAREST, cv2.BORDER_CONSTANT
    whole = np.ones(size, np.uint8)
    return np.asarray(cv2.warpAffine(whole, matrix, crop[::-1], None, how, border) > 0)
