"""Classes from their words: mask tokens and filters computed from text vectors by shared weights.

Shapes: V words that the model was trained on, E numbers of a word's vector, K classes: the words
and perhaps a rest, which no word describes and which is learned; G guests, words chosen later.
"""

import copy

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from sartm.config import WordsConfig
from sartm.errors import InputError
from sartm.language import word_vectors
from sartm.model.hiera import MLP
from sartm.vocabulary import SENTENCE_ENCODER


class Words(nn.Module):
    """What the decoder and the auxiliary head know of the classes."""

    vectors: Tensor
    guests: Tensor

    def __init__(self, classes: int, rest: int | None, width: int, config: WordsConfig) -> None:
        """Set up `classes` of which the one with id `rest`, if any, is no word."""
        super().__init__()
        count = classes if rest is None else classes - 1
        self.rest = rest
        self.register_buffer("vectors", torch.zeros(count, config.size))
        # on the CPU by name: in no file, so a model built on the meta device has them too
        guests = torch.zeros(0, config.size, device="cpu")
        self.register_buffer("guests", guests, persistent=False)
        self.token = nn.Embedding(1, width)
        self.filter_bias = nn.Parameter(torch.zeros(1))
        self.to_token = _map(config, width)
        self.to_filter = _map(config, width)
        if rest is not None:
            self.rest_token = nn.Embedding(1, width)
            self.rest_filter = nn.Parameter(torch.randn(1, width))
        self.adapted = config.adapted
        if config.adapted:
            self.token_offset = nn.Parameter(torch.zeros(count, width))
            self.filter_offset = nn.Parameter(torch.zeros(count, width))

    def tokens(self) -> Tensor:
        """(K + G, D) mask tokens, q_0 + f(t_v)."""
        known, new = self._of_words(self.to_token)
        if self.adapted:
            known = known + self.token_offset
        rest = None if self.rest is None else self.rest_token.weight
        return self._with_rest(known + self.token.weight, rest, new + self.token.weight)

    def filters(self) -> Tensor:
        """(K + G, D) what the auxiliary head multiplies a pixel's embedding by."""
        known, new = self._of_words(self.to_filter)
        if self.adapted:
            known = known + self.filter_offset
        return self._with_rest(known, None if self.rest is None else self.rest_filter, new)

    def with_guests(self, vectors: Tensor) -> "Words":
        """The same weights for further words, (G, E) vectors."""
        other = copy.copy(self)
        other._buffers = {**self._buffers, "guests": vectors}
        return other

    def _of_words(self, network: nn.Module) -> tuple[Tensor, Tensor]:
        """(V, D) of the trained words and (G, D) of the guests."""
        # apart, so that what is computed of one word does not depend on how many others there are
        return network(self.vectors), network(self.guests)

    def _with_rest(self, known: Tensor, rest: Tensor | None, new: Tensor) -> Tensor:
        if rest is None:
            return torch.cat([known, new])
        return torch.cat([known[: self.rest], rest, known[self.rest :], new])


def _map(config: WordsConfig, width: int) -> nn.Module:
    """E numbers of a word to D, that begin as far apart as drawn ones: its vector has length 1."""
    if config.map == "linear":
        linear = nn.Linear(config.size, width)
        nn.init.normal_(linear.weight)
        nn.init.zeros_(linear.bias)
        return linear
    network = MLP((config.size, width, width), nn.GELU())
    for layer, std in zip(network.layers, (1.0, 1.5 / width**0.5), strict=True):
        nn.init.normal_(layer.get_parameter("weight"), std=std)
    return network


class WordHead(nn.Module):
    """The auxiliary head of words: logit_v(x) = <g(t_v), e(x)> + b_0, e a 3x3 convolution.

    A word's filter and e are one convolution: e costs nothing beside it.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embed = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor, words: Words) -> Tensor:
        """(B, D, h, w) to (B, K + G, h, w) logits."""
        filters = words.filters() / self.embed.out_channels**0.5
        kernel = torch.einsum("kd,dchw->kchw", filters, self.embed.weight)
        assert self.embed.bias is not None
        bias = filters @ self.embed.bias + words.filter_bias
        return F.conv2d(x, kernel, bias, padding=1)


def vectors_for(
    config: WordsConfig, words: tuple[str, ...], text_encoder: str = ""
) -> NDArray[np.float32]:
    """(n, E) vectors of further words for a model with these settings.

    Raises InputError for words without a vector, or an encoder that is not the model's.
    """
    if not text_encoder and config.encoder != SENTENCE_ENCODER:
        raise InputError(
            f"the model's words have vectors of {config.encoder}; for {', '.join(words[:5])} name "
            f"it: --text-encoder"
        )
    found = word_vectors(words, text_encoder, centre=config.centre)
    if found.encoder != config.encoder or found.values.shape[1] != config.size:
        raise InputError(
            f"the model's words have vectors of {config.encoder}, not of {found.encoder}; name that"
            f" one with --text-encoder"
        )
    return found.values
