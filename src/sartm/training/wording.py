"""The words of a run whose classes are their words: vectors, from an encoder or from before."""

from dataclasses import replace

import torch
from torch import Tensor

from sartm.classes import Classes
from sartm.errors import InputError
from sartm.language import WordVectors, word_vectors
from sartm.model.sartm import SARTM
from sartm.spaces import text_of
from sartm.training.runs import Checkpoint
from sartm.training.settings import TrainConfig

KEY = "model/words.vectors"
"""Of the vectors among a checkpoint's tensors."""


def texts_of(classes: Classes) -> tuple[str, ...]:
    """What a text encoder reads of every class but the rest; no two of them alike."""
    texts = [text_of(classes, index) for index in range(len(classes)) if index != classes.rest]
    double = [text for text in texts if texts.count(text) > 1]
    if double:
        raise InputError(
            f"two classes have the word {double[0]!r}; a model of words could not tell them apart. "
            f"Give each its own among the prompts in dataset.toml"
        )
    return tuple(texts)


def resolve_words(
    config: TrainConfig, checkpoint: Checkpoint | None, source: SARTM | None
) -> tuple[TrainConfig, Tensor | None]:
    """The configuration with encoder and size of the words' vectors, and these (V, E).

    They are those of the checkpoint, else made anew. None where classes are fixed.

    Raises InputError for words without a vector, two classes of one word, or a model to start from
    whose words have vectors of another encoder.
    """
    if config.model.classes_from == "fixed":
        return config, None
    texts = texts_of(config.model.classes)
    if checkpoint is not None and KEY in checkpoint.tensors:
        vectors, encoder = checkpoint.tensors[KEY], str(checkpoint.state.get("words", ""))
    else:
        found: WordVectors = word_vectors(
            texts, config.text_encoder, centre=config.model.words.centre
        )
        vectors, encoder = torch.from_numpy(found.values), found.encoder
    if source is not None and source.words is not None and source.config.words.encoder != encoder:
        raise InputError(
            f"the model to start from knows words by {source.config.words.encoder}, this run by "
            f"{encoder}; name the same --text-encoder"
        )
    words = replace(config.model.words, encoder=encoder, size=vectors.shape[1])
    return replace(config, model=replace(config.model, words=words)), vectors
