"""Click on one pair with an exported model, with NumPy, OpenCV and ONNX Runtime alone.

    sartm export --model MODEL --clicks --size 480x640 --format onnx --out exported
    python click_without_torch.py exported rgb.png thermal.png mask.png 320,200 350,120,0
    python click_without_torch.py exported rgb.png thermal.png mask.png 280,150,360,300

The pair is encoded once. What follows is clicked one after the other, each improving the mask
before: x,y adds, x,y,0 takes away, x0,y0,x1,y1 is a box around the object, which takes the place of
a box before. The pair must be aligned and of the size that was exported. Images are read as
run_without_torch.py beside this file does.
"""

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
from run_without_torch import read, scale_thermal


def open_graph(path):
    """A graph ready to run."""
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def encode(encoder, rgb_path, thermal_path):
    """The maps of a pair, by the names under which the decoder takes them."""
    about = json.loads(encoder.get_modelmeta().custom_metadata_map["sartm"])
    height, width = about["clicks"]["size"]
    inputs = {}
    for value in encoder.get_inputs():
        if value.name == "rgb":
            image = read(rgb_path, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
            inputs["rgb"] = np.ascontiguousarray(image[..., ::-1])[None]
        else:
            image = read(thermal_path, cv2.IMREAD_UNCHANGED)
            image = image if image.ndim == 2 else image[..., 1]
            inputs["thermal"] = scale_thermal(image, about["model"]["thermal"])[None]
        if image.shape[:2] != (height, width):
            sys.exit(f"{value.name} is {image.shape[:2]}, the export is for {(height, width)}")
    names = [value.name for value in encoder.get_outputs()]
    return dict(zip(names, encoder.run(None, inputs), strict=True))


class Clicks:
    """One object of an encoded pair, clicked again and again."""

    def __init__(self, decoder, maps):
        """Nothing is clicked yet."""
        self.decoder, self.maps = decoder, maps
        self.points, self.labels = [], []
        shape = next(value.shape for value in decoder.get_inputs() if value.name == "mask_input")
        self.logits, self.has_mask = np.zeros(shape, np.float32), False
        self.size = next(value.shape for value in decoder.get_outputs() if value.name == "mask")

    def add(self, points, labels):
        """The mask (H, W) and its expected IoU after one click more."""
        if 2 in labels:  # the decoder takes one box at most, and would add up the corners of two
            kept = [index for index, label in enumerate(self.labels) if label < 2]
            self.points = [self.points[index] for index in kept]
            self.labels = [self.labels[index] for index in kept]
        self.points += points
        self.labels += labels
        prompt = {
            "points": np.array(self.points, np.float32),
            "labels": np.array(self.labels, np.int32),
            "mask_input": self.logits,
            "has_mask": np.array([self.has_mask]),
        }
        mask, logits, scores = self.decoder.run(
            ["mask", "logits", "scores"], {**self.maps, **prompt}
        )
        best = scores.argmax()
        self.logits, self.has_mask = logits[best], True
        return mask, float(scores[best])


def read_click(text, size):
    """Points and labels of x,y or x,y,label or x0,y0,x1,y1 in an image (H, W).

    The decoder answers whatever it is given: what cannot be meant is found here.
    """
    try:
        numbers = [float(number) for number in text.split(",")]
    except ValueError:
        numbers = []
    box = len(numbers) == 4
    if not box and (len(numbers) not in (2, 3) or numbers[2:] not in ([], [0], [1])):
        sys.exit(f"{text} is no click; give x,y or x,y,0 or x0,y0,x1,y1")
    height, width = size
    points = [numbers[:2], numbers[2:]] if box else [numbers[:2]]
    if not all(-0.5 <= x <= width - 0.5 and -0.5 <= y <= height - 0.5 for x, y in points):
        sys.exit(f"{text} lies outside of the image, {width} wide and {height} high")  # NaN, too
    if box and not (numbers[0] < numbers[2] and numbers[1] < numbers[3]):
        sys.exit(f"{text} holds nothing; a box is its upper left and its lower right corner")
    return (points, [2, 3]) if box else (points, [int(numbers[2]) if numbers[2:] else 1])


def main():
    """Command line."""
    if len(sys.argv) < 6:
        sys.exit(f"usage: {sys.argv[0]} FOLDER RGB THERMAL MASK.png CLICK...")
    folder = Path(sys.argv[1])
    encoder, decoder = (open_graph(folder / f"{name}.onnx") for name in ("encoder", "decoder"))
    clicks = Clicks(decoder, encode(encoder, *sys.argv[2:4]))
    for text in sys.argv[5:]:
        mask, score = clicks.add(*read_click(text, clicks.size))
        print(f"{text}: {np.count_nonzero(mask)} pixels, expected IoU {100 * score:.0f} %")
    Path(sys.argv[4]).write_bytes(cv2.imencode(".png", 255 * mask.astype(np.uint8))[1].tobytes())


if __name__ == "__main__":
    main()
