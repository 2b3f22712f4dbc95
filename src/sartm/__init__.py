"""RGB-thermal semantic segmentation; names are imported on first use, so this costs no torch."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sartm.data.classes import Classes
    from sartm.data.pairs import Pair, PairDataset, Sample
    from sartm.model.checkpoint import load

__version__ = "0.1.0"

_HOMES = {
    "Classes": "sartm.data.classes",
    "InputError": "sartm.errors",
    "Pair": "sartm.data.pairs",
    "PairDataset": "sartm.data.pairs",
    "Sample": "sartm.data.pairs",
    "load": "sartm.model.checkpoint",
}

__all__ = ["Classes", "InputError", "Pair", "PairDataset", "Sample", "__version__", "load"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'sartm' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
