"""Samples to training tensors: joint geometry, photometry per modality, modality dropout.

Everything drawn comes from (seed, epoch, sample index), so that workers and ranks change nothing.
Geometry is one warp from the original pixels straight to the crop; what is costly comes after it.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from sartm.config import RGB_MEAN, ThermalRule
from sartm.data.pairs import PairDataset, Sample
from sartm.errors import InputError
from sartm.io.thermal import scale_thermal, thermal_levels

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]

_PADDING = np.array(RGB_MEAN, np.float32)[:, None, None]
_LUMA = np.array([0.299, 0.587, 0.114])


@dataclass(frozen=True)
class AugmentationConfig:
    """What may happen to a sample in training; probabilities and strengths of 0 switch it off."""

    crop: tuple[int, int] = (480, 640)
    """Height and width of the training crop in pixels."""
    scale: tuple[float, float] = (0.5, 2.0)
    """Smallest and largest factor on the size that the model works at, drawn uniformly in its
    logarithm."""
    flip: float = 0.5
    """Probability of a horizontal flip."""
    rotate: float = 0.0
    """Largest rotation in degrees, either way."""
    rare_crop: float = 0.25
    """Probability that the crop must hold a pixel of a class drawn evenly among those present."""
    colour: float = 0.8
    """Probability of changing brightness, contrast, saturation, hue and gamma of RGB."""
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    """Of these three the factor is drawn from 1 - x to 1 + x."""
    hue: float = 0.05
    """Largest turn of the colour circle, 1 being the whole of it."""
    gamma: float = 0.3
    """The exponent is drawn from exp(-x) to exp(x), for RGB and for thermal."""
    darken: float = 0.15
    """Probability of an underexposed RGB image: a tenth to 0.6 of its light."""
    blur: float = 0.1
    """Probability of a Gaussian blur of 0.3 to 1.5 pixels, for each modality apart."""
    noise: float = 0.2
    """Probability of Gaussian noise, for each modality apart."""
    noise_level: float = 0.04
    """Largest standard deviation of that noise, of full scale 1."""
    thermal: float = 0.8
    """Probability of changing gain, offset and gamma of thermal."""
    gain: float = 0.3
    """The contrast of thermal about its mean is multiplied by 1 - x to 1 + x."""
    offset: float = 0.1
    """Largest shift of thermal values, of full scale 1."""
    invert: float = 0.02
    """Probability of black-hot thermal."""
    dead_columns: float = 0.05
    """Probability that one to four columns of thermal hold one value."""
    misregister: float = 0.0
    """Largest displacement of thermal against RGB in pixels of the crop; labels follow RGB."""
    mix: float = 0.0
    """Probability of pasting what stands in another sample over this one, where it stood there."""
    drop_rgb: float = 0.15
    drop_thermal: float = 0.15
    """Probability of leaving out this modality (never both), where a sample has both."""

    def __post_init__(self) -> None:
        if min(self.crop) < 1:
            raise InputError(f"augmentation crop must be positive, found {self.crop}")
        if not 0 < self.scale[0] <= self.scale[1]:
            raise InputError(f"augmentation scale needs 0 < low <= high, found {self.scale}")
        for name in (
            "flip", "rare_crop", "colour", "darken", "blur", "noise", "thermal", "invert",
            "dead_columns", "brightness", "contrast", "saturation", "gain", "mix", "drop_rgb",
            "drop_thermal",
        ):  # fmt: skip
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(
                    f"augmentation {name} must be 0 to 1, found {getattr(self, name):g}"
                )
        for name in ("rotate", "hue", "gamma", "noise_level", "offset", "misregister"):
            if getattr(self, name) < 0:
                raise InputError(
                    f"augmentation {name} must not be negative, found {getattr(self, name):g}"
                )
        if self.drop_rgb + self.drop_thermal > 1:
            raise InputError(
                f"drop_rgb and drop_thermal exclude each other and may be 1 together, found "
                f"{self.drop_rgb:g} and {self.drop_thermal:g}"
            )

    @classmethod
    def none(cls, crop: tuple[int, int]) -> "AugmentationConfig":
        """Crops at the original scale and nothing else: for overfitting and for comparisons."""
        return cls(
            crop, (1.0, 1.0), flip=0, rare_crop=0, colour=0, darken=0, blur=0, noise=0, thermal=0,
            invert=0, dead_columns=0, drop_rgb=0, drop_thermal=0,
        )  # fmt: skip


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

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Batch":
        """The same batch on another device."""
        return Batch(*(t.to(device, non_blocking=non_blocking) for t in self._tensors()))

    def pin_memory(self) -> "Batch":
        """Called by a DataLoader with pin_memory=True."""
        return Batch(*(t.pin_memory() for t in self._tensors()))

    def __len__(self) -> int:
        return len(self.label)

    def _tensors(self) -> tuple[Tensor, ...]:
        return (
            self.rgb, self.thermal, self.label, self.has_rgb, self.has_thermal, self.given_rgb,
            self.given_thermal,
        )  # fmt: skip


class TrainingSet(Dataset[TrainingItem]):
    """Augmented samples by (epoch, index): the same key and seed give the same tensors anywhere."""

    def __init__(
        self,
        dataset: PairDataset,
        thermal: ThermalRule,
        options: AugmentationConfig,
        seed: int = 0,
        cache: bool = False,
    ) -> None:
        """`cache` decodes everything now and keeps it: 1.5 MB per 480x640 pair, shared by forks."""
        self.dataset, self.thermal, self.options, self.seed = dataset, thermal, options, seed
        self._levels: dict[int, tuple[float, float]] = {}
        self._samples = [dataset[index] for index in range(len(dataset))] if cache else None

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: tuple[int, int]) -> TrainingItem:
        epoch, index = key
        rng = np.random.default_rng((self.seed, epoch, index))
        item = self._draw(index, rng)
        if self.options.mix > 0 and rng.random() < self.options.mix:
            other = self._draw(int(rng.integers(len(self))), rng)
            item = paste(item, other, rng, self.dataset.classes.ignore)
        return item

    def _draw(self, index: int, rng: np.random.Generator) -> TrainingItem:
        sample = self._samples[index] if self._samples is not None else self.dataset[index]
        levels = self._levels.get(index, (0.0, 1.0))
        if sample.thermal is not None and index not in self._levels:
            levels = thermal_levels(sample.thermal, self.thermal, f"pair {sample.name!r}")
            self._levels[index] = levels
        ignore = self.dataset.classes.ignore
        return augment(sample, levels, self.thermal.mean, self.options, rng, ignore)


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
        levels: the raw thermal values that become 0 and 1 (`images.thermal_levels`).
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
        crop = _vary_rgb(_warp(sample.rgb, matrix, options.crop), options, rng)
        np.copyto(rgb, crop.transpose(2, 0, 1), where=inside)
    if sample.thermal is not None:
        # Alone, thermal is what the label describes, so only a pair can be out of register.
        shake = options.misregister > 0 and has_rgb
        own = _misregister(options, rng) @ _square(matrix) if shake else matrix
        crop = scale_thermal(_warp(sample.thermal, own[:2], options.crop), levels)
        np.copyto(thermal, _vary_thermal(crop, options, rng), where=inside)
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


def _vary_rgb(rgb: Array, options: AugmentationConfig, rng: np.random.Generator) -> Floats:
    """uint8 (h, w, 3) -> float32 [0, 1]; one colour matrix, one table, then blur and noise."""
    exponent = light = 1.0
    if rng.random() < options.colour:
        rgb = cv2.transform(rgb, _colour_matrix(rgb, options, rng))
        exponent = math.exp(rng.uniform(-options.gamma, options.gamma))
    if rng.random() < options.darken:
        light = rng.uniform(0.1, 0.6)
    if rng.random() < options.blur:
        rgb = cv2.GaussianBlur(rgb, (0, 0), rng.uniform(0.3, 1.5))
    table = (light * np.linspace(0, 1, 256) ** exponent).astype(np.float32)
    return _add_noise(np.asarray(cv2.LUT(rgb, table)), options, rng)


def _colour_matrix(rgb: Array, options: AugmentationConfig, rng: np.random.Generator) -> Array:
    """(3, 4) on 0-255: saturation, then a turn about the grey axis, brightness, contrast."""
    brightness, contrast, saturation = (
        1 + rng.uniform(-strength, strength)
        for strength in (options.brightness, options.contrast, options.saturation)
    )
    angle = 2 * math.pi * rng.uniform(-options.hue, options.hue)
    axis = np.full(3, 1 / math.sqrt(3))
    cross = np.cross(np.eye(3), axis)
    turn = (
        math.cos(angle) * np.eye(3)
        + math.sin(angle) * cross
        + (1 - math.cos(angle)) * np.outer(axis, axis)
    )
    paler = saturation * np.eye(3) + (1 - saturation) * np.outer(np.ones(3), _LUMA)
    colours = brightness * contrast * turn @ paler
    grey = brightness * float(_LUMA @ cv2.mean(rgb)[:3])
    return np.hstack([colours, np.full((3, 1), (1 - contrast) * grey)])


def _vary_thermal(thermal: Floats, options: AugmentationConfig, rng: np.random.Generator) -> Floats:
    """float32 (h, w) in [0, 1], in and out."""
    if rng.random() < options.invert:
        thermal = 1 - thermal
    if rng.random() < options.thermal:
        gain = 1 + rng.uniform(-options.gain, options.gain)
        mean = cv2.mean(thermal)[0]
        shift = (1 - gain) * mean + rng.uniform(-options.offset, options.offset)
        thermal = (gain * thermal + np.float32(shift)).clip(0, 1)
        exponent = math.exp(rng.uniform(-options.gamma, options.gamma))
        thermal = np.asarray(cv2.pow(thermal, exponent))
    if rng.random() < options.blur:
        thermal = np.asarray(cv2.GaussianBlur(thermal, (0, 0), rng.uniform(0.3, 1.5)))
    thermal = _add_noise(thermal, options, rng)
    if rng.random() < options.dead_columns:
        columns = rng.integers(0, thermal.shape[1], rng.integers(1, 5))
        thermal[:, columns] = rng.random(len(columns), np.float32)
    return thermal.astype(np.float32, copy=False)


def _add_noise(image: Floats, options: AugmentationConfig, rng: np.random.Generator) -> Floats:
    """White noise of a drawn level, clipped to [0, 1]; cut from a fixed bank for speed."""
    if rng.random() >= options.noise:
        return image
    bank = _noise_bank()
    level = rng.uniform(0, options.noise_level)
    if image.size > bank.size:
        noise = rng.standard_normal(image.shape, np.float32)
    else:
        start = rng.integers(0, bank.size - image.size + 1)
        noise = bank[start : start + image.size].reshape(image.shape)
    noisy: Floats = np.asarray(cv2.scaleAdd(noise, level, image), np.float32)
    return np.clip(noisy, 0, 1, out=noisy)


@functools.cache
def _noise_bank() -> Floats:
    """Four million normal numbers, the same in every process."""
    return np.random.default_rng(0).standard_normal(1 << 22, np.float32)


__all__ = [
    "AugmentationConfig",
    "Batch",
    "TrainingItem",
    "TrainingSet",
    "augment",
    "collate",
]
