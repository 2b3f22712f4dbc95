"""RGB-thermal semantic segmentation; names are imported on first use, so this costs no torch."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sartm.classes import Classes
    from sartm.config import ModelConfig
    from sartm.data.pairs import PairDataset, Sample
    from sartm.data.sets import Pair
    from sartm.errors import InputError
    from sartm.evaluation.scoring import evaluate
    from sartm.fleet.labeller import PairLabeller
    from sartm.inference.clicks import Promptable
    from sartm.inference.prediction import Prediction
    from sartm.inference.predictor import Predictor
    from sartm.model.loading import load
    from sartm.model.sartm import SARTM
    from sartm.training.loop import train
    from sartm.training.settings import TrainConfig

__version__ = "0.1.0"

_HOMES = {
    "Classes": "sartm.classes",
    "InputError": "sartm.errors",
    "ModelConfig": "sartm.config",
    "Pair": "sartm.data.pairs",
    "PairDataset": "sartm.data.pairs",
    "PairLabeller": "sartm.fleet.labeller",
    "Prediction": "sartm.inference.prediction",
    "Predictor": "sartm.inference.predictor",
    "Promptable": "sartm.inference.clicks",
    "SARTM": "sartm.model.sartm",
    "Sample": "sartm.data.pairs",
    "TrainConfig": "sartm.training.settings",
    "evaluate": "sartm.evaluation.scoring",
    "load": "sartm.model.loading",
    "train": "sartm.training.loop",
}

__all__ = [
    "SARTM",
    "Classes",
    "InputError",
    "ModelConfig",
    "Pair",
    "PairDataset",
    "PairLabeller",
    "Prediction",
    "Predictor",
    "Promptable",
    "Sample",
    "TrainConfig",
    "__version__",
    "evaluate",
    "load",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'sartm' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
