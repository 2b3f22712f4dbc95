"""A label map with what is needed to look at it and judge it."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sartm.classes import Classes
from sartm.config import Calibration
from sartm.inference.confidence import confidence_of
from sartm.inference.overlays import ROWS, draw_overlay
from sartm.inference.tiles import resize_strips
from sartm.inference.trust import enlarge, summarise_trust
from sartm.io.thermal import Levels

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Prediction:
    """A label map with what is needed to look at it and judge it."""

    labels: Array
    """(H, W) class ids, uint8 (uint16 beyond 256 classes)."""
    classes: Classes
    logits: Tensor | None = field(repr=False)
    """(K, h/4, w/4) on the CPU, of the padded input; None when it was labelled in tiles."""
    image: Array = field(repr=False)
    """(H, W, 3) uint8, what overlays are drawn on: RGB, or thermal in grey."""
    coarse: npt.NDArray[np.float16] | None = field(default=None, repr=False)
    """(H/4, W/4) confidence of an image that was labelled in tiles."""
    levels: Levels | None = None
    """The raw thermal values that became 0 and 1; None: thermal was not looked at."""
    calibration: Calibration = field(default=Calibration(), repr=False)
    """The model's, for the images it saw."""
    weighed: Tensor | None = field(default=None, repr=False)
    """(h/4, w/4) which camera it rests on, of the padded input; None where nobody asked."""
    cell: float = 4.0
    """Pixels from one logit of the network to the next: outlines are right to about that."""

    @cached_property
    def confidence(self) -> npt.NDArray[np.float16]:
        """(H, W) probability that the label is right, as far as the model was calibrated.

        Of tiles: resized from stride 4.
        """
        height, width = self.labels.shape
        out = np.empty((height, width), np.float16)
        if self.logits is None:
            assert self.coarse is not None
            rows = [torch.from_numpy(self.coarse)[None].float()]
            for top, strip in resize_strips(rows, (height, width)):
                out[top : top + strip.shape[1]] = strip[0].numpy()
            return out
        for top, strip in resize_strips([self.logits], (height, width)):
            out[top : top + strip.shape[1]] = self._judge(strip).numpy()
        return out

    @cached_property
    def trust(self) -> npt.NDArray[np.float16] | None:
        """(H, W) from -1, the label rests on RGB alone, to 1, on thermal alone; see `trust`.

        None unless it was asked for, and where a camera is missing or tiles were labelled.
        """
        if self.weighed is None:
            return None
        height, width = self.labels.shape
        return enlarge(self.weighed, (height, width))

    def _at_stride_4(self) -> npt.NDArray[Any]:
        """(ceil(H / 4), ceil(W / 4)) confidence, without the padding."""
        if self.coarse is not None:
            return self.coarse
        assert self.logits is not None
        height, width = (-(-side // 4) for side in self.labels.shape)
        return np.asarray(self._judge(self.logits[:, :height, :width]).numpy())

    def _judge(self, logits: Tensor) -> Tensor:
        return confidence_of(logits, self.calibration, self.classes.rest)

    def overlay(
        self, opacity: float = 0.5, out: npt.NDArray[np.uint8] | None = None
    ) -> npt.NDArray[np.uint8]:
        """(H, W, 3) the image with outlined classes in display colours; a leftover stays clear.

        It is drawn into `out`, which may be the image itself, or into a new array.
        """
        return draw_overlay(self.image, self.labels, self.classes, opacity, out)

    def summary(self) -> dict[str, Any]:
        """Size, share of every class that occurs, mean confidence (at stride 4) and trust."""
        counts = np.zeros(len(self.classes), np.int64)
        for top in range(0, len(self.labels), ROWS):
            rows = self.labels[top : top + ROWS].ravel()
            counts += np.bincount(rows, minlength=len(self.classes))
        shares = {
            name: round(int(count) / self.labels.size, 6)
            for name, count in zip(self.classes.names, counts, strict=True)
            if count
        }
        confidence = float(self._at_stride_4().mean(dtype=np.float64))
        found: dict[str, Any] = {
            "size": list(self.labels.shape),
            "shares": shares,
            "confidence": round(confidence, 4),
        }
        if self.trust is not None:
            found["trust"] = summarise_trust(self.trust, self.labels, self.classes)
        return found
