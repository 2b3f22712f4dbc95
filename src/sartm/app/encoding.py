"""Arrays to what answers hold: PNG, JPEG, NumPy, masks."""

import base64
from io import BytesIO
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from sartm.app.schema import Mask, Segment, Segmentation, Trust, describe_classes
from sartm.classes import Classes
from sartm.colours import IGNORED, display_palette
from sartm.errors import InputError
from sartm.inference.prediction import Prediction
from sartm.io.labels import encode_label
from sartm.io.run_lengths import encode_masks

Array = npt.NDArray[Any]


def list_segments(labels: Array, classes: Classes) -> list[Segment]:
    """Every id that occurs in (H, W) with its mask; ids beyond the table are `ignore`."""
    counts = np.bincount(labels.ravel())
    display = display_palette(classes)
    height, width = labels.shape
    return [
        Segment(
            id=index,
            name=classes.names[index] if index < len(classes) else "ignore",
            colour=classes.palette[index] if index < len(classes) else IGNORED,
            display=display[index] if index < len(classes) else IGNORED,
            pixels=int(counts[index]),
            share=round(int(counts[index]) / labels.size, 6),
            segmentation=Mask(size=(height, width), counts=mask),
        )
        for index, mask in encode_masks(labels).items()
    ]


def encode_confidence(confidence: Array) -> bytes:
    """(H, W) probabilities as 8-bit PNG, 255 for 1."""
    levels = np.rint(confidence.astype(np.float32) * 255)
    return encode_label(levels.clip(0, 255).astype(np.uint8))


def encode_trust(trust: Array) -> bytes:
    """(H, W) from -1 to 1 as 8-bit PNG, 0 to 255."""
    return encode_confidence((trust.astype(np.float32) + 1) / 2)


def encode_numbers(numbers: Array) -> bytes:
    """(H, W) whole numbers below 2**24 as RGB PNG: R + 256 G + 65536 B."""
    bytes_ = np.stack([numbers >> shift & 255 for shift in (0, 8, 16)], axis=-1)
    return encode_png(bytes_.astype(np.uint8))


def encode_jpeg(picture: Array, quality: int = 90) -> bytes:
    """(H, W, 3) RGB or (H, W) uint8 as JPEG."""
    done, data = cv2.imencode(".jpg", _bgr(picture), [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise InputError(f"a picture of {picture.shape[:2]} cannot be JPEG; ask for PNG or JSON")
    return data.tobytes()


def stretch(heat: Array) -> npt.NDArray[np.uint8]:
    """Raw values (H, W) as grey: 8 bits as they are, else between the 0.5th and 99.5th percent."""
    if heat.dtype == np.uint8:
        return heat
    low, high = (float(value) for value in np.percentile(heat, (0.5, 99.5)))
    scaled = (heat.astype(np.float64) - low) / max(high - low, 1e-12)
    return np.asarray((255 * scaled.clip(0, 1)).astype(np.uint8))


def encode_png(picture: Array) -> bytes:
    """(H, W, 3) RGB or (H, W) uint8 or uint16 as PNG, without loss."""
    done, data = cv2.imencode(".png", _bgr(picture))
    assert done
    return data.tobytes()


def _bgr(picture: Array) -> Array:
    return picture[..., ::-1] if picture.ndim == 3 else picture


def encode_array(image: Array) -> bytes:
    """(H, W) as .npy, for values that PNG does not hold."""
    stream = BytesIO()
    np.save(stream, image)
    return stream.getvalue()


def as_text(data: bytes) -> str:
    """Base64, as JSON carries files."""
    return base64.b64encode(data).decode()


def describe_prediction(prediction: Prediction, maps: bool) -> Segmentation:
    """A label map as masks, with PNGs in text if `maps`; the rest is left to fill in."""
    labels = prediction.labels
    answer = Segmentation(
        model="",
        modalities=[],
        size=labels.shape,
        confidence=prediction.summary()["confidence"],
        seconds=0,
        note="",
        classes=describe_classes(prediction.classes),
        segments=list_segments(labels, prediction.classes),
        alarms=[],
    )
    if prediction.trust is not None:
        answer.trust = Trust(**prediction.summary()["trust"])
    if maps:
        answer.label_png = as_text(encode_label(labels, palette=prediction.classes.palette))
        answer.confidence_png = as_text(encode_confidence(prediction.confidence))
        if prediction.trust is not None:
            answer.trust_png = as_text(encode_trust(prediction.trust))
    return answer
