"""Which camera a label rests on: from -1, RGB alone, over 0, either would do, to 1, thermal alone.

    trust(x) = p_thermal(label(x)) - p_rgb(label(x))

p_rgb and p_thermal are the soft-max probabilities, at the temperatures of the model's calibration,
that the auxiliary head gives when it reads the maps of one camera alone (`SARTM.predict_apart`):
above 0 the label would lose more without thermal, below 0 more without RGB. How well that tells
which camera is right where they differ: benchmarks/trust.py.
"""

import numpy as np
import numpy.typing as npt
from torch import Tensor

from sartm.classes import Classes
from sartm.config import Calibrations
from sartm.inference.tiles import resize_strips


def weigh_cameras(logits: Tensor, apart: Tensor, calibration: Calibrations) -> Tensor:
    """(h, w) trust at the stride of the logits.

    Args:
        logits: (K, h, w) of both cameras.
        apart: (2 K, h, w), of RGB alone and of thermal alone.
        calibration: the model's.
    """
    labels = logits.argmax(0, keepdim=True)
    rgb, thermal = (
        (alone / known.objects.temperature).softmax(0).gather(0, labels)[0]
        for alone, known in zip(apart.chunk(2), (calibration.rgb, calibration.thermal), strict=True)
    )
    return thermal - rgb


def enlarge(trust: Tensor, size: tuple[int, int]) -> npt.NDArray[np.float16]:
    """A map at stride 4 to (H, W) pixels."""
    out = np.empty(size, np.float16)
    for top, strip in resize_strips([trust[None]], size):
        out[top : top + strip.shape[1]] = strip[0].numpy()
    return out


def summarise_trust(
    trust: npt.NDArray[np.float16], labels: npt.NDArray[np.integer], classes: Classes
) -> dict[str, float | None]:
    """Mean over all pixels, and over those labelled as objects (None: there are none)."""
    objects = trust if classes.rest is None else trust[labels != classes.rest]
    found = None if not objects.size else round(float(objects.mean(dtype=np.float64)), 4)
    return {"mean": round(float(trust.mean(dtype=np.float64)), 4), "objects": found}
