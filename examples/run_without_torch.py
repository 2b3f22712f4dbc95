"""Label one pair with an exported model, with NumPy, OpenCV and ONNX Runtime alone.

    sartm export --model mini --format onnx --out exported
    python run_without_torch.py exported/model.onnx rgb.png thermal.png labels.png

The pair must be aligned and of one size. The model says itself what its classes and colours are
and how raw thermal values become [0, 1].
"""

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import onnxruntime


def scale_thermal(raw, rule):
    """Raw thermal (H, W) to float32 in [0, 1] by the model's rule."""
    low, high = rule["low"], rule["high"]
    if rule["rule"] == "uint8":
        if raw.dtype != np.uint8:
            sys.exit(f"this model takes 8-bit thermal images, found {raw.dtype}")
        low, high = 0, 255
    elif rule["rule"] == "percentile":
        low, high = np.percentile(raw, (low, high))
    if high <= low:
        return (raw > low).astype(np.float32)
    return ((raw - np.float64(low)) / (high - low)).clip(0, 1).astype(np.float32)


def read(path, flags):
    """An image file as an array."""
    image = cv2.imdecode(np.frombuffer(Path(path).read_bytes(), np.uint8), flags)
    if image is None:
        sys.exit(f"{path}: not an image that OpenCV can read")
    return image


def label(model, rgb_path, thermal_path):
    """(H, W) class ids, and the model's description of itself."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    about = json.loads(session.get_modelmeta().custom_metadata_map["sartm"])
    wanted = {value.name for value in session.get_inputs()}
    inputs = {}
    if "rgb" in wanted:
        bgr = read(rgb_path, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        inputs["rgb"] = np.ascontiguousarray(bgr[..., ::-1])[None]
    if "thermal" in wanted:
        raw = read(thermal_path, cv2.IMREAD_UNCHANGED)
        raw = raw if raw.ndim == 2 else raw[..., 1]
        inputs["thermal"] = scale_thermal(raw, about["model"]["thermal"])[None]
    height, width = next(iter(inputs.values())).shape[1:3]
    (logits,) = session.run(["logits"], inputs)  # (1, K, h/4, w/4), padded to multiples of 32
    best, labels = (
        np.full((height, width), -np.inf, np.float32),
        np.zeros((height, width), np.uint8),
    )
    for index, quarter in enumerate(logits[0]):
        size = (4 * quarter.shape[1], 4 * quarter.shape[0])
        full = cv2.resize(quarter, size, interpolation=cv2.INTER_LINEAR)[:height, :width]
        better = full > best
        best[better], labels[better] = full[better], index
    return labels, about


def main():
    """Command line."""
    if len(sys.argv) != 5:
        sys.exit(f"usage: {sys.argv[0]} MODEL.onnx RGB THERMAL LABELS.png")
    labels, about = label(*sys.argv[1:4])
    Path(sys.argv[4]).write_bytes(cv2.imencode(".png", labels)[1].tobytes())
    names = about["model"]["classes"]["names"]
    for index, count in enumerate(np.bincount(labels.ravel(), minlength=len(names))):
        if count:
            print(f"{names[index]:16} {100 * count / labels.size:6.2f} %")


if __name__ == "__main__":
    main()
