"""Are counts and temperatures of objects right? On drawn pairs, whose temperatures are known.

    python benchmarks/objects.py [--pairs 200] [--size 480x640] [--model mini-synthetic]

    counts     objects of the true label maps, against SciPy's connected components, per pair and
               class: pairs in which all agree
    coverage   of predicted objects that overlap a true one by half or more: how often mean +-
               error holds the exact mean of the true object, and how wide it is, by the accuracy
               that the camera is said to have (0: the mask's edge alone; 0.5: what drawn cameras
               have; 2: data sheets) and by the pixels by which outlines may be wrong (cell: of the
               network's map, which is what the library takes)
    speed      10,000 objects in one picture of 1100 x 1100: seconds of the processor

The last line is one JSON object.
"""

import argparse
import json
import time

import numpy as np
from scipy import ndimage

from sartm.classes import MFNET
from sartm.inference.predictor import Predictor
from sartm.model.loading import load
from sartm.objects.measurement import find_objects, measure_objects
from sartm.objects.parts import Parts
from sartm.scenes.dataset import SceneOptions, draw_scene, pair_seed

ACCURACIES = (0.0, 0.5, 2.0)
EDGES = (0.25, 0.5, 1.0)
"""Cells of the network's map."""
EIGHT = np.ones((3, 3))


def counts_agree(label: np.ndarray, parts: Parts) -> bool:
    """Whether every class has as many parts, of the same areas, as SciPy finds."""
    for id_ in range(1, len(MFNET)):
        numbers, count = ndimage.label(label == id_, EIGHT)
        areas = np.bincount(numbers.ravel(), minlength=count + 1)[1:]
        if sorted(areas) != sorted(parts.areas[parts.ids == id_]):
            return False
    return True


def match(parts: Parts, true: Parts) -> dict[int, int]:
    """Predicted number -> true number of the same class, of an overlap (IoU) of half or more."""
    both = (parts.where > 0) & (true.where > 0)
    pairs, shared = np.unique(
        np.stack([parts.where[both], true.where[both]]), axis=1, return_counts=True
    )
    found = {}
    for (ours, theirs), area in zip(pairs.T, shared, strict=True):
        union = parts.areas[ours - 1] + true.areas[theirs - 1] - area
        if parts.ids[ours - 1] == true.ids[theirs - 1] and area >= 0.5 * union:
            found[int(ours)] = int(theirs)
    return found


def time_many() -> tuple[int, float]:
    draw = np.random.default_rng(0)
    label = np.zeros((1100, 1100), np.uint8)
    for top in range(5, 1100, 11):
        for left in range(5, 1100, 11):
            height, width = draw.integers(3, 8, 2)
            label[top : top + height, left : left + width] = draw.integers(1, len(MFNET))
    confidence = draw.random(label.shape).astype(np.float16)
    celsius = draw.normal(20, 5, label.shape).astype(np.float32)
    times = []
    for _ in range(5):
        begun = time.process_time()
        parts = find_objects(label, MFNET, 1)
        rows = measure_objects(parts, MFNET, confidence, celsius, edge=8)
        times.append(time.process_time() - begun)
    return len(rows), min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--size", default="480x640")
    parser.add_argument("--model", default="mini-synthetic")
    options = parser.parse_args()
    height, width = (int(side) for side in options.size.split("x"))
    scenes = SceneOptions(size=(height, width), thermal="celsius")
    predictor = Predictor(load(options.model), device="cpu")
    agree = objects = 0
    off: list[float] = []
    bars: dict[tuple[float, float], list[float]] = {(e, a): [] for e in EDGES for a in ACCURACIES}
    for index in range(options.pairs):
        scene = draw_scene(pair_seed(77, index), scenes)
        true = find_objects(scene.label, MFNET, 1)
        agree += counts_agree(scene.label, true)
        objects += len(true)
        prediction = predictor(scene.rgb, scene.celsius)
        parts = find_objects(prediction.labels, MFNET, 20)
        measured = {
            (edge, accuracy): measure_objects(
                parts, MFNET, prediction.confidence, scene.celsius, None, accuracy,
                edge * prediction.cell,
            )
            for edge, accuracy in bars
        }  # fmt: skip
        exact = ndimage.mean(scene.exact, true.where, np.arange(len(true) + 1))
        for ours, theirs in match(parts, true).items():
            mean = measured[1.0, 2.0][ours - 1]["celsius_mean"]
            off.append(abs(mean - float(exact[theirs])))
            for how, bar in bars.items():
                bar.append(measured[how][ours - 1]["celsius_error"])
    misses = np.array(off)
    found = [
        {"edge": edge, "accuracy": accuracy,
         "coverage": round(float((misses <= np.array(bar)).mean()), 4),
         "median": round(float(np.median(bar)), 2), "mean": round(float(np.mean(bar)), 2)}
        for (edge, accuracy), bar in bars.items()
    ]  # fmt: skip
    many, seconds = time_many()
    print(f"counts: {agree} of {options.pairs} pairs agree, {objects} objects")
    print(f"temperatures: {len(off)} predicted objects, off by {misses.mean():.2f} K on average, "
          f"{np.median(misses):.2f} K by the median")  # fmt: skip
    for row in found:
        print(
            f"  edge {row['edge']:g} cells, accuracy {row['accuracy']:g}: the error bar holds the "
            f"exact mean of {100 * row['coverage']:.1f} %, {row['median']:.2f} K by the median"
        )
    print(f"speed: {many} objects in {seconds:.2f} s of the processor")
    print(json.dumps({
        "pairs": options.pairs, "model": options.model, "counts_agree": agree, "objects": objects,
        "matched": len(off), "mean_error": round(float(misses.mean()), 3),
        "cell": predictor.cell, "bars": found,
        "many": many, "seconds": round(seconds, 3),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
