"""Complete training configurations, one function each; `--set` overrides any value in them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sartm.classes import FMB, MFNET, PST900, Classes
from sartm.config import DecoderConfig, LoRAConfig, ModelConfig, from_dict, to_dict
from sartm.errors import InputError
from sartm.files import read_json
from sartm.model.facts import as_trained
from sartm.training.settings import AugmentationConfig, LossConfig, OptimConfig, TrainConfig

MAY_CHANGE = frozenset(
    {"data", "pooled", "unlabelled", "workers", "keep", "checkpoint_every", "pictures",
     "tensorboard", "activation_checkpointing", "shard"}
)  # fmt: skip
"""What a run that is resumed may have otherwise than before: where its data lies now, and what
does not change the weights."""


def find_changes(before: object, now: object) -> list[str]:
    """Settings that differ and matter to a run that is resumed, as "optim.lr was 0.1, now 0.2"."""
    return [
        f"{name} was {json.dumps(was)}, now {json.dumps(now_is)}"
        for name, was, now_is in _compare("", to_dict(before), to_dict(now))
        if name not in MAY_CHANGE
    ]


def _compare(name: str, before: Any, now: Any) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in before:
            yield from _compare(f"{name}.{key}".lstrip("."), before[key], now[key])
    elif before != now:
        yield name, before, now


def mini(classes: Classes = MFNET) -> TrainConfig:
    """4.7 M parameters at half of the images' size: for CPUs and small sets.

    The trunk knows ImageNet. How long it takes follows from the number of pairs and the time. It
    starts from the bundled `mini-synthetic`, for whatever classes; to start from EfficientNet-Lite0
    alone: init= and encoder=FILE.
    """
    return TrainConfig(
        recipe="mini",
        model=ModelConfig(
            classes=classes,
            size="lite",
            width=128,
            decoder=DecoderConfig(heads=4, mlp_dim=256),
            # everything learns: the adapters only have to tell the modalities apart
            lora=LoRAConfig(rank=4, alpha=4.0),
            frozen_encoder=False,
            scale=0.5,
        ),
        optim=OptimConfig(
            lr=1e-3,
            encoder=0.3,
            weight_decay=0.05,
            epochs=0,
            batch_size=4,
            clip=1.0,
            ema=0.997,
        ),
        # language costs a trunk that learns most of what it knows (docs/decisions/0008)
        loss=LossConfig(language=0.0, lovasz=1.0, every=2),
        augmentation=AugmentationConfig(
            crop=(192, 288),
            fit_crop=True,
            scale=(0.6, 1.3),
            rare_crop=0.5,
            colour=0.5,
            darken=0.1,
            blur=0.1,
            noise=0.1,
            thermal=0.5,
            invert=0.0,
            dead_columns=0.0,
            mix=0.5,
            drop_rgb=0.1,
            drop_thermal=0.1,
        ),
        init="mini-synthetic",
        validate_every=None,
    )


def _paper(name: str, classes: Classes, crop: int) -> TrainConfig:
    """The paper's settings: SAM 2 base_plus, 500 epochs, batch 8, AdamW 1e-4."""
    return TrainConfig(
        recipe=name,
        model=ModelConfig(classes=classes, size="base_plus"),
        optim=OptimConfig(),
        loss=LossConfig(),
        augmentation=AugmentationConfig(crop=(crop, crop)),
        encoder="facebook/sam2-hiera-base-plus",
    )


def mfnet() -> TrainConfig:
    """MFNet on 800x800 crops."""
    return _paper("mfnet", MFNET, 800)


def pst900() -> TrainConfig:
    """PST900 on 1280x1280 crops; the paper reports 89.88."""
    return _paper("pst900", PST900, 1280)


def fmb() -> TrainConfig:
    """FMB on 800x800 crops."""
    return _paper("fmb", FMB, 800)


RECIPES = {"mini": mini, "mfnet": mfnet, "pst900": pst900, "fmb": fmb}


def load_recipe(name: str | Path) -> TrainConfig:
    """A recipe by name, or the config.json of a run."""
    if isinstance(name, str) and name in RECIPES:
        return RECIPES[name]()
    path = Path(name)
    if path.is_dir():
        path = path / "config.json"
    if not path.is_file():
        raise InputError(
            f"no recipe {str(name)!r}; choose one of {', '.join(RECIPES)}, or give a run's "
            f"config.json"
        )
    values = read_json(path)
    if "model" in values:  # of a run that an older sartm began: it goes on as it was
        values["model"] = as_trained(values["model"])
    if isinstance(values.get("teacher"), str):  # there was one at most
        values["teacher"] = [values["teacher"]] if values["teacher"] else []
    return from_dict(TrainConfig, values, "config")
