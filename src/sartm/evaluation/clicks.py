"""How good masks are after one, two, three ... clicks that a simulated annotator makes."""

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from sartm.data.objects import iou, middle, next_click
from sartm.inference.clicks import Promptable, Scene

Array = npt.NDArray[Any]
Truth = npt.NDArray[np.bool_]


class Clicker(Protocol):
    """Makes a mask of the clicks so far, and of its own mask before."""

    def __call__(self, points: list[tuple[int, int]], labels: list[int]) -> Truth:
        """(H, W) true and false."""


def click_through(
    clicker: Clicker, truth: Truth, ignored: Truth | None = None, most: int = 5
) -> Iterator[float]:
    """The IoU after each click, the best so far being kept by nobody: what is there counts.

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

    def __call__(self, points: list[tuple[int, int]], labels: list[int]) -> Truth:
        """The model's best mask."""
        before = None if len(points) == 1 else self.before
        found = self.prompt.mask(self.scene, points, labels, mask_input=before)
        self.before = found.logits
        return found.mask
