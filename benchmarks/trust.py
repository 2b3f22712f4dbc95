"""How well trust tells which camera is right where they differ, and what it costs.

    python benchmarks/trust.py --model mini --data DATA [--data DATA]... [--split val] [--every N]

Under every condition of evaluation/conditions.py that leaves both cameras: pixels that RGB alone
labels wrongly and thermal alone rightly, against the reverse; AUROC of the trust map. A map that
knows nothing has 0.5. Beside it the mean of trust on objects, which should rise where RGB is
damaged and fall where thermal is. The last line is one JSON object.
"""

import argparse
import json
import time

import numpy as np

from sartm.data.pairs import PairDataset, Sample
from sartm.evaluation.conditions import CONDITIONS, degrade
from sartm.inference.predictor import Predictor
from sartm.model.loading import load

STEP = 4
"""Of the pixels that are looked at, both ways."""


def area_under_curve(high: np.ndarray, low: np.ndarray) -> float:
    """Chance that a value of the first lies above one of the second."""
    if not len(high) or not len(low):
        return float("nan")
    ordered = np.sort(low)
    below = np.searchsorted(ordered, high, "left") + np.searchsorted(ordered, high, "right")
    return float(below.mean() / 2 / len(low))


def look(predictor: Predictor, sample: Sample) -> tuple[np.ndarray, np.ndarray, float]:
    """Trust where thermal alone is right, where RGB alone is, and its mean on objects."""
    found = predictor.predict(sample, trust=True)
    assert found.trust is not None
    assert sample.label is not None
    some = (slice(None, None, STEP), slice(None, None, STEP))
    truth, trust = sample.label[some], found.trust[some].astype(np.float32)
    rgb, thermal = (predictor.predict(sample, one).labels[some] for one in ("rgb", "thermal"))
    known = truth != predictor.classes.ignore
    objects = known & ((truth > 0) | (found.labels[some] > 0))
    mean = float(trust[objects].mean()) if objects.any() else float("nan")
    thermal_right = known & (rgb != truth) & (thermal == truth)
    rgb_right = known & (rgb == truth) & (thermal != truth)
    return trust[thermal_right], trust[rgb_right], mean


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="mini")
    parser.add_argument("--data", action="append", required=True)
    parser.add_argument("--split", default="val")
    parser.add_argument("--every", type=int, default=1, help="only each N-th pair")
    parser.add_argument("--severity", type=int, default=3, help="of the conditions that have some")
    arguments = parser.parse_args()
    predictor = Predictor(load(arguments.model), device="cpu")
    samples = []
    for data in arguments.data:
        dataset = PairDataset.open(data, arguments.split)
        samples += [dataset[index] for index in range(0, len(dataset), arguments.every)]
    both, apart = [], []
    for sample in samples[:8]:
        begun = time.process_time()
        predictor.predict(sample)
        between = time.process_time()
        predictor.predict(sample, trust=True)
        both.append(between - begun)
        apart.append(time.process_time() - between)
    figures: dict[str, dict[str, float]] = {}
    pooled: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    print(f"{'condition':22} {'AUROC':>6} {'thermal right':>14} {'RGB right':>10} {'mean':>7}")
    for name, condition in {"clean": None, **CONDITIONS}.items():
        if name.endswith("missing"):
            continue
        found = []
        for sample in samples:
            changed = sample
            if condition is not None:
                step = min(arguments.severity, len(condition.strengths)) - 1
                changed = degrade(sample, condition, condition.strengths[step])
            found.append(look(predictor, changed))
        thermal, rgb = (np.concatenate([one[side] for one in found]) for side in (0, 1))
        pooled[0].append(thermal)
        pooled[1].append(rgb)
        mean = float(np.nanmean([one[2] for one in found]))
        score = area_under_curve(thermal, rgb)
        figures[name] = {"auroc": score, "mean": mean, "pixels": len(thermal) + len(rgb)}
        print(f"{name:22} {score:6.3f} {len(thermal):14,} {len(rgb):10,} {mean:+7.3f}", flush=True)
    total = area_under_curve(*(np.concatenate(side) for side in pooled))
    middle = float(np.nanmean([row["auroc"] for row in figures.values()]))
    cost = float(np.median(apart) / np.median(both))
    print(f"\npooled {total:.3f}, mean over conditions {middle:.3f}; takes {cost:.2f} of the time")
    content = {"pooled": total, "mean": middle, "time": cost, "conditions": figures}
    print(json.dumps(content, default=float))


if __name__ == "__main__":
    main()
