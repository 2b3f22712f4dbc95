"""`sartm demo`: what thermal adds, shown on drawn scenes that need no download."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from sartm.classes import MFNET
from sartm.colours import display_palette
from sartm.config import Modality
from sartm.data.pairs import Sample
from sartm.evaluation.metrics import ConfusionMatrix, Counts, best_and_worst, count_pixels, means
from sartm.evaluation.report.files import write_report
from sartm.evaluation.report.pictures import draw_pair, encode, tile
from sartm.evaluation.report.scores import build_report
from sartm.files import remove_leftovers, write_atomic
from sartm.inference.prediction import Prediction
from sartm.inference.predictor import Predictor
from sartm.model.loading import load
from sartm.outputs import shared_folder
from sartm.progress import Meter
from sartm.scenes.dataset import SceneOptions, draw_scene

Image = npt.NDArray[np.uint8]

CONDITIONS = ("day", "night", "glare", "fog")
MODALITIES: tuple[Modality, ...] = ("rgb", "thermal", "both")
SCENES = 5
"""Per condition; no training script draws from these seeds."""
FIRST_SEED = 10**9


@dataclass(frozen=True)
class DemoResult:
    """Mean IoU over the classes that occur, in percent, by condition and modality."""

    scores: dict[str, dict[str, float | None]]
    report: Path
    picture: Path


@dataclass(frozen=True)
class _Scene:
    """One drawn pair with what the model made of it."""

    sample: Sample
    seen: dict[Modality, Prediction]
    counts: dict[Modality, Counts]


def run_demo(out: Path, *, model: str = "mini", device: str = "auto") -> DemoResult:
    """Draw scenes, label them with each modality alone and with both, write report and pictures.

    Writes report.html, report.md, report.json, scenes.jpg and pairs/<condition>-<n>.jpg into `out`.

    Raises:
        InputError: the model has other classes than the scenes, or `out` cannot be written.
    """
    predictor = Predictor(load(model), device=device)
    predictor.classes.require_same(MFNET)
    with shared_folder(out):
        remove_leftovers(out / "pairs")
        scenes = []
        with Meter("demo", len(CONDITIONS) * SCENES) as meter:
            for condition in CONDITIONS:
                for number in range(SCENES):
                    scene = _label_scene(predictor, condition, number)
                    _write_picture(out / "pairs" / f"{scene.sample.name}.jpg", _strip(scene))
                    scenes.append(scene)
                    meter.advance()
        picture = out / "scenes.jpg"
        _write_picture(picture, _sheet(scenes))
        scores = _scores(scenes)
        _write_report(out, model, scenes, scores)
    return DemoResult(scores, out / "report.html", picture)


def _label_scene(predictor: Predictor, condition: str, number: int) -> _Scene:
    seed = FIRST_SEED + 100 * CONDITIONS.index(condition) + number
    drawn = draw_scene(seed, SceneOptions(condition=condition))
    sample = Sample(f"{condition}-{number + 1}", drawn.rgb, drawn.thermal, drawn.label)
    seen = {modality: predictor.predict(sample, modality) for modality in MODALITIES}
    counts = {
        modality: count_pixels(prediction.labels, drawn.label, MFNET)
        for modality, prediction in seen.items()
    }
    return _Scene(sample, seen, counts)


def _write_report(
    out: Path, model: str, scenes: list[_Scene], scores: dict[str, dict[str, float | None]]
) -> None:
    counts = np.stack([scene.counts["both"] for scene in scenes])
    report = build_report(
        counts,
        MFNET,
        split="drawn",
        modality="both",
        label_sizes=[scenes[0].sample.size],
        model=model,
        data="synthetic scenes",
        command=f"sartm demo --model {model}",
        subsets=_parts(),
        robustness=[
            {"condition": f"{_SHOWN[modality]}, {part}", "severity": None, "miou": value}
            for part, row in scores.items()
            for modality, value in row.items()
        ],
    )
    best, worst = best_and_worst(counts)
    groups: list[tuple[Literal["best", "worst"], list[int]]] = [("best", best), ("worst", worst)]
    pictures = []
    for group, chosen in groups:
        for index in chosen:
            sample, labels = scenes[index].sample, scenes[index].seen["both"].labels
            assert sample.label is not None
            pictures.append(
                draw_pair(
                    sample.name, group, sample.label, labels, MFNET, sample.rgb, sample.thermal
                )
            )
    write_report(report, out, pictures, palette=display_palette(MFNET))


_SHOWN = {"rgb": "RGB only", "thermal": "thermal only", "both": "both"}


def _parts() -> dict[str, list[int]]:
    """Positions of the scenes of every condition."""
    return {
        condition: list(range(SCENES * index, SCENES * (index + 1)))
        for index, condition in enumerate(CONDITIONS)
    }


def _scores(scenes: list[_Scene]) -> dict[str, dict[str, float | None]]:
    """`present` mean IoU in percent per condition and over all scenes."""
    scores: dict[str, dict[str, float | None]] = {}
    for part, chosen in (_parts() | {"all": list(range(len(scenes)))}).items():
        scores[part] = {}
        for modality in MODALITIES:
            counts = sum(scenes[index].counts[modality] for index in chosen)
            matrix = ConfusionMatrix(len(MFNET), np.asarray(counts))
            scores[part][modality] = means(matrix, MFNET, "present")["present"]["miou"]
    return scores


def _strip(scene: _Scene) -> Image:
    """RGB, thermal, and the overlays from RGB only, thermal only and both, side by side."""
    overlays = (scene.seen[modality].overlay(0.6) for modality in MODALITIES)
    images = (scene.sample.rgb, scene.sample.thermal, *overlays)
    return np.hstack([tile(image, (320, 240)) for image in images])


def _sheet(scenes: list[_Scene]) -> Image:
    """Strips with titles: of every condition the scene with the most to see of persons."""
    person = MFNET.names.index("person")
    rows = []
    for condition, chosen in _parts().items():
        busiest = max(chosen, key=lambda index: np.count_nonzero(_truth(scenes[index]) == person))
        rows.append((condition, _strip(scenes[busiest])))
    width = rows[0][1].shape[1]
    head = np.full((28, width, 3), 255, np.uint8)
    titles = ("RGB", "thermal", *(f"from {_SHOWN[modality]}" for modality in MODALITIES))
    for index, title in enumerate(titles):
        at = (index * width // len(titles) + 8, 20)
        cv2.putText(head, title, at, cv2.FONT_HERSHEY_SIMPLEX, 0.55, (40, 40, 40), 1, cv2.LINE_AA)
    for condition, strip in rows:
        for colour, thick in (((0, 0, 0), 3), ((255, 255, 255), 1)):
            cv2.putText(
                strip, condition, (8, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.55, colour, thick,
                cv2.LINE_AA,
            )  # fmt: skip
    return np.vstack([head, *(strip for _, strip in rows)])


def _truth(scene: _Scene) -> Image:
    assert scene.sample.label is not None
    return np.asarray(scene.sample.label, np.uint8)


def _write_picture(path: Path, image: Image) -> None:
    write_atomic(path, encode(image, "jpeg", 90))
