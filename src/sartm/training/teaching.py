"""Teachers: what says, beside the labels or in their place, which class a pixel should have.

A teacher is any function from a batch to class shares, so that a network of another kind can be
one; `train --teacher` makes one of a SARTM, or of several, whose shares are averaged. It sees what
the data has of a pair, also a modality that the student has to do without.
"""

import logging
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from sartm.config import ModelConfig
from sartm.errors import InputError
from sartm.inference.schedule import prepare_network
from sartm.model.facts import ModelFacts, describe_terms
from sartm.model.loading import load_for_training
from sartm.model.sartm import SARTM
from sartm.training.augmentation import Batch

log = logging.getLogger("sartm")

Teacher = Callable[[Batch], Tensor]
"""A batch on its device to (B, K, h', w') class shares over the crop, without gradient."""


def load_teachers(
    sources: Sequence[str], student: ModelConfig, device: torch.device
) -> tuple[Teacher, list[ModelFacts]]:
    """One teacher of several SARTMs: the mean of their class shares, at the size of the first's.

    Args and errors are those of `load_teacher`. Also returns where each one's weights come from.
    """
    loaded = [load_teacher(source, student, device) for source in sources]
    teachers = [teacher for teacher, _ in loaded]

    def mean(batch: Batch) -> Tensor:
        first, *others = (teacher(batch) for teacher in teachers)
        size = first.shape[2:]
        for shares in others:
            first = first + F.interpolate(shares, size, mode="bilinear")
        return first / len(teachers)

    facts = [known for _, known in loaded if known is not None]
    for known in facts:
        log.info("taught by %s%s", known.name, describe_terms(known))
    return teachers[0] if len(teachers) == 1 else mean, facts


def load_teacher(
    source: str, student: ModelConfig, device: torch.device
) -> tuple[Teacher, ModelFacts | None]:
    """A SARTM as the teacher of another one.

    Args:
        source: anything with weights that `load` takes.
        student: whose classes and thermal rule it must share.
        device: where batches are.

    Returns the teacher, and where its weights come from: what it was trained on is passed on.

    Raises:
        InputError: a model of other classes or another thermal rule, none with weights, or the
            authors' weights, whose own arithmetic is not that of a SARTM.
    """
    model = load_for_training(source, classes=student.classes)
    theirs = model.config
    if theirs.fusion.norm == "batch":
        raise InputError(
            f"the teacher {source} are released weights, which compute otherwise here than where "
            f"they were trained; train on them first: sartm train --init"
        )
    if theirs.classes.names != student.classes.names:
        raise InputError(
            f"the teacher {source} tells {', '.join(theirs.classes.names)} apart, the data "
            f"{', '.join(student.classes.names)}; a teacher needs the same classes"
        )
    rules = [(rule.rule, rule.low, rule.high) for rule in (theirs.thermal, student.thermal)]
    if rules[0] != rules[1]:
        raise InputError(
            f"the teacher {source} reads thermal by {rules[0]}, this run by {rules[1]}; train both "
            f"with the same --set model.thermal"
        )
    network = prepare_network(model, device)
    return lambda batch: _shares(network, batch, theirs.scale / student.scale), model.facts


@torch.no_grad()
def _shares(model: SARTM, batch: Batch, factor: float) -> Tensor:
    """Class shares by the output the model predicts with, at the size it works at."""
    rgb, thermal = batch.rgb, batch.thermal
    if factor != 1:  # crops have the student's working size
        size = [round(factor * side) for side in rgb.shape[2:]]
        rgb, thermal = (F.interpolate(x, size, mode="bilinear") for x in (rgb, thermal))
    wanted = model.config.output
    given = batch.given_rgb, batch.given_thermal
    output = model(rgb, thermal, *given, auxiliary=wanted != "decoder")
    logits = output.logits
    if output.auxiliary is not None:
        logits = output.auxiliary if wanted == "auxiliary" else (logits + output.auxiliary) / 2
    # multiples of 32 may reach below and to the right of the crop
    height, width = (-(-side // 4) for side in rgb.shape[2:])
    return torch.softmax(logits[..., :height, :width].float(), 1)
