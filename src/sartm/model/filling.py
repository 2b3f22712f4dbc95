"""A model without storage, and weights into it: all that fit, or none."""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from sartm.config import ModelConfig
from sartm.errors import InputError
from sartm.model.released import Released
from sartm.model.sartm import SARTM
from sartm.model.sources import IGNORED, Weights, is_sam2, is_trunk, read_weights

log = logging.getLogger("sartm")


def build(config: ModelConfig, where: str, kind: str = "sartm") -> SARTM:
    """The model of `config` without storage (on the meta device), for `fill`.

    Building costs nothing, so a config.json that lies about its weights is found out before any
    memory is taken.
    """
    if not 1 <= config.decoder.depth <= 64:
        raise InputError(f"{where}: decoder.depth is {config.decoder.depth}, expected 1 to 64")
    try:
        with torch.device("meta"), _WithoutNumbers():
            return Released(config) if kind == "released" else SARTM(config)
    except InputError:
        raise
    except (RuntimeError, ValueError, TypeError, ArithmeticError) as error:
        raise InputError(f"{where} describes no model that can be built: {error}") from None


class _WithoutNumbers(TorchFunctionMode):
    """No normal random numbers: on the meta device torch loads sympy for them, which takes seconds.

    Nobody would read them; `fill` follows.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        options = kwargs or {}
        if func in (Tensor.normal_, nn.init.normal_):
            return options["tensor"] if "tensor" in options else args[0]
        return (torch.empty if func is torch.randn else func)(*args, **options)


def fill(model: torch.nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Give a model all its weights, or raise InputError and leave it as it is.

    Args:
        model: its parameters may lie on the meta device.
        tensors: its whole state dict, floating point of any precision; copied.
        where: file the tensors come from, for the message.
    """
    state = model.state_dict()
    require_same_keys(state, tensors, where)
    require_sound(tensors, where)
    plain = torch.contiguous_format
    ready = {
        key: tensors[key].detach().to(value.dtype, copy=True, memory_format=plain)
        for key, value in state.items()
    }
    model.load_state_dict(ready, assign=True)


def require_same_keys(
    expected: Mapping[str, Tensor], found: Mapping[str, Tensor], where: str
) -> None:
    """Raise InputError with a readable difference unless names, shapes and kinds are the same."""
    missing = [key for key in expected if key not in found]
    unexpected = [key for key in found if key not in expected]
    changed = [
        f"{key} is {_describe(found[key])}, expected {_describe(expected[key])}"
        for key in expected
        if key in found and _describe(found[key]) != _describe(expected[key])
    ]
    parts = [
        f"{len(keys)} {word}: {', '.join(keys[:5])}{', ...' if len(keys) > 5 else ''}"
        for word, keys in (("missing", missing), ("unexpected", unexpected), ("differ", changed))
        if keys
    ]
    if parts:
        raise InputError(f"{where} does not fit the model. {'; '.join(parts)}")


def _describe(tensor: Tensor) -> str:
    """Shape, and whether numbers are real or whole; precision may differ."""
    kind = "" if tensor.is_floating_point() else f" {str(tensor.dtype).removeprefix('torch.')}"
    return ("x".join(map(str, tensor.shape)) or "one number") + kind


def require_sound(tensors: Mapping[str, Tensor], where: str) -> None:
    """Raise InputError if a weight is NaN or infinite."""
    bad = [
        key
        for key, value in tensors.items()
        if value.is_floating_point() and not bool(torch.isfinite(value.float()).all())
    ]
    if bad:
        raise InputError(
            f"{where} holds NaN or infinite weights in {len(bad)} tensors ({', '.join(bad[:5])}): "
            f"the training diverged or the file is damaged; take another checkpoint"
        )


@dataclass(frozen=True)
class Loaded:
    """Which weights of a model come from a file and which do not; the names, in order."""

    loaded: tuple[str, ...]
    new: tuple[str, ...]
    """Of the model, not in the file: adapters, fusion, heads, one token per class."""
    ignored: tuple[str, ...]
    """In the file, not in the model: memory modules, heads that are not built, other tokens."""


def load_encoder(model: SARTM, source: str | Path) -> Loaded:
    """Fill a model with SAM 2: trunk, neck, codes and decoder. What is per class stays new.

    EfficientNet-Lite0 fills the trunk only.

    Args:
        model: of the same size; changed only if everything fits.
        source: Meta's .pt, a folder or id of the hub; or EfficientNet-Lite0's .pth.

    Raises:
        InputError: as `read_weights`; another size; weights that SAM 2 does not have, or that are
            missing, of another shape, NaN or infinite.
    """
    loaded = fill_encoder(model, read_weights(source))
    model.encoder_source = str(source)
    return loaded


def fill_encoder(model: SARTM, weights: Weights) -> Loaded:
    """`load_encoder` for weights that are read already."""
    wanted, found = match_encoder(model, weights)
    require_sound(found, weights.where)
    with torch.no_grad():
        for key, value in wanted.items():
            value.copy_(found[key])
    loaded = Loaded(
        loaded=tuple(wanted),
        new=tuple(key for key in model.state_dict() if key not in wanted),
        ignored=tuple(key for key in weights.tensors if key not in wanted),
    )
    log.info(
        "%s is %s %s: %d weights loaded; %d new: %s; %d ignored: %s",
        weights.where,
        weights.kind,
        weights.size,
        len(loaded.loaded),
        len(loaded.new),
        summarise(loaded.new),
        len(loaded.ignored),
        summarise(loaded.ignored),
    )
    log.debug("loaded: %s", ", ".join(loaded.loaded))
    return loaded


def match_encoder(model: SARTM, weights: Weights) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What of a model is filled from these weights and with what, by name; nothing is copied yet.

    Raises InputError as `load_encoder`, but for values.
    """
    where = weights.where
    if weights.kind == "released":
        raise InputError(
            f"{where} is a released SARTM, not SAM 2; sartm train RECIPE --init starts from it"
        )
    if weights.size != model.config.size:
        raise InputError(
            f"{where} is {weights.kind} {weights.size} but the model is {model.config.size}; "
            f"sartm train RECIPE --set model.size={weights.size}, or take weights of the other size"
        )
    state = model.state_dict()
    known = is_trunk if weights.kind == "EfficientNet" else is_sam2
    wanted = {key: value for key, value in state.items() if known(key)}
    found = {key: v for key, v in weights.tensors.items() if not key.startswith(IGNORED)}
    require_same_keys(wanted, found, where)
    return wanted, found


def summarise(keys: Iterable[str]) -> str:
    """Names with their last parts, block numbers and counts folded away; none is left out."""
    counts: dict[str, int] = {}
    for key in keys:
        group = ".".join(key.split(".")[:2])
        if ".lora_" in key:
            group = "image_encoder.*.lora_*"
        counts[group] = counts.get(group, 0) + 1
    return ", ".join(f"{group} ({count})" for group, count in counts.items()) or "none"
