"""From logits to the probability that a label is right.

    p       soft-max probability of the label, the largest of all
    odds    log p / (1 - p) / temperature + bias, of objects and of background apart
    c       1 / (1 + exp(-odds)), the confidence

Logits never change, so neither do labels. How temperature and bias are found:
evaluation.calibration.
"""

from torch import Tensor

from sartm.config import Calibration, Scaling

_LEAST = 1e-9
"""Of the odds against a label: float32 resolves no less of what is left of 1."""


def log_odds(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Of (K, ...) logits the largest class, and log p / (1 - p) of its soft-max probability."""
    largest, labels = logits.max(0)
    against = ((logits - largest).exp().sum(0) - 1).clamp_min(_LEAST)  # (1 - p) / p
    return labels, -against.log()


def confidence_of(
    logits: Tensor, calibration: Calibration = Calibration(), rest: int | None = None
) -> Tensor:
    """Calibrated probability of the largest of (K, ...) logits.

    Args:
        logits: of any shape after the classes.
        calibration: the model's, for what it saw.
        rest: the class that is the leftover of the others: background; None: there is none.
    """
    labels, odds = log_odds(logits)
    objects = _scale(odds, calibration.objects)
    if rest is not None and calibration.background != calibration.objects:
        objects = objects.where(labels != rest, _scale(odds, calibration.background))
    return objects.sigmoid()


def _scale(odds: Tensor, scaling: Scaling) -> Tensor:
    return odds if scaling == Scaling() else odds / scaling.temperature + scaling.bias
