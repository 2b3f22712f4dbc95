"""RGB-thermal semantic segmentation; names are imported on first use, so this costs no torch."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sartm.config import ModelConfig
    from sartm.data.classes import Classes
    from sartm.data.pairs import Pair, PairDataset, Sample
    from sartm.errors import InputError
    from sartm.evaluation import evaluate
    from sartm.inference import Prediction, Predictor
    from sartm.model.checkpoint import load
    from sartm.model.sartm import SARTM
    from sartm.recipes import TrainConfig
    from sartm.training import train

__version__ = "0.1.0"

_HOMES = {
    "Classes": "sartm.data.classes",
    "InputError": "sartm.errors",
    "ModelConfig": "sartm.config",
    "Pair": "sartm.data.pairs",
    "PairDataset": "sartm.data.pairs",
    "Prediction": "sartm.inference",
    "Predictor": "sartm.inference",
    "SARTM": "sartm.model.sartm",
    "Sample": "sartm.data.pairs",
    "TrainConfig": "sartm.recipes",
    "evaluate": "sartm.evaluation",
    "load": "sartm.model.checkpoint",
    "train": "sartm.training",
}

__all__ = [
    "SARTM",
    "Classes",
    "InputError",
    "ModelConfig",
    "Pair",
    "PairDataset",
    "Prediction",
    "Predictor",
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
