"""How good masks are after one, two, three ... clicks that a simulated annotator makes."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from sartm.config import Modality
from sartm.data.pairs import PairDataset, Sample
from sartm.data.targets import Target, find_targets, iou, middle, next_click
from sartm.errors import InputError
from sartm.evaluation.report.clicks import ClickGain, ClickReport, ClickRow
from sartm.evaluation.report.scores import versions
from sartm.inference.clicks import Promptable, Scene
from sartm.io.thermal import scale_thermal
from sartm.progress import Meter

Array = npt.NDArray[Any]
Truth = npt.NDArray[np.bool_]
Bytes = npt.NDArray[np.uint8]

SMALLEST = 200
"""Pixels of the objects that count."""
MOST = 20
"""Clicks after which an annotator gives up."""
GOOD = 0.8
"""IoU that is good enough."""
COMPARED = 40
"""Objects that flood fill and GrabCut are tried on, evenly from all: GrabCut takes seconds each."""
_DRAWS = 1000
_TOLERANCE = 12
"""Of 255: how far a pixel may be from the next one for a flood to go on."""


class Clicker(Protocol):
    """Makes a mask of the clicks so far."""

    def __call__(self, points: list[tuple[int, int]], labels: list[int]) -> Truth:
        """(H, W) true and false."""


def click_through(
    clicker: Clicker, truth: Truth, ignored: Truth | None = None, most: int = 5
) -> Iterator[float]:
    """The IoU after each click.

    The first click is the middle of the object, each further one the middle of the largest error.
    Where there is none left the last IoU stands.
    """
    points, labels = [middle(truth)[0]], [1]
    mask = clicker(points, labels)
    for number in range(most):
        yield iou(mask, truth, ignored)
        if number == most - 1:
            return
        click = next_click(mask, truth, ignored)
        if click is not None:
            points.append(click[0])
            labels.append(click[1])
            mask = clicker(points, labels)


class ModelClicker:
    """A model as a `Clicker`, each mask being the start of the next."""

    def __init__(self, prompt: Promptable, scene: Scene) -> None:
        self.prompt, self.scene = prompt, scene
        self.before: Array | None = None
        self.seconds: list[float] = []
        """Of every click."""

    def __call__(self, points: list[tuple[int, int]], labels: list[int]) -> Truth:
        """The model's best mask."""
        before = None if len(points) == 1 else self.before
        begun = time.perf_counter()
        found = self.prompt.mask(self.scene, points, labels, mask_input=before)
        self.seconds.append(time.perf_counter() - begun)
        self.before = found.logits
        return found.mask


class FloodFill:
    """What grows from the clicks over pixels that differ little from their neighbours."""

    def __init__(self, image: Bytes) -> None:
        self.image = image

    def __call__(self, points: list[tuple[int, int]], labels: list[int]) -> Truth:
        """All that was flooded from adding clicks and not from the others."""
        height, width = self.image.shape[:2]
        found = np.zeros((height, width), bool)
        for kind in (1, 0):
            for place, label in zip(points, labels, strict=True):
                if label != kind:
                    continue
                flooded = np.zeros((height + 2, width + 2), np.uint8)
                off = (_TOLERANCE,) * 3
                cv2.floodFill(
                    self.image, flooded, place, 0, off, off, 4 | cv2.FLOODFILL_MASK_ONLY | 255 << 8
                )
                found[flooded[1:-1, 1:-1] > 0] = kind == 1
        return found


class GrabCut:
    """OpenCV's GrabCut at half the size: discs at clicks are certain, what is near one likely."""

    def __init__(self, image: Bytes) -> None:
        self.size = image.shape[1], image.shape[0]
        self.image = cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)

    def __call__(self, points: list[tuple[int, int]], labels: list[int]) -> Truth:
        """What GrabCut takes for the object after three rounds."""
        mask = np.full(self.image.shape[:2], cv2.GC_PR_BGD, np.uint8)
        for radius, kinds in ((30, {1: cv2.GC_PR_FGD}), (3, {1: cv2.GC_FGD, 0: cv2.GC_BGD})):
            for (x, y), label in zip(points, labels, strict=True):
                if label in kinds:
                    cv2.circle(mask, (x // 2, y // 2), radius, int(kinds[label]), -1)
        models = np.zeros((1, 65)), np.zeros((1, 65))
        with suppress(cv2.error):  # too few pixels of one kind to learn from
            cv2.grabCut(self.image, mask, (0, 0, 1, 1), *models, 3, cv2.GC_INIT_WITH_MASK)
        found = np.isin(mask, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.uint8)
        full = cv2.resize(found, self.size, interpolation=cv2.INTER_NEAREST)
        return np.asarray(full > 0)


def as_picture(sample: Sample) -> Bytes:
    """(H, W, 3) that shows both cameras to methods that know three channels: thermal in the place
    of red."""
    thermal = sample.thermal
    grey = None
    if thermal is not None:
        low, high = np.percentile(thermal, (1, 99))
        grey = (255 * scale_thermal(thermal, (float(low), float(high)))).astype(np.uint8)
    if sample.rgb is None:
        assert grey is not None
        return np.ascontiguousarray(np.broadcast_to(grey[..., None], (*grey.shape, 3)))
    picture = np.array(sample.rgb)
    if grey is not None:
        picture[..., 0] = grey
    return picture


@dataclass
class _Found:
    """What one way of clicking came to, object by object."""

    ious: list[list[float]] = field(default_factory=list)
    """After each click."""
    clicks: list[int] = field(default_factory=list)
    """To a good mask, `MOST` where there was none by then."""
    good: list[bool] = field(default_factory=list)
    pairs: list[int] = field(default_factory=list)
    classes: list[int] = field(default_factory=list)

    def add(
        self, clicker: Clicker, thing: Target, ignored: Truth, pair: int, clicks: int, most: int
    ) -> None:
        """Click until the object is good, and at least `clicks` times."""
        found: list[float] = []
        for value in click_through(clicker, thing.mask, ignored, max(most, clicks)):
            found.append(value)
            if len(found) >= clicks and max(found) >= GOOD:
                break
        reached = next((number for number, value in enumerate(found, 1) if value >= GOOD), None)
        self.ious.append(found[:clicks])
        self.clicks.append(most if reached is None else reached)
        self.good.append(reached is not None)
        self.pairs.append(pair)
        self.classes.append(thing.class_id)

    def row(self, method: str, part: str, chosen: npt.NDArray[np.bool_]) -> ClickRow | None:
        """Means over the chosen objects, with intervals over pairs."""
        if not chosen.any():
            return None
        ious = 100 * np.array(self.ious)[chosen]
        means = np.array(list(_draw_means(ious, np.array(self.pairs)[chosen])))
        low, high = np.percentile(means, (2.5, 97.5), axis=0)
        reached = np.array(self.good)[chosen]
        return ClickRow(
            method=method,
            part=part,
            objects=len(ious),
            iou=tuple(_round(ious.mean(0))),
            low=tuple(_round(low)),
            high=tuple(_round(high)),
            clicks=round(float(np.array(self.clicks)[chosen].mean()), 2),
            good=round(100 * float(reached.mean()), 2),
        )


def _round(values: Array) -> list[float]:
    return [round(float(value), 2) for value in values]


def _draw_means(values: Array, pairs: Array) -> Iterator[Array]:
    """Means over objects (N, ...) where pairs are drawn again, the first draw being all of them."""
    names, which = np.unique(pairs, return_inverse=True)
    sums = np.zeros((len(names), *values.shape[1:]))
    np.add.at(sums, which, values)
    counts = np.bincount(which)
    draw = np.random.default_rng(0)
    for _ in range(_DRAWS if len(names) > 1 else 1):
        chosen = draw.integers(0, len(names), len(names)) if len(names) > 1 else [0]
        yield sums[chosen].sum(0) / counts[chosen].sum()


def measure_clicks(
    prompt: Promptable,
    dataset: PairDataset,
    *,
    clicks: int = 5,
    modality: Modality = "both",
    most: int = MOST,
    compared: int = COMPARED,
    model: str = "",
    command: str = "",
) -> ClickReport:
    """Click through every labelled object of a split.

    Args:
        prompt: the model.
        dataset: labelled pairs.
        clicks: after how many the IoU is told.
        modality: what the model sees; `both`: either camera alone as well.
        most: clicks after which an object is given up.
        compared: objects that flood fill and GrabCut are tried on; 0: none.
        model: its name, for the report.
        command: what the user typed.

    Raises:
        InputError: no object is large enough, a pair has no label or lacks the modality.
    """
    wanted: tuple[Modality, ...] = (modality,)
    if modality == "both":
        wanted = ("both", "rgb", "thermal")
    found: dict[str, _Found] = {name: _Found() for name in wanted}
    encoding: list[float] = []
    clicking: list[float] = []
    with Meter("clicks", len(dataset)) as meter:
        for pair, sample, objects in _labelled(dataset):
            ignored = np.asarray(sample.label == dataset.classes.ignore)
            for seen in wanted:
                begun = time.perf_counter()
                scene = prompt.encode_sample(sample, seen)
                encoding.append(time.perf_counter() - begun)
                for thing in objects:
                    clicker = ModelClicker(prompt, scene)
                    found[seen].add(clicker, thing, ignored, pair, clicks, most)
                    clicking += clicker.seconds[1:]
            meter.advance()
    total = len(found[wanted[0]].ious)
    if not total:
        raise InputError(
            f"no object of {SMALLEST} pixels or more in split {dataset.split!r} of {dataset.name}; "
            f"name another one with --split"
        )
    rows = [
        row
        for name, what in found.items()
        for row in _rows(name, what, dataset)
    ]  # fmt: skip
    gains = _gains(found, dataset) if modality == "both" else []
    if compared:
        rows += _compare(dataset, clicks, most, max(1, total // compared))
    return ClickReport(
        split=dataset.split,
        data=dataset.name,
        model=model,
        pairs=len(dataset),
        objects=total,
        smallest=SMALLEST,
        rows=tuple(rows),
        gains=tuple(gains),
        encode_ms=round(1000 * float(np.median(encoding)), 1),
        click_ms=round(1000 * float(np.median(clicking)), 1) if clicking else None,
        command=command,
        versions=versions(),
    )


def _labelled(dataset: PairDataset) -> Iterator[tuple[int, Sample, list[Target]]]:
    """Pairs with objects that count."""
    for index in range(len(dataset)):
        sample = dataset[index]
        if sample.label is None:
            raise InputError(f"pair {sample.name!r} has no label; clicks are made on labelled ones")
        objects = find_targets(sample.label, dataset.classes, SMALLEST)
        if objects:
            yield index, sample, objects


def _rows(method: str, found: _Found, dataset: PairDataset) -> list[ClickRow]:
    """Of all objects, of each subset, and of each class."""
    classes = np.array(found.classes)
    parts: dict[str, npt.NDArray[np.bool_]] = {"all": np.ones(len(classes), bool)}
    for subset, inside in _subsets(found, dataset).items():
        parts[subset] = inside
    for class_id in np.unique(classes).tolist():
        parts[f"class {dataset.classes.names[class_id]}"] = classes == class_id
    rows = [found.row(method, part, chosen) for part, chosen in parts.items()]
    return [row for row in rows if row is not None]


def _subsets(found: _Found, dataset: PairDataset) -> dict[str, npt.NDArray[np.bool_]]:
    names = [dataset.subset_of(dataset.pairs[index].name) for index in found.pairs]
    return {subset: np.array([subset in of for of in names]) for subset in dataset.subsets}


def _gains(found: dict[str, _Found], dataset: PairDataset) -> list[ClickGain]:
    """What both cameras add to the better one of the two, in points, paired."""
    both = found["both"]
    parts = {"all": np.ones(len(both.ious), bool)} | _subsets(both, dataset)
    gains = []
    for part, chosen in parts.items():
        if not chosen.any():
            continue
        pairs = np.array(both.pairs)[chosen]
        means = {name: np.mean(np.array(found[name].ious)[chosen]) for name in ("rgb", "thermal")}
        better = max(means, key=lambda name: float(means[name]))
        more = 100 * (np.array(both.ious) - np.array(found[better].ious))[chosen]
        drawn = np.array(list(_draw_means(more, pairs)))
        low, high = np.percentile(drawn, (2.5, 97.5), axis=0)
        for number in range(more.shape[1]):
            gains.append(
                ClickGain(
                    part,
                    better,
                    number + 1,
                    *_round(np.array([more[:, number].mean(), low[number], high[number]])),
                )
            )
    return gains


def _compare(dataset: PairDataset, clicks: int, most: int, step: int) -> list[ClickRow]:
    """Flood fill and GrabCut from the same clicks, on every so manieth object."""
    methods: dict[str, Callable[[Bytes], Clicker]] = {"flood fill": FloodFill, "GrabCut": GrabCut}
    found = {name: _Found() for name in methods}
    number = 0
    with Meter("for scale", len(dataset)) as meter:
        for pair, sample, objects in _labelled(dataset):
            ignored = np.asarray(sample.label == dataset.classes.ignore)
            picture = as_picture(sample)
            for thing in objects:
                number += 1
                if number % step:
                    continue
                for name, make in methods.items():
                    found[name].add(make(picture), thing, ignored, pair, clicks, clicks)
            meter.advance()
    rows: Sequence[ClickRow | None] = [
        what.row(name, "all", np.ones(len(what.ious), bool)) for name, what in found.items()
    ]
    return [row for row in rows if row is not None]
