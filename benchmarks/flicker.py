"""How much labels flicker in films, and what smoothing over time costs: on drawn films.

    python benchmarks/flicker.py [--films 20] [--frames 200] [--size 240x320] [--model mini]

Each film is a drawn street at 25 frames a second: people and cars cross, noise is new in every
frame, and in the middle one camera drops out for ten frames, thermal and RGB by turns. Of every
share that is kept from before (`sartm video --smooth`) it prints

    flicker   labels that change from a frame to the next although the truth does not, per 1000
              pixels that are an object's in either frame; and during the ten frames and after them
    IoU       mean over the classes that occur, all frames of all films

Network passes are shared. The last line is one JSON object.
"""

import argparse
import json
import time

import numpy as np
import torch

from sartm.classes import MFNET
from sartm.inference.predictor import Predictor, label_map
from sartm.inference.video import Smoother
from sartm.model.loading import load
from sartm.scenes.dataset import SceneOptions, draw_scene

KEEPS = (0.0, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9)
RATE, OUT = 25, 10
"""Frames per second, and how many of them a camera is away."""


class Score:
    """Counts for one share that is kept."""

    def __init__(self, keep: float, classes: int) -> None:
        self.keep, self.classes = keep, classes
        self.before: tuple[np.ndarray, np.ndarray] | None = None
        self.smooth = Smoother(keep)
        self.confusion = np.zeros((classes, classes), np.int64)
        self.changed, self.pixels = np.zeros(2, np.int64), np.zeros(2, np.int64)

    def begin(self) -> None:
        self.smooth, self.before = Smoother(self.keep), None

    def see(self, logits: torch.Tensor, truth: np.ndarray, dropped: bool) -> None:
        labels = label_map(self.smooth(logits), truth.shape, self.classes)
        pairs = truth.astype(np.int64) * self.classes + labels
        counts = np.bincount(pairs.ravel(), minlength=self.classes**2)
        self.confusion += counts.reshape(self.classes, -1)
        if self.before is not None:
            old, old_truth = self.before
            objects = (truth == old_truth) & ((labels > 0) | (old > 0))
            self.changed[int(dropped)] += int((objects & (labels != old)).sum())
            self.pixels[int(dropped)] += int(objects.sum())
        self.before = labels, truth

    def describe(self) -> dict[str, float]:
        hits = np.diag(self.confusion)
        union = self.confusion.sum(0) + self.confusion.sum(1) - hits
        present = self.confusion.sum(1) > 0
        shares = 1000 * self.changed / np.maximum(self.pixels, 1)
        return {
            "smooth": self.keep,
            "flicker": round(float(shares[0]), 2),
            "flicker_dropped": round(float(shares[1]), 2),
            "miou": round(100 * float((hits[present] / union[present]).mean()), 3),
            "person": round(100 * float(hits[2] / max(union[2], 1)), 3),
            "car": round(100 * float(hits[1] / max(union[1], 1)), 3),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--films", type=int, default=20)
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--size", default="240x320")
    parser.add_argument("--model", default="mini")
    options = parser.parse_args()
    height, width = (int(side) for side in options.size.split("x"))
    predictor = Predictor(load(options.model), device="cpu")
    scores = [Score(keep, len(MFNET)) for keep in KEEPS]
    begun = time.perf_counter()
    for film in range(options.films):
        for score in scores:
            score.begin()
        gone = range(options.frames // 2, options.frames // 2 + OUT)
        for index in range(options.frames):
            scene = draw_scene(1000 + film, SceneOptions(size=(height, width)), index / RATE)
            thermal = scene.thermal.astype(np.float32) / 255
            without = "" if index not in gone else "thermal" if film % 2 else "rgb"
            logits = predictor.logits(
                None if without == "rgb" else scene.rgb, None if without == "thermal" else thermal
            )
            for score in scores:
                score.see(logits, scene.label, index in gone or index == gone.stop)
        print(f"film {film + 1}: {time.perf_counter() - begun:.0f} s", flush=True)
    found = [score.describe() for score in scores]
    for row in found:
        print("  ".join(f"{name} {value:g}" for name, value in row.items()))
    print(json.dumps({"films": options.films, "frames": options.frames, "size": options.size,
                      "model": options.model, "rows": found}))  # fmt: skip


if __name__ == "__main__":
    main()
