"""What a model folder says about itself: where it comes from and how it is built."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from sartm.config import ModelConfig

FORMAT = 2
"""Raised when an older sartm could not read what this one writes. 2: `ModelConfig.no_mem_embed`
and `classes_from`."""


def as_trained(model: Any) -> Any:
    """The table `model` of an older file with the arithmetic that was the only one then."""
    return {"no_mem_embed": "fusion"} | model if isinstance(model, dict) else model


@dataclass(frozen=True)
class ModelFacts:
    """Where a model comes from; travels with its weights and makes its card."""

    name: str = ""
    data: tuple[str, ...] = ()
    """Data sets it was trained on, those of the models it started from first."""
    selected_on: str | None = None
    """Split the checkpoint was chosen on; None when nothing was chosen."""
    licence: str = ""
    """What is known about using the weights; empty says what follows from the origin."""
    command: str = ""
    seed: int = 0
    steps: int = 0
    """Optimizer steps; 0: the heads were never trained."""
    results: dict[str, Any] = field(default_factory=dict)
    """Scores on the split `selected_on`, in percent."""
    calibrated_on: tuple[str, ...] = ()
    """Data sets and splits that the confidence was fitted on."""
    training_images: dict[str, str] = field(default_factory=dict)
    """Name of each training pair to the SHA-256 of its pixels, inherited ones too."""
    text: dict[str, Any] | None = None
    """Text table the classes were related by: {encoder, prompts, cosines}."""
    encoder: str = ""
    """File, folder or hub id of the SAM 2 (or EfficientNet-Lite0) weights that the encoder started
    from; empty: trained here."""
    encoder_sha256: str = ""
    """Of trunk and neck without adapters; see `hash_encoder`."""
    recipe: dict[str, Any] = field(default_factory=dict)
    """The whole training configuration."""

    @cached_property
    def training_hashes(self) -> frozenset[str]:
        """The values of `training_images`, to look one up at once."""
        return frozenset(self.training_images.values())


def inherit_licence(
    start: ModelFacts | None, teachers: Sequence[ModelFacts], names: Sequence[str]
) -> str:
    """Of what was started from, of what taught, and of the data since; "" leaves it to the card."""
    starts = [] if start is None else [start]
    said = [
        f"{how} {facts.name}: {facts.licence}"
        for how, models in (("Started from", starts), ("Taught by", teachers))
        for facts in models
        if facts.licence
    ]
    if not said:
        return ""
    return f"{' '.join(said)} Then trained on {', '.join(names)}, whose terms apply too."


def describe_terms(facts: ModelFacts | None) -> str:
    """What a model's licence means for what is trained from it, to end a line with; may be ""."""
    if facts is None or not facts.licence:
        return ""
    first = facts.licence.split(". ")[0].rstrip(".")
    return f". Its terms go on to what is trained from it: {first}"


@dataclass(frozen=True)
class ModelFile:
    """config.json: everything needed to build the model again, apart from its weights."""

    format: int
    sartm: str
    """Version that wrote it."""
    weights: Literal["full", "adapters"]
    """`adapters` lacks the encoder that `facts.encoder` names."""
    model: ModelConfig
    facts: ModelFacts
    kind: Literal["sartm", "released"] = "sartm"
    """`released` computes as the authors' code does; its canvas is `model.fusion.crop`."""
