"""Complete training configurations, one function each; `--set` overrides any value in them."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sartm.classes import FMB, MFNET, PST900, Classes
from sartm.config import (
    DecoderConfig,
    FusionConfig,
    LoRAConfig,
    ModelConfig,
    from_dict,
    to_dict,
)
from sartm.errors import InputError
from sartm.training.augmentation import AugmentationConfig
from sartm.training.losses import LossConfig


@dataclass(frozen=True)
class OptimConfig:
    """AdamW with linear warm-up from a tenth and polynomial decay."""

    lr: float = 1e-4
    weight_decay: float = 0.01
    """Not on tensors of one dimension."""
    epochs: int = 500
    warmup_epochs: float = 10
    power: float = 0.9
    batch_size: int = 8
    """Pairs per process and forward pass."""
    accumulate: int = 1
    """Forward passes per optimizer step."""
    encoder: float = 1.0
    """Factor on the rate of the trunk, its adapters aside."""
    clip: float = 0.0
    """Largest gradient norm; 0 does not clip."""
    ema: float = 0.0
    """Decay of the running mean of the weights, which is what is validated and kept; 0: none."""


@dataclass(frozen=True)
class TrainConfig:
    """A run, complete: the same file and seed give the same numbers."""

    recipe: str
    model: ModelConfig
    optim: OptimConfig
    loss: LossConfig
    augmentation: AugmentationConfig
    data: str = ""
    """Folder or dataset.toml; given with --data."""
    init: str = ""
    """Model to start from; empty starts at random, or from `encoder`."""
    encoder: str = ""
    """SAM 2 weights for trunk, neck and decoder, or EfficientNet-Lite0 for the trunk of `lite`: a
    file, folder or hub id. Not read where `init` names a model."""
    teacher: str = ""
    """Model of the same classes, larger as a rule, whose class shares are learned beside the
    labels, as `loss.distil` weighs them."""
    unlabelled: tuple[str, ...] = ()
    """Data sets that only the teacher speaks about: their train splits, labels unused. One modality
    is enough."""
    unlabelled_share: float = 0.5
    """Of every batch, where there are unlabelled pairs."""
    text_encoder: str = ""
    """For class names that no bundled table holds."""
    thermal: Literal["auto", "fixed"] = "auto"
    """`auto` measures mean and deviation of thermal on the training split, and takes the
    percentile rule for data of more than 8 bits; `fixed` keeps what `model.thermal` says."""
    seed: int = 0
    workers: int = 2
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    activation_checkpointing: bool = False
    validate_every: int = 1
    """Epochs between validations."""
    val_share: float = 0.1
    """Share of the training pairs held out for validation where a data set has no val split."""
    checkpoint_every: int = 200
    """Optimizer steps between checkpoints."""
    keep: int = 2
    """Checkpoints kept, the newest."""
    pictures: int = 4
    """Validation pairs drawn at every validation, always the same ones."""
    tensorboard: bool = False
    """Also write TensorBoard events, to the run's folder `tensorboard`."""

    def __post_init__(self) -> None:
        if not 0 < self.unlabelled_share < 1:
            raise InputError(
                f"unlabelled_share is a share of the batch between 0 and 1, found "
                f"{self.unlabelled_share:g}"
            )


MAY_CHANGE = frozenset(
    {"data", "unlabelled", "workers", "keep", "checkpoint_every", "pictures",
     "tensorboard", "activation_checkpointing"}
)  # fmt: skip
"""What a run that is resumed may have otherwise than before: where its data lies now, and what
does not change the weights."""


def find_changes(before: TrainConfig, now: TrainConfig) -> list[str]:
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

    The trunk knows ImageNet. It starts from the bundled model of this name, for whatever classes;
    to start from EfficientNet-Lite0 alone: init= and encoder=FILE.
    """
    crop = (192, 288)
    return TrainConfig(
        recipe="mini",
        model=ModelConfig(
            classes=classes,
            size="lite",
            width=128,
            decoder=DecoderConfig(heads=4, mlp_dim=256),
            # everything learns: the adapters only have to tell the modalities apart
            lora=LoRAConfig(rank=4, alpha=4.0),
            fusion=FusionConfig(crop=crop),
            frozen_encoder=False,
            output="blend",
            scale=0.5,
        ),
        optim=OptimConfig(
            lr=1e-3,
            encoder=0.3,
            weight_decay=0.05,
            epochs=20,
            warmup_epochs=1,
            batch_size=4,
            clip=1.0,
            ema=0.997,
        ),
        # language costs a trunk that learns most of what it knows (docs/decisions/0008)
        loss=LossConfig(language=0.0, lovasz=1.0, every=2),
        augmentation=AugmentationConfig(
            crop=crop,
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
        init="mini",
        validate_every=4,
    )


def _paper(name: str, classes: Classes, crop: int) -> TrainConfig:
    """The paper's settings: SAM 2 base_plus, 500 epochs, batch 8, AdamW 1e-4; CMKD at the released
    temperature, since a sharper one costs (docs/decisions/0009)."""
    return TrainConfig(
        recipe=name,
        model=ModelConfig(
            classes=classes, size="base_plus", fusion=FusionConfig(crop=(crop, crop))
        ),
        optim=OptimConfig(),
        loss=LossConfig(tau=1.0),
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


def load_recipe(name: str) -> TrainConfig:
    """A recipe by name, or the config.json of a run."""
    if name in RECIPES:
        return RECIPES[name]()
    path = Path(name)
    if path.is_dir():
        path = path / "config.json"
    if not path.is_file():
        raise InputError(
            f"no recipe {name!r}; choose one of {', '.join(RECIPES)}, or give a run's config.json"
        )
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read the run's configuration {path}: {error}") from None
    return from_dict(TrainConfig, values, "config")
