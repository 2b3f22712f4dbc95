"""PyAV, which decodes and writes films: an extra, imported where it is needed."""

from fractions import Fraction
from typing import Any

from sartm.errors import InputError

RATE = Fraction(25)
"""Frames per second where nothing says better."""


def import_av() -> Any:
    """PyAV; InputError where it is not installed."""
    try:
        import av
    except ModuleNotFoundError:
        raise InputError(
            "video needs PyAV, which is not installed: pip install 'sartm[video]'"
        ) from None
    av.logging.set_level(None)  # damage is counted and described by us
    return av
