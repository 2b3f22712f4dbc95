"""What a step of learning clicks is: objects of one image, clicked on round after round.

The first round looks at the whole image, or into a box; every further one at the window that the
mask before asks for, with one click more where that mask is wrong.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sartm.classes import Classes
from sartm.config import Count, Positive, Range, Share, ThermalRule, check_ranges
from sartm.data.pairs import Sample
from sartm.data.targets import Target, find_targets, inside_click, next_click, noisy_box
from sartm.io.thermal import scale_thermal, thermal_levels
from sartm.model.clicks import ClickDecoder, ClickMaps, Looks, halve, sample_pyramid
from sartm.model.looking import (
    OUTSIDE,
    Array,
    Window,
    paste,
    place_window,
    whole_window,
    window_around,
)
from sartm.training.photometry import vary_rgb, vary_thermal
from sartm.training.settings import AugmentationConfig


@dataclass(frozen=True)
class ClickSettings:
    """How clicks are learned; the weights for classes stay as they are."""

    lr: Positive = 2e-3
    weight_decay: Annotated[float, Range(0)] = 0.02
    steps: Count = 4000
    """Optimizer steps, with a warm-up of 50 and a cosine to 0."""
    images: Annotated[int, Range(1, 64)] = 2
    """Pairs of a step."""
    objects: Annotated[int, Range(1, 64)] = 6
    """Of each pair, at most."""
    rounds: Annotated[int, Range(2, 12)] = 4
    """Looks at each object; from the third on there is one click more in each."""
    smallest: Count = 60
    """Pixels that an object has at least."""
    boxes: Share = 0.15
    """Probability that an object is begun with a box instead of a click."""
    drop: Share = 0.15
    """Probability of leaving out RGB, and of leaving out thermal."""
    focal: Annotated[float, Range(0)] = 20.0
    dice: Annotated[float, Range(0)] = 1.0
    expected: Annotated[float, Range(0)] = 1.0
    """Weight of the error of the expected IoU."""
    ema: Share = 0.995
    """Decay of the running mean of the weights, which is what is kept."""
    validate_every: Count = 500
    checkpoint_every: Count = 100

    def __post_init__(self) -> None:
        check_ranges(self)


_VARIED = AugmentationConfig(
    colour=0.5, darken=0.1, blur=0.1, noise=0.1, thermal=0.5, invert=0.0, dead_columns=0.0
)


@dataclass
class Lesson:
    """One image and the objects on it."""

    rgb: Tensor | None
    """(1, 3, H, W) in [0, 1]."""
    thermal: Tensor | None
    """(1, 1, H, W) in [0, 1]."""
    objects: list[Target]
    ignored: Array
    """(H, W) true where nobody knows."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        height, width = self.ignored.shape
        return height, width


def prepare_lesson(
    sample: Sample,
    classes: Classes,
    rule: ThermalRule,
    settings: ClickSettings,
    draw: np.random.Generator,
    instances: Array | None = None,
) -> Lesson | None:
    """A pair mirrored, resized and varied by chance, with some of its objects; None: it has none.

    Objects are drawn class by class, so that what is rare counts as much.
    """
    label, rgb, thermal = sample.label, sample.rgb, sample.thermal
    assert label is not None
    grey = None
    if thermal is not None:
        levels = thermal_levels(thermal, rule, sample.name, sample.unseen)
        grey = scale_thermal(thermal, levels)
    scale = float(np.exp(draw.uniform(-0.35, 0.35))) if draw.random() < 0.5 else 1.0
    mirrored = draw.random() < 0.5

    def turn(image: Array | None, how: int) -> Array | None:
        if image is None:
            return None
        if scale != 1:
            image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=how)
        return np.ascontiguousarray(image[:, ::-1] if mirrored else image)

    label = turn(label, cv2.INTER_NEAREST)
    assert label is not None
    objects = find_targets(label, classes, settings.smallest, turn(instances, cv2.INTER_NEAREST))
    if not objects:
        return None
    chance = draw.random()
    rgb, grey = turn(rgb, cv2.INTER_AREA), turn(grey, cv2.INTER_AREA)
    both = rgb is not None and grey is not None
    if both and chance < settings.drop:
        rgb = None
    elif both and chance > 1 - settings.drop:
        grey = None
    x = y = None
    if rgb is not None:
        x = torch.from_numpy(vary_rgb(rgb, _VARIED, draw)).permute(2, 0, 1)[None]
    if grey is not None:
        y = torch.from_numpy(vary_thermal(grey, _VARIED, draw))[None, None]
    chosen = _choose(objects, settings.objects, draw)
    return Lesson(x, y, chosen, label == classes.ignore)


def _choose(objects: list[Target], count: int, draw: np.random.Generator) -> list[Target]:
    """Some of the objects, of one class after another."""
    order = [objects[index] for index in draw.permutation(len(objects))]
    queues: dict[int, list[Target]] = {}
    for found in order:
        queues.setdefault(found.class_id, []).append(found)
    chosen: list[Target] = []
    while len(chosen) < count and any(queues.values()):
        for queue in queues.values():
            if queue and len(chosen) < count:
                chosen.append(queue.pop())
    return chosen


class Trial:
    """Objects of an image under clicks."""

    def __init__(
        self,
        lesson: Lesson,
        settings: ClickSettings,
        draw: np.random.Generator,
        device: torch.device,
    ) -> None:
        self.lesson, self.draw, self.device = lesson, draw, device
        count, size = len(lesson.objects), lesson.size
        self.padded = tuple(side + -side % 32 for side in size)
        self.points: list[list[tuple[float, float]]] = [[] for _ in range(count)]
        self.labels: list[list[int]] = [[] for _ in range(count)]
        self.boxes: list[tuple[float, float, float, float] | None] = [None] * count
        self.windows: list[Window] = [whole_window(size)] * count
        self.before = torch.full((count, 1, *self.padded), OUTSIDE, device=device)
        for index, found in enumerate(lesson.objects):
            if draw.random() < settings.boxes:
                self.boxes[index] = noisy_box(found, draw, size)
                self.windows[index] = self._window(index, None)
            else:
                self._click(index, inside_click(found.mask, draw), 1)
        truth = np.stack([found.mask for found in lesson.objects])
        room = [(0, 0), (0, self.padded[0] - size[0]), (0, self.padded[1] - size[1])]
        known = np.pad(~lesson.ignored, room[1:])[None, None]
        self.known = halve(torch.from_numpy(known).to(device).float())
        self.truth = halve(torch.from_numpy(np.pad(truth, room))[:, None].to(device).float())

    def _click(self, index: int, place: tuple[int, int], label: int) -> None:
        self.points[index].append((place[0] + 0.5, place[1] + 0.5))
        self.labels[index].append(label)

    def _window(self, index: int, mask: Array | None) -> Window:
        """Where to look, as somebody would who is not exact."""
        points = np.array(self.points[index]).reshape(-1, 2)
        labels = np.array(self.labels[index])
        x, y, side = window_around(self.lesson.size, mask, points, labels, self.boxes[index])
        shift = self.draw.uniform(-0.1, 0.1, 2) * side
        wider = side * self.draw.uniform(0.85, 1.35)
        x, y = x + side / 2 + shift[0], y + side / 2 + shift[1]
        return place_window(self.lesson.size, x, y, wider)

    def ambiguous(self) -> Tensor:
        """(B,) whether it is one click and nothing else."""
        return torch.tensor([
            len(points) == 1 and box is None
            for points, box in zip(self.points, self.boxes, strict=True)
        ], device=self.device)  # fmt: skip

    def look(self, decoder: ClickDecoder, maps: ClickMaps) -> tuple[Looks, Tensor, Tensor]:
        """One round: masks, what they should be (B, 1, V, V), and which cells count."""
        windows = torch.tensor(self.windows, dtype=torch.float32)
        most = max(1, max(map(len, self.points)))
        points = torch.zeros(len(self.points), most, 2)
        labels = torch.full((len(self.points), most), -1)
        for index, (places, kinds) in enumerate(zip(self.points, self.labels, strict=True)):
            if places:
                points[index, : len(places)] = torch.tensor(places)
                labels[index, : len(places)] = torch.tensor(kinds)
        boxes = torch.tensor([box or (0.0, 0.0, 0.0, 0.0) for box in self.boxes])
        windows, points, labels, boxes = (
            x.to(self.device) for x in (windows, points, labels, boxes)
        )
        looks = decoder(maps, windows, points, labels, self.before, boxes)
        with torch.no_grad():
            wanted = sample_pyramid(self.truth, windows)
            counts = (sample_pyramid(self.known, windows) > 0.5).float()
        return looks, wanted, counts

    def advance(self, logits: Tensor, clicks: bool) -> None:
        """Take masks (B, V, V) over, click where they are wrong, and choose the next windows."""
        height, width = self.lesson.size
        for index, found in enumerate(self.lesson.objects):
            full = paste(logits[index : index + 1].detach(), self.windows[index], self.padded)
            self.before[index] = full
            mask = (full[0] > 0).cpu().numpy()[:height, :width]
            if clicks:
                ignored = self.lesson.ignored if self.lesson.ignored.any() else None
                place = next_click(mask, found.mask, ignored)
                if place is not None:
                    self._click(index, *place)
            self.windows[index] = self._window(index, mask)


def click_loss(
    looks: Looks,
    wanted: Tensor,
    counts: Tensor,
    ambiguous: Tensor,
    settings: ClickSettings,
) -> dict[str, Tensor]:
    """Focal and dice loss of the masks, and the error of the IoU that was expected.

    The first mask answers every prompt; of the other three, which answer ambiguous ones, only the
    best learns its shape.
    """
    logits = looks.logits
    target = wanted.expand_as(logits)
    area = counts.sum((2, 3)).clamp(min=1)
    cross = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    share = logits.sigmoid()
    missed = (share - target).abs()
    focal = (cross * missed.square() * counts).sum((2, 3)) / area
    share, inside = share * counts, target * counts
    both = (share * inside).sum((2, 3))
    dice = 1 - (2 * both + 1) / (share.sum((2, 3)) + inside.sum((2, 3)) + 1)
    shape = settings.focal * focal + settings.dice * dice  # (B, MASKS)
    best = shape[:, 1:].min(1).values
    learned = shape[:, 0] + torch.where(ambiguous, best, torch.zeros_like(best))
    with torch.no_grad():
        mask, truth = (logits > 0) & (counts > 0), (target > 0.5) & (counts > 0)
        true = (mask & truth).sum((2, 3)) / (mask | truth).sum((2, 3)).clamp(min=1)
    off = (looks.scores - true).square()
    expected = off[:, 0] + torch.where(ambiguous, off[:, 1:].mean(1), torch.zeros_like(best))
    total = learned.mean() + settings.expected * expected.mean()
    return {"total": total, "shape": shape[:, 0].mean(), "expected": expected.mean(),
            "iou": true[:, 0].mean()}  # fmt: skip


def teach(
    decoder: ClickDecoder,
    maps: ClickMaps,
    lesson: Lesson,
    settings: ClickSettings,
    draw: np.random.Generator,
) -> list[dict[str, Tensor]]:
    """The losses of all rounds of one image, as terms of `click_loss`."""
    trial = Trial(lesson, settings, draw, maps.features.device)
    terms = []
    for number in range(settings.rounds):
        ambiguous = trial.ambiguous()
        looks, wanted, counts = trial.look(decoder, maps)
        terms.append(click_loss(looks, wanted, counts, ambiguous, settings))
        if number < settings.rounds - 1:
            trial.advance(looks.logits[:, 0], clicks=number > 0)
    return terms


def mean_terms(all_terms: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Each term's mean."""
    return {name: torch.stack([terms[name] for terms in all_terms]).mean() for name in all_terms[0]}
