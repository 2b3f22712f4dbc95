"""Whether words that were learned from drawn scenes alone hold on real pairs.

    python benchmarks/surfaces.py --model mini-words --data FOLDER [--modality rgb] [--pictures D]

FOLDER holds the data sets that surfaces.txt names. The model is asked for sky, road, pavement,
building and tree; what else it knows is the rest, so that a car taken for a road, or a tree taken
for something that has no word here, is an error too. `mIoU` is of points, not of pixels, with an
interval over resampled pairs. `--pictures` writes overlays to look at. The last line is one JSON
object.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from sartm.evaluation.metrics import ConfusionMatrix, bootstrap, count_pixels, means
from sartm.inference.predictor import Predictor
from sartm.model.loading import load
from sartm.spaces import classes_of_words

POINTS = Path(__file__).with_name("surfaces.txt")
LETTERS = "srpbt"
CLASSES = classes_of_words("sky, road, pavement, building, tree")
ROWS, COLUMNS = np.linspace(0.06, 0.94, 5), np.linspace(0.05, 0.95, 7)


def read_points(path: Path) -> Iterator[tuple[str, str, np.ndarray]]:
    """Data set, name and (5, 7) ids of each pair; what has no certain word is ignored."""
    for line in path.read_text().splitlines():
        if not line.startswith("#"):
            folder, name, *rows = line.split()
            ids = [[LETTERS.find(letter) + 1 or CLASSES.ignore for letter in row] for row in rows]
            yield folder, name, np.array(ids, np.uint8)


def find_image(folder: Path, name: str) -> Path:
    (found,) = folder.glob(f"{name}.*")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="mini-words")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--modality", choices=("both", "rgb", "thermal"), default="both")
    parser.add_argument("--pictures", type=Path)
    given = parser.parse_args()
    predictor = Predictor(load(given.model, classes=CLASSES), device="cpu", precision="fp32")
    counts = []
    for folder, name, truth in read_points(POINTS):
        images = [
            find_image(given.data / folder / kind, name)
            if given.modality in ("both", kind) else None
            for kind in ("rgb", "thermal")
        ]  # fmt: skip
        found = predictor(*images)
        height, width = found.labels.shape
        rows, columns = (ROWS * height).astype(int), (COLUMNS * width).astype(int)
        counts.append(count_pixels(found.labels[np.ix_(rows, columns)], truth, CLASSES))
        if given.pictures:
            given.pictures.mkdir(parents=True, exist_ok=True)
            picture = found.overlay(0.5)[..., ::-1]
            cv2.imwrite(str(given.pictures / f"{folder}-{name}.png"), picture)
    matrix = ConfusionMatrix(len(CLASSES), np.sum(counts, axis=0))
    low, high = bootstrap(np.stack(counts), "present")
    print("named by hand".ljust(16), *(name.rjust(9) for name in CLASSES.names), "      IoU")
    for index, name in enumerate(CLASSES.names[1:], 1):
        row = matrix.counts[index]
        print(name.ljust(16), *(f"{n:9}" for n in row), f"{100 * matrix.iou()[index]:9.1f}")
    result = {
        "mIoU": means(matrix, CLASSES, "present")["present"]["miou"],
        "interval": [round(low, 1), round(high, 1)],
        "accuracy": round(100 * matrix.pixel_accuracy(), 1),
        "points": int(matrix.counts.sum()),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
