"""What light and cameras do to the values of a training image; geometry is augmentation.py."""

import functools
import math
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from sartm.evaluation.conditions import damage_rgb, damage_thermal
from sartm.training.settings import AugmentationConfig

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]

_LUMA = np.array([0.299, 0.587, 0.114])


def vary_rgb(rgb: Array, options: AugmentationConfig, rng: np.random.Generator) -> Floats:
    """uint8 (h, w, 3) -> float32 [0, 1]; one colour matrix, one table, then blur and noise."""
    exponent = light = 1.0
    if options.weather > 0 and rng.random() < options.weather:
        rgb = damage_rgb(rgb, rng)
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


def vary_thermal(thermal: Floats, options: AugmentationConfig, rng: np.random.Generator) -> Floats:
    """float32 (h, w) in [0, 1], in and out."""
    if options.weather > 0 and rng.random() < options.weather:
        thermal = damage_thermal(thermal, rng).clip(0, 1)
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
