"""Golden vectors of the authors' code, where the folder `shared` lies beside the checkout."""

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

FOLDER = Path(__file__).resolve().parents[2] / "shared" / "golden"
needed = pytest.mark.skipif(not FOLDER.is_dir(), reason="no folder shared/golden beside it")


def recipe() -> Any:
    """The module that fills weights and inputs from names and shapes."""
    spec = importlib.util.spec_from_file_location("fill_weights", FOLDER / "fill_weights.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def listing(name: str) -> Any:
    if not FOLDER.is_dir():  # asked for by a fixture, which no mark of a test skips
        pytest.skip("no folder shared/golden beside it")
    return json.loads((FOLDER / name).read_text())


def filled(shapes: dict[str, Any], skip: tuple[str, ...], lora_b: bool = True) -> dict[str, Tensor]:
    """The golden state dict; what starts with `skip` is zeros, which are quicker to make."""
    fill = recipe().fill
    return {
        key: torch.zeros(entry["shape"])
        if key.startswith(skip)
        else torch.from_numpy(np.asarray(fill(key, entry["shape"], lora_b)))
        for key, entry in shapes.items()
    }


def released_name(key: str) -> str:
    """The released model's name for a name of Meta's: it decides the golden value."""
    return "sam." + re.sub(r"(blocks\.\d+\.attn\.qkv)\.", r"\1.qkv.", key)


def inputs() -> tuple[Tensor, Tensor]:
    """RGB and thermal, (1, 3, 256, 256) each, normalised already."""
    make = recipe().make_input
    return tuple(torch.from_numpy(make(name, (1, 3, 256, 256))) for name in ("rgb", "thermal"))  # type: ignore[return-value]


def taken(name: str, value: Tensor) -> Tensor:
    """The sub-sample that is stored of an array `lora/...` or `nolora/...`."""
    group, array = name.split("/")
    text = listing("golden_tiny_256_stats.json")[group]["taken"][array]
    if text == "[...]":
        return value
    starts = [tuple(map(int, part)) for part in re.findall(r"(\d+)::(\d+)", text)]
    return value[(..., *(slice(start, None, step) for start, step in starts))]


def stored(name: str) -> Tensor:
    return torch.from_numpy(np.load(FOLDER / "golden_tiny_256.npz")[name])
